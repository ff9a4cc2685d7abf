"""
Tests for muxes over transports that are no TCP connections: they have only what
L{ITransport} asks for, or less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IProtocol, ITransport
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gomux import Limits, MuxFactory, MuxProtocol
from gomux._carrier.transport import NoAddress
from gomux._mux.muxlife import DROP_TIMEOUT
from gomux._wire.keyring import Keyring
from gomux._wire.keysearch import KEYS_A_TURN
from gomux.endpoints import MuxServerEndpoint
from gomux.error import (
    ConnectionClosed,
    GomuxError,
    LimitExceeded,
    PeerClosedConnection,
    Truncated,
)
from gomux.session import Session
from gomux.test.support.certificates import CERTIFICATE, NAME
from gomux.test.support.helpers import Parts, Recorder, Recorders
from gomux.testing import PSK

#: How a transport tells of its end, by name.  Some give a reason and some give C{None};
#: some tell nothing.
REPORTS: dict[str, Callable[[Any], object] | None] = {
    "failure": lambda protocol: protocol.connectionLost(Failure(ConnectionDone())),
    "None": lambda protocol: protocol.connectionLost(None),
    "no argument": lambda protocol: protocol.connectionLost(),
    "twice": lambda protocol: [protocol.connectionLost(None) for _ in range(2)],
    "nothing": None,
}


@implementer(ITransport)
class Meagre:
    """
    A transport with the methods of L{ITransport} alone.

    @ivar ends: whether the end was told.
    """

    other: Meagre

    def __init__(
        self, clock: Clock, protocol: Any, report: str, isSudden: bool
    ) -> None:
        """
        @param report: one of L{REPORTS}.
        @param isSudden: whether C{loseConnection} tells of the end before it returns.
        """
        self.clock = clock
        self.protocol = protocol
        self.report = REPORTS[report]
        self.isSudden = isSudden
        self.ends = False
        self.closing = False

    def write(self, data: bytes) -> None:
        if not self.closing:
            self.clock.callLater(0, self.other.receive, data)

    def receive(self, data: bytes) -> None:
        if not self.ends:
            self.protocol.dataReceived(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if not self.closing:
            self.closing = True
            self.clock.callLater(0, self.other.end)
            if self.isSudden:
                self.end()
            else:
                self.clock.callLater(0, self.end)

    def end(self) -> None:
        self.closing = True
        if not self.ends:
            self.ends = True
            if self.report is not None:
                self.report(self.protocol)

    def getPeer(self) -> Any:
        raise NotImplementedError()

    def getHost(self) -> Any:
        return None


class MeagreTests(SynchronousTestCase):
    """
    All ways of ending, over transports without C{abortConnection}, without producers,
    without half-close and without addresses.
    """

    def setUp(self) -> None:
        self.clock = Clock()

    def connect(self, report: str, isSudden: bool = False, keys: int = 1) -> None:
        """
        Connect two muxes, and open a stream.
        """
        self.served, self.opened = Recorders(), Recorders()
        keyring = Keyring({**{f"x{n}": f"key {n}" for n in range(keys - 1)}, "k": PSK})
        settings: dict[str, Any] = {"clock": self.clock}
        settings["limits"] = Limits(closeTimeout=60.0)
        self.factories = (
            MuxFactory(PSK, True, Recorders(), **settings),
            MuxFactory(keyring, False, self.served, **settings),
        )
        self.muxes: list[MuxProtocol] = [
            factory.buildProtocol(None) for factory in self.factories
        ]
        self.transports = [
            Meagre(self.clock, mux, report, isSudden) for mux in self.muxes
        ]
        here, there = self.transports
        here.other, there.other = there, here
        self.muxes[1].makeConnection(there)
        self.muxes[0].makeConnection(here)
        self.muxes[0].openStream(self.opened)
        self.run_()

    def run_(self) -> None:
        for _ in range(100):
            self.clock.advance(0)

    def both(self) -> list[Recorder]:
        return [*self.opened.made, *self.served.made]

    def check(self, *reasons: type[GomuxError]) -> None:
        """
        Check that both muxes and their streams have ended within the time for that, and
        that nothing is left.
        """
        for _ in range(20):
            self.run_()
            self.clock.advance(DROP_TIMEOUT)
        for mux in self.muxes:
            self.assertIsInstance(self.successResultOf(self.closed(mux)), reasons)
        for recorder in self.both():
            self.assertEqual(recorder.events.count("lost"), 1)
            self.assertIsInstance(recorder.reason, (ConnectionDone, ConnectionLost))
        for factory in self.factories:
            self.assertEqual((factory.muxes, factory.pool.muxes), ([], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def closed(self, mux: MuxProtocol) -> Any:
        closed = mux.whenClosed()
        self.run_()
        return closed

    def test_ends(self) -> None:
        """
        A mux that is closed, is aborted, drops its peer for an error, or loses its
        carrier comes to its end, and so do its streams and its peer.
        """
        ends: dict[str, Callable[[], object]] = {
            "close": lambda: self.muxes[0].close(),
            "server closes": lambda: self.muxes[1].close(),
            "drain": lambda: self.muxes[0].drain(1.0),
            "abort": lambda: self.muxes[0].abort(),
            "abort twice": lambda: [mux.abort() for mux in self.muxes[:1] * 2],  # type: ignore[func-returns-value]
            "error": lambda: self.muxes[1].evict(),
            "garbage": lambda: self.transports[0].receive(bytes(1000)),
            "lost": lambda: self.transports[0].loseConnection(),
        }
        for report in REPORTS:
            for isSudden in (False, True):
                for name, end in ends.items():
                    if report == "nothing" and name == "lost":
                        continue  # Nobody can know.
                    with self.subTest(report=report, isSudden=isSudden, end=name):
                        self.connect(report, isSudden)
                        end()
                        # A peer that is told nothing notices nothing by itself.
                        if report == "nothing":
                            self.run_()
                            self.muxes[1].abort()
                            self.muxes[0].abort()
                        self.check(GomuxError)

    def test_reasons(self) -> None:
        """
        The reasons are the same as over any other carrier.
        """
        for report in ("failure", "None", "no argument", "twice"):
            self.connect(report)
            self.muxes[0].close()
            self.check(ConnectionClosed, PeerClosedConnection)
            self.connect(report)
            self.muxes[0].abort()
            self.check(ConnectionClosed, Truncated)
            self.connect(report)
            self.muxes[1].evict()
            self.check(LimitExceeded, Truncated)

    def test_dropTimeout(self) -> None:
        """
        A mux does not wait for long for a transport that was told to go.
        """
        self.connect("nothing")
        closed = self.muxes[0].whenClosed()
        self.muxes[0].abort()
        self.clock.advance(DROP_TIMEOUT - 0.001)
        self.assertNoResult(closed)
        self.clock.advance(0.001)
        self.run_()
        self.assertIsInstance(self.successResultOf(closed), ConnectionClosed)

    def test_late(self) -> None:
        """
        A transport that reports its end after the mux has given it up is ignored.
        """
        self.connect("nothing")
        self.muxes[0].abort()
        self.clock.advance(DROP_TIMEOUT)
        self.muxes[0].connectionLost(Failure(ConnectionLost()))
        self.muxes[0].dataReceived(b"late")
        self.muxes[1].abort()
        self.check(GomuxError)

    def test_raises(self) -> None:
        """
        A transport that raises when it is written to is gone.
        """
        for index in (0, 1):
            self.connect("failure")

            def fail(data: object) -> None:
                raise ZeroDivisionError

            self.transports[index].write = fail  # type: ignore[method-assign]
            self.both()[index].stream.write(b"hello")
            self.run_()
            self.check(Truncated)

    def test_manyKeys(self) -> None:
        """
        A server that looks for the peer's key in several turns goes on although it
        cannot pause the transport.
        """
        self.connect("failure", keys=KEYS_A_TURN * 3)
        self.run_()
        self.assertEqual(len(self.served.made), 1)
        self.muxes[0].close()
        self.check(ConnectionClosed, PeerClosedConnection)

    def test_stream(self) -> None:
        """
        A stream has all of its methods.
        """
        self.connect("failure")
        here, there = (recorder.stream for recorder in self.both())
        for stream in (here, there):
            self.assertEqual(stream.getPeer().carrier, NoAddress())
            self.assertEqual(stream.getHost().carrier, NoAddress())
            stream.setTcpKeepAlive(True)
            stream.setTcpNoDelay(True)
            self.assertFalse(stream.getTcpKeepAlive())
            self.assertIn("NoAddress", repr(stream))
        there.pauseProducing()
        here.write(bytes(300000))
        self.run_()
        there.resumeProducing()
        self.run_()
        self.assertEqual(len(self.served.made[0].received), 300000)
        here.loseWriteConnection()
        self.run_()
        self.assertEqual(self.served.made[0].events[-1], "lost")
        self.muxes[1].close()
        self.check(ConnectionClosed, PeerClosedConnection)

    def test_startTLS(self) -> None:
        """
        TLS in such a stream works, and comes to its end with the carrier.
        """
        self.connect("None")
        here, there = (recorder.stream for recorder in self.both())
        there.startTLS(CERTIFICATE.options())
        here.startTLS(optionsForClientTLS(NAME, CERTIFICATE))  # type: ignore[arg-type]
        here.write(b"secret")
        self.run_()
        self.assertEqual(self.served.made[0].received, b"secret")
        self.transports[0].loseConnection()
        self.check(Truncated)


@implementer(ITransport)
class Lone(Meagre):
    """
    A transport of that kind whose other end takes everything, and whose address is
    there until it ends.
    """

    def receive(self, data: bytes) -> None:
        pass

    def getPeer(self) -> Any:
        return None if self.ends else IPv4Address("TCP", "192.0.2.1", 7000)

    getHost = getPeer


class StandardEndpoint:
    """
    An endpoint that listens, as C{stdio:} does, by connecting one protocol and
    returning its transport.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def listen(self, factory: Any) -> Any:
        protocol: IProtocol = factory.buildProtocol(None)
        self.transport = Lone(self.clock, protocol, "None", False)
        self.transport.other = Lone(self.clock, Recorder(), "nothing", False)
        self.transport.other.other = self.transport
        protocol.makeConnection(self.transport)
        return succeed(self.transport)


