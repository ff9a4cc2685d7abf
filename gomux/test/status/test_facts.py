"""
Tests for L{gomux.status._facts}.
"""

from __future__ import annotations

import time

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits, MuxFactory, PeerRules
from gomux.status import _facts
from gomux.status._facts import STANDS, LimitFacts
from gomux.test.support.helpers import Recorders
from gomux.test.support.statusrig import KEYS, StatusRig
from gomux.test.support.tunnelrig import HERE


class PeerTests(SynchronousTestCase):
    """
    The facts about peers
    """

    def setUp(self) -> None:
        self.rig = StatusRig(self)

    def test_peers(self) -> None:
        """
        All peers with keys are there from the start, by name.
        """
        peers = self.rig.facts.peers()
        self.assertEqual([peer.name for peer in peers], ["alice", "bob"])
        for peer in peers:
            self.assertEqual((peer.muxes, peer.opened, peer.received), ([], 0, 0))
            self.assertIsNone(peer.newest)

    def test_sums(self) -> None:
        """
        The sums of a peer are those of its muxes, and go on when one of them ends.
        """
        first, second = self.rig.connect(), self.rig.connect()
        second.client.openStream(Recorders(), "web")
        second.flush()
        muxes = [first.server, second.server]
        for muxesLeft in (2, 1, 0):
            alice, bob = self.rig.facts.peers()
            self.assertEqual((len(alice.muxes), alice.opened), (muxesLeft, 2))
            self.assertEqual(alice.streams, min(muxesLeft, 1))
            self.assertEqual(alice.received, sum(mux.bytesReceived for mux in muxes))
            self.assertEqual(alice.sent, sum(mux.bytesSent for mux in muxes))
            self.assertEqual(bob.opened, 0)
            [first, second][2 - muxesLeft if muxesLeft else 1].loseCarrier()
            self.rig.clock.advance(1)

    def test_stranger(self) -> None:
        """
        A mux whose peer has not shown a key is nobody's.
        """
        mux = self.rig.server.buildProtocol(HERE)
        mux.makeConnection(StringTransport(peerAddress=HERE))
        self.assertEqual([peer.muxes for peer in self.rig.facts.peers()], [[], []])
        self.assertEqual(self.rig.facts.asJSON()["strangers"]["waiting"], 1)
        mux.abort()

    def test_gone(self) -> None:
        """
        A peer whose key was removed stays, so that its sums do not vanish.
        """
        self.rig.connect("bob").loseCarrier()
        self.rig.clock.advance(1)
        self.rig.service.keyring.names = frozenset({"alice"})
        names = [peer.name for peer in self.rig.facts.peers()]
        self.assertEqual(names, ["alice", "bob"])

    def test_json(self) -> None:
        """
        The JSON has since when a peer is connected, its round trip, and its newest
        muxes with their addresses.
        """
        self.patch(_facts, "LISTED", 2)
        pairs = []
        for _ in range(3):
            pairs.append(self.rig.connect())
            self.rig.clock.advance(100)
            pairs[-1].flush()
        alice, bob = self.rig.facts.asJSON()["peers"]
        self.assertEqual(alice["muxes"], 3)
        self.assertLess(abs(time.time() - 300 - alice["since"]), 5)
        self.assertEqual(alice["roundTrip"], 0.0)
        self.assertFalse(alice["strict"])
        newest, older = alice["connections"]
        self.assertEqual(newest["address"], "192.0.2.1:49152")
        self.assertEqual(newest["role"], "server")
        self.assertLess(abs(time.time() - 100 - newest["since"]), 5)
        self.assertLess(abs(time.time() - 200 - older["since"]), 5)
        self.assertEqual((bob["since"], bob["connections"]), (None, []))

    def test_strict(self) -> None:
        """
        A peer is in strict mode if its newest mux is.
        """
        self.rig.server.strict = ("alice",)
        self.rig.connect("bob")
        self.rig.connect("alice", strict=True)
        alice, bob = self.rig.facts.asJSON()["peers"]
        self.assertEqual((alice["muxes"], bob["muxes"]), (1, 1))
        self.assertEqual((alice["strict"], bob["strict"]), (True, False))


class ServiceTests(SynchronousTestCase):
    """
    The facts about services
    """

    def test_services(self) -> None:
        """
        The services of the configuration are there from the start.
        """
        rig = StatusRig(self)
        found = [(f.service, f.direction, f.counts.total) for f in rig.facts.services()]
        self.assertEqual(found, [("files", "forwarded", 0), ("web", "served", 0)])
        rig.server.streamFactory = Recorders()
        names = [facts.service for facts in rig.facts.services()]
        self.assertEqual(names, ["files", "unnamed", "web"])

    def test_counts(self) -> None:
        """
        What happens is counted, and stays when the service is removed.
        """
        rig = StatusRig(self)
        pair = rig.connect()
        pair.client.openStream(Recorders(), "web")
        pair.flush()
        for open in (1, 0):
            [web] = [f for f in rig.facts.asJSON()["services"] if f["service"] == "web"]
            self.assertEqual((web["open"], web["total"]), (open, 1))
            rig.server.services = {}
            pair.loseCarrier()
            rig.clock.advance(1)


