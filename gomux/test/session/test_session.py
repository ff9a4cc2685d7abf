# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux.session}: sessions in memory and over TCP.
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

from gomux._wire.keyring import Keyring
from gomux.error import (
    AuthenticationFailed,
    ConnectionClosed,
    DeadlineExceeded,
    GomuxError,
    HandshakeFailed,
    KeyRevoked,
    OpenStreamError,
    PeerAbortedStream,
    PeerClosedConnection,
    ServiceBusy,
    ServiceUnknown,
    Truncated,
)
from gomux.interfaces import IStreamFactory
from gomux.limits import Limits
from gomux.session import Listener, Session
from gomux.session._conn import Conn
from gomux.session._connfactory import ConnFactory
from gomux.test.support.sessionpair import LARGE, SessionPair
from gomux.testing import PSK

# At run time this is the reactor, but mypy sees only the module of that name.
reactor: Any = _reactor


class StreamTests(SynchronousTestCase):
    """
    L{Session.openStream} and L{Session.acceptStream}
    """

    def test_interface(self) -> None:
        """
        The stream factory of a session provides L{IStreamFactory}.
        """
        verifyObject(IStreamFactory, ConnFactory(lambda: None))

    def test_bothWays(self) -> None:
        """
        Both sides can open streams, which the other accepts in order.
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
        Calls of C{acceptStream} that wait are served in order.
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

    def test_cancelSiblings(self) -> None:
        """
        When the mux ends, the callback of one call of C{acceptStream} can cancel the
        others.  The session ends as usual.
        """
        both = SessionPair()
        accepting: list[Deferred[Any]] = [both.server.acceptStream() for _ in range(3)]

        def cancelOthers(failure: object) -> None:
            for call in accepting[1:]:
                call.cancel()

        accepting[0].addErrback(cancelOthers)
        ended = both.pair.server.whenClosed()
        both.pair.client.abort()
        both.pair.flush()
        self.successResultOf(accepting[0])
        for call in accepting[1:]:
            self.failureResultOf(call, CancelledError)
        self.successResultOf(ended)
        closing = both.server.close()
        both.pair.flush()
        self.successResultOf(closing)

    def test_backlog(self) -> None:
        """
        A stream is refused while the backlog is full, and accepted once there is room.
        The mux stays up.
        """
        both = SessionPair(backlog=2)
        opened = [self.successResultOf(both.client.openStream()) for _ in range(3)]
        both.pair.flush()
        self.failureResultOf(opened[2].read(), PeerAbortedStream)
        self.failureResultOf(opened[2].write(b"x"), PeerAbortedStream)
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
        Streams that ended before they were accepted count in the backlog, so that a
        peer cannot fill the memory by opening and closing streams.
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
        A stream that waits to be accepted keeps its data.
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

    def test_service(self) -> None:
        """
        Both ends of a stream know its service.  A service that is not named when the
        session is made is unknown, and a stream opens once the peer has accepted it.
        """
        for strict in (False, True):
            both = SessionPair(services=("chat", "web"), strict=strict)
            for one, other in ((both.client, both.server), (both.server, both.client)):
                for service in ("web", None, "chat"):
                    opening = one.openStream(service)
                    both.pair.flush()
                    near = self.successResultOf(opening)
                    far = self.successResultOf(other.acceptStream())
                    self.assertEqual((near.service, far.service), (service, service))
                    near.write(b"hello")
                    reading = far.read()
                    both.pair.flush()
                    self.assertEqual(self.successResultOf(reading), b"hello")
                opening = one.openStream("none")
                both.pair.flush()
                self.failureResultOf(opening, ServiceUnknown)
                self.assertNoResult(other.acceptStream())

    def test_serviceBusy(self) -> None:
        """
        A stream for a service is told that the backlog is full.
        """
        both = SessionPair(backlog=2, services=("chat",))
        opened = [both.client.openStream("chat") for _ in range(3)]
        both.pair.flush()
        self.failureResultOf(opened[2], ServiceBusy)

    def test_serviceClosed(self) -> None:
        """
        A session that is closed while a stream waits for the answer fails the opening.
        """
        both = SessionPair(services=("chat",))
        both.pair.flush()
        both.pair.clientToServer.stall()
        opening = both.client.openStream("chat")
        both.client.close()
        both.pair.clientToServer.unstall()
        both.pair.flush()
        failure = self.failureResultOf(opening, OpenStreamError)
        self.assertIsInstance(failure.value.reason, ConnectionClosed)

    def test_serviceName(self) -> None:
        """
        The name of a service must be valid.
        """
        self.assertRaises(ValueError, SessionPair, services=("a b",))

    def test_noRoom(self) -> None:
        """
        A backlog of 0 is refused.
        """
        self.assertRaises(ValueError, SessionPair, backlog=0)

    def test_strict(self) -> None:
        """
        In strict mode a stream opens once the peer has answered.  Before that, the call
        can be cancelled.
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
        If the peer does not answer in strict mode, the calls that wait fail.
        """
        both = SessionPair(strict=True)
        opening = both.client.openStream()
        both.pair.loseCarrier()
        both.pair.flush()
        self.failureResultOf(opening, HandshakeFailed)
        self.failureResultOf(both.client.openStream(), HandshakeFailed)

    def test_openFails(self) -> None:
        """
        If a mux can open no stream now, the call fails, and the mux stays up.
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
    L{Session.close}, and the peer's close
    """

    def setUp(self) -> None:
        self.both = SessionPair()
        self.both.pair.flush()

    def test_own(self) -> None:
        """
        After our close all calls fail with ConnectionClosed, and the peer sees an
        orderly end.
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
        Our close after the peer's close is legal, and keeps the reason.
        """
        self.both.server.close()
        self.both.pair.flush()
        closing = self.both.client.close()
        self.both.pair.flush()
        self.assertIsNone(self.successResultOf(closing))
        self.failureResultOf(self.both.client.openStream(), PeerClosedConnection)

    def test_unaccepted(self) -> None:
        """
        Streams that arrived before the carrier was lost can still be accepted and read.
        Our own close drops them.
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
        If the network blocks the close, the session ends after the close timeout.
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
        Cancelling the Deferred of C{close} does not stop the close.
        """
        closing, other = self.both.client.close(), self.both.client.close()
        closing.cancel()
        self.failureResultOf(closing, CancelledError)
        self.both.pair.flush()
        self.successResultOf(other)

    def test_fromCallback(self) -> None:
        """
        A session can be closed in the callback of any of its calls.
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
        The text of a session names its mux.
        """
        self.assertIn("192.0.2.2", repr(self.both.client))
        self.assertNotIn(PSK, repr(self.both.client))


class TCPTests(TestCase):
    """
    Both ends over TCP on this machine.
    """

    timeout = 30

    async def listen(self, psk: str | Keyring = PSK, **kwargs: Any) -> Listener:
        """
        @return: a listener, which is closed after the test.
        """
        carrier = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        listener = await Session.server(reactor, carrier, psk, **kwargs)
        self.addCleanup(listener.close)
        return listener

    async def connect(self, listener: Listener, key: str = PSK) -> Session:
        """
        @return: a session to the listener, which is closed after the test.
        """
        addr: Any = listener.addr()
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", addr.port)
        session = await Session.client(reactor, carrier, key)
        self.addCleanup(session.close)
        return session

    async def pair(self) -> tuple[Session, Session]:
        """
        @return: both ends of a session.
        """
        listener = await self.listen()
        client = await self.connect(listener)
        server = await listener.accept()
        self.addCleanup(server.close)
        return client, server

    async def stream(self) -> tuple[Conn, Conn]:
        """
        @return: both ends of a stream.
        """
        client, server = await self.pair()
        here = await client.openStream()
        return here, await server.acceptStream()

    async def test_echo(self) -> None:
        """
        Much data goes in both directions at once on several streams.
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
        Both ends know both addresses, also after the session has ended.
        """
        client, server = await self.pair()
        for _ in range(2):
            self.assertEqual(client.localAddr(), server.remoteAddr())
            self.assertEqual(client.remoteAddr(), server.localAddr())
            await client.close()

    async def test_backpressure(self) -> None:
        """
        A write waits until the peer reads.
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
        A read that waits fails at its deadline.
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
        After a close, the peer's C{acceptStream} fails with PeerClosedConnection, and
        its reads return the data and then EOF.
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
        A peer that vanishes without a CloseMux causes another error than a close.
        """
        client, server = await self.pair()
        client._mux.abort()
        with self.assertRaises(Truncated):
            await server.acceptStream()
        with self.assertRaises(ConnectionClosed):
            await client.openStream()

    async def test_wrongKey(self) -> None:
        """
        A peer without the key is never accepted, and its calls fail.
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
        A server that opens the first stream accepts peers before they show the key.
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
        A carrier that cannot connect fails with the same error as without gomux.
        """
        listener = await self.listen()
        await listener.close()
        with self.assertRaises(ConnectionRefusedError):
            await self.connect(listener)

    async def test_cancelClient(self) -> None:
        """
        An attempt to connect can be cancelled.
        """
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", 9)
        connecting = Session.client(reactor, carrier, PSK)
        connecting.cancel()
        with self.assertRaises(ConnectingCancelledError):
            await connecting

    def test_noKey(self) -> None:
        """
        An empty key is refused.
        """
        carrier: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", 9)
        self.assertRaises(ValueError, Session.client, reactor, carrier, "")
        self.assertRaises(ValueError, Session.server, reactor, carrier, "")

    async def test_endRevoked(self) -> None:
        """
        A listener ends the sessions of peers whose keys were revoked.
        """
        keys = (("a", b"key of a, of 20 bytes"), ("b", b"key of b, 20 bytes"))
        keyring = Keyring(keys)
        port = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        listener = await Session.server(reactor, port, keyring)
        self.addCleanup(listener.close)
        address: Any = listener.addr()
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", address.port)
        client = await Session.client(reactor, carrier, "key of a, of 20 bytes")
        self.addCleanup(client.close)
        session = await listener.accept()
        keyring._keys = keyring.keys[1:]
        listener.endRevoked({"a"})
        with self.assertRaises(KeyRevoked):
            await session.acceptStream()

    async def test_listenerBacklog(self) -> None:
        """
        A session that finds the listener's backlog full sees the mux closed.
        """
        listener = await self.listen(backlog=1)
        first = await self.connect(listener)
        await (await first.openStream()).write(b"hello")
        conn = await (await self.connect(listener)).openStream()
        with self.assertRaises(PeerClosedConnection):
            await conn.read()
        session = await listener.accept()
        self.assertEqual(session.remoteAddr(), first.localAddr())

    async def test_listenerShares(self) -> None:
        """
        If several peers share a listener's backlog, one of them cannot have all of it.
        """
        keyring = Keyring({"alice": "a" * 40, "bob": "b" * 40})
        listener = await self.listen(keyring, backlog=3)
        for key in ("a" * 40, "a" * 40):
            session = await self.connect(listener, key)
            await (await session.openStream()).write(b"hello")
        while len(listener._backlog.items) < 2:
            await self.soon()
        conn = await (await self.connect(listener, "a" * 40)).openStream()
        with self.assertRaises(PeerClosedConnection):
            await conn.read()
        session = await self.connect(listener, "b" * 40)
        await (await session.openStream()).write(b"hello")
        while len(listener._backlog.items) < 3:
            await self.soon()
        self.addCleanup((await listener.accept()).close)
        session = await self.connect(listener, "a" * 40)
        await (await session.openStream()).write(b"hello")
        for _ in range(2):
            self.addCleanup((await listener.accept()).close)

    async def test_iteration(self) -> None:
        """
        An C{async for} over a listener accepts sessions until it is closed.  Closing it
        closes only the sessions that were not accepted.
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
        @return: a Deferred that fires in a later reactor turn.
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
        Calls can be awaited in Twisted's coroutines and in asyncio tasks.
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
    The C{written} attribute of errors
    """

    def test_written(self) -> None:
        """
        Every error has C{written}, which is 0 unless a write failed.
        """
        self.assertEqual(GomuxError().written, 0)