class StandardEndpointTests(SynchronousTestCase):
    """
    Endpoints and sessions over C{stdio:}, which has no port.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.carrier: Any = StandardEndpoint(self.clock)

    def run_(self) -> None:
        for _ in range(10):
            self.clock.advance(0)

    def test_endpoint(self) -> None:
        """
        L{MuxServerEndpoint} serves it, and stops.
        """
        endpoint = MuxServerEndpoint(self.clock, self.carrier, PSK)
        port = self.successResultOf(endpoint.listen(Recorders()))
        address: IAddress = port.getHost()
        self.assertIsInstance(address, IPv4Address)
        self.clock.advance(1)
        self.assertEqual(len(port.factory.muxes), 1)
        stopped = port.close()
        self.clock.pump([1.0] * 20)
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual(port.factory.muxes, [])

    def test_session(self) -> None:
        """
        L{Session.server} serves it too, and a session knows its addresses after its
        end.
        """
        serving = Session.server(self.clock, self.carrier, PSK, silentPeers=True)
        # stdio: connects before there is a port.
        listener = self.successResultOf(serving)
        session = self.successResultOf(listener.accept())
        self.successResultOf(listener.close())
        self.carrier.transport.loseConnection()
        self.run_()
        self.assertIsInstance(session.localAddr(), IPv4Address)
        self.assertIsInstance(session.remoteAddr(), IPv4Address)


class PartTests(SynchronousTestCase):
    """
    What the carrier can do depends on the transport.
    """

    def test_canWait(self) -> None:
        """
        Reading can be paused only if it can be resumed.
        """
        clock = Clock()
        mux = MuxFactory(PSK, True, clock=clock).buildProtocol(None)
        transport: Any = Lone(clock, mux, "None", False)
        transport.other = transport
        mux.makeConnection(transport)
        carrier = Parts(mux).carrier
        self.assertFalse(carrier.canWait)
        transport.pauseProducing = lambda: None
        self.assertFalse(carrier.canWait)
        carrier.resumeReading()
        transport.resumeProducing = lambda: None
        self.assertTrue(carrier.canWait)
        mux.abort()
