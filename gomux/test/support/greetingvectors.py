# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The test vectors of greetings and pings, computed from docs/protocol.rst.

This shares no code with the package.  Run as a program, it prints the contents of
C{vectors/greeting.json}.
"""

import json
from hashlib import blake2b
from struct import pack

from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as encrypt

PSK = b"correct horse battery staple"
CLIENT, SERVER = bytes(range(16)), bytes(range(0xF0, 0x100))


def frame(
    prefix: bytes,
    counter: int,
    streamID: int,
    length: int,
    flags: int,
    payload: bytes = b"",
) -> str:
    key = blake2b(PSK, digest_size=32).digest()
    header = pack("<III16sQ", streamID, length, flags, prefix, counter)
    return (header + encrypt(payload, header, header[12:], key)).hex()


def recorded(frames: list[tuple[str, str, str]]) -> dict[str, object]:
    """
    @param frames: the side that sends each frame, what it is about, and the frame.
    @return: these frames, and what they are sealed with.
    """
    return {
        "psk": PSK.hex(),
        "clientPrefix": CLIENT.hex(),
        "serverPrefix": SERVER.hex(),
        "frames": [
            {"from": side, "about": about, "frame": data}
            for side, about, data in frames
        ],
    }


def vectors() -> dict[str, object]:
    """
    @return: the frames of a mux in the order in which they are sent.
    """
    frames = [
        ("client", "greeting, with bit 0", frame(CLIENT, 0, 0, 1, 1)),
        ("server", "greeting, with bit 0", frame(SERVER, 0, 0, 1, 1)),
        ("client", "OpenStream 0", frame(CLIENT, 1, 0, 0, 2)),
        ("client", "5 bytes of data on it", frame(CLIENT, 2, 0, 5, 0, b"hello")),
        ("client", "ping: 0 came last", frame(CLIENT, 3, 0, 0, 1)),
        ("server", "its echo: 3 came last", frame(SERVER, 1, 3, 0, 1)),
        ("server", "ping: 3 came last", frame(SERVER, 2, 3, 0, 1)),
        ("client", "its echo: 2 came last", frame(CLIENT, 4, 2, 0, 1)),
        ("client", "CloseMux", frame(CLIENT, 5, 0, 0, 7)),
    ]
    return recorded(frames)


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
