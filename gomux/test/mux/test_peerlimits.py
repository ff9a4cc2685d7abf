# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for the rules of each peer of a keyring, as its muxes enforce them.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from gomux import Keyring, Limits, MuxFactory, PeerRules
from gomux._mux.buffers import MUX_COST, STREAM_COST, TIGHT, buffersOf
from gomux._wire.salts import Salts
from gomux.error import (
    BuffersFull,
    LimitExceeded,
    ServiceBusy,
    ServiceNotAllowed,
    ServiceUnknown,
)
from gomux.test.support.helpers import Recorder, Recorders
from gomux.testing import MuxPair

ALICE = "the pre-shared key of alice"
OTHER = "another pre-shared key of alice"
BOB = "the pre-shared key of bob"


class PeerLimitsTests(SynchronousTestCase):
    """
    The rules of the peers of a server, in compatible mode.
    """

    strict = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.keyring = Keyring([("alice", ALICE), ("alice", OTHER), ("bob", BOB)])
        self.streams = Recorders()
        self.server = self.factory(self.keyring, False, {"chat": self.streams})
        self.server.streamFactory = self.streams
        self.pairs: list[MuxPair] = []
        self.addCleanup(self.assertNothingKept)

    def assertNothingKept(self) -> None:
        """
        When all muxes have ended, nothing is counted any more.
        """
        for pair in self.pairs:
            if pair.server.reason is None:
                pair.server.checkInvariants()
            pair.server.abort()
        for recorder in self.streams.made:
            if recorder.stream.paused:
                recorder.stream.resumeProducing()
        self.clock.advance(0)
        self.clock.advance(0)
        for name in self.keyring.names:
            use = self.keyring.uses[name]
            self.assertEqual((use.muxes, use.streams, use.buffered), (0, 0, 0))
        self.assertEqual(buffersOf(self.clock).peers, {})

    def factory(
        self,
        psk: str | Keyring,
        isClient: bool,
        services: Mapping[str, Recorders] | None = None,
    ) -> MuxFactory:
        return MuxFactory(
            psk,
            isClient,
            clock=self.clock,
            services=services,
            strict=self.strict,
            salts=Salts(),
        )

    def connect(self, psk: str, server: MuxFactory | None = None) -> MuxPair:
        """
        Connect a client with this key to the server.
        """
        pair = MuxPair(
            clientFactory=self.factory(psk, True),
            serverFactory=server or self.server,
            clock=self.clock,
        )
        pair.flush()
        self.pairs.append(pair)
        return pair

    def open(
        self, pair: MuxPair, count: int, service: str | None = None
    ) -> list[Recorder]:
        """
        Open streams all at once.

        @return: those that are not refused.
        """
        recorders = Recorders()
        for _ in range(count):
            pair.client.openStream(recorders, service).addErrback(lambda _: None)
        pair.flush()
        return [each for each in recorders.made if each.reason is None]

    # maxMuxes

    def test_maxMuxes(self) -> None:
        """
        A peer with a rule may have that many muxes, whether that is fewer or more than
        the limit for all.  A new rule holds for muxes that come up from then on.
        """
        self.server.limits = Limits(maxMuxes=2)
        self.keyring.rules = {"alice": PeerRules(maxMuxes=3)}
        for psk in (ALICE, OTHER, ALICE, BOB, BOB):
            self.assertIsNone(self.connect(psk).server.reason)
        for psk in (ALICE, OTHER, BOB):
            refused = self.connect(psk).server
            self.assertIsInstance(refused.reason, LimitExceeded)
            self.assertFalse(refused.authenticated)
        self.keyring.rules = {"*": PeerRules(maxMuxes=1)}
        self.assertEqual(len(self.server.muxes), 5)
        for pair in self.pairs[:3]:
            self.assertIsNotNone(self.connect(ALICE).server.reason)
            pair.client.close()
            pair.flush()
        self.assertIsNone(self.connect(ALICE).server.reason)
        self.assertIsNotNone(self.connect(ALICE).server.reason)

    # maxStreams

    def test_maxStreams(self) -> None:
        """
        C{maxStreams} of a peer counts the streams on all its muxes, of all servers and
        with all its keys, with a service and without.  Others do not notice, and what
        this side opens does not count.
        """
        self.keyring.rules = {"alice": PeerRules(maxStreams=10)}
        first, second = self.connect(ALICE), self.connect(OTHER)
        other = self.factory(self.keyring, False)
        other.streamFactory = self.streams
        third = self.connect(ALICE, other)
        held = self.open(first, 4)
        held += self.open(second, 3, "chat")
        self.server.muxes[0].openStream(Recorders())
        self.assertEqual(len(held), 7)
        self.assertEqual(len(self.open(third, 9)), 3)
        for pair in (first, second, third):
            self.assertEqual(self.open(pair, 2), [])
            self.assertEqual(self.open(pair, 2, "chat"), [])
            self.assertIsNone(pair.server.reason)
        self.assertEqual(len(self.open(self.connect(BOB), 20)), 20)

    def test_refused(self) -> None:
        """
        A stream over C{maxStreams} for a service gets the answer C{busy}; another is
        refused, and the log says why.  But who may not use a service does not learn how
        many streams there are.
        """
        self.keyring.rules = {"alice": PeerRules(("chat", "unnamed"), maxStreams=1)}
        pair = self.connect(ALICE)
        self.open(pair, 1)
        refused = Recorders()
        with capturedLogs() as events:
            pair.client.openStream(refused)
            named = pair.client.openStream(Recorders(), "chat")
            secret = pair.client.openStream(Recorders(), "secret")
            pair.flush()
        self.failureResultOf(named, ServiceBusy)
        self.failureResultOf(secret, ServiceNotAllowed)
        self.assertIsNotNone(refused.made[0].reason)
        lines = list(map(formatEvent, events))
        self.assertIn("its rule for maxStreams", str(lines))

    def test_atOnce(self) -> None:
        """
        Streams for services that are opened all at once are counted as they are
        accepted: as many as C{maxStreams} are, and the others leave no trace.
        """
        self.keyring.rules = {"*": PeerRules(maxStreams=50)}
        pair = self.connect(ALICE)
        for _ in range(3):
            held = self.open(pair, 80, "chat")
            self.assertEqual(len(held), 50)
            self.assertEqual(self.keyring.uses["alice"].streams, 50)
            for recorder in held:
                recorder.stream.loseConnection()
            pair.flush()
            self.assertEqual(self.keyring.uses["alice"].streams, 0)

    def test_ends(self) -> None:
        """
        A peer can open other streams once its streams have ended, however they end.
        Streams that were refused for another reason were never counted.
        """
        self.keyring.rules = {"alice": PeerRules(maxStreams=8)}
        pair, second = self.connect(ALICE), self.connect(ALICE)
        self.assertEqual(self.open(pair, 20, "unknown"), [])
        held = self.open(pair, 4) + self.open(pair, 4, "chat")
        made = self.streams.made
        held[0].stream.loseConnection()
        held[1].stream.abortConnection()
        made[2].stream.loseConnection()
        held[4].stream.loseConnection()
        held[5].stream.abortConnection()
        made[6].stream.abortConnection()
        pair.flush()
        self.assertEqual(self.keyring.uses["alice"].streams, 2)
        self.assertEqual(len(self.open(second, 9, "chat")), 6)
        pair.client.abort()
        pair.flush()
        self.assertEqual(self.keyring.uses["alice"].streams, 6)
        self.assertEqual(len(self.open(second, 9)), 2)

    def test_failing(self) -> None:
        """
        A stream whose factory makes no protocol, or fails, is not counted, and one
        whose protocol fails is counted until it has ended.
        """

        def fail(recorder: Recorder) -> None:
            raise ValueError()

        self.keyring.rules = {"alice": PeerRules(maxStreams=2)}
        pair = self.connect(ALICE)
        self.streams.hooks["made"] = fail
        for service in (None, "chat"):
            for _ in range(3):
                self.open(pair, 1, service)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 6)
        self.streams.buildProtocol = lambda addr: None  # type: ignore[method-assign, return-value, assignment]
        for service in (None, "chat"):
            self.open(pair, 3, service)
        self.assertEqual(self.keyring.uses["alice"].streams, 0)

    def test_reload(self) -> None:
        """
        A new rule holds at once for the streams of muxes that are up.  Streams that are
        open stay open.
        """
        pair = self.connect(ALICE)
        held = self.open(pair, 5)
        self.keyring.rules = {"alice": PeerRules(maxStreams=3)}
        self.assertEqual(self.open(pair, 1), [])
        for recorder in held[:2]:
            recorder.stream.loseConnection()
        pair.flush()
        self.assertEqual(self.open(pair, 1), [])
        held[2].stream.loseConnection()
        pair.flush()
        self.assertEqual(len(self.open(pair, 2)), 1)
        self.keyring.rules = {}
        self.assertEqual(len(self.open(pair, 30)), 30)

    def test_client(self) -> None:
        """
        A client holds the peer that it has dialled to the rules too.
        """
        keyring = Keyring({"alice": ALICE, "bob": BOB})
        keyring.rules = {"alice": PeerRules(maxStreams=1, maxMuxes=1)}
        client = MuxFactory(
            keyring,
            *(True, self.streams),
            clock=self.clock,
            peer="alice",
            strict=self.strict,
            salts=Salts(),
        )
        for expected in (1, 0):
            pair = MuxPair(
                clientFactory=client, serverFactory=self.server, clock=self.clock
            )
            pair.flush()
            self.pairs.append(pair)
            opened = Recorders()
            for _ in range(2):
                pair.server.openStream(opened)
            pair.flush()
            held = [each for each in opened.made if each.reason is None]
            self.assertEqual(len(held), expected)
        self.assertEqual(keyring.uses["alice"].muxes, 0)

    # services

    def test_services(self) -> None:
        """
        A peer may use the services in its rule only, and does not learn which others
        there are.  A new rule holds for streams that are opened from then on.
        """
        self.keyring.rules = {"alice": PeerRules(services=("chat", "gone"))}
        pair = self.connect(ALICE)

        def opened(service: str) -> Deferred[IProtocol]:
            result = pair.client.openStream(Recorders(), service)
            pair.flush()
            return result

        self.successResultOf(opened("chat"))
        self.failureResultOf(opened("gone"), ServiceUnknown)
        self.server.services["secret"] = self.streams
        for service in ("secret", "nothing"):
            self.failureResultOf(opened(service), ServiceNotAllowed)
        with capturedLogs() as events:
            self.assertEqual(self.open(pair, 1), [])
        self.assertIn(
            "may not use streams without", str(list(map(formatEvent, events)))
        )
        self.assertEqual(len(self.open(self.connect(BOB), 2, "secret")), 2)
        self.keyring.rules = {"*": PeerRules(services=("unnamed",))}
        self.failureResultOf(opened("chat"), ServiceNotAllowed)
        self.assertEqual(len(self.open(pair, 1)), 1)

    def test_mayUse(self) -> None:
        """
        C{mayUse} of the factory holds besides.
        """
        self.keyring.rules = {"*": PeerRules(services=("chat",))}
        asked: list[object] = []

        def mayUse(peer: str, service: str | None) -> bool:
            asked.append((peer, service))
            return peer == "alice"

        self.server.mayUse = mayUse
        self.assertEqual(len(self.open(self.connect(ALICE), 1, "chat")), 1)
        self.assertEqual(self.open(self.connect(BOB), 1, "chat"), [])
        self.assertEqual(self.open(self.pairs[0], 1), [])
        self.assertEqual(asked, [("alice", "chat"), ("bob", "chat")])

    # maxBuffered

    def fill(self, recorder: Recorder, size: int) -> None:
        """
        Have the peer send data that the server does not read.
        """
        recorder.stream.write(bytes(size))
        for pair in self.pairs:
            pair.flush()

    def pause(self, recorder: Recorder) -> None:
        recorder.stream.pauseProducing()

    def test_maxBuffered(self) -> None:
        """
        If the muxes of a peer take more than its C{maxBuffered}, the mux that takes
        most is ended, of that peer alone.
        """
        self.streams.hooks["made"] = self.pause
        small, big = self.connect(ALICE), self.connect(OTHER)
        bob = self.connect(BOB)
        most = 2 * (MUX_COST + STREAM_COST) + 150000
        self.keyring.rules = {"alice": PeerRules(maxBuffered=most)}
        [held], [other], [bobs] = (self.open(pair, 1) for pair in (small, big, bob))
        self.fill(bobs, 131072)
        self.fill(held, 50000)
        self.fill(other, 100000)
        self.assertEqual(buffersOf(self.clock).peers["alice"].used, most)
        self.fill(held, 1)
        self.assertIsInstance(big.server.reason, BuffersFull)
        self.assertIsNone(small.server.reason)
        self.assertIsNone(bob.server.reason)
        self.fill(held, 40000)
        self.assertIsNone(small.server.reason)

    def test_alone(self) -> None:
        """
        A single mux over the bound of its peer is ended, and no other.
        """
        self.streams.hooks["made"] = self.pause
        self.keyring.rules = {"*": PeerRules(maxBuffered=100000)}
        pairs = [self.connect(ALICE), self.connect(BOB)]
        [held], [_] = (self.open(pair, 1) for pair in pairs)
        self.fill(held, 131072)
        self.assertIsInstance(pairs[0].server.reason, BuffersFull)
        self.assertIsNone(pairs[1].server.reason)

    def test_otherKeyring(self) -> None:
        """
        What a peer with the same name in another keyring takes does not count, also
        where neither has a name.
        """
        self.streams.hooks["made"] = self.pause
        for names in (("alice", "bob"), ("",)):
            keys = {name: f"the other key of {name}" for name in names}
            servers = [self.factory(Keyring(keys), False) for _ in range(2)]
            for server in servers:
                server.streamFactory = self.streams
            bound, free = (self.connect(keys[names[0]], each) for each in servers)
            servers[0].keyring.rules = {"*": PeerRules(maxBuffered=100000)}
            [held], [other] = self.open(bound, 1), self.open(free, 1)
            self.fill(other, 131072)
            self.fill(held, 50000)
            self.assertIsNone(bound.server.reason)
            self.fill(held, 60000)
            self.assertIsInstance(bound.server.reason, BuffersFull)
            self.assertIsNone(free.server.reason)

    def test_tight(self) -> None:
        """
        Above three quarters of its C{maxBuffered}, a peer opens no more streams, and
        none of its windows grows.  Others do not notice.
        """
        self.streams.hooks["made"] = self.pause
        most = 400000
        self.keyring.rules = {"alice": PeerRules(maxBuffered=most)}
        pairs = [self.connect(ALICE), self.connect(OTHER), self.connect(BOB)]
        accounts = [pair.server._streams.account for pair in pairs]
        held = self.open(pairs[0], 2)
        left = int(most * TIGHT) - buffersOf(self.clock).peers["alice"].used
        self.fill(held[0], 131072)
        self.fill(held[1], left - 131072)
        for account in accounts:
            self.assertTrue(account.mayOpen and account.mayGrow)
        self.fill(held[1], 1)
        with capturedLogs() as events:
            for pair in pairs[:2]:
                self.assertEqual(self.open(pair, 1), [])
        self.assertIn("its share of maxBuffered", str(list(map(formatEvent, events))))
        for account in accounts[:2]:
            self.assertFalse(account.mayOpen or account.mayGrow)
        self.assertTrue(accounts[2].mayOpen and accounts[2].mayGrow)
        self.assertEqual(len(self.open(pairs[2], 1)), 1)
        self.keyring.rules = {}
        self.assertTrue(accounts[0].mayOpen and accounts[0].mayGrow)


class StrictPeerLimitsTests(PeerLimitsTests):
    """
    The rules of the peers of a server, in strict mode.
    """

    strict = True
