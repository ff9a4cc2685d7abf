# -*- test-case-name: gomux.test.carrier.test_rate -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Limiting how often something may happen.
"""

from __future__ import annotations


class TokenBucket:
    """
    Allows a burst of events at once, and a rate of events in the long run.

    @ivar tokens: how many more events were allowed right after the last event.
    @ivar _rate: the rate, in events a second.
    @ivar _burst: how many events are allowed at once.
    @ivar _updated: the time of the last event, C{None} before the first.
    """

    __slots__ = ("_rate", "_burst", "tokens", "_updated")

    def __init__(self, rate: float, burst: float) -> None:
        """
        @param rate: how many events a second are allowed in the long run.
        @param burst: how many events are allowed at once.
        """
        self._rate = rate
        self._burst = burst
        self.tokens = float(burst)
        self._updated: float | None = None

    def take(self, now: float) -> bool:
        """
        Count one event.

        @param now: the time in seconds, from a clock that does not run
            backwards.
        @return: whether the event is still allowed.
        """
        if self._updated is not None:
            self.tokens = min(
                self._burst, self.tokens + (now - self._updated) * self._rate
            )
        self._updated = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    @property
    def wait(self) -> float:
        """
        How many seconds after the last event the next event is allowed.
        """
        return max(0.0, (1 - self.tokens) / self._rate)

    def giveBack(self) -> None:
        """
        Count one event less, because the last one should not have been counted.
        """
        self.tokens += 1
