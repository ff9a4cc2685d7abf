# -*- test-case-name: gomux.test.tunnel.test_tunnel -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Forwarding: connections that come in here continue as streams, and streams that
the peer opens continue as connections to a target.

Either way one connection is there first, and stays paused until the other is:
the two are the ends of a L{_Bridge}.  From then on each end's input is the
other's output, and each end's transport is the other's producer, so that a
reader who is slow makes the writer slow, all the way through.

How an end goes, its other end follows:

  - A half that is closed closes the same half of the other end.
  - An end that goes in an orderly way closes the other end, once that has
    written what it has.
  - An end that is cut short aborts the other end, for what was cut short must
    not look complete.  A stream that the peer aborts ends with
    L{PeerAbortedStream}; a peer that is a Go program cannot say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gomux._carrier.clock import steady
from gomux._carrier.direct import DirectTransport
from gomux._mux.log import ThrottledLog, describeAddress
from gomux._mux.pool import MuxPool
from gomux.error import ConnectionClosed, PeerAbortedStream, PeerClosedConnection
from gomux.limits import TunnelLimits

_log = Logger()

#: Makes the far end of a bridge, with the protocol of this factory.
Connect = Callable[[IProtocolFactory], "Deferred[IProtocol]"]


class Tunnel(Factory):
    """
    Continues each connection that it is given on another one.

    @ivar name: what log lines call it.
    @ivar bridges: the connections there are.
    """

    noisy = False

    def __init__(
        self,
        name: str,
        connect: Connect,
        clock: IReactorTime,
        maxConnections: int | None = None,
    ) -> None:
        """
        @param name: what log lines call it.
        @param connect: makes the other connection.
        @param clock: the reactor.
        @param maxConnections: how many connections to accept at a time.
        """
        self.name = name
        self.bridges: set[_Bridge] = set()
        self.connect = connect
        self.log = ThrottledLog(_log, steady(clock))
        self._maxConnections = maxConnections

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """
        @return: one end of a new bridge, or C{None} if there are too many.
        """
        if (
            self._maxConnections is not None
            and len(self.bridges) >= self._maxConnections
        ):
            self.log.warn(
                "{name}: refused {addr}: there are {count} connections already",
                name=self.name,
                addr=describeAddress(addr),
                count=len(self.bridges),
            )
            return None
        return _Bridge(self, describeAddress(addr)).near

    def abort(self) -> None:
        """
        Abort all connections.
        """
        for bridge in list(self.bridges):
            bridge.abort()


def forward(
    name: str, pool: MuxPool, clock: IReactorTime, limits: TunnelLimits
) -> Tunnel:
    """
    Make the factory for a listener whose connections continue as streams.

    @param name: what log lines call it.
    @param pool: has the muxes.
    @param clock: the reactor.
    @param limits: how much it may take up.
    """
    return Tunnel(
        name,
        lambda factory: pool.openStream(factory, limits.waitTimeout),
        clock,
        limits.maxConnections,
    )


