"""
Faults and abuse: the connections of a tunnel, whose ends are cut, stuck, silent, of
another kind than TCP, or refused.
"""

from __future__ import annotations

import os
import stat
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    ProcessEndpoint,
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from gomux import Limits
from gomux.endpoints._listening import serverEndpoint
from gomux.test.support.certificates import CERTIFICATE, NAME
from gomux.tunnel import TunnelLimits, forward, target
from interop.faults.attacker import (
    CLOSE,
    CLOSE_READ,
    CLOSE_WRITE,
    DATA,
    OPEN,
    UPDATE,
    WINDOW,
)
from interop.faults.cases import App, RowTestCase, inBothRoles, row

#: More than a stream's first window, and less than that and the stream's buffer.
SIZE = WINDOW + 50000

HEADER = b"PROXY TCP4 198.51.100.7 198.51.100.8 1111 2222\r\n"


@implementer(IHalfCloseableProtocol)
class Answers(Protocol):
    """
    A server that sends C{SIZE} bytes, and does nothing more.
    """

    transport: Any = None
    lost = False

    def connectionMade(self) -> None:
        self.transport.write(bytes(SIZE))

    def readConnectionLost(self) -> None:
        pass

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True


class Endless(Answers):
    """
    A server that sends all that is taken from it.

    @ivar sent: how many bytes it has sent.
    """

    sent = 0

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self.transport.write(bytes(65536))
        self.sent += 65536

    def stopProducing(self) -> None:
        pass


class Stuck(Answers):
    """
    A server that reads nothing.
    """

    def connectionMade(self) -> None:
        self.transport.pauseProducing()


class Rude(Answers):
    """
    A TLS server that ends without a C{close_notify}.
    """

    def connectionMade(self) -> None:
        self.transport.write(bytes(10 * SIZE))
        reactor.callLater(0.05, self._end)

    def _end(self) -> None:
        if self.transport._handshakeDone:
            self.transport.transport.loseConnection()
        else:
            reactor.callLater(0.05, self._end)


class Servers(Factory):
    """
    Makes servers.

    @ivar made: the servers.
    """

    noisy = False

    def __init__(self, kind: type[Answers]) -> None:
        self.kind = kind
        self.made: list[Answers] = []

    def buildProtocol(self, addr: object) -> Answers:
        self.made.append(self.kind())
        return self.made[-1]


