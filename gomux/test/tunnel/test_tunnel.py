"""
Tests for L{gomux.tunnel}: connections that continue as streams, and streams
that continue as connections.
"""

from __future__ import annotations

import select
import socket
import struct
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IProtocolFactory,
    IPushProducer,
    ISSLTransport,
)
from twisted.internet.task import Clock
from twisted.internet.tcp import Port, Server
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import (
    Logger,
    LogLevel,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides, providedBy
from zope.interface.verify import verifyObject

from gomux import MuxFactory, StreamAddress
from gomux._mux.log import ThrottledLog, describeAddress, printable
from gomux._mux.pool import MuxPool
from gomux._wire.shares import Shares
from gomux._wire.window import INITIAL_WINDOW
from gomux.limits import (
    ACCEPT_QUEUE,
    LINE_EVERY,
    LINES_BURST,
    TEXT_LENGTH,
    TunnelLimits,
)
from gomux.test.support.helpers import HalfRecorder, Recorder, Recorders
from gomux.test.support.kernel import Kernel
from gomux.test.support.logs import Lines
from gomux.test.support.tunnelrig import HERE, THERE, Rig
from gomux.testing import PSK, MuxPair
from gomux.testing._memory import Carrier
from gomux.testing._pair import connect
from gomux.tunnel._bridge import Bridge
from gomux.tunnel._end import DROPPED_SIZE, Input
from gomux.tunnel._tunnel import forward


class TransferTests(SynchronousTestCase):
    """
    How the tunnel carries data, half-closes, closes and resets between its two ends.
    """

    def setUp(self) -> None:
        self.rig = Rig(self)
        self.client, self.clientSide = self.rig.open()
        self.server = self.rig.target.made[0]
        self.serverSide = self.rig.target.carriers[0][1]

    def assertOver(self) -> None:
        """
        Assert that both ends of the connection are gone.
        """
        self.assertEqual(self.rig.here.bridges, set())
        self.assertEqual(self.rig.there.bridges, set())
        self.assertEqual(self.rig.pair.client.streamCount, 0)
        self.assertEqual(self.rig.pair.server.streamCount, 0)

    def test_data(self) -> None:
        """
        Data arrives, in both directions.
        """
        self.clientSide.write(b"ping")
        self.serverSide.write(b"pong")
        self.rig.flush()
        self.assertEqual(
            (self.server.received, self.client.received), (b"ping", b"pong")
        )

    def test_tcpOptions(self) -> None:
        """
        The tunnel's TCP connections use keepalive probes and no Nagle delay.
        """
        tunnelSide = self.rig.target.carriers[0][0]
        self.assertTrue(tunnelSide.noDelay)
        self.assertTrue(tunnelSide.keepAlive)

    def test_clientHalfCloses(self) -> None:
        """
        A half-close by the client reaches the target, which can still answer.
        """
        self.clientSide.write(b"ping" * 100000)
        self.clientSide.loseWriteConnection()
        self.rig.flush()
        self.assertEqual(self.server.events, ["made", "data", "readLost"])
        self.assertEqual(len(self.server.received), 400000)
        self.serverSide.write(b"pong" * 100000)
        self.serverSide.loseConnection()
        self.rig.flush()
        self.assertEqual(self.client.events, ["made", "writeLost", "data", "readLost"])
        self.assertEqual(len(self.client.received), 400000)
        self.clientSide.loseConnection()
        self.rig.flush()
        self.assertIsInstance(self.client.reason, ConnectionDone)
        self.assertIsInstance(self.server.reason, ConnectionDone)
        self.assertOver()
        self.assertEqual(self.rig.logged, [])

    def test_targetHalfCloses(self) -> None:
        """
        A half-close by the target reaches the client, which can still send.
        """
        self.serverSide.write(b"pong")
        self.serverSide.loseWriteConnection()
        self.rig.flush()
        self.assertEqual(self.client.events, ["made", "data", "readLost"])
        self.clientSide.write(b"ping")
        self.clientSide.loseConnection()
        self.rig.flush()
        self.assertEqual(self.server.events, ["made", "writeLost", "data", "readLost"])
        self.serverSide.loseConnection()
        self.rig.flush()
        self.assertOver()
        self.assertEqual(self.rig.logged, [])

    def test_clientResets(self) -> None:
        """
        A connection that the client resets is reset at the target.
        """
        self.clientSide.write(b"some of it")
        self.rig.flush()
        self.clientSide.abortConnection()
        self.rig.flush()
        self.assertEqual(self.server.events, ["made", "data", "lost"])
        self.assertIsInstance(self.server.reason, ConnectionLost)
        self.assertOver()

    def test_targetResets(self) -> None:
        """
        A connection that the target resets is reset at the client, and the logs say
        why.
        """
        self.serverSide.write(b"some of it")
        self.rig.flush()
        self.serverSide.abortConnection()
        self.rig.flush()
        self.assertEqual(self.client.events, ["made", "data", "lost"])
        self.assertIsInstance(self.client.reason, ConnectionLost)
        self.assertOver()
        self.assertEqual(len(self.rig.logged), 2)
        self.assertIn("the target: stream 0 of 192.0.2.1:49152", self.rig.logged[0])
        self.assertIn("the forward: 192.0.2.3:50000", self.rig.logged[1])

    def test_oneEachTurn(self) -> None:
        """
        A port accepts one connection for a tunnel in each turn of the reactor, also if
        that is refused.
        """
        for refuses in (False, True):
            if refuses:
                self.rig.here._shares["connections"] = Shares(0)
            near = self.rig.here.buildProtocol(HERE)
            assert near is not None
            reactor = MemoryReactorClock()
            port = Port(0, self.rig.here, backlog=ACCEPT_QUEUE, reactor=reactor)
            port.numberAccepts = 10
            client = ("192.0.2.1", 49152)
            near.makeConnection(Server(Kernel(), near, client, port, 0, reactor))  # type: ignore[arg-type]
            self.assertEqual(port.numberAccepts, -1)

    def test_resetLooksLikeEnd(self) -> None:
        """
        A reset that Twisted reports as EOF is carried as a reset.  Twisted does so if
        epoll reports the error before the hang-up.
        """
        for resets in (False, True):
            listener = socket.create_server(("127.0.0.1", 0))
            self.addCleanup(listener.close)
            client = socket.create_connection(listener.getsockname())
            self.addCleanup(client.close)
            accepted, _ = listener.accept()
            self.addCleanup(accepted.close)
            end = self.rig.here.buildProtocol(HERE)
            assert end is not None
            reactor = MemoryReactorClock()
            port = Port(0, self.rig.here, backlog=ACCEPT_QUEUE, reactor=reactor)
            peer = accepted.getpeername()
            connection = Server(accepted, end, peer, port, 0, reactor)
            end.makeConnection(connection)
            self.rig.flush()
            if resets:
                linger = struct.pack("ii", 1, 0)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                client.close()
            else:
                client.shutdown(socket.SHUT_WR)
            select.select([accepted], [], [])
            # As the reactor does after EPOLLERR without EPOLLIN.
            connection.readConnectionLost(Failure(ConnectionDone()))
            reactor.advance(0)
            self.rig.flush()
            ending = "lost" if resets else "readLost"
            self.assertEqual(self.rig.target.made[-1].events, ["made", ending])
            self.assertEqual(connection.disconnected, resets)
        self.assertIsInstance(self.rig.target.made[-1].reason, ConnectionLost)
        self.assertIn("non-clean", self.rig.logged[0])
        told = [line for line in self.rig.logged if line.startswith("the forward")]
        self.assertEqual(len(told), 1, "the transport's own end is told too")

    def test_targetResetsAnswer(self) -> None:
        """
        A reset by the target is carried to a client that has closed its writing half,
        as after sending a request.
        """
        self.clientSide.write(b"request")
        self.clientSide.loseWriteConnection()
        self.rig.flush()
        self.serverSide.write(b"half of the answer")
        self.rig.flush()
        self.serverSide.abortConnection()
        self.rig.flush()
        self.assertEqual(self.client.events, ["made", "writeLost", "data", "lost"])
        self.assertIsInstance(self.client.reason, ConnectionLost)
        self.assertOver()

    def test_resetCrosses(self) -> None:
        """
        A reset by the target is carried also if it crosses the client's half-close.
        """
        self.rig.pair.clientToServer.stall()
        self.rig.pair.serverToClient.stall()
        self.clientSide.loseWriteConnection()
        self.serverSide.abortConnection()
        self.rig.flush()
        self.rig.pair.clientToServer.unstall()
        self.rig.pair.serverToClient.unstall()
        self.rig.flush()
        self.assertIsInstance(self.client.reason, ConnectionLost)
        self.assertOver()

    def test_targetResetsAfterAnswer(self) -> None:
        """
        If the target resets after its EOF, a slow client still reads the whole answer.
        """
        self.clientSide.incoming.stall()
        self.serverSide.write(bytes(130000))
        self.serverSide.loseWriteConnection()
        self.rig.flush()
        self.serverSide.abortConnection()
        self.rig.flush()
        self.clientSide.incoming.unstall()
        self.rig.flush()
        self.assertEqual(len(self.client.received), 130000)
        self.assertEqual(self.client.events[:3], ["made", "data", "readLost"])

    def test_carrierLost(self) -> None:
        """
        When the mux is lost both connections are reset.
        """
        self.rig.pair.loseCarrier()
        self.rig.flush()
        for recorder in (self.client, self.server):
            self.assertEqual(recorder.events, ["made", "lost"])
            self.assertIsInstance(recorder.reason, ConnectionLost)
        self.assertOver()

    def test_muxClosed(self) -> None:
        """
        If the mux is closed during a transfer, even in an orderly way, both connections
        are reset.
        """
        self.clientSide.write(b"request")
        self.clientSide.loseWriteConnection()
        self.serverSide.write(b"half of the answer")
        self.rig.flush()
        self.rig.pair.server.close()
        self.rig.flush()
        self.assertEqual(self.client.received, b"half of the answer")
        for recorder in (self.client, self.server):
            self.assertIsInstance(recorder.reason, ConnectionLost)
        self.assertOver()

    def test_muxClosedAfterAnswer(self) -> None:
        """
        If the mux is closed after the target's EOF, the client reads the whole answer
        and an orderly end, even if its own half is still open.
        """
        self.serverSide.write(b"answer" * 100000)
        self.serverSide.loseWriteConnection()
        self.rig.flush()
        self.rig.pair.server.close()
        self.rig.flush()
        self.assertEqual(len(self.client.received), 600000)
        self.assertEqual(self.client.events, ["made", "data", "readLost"])

    def test_tunnelAborted(self) -> None:
        """
        Aborting the tunnel resets both connections.
        """
        self.rig.here.abort()
        self.rig.flush()
        for recorder in (self.client, self.server):
            self.assertIsInstance(recorder.reason, ConnectionLost)
        self.assertOver()

    def assertBounded(self, reader: Carrier, writer: Carrier, got: Recorder) -> None:
        """
        Assert that the writer is paused while the reader does not read, and that all
        data arrives once it reads.
        """
        reader.incoming.stall()
        size = 16 * 1024 * 1024
        writer.write(bytes(size))
        self.rig.flush()
        passed = writer.outgoing.bytesDelivered
        self.assertGreater(passed, 0)
        # At most the window and the buffers between the ends.
        self.assertLess(passed, 1024 * 1024)
        reader.incoming.unstall()
        self.rig.flush()
        self.assertEqual(len(got.received), size)

    def test_targetDoesNotRead(self) -> None:
        """
        A target that does not read pauses the client.
        """
        self.assertBounded(self.serverSide, self.clientSide, self.server)

    def test_clientDoesNotRead(self) -> None:
        """
        A client that does not read pauses the target.
        """
        self.assertBounded(self.clientSide, self.serverSide, self.client)

    def test_endBehindMuch(self) -> None:
        """
        EOF does not overtake data that the other side has not read yet.
        """
        self.clientSide.incoming.stall()
        self.serverSide.write(bytes(1000000))
        self.serverSide.loseConnection()
        self.rig.flush()
        self.clientSide.incoming.unstall()
        self.rig.flush()
        self.assertEqual(len(self.client.received), 1000000)
        self.assertEqual(self.client.events, ["made", "data", "readLost"])


class ApplicationTests(SynchronousTestCase):
    """
    A tunnel whose streams go to an application, not to another tunnel.
    """

    def open(self, kind: type[Recorder] = Recorder, **hooks: Any) -> None:
        streams = Recorders(kind, **hooks)
        self.rig = Rig(self, streams)
        self.client, self.clientSide = self.rig.open()
        self.application = streams.made[0]

    def test_loseConnection(self) -> None:
        """
        Data that an application wrote before it closed its stream arrives, followed by
        an orderly end.
        """
        self.open()
        self.application.stream.write(b"all" * 100000)
        self.application.stream.loseConnection()
        self.rig.flush()
        self.assertEqual(len(self.client.received), 300000)
        self.assertEqual(self.client.events, ["made", "data", "readLost"])
        self.assertEqual(self.rig.here.bridges, set())
        self.assertEqual(self.rig.logged, [])

    def test_refusesInput(self) -> None:
        """
        If an application closes its reading half, the other half stays open.  Less than
        a window of the client's further data is read and dropped, and then the client
        has to wait.
        """
        self.open(HalfRecorder)
        self.application.stream.pauseProducing()
        self.clientSide.write(bytes(1000000))
        self.rig.flush()
        taken = self.clientSide.outgoing.bytesDelivered
        self.application.stream.loseReadConnection()
        self.rig.flush()
        more = self.clientSide.outgoing.bytesDelivered - taken
        self.assertGreaterEqual(more, DROPPED_SIZE)
        self.assertLess(more, INITIAL_WINDOW)
        self.application.stream.write(b"answer")
        self.rig.flush()
        self.assertEqual(self.client.received, b"answer")
        self.assertIs(self.client.reason, None)

    def test_refusesInputThenEnds(self) -> None:
        """
        An application that closes both halves one by one causes an orderly end.
        """
        self.open(HalfRecorder)
        self.application.stream.loseReadConnection()
        self.application.stream.write(b"answer")
        self.application.stream.loseWriteConnection()
        self.rig.flush()
        self.assertEqual(self.client.events, ["made", "data", "readLost"])
        self.assertEqual(self.rig.here.bridges, set())
        self.assertEqual(self.rig.logged, [])


class TargetTests(SynchronousTestCase):
    """
    L{target}
    """

    def setUp(self) -> None:
        self.rig = Rig(self)
        self.target = self.rig.target

    def assertRefused(self, client: Recorder, reason: str) -> None:
        self.assertIsInstance(client.reason, ConnectionLost)
        self.assertEqual(self.rig.there.bridges, set())
        self.assertEqual(self.rig.pair.server.streamCount, 0)
        self.assertIn("the target: closed stream 0", self.rig.logged[0])
        self.assertIn(reason, self.rig.logged[0])

    def test_refused(self) -> None:
        """
        If the target refuses, the stream is closed, and the log names the target.
        """
        waiting = self.target.hold()
        client, _ = self.rig.open()
        waiting.errback(ConnectionRefusedError())
        self.rig.flush()
        self.assertRefused(client, "Connection was refused")

    def test_raises(self) -> None:
        """
        If the endpoint's C{connect} raises, the stream is closed as after a refusal.
        """
        self.target.answer = ValueError("no such thing")
        client, _ = self.rig.open()
        self.assertRefused(client, "no such thing")

    def test_timeout(self) -> None:
        """
        If the target does not answer in time, the stream is closed.
        """
        cancelled: list[object] = []
        self.target.answer = Deferred(cancelled.append)
        client, _ = self.rig.open()
        self.rig.pair.advance(self.rig.limits.targetTimeout - 0.5)
        self.assertEqual((client.reason, cancelled), (None, []))
        self.rig.pair.advance(1)
        self.assertEqual(len(cancelled), 1)
        self.assertRefused(client, "30")

    def test_streamEndsFirst(self) -> None:
        """
        If the stream ends before the target is connected, the attempt is cancelled, and
        nothing is logged.
        """
        cancelled: list[object] = []
        self.target.answer = Deferred(cancelled.append)
        _, clientSide = self.rig.open()
        clientSide.abortConnection()
        self.rig.flush()
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.rig.there.bridges, set())
        self.assertEqual(self.rig.logged[1:], [])

    def test_connectedTooLate(self) -> None:
        """
        A connection that an endpoint makes despite the cancellation is aborted at once.
        """
        self.target.answer = Deferred(lambda _: None)
        _, clientSide = self.rig.open()
        clientSide.abortConnection()
        self.rig.flush()
        assert self.target.factory is not None
        self.target.connected(self.target.factory)
        self.rig.flush()
        self.assertIsInstance(self.target.made[0].reason, ConnectionLost)

    def test_waits(self) -> None:
        """
        Data and EOF that the client sends before the target is connected reach the
        target.  Meanwhile the client is paused.
        """
        waiting = self.target.hold()
        client, clientSide = self.rig.open()
        clientSide.write(bytes(2000000))
        clientSide.loseWriteConnection()
        self.rig.flush()
        self.assertLess(clientSide.outgoing.bytesDelivered, 500000)
        assert self.target.factory is not None
        waiting.callback(self.target.connected(self.target.factory))
        self.rig.flush()
        self.assertEqual(len(self.target.made[0].received), 2000000)
        self.assertEqual(self.target.made[0].events, ["made", "data", "readLost"])

    def test_finishedBefore(self) -> None:
        """
        A half that is closed before the target is connected is closed at the target
        later.
        """
        waiting = self.target.hold()
        opened = Recorders(HalfRecorder)
        self.rig.pair.client.openStream(opened)
        stream = opened.made[0].stream
        stream.loseWriteConnection()
        self.rig.flush()
        assert self.target.factory is not None
        waiting.callback(self.target.connected(self.target.factory))
        self.rig.flush()
        self.assertEqual(self.target.made[0].events, ["made", "readLost"])

    def test_refusedBefore(self) -> None:
        """
        If the reading half was closed before the target is connected, some of the
        target's data is dropped, and then the target has to wait.
        """
        waiting = self.target.hold()
        opened = Recorders(HalfRecorder)
        self.rig.pair.client.openStream(opened)
        opened.made[0].stream.loseReadConnection()
        self.rig.flush()
        assert self.target.factory is not None
        waiting.callback(self.target.connected(self.target.factory))
        side = self.target.carriers[0][1]
        side.write(bytes(1000000))
        self.rig.flush()
        self.assertGreaterEqual(side.outgoing.bytesDelivered, DROPPED_SIZE)
        self.assertLess(side.outgoing.bytesDelivered, INITIAL_WINDOW)
        self.assertEqual(opened.made[0].received, b"")

    def test_refusedThenEnds(self) -> None:
        """
        If a reader wants no more, and the target has little more to send, the end of
        that is seen: the connection is closed once the reader has no more to send.
        """
        opened = Recorders(HalfRecorder)
        self.rig.pair.client.openStream(opened)
        self.rig.flush()
        sizes: list[int] = []
        [bridge] = self.rig.there.bridges
        self.patch(bridge._far.output, "received", sizes.append)
        opened.made[0].stream.loseReadConnection()
        self.rig.flush()
        # From now on the transport reads in small pieces.
        self.assertEqual(sizes, [0])
        [(_, side)] = self.target.carriers
        side.write(bytes(DROPPED_SIZE - 1))
        side.loseWriteConnection()
        self.rig.flush()
        self.assertIs(bridge._far._input, Input.ENDED)
        opened.made[0].stream.loseWriteConnection()
        self.rig.flush()
        self.assertEqual(self.rig.there.bridges, set())
        self.assertEqual(self.rig.logged, [])

    def test_targetRefuses(self) -> None:
        """
        If a target reads no more, as a process that closes its standard input, the peer
        is told to send no more.  The target can still answer.
        """
        opened = Recorders(HalfRecorder)
        self.rig.pair.client.openStream(opened)
        self.rig.flush()
        [bridge] = self.rig.there.bridges
        bridge._far.writeConnectionLost()
        self.rig.flush()
        [recorder] = opened.made
        self.assertEqual(recorder.events, ["made", "writeLost"])
        [(_, side)] = self.target.carriers
        side.write(b"answer")
        side.loseConnection()
        self.rig.flush()
        self.assertEqual(recorder.received, b"answer")
        self.assertEqual(recorder.events[-1], "lost")
        self.assertEqual(self.rig.there.bridges, set())
        self.assertEqual(self.rig.logged, [])

    def test_tls(self) -> None:
        """
        TLS has no half-close, so a half-close closes the whole TLS connection.
        """
        waiting = self.target.hold()
        client, clientSide = self.rig.open()
        assert self.target.factory is not None
        end = self.target.connected(self.target.factory)
        tunnelSide = self.target.carriers[0][0]
        directlyProvides(tunnelSide, providedBy(tunnelSide), ISSLTransport)
        waiting.callback(end)
        clientSide.write(b"ping")
        clientSide.loseWriteConnection()
        self.rig.flush()
        self.assertEqual(self.target.made[0].received, b"ping")
        self.target.carriers[0][1].loseConnection()
        self.rig.flush()
        self.assertEqual(client.events, ["made", "writeLost", "readLost"])
        self.assertEqual(self.rig.logged, [])

    def test_dataBeforeJoined(self) -> None:
        """
        Data from a transport that delivers while paused is not lost.
        """
        end = self.rig.there.buildProtocol(HERE)
        assert end is not None
        waiting = self.target.hold()
        recorder = Recorder()
        connect(self.rig.clock, (recorder, end), (HERE, THERE), 0.0, None, 65536)
        end.dataReceived(b"early")
        assert self.target.factory is not None
        waiting.callback(self.target.connected(self.target.factory))
        self.rig.flush()
        self.assertEqual(self.target.made[0].received, b"early")


