# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Computes the test vectors of strict mode from C{docs/strict.rst}.

This module shares no code with the package.  Run as a program, it prints the contents
of C{vectors/strict.json}.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from hmac import digest as hmac
from struct import pack
from typing import Any

from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_encrypt as chachapoly,
)
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_encrypt as xchachapoly,
)
from nacl.bindings import crypto_scalarmult as x25519
from nacl.bindings import crypto_scalarmult_base as publicKey

HELLO_ID = 0x02584D47

CASES: list[dict[str, Any]] = [
    {
        "about": "no context",
        "psk": b"correct horse battery staple",
        "context": b"",
        "clientPrefix": bytes(range(16)),
        "serverPrefix": bytes(range(0xF0, 0x100)),
        "clientPrivate": bytes(range(32)),
        "serverPrivate": bytes(range(0x80, 0xA0)),
        "clientTime": 1795000000,
        "serverTime": 1795000001,
    },
    {
        "about": "a context, and a pre-shared key that is not ASCII",
        "psk": "Schlüssel für Zürich".encode(),
        "context": b"example.org/backup",
        "clientPrefix": b"\xff" * 16,
        "serverPrefix": bytes(16),
        "clientPrivate": b"\x11" * 32,
        "serverPrivate": b"\x22" * 32,
        "clientTime": 0,
        "serverTime": 2**64 - 1,
    },
]


def frame(
    key: bytes,
    prefix: bytes,
    counter: int,
    streamID: int,
    length: int,
    flags: int,
    payload: bytes = b"",
) -> bytes:
    header = pack("<III16sQ", streamID, length, flags, prefix, counter)
    return header + xchachapoly(payload, header, header[12:], key)


def hash_(data: bytes) -> bytes:
    return blake2b(data).digest()


def hkdf(ck: bytes, x: bytes) -> tuple[bytes, bytes, bytes]:
    t = hmac(ck, x, blake2b)
    o1 = hmac(t, b"\x01", blake2b)
    o2 = hmac(t, o1 + b"\x02", blake2b)
    o3 = hmac(t, o2 + b"\x03", blake2b)
    return o1, o2, o3


def aead(k: bytes, ad: bytes, p: bytes) -> bytes:
    return chachapoly(p, ad, bytes(12), k)


def rekey(key: bytes) -> bytes:
    return chachapoly(bytes(32), b"", bytes(4) + b"\xff" * 8, key)[:32]


def noise(case: dict[str, Any], psk: bytes) -> dict[str, bytes]:
    """
    @return: the two messages, and the keys of the two directions.
    """
    context = case["context"]
    prologue = b"gomux strict mode\x02\x01\x02" + pack("<I", len(context)) + context
    ck = h = b"Noise_NNpsk0_25519_ChaChaPoly_BLAKE2b" + bytes(27)
    h = hash_(h + prologue)

    ck, temp, _ = hkdf(ck, psk)
    h = hash_(h + temp)
    ec = publicKey(case["clientPrivate"])
    h = hash_(h + ec)
    ck, k, _ = hkdf(ck, ec)
    c1 = aead(k[:32], h, pack("<IQ", 1, case["clientTime"]))
    h = hash_(h + c1)

    es = publicKey(case["serverPrivate"])
    h = hash_(h + es)
    ck, _, _ = hkdf(ck, es)
    ck, k, _ = hkdf(ck, x25519(case["clientPrivate"], es))
    c2 = aead(k[:32], h, pack("<IQ", 1, case["serverTime"]))

    k1, k2, _ = hkdf(ck, b"")
    return {
        "message1": ec + c1,
        "message2": es + c2,
        "clientKey": k1[:32],
        "serverKey": k2[:32],
    }


def shown(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def compute(case: dict[str, Any]) -> dict[str, Any]:
    key = blake2b(case["psk"], digest_size=32).digest()
    psk = blake2b(b"", key=key, digest_size=32, person=b"gomux strict psk").digest()
    agreed = noise(case, psk)
    pc, ps = case["clientPrefix"], case["serverPrefix"]
    kc, ks = agreed["clientKey"], agreed["serverKey"]
    found = {
        **case,
        "key": key,
        "noisePSK": psk,
        **agreed,
        "clientHello": frame(key, pc, 0, HELLO_ID, 60, 0, agreed["message1"]),
        "serverHello": frame(key, ps, 0, HELLO_ID, 60, 0, agreed["message2"]),
        "clientConfirmation": frame(kc, pc, 0, 0, 0, 1),
        "clientKey1": rekey(kc),
        "serverKey1": rekey(ks),
    }
    return {
        **{name: shown(value) for name, value in found.items()},
        # OpenStream 0, Data on it, a ping before any frame of the server.
        "clientFrames": [
            frame(kc, pc, 1, 0, 0, 2).hex(),
            frame(kc, pc, 2, 0, 5, 0, b"hello").hex(),
            frame(kc, pc, 3, 0xFFFFFFFF, 0, 1).hex(),
        ],
        # Data on stream 0, CloseStream.
        "serverFrames": [
            frame(ks, ps, 0, 0, 5, 0, b"world").hex(),
            frame(ks, ps, 1, 0, 0, 5).hex(),
        ],
        # The last frame under key 0, the first and the last under key 1, and the first
        # under key 2, each a Keepalive.
        "clientRekey": {
            "65535": frame(kc, pc, 65535, 0, 0, 1).hex(),
            "65536": frame(rekey(kc), pc, 65536, 0, 0, 1).hex(),
            "131071": frame(rekey(kc), pc, 131071, 0, 0, 1).hex(),
            "131072": frame(rekey(rekey(kc)), pc, 131072, 0, 0, 1).hex(),
        },
    }


def vectors() -> list[dict[str, Any]]:
    return [compute(case) for case in CASES]


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
