# -*- test-case-name: gomux.test.wire.test_frame -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The frames of the gomux v1 wire: constants, and an incremental parser.

A frame is a 36-byte header in the clear and a sealed payload.  All integers
are little-endian::

    id: 4   length: 4   flags: 4   nonce: 24   sealed payload: n   tag: 16

The header is authenticated with the payload.  C{n} is C{length} in a Data
frame and 0 in every other.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Protocol

from gomux._fastpaths import fastPaths
from gomux._wire.crypto import NONCE_SIZE, TAG_SIZE
from gomux.error import ProtocolViolation


class Flag(IntEnum):
    """
    The kinds of frames.  The wire calls the field flags, but a frame has exactly one.

    L{CLOSE_READ} and L{CLOSE_WRITE} name the half that the I{receiver} of the
    frame must close: a side that has finished writing sends C{CLOSE_READ}.
    """

    DATA = 0
    KEEPALIVE = 1
    OPEN_STREAM = 2
    CLOSE_READ = 3
    CLOSE_WRITE = 4
    CLOSE_STREAM = 5
    WINDOW_UPDATE = 6
    CLOSE_MUX = 7


_fields = Struct("<III")
#: Returns the stream ID, length and flags of a header.
unpackFields = _fields.unpack_from

#: The size of a header in bytes, including the nonce.
HEADER_SIZE = _fields.size + NONCE_SIZE
#: The bytes of a frame on the wire besides its payload.
OVERHEAD = HEADER_SIZE + TAG_SIZE
#: The largest C{length} of any frame that is sent.
MAX_LENGTH = 65536
#: The most credit that is accepted in one WindowUpdate.  The reference sends this much
#: when its application reads into a large buffer, although it does not accept as much.
MAX_CREDIT = 131072

#: A received payload of up to this many bytes is copied before it is opened, and a
#: larger one is viewed.
COPIED = 2048

#: The stream ID of the Data frame that is the hello of strict mode: C{GMX}, then the
#: version in the fourth byte.
HELLO_ID = int.from_bytes(b"GMX\x02", "little")
#: The size of the payload of a hello, of any version.
HELLO_SIZE = 60
#: The bit in the C{length} of a greeting: all frames of this direction have the nonce
#: prefix of the greeting, and consecutive counters.
BOUND = 1
#: The C{length} of an OpenStream whose stream begins with a request.
REQUEST = 1
#: One past the largest stream ID.
ID_END = 1 << 32

# Plain integers: comparing with a member of an IntEnum costs a call.
_DATA = int(Flag.DATA)
_KEEPALIVE = int(Flag.KEEPALIVE)
_WINDOW_UPDATE = int(Flag.WINDOW_UPDATE)

#: A received frame: stream ID, length, flags, payload.
Frame = tuple[int, int, int, bytes]


def isBound(header: bytes) -> bool:
    """
    @param header: the header of the first frame of a direction.
    @return: whether the frame is a greeting that announces L{BOUND}.
    """
    streamID, length, flag = unpackFields(header)
    return flag == _KEEPALIVE and streamID == 0 and bool(length & BOUND)


class NotYet(Exception):
    """
    To open a frame takes longer than one turn of the reactor: offer the same frame
    again in a later turn.
    """


class FrameOpener(Protocol):
    """
    Opens the frames that L{FrameParser} finds.
    """

    def open(self, header: bytes, sealed: bytes | memoryview) -> bytes:
        """
        @return: the payload of a frame.
        @raise AuthenticationFailed: if the frame is not genuine.
        @raise NotYet: if it cannot tell in this turn of the reactor.
        """


