# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests that factories and protocols which know nothing of gomux run unchanged over
streams.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    clientFromString,
    connectProtocol,
    quoteStringArgument,
    wrapClientTLS,
)
from twisted.internet.interfaces import IProtocolFactory, ISSLTransport
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.mail import smtp
from twisted.protocols import amp, portforward
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import (
    Agent,
    FileBodyProducer,
    HTTPConnectionPool,
    ResponseDone,
    readBody,
)
from twisted.web.iweb import IAgentEndpointFactory
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data, File
from zope.interface import implementer

from gomux import MuxClientEndpoint, MuxServerEndpoint
from gomux.test.support.certificates import CERTIFICATE, NAME
from gomux.test.support.servertls import wrapServerTLS

PSK = b"a key for the tests of factories"
MEBIBYTE = 1024 * 1024


class Live(TestCase):
    """
    A test with muxes over TCP.

    @ivar service: the service that the streams are for; C{None} for none.
    """

    timeout = 120
    service: str | None = None

    def setUp(self) -> None:
        self.ports: list[Any] = []
        self.clients: list[MuxClientEndpoint] = []

    async def tearDown(self) -> None:  # type: ignore[override]
        for client in self.clients:
            await client.close()
        for port in self.ports:
            await port.close()

    async def serve(self, factory: IProtocolFactory) -> MuxClientEndpoint:
        """
        Serve a factory.

        @return: an endpoint that connects to it.
        """
        server = MuxServerEndpoint(reactor, localServer(), PSK, service=self.service)
        port: Any = await server.listen(factory)
        self.ports.append(port)
        return self.client(port)

    def client(self, port: Any) -> MuxClientEndpoint:
        """
        @return: an endpoint that connects to a port.
        """
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        client = MuxClientEndpoint(reactor, carrier, PSK, service=self.service)
        self.clients.append(client)
        return client


def localServer() -> Any:
    return TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")


def tlsOptions() -> Any:
    """
    @return: the client's options for a server with L{CERTIFICATE}.
    """
    return optionsForClientTLS(NAME, CERTIFICATE)


# HTTP


class CountingSite(Site):
    """
    Counts its connections.
    """

    count = 0

    def buildProtocol(self, addr: Any) -> Any:
        self.count += 1
        return super().buildProtocol(addr)


class Hashing(Resource):
    """
    Answers a POST request with the hash of its body.
    """

    isLeaf = True

    def render_POST(self, request: Any) -> bytes:
        request.content.seek(0)
        hashed = hashlib.blake2b()
        while piece := request.content.read(MEBIBYTE):
            hashed.update(piece)
        return hashed.hexdigest().encode()


@implementer(IAgentEndpointFactory)
class Everything:
    """
    Uses the same endpoint for each URI.
    """

    def __init__(self, endpoint: Any) -> None:
        self.endpoint = endpoint

    def endpointForURI(self, uri: object) -> Any:
        return self.endpoint


