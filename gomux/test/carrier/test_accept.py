# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._carrier.accept}.
"""

from __future__ import annotations

import socket

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Port, Server
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gomux._carrier.accept import AcceptPace, acceptOne
from gomux._mux.factory import MuxFactory
from gomux._wire.frame import Flag
from gomux.limits import ACCEPT_BURST, ACCEPT_QUEUE, ACCEPT_RATE
from gomux.test.support.helpers import FramePeer, Recorders
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
        self.queues: list[int] = []

        class Socket:
            listen = self.queues.append

        port.socket = Socket()
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

    def accept(self, count: int = 1) -> None:
        """
        Let the port accept connections of strangers.
        """
        for _ in range(count):
            self.pace.accepted(self.transports[0])

    def test_oneEachTurn(self) -> None:
        """
        A port accepts one connection in each turn of the reactor, and does not pause,
        also if TLS lies between the port and the mux, or if the connection is refused.
        """
        for transport in self.transports:
            for accepted in (self.pace.accepted, acceptOne):
                self.port.numberAccepts = 10
                accepted(transport)
                self.assertEqual(self.port.numberAccepts, -1)
                self.assertTrue(self.isAccepting())

    def test_later(self) -> None:
        """
        The same holds if the mux is made in a later turn than that in which the port
        has accepted the connection, as after a PROXY header.
        """
        factory = Recorders()
        port = Port(0, factory, 5, "127.0.0.1", self.reactor)
        port.startListening()
        self.addCleanup(port.connectionLost, Failure(ConnectionDone()))
        for _ in range(3):
            client = socket.create_connection(port.socket.getsockname())
            self.addCleanup(client.close)
        self.port = port
        acceptOne(self.accepted())
        made = []
        for _ in range(2):
            port.doRead()
            made.append(len(factory.made))
        self.assertEqual(made, [0, 1])
        for recorder in factory.made:
            recorder.transport.socket.close()  # type: ignore[union-attr]

    def test_pressure(self) -> None:
        """
        A port pauses after C{ACCEPT_BURST} connections at once, until C{ACCEPT_RATE}
        allows the next one.
        """
        self.accept(ACCEPT_BURST)
        self.assertTrue(self.isAccepting())
        self.accept()
        self.assertFalse(self.isAccepting())
        self.reactor.advance(0.9 / ACCEPT_RATE)
        self.assertFalse(self.isAccepting())
        self.reactor.advance(0.1 / ACCEPT_RATE)
        self.assertTrue(self.isAccepting())
        self.accept()
        self.assertTrue(self.isAccepting())
        self.accept()
        self.assertFalse(self.isAccepting())

    def test_noPressure(self) -> None:
        """
        A port never pauses while connections come at C{ACCEPT_RATE}, or are refused.
        """
        for _ in range(3 * ACCEPT_BURST):
            self.accept()
            acceptOne(self.transports[0])
            self.assertTrue(self.isAccepting())
            self.reactor.advance(1 / ACCEPT_RATE)

    def test_queue(self) -> None:
        """
        The kernel's queue of a port is made long enough, once.  A longer one stays.
        """
        self.accept(3)
        self.assertEqual(self.queues, [ACCEPT_QUEUE])
        self.port.backlog = 2 * ACCEPT_QUEUE
        self.accept()
        self.assertEqual(self.queues, [ACCEPT_QUEUE])

    def test_adopted(self) -> None:
        """
        A port that was made from the socket of another program keeps its queue.
        """
        self.port.backlog = None  # type: ignore[assignment]
        self.accept(3)
        self.assertEqual(self.queues, [])

    def test_atOnce(self) -> None:
        """
        Several connections that a port accepted at once cause a single pause.
        """
        self.accept(ACCEPT_BURST + 5)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.reactor.advance(1)
        self.assertTrue(self.isAccepting())

    def test_authenticated(self) -> None:
        """
        A connection whose peer authenticates does not count.
        """
        for transport in self.transports * ACCEPT_BURST:
            self.pace.accepted(transport)
            self.pace.authenticated(transport)
            self.assertTrue(self.isAccepting())
        self.pace.authenticated(StringTransport())
        self.accept(ACCEPT_BURST)
        self.assertTrue(self.isAccepting())
        self.accept()
        self.assertFalse(self.isAccepting())

    def test_stopped(self) -> None:
        """
        No delayed call is left once the port is stopped.
        """
        self.accept(ACCEPT_BURST + 1)
        self.assertFalse(self.isAccepting())
        self.pace.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.pace.stop()
        # A port that is stopping does not accept again.
        self.accept()
        self.port.disconnecting = True
        self.reactor.advance(1)
        self.assertFalse(self.isAccepting())

    def test_others(self) -> None:
        """
        A connection that no port accepted is left alone.
        """
        self.pace.accepted(StringTransport())
        self.pace.accepted(None)

    def test_factory(self) -> None:
        """
        A server's muxes report that they were accepted, and that their peers have
        authenticated.  Its factory stops the pace.
        """
        factory = MuxFactory(PSK, False, clock=self.reactor)
        factory.doStart()
        peer = FramePeer(PSK)
        for _ in range(2 * ACCEPT_BURST):
            mux = factory.buildProtocol(None)
            mux.makeConnection(self.accepted())
            mux.dataReceived(peer.seal(0, Flag.KEEPALIVE))
            peer = FramePeer(PSK)
        self.assertTrue(self.isAccepting())
        for _ in range(ACCEPT_BURST + 1):
            factory.buildProtocol(None).makeConnection(self.accepted())
        self.assertFalse(self.isAccepting())
        calls = len(self.reactor.getDelayedCalls())
        factory.doStop()
        self.assertEqual(len(self.reactor.getDelayedCalls()), calls - 1)
