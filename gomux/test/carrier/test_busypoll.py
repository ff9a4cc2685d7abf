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
        Whether the reactor would look again at once.
        """
        self.clock.advance(0)
        return any(
            call.getTime() - self.clock.seconds() < MOMENT / 100
            for call in self.clock.getDelayedCalls()
        )

    def test_first(self) -> None:
        """
        One message by itself is no conversation.
        """
        self.busyPoll.moved()
        self.assertFalse(self.isAwake())

    def test_second(self) -> None:
        """
        After a second one within a moment the reactor stays awake, for a moment.
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
        Each further message adds a moment, and no more calls.
        """
        self.busyPoll.moved()
        for _ in range(20):
            self.clock.advance(MOMENT * 0.5)
            self.busyPoll.moved()
            self.assertTrue(self.isAwake())
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_rare(self) -> None:
        """
        Messages that come one by one let the reactor sleep in between.
        """
        for _ in range(5):
            self.busyPoll.moved()
            self.assertFalse(self.isAwake())
            self.clock.advance(MOMENT * 1.1)

    def test_missed(self) -> None:
        """
        It does not go on trying where the next message came later than it waited.
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
        A moment of 0 never comes.
        """
        self.busyPoll = BusyPoll(self.clock, 0)
        for _ in range(3):
            self.busyPoll.moved()
            self.clock.advance(MOMENT / 100)
        self.assertFalse(self.isAwake())

    def message(self) -> bool:
        """
        Have a message come soon after the one before.

        @return: whether the reactor is awake then.
        """
        self.clock.advance(MOMENT / 2)
        self.busyPoll.moved()
        return self.isAwake()

    def rests(self, count: int, passes: float) -> list[float]:
        """
        Have messages come one after another, each soon.

        @param count: how often the reactor is to be awake.
        @param passes: how many seconds pass then without a message.
        @return: for how long it slept all the same before it was, each time.
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
        Each time it rests for longer, up to the longest rest.
        """
        self.assertLess(rests[0], SHORTEST_REST / 2)
        self.assertLess(rests[1], SHORTEST_REST * 1.3)
        for shorter, longer in itertools.pairwise(rests[:6]):
            self.assertGreater(longer, shorter * 1.3)
        self.assertLess(max(rests), LONGEST_REST * 1.1)
        self.assertGreater(min(rests[-3:]), LONGEST_REST * 0.9)

    def test_hog(self) -> None:
        """
        Where giving way means to wait for somebody else's whole turn, the reactor
        sleeps, as whoever is woken does not have to wait so long.  It tries again
        ever more rarely, until that has not happened for a while.
        """
        took = LONG_TURN * 1.1
        self.patch(_busypoll, "_giveWay", lambda: self.clock.advance(took))
        self.assertRarer(self.rests(12, MOMENT / 100))
        # Something that comes at once in between does not mean that they are gone.
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
        Where nothing comes in the moment that it waits, it sleeps as well, and tries
        again ever more rarely.
        """
        self.assertRarer(self.rests(12, MOMENT * 2))

    def test_worthAgain(self) -> None:
        """
        Once something has come while it was awake, it is as it was.
        """
        self.rests(12, MOMENT * 2)
        while not self.message():
            pass
        self.assertTrue(self.message())
        self.clock.advance(MOMENT * 2)
        self.assertLess(self.rests(1, MOMENT * 2)[0], SHORTEST_REST * 1.3)

    def test_shortTurns(self) -> None:
        """
        A peer that gets the CPU and answers is no such case.
        """
        self.patch(_busypoll, "_giveWay", lambda: self.clock.advance(LONG_TURN * 0.9))
        self.message()
        for _ in range(9):
            self.assertTrue(self.message())

    def test_standingClock(self) -> None:
        """
        Tests whose clock stands still do not get calls that they do not know.
        """
        for _ in range(3):
            self.busyPoll.moved()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """
        Nothing is left on the reactor once it is told to stop, if there was
        anything.
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
    Which muxes stay awake.
    """

    def pair(self, busyPoll: float = 0.0004) -> tuple[MuxPair, Recorder]:
        """
        @return: two muxes that nothing has been said on for a while, and the
            client's end of a stream that is echoed.
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
        @return: how many of the two muxes keep the reactor awake.
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
        Both ends of a conversation do, until it is over.
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
        So do both where much is moved: one waits for data, the other for credit.
        """
        pair, recorder = self.pair()
        self.say(pair, recorder, 65536)
        self.assertEqual(self.awake(pair), 0)
        self.say(pair, recorder, 65536)
        self.assertEqual(self.awake(pair), 2)

    def test_off(self) -> None:
        """
        Nor where they are told not to.
        """
        pair, recorder = self.pair(busyPoll=0)
        for _ in range(5):
            self.say(pair, recorder, 64)
            self.assertEqual(self.awake(pair), 0)

    def test_end(self) -> None:
        """
        The end of the last mux is the end of it.
        """
        pair, recorder = self.pair()
        self.say(pair, recorder, 64)
        self.say(pair, recorder, 64)
        pair.client.close()
        pair.flush()
        self.assertEqual(pair.clock.getDelayedCalls(), [])