class LimitTests(SynchronousTestCase):
    """
    How much of each limit is used
    """

    def setUp(self) -> None:
        self.rig = StatusRig(self)

    def limit(self, name: str) -> LimitFacts:
        return {limit.name: limit for limit in self.rig.facts.limits()}[name]

    def used(self, name: str) -> tuple[int, int | None]:
        limit = self.limit(name)
        return limit.used, limit.limit

    def test_unused(self) -> None:
        """
        Nothing is used at first.
        """
        for limit in self.rig.facts.limits():
            self.assertEqual(limit.used, 0, limit)
            self.assertEqual(limit.ratio, 0.0)

    def test_used(self) -> None:
        """
        What a peer uses counts.
        """
        limits = Limits()
        pair = self.rig.connect()
        for _ in range(3):
            pair.client.openStream(Recorders(), "web")
        pair.flush()
        self.assertEqual(self.used("max-muxes"), (1, limits.maxMuxes))
        self.assertEqual(self.used("max-streams"), (3, limits.maxStreams))
        self.assertEqual(self.used("max-connections"), (3, 4096))
        self.assertEqual(self.limit("descriptors").used, 4)
        self.assertGreater(self.limit("max-buffered").used, 3 * 4096)
        self.assertAlmostEqual(self.limit("max-streams").ratio, 3 / 16384)
        self.rig.service.pool.openStream(Recorders(), peer="bob").addErrback(
            lambda _: None
        )
        self.assertEqual(self.used("max-waiting"), (1, 10))
        self.rig.service.pool.failWaiting(ValueError())

    def test_rules(self) -> None:
        """
        The limits of a peer's rules count if the peer is nearer to them.
        """
        rules = PeerRules(maxMuxes=5, maxStreams=4)
        self.rig.service.keyring.uses.rules = {"alice": rules}
        pair = self.rig.connect()
        pair.client.openStream(Recorders(), "web")
        pair.flush()
        self.assertEqual(self.used("max-muxes"), (1, 5))
        self.assertEqual(self.used("max-streams"), (1, 4))

    def test_unlimited(self) -> None:
        """
        A limit that there is not has no number.
        """
        self.assertEqual(LimitFacts("x", 5, None).ratio, 0.0)
        self.rig.service.keyring.descriptors._alone = 1 << 62
        self.assertEqual(self.used("descriptors"), (0, None))


class HealthTests(SynchronousTestCase):
    """
    L{Facts.problems<gomux.status._facts.Facts.problems>}
    """

    def setUp(self) -> None:
        self.rig = StatusRig(self)

    def test_listens(self) -> None:
        """
        A listener that does not listen is a problem.
        """
        self.assertEqual(self.rig.facts.problems(), [])
        self.rig.listener.port = None
        self.assertEqual(self.rig.facts.problems(), ["--listen x"])

    def test_connects(self) -> None:
        """
        A connect is well once its mux has heard from the peer, and not before and not
        after.
        """
        connector, endpoint = self.rig.connector()
        self.assertEqual(self.rig.facts.problems(), ["--connect bob=x"])
        endpoint.server = MuxFactory(KEYS["bob"], False, clock=self.rig.clock)
        connector.startService()
        for _ in range(5):
            self.rig.clock.advance(0.01)
        self.assertEqual(self.rig.facts.problems(), [])
        endpoint.server = None
        endpoint.carriers[0].abortConnection()
        self.rig.clock.advance(0.01)
        self.assertEqual(self.rig.facts.problems(), ["--connect bob=x"])
        connector.stopService()

    def test_silentServer(self) -> None:
        """
        A Go server says nothing before a stream is opened: its mux counts once it has
        stood for a while.
        """
        connector, endpoint = self.rig.connector()
        endpoint.server = MuxFactory(
            KEYS["bob"], False, clock=self.rig.clock, greet=False
        )
        connector.dialler.greet = False
        connector.startService()
        self.rig.clock.advance(STANDS - 0.1)
        self.assertEqual(self.rig.facts.problems(), ["--connect bob=x"])
        self.rig.clock.advance(0.1)
        self.assertEqual(self.rig.facts.problems(), [])
        connector.dialler.muxes[0].drain()
        self.assertEqual(self.rig.facts.problems(), ["--connect bob=x"])
        connector.stopService()