class FrameParser:
    """
    Finds and opens the frames in bytes that arrive in pieces of any size.

    Give it each piece with L{receive}, then take frames with L{nextFrame} until it
    returns C{None}.  A frame that lies within one piece is opened in place.  Only a
    frame in several pieces is put together first, so no byte is copied more than once.

    @ivar _open: opens a frame.
    @ivar _piece: the piece that is being parsed.
    @ivar _offset: where in the piece the next frame begins.
    @ivar _start: the received part of a frame that began in an earlier piece.
    @ivar _inPlace: whether frames are opened in place.
    """

    __slots__ = ("_open", "_piece", "_offset", "_start", "_inPlace")

    def __init__(self, opener: FrameOpener) -> None:
        self._open = opener.open
        self._piece: bytes = b""
        self._offset = 0
        self._start = bytearray()
        self._inPlace = fastPaths().framesInPlace

    @property
    def pending(self) -> int:
        """
        How many received bytes have not come out as a frame yet.
        """
        return len(self._start) + len(self._piece) - self._offset

    def useOpener(self, opener: FrameOpener) -> None:
        """
        Open the next frame, and all after it, with another opener.
        """
        self._open = opener.open

    def clear(self) -> None:
        """
        Drop the received bytes that are not parsed yet.
        """
        self._start.clear()
        self._drop()

    def receive(self, piece: bytes) -> None:
        """
        Take the next piece.  It follows the bytes that are left of the piece before.
        """
        if not self._inPlace:
            self._start += piece
            return
        if self._piece:
            piece = b"".join((memoryview(self._piece)[self._offset :], piece))
        self._piece = piece
        self._offset = 0

    def nextFrame(self) -> Frame | None:
        """
        Take the next whole frame.

        @return: the frame, or C{None} if no whole frame has arrived.
        @raise ProtocolViolation: if a header announces more than any frame
            may have.  No memory is allocated for it.
        @raise AuthenticationFailed: if a frame does not open.
        @raise NotYet: if the opener needs another turn of the reactor; the frame
            stays the next one.
        """
        if self._start:
            return self._finishFrame()
        piece = self._piece
        if not piece:
            return None
        offset = self._offset
        size = len(piece)
        body = offset + HEADER_SIZE
        if body <= size:
            header = piece[offset:body]
            streamID, length, flag = unpackFields(header)
            if length > MAX_LENGTH:
                _checkCredit(length, flag)
            end = body + TAG_SIZE + (length if flag == _DATA else 0)
            if end <= size:
                # To view a few bytes takes longer than to copy them.
                source = piece if length <= COPIED else memoryview(piece)
                payload = self._open(header, source[body:end])
                if end == size:
                    self._drop()
                else:
                    self._offset = end
                return streamID, length, flag, payload
        self._start += memoryview(piece)[offset:]
        self._drop()
        return None

    def _finishFrame(self) -> Frame | None:
        """
        Complete the frame in C{_start} with its missing bytes from the piece.
        """
        start = self._start
        if not self._fill(HEADER_SIZE):
            return None
        header = bytes(start[:HEADER_SIZE])
        streamID, length, flag = unpackFields(header)
        if length > MAX_LENGTH:
            _checkCredit(length, flag)
        end = OVERHEAD + (length if flag == _DATA else 0)
        if not self._fill(end):
            return None
        # A bytearray cannot change its size while a memoryview of it exists.
        with memoryview(start) as whole, whole[HEADER_SIZE:end] as sealed:
            payload = self._open(header, sealed)
        del start[:end]
        return streamID, length, flag, payload

    def _fill(self, size: int) -> bool:
        """
        Move bytes from the piece to C{_start} until C{_start} has C{size} bytes.

        @return: whether the piece had enough.
        """
        missing = size - len(self._start)
        if missing > 0:
            part = memoryview(self._piece)[self._offset : self._offset + missing]
            self._start += part
            self._offset += len(part)
            if len(part) < missing:
                self._drop()
                return False
        return True

    def _drop(self) -> None:
        self._piece = b""
        self._offset = 0


def _checkCredit(length: int, flag: int) -> None:
    """
    Check a header that announces more than L{MAX_LENGTH}.

    @raise ProtocolViolation: unless the frame is a WindowUpdate that may have that
        length.
    """
    if flag != _WINDOW_UPDATE or length > MAX_CREDIT:
        raise ProtocolViolation(f"a frame announces a length of {length} bytes")
