# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Faults and abuse that need neither a socket nor another implementation.  The
rest is in C{interop/test_faults_*.py}.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits, MuxFactory
from gomux.error import LimitExceeded
from gomux.testing import PSK, MuxPair


class UnreadControlTests(SynchronousTestCase):
    """
    A peer that makes us say things and does not read them.
    """

    def test_opensWithoutReading(self) -> None:
        """
        C{maxControl} also bounds what streams of the peer make us queue: past
        it, the next stream ends the mux.
        """
        clock = Clock()
        factory = Factory.forProtocol(Protocol)
        server = MuxFactory(
            PSK, False, factory, clock=clock, limits=Limits(maxControl=20)
        )
        pair = MuxPair(clock=clock, serverFactory=server, bufferSize=1)
        pair.flush()
        pair.serverToClient.stall()
        closed = pair.server.whenClosed()
        for _ in range(40):
            opened = pair.client.openStream(factory)
            protocol = self.successResultOf(opened)
            transport = cast(ITCPTransport, cast(Protocol, protocol).transport)
            # The server's protocol is not half-closeable: it closes.
            transport.loseWriteConnection()
            pair.flush()
        self.assertIsInstance(self.successResultOf(closed), LimitExceeded)
