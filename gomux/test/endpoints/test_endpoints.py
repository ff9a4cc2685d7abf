# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux.endpoints}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import (
    CannotListenError,
    ConnectError,
    ConnectionDone,
    NoProtocol,
)
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorCore,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from gomux import (
    Limits,
    MuxClientEndpoint,
    MuxFactory,
    MuxServerEndpoint,
    StreamClientEndpoint,
    StreamServerEndpoint,
)
from gomux._wire.salts import Salts
from gomux.error import (
    ConnectionClosed,
    OpenStreamError,
    PeerClosedConnection,
    Truncated,
)
from gomux.test.support.echo import Asking, Echo
from gomux.test.support.helpers import Recorder, Recorders
from gomux.test.support.memorycarrier import MemoryCarrier
from gomux.testing import PSK, MuxPair


class ClientTests(SynchronousTestCase):
    """
    L{MuxClientEndpoint} over carriers in memory
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.served = Recorders()
        self.server = MuxFactory(PSK, False, self.served, clock=self.clock)
        self.carrier = MemoryCarrier(self.clock, self.server)
        self.endpoint = MuxClientEndpoint(self.clock, self.carrier, PSK)

    def connect(self) -> tuple[Deferred[Any], Recorders]:
        streams = Recorders()
        return self.endpoint.connect(streams), streams

    def connected(self) -> Recorder:
        """
        Connect, and let the carrier connect at once.
        """
        connecting, _ = self.connect()
        if self.carrier.attempts:
            self.carrier.succeed()
        self.clock.advance(0)
        recorder: Recorder = self.successResultOf(connecting)
        return recorder

    def test_interface(self) -> None:
        """
        A L{MuxClientEndpoint} provides L{IStreamClientEndpoint}.
        """
        verifyObject(IStreamClientEndpoint, self.endpoint)

    def test_lazy(self) -> None:
        """
        Before the first C{connect} there is no mux and no delayed call.
        """
        self.assertEqual(self.carrier.attempts, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_connect(self) -> None:
        """
        A connection is a stream of the mux that was dialled for it.
        """
        connecting, streams = self.connect()
        self.assertNoResult(connecting)
        self.carrier.succeed()
        self.assertIs(self.successResultOf(connecting), streams.made[0])
        [served] = self.served.made
        streams.made[0].stream.write(b"hello")
        self.clock.advance(0)
        self.assertEqual(served.received, b"hello")

    def test_shared(self) -> None:
        """
        All connections share one mux, also those that began before it was connected.
        """
        waiting = [self.connect()[0] for _ in range(3)]
        self.assertEqual(len(self.carrier.attempts), 1)
        self.carrier.succeed()
        streams = [self.successResultOf(one).stream for one in waiting]
        streams.append(self.connected().stream)
        self.assertEqual([stream.streamID for stream in streams], [0, 2, 4, 6])
        self.assertEqual(len(self.carrier.pairs), 1)

    def test_tryAgain(self) -> None:
        """
        While a C{connect} waits, the carrier is tried again after longer and longer
        pauses.
        """
        connecting, _ = self.connect()
        for failures in range(1, 4):
            self.carrier.refuse()
            self.assertEqual(self.carrier.attempts, [])
            longest = 0.25 * 2 ** (failures - 1)
            self.clock.advance(0.19 * longest)
            self.assertEqual(self.carrier.attempts, [])
            self.clock.advance(0.81 * longest)
            self.assertEqual(len(self.carrier.attempts), 1)
        self.carrier.succeed()
        self.successResultOf(connecting)

    def test_timeout(self) -> None:
        """
        A C{connect} that times out fails with the time it waited and the reason.  Once
        no C{connect} waits, dialling stops.
        """
        connecting, _ = self.connect()
        self.carrier.refuse()
        self.clock.pump([1] * 30)
        error = self.failureResultOf(connecting, OpenStreamError).value
        self.assertIsInstance(error, ConnectError)
        self.assertIn("within 30 seconds", str(error))
        self.assertIn("Connection was refused by other side", str(error))
        self.assertEqual(self.carrier.attempts, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ownTimeout(self) -> None:
        """
        The application can set the timeout.
        """
        self.endpoint = MuxClientEndpoint(self.clock, self.carrier, PSK, timeout=2)
        connecting, _ = self.connect()
        self.clock.advance(1.9)
        self.assertNoResult(connecting)
        self.clock.advance(0.1)
        self.failureResultOf(connecting, OpenStreamError)

    def test_wrongKey(self) -> None:
        """
        A client with the wrong key gets an error that says so.
        """
        self.endpoint = MuxClientEndpoint(
            self.clock, self.carrier, "another key", strict=True, salts=Salts()
        )
        self.server.strict, self.server.salts = True, Salts()
        connecting, _ = self.connect()
        self.carrier.succeed()
        for _ in range(60):
            self.clock.advance(0.5)
            if self.carrier.attempts:
                self.carrier.succeed()
        error = self.failureResultOf(connecting, OpenStreamError).value
        self.assertIn("wrong pre-shared key", str(error))
        # It did not try again without pauses.
        self.assertLess(len(self.carrier.pairs), 12)

    def test_wrongKeyLater(self) -> None:
        """
        Without strict mode a stream opens before a wrong key shows.  An application
        that reconnects whenever it loses that stream does not make the carrier be
        dialled more often.
        """
        self.endpoint = MuxClientEndpoint(self.clock, self.carrier, "another key")
        for _ in range(10):
            connecting, _ = self.connect()
            while not connecting.called:
                self.clock.advance(0.1)
                if self.carrier.attempts:
                    self.carrier.succeed()
            self.successResultOf(connecting)
            self.clock.advance(0.1)
        self.assertGreater(self.clock.seconds(), 15)

    def test_strict(self) -> None:
        """
        In strict mode a stream waits until the peer has shown that it holds the key.
        Meanwhile no second carrier is connected.
        """
        self.endpoint = MuxClientEndpoint(
            self.clock, self.carrier, PSK, strict=True, salts=Salts()
        )
        self.server.strict, self.server.salts = True, Salts()
        first, _ = self.connect()
        factory, attempt = self.carrier.attempts[0]
        pair = MuxPair(
            clientFactory=factory, serverFactory=self.server, clock=self.clock
        )
        attempt.callback(pair.client)
        self.assertNoResult(first)
        second, _ = self.connect()
        self.assertEqual(len(self.carrier.attempts), 1)
        pair.flush()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_cancel(self) -> None:
        """
        A C{connect} that waits can be cancelled.  When the last one is cancelled, the
        attempt is given up.
        """
        first, _ = self.connect()
        second, _ = self.connect()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.carrier.cancelled, 0)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.carrier.cancelled, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelBetweenAttempts(self) -> None:
        """
        A C{connect} can also be cancelled between two attempts.
        """
        connecting, _ = self.connect()
        self.carrier.refuse()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_connectsAfterCancel(self) -> None:
        """
        After a cancelled C{connect}, the next C{connect} makes a new attempt.
        """
        self.connect()[0].addErrback(lambda _: None).cancel()
        self.connected()

    def test_lost(self) -> None:
        """
        When the mux is lost, its streams are lost too, and the next C{connect} dials
        another mux.
        """
        stream = self.connected()
        self.carrier.pairs[0].serverCarrier.abortConnection()
        self.clock.advance(0)
        self.assertIsInstance(stream.reason, Truncated)
        self.assertEqual(self.carrier.attempts, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.connected().stream.streamID, 0)
        self.assertEqual(len(self.carrier.pairs), 2)

    def test_idle(self) -> None:
        """
        A mux without streams is closed after the idle timeout.
        """
        self.connected().stream.loseConnection()
        self.clock.advance(0)
        [pair] = self.carrier.pairs
        closed = pair.server.whenClosed()
        self.clock.advance(59.9)
        self.assertNoResult(closed)
        self.clock.advance(0.1)
        pair.flush()
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_notIdle(self) -> None:
        """
        The idle timeout does not run while there are streams, and starts afresh after
        the last of them.
        """
        first = self.connected()
        self.clock.advance(100)
        second = self.connected()
        first.stream.loseConnection()
        self.clock.advance(100)
        second.stream.loseConnection()
        self.clock.advance(0)
        self.clock.advance(50)
        self.connected().stream.loseConnection()
        self.clock.advance(0)
        self.clock.advance(50)
        self.connected()
        self.assertEqual(len(self.carrier.pairs), 1)

    def test_whileClosing(self) -> None:
        """
        A C{connect} made while the mux is being closed dials another mux at once.
        """
        self.connected().stream.loseConnection()
        self.clock.advance(0)
        self.carrier.pairs[0].clientToServer.stall()
        self.clock.advance(60)
        connecting, _ = self.connect()
        self.carrier.succeed()
        self.successResultOf(connecting)
        self.assertEqual(len(self.carrier.pairs), 2)

    def test_close(self) -> None:
        """
        C{close} closes the mux once all output is sent, and fails the C{connect} calls
        that wait.  The endpoint can be used again.
        """
        stream = self.connected()
        stream.stream.write(b"the last words")
        closing = self.endpoint.close()
        self.clock.advance(0)
        self.successResultOf(closing)
        self.assertEqual(self.served.made[0].received, b"the last words")
        self.assertIsInstance(stream.reason, ConnectionClosed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        waiting, _ = self.connect()
        self.successResultOf(self.endpoint.close())
        error = self.failureResultOf(waiting, OpenStreamError).value
        self.assertIn("the endpoint was closed", str(error))
        self.assertEqual(self.carrier.cancelled, 1)
        self.connected()

    def test_factory(self) -> None:
        """
        A factory is started before it has a connection, and stopped after its last
        connection.
        """
        factory = Starting()
        connecting = self.endpoint.connect(factory)
        self.assertEqual(factory.events, ["start"])
        self.carrier.succeed()
        again = self.endpoint.connect(factory)
        first: Any = self.successResultOf(connecting)
        second: Any = self.successResultOf(again)
        first.transport.loseConnection()
        self.clock.advance(0)
        self.assertEqual(factory.events, ["start"])
        second.transport.loseConnection()
        self.clock.advance(0)
        self.assertEqual(factory.events, ["start", "stop"])

    def test_factoryNotConnected(self) -> None:
        """
        A factory is stopped if no connection is made.
        """
        factory = Starting()
        connecting = self.endpoint.connect(factory)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual(factory.events, ["start", "stop"])

    def test_noProtocol(self) -> None:
        """
        If C{buildProtocol} returns C{None}, C{connect} fails, and the mux stays up.
        """

        class NoFactory(Factory):
            def buildProtocol(self, addr: object) -> None:
                return None

        self.connected()
        self.failureResultOf(self.endpoint.connect(NoFactory()), NoProtocol)
        self.connected()
        self.assertEqual(len(self.carrier.pairs), 1)

    def test_emptyKey(self) -> None:
        """
        An empty key is refused at once.
        """
        self.assertRaises(ValueError, MuxClientEndpoint, self.clock, self.carrier, "")
        self.assertRaises(ValueError, MuxServerEndpoint, self.clock, self.carrier, "")

    def test_reactorStops(self) -> None:
        """
        When the reactor stops, the muxes are closed, with their streams, and the
        reactor waits for that.
        """
        clock = StoppingClock()
        self.clock = clock
        self.server = MuxFactory(PSK, False, self.served, clock=clock)
        self.carrier = MemoryCarrier(clock, self.server)
        self.endpoint = MuxClientEndpoint(clock, self.carrier, PSK)
        here = self.connected()
        here.stream.write(b"the last")
        there = self.served.made[0]
        self.assertEqual(len(clock.triggers), 2)
        stopping = clock.triggers.pop(2)()
        self.assertNoResult(stopping)
        for _ in range(10):
            clock.advance(0)
        self.successResultOf(stopping)
        self.assertEqual(clock.triggers, {})
        self.assertEqual(there.received, b"the last")
        for recorder in (here, there):
            self.assertIsInstance(recorder.reason, ConnectionDone)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_noMuxes(self) -> None:
        """
        The reactor keeps nothing of muxes that are gone, nor of those that the owner
        of their factory closes.
        """
        clock = StoppingClock()
        self.clock = clock
        self.server = MuxFactory(PSK, False, self.served, clock=clock)
        self.server.closesAtShutdown = False
        self.carrier = MemoryCarrier(clock, self.server)
        self.endpoint = MuxClientEndpoint(clock, self.carrier, PSK)
        self.connected().stream.loseConnection()
        clock.advance(0)
        self.assertEqual(len(clock.triggers), 1)
        clock.advance(60)
        for _ in range(10):
            clock.advance(0)
        self.assertEqual(self.server.muxes, [])
        self.assertEqual(clock.triggers, {})


class Starting(Factory):
    """
    Records when it is started and stopped.
    """

    protocol = Protocol
    noisy = False

    def __init__(self) -> None:
        self.events: list[str] = []

    def startFactory(self) -> None:
        self.events.append("start")

    def stopFactory(self) -> None:
        self.events.append("stop")


class StoppingClock(Clock):
    """
    A clock with as much of L{IReactorCore} as L{MuxClientEndpoint} needs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.triggers: dict[int, Any] = {}
        directlyProvides(self, IReactorCore)

    def addSystemEventTrigger(self, phase: str, eventType: str, trigger: Any) -> int:
        number = len(self.triggers) + 1
        self.triggers[number] = trigger
        return number

    def removeSystemEventTrigger(self, number: int) -> None:
        del self.triggers[number]


