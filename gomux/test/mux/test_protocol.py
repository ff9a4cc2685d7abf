"""
Tests for L{gomux._mux.protocol}: opening and accepting streams.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from gomux import MuxFactory, StreamAddress
from gomux._wire.frame import Flag
from gomux.error import (
    OpenStreamError,
)
from gomux.interfaces import IMux
from gomux.test.support.helpers import (
    ABORTS,
    CLOSE_STREAM,
    Recorder,
    Recorders,
    Rig,
)
from gomux.testing import PSK, MuxPair


class InterfaceTests(SynchronousTestCase):
    """
    The interfaces, settings and counters of muxes and their factories.
    """

    def test_mux(self) -> None:
        """
        A mux provides C{IProtocol} and L{IMux}.
        """
        mux = Rig().mux
        verifyObject(IProtocol, mux)
        verifyObject(IMux, mux)

    def test_factory(self) -> None:
        """
        A L{MuxFactory} provides C{IProtocolFactory}.
        """
        verifyObject(IProtocolFactory, MuxFactory(PSK, True, clock=Clock()))

    def test_noKey(self) -> None:
        """
        A factory without a pre-shared key raises L{ValueError}.
        """
        self.assertRaises(ValueError, MuxFactory, "", True, clock=Clock())

    def test_repr(self) -> None:
        """
        The C{repr} of a mux names the peer.  No C{repr} contains the key.
        """
        rig = Rig()
        self.assertIn(" from 192.0.2.2:7000>", repr(rig.mux))
        self.assertIn("nobody", repr(rig.factory.buildProtocol(None)))
        for thing in (rig.mux, rig.factory, rig.opened().stream):
            self.assertNotIn(PSK, repr(thing))
        self.assertNotIn(PSK, str(vars(rig.factory)))

    def test_plainTransport(self) -> None:
        """
        A transport that is not a TCP connection can carry a mux.
        """
        clock = Clock()
        mux = MuxFactory(PSK, True, clock=clock, greet=False).buildProtocol(None)
        transport = StringTransport()
        mux.makeConnection(transport)
        mux.openStream(Recorders())
        self.assertEqual(transport.value(), b"")
        clock.advance(0)
        self.assertEqual(len(transport.value()), 52)
        mux.abort()
        self.assertTrue(transport.disconnected)

    def test_counters(self) -> None:
        """
        A mux counts the bytes that it reads and writes, and its streams.
        """
        rig = Rig(data=lambda recorder: recorder.transport.write(b"12345"))
        rig.opened(b"x")
        rig.run()
        self.assertEqual(rig.mux.bytesReceived, 52 + 53)
        self.assertEqual(rig.mux.bytesSent, 57)
        self.assertEqual(rig.peer.bytesReceived, 57)
        self.assertEqual(rig.mux.streamCount, 1)

    def test_carrierSettings(self) -> None:
        """
        A mux has its carrier send small pieces without delay.
        """
        self.assertTrue(Rig().carrier.noDelay)


class OpenTests(SynchronousTestCase):
    """
    Streams that this side opens.
    """

    def setUp(self) -> None:
        self.rig = Rig(isClient=True)

    def test_client(self) -> None:
        """
        A client opens streams with even IDs.
        """
        for _ in range(3):
            self.rig.open()
        self.assertEqual(self.rig.sent(), [(i, Flag.OPEN_STREAM, 0) for i in (0, 2, 4)])

    def test_server(self) -> None:
        """
        A server opens streams with odd IDs.
        """
        rig = Rig()
        for _ in range(3):
            rig.open()
        self.assertEqual(rig.sent(), [(i, Flag.OPEN_STREAM, 0) for i in (1, 3, 5)])

    def test_result(self) -> None:
        """
        C{openStream} gives the connected protocol.
        """
        factory = Recorders()
        protocol = self.successResultOf(self.rig.mux.openStream(factory))
        self.assertIs(protocol, factory.made[0])
        self.assertEqual(factory.made[0].events, ["made"])

    def test_address(self) -> None:
        """
        C{buildProtocol} gets the address of the peer's end of the stream.
        """
        addresses: list[IAddress | None] = []

        class Addressed(Recorders):
            def buildProtocol(self, addr: IAddress | None) -> Recorder:
                addresses.append(addr)
                return super().buildProtocol(addr)

        self.rig.mux.openStream(Addressed())
        self.rig.mux.openStream(Addressed())
        self.assertEqual(
            addresses, [StreamAddress(self.rig.carrier.getPeer(), i) for i in (0, 2)]
        )

    def test_dataAtOnce(self) -> None:
        """
        Data may follow OpenStream in the same write, because there is no accept message
        to wait for.
        """
        self.rig.open(made=lambda recorder: recorder.transport.write(b"hello"))
        self.assertEqual(self.rig.sent(), [(0, Flag.OPEN_STREAM, 0), (0, Flag.DATA, 5)])

    def test_noProtocol(self) -> None:
        """
        If C{buildProtocol} returns C{None}, C{openStream} fails, and nothing is sent.
        """

        class NoneFactory(Factory):
            noisy = False

            def buildProtocol(self, addr: IAddress | None) -> None:
                return None

        opening = self.rig.mux.openStream(NoneFactory())
        self.failureResultOf(opening, NoProtocol)
        self.assertEqual(self.rig.sent(), [])
        self.assertEqual(self.rig.mux.streamCount, 0)

    def test_buildProtocolFails(self) -> None:
        """
        If C{buildProtocol} raises, C{openStream} fails with that error, and nothing is
        sent.
        """

        class Broken(Factory):
            noisy = False

            def buildProtocol(self, addr: IAddress | None) -> Protocol:
                raise ZeroDivisionError

        self.failureResultOf(self.rig.mux.openStream(Broken()), ZeroDivisionError)
        self.assertEqual(self.rig.sent(), [])
        self.assertEqual(self.rig.mux.streamCount, 0)

    def test_nested(self) -> None:
        """
        A factory may open another stream inside C{buildProtocol}.
        """
        inner = Recorders()

        class Outer(Recorders):
            def buildProtocol(factory, addr: IAddress | None) -> Recorder:
                self.rig.mux.openStream(inner)
                return super().buildProtocol(addr)

        outer = Outer()
        self.rig.mux.openStream(outer)
        streamIDs = [frame[0] for frame in self.rig.sent()]
        self.assertEqual(sorted(streamIDs), [0, 2])
        self.rig.send(0, Flag.DATA, b"outer")
        self.rig.send(2, Flag.DATA, b"inner")
        self.assertEqual(inner.made[0].received, b"inner")
        self.assertEqual(outer.made[0].received, b"outer")

    def test_factoryLife(self) -> None:
        """
        A factory is started with its first stream and stopped after its last.
        """
        factory = Recorders()
        calls: list[str] = []
        factory.startFactory = lambda: calls.append("start")  # type: ignore[method-assign]
        factory.stopFactory = lambda: calls.append("stop")  # type: ignore[method-assign]
        self.rig.mux.openStream(factory)
        self.rig.mux.openStream(factory)
        factory.made[0].stream.loseConnection()
        self.rig.run()
        self.assertEqual(calls, ["start"])
        factory.made[1].stream.loseConnection()
        self.rig.run()
        self.assertEqual(calls, ["start", "stop"])

    def test_stopFails(self) -> None:
        """
        A stream ends even if the C{stopFactory} of its factory raises.
        """
        factory = Recorders()

        def fail() -> None:
            raise ZeroDivisionError

        factory.stopFactory = fail  # type: ignore[method-assign]
        self.rig.mux.openStream(factory)
        self.rig.send(0, Flag.CLOSE_STREAM)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(factory.made[0].events, ["made", "lost"])

    def test_closed(self) -> None:
        """
        C{openStream} fails on a mux that is closing or closed.
        """
        for end in (self.rig.mux.close, self.rig.mux.abort):
            end()
            self.failureResultOf(self.rig.mux.openStream(Recorders()), OpenStreamError)
            self.rig.run()
            self.failureResultOf(self.rig.mux.openStream(Recorders()), OpenStreamError)

    def test_refused(self) -> None:
        """
        A stream that the peer refuses ends like a stream that the peer closes.
        """
        recorder = self.rig.open()
        self.rig.send(0, Flag.CLOSE_STREAM)
        self.assertEqual(recorder.events, ["made", "lost"])

    def test_idsRunOut(self) -> None:
        """
        After the last ID no ID is used again: C{openStream} fails, and the mux closes
        when its last stream ends.
        """
        mux = self.rig.mux
        mux._nextID = 2**32 - 4
        first, last = self.rig.open(), self.rig.open()
        self.assertEqual(
            self.rig.sent(),
            [(i, Flag.OPEN_STREAM, 0) for i in (2**32 - 4, 2**32 - 2)],
        )
        self.failureResultOf(self.rig.mux.openStream(Recorders()), OpenStreamError)
        first.stream.loseConnection()
        self.rig.send(2**32 - 2, Flag.DATA, b"still here")
        self.assertEqual(last.received, b"still here")
        last.stream.loseConnection()
        self.assertEqual(self.rig.sent()[-1], (0, Flag.CLOSE_MUX, 0))

    def test_peersIDsRemain(self) -> None:
        """
        A mux that has no IDs left takes the peer's streams while it has streams.
        """
        rig = Rig(isClient=True)
        rig.mux._nextID = 2**32 - 2
        rig.open()
        self.assertFalse(rig.mux.canOpen)
        rig.send(1, Flag.OPEN_STREAM)
        self.assertEqual(rig.mux.streamCount, 2)

    def test_lastIDUnused(self) -> None:
        """
        A mux that has no IDs left and no streams closes, also if the last stream got no
        protocol.
        """
        rig = Rig(isClient=True)
        rig.mux._nextID = 2**32 - 2
        factory = Factory()
        factory.protocol = lambda: None  # type: ignore[assignment]
        self.failureResultOf(rig.mux.openStream(factory))
        self.assertFalse(rig.mux.takesStreams)


class AcceptTests(SynchronousTestCase):
    """
    Streams that the peer opens.
    """

    def test_bothSides(self) -> None:
        """
        Both sides can open streams at once, and each stream gets its own data.
        """
        served, called = Recorders(), Recorders()
        pair = MuxPair(served, called)
        there, here = Recorders(), Recorders()
        for _ in range(3):
            pair.client.openStream(there)
            pair.server.openStream(here)
        pair.flush()
        for i in range(3):
            there.made[i].stream.write(b"from client %d" % i)
            here.made[i].stream.write(b"from server %d" % i)
        pair.flush()
        for i in range(3):
            self.assertEqual(served.made[i].received, b"from client %d" % i)
            self.assertEqual(called.made[i].received, b"from server %d" % i)
            self.assertEqual(served.made[i].stream.streamID, 2 * i)
            self.assertEqual(called.made[i].stream.streamID, 2 * i + 1)

    def test_outOfOrder(self) -> None:
        """
        The peer may use IDs in any order.
        """
        rig = Rig()
        for streamID in (4, 0, 2**32 - 2, 2):
            rig.send(streamID, Flag.OPEN_STREAM)
            rig.send(streamID, Flag.DATA, b"%d" % streamID)
        self.assertEqual(
            [bytes(recorder.received) for recorder in rig.streams.made],
            [b"4", b"0", b"4294967294", b"2"],
        )

    def test_again(self) -> None:
        """
        The peer may reuse the ID of a stream that has ended.
        """
        rig = Rig()
        for _ in range(2):
            rig.send(0, Flag.OPEN_STREAM)
            rig.streams.made[-1].stream.loseConnection()
            self.assertEqual(rig.sent(), [CLOSE_STREAM])

    def test_refused(self) -> None:
        """
        If C{buildProtocol} returns C{None}, the stream is refused, and the mux goes on.
        (Trap 11 in docs/design.rst.)
        """
        rig = Rig()
        rig.streams.buildProtocol = lambda addr: None  # type: ignore[method-assign,assignment,return-value]
        rig.send(0, Flag.OPEN_STREAM)
        self.assertEqual(rig.sent(), [ABORTS, CLOSE_STREAM])
        rig.send(0, Flag.DATA, b"late")
        self.assertEqual(rig.sent(), [])
        del rig.streams.buildProtocol
        rig.send(2, Flag.OPEN_STREAM)
        self.assertEqual(len(rig.streams.made), 1)

    def test_noFactory(self) -> None:
        """
        A mux without a factory for streams refuses the peer's streams.
        """
        clock = Clock()
        rig = Rig(clock=clock, factory=MuxFactory(PSK, False, clock=clock))
        rig.send(0, Flag.OPEN_STREAM)
        self.assertEqual(rig.sent(), [ABORTS, CLOSE_STREAM])
        self.assertIsNone(rig.reason())

    def test_buildProtocolFails(self) -> None:
        """
        If C{buildProtocol} raises, the stream is refused and the error is logged.
        """
        rig = Rig()

        def fail(addr: Any) -> Any:
            raise ZeroDivisionError

        rig.streams.buildProtocol = fail  # type: ignore[method-assign]
        rig.send(0, Flag.OPEN_STREAM)
        self.assertEqual(rig.sent(), [ABORTS, CLOSE_STREAM])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsNone(rig.reason())

    def test_ownFactory(self) -> None:
        """
        A mux can have a C{streamFactory} of its own in place of that of its factory.
        """
        rig = Rig()
        rig.mux.streamFactory = own = Recorders()
        rig.send(0, Flag.OPEN_STREAM)
        self.assertEqual((len(own.made), len(rig.streams.made)), (1, 0))
