"""
Tests for L{gomux.tunnel._transport}: transports of other kinds than TCP, used as far as
they go.
"""

from __future__ import annotations

import socket
from typing import Any
from unittest.mock import Mock

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.tcp import Port, Server
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from gomux._carrier.transport import UNSENT
from gomux.test.support.helpers import HalfRecorder, Recorder, Recorders
from gomux.test.support.tunnelrig import HERE, Rig
from gomux.tunnel._transport import EndTransport, StreamOutput


class Bare:
    """
    A transport with nothing but L{ITransport<twisted.internet.interfaces.ITransport>},
    as an SSH channel or a WebSocket is.  It never calls C{connectionLost}.
    """

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = 0

    def write(self, data: bytes) -> None:
        self.written += data

    def writeSequence(self, data: list[bytes]) -> None:
        self.written += b"".join(data)

    def loseConnection(self) -> None:
        self.closed += 1

    def getPeer(self) -> Any:
        return HERE

    def getHost(self) -> Any:
        return HERE


class Halves(Bare):
    """
    A transport whose output can be closed alone, as standard output and a process's
    input.
    """

    finished = 0

    def closeStdin(self) -> None:
        self.finished += 1


class BareTests(SynchronousTestCase):
    """
    A tunnel whose local end has a transport that is no TCP connection.
    """

    def start(self, transport: Any, streams: Any = None) -> Any:
        """
        Connect a transport with a tunnel.

        @return: the end.
        """
        self.rig = Rig(self, streams)
        end = self.rig.here.buildProtocol(HERE)
        assert end is not None
        end.makeConnection(transport)
        self.rig.flush()
        return end

    def assertOver(self, tunnel: Any = None) -> None:
        self.assertEqual(self.rig.here.bridges, set())
        self.assertEqual(self.rig.there.bridges, set())
        self.assertEqual(self.rig.pair.client.streamCount, 0)

    def test_data(self) -> None:
        """
        Data goes both ways, also what came before the stream.
        """
        transport = Bare()
        end = self.start(transport)
        end.dataReceived(b"ping")
        self.rig.target.carriers[0][1].write(b"pong")
        self.rig.flush()
        self.assertEqual(self.rig.target.made[0].received, b"ping")
        self.assertEqual(transport.written, b"pong")

    def test_targetCloses(self) -> None:
        """
        The transport is closed when the target has closed its half, after the data; its
        C{connectionLost} without a reason ends the rest.
        """
        transport = Bare()
        end = self.start(transport)
        self.rig.target.carriers[0][1].write(b"pong")
        self.rig.target.carriers[0][1].loseConnection()
        self.rig.flush()
        self.assertEqual((transport.written, transport.closed), (b"pong", 1))
        end.connectionLost(None)
        self.rig.flush()
        self.assertOver()

    def test_targetCuts(self) -> None:
        """
        If the target is cut, the tunnel closes the transport, and does not wait for its
        C{connectionLost}.
        """
        transport = Bare()
        self.start(transport)
        self.rig.target.carriers[0][1].abortConnection()
        self.rig.flush()
        self.assertEqual(transport.closed, 1)
        self.assertOver()

    def test_targetRefuses(self) -> None:
        """
        If the target refuses, the tunnel closes the transport.
        """
        transport = Bare()
        self.rig = Rig(self)
        self.rig.target.answer = ValueError("refused")
        end = self.rig.here.buildProtocol(HERE)
        assert end is not None
        end.makeConnection(transport)
        self.rig.flush()
        self.assertEqual(transport.closed, 1)
        self.assertOver()

    def test_noMux(self) -> None:
        """
        If there is no mux in time, the tunnel closes the transport.
        """
        transport = Bare()
        self.rig = Rig(self)
        self.rig.pair.client.close()
        self.rig.flush()
        end = self.rig.here.buildProtocol(HERE)
        assert end is not None
        end.makeConnection(transport)
        self.rig.pair.advance(self.rig.limits.waitTimeout + 1)
        self.assertEqual(transport.closed, 1)
        self.assertOver()

    def test_halves(self) -> None:
        """
        An output that can be closed alone is closed alone, and the input goes on.  When
        the input ends too, the tunnel does not wait for a C{connectionLost} that may
        never come.
        """
        transport = Halves()
        end = self.start(transport)
        self.rig.target.carriers[0][1].loseWriteConnection()
        self.rig.flush()
        self.assertEqual((transport.finished, transport.closed), (1, 0))
        end.writeConnectionLost()
        end.dataReceived(b"more")
        end.readConnectionLost()
        self.rig.flush()
        self.assertEqual(self.rig.target.made[0].received, b"more")
        self.assertEqual(transport.closed, 1)
        self.assertOver()

    def test_asTarget(self) -> None:
        """
        Such a transport may be a target's, too.
        """
        self.rig = Rig(self)
        waiting = self.rig.target.hold()
        client, clientSide = self.rig.open()
        assert self.rig.target.factory is not None
        end = self.rig.target.factory.buildProtocol(HERE)
        assert end is not None
        transport: Any = Halves()
        end.makeConnection(transport)
        waiting.callback(end)
        clientSide.write(b"ping")
        clientSide.loseWriteConnection()
        self.rig.flush()
        self.assertEqual((transport.written, transport.finished), (b"ping", 1))
        end.dataReceived(b"pong")
        end.connectionLost(Failure(ConnectionDone()))
        self.rig.flush()
        self.assertEqual(client.events, ["made", "writeLost", "data", "readLost"])
        self.assertEqual(client.received, b"pong")

    def test_tooMany(self) -> None:
        """
        A transport that comes when there are too many is closed.
        """
        self.start(Bare())
        for _ in range(2):
            self.rig.open()
        transport = Bare()
        refused = self.rig.here.buildProtocol(HERE)
        assert refused is not None
        refused.makeConnection(transport)
        self.assertEqual(transport.closed, 1)

    def test_strings(self) -> None:
        """
        A L{StringTransport} will do.
        """
        end = self.start(StringTransport())
        end.dataReceived(b"ping")
        self.rig.flush()
        self.assertEqual(self.rig.target.made[0].received, b"ping")
        self.rig.target.carriers[0][1].abortConnection()
        self.rig.flush()
        end.connectionLost(Failure(ConnectionLost()))
        self.assertOver()


