"""
Helpers that the tests of diallers share.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gomux import MuxFactory
from gomux.test.support.helpers import Recorders
from gomux.testing import PSK
from gomux.testing._memory import Carrier
from gomux.testing._pair import connect

HERE = IPv4Address("TCP", "192.0.2.1", 50000)
THERE = IPv4Address("TCP", "192.0.2.2", 7000)


@implementer(IStreamClientEndpoint)
class ClientEndpoint:
    """
    A client endpoint in memory.  It refuses connections while it has no server.

    @ivar server: makes the muxes at the other end.
    @ivar attempts: the times of the calls of C{connect}.
    @ivar carriers: the client's carrier of each connection made.
    @ivar hold: if set, C{connect} returns this instead of connecting.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.server: MuxFactory | None = None
        self.attempts: list[float] = []
        self.carriers: list[Carrier] = []
        self.hold: Deferred[IProtocol] | None = None

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        self.attempts.append(self.clock.seconds())
        if self.hold is not None:
            return self.hold
        if self.server is None:
            return fail(ConnectionRefusedError())
        mux = factory.buildProtocol(THERE)
        assert mux is not None
        server = self.server.buildProtocol(HERE)
        carrier, _ = connect(self.clock, (mux, server), (HERE, THERE), 0.0, None, 65536)
        self.carriers.append(carrier)
        return succeed(mux)


class DiallerTestCase(SynchronousTestCase):
    """
    Base of tests with a server that the test can make unreachable.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = ClientEndpoint(self.clock)
        self.server = MuxFactory(PSK, False, Recorders(), clock=self.clock)

    def advance(self, seconds: float) -> None:
        """
        Advance the clock in small steps.
        """
        for _ in range(round(seconds * 100)):
            self.clock.advance(0.01)
