# -*- test-case-name: gomux.test.carrier.test_busypoll -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Stay awake while an answer is due.

A process that waits for a message sleeps, and to wake it takes the system
longer than all that is done with a small message: some 50 microseconds, more
where the CPU has gone to sleep with it.  Peers that talk to each other, each
waiting for the other's answer, pay for that at every turn; and so do those that
wait for data, or for credit.  So who was spoken to twice within a moment does not
go to sleep for such a moment: the reactor goes on looking at all that it has to
look at, without waiting, and lets other processes have the CPU first; but not where
one of them keeps it for long, nor where it mostly looks in vain.  This is what the
kernel does, and calls busy polling, for sockets of some network devices.
"""

from __future__ import annotations

import os
import time

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Who gives way and has to wait for longer than this, in seconds, has not waited for a
#: peer to answer, but for somebody who computes and would not have kept it from being
#: woken.
LONG_TURN = 0.0005
#: For how long, in seconds, not to stay awake after that, or after a moment in which
#: nothing came: the first time, and at most where it happens again and again.
SHORTEST_REST, LONGEST_REST = 0.005, 1.0

# To whoever else wants this CPU, the peer perhaps.
_giveWay = getattr(os, "sched_yield", lambda: time.sleep(0))

# What is due this soon, in seconds, keeps a reactor from waiting; 0 would never
# end where the clock of a test stands still.
_AT_ONCE = 1e-6


class BusyPoll:
    """
    Keeps a reactor awake for a moment after something came.
    """

    __slots__ = (
        *("_clock", "_moment", "_last", "_until", "_call", "_restUntil"),
        *("_vainRest", "_turnRest", "_turnAt"),
    )

    def __init__(self, clock: IReactorTime, moment: float) -> None:
        """
        @param clock: the reactor.
        @param moment: how long that is, in seconds; 0 for never.
        """
        self._clock = clock
        self._moment = moment
        self._last = float("-inf")
        self._until = 0.0
        self._call: IDelayedCall | None = None
        self._restUntil = float("-inf")
        # How long to rest after the next moment in vain, and the next long turn of
        # somebody else; and when the last one was.
        self._vainRest = self._turnRest = SHORTEST_REST
        self._turnAt = float("-inf")

    def moved(self) -> None:
        """
        Something came, and whatever it asked for is done.
        """
        now = self._clock.seconds()
        if self._call is not None:
            # To stay awake was worth it.
            self._vainRest = SHORTEST_REST
            self._until = now + self._moment
        # A clock that stands still is one of a test, and nobody waits for it.
        elif 0 < now - self._last < self._moment and now >= self._restUntil:
            self._until = now + self._moment
            self._call = self._clock.callLater(_AT_ONCE, self._look)
        self._last = now

    def _look(self) -> None:
        """
        The reactor has looked at everything, and does again at once unless the
        moment is over.
        """
        before = self._clock.seconds()
        _giveWay()
        now = self._clock.seconds()
        self._call = None
        if now - before > LONG_TURN:
            if now - self._turnAt > 2 * LONGEST_REST:
                self._turnRest = SHORTEST_REST
            self._turnAt = now
            self._restUntil = now + self._turnRest
            self._turnRest = min(2 * self._turnRest, LONGEST_REST)
        elif now >= self._until:
            self._restUntil = now + self._vainRest
            self._vainRest = min(2 * self._vainRest, LONGEST_REST)
        else:
            self._call = self._clock.callLater(_AT_ONCE, self._look)

    def stop(self) -> None:
        """
        Let the reactor sleep.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None
