"""
A gomux v1.0.0 mux with blocking sockets and threads, on PyNaCl.

It was written from the description of the wire alone, and shares no code with the
project under test.  To its peer it behaves like the Go reference:

- A sender waits until the window holds its whole next frame.
- Each read of the application is credited at once, in one frame.
- Nonces are random.
- When 256 opened streams wait to be accepted, the reader stops.
- Frames for unknown streams are ignored.
- A bad frame gets no answer.

It differs from the reference in one way: the reader thread never waits for a writer
thread, so two of these peers cannot deadlock each other.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from enum import IntEnum

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt as openSealed,
)
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_encrypt as seal,
)
from nacl.exceptions import CryptoError

HEADER = struct.Struct("<III24s")
TAG_SIZE = 16
MAX_LENGTH = 65536
WINDOW = 131072
ACCEPT_QUEUE = 256
LINGER = 5.0
"""Seconds to wait for the peer's end of the connection after CloseMux."""


class Flag(IntEnum):
    """
    The type of a frame.
    """

    DATA = 0
    KEEPALIVE = 1
    OPEN_STREAM = 2
    CLOSE_READ = 3
    CLOSE_WRITE = 4
    CLOSE_STREAM = 5
    WINDOW_UPDATE = 6
    CLOSE_MUX = 7


class MuxError(Exception):
    """
    The mux or a stream has ended; the text says why.
    """


class ClosedHere(MuxError):
    """
    This side closed the mux.
    """


class PeerClosedMux(MuxError):
    """
    The peer closed the mux with CloseMux.
    """


class PeerClosedStream(MuxError):
    """
    The peer closed the stream.
    """


class WriteClosed(MuxError):
    """
    The writing direction of the stream is closed.
    """


def openFrame(header: bytes, sealed: bytes, key: bytes) -> bytes:
    """
    Open a frame.

    @return: Its payload.
    @raise MuxError: if it does not open.
    """
    try:
        return openSealed(sealed, header, HEADER.unpack(header)[3], key)
    except (CryptoError, ValueError):
        raise MuxError("message authentication failed") from None


