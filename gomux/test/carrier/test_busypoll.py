"""
Tests for L{gomux._carrier.busypoll}.
"""

from __future__ import annotations

import itertools

from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.protocols.wire import Echo
from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits
from gomux._carrier import busypoll as _busypoll
from gomux._carrier.busypoll import (
    LONG_TURN,
    LONGEST_REST,
    SHORTEST_REST,
    BusyPoll,
)
from gomux.test.support.helpers import Recorder, Recorders
from gomux.testing import MuxPair

MOMENT = 0.001


class SetBack:
    """
    A steady clock in a reactor whose own clock may be set back.
    """

    now = 0.0

    def __init__(self) -> None:
        self.reactor = Clock()

    def seconds(self) -> float:
        return self.now


class BusyPollTests(SynchronousTestCase):
    """
    L{BusyPoll}
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.busyPoll = BusyPoll(self.clock, MOMENT)

    def isAwake(self) -> bool:
        """
        @return: whether the reactor polls.
        """
        self.clock.advance(0)
        return any(
            call.getTime() - self.clock.seconds() < MOMENT / 100
            for call in self.clock.getDelayedCalls()
        )

    def test_late(self) -> None:
        """
        After the reactor's clock was set back, the next message makes the reactor poll
        on time again.
        """
        clock = SetBack()
        busyPoll = BusyPoll(clock, MOMENT)  # type: ignore[arg-type]
        for now in (1.0, 1.0 + MOMENT / 2):
            clock.now = now
            busyPoll.moved()
        [poll] = clock.reactor.getDelayedCalls()
        clock.reactor.rightNow -= 60
        clock.now += 2 * MOMENT
        busyPoll.moved()
        self.assertLess(poll.getTime(), clock.reactor.seconds() + 1)

    def test_first(self) -> None:
        """
        After a single message the reactor sleeps.
        """
        self.busyPoll.moved()
        self.assertFalse(self.isAwake())

    def test_second(self) -> None:
        """
        After a second message within a moment the reactor polls for a moment.
        """
        self.busyPoll.moved()
        self.clock.advance(MOMENT * 0.9)
        self.busyPoll.moved()
        for _ in range(9):
            self.assertTrue(self.isAwake())
            self.clock.advance(MOMENT * 0.1)
        self.clock.advance(MOMENT * 0.2)
        self.assertFalse(self.isAwake())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_longer(self) -> None:
        """
        Each further message lets the reactor poll for another moment, with one call.
        """
        self.busyPoll.moved()
        for _ in range(20):
            self.clock.advance(MOMENT * 0.5)
            self.busyPoll.moved()
            self.assertTrue(self.isAwake())
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_rare(self) -> None:
        """
        The reactor sleeps between messages that arrive far apart.
        """
        for _ in range(5):
            self.busyPoll.moved()
            self.assertFalse(self.isAwake())
            self.clock.advance(MOMENT * 1.1)

    def test_missed(self) -> None:
        """
        The reactor does not poll again after the next message arrived too late.
        """
        self.busyPoll.moved()
        self.clock.advance(MOMENT / 2)
        self.busyPoll.moved()
        self.clock.advance(MOMENT * 1.1)
        self.clock.advance(0)
        self.busyPoll.moved()
        self.assertFalse(self.isAwake())

    def test_off(self) -> None:
        """
        With a moment of 0 the reactor never polls.
        """
        self.busyPoll = BusyPoll(self.clock, 0)
        for _ in range(3):
            self.busyPoll.moved()
            self.clock.advance(MOMENT / 100)
        self.assertFalse(self.isAwake())

    def message(self) -> bool:
        """
        Have a message arrive soon after the one before.

        @return: whether the reactor polls then.
        """
        self.clock.advance(MOMENT / 2)
        self.busyPoll.moved()
        return self.isAwake()

    def rests(self, count: int, passes: float) -> list[float]:
        """
        Have messages arrive in quick succession.

        @param count: how many times the reactor is to begin to poll.
        @param passes: how many seconds then pass without a message.
        @return: for each time, how long the reactor rested before it began to poll.
        """
        rests = []
        for _ in range(count):
            since = self.clock.seconds()
            while not self.message():
                pass
            rests.append(self.clock.seconds() - since)
            self.clock.advance(passes)
            self.assertEqual(self.clock.getDelayedCalls(), [])
        return rests

    def assertRarer(self, rests: list[float]) -> None:
        """
        Check that the rests get longer, up to the longest rest.
        """
        self.assertLess(rests[0], SHORTEST_REST / 2)
        self.assertLess(rests[1], SHORTEST_REST * 1.3)
        for shorter, longer in itertools.pairwise(rests[:6]):
            self.assertGreater(longer, shorter * 1.3)
        self.assertLess(max(rests), LONGEST_REST * 1.1)
        self.assertGreater(min(rests[-3:]), LONGEST_REST * 0.9)

    def test_hog(self) -> None:
        """
        If yielding the CPU takes long because another process computes, the reactor
        rests from polling.  The rests get longer until yielding has been quick for a
        while.
        """
        took = LONG_TURN * 1.1
        self.patch(_busypoll, "_giveWay", lambda: self.clock.advance(took))
        self.assertRarer(self.rests(12, MOMENT / 100))
        # A message in between does not mean that the other process is gone.
        took = 0.0
        while not self.message():
            pass
        self.assertTrue(self.message())
        took = LONG_TURN * 1.1
        self.clock.advance(MOMENT / 100)
        self.assertGreater(self.rests(1, MOMENT / 100)[0], LONGEST_REST * 0.9)
        took = 0.0
        for _ in range(int(4 * LONGEST_REST / MOMENT) + 10):
            self.message()
        took = LONG_TURN * 1.1
        self.clock.advance(MOMENT / 100)
        self.assertLess(self.rests(1, MOMENT / 100)[0], SHORTEST_REST * 1.3)

    def test_vain(self) -> None:
        """
        If no message arrives while the reactor polls, it rests from polling.  The rests
        get longer.
        """
        self.assertRarer(self.rests(12, MOMENT * 2))

    def test_worthAgain(self) -> None:
        """
        A message that arrived while the reactor polled makes the rests short again.
        """
        self.rests(12, MOMENT * 2)
        while not self.message():
            pass
        self.assertTrue(self.message())
        self.clock.advance(MOMENT * 2)
        self.assertLess(self.rests(1, MOMENT * 2)[0], SHORTEST_REST * 1.3)

    def test_shortTurns(self) -> None:
        """
        A peer that gets the CPU for a short time and answers causes no rest.
        """
        self.patch(_busypoll, "_giveWay", lambda: self.clock.advance(LONG_TURN * 0.9))
        self.message()
        for _ in range(9):
            self.assertTrue(self.message())

    def test_standingClock(self) -> None:
        """
        While the clock stands still, as in tests, the reactor does not poll.
        """
        for _ in range(3):
            self.busyPoll.moved()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """
        C{stop} cancels the next poll, if there is one.
        """
        self.busyPoll.stop()
        self.busyPoll.moved()
        self.clock.advance(MOMENT / 2)
        self.busyPoll.moved()
        self.busyPoll.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(MOMENT / 2)
        self.busyPoll.moved()
        self.assertTrue(self.isAwake())


class MuxTests(SynchronousTestCase):
    """
    Muxes that poll
    """

    def pair(self, busyPoll: float = 0.0004) -> tuple[MuxPair, Recorder]:
        """
        @return: two muxes that were idle for a while, and the client's end of a stream
            that is echoed.
        """
        pair = MuxPair(
            Factory.forProtocol(Echo), limits=Limits(busyPoll=busyPoll, keepalive=1e9)
        )
        recorder = self.successResultOf(pair.client.openStream(Recorders()))
        pair.flush()
        pair.clock.advance(1)
        assert isinstance(recorder, Recorder)
        return pair, recorder

    def awake(self, pair: MuxPair) -> int:
        """
        @return: how many of the two muxes poll.
        """
        now = pair.clock.seconds()
        return sum(
            0 < call.getTime() - now < 0.0001 for call in pair.clock.getDelayedCalls()
        )

    def say(self, pair: MuxPair, recorder: Recorder, size: int) -> None:
        pair.clock.advance(0.0002)
        recorder.stream.write(bytes(size))
        pair.flush()

    def test_messages(self) -> None:
        """
        Both ends of a conversation poll until it is over.
        """
        pair, recorder = self.pair()
        self.say(pair, recorder, 64)
        self.assertEqual(self.awake(pair), 0)
        self.say(pair, recorder, 64)
        self.assertEqual(self.awake(pair), 2)
        pair.clock.advance(0.001)
        self.assertEqual(self.awake(pair), 0)

    def test_bulk(self) -> None:
        """
        Both ends of a bulk transfer poll: one waits for data, the other for credit.
        """
        pair, recorder = self.pair()
        self.say(pair, recorder, 65536)
        self.assertEqual(self.awake(pair), 0)
        self.say(pair, recorder, 65536)
        self.assertEqual(self.awake(pair), 2)

    def test_off(self) -> None:
        """
        With C{Limits.busyPoll} of 0 no mux polls.
        """
        pair, recorder = self.pair(busyPoll=0)
        for _ in range(5):
            self.say(pair, recorder, 64)
            self.assertEqual(self.awake(pair), 0)

    def test_end(self) -> None:
        """
        Polling ends with the last mux of a factory.
        """
        pair, recorder = self.pair()
        self.say(pair, recorder, 64)
        self.say(pair, recorder, 64)
        pair.client.close()
        pair.flush()
        self.assertEqual(pair.clock.getDelayedCalls(), [])
