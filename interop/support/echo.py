"""
The C{echo} command of the peers' line protocol: the server, for
C{twistd gomux --factory}, and a client.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
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


class Watch(Echo):
    """
    Writes to the log, every second, for how long the peer has not answered a ping.
    """

    def connectionMade(self) -> None:
        super().connectionMade()
        self._call = LoopingCall(self._tell)
        self._call.start(1.0)

    def _tell(self) -> None:
        liveness = self.transport.mux._peerLiveness
        age = liveness._now() - liveness._echoedAt
        print(f"newest echoed ping: {age:.1f} seconds ago", flush=True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._call.stop()


class WatchFactory(EchoFactory):
    """
    Makes L{Watch} protocols; a name for C{--factory}.
    """

    protocol = Watch
