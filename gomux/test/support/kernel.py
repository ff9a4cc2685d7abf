"""
Sockets in memory: the test decides how much the kernel accepts.
"""

from __future__ import annotations

import errno

from twisted.internet.abstract import FileDescriptor
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactorClock


class Descriptor(FileDescriptor):
    """
    A file descriptor that accepts as many bytes as the test allows.

    @ivar room: how many more bytes it accepts.
    @ivar sent: all bytes that it has accepted.
    @ivar error: if set, the error with which every write fails.
    """

    def __init__(self) -> None:
        super().__init__(MemoryReactorClock())
        self.connected = 1
        self.room = 0
        self.sent = b""
        self.error: Exception | None = None

    def writeSomeData(self, data: bytes) -> int | BaseException:
        if self.error is not None:
            return self.error
        part = bytes(data[: self.room])
        self.sent += part
        self.room -= len(part)
        return len(part)

    def drain(self, room: int) -> None:
        """
        Have the kernel accept more bytes.
        """
        self.room = room
        self.doWrite()


class Kernel:
    """
    A socket that accepts as many bytes as the test allows.

    @ivar room: how many more bytes it accepts.
    @ivar taken: for each C{sendmsg}, the list of its buffers.
    @ivar sent: all bytes that it has accepted.
    """

    def __init__(self) -> None:
        self.room = 0
        self.taken: list[list[bytes]] = []
        self.sent = b""

    def connection(self, kind: type[Connection] = Connection) -> Connection:
        """
        @return: a transport on this socket.
        """
        connection = kind(self, Protocol(), MemoryReactorClock())  # type: ignore[arg-type]
        connection.connected = 1
        return connection

    def setblocking(self, blocking: bool) -> None:
        pass

    def setsockopt(self, *option: int) -> None:
        pass

    def getsockname(self) -> tuple[str, int]:
        return "192.0.2.2", 7000

    def fileno(self) -> int:
        return -1

    def sendmsg(self, parts: list[bytes]) -> int:
        self.taken.append(parts)
        return self.send(b"".join(parts))

    def send(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError(errno.EWOULDBLOCK, "full")
        part = bytes(data[: self.room])
        self.sent += part
        self.room -= len(part)
        return len(part)
