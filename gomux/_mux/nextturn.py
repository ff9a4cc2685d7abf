# -*- test-case-name: gomux.test.mux.test_failures -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The work that a mux leaves for the next turn of the reactor.

The mux does not call a protocol from inside a call that the application makes, but in
the next turn.  Sending waits for that turn too, so that the output of several streams
is sent together.  The clock may make that turn already at the end of the current one:
see L{SteadyClock.turn<gomux._carrier.clock.SteadyClock.turn>}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from gomux._carrier.clock import soonOf
from gomux._mux.scheduler import Scheduler

_log = Logger()


class NextTurn:
    """
    Makes the waiting calls of a mux in the next turn of the reactor, then sends.

    @ivar scheduler: sends the waiting frames; the mux sets it.
    @ivar _mux: the mux, for the log.
    @ivar isDue: whether the mux has asked for a turn.
    @ivar _soon: asks the reactor for a turn.
    @ivar _calls: the functions to call in the next turn, in order.
    """

    __slots__ = ("scheduler", "_mux", "isDue", "_soon", "_calls")

    scheduler: Scheduler

    def __init__(self, mux: object, clock: Any) -> None:
        """
        @param mux: the mux, for the log.
        @param clock: the reactor.
        """
        self._mux = mux
        self._soon = soonOf(clock)
        self._calls: list[Callable[[], None]] = []
        self.isDue = False

    def checkInvariants(self, isSilent: bool) -> None:
        """
        Check that the mux has asked for a turn if any work waits for one.  For tests.

        @param isSilent: whether there is nothing to send.
        @raise AssertionError: if work waits and the mux has asked for no turn.
        """
        assert self.isDue or not self._calls, "nothing makes the calls that wait"
        assert self.isDue or isSilent, "nothing has frames sent"

    def callSoon(self, function: Callable[[], None]) -> None:
        """
        Call a function in the next turn of the reactor.
        """
        self._calls.append(function)
        self.wake()

    def wake(self) -> None:
        """
        Ask for a turn, because there is something to send.
        """
        if not self.isDue:
            self.isDue = True
            self._soon(self._run)

    def _run(self) -> None:
        calls, self._calls = self._calls, []
        for function in calls:
            try:
                function()
            except BaseException:
                # The calls for the other streams must still be made.
                _log.failure("a call for the next turn of {mux} failed", mux=self._mux)
        self.isDue = False
        if self._calls:
            self.wake()
        self.scheduler.pump()
