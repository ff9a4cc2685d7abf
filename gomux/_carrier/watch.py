# -*- test-case-name: gomux.test.carrier.test_watch -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Noticing that something makes no progress.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

#: How often the progress is checked within the timeout.  If the reactor itself is held
#: up for long, only one check passes, not the whole timeout.
LOOKS = 12


class CarrierWatch(Protocol):
    """
    Watches a carrier while it is blocked.
    """

    def blocked(self) -> None:
        """
        The carrier takes no more data.
        """


class Watch:
    """
    Checks the progress of something now and then, and calls a function when there was
    none for too long.  Once no progress is due, the watch is over.

    @ivar _clock: the reactor.
    @ivar _interval: the time between two checks, in seconds.
    @ivar _progress: returns the progress.
    @ivar _stalled: the function to call.
    @ivar _seen: the progress at the last check.
    @ivar _looks: how many checks in a row saw no progress.
    @ivar _call: the next check.
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float,
        progress: Callable[[], int | None],
        stalled: Callable[[], None],
    ) -> None:
        """
        Begin to watch.

        @param clock: the reactor.
        @param timeout: how long there may be no progress, in seconds.
        @param progress: returns a number that changes with the progress; C{None} if no
            progress is due any more.
        @param stalled: called when C{progress} has returned the same number for
            C{timeout}.  Then the watch is over.
        """
        self._clock = clock
        self._interval = timeout / LOOKS
        self._progress = progress
        self._stalled = stalled
        self._seen = progress()
        self._looks = 0
        self._call = clock.callLater(self._interval, self._look)

    def _look(self) -> None:
        before, self._seen = self._seen, self._progress()
        self._looks = self._looks + 1 if self._seen == before else 0
        if self._seen is None:
            return
        if self._looks >= LOOKS:
            self._stalled()
        else:
            self._call = self._clock.callLater(self._interval, self._look)

    @property
    def isOver(self) -> bool:
        """
        Whether there are no more checks.
        """
        return not self._call.active()

    def stop(self) -> None:
        """
        Watch no longer.
        """
        if self._call.active():
            self._call.cancel()
