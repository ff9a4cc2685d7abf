# -*- test-case-name: gomux.test.test_turns -*-
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
TURN_TIME = 0.0002

#: Does some work, until some time, by the clock.  Returns whether it is done.
Work = Callable[[float], bool]

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
        self._call: IDelayedCall | None = None
        self._trigger: object = None

    def begin(self, work: Work) -> None:
        """
        Do some work now, and what is left of it later.
        """
        if not work(self._clock.seconds() + TURN_TIME):
            self.later(work)

    def later(self, work: Work) -> None:
        """
        Have some work done from the next turn of the reactor on, and all of it
        before the reactor stops.
        """
        self._waiting.append(work)
        if self._call is None:
            self._call = self._clock.callLater(0, self._turn)
            atShutdown = getattr(self._clock, "addSystemEventTrigger", None)
            if atShutdown is not None:
                self._trigger = atShutdown("after", "shutdown", self._finish)

    def _turn(self) -> None:
        """
        Give each its share of one turn: its part of the work, one after another.
        """
        seconds = self._clock.seconds
        until = seconds() + TURN_TIME
        waiting = self._waiting
        for _ in range(len(waiting)):
            work = waiting.popleft()
            if not self._do(work, until):
                waiting.append(work)
            if seconds() >= until:
                break
        if waiting:
            self._call = self._clock.callLater(0, self._turn)
            return
        self._call = None
        if self._trigger is not None:
            self._clock.removeSystemEventTrigger(self._trigger)
            self._trigger = None

    def _do(self, work: Work, until: float) -> bool:
        try:
            return work(until)
        except Exception:
            # The others must not wait for ever because of it.
            _log.failure("what was left for a later turn of the reactor failed")
            return True

    def _finish(self) -> None:
        """
        There are no more turns.
        """
        self._trigger = None
        while self._waiting:
            self._do(self._waiting.popleft(), float("inf"))
