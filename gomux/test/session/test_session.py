# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux.session}: sessions in memory, and all of it over TCP.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectingCancelledError, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from gomux.error import (
    AuthenticationFailed,
    ConnectionClosed,
    DeadlineExceeded,
    GomuxError,
    HandshakeFailed,
    OpenStreamError,
    PeerClosedConnection,
    PeerClosedStream,
    Truncated,
)
from gomux.interfaces import IStreamFactory
from gomux.limits import Limits
from gomux.session import Listener, Session
from gomux.session._conn import Conn
from gomux.session._session import _Streams
from gomux.test.support.sessionpair import LARGE, SessionPair
from gomux.testing import PSK

# It is what the platform has, and mypy knows only the module.
reactor: Any = _reactor


class StreamTests(SynchronousTestCase):
    """
    L{Session.openStream} and L{Session.acceptStream}
    """

    def test_interface(self) -> None:
        """
        What makes the streams is what muxes want for that.
        """
        verifyObject(IStreamFactory, _Streams(lambda: None))

    def test_bothWays(self) -> None:
        """
        Either side can open streams that the other accepts, in order.
        """
        both = SessionPair()
        for here, there in (both.client, both.server), (both.server, both.client):
            opened = [self.successResultOf(here.openStream()) for _ in range(3)]
            both.pair.flush()
            for conn in opened:
                accepted = self.successResultOf(there.acceptStream())
                self.assertEqual(accepted.localAddr(), conn.remoteAddr())

    def test_acceptWaits(self) -> None:
        """
        Those who accept are served in the order of their calls.
        """
        both = SessionPair()
        accepting = [both.server.acceptStream() for _ in range(3)]
        accepting[1].cancel()
        self.failureResultOf(accepting.pop(1), CancelledError)
        for waiting in accepting:
            opened = self.successResultOf(both.client.openStream())
            self.assertNoResult(waiting)
            both.pair.flush()
            accepted = self.successResultOf(waiting)
            self.assertEqual(accepted.localAddr(), opened.remoteAddr())

    def test_backlog(self) -> None:
        """
        A stream for which there is no room is refused, one after that for
        which there is again is not, and the mux goes on throughout.
        """
        both = SessionPair(backlog=2)
        opened = [self.successResultOf(both.client.openStream()) for _ in range(3)]
        both.pair.flush()
        self.assertEqual(self.successResultOf(opened[2].read()), b"")
        self.failureResultOf(opened[2].write(b"x"), PeerClosedStream)
        self.successResultOf(both.server.acceptStream())
        last = self.successResultOf(both.client.openStream())
        last.write(b"hello")
        both.pair.flush()
        self.successResultOf(both.server.acceptStream())
        conn = self.successResultOf(both.server.acceptStream())
        reading = conn.read()
        both.pair.flush()
        self.assertEqual(self.successResultOf(reading), b"hello")
        self.assertNoResult(both.server.acceptStream())

    def test_backlogCountsEnded(self) -> None:
        """
        Streams that have ended before they are accepted take up room: who
        opens and closes without end does not fill the memory.
        """
        both = SessionPair(backlog=2)
        for _ in range(5):
            self.successResultOf(both.client.openStream()).close()
            both.pair.flush()
        for _ in range(2):
            conn = self.successResultOf(both.server.acceptStream())
            self.assertEqual(self.successResultOf(conn.read()), b"")
        self.assertNoResult(both.server.acceptStream())

    def test_backlogUnread(self) -> None:
        """
        Streams that wait to be accepted keep what has come for them.
        """
        both = SessionPair()
        conn = self.successResultOf(both.client.openStream())
        conn.write(b"hello")
        conn.close()
        both.pair.flush()
        accepted = self.successResultOf(both.server.acceptStream())
        reading = accepted.read()
        both.pair.flush()
        self.assertEqual(self.successResultOf(reading), b"hello")

    def test_noRoom(self) -> None:
        """
        A backlog without any room is refused.
        """
        self.assertRaises(ValueError, SessionPair, backlog=0)

    def test_strict(self) -> None:
        """
        In strict mode a stream is opened once the peer has answered, and who
        waits for that may cease to.
        """
        both = SessionPair(strict=True)
        opening, other = both.client.openStream(), both.client.openStream()
        self.assertNoResult(opening)
        other.cancel()
        self.failureResultOf(other, CancelledError)
        both.pair.flush()
        conn = self.successResultOf(opening)
        accepted = self.successResultOf(both.server.acceptStream())
        self.assertEqual(accepted.localAddr(), conn.remoteAddr())
        self.assertNoResult(both.server.acceptStream())

    def test_strictFails(self) -> None:
        """
        What waits for the peer's answer fails if none comes.
        """
        both = SessionPair(strict=True)
        opening = both.client.openStream()
        both.pair.loseCarrier()
        both.pair.flush()
        self.failureResultOf(opening, HandshakeFailed)
        self.failureResultOf(both.client.openStream(), HandshakeFailed)

    def test_openFails(self) -> None:
        """
        A mux that can open no stream now says so, and is none the worse.
        """
        both = SessionPair(limits=Limits(maxControl=1))
        both.pair.flush()
        first = both.client.openStream()
        self.failureResultOf(both.client.openStream(), OpenStreamError)
        self.successResultOf(first)
        both.pair.flush()
        self.successResultOf(both.client.openStream())


