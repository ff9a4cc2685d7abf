# -*- test-case-name: gomux.test.carrier.test_watch -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Noticing that something stands still.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

#: How often something is looked at within the time that it may stand still: a
#: reactor that stood still itself for long sees one look, not all that time, pass.
LOOKS = 12


class Watch:
    """
    Looks at something now and then, and tells when it has stood still for too long.
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float,
        progress: Callable[[], object],
        stalled: Callable[[], None],
    ) -> None:
        """
        Begin to watch.

        @param timeout: for how long it may stand still, in seconds.
        @param progress: what is another thing each time as long as all is well.
        @param stalled: called when it was the same for C{timeout}; then the watch is
            over.
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
        if self._looks >= LOOKS:
            self._stalled()
        else:
            self._call = self._clock.callLater(self._interval, self._look)

    def stop(self) -> None:
        """
        Watch no longer.
        """
        if self._call.active():
            self._call.cancel()
