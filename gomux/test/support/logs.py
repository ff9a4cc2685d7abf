"""
Recording log lines in a test.
"""

from __future__ import annotations

from twisted.logger import ILogObserver, LogEvent, formatEvent
from zope.interface import implementer


@implementer(ILogObserver)
class Lines:
    """
    Keeps the formatted log events of a namespace.
    """

    def __init__(self, namespace: str = "") -> None:
        self.namespace = namespace
        self.lines: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        if event["log_namespace"].startswith(self.namespace):
            self.lines.append(formatEvent(event))


@implementer(ILogObserver)
class Failures:
    """
    Keeps the log events that have a failure.
    """

    def __init__(self, *expected: type[Exception]) -> None:
        """
        @param expected: the exceptions whose failures are not kept.
        """
        self.expected = expected
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is not None and not failure.check(*self.expected):
            self.events.append(event)
