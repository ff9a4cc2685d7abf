# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests of faults and abuse that need neither a socket nor another implementation.  The
other tests of faults are in C{interop/test/test_faults_*.py}.
"""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from gomux import Limits, MuxFactory
from gomux.error import LimitExceeded
from gomux.testing import PSK, MuxPair

reactor: Any = _reactor


class UnreadControlTests(SynchronousTestCase):
    """
    A peer that makes this side send control frames and does not read them.
    """

    def test_opensWithoutReading(self) -> None:
        """
        C{maxControl} also bounds the control frames queued for streams that the peer
        opens: past it, the next such stream ends the mux.
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
            # The server's protocol is not half-closeable, so EOF closes the stream.
            transport.loseWriteConnection()
            pair.flush()
        self.assertIsInstance(self.successResultOf(closed), LimitExceeded)


class VanishedPeerTests(TestCase):
    """
    A peer whose machine no longer answers.
    """

    async def test_probes(self) -> None:
        """
        Both sides set TCP options so that the kernel detects a lost peer within
        C{carrierTimeout}.
        """
        limits = Limits(carrierTimeout=80)
        server = MuxFactory(PSK, False, clock=reactor, limits=limits)
        client = MuxFactory(PSK, True, clock=reactor, limits=limits)
        server.noisy = False
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        near: Any = await endpoint.connect(client)
        while not server.pool.muxes:
            await deferLater(reactor, 0)
        (far,) = server.pool.muxes
        for mux in (near, far):
            carrier: Any = mux.getCarrier()
            self.assertTrue(carrier.getTcpKeepAlive())
            get = carrier.getHandle().getsockopt
            for name, value in (
                ("TCP_KEEPIDLE", 40),
                ("TCP_KEEPINTVL", 10),
                ("TCP_KEEPCNT", 4),
                ("TCP_USER_TIMEOUT", 80000),
            ):
                option = getattr(socket, name, None)
                if option is not None:
                    self.assertEqual(get(socket.IPPROTO_TCP, option), value, name)
        await near.close()
