# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux.endpoints._lookups}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IReactorPluggableNameResolver
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gomux._carrier.turns import TURN_TIME
from gomux.endpoints._connecting import clientEndpoint
from gomux.endpoints._lookups import LOOK_UP_TIMEOUT


@implementer(IReactorPluggableNameResolver)
class Reactor(MemoryReactorClock):
    """
    A reactor whose look-ups end when a test says so.

    @ivar lookUps: the receivers of the look-ups so far, with what was looked up.
    @ivar slow: how long each attempt to connect takes, in seconds.
    """

    slow = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver: Any = self
        self.lookUps: list[tuple[Any, str, int]] = []

    def resolveHostName(
        self, receiver: Any, hostName: str, portNumber: int = 0
    ) -> None:
        receiver.resolutionBegan(None)
        self.lookUps.append((receiver, hostName, portNumber))

    def found(self, which: int, *hosts: str) -> None:
        """
        End a look-up.
        """
        receiver, _, port = self.lookUps[which]
        for host in hosts:
            receiver.addressResolved(IPv4Address("TCP", host, port))
        receiver.resolutionComplete()

    def connectTCP(self, *args: Any, **kwargs: Any) -> Any:
        self.rightNow += self.slow
        return super().connectTCP(*args, **kwargs)

    @property
    def hosts(self) -> list[str]:
        """
        The addresses that were connected to.
        """
        return [attempt[0] for attempt in self.tcpClients]


class SharedLookUpsTests(SynchronousTestCase):
    """
    Tests for L{SharedLookUps<gomux.endpoints._lookups.SharedLookUps>}.
    """

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.endpoint: Any = clientEndpoint(self.reactor, "tcp:service.test:80")
        self.factory = Factory.forProtocol(Protocol)

    def test_shared(self) -> None:
        """
        All connections that wait share one look-up.  A connection after its end begins
        another.
        """
        for _ in range(3):
            self.endpoint.connect(self.factory)
        [(_, host, port)] = self.reactor.lookUps
        self.assertEqual((host, port), ("service.test", 80))
        self.assertEqual(self.reactor.hosts, [])
        self.reactor.found(0, "192.0.2.1")
        self.assertEqual(self.reactor.hosts, ["192.0.2.1"] * 3)
        self.endpoint.connect(self.factory)
        self.assertEqual(len(self.reactor.lookUps), 2)
        self.reactor.found(1, "192.0.2.2")
        self.assertEqual(self.reactor.hosts[3:], ["192.0.2.2"])

    def test_cancelled(self) -> None:
        """
        A connection that is cancelled while it waits is forgotten at once, and causes
        no attempt.  The look-up goes on for the others.
        """
        first = self.endpoint.connect(self.factory)
        for _ in range(100):
            cancelled = self.endpoint.connect(self.factory)
            cancelled.cancel()
            self.failureResultOf(cancelled, CancelledError)
        self.assertEqual(len(self.reactor.lookUps), 1)
        self.assertEqual(len(self.endpoint._waiting), 1)
        self.reactor.found(0, "192.0.2.1")
        self.assertEqual(self.reactor.hosts, ["192.0.2.1"])
        # Now the attempt itself is cancelled.
        first.cancel()
        self.failureResultOf(first)

    def test_turns(self) -> None:
        """
        Many connections begin in many turns of the reactor.  One that is cancelled
        before its turn does not begin.
        """
        waiting = [self.endpoint.connect(self.factory) for _ in range(4)]
        self.reactor.slow = TURN_TIME
        self.reactor.found(0, "192.0.2.1")
        self.assertEqual(len(self.reactor.hosts), 1)
        waiting[2].cancel()
        self.failureResultOf(waiting[2], CancelledError)
        self.reactor.pump([0] * 4)
        self.assertEqual(len(self.reactor.hosts), 3)

    def test_whileOthersBegin(self) -> None:
        """
        The result of the next look-up may come while connections still wait for their
        turns.
        """
        self.reactor.slow = TURN_TIME
        for _ in range(2):
            self.endpoint.connect(self.factory)
        self.reactor.found(0, "192.0.2.1")
        self.endpoint.connect(self.factory)
        self.reactor.found(1, "192.0.2.2")
        self.assertEqual(self.reactor.hosts, ["192.0.2.1"])
        self.reactor.pump([0] * 4)
        self.assertEqual(self.reactor.hosts, ["192.0.2.1"] * 2 + ["192.0.2.2"])

    def test_noAddress(self) -> None:
        """
        Without any address, the connection fails.
        """
        connecting = self.endpoint.connect(self.factory)
        self.reactor.found(0)
        self.failureResultOf(connecting, DNSLookupError)

    def test_neverEnds(self) -> None:
        """
        A look-up that never ends is repeated for a later connection.
        """
        self.endpoint.connect(self.factory)
        self.reactor.advance(LOOK_UP_TIMEOUT)
        self.endpoint.connect(self.factory)
        self.assertEqual(len(self.reactor.lookUps), 1)
        self.reactor.advance(1)
        self.endpoint.connect(self.factory)
        self.assertEqual(len(self.reactor.lookUps), 2)
        self.reactor.found(0, "192.0.2.1")
        self.assertEqual(self.reactor.hosts, [])
        self.reactor.found(1, "192.0.2.2")
        self.assertEqual(self.reactor.hosts, ["192.0.2.2"] * 3)

    def test_tls(self) -> None:
        """
        Connections with TLS share look-ups too.
        """
        endpoint = clientEndpoint(self.reactor, "tls:service.test:443")
        for _ in range(2):
            endpoint.connect(self.factory)
        self.assertEqual(len(self.reactor.lookUps), 1)
        self.reactor.found(0, "192.0.2.1")
        self.assertEqual(self.reactor.hosts, ["192.0.2.1"] * 2)
