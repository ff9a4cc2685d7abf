# -*- test-case-name: gomux.test.session.test_session -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The API of the Go package: sessions and streams whose calls can be awaited.

Each call that waits returns a Deferred.  With any reactor it can be awaited in a
coroutine that
L{Deferred.fromCoroutine<twisted.internet.defer.Deferred.fromCoroutine>} runs.  In an
asyncio task, under the asyncio reactor, await its
L{asFuture<twisted.internet.defer.Deferred.asFuture>}.

The Go package wraps a connection that already exists.  In Twisted a connection has its
protocol from the start, so this API takes an endpoint instead.  L{Session.client}
connects it.  L{Session.server} listens on it and returns a L{Listener}, which accepts
sessions as Go's listener accepts connections.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from copy import copy
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.logger import Logger

from gomux._mux.factory import MuxFactory
from gomux._mux.log import CountedLog
from gomux._mux.newcomer import Newcomers
from gomux._mux.protocol import MuxProtocol
from gomux._wire.keyring import Keyring
from gomux._wire.request import checkServiceName
from gomux._wire.shares import Peers, Shares
from gomux.error import ConnectionClosed, GomuxError
from gomux.limits import BACKLOG, Limits
from gomux.session._backlog import Backlog, nothing
from gomux.session._conn import Conn
from gomux.session._connfactory import ConnFactory

_log = Logger()


