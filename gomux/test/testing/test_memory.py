"""
Tests for L{gomux.testing._memory}.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from gomux.test.support.helpers import PullProducer, PushProducer
from gomux.testing._memory import Carrier
from gomux.testing._pair import connect


class End(Protocol):
    """
    One end of a connection, which records its events.
    """

    transport: Carrier

    def __init__(self) -> None:
        self.events: list[str] = []
        self.received: list[bytes] = []
        self.reason: BaseException | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append("lost")
        self.reason = reason.value

    @property
    def data(self) -> bytes:
        return b"".join(self.received)


@implementer(IHalfCloseableProtocol)
class HalfEnd(End):
    """
    An end that is half-closeable.
    """

    def readConnectionLost(self) -> None:
        self.events.append("readLost")

    def writeConnectionLost(self) -> None:
        self.events.append("writeLost")


class CarrierTests(SynchronousTestCase):
    """
    L{Carrier} and L{gomux.testing.Pipe}
    """

    def setUp(self) -> None:
        self.connect()

    def connect(
        self,
        kind: type[End] = End,
        latency: float = 0.0,
        chunkSize: int | None = None,
        bufferSize: int = 65536,
    ) -> None:
        self.clock = Clock()
        self.near, self.far = kind(), kind()
        self.here, self.there = connect(
            self.clock,
            (self.near, self.far),
            (IPv4Address("TCP", "192.0.2.1", 1), IPv4Address("TCP", "192.0.2.2", 2)),
            latency,
            chunkSize,
            bufferSize,
        )

    def run_(self) -> None:
        self.clock.advance(0)

    def test_interfaces(self) -> None:
        """
        A carrier provides the interfaces that it declares.
        """
        for interface in (ITransport, ITCPTransport, IConsumer, IPushProducer):
            verifyObject(interface, self.here)

    def test_settings(self) -> None:
        """
        A carrier keeps its TCP settings and its addresses.
        """
        self.here.setTcpNoDelay(True)
        self.here.setTcpKeepAlive(True)
        self.assertTrue(self.here.getTcpNoDelay() and self.here.getTcpKeepAlive())
        self.assertFalse(self.there.getTcpNoDelay() or self.there.getTcpKeepAlive())
        self.assertEqual(self.here.getHost(), self.there.getPeer())
        self.assertEqual(self.here.getPeer(), self.there.getHost())

    def test_reading(self) -> None:
        """
        C{reading} tells whether arriving data is delivered to the protocol.
        """
        self.assertTrue(self.here.reading)
        self.here.pauseProducing()
        self.assertFalse(self.here.reading)
        self.here.resumeProducing()
        self.assertTrue(self.here.reading)
        self.here.loseConnection()
        self.assertFalse(self.here.reading)

    def test_producer(self) -> None:
        """
        C{producer} is the producer until it is unregistered or the connection is lost.
        """
        for end in (self.here.unregisterProducer, self.here.loseConnection):
            self.assertIsNone(self.here.producer)
            producer = PushProducer()
            self.here.registerProducer(producer, True)
            self.assertIs(self.here.producer, producer)
            end()
            self.run_()
        self.assertIsNone(self.here.producer)

    def test_fail(self) -> None:
        """
        C{fail} ends a carrier with an error at this end only; the other end sees a
        clean end.
        """
        error = ZeroDivisionError()
        self.here.fail(error)
        self.assertIs(self.near.reason, error)
        self.run_()
        self.assertIsInstance(self.far.reason, ConnectionDone)
        self.assertEqual((self.near.events, self.far.events), (["lost"], ["lost"]))

    def test_due(self) -> None:
        """
        C{due} is the next time at which a pipe may deliver something.
        """
        self.connect(latency=0.5)
        pipe = self.here.outgoing
        self.assertIsNone(pipe.due)
        self.here.write(b"data")
        self.run_()
        self.assertEqual(pipe.due, 0.5)
        self.clock.advance(0.5)
        self.assertEqual(self.far.data, b"data")
        self.assertIsNone(pipe.due)

    def test_delivered(self) -> None:
        """
        Written data arrives in a later turn of the reactor.
        """
        self.here.write(b"hello, ")
        self.here.writeSequence([b"wor", b"ld"])
        self.assertEqual(self.far.received, [])
        self.run_()
        self.assertEqual(self.far.received, [b"hello, world"])
        self.assertEqual(self.here.outgoing.bytesDelivered, 12)

    def test_bytesOnly(self) -> None:
        """
        Writing anything but bytes raises L{TypeError}.
        """
        self.assertRaises(TypeError, self.here.write, "text")
        self.assertRaises(TypeError, self.here.writeSequence, [memoryview(b"view")])

    def test_latency(self) -> None:
        """
        Data arrives after the latency, in order.
        """
        self.connect(latency=1.0)
        self.here.write(b"one")
        self.run_()
        self.clock.advance(0.5)
        self.here.write(b"two")
        self.run_()
        self.assertEqual(self.here.outgoing.inFlight, 6)
        self.clock.advance(0.5)
        self.assertEqual(self.far.received, [b"one"])
        self.clock.advance(0.5)
        self.assertEqual(self.far.received, [b"one", b"two"])

    def test_chunks(self) -> None:
        """
        Data arrives in chunks of C{chunkSize}, by default of a socket's read size.
        """
        self.connect(chunkSize=3)
        self.here.write(b"abcdefgh")
        self.run_()
        self.assertEqual(self.far.received, [b"abc", b"def", b"gh"])
        self.here.outgoing.chunkSize = None
        self.here.write(bytes(200000))
        self.run_()
        self.assertEqual(max(map(len, self.far.received)), 65536)
        self.assertEqual(len(self.far.data), 200008)

    def test_stall(self) -> None:
        """
        A stalled pipe delivers nothing, not even the end, until C{unstall}.
        """
        pipe = self.here.outgoing
        self.here.write(b"on its way")
        pipe.stall()
        self.assertTrue(pipe.stalled)
        self.run_()
        self.here.write(b"; not yet")
        self.here.loseConnection()
        self.clock.advance(100)
        self.assertEqual(self.far.received, [])
        self.assertEqual(self.here.buffered, 19)
        pipe.unstall()
        self.run_()
        self.assertEqual(self.far.data, b"on its way; not yet")
        self.assertEqual(self.far.events, ["lost"])

    def test_stalledInFlight(self) -> None:
        """
        Bytes already in flight when a pipe stalls wait, too.
        """
        self.connect(latency=1.0)
        self.here.write(b"data")
        self.run_()
        self.here.outgoing.stall()
        self.clock.advance(5)
        self.assertEqual(self.far.received, [])
        self.here.outgoing.unstall()
        self.run_()
        self.assertEqual(self.far.received, [b"data"])

    def test_pushPaused(self) -> None:
        """
        A push producer is paused at every write over the limit, and resumed when all
        output is sent.
        """
        self.connect(bufferSize=10)
        producer = PushProducer()
        self.here.registerProducer(producer, True)
        self.here.write(bytes(10))
        self.assertEqual(producer.calls, [])
        self.here.write(b"x")
        self.here.write(b"x")
        self.assertEqual(producer.calls, ["pause", "pause"])
        self.run_()
        self.assertEqual(producer.calls, ["pause", "pause", "resume"])

    def test_pull(self) -> None:
        """
        A pull producer is asked for more at once, and whenever all output is sent.
        """
        producer = PullProducer(self.here, [b"one", b"two", b"three"])
        self.here.registerProducer(producer, False)
        self.assertEqual(len(producer.pieces), 2)
        self.run_()
        self.assertEqual(self.far.data, b"onetwothree")

    def test_producers(self) -> None:
        """
        A second producer is refused.  A producer is stopped if it is registered after
        the end, or still registered at the end.
        """
        producer = PushProducer()
        self.here.registerProducer(producer, True)
        self.assertRaises(RuntimeError, self.here.registerProducer, producer, True)
        self.here.abortConnection()
        self.run_()
        self.assertEqual(producer.calls, ["stop"])
        self.here.registerProducer(producer, True)
        self.assertEqual(producer.calls, ["stop", "stop"])

    def test_loseConnection(self) -> None:
        """
        C{loseConnection} sends the buffered data, then ends both ends.
        """
        self.here.write(b"bye")
        self.here.loseConnection()
        self.here.loseConnection()
        self.assertEqual(self.near.events, [])
        self.run_()
        self.assertEqual(self.far.data, b"bye")
        for end in (self.near, self.far):
            self.assertEqual(end.events, ["lost"])
            self.assertIsInstance(end.reason, ConnectionDone)
        self.here.write(b"late")
        self.run_()
        self.assertEqual(self.here.buffered, 0)

    def test_doesNotWaitForPush(self) -> None:
        """
        C{loseConnection} waits for a pull producer, but not for a push producer that is
        not paused.  (Trap 1 in docs/design.rst.)
        """
        self.here.registerProducer(PushProducer(), True)
        self.here.loseConnection()
        self.run_()
        self.assertEqual(self.near.events, ["lost"])
        self.connect()
        producer = PullProducer(self.here, [b"one", b"two", b"three"])
        self.here.registerProducer(producer, False)
        self.here.loseConnection()
        self.run_()
        self.assertEqual(self.far.data, b"onetwothree")
        self.assertEqual(self.near.events, ["lost"])

    def test_unregisterToLose(self) -> None:
        """
        A connection that waits for its producer closes when the producer is
        unregistered.
        """
        self.connect(bufferSize=1)
        self.here.registerProducer(PushProducer(), True)
        self.here.write(b"12")
        self.here.loseConnection()
        self.run_()
        self.here.unregisterProducer()
        self.run_()
        self.assertEqual(self.near.events, ["lost"])

    def test_readsNothingAfterLose(self) -> None:
        """
        After C{loseConnection} nothing is read.  A peer that still sends is reset, and
        loses its unread data.
        """
        self.connect(latency=1.0)
        self.there.write(b"unread")
        self.run_()
        self.here.write(b"bye")
        self.here.loseConnection()
        self.clock.advance(0.9)
        self.there.write(b"more")
        self.clock.advance(0.1)
        self.assertEqual(self.near.received, [])
        for _ in range(3):
            self.clock.advance(1)
        self.assertEqual(self.far.events, ["lost"])
        self.assertIsInstance(self.far.reason, ConnectionLost)
        self.assertEqual(self.far.received, [])

    def test_halfClose(self) -> None:
        """
        C{loseWriteConnection} closes one half and notifies both protocols.
        """
        self.connect(HalfEnd)
        self.here.write(b"request")
        self.here.loseWriteConnection()
        self.run_()
        self.here.write(b"dropped")
        self.there.write(b"answer")
        self.run_()
        self.assertEqual((self.far.data, self.near.data), (b"request", b"answer"))
        self.assertEqual(self.near.events, ["writeLost"])
        self.assertEqual(self.far.events, ["readLost"])
        self.there.loseConnection()
        self.run_()
        self.assertEqual(self.far.events, ["readLost", "lost"])
        self.assertEqual(self.near.events, ["writeLost", "readLost"])
        self.here.loseConnection()
        self.assertEqual(self.near.events, ["writeLost", "readLost", "lost"])

    def test_halfClosePlain(self) -> None:
        """
        An end that is not half-closeable closes when the other end half-closes.
        """
        self.here.loseWriteConnection()
        self.run_()
        self.assertEqual((self.near.events, self.far.events), (["lost"], ["lost"]))

    def test_abort(self) -> None:
        """
        C{abortConnection} drops the bytes in flight, and resets the other end.
        """
        self.connect(latency=1.0)
        self.here.write(b"in flight")
        self.run_()
        self.here.write(b"buffered")
        self.here.abortConnection()
        self.here.abortConnection()
        self.assertEqual(self.near.events, [])
        self.run_()
        self.assertIsInstance(self.near.reason, ConnectionAborted)
        self.clock.advance(1)
        self.assertEqual(self.far.received, [])
        self.assertIsInstance(self.far.reason, ConnectionLost)

    def test_pausedReading(self) -> None:
        """
        A paused end reads nothing until it is resumed.
        """
        self.there.pauseProducing()
        self.here.write(b"data")
        self.run_()
        self.assertEqual(self.far.received, [])
        self.there.resumeProducing()
        self.run_()
        self.assertEqual(self.far.received, [b"data"])
        self.there.stopProducing()
        self.there.resumeProducing()
        self.here.write(b"late")
        self.run_()
        self.assertEqual(self.far.received, [b"data"])

    def test_protocolFails(self) -> None:
        """
        A protocol that raises loses its connection, as under a real reactor.
        """

        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        self.far.dataReceived = fail  # type: ignore[method-assign]
        self.here.write(b"data")
        self.run_()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsInstance(self.far.reason, ZeroDivisionError)
        self.assertEqual(self.near.events, ["lost"])
