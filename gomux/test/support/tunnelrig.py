"""
A tunnel in memory: a forwarding listener, a mux, and a target behind it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gomux.limits import TunnelLimits
from gomux.test.support.helpers import HalfRecorder, Recorder
from gomux.test.support.logs import Lines
from gomux.testing import MuxPair
from gomux.testing._memory import Carrier
from gomux.testing._pair import connect
from gomux.tunnel import forward, target

HERE = IPv4Address("TCP", "192.0.2.3", 50000)
THERE = IPv4Address("TCP", "192.0.2.4", 80)


@implementer(IStreamClientEndpoint)
class Target:
    """
    An endpoint that connects to recorders.

    @ivar made: the recorders.
    @ivar carriers: for each, the tunnel's transport and its own.
    @ivar answer: what C{connect} returns, instead of connecting.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.made: list[HalfRecorder] = []
        self.carriers: list[tuple[Carrier, Carrier]] = []
        self.answer: Any = None
        self.factory: IProtocolFactory | None = None

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        self.factory = factory
        if self.answer is not None:
            if isinstance(self.answer, Exception):
                raise self.answer
            answer: Deferred[IProtocol] = self.answer
            return answer
        return succeed(self.connected(factory))

    def hold(self) -> Deferred[IProtocol]:
        """
        Let C{connect} wait until the test connects.
        """
        waiting: Deferred[IProtocol] = Deferred()
        self.answer = waiting
        return waiting

    def connected(self, factory: IProtocolFactory) -> IProtocol:
        protocol = factory.buildProtocol(THERE)
        assert protocol is not None
        recorder = HalfRecorder()
        self.made.append(recorder)
        self.carriers.append(
            connect(self.clock, (protocol, recorder), (HERE, THERE), 0.0, None, 65536)
        )
        return protocol


class Rig:
    """
    A forwarding listener, a mux, and a target behind it.

    @ivar logged: the log lines.
    """

    def __init__(
        self, case: SynchronousTestCase, streams: Any = None, **limits: Any
    ) -> None:
        self.clock = Clock()
        self.limits = TunnelLimits(**{"maxConnections": 3, **limits})
        self.target = Target(self.clock)
        self.there = target("the target", self.target, self.clock, self.limits)
        service = getattr(case, "service", None)
        served = streams or self.there
        self.pair = MuxPair(served, serverServices={"any": served}, clock=self.clock)
        self.pool = self.pair.clientFactory.pool
        self.here = forward(
            "the forward", self.pool, self.clock, self.limits, service=service
        )
        lines = Lines("gomux.tunnel")
        self.logged = lines.lines
        globalLogPublisher.addObserver(lines)
        case.addCleanup(globalLogPublisher.removeObserver, lines)

    def flush(self) -> None:
        self.pair.flush()

    def open(self, kind: type[Recorder] = HalfRecorder) -> tuple[Recorder, Carrier]:
        """
        Connect to the listener.

        @return: the client's protocol and its transport.
        """
        end = self.here.buildProtocol(HERE)
        assert end is not None
        recorder = kind()
        carriers = connect(self.clock, (recorder, end), (HERE, THERE), 0.0, None, 65536)
        self.flush()
        return recorder, carriers[0]
