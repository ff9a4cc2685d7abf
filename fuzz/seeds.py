"""
The fuzzer's first inputs, made from the recordings of the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack

from gomux._wire.frame import Flag, Frame
from gomux.test.support.fuzztargets import Script
from gomux.test.support.recordings import SIDES, Session, sessions

#: The most bytes of a seed.
SIZE = 2048


def seeds(target: str) -> Iterator[bytes]:
    """
    @return: the first inputs for a target.
    """
    make = {"parser": _bytes, "mux": _scripts}[target]
    for session in sessions():
        for side in SIDES:
            for seed in make(session, side):
                yield seed[:SIZE]


def _bytes(session: Session, side: str) -> Iterator[bytes]:
    """
    Generate the bytes that one side wrote, cut into pieces of different sizes.
    """
    written = session.bytesOf(side)
    yield bytes(8) + written
    yield b"\x33\x0f\xff\x00\x23\x10\x01\x80" + written


def _scripts(session: Session, side: str) -> Iterator[bytes]:
    """
    Generate scripts in which one side is the peer of a mux that opens the other side's
    streams.
    """
    if session.name == "wrongpsk":
        return
    other = SIDES[1 - SIDES.index(side)]
    opens = sum(frame[2] == Flag.OPEN_STREAM for frame in session.framesOf(other))
    steps = bytes([128 + Script.actions.index(Script.openStream), 0]) * min(opens, 8)
    steps += b"".join(map(_step, session.framesOf(side)))
    for strict in (0, 2):
        for behaviour in range(4):
            for kind in (0, 8 + 4):
                isClient = int(other == "client")
                yield bytes([kind + strict + isClient, behaviour]) + steps


def _step(frame: Frame) -> bytes:
    """
    Make the step of a script in which the peer sends a frame.
    """
    streamID, length, flag, _ = frame
    which = bytes([streamID]) if streamID < 0xF0 else b"\xff" + pack("<I", streamID)
    if flag not in (Flag.DATA, Flag.WINDOW_UPDATE):
        return bytes([flag]) + which
    if length > 65536:
        return bytes([flag + 16]) + which + pack("<HI", 0, length)
    if length == 65536:
        return bytes([flag + 8]) + which + pack("<H", 65535)
    return bytes([flag]) + which + pack("<H", length)
