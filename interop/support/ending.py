"""
How a connection ended, whatever Twisted makes of it.
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
    Sees the end of its connection as it was: see L{DirectTransport.wasReset}.
    """

    transport: Any = None

    def readConnectionLost(self) -> None:
        wasReset = DirectTransport(self.transport).wasReset()
        reason = ConnectionLost() if wasReset else ConnectionDone()
        self.transport.connectionLost(Failure(reason))

    def writeConnectionLost(self) -> None:
        pass