class ForwardTests(SynchronousTestCase):
    """
    L{forward}
    """

    def setUp(self) -> None:
        self.rig = Rig(self)

    def withoutMux(self) -> None:
        """
        Lose the mux, so that the pool has none.
        """
        for mux in self.rig.pool.muxes:
            mux.close()
        self.rig.flush()

    def test_waits(self) -> None:
        """
        Without a mux a connection waits, paused, for the next mux.
        """
        self.withoutMux()
        client, clientSide = self.rig.open()
        clientSide.write(b"ping")
        self.rig.flush()
        self.assertEqual(clientSide.outgoing.bytesDelivered, 0)
        pair = MuxPair(
            clientFactory=self.rig.pair.clientFactory,
            serverFactory=self.rig.pair.serverFactory,
            clock=self.rig.clock,
        )
        pair.flush()
        self.assertEqual(self.rig.target.made[0].received, b"ping")

    def test_timeout(self) -> None:
        """
        If there is no mux in time, the connection is closed, and that is logged.
        """
        self.withoutMux()
        client, _ = self.rig.open()
        self.rig.pair.advance(self.rig.limits.waitTimeout - 0.5)
        self.assertEqual(client.events, ["made"])
        self.rig.pair.advance(1)
        self.assertEqual(client.events, ["made", "lost"])
        self.assertEqual(self.rig.here.bridges, set())
        self.assertIn("the forward: closed 192.0.2.3:50000", self.rig.logged[0])
        self.assertIn("no mux was up within 30 seconds", self.rig.logged[0])

    def test_abortedWhileWaiting(self) -> None:
        """
        A connection that waits for a mux can be aborted.  No stream is opened for it.
        """
        self.withoutMux()
        client, _ = self.rig.open()
        self.rig.here.abort()
        self.rig.flush()
        self.assertEqual(client.events, ["made", "lost"])
        self.assertEqual(self.rig.pool.waiting, 0)

    def test_maxConnections(self) -> None:
        """
        Connections over the limit are reset until another connection ends: without
        that they would look like connections with an empty answer.
        """
        sides = [self.rig.open()[1] for _ in range(3)]
        refused, _ = self.rig.open()
        self.assertIsInstance(refused.reason, ConnectionLost)
        self.assertIn("refused 192.0.2.3:50000", self.rig.logged[0])
        self.assertEqual(len(self.rig.here.bridges), 3)
        sides[0].abortConnection()
        self.rig.flush()
        client, _ = self.rig.open()
        self.assertEqual(client.events, ["made"])

    def test_maxTargetConnections(self) -> None:
        """
        The limit holds for the target too, if peers open more streams.
        """
        for _ in range(3):
            self.rig.open()
        self.assertIs(self.rig.there.buildProtocol(StreamAddress(HERE, 8)), None)

    def test_inTurn(self) -> None:
        """
        Connections go to each mux that is up in turn.
        """
        clock = Clock()
        pool = MuxPool(clock)
        pairs = [
            MuxPair(
                serverFactory=MuxFactory(PSK, False, clock=clock, pool=pool),
                clientStreams=Recorders(),
                clientFactory=MuxFactory(PSK, True, Recorders(), clock=clock),
                clock=clock,
            )
            for _ in range(2)
        ]
        for pair in pairs:
            pair.flush()
        here = forward("", pool, clock, TunnelLimits())
        for _ in range(4):
            end = here.buildProtocol(HERE)
            assert end is not None
            connect(clock, (Recorder(), end), (HERE, THERE), 0.0, None, 65536)
        self.assertEqual([pair.server.streamCount for pair in pairs], [2, 2])


