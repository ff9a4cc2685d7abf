# -*- test-case-name: gomux.test.carrier.test_clock -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
A clock that never goes back.

Twisted's reactors use the system's clock, which NTP or an operator may set at any
moment.  A step back of an hour makes every delayed call an hour late, and makes rates
that are measured with this clock wrong.  L{SteadyClock} uses the monotonic clock, also
to schedule its calls.  A single delayed call of the reactor, the wake-up, runs the
calls that are due.

A step back makes the wake-up late, too, so it is scheduled again:

  - with traffic, at the next C{callLater};
  - without traffic, by a thread that compares the two clocks once a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFromThreads,
    IReactorTime,
)
from twisted.logger import Logger
from zope.interface import implementer

#: How often the thread compares the two clocks, in seconds.  A longer interval delays
#: the calls of idle muxes more after a step back; a shorter one costs CPU time.
COMPARE_INTERVAL = 1.0
#: The smallest step back that the thread acts on, in seconds.  A smaller step only
#: makes calls late by as much.
STEP = 0.25
#: Cancelled calls are removed from the heap once there are more than this many, and
#: they are more than a quarter of it.
CANCELLED_KEPT = 50

_log = Logger()


def steady(clock: IReactorTime) -> IReactorTime:
    """
    @param clock: a reactor, or a test's L{Clock<twisted.internet.task.Clock>}.
    @return: the L{SteadyClock} of a reactor, the same object each time.  Any other
        clock does not use the system's clock, and is returned as it is.
    """
    if isinstance(clock, SteadyClock) or not IReactorFromThreads.providedBy(clock):
        return clock
    if clock not in _clocks:
        _clocks[clock] = SteadyClock(clock)
    return _clocks[clock]


_clocks: WeakKeyDictionary[Any, SteadyClock] = WeakKeyDictionary()


def soonOf(clock: Any) -> Callable[[Callable[[], object]], object]:
    """
    @param clock: the result of L{steady}.
    @return: its L{SteadyClock.soon}, or a function that does the same in tests.
    """
    if isinstance(clock, SteadyClock):
        return clock.sharedSoon
    return partial(clock.callLater, 0)


def turnOf(clock: Any) -> Callable[..., Any]:
    """
    @param clock: the result of L{steady}.
    @return: its L{SteadyClock.turn}, or a function for tests that only makes the call.
    """
    return clock.turn if isinstance(clock, SteadyClock) else _call


def _call(function: Callable[..., Any], *arguments: object) -> Any:
    return function(*arguments)


