# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._mux.dialler}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory, MuxProtocol
from gomux._mux.dialler import Dialler, State, retryPolicy
from gomux._wire.frame import ID_END
from gomux.error import ConnectionClosed
from gomux.limits import MAX_RETRY_DELAY, MAX_WORN
from gomux.test.support.dialling import DiallerTestCase
from gomux.test.support.helpers import Recorders
from gomux.testing import PSK


class DiallerTests(DiallerTestCase):
    """
    L{Dialler}
    """

    def setUp(self) -> None:
        super().setUp()
        self.dialler = Dialler(PSK, self.endpoint, 4.0, clock=self.clock)

    def assertState(self, state: State) -> None:
        self.assertIs(self.dialler.state, state)

    def test_states(self) -> None:
        """
        The dialler connects when started, waits after a failed attempt or a lost mux,
        is up while it has a mux, and is idle after C{stop}.
        """
        self.assertState(State.IDLE)
        self.endpoint.hold = Deferred()
        self.dialler.start()
        self.assertState(State.CONNECTING)
        hold, self.endpoint.hold = self.endpoint.hold, None
        hold.errback(ConnectionRefusedError())
        self.assertState(State.WAITING)
        self.endpoint.server = self.server
        self.advance(0.3)
        self.assertState(State.UP)
        self.server.muxes[0].abort()
        self.clock.advance(0)
        self.assertState(State.WAITING)
        self.dialler.stop()
        self.assertState(State.IDLE)
        self.assertEqual(len(self.endpoint.attempts), 2)

    def test_connects(self) -> None:
        """
        The first C{start} connects, and further calls of it have no effect.
        """
        self.endpoint.server = self.server
        self.dialler.start()
        self.dialler.start()
        self.advance(10)
        self.dialler.start()
        self.assertEqual(self.endpoint.attempts, [0.0])
        self.assertEqual(len(self.dialler.pool.muxes), 1)

    def test_once(self) -> None:
        """
        C{start} makes no second attempt during an attempt or a pause.
        """
        self.endpoint.hold = Deferred()
        self.dialler.start()
        self.dialler.start()
        self.endpoint.hold.errback(ConnectionRefusedError())
        self.dialler.start()
        self.assertEqual(len(self.endpoint.attempts), 1)

    def test_reconnects(self) -> None:
        """
        A lost mux is soon replaced.
        """
        self.endpoint.server = self.server
        self.dialler.start()
        self.advance(1)
        self.server.pool.muxes[0].abort()
        self.advance(0.5)
        self.assertEqual(len(self.dialler.pool.muxes), 1)
        self.assertEqual(len(self.endpoint.attempts), 2)

    def test_unreachable(self) -> None:
        """
        The dialler goes on trying to reach a peer, and its pauses grow to the longest
        pause.
        """
        self.dialler.start()
        self.advance(50)
        attempts = self.endpoint.attempts
        gaps = [b - a for a, b in zip(attempts, attempts[1:], strict=False)]
        self.assertLess(gaps[0], 0.3)
        self.assertLess(max(gaps), 4.1)
        self.assertGreater(sum(gaps[-5:]), 5.0)
        self.assertIsInstance(self.dialler.pool.lastReason, ConnectionRefusedError)

    def test_raises(self) -> None:
        """
        An endpoint whose C{connect} raises counts as a failed attempt.
        """
        self.endpoint.connect = None  # type: ignore[assignment, method-assign]
        self.dialler.start()
        self.assertState(State.WAITING)
        self.assertIsInstance(self.dialler.pool.lastReason, TypeError)

    def test_wrongKey(self) -> None:
        """
        A peer that accepts connections and drops them, because its key differs, is
        dialled no more often than a peer that refuses them.
        """
        self.endpoint.server = MuxFactory("another key", False, clock=self.clock)
        self.dialler.start()
        self.advance(60)
        self.assertLess(len(self.endpoint.attempts), 40)
        self.assertIn("wrong pre-shared key", str(self.dialler.pool.lastReason))

    def test_wrongKeyNotWanted(self) -> None:
        """
        Stopping the dialler whenever it is up, and starting it again, does not make it
        dial a peer with another key more often.
        """
        self.endpoint.server = MuxFactory("another key", False, clock=self.clock)
        for _ in range(6000):
            self.dialler.start()
            if self.dialler.state is State.UP:
                self.dialler.stop()
            self.clock.advance(0.01)
        self.assertLess(len(self.endpoint.attempts), 40)

    def test_notWanted(self) -> None:
        """
        A mux that is lost after C{stop} is not replaced until the next C{start}, which
        connects at once.
        """
        self.endpoint.server = self.server
        self.dialler.start()
        self.dialler.stop()
        self.advance(1)
        self.server.muxes[0].abort()
        self.advance(1)
        self.assertState(State.IDLE)
        self.assertEqual(len(self.endpoint.attempts), 1)
        self.dialler.start()
        self.assertState(State.UP)

    def test_clockSetBack(self) -> None:
        """
        A pause does not get longer when the clock is set back.
        """
        self.endpoint.server = MuxFactory("another key", False, clock=self.clock)
        self.clock.advance(7200)
        self.dialler.start()
        self.dialler.stop()
        self.clock.advance(0)
        self.clock.rightNow -= 3600
        self.dialler.start()
        self.assertState(State.WAITING)
        self.clock.advance(4)
        self.assertEqual(len(self.endpoint.attempts), 2)

    def test_closedUnheard(self) -> None:
        """
        A mux that this side closed before its peer sent anything does not count as a
        failed attempt.
        """
        self.endpoint.server = MuxFactory(PSK, False, clock=self.clock, greet=False)
        self.dialler.start()
        self.dialler.stop()
        self.advance(1)
        self.dialler.muxes[0].close()
        self.clock.advance(0)
        self.assertState(State.IDLE)
        self.dialler.start()
        self.assertState(State.UP)

    def test_whileClosing(self) -> None:
        """
        C{start} connects another mux while the last one is still closing, and the new
        mux stays when the old one is gone.
        """
        self.endpoint.server = self.server
        self.dialler.start()
        self.advance(1)
        self.endpoint.carriers[0].outgoing.stall()
        self.dialler.muxes[0].close()
        self.assertState(State.IDLE)
        self.dialler.start()
        self.assertState(State.UP)
        self.assertEqual(len(self.dialler.muxes), 2)
        self.dialler.muxes[0].abort()
        self.advance(0.02)
        self.assertEqual(len(self.endpoint.attempts), 2)
        [second] = self.dialler.muxes
        # The end of the first mux did not count as a failed attempt.
        second.close()
        self.dialler.start()
        self.assertEqual(len(self.endpoint.attempts), 3)

    def wornMux(self) -> MuxProtocol:
        """
        Open a stream on the dialler's newest mux, with one of its last IDs.
        """
        mux = self.dialler.muxes[-1]
        mux._nextID = ID_END - 4
        mux.openStream(Recorders())
        return mux

    def test_worn(self) -> None:
        """
        When few IDs are left another mux is connected beside the old one, which goes on
        and ends with its last stream.
        """
        self.endpoint.server = self.server
        self.dialler.start()
        self.advance(1)
        old = self.wornMux()
        self.advance(1)
        _, new = self.dialler.muxes
        stream = self.successResultOf(self.dialler.pool.openStream(Recorders()))
        self.assertEqual((old.streamCount, new.streamCount), (1, 1))
        self.assertTrue(old.canOpen)
        last: Any = self.server.streamFactory
        last.made[0].stream.loseConnection()
        self.advance(0.1)
        self.assertEqual(self.dialler.muxes, [new])
        self.assertEqual(stream.events, ["made"])  # type: ignore[attr-defined]

    def test_wornByPeer(self) -> None:
        """
        The same if it is the peer that has few IDs left.  The peer may go on with the
        old mux until then, and prefers the new one.
        """
        self.dialler = Dialler(PSK, self.endpoint, 4.0, Recorders(), clock=self.clock)
        self.endpoint.server = self.server
        self.dialler.start()
        self.advance(1)
        [mux] = self.server.muxes
        mux._nextID = ID_END - 3
        self.server.pool.openStream(Recorders())
        self.clock.advance(0)
        self.assertTrue(self.dialler.muxes[0].isWorn)
        self.advance(1)
        for _ in range(3):
            self.server.pool.openStream(Recorders())
        self.assertEqual([mux.streamCount for mux in self.server.muxes], [1, 3])

    def test_wornIdle(self) -> None:
        """
        A worn mux that has no streams stays until its peer has shown on the new one
        that it holds the key.
        """
        served = Recorders()
        server = MuxFactory(PSK, False, served, clock=self.clock, greet=False)
        self.endpoint.server = server
        self.dialler.start()
        self.advance(1)
        old = self.wornMux()
        self.advance(0.5)
        served.made[0].stream.loseConnection()
        self.advance(0.5)
        self.assertEqual(old.streamCount, 0)
        old, new = self.dialler.muxes
        server.muxes[1].openStream(Recorders())
        self.advance(0.1)
        self.assertEqual(self.dialler.muxes, [new])

    def test_maxWorn(self) -> None:
        """
        Only so many worn muxes are kept for their streams, and they are replaced with
        a pause between.
        """
        self.endpoint.server = self.server
        self.dialler.start()
        self.advance(1)
        worn = []
        for _ in range(MAX_WORN + 2):
            worn.append(self.wornMux())
            self.assertState(State.WAITING)
            self.advance(0.5)
        self.assertEqual(self.dialler.muxes[:-1], worn[-MAX_WORN:])
        self.assertEqual(worn[0].reason.__class__, ConnectionClosed)

    def test_draining(self) -> None:
        """
        A mux that begins to drain is replaced too, if one is wanted.
        """
        self.endpoint.server = self.server
        self.dialler.start()
        self.advance(1)
        [old] = self.dialler.muxes
        old.openStream(Recorders())
        old.drain()
        self.advance(0.5)
        self.assertEqual(len(self.dialler.muxes), 2)
        self.dialler.stop()
        self.dialler.muxes[1].openStream(Recorders())
        self.dialler.muxes[1].drain()
        self.advance(0.5)
        self.assertEqual(len(self.dialler.muxes), 2)

    def test_startsOver(self) -> None:
        """
        After a mux to the right peer the next retry is quick again.
        """
        self.dialler.start()
        self.advance(30)
        self.endpoint.server = self.server
        self.advance(5)
        self.server.pool.muxes[0].abort()
        self.advance(0.5)
        self.assertEqual(len(self.dialler.pool.muxes), 1)

    def test_stopped(self) -> None:
        """
        C{stop} leaves the mux alone, and after it no other mux is made.
        """
        self.endpoint.server = self.server
        self.dialler.start()
        self.advance(1)
        self.dialler.stop()
        self.assertEqual(len(self.dialler.pool.muxes), 1)
        self.server.pool.muxes[0].close()
        self.advance(10)
        self.assertEqual(self.dialler.pool.muxes, [])
        self.assertEqual(len(self.endpoint.attempts), 1)

    def test_stoppedBetween(self) -> None:
        """
        C{stop} between two attempts prevents the next one.  C{start} then makes an
        attempt at once, and the retry after it is quick again.
        """
        self.dialler.start()
        self.advance(30)
        made = len(self.endpoint.attempts)
        self.dialler.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.dialler.start()
        self.assertEqual(len(self.endpoint.attempts), made + 1)
        self.advance(0.3)
        self.assertGreater(len(self.endpoint.attempts), made + 1)

    def test_stoppedMeanwhile(self) -> None:
        """
        C{stop} during an attempt cancels the attempt, which does not count as failed.
        """
        cancelled: list[object] = []
        self.endpoint.hold = Deferred(cancelled.append)
        self.dialler.start()
        self.dialler.stop()
        self.advance(10)
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(len(self.endpoint.attempts), 1)
        self.assertIs(self.dialler.pool.lastReason, None)


class RetryPolicyTests(SynchronousTestCase):
    """
    L{retryPolicy}
    """

    def test_grows(self) -> None:
        """
        The delays grow up to a limit, and are spread at random.
        """
        for failures in [1, 2, 5, 10, 10**6]:
            longest = min(MAX_RETRY_DELAY, 0.25 * 2.0 ** min(failures - 1, 20))
            delays = [retryPolicy(failures) for _ in range(1000)]
            self.assertLessEqual(max(delays), longest)
            self.assertGreaterEqual(min(delays), longest / 5)
            self.assertGreater(max(delays) - min(delays), 0.7 * longest)

    def test_spread(self) -> None:
        """
        A thousand clients that lost their server together do not come back together: at
        most a tenth of them come in any tenth of a second.
        """
        for failures in range(5, 11):
            times = sorted(retryPolicy(failures, 4.0) for _ in range(1000))
            self.assertGreater(times[-1] - times[0], 2.5)
            most = max(
                sum(start <= time < start + 0.1 for time in times) for start in times
            )
            self.assertLess(most, 100)
