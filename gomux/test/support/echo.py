"""
An echo server, and a client that sends to it once.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol


class Echo(Protocol):
    """
    Sends received data back.
    """

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class Asking(Protocol):
    """
    Sends some data and waits for the answer.
    """

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.answer: Deferred[bytes] = Deferred()
        self.transport.write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        self.answer.callback(data)
