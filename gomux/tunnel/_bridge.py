# -*- test-case-name: gomux.test.tunnel.test_tunnel -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Forwarding.  Local connections continue as streams, and streams that the peer opens
continue as connections to a target.

In both cases a L{_Bridge} joins two connections, its ends.  The near end exists first,
and stays paused until the far end is connected.  Then the input of each end is the
output of the other, and the transport of each end is the producer of the other.  So a
slow reader slows the writer at the other end down.

When one end closes, the bridge does the same to the other end:

  - If one half is closed, the same half of the other end is closed.
  - If an end closes in an orderly way, the other end writes its output and closes.
  - If an end is cut short, the other end is aborted: truncated data must not look
    complete.  A stream that the peer aborts ends with L{PeerAbortedStream}.  A peer
    that runs the Go package cannot report an abort.
"""

from __future__ import annotations

import socket
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

#: Connects the far end of a bridge.  Its protocol comes from the factory.
Connect = Callable[[IProtocolFactory], "Deferred[IProtocol]"]


class Tunnel(Factory):
    """
    The factory of bridges: it continues each connection that it accepts on another
    connection.

    @ivar name: its name in log lines.
    @ivar bridges: the bridges whose near end is connected.
    @ivar connect: connects the far end of a bridge.
    @ivar log: the log of the bridges, with a limit on the number of lines.
    @ivar _maxConnections: how many bridges there may be; C{None} for no limit.
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
        @param name: its name in log lines.
        @param connect: connects the far end of a bridge.
        @param clock: the reactor.
        @param maxConnections: how many connections may be open at a time.
        """
        self.name = name
        self.bridges: set[_Bridge] = set()
        self.connect = connect
        self.log = ThrottledLog(_log, steady(clock))
        self._maxConnections = maxConnections

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """
        @return: the near end of a new bridge, or C{None} if there are too many.
        """
        if (
            self._maxConnections is not None
            and len(self.bridges) >= self._maxConnections
        ):
            self.log.warn(
                "{name}: refused {addr}: {count} connections are open already",
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

    @param name: its name in log lines.
    @param pool: the muxes that streams are opened on.
    @param clock: the reactor.
    @param limits: the limits of the tunnel.
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
    Make the factory for streams that continue as connections to a target.

    @param name: its name in log lines.
    @param endpoint: the endpoint of the target.
    @param clock: the reactor.
    @param limits: the limits of the tunnel.
    """

    def connect(factory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting = maybeDeferred(endpoint.connect, factory)
        return connecting.addTimeout(limits.targetTimeout, steady(clock))

    return Tunnel(name, connect, clock, limits.maxConnections)


class _Bridge:
    """
    Two connections, each of which continues the other.

    @ivar near: the end that was connected first.
    @ivar joined: whether both ends are connected.
    @ivar _far: the end that is connected for it.
    @ivar _name: the address of the near end, for log lines.
    @ivar _connecting: fires when the far end is connected.
    @ivar _aborted: whether L{abort} was called.
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
        An end is connected.  After the near end, connect the far end; after the far
        end, join them.
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
        The far end cannot be connected: abort the near end.
        """
        if self.near.lost or self._aborted:
            return
        self._tunnel.log.warn(
            "{name}: closed {near}: the other side cannot be connected: {reason}",
            name=self._tunnel.name,
            near=self._name,
            reason=failure.getErrorMessage(),
        )
        self.abort()

    def lost(self, end: _End, reason: Failure) -> None:
        """
        An end is gone: close or abort the other end.
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
                    "{name}: {near} was cut short by {end}: {reason}",
                    name=self._tunnel.name,
                    near=self._name,
                    end="its own side" if end is self.near else "the other side",
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
    A factory whose only protocol is the far end of a bridge.
    """

    noisy = False

    def __init__(self, end: _End) -> None:
        self._end = end

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._end


@implementer(IPushProducer)
class _Source:
    """
    The transport of an end, as the producer of the other end.

    It ignores C{stopProducing}, on which the transport itself would call
    C{loseConnection}.  That would be wrong: a consumer stops its producer also when
    only its writing half is closed, and before it reports how it was closed.
    """

    def __init__(self, transport: IPushProducer) -> None:
        self.pauseProducing = transport.pauseProducing
        self.resumeProducing = transport.resumeProducing

    def stopProducing(self) -> None:
        """
        Do nothing: the consumer's protocol reports the reason next.
        """


@implementer(IHalfCloseableProtocol)
class _End(Protocol):
    """
    One end of a bridge.

    @ivar output: its transport, to which the other end writes.
    @ivar lost: whether it is gone.
    @ivar _inputEnded: whether its input has reached EOF.
    @ivar _outputEnding: whether the bridge has closed its writing half.
    @ivar _outputEnded: whether its writing half is closed.
    @ivar _outputRefused: whether its reader closed that half before the bridge did.
    @ivar _other: the other end, once that is connected.
    @ivar _early: input that arrived before the other end was connected.
    """

    output: DirectTransport

    # Any transport will do: the methods check for the interfaces that they need.
    transport: Any = None
    lost = False
    _inputEnded = False
    _outputEnding = False
    _outputEnded = False
    _outputRefused = False
    _other: _End | None = None

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge
        self._early: list[bytes] = []

    def connectionMade(self) -> None:
        """
        This end is connected.  Pause it until the other end is connected too.
        """
        transport = self.transport
        transport.pauseProducing()
        self.output = DirectTransport(transport)
        if isinstance(transport.getPeer(), (IPv4Address, IPv6Address)):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        handle = getattr(transport, "socket", None)
        if handle is not None:
            # Otherwise a byte that was sent as urgent data would be lost.
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        self._bridge.connected(self)

    def dataReceived(self, data: bytes) -> None:
        """
        Keep input that a transport delivers although it is paused.
        """
        self._early.append(data)

    def join(self, other: _End) -> None:
        """
        The other end is connected: pass input on to it.
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
        @return: the C{dataReceived} that passes input on to the other end.
        """
        received = self.output.received

        def passOn(data: bytes) -> None:
            received(len(data))
            write(data)

        return passOn if self.output.isDirect else write

    def follow(self) -> None:
        """
        Do to the other end what happened to this one before they were joined.
        """
        assert self._other is not None
        if self._inputEnded:
            self._other.finish()
        if self._outputRefused:
            self._other.discard()

    def readConnectionLost(self) -> None:
        """
        This end has read EOF: close the writing half of the other end.
        """
        if self.output.wasReset():
            # The transport would report our abort, not the reset, and later.
            self.transport.abortConnection()
            self.connectionLost(Failure(ConnectionLost()))
            return
        self._inputEnded = True
        if self._other is not None:
            self._other.finish()
        self._closeIfDone()

    def writeConnectionLost(self) -> None:
        """
        The writing half is closed.  If the bridge did not close it, the reader did:
        discard the input of the other end.
        """
        self._outputEnded = True
        if not self._outputEnding:
            self._outputRefused = True
            if self._other is not None:
                self._other.discard()
        self._closeIfDone()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        This end is gone: tell the bridge.
        """
        if self.lost:
            return
        self.lost = True
        self.dataReceived = _discard  # type: ignore[method-assign]
        self._bridge.lost(self, reason)

    def finish(self) -> None:
        """
        There is no more to write: close the writing half, or the whole connection
        if the transport has no half-close (TLS has none).
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
        # A TLS transport also has the method, but it half-closes the TCP
        # connection below, which breaks TLS.
        return hasattr(
            self.transport, "loseWriteConnection"
        ) and not ISSLTransport.providedBy(self.transport)

    def discard(self) -> None:
        """
        Nobody reads the input of this end any more.  Read and drop it, to get to
        its EOF or its loss.
        """
        self.dataReceived = _discard  # type: ignore[method-assign]
        if not (self._inputEnded or self.lost):
            self.transport.resumeProducing()

    def _closeIfDone(self) -> None:
        """
        Close the connection if both halves are closed: TCP does not do so itself.
        """
        if self._inputEnded and self._outputEnded:
            self.transport.loseConnection()

    def isOrderly(self, reason: Failure) -> bool:
        """
        @return: whether this end closed without losing data.
        """
        if reason.check(PeerAbortedStream):
            # After the peer's EOF all its data is here: the abort can only refuse
            # more data from this side.
            return self._inputEnded
        if not reason.check(ConnectionDone):
            return False
        if reason.check(ConnectionClosed, PeerClosedConnection):
            # The end of the mux may have cut this stream short.
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
            # Otherwise the end closes itself once its writing half is closed.
            self.transport.loseConnection()

    def abort(self) -> None:
        """
        Abort the connection, so that the peer sees a reset and not an orderly end.
        """
        if not self.lost and self.transport is not None:
            self.output.unregisterProducer()
            self.transport.abortConnection()


def _discard(data: bytes) -> None:
    """
    Drop input.
    """
