"""
A reactor for tests of what a process does with signals and at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock


class ProcessClock(Clock):
    """
    A clock with the parts of a reactor that signals and shutdown need.

    @ivar triggers: the functions to call when the reactor is stopped.
    """

    def __init__(self) -> None:
        super().__init__()
        self.triggers: list[Callable[[], object]] = []

    def callFromThread(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)

    def addSystemEventTrigger(
        self, phase: str, event: str, function: Callable[[], object]
    ) -> Callable[[], object]:
        assert (phase, event) == ("before", "shutdown")
        self.triggers.append(function)
        return function

    def removeSystemEventTrigger(self, trigger: Callable[[], object]) -> None:
        self.triggers.remove(trigger)

    def shutDown(self) -> None:
        """
        Call the triggers, as a reactor that is stopped.
        """
        while self.triggers:
            self.triggers.pop(0)()
