# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._mux.deadlines}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gomux._carrier.turns import TURN_TIME, Turns
from gomux._mux.deadlines import Deadlines
from gomux.test.support.slowclock import SlowClock


class DeadlinesTests(SynchronousTestCase):
    """
    L{Deadlines}
    """

    def setUp(self) -> None:
        self.clock = SlowClock()
        self.turns = Turns(self.clock)
        self.expired: list[str] = []
        # How long the end of each wait takes.
        self.duration = TURN_TIME
        self.deadlines = self.make()

    def make(self) -> Deadlines[str]:
        return Deadlines(self.clock, 10, self.expire, self.turns)

    def expire(self, thing: str) -> None:
        self.expired.append(thing)
        self.clock.work(self.duration)

    def turnsOf(self, count: int) -> list[int]:
        """
        @return: how many waits have ended after each of some turns.
        """
        found = []
        for _ in range(count):
            self.clock.turn()
            found.append(len(self.expired))
        return found

    def test_turns(self) -> None:
        """
        Many waits that are over at the same time end in many turns.  What begins to
        wait meanwhile has its own time, and what ends its wait meanwhile is left alone.
        """
        for thing in "abcd":
            self.deadlines.begin(thing)
        self.clock.work(10)
        # In the first turn the work is only put into the queue.
        self.assertEqual(self.turnsOf(3), [0, 1, 2])
        self.deadlines.begin("e")
        self.deadlines.end("c")
        self.assertEqual(self.turnsOf(3), [3, 3, 3])
        self.assertEqual(self.expired, ["a", "b", "d"])
        [call] = self.clock.getDelayedCalls()
        self.assertAlmostEqual(call.getTime() - self.clock.seconds(), 10, places=2)
        self.clock.work(10)
        self.turnsOf(3)
        self.assertEqual(self.expired, ["a", "b", "d", "e"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_shared(self) -> None:
        """
        The waits of several muxes share the time of a turn.
        """
        others = [self.make() for _ in range(3)]
        for deadlines in others:
            deadlines.begin("a")
        self.clock.work(10)
        self.assertEqual(self.turnsOf(4), [0, 1, 2, 3])

    def test_stop(self) -> None:
        """
        After L{Deadlines.stop} no wait ends any more, also if some were about to.
        """
        for thing in "abc":
            self.deadlines.begin(thing)
        self.clock.work(10)
        self.assertEqual(self.turnsOf(2), [0, 1])
        self.deadlines.stop()
        self.assertEqual(self.turnsOf(2), [1, 1])
        self.assertEqual(self.clock.getDelayedCalls(), [])
