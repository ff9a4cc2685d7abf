# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._mux.buffers}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from gomux import Keyring, Limits, MuxFactory
from gomux._mux.buffers import (
    CONTROL_COST,
    MUX_COST,
    STREAM_COST,
    Account,
    Buffers,
    buffersOf,
)
from gomux._wire.frame import Flag
from gomux._wire.peerrules import PeerUse
from gomux.error import BuffersFull
from gomux.test.support.helpers import Recorder, Recorders, Rig


class AccountTests(SynchronousTestCase):
    """
    L{Account}
    """

    def setUp(self) -> None:
        self.buffers = Buffers()
        self.ended: list[str] = []

    def account(self, peer: str, used: int, bound: int = 1000000) -> Account:
        """
        @return: the account of a mux that takes C{used} bytes more than any mux.
        """
        account = Account(self.buffers, bound, lambda: self.ended.append(peer))
        account.begin()
        account.begin(PeerUse(peer))
        account.charge(used)
        return account

    def test_biggestPeer(self) -> None:
        """
        If too much is taken, the mux that takes most is ended, of the peer that takes
        most: not a mux that takes more, of a peer that takes less.
        """
        self.account("small", 300000)
        first = self.account("big", 150000)
        second = self.account("big", 200000)
        third = self.account("big", 100000)
        self.assertEqual(self.ended, [])
        third.charge(200000)
        self.assertEqual(self.ended, ["big"])
        self.assertEqual(third.used, 0)
        self.assertEqual(first.used, MUX_COST + 150000)
        self.assertEqual(second.used, MUX_COST + 200000)
        self.assertEqual(self.buffers.total, 3 * MUX_COST + 650000)

    def test_isOver(self) -> None:
        """
        A mux that had to end takes nothing any more, whatever it does.
        """
        account = self.account("a", 0)
        account.opened(0)
        account.charge(2000000)
        account.begin(PeerUse("b"))
        account.charge(5)
        account.closed()
        account.muxEnded()
        self.assertEqual(self.ended, ["a"])
        self.assertEqual((account.used, self.buffers.total), (0, 0))
        self.assertEqual(self.buffers.peers, {})

    def test_forgotten(self) -> None:
        """
        A mux that takes nothing any more is forgotten, and so is its peer.
        """
        account = self.account("a", 0)
        account.opened(7)
        self.assertEqual(account.used, MUX_COST + STREAM_COST + 7 * CONTROL_COST)
        account.muxEnded()
        self.assertEqual(self.buffers.total, STREAM_COST)
        account.closed()
        self.assertEqual(self.buffers.total, 0)
        self.assertEqual(self.buffers.peers, {})

    def test_share(self) -> None:
        """
        Above three quarters of the bound, a peer may open streams as long as it takes
        no more than its share of them.
        """
        big, small = self.account("big", 600000), self.account("small", 50000)
        self.assertTrue(big.mayOpen and big.mayGrow)
        small.charge(100000)
        self.assertFalse(big.mayOpen or big.mayGrow or small.mayGrow)
        self.assertTrue(small.mayOpen)
        big.charge(-100000)
        self.assertTrue(big.mayOpen and big.mayGrow)


