"""
A base class for protocols that check whether their connection was reset.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from gomux._carrier.direct import DirectTransport


@implementer(IHalfCloseableProtocol)
class Ending(Protocol):
    """
    A protocol whose C{connectionLost} tells a reset from a clean end.
    L{DirectTransport.wasReset} says why Twisted may report a reset as a clean end.
    """

    transport: Any = None

    def readConnectionLost(self) -> None:
        wasReset = DirectTransport(self.transport).wasReset()
        reason = ConnectionLost() if wasReset else ConnectionDone()
        self.transport.connectionLost(Failure(reason))

    def writeConnectionLost(self) -> None:
        pass