class EndTests(SynchronousTestCase):
    """
    L{Session.close}, and the peer's
    """

    def setUp(self) -> None:
        self.both = SessionPair()
        self.both.pair.flush()

    def test_own(self) -> None:
        """
        After our close everything fails with ConnectionClosed, and the peer
        sees an orderly end.
        """
        accepting = self.both.client.acceptStream()
        there = self.both.server.acceptStream()
        closing = self.both.client.close()
        again = self.both.client.close()
        self.failureResultOf(accepting, ConnectionClosed)
        self.failureResultOf(self.both.client.acceptStream(), ConnectionClosed)
        self.failureResultOf(self.both.client.openStream(), ConnectionClosed)
        self.assertNoResult(closing)
        self.both.pair.flush()
        self.assertIsNone(self.successResultOf(closing))
        self.assertIsNone(self.successResultOf(again))
        self.failureResultOf(there, PeerClosedConnection)
        self.failureResultOf(self.both.server.acceptStream(), PeerClosedConnection)
        self.failureResultOf(self.both.server.openStream(), PeerClosedConnection)
        self.failureResultOf(self.both.client.openStream(), ConnectionClosed)

    def test_afterPeer(self) -> None:
        """
        To close after the peer has is fine, and changes no reason.
        """
        self.both.server.close()
        self.both.pair.flush()
        closing = self.both.client.close()
        self.both.pair.flush()
        self.assertIsNone(self.successResultOf(closing))
        self.failureResultOf(self.both.client.openStream(), PeerClosedConnection)

    def test_unaccepted(self) -> None:
        """
        Streams that came before the peer's end can still be accepted and read;
        those that wait at our own close are gone.
        """
        conn = self.successResultOf(self.both.client.openStream())
        conn.write(b"hello")
        self.both.pair.flush()
        self.both.pair.loseCarrier()
        self.both.pair.flush()
        accepted = self.successResultOf(self.both.server.acceptStream())
        reading = accepted.read()
        self.both.pair.flush()
        self.assertEqual(self.successResultOf(reading), b"hello")
        self.failureResultOf(accepted.read(), Truncated)
        self.failureResultOf(self.both.server.acceptStream(), Truncated)

        both = SessionPair()
        self.successResultOf(both.client.openStream())
        both.pair.flush()
        both.server.close()
        self.failureResultOf(both.server.acceptStream(), ConnectionClosed)

    def test_timeout(self) -> None:
        """
        A close that the network does not let through ends all the same.
        """
        self.both.open()
        self.both.pair.clientToServer.stall()
        writing = self.both.here.write(LARGE)
        closing = self.both.client.close()
        self.both.pair.advance(Limits().closeTimeout - 0.1)
        self.assertNoResult(closing)
        self.failureResultOf(writing, ConnectionClosed)
        self.both.pair.advance(0.2)
        self.successResultOf(closing)

    def test_cancel(self) -> None:
        """
        Who does not wait for the close any more has not prevented it.
        """
        closing, other = self.both.client.close(), self.both.client.close()
        closing.cancel()
        self.failureResultOf(closing, CancelledError)
        self.both.pair.flush()
        self.successResultOf(other)

    def test_fromCallback(self) -> None:
        """
        A session can be closed from whatever one of its calls was awaited in.
        """
        self.both.open()

        async def read() -> None:
            await self.both.there.read()
            await self.both.server.close()

        reading = Deferred.fromCoroutine(read())
        self.both.here.write(b"hello")
        self.both.pair.flush()
        self.successResultOf(reading)
        self.assertEqual(self.both.pair.client.streamCount, 0)

    def test_repr(self) -> None:
        """
        It can be told which mux it is.
        """
        self.assertIn("192.0.2.2", repr(self.both.client))
        self.assertNotIn(PSK, repr(self.both.client))


