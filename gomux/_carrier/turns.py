# -*- test-case-name: gomux.test.carrier.test_turns -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Work that takes long, done a little at a time.

A reactor serves one connection after another, and whoever keeps it busy keeps
everybody else waiting.  A peer can do that with nothing but legal frames: a read
brings thousands of small ones, and an end that of thousands of streams.  So
nothing that a peer causes goes on for longer than L{TURN_TIME}; what is left waits
for later turns of the reactor, and shares the same time there with all else that
waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

#: For how long frames of one peer are handled, or streams ended, before others in
#: the reactor have their turn, in seconds.  One frame is handled in any case.
TURN_TIME = 0.00015

#: Does some work, until some time, by the clock.  Returns how long to leave the
#: rest, in seconds, which mostly is 0: until others had their turn; L{DONE} if there
#: is none.
Work = Callable[[float], float]

DONE = -1.0

_log = Logger()


class Turns:
    """
    Work that is left for later turns of the reactor.
    """

    def __init__(self, clock: Any) -> None:
        """
        @param clock: the reactor, or for tests a
            L{Clock<twisted.internet.task.Clock>}.
        """
        self._clock = clock
        self._waiting: deque[Work] = deque()
        self._resting: dict[Work, IDelayedCall] = {}
        self._call: IDelayedCall | None = None
        self._trigger: object = None

    @property
    def idle(self) -> bool:
        """
        Whether no work is left for later.
        """
        return not (self._waiting or self._resting)

    def begin(self, work: Work) -> None:
        """
        Do some work now, and what is left of it later.
        """
        left = work(self._clock.seconds() + TURN_TIME)
        if left != DONE:
            self.later(work, left)

    def later(self, work: Work, rest: float = 0.0) -> None:
        """
        Have some work done from the next turn of the reactor on, and all of it
        before the reactor stops.

        @param rest: for how many seconds to leave it alone first.
        """
        if self._trigger is None:
            atShutdown = getattr(self._clock, "addSystemEventTrigger", None)
            if atShutdown is not None:
                self._trigger = atShutdown("after", "shutdown", self._finish)
        if rest:
            self._resting[work] = self._clock.callLater(rest, self._rested, work)
            return
        self._waiting.append(work)
        if self._call is None:
            self._call = self._clock.callLater(0, self._turn)

    def _rested(self, work: Work) -> None:
        del self._resting[work]
        self.later(work)

    def _turn(self) -> None:
        """
        Give each its share of one turn: its part of the work, one after another.
        """
        seconds = self._clock.seconds
        until = seconds() + TURN_TIME
        waiting = self._waiting
        for _ in range(len(waiting)):
            work = waiting.popleft()
            left = self._do(work, until)
            if left != DONE:
                self.later(work, left)
            if seconds() >= until:
                break
        self._call = None
        if waiting:
            self._call = self._clock.callLater(0, self._turn)
        elif self._trigger is not None and not self._resting:
            self._clock.removeSystemEventTrigger(self._trigger)
            self._trigger = None

    def _do(self, work: Work, until: float) -> float:
        try:
            return work(until)
        except Exception:
            # The others must not wait for ever because of it.
            _log.failure("what was left for a later turn of the reactor failed")
            return DONE

    def _finish(self) -> None:
        """
        There are no more turns.
        """
        self._waiting += self._resting
        self._resting.clear()
        while self._waiting:
            work = self._waiting.popleft()
            while self._do(work, float("inf")) != DONE:
                pass
        self._trigger = None
