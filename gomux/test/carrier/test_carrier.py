"""
Tests for L{gomux._carrier.transport}.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer, ISystemHandle, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from gomux._carrier.direct import (
    BULK_READ_SIZE,
    GATHERED,
    READ_SIZE,
    DirectTransport,
)
from gomux._carrier.transport import UNSENT, MuxCarrier, limitUnsent
from gomux.test.support.helpers import PushProducer
from gomux.test.support.kernel import Descriptor, Kernel


class DescriptorTests(SynchronousTestCase):
    """
    L{MuxCarrier} on a plain socket.
    """

    def setUp(self) -> None:
        self.descriptor = Descriptor()
        self.carrier = MuxCarrier(self.descriptor)  # type: ignore[arg-type]
        self.producer = PushProducer()

    def register(self) -> None:
        self.carrier.registerProducer(self.producer)

    def test_interface(self) -> None:
        """
        A carrier is the producer of its transport.
        """
        verifyObject(IPushProducer, self.carrier)

    def test_direct(self) -> None:
        """
        Data that the kernel accepts is written at once, and does not pause the
        producer.
        """
        self.register()
        self.descriptor.room = 100
        self.carrier.write(b"hello, " + b"world")
        self.assertEqual(self.descriptor.sent, b"hello, world")
        self.assertEqual(self.producer.calls, [])

    def test_full(self) -> None:
        """
        If the kernel accepts only a part, the producer is paused until the kernel has
        accepted the rest.  Data that is written meanwhile follows the rest.
        """
        self.register()
        self.descriptor.room = 5
        self.carrier.write(b"hello, ")
        self.assertEqual(self.producer.calls, ["pause"])
        self.descriptor.room = 100
        self.carrier.write(b"world")
        self.assertEqual(self.descriptor.sent, b"hello")
        self.descriptor.drain(3)
        self.assertEqual(self.producer.calls[-1], "pause")
        self.descriptor.drain(100)
        self.assertEqual(self.descriptor.sent, b"hello, world")
        self.assertEqual(self.producer.calls[-1], "resume")
        self.carrier.write(b"!")
        self.assertEqual(self.descriptor.sent, b"hello, world!")

    def test_earlyWrite(self) -> None:
        """
        Data that is written before a producer is registered stays in order.  A producer
        that is registered while data waits is paused.
        """
        self.carrier.write(b"hello, ")
        self.register()
        self.assertEqual(self.producer.calls, ["pause"])
        self.descriptor.room = 100
        self.carrier.write(b"world")
        self.assertEqual(self.descriptor.sent, b"")
        self.descriptor.drain(100)
        self.assertEqual(self.descriptor.sent, b"hello, world")
        self.assertEqual(self.producer.calls[-1], "resume")

    def test_quietRegistration(self) -> None:
        """
        A producer that is registered while no data waits is neither paused nor resumed.
        """
        self.register()
        self.assertEqual(self.producer.calls, [])

    def test_error(self) -> None:
        """
        An error of a write is left for the reactor to report.
        """
        self.register()
        self.descriptor.error = ConnectionLost()
        self.carrier.write(b"data")
        self.assertEqual(self.producer.calls, ["pause"])
        self.assertIs(self.descriptor.doWrite(), self.descriptor.error)

    def test_unregister(self) -> None:
        """
        A producer that is unregistered is not called any more.
        """
        self.register()
        self.carrier.unregisterProducer()
        self.carrier.write(b"data")
        self.carrier.pauseProducing()
        self.carrier.resumeProducing()
        self.carrier.stopProducing()
        self.assertEqual(self.producer.calls, [])
        self.assertIsNone(self.descriptor.producer)

    def test_stop(self) -> None:
        """
        The producer is stopped when the transport is lost.
        """
        self.register()
        self.descriptor.connectionLost(None)
        self.assertEqual(self.producer.calls, ["stop"])

    def test_readSize(self) -> None:
        """
        The transport's read size grows while much data arrives, and shrinks while
        little arrives.
        """
        for size, expected in (
            (READ_SIZE - 1, FileDescriptor.bufferSize),
            (READ_SIZE, BULK_READ_SIZE),
            (READ_SIZE // 2, BULK_READ_SIZE),
            (100, READ_SIZE),
        ):
            self.carrier.received(size)
            if size >= READ_SIZE - 1 or size == 100:
                self.assertEqual(self.descriptor.bufferSize, expected)


class GatherTests(SynchronousTestCase):
    """
    L{MuxCarrier.writeSequence}
    """

    def setUp(self) -> None:
        self.kernel = Kernel()
        self.connection = self.kernel.connection()
        self.producer = PushProducer()
        self.carrier = MuxCarrier(self.connection)
        self.carrier.registerProducer(self.producer)

    def test_gathered(self) -> None:
        """
        The kernel gets the parts without a copy, and the producer is not paused.
        """
        self.kernel.room = 100
        parts = [b"hello, ", b"world"]
        self.carrier.writeSequence(parts, 12)
        self.assertEqual(len(self.kernel.taken), 1)
        for taken, part in zip(self.kernel.taken[0], parts, strict=True):
            self.assertIs(taken, part)
        self.assertEqual(self.kernel.sent, b"hello, world")
        self.assertEqual(self.producer.calls, [])

    def test_full(self) -> None:
        """
        If the kernel accepts only a part, it gets the rest later, wherever the rest
        begins, and then the data written after it.
        """
        for room in range(len(b"hello, world")):
            self.setUp()
            self.kernel.room = room
            self.carrier.writeSequence([b"hello, ", b"wor", b"ld"], 12)
            self.assertEqual(self.kernel.sent, b"hello, world"[:room])
            self.assertEqual(self.producer.calls, ["pause"])
            self.kernel.room = 100
            self.carrier.writeSequence([b"!", b"?"], 2)
            self.assertEqual(len(self.kernel.taken), 1)
            self.connection.doWrite()
            self.assertEqual(self.kernel.sent, b"hello, world!?")
            self.assertEqual(self.producer.calls[-1], "resume")

    def test_many(self) -> None:
        """
        More than C{GATHERED} parts are joined before they are sent.
        """
        self.kernel.room = 100
        for count in (GATHERED, GATHERED + 1):
            self.carrier.writeSequence([b"x"] * count, count)
        self.assertEqual(len(self.kernel.taken), 1)
        self.assertEqual(self.kernel.sent, b"x" * (2 * GATHERED + 1))

    def test_others(self) -> None:
        """
        Parts are joined if the transport's own C{writeSomeData} does more than send, or
        if the socket cannot send several parts.
        """

        class Careful(Connection):
            def writeSomeData(self, data: bytes) -> int | ConnectionLost:
                return super().writeSomeData(data)

        self.kernel.room = 100
        MuxCarrier(self.kernel.connection(Careful)).writeSequence([b"a", b"b"], 2)
        old = Kernel()
        old.room = 100
        old.sendmsg = None  # type: ignore[assignment,method-assign]
        MuxCarrier(old.connection()).writeSequence([b"a", b"b"], 2)
        self.assertEqual((self.kernel.sent, old.sent), (b"ab", b"ab"))
        self.assertEqual(self.kernel.taken, [])
        carrier = MuxCarrier(transport := StringTransport())  # type: ignore[arg-type]
        carrier.writeSequence([b"a", b"b"], 2)
        self.assertEqual(transport.value(), b"ab")


class ResetTests(SynchronousTestCase):
    """
    L{DirectTransport.wasReset}
    """

    def test_whileWriting(self) -> None:
        """
        If writing gets the error of a reset, the kernel does not tell of it again, but
        the transport does.
        """
        writes: list[tuple[Callable[[DirectTransport], None], bool]] = [
            (lambda output: None, False),
            (lambda output: None, True),
            (lambda output: output.write(b"data"), True),
            (lambda output: output.writeSequence([b"da", b"ta"], 4), True),
        ]
        for write, isReset in writes:
            with (
                socket.create_server(("127.0.0.1", 0)) as listener,
                socket.create_connection(listener.getsockname()) as handle,
            ):
                other, _ = listener.accept()
                reset = struct.pack("ii", isReset, 0)
                other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                other.close()
                clock: Any = MemoryReactorClock()
                output = DirectTransport(Connection(handle, Protocol(), clock))
                write(output)
                self.assertEqual(output.wasReset(), isReset)


class OtherTests(SynchronousTestCase):
    """
    L{MuxCarrier} on other transports.
    """

    def test_transport(self) -> None:
        """
        Other transports are written to as usual, and have a push producer.
        """
        transport = StringTransport()
        carrier = MuxCarrier(transport)  # type: ignore[arg-type]
        producer = PushProducer()
        carrier.registerProducer(producer)
        self.assertTrue(transport.streaming)
        carrier.write(b"a" + b"b")
        carrier.received(100000)
        self.assertEqual(transport.value(), b"ab")
        carrier.pauseProducing()
        carrier.resumeProducing()
        self.assertEqual(producer.calls, ["pause", "resume"])
        carrier.unregisterProducer()
        self.assertIsNone(transport.producer)

    def test_canWait(self) -> None:
        """
        Reading can be paused and resumed if the transport allows it.
        """
        carrier = MuxCarrier(transport := StringTransport())  # type: ignore[arg-type]
        self.assertTrue(carrier.canWait)
        carrier.pauseReading()
        self.assertEqual(transport.producerState, "paused")
        carrier.resumeReading()
        self.assertEqual(transport.producerState, "producing")
        self.assertFalse(MuxCarrier(object()).canWait)  # type: ignore[arg-type]

    def test_unixSocket(self) -> None:
        """
        A carrier works that has the methods of TCP and not its options, as the UNIX
        sockets of an old Twisted.
        """
        left, right = socket.socketpair()
        self.addCleanup(left.close)
        self.addCleanup(right.close)

        class UNIXTransport(StringTransport):
            def setTcpNoDelay(self, enabled: bool) -> None:
                left.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

        transport = UNIXTransport()
        directlyProvides(transport, ITCPTransport)
        self.assertRaises(OSError, transport.setTcpNoDelay, True)
        MuxCarrier(transport).write(b"a")  # type: ignore[arg-type]
        self.assertEqual(transport.value(), b"a")

    def test_limitUnsent(self) -> None:
        """
        The kernel is asked to keep little unsent data if the handle is a TCP socket.
        """
        limitUnsent(None)
        with socket.socket() as handle:
            limitUnsent(handle)
            option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
            if option is not None:
                size = handle.getsockopt(socket.IPPROTO_TCP, option)
                self.assertEqual(size, UNSENT)
        with socket.socket(socket.AF_UNIX) as handle:
            limitUnsent(handle)

    def test_noLimit(self) -> None:
        """
        On a platform that cannot limit unsent data, nothing is limited and nothing
        fails.
        """
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            option = socket.TCP_NOTSENT_LOWAT
            del socket.TCP_NOTSENT_LOWAT
            self.addCleanup(setattr, socket, "TCP_NOTSENT_LOWAT", option)
        with socket.socket() as handle:
            limitUnsent(handle)

    def test_watchPeer(self) -> None:
        """
        The kernel is asked to probe the peer's machine, and to drop the connection
        within the timeout, also if the socket lies below TLS.
        """

        class Transport(StringTransport):
            def getHandle(self) -> socket.socket:
                return handle

            def setTcpKeepAlive(self, enabled: bool) -> None:
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

            def setTcpNoDelay(self, enabled: bool) -> None:
                pass

        class Wrapper(Transport):
            def getHandle(self) -> object:  # type: ignore[override]
                return object()

        directlyProvides(transport := Transport(), ITCPTransport, ISystemHandle)
        directlyProvides(wrapper := Wrapper(), ITCPTransport, ISystemHandle)
        wrapper.transport = transport  # type: ignore[attr-defined]
        for outer in (transport, wrapper):
            with socket.socket() as handle:
                MuxCarrier(outer, 60)  # type: ignore[arg-type]
                get = handle.getsockopt
                self.assertTrue(get(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
                self.assertEqual(
                    get(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), 60000
                )
                time = get(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) + get(
                    socket.IPPROTO_TCP, socket.TCP_KEEPINTVL
                ) * get(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
                self.assertLessEqual(time, 60)
                self.assertGreater(time, 50)

    test_watchPeer.skip = (  # type: ignore[attr-defined]
        None if hasattr(socket, "TCP_USER_TIMEOUT") else "not on this platform"
    )

    def test_watchNothing(self) -> None:
        """
        If no socket is found, only the transport's own keepalive is turned on.
        """
        asked: list[bool] = []

        class Transport(StringTransport):
            def setTcpKeepAlive(self, enabled: bool) -> None:
                asked.append(enabled)

            def setTcpNoDelay(self, enabled: bool) -> None:
                pass

        directlyProvides(transport := Transport(), ITCPTransport)
        MuxCarrier(transport, 60)  # type: ignore[arg-type]
        self.assertEqual(asked, [True])

    def test_watchRefused(self) -> None:
        """
        It is no error if the kernel refuses the options for probes.
        """

        class Transport(StringTransport):
            def getHandle(self) -> socket.socket:
                return handle

            def setTcpKeepAlive(self, enabled: bool) -> None:
                pass

            def setTcpNoDelay(self, enabled: bool) -> None:
                pass

        directlyProvides(transport := Transport(), ITCPTransport, ISystemHandle)
        with socket.socket(socket.AF_UNIX) as handle:
            MuxCarrier(transport, 60)  # type: ignore[arg-type]
