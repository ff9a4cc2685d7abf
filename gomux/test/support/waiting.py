"""
Waiting for events in tests with a real reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from gomux.test.support.helpers import HalfRecorder, Recorder, Recorders


class Waiting(Recorders):
    """
    Makes recorders, and lets a test wait for their events.
    """

    def __init__(self, kind: type[Recorder] = HalfRecorder, **hooks: Any) -> None:
        super().__init__(kind, **hooks)
        self.waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def buildProtocol(self, addr: Any) -> Recorder:
        recorder = super().buildProtocol(addr)
        note = recorder.note

        def noteAndTell(event: str) -> None:
            note(event)
            self.tell()

        recorder.note = noteAndTell  # type: ignore[method-assign]
        return recorder

    def tell(self) -> None:
        for entry in list(self.waiting):
            if entry[0]():
                self.waiting.remove(entry)
                entry[1].callback(None)

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        """
        Wait until a condition holds after an event of any recorder.
        """
        waiting: Deferred[None] = Deferred()
        self.waiting.append((condition, waiting))
        self.tell()
        return waiting

    def event(self, name: str, index: int = 0) -> Deferred[None]:
        return self.until(
            lambda: len(self.made) > index and name in self.made[index].events
        )