class Stream:
    """
    One stream. Any method may be called from any thread.

    @ivar number: The stream's ID.
    @ivar _condition: Guards the attributes below, and is notified of each change.
    @ivar _buffer: Data received and not yet read.
    @ivar _credit: How many bytes the peer's window has left.
    @ivar _readClosed: Whether EOF follows the buffered data.
    @ivar _writeClosed: Whether either side has closed this side's writing half.
    @ivar _error: Why the stream ended, or L{None}.
    """

    def __init__(self, mux: Mux, number: int) -> None:
        self.number = number
        self._mux = mux
        self._condition = threading.Condition()
        self._buffer = bytearray()
        self._credit = WINDOW
        self._readClosed = False
        self._writeClosed = False
        self._error: MuxError | None = None

    def read(self, size: int) -> bytes:
        """
        Wait for data.

        @return: Up to C{size} bytes; none at EOF.
        @raise MuxError: if the mux ended, or this side closed the stream.
        """
        with self._condition:
            self._condition.wait_for(
                lambda: self._buffer or self._readClosed or self._error
            )
            data = bytes(self._buffer[:size])
            del self._buffer[:size]
            error, ended = self._error, self._readClosed or self._error
        if not data and error and not isinstance(error, PeerClosedStream):
            raise error
        if data and not ended:
            self._mux._send(self.number, Flag.WINDOW_UPDATE, length=len(data))
        return data

    def write(self, data: bytes) -> None:
        """
        Send data in frames, and wait before each until the window has room for it.

        @raise MuxError: if not all of it could be sent.
        """
        for start in range(0, len(data), MAX_LENGTH):
            payload = data[start : start + MAX_LENGTH]
            self._takeCredit(len(payload))
            self._mux._send(self.number, Flag.DATA, payload)

    def _takeCredit(self, size: int) -> None:
        """
        Wait until the window has room for a whole frame, and take that much of it.
        """
        with self._condition:
            self._condition.wait_for(
                lambda: self._credit >= size or self._writeClosed or self._error
            )
            if self._error is not None:
                raise self._error
            if self._writeClosed:
                raise WriteClosed("write end of stream closed")
            self._credit -= size

    def closeWrite(self) -> None:
        """
        Close the writing half.
        """
        with self._condition:
            self._writeClosed = True
            self._condition.notify_all()
        self._mux._send(self.number, Flag.CLOSE_READ)

    def closeRead(self) -> None:
        """
        Close the reading half.
        """
        with self._condition:
            self._readClosed = True
            self._condition.notify_all()
        self._mux._send(self.number, Flag.CLOSE_WRITE)

    def close(self) -> None:
        """
        Close the stream.  A stream that has ended stays as it is.
        """
        if self._end(MuxError("stream was gracefully closed")):
            self._mux._forget(self.number)
            try:
                self._mux._send(self.number, Flag.CLOSE_STREAM)
            except MuxError:
                pass  # the mux has ended: nothing is left to close

    def _end(self, error: MuxError) -> bool:
        """
        End the stream.

        @return: Whether it had not ended before.
        """
        with self._condition:
            if self._error is not None:
                return False
            self._error = error
            self._condition.notify_all()
            return True

    def _received(self, flag: int, length: int, payload: bytes) -> None:
        """
        Process a frame of this stream.  Only the mux's reader thread calls this.
        """
        if flag == Flag.CLOSE_STREAM:
            self._mux._forget(self.number)
            self._end(PeerClosedStream("peer closed stream gracefully"))
            return
        with self._condition:
            if flag == Flag.DATA:
                self._buffer += payload
            elif flag == Flag.WINDOW_UPDATE:
                self._credit += length
            elif flag == Flag.CLOSE_READ:
                self._readClosed = True
            elif flag == Flag.CLOSE_WRITE:
                self._writeClosed = True
            self._condition.notify_all()


