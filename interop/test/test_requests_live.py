"""
Streams for a service, with an independent implementation of them and with the Go
reference.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from gomux import MuxClientEndpoint, MuxServerEndpoint
from gomux.error import (
    NoRequests,
    ServiceUnknown,
)
from gomux.test.support.echo import Echo
from interop.peers.blocking_requests import Refused, RequestMux, encode
from interop.support.harness import PeerTestCase, whyMissing
from interop.support.independent import IndependentTestCase, Watched

PSK = "a pre-shared key of the live tests"


class Answering(Protocol):
    """
    Sends a line, and waits for one.
    """

    def __init__(self, line: bytes = b"idle\n") -> None:
        self.line = line
        self.answer: Deferred[bytes] = Deferred()
        self._received = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.line)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"\n"):
            self.answer.callback(self._received)


class RequestTests(IndependentTestCase):
    """
    This project in each role, with the independent implementation
    """

    async def start(self, isClient: bool) -> None:
        factory = Watched(
            PSK,
            isClient,
            Factory.forProtocol(Echo),
            clock=reactor,  # type: ignore[arg-type]
            services={"ours": Factory.forProtocol(Echo)},
        )
        factory.mayUse = lambda peer, service: service != "secret"
        await self.join(
            lambda there: RequestMux(there, PSK, not isClient, ("theirs",)), factory
        )

    async def test_theirs(self) -> None:
        """
        This project serves the streams that the other opens for a service, and refuses
        those for others.
        """
        for isClient in (True, False):
            await self.start(isClient)
            stream = await deferToThread(self.peer.openService, "ours")
            stream.write(b"hello")
            self.assertEqual(await deferToThread(stream.read, 10), b"hello")
            plain = self.peer.openStream()
            plain.write(b"plain")
            self.assertEqual(await deferToThread(plain.read, 10), b"plain")
            for name, code in (("none", "unknown"), ("secret", "not-allowed")):
                opening = deferToThread(self.peer.openService, name)
                error = await self.assertFailure(opening, Refused)
                self.assertEqual(error.code, code)
            stream.write(b"again")
            self.assertEqual(await deferToThread(stream.read, 10), b"again")

    async def test_ours(self) -> None:
        """
        The other serves the streams that this project opens for a service.
        """
        for isClient in (True, False):
            await self.start(isClient)
            answering = Factory.forProtocol(Answering)
            opening = self.mux.openStream(answering, "theirs")
            stream = await deferToThread(self.peer.acceptStream)
            protocol: Any = await opening
            self.assertEqual(self.peer.names, {stream.number: "theirs"})
            self.assertEqual(await deferToThread(stream.read, 10), b"idle\n")
            stream.write(b"hello\n")
            self.assertEqual(await protocol.answer, b"hello\n")
            unknown = self.mux.openStream(answering, "none")
            await self.assertFailure(unknown, ServiceUnknown)

    async def test_raw(self) -> None:
        """
        Requests that are malformed, cut or too large are aborted, and other streams do
        not notice.
        """
        for isClient in (True, False):
            await self.start(isClient)
            stream = await deferToThread(self.peer.openService, "ours")
            for data in (
                encode({"service": 7}),
                encode({"service": "ours", "connect": "localhost:1"}),
                encode({"service": "ours"})[:-1] + b"x",
                b"\xff\xff",
            ):
                bad = await deferToThread(self.peer.openRequest)
                bad.write(data)
                self.assertEqual(await deferToThread(bad.read, 10), b"")
            stream.write(b"still")
            self.assertEqual(await deferToThread(stream.read, 10), b"still")
            self.assertIsNone(self.mux.reason)


class GoTests(PeerTestCase):
    """
    The Go reference in each role.  It never sees a byte of a request.
    """

    skip = whyMissing("go")

    async def noService(self, opening: Deferred[Any], least: float) -> None:
        """
        Check that a stream for a service fails within the time for the greeting.
        """
        started = time.monotonic()
        error = await self.assertFailure(opening, NoRequests)
        self.assertIn("Go peer", str(error))
        self.assertLess(time.monotonic() - started, 15)
        self.assertGreater(time.monotonic() - started, least)

    async def test_server(self) -> None:
        """
        With a Go server a stream for a service fails within the time for the greeting,
        and at once when the server has shown that it does not greet.  Streams without a
        service work.
        """
        server = self.spawn("go", "--listen", "127.0.0.1:0", psk=PSK)
        host, _, port = (await server.line("listening ")).partition(":")
        carrier: Any = TCP4ClientEndpoint(reactor, host, int(port))
        named = MuxClientEndpoint(reactor, carrier, PSK, service="chat")
        plain = MuxClientEndpoint.sharing(named._mux)
        factory = Factory.forProtocol(Answering)
        self.addCleanup(named.close)
        await self.noService(named.connect(factory), 4.5)
        protocol: Any = await plain.connect(factory)
        self.assertEqual(await protocol.answer, b"ok\n")
        await self.noService(named.connect(factory), 0)
        self.assertEqual(len(named._mux.muxes), 1)

    async def test_client(self) -> None:
        """
        The same with a Go client.
        """
        carrier: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        endpoint = MuxServerEndpoint(reactor, carrier, PSK, service="chat")
        port: Any = await endpoint.listen(Factory.forProtocol(Echo))
        self.addCleanup(port.close)
        address = f"127.0.0.1:{port.getHost().port}"
        client = self.spawn("go", "--connect", address, psk=PSK)
        await client.line("mux up")
        pool = port.factory.pool
        while not pool.muxes:
            await deferLater(reactor, 0.01)
        factory = Factory.forProtocol(Answering)
        await self.noService(pool.openStream(factory, service="chat"), 4.5)
        protocol: Any = await pool.openStream(factory)
        self.assertEqual(await protocol.answer, b"ok\n")
        await self.noService(pool.openStream(factory, service="chat"), 0)