def target(
    name: str,
    endpoint: IStreamClientEndpoint,
    clock: IReactorTime,
    limits: TunnelLimits,
) -> Tunnel:
    """
    Make the factory for streams that continue as connections.

    @param name: what log lines call it.
    @param endpoint: where to connect to.
    @param clock: the reactor.
    @param limits: how much it may take up.
    """

    def connect(factory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting = maybeDeferred(endpoint.connect, factory)
        return connecting.addTimeout(limits.targetTimeout, steady(clock))

    return Tunnel(name, connect, clock, limits.maxConnections)


class _Bridge:
    """
    Two connections, each of which continues the other.

    @ivar near: the end that was there first.
    @ivar joined: whether both ends are there.
    """

    _connecting: Deferred[IProtocol] | None = None
    _aborted = False
    joined = False

    def __init__(self, tunnel: Tunnel, name: str) -> None:
        self._tunnel = tunnel
        self._name = name
        self.near = _End(self)
        self._far = _End(self)

    def connected(self, end: _End) -> None:
        """
        An end is there.
        """
        if end is self.near:
            self._tunnel.bridges.add(self)
            connecting = self._connecting = self._tunnel.connect(_EndFactory(self._far))
            connecting.addErrback(self._failed)
        elif self.near.lost or self._aborted:
            end.abort()
        else:
            self.joined = True
            self.near.join(end)
            end.join(self.near)
            self.near.follow()
            end.follow()

    def _failed(self, failure: Failure) -> None:
        """
        There will be no far end.
        """
        if self.near.lost or self._aborted:
            return
        self._tunnel.log.warn(
            "{name}: closed {near}, for there was nothing to connect it to: {reason}",
            name=self._tunnel.name,
            near=self._name,
            reason=failure.getErrorMessage(),
        )
        self.abort()

    def lost(self, end: _End, reason: Failure) -> None:
        """
        An end is gone.
        """
        other = self._far if end is self.near else self.near
        if not self.joined:
            if end is self.near and self._connecting is not None:
                self._connecting.cancel()
        elif end.isOrderly(reason):
            other.close()
        else:
            if not self._aborted and not other.lost:
                self._tunnel.log.warn(
                    "{name}: {near} was cut short, for {end} was: {reason}",
                    name=self._tunnel.name,
                    near=self._name,
                    end="it" if end is self.near else "the other side",
                    reason=reason.getErrorMessage(),
                )
            other.abort()
        if self.near.lost and (self._far.lost or not self.joined):
            self._tunnel.bridges.discard(self)

    def abort(self) -> None:
        """
        Abort both ends.
        """
        self._aborted = True
        self.near.abort()
        self._far.abort()


class _EndFactory(Factory):
    """
    Makes no protocol but the one it is for.
    """

    noisy = False

    def __init__(self, end: _End) -> None:
        self._end = end

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._end


@implementer(IPushProducer)
class _Source:
    """
    An end's transport, as the producer of the other end.

    What the transport itself does on C{stopProducing}, C{loseConnection},
    would be wrong: a consumer stops its producer also when only its own
    writing half is gone, and how it went is yet to be told.
    """

    def __init__(self, transport: IPushProducer) -> None:
        self.pauseProducing = transport.pauseProducing
        self.resumeProducing = transport.resumeProducing

    def stopProducing(self) -> None:
        """
        Wait for what follows.
        """


@implementer(IHalfCloseableProtocol)
class _End(Protocol):
    """
    One end of a bridge.

    @ivar output: its transport, as what the other end writes to.
    @ivar lost: whether it is gone.
    """

    output: DirectTransport

    # Any transport will do; which interfaces it has is asked where it matters.
    transport: Any = None
    lost = False
    # Its input is at its end.
    _inputEnded = False
    # It takes no more output, because the bridge closed this half ...
    _outputEnding = False
    # ... and that is done, or because whoever reads it has closed it.
    _outputEnded = False
    _outputRefused = False
    _other: _End | None = None

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge
        self._early: list[bytes] = []

    def connectionMade(self) -> None:
        """
        Wait, without reading, until the other end is there.
        """
        transport = self.transport
        transport.pauseProducing()
        self.output = DirectTransport(transport)
        if isinstance(transport.getPeer(), (IPv4Address, IPv6Address)):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        self._bridge.connected(self)

    def dataReceived(self, data: bytes) -> None:
        """
        Keep what a transport already had when it was paused.
        """
        self._early.append(data)

    def join(self, other: _End) -> None:
        """
        The other end is there: let input flow into it.
        """
        self._other = other
        write = other.output.write
        for data in self._early:
            write(data)
        self._early.clear()
        self.dataReceived = self._passer(write)  # type: ignore[assignment,method-assign]
        if not self._inputEnded:
            self.transport.resumeProducing()
            other.output.registerProducer(_Source(self.transport))

    def _passer(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """
        @return: what passes input on.
        """
        received = self.output.received

        def passOn(data: bytes) -> None:
            received(len(data))
            write(data)

        return passOn if self.output.isDirect else write

    def follow(self) -> None:
        """
        Have the other end follow what happened while it was not there.
        """
        assert self._other is not None
        if self._inputEnded:
            self._other.finish()
        if self._outputRefused:
            self._other.discard()

    def readConnectionLost(self) -> None:
        """
        There is no more input: end the output of the other end.
        """
        if self.output.wasReset():
            # The transport would tell of the abort, not of the reset, and later.
            self.transport.abortConnection()
            self.connectionLost(Failure(ConnectionLost()))
            return
        self._inputEnded = True
        if self._other is not None:
            self._other.finish()
        self._closeIfDone()

    def writeConnectionLost(self) -> None:
        """
        There can be no more output.
        """
        self._outputEnded = True
        if not self._outputEnding:
            self._outputRefused = True
            if self._other is not None:
                self._other.discard()
        self._closeIfDone()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        This end is gone.
        """
        if self.lost:
            return
        self.lost = True
        self.dataReceived = _discard  # type: ignore[method-assign]
        self._bridge.lost(self, reason)

    def finish(self) -> None:
        """
        There is no more to write: close the writing half, or where that cannot
        be had, as over TLS, all.
        """
        transport = self.transport
        if self.lost:
            return
        self.output.unregisterProducer()
        self._outputEnding = True
        if self._canHalfClose():
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def _canHalfClose(self) -> bool:
        # TLS shows the method of the TCP below it, where it would do harm.
        return hasattr(
            self.transport, "loseWriteConnection"
        ) and not ISSLTransport.providedBy(self.transport)

    def discard(self) -> None:
        """
        Nobody wants the input any more: read it all the same, for the end that
        comes after it.
        """
        self.dataReceived = _discard  # type: ignore[method-assign]
        if not (self._inputEnded or self.lost):
            self.transport.resumeProducing()

    def _closeIfDone(self) -> None:
        """
        TCP waits to be told that it is done, even if both halves are.
        """
        if self._inputEnded and self._outputEnded:
            self.transport.loseConnection()

    def isOrderly(self, reason: Failure) -> bool:
        """
        @return: whether nothing was cut short when this end went.
        """
        if reason.check(PeerAbortedStream):
            # Whoever had said all that there is to say can only have refused
            # to hear more.
            return self._inputEnded
        if not reason.check(ConnectionDone):
            return False
        if reason.check(ConnectionClosed, PeerClosedConnection):
            # The mux was closed, whatever its streams were at.
            return self._inputEnded and self._outputEnded
        return True

    def close(self) -> None:
        """
        Close this end when its output is written.
        """
        if self.lost:
            return
        self.output.unregisterProducer()
        if not (self._inputEnded and self._outputEnding):
            # Otherwise it ends by itself, half by half.
            self.transport.loseConnection()

    def abort(self) -> None:
        """
        End at once, and in such a way that the peer can tell.
        """
        if not self.lost and self.transport is not None:
            self.output.unregisterProducer()
            self.transport.abortConnection()


def _discard(data: bytes) -> None:
    """
    Do nothing with some input.
    """