class Mux:
    """
    One mux over a connected socket, which it owns.

    @cvar maxCredit: The largest C{length} of a WindowUpdate.
    @ivar _lock: Guards all attributes below except the socket, and is notified of each
        change.
    @ivar _error: Why the mux ended, or L{None}.
    @ivar _accepted: Streams that the peer opened and the application has not accepted.
    """

    maxCredit = MAX_LENGTH

    def __init__(self, connection: socket.socket, psk: str, isClient: bool) -> None:
        self._socket = connection
        self._key = hashlib.blake2b(psk.encode(), digest_size=32).digest()
        self._sending = threading.Lock()
        self._lock = threading.Condition()
        self._nextNumber = 0 if isClient else 1
        self._streams: dict[int, Stream] = {}
        self._accepted: deque[Stream] = deque()
        self._error: MuxError | None = None
        self._reader = threading.Thread(target=self._readFrames, daemon=True)
        self._reader.start()

    def openStream(self, length: int = 0) -> Stream:
        """
        Open a stream.  The application can write to it at once.

        @param length: The C{length} of the frame.
        """
        with self._lock:
            stream = Stream(self, self._nextNumber)
            self._nextNumber = (self._nextNumber + 2) % (1 << 32)
            self._streams[stream.number] = stream
        self._send(stream.number, Flag.OPEN_STREAM, length=length)
        return stream

    def acceptStream(self) -> Stream:
        """
        Wait for the next stream that the peer opens.

        @raise MuxError: when the mux has ended.
        """
        with self._lock:
            self._lock.wait_for(lambda: self._accepted or self._error)
            if self._error is not None:
                raise self._error
            self._lock.notify_all()
            return self._accepted.popleft()

    def close(self) -> None:
        """
        Send CloseMux, end all streams, and wait for the peer to close the connection.
        Closing a socket with unread input would reset the connection, and the peer
        would lose data.
        """
        try:
            self._send(0, Flag.CLOSE_MUX)
        except MuxError:
            pass  # the peer was faster
        self._end(ClosedHere("underlying connection was closed"))
        self._shutdown(socket.SHUT_WR)
        self.linger()
        self._shutdown(socket.SHUT_RDWR)

    def linger(self) -> None:
        """
        Wait until the peer closes the connection, but not for ever.
        """
        self._reader.join(LINGER)

    def _shutdown(self, how: int) -> None:
        """
        Shut the connection down.  Unlike a close this wakes threads that are blocked on
        the socket.
        """
        try:
            self._socket.shutdown(how)
        except OSError:
            pass  # it has ended already

    def _forget(self, number: int) -> None:
        with self._lock:
            self._streams.pop(number, None)

    def _end(self, error: MuxError) -> None:
        """
        End the mux and all its streams.  If it has ended already, its first reason
        stays.
        """
        with self._lock:
            if self._error is not None:
                return
            self._error = error
            streams = list(self._streams.values())
            self._lock.notify_all()
        for stream in streams:
            stream._end(error)

    def _send(
        self, number: int, flag: Flag, payload: bytes = b"", length: int = 0
    ) -> None:
        if self._error is not None:
            raise self._error
        nonce = os.urandom(24)
        header = HEADER.pack(number, length or len(payload), flag, nonce)
        frame = header + seal(payload, header, nonce, self._key)
        try:
            with self._sending:
                self._socket.sendall(frame)
        except OSError as e:
            error = MuxError(f"could not write: {e}")
            self._end(error)
            raise error from e

    def _readFrames(self) -> None:
        """
        Read frames until the connection ends.  The reader thread runs this.
        """
        with self._socket, self._socket.makefile("rb", MAX_LENGTH) as source:
            try:
                while self._error is None:
                    self._readFrame(source.read)
                while isinstance(self._error, ClosedHere) and source.read(MAX_LENGTH):
                    pass
            except (MuxError, OSError) as e:
                self._end(e if isinstance(e, MuxError) else MuxError(str(e)))
                self._shutdown(socket.SHUT_RDWR)

    def _readFrame(self, read: Callable[[int], bytes]) -> None:
        """
        Read and process one frame.

        @param read: Reads exactly as many bytes as asked for, or fewer before EOF.
        @raise MuxError: for whatever ends the mux.
        """
        header = read(HEADER.size)
        if len(header) < HEADER.size:
            raise MuxError("the connection ended without CloseMux")
        number, length, flag, _ = HEADER.unpack(header)
        if length > (self.maxCredit if flag == Flag.WINDOW_UPDATE else MAX_LENGTH):
            raise MuxError(f"a length of {length} is too large")
        sealed = read(TAG_SIZE + (length if flag == Flag.DATA else 0))
        self._process(number, length, flag, self._open(header, sealed))

    def _open(self, header: bytes, sealed: bytes) -> bytes:
        """
        Open a frame, if it may come now.

        @return: Its payload.
        @raise MuxError: if it may not come now, or does not open.
        """
        return openFrame(header, sealed, self._key)

    def _process(self, number: int, length: int, flag: int, payload: bytes) -> None:
        """
        Process a frame that was opened.

        @raise MuxError: for whatever ends the mux.
        """
        if flag == Flag.CLOSE_MUX:
            raise PeerClosedMux("peer closed mux gracefully")
        if flag == Flag.OPEN_STREAM:
            self._opened(Stream(self, number))
            return
        with self._lock:
            stream = self._streams.get(number)
        if stream is not None:
            stream._received(flag, length, payload)

    def _opened(self, stream: Stream) -> None:
        """
        Queue a stream that the peer opened.  Wait while the queue is full.
        """
        with self._lock:
            self._streams[stream.number] = stream
            self._lock.wait_for(
                lambda: len(self._accepted) < ACCEPT_QUEUE or self._error
            )
            self._accepted.append(stream)
            self._lock.notify_all()
