"""
A command as a child process of a test.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure


class Command(ProcessProtocol):
    """
    Runs a command, and feeds it some input.

    @ivar ended: Fires with the exit status, C{None} after a signal.
    """

    transport: Any

    def __init__(self, data: bytes | None = b"") -> None:
        """
        @param data: The standard input; C{None} to leave it open.
        """
        self._data = data
        self.output = bytearray()
        self.errors = bytearray()
        self.ended: Deferred[int | None] = Deferred()

    def connectionMade(self) -> None:
        if self._data is not None:
            self.transport.write(self._data)
            self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self.output += data

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(reason.value.exitCode)  # type: ignore[attr-defined]

    def end(self) -> None:
        if not self.ended.called:
            self.transport.signalProcess("KILL")
