# -*- test-case-name: gomux.test.mux.test_deadlines -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Deadlines of many things that all have the same time, at the cost of one delayed call.
Thousands may be due at the same time, so their waits end in turns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from gomux._carrier.turns import DONE, Turns

_T = TypeVar("_T")


class Deadlines(Generic[_T]):
    """
    Things that wait for something, each for the same time.

    @ivar timeout: how long each may wait, in seconds.
    @ivar _clock: the reactor.
    @ivar _expired: see L{__init__}.
    @ivar _turns: see L{__init__}.
    @ivar _waiting: what waits, the oldest first, with the time at which it expires.
    @ivar _call: is due when the oldest expires; C{None} while nothing waits.  It is not
        cancelled when the last thing ends its wait, because most waits are short.
    @ivar _isEnding: whether the waits that have taken too long are being ended.
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float,
        expired: Callable[[_T], None],
        turns: Turns | None = None,
    ) -> None:
        """
        @param clock: the reactor.
        @param timeout: how long each may wait, in seconds.
        @param expired: called with what has waited for too long.  It waits no more.
        @param turns: spreads these calls over turns of the reactor; by default an
            object of its own.
        """
        self._clock = clock
        self.timeout = timeout
        self._expired = expired
        self._waiting: dict[_T, float] = {}
        self._call: IDelayedCall | None = None
        self._isEnding = False
        self._turns = Turns(clock) if turns is None else turns

    def __contains__(self, thing: _T) -> bool:
        return thing in self._waiting

    def begin(self, thing: _T) -> None:
        """
        Something waits.
        """
        self._waiting[thing] = self._clock.seconds() + self.timeout
        if self._call is None and not self._isEnding:
            self._call = self._clock.callLater(self.timeout, self._look)

    def end(self, thing: _T) -> None:
        """
        Something does not wait any more.
        """
        self._waiting.pop(thing, None)

    def _look(self) -> None:
        """
        The time of the oldest is over.
        """
        self._call = None
        self._isEnding = True
        self._turns.later(self._endSome)

    def _endSome(self, until: float) -> float:
        """
        End waits that have taken too long.

        @param until: the time after which to leave the rest for a later turn of the
            reactor.
        @return: 0 if there is a rest, else L{DONE}.
        """
        while self._waiting:
            thing, end = next(iter(self._waiting.items()))
            now = self._clock.seconds()
            if end > now:
                self._call = self._clock.callLater(end - now, self._look)
                break
            if now >= until:
                return 0.0
            del self._waiting[thing]
            self._expired(thing)
        self._isEnding = False
        return DONE

    def stop(self) -> None:
        """
        End no more waits, and leave no delayed call behind.
        """
        self._waiting.clear()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
