# -*- test-case-name: gomux.test.tunnel.test_bridge -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
How long a bridge goes on although no bytes move.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from gomux.tunnel._end import End, Life

#: How many times within a timeout a bridge checks whether any bytes have moved.
LOOKS = 8
#: The first and the longest pause between two checks, in seconds, while an end sends
#: its last output before it is aborted.
SHORTEST_LOOK, LONGEST_LOOK = 0.01, 0.5


class Patience:
    """
    Watches a bridge that has begun to end, and tells when nothing has moved for too
    long.

    @ivar seconds: how long nothing may move; infinite without a timeout.  Less than 0
        once the bridge is over.
    @ivar _near: an end of the bridge.
    @ivar _far: the other end.
    @ivar _clock: the reactor.
    @ivar _tooLong: see L{__init__}.
    @ivar _look: the delayed call of the next check; C{None} if none is due.
    @ivar _seen: the result of L{_progress} at the last check.
    @ivar _movedAt: when a check last found that anything had moved.
    @ivar _pause: the longest that the next pause may be while an end is C{CUT}, in
        seconds.
    """

    __slots__ = (
        *("seconds", "_near", "_far", "_clock", "_tooLong", "_look", "_seen"),
        *("_movedAt", "_pause"),
    )

    def __init__(
        self, near: End, far: End, clock: Any, tooLong: Callable[[], None]
    ) -> None:
        """
        @param tooLong: called when nothing has moved for too long.
        """
        self.seconds = inf
        self._near = near
        self._far = far
        self._clock = clock
        self._tooLong = tooLong
        self._look: IDelayedCall | None = None
        near.countInput()
        far.countInput()

    def limit(self, seconds: float) -> None:
        """
        From now on tell if nothing has moved for some time.  This has no effect if the
        current timeout is shorter.

        @param seconds: for how long nothing may move; infinite for any time.
        """
        if seconds > self.seconds:
            return
        if seconds == self.seconds and not self._isCut:
            # The next check is early enough.
            return
        if self._look is not None:
            self._look.cancel()
        # The time counts from the next check.
        self._seen: tuple[int, ...] = ()
        self.seconds = seconds
        self._pause = SHORTEST_LOOK
        self._lookLater()

    def stop(self) -> None:
        """
        The bridge is over.
        """
        self.seconds = -inf
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _progress(self) -> tuple[int, ...]:
        near, far = self._near, self._far
        return near.moved, far.moved, near.waiting, far.waiting

    @property
    def _isCut(self) -> bool:
        """
        Whether an end sends its last output before it is aborted.
        """
        return self._near.life is Life.CUT or self._far.life is Life.CUT

    def _lookLater(self) -> None:
        pause = self.seconds / LOOKS
        if self._isCut:
            # Check often at first, to abort the end soon after its output is sent.
            pause = min(pause, self._pause, LONGEST_LOOK)
            self._pause *= 2
        self._look = None if pause == inf else self._clock.callLater(pause, self._looks)

    def _looks(self) -> None:
        """
        Check whether anything has moved.
        """
        self._look = None
        self._near.abortIfSent()
        self._far.abortIfSent()
        if self.seconds < 0:
            return
        seen, now = self._progress(), self._clock.seconds()
        if seen != self._seen:
            self._seen, self._movedAt = seen, now
        elif now - self._movedAt >= self.seconds:
            self._tooLong()
            return
        if self._look is None:
            self._lookLater()