@implementer(IReactorTime)
class SteadyClock:
    """
    Schedules delayed calls by the monotonic clock.

    @ivar reactor: the reactor that runs the calls.
    @ivar seconds: returns the time of the monotonic clock.
    @ivar sharedSoon: L{soon}, the same object for all muxes; see C{_uses}.
    @ivar _held: the functions that wait for the end of L{turn}; C{None} unless that is
        running.
    @ivar _uses: the functions that each delayed call gets.  All calls share these
        objects, because a method of an object is a new object of 64 bytes each time.
    @ivar _calls: the heap of delayed calls, the earliest first.  It may have cancelled
        calls and old entries of calls that were moved.
    @ivar _number: numbers the entries, so that calls due at the same time run in order.
    @ivar _active: how many calls in the heap will still run.
    @ivar _cancelled: how many calls in the heap were cancelled.
    @ivar _wake: the wake-up, the reactor's delayed call.
    @ivar _wakeDue: when the wake-up is due, by the monotonic clock.
    @ivar _soon: calls without a delay: all that wait, and some that were made.
    @ivar _soonSize: above this size, calls that were made are dropped from C{_soon}.
    @ivar _madeAt: when a reactor's call was scheduled last, by the reactor's clock.
    @ivar _watch: the thread that compares the clocks.
    @ivar _stopped: ends that thread when the reactor has stopped.
    """

    _held: list[Callable[[], object]] | None = None
    _wake: IDelayedCall | None = None
    _wakeDue = 0.0
    _madeAt = 0.0
    _soonSize = CANCELLED_KEPT
    _watch: threading.Thread | None = None

    def __init__(
        self,
        reactor: Any,
        monotonic: Callable[[], float] = time.monotonic,
        stopped: threading.Event | None = None,
    ) -> None:
        """
        @param reactor: the reactor.
        @param monotonic: returns the time of the monotonic clock, in seconds.
        @param stopped: once it is set, the clocks are not compared any more.  By
            default the end of the reactor sets it.
        """
        self.reactor = reactor
        self.seconds = monotonic
        self._uses = (self._cancel, self._push, monotonic)
        self.sharedSoon = self.soon
        self._calls: list[tuple[float, int, DelayedCall]] = []
        self._soon: list[IDelayedCall] = []
        self._number = count()
        self._active = self._cancelled = 0
        self._stopped = threading.Event() if stopped is None else stopped

    def __getattr__(self, name: str) -> Any:
        """
        Take other methods, such as C{addSystemEventTrigger}, from the reactor.
        """
        return getattr(self.reactor, name)

    def callLater(
        self,
        delay: float,
        callable: Callable[..., Any],
        *args: object,
        **kw: object,
    ) -> IDelayedCall:
        if delay == 0:
            return self._callSoon(callable, *args, **kw)
        due = self.seconds() + delay
        call = DelayedCall(due, callable, args, kw, *self._uses)
        self._active += 1
        self._push(call)
        return call

    def soon(self, function: Callable[[], object]) -> None:
        """
        Call a function at the end of L{turn} if that is running, otherwise in the next
        turn of the reactor.
        """
        if self._held is None:
            self._callSoon(function)
        else:
            self._held.append(function)

    def turn(self, function: Callable[..., Any], *arguments: object) -> Any:
        """
        Call a function, then the functions that L{soon} got meanwhile.  These may give
        L{soon} more, once: the end of a stream closes a socket.

        @return: the result of the function.
        """
        if self._held is not None:
            return function(*arguments)
        self._held = []
        try:
            return function(*arguments)
        finally:
            held = self._held
            if held:
                self._held = []
                self._makeCalls(held)
                held = self._held
            self._held = None
            if held:
                self._makeCalls(held)

    def _makeCalls(self, functions: Iterable[Callable[[], object]]) -> None:
        for function in functions:
            try:
                function()
            except BaseException:
                # The other functions must still be called.
                _log.failure("a call at the end of a turn failed")

    @property
    def size(self) -> int:
        """
        How many calls the clock keeps, including calls that were made or cancelled.
        """
        return len(self._calls) + len(self._soon)

    def _callSoon(
        self, callable: Callable[..., Any], *args: object, **kw: object
    ) -> IDelayedCall:
        """
        Leave a call without a delay to the reactor: most calls have none.
        """
        now = self.reactor.seconds()
        if now < self._madeAt:
            self._setBack()
        self._madeAt = now
        call: IDelayedCall = self.reactor.callLater(0, callable, *args, **kw)
        soon = self._soon
        soon.append(call)
        if len(soon) > self._soonSize:
            self._soon = [call for call in soon if call.active()]
            self._soonSize = 2 * len(self._soon) + CANCELLED_KEPT
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        later = [
            call for due, _, call in self._calls if call.active() and due == call.time
        ]
        return [*(call for call in self._soon if call.active()), *later]

    def _push(self, call: DelayedCall) -> None:
        """
        Add a call that is new or was moved to an earlier time.
        """
        due = call.time
        heappush(self._calls, (due, next(self._number), call))
        if self.reactor.seconds() < self._madeAt:
            self._setBack()
        elif self._wake is None or due < self._wakeDue:
            self._wakeUp(self._calls[0][0])

    def _cancel(self, call: DelayedCall) -> None:
        self._active -= 1
        self._cancelled += 1
        if not self._active:
            # trial fails a test that leaves a delayed call in the reactor.
            self._calls.clear()
            if self._wake is not None:
                self._wake.cancel()
                self._wake = None
        elif self._cancelled > max(CANCELLED_KEPT, len(self._calls) // 4):
            # DelayedCall.cancel marks the call only after this method returns.
            call.cancelled = 1
            self._calls = [entry for entry in self._calls if entry[2].active()]
            call.cancelled = 0
            heapify(self._calls)
        else:
            return
        self._cancelled = 0

    def _wakeUp(self, due: float) -> None:
        """
        Schedule the wake-up.

        @param due: when, by the monotonic clock.
        """
        if self._wake is not None and self._wake.active():
            self._wake.cancel()
        self._wakeDue = due
        self._madeAt = self.reactor.seconds()
        self._wake = self.reactor.callLater(max(0.0, due - self.seconds()), self._run)
        if self._watch is None or not self._watch.is_alive():
            # The thread is not alive either in a forked process, such as a daemon.
            self._watch = threading.Thread(
                target=self.compare, name="gomux clock", daemon=True
            )
            self._watch.start()
            self.reactor.addSystemEventTrigger("after", "shutdown", self._stopped.set)

    def _run(self) -> None:
        """
        Run the calls that are due.
        """
        self._wake = None
        now = self.seconds()
        calls = self._calls
        ready = []
        while calls and calls[0][0] <= now:
            due, _, call = heappop(calls)
            if call.cancelled:
                self._cancelled = max(0, self._cancelled - 1)
            elif call.delayed_time > 0.0:
                call.activate_delay()
                heappush(calls, (call.time, next(self._number), call))
            elif not call.called and due == call.time:
                ready.append(call)
        for call in ready:
            if call.cancelled:
                continue
            call.called = 1
            self._active -= 1
            try:
                call.func(*call.args, **call.kw)
            except BaseException:
                _log.failure("while handling a timed call")
        if self._active and self._wake is None:
            self._wakeUp(self._calls[0][0])

    def compare(self) -> None:
        """
        The thread: compare the clocks, and report a step back to the reactor.
        """
        offset = self.reactor.seconds() - self.seconds()
        while not self._stopped.wait(COMPARE_INTERVAL):
            before, offset = offset, self.reactor.seconds() - self.seconds()
            # The second test finds a step back that follows a step forward so soon
            # that no comparison was made in between.
            if offset < before - STEP or self.reactor.seconds() < self._madeAt - STEP:
                self.reactor.callFromThread(self._setBack)

    def _setBack(self) -> None:
        """
        The system's clock was set back: have the reactor make its calls on time.
        """
        self._madeAt = self.reactor.seconds()
        for call in self._soon:
            if call.active():
                call.reset(0)
        if self._active:
            self._wakeUp(self._calls[0][0])
