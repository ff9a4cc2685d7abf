"""
Helpers of the blocking peer's applications: reads of the size and pace that the command
line asks for, and the copying between a stream and a TCP connection.
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
    Reads a stream with the read size and delay of the command line.

    @ivar stream: The stream.
    """

    def __init__(self, stream: Stream, options: Namespace) -> None:
        self.stream = stream
        self._size: int = options.readSize
        self._delay: float = options.readDelay
        self._rest = b""

    def read(self, limit: int | None = None) -> bytes:
        """
        Read once.

        @param limit: The most bytes to return, or L{None} for the read size.
        @return: The data; empty at EOF.
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
        Read exactly this many bytes.
        """
        return b"".join(self.readChunks(size))

    def readChunks(self, size: int) -> Iterator[bytes]:
        """
        Read exactly this many bytes, and generate the data of each read.
        """
        while size:
            data = self.read(size)
            if not data:
                raise DriverFailed(f"the stream ended {size} bytes early")
            size -= len(data)
            yield data

    def readAll(self) -> Iterator[bytes]:
        """
        Read until EOF, and generate the data of each read.
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
        Read one line.

        @return: The line without its newline.
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
        Read until EOF.

        @return: The SHA-256 digest of the data, in hex.
        """
        hashed = sha256()
        for data in self.readAll():
            hashed.update(data)
        return hashed.hexdigest()

    def expectEnd(self) -> None:
        """
        Check that no data arrives before EOF.
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
    Copy both directions between a stream and a connection, each until its EOF.
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
        # The data was cut short.  A reset tells the other side so.
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        _shutdown(connection, socket.SHUT_RD)


def _shutdown(connection: socket.socket, how: int) -> None:
    try:
        connection.shutdown(how)
    except OSError:
        pass  # it has ended already
