"""
A carrier of a client endpoint, in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from zope.interface import implementer

from gomux import MuxFactory
from gomux.testing import MuxPair


@implementer(IStreamClientEndpoint)
class MemoryCarrier:
    """
    A client endpoint whose attempts wait for the test to decide.

    @ivar server: makes the muxes at the other end.
    @ivar attempts: the attempts that the test has not let succeed or fail yet.
    @ivar cancelled: how many attempts were cancelled.
    @ivar pairs: the muxes of the attempts that succeeded.
    """

    def __init__(self, clock: Clock, server: MuxFactory) -> None:
        self.clock = clock
        self.server = server
        self.attempts: list[tuple[Any, Deferred[Any]]] = []
        self.cancelled = 0
        self.pairs: list[MuxPair] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        attempt: Deferred[Any] = Deferred(self.cancel)
        self.attempts.append((protocolFactory, attempt))
        return attempt

    def cancel(self, attempt: Deferred[Any]) -> None:
        self.cancelled += 1
        self.attempts = [pair for pair in self.attempts if pair[1] is not attempt]

    def succeed(self) -> MuxPair:
        factory, attempt = self.attempts.pop(0)
        pair = MuxPair(
            clientFactory=factory, serverFactory=self.server, clock=self.clock
        )
        self.pairs.append(pair)
        attempt.callback(pair.client)
        pair.flush()
        return pair

    def refuse(self) -> None:
        self.attempts.pop(0)[1].errback(ConnectionRefusedError())
