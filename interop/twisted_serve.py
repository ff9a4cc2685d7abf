"""
The line protocol, as the Twisted peer serves it.

What is measured is served by plain protocols; the rest awaits a
L{gomux.session.Conn}.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from peerlib import DriverFailed
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol
from twisted_streams import PatternWriter, become, ownResidentBytes

if TYPE_CHECKING:
    from twisted_peer import Peer

    from gomux import StreamAddress


class Command(Protocol):
    """
    Reads the first line of a stream, which decides who goes on with it.
    """

    _line = b""

    def __init__(self, peer: Peer, address: StreamAddress) -> None:
        self._peer = peer
        self._address = address

    def dataReceived(self, data: bytes) -> None:
        line, end, rest = (self._line + data).partition(b"\n")
        if not end:
            self._line = line
            return
        command, _, argument = line.decode().partition(" ")
        try:
            protocol = self._protocol(command, argument)
        except (KeyError, ValueError, DriverFailed) as e:
            print(f"stream end {self._address.streamID}: {e!r}", file=sys.stderr)
            self.transport.loseConnection()
        else:
            become(self.transport, protocol, rest)

    def _protocol(self, command: str, argument: str) -> IProtocol:
        if command in PLAIN:
            return PLAIN[command](argument)
        raise DriverFailed(f"unknown command {command!r}")


class Sink(Protocol):
    def __init__(self, size: str) -> None:
        self._missing = int(size)

    def connectionMade(self) -> None:
        if not self._missing:
            self.transport.write(b"ok\n")

    def dataReceived(self, data: bytes) -> None:
        self._missing -= len(data)
        if self._missing <= 0:
            self.transport.write(b"ok\n")


class Source(Protocol):
    def __init__(self, size: str) -> None:
        self._size = int(size)

    def connectionMade(self) -> None:
        PatternWriter(self.transport, self._size, self._written).start()

    def _written(self) -> None:
        """
        It is left to the opener to close the stream.
        """


class CloseAfter(Source):
    def _written(self) -> None:
        self.transport.loseConnection()


class Echo(Protocol):
    """
    Reads on only while what it writes is taken.  At the EOF the transport closes
    the stream once all is sent, as it does for all protocols that know nothing
    of half-closes.
    """

    def connectionMade(self) -> None:
        self.transport.registerProducer(self.transport, True)
        self.dataReceived = self.transport.write


class Answer(Protocol):
    """
    Says one line and waits for the end.
    """

    def __init__(self, line: str) -> None:
        self._line = line

    def connectionMade(self) -> None:
        self.transport.write(self._line.encode() + b"\n")


class Idle(Protocol):
    def connectionMade(self) -> None:
        self.transport.write(b"ok\n")


PLAIN: dict[str, Callable[[str], IProtocol]] = {
    "sink": Sink,
    "source": Source,
    "close-after": CloseAfter,
    "echo": lambda _: Echo(),
    "idle": lambda _: Idle(),
    "rss": lambda _: Answer(str(ownResidentBytes())),
}
"""Who goes on with a stream, made from the command's argument."""
