"""
Tests for L{gomux._mux.liveness}: pings between peers that have announced them.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits, MuxFactory
from gomux._wire.crypto import Sealer, deriveKey
from gomux._wire.frame import BOUND, Flag
from gomux.error import LimitExceeded, PeerVanished
from gomux.test.support.helpers import Parts, Recorders, Rig, assertLasts
from gomux.testing import PSK, MuxPair


class PingRig(Rig):
    """
    A rig whose peer has greeted.

    @ivar isAlive: whether the peer echoes pings.
    """

    def __init__(
        self,
        isClient: bool = False,
        limits: Limits | None = None,
        greet: bool = True,
        bits: int = BOUND,
        isAlive: bool = False,
        counter: int = 0,
    ) -> None:
        super().__init__(isClient=isClient, limits=limits, greet=greet)
        self.isAlive = isAlive
        self.peer.sealer = Sealer(deriveKey(PSK), counter=counter)
        self.send(0, Flag.KEEPALIVE, bits)
        self.seen = len(self.peer.frames)

    @property
    def lastFromMux(self) -> int:
        """
        The counter of the last frame that the mux has sent.
        """
        return Parts(self.mux).scheduler._sealer.last % 2**32

    def keepalives(self) -> list[int]:
        """
        @return: the stream IDs of the Keepalives that the mux has sent since the last
            call.
        """
        self.run()
        frames, self.seen = self.peer.frames[self.seen :], len(self.peer.frames)
        return [frame[0] for frame in frames if frame[1] == Flag.KEEPALIVE]

    def ping(self, counter: int | None = None) -> None:
        """
        Have the peer send a Keepalive.

        @param counter: its stream ID; by default the counter of the last frame that the
            mux has sent.
        """
        self.send(self.lastFromMux if counter is None else counter, Flag.KEEPALIVE)

    def wait(self, seconds: float) -> None:
        """
        Let some time pass, in small steps.
        """
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)
            if self.isAlive and self.keepalives():
                self.ping()


class SentTests(SynchronousTestCase):
    """
    The pings that a mux sends, and its echoes.
    """

    def test_every(self) -> None:
        """
        A ping is sent every 5 seconds.  It has the counter of the last frame that came.
        """
        for isClient in (True, False):
            rig = PingRig(isClient)
            rig.wait(4.75)
            self.assertEqual(rig.keepalives(), [])
            rig.wait(0.25)
            self.assertEqual(rig.keepalives(), [0])
            rig.opened(b"x")
            rig.wait(4.75)
            self.assertEqual(rig.keepalives(), [])
            rig.wait(0.25)
            self.assertEqual(rig.keepalives(), [2])

    def test_setting(self) -> None:
        """
        The interval is one of the limits.
        """
        rig = PingRig(limits=Limits(ping=0.75))
        rig.wait(6)
        self.assertEqual(rig.keepalives(), [0] * 8)

    def test_low32(self) -> None:
        """
        A ping has the low 32 bits of the counter.
        """
        rig = PingRig(counter=2**32 - 1)
        rig.wait(5)
        self.assertEqual(rig.keepalives(), [2**32 - 1])
        rig.opened()
        rig.wait(5)
        self.assertEqual(rig.keepalives(), [0])

    def test_echo(self) -> None:
        """
        A ping of the peer is answered at once.  The answer to a ping of this side is
        not.
        """
        rig = PingRig()
        for counter in (1, 2, 3):
            rig.ping(0)
            self.assertEqual(rig.keepalives(), [counter])
        rig.wait(5)
        self.assertEqual(rig.keepalives(), [3])
        rig.ping()
        self.assertEqual(rig.keepalives(), [])
        rig.ping()
        self.assertEqual(rig.keepalives(), [5])

    def test_told(self) -> None:
        """
        The factory is told when the peer has echoed a ping, and of no other Keepalive.
        """
        rig = PingRig()
        told: list[float | None] = []
        self.patch(rig.factory, "muxEchoed", lambda mux: told.append(mux.roundTrip))
        rig.ping(0)
        self.assertEqual(told, [])
        rig.wait(5)
        rig.clock.advance(0.25)
        rig.ping()
        rig.ping()
        self.assertEqual(told, [0.25])

    def test_manyEchoes(self) -> None:
        """
        If the peer does not read, one answer waits, whatever it sends.  Once it reads
        again, it also gets the answer to its last ping.
        """
        rig = PingRig()
        scheduler = Parts(rig.mux).scheduler
        scheduler.pauseProducing()
        for _ in range(100):
            rig.ping(0)
        self.assertEqual(scheduler.controlQueued, 1)
        scheduler.resumeProducing()
        self.assertEqual(rig.keepalives(), [1, 100])
        rig.ping(0)
        self.assertEqual(rig.keepalives(), [101])

    def test_crossing(self) -> None:
        """
        A ping of the peer that was sent before this side's ping came is answered.
        """
        rig = PingRig()
        before = rig.lastFromMux
        rig.wait(5)
        self.assertEqual(rig.keepalives(), [0])
        rig.ping(before)
        self.assertEqual(rig.keepalives(), [1])
        rig.ping()
        self.assertEqual(rig.keepalives(), [])

    def test_notAnnounced(self) -> None:
        """
        If either side has not announced pings, a mux sends nothing but a Keepalive
        after ten minutes.
        """
        for greet, bits in ((False, BOUND), (True, 0), (True, 2), (False, 0)):
            rig = PingRig(greet=greet, bits=bits)
            rig.ping(0)
            rig.wait(599)
            self.assertEqual(rig.keepalives(), [])
            rig.wait(1)
            self.assertEqual(rig.keepalives(), [0])
            self.assertTrue(rig.mux.answers)
            self.assertIsNone(rig.mux.roundTrip)
            self.assertIsNone(rig.reason())

    def test_nothingElse(self) -> None:
        """
        A peer that is pinged gets no other Keepalives.
        """
        rig = PingRig(limits=Limits(keepalive=1.0), isAlive=True)
        sent = rig.mux.bytesSent
        rig.wait(20)
        self.assertEqual(rig.mux.bytesSent - sent, 4 * 52)

    def test_blocked(self) -> None:
        """
        While the carrier takes nothing, one ping waits.
        """
        rig = PingRig()
        rig.carrier.producer.pauseProducing()
        rig.wait(40)
        self.assertEqual(rig.keepalives(), [])
        rig.carrier.producer.resumeProducing()
        self.assertEqual(rig.keepalives(), [0])
        rig.ping()
        rig.wait(5)
        self.assertEqual(rig.keepalives(), [1])

    def test_flood(self) -> None:
        """
        The peer may not send pings without end.  Echoes do not count.
        """
        limits = Limits(ping=0.25, ignoredRate=0.1, ignoredBurst=20)
        rig = PingRig(limits=limits, isAlive=True)
        rig.wait(60)
        self.assertIsNone(rig.reason())
        for _ in range(40):
            rig.ping(0)
        self.assertIsInstance(rig.reason(), LimitExceeded)

    def test_end(self) -> None:
        """
        No ping is sent after the end of the mux.
        """
        rig = PingRig(isAlive=True)
        rig.wait(7)
        rig.peerCarrier.abortConnection()
        self.assertIsNotNone(rig.reason())
        self.assertEqual(rig.clock.getDelayedCalls(), [])


class EchoedTests(SynchronousTestCase):
    """
    What a mux makes of the echoes.
    """

    def test_vanished(self) -> None:
        """
        The mux ends when its newest echoed ping is 45 seconds old.
        """
        for isClient in (True, False):
            for echoed in (0, 3):
                rig = PingRig(isClient, isAlive=True)
                rig.wait(5 * echoed)
                rig.isAlive = False
                rig.wait(44.75)
                self.assertIsNone(rig.reason())
                rig.wait(0.25)
                self.assertIsInstance(rig.reason(), PeerVanished)
                self.assertEqual(rig.clock.getDelayedCalls(), [])

    def test_setting(self) -> None:
        """
        C{deadPeer} is one of the limits, and need not be a multiple of the interval.
        """
        rig = PingRig(limits=Limits(deadPeer=7.0), isAlive=True)
        rig.wait(5)
        rig.isAlive = False
        rig.wait(6.75)
        self.assertIsNone(rig.reason())
        rig.wait(0.25)
        self.assertIsInstance(rig.reason(), PeerVanished)

    def test_nothingElseCounts(self) -> None:
        """
        Neither other frames of the peer, nor Keepalives that echo nothing newer, count
        as a sign of life.
        """
        rig = PingRig()
        rig.opened()
        old = rig.lastFromMux
        for _ in range(179):
            rig.wait(0.25)
            rig.send(0, Flag.DATA, b"x")
            rig.ping(old)
        self.assertIsNone(rig.reason())
        rig.wait(0.25)
        self.assertIsInstance(rig.reason(), PeerVanished)

    def test_heldBack(self) -> None:
        """
        If an attacker holds echoes back and lets them through one by one, the mux does
        not stay up for longer.
        """
        rig = PingRig()
        held = []
        for _ in range(8):
            rig.wait(5)
            held.append(rig.peer.seal(rig.lastFromMux, Flag.KEEPALIVE))
        # These are the echoes of the pings after 5 and 10 seconds.
        for echo in held[:2]:
            rig.sendRaw(echo)
            rig.wait(7)
            self.assertIsNone(rig.reason())
        rig.wait(1)
        self.assertIsInstance(rig.reason(), PeerVanished)

    def test_answers(self) -> None:
        """
        C{answers} is true until the newest echoed ping is older than two intervals, and
        again as soon as a newer ping is echoed.
        """
        rig = PingRig(isAlive=True)
        rig.wait(15)
        rig.isAlive = False
        rig.wait(10)
        self.assertTrue(rig.mux.answers)
        rig.wait(0.25)
        self.assertFalse(rig.mux.answers)
        rig.ping()
        self.assertTrue(rig.mux.answers)

    def test_noEchoes(self) -> None:
        """
        A peer that only sends its own pings, and never answers one, keeps the mux up
        too.
        """
        for offset in (0.25, 2.5, 4.75):
            rig = PingRig()
            rig.wait(offset)
            for _ in range(50):
                rig.ping()
                self.assertTrue(rig.mux.answers)
                rig.wait(5)
            self.assertIsNone(rig.reason())

    def test_counterWraps(self) -> None:
        """
        Pings are recognized across the end of their 32 bits.
        """
        rig = PingRig(isAlive=True)
        Parts(rig.mux).scheduler._sealer._next = 2**32 - 2
        Rig.sent(rig)
        for _ in range(5):
            rig.wait(5)
            self.assertTrue(rig.mux.answers)
            self.assertFalse(Parts(rig.mux).peerLiveness._unechoed)
        rig.wait(100)
        self.assertIsNone(rig.reason())

    def test_roundTrip(self) -> None:
        """
        The time from a ping to its echo is known.
        """
        pair = MuxPair(latency=0.25)
        pair.advance(4.5)
        for mux in (pair.client, pair.server):
            self.assertIsNone(mux.roundTrip)
        pair.advance(2)
        for mux in (pair.client, pair.server):
            self.assertAlmostEqual(mux.roundTrip or 0.0, 0.5)

    def test_roundTripBlocked(self) -> None:
        """
        The time for which a ping waits to be sent is no part of the round trip.
        """
        rig = PingRig()
        rig.carrier.producer.pauseProducing()
        rig.wait(20)
        rig.carrier.producer.resumeProducing()
        rig.run()
        rig.wait(1)
        rig.ping()
        self.assertEqual(rig.mux.roundTrip, 1.0)


class StandstillTests(SynchronousTestCase):
    """
    Times in which one of the processes does not run.
    """

    def test_own(self) -> None:
        """
        If this process stands still, only the time up to its next ping counts, however
        long the standstill is.  The time before and after it counts in full.
        """
        for seconds in (30, 3600):
            rig = PingRig()
            rig.wait(20)
            rig.clock.advance(seconds)
            self.assertIsNone(rig.reason())
            rig.wait(19.75)
            self.assertIsNone(rig.reason())
            rig.wait(0.25)
            self.assertIsInstance(rig.reason(), PeerVanished)

    def test_answers(self) -> None:
        """
        C{answers} stays true after a standstill of this process.
        """
        rig = PingRig(isAlive=True)
        rig.wait(10)
        rig.clock.advance(30)
        self.assertTrue(rig.mux.answers)
        rig.wait(5)
        self.assertTrue(rig.mux.answers)

    def test_behind(self) -> None:
        """
        While received frames wait to be handled, the mux does not end, and C{answers}
        is true: the echo may be among the frames.
        """
        rig = PingRig()
        incoming = Parts(rig.mux).incoming
        incoming.isBehind = True
        rig.wait(60)
        self.assertTrue(rig.mux.answers)
        self.assertIsNone(rig.mux.reason)
        incoming.isBehind = False
        self.assertFalse(rig.mux.answers)
        rig.ping()
        rig.wait(40)
        self.assertIsNone(rig.reason())

    def test_pair(self) -> None:
        """
        Two idle muxes keep each other up, also across a time in which one process or
        both stand still for 30 seconds.
        """
        clock = Clock()
        client, server = (
            MuxFactory(PSK, isClient, Recorders(), clock=clock)
            for isClient in (True, False)
        )
        pair = MuxPair(clientFactory=client, serverFactory=server, clock=clock)
        assertLasts(self, pair, clock)
