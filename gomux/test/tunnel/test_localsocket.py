"""
Tests for L{gomux.tunnel._localsocket}: bridges between real sockets, which the tunnel
serves itself or leaves to Twisted's transports.
"""

from __future__ import annotations

import gc
import os
import socket
import struct
import weakref
from typing import Any
from unittest.mock import Mock

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import (
    ConnectError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
)
from twisted.internet.task import Clock
from twisted.internet.tcp import Port, Server
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from gomux import MuxFactory
from gomux._carrier.direct import BULK_READ_SIZE, READ_SIZE, DirectTransport
from gomux._carrier.sockets import IN, OUT, Sockets, socketsOf
from gomux._carrier.transport import UNSENT
from gomux._fastpaths import useFastPaths
from gomux._mux.pool import MuxPool
from gomux.limits import ACCEPT_QUEUE, TunnelLimits
from gomux.test.support import plainpaths
from gomux.test.support.helpers import HalfRecorder, PushProducer, Recorder
from gomux.test.support.ownreactor import OwnReactor
from gomux.test.support.waiting import Waiting
from gomux.testing import PSK
from gomux.tunnel import Tunnel, forward, target
from gomux.tunnel._accesslog import describe
from gomux.tunnel._end import End, NearEnd
from gomux.tunnel._localends import acceptLocally, outputOf, prepare
from gomux.tunnel._localsocket import LocalSocket
from gomux.tunnel._parts import ListeningService
from gomux.tunnel._transport import EndTransport

reactor: Any = _reactor

#: More than the windows and the buffers between the two ends of a tunnel take.
MUCH = 24 << 20


class Ends(HalfRecorder):
    """
    A recorder that tells a reset from EOF, and that closes after EOF if told to.

    @ivar wasReset: whether the connection was reset.
    """

    transport: Any
    wasReset = False

    def readConnectionLost(self) -> None:
        if DirectTransport(self.transport).wasReset():
            self.transport.abortConnection()
        else:
            super().readConnectionLost()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.wasReset = reason.check(ConnectionDone) is None
        super().connectionLost(reason)


