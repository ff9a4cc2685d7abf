# -*- test-case-name: gomux.test.session.test_conn -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Deadlines, as those of a L{gomux.session._conn.Conn}.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Deadline:
    """
    A time after which calls fail.
    """

    def __init__(self, clock: IReactorTime, passed: Callable[[], None]) -> None:
        """
        @param clock: has the time.
        @param passed: called, also from within L{set}, when the time has come.
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
        Whether calls fail now.
        """
        return self._time is not None and self._clock.seconds() >= self._time

    def set(self, time: float | None) -> None:
        """
        @param time: in seconds of the clock; C{None} for never.
        """
        self._cancel()
        left = None if time is None else time - self._reactor.seconds()
        # The user names a time of the reactor's clock, which may be set back.
        self._time = None if left is None else self._clock.seconds() + left
        if self._stopped:
            return
        if self.passed:
            self._passed()
        elif left is not None:
            self._call = self._clock.callLater(left, self._expire)

    def _expire(self) -> None:
        self._call = None
        # Adding up times may have lost a little.
        self._time = self._clock.seconds()
        self._passed()

    def stop(self) -> None:
        """
        Wake nobody any more: nobody can wait any more.
        """
        self._stopped = True
        self._cancel()

    def _cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
