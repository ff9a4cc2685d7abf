"""
Tests for a tunnel whose client uses TLS.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from gomux._carrier.records import RECORDS
from gomux._wire.shares import Shares
from gomux.limits import TunnelLimits
from gomux.test.support.certificates import CERTIFICATE, NAME
from gomux.test.support.servertls import wrapServerTLS
from gomux.tunnel._tunnel import Tunnel

#: How many records the client sends at once.
MANY = 2000


class Sink(StringTransport):
    """
    The transport of the far end.

    @ivar end: the far end.
    @ivar inTurn: how many writes there were in this turn of the reactor.
    @ivar most: how many there were in one turn.
    @ivar done: fires when all data is there.
    """

    inTurn = most = 0
    end: Any

    def __init__(self) -> None:
        super().__init__()
        self.done: Deferred[None] = Deferred()

    def write(self, data: bytes) -> None:
        super().write(data)
        if not self.inTurn:
            cast(Any, reactor).callLater(0, self.turnOver)
        self.inTurn += 1
        self.most = max(self.most, self.inTurn)
        if len(self.value()) == MANY:
            self.done.callback(None)

    def abortConnection(self) -> None:
        self.end.connectionLost(Failure(ConnectionLost()))

    def turnOver(self) -> None:
        self.inTurn = 0


class TLSTests(TestCase):
    """
    L{Tunnel}
    """

    @inlineCallbacks
    def test_smallRecords(self) -> Any:
        """
        If a client sends thousands of small records at once, a few are handled in each
        turn of the reactor.
        """
        sink = Sink()

        def connect(factory: Any) -> Deferred[Any]:
            end = factory.buildProtocol(None)
            end.makeConnection(sink)
            sink.end = end
            return succeed(end)

        shares: Any = {"connections": Shares(10)}
        tunnel = Tunnel("", connect, cast(Any, reactor), TunnelLimits(), shares)
        server = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = yield wrapServerTLS(CERTIFICATE.options(), server).listen(tunnel)
        self.addCleanup(port.stopListening)
        client = yield connectProtocol(
            wrapClientTLS(
                optionsForClientTLS(NAME, CERTIFICATE),
                TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port),
            ),
            Protocol(),
        )
        for _ in range(MANY):
            # Without the buffer above it, which joins small writes.
            TLSMemoryBIOProtocol.write(client.transport, b"x")
        yield sink.done
        self.assertLessEqual(sink.most, 2 * RECORDS)
        client.transport.abortConnection()
        while tunnel.bridges:
            yield pause()


def pause() -> Deferred[None]:
    """
    @return: fires in the next turn of the reactor.
    """
    done: Deferred[None] = Deferred()
    cast(Any, reactor).callLater(0, done.callback, None)
    return done
