"""
The C{echo} command of the peers' line protocol: the server, for
C{twistd gomux --factory}, and a client.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from interop.support.ending import Ending


class Echoed(Ending):
    """
    The client of an L{Echo}.

    @ivar received: The data that came back and was not cleared.
    @ivar lost: Fires with the reason when the connection has ended.
    """

    def __init__(self) -> None:
        self.received = bytearray()
        self.lost: Deferred[BaseException | None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(b"echo\n")

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(reason.value)


class Echo(Protocol):
    """
    Sends back all data after the first line.
    """

    transport: Any = None

    def __init__(self) -> None:
        self._line: bytes | None = b""

    def connectionMade(self) -> None:
        self.transport.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        if self._line is not None:
            self._line += data
            line, newline, data = self._line.partition(b"\n")
            if not newline:
                return
            assert line == b"echo"
            self._line = None
        self.transport.write(data)


class EchoFactory(Factory):
    """
    Makes L{Echo} protocols; a name for C{--factory}.
    """

    noisy = False
    protocol = Echo