@inBothRoles
class TunnelEnds(RowTestCase):
    """
    Streams that continue as connections to a target.
    """

    async def startTarget(
        self, kind: Any, limits: Limits | None = None, **own: Any
    ) -> None:
        """
        Connect an attacker with a subject whose streams go to a target.

        @param kind: the class of the target's servers, or an endpoint.
        """
        if isinstance(kind, type):
            self.servers = Servers(kind)
            port = self.listen(self.servers)
            kind = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        self.tunnel = target("the target", kind, reactor, TunnelLimits(**own))
        self.makeSubject(self.tunnel, limits)
        self.mux, self.attacker = await self.pair()

    def frames(self, streamID: int) -> list[tuple[int, ...]]:
        return [frame[:3] for frame in self.attacker.frames if frame[1] == streamID]

    async def assertAborted(self, streamID: int) -> None:
        """
        Check that the peer is told of an abort.
        """
        await self.attacker.untilFrame(CLOSE, streamID)
        aborted = [(UPDATE, streamID, 0), (CLOSE, streamID, 0)]
        self.assertEqual(self.frames(streamID)[-2:], aborted)
        self.assertIsNone(self.mux.reason)

    async def pour(self, streamID: int) -> None:
        """
        Send data until no more credit comes.
        """
        sent = still = 0
        while still < 20:
            still += 1
            while sent + 65536 <= WINDOW + self.attacker.credit(streamID):
                self.attacker.send(DATA, streamID, bytes(65536))
                sent += 65536
                still = 0
            await deferLater(reactor, 0.01)

    @row(53)
    async def test_cutBeforeSent(self) -> None:
        """
        If a target resets its connection while its answer waits for the peer, the peer
        gets the whole answer and then an abort.
        """
        await self.startTarget(Answers)
        streamID = self.attacker.open()
        stream = await self.eventually(lambda: self.mux._streams.byID.get(streamID))
        await self.eventually(
            lambda: len(self.attacker.data(streamID)) + stream.unsent == SIZE
        )
        self.assertTrue(stream.unsent)
        self.servers.made[0].transport.abortConnection()
        await self.eventually(lambda: self.servers.made[0].lost)
        self.assertEqual(self.attacker.count(CLOSE, streamID), 0)
        self.attacker.send(UPDATE, streamID, length=65536)
        await self.assertAborted(streamID)
        self.assertEqual(len(self.attacker.data(streamID)), SIZE)
        self.assertEqual(len(self.logged("the target", "cut short")), 1)
        await self.eventually(lambda: not self.tunnel.bridges)

    @row(53)
    async def test_tls(self) -> None:
        """
        If a TLS target ends without a C{close_notify}, a slow peer gets the whole
        answer and then an abort.
        """
        self.servers = Servers(Rude)
        factory = TLSMemoryBIOFactory(CERTIFICATE.options(), False, self.servers)
        port = self.listen(factory)
        plain = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        options = optionsForClientTLS(NAME, CERTIFICATE)
        await self.startTarget(wrapClientTLS(options, plain))
        streamID = self.attacker.open()
        while len(self.attacker.data(streamID)) < 10 * SIZE:
            size = len(self.attacker.data(streamID))
            self.attacker.send(UPDATE, streamID, length=65536)
            await self.attacker.until(
                lambda size=size: (
                    len(self.attacker.data(streamID)) > size
                    or self.attacker.count(CLOSE, streamID)
                )
            )
            if self.attacker.count(CLOSE, streamID):
                break
        self.assertEqual(len(self.attacker.data(streamID)), 10 * SIZE)
        await self.assertAborted(streamID)
        await self.eventually(lambda: not self.tunnel.bridges)

    @row(54)
    async def test_refused(self) -> None:
        """
        A stream beyond C{maxConnections} or C{maxStreams} is refused with an abort, and
        the log says why.
        """
        for limits, own, word in (
            (None, {"maxConnections": 1}, "connections"),
            (Limits(maxStreams=1), {}, "maxStreams"),
        ):
            await self.startTarget(Answers, limits, **own)
            first = self.attacker.open()
            await self.eventually(lambda: len(self.tunnel.bridges) == 1)
            await self.assertAborted(self.attacker.open())
            self.assertTrue(self.logged("refused", word))
            self.assertNotIn((CLOSE, first, 0), self.frames(first))

    @row(54)
    async def test_draining(self) -> None:
        """
        A stream that comes while the mux drains is refused with an abort.
        """
        await self.startTarget(Answers)
        self.attacker.open()
        await self.eventually(lambda: len(self.tunnel.bridges) == 1)
        self.mux.drain()
        await self.assertAborted(self.attacker.open())
        self.assertTrue(self.logged("refused", "drain"))

    @row(65)
    async def test_closeWrite(self) -> None:
        """
        If the peer wants no more data, and the target goes on sending, less than a
        window is read and thrown away.  The other direction stays open.
        """
        await self.startTarget(Endless)
        streamID = self.attacker.open()
        await self.eventually(lambda: self.servers.made)
        server = self.servers.made[0]

        async def standstill() -> int:
            size = -1
            while size != server.sent:
                size = server.sent
                await deferLater(reactor, 0.3)
            return size

        before = await standstill()
        self.attacker.send(CLOSE_WRITE, streamID)
        taken = await standstill() - before
        # The buffers of the kernel take some too.
        self.assertLess(taken, 8 << 20)
        received = []
        server.dataReceived = received.append
        self.attacker.send(DATA, streamID, b"more")
        await self.eventually(lambda: received)
        self.attacker.send(CLOSE_READ, streamID)
        await self.attacker.untilFrame(CLOSE, streamID)
        await self.eventually(lambda: server.lost)
        await self.eventually(lambda: not self.tunnel.bridges)
        self.assertIsNone(self.mux.reason)

    @row(55)
    async def test_process(self) -> None:
        """
        A process can be a target: its input has a half-close, its output has none, and
        it cannot be aborted.
        """
        await self.startTarget(ProcessEndpoint(reactor, "/bin/cat", ("cat",)))
        streamID = self.attacker.open()
        self.attacker.send(DATA, streamID, b"ping")
        self.attacker.send(CLOSE_READ, streamID)
        await self.attacker.untilFrame(CLOSE, streamID)
        self.assertEqual(self.attacker.data(streamID), b"ping")
        self.assertNotIn((UPDATE, streamID, 0), self.frames(streamID))
        other = self.attacker.open()
        await self.eventually(lambda: self.tunnel.bridges)
        self.attacker.send(UPDATE, other, length=0)
        self.attacker.send(CLOSE, other)
        await self.eventually(lambda: not self.tunnel.bridges)
        self.assertIsNone(self.mux.reason)

    @row(59)
    async def test_stuck(self) -> None:
        """
        Connections to targets that read nothing end soon after their mux was cut.
        """
        await self.startTarget(Stuck, lingerTimeout=0.5)
        for _ in range(2):
            await self.pour(self.attacker.open())
        self.assertEqual(len(self.tunnel.bridges), 2)
        self.attacker.transport.abortConnection()
        await self.mux.whenClosed()
        await self.eventually(lambda: not self.tunnel.bridges)
        for server in self.servers.made:
            server.transport.abortConnection()

    @row(60)
    async def test_halfOpen(self) -> None:
        """
        If a peer leaves its half open after the target has closed its own, the stream
        is aborted after the limit.
        """
        await self.startTarget(Answers, halfOpenTimeout=0.4)
        streamID = self.attacker.open()
        self.attacker.send(UPDATE, streamID, length=65536)
        await self.eventually(lambda: self.servers.made)
        self.servers.made[0].transport.loseWriteConnection()
        await self.attacker.untilFrame(CLOSE_READ, streamID)
        await self.assertAborted(streamID)
        self.assertEqual(len(self.attacker.data(streamID)), SIZE)
        await self.eventually(lambda: not self.tunnel.bridges)

    @row(60)
    async def test_bothClosed(self) -> None:
        """
        A connection that both sides have closed is gone at once.
        """
        await self.startTarget(Answers)
        streamID = self.attacker.open()
        self.attacker.send(UPDATE, streamID, length=65536)
        self.attacker.send(CLOSE_READ, streamID)
        await self.eventually(lambda: self.servers.made)
        self.servers.made[0].transport.loseConnection()
        await self.attacker.untilFrame(CLOSE, streamID)
        await self.eventually(lambda: not self.tunnel.bridges)

    @row(71)
    async def test_raises(self) -> None:
        """
        An endpoint or a transport that raises harms its own stream only.
        """
        endpoint = TCP4ClientEndpoint(
            reactor, "127.0.0.1", self.listen(Servers(Answers))
        )
        await self.startTarget(endpoint)
        works = self.attacker.open()
        await self.eventually(lambda: len(self.tunnel.bridges) == 1)
        connect = self.tunnel.connect

        def fails(factory: Any) -> Deferred[Any]:
            raise ZeroDivisionError("no endpoint")

        self.tunnel.connect = fails
        await self.assertAborted(self.attacker.open())
        self.tunnel.connect = connect
        streamID = self.attacker.open()
        await self.eventually(lambda: len(self.tunnel.bridges) == 2)
        (bridge,) = [
            bridge
            for bridge in self.tunnel.bridges
            if bridge.near.transport.streamID == streamID
        ]

        def write(data: bytes) -> None:
            raise ZeroDivisionError

        await self.eventually(lambda: bridge._far.transport is not None)
        bridge.near.dataReceived = write  # type: ignore[method-assign]
        self.attacker.send(DATA, streamID, b"data")
        await self.assertAborted(streamID)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.attacker.send(UPDATE, works, length=65536)
        await self.eventually(lambda: len(self.attacker.data(works)) == SIZE)