class TCPTests(TestCase):
    """
    Connections through a tunnel: TCP, with local sockets

    @cvar off: the fast paths that are off.
    @cvar isUnix: whether the sockets are Unix sockets, otherwise TCP.
    """

    timeout = 20
    off: tuple[str, ...] = ()
    isUnix = False
    limits = TunnelLimits()

    def server(self) -> Any:
        """
        @return: an endpoint to listen on.
        """
        if self.isUnix:
            return UNIXServerEndpoint(reactor, os.path.relpath(self.mktemp()))
        return TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")

    def client(self, port: Any) -> Any:
        """
        @return: an endpoint to connect to a port.
        """
        host = port.getHost()
        if self.isUnix:
            return UNIXClientEndpoint(reactor, os.fsdecode(host.name))
        return TCP4ClientEndpoint(reactor, "127.0.0.1", host.port)

    async def setUp(self) -> None:  # type: ignore[override]
        self.addCleanup(useFastPaths, plainpaths.use(self.off))
        self.clients, self.servers = Waiting(Ends), Waiting(Ends)
        self.web = await self.server().listen(self.servers)
        there = target("there", self.client(self.web), reactor, self.limits)
        muxes = MuxFactory(PSK, False, there, clock=reactor)
        self.carrier = reactor.listenTCP(0, muxes, interface="127.0.0.1")
        pool = MuxPool(reactor)
        dialled = MuxFactory(PSK, True, clock=reactor, pool=pool)
        self.muxHost = address = self.carrier.getHost()
        self.mux: Any = await TCP4ClientEndpoint(
            reactor, "127.0.0.1", address.port
        ).connect(dialled)
        here = forward("here", pool, reactor, self.limits)
        self.here, self.there = here, there
        self.port = await self.server().listen(here)
        acceptLocally(self.port)

    async def tearDown(self) -> None:  # type: ignore[override]
        for side in (self.clients, self.servers):
            recorder: Any
            for recorder in side.made:
                if recorder.transport is not None and "lost" not in recorder.events:
                    recorder.transport.abortConnection()
        await self.mux.close()
        for port in (self.port, self.web, self.carrier):
            await maybeDeferred(port.stopListening)
        await self.over()

    async def over(self) -> None:
        """
        Wait until there is no bridge.
        """
        while self.here.bridges or self.there.bridges:
            await turn()
        sockets = socketsOf(reactor)
        self.assertEqual(sockets._members if sockets else {}, {})

    async def connect(self, number: int = 0) -> tuple[Any, Any]:
        """
        @return: the client of a new connection, and the server, which has got C{hello}.
        """
        client: Any = await self.client(self.port).connect(self.clients)
        client.transport.write(b"hello")
        await self.servers.event("data", number)
        return client, self.servers.made[number]

    async def ended(self, recorder: Any) -> None:
        """
        Wait until a recorder has got EOF, or has lost its connection.
        """
        await self.until(lambda: {"lost", "readLost"} & {*recorder.events})

    async def until(self, condition: Any) -> None:
        while not condition():
            await turn()

    async def test_transports(self) -> None:
        """
        The ends of bridges are local sockets, if that fast path is on and the reactor
        is the epoll reactor.
        """
        await self.connect()
        isLocal = socketsOf(reactor) is not None
        ends: list[Any] = [b.near for b in self.here.bridges]
        ends += [b._far for b in self.there.bridges]
        self.assertEqual(
            [isinstance(e.transport, LocalSocket) for e in ends], [isLocal] * 2
        )
        for end in ends:
            kind = UNIXAddress if self.isUnix else IPv4Address
            self.assertIsInstance(end.transport.getPeer(), kind)

    async def test_data(self) -> None:
        """
        Data arrives unchanged, in both directions.
        """
        client, server = await self.connect()
        data = os.urandom(1 << 20)
        client.transport.write(data)
        server.transport.write(data[::-1])
        await self.until(lambda: len(server.received) == len(data) + 5)
        await self.until(lambda: len(client.received) == len(data))
        self.assertEqual(server.received, b"hello" + data)
        self.assertEqual(client.received, data[::-1])

    async def test_clientHalfCloses(self) -> None:
        """
        A half-close by the client reaches the server, which can still answer.
        """
        client, server = await self.connect()
        client.transport.write(bytes(300000))
        client.transport.loseWriteConnection()
        await self.servers.event("readLost")
        self.assertEqual(len(server.received), 300005)
        server.transport.write(bytes(300000))
        server.transport.loseConnection()
        await self.clients.event("readLost")
        self.assertEqual(len(client.received), 300000)
        client.transport.loseConnection()
        await self.over()
        self.assertFalse(server.wasReset)

    async def test_serverHalfCloses(self) -> None:
        """
        A half-close by the server reaches the client, which can still send.
        """
        client, server = await self.connect()
        server.transport.loseWriteConnection()
        await self.clients.event("readLost")
        client.transport.write(b"more")
        client.transport.loseConnection()
        await self.servers.event("readLost")
        self.assertEqual(server.received, b"hellomore")
        server.transport.loseConnection()
        await self.over()

    async def test_leavesNothing(self) -> None:
        """
        A connection that has ended leaves nothing for the garbage collector, unless
        Twisted's transports, which refer to each other, are its ends.
        """
        if socketsOf(reactor) is None:
            return
        gc.disable()
        self.addCleanup(gc.enable)
        client, server = await self.connect()
        bridges = [*self.here.bridges, *self.there.bridges]
        left: list[Any] = [weakref.ref(bridge) for bridge in bridges]
        left += [weakref.ref(end) for bridge in bridges for end in bridge.ends]
        bridges.clear()
        self.assertEqual(len(left), 6)
        client.transport.loseWriteConnection()
        await self.servers.event("readLost")
        server.transport.loseConnection()
        await self.over()
        await self.until(lambda: not any(r() for r in left))

    async def test_clientResets(self) -> None:
        """
        A reset by the client reaches the server as a reset.
        """
        client, server = await self.connect()
        client.transport.abortConnection()
        await self.ended(server)
        self.assertEqual(server.wasReset, not self.isUnix)

    async def test_serverResets(self) -> None:
        """
        A reset by the server reaches the client as a reset.
        """
        client, server = await self.connect()
        server.transport.abortConnection()
        await self.ended(client)
        self.assertEqual(client.wasReset, not self.isUnix)

    async def test_serverReadsNothing(self) -> None:
        """
        If the server reads nothing, the client has to wait.  Once the server reads,
        all of it arrives.
        """
        client, server = await self.connect()
        server.transport.pauseProducing()
        producer = PushProducer()
        client.transport.registerProducer(producer, True)
        client.transport.write(bytes(MUCH))
        client.transport.unregisterProducer()
        held = -1
        while held != (held := len(client.transport.dataBuffer)):
            for _ in range(50):
                await turn()
        self.assertGreater(len(client.transport.dataBuffer), MUCH // 2)
        server.transport.resumeProducing()
        client.transport.loseWriteConnection()
        await self.servers.event("readLost")
        self.assertEqual(len(server.received), MUCH + 5)

    async def test_stopped(self) -> None:
        """
        A tunnel that aborts its connections resets them at both ends.
        """
        client, server = await self.connect()
        self.here.abort()
        await self.ended(client)
        await self.ended(server)
        await self.over()
        self.assertTrue(client.wasReset or self.isUnix)
        self.assertTrue(server.wasReset or self.isUnix)

    async def test_muxLost(self) -> None:
        """
        The end of the mux resets connections at both ends.
        """
        client, server = await self.connect()
        self.mux.abort()
        await self.ended(client)
        await self.ended(server)
        self.assertTrue(client.wasReset or self.isUnix)
        self.assertTrue(server.wasReset or self.isUnix)

    async def refused(self) -> None:
        """
        Connect a client, which is reset.  The reset may come before the client has
        noticed that it is connected.
        """
        try:
            client: Any = await self.client(self.port).connect(self.clients)
        except ConnectError:
            return
        await self.ended(client)
        self.assertTrue(client.wasReset or self.isUnix)

    async def test_refused(self) -> None:
        """
        If the target refuses, the client is reset.
        """
        await self.web.stopListening()
        await self.refused()

    async def test_share(self) -> None:
        """
        A connection over the limit is reset, and the others go on.
        """
        client, server = await self.connect()
        self.here.limit(TunnelLimits(maxConnections=1))
        await self.refused()
        client.transport.write(b" again")
        await self.until(lambda: server.received == b"hello again")

    async def test_accessLog(self) -> None:
        """
        The access logs of both sides tell the addresses of client and target, how much
        was carried, and how the connection ended.
        """
        here: list[Any] = []
        there: list[Any] = []
        for tunnel, lines in ((self.here, here), (self.there, there)):
            log: Any = Mock(add=lambda *line, to=lines: to.append(line))
            self.patch(tunnel, "accessLog", log)
        client, server = await self.connect()
        address = "unix:" if self.isUnix else describe(client.transport.getHost())
        server.transport.write(b"answer")
        client.transport.loseWriteConnection()
        await self.servers.event("readLost")
        server.transport.loseConnection()
        await self.clients.event("readLost")
        client.transport.loseConnection()
        await self.over()
        for reset, code in ((0, "reset-by-client"), (1, "reset-by-target")):
            if not self.isUnix:
                ends = await self.connect(reset + 1)
                ends[reset].transport.abortConnection()
                await self.ended(ends[1 - reset])
                await self.over()
                self.assertEqual([lines[-1][7] for lines in (here, there)], [code] * 2)
        carrier = describe(self.mux.transport.getHost())
        expected = [
            (address, describe(self.muxHost), 5, 6, "ok"),
            (carrier, describe(self.web.getHost()), 5, 6, "ok"),
        ]
        lines = [here[0], there[0]]
        self.assertEqual([(*line[2:6], line[7]) for line in lines], expected)

    async def test_many(self) -> None:
        """
        More connections than are served at once all get their answers.
        """
        made = [await self.connect(n) for n in range(100)]
        for _, server in made:
            server.transport.write(b"answer")
        await self.until(lambda: all(c.received == b"answer" for c, _ in made))


def turn() -> Deferred[None]:
    """
    @return: fires in the next turn of the reactor.
    """
    waiting: Deferred[None] = Deferred()
    reactor.callLater(0, waiting.callback, None)
    return waiting


class ServiceTests(TestCase):
    """
    L{ListeningService}
    """

    def test_accepts(self) -> Deferred[None]:
        """
        The ports of C{twistd gomux} accept local sockets.
        """
        self.addCleanup(useFastPaths, plainpaths.use(()))
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        service = ListeningService("it", endpoint, Waiting())
        service.startService()
        port: Any = service.port
        self.assertEqual(port.transport is Server, socketsOf(reactor) is None)
        return service.stopService()


class UnixTests(TCPTests):
    """
    Unix sockets, with local sockets
    """

    isUnix = True


class TwistedTCPTests(TCPTests):
    """
    TCP, with Twisted's transports
    """

    off = ("localSockets",)


class TwistedUnixTests(TCPTests):
    """
    Unix sockets, with Twisted's transports
    """

    isUnix = True
    off = ("localSockets",)


class Told:
    """
    Records the calls of a local socket to the end of its bridge.

    @ivar events: what happened.
    """

    def __init__(self) -> None:
        self.events: list[Any] = []

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)

    def readConnectionLost(self) -> None:
        self.events.append("EOF")

    def writeConnectionLost(self) -> None:
        self.events.append("finished")

    def connectionLost(self, reason: Failure) -> None:
        self.events.append(type(reason.value))


