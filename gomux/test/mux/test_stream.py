"""
Tests for L{gomux._mux.stream}: a stream as a transport.
"""

from __future__ import annotations

import gc
from collections import Counter

from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    IPushProducer,
    ITCPTransport,
    ITransport,
)
from twisted.python.context import get as getContext
from twisted.python.log import ILogContext
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from gomux import StreamAddress
from gomux._mux.stream import Stream
from gomux._wire.frame import Flag
from gomux.error import ProtocolViolation
from gomux.test.support.helpers import PushProducer, Recorder, Rig


class TransportTests(SynchronousTestCase):
    """
    L{gomux._mux.stream.Stream} compared with a TCP transport.
    """

    def test_interfaces(self) -> None:
        """
        A stream provides the interfaces that it declares.
        """
        stream = Rig().opened().stream
        for interface in (
            ITransport,
            ITCPTransport,
            IHalfCloseableDescriptor,
            IConsumer,
            IPushProducer,
        ):
            verifyObject(interface, stream)

    def test_unused(self) -> None:
        """
        A new stream is a single object for Python's garbage collector, apart from its
        protocol, so that opening many streams causes few long collections.
        """
        rig = Rig()
        rig.opened()
        gc.collect()
        before = Counter(map(type, gc.get_objects()))
        for _ in range(100):
            rig.opened()
        gc.collect()
        made = Counter(map(type, gc.get_objects())) - before
        many = {kind: count for kind, count in made.items() if count >= 50}
        self.assertEqual(many.pop(Stream), 100)
        self.assertEqual(many.pop(Recorder), 100)
        self.assertEqual([kind for kind in many if kind not in (dict, list)], [])

    def test_addresses(self) -> None:
        """
        The addresses of a stream are those of the carrier, with the stream ID.
        """
        rig = Rig()
        rig.opened()
        stream = rig.opened().stream
        self.assertEqual(stream.getHost(), StreamAddress(rig.carrier.getHost(), 2))
        self.assertEqual(stream.getPeer(), StreamAddress(rig.carrier.getPeer(), 2))

    def test_state(self) -> None:
        """
        C{connected}, C{disconnecting} and C{disconnected} tell the state as in
        Twisted's transports.
        """
        rig = Rig()
        stream = rig.opened().stream
        states = [(stream.connected, stream.disconnecting, stream.disconnected)]
        stream.loseConnection()
        states.append((stream.connected, stream.disconnecting, stream.disconnected))
        rig.run()
        states.append((stream.connected, stream.disconnecting, stream.disconnected))
        self.assertEqual(
            states, [(True, False, False), (True, True, False), (False, False, True)]
        )

    def test_repr(self) -> None:
        """
        The C{repr} of a stream has its ID and state.
        """
        rig = Rig()
        stream = rig.opened().stream
        self.assertIn("Stream 0 LIVE", repr(stream))

    def test_noDelay(self) -> None:
        """
        C{setTcpNoDelay} is remembered, but has no effect: a stream never holds data
        back.
        """
        stream = Rig().opened().stream
        self.assertTrue(stream.getTcpNoDelay())
        stream.setTcpNoDelay(False)
        self.assertFalse(stream.getTcpNoDelay())

    def test_keepAlive(self) -> None:
        """
        A stream can turn on TCP keepalive of the carrier, but cannot turn it off,
        because other streams may need it.
        """
        rig = Rig()
        stream = rig.opened().stream
        rig.carrier.keepAlive = False
        self.assertFalse(stream.getTcpKeepAlive())
        stream.setTcpKeepAlive(True)
        self.assertTrue(rig.carrier.keepAlive)
        stream.setTcpKeepAlive(False)
        self.assertTrue(stream.getTcpKeepAlive())

    def test_carrierWithoutKeepAlive(self) -> None:
        """
        C{setTcpKeepAlive} has no effect if the carrier is not a TCP connection.
        """
        rig = Rig()
        stream = rig.opened().stream
        rig.mux.transport = object()
        stream.setTcpKeepAlive(True)
        self.assertFalse(stream.getTcpKeepAlive())

    def test_logPrefix(self) -> None:
        """
        The log prefix of a stream is that of its protocol, or the name of the
        protocol's class.
        """

        class Named(Recorder):
            def logPrefix(self) -> str:
                return "named"

        class Bare:
            def makeConnection(self, transport: object) -> None:
                pass

        self.assertEqual(Rig(Named).opened().stream.logPrefix(), "named")
        stream = Rig().opened().stream
        self.assertEqual(stream.logPrefix(), "Recorder")
        stream.protocol = Bare()  # type: ignore[assignment]
        self.assertEqual(stream.logPrefix(), "Bare")

    def test_logContext(self) -> None:
        """
        Log lines of a protocol with a log prefix of its own carry that prefix.
        """
        systems: list[object] = []

        class Named(Recorder):
            def logPrefix(self) -> str:
                return "named"

        rig = Rig(Named, data=lambda _: systems.append(getContext(ILogContext)))
        rig.opened(b"data")
        self.assertEqual([s["system"] for s in systems], ["named"])  # type: ignore[index]

    def test_noLogContext(self) -> None:
        """
        A protocol that needs no log context is called in that of the caller.
        """
        contexts: list[object] = []

        class Own(Recorder):
            needsLogContext = False

            def connectionMade(self) -> None:
                super().connectionMade()
                contexts.append(getContext(ILogContext))

        rig = Rig(Own, data=lambda _: contexts.append(getContext(ILogContext)))
        rig.opened(b"data")
        self.assertEqual(contexts, [getContext(ILogContext)] * 2)

    def test_reading(self) -> None:
        """
        C{stopReading}, C{startReading} and C{stopConsuming} pause, resume and close a
        stream.
        """
        rig = Rig()
        recorder = rig.opened()
        recorder.stream.stopReading()
        rig.send(0, Flag.DATA, b"data")
        self.assertEqual(recorder.received, b"")
        recorder.stream.startReading()
        rig.run()
        self.assertEqual(recorder.received, b"data")
        producer = PushProducer()
        recorder.stream.registerProducer(producer, True)
        recorder.stream.stopConsuming()
        self.assertEqual(producer.calls, [])
        self.assertEqual(rig.sent(), [(0, Flag.CLOSE_STREAM, 0)])

    def test_echo(self) -> None:
        """
        A plain protocol works over a stream unchanged.
        """
        rig = Rig(data=lambda recorder: recorder.transport.write(b"<>"))
        rig.opened(b"x")
        self.assertEqual(rig.sentData(), b"<>")


