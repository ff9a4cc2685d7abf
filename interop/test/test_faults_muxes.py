"""
Faults and abuse: which mux a new stream goes over, and when there is none.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.application.internet import ClientService
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.ssl import PrivateCertificate, optionsForClientTLS

from gomux import MuxClientEndpoint, MuxFactory, Session
from gomux._mux.dialler import Dialler
from gomux._wire.keyring import Keyring
from gomux.error import (
    ConnectionClosed,
    NotAuthenticated,
    OpenStreamError,
    PeerClosedConnection,
)
from gomux.test.support.certificates import NAME, makePEM
from interop.faults.attacker import PSK
from interop.faults.cases import (
    CLIENT,
    SERVER,
    Apps,
    FaultTestCase,
    Quiet,
    Subject,
    inBothRoles,
    row,
)

#: How many streams are asked for before there is a mux.
MANY = 5000


class WhichMux(FaultTestCase):
    """
    Two muxes of one client to one server.
    """

    async def setUpBoth(self, isOpener: bool) -> tuple[Any, Any]:
        """
        Make a server and a dialler.

        @param isOpener: whether the client opens the streams.
        @return: the side that opens streams, and the other.
        """
        self.apps = Apps()
        served, dialled = (self.apps, None) if isOpener else (None, self.apps)
        server = MuxFactory(PSK, False, served, clock=reactor)
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", self.listen(server))
        dialler = Dialler(PSK, carrier, 2.0, dialled, clock=reactor)
        self.addCleanup(lambda: gatherResults([m.close() for m in dialler.muxes]))
        self.addCleanup(dialler.stop)
        dialler.start()
        await self.eventually(lambda: server.pool.muxes and dialler.pool.muxes)
        return (dialler, server) if isOpener else (server, dialler)

    async def echo(self, opener: Any) -> Any:
        """
        Open a stream and have something echoed.
        """
        app: Any = await opener.pool.openStream(Apps(Quiet))
        app.transport.write(b"ECHO")
        await self.eventually(lambda: app.received == b"ECHO")
        return app

    async def assertGoesOn(self, isOpener: bool) -> None:
        """
        Check that streams can be opened after the IDs have run out, while an older
        stream stays open.
        """
        opener, other = await self.setUpBoth(isOpener)
        old = opener.muxes[0]
        old._nextID += 2**32 - 12
        held = await self.echo(opener)
        for _ in range(12):
            (await self.echo(opener)).transport.loseConnection()
        held.received.clear()
        held.transport.write(b"ECHO")
        await self.eventually(lambda: held.received == b"ECHO")
        self.assertEqual((len(opener.muxes), len(other.muxes)), (2, 2))
        held.transport.loseConnection()
        await old.whenClosed()
        await self.eventually(lambda: (len(opener.muxes), len(other.muxes)) == (1, 1))
        await self.echo(opener)

    @row(57, pairing=CLIENT)
    async def test_idsOfClient(self) -> None:
        """
        The side that connects opens streams beyond its last ID.
        """
        await self.assertGoesOn(isOpener=True)

    @row(57, pairing=SERVER)
    async def test_idsOfServer(self) -> None:
        """
        The side that listens opens streams beyond its last ID.
        """
        await self.assertGoesOn(isOpener=False)

    @row(58, pairing=SERVER)
    async def test_otherPath(self) -> None:
        """
        If the client's first path is dead and the client has come back by another,
        streams go over the mux that lives.
        """
        apps = Apps()
        keys = Keyring({"alice": PSK, "bob": "the key of bob"})
        server = MuxFactory(keys, False, clock=reactor)
        number = self.listen(server)
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", number)
        muxes: list[Any] = []
        for _ in range(2):
            mux: Any = await carrier.connect(MuxFactory(PSK, True, apps, clock=reactor))
            self.addCleanup(mux.abort)
            await self.eventually(lambda mux=mux: mux.authenticated)
            muxes.append(mux)
        # Nothing that goes to the old path arrives any more.
        muxes[0].transport.pauseProducing()
        for _ in range(6):
            await self.echo(server)


@inBothRoles
class ComesUpLate(FaultTestCase):
    """
    A mux that comes up while its side is being stopped.
    """

    async def assertClosed(self, stopping: MuxFactory, other: MuxFactory) -> None:
        """
        Check that the other side gets a CloseMux, whether the connection was made
        before the stop or after.
        """
        client, server = (stopping, other) if stopping.isClient else (other, stopping)
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", self.listen(server))
        before: Any = await carrier.connect(client)
        stopping.retire()
        after: Any = await carrier.connect(client)
        reasons = []
        for mux in (before, after):
            reasons.append(await mux.whenClosed())
        await self.eventually(lambda: not (client.muxes or server.muxes))
        kind = ConnectionClosed if stopping.isClient else PeerClosedConnection
        self.assertEqual([type(reason) for reason in reasons], [kind, kind])
        if stopping.isClient:
            self.assertIsInstance(server.pool.lastReason, PeerClosedConnection)

    @row(72)
    async def test_comesUp(self) -> None:
        """
        A mux that comes up late is closed in good order, and leaves nothing behind.
        """
        isClient = self.pairing == CLIENT
        stopping, other = (
            MuxFactory(PSK, role, clock=reactor) for role in (isClient, not isClient)
        )
        await self.assertClosed(stopping, other)


class Stranger(FaultTestCase):
    """
    A server that does not have the client's key, or not the certificate.
    """

    async def assertTells(self, carrier: Any) -> Any:
        """
        Check what programs see that use an endpoint, an endpoint under a
        C{ClientService} and a session.

        @return: the last error.
        """
        endpoint = MuxClientEndpoint(reactor, carrier, PSK, timeout=1.0)
        self.addCleanup(endpoint.close)
        made: list[Any] = []

        def make() -> Quiet:
            made.append(Quiet())
            return made[-1]

        service = ClientService(endpoint, Apps(make), lambda _: 0.01)
        service.startService()
        await self.eventually(lambda: len(made) > 2)
        await service.stopService()
        # The service itself may have closed the last.
        for app in made[:-1]:
            self.assertIsInstance(await app.lost, NotAuthenticated)
        session = await Session.client(reactor, carrier, PSK)
        conn = await session.openStream()
        error = await self.assertFailure(conn.read(), NotAuthenticated)
        return error

    @row(85, pairing=CLIENT)
    async def test_wrongKey(self) -> None:
        """
        If the server has another key, programs learn that, and connect less and less
        often.
        """
        server = Subject("another key", False, Apps())
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", self.listen(server))
        await self.assertTells(carrier)
        self.assertLess(len(server.made), 8)

    @row(85, pairing=CLIENT)
    async def test_wrongCertificate(self) -> None:
        """
        If the client does not trust the server's certificate, programs learn that.
        """
        certificate = PrivateCertificate.loadPEM(makePEM())
        server = Subject(PSK, False, Apps())
        port = reactor.listenSSL(
            0, server, certificate.options(), interface="127.0.0.1"
        )
        self.addCleanup(port.stopListening)
        carrier = wrapClientTLS(
            optionsForClientTLS(NAME),
            TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port),
        )
        error = await self.assertTells(carrier)
        self.assertIsInstance(error.carrierError, SSL.Error)
        self.assertIn("certificate", str(error))
        self.assertLess(len(server.made), 8)

    @row(85, pairing=CLIENT)
    async def test_unreachable(self) -> None:
        """
        If nobody listens, programs learn that.
        """
        port = reactor.listenTCP(0, Subject(PSK, False, Apps()), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", number)
        endpoint = MuxClientEndpoint(reactor, carrier, PSK, timeout=0.5)
        error = await self.assertFailure(endpoint.connect(Apps()), OpenStreamError)
        self.assertIsInstance(error.reason, ConnectionRefusedError)


class NoMuxYet(FaultTestCase):
    """
    A client endpoint whose mux is not up yet.
    """

    @row(83, pairing=CLIENT)
    async def test_thousands(self) -> None:
        """
        Thousands of calls of C{connect} before the mux is up all succeed, and each
        stream works.
        """
        apps = Apps()
        carrier = TCP4ClientEndpoint(
            reactor, "127.0.0.1", self.listen(Subject(PSK, False, apps))
        )
        endpoint = MuxClientEndpoint(reactor, carrier, PSK)
        self.addCleanup(endpoint.close)
        near: list[Any] = await gatherResults(
            [endpoint.connect(Apps(Quiet)) for _ in range(MANY)]
        )
        for app in near:
            app.transport.write(b"ECHO")
        await self.eventually(lambda: all(app.received for app in near))
        self.assertEqual({bytes(app.received) for app in near}, {b"ECHO"})
        self.assertEqual(len(apps.streams), MANY)