class Hashed(Protocol):
    """
    Hashes a response.
    """

    def __init__(self) -> None:
        self.hashed = hashlib.blake2b()
        self.finished: Deferred[str] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.hashed.update(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if reason.check(ResponseDone):
            self.finished.callback(self.hashed.hexdigest())
        else:
            self.finished.errback(reason)


class WebTests(Live):
    """
    L{twisted.web}, its server and its client
    """

    async def agent(self, root: Resource, endpoint: Any = None) -> Agent:
        """
        Serve some resources.

        @return: an agent whose requests go to them.
        """
        self.site = CountingSite(root)
        if endpoint is None:
            endpoint = await self.serve(self.site)
        self.pool = HTTPConnectionPool(reactor)
        agent: Agent = Agent.usingEndpointFactory(
            reactor, Everything(endpoint), self.pool
        )
        return agent

    async def test_keepAlive(self) -> None:
        """
        Requests that follow each other share one stream, requests at the same time have
        a stream each, and all streams share one mux.
        """
        root = Resource()
        root.putChild(b"page", Data(b"the page", "text/plain"))
        agent = await self.agent(root)
        for _ in range(3):
            response = await agent.request(b"GET", b"http://gomux.test/page")
            self.assertEqual(await readBody(response), b"the page")
        self.assertEqual(self.site.count, 1)
        requests = [
            agent.request(b"GET", b"http://gomux.test/page").addCallback(readBody)
            for _ in range(10)
        ]
        for request in requests:
            self.assertEqual(await request, b"the page")
        self.assertEqual(self.site.count, 10)
        self.assertEqual(len(self.ports[0].factory.muxes), 1)
        await self.pool.closeCachedConnections()

    async def test_large(self) -> None:
        """
        A body of 100 MiB arrives unchanged, in a request and in a response.
        """
        path = self.mktemp()
        hashed = hashlib.blake2b()
        with open(path, "wb") as file:
            for _ in range(100):
                piece = os.urandom(MEBIBYTE)
                hashed.update(piece)
                file.write(piece)
        root = Resource()
        root.putChild(b"hash", Hashing())
        root.putChild(b"file", File(path))
        agent = await self.agent(root)
        with open(path, "rb") as file:
            response = await agent.request(
                b"POST", b"http://gomux.test/hash", bodyProducer=FileBodyProducer(file)
            )
            self.assertEqual(await readBody(response), hashed.hexdigest().encode())
        response = await agent.request(b"GET", b"http://gomux.test/file")
        downloaded = Hashed()
        response.deliverBody(downloaded)
        self.assertEqual(await downloaded.finished, hashed.hexdigest())
        await self.pool.closeCachedConnections()

    async def test_secure(self) -> None:
        """
        HTTP works over TLS over a stream.
        """
        self.site = CountingSite(Hashing())
        server = MuxServerEndpoint(reactor, localServer(), PSK, service=self.service)
        port: Any = await wrapServerTLS(CERTIFICATE.options(), server).listen(self.site)
        self.ports.append(port)
        endpoint = wrapClientTLS(tlsOptions(), self.client(port))
        agent = Agent.usingEndpointFactory(reactor, Everything(endpoint))
        body = os.urandom(MEBIBYTE)
        response = await agent.request(
            b"POST",
            b"https://gomux.test/",
            bodyProducer=FileBodyProducer(io.BytesIO(body)),
        )
        expected = hashlib.blake2b(body).hexdigest().encode()
        self.assertEqual(await readBody(response), expected)

    async def test_twistd(self) -> None:
        """
        C{twistd web} serves over a mux if its C{--listen} string says so.
        """
        directory = self.mktemp()
        os.mkdir(directory)
        with open(os.path.join(directory, "page"), "w") as file:
            file.write("the page")
        psk = self.mktemp()
        with open(os.open(psk, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as key:
            key.write(PSK)
        string = f"gomux:unix:web:pskFile={quoteStringArgument(psk)}"
        if self.service is not None:
            string += f":service={self.service}"
        process = Process()
        reactor.spawnProcess(
            process,
            sys.executable,
            [
                sys.executable,
                *("-c", "from twisted.scripts.twistd import run; run()"),
                *("--nodaemon", "--pidfile=", "web"),
                *("--listen", string, "--path", directory),
            ],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        )
        self.addCleanup(process.end)
        endpoint: Any = clientFromString(reactor, string)
        self.clients.append(endpoint)
        agent = Agent.usingEndpointFactory(reactor, Everything(endpoint))
        response = await agent.request(b"GET", b"http://gomux.test/page")
        self.assertEqual(await readBody(response), b"the page")
        await endpoint.close()
        process.transport.signalProcess("TERM")
        await process.ended
        self.assertIn(b"Server Shut Down", process.output)
        self.assertNotIn(b"Traceback", process.output)
        self.assertNotIn(PSK, process.output)


class Process(ProcessProtocol):
    """
    Waits for the end of a process.
    """

    transport: Any

    def __init__(self) -> None:
        self.output = b""
        self.ended: Deferred[None] = Deferred()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.output += data

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)

    def end(self) -> None:
        if not self.ended.called:
            self.transport.signalProcess("KILL")


# AMP


class Add(amp.Command):
    arguments = [(b"a", amp.Integer()), (b"b", amp.Integer())]
    response = [(b"sum", amp.Integer()), (b"secure", amp.Boolean())]


class Adder(amp.AMP):
    """
    Adds numbers, and can start TLS.
    """

    @Add.responder
    def add(self, a: int, b: int) -> dict[str, Any]:
        return {"sum": a + b, "secure": ISSLTransport.providedBy(self.transport)}

    @amp.StartTLS.responder
    def startTLS(self) -> dict[str, Any]:
        return {
            "tls_localCertificate": CERTIFICATE,
            "tls_verifyAuthorities": [CERTIFICATE],
        }


class AMPTests(Live):
    """
    L{twisted.protocols.amp}
    """

    async def test_calls(self) -> None:
        """
        Many AMP calls at the same time, on many streams, are answered.
        """
        client = await self.serve(Factory.forProtocol(Adder))
        peers = [await connectProtocol(client, amp.AMP()) for _ in range(10)]
        answers = [
            (a + b, peer.callRemote(Add, a=a, b=b))
            for b, peer in enumerate(peers)
            for a in range(20)
        ]
        for expected, answer in answers:
            self.assertEqual(await answer, {"sum": expected, "secure": False})
        for peer in peers:
            peer.transport.loseConnection()

    async def test_startTLS(self) -> None:
        """
        AMP can start TLS in the middle of a stream.
        """
        client = await self.serve(Factory.forProtocol(Adder))
        peer = await connectProtocol(client, amp.AMP())
        answer = await peer.callRemote(Add, a=1, b=2)
        self.assertEqual(answer, {"sum": 3, "secure": False})
        await peer.callRemote(
            amp.StartTLS,
            tls_localCertificate=CERTIFICATE,
            tls_verifyAuthorities=[CERTIFICATE],
        )
        answer = await peer.callRemote(Add, a=1, b=2)
        self.assertEqual(answer, {"sum": 3, "secure": True})
        self.assertTrue(ISSLTransport.providedBy(peer.transport))
        peer.transport.loseConnection()


# SMTP


@implementer(smtp.IMessageDelivery)
class Delivery:
    """
    Accepts all mail.
    """

    def __init__(self) -> None:
        self.messages: list[list[bytes]] = []

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b"Received: by gomux.test"

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        return origin

    def validateTo(self, user: Any) -> Any:
        return lambda: Message(self.messages)


@implementer(smtp.IMessage)
class Message:
    """
    One message.
    """

    def __init__(self, messages: list[list[bytes]]) -> None:
        self.messages = messages
        self.lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        self.lines.append(line)

    def eomReceived(self) -> Deferred[None]:
        self.messages.append(self.lines)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def connectionLost(self) -> None:
        self.lines = []


class SMTPServer(Factory):
    """
    Makes servers that can start TLS.
    """

    noisy = False

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery

    def buildProtocol(self, addr: Any) -> Any:
        server = smtp.ESMTP(contextFactory=CERTIFICATE.options())
        server.factory = self
        server.delivery = self.delivery
        return server


class SMTPTests(Live):
    """
    L{twisted.mail.smtp}
    """

    async def test_startTLS(self) -> None:
        """
        An SMTP client that requires TLS can deliver a message.
        """
        delivery = Delivery()
        client = await self.serve(SMTPServer(delivery))
        sent: Deferred[Any] = Deferred()
        lines = [b"line %d" % (number,) for number in range(5000)]
        factory = smtp.ESMTPSenderFactory(
            b"",
            b"",
            b"from@gomux.test",
            b"to@gomux.test",
            io.BytesIO(b"\n".join(lines)),
            sent,
            contextFactory=tlsOptions(),
            requireAuthentication=False,
            requireTransportSecurity=True,
            hostname=NAME,
        )
        await client.connect(factory)
        accepted, _ = await sent
        self.assertEqual(accepted, 1)
        [message] = delivery.messages
        self.assertEqual(message[-5000:], lines)


# Lines, bytes


class Shouting(LineReceiver):
    """
    Answers lines in capitals, then raw data as it is.
    """

    def lineReceived(self, line: bytes) -> None:
        if line == b"raw":
            self.setRawMode()
        else:
            self.sendLine(line.upper())

    def rawDataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class Listening(LineReceiver):
    """
    Collects lines, then raw data.
    """

    def __init__(self, lines: int, raw: int) -> None:
        self.wanted = lines
        self.size = raw
        self.lines: list[bytes] = []
        self.raw = bytearray()
        self.done: Deferred[None] = Deferred()

    def lineReceived(self, line: bytes) -> None:
        self.lines.append(line)
        if len(self.lines) == self.wanted:
            self.setRawMode()

    def rawDataReceived(self, data: bytes) -> None:
        self.raw += data
        if len(self.raw) == self.size:
            self.done.callback(None)


class BasicTests(Live):
    """
    L{twisted.protocols.basic} and L{twisted.protocols.portforward}
    """

    async def check(self, client: Any) -> None:
        """
        Exchange lines and raw data with L{Shouting}.
        """
        raw = os.urandom(4 * MEBIBYTE)
        listening = await connectProtocol(client, Listening(1000, len(raw)))
        for number in range(1000):
            listening.sendLine(b"line %d" % (number,))
        listening.sendLine(b"raw")
        listening.transport.write(raw)
        await listening.done
        expected = [b"LINE %d" % (number,) for number in range(1000)]
        self.assertEqual(listening.lines, expected)
        self.assertEqual(listening.raw, raw)
        listening.transport.loseConnection()

    async def test_lines(self) -> None:
        """
        Lines, and raw data after them, arrive in both directions.
        """
        await self.check(await self.serve(Factory.forProtocol(Shouting)))

    async def test_portForward(self) -> None:
        """
        A stream can be forwarded to a TCP port.
        """
        target: Any = await localServer().listen(Factory.forProtocol(Shouting))
        number = target.getHost().port
        proxy = portforward.ProxyFactory("127.0.0.1", number)
        await self.check(await self.serve(proxy))
        await target.stopListening()


for _tests in (WebTests, AMPTests, SMTPTests, BasicTests):
    _name = f"Named{_tests.__name__}"
    _body = {"__module__": __name__, "service": "any", "__doc__": _tests.__doc__}
    globals()[_name] = type(_name, (_tests,), _body)
del _tests