class TCPTests(TestCase):
    """
    Both ends over TCP on this machine.
    """

    timeout = 30

    async def listen(self, **kwargs: Any) -> Listener:
        """
        @return: a listener, closed when the test is over.
        """
        carrier = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        listener = await Session.server(reactor, carrier, PSK, **kwargs)
        self.addCleanup(listener.close)
        return listener

    async def connect(self, listener: Listener, key: str = PSK) -> Session:
        """
        @return: a session to it, closed when the test is over.
        """
        addr: Any = listener.addr()
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", addr.port)
        session = await Session.client(reactor, carrier, key)
        self.addCleanup(session.close)
        return session

    async def pair(self) -> tuple[Session, Session]:
        """
        @return: a session's two ends.
        """
        listener = await self.listen()
        client = await self.connect(listener)
        server = await listener.accept()
        self.addCleanup(server.close)
        return client, server

    async def stream(self) -> tuple[Conn, Conn]:
        """
        @return: a stream's two ends.
        """
        client, server = await self.pair()
        here = await client.openStream()
        return here, await server.acceptStream()

    async def test_echo(self) -> None:
        """
        Much data goes both ways at once, on several streams.
        """
        client, server = await self.pair()

        async def echo() -> None:
            conn = await server.acceptStream()
            while data := await conn.read():
                await conn.write(data)
            conn.close()

        async def talk() -> None:
            conn = await client.openStream()
            writing = conn.write(LARGE).addCallback(lambda _: conn.closeWrite())
            data = b""
            while piece := await conn.read():
                data += piece
            await writing
            self.assertEqual(data, LARGE)

        await gatherResults(
            Deferred.fromCoroutine(one()) for _ in range(3) for one in (echo, talk)
        )
        await self.soon()
        for session in (client, server):
            self.assertEqual(session.connCount, 0)

    async def test_addresses(self) -> None:
        """
        Both ends know both addresses, and still do after the end.
        """
        client, server = await self.pair()
        for _ in range(2):
            self.assertEqual(client.localAddr(), server.remoteAddr())
            self.assertEqual(client.remoteAddr(), server.localAddr())
            await client.close()

    async def test_backpressure(self) -> None:
        """
        A write waits for the other end's reads.
        """
        here, there = await self.stream()
        here.setWriteDeadline(reactor.seconds() + 0.2)
        with self.assertRaises(DeadlineExceeded) as raised:
            await here.write(LARGE)
        written = raised.exception.written
        self.assertGreater(written, 0)
        self.assertLess(written, len(LARGE))
        here.setWriteDeadline(None)
        writing = here.write(LARGE[written:])
        data = b""
        while len(data) < len(LARGE):
            data += await there.read(100000)
        self.assertEqual(data, LARGE)
        await writing

    async def test_deadline(self) -> None:
        """
        A read that waits ends at its deadline.
        """
        here, there = await self.stream()
        here.setReadDeadline(reactor.seconds() + 0.05)
        with self.assertRaises(DeadlineExceeded):
            await here.read()
        here.setReadDeadline(None)
        await there.write(b"hello")
        self.assertEqual(await here.read(), b"hello")

    async def test_close(self) -> None:
        """
        A close ends the peer's calls in their way.
        """
        client, server = await self.pair()
        here = await client.openStream()
        there = await server.acceptStream()
        accepting = server.acceptStream()
        await here.write(b"last words")
        await client.close()
        with self.assertRaises(PeerClosedConnection):
            await accepting
        self.assertEqual(await there.read(), b"last words")
        self.assertEqual(await there.read(), b"")

    async def test_abort(self) -> None:
        """
        A peer that is gone without a word is told apart from that.
        """
        client, server = await self.pair()
        client._mux.abort()
        with self.assertRaises(Truncated):
            await server.acceptStream()
        with self.assertRaises(ConnectionClosed):
            await client.openStream()

    async def test_wrongKey(self) -> None:
        """
        A peer without the key is never accepted, and finds out.
        """
        listener = await self.listen()
        accepting = listener.accept()
        client = await self.connect(listener, key="another key of some length")
        with self.assertRaises(Truncated) as raised:
            await client.acceptStream()
        self.assertIn("wrong pre-shared key", str(raised.exception))
        self.assertNoResult(accepting)
        right = await self.connect(listener)
        server = await accepting
        self.assertEqual(server.remoteAddr(), right.localAddr())
        await server.close()

    async def test_silentPeers(self) -> None:
        """
        A server that is to begin accepts whoever connects.
        """
        listener = await self.listen(silentPeers=True)
        addr: Any = listener.addr()
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", addr.port)
        peer: Any = await carrier.connect(Factory.forProtocol(Protocol))
        session = await listener.accept()
        self.assertEqual(session.remoteAddr(), peer.transport.getHost())
        await session.openStream()
        peer.transport.write(bytes(52))
        with self.assertRaises(AuthenticationFailed):
            await session.acceptStream()

    async def test_refused(self) -> None:
        """
        A carrier that cannot connect fails as it does without gomux.
        """
        listener = await self.listen()
        await listener.close()
        with self.assertRaises(ConnectionRefusedError):
            await self.connect(listener)

    async def test_cancelClient(self) -> None:
        """
        Who does not want to connect any more need not.
        """
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", 9)
        connecting = Session.client(reactor, carrier, PSK)
        connecting.cancel()
        with self.assertRaises(ConnectingCancelledError):
            await connecting

    def test_noKey(self) -> None:
        """
        Without a key there is nothing.
        """
        carrier: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", 9)
        self.assertRaises(ValueError, Session.client, reactor, carrier, "")
        self.assertRaises(ValueError, Session.server, reactor, carrier, "")

    async def test_listenerBacklog(self) -> None:
        """
        Sessions for which there is no room see the mux closed.
        """
        listener = await self.listen(backlog=1)
        first = await self.connect(listener)
        await (await first.openStream()).write(b"hello")
        conn = await (await self.connect(listener)).openStream()
        with self.assertRaises(PeerClosedConnection):
            await conn.read()
        session = await listener.accept()
        self.assertEqual(session.remoteAddr(), first.localAddr())

    async def test_iteration(self) -> None:
        """
        A listener gives each session in turn, until it is closed; that leaves
        the sessions that were accepted alone and closes the others.
        """
        listener = await self.listen()
        clients = [await self.connect(listener) for _ in range(2)]
        sessions = []
        async for session in listener:
            sessions.append(session)
            self.addCleanup(session.close)
            if len(sessions) == 2:
                late = await self.connect(listener)
                while not listener._backlog.items:
                    await self.soon()
                await listener.close()
        conn = await clients[0].openStream()
        await conn.write(b"hello")
        accepted = await sessions[0].acceptStream()
        self.assertEqual(await accepted.read(), b"hello")
        with self.assertRaises(PeerClosedConnection):
            await late.acceptStream()
        with self.assertRaises(ConnectionClosed):
            await listener.accept()

    def soon(self) -> Deferred[None]:
        """
        @return: fires in a later turn of the reactor.
        """
        waiting: Deferred[None] = Deferred()
        reactor.callLater(0.01, waiting.callback, None)
        return waiting


