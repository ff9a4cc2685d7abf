"""
How the blocking peer's applications use a stream: reads of the size and pace
that the command line asks for, and connections that are carried.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from hashlib import sha256

from interop.peers.blocking_mux import MuxError, Stream, WriteClosed
from interop.peers.peerlib import BUFFER_SIZE, DriverFailed, isPatternAt, patternChunks


def inThread(run: Callable[..., object], *args: object) -> threading.Thread:
    """
    Run a function in a thread that does not keep the program alive.
    """
    thread = threading.Thread(target=run, args=args, daemon=True)
    thread.start()
    return thread


class Input:
    """
    A stream as the application reads it that the options describe.

    @ivar stream: The stream.
    """

    def __init__(self, stream: Stream, options: Namespace) -> None:
        self.stream = stream
        self._size: int = options.readSize
        self._delay: float = options.readDelay
        self._rest = b""

    def read(self, limit: int | None = None) -> bytes:
        """
        Do one application read.

        @param limit: The most bytes that are wanted, or L{None}.
        @return: What came; nothing at the end.
        """
        size = self._size if limit is None else min(limit, self._size)
        if self._rest:
            data, self._rest = self._rest[:size], self._rest[size:]
            return data
        if self._delay:
            time.sleep(self._delay)
        return self.stream.read(size)

    def readExactly(self, size: int) -> bytes:
        """
        Read as many bytes as asked for.
        """
        return b"".join(self.readChunks(size))

    def readChunks(self, size: int) -> Iterator[bytes]:
        """
        Generate the reads that make up as many bytes as asked for.
        """
        while size:
            data = self.read(size)
            if not data:
                raise DriverFailed(f"the stream ended {size} bytes early")
            size -= len(data)
            yield data

    def readAll(self) -> Iterator[bytes]:
        """
        Generate the reads up to the end.
        """
        while data := self.read():
            yield data

    def readPattern(self, size: int) -> None:
        """
        Read bytes and compare them with the pattern.
        """
        offset = 0
        for data in self.readChunks(size):
            if not isPatternAt(offset, data):
                raise DriverFailed(f"not the pattern near offset {offset}")
            offset += len(data)

    def readLine(self) -> str:
        """
        Read up to the next newline, which is not part of what is returned.
        """
        line = b""
        while b"\n" not in line:
            data = self.read(512)
            if not data:
                raise DriverFailed("the stream ended in a line")
            line += data
        line, _, rest = line.partition(b"\n")
        self._rest = rest + self._rest
        return line.decode()

    def digest(self) -> str:
        """
        Hash what comes up to the end.
        """
        hashed = sha256()
        for data in self.readAll():
            hashed.update(data)
        return hashed.hexdigest()

    def expectEnd(self) -> None:
        """
        Check that nothing more comes.
        """
        rest = sum(map(len, self.readAll()))
        if rest:
            raise DriverFailed(f"{rest} bytes where the end was expected")

    def expectWriteFails(self) -> None:
        """
        Check that the stream can no longer be written to.
        """
        try:
            self.stream.write(b"\0")
        except MuxError:
            return
        raise DriverFailed("a write to a closed direction succeeded")

    def writePattern(self, size: int) -> None:
        """
        Write the first bytes of the pattern.
        """
        for data in patternChunks(size):
            self.stream.write(data)

    def writeLine(self, line: str) -> None:
        """
        Write one line.
        """
        self.stream.write(line.encode() + b"\n")


def carry(stream: Input, connection: socket.socket) -> None:
    """
    Join a stream and a connection, each direction until its own end.
    """
    outward = inThread(_carryOut, stream.stream, connection)
    _carryIn(connection, stream)
    outward.join()
    stream.stream.close()
    connection.close()


def _carryOut(stream: Stream, connection: socket.socket) -> None:
    try:
        while data := connection.recv(BUFFER_SIZE):
            stream.write(data)
        stream.closeWrite()
    except WriteClosed:
        _shutdown(connection, socket.SHUT_RD)
    except (MuxError, OSError):
        stream.close()
        _shutdown(connection, socket.SHUT_RDWR)


def _carryIn(connection: socket.socket, stream: Input) -> None:
    try:
        for data in stream.readAll():
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        try:
            stream.stream.closeRead()
        except MuxError:
            pass  # nothing is left to close
    except MuxError:
        # Cut short, not ended: a reset lets the other side see it.
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        _shutdown(connection, socket.SHUT_RD)


def _shutdown(connection: socket.socket, how: int) -> None:
    try:
        connection.shutdown(how)
    except OSError:
        pass  # it has ended already