class ServerTests(SynchronousTestCase):
    """
    L{MuxServerEndpoint}, without a network
    """

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.endpoint = MuxServerEndpoint(
            self.reactor, TCP4ServerEndpoint(self.reactor, 7000), PSK
        )
        self.streams = Recorders()
        self.port = self.successResultOf(self.endpoint.listen(self.streams))

    def client(self) -> MuxPair:
        """
        Connect a mux.
        """
        return MuxPair(
            clientFactory=MuxFactory(PSK, True, clock=self.reactor),
            serverFactory=self.port.factory,
            clock=self.reactor,
        )

    def test_interfaces(self) -> None:
        """
        The endpoint and its port provide their interfaces.
        """
        verifyObject(IStreamServerEndpoint, self.endpoint)
        verifyObject(IListeningPort, self.port)

    def test_listen(self) -> None:
        """
        Each stream gets a protocol from the factory that listens.
        """
        pair = self.client()
        client = Recorders()
        pair.client.openStream(client)
        pair.flush()
        client.made[0].stream.write(b"hello")
        pair.flush()
        self.assertEqual(self.streams.made[0].received, b"hello")

    def test_getHost(self) -> None:
        """
        The port's address is the carrier's.
        """
        self.assertEqual(getattr(self.port.getHost(), "port", None), 7000)

    def test_stopListening(self) -> None:
        """
        A port that has stopped serves no new streams.  A mux without streams is closed
        at once, and any other mux when its last stream ends.
        """
        idle, busy, silent = self.client(), self.client(), self.client()
        busyStreams = Recorders()
        busy.client.openStream(busyStreams)
        idle.flush()
        busy.flush()
        gone = [pair.client.whenClosed() for pair in (idle, silent)]
        stopped = self.port.stopListening()
        late = Recorders()
        busy.client.openStream(late)
        for pair in (idle, busy, silent):
            pair.flush()
        self.successResultOf(stopped)
        for closed in gone:
            self.successResultOf(closed)
        self.assertEqual(len(self.streams.made), 1)
        self.assertIsNotNone(late.made[0].reason)
        closed = busy.client.whenClosed()
        busyStreams.made[0].stream.write(b"still there")
        busy.flush()
        self.assertEqual(self.streams.made[0].received, b"still there")
        self.assertNoResult(closed)
        busyStreams.made[0].stream.loseConnection()
        busy.flush()
        self.successResultOf(closed)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_comesUpStopped(self) -> None:
        """
        A mux that comes up after the port has stopped is closed in good order, and one
        that is accepted after the port has started again is not.
        """
        for stop in (self.port.stopListening, self.port.close):
            before = self.client()
            stopped = stop()
            after = self.client()
            for pair in (before, after):
                pair.flush()
                self.assertIsInstance(pair.client.reason, PeerClosedConnection)
            self.successResultOf(stopped)
            self.port.startListening()
        pair = self.client()
        pair.flush()
        self.assertTrue(pair.client.canOpen)

    def test_close(self) -> None:
        """
        C{close} of a port ends the streams too.
        """
        pair = self.client()
        client = Recorders()
        pair.client.openStream(client)
        pair.flush()
        self.streams.made[0].stream.write(b"the last words")
        closed = self.port.close()
        pair.flush()
        self.successResultOf(closed)
        self.assertEqual(client.made[0].received, b"the last words")
        self.assertIsInstance(self.streams.made[0].reason, ConnectionClosed)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_factory(self) -> None:
        """
        The protocol factory starts and stops together with the carrier's factory.
        """
        factory = Starting()
        port = self.successResultOf(self.endpoint.listen(factory))
        port.factory.doStart()
        self.assertEqual(factory.events, ["start"])
        port.factory.doStop()
        self.assertEqual(factory.events, ["start", "stop"])

    def test_limits(self) -> None:
        """
        The application can set the limits.
        """
        endpoint = MuxServerEndpoint(
            self.reactor,
            TCP4ServerEndpoint(self.reactor, 7001),
            PSK,
            limits=Limits(maxStreams=1),
        )
        self.port = self.successResultOf(endpoint.listen(self.streams))
        pair = self.client()
        clients = Recorders()
        pair.client.openStream(clients)
        pair.client.openStream(clients)
        pair.flush()
        self.assertEqual(len(self.streams.made), 1)
        self.assertIsNotNone(clients.made[1].reason)


