# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Computes the test vectors of strict mode from C{docs/strict.rst}.

This module shares no code with the package.  Run as a program, it prints the contents
of C{vectors/strict.json}.
"""

import json
from hashlib import blake2b
from struct import pack

from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as encrypt

CASES = [
    {
        "about": "no context",
        "psk": b"correct horse battery staple",
        "context": b"",
        "clientSalt": bytes(range(16)),
        "serverSalt": bytes(range(0xF0, 0x100)),
    },
    {
        "about": "a context, and a pre-shared key that is not ASCII",
        "psk": "Schlüssel für Zürich".encode(),
        "context": b"example.org/backup",
        "clientSalt": b"\xff" * 16,
        "serverSalt": bytes(16),
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
    return header + encrypt(payload, header, header[12:], key)


def compute(
    about: str, psk: bytes, context: bytes, clientSalt: bytes, serverSalt: bytes
) -> dict[str, str | list[str]]:
    key = blake2b(psk, digest_size=32).digest()
    strictKey = blake2b(
        b"", key=key, digest_size=32, person=b"gomux strict key"
    ).digest()
    helloID = 0x01584D47
    clientHello = frame(key, clientSalt, 0, helloID, 1, 1)
    serverHello = frame(key, serverSalt, 0, helloID, 2, 1)
    transcript = blake2b(
        clientHello[:36] + serverHello[:36] + context,
        digest_size=32,
        person=b"gomux transcript",
    ).digest()
    client = blake2b(b"\x01" + transcript, key=strictKey, digest_size=16).digest()
    server = blake2b(b"\x02" + transcript, key=strictKey, digest_size=16).digest()
    return {
        "about": about,
        "psk": psk.hex(),
        "context": context.hex(),
        "clientSalt": clientSalt.hex(),
        "serverSalt": serverSalt.hex(),
        "key": key.hex(),
        "strictKey": strictKey.hex(),
        "transcript": transcript.hex(),
        "clientPrefix": client.hex(),
        "serverPrefix": server.hex(),
        "clientHello": clientHello.hex(),
        "serverHello": serverHello.hex(),
        "clientConfirmation": frame(key, client, 0, 0, 0, 1).hex(),
        "serverConfirmation": frame(key, server, 0, 0, 0, 1).hex(),
        # OpenStream 0, Data on it, CloseMux.
        "clientFrames": [
            frame(key, client, 1, 0, 0, 2).hex(),
            frame(key, client, 2, 0, 5, 0, b"hello").hex(),
            frame(key, client, 3, 0, 0, 7).hex(),
        ],
        # Data on stream 0, CloseStream.
        "serverFrames": [
            frame(key, server, 1, 0, 5, 0, b"world").hex(),
            frame(key, server, 2, 0, 0, 5).hex(),
        ],
    }


def vectors() -> list[dict[str, str | list[str]]]:
    return [compute(**case) for case in CASES]  # type: ignore[arg-type]


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