class Nameless:
    """
    An address that cannot be shown.
    """

    def __str__(self) -> str:
        raise ValueError


class PartTests(SynchronousTestCase):
    """
    The helper classes of tunnels.
    """

    def test_interfaces(self) -> None:
        """
        The classes provide the interfaces that they declare.
        """
        rig = Rig(self)
        bridge = Bridge(rig.here, None)
        for end in bridge.ends:
            verifyObject(IHalfCloseableProtocol, end)
            verifyObject(IPushProducer, end)
        verifyObject(IProtocolFactory, rig.here)

    def test_limits(self) -> None:
        """
        A limit of 0 is refused.
        """
        self.assertRaises(ValueError, TunnelLimits, targetTimeout=0)

    def test_throttle(self) -> None:
        """
        Only a burst of lines is logged.  The next logged line says how many were left
        out.
        """
        clock = Clock()
        observer = Lines()
        lines = observer.lines
        log = ThrottledLog(Logger(observer=observer), clock)
        for number in range(LINES_BURST + 7):
            log.warn("line {number}", number=number)
        self.assertEqual(len(lines), LINES_BURST)
        clock.advance(LINE_EVERY - 0.1)
        log.warn("line {number}", number=100)
        clock.advance(0.1)
        log.warn("line {number}", number=101)
        log.warn("line {number}", number=102)
        clock.advance(2 * LINE_EVERY)
        log.warn("line {number}", number=103)
        log.warn("line {number}", number=104)
        self.assertEqual(
            lines[LINES_BURST:],
            [
                "line 101 (8 such lines were left out before this one)",
                "line 103 (1 such lines were left out before this one)",
                "line 104",
            ],
        )

    def test_throttledKinds(self) -> None:
        """
        A flood of one kind of line does not keep others out.
        """
        observer = Lines()
        log = ThrottledLog(Logger(observer=observer), Clock())
        for _ in range(2 * LINES_BURST):
            log.warn("flood")
            log.emit(LogLevel.warn, "flood", kind="other")
        self.assertEqual(len(observer.lines), 2 * LINES_BURST)
        log.warn("news")
        self.assertEqual(observer.lines[-1], "news")

    def test_printable(self) -> None:
        """
        Text from outside in log lines is escaped and bounded.
        """
        forged = "a\nb\r\x85\u2028c\x1b[31m\x07\x9b\u202e\udcff"
        escaped = r"a\nb\r\x85\u2028c\x1b[31m\x07\x9b\u202e\udcff"
        plain = "R\xe9sum\xe9 of 127.0.0.1:80"
        self.assertEqual(printable(forged), escaped)
        self.assertEqual(printable(plain), plain)
        self.assertLess(len(printable("\x1b" * 10**6)), 6 * TEXT_LENGTH)
        path = UNIXAddress(forged.encode("utf-8", "surrogateescape"))
        self.assertNotIn("\n", describeAddress(path))
        host = IPv4Address("TCP", forged, 80)
        self.assertEqual(describeAddress(host), escaped + ":80")
        observer = Lines()
        log = ThrottledLog(Logger(observer=observer), Clock())
        log.warn("{text}, {error}", text=forged, error=ValueError(forged))
        self.assertEqual(observer.lines, [f"{escaped}, {escaped}"])

    def test_describeAddress(self) -> None:
        """
        Log lines show addresses in their usual notation.
        """
        six = IPv6Address("TCP", "::1", 80)
        self.assertEqual(describeAddress(HERE), "192.0.2.3:50000")
        self.assertEqual(describeAddress(six), "[::1]:80")
        self.assertEqual(describeAddress(UNIXAddress(b"/run/mux")), "/run/mux")
        self.assertEqual(describeAddress(UNIXAddress(None)), "a local peer")
        self.assertEqual(describeAddress(cast(Any, Nameless())), "an unknown peer")
        self.assertEqual(
            describeAddress(StreamAddress(HERE, 4)), "stream 4 of 192.0.2.3:50000"
        )


for _tests in (TransferTests, TargetTests, ForwardTests):
    _name = f"Named{_tests.__name__}"
    _body = {"__module__": __name__, "service": "any", "__doc__": _tests.__doc__}
    globals()[_name] = type(_name, (_tests,), _body)
del _tests
