"""
Tests for L{gomux.endpoints._haproxy}: connections with a PROXY protocol header.
"""

from __future__ import annotations

import resource
import socket
import struct
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Port, Server
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from gomux._carrier import restraint
from gomux.endpoints._haproxy import (
    HEADER_TIMEOUT,
    MAX_BINARY,
    MAX_WAITING,
    ProxiedFactory,
    ProxiedProtocol,
)
from gomux.endpoints._listening import serverEndpoint
from gomux.limits import ACCEPT_QUEUE
from gomux.test.support.helpers import HalfRecorder, Recorder, Recorders
from gomux.test.support.kernel import Descriptor, Kernel
from gomux.test.support.tunnelrig import HERE, THERE, Rig
from gomux.testing._memory import Carrier
from gomux.testing._pair import connect

V1 = b"PROXY TCP4 198.51.100.7 198.51.100.8 1111 2222\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CLIENT = IPv4Address("TCP", "198.51.100.7", 1111)


def binary(command: int, family: int, addresses: bytes) -> bytes:
    """
    @return: a header of version 2.
    """
    return SIGNATURE + struct.pack("!BBH", command, family, len(addresses)) + addresses


SIX = struct.pack(
    "!16s16s2H",
    socket.inet_pton(socket.AF_INET6, "2001:db8::7"),
    socket.inet_pton(socket.AF_INET6, "2001:db8::8"),
    1111,
    2222,
)
V2 = binary(0x21, 0x11, bytes([198, 51, 100, 7, 198, 51, 100, 8, 4, 87, 8, 174]))
V2_SIX = binary(0x21, 0x21, SIX)
LOCAL = binary(0x20, 0x00, b"")
SIX_PEER = IPv6Address("TCP", "2001:db8::7", 1111)


class Addressed(Recorders):
    """
    Notes for which addresses protocols were made.
    """

    def __init__(self, kind: type[Recorder] = HalfRecorder) -> None:
        super().__init__(kind)
        self.addresses: list[Any] = []

    def buildProtocol(self, addr: Any) -> Recorder:
        self.addresses.append(addr)
        return super().buildProtocol(addr)


