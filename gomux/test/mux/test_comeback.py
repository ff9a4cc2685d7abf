"""
Tests for L{gomux._mux.pool} while the only peer is away, and when it comes back.
"""

from __future__ import annotations

from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory
from gomux._mux.pool import COME_BACK, MuxPool
from gomux.test.support.poolline import Line
from gomux.test.support.slowclock import SlowClock
from gomux.testing import PSK, MuxPair


class ComeBackTests(SynchronousTestCase):
    """
    Streams for a peer that is away, while another peer is silent.
    """

    def setUp(self) -> None:
        self.line = Line()
        self.pool = self.line.pool
        self.silent = self.line.connect(greet=False)
        self.silent.advance(1.5)
        self.assertEqual(self.pool.muxes, [self.silent.server])
        peer = self.line.connect()
        self.line.flush()
        peer.loseCarrier()
        self.line.flush()

    def open(self) -> list[object]:
        """
        Open a stream.

        @return: a list that gets the protocol or the failure, once there is one.
        """
        results: list[object] = []
        self.pool.openStream(self.line.streams, 100).addBoth(results.append)
        return results

    def test_waits(self) -> None:
        """
        The silent peer may be a stranger, so streams wait for the other one.
        """
        results = self.open()
        self.silent.advance(COME_BACK - 0.1)
        self.assertEqual(results, [])
        peer = self.line.connect()
        self.line.flush()
        self.assertEqual(len(results), 1)
        self.assertEqual(peer.server.streamCount, 1)
        self.assertEqual(self.silent.server.streamCount, 0)

    def test_newcomer(self) -> None:
        """
        Another silent peer does not get them either.
        """
        results = self.open()
        self.line.connect(greet=False)
        self.silent.advance(2)
        self.assertEqual(len(self.pool.muxes), 2)
        self.assertEqual(results, [])

    def test_staysAway(self) -> None:
        """
        If the other peer does not come back, the silent peer gets them: it may be a
        client of the Go package.
        """
        self.silent.advance(COME_BACK / 2)
        early = self.open()
        late = self.open()
        self.assertEqual((early, late), ([], []))
        self.silent.advance(COME_BACK / 2)
        self.assertEqual((len(early), len(late)), (1, 1))
        self.open()
        self.assertEqual(self.silent.server.streamCount, 3)

    def test_awayAgain(self) -> None:
        """
        The time begins when the pool loses the last such mux.
        """
        named: list[object] = []
        opening = self.pool.openStream(self.line.streams, 100, "chat")
        opening.addBoth(named.append)
        self.silent.advance(COME_BACK / 2)
        peer = self.line.connect(greet=False)
        self.silent.advance(COME_BACK)
        peer.client.openStream(self.line.streams)
        self.line.flush()
        peer.loseCarrier()
        self.line.flush()
        results = self.open()
        self.silent.advance(COME_BACK - 0.1)
        self.assertEqual(results, [])
        self.silent.advance(0.2)
        self.assertEqual(self.silent.server.streamCount, 1)

    def test_noCallLeft(self) -> None:
        """
        When no stream waits any more, no call is left.
        """
        calls = len(self.line.clock.getDelayedCalls())
        opening = self.pool.openStream(self.line.streams)
        opening.addErrback(lambda failure: None)
        opening.cancel()
        self.assertEqual(len(self.line.clock.getDelayedCalls()), calls)


class ManyTests(SynchronousTestCase):
    """
    Many streams that wait for the same mux.
    """

    def test_turns(self) -> None:
        """
        If the time of a turn is over, the rest is opened in later turns.  Streams that
        are cancelled meanwhile are not opened.
        """
        clock = SlowClock()
        pool = MuxPool(clock, timeout=1000)
        made: list[object] = []

        class Slow(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> Protocol:
                clock.work(1)
                made.append(addr)
                return Protocol()

        openings = [pool.openStream(Slow()) for _ in range(4)]
        pair = MuxPair(
            clientFactory=MuxFactory(
                PSK, True, Factory.forProtocol(Protocol), clock=clock
            ),
            serverFactory=MuxFactory(PSK, False, clock=clock, pool=pool),
            clock=clock,
        )
        counts = []
        openings[2].addErrback(lambda failure: None)
        for _ in range(12):
            counts.append(len(made))
            if len(made) == 2:
                openings[2].cancel()
            clock.work(0.001)
            clock.turn()
        self.assertEqual(sorted(set(counts)), [0, 1, 2, 3])
        self.assertEqual((pair.server.streamCount, pool.waiting), (3, 0))