class Session:
    """
    One mux, which the Go package calls a C{Mux}.

    Made by L{Session.client}, and by a L{Listener}.

    @ivar _mux: the mux.
    @ivar _clock: the reactor.
    @ivar _backlog: the streams that the peer has opened and the application has not
        accepted.
    @ivar _conns: the streams that are open or have unread data, in order of arrival.
    @ivar _closed: whether this side has closed the session.
    @ivar _refusals: logs that the backlog is full.
    """

    def __init__(
        self,
        mux: MuxProtocol,
        clock: IReactorTime,
        backlog: int,
        services: Collection[str],
    ) -> None:
        """
        @param mux: a mux whose carrier is connected, and which has no streams yet.
        @param clock: the reactor.
        @param backlog: how many streams may wait to be accepted.
        @param services: the names of the services that the peer may open streams for.
        """
        self._mux = mux
        streams = mux.streamFactory = ConnFactory(self._incoming)
        mux.services = dict.fromkeys(services, streams)
        self._clock = clock
        self._backlog: Backlog[Conn] = Backlog(backlog)
        self._conns: dict[Conn, None] = {}
        self._closed = False
        self._refusals = CountedLog(_log, clock)

    def __repr__(self) -> str:
        return f"<Session over {self._mux!r}>"

    @classmethod
    def client(
        cls,
        reactor: IReactorTime,
        carrier: IStreamClientEndpoint,
        psk: bytes | str | Keyring,
        *,
        limits: Limits | None = None,
        strict: bool | Collection[str] = False,
        context: bytes = b"",
        strictClock: bool = False,
        backlog: int = BACKLOG,
        services: Collection[str] = (),
        peer: str | None = None,
    ) -> Deferred[Session]:
        """
        Connect to a peer.

        @param reactor: the reactor.
        @param carrier: the endpoint that connects the carrier.
        @param psk: the pre-shared key; text stands for its UTF-8 bytes.
        @param limits: the limits of the mux.
        @param strict: as for L{MuxFactory<gomux.MuxFactory>}.
        @param context: as for L{MuxFactory<gomux.MuxFactory>}.
        @param strictClock: as for L{MuxFactory<gomux.MuxFactory>}.
        @param backlog: how many streams may wait for L{acceptStream}.
        @param services: the names of the services that the peer may open streams for,
            besides those without a name.  L{acceptStream} returns all of them.
        @param peer: the name of the peer, which says whose key to use; C{None} if there
            is a single key.
        @return: the session, once the carrier is connected.  Fails as the carrier's
            C{connect} does.  The peer has not shown by then that it holds the
            key: its first frame shows that.
        @raise ValueError: if C{psk}, C{backlog}, C{services} or C{peer} is not valid.
        """
        factory = _SessionFactory(
            *(psk, True, backlog, services),
            clock=reactor,
            limits=limits,
            strict=strict,
            context=context,
            strictClock=strictClock,
            peer=peer,
        )
        return carrier.connect(cast(IProtocolFactory, factory)).addCallback(
            factory.sessionOf
        )

    @classmethod
    def server(
        cls,
        reactor: IReactorTime,
        carrier: IStreamServerEndpoint,
        psk: bytes | str | Keyring,
        *,
        limits: Limits | None = None,
        strict: bool | Collection[str] = False,
        context: bytes = b"",
        strictClock: bool = False,
        backlog: int = BACKLOG,
        services: Collection[str] = (),
        silentPeers: bool = False,
    ) -> Deferred[Listener]:
        """
        Listen for peers.

        @param reactor: the reactor.
        @param carrier: the endpoint that listens for carriers.
        @param psk: the pre-shared key; text stands for its UTF-8 bytes.
        @param limits: the limits of each mux.
        @param strict: as for L{MuxFactory<gomux.MuxFactory>}.
        @param context: as for L{MuxFactory<gomux.MuxFactory>}.
        @param strictClock: as for L{MuxFactory<gomux.MuxFactory>}.
        @param backlog: how many sessions may wait for L{Listener.accept}, and
            how many streams of each session for L{acceptStream}.
        @param services: as for L{client}.
        @param silentPeers: whether to accept peers before they have shown that
            they hold the key.  A client of the Go package sends nothing before
            it opens a stream, so a server that opens the first stream needs this.
        @return: the listener, once it listens.
        @raise ValueError: if C{psk}, C{backlog} or C{services} is not valid.
        """
        factory = _SessionFactory(
            *(psk, False, backlog, services),
            clock=reactor,
            limits=limits,
            strict=strict,
            context=context,
            strictClock=strictClock,
        )
        listener = Listener(backlog, factory.keyring)
        if silentPeers:
            factory.connected = listener.arrived
        else:
            factory.authenticated = listener.arrived
        listener.endRevoked = factory.endRevoked
        port = factory if silentPeers else Newcomers(factory)
        return carrier.listen(port).addCallback(listener.listening)

    def openStream(self, service: str | None = None) -> Deferred[Conn]:
        """
        Open a stream to the peer.

        @param service: the name of one of the peer's services; C{None} for none.
        @return: the stream; with a service, once the peer has accepted it.  Fails with
            L{ConnectionClosed}, L{PeerClosedConnection<gomux.PeerClosedConnection>} or
            another reason why the mux ended, and with
            L{OpenStreamError<gomux.OpenStreamError>} if the mux can open no stream now,
            if the peer refuses the stream or if it knows no services.
        """
        reason = ConnectionClosed() if self._closed else self._mux.reason
        if reason is not None:
            return fail(copy(reason))
        opening = self._mux.openStream(ConnFactory(self._outgoing), service)
        return cast("Deferred[Conn]", opening)

    def acceptStream(self) -> Deferred[Conn]:
        """
        Accept the next stream that the peer opens.

        While the backlog is full, new streams are refused: the peer sees them
        aborted.  (The Go package stops reading instead, which stops every stream of
        the mux.)

        @return: the stream.  The Deferred can be cancelled.  After the mux has
            ended and all streams of the backlog have been accepted, it fails
            with L{ConnectionClosed},
            L{PeerClosedConnection<gomux.PeerClosedConnection>} or another
            reason why the mux ended.
        """
        return self._backlog.get()

    def close(self) -> Deferred[None]:
        """
        Close the session and all of its streams.  Data that the mux has taken is
        sent first.  All calls that wait fail with L{ConnectionClosed}.

        It is legal to call this again, or after the peer has closed the mux.

        @return: fires once the carrier is gone, which takes at most
            L{Limits.closeTimeout<gomux.Limits.closeTimeout>} seconds.
        """
        if self._mux.reason is None and not self._closed:
            self._closed = True
            self._backlog.items.clear()
            self._backlog.end(ConnectionClosed())
            for conn in list(self._conns):
                conn.muxClosing()
        return self._mux.close().addCallback(nothing)

    def localAddr(self) -> IAddress:
        """
        @return: the address of this end of the carrier.
        """
        return self._mux.getHost()

    def remoteAddr(self) -> IAddress:
        """
        @return: the address of the other end of the carrier.
        """
        return self._mux.getPeer()

    @property
    def connCount(self) -> int:
        """
        How many streams are open or have unread data.
        """
        return len(self._conns)

    def lost(self, reason: GomuxError) -> None:
        """
        The carrier is gone.  Called by the factory.

        @param reason: why the mux ended.
        """
        self._backlog.end(reason)
        # The streams that are left have unread data.
        for conn in list(self._conns):
            conn.muxLost(reason)

    def _incoming(self) -> Conn | None:
        if self._backlog.full:
            self._refusals.warn(
                "{session} refused {count} of the peer's streams: as many as the"
                " backlog allows wait to be accepted",
                session=self,
            )
            return None
        return Conn(self._clock, self._arrived, self._gone)

    def _outgoing(self) -> Conn:
        return Conn(self._clock, self._made, self._gone)

    def _made(self, conn: Conn) -> None:
        self._conns[conn] = None

    def _arrived(self, conn: Conn) -> None:
        self._conns[conn] = None
        self._backlog.put(conn)

    def _gone(self, conn: Conn) -> None:
        self._conns.pop(conn, None)


