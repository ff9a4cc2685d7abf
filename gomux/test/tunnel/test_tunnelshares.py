# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for the shares that the peers of a tunnel have of its connections.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory, PeerRules
from gomux._mux.pool import MuxPool
from gomux._wire.keyring import Keyring
from gomux._wire.shares import Shares
from gomux.error import ServiceBusy
from gomux.limits import LINES_BURST, TunnelLimits
from gomux.test.support.helpers import Recorder, Recorders
from gomux.test.support.logs import Lines
from gomux.test.support.tunnelrig import HERE, Target
from gomux.testing import MuxPair
from gomux.tunnel import forward, target

ALICE = "the pre-shared key of alice"
BOB = "the pre-shared key of bob"


class TargetSharesTests(SynchronousTestCase):
    """
    How two peers share the connections to a target.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.keyring = Keyring({"alice": ALICE, "bob": BOB})
        self.keyring.descriptors = Shares(1000, self.keyring)
        self.target = Target(self.clock)
        self.limits = TunnelLimits(maxConnections=40)
        self.tunnel = target(
            "the target", self.target, self.clock, self.limits, self.keyring
        )
        self.server = MuxFactory(self.keyring, False, self.tunnel, clock=self.clock)
        lines = Lines("gomux.tunnel")
        self.logged = lines.lines
        globalLogPublisher.addObserver(lines)
        self.addCleanup(globalLogPublisher.removeObserver, lines)
        self.addCleanup(self.assertNothingKept)

    def assertNothingKept(self) -> None:
        """
        When all muxes and connections have ended, nothing is counted any more.
        """
        for mux in list(self.server.muxes):
            mux.abort()
        self.clock.advance(self.limits.lingerTimeout + 1)
        self.assertEqual(self.tunnel.bridges, set())
        self.assertEqual(self.keyring.descriptors.used, 0)
        self.assertEqual(cast(Shares, self.tunnel._shares["connections"]).used, 0)
        for name in self.keyring.names:
            self.assertEqual(self.keyring.uses[name].connections, 0)

    def connect(self, psk: str) -> MuxPair:
        """
        Connect a client with this key to the server.
        """
        pair = MuxPair(
            clientFactory=MuxFactory(psk, True, clock=self.clock),
            serverFactory=self.server,
            clock=self.clock,
        )
        pair.flush()
        return pair

    def open(self, pair: MuxPair, count: int) -> list[Recorder]:
        """
        Open streams.

        @return: those that are not refused.
        """
        recorders = Recorders()
        for _ in range(count):
            pair.client.openStream(recorders)
        pair.flush()
        return [each for each in recorders.made if each.reason is None]

    def test_alone(self) -> None:
        """
        A peer alone can have nearly all connections, however many muxes it has.
        Another is served then, on a mux of before and on a new one.
        """
        old = self.connect(BOB)
        first, second = self.connect(ALICE), self.connect(ALICE)
        self.assertEqual(len(self.open(first, 20)), 20)
        self.assertEqual(len(self.open(second, 40)), 17)
        self.assertEqual(len(self.open(first, 1)), 0)
        self.assertEqual(len(self.open(old, 1)), 1)
        self.assertEqual(len(self.open(self.connect(BOB), 40)), 2)
        self.assertEqual(len(self.tunnel.bridges), 40)

    def test_log(self) -> None:
        """
        The log says why a stream is refused.  What one peer does cannot keep the lines
        about another from the log.
        """
        self.open(self.connect(ALICE), 100)
        self.open(self.connect(BOB), 100)
        self.assertEqual(len(self.logged), 2 * LINES_BURST)
        self.assertRegex(
            self.logged[0],
            "^the target: refused stream 74 of .*: 37 connections are used already,"
            " 37 of them by 'alice'$",
        )
        self.assertIn(
            "40 connections are used already, 3 of them by 'bob'", self.logged[-1]
        )

    def test_comeBack(self) -> None:
        """
        A peer can have other connections when its connections have ended, at either
        end or with their mux, and when the target could not be connected.
        """
        pair = self.connect(ALICE)
        held = self.open(pair, 40)
        for stream in held[:5]:
            stream.stream.abortConnection()
        for _, server in self.target.carriers[5:10]:
            server.loseConnection()
        for stream in held[5:10]:
            stream.stream.loseConnection()
        pair.flush()
        self.assertEqual(self.keyring.descriptors["alice"], 28)
        self.assertEqual(len(self.open(pair, 40)), 10)
        pair.client.abort()
        pair.flush()
        self.assertEqual(self.keyring.descriptors.used, 0)
        pair = self.connect(ALICE)
        self.target.answer = OSError()
        self.assertEqual(self.open(pair, 40), [])
        self.target.answer = None
        self.assertEqual(len(self.open(pair, 40)), 37)

    def test_lateEnd(self) -> None:
        """
        A connection that is aborted while the target is being connected is counted
        once, also if the target is connected nevertheless.
        """
        connecting = self.target.hold()
        connecting._canceller = lambda _: None
        pair = self.connect(ALICE)
        (held,) = self.open(pair, 1)
        held.stream.write(b"x")
        held.stream.loseConnection()
        pair.flush()
        self.tunnel.abort()
        pair.flush()
        self.assertEqual(self.keyring.descriptors["alice"], 1)
        assert self.target.factory is not None
        self.target.connected(self.target.factory)
        pair.flush()
        self.assertEqual(self.keyring.descriptors["alice"], 1)

    def test_single(self) -> None:
        """
        A peer without others has all connections, and no share of the descriptors.
        """
        self.keyring.names = frozenset(["alice"])
        self.keyring.descriptors._alone = 1000
        self.keyring.descriptors.total = 10
        self.assertEqual(len(self.open(self.connect(ALICE), 60)), 40)

    def test_ownRule(self) -> None:
        """
        A peer with a rule has no more connections than that, on all its muxes and to
        all targets together.  Others do not notice, and a new rule holds for new
        connections.
        """
        self.keyring.rules = {"alice": PeerRules(maxConnections=5)}
        other = target("other", self.target, self.clock, self.limits, self.keyring)
        self.server.services["other"] = other
        first, second = self.connect(ALICE), self.connect(ALICE)
        held = self.open(first, 3)
        named = first.client.openStream(Recorders(), "other")
        first.flush()
        self.successResultOf(named)
        self.assertEqual(len(self.open(second, 4)), 1)
        self.assertRegex(
            self.logged[0],
            "^the target: refused stream 2 of .*: 'alice' has 5 connections to targets"
            " already$",
        )
        refused = second.client.openStream(Recorders(), "other")
        second.flush()
        self.failureResultOf(refused, ServiceBusy)
        self.assertEqual(len(self.open(self.connect(BOB), 10)), 10)
        for recorder in held[:2]:
            recorder.stream.loseConnection()
        first.flush()
        self.assertEqual(len(self.open(second, 9)), 2)
        self.keyring.rules = {}
        self.assertEqual(len(self.open(second, 9)), 9)

    def test_descriptors(self) -> None:
        """
        Muxes and connections together have their share of the descriptors.  Another
        peer gets a new mux then, and is served.
        """
        self.keyring.descriptors.total = 40
        muxes = [self.connect(ALICE) for _ in range(10)]
        self.assertEqual(len(self.open(muxes[0], 40)), 27)
        self.assertIn("37 descriptors are used already, 37 of them", self.logged[0])
        self.assertEqual(len(self.open(self.connect(BOB), 1)), 1)


class ForwardSharesTests(SynchronousTestCase):
    """
    How the clients of a forward share the descriptors with the peers.
    """

    def test_descriptors(self) -> None:
        """
        The clients of a forward cannot use up the descriptors either: they get no more
        than a peer.
        """
        clock = Clock()
        keyring = Keyring({"alice": ALICE, "bob": BOB})
        keyring.descriptors = Shares(40, keyring)
        tunnel = forward("", MuxPool(clock), clock, TunnelLimits(), keyring)
        for _ in range(40):
            end = tunnel.buildProtocol(HERE)
            assert end is not None
            end.makeConnection(StringTransport())
        self.assertEqual(len(tunnel.bridges), 36)
        self.assertEqual(keyring.descriptors.room("bob"), 3)
        for bridge in list(tunnel.bridges):
            bridge.near.connectionLost()
        self.assertEqual(keyring.descriptors.used, 0)
