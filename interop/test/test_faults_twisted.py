"""
Faults and abuse: what programs for Twisted do with streams, and carriers that are not
TCP connections.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.logger import LogLevel
from twisted.python.context import get as getContext
from twisted.python.failure import Failure
from twisted.python.log import ILogContext
from zope.interface import implementer

from gomux import MuxProtocol, StreamAddress
from gomux.error import AuthenticationFailed, ConnectionClosed, Truncated
from gomux.test.support.certificates import CERTIFICATE
from interop.faults.attacker import CLOSE, CLOSE_MUX, DATA, KEEPALIVE, PSK
from interop.faults.cases import App, Apps, RowTestCase, Subject, inBothRoles, row


@implementer(ITransport)
class Meagre:
    """
    A TCP transport with no more than L{ITransport} asks for.
    """

    def __init__(self, transport: Any) -> None:
        self.write = transport.write
        self.writeSequence = transport.writeSequence
        self.loseConnection = transport.loseConnection

    def getPeer(self) -> Any:
        raise NotImplementedError()

    getHost = getPeer


class MeagreMux(MuxProtocol):
    """
    A mux over such a transport, which gives no reason for its end.
    """

    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(Meagre(transport))  # type: ignore[arg-type]

    def connectionLost(self, reason: Failure | None = connectionDone) -> None:
        super().connectionLost(None)  # type: ignore[arg-type]


class MeagreSubject(Subject):
    """
    Makes such muxes.
    """

    def buildProtocol(self, addr: Any) -> MuxProtocol:
        return MeagreMux(self)


class Exiting(App):
    """
    An application that raises what is no C{Exception}.
    """

    def dataReceived(self, data: bytes) -> None:
        if data == b"data":
            raise SystemExit
        super().dataReceived(data)


class Looking(App):
    """
    Notes in which log context it gets data.
    """

    system = ""

    def dataReceived(self, data: bytes) -> None:
        self.system = getContext(ILogContext)["system"]
        super().dataReceived(data)


@inBothRoles
class Programs(RowTestCase):
    """
    Programs for TCP find with streams what they find there.
    """

    @row(71)
    async def test_exits(self) -> None:
        """
        An application that raises C{SystemExit} loses its stream only.
        """
        await self.start(Apps(Exiting))
        streamID, app = await self.stream()
        self.attacker.send(DATA, streamID, b"data")
        self.assertIsInstance(await self.assertStreamEnds(app, streamID), SystemExit)
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    @row(81)
    async def test_addresses(self) -> None:
        """
        The addresses of a stream are of the carrier's type.
        """
        await self.start()
        streamID, app = await self.stream()
        carrier = self.mux.getCarrier()
        for address, expected in (
            (app.transport.getPeer(), carrier.getPeer()),
            (app.transport.getHost(), carrier.getHost()),
        ):
            self.assertIsInstance(address, IPv4Address)
            self.assertEqual(address.port, expected.port)  # type: ignore[attr-defined]
            self.assertEqual(address, StreamAddress(expected, streamID))

    @row(82)
    async def test_smallWrites(self) -> None:
        """
        Small writes over TLS in a stream are put together.
        """
        self.makeSubject()
        other = Subject(PSK, not self.isClient, Apps())
        pair = (self.subject, other) if self.isClient else (other, self.subject)
        connected = self.subject.next()
        await self.connectTo(self.listen(pair[1]), pair[0])
        mux = await connected
        near: Any = await mux.openStream(self.apps)
        await self.eventually(lambda: other.streamFactory.streams)  # type: ignore[union-attr]
        far = other.streamFactory.streams[near.transport.streamID]  # type: ignore[union-attr]
        far.transport.startTLS(CERTIFICATE.options())
        near.transport.startTLS(CertificateOptions())
        near.transport.write(b"first")
        await self.eventually(lambda: far.received == b"first")
        before = mux.bytesSent
        for _ in range(10000):
            near.transport.write(b"0123456789")
        await self.eventually(lambda: len(far.received) == 100005)
        self.assertLess(mux.bytesSent - before, 110000)
        near.transport.loseConnection()
        for app in (near, far):
            self.assertIsInstance(await app.lost, ConnectionDone)

    @row(84)
    async def test_stops(self) -> None:
        """
        When the reactor stops, the peer gets CloseMux, and nobody is warned.
        """
        await self.start()
        _, app = await self.stream()
        # A server sends nothing to a peer that has not shown its key.
        self._bystander.send(KEEPALIVE)
        await self.eventually(lambda: self._other.authenticated)
        self.events.clear()
        stopped = self.subject._reactorStops()
        for mux, attacker in (
            (self.mux, self.attacker),
            (self._other, self._bystander),
        ):
            await attacker.untilFrame(CLOSE_MUX)
            attacker.transport.loseConnection()
            self.assertIsInstance(await mux.whenClosed(), ConnectionClosed)
        await stopped
        self.assertIsInstance(await app.lost, ConnectionDone)
        lines = [e for e in self.events if e["log_namespace"].startswith("gomux")]
        self.assertEqual([e["log_level"] for e in lines], [LogLevel.info] * 2)

    @row(86)
    async def test_prefix(self) -> None:
        """
        The log lines of an application have its own prefix.
        """
        await self.start(Apps(Looking))
        streamID, app = await self.stream()
        self.attacker.send(DATA, streamID, b"data")
        await self.eventually(lambda: app.received)
        self.assertEqual(app.system, "Looking")


@inBothRoles
class MeagreCarriers(RowTestCase):
    """
    Muxes over transports with less than TCP's.
    """

    def makeSubject(
        self, apps: Any = None, limits: Any = None, **settings: Any
    ) -> None:
        super().makeSubject(apps, limits, **settings)
        self.subject.__class__ = MeagreSubject

    @row(55)
    async def test_ends(self) -> None:
        """
        All ways of ending lead to the end of the mux and of its streams.
        """
        for end, reason in (
            (lambda: self.mux.abort(), ConnectionClosed),
            (lambda: self.attacker.transport.write(bytes(1000)), AuthenticationFailed),
            (lambda: self.attacker.transport.loseConnection(), Truncated),
            (lambda: self.attacker.transport.abortConnection(), Truncated),
        ):
            await self.start()
            streamID, app = await self.stream()
            self.attacker.send(DATA, streamID, b"ECHO")
            await self.attacker.until(lambda s=streamID: self.attacker.data(s))
            end()
            closed = self.mux.whenClosed()
            self.assertIsInstance(await closed.addTimeout(5, reactor), reason)
            self.assertIsInstance(app.reason, reason)
            self.assertEqual(app.losses, 1)

    @row(55)
    async def test_streamEnds(self) -> None:
        """
        A stream that the peer closes ends in good order, and the mux goes on.
        """
        await self.start()
        streamID, app = await self.stream()
        self.attacker.send(CLOSE, streamID)
        self.assertIsInstance(await app.lost, ConnectionDone)
        await self.assertLives()