@inBothRoles
class Forwards(RowTestCase):
    """
    Connections that continue as streams.
    """

    async def startForward(self, description: str) -> Any:
        """
        Connect an attacker with a subject, and listen.

        @return: the port.
        """
        self.makeSubject()
        self.mux, self.attacker = await self.pair()
        # A peer that has not shown that it holds the key gets no streams.
        await self.attacker.sync()
        self.tunnel = forward("the forward", self.subject.pool, reactor, TunnelLimits())
        port = await serverEndpoint(reactor, description).listen(self.tunnel)
        self.addCleanup(port.stopListening)
        return port

    async def assertCarried(self, client: Any) -> None:
        """
        Check that a client's data and its half-close reach the peer, and the answer
        the client.
        """
        client.transport.write(HEADER + b"request" if self.isProxied else b"request")
        client.transport.loseWriteConnection()
        await self.attacker.untilFrame(CLOSE_READ)
        streamID = next(f[1] for f in self.attacker.frames if f[0] == OPEN)
        self.assertEqual(self.attacker.data(streamID), b"request")
        self.attacker.send(DATA, streamID, b"answer")
        self.attacker.send(CLOSE, streamID)
        await client.lost
        self.assertEqual(client.received, b"answer")
        await self.eventually(lambda: not self.tunnel.bridges)

    isProxied = False

    @row(56)
    async def test_haproxy(self) -> None:
        """
        A client behind a load balancer that closes its writing half gets its answer.
        """
        self.isProxied = True
        port = await self.startForward("haproxy:tcp:0:interface=127.0.0.1")
        client = await self.connectTo(port.getHost().port, Factory.forProtocol(App))
        await self.assertCarried(client)

    @row(56)
    async def test_clientAddress(self) -> None:
        """
        The log names the client, not the load balancer.
        """
        port = await self.startForward("haproxy:tcp:0:interface=127.0.0.1")
        client = await self.connectTo(port.getHost().port, Factory.forProtocol(App))
        client.transport.write(HEADER)
        await self.attacker.untilFrame(OPEN)
        streamID = next(f[1] for f in self.attacker.frames if f[0] == OPEN)
        self.attacker.send(UPDATE, streamID, length=0)
        self.attacker.send(CLOSE, streamID)
        self.assertIsInstance(await client.lost, ConnectionLost)
        self.assertEqual(len(self.logged("the forward", "198.51.100.7:1111")), 1)

    @row(78)
    async def test_unix(self) -> None:
        """
        Only its owner may use a Unix socket, and it replaces a stale socket.
        """
        directory = mkdtemp()
        self.addCleanup(rmtree, directory)
        path = f"{directory}/socket"
        os.mknod(path, stat.S_IFSOCK | 0o666)
        await self.startForward(f"unix:{path}")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        client = await UNIXClientEndpoint(reactor, path).connect(
            Factory.forProtocol(App)
        )
        await self.assertCarried(client)