ASYNCIO = """
import asyncio
from twisted.internet import asyncioreactor
asyncioreactor.install(asyncio.new_event_loop())
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.task import react
from gomux import Session

async def inTask(session):
    loop = asyncio.get_running_loop()
    conn = await session.acceptStream().asFuture(loop)
    await conn.write(await conn.read().asFuture(loop)).asFuture(loop)
    conn.close()

async def main(reactor):
    carrier = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
    listener = await Session.server(reactor, carrier, "a key for this test")
    port = listener.addr().port
    carrier = clientFromString(reactor, f"tcp:127.0.0.1:{port}")
    client = await Session.client(reactor, carrier, "a key for this test")
    conn = await client.openStream()
    server = await listener.accept()
    echo = Deferred.fromFuture(asyncio.ensure_future(inTask(server)))
    await conn.write(b"hello")
    print(await conn.read(), await conn.read())
    await echo
    await client.close()
    await listener.close()

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""


class AsyncioTests(SynchronousTestCase):
    """
    Under the asyncio reactor
    """

    def test_asyncio(self) -> None:
        """
        Everything can be awaited in coroutines of Twisted and in asyncio's
        tasks.
        """
        done = subprocess.run(
            [sys.executable, "-W", "error::RuntimeWarning", "-c", ASYNCIO],
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual((done.stdout, done.stderr), ("b'hello' b''\n", ""))


class ErrorTests(SynchronousTestCase):
    """
    What errors say of writes
    """

    def test_written(self) -> None:
        """
        Every error has it, 0 where it is of no matter.
        """
        self.assertEqual(GomuxError().written, 0)
