"""
Recorded sessions of the Go reference; C{vectors/README.md} describes them.
"""

from __future__ import annotations

import json
from base64 import b64decode
from hashlib import blake2b
from pathlib import Path

from gomux._wire.crypto import Opener, deriveKey
from gomux._wire.frame import Frame, FrameParser

VECTORS = Path(__file__).parent.parent / "vectors"
SIDES = ("client", "server")


class Session:
    """
    A recorded session.

    @ivar writes: all writes in order: the side that wrote, and the bytes.
    """

    def __init__(self, path: Path) -> None:
        recorded = json.loads(path.read_text())
        self.name = path.stem.partition("-")[2]
        self.psk: str = recorded["psk"]
        self.about: str = recorded["about"]
        self.writes: list[tuple[str, bytes]] = [
            (write["from"], b64decode(write["data"])) for write in recorded["writes"]
        ]

    def bytesOf(self, side: str) -> bytes:
        """
        @return: everything that one side wrote.
        """
        return b"".join(data for writer, data in self.writes if writer == side)

    def framesOf(self, side: str) -> list[Frame]:
        return parse(self.psk, [self.bytesOf(side)])


def sessions() -> list[Session]:
    return [Session(path) for path in sorted(VECTORS.glob("session-*.json"))]


def session(name: str) -> Session:
    return Session(VECTORS / f"session-{name}.json")


def keyOf(psk: str) -> bytes:
    """
    @return: the key for a pre-shared key.  As in the reference, the latter may be
        empty.
    """
    return deriveKey(psk) if psk else blake2b(digest_size=32).digest()


def parse(psk: str, pieces: list[bytes]) -> list[Frame]:
    """
    @return: the frames in some bytes.  The pieces may end anywhere in a frame.
    """
    parser = FrameParser(Opener(keyOf(psk)))
    frames = []
    for piece in pieces:
        parser.receive(piece)
        while (frame := parser.nextFrame()) is not None:
            frames.append(frame)
    assert parser.pending == 0
    return frames