class Listener:
    """
    Accepts sessions, as C{net.Listener} does in Go.  Made by L{Session.server}.

    An C{async for} loop over it accepts session after session, and ends when the
    listener is closed.

    @ivar endRevoked: ends the sessions of peers with revoked keys, as
        L{MuxFactory.endRevoked<gomux.MuxFactory.endRevoked>} does.  Data that a
        L{Conn} has already taken can still be read.
    @ivar _backlog: the sessions that have arrived and were not accepted yet.
    @ivar _size: how many there may be.
    @ivar _peers: the keyring of the peers that share these places.
    @ivar _port: the listening port of the carrier.
    @ivar _addr: the address of that port.
    """

    _port: IListeningPort
    endRevoked: Callable[[Collection[str]], None]

    def __init__(self, backlog: int, peers: Peers) -> None:
        """
        @param backlog: how many sessions may wait to be accepted.
        @param peers: the keyring of the peers that share these places.
        """
        self._backlog: Backlog[Session] = Backlog(backlog)
        self._size = backlog
        self._peers = peers

    def accept(self) -> Deferred[Session]:
        """
        Accept the next session.

        While the backlog is full, new peers are turned away: they see the mux
        closed.  So are the peers that have their share of it, if there are several.

        @return: the session.  The Deferred can be cancelled.  Fails with
            L{ConnectionClosed} when the listener is closed.
        """
        return self._backlog.get()

    def close(self) -> Deferred[None]:
        """
        Stop listening, and close the sessions that were not accepted yet.  Accepted
        sessions stay open.

        @return: fires when the port is closed.
        """
        self._backlog.end(ConnectionClosed())
        while self._backlog.items:
            self._backlog.items.popleft().close()
        # stdio: has no port, only the carrier itself.
        stop = getattr(self._port, "stopListening", lambda: None)
        return maybeDeferred(stop).addCallback(nothing)

    def addr(self) -> IAddress:
        """
        @return: the address that the listener listens on, or did before it was
            closed.
        """
        return self._addr

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Session:
        try:
            return await self.accept()
        except ConnectionClosed:
            raise StopAsyncIteration() from None

    def listening(self, port: IListeningPort) -> Listener:
        """
        The port is open.  Called by L{Session.server}.

        @return: this listener.
        """
        self._port = port
        # Ask now: a closed port has forgotten its address.
        self._addr = port.getHost()
        return self

    def arrived(self, session: Session) -> None:
        """
        A session has arrived: queue it, or close it if the backlog is full, or the
        share of its peer.  Called by its factory.
        """
        waiting = Shares(self._size, self._peers)
        for other in self._backlog.items:
            waiting.take(other._mux.peerName)
        if self._backlog.full or not waiting.mayTake(session._mux.peerName):
            session.close()
        else:
            self._backlog.put(session)


class _SessionFactory(MuxFactory):
    """
    Makes muxes, and a session for each mux.

    @ivar sessions: the sessions whose muxes are not gone.
    @ivar connected: called with each session when its carrier is connected.
    @ivar authenticated: called with each session when its peer has shown that it
        holds the key.
    @ivar _backlog: see L{Session}.
    @ivar _services: see L{Session}.
    """

    def __init__(
        self,
        psk: bytes | str | Keyring,
        isClient: bool,
        backlog: int,
        services: Collection[str] = (),
        **settings: Any,
    ) -> None:
        """
        @param psk: as for L{MuxFactory}.
        @param isClient: as for L{MuxFactory}.
        @param backlog: how many streams of each session may wait to be accepted.
        @param services: the services that the peers may open streams for.
        @param settings: as for L{MuxFactory}.
        """
        super().__init__(psk, isClient, **settings)
        self.sessions: dict[MuxProtocol, Session] = {}
        self.connected: Callable[[Session], None] = nothing
        self.authenticated: Callable[[Session], None] = nothing
        self._backlog = backlog
        self._services = tuple(map(checkServiceName, services))

    def muxConnected(self, mux: MuxProtocol) -> None:
        session = Session(mux, self.clock, self._backlog, self._services)
        self.sessions[mux] = session
        super().muxConnected(mux)
        self.connected(session)

    def muxAuthenticated(self, mux: MuxProtocol) -> None:
        super().muxAuthenticated(mux)
        self.authenticated(self.sessions[mux])

    def muxLost(self, mux: MuxProtocol, reason: GomuxError) -> None:
        super().muxLost(mux, reason)
        self.sessions.pop(mux).lost(reason)

    def sessionOf(self, mux: IProtocol) -> Session:
        """
        @return: the session of a mux.
        """
        return self.sessions[cast(MuxProtocol, mux)]
