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
