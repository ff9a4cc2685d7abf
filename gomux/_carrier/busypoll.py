# -*- test-case-name: gomux.test.carrier.test_busypoll -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Poll for the next message before sleeping.

A process that waits for a message sleeps.  Waking it takes the system some 50
microseconds, longer if the CPU sleeps too, and longer than handling a small message.
Two peers that wait for each other's answers pay that for each message.  A bulk
transfer pays it too: one side waits for data, the other for credit.

So when two messages have arrived within a moment, the reactor polls all of its sockets
for another moment before it sleeps.  Between two polls it yields the CPU to other
processes, such as the peer's.  It takes a rest from polling, and sleeps, if another
process keeps the CPU for long, or if no message arrived while it polled.  The kernel
can do the same for some network devices and calls it busy polling.
"""

from __future__ import annotations

import os
import time

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: If yielding the CPU takes longer than this, in seconds, another process computes, and
#: it is not the peer that prepares its answer.  A process that sleeps gets the CPU back
#: sooner.
LONG_TURN = 0.0005
#: How long, in seconds, to rest after another process kept the CPU, or after polling in
#: vain: the first time, and at most.  Each time in a row the rest doubles.
SHORTEST_REST, LONGEST_REST = 0.005, 1.0

# Yields the CPU to another process that wants it, perhaps the peer.
_giveWay = getattr(os, "sched_yield", lambda: time.sleep(0))

# A call that is due after this time, in seconds, keeps the reactor from sleeping.  With
# 0, a test whose clock stands still would run for ever.
_AT_ONCE = 1e-6


class BusyPoll:
    """
    Makes a reactor poll for a moment after a message.

    @ivar _clock: tells the time.
    @ivar _callLater: the reactor's own C{callLater}, which is faster than that of a
        steady clock.
    @ivar moment: how long to poll after a message, in seconds.
    @ivar _last: when the last message arrived.
    @ivar _until: when polling ends, while there is a C{_call}.
    @ivar _call: the next poll; C{None} while the reactor may sleep.
    @ivar _restUntil: when polling may begin again.
    @ivar _vainRest: how long to rest the next time no message arrives, in seconds.
    @ivar _turnRest: how long to rest the next time that another process keeps the CPU,
        in seconds.
    @ivar _turnAt: when another process last kept the CPU.
    """

    __slots__ = (
        *("_clock", "_callLater", "moment", "_last", "_until", "_call", "_restUntil"),
        *("_vainRest", "_turnRest", "_turnAt"),
    )

    def __init__(self, clock: IReactorTime, moment: float) -> None:
        """
        @param clock: the reactor.
        @param moment: how long to poll after a message, in seconds; 0 for never.
        """
        self._clock = clock
        self._callLater = getattr(clock, "reactor", clock).callLater
        self.moment = moment
        self._last = float("-inf")
        self._until = 0.0
        self._call: IDelayedCall | None = None
        self._restUntil = float("-inf")
        self._vainRest = self._turnRest = SHORTEST_REST
        self._turnAt = float("-inf")

    def moved(self) -> None:
        """
        A message has arrived and has been handled.
        """
        now = self._clock.seconds()
        if self._call is not None:
            # It arrived while the reactor polled, so polling was worth it.
            self._vainRest = SHORTEST_REST
            if now > self._until:
                # The reactor was busy, or the system's clock was set back.
                self._call.reset(_AT_ONCE)
            self._until = now + self.moment
        # Only in a test do two messages arrive at the same time.
        elif 0 < now - self._last < self.moment and now >= self._restUntil:
            self._until = now + self.moment
            self._call = self._callLater(_AT_ONCE, self._look)
        self._last = now

    def _look(self) -> None:
        """
        The reactor has polled.  Yield the CPU, then poll again unless the moment is
        over.
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
            self._call = self._callLater(_AT_ONCE, self._look)

    def stop(self) -> None:
        """
        Stop polling.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None