class LocalSocketTests(SynchronousTestCase):
    """
    One local socket
    """

    def setUp(self) -> None:
        self.reactor = OwnReactor()
        self.sockets = Sockets(self.reactor)
        self.addCleanup(self.sockets._epoll.close)
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        prepare(listener)
        self.client = socket.create_connection(listener.getsockname())
        self.addCleanup(self.client.close)
        self.handle, address = listener.accept()
        self.addCleanup(self.handle.close)
        self.handle.setblocking(False)
        self.end = Told()
        self.local = LocalSocket(self.sockets, self.handle, address, self.end)
        self.watched: list[int] = []
        watch = self.sockets.watch

        def note(member: Any, descriptor: int, before: int, wanted: int) -> None:
            self.watched.append(wanted)
            watch(member, descriptor, before, wanted)

        self.patch(self.sockets, "watch", note)

    def turn(self) -> None:
        """
        Let the reactor have a turn.
        """
        self.sockets.doRead()
        self.reactor.advance(0)

    def fill(self) -> None:
        """
        Write more than the kernel takes.
        """
        self.local.write(bytes(1 << 23))
        self.assertEqual(self.watched[-1] & OUT, OUT)

    def drain(self) -> bytes:
        """
        Read at the other end until all output is sent.

        @return: what came.
        """
        self.client.setblocking(False)
        came = b""
        while self.local._waiting:
            self.turn()
            try:
                while data := self.client.recv(1 << 20):
                    came += data
            except BlockingIOError:
                pass
        return came

    def test_options(self) -> None:
        """
        A TCP socket that a port has accepted sends small writes at once, notices a dead
        peer, and delivers urgent bytes in their place.
        """
        for level, option in (
            (socket.IPPROTO_TCP, socket.TCP_NODELAY),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            (socket.SOL_SOCKET, socket.SO_OOBINLINE),
        ):
            self.assertEqual(self.handle.getsockopt(level, option), 1)

    def test_limitUnsent(self) -> None:
        """
        The kernel is asked to keep little that it cannot send yet.
        """
        option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        if option is not None:
            size = self.handle.getsockopt(socket.IPPROTO_TCP, option)
            self.assertEqual(size, UNSENT)

    def test_notRead(self) -> None:
        """
        Before the end reads, the socket is not in the epoll.
        """
        self.client.send(b"early")
        self.turn()
        self.assertEqual((self.end.events, self.watched), ([], []))
        self.local.resumeReading()
        self.turn()
        self.assertEqual(self.end.events, [b"early"])

    def test_readAtOnce(self) -> None:
        """
        A connection that was accepted is read at once, without an event; one to a
        target is not.
        """
        self.client.send(b"early")
        for kind, expected in ((End, []), (NearEnd, [b"early"])):
            end: Any = kind(Mock(connected=lambda end: end.output.resumeReading()))
            self.local._end = end
            end.makeConnection(self.local)
            self.assertEqual(end._early, expected)

    def test_pause(self) -> None:
        """
        A pause between two events costs no system call.  If data comes meanwhile, the
        epoll forgets the socket until it is read again.
        """
        self.local.resumeReading()
        self.local.pauseReading()
        self.local.resumeReading()
        self.assertEqual(self.watched, [IN])
        self.local.pauseReading()
        self.client.send(b"data")
        self.turn()
        self.assertEqual((self.end.events, self.watched), ([], [IN, 0]))
        self.local.resumeReading()
        self.turn()
        self.assertEqual((self.end.events, self.watched), ([b"data"], [IN, 0, IN]))

    def test_sizes(self) -> None:
        """
        While much comes, more is read at once.
        """
        self.local.resumeReading()
        self.assertEqual(self.local._size, READ_SIZE)
        self.local.received(READ_SIZE)
        self.assertEqual(self.local._size, BULK_READ_SIZE)
        self.local.received(READ_SIZE - 1)
        self.assertEqual(self.local._size, BULK_READ_SIZE)
        self.client.send(b"little")
        self.turn()
        self.assertEqual(self.local._size, READ_SIZE)

    def test_EOF(self) -> None:
        """
        After EOF nothing is read, even if the end wants to.
        """
        self.local.resumeReading()
        self.client.shutdown(socket.SHUT_WR)
        self.turn()
        self.local.resumeReading()
        self.turn()
        self.assertEqual((self.end.events, self.watched), (["EOF"], [IN, 0]))
        self.assertFalse(self.local.wasReset())

    def test_full(self) -> None:
        """
        While output waits, a producer is paused, also one that is registered then.
        Afterwards it is resumed, and the kernel reports no room any more.
        """
        producer = PushProducer()
        self.local.registerProducer(producer)
        self.fill()
        self.local.write(b"more")
        late = PushProducer()
        self.local.registerProducer(late)
        self.assertEqual((producer.calls[0], late.calls), ("pause", ["pause"]))
        self.assertGreater(self.local.unsent, 4)
        self.drain()
        self.assertEqual(late.calls, ["pause", "resume"])
        self.assertEqual(self.watched, [OUT, 0])

    def test_finishWaits(self) -> None:
        """
        The writing half is closed once all output is sent.  Later output is dropped.
        """
        self.fill()
        self.local.finish()
        self.local.write(b"late")
        self.assertEqual(self.end.events, [])
        sent = len(self.drain())
        self.client.setblocking(True)
        while data := self.client.recv(1 << 20):
            sent += len(data)
        self.assertEqual((self.end.events, sent), (["finished"], 1 << 23))

    def test_writesSome(self) -> None:
        """
        For an event no more is sent than is read for one, however much the kernel
        takes.
        """
        sent: list[int] = []

        class Handle:
            def __getattr__(_, name: str) -> Any:
                return getattr(self.handle, name)

            def send(_, data: bytes) -> int:
                sent.append(len(data))
                return len(data) if len(sent) > 1 else 0

        self.local._handle = Handle()  # type: ignore[assignment]
        self.local.write(bytes(BULK_READ_SIZE + 7))
        self.turn()
        self.turn()
        self.assertEqual(sent[1:], [BULK_READ_SIZE, 7])
        self.assertEqual(self.watched, [OUT, 0])

    def test_finishAfterEOF(self) -> None:
        """
        After EOF a half-close costs no system call: the end closes the connection next,
        and the client sees EOF then.
        """
        self.local.resumeReading()
        self.client.shutdown(socket.SHUT_WR)
        self.turn()
        self.local.finish()
        self.assertEqual(self.end.events, ["EOF", "finished"])
        self.client.setblocking(False)
        self.assertRaises(BlockingIOError, self.client.recv, 1)
        self.local.close()
        self.turn()
        self.assertEqual(self.client.recv(1), b"")

    def test_order(self) -> None:
        """
        Output does not overtake output that waits, although the kernel has room again.
        """
        self.fill()
        came = len(self.client.recv(1 << 16, socket.MSG_WAITALL))
        self.local.write(b"the end")
        self.local.finish()
        rest = self.drain()
        self.client.setblocking(True)
        while data := self.client.recv(1 << 20):
            rest += data
        self.assertEqual(rest, bytes((1 << 23) - came) + b"the end")

    def test_closeWaits(self) -> None:
        """
        The connection is closed once all output is sent, and nothing is read meanwhile.
        """
        self.local.resumeReading()
        self.fill()
        self.local.close()
        self.local.resumeReading()
        self.drain()
        self.turn()
        self.assertEqual(self.end.events, [ConnectionDone])
        self.assertEqual(self.handle.fileno(), -1)

    def test_closeLater(self) -> None:
        """
        The end is told of its own close in the next turn of the reactor, once.
        """
        self.local.finish()
        self.local.close()
        self.local.close()
        self.local.finish()
        self.local.abort()
        self.assertEqual(self.end.events, ["finished"])
        self.turn()
        self.assertEqual(self.end.events, ["finished", ConnectionDone])

    def test_abort(self) -> None:
        """
        An abort drops the output that waits and resets the connection.  A half-close
        that comes after it is not sent.
        """
        self.fill()
        self.local.abort()
        self.local.finish()
        self.local.resumeReading()
        self.assertEqual(self.end.events, [])
        self.turn()
        self.assertEqual(self.end.events, [ConnectionAborted])
        with self.assertRaises(ConnectionResetError):
            while self.client.recv(1 << 20):
                pass
        self.assertEqual(self.reactor.readers, set())

    def test_closeUnread(self) -> None:
        """
        The close of a socket with unread input looks like EOF, as with Twisted's
        transports: the kernel's reset only comes after that.
        """
        self.client.send(b"unread")
        self.local.write(b"answer")
        self.local.close()
        self.turn()
        self.assertEqual(self.client.recv(10), b"answer")
        self.assertEqual(self.client.recv(10), b"")

    def test_garbage(self) -> None:
        """
        A closed socket and its end do not keep each other.
        """
        self.local.abort()
        self.turn()
        kept = weakref.ref(self.end)
        del self.end
        self.assertIsNone(kept())

    def reset(self) -> None:
        """
        Reset the connection at the other end.
        """
        reset = struct.pack("ii", 1, 0)
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        self.client.close()

    def test_reset(self) -> None:
        """
        A reset is a lost connection.
        """
        self.local.resumeReading()
        self.reset()
        self.turn()
        self.assertEqual(self.end.events, [ConnectionLost])
        self.assertEqual(self.handle.fileno(), -1)

    def test_resetUnread(self) -> None:
        """
        If nothing is read, a reset is seen when something is written.  The end is told
        in a turn of the reactor, not during its write.
        """
        self.reset()
        self.turn()
        self.local.write(b"data")
        self.local.write(b"data")
        self.assertEqual(self.end.events, [])
        self.turn()
        self.assertEqual(self.end.events, [ConnectionLost])

    def test_resetWhileWriting(self) -> None:
        """
        If writing gets the error of a reset, EOF is read after it.  That is no orderly
        end: the input may have been cut short.
        """
        self.local.resumeReading()
        self.reset()
        self.local.write(b"data")
        self.local.ready(IN)
        self.assertEqual(self.end.events[:1], ["EOF"])
        self.assertTrue(self.local.wasReset())

    def test_resetAfterEOF(self) -> None:
        """
        A reset that came right after EOF can be told from EOF.
        """
        self.local.resumeReading()
        self.client.shutdown(socket.SHUT_WR)
        self.reset()
        self.turn()
        self.assertEqual(self.end.events, ["EOF"])
        self.assertTrue(self.local.wasReset())

    def test_input(self) -> None:
        """
        A socket cannot refuse its input, and keeps none.
        """
        self.assertFalse(self.local.refuseInput())
        self.assertEqual(self.local.unread, 0)

    def test_peer(self) -> None:
        """
        The socket has the address of the other machine, even after its end.
        """
        self.local.abort()
        self.turn()
        port = self.client.getsockname()[1]
        self.assertEqual(self.local.getPeer(), IPv4Address("TCP", "127.0.0.1", port))
        v6, unix = socket.AF_INET6, socket.AF_UNIX
        for family, address, expected in (
            (v6, ("::1", 7, 0, 0), IPv6Address("TCP", "::1", 7, 0, 0)),
            (unix, "", UNIXAddress(None)),
            (unix, "/path", UNIXAddress(b"/path")),
            (unix, b"\0name", UNIXAddress(b"\0name")),
        ):
            with socket.socket(family) as handle:
                local = LocalSocket(self.sockets, handle, address, self.end)
            self.assertEqual(local.getPeer(), expected)

    def test_fails(self) -> None:
        """
        An end that raises an exception loses its connection.
        """
        self.patch(self.end, "dataReceived", lambda _: 1 // 0)
        self.local.resumeReading()
        self.client.send(b"data")
        self.turn()
        self.assertEqual(self.end.events, [ZeroDivisionError])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class AcceptTests(SynchronousTestCase):
    """
    L{acceptLocally} and L{outputOf}
    """

    def setUp(self) -> None:
        self.addCleanup(useFastPaths, plainpaths.use(()))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)

    def port(self) -> Port:
        """
        @return: a listening port that makes local sockets.
        """
        port = Port(0, Waiting(), reactor=reactor)
        port.socket = self.listener
        acceptLocally(port)
        return port

    def accept(self, port: Any, protocol: Any) -> Any:
        """
        @return: the transport of a connection that a port accepts for a protocol.
        """
        here, there = socket.socketpair()
        self.addCleanup(there.close)
        self.addCleanup(here.close)
        port.numberAccepts = 10
        address = ("127.0.0.1", 1)
        transport = port.transport(here, protocol, address, port, 0, port.reactor)
        if isinstance(transport, Server):
            transport.stopReading()
        return transport

    def test_oneEachTurn(self) -> None:
        """
        A port accepts one local socket in a turn of the reactor, and the kernel keeps
        many that wait.
        """
        port = self.port()
        local = self.accept(
            port, Tunnel("it", Mock(), Clock(), TunnelLimits(), {}).buildProtocol(None)
        )
        if socketsOf(reactor) is not None:
            self.assertIsInstance(local, LocalSocket)
            self.assertEqual((port.numberAccepts, port.backlog), (-1, ACCEPT_QUEUE))
            self.assertFalse(local._handle.getblocking())
            option = (socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            self.assertEqual(self.listener.getsockopt(*option), 1)

    def test_turn(self) -> None:
        """
        The calls that an accepted connection leaves for later are made in the same turn
        of the reactor.
        """
        found = socketsOf(reactor)
        if found is None:
            return
        events: list[str] = []
        port = Port(0, Waiting(), reactor=reactor)
        port.socket = self.listener

        def doRead() -> None:
            found.clock.soon(lambda: events.append("later"))
            events.append("read")

        self.patch(port, "doRead", doRead)
        acceptLocally(port)
        port.doRead()
        self.assertEqual(events, ["read", "later"])

    def test_otherProtocols(self) -> None:
        """
        Protocols that are not ends of bridges, such as those of C{haproxy:} and muxes,
        get the port's usual transports.
        """
        port = self.port()
        self.assertIs(type(self.accept(port, Recorder())), Server)
        self.assertEqual(port.numberAccepts, 10)

    def test_otherPorts(self) -> None:
        """
        Ports of another class or another reactor make their usual transports.
        """

        class Other(Port):
            pass

        for port in (
            Other(0, Waiting(), reactor=reactor),
            Port(0, Waiting(), reactor=OwnReactor()),
        ):
            acceptLocally(port)
            self.assertIs(port.transport, Server)
        acceptLocally(object())

    def test_output(self) -> None:
        """
        A local socket is its own output.  Any other transport gets an
        C{EndTransport}.
        """
        here, there = socket.socketpair()
        self.addCleanup(here.close)
        self.addCleanup(there.close)
        local = LocalSocket(Mock(), here, "", Told())
        self.assertIs(outputOf(local), local)
        self.assertIsInstance(outputOf(StringTransport()), EndTransport)
