# -*- test-case-name: gomux.test.carrier.test_rate -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Limiting how often something may happen.
"""

from __future__ import annotations


class TokenBucket:
    """
    Allows a burst of events at once and a rate of them in the long run.

    @ivar tokens: how many events are allowed at C{updated}.
    """

    __slots__ = ("_rate", "_burst", "tokens", "_updated")

    def __init__(self, rate: float, burst: float) -> None:
        """
        @param rate: events a second in the long run.
        @param burst: events at once.
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
        For how long no event is allowed, in seconds after the last one.
        """
        return max(0.0, (1 - self.tokens) / self._rate)

    def giveBack(self) -> None:
        """
        Count one event less: what was taken for one was none.
        """
        self.tokens += 1