class StreamOutputTests(SynchronousTestCase):
    """
    L{StreamOutput}
    """

    def test_ends(self) -> None:
        """
        However a stream ends, it forgets its producer first, because it would wait for
        the rest of the producer's output.
        """
        for name, method in (
            ("finish", "loseWriteConnection"),
            ("close", "loseConnection"),
            ("abort", "abortConnection"),
        ):
            stream = Mock()
            getattr(StreamOutput(stream), name)()
            self.assertEqual(
                [call[0] for call in stream.method_calls],
                ["unregisterProducer", method],
            )

    def test_halvesClosed(self) -> None:
        """
        A stream closes itself when both halves are closed.
        """
        stream = Mock()
        StreamOutput(stream).halvesClosed()
        self.assertEqual(stream.method_calls, [])


class UnsentTests(SynchronousTestCase):
    """
    L{EndTransport.unsent}
    """

    def connection(self) -> tuple[Server, socket.socket, MemoryReactorClock]:
        """
        @return: a transport over TCP, the socket at its other end, and its reactor.
        """
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.addCleanup(client.close)
        client.connect(listener.getsockname())
        accepted, peer = listener.accept()
        self.addCleanup(accepted.close)
        accepted.setblocking(False)
        reactor = MemoryReactorClock()
        port = Port(0, Recorders(HalfRecorder), reactor=reactor)
        recorder = HalfRecorder()
        connection = Server(accepted, recorder, peer, port, 0, reactor)
        recorder.makeConnection(connection)
        return connection, client, reactor

    def test_tcp(self) -> None:
        """
        Over TCP, C{unsent} is all that the peer's machine has not acknowledged.
        """
        connection, client, _ = self.connection()
        transport = EndTransport(connection)
        self.assertEqual(transport.unsent, 0)
        transport.write(bytes(16 << 20))
        self.assertGreater(transport.unsent, 15 << 20)
        before = transport.unsent
        got = 0
        while got < 16 << 20:
            connection.doWrite()
            got += len(client.recv(1 << 20))
            self.assertLessEqual(transport.unsent, before)
            before = transport.unsent
        self.assertEqual(transport.unsent, 0)

    def test_unread(self) -> None:
        """
        Data that the peer's machine has counts as sent, although nobody has read it.
        """
        connection, client, _ = self.connection()
        transport = EndTransport(connection)
        transport.write(b"few")
        self.assertEqual(transport.unsent, 0)
        self.assertEqual(client.recv(10), b"few")

    def test_urgent(self) -> None:
        """
        Urgent data is received in its place among the other data.
        """
        connection, client, _ = self.connection()
        protocol: Any = connection.protocol
        EndTransport(connection)
        client.send(b"abc")
        client.send(b"d", socket.MSG_OOB)
        client.send(b"efg")
        for _ in range(5):
            connection.doRead()
        self.assertEqual(protocol.received, b"abcdefg")

    def test_limitUnsent(self) -> None:
        """
        The kernel is asked to keep little that it cannot send yet, also below another
        layer.
        """
        option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        connection, _, _ = self.connection()
        wrapper = ProtocolWrapper(WrappingFactory(Recorders()), Recorder())
        wrapper.transport = connection
        EndTransport(wrapper)
        if option is not None:
            size = connection.socket.getsockopt(socket.IPPROTO_TCP, option)
            self.assertEqual(size, UNSENT)

    def test_closed(self) -> None:
        """
        C{unsent} is 0 on a connection that the peer has reset.
        """
        connection, client, _ = self.connection()
        transport = EndTransport(connection)
        transport.write(bytes(1 << 16))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        self.assertEqual(transport.unsent, 0)

    def test_wrapped(self) -> None:
        """
        A protocol wrapper in between hides nothing, and counts nothing twice.
        """
        connection, client, _ = self.connection()
        wrapper = ProtocolWrapper(WrappingFactory(Recorders()), Recorder())
        wrapper.transport = connection
        transport = EndTransport(wrapper)
        transport.write(bytes(16 << 20))
        self.assertGreater(transport.unsent, 15 << 20)
        self.assertLessEqual(transport.unsent, 16 << 20)

    def test_stream(self) -> None:
        """
        C{unsent} of a stream is what the stream has not sent.
        """
        rig = Rig(self, Recorders())
        client, clientSide = rig.open()
        (bridge,) = rig.here.bridges
        rig.pair.clientToServer.stall()
        clientSide.write(bytes(1000000))
        rig.flush()
        stream: Any = bridge._far.transport
        self.assertGreater(stream.unsent, 0)
        self.assertEqual(bridge._far.output.unsent, stream.unsent)

    def test_refuseInput(self) -> None:
        """
        Of all transports only a stream can tell its writer to send no more, and TLS in
        a stream cannot.
        """
        stream = Mock(spec=["write", "loseReadConnection"])
        self.assertTrue(StreamOutput(stream).refuseInput())
        stream.loseReadConnection.assert_called_once_with()
        directlyProvides(stream, ISSLTransport)
        self.assertFalse(EndTransport(stream).refuseInput())
        stream.loseReadConnection.assert_called_once_with()
        self.assertFalse(EndTransport(Mock(spec=[])).refuseInput())

    def test_others(self) -> None:
        """
        C{unsent} of a transport of any other kind is 0.
        """
        self.assertEqual(EndTransport(Bare()).unsent, 0)

    def test_address(self) -> None:
        """
        A transport may have the address of a TCP connection without its options.
        """
        self.assertIsInstance(Bare().getPeer(), IPv4Address)
        EndTransport(Bare())

    def test_noAddress(self) -> None:
        """
        A transport may have no address: C{getPeer} of a process raises.
        """

        def raises() -> None:
            raise NotImplementedError

        transport: Any = Bare()
        transport.getPeer = raises
        self.assertEqual(EndTransport(transport).unsent, 0)
