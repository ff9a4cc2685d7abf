# -*- test-case-name: gomux.test.mux.test_requests -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Deadlines of many things that all have the same time, at the cost of one delayed call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

_T = TypeVar("_T")


class Deadlines(Generic[_T]):
    """
    Things that wait for something, each for the same time.

    @ivar timeout: how long each may wait, in seconds.
    @ivar _clock: the reactor.
    @ivar _expired: see L{__init__}.
    @ivar _waiting: what waits, the oldest first, with the time at which it expires.
    @ivar _call: is due when the oldest expires; C{None} while nothing waits.  It is not
        cancelled when the last thing ends its wait, because most waits are short.
    """

    def __init__(
        self, clock: IReactorTime, timeout: float, expired: Callable[[_T], None]
    ) -> None:
        """
        @param clock: the reactor.
        @param timeout: how long each may wait, in seconds.
        @param expired: called with what has waited for too long.  It waits no more.
        """
        self._clock = clock
        self.timeout = timeout
        self._expired = expired
        self._waiting: dict[_T, float] = {}
        self._call: IDelayedCall | None = None

    def __contains__(self, thing: _T) -> bool:
        return thing in self._waiting

    def begin(self, thing: _T) -> None:
        """
        Something waits.
        """
        self._waiting[thing] = self._clock.seconds() + self.timeout
        if self._call is None:
            self._call = self._clock.callLater(self.timeout, self._look)

    def end(self, thing: _T) -> None:
        """
        Something does not wait any more.
        """
        self._waiting.pop(thing, None)

    def _look(self) -> None:
        """
        End the waits that have taken too long.
        """
        self._call = None
        now = self._clock.seconds()
        while self._waiting:
            thing, end = next(iter(self._waiting.items()))
            if end > now:
                self._call = self._clock.callLater(end - now, self._look)
                break
            del self._waiting[thing]
            self._expired(thing)

    def stop(self) -> None:
        """
        Leave no delayed call behind.
        """
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