class HeaderTests(SynchronousTestCase):
    """
    Headers of both versions.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.factory = Addressed()

    def open(self) -> tuple[Recorder, Carrier]:
        """
        @return: the client's protocol and transport.
        """
        proxied = ProxiedFactory(self.factory, self.clock).buildProtocol(HERE)
        client = HalfRecorder()
        self.proxied = proxied
        sides = connect(self.clock, (client, proxied), (HERE, THERE), 0.0, None, 65536)
        return client, sides[0]

    def send(self, data: bytes, step: int = 0) -> tuple[Recorder, Carrier]:
        client, side = self.open()
        for start in range(0, len(data), step or len(data)):
            side.write(data[start : start + (step or len(data))])
            self.clock.advance(0)
        return client, side

    def test_headers(self) -> None:
        """
        The protocol is made for the client's address, and its transport has that
        address too, also if the header comes byte by byte.
        """
        for header, expected in (
            (V1, CLIENT),
            (V2, CLIENT),
            (V2_SIX, SIX_PEER),
            (b"PROXY TCP6 2001:db8::7 2001:db8::8 1111 2222\r\n", SIX_PEER),
            (b"PROXY TCP6 2001:0db8:0:0:0:0:0:7 2001:db8::8 1111 2\r\n", SIX_PEER),
            (LOCAL, THERE),
            (b"PROXY UNKNOWN\r\n", THERE),
            (b"PROXY UNKNOWN any thing\r\n", THERE),
            (binary(0x21, 0x31, b"/run/app".ljust(216, b"\0")), None),
            (binary(0x21, 0x11, V2[16:] + b"\x04\0\4abcd"), CLIENT),
        ):
            for step in (1, 7, 0):
                self.factory = Addressed()
                self.send(header + b"hello", step)
                (address,) = self.factory.addresses
                (made,) = self.factory.made
                assert made.transport is not None
                self.assertEqual(address, made.transport.getPeer())
                if expected is not None:
                    expected = HERE if expected is THERE else expected
                    self.assertEqual(address, expected, header)
                self.assertEqual(made.received, b"hello")

    def test_hosts(self) -> None:
        """
        C{getHost} of the transport is the address that the client had connected to.
        """
        self.send(V1)
        (made,) = self.factory.made
        assert made.transport is not None
        there = IPv4Address("TCP", "198.51.100.8", 2222)
        self.assertEqual(made.transport.getHost(), there)

    def test_invalid(self) -> None:
        """
        A connection without a valid header is reset, without a traceback.
        """
        for header in (
            b"GET / HTTP/1.0\r\n\r\n",
            b"X",
            b"PROXY TCP4 forged\nline 198.51.100.8 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 one 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 99999 2\r\n",
            b"PROXY TCP4 \xff 1.2.3.4 1 2\r\n",
            b"PROXY TCP4\r\n",
            b"PROXY " + b"a" * 200,
            SIGNATURE + b"\x31\x11\0\0",
            SIGNATURE + b"\x21\x99\0\0",
            SIGNATURE + b"\x21\x11\0\1a",
            SIGNATURE + struct.pack("!BBH", 0x21, 0x11, MAX_BINARY),
            binary(0x21, 0x31, b"/run\n/x".ljust(216, b"\0")),
        ):
            client, _ = self.send(header)
            self.assertIsInstance(client.reason, ConnectionLost, header)
        self.assertEqual(self.factory.made, [])

    def test_timeout(self) -> None:
        """
        A connection whose header does not come is reset.
        """
        client, side = self.open()
        side.write(V1[:10])
        self.clock.advance(HEADER_TIMEOUT - 1)
        self.clock.advance(0)
        self.assertEqual(client.reason, None)
        self.clock.advance(1.5)
        self.clock.advance(0)
        self.assertIsInstance(client.reason, ConnectionLost)

    def test_tooManyWait(self) -> None:
        """
        If too many connections wait for their header, the oldest such connection is
        dropped.  Connections with a header, and those that are gone, do not count.
        """
        factory = ProxiedFactory(self.factory, self.clock)

        def open() -> tuple[Recorder, Carrier]:
            client, server = HalfRecorder(), factory.buildProtocol(HERE)
            sides = connect(
                self.clock, (client, server), (HERE, THERE), 0.0, None, 65536
            )
            return client, sides[0]

        served, side = open()
        side.write(V1)
        _, gone = open()
        gone.loseConnection()
        self.clock.advance(0)
        clients = [open()[0] for _ in range(factory.mostWaiting)]
        self.clock.advance(0)
        self.assertEqual({client.reason for client in clients}, {None})
        last, _ = open()
        self.clock.advance(0)
        self.assertIsInstance(clients[0].reason, ConnectionLost)
        others = [served, last, *clients[1:]]
        self.assertEqual({client.reason for client in others}, {None})

    def test_oneEachTurn(self) -> None:
        """
        A port accepts one connection in each turn of the reactor, before any header.
        """
        factory = ProxiedFactory(self.factory, self.clock)
        reactor = MemoryReactorClock()
        port = Port(0, factory, backlog=ACCEPT_QUEUE, reactor=reactor)
        port.numberAccepts = 10
        proxied, client = factory.buildProtocol(HERE), ("192.0.2.1", 49152)
        server: Any = Server(Kernel(), proxied, client, port, 0, reactor)  # type: ignore[arg-type]
        proxied.makeConnection(server)
        self.assertEqual(port.numberAccepts, -1)

    def test_restrained(self) -> None:
        """
        What TLS does for a connection by itself is bounded until the header has come.
        """
        below = Descriptor()
        self.patch(restraint, "_socketBelow", lambda transport: below)
        _, side = self.open()
        self.assertEqual(below.bufferSize, restraint.STRANGERS_READ)
        side.write(V1)
        self.clock.advance(0)
        self.assertEqual(below.bufferSize, Descriptor.bufferSize)
        self.assertIsNone(below.producer)

    def test_fewDescriptors(self) -> None:
        """
        The connections that wait for a header have a small part of the descriptors.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for limit, most in ((200, 16), (1024, 32), (hard, MAX_WAITING)):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            factory = ProxiedFactory(self.factory, self.clock)
            self.assertLessEqual(factory.mostWaiting, most)
            self.assertGreaterEqual(factory.mostWaiting, min(most, limit // 32))

    def test_noTimeout(self) -> None:
        """
        The timeout is for the header alone.
        """
        client, side = self.send(V1)
        self.clock.advance(HEADER_TIMEOUT * 10)
        self.assertEqual(client.reason, None)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lostBefore(self) -> None:
        """
        A client that goes away before its header is complete leaves nothing behind.
        """
        for abort in (True, False):
            _, side = self.send(V1[:10])
            side.abortConnection() if abort else side.loseConnection()
            self.clock.advance(0)
            self.clock.advance(0)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.assertEqual(self.proxied.factory.protocols, {})

    def test_refused(self) -> None:
        """
        If the factory makes no protocol the connection is reset.
        """
        self.factory.buildProtocol = lambda addr: None  # type: ignore[method-assign,assignment,return-value]
        client, _ = self.send(V1)
        self.assertIsInstance(client.reason, ConnectionLost)

    def test_halves(self) -> None:
        """
        Half-closes reach the protocol, in both directions.
        """
        client, side = self.send(V1 + b"request")
        (made,) = self.factory.made
        transport: Any = made.transport
        side.loseWriteConnection()
        self.clock.advance(0)
        self.assertEqual(made.events, ["made", "data", "readLost"])
        transport.write(b"answer")
        transport.loseWriteConnection()
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertEqual(client.received, b"answer")
        self.assertEqual(client.events, ["made", "writeLost", "data", "readLost"])
        self.assertEqual(made.events[-1], "writeLost")

    def test_notHalfCloseable(self) -> None:
        """
        A protocol that knows no half-closes loses its connection, as over TCP.
        """
        self.factory = Addressed(Recorder)
        _, side = self.send(V1)
        side.loseWriteConnection()
        for _ in range(3):
            self.clock.advance(0)
        (made,) = self.factory.made
        self.assertEqual(made.events, ["made", "lost"])
        self.assertIsInstance(made.reason, ConnectionDone)

    def test_interface(self) -> None:
        """
        The protocol provides what it declares.
        """
        factory = ProxiedFactory(self.factory, self.clock)
        proxied = ProxiedProtocol(factory)
        verifyObject(IHalfCloseableProtocol, proxied)
        self.assertEqual(proxied.logPrefix(), factory.logPrefix())

    def test_tunnel(self) -> None:
        """
        A tunnel's log lines name the client, not the load balancer.
        """
        rig = Rig(self)
        rig.target.answer = ValueError("no target")
        end = ProxiedFactory(rig.here, rig.clock).buildProtocol(HERE)
        client = HalfRecorder()
        connect(rig.clock, (client, end), (HERE, THERE), 0.0, None, 65536)[0].write(V1)
        rig.flush()
        self.assertIsInstance(client.reason, ConnectionLost)
        self.assertIn("the forward: 198.51.100.7:1111", rig.logged[-1])


class LiveTests(TestCase):
    """
    Over TCP.
    """

    def test_halfClose(self) -> Deferred[None]:
        """
        A client that closes its writing half gets the whole answer.  A protocol without
        half-closes loses its connection, as it does without the header.
        """

        def answer(recorder: Recorder) -> None:
            assert recorder.transport is not None
            recorder.transport.write(bytes(1000000))
            recorder.transport.loseConnection()

        def ask(number: int) -> int:
            with socket.create_connection(("127.0.0.1", number), 10) as client:
                client.sendall(V1 + b"request")
                client.shutdown(socket.SHUT_WR)
                size = 0
                while data := client.recv(65536):
                    size += len(data)
                return size

        async def run() -> None:
            for kind, size in ((HalfRecorder, 1000000), (Recorder, 0)):
                factory = Recorders(kind, readLost=answer)
                endpoint = serverEndpoint(reactor, "haproxy:tcp:0:interface=127.0.0.1")
                port = await endpoint.listen(factory)
                number: Any = port.getHost()
                self.assertEqual(await deferToThread(ask, number.port), size)
                await port.stopListening()  # type: ignore[misc]
                (made,) = factory.made
                self.assertIsInstance(
                    Failure(made.reason or ConnectionDone()).value, ConnectionDone
                )

        return Deferred.fromCoroutine(run())
