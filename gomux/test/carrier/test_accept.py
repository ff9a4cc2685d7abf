# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._carrier.accept}.
"""

from __future__ import annotations

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Port, Server
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from gomux._carrier.accept import ACCEPT_INTERVAL, AcceptPace
from gomux._mux.factory import MuxFactory
from gomux._wire.frame import Flag
from gomux.test.support.helpers import FramePeer
from gomux.test.support.kernel import Kernel
from gomux.testing import PSK


class PaceTests(SynchronousTestCase):
    """
    L{AcceptPace}
    """

    def setUp(self) -> None:
        factory = Factory.forProtocol(Protocol)
        self.reactor = MemoryReactorClock()
        self.port = port = Port(0, factory, reactor=self.reactor)
        port.connected, port.numberAccepts = True, 10
        self.reactor.addReader(port)
        self.pace = AcceptPace()

        class Wrapper(StringTransport):
            transport = self.accepted()

        self.transports = (self.accepted(), Wrapper())

    def accepted(self) -> Server:
        """
        @return: the transport of a connection that the port has accepted.
        """
        client = ("192.0.2.1", 49152)
        return Server(Kernel(), Protocol(), client, self.port, 0, self.reactor)  # type: ignore[arg-type]

    def isAccepting(self) -> bool:
        return self.port in self.reactor.getReaders()

    def test_pace(self) -> None:
        """
        A port accepts one connection at a time and pauses before the next, also if TLS
        lies between the port and the mux.
        """
        for transport in self.transports:
            self.pace.accepted(transport)
            self.assertEqual(self.port.numberAccepts, 0)
            self.assertFalse(self.isAccepting())
            self.reactor.advance(ACCEPT_INTERVAL / 2)
            self.assertFalse(self.isAccepting())
            self.reactor.advance(ACCEPT_INTERVAL / 2)
            self.assertTrue(self.isAccepting())

    def test_atOnce(self) -> None:
        """
        Several connections that a port accepted at once cause a single pause.
        """
        for transport in self.transports * 3:
            self.pace.accepted(transport)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.reactor.advance(ACCEPT_INTERVAL)
        self.assertTrue(self.isAccepting())

    def test_authenticated(self) -> None:
        """
        A port goes on at once when the peer that it accepted last authenticates, and
        not when another peer does.
        """
        first, second = self.transports
        self.pace.accepted(first)
        self.pace.authenticated(second)
        self.assertFalse(self.isAccepting())
        self.pace.authenticated(first)
        self.assertTrue(self.isAccepting())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.pace.authenticated(first)
        self.pace.authenticated(StringTransport())

    def test_stopped(self) -> None:
        """
        No delayed call is left once the port is stopped.
        """
        self.pace.accepted(self.transports[0])
        self.pace.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.pace.stop()
        # A port that is stopping does not accept again.
        self.pace.accepted(self.transports[0])
        self.port.disconnecting = True
        self.reactor.advance(ACCEPT_INTERVAL)
        self.assertFalse(self.isAccepting())

    def test_others(self) -> None:
        """
        A connection that no port accepted is left alone.
        """
        self.pace.accepted(StringTransport())
        self.pace.accepted(None)

    def test_factory(self) -> None:
        """
        A server's muxes report that they were accepted, and its factory stops the pace.
        """
        factory = MuxFactory(PSK, False, clock=self.reactor)
        factory.doStart()
        mux = factory.buildProtocol(None)
        mux.makeConnection(self.transports[0])
        self.assertFalse(self.isAccepting())
        peer = FramePeer(PSK)
        mux.dataReceived(peer.seal(0, Flag.KEEPALIVE))
        self.assertTrue(self.isAccepting())
        mux = factory.buildProtocol(None)
        mux.makeConnection(self.transports[1])
        self.assertFalse(self.isAccepting())
        calls = len(self.reactor.getDelayedCalls())
        factory.doStop()
        self.assertEqual(len(self.reactor.getDelayedCalls()), calls - 1)
