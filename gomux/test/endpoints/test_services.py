"""
Tests for L{gomux.endpoints} with services: several on one port, and over one mux.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.error import CannotListenError, ConnectError, TimeoutError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from gomux import (
    Limits,
    MuxClientEndpoint,
    MuxFactory,
    MuxPort,
    MuxServerEndpoint,
    StreamClientEndpoint,
    StreamServerEndpoint,
)
from gomux.error import (
    NoRequests,
    OpenStreamError,
    PeerClosedStream,
    ServiceTimeout,
    ServiceUnknown,
)
from gomux.test.support.echo import Asking, Echo
from gomux.test.support.helpers import Recorder, Recorders
from gomux.test.support.memorycarrier import MemoryCarrier
from gomux.testing import PSK, MuxPair


class PortTests(SynchronousTestCase):
    """
    Several L{MuxServerEndpoint}s on one carrier, without a network
    """

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.carrier = TCP4ServerEndpoint(self.reactor, 7000)

    def endpoint(self, service: str | None, **settings: Any) -> MuxServerEndpoint:
        return MuxServerEndpoint(
            self.reactor, self.carrier, PSK, service=service, **settings
        )

    def listen(self, service: str | None, **settings: Any) -> tuple[MuxPort, Recorders]:
        """
        Listen for a service.
        """
        served = Recorders()
        port = self.successResultOf(self.endpoint(service, **settings).listen(served))
        return port, served

    def client(self, port: MuxPort) -> MuxPair:
        """
        Connect a mux to a port.
        """
        return MuxPair(
            clientFactory=MuxFactory(PSK, True, clock=self.reactor),
            serverFactory=port.factory,
            clock=self.reactor,
        )

    def opens(self, pair: MuxPair, service: str | None) -> Recorder | None:
        """
        @return: the client's end of a stream; C{None} if it is refused.
        """
        opened: list[Any] = []
        opening = pair.client.openStream(Recorders(), service)
        opening.addCallbacks(opened.append, lambda failure: None)
        pair.flush()
        return opened[0] if opened and opened[0].reason is None else None

    def test_onePort(self) -> None:
        """
        Endpoints with the same carrier, key and settings listen on one port.  Each
        serves the streams of its own service.
        """
        ports = {service: self.listen(service) for service in (None, "chat", "web")}
        self.assertEqual(len(self.reactor.tcpServers), 1)
        one, _ = ports[None]
        pair = self.client(one)
        for service in ports:
            self.assertIsNotNone(self.opens(pair, service))
        for service, (port, served) in ports.items():
            verifyObject(IListeningPort, port)
            self.assertEqual(port.service, service)
            self.assertIs(port.factory, one.factory)
            self.assertEqual(port.getHost(), one.getHost())
            self.assertEqual(len(served.made), 1)
        self.assertIn("'chat'", repr(ports["chat"][0]))

    def test_notShared(self) -> None:
        """
        Endpoints with another carrier, key or settings have ports of their own.
        """
        ports = [self.listen("chat")[0], self.listen("chat", greet=False)[0]]
        ports.append(self.listen("chat", limits=Limits(maxStreams=1))[0])
        self.carrier = TCP4ServerEndpoint(self.reactor, 7000)
        ports.append(self.listen("chat")[0])
        other = MuxServerEndpoint(
            self.reactor, self.carrier, "the key of another", service="chat"
        )
        ports.append(self.successResultOf(other.listen(Recorders())))
        self.assertEqual(len({id(port.factory) for port in ports}), 5)
        self.assertEqual(len(self.reactor.tcpServers), 5)

    def test_twice(self) -> None:
        """
        A service cannot be served twice.  The first goes on.  For streams without a
        service, the carrier decides, as before there were services.
        """
        port, served = self.listen("chat")
        failure = self.failureResultOf(
            self.endpoint("chat").listen(Recorders()), CannotListenError
        )
        self.assertIn("'chat'", str(failure.value))
        self.assertIsNotNone(self.opens(self.client(port), "chat"))
        first, _ = self.listen(None)
        second, _ = self.listen(None)
        self.assertIs(first.factory, port.factory)
        self.assertIsNot(second.factory, port.factory)
        self.assertEqual(len(self.reactor.tcpServers), 2)

    def test_badName(self) -> None:
        """
        A service must have a valid name.
        """
        for name in ("", "unnamed", "a b"):
            self.assertRaises(ValueError, self.endpoint, name)
            carrier = TCP4ClientEndpoint(self.reactor, "192.0.2.1", 7000)
            self.assertRaises(
                ValueError,
                MuxClientEndpoint,
                self.reactor,
                carrier,
                PSK,
                service=name,
            )
            pair = MuxPair()
            self.assertRaises(ValueError, StreamClientEndpoint, pair.client, name)
            self.assertRaises(ValueError, StreamServerEndpoint, pair.client, name)

    def test_stopOne(self) -> None:
        """
        When one port stops, its service is refused.  Its streams, the others and the
        mux go on.
        """
        ports = {service: self.listen(service) for service in (None, "chat", "web")}
        pair = self.client(ports[None][0])
        for service, (port, served) in ports.items():
            before = self.opens(pair, service)
            assert before is not None
            self.successResultOf(port.stopListening())
            self.assertIsNone(self.opens(pair, service))
            before.stream.write(b"still")
            pair.flush()
            self.assertEqual(served.made[0].received, b"still")
            self.assertIsNone(pair.client.reason)
            # A second time it does nothing.
            self.successResultOf(port.stopListening())
            port.startListening()
            self.assertIsNotNone(self.opens(pair, service))
        self.assertEqual(len(self.reactor.tcpServers), 1)

    def test_stopLast(self) -> None:
        """
        The last port that stops stops listening, and closes the muxes without streams.
        Then another endpoint can listen.
        """
        stopped = []
        listen = self.reactor.listenTCP

        def listenTCP(*args: Any, **kwargs: Any) -> Any:
            port: Any = listen(*args, **kwargs)
            port.stopListening = lambda: stopped.append(port)
            return port

        self.reactor.listenTCP = listenTCP  # type: ignore[method-assign]
        one, _ = self.listen("chat")
        two, _ = self.listen(None)
        pair = self.client(one)
        pair.flush()
        self.successResultOf(one.stopListening())
        self.assertEqual(stopped, [])
        closing = two.stopListening()
        pair.flush()
        self.successResultOf(closing)
        self.assertEqual(len(stopped), 1)
        self.assertIsNotNone(pair.client.reason)
        three, _ = self.listen("chat")
        self.assertIsNot(three.factory, one.factory)
        self.assertEqual(len(self.reactor.tcpServers), 2)

    def test_startAgain(self) -> None:
        """
        A port that has stopped can listen again, also after all have stopped, unless
        its service is served by another now.
        """
        one, chat = self.listen("chat")
        two, plain = self.listen(None)
        self.successResultOf(one.stopListening())
        three, _ = self.listen("chat")
        self.assertRaises(CannotListenError, one.startListening)
        self.successResultOf(three.stopListening())
        self.successResultOf(two.stopListening())
        one.startListening()
        pair = self.client(one)
        self.assertIsNotNone(self.opens(pair, "chat"))
        self.assertEqual(len(chat.made), 1)
        self.assertIsNone(self.opens(pair, None))
        two.startListening()
        self.assertIsNotNone(self.opens(pair, None))
        self.successResultOf(two.stopListening())
        one.stopListening()
        two.startListening()
        pair = self.client(two)
        self.assertIsNone(self.opens(pair, "chat"))
        self.assertIsNotNone(self.opens(pair, None))

    def test_startFails(self) -> None:
        """
        A port whose carrier cannot listen again does not listen.
        """
        one, _ = self.listen("chat")
        self.successResultOf(one.stopListening())

        def fail() -> None:
            raise CannotListenError("", 7000, OSError())

        port: Any = one._shared.port
        listening, port.startListening = port.startListening, fail
        self.assertRaises(CannotListenError, one.startListening)
        port.startListening = listening
        one.startListening()
        self.assertIsNotNone(self.opens(self.client(one), "chat"))

    def test_close(self) -> None:
        """
        C{close} of one port closes the streams of its service, and of the last port the
        muxes.
        """
        one, chat = self.listen("chat")
        two, plain = self.listen(None)
        pair = self.client(one)
        named, unnamed = self.opens(pair, "chat"), self.opens(pair, None)
        assert named is not None and unnamed is not None
        own = Recorders()
        pair.server.openStream(own)
        chat.made[0].stream.write(b"the last words")
        self.successResultOf(one.close())
        pair.flush()
        self.assertEqual(named.received, b"the last words")
        self.assertIsInstance(named.reason, PeerClosedStream)
        self.assertIsNone(unnamed.reason)
        closing = two.close()
        pair.flush()
        self.successResultOf(closing)
        self.assertIsNotNone(unnamed.reason)
        self.assertIsNotNone(pair.client.reason)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_factories(self) -> None:
        """
        Each factory is started when its port listens, and stopped when it stops.
        """
        one, chat = self.listen("chat")
        self.assertEqual(chat.numPorts, 0)
        one.factory.doStart()  # As a port of the real reactor does.
        two, plain = self.listen(None)
        self.assertEqual([chat.numPorts, plain.numPorts], [1, 1])
        self.successResultOf(one.stopListening())
        self.assertEqual([chat.numPorts, plain.numPorts], [0, 1])
        one.startListening()
        self.assertEqual(chat.numPorts, 1)
        self.successResultOf(two.stopListening())
        self.successResultOf(one.stopListening())
        one.factory.doStop()
        self.assertEqual([chat.numPorts, plain.numPorts], [0, 0])

    def test_factoryFails(self) -> None:
        """
        A factory that fails to start does not listen, and one that fails to stop makes
        C{stopListening} fail.
        """
        one, _ = self.listen(None)
        one.factory.doStart()

        def fail() -> None:
            raise ZeroDivisionError

        served = Recorders()
        served.doStart = fail  # type: ignore[method-assign]
        endpoint = self.endpoint("chat")
        self.failureResultOf(endpoint.listen(served), ZeroDivisionError)
        served = Recorders()
        port = self.successResultOf(endpoint.listen(served))
        served.doStop = fail  # type: ignore[method-assign]
        self.failureResultOf(port.stopListening(), ZeroDivisionError)
        self.assertIsNone(self.opens(self.client(one), "chat"))

    def test_logPrefix(self) -> None:
        """
        A port without a factory for plain streams has the prefix of its service.
        """
        one, _ = self.listen("chat")
        self.assertEqual(one.factory.logPrefix(), "Recorders (gomux)")


@implementer(IStreamServerEndpoint)
class LateCarrier:
    """
    A server endpoint that listens when the test says so.
    """

    def __init__(self) -> None:
        self.cancelled = 0
        self.results: list[Deferred[Any]] = []

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        def cancel(_: Any) -> None:
            self.cancelled += 1

        self.results.append(Deferred(cancel))
        return self.results[-1]


class LateTests(SynchronousTestCase):
    """
    Several L{MuxServerEndpoint}s on a carrier that does not listen at once
    """

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.carrier = LateCarrier()

    def listen(self, service: str | None) -> Deferred[MuxPort]:
        endpoint = MuxServerEndpoint(self.reactor, self.carrier, PSK, service=service)
        return endpoint.listen(Recorders())

    def test_together(self) -> None:
        """
        All wait for the same port.
        """
        waiting = [self.listen(None), self.listen("chat")]
        self.failureResultOf(self.listen("chat"), CannotListenError)
        self.assertEqual(len(self.carrier.results), 1)
        for opening in waiting:
            self.assertNoResult(opening)
        self.carrier.results[0].callback(object())
        one, two = map(self.successResultOf, waiting)
        self.assertIs(one.factory, two.factory)

    def test_fails(self) -> None:
        """
        All fail together.  The next attempt is a new one.
        """
        waiting = [self.listen(None), self.listen("chat")]
        self.carrier.results[0].errback(CannotListenError("", 7000, OSError()))
        for opening in waiting:
            self.failureResultOf(opening, CannotListenError)
        self.assertNoResult(self.listen("chat"))
        self.assertEqual(len(self.carrier.results), 2)

    def test_cancel(self) -> None:
        """
        One that is cancelled leaves the others.  After the last, the carrier is told.
        """
        first, second = self.listen(None), self.listen("chat")
        first.cancel()
        self.failureResultOf(first)
        self.assertEqual(self.carrier.cancelled, 0)
        second.cancel()
        self.failureResultOf(second)
        self.assertEqual(self.carrier.cancelled, 1)


class ClientTests(SynchronousTestCase):
    """
    L{MuxClientEndpoint} with a service, over carriers in memory
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.chat = Recorders()
        self.server = MuxFactory(
            PSK, False, clock=self.clock, services={"chat": self.chat}
        )
        self.carrier = MemoryCarrier(self.clock, self.server)

    def endpoint(self, **settings: Any) -> MuxClientEndpoint:
        settings = {"service": "chat", "timeout": 10, **settings}
        return MuxClientEndpoint(self.clock, self.carrier, PSK, **settings)

    def test_connect(self) -> None:
        """
        C{connect} fires once the peer has accepted the stream.
        """
        streams = Recorders()
        connecting = self.endpoint().connect(streams)
        self.assertNoResult(connecting)
        self.carrier.succeed()
        self.assertIs(self.successResultOf(connecting), streams.made[0])
        self.assertEqual(streams.made[0].stream.getPeer().service, "chat")
        self.assertEqual(len(self.chat.made), 1)
        self.clock.advance(20)
        self.assertIsNone(streams.made[0].reason)

    def test_unknown(self) -> None:
        """
        C{connect} fails if the peer does not have the service, and starts and stops the
        factory.
        """
        streams = Recorders()
        connecting = self.endpoint(service="none").connect(streams)
        self.assertEqual(streams.numPorts, 1)
        self.carrier.succeed()
        failure = self.failureResultOf(connecting, ServiceUnknown)
        self.assertIsInstance(failure.value, ConnectError)
        self.assertEqual(streams.numPorts, 0)

    def test_noMux(self) -> None:
        """
        If no mux comes up in time, C{connect} fails with the reason.
        """
        connecting = self.endpoint().connect(Recorders())
        self.carrier.refuse()
        self.clock.advance(10)
        failure = self.failureResultOf(connecting, OpenStreamError)
        self.assertIn("no mux was up within 10 seconds", str(failure.value))

    def test_wholeTime(self) -> None:
        """
        The timeout bounds the waits for the mux, the greeting and the answer together.
        """
        for seconds, kind in ((0.0, NoRequests), (1.0, ServiceTimeout)):
            connecting = self.endpoint().connect(Recorders())
            self.clock.advance(7)
            pair = MuxPair(
                clientFactory=self.carrier.attempts[0][0],
                serverFactory=self.server,
                clock=self.clock,
                latency=seconds,
            )
            self.carrier.attempts.pop(0)[1].callback(pair.client)
            if not seconds:
                pair.serverToClient.stall()
            pair.advance(2.9)
            self.assertNoResult(connecting)
            # The answer would be there after 4 seconds.
            pair.advance(0.2)
            self.failureResultOf(connecting, kind)
            pair.client.abort()
            pair.advance(2)

    def test_stalledAnswer(self) -> None:
        """
        If the peer does not answer in time, C{connect} fails, and the stream is
        aborted.
        """
        endpoint = self.endpoint(timeout=3)
        first = endpoint.connect(Recorders())
        pair = self.carrier.succeed()
        self.successResultOf(first)
        pair.serverToClient.stall()
        streams = Recorders()
        connecting = endpoint.connect(streams)
        pair.flush()
        self.clock.advance(2.9)
        self.assertNoResult(connecting)
        self.clock.advance(0.2)
        failure = self.failureResultOf(connecting, ServiceTimeout)
        self.assertIsInstance(failure.value, TimeoutError)
        self.assertIn("chat (no answer within 3 seconds)", str(failure.value))
        pair.serverToClient.unstall()
        pair.flush()
        self.assertEqual(streams.made, [])
        self.assertEqual(pair.client.streamCount, 1)

    def test_goPeer(self) -> None:
        """
        With a peer that sends nothing by itself, C{connect} fails once the greeting is
        late, and the mux is closed when it has been idle.
        """
        self.server.greet = False
        connecting = self.endpoint(idleTimeout=20).connect(Recorders())
        pair = self.carrier.succeed()
        self.clock.advance(4.9)
        self.assertNoResult(connecting)
        self.clock.advance(0.2)
        self.failureResultOf(connecting, NoRequests)
        self.clock.advance(20)
        pair.flush()
        self.assertIsNotNone(pair.client.reason)
        self.assertEqual(self.carrier.attempts, [])

    def test_shortIdle(self) -> None:
        """
        A mux is not idle while a stream waits for its greeting.
        """
        self.server.greet = False
        endpoint = self.endpoint(idleTimeout=1)
        connecting = endpoint.connect(Recorders())
        pair = self.carrier.succeed()
        self.clock.advance(3)
        self.assertNoResult(connecting)
        self.assertIsNone(pair.client.reason)
        self.clock.advance(3)
        self.failureResultOf(connecting, NoRequests)
        self.clock.advance(1)
        pair.flush()
        self.assertIsNotNone(pair.client.reason)

    def test_greetOff(self) -> None:
        """
        With C{greet=False}, C{connect} fails at once.
        """
        connecting = self.endpoint(greet=False).connect(Recorders())
        self.failureResultOf(connecting, NoRequests)
        self.assertEqual(self.carrier.attempts, [])

    def test_strict(self) -> None:
        """
        In strict mode C{greet} does not matter.
        """
        self.server.strict = True
        self.server.salts = type(self.server.salts)()
        connecting = self.endpoint(greet=False, strict=True).connect(Recorders())
        self.carrier.succeed()
        self.successResultOf(connecting)

    def test_cancel(self) -> None:
        """
        C{connect} can be cancelled while it waits for the mux or the answer.
        """
        endpoint = self.endpoint()
        connecting = endpoint.connect(Recorders())
        connecting.cancel()
        self.failureResultOf(connecting)
        self.assertEqual(self.carrier.cancelled, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nextMux(self) -> None:
        """
        A stream whose mux is lost before the greeting goes over the next mux.
        """
        self.server.greet = False
        connecting = self.endpoint().connect(Recorders())
        self.carrier.succeed().loseCarrier()
        self.clock.pump([0.0, 1.0])
        self.assertNoResult(connecting)
        self.server.greet = True
        self.clock.advance(3)
        self.carrier.succeed()
        self.successResultOf(connecting)


class StreamEndpointTests(SynchronousTestCase):
    """
    L{StreamClientEndpoint} and L{StreamServerEndpoint} with a service
    """

    def check(self, pair: MuxPair, listening: Any) -> None:
        served, plain = Recorders(), Recorders()
        endpoint = StreamServerEndpoint(listening, "chat")
        port = self.successResultOf(endpoint.listen(served))
        self.failureResultOf(endpoint.listen(served), CannotListenError)
        other = StreamServerEndpoint(listening)
        self.successResultOf(other.listen(plain))
        client = StreamClientEndpoint(pair.client, "chat")
        opening = client.connect(Recorders())
        pair.flush()
        self.successResultOf(opening)
        self.assertEqual((len(served.made), len(plain.made)), (1, 0))
        self.assertEqual(served.numPorts, 1)
        self.successResultOf(port.stopListening())
        self.assertEqual(served.numPorts, 0)
        opening = client.connect(Recorders())
        pair.flush()
        self.failureResultOf(opening, ServiceUnknown)
        port.startListening()
        opening = client.connect(Recorders())
        pair.flush()
        self.successResultOf(opening)
        self.assertEqual(len(served.made), 2)

    def test_mux(self) -> None:
        """
        A service can be served over one mux.
        """
        pair = MuxPair()
        self.check(pair, pair.server)

    def test_factory(self) -> None:
        """
        A service can be served over all muxes of a factory.
        """
        pair = MuxPair()
        self.check(pair, pair.serverFactory)


class LiveTests(TestCase):
    """
    Services over TCP
    """

    def setUp(self) -> None:
        self.ports: list[Any] = []
        self.endpoints: list[Any] = []

    async def finish(self) -> None:
        for endpoint in self.endpoints:
            await endpoint.close()
        for port in self.ports:
            await port.close()

    async def ask(self, endpoint: Any) -> bytes:
        asking: Any = await endpoint.connect(Factory.forProtocol(Asking))
        answer: bytes = await asking.answer
        return answer

    async def test_objects(self) -> None:
        """
        Two services and unnamed streams work on one port, over one mux each.
        """
        carrier = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        for service in (None, "a", "b"):
            endpoint = MuxServerEndpoint(reactor, carrier, PSK, service=service)
            port = await endpoint.listen(Factory.forProtocol(Echo))
            self.ports.append(port)
        numbers = {port.getHost().port for port in self.ports}
        self.assertEqual(len(numbers), 1)
        client = TCP4ClientEndpoint(reactor, "127.0.0.1", numbers.pop())
        for service in (None, "a", "b"):
            asking = MuxClientEndpoint(reactor, client, PSK, service=service)
            self.endpoints.append(asking)
            self.assertEqual(await self.ask(asking), b"hello")
        # The first to stop does not close the port, the last does.
        for port in self.ports:
            self.assertIsNotNone(port.factory.numPorts)
            await port.stopListening()
        await self.finish()
        refused = MuxClientEndpoint(reactor, client, PSK, service="a", timeout=0.1)
        await self.assertFailure(self.connects(refused), OpenStreamError)

    def connects(self, endpoint: Any) -> Deferred[Any]:
        return maybeDeferred(endpoint.connect, Factory.forProtocol(Asking))

    async def test_strings(self) -> None:
        """
        Server strings share a port, and client strings a mux.
        """
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(PSK)
        os.chmod(path, 0o600)
        text = f"gomux:tcp:0:interface=127.0.0.1:pskFile={path}"
        for string in (text, f"{text}:service=a", f"{text}:service=b"):
            endpoint: Any = serverFromString(reactor, string)
            self.ports.append(await endpoint.listen(Factory.forProtocol(Echo)))
        number = self.ports[0].getHost().port
        text = f"gomux:tcp:127.0.0.1:{number}:pskFile={path}"
        for string in (text, f"{text}:service=a", f"{text}:service=b:timeout=7"):
            endpoint = clientFromString(reactor, string)
            self.endpoints.append(endpoint)
            self.assertEqual(await self.ask(endpoint), b"hello")
        self.assertEqual(len(self.ports[0].factory.muxes), 1)
        unknown = clientFromString(reactor, f"{text}:service=c")
        await self.assertFailure(self.connects(unknown), ServiceUnknown)
        await self.finish()
        await deferLater(reactor, 0)
