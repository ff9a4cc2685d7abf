"""
A reactor whose clock can be set.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock


class SettableReactor(Clock):
    """
    A reactor whose clock can be set, together with a monotonic clock.

    @ivar monotonic: the time of the monotonic clock.
    """

    monotonic = 0.0

    def pass_(self, seconds: float) -> None:
        """
        Let some time pass.
        """
        self.monotonic += seconds
        self.advance(seconds)

    def set(self, seconds: float) -> None:
        """
        Set the reactor's clock without letting time pass.
        """
        self.rightNow += seconds

    def addSystemEventTrigger(self, *args: object) -> None:
        """
        Do nothing, because the reactor of these tests is never stopped.
        """

    def callFromThread(self, function: Callable[[], None]) -> None:
        function()
