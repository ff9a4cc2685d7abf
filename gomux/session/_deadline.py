# -*- test-case-name: gomux.test.session.test_conn -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The read and write deadlines of a L{gomux.session._conn.Conn}.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Deadline:
    """
    A time after which calls fail.

    @ivar _reactor: the reactor; L{set} takes a time of its clock.
    @ivar _clock: the clock that measures the time that is left.
    @ivar _passed: see L{__init__}.
    @ivar _time: the deadline, in seconds of C{_clock}; C{None} for never.
    @ivar _call: the delayed call that waits for the deadline.
    @ivar _stopped: whether L{stop} was called.
    """

    def __init__(self, clock: IReactorTime, passed: Callable[[], None]) -> None:
        """
        @param clock: the reactor.
        @param passed: called when the deadline passes.  L{set} itself calls it if the
            deadline is in the past.
        """
        self._reactor = getattr(clock, "reactor", clock)
        self._clock = clock
        self._passed = passed
        self._time: float | None = None
        self._call: IDelayedCall | None = None
        self._stopped = False

    @property
    def passed(self) -> bool:
        """
        Whether the deadline has passed, so that calls fail.
        """
        return self._time is not None and self._clock.seconds() >= self._time

    def set(self, time: float | None) -> None:
        """
        @param time: the deadline, in seconds of the reactor's clock; C{None} for never.
        """
        self._cancel()
        left = None if time is None else time - self._reactor.seconds()
        # The reactor's clock may be set back, so only the time that is left counts.
        self._time = None if left is None else self._clock.seconds() + left
        if self._stopped:
            return
        if self.passed:
            self._passed()
        elif left is not None:
            self._call = self._clock.callLater(left, self._expire)

    def _expire(self) -> None:
        self._call = None
        # Rounding may have made this call a little too early for C{passed}.
        self._time = self._clock.seconds()
        self._passed()

    def stop(self) -> None:
        """
        Never call C{passed} again: the stream has ended, so no call waits.
        """
        self._stopped = True
        self._cancel()

    def _cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