class StreamEndpointTests(SynchronousTestCase):
    """
    L{StreamClientEndpoint} and L{StreamServerEndpoint}
    """

    def setUp(self) -> None:
        self.pair = MuxPair()
        self.pair.flush()

    def check(self, listening: Any, connecting: Any) -> None:
        """
        Check that streams opened on one side reach the other.
        """
        served = Recorders()
        server = StreamServerEndpoint(listening)
        verifyObject(IStreamServerEndpoint, server)
        port = self.successResultOf(server.listen(served))
        verifyObject(IListeningPort, port)
        client = StreamClientEndpoint(connecting)
        verifyObject(IStreamClientEndpoint, client)
        streams = Recorders()
        one: Any = self.successResultOf(client.connect(streams))
        self.pair.flush()
        one.stream.write(b"hello")
        self.pair.flush()
        self.assertEqual(served.made[0].received, b"hello")
        self.successResultOf(port.stopListening())
        client.connect(streams)
        self.pair.flush()
        self.assertEqual(len(served.made), 1)
        self.assertIsNone(served.made[0].reason)
        port.startListening()
        client.connect(streams)
        self.pair.flush()
        self.assertEqual(len(served.made), 2)

    def test_clientListens(self) -> None:
        """
        The side that connected the carrier can listen.
        """
        self.check(self.pair.client, self.pair.server)

    def test_serverListens(self) -> None:
        """
        The side that accepted the carrier can listen too.
        """
        self.check(self.pair.server, self.pair.client)

    def test_factories(self) -> None:
        """
        Endpoints over a factory listen and connect on all of its muxes.
        """
        self.check(self.pair.clientFactory, self.pair.serverFactory.pool)
        self.check(self.pair.serverFactory, self.pair.clientFactory.pool)

    def test_oneFactory(self) -> None:
        """
        A mux, or a factory of muxes, takes only one factory for its streams, and starts
        and stops it.
        """
        for mux in (self.pair.server, self.pair.serverFactory):
            endpoint = StreamServerEndpoint(mux)
            factory = Starting()
            port = self.successResultOf(endpoint.listen(factory))
            self.assertEqual(factory.events, ["start"])
            error = self.failureResultOf(
                endpoint.listen(Starting()), CannotListenError
            ).value
            self.assertIn("its streams are served already", str(error))
            self.successResultOf(port.stopListening())
            self.successResultOf(port.stopListening())
            self.assertEqual(factory.events, ["start", "stop"])

    def test_getHost(self) -> None:
        """
        The address of a port is that of the carrier.
        """
        host = self.pair.server.getCarrier().getHost()
        for mux in (self.pair.server, self.pair.serverFactory):
            port = self.successResultOf(StreamServerEndpoint(mux).listen(Starting()))
            self.assertEqual(port.getHost(), host)
        factory = MuxFactory(PSK, False, clock=Clock())
        port = self.successResultOf(StreamServerEndpoint(factory).listen(Starting()))
        self.assertRaises(ValueError, port.getHost)


class TCPTests(TestCase):
    """
    The endpoints over TCP
    """

    async def test_roundTrip(self) -> None:
        """
        An echo works, also over a second mux after the first is closed.  After the port
        and the endpoint are closed, no connection or delayed call is left.
        """
        carrier: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await MuxServerEndpoint(reactor, carrier, PSK).listen(
            Factory.forProtocol(Echo)
        )
        number = port.getHost().port  # type: ignore[attr-defined]
        client = MuxClientEndpoint(
            reactor, TCP4ClientEndpoint(reactor, "127.0.0.1", number), PSK
        )
        for _ in range(2):
            asked: Any = await client.connect(Factory.forProtocol(Asking))
            self.assertEqual(await asked.answer, b"hello")
            # The next stream needs another mux.
            await client.close()
        await port.stopListening()

    async def test_refused(self) -> None:
        """
        If no server listens, C{connect} fails with an error that says so.
        """
        port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory()
        )
        number = port.getHost().port
        await port.stopListening()
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", number)
        client = MuxClientEndpoint(reactor, carrier, PSK, timeout=0.05)
        error = await self.assertFailure(
            client.connect(Factory.forProtocol(Asking)), OpenStreamError
        )
        self.assertIn("Connection was refused", str(error))