class BuffersTests(SynchronousTestCase):
    """
    Muxes that share L{Buffers}
    """

    def setUp(self) -> None:
        self.clock = Clock()
        keys = Keyring(
            (("good", b"good key of this test"), ("bad", b"bad key of this"))
        )
        self.streams = Recorders(made=self.made)
        self.pauses = True
        self.factory = MuxFactory(
            keys,
            False,
            self.streams,
            clock=self.clock,
            greet=False,
            limits=Limits(maxBuffered=2000000),
        )

    def made(self, recorder: Recorder) -> None:
        if self.pauses:
            recorder.stream.pauseProducing()

    def rig(self, name: str) -> Rig:
        key = {"good": "good key of this test", "bad": "bad key of this"}[name]
        rig = Rig(psk=key, factory=self.factory, clock=self.clock)
        rig.meet()
        return rig

    def open(self, rig: Rig, streamID: int) -> Recorder | None:
        before = len(self.streams.made)
        rig.send(streamID, Flag.OPEN_STREAM)
        made = self.streams.made[before:]
        return made[0] if made else None

    def fill(self, rig: Rig, streamID: int) -> None:
        """
        Send a whole window that the application does not read.
        """
        for _ in range(2):
            rig.send(streamID, Flag.DATA, bytes(65536))

    def test_unread(self) -> None:
        """
        A peer with many muxes whose streams nobody reads loses muxes when all take too
        much.  The peer with another key goes on, also with data that waits.
        """
        good = self.rig("good")
        kept = self.open(good, 0)
        assert kept is not None
        self.fill(good, 0)
        bad = [self.rig("bad") for _ in range(5)]
        for rig in bad:
            for streamID in range(0, 12, 2):
                self.open(rig, streamID)
        with capturedLogs() as events:
            for streamID in range(0, 12, 2):
                for rig in bad:
                    if rig.mux.reason is None:
                        self.fill(rig, streamID)
                    self.clock.advance(0)
                    self.assertLessEqual(buffersOf(self.clock).total, 2000000)
                    for each in (good, *bad):
                        if each.mux.hasCarrier:
                            each.mux.checkInvariants()
        reasons = [rig.mux.reason for rig in bad if rig.mux.reason is not None]
        self.assertGreater(len(reasons), 0)
        for reason in reasons:
            self.assertIsInstance(reason, BuffersFull)
        self.assertIn("The buffers are full", str(list(map(formatEvent, events))))
        self.assertIsNone(good.mux.reason)
        kept.stream.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(len(kept.received), 131072)
        for recorder in self.streams.made:
            if isinstance(recorder.reason, BuffersFull):
                self.assertEqual(recorder.received, b"")
        self.assertIsNotNone(self.open(good, 2))

    def test_lingering(self) -> None:
        """
        Input that waits counts also after its mux has ended, and can then be dropped.
        """
        bad = self.rig("bad")
        for streamID in range(0, 20, 2):
            self.open(bad, streamID)
            self.fill(bad, streamID)
        bad.peerCarrier.abortConnection()
        self.clock.advance(1)
        self.assertIsNotNone(bad.mux.reason)
        taken = 10 * (131072 + STREAM_COST)
        self.assertEqual(buffersOf(self.clock).total, taken)
        good = self.rig("good")
        for streamID in range(0, 10, 2):
            self.open(good, streamID)
            self.fill(good, streamID)
        self.assertIsNone(good.mux.reason)
        self.assertEqual(
            buffersOf(self.clock).total, MUX_COST + 5 * (131072 + STREAM_COST)
        )
        self.clock.advance(0)
        for recorder in self.streams.made[:10]:
            self.assertEqual(recorder.events, ["made", "lost"])
        self.assertEqual(self.factory.lingering, {})

    def test_lateLoss(self) -> None:
        """
        Input that waits is also dropped if the carrier of the mux takes time to go.
        """
        bad = self.rig("bad")
        bad.carrier.abortConnection = lambda: None  # type: ignore[method-assign]
        for streamID in range(0, 32, 2):
            self.open(bad, streamID)
        for streamID in range(0, 32, 2):
            self.fill(bad, streamID)
        self.assertIsInstance(bad.mux.reason, BuffersFull)
        self.clock.advance(1)
        self.clock.advance(0)
        self.assertEqual(self.factory.lingering, {})
        for recorder in self.streams.made:
            self.assertEqual(recorder.events, ["made", "lost"])

    def test_output(self) -> None:
        """
        Output that waits counts too.
        """
        good, bad = self.rig("good"), self.rig("bad")
        self.pauses = False
        recorder = self.open(bad, 0)
        assert recorder is not None
        for _ in range(40):
            recorder.stream.write(bytes(65536))
        self.clock.advance(0)
        self.assertIsInstance(bad.mux.reason, BuffersFull)
        self.assertIsInstance(recorder.reason, BuffersFull)
        self.assertIsNone(good.mux.reason)
        self.assertEqual(buffersOf(self.clock).total, MUX_COST)

    def test_control(self) -> None:
        """
        Control frames that the peer does not read count when it opens a stream.
        """
        bad = self.rig("bad")
        bad.mux._scheduler.pauseProducing()
        for streamID in range(0, 200, 2):
            self.open(bad, streamID)
            bad.send(streamID, Flag.CLOSE_STREAM)
            self.streams.made[-1].stream.abortConnection()
        bad.run()
        for number in range(100):
            bad.mux._scheduler.control(0, Flag.KEEPALIVE, number)
        self.open(bad, 200)
        waiting = bad.mux._scheduler.controlQueued
        self.assertGreaterEqual(waiting, 100)
        self.assertEqual(
            buffersOf(self.clock).total,
            MUX_COST + STREAM_COST + waiting * CONTROL_COST,
        )

    def test_refused(self) -> None:
        """
        Above three quarters of the bound, a peer over its share opens no more streams.
        Another peer does.
        """
        good, bad = self.rig("good"), self.rig("bad")
        for streamID in range(0, 22, 2):
            self.assertIsNotNone(self.open(bad, streamID))
            self.fill(bad, streamID)
        bad.sent()
        self.assertIsNone(self.open(bad, 22))
        self.assertEqual(
            bad.sent(), [(22, Flag.WINDOW_UPDATE, 0), (22, Flag.CLOSE_STREAM, 0)]
        )
        self.assertIsNotNone(self.open(good, 0))
        self.assertIsNone(bad.mux.reason)

    def test_noGrowth(self) -> None:
        """
        Above three quarters of the bound no window grows.
        """
        rig = self.rig("bad")
        growth, account = rig.mux._streams.growth, rig.mux._streams.account
        self.assertTrue(account.mayGrow)
        rig.mux._streams.charge(1500000)
        self.assertFalse(account.mayGrow)
        window = type("Window", (), {"size": 131072})()
        self.assertEqual(growth._grow(window, 1 << 20, 1.0), 0)

    def test_oneReactor(self) -> None:
        """
        All factories of a reactor share one bound.
        """
        other = MuxFactory("another key, of 20 bytes", False, clock=self.clock)
        self.assertIs(other.buffers, self.factory.buffers)
        apart = MuxFactory("another key, of 20 bytes", False, clock=Clock())
        self.assertIsNot(apart.buffers, self.factory.buffers)
