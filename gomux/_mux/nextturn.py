# -*- test-case-name: gomux.test.mux.test_failures -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
What a mux does in the next turn of the reactor.

An application is never called from inside its own calls, and what it writes to several
streams in one turn goes together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

_log = Logger()


class NextTurn:
    """
    What a mux does in the next turn of the reactor: calls that wait, then sending.

    @ivar isDue: whether the reactor was asked for that.
    @ivar pump: sends what has come together.
    @ivar _calls: the calls that wait.
    """

    pump: Callable[[], None]

    def __init__(self, mux: object, clock: Any) -> None:
        """
        @param mux: the mux, for the log.
        @param clock: the reactor.
        """
        self._mux = mux
        self._clock = clock
        self._calls: list[Callable[[], None]] = []
        self._call: IDelayedCall | None = None

    @property
    def isDue(self) -> bool:
        """
        Whether the reactor was asked for that turn.
        """
        return self._call is not None

    def checkInvariants(self, isSilent: bool) -> None:
        """
        See whether the reactor was asked for a turn if there is one to be had.  For
        tests.

        @param isSilent: whether there is nothing to send.
        @raise AssertionError: if it was not.
        """
        assert self.isDue or not self._calls, "nothing makes the calls that wait"
        assert self.isDue or isSilent, "nothing has frames sent"

    def callSoon(self, function: Callable[[], None]) -> None:
        """
        Call a function from the reactor, as soon as it can.
        """
        self._calls.append(function)
        self.wake()

    def wake(self) -> None:
        """
        There is something to send.
        """
        if self._call is None:
            self._call = self._clock.callLater(0, self._run)

    def _run(self) -> None:
        calls, self._calls = self._calls, []
        for function in calls:
            try:
                function()
            except Exception:
                # The other streams' calls must not be lost with this one.
                _log.failure("a call for the next turn of {mux} failed", mux=self._mux)
        self._call = None
        if self._calls:
            self.wake()
        self.pump()