class WriteTests(SynchronousTestCase):
    """
    C{write}
    """

    def setUp(self) -> None:
        self.rig = Rig()
        self.stream = self.rig.opened().stream

    def test_write(self) -> None:
        """
        Written data is sent.
        """
        self.stream.write(b"hello")
        self.assertEqual(self.rig.sent(), [(0, Flag.DATA, 5)])

    def test_types(self) -> None:
        """
        Every bytes-like object can be written, and is copied.  Text cannot.
        """
        mutable = bytearray(b"one")
        self.stream.write(mutable)  # type: ignore[arg-type]
        mutable[:] = b"xxx"
        self.stream.write(memoryview(b"two"))  # type: ignore[arg-type]
        self.stream.writeSequence([b"thr", b"ee"])
        error = self.assertRaises(TypeError, self.stream.write, "text")
        self.assertEqual(str(error), "Data must be bytes")
        self.assertRaises(TypeError, self.stream.writeSequence, ["text"])
        self.assertEqual(self.rig.sentData(), b"onetwothree")

    def test_nothing(self) -> None:
        """
        Empty writes send nothing.
        """
        self.stream.write(b"")
        self.stream.writeSequence([])
        self.assertEqual(self.rig.sent(), [])
        self.assertEqual(self.stream.unsent, 0)

    def test_together(self) -> None:
        """
        Small writes in one turn of the reactor leave as one frame.
        """
        for _ in range(100):
            self.stream.write(b"0123456789")
        self.assertEqual(self.rig.sent(), [(0, Flag.DATA, 1000)])

    def test_notDelayed(self) -> None:
        """
        A single small write is sent in the next turn of the reactor.
        """
        self.stream.write(b"x")
        self.rig.clock.advance(0)
        self.assertEqual(self.rig.sent(), [(0, Flag.DATA, 1)])

    def test_largeWrite(self) -> None:
        """
        A large write is cut into frames of 65536 bytes, and sending stops at the end of
        the window.
        """
        self.stream.write(bytes(200000))
        self.assertEqual(
            self.rig.sent(), [(0, Flag.DATA, 65536), (0, Flag.DATA, 65536)]
        )
        self.assertEqual(self.stream.unsent, 200000 - 131072)
        self.rig.send(0, Flag.WINDOW_UPDATE, 65536)
        self.rig.send(0, Flag.WINDOW_UPDATE, 65536)
        self.assertEqual(
            self.rig.sent(), [(0, Flag.DATA, 65536), (0, Flag.DATA, 200000 - 3 * 65536)]
        )

    def test_neverBeyondWindow(self) -> None:
        """
        However the credit arrives, no more is sent than was granted.
        """
        self.stream.write(bytes(1000000))
        granted = 131072
        sent = sum(frame[2] for frame in self.rig.sent())
        for size in (1, 20000, 65536, 3, 65536, 16384, 65536):
            granted += size
            self.rig.send(0, Flag.WINDOW_UPDATE, size)
            sent += sum(frame[2] for frame in self.rig.sent())
            self.assertLessEqual(sent, granted)
        self.assertGreater(sent, granted - 65536)

    def test_dribblingCredit(self) -> None:
        """
        Credit of single bytes does not cause frames of single bytes.
        """
        self.stream.write(bytes(200000))
        self.rig.sent()
        for _ in range(65536):
            self.rig.peerCarrier.write(self.rig.peer.seal(0, Flag.WINDOW_UPDATE, 1))
        self.assertEqual(self.rig.sent(), [(0, Flag.DATA, 65536)])

    def test_creditOfHalves(self) -> None:
        """
        Two streams whose peer gives credit for half a frame at a time send full frames.
        """
        streams = [self.stream, self.rig.open().stream]
        for stream in streams:
            stream.write(bytes(500000))
        self.rig.sent()
        for _ in range(4):
            for stream in streams:
                self.rig.send(stream.streamID, Flag.WINDOW_UPDATE, 32768)
        self.assertEqual([frame[2] for frame in self.rig.sent()], [65536] * 4)

    def test_smallRest(self) -> None:
        """
        Output that fits into a small window is sent at once.
        """
        self.stream.write(bytes(131072))
        self.rig.sent()
        self.stream.write(bytes(10))
        self.rig.send(0, Flag.WINDOW_UPDATE, 9)
        self.assertEqual(self.rig.sent(), [])
        self.rig.send(0, Flag.WINDOW_UPDATE, 1)
        self.assertEqual(self.rig.sent(), [(0, Flag.DATA, 10)])

    def test_growingWindow(self) -> None:
        """
        Credit beyond the initial window is accepted and used.
        """
        self.rig.send(0, Flag.WINDOW_UPDATE, 65536)
        self.stream.write(bytes(300000))
        self.assertEqual(sum(frame[2] for frame in self.rig.sent()), 131072 + 65536)

    def test_windowOverflow(self) -> None:
        """
        Credit that raises the window above the largest allowed size ends the mux.
        """
        for _ in range((1 << 31) // 131072 - 2):
            self.rig.peerCarrier.write(
                self.rig.peer.seal(0, Flag.WINDOW_UPDATE, 131072)
            )
        self.rig.run()
        self.assertIsNone(self.rig.reason())
        self.rig.send(0, Flag.WINDOW_UPDATE, 131072)
        self.assertIsInstance(self.rig.reason(), ProtocolViolation)
