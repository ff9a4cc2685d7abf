# -*- test-case-name: gomux.test.tunnel.test_tunnel -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Forwarding.  Local connections continue as streams, and streams that the peer opens
continue as connections to a target.  The bridges between them are in
L{gomux.tunnel._bridge}.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from gomux._carrier.clock import steady
from gomux._carrier.passed import PassedDropper
from gomux._carrier.turns import DONE
from gomux._mux.deadlines import Deadlines
from gomux._mux.log import ThrottledLog, describeAddress
from gomux._mux.pool import MuxPool
from gomux._mux.tally import ServiceCounts
from gomux._wire.keyring import Keyring
from gomux._wire.peerrules import PeerUses
from gomux._wire.shares import Shares
from gomux.error import OpenStreamError, ServiceBusy, ServiceUnknown
from gomux.limits import TunnelLimits
from gomux.tunnel._accesslog import AccessLog, addressOf, describe
from gomux.tunnel._bridge import Bridge
from gomux.tunnel._codes import MUX_LOST, codeOf
from gomux.tunnel._localends import connector, outputOf
from gomux.tunnel._localports import LocalPorts

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
    @ivar clock: tells the time.
    @ivar limits: its limits.
    @ivar log: where the bridges log.
    @ivar awaited: the bridges whose far end is a stream that the peer has not accepted
        yet; C{None} if the far ends are accepted when they are connected.
    @ivar service: the service that all its connections are for; C{None} if the address
        of a connection tells.
    @ivar accessLog: gets a line for each connection that has ended; C{None} for none.
    @ivar hint: what the log says if the peer has no such service.
    @ivar counts: counts the connections of a forwarding endpoint; C{None} for a target,
        whose streams the mux counts.
    @ivar plain: counts the streams without a request whose target cannot be connected:
        the mux has accepted them.
    @ivar ports: counts the local ports of a target's connections; C{None} for a
        forwarding endpoint, and if no keyring is given.
    @ivar pool: where a forwarding endpoint opens its streams; C{None} for a target.
    @ivar _shares: the shares of which each bridge takes one place, by the name of their
        places in log lines.
    @ivar _byMux: the bridges that are told when a mux has ended, by mux.
    @ivar _proving: fires when a peer shows the key, while there are streams on muxes
        whose peers have not, and may be strangers; C{None} otherwise.
    """

    noisy = False
    service: str | None = None
    accessLog: AccessLog | None = None
    ports: LocalPorts | None = None
    pool: MuxPool | None = None
    _proving: Deferred[Any] | None = None

    def __init__(
        self,
        name: str,
        connect: Connect,
        clock: IReactorTime,
        limits: TunnelLimits,
        shares: dict[str, Shares | PeerUses],
    ) -> None:
        """
        @param name: its name in log lines.
        @param connect: connects the far end of a bridge.
        @param clock: the reactor.
        @param limits: the limits on how long a bridge takes to end.
        @param shares: the shares of which each bridge takes one place, by the name of
            their places in log lines.
        """
        self.name = name
        self.bridges: set[Bridge] = set()
        self.connect = connect
        self.clock: Any = steady(clock)
        self.limits = limits
        self.log = ThrottledLog(_log, self.clock)
        self.awaited: Deadlines[Bridge] | None = None
        self.hint = ""
        self.counts: ServiceCounts | None = None
        self.plain: ServiceCounts | None = None
        self._shares = shares
        self._byMux: dict[Any, set[Bridge]] = {}

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """
        @return: the near end of a new bridge.  If there are too many bridges, or too
            many of the peer: C{None} for a stream, so that its mux refuses it; for any
            other connection a protocol that resets it.
        @raise ServiceBusy: instead of C{None} for a stream for a service.
        """
        peer = getattr(addr, "peerName", None)
        service = self.service or getattr(addr, "service", None)
        for places, shares in self._shares.items():
            if not shares.mayTake(peer):
                self.log.warn(
                    "{name}: refused {addr}: {why}",
                    kind=(places, peer),
                    name=self.name,
                    addr=describeAddress(addr),
                    why=shares.refusal(peer, places),
                )
                if self.counts is not None:
                    self.counts.refused("busy")
                if self.accessLog is not None:
                    self.accessLog.add(
                        *(service, peer, describe(addr), None, 0, 0, 0.0, "busy"),
                        shares.refusal(peer, places),
                    )
                if getattr(addr, "service", None) is not None:
                    raise ServiceBusy()
                return None if hasattr(addr, "streamID") else _Refusal()
        return Bridge(self, addr, peer, service).near

    def limit(self, limits: TunnelLimits) -> None:
        """
        Set the limits of bridges that begin from now on.
        """
        self.limits = limits
        connections = self._shares["connections"]
        assert isinstance(connections, Shares)
        connections.resize(limits.maxConnections)
        if self.awaited is not None:
            self.awaited.timeout = limits.answerTimeout

    def abort(self) -> None:
        """
        Abort all connections.
        """
        for bridge in list(self.bridges):
            bridge.abort(MUX_LOST, "the service was stopped")

    # For the bridges

    def began(self, bridge: Bridge) -> None:
        """
        The near end of a bridge is connected.
        """
        self.bridges.add(bridge)
        if self.counts is not None:
            self.counts.began()
        for shares in self._shares.values():
            shares.take(bridge.peer)

    def follows(self, bridge: Bridge, mux: Any) -> None:
        """
        Tell a bridge when a mux has ended.
        """
        if mux not in self._byMux:
            self._byMux[mux] = set()
            mux.whenClosed().addCallback(lambda reason: self._muxEnded(mux))
        self._byMux[mux].add(bridge)
        bridge.muxes.append(mux)
        if self.pool is not None and self._proving is None and _mayBeStrangers(mux):
            self._proving = self.pool.whenProven().addCallback(self._proved)

    def _proved(self, mux: Any) -> None:
        """
        A peer has shown the key.  Abort the connections that went to others, which have
        sent nothing yet and may be strangers: their clients can try again.
        """
        self._proving = None
        left = deque(
            bridge
            for other, bridges in self._byMux.items()
            if _mayBeStrangers(other)
            for bridge in bridges
        )

        def work(until: float) -> float:
            while left:
                bridge = left.popleft()
                if any(map(_mayBeStrangers, bridge.muxes)):
                    bridge.abort(MUX_LOST, "another peer has shown the key")
                if left and self.clock.seconds() >= until:
                    return 0.0
            return DONE

        mux.factory.turns.begin(work)

    def _muxEnded(self, mux: Any) -> None:
        for bridge in self._byMux.pop(mux):
            bridge.muxEnded()

    def failed(self, bridge: Bridge, failure: Failure) -> None:
        """
        The far end of a bridge cannot be connected, or the peer has refused it.
        """
        counts = self.plain if bridge.near.answer is None else None
        if self.counts is not None:
            counts = self.counts
        if counts is not None:
            counts.failures[codeOf(failure)] += 1

    def explain(self, failure: Failure) -> str:
        """
        @return: why the far end of a bridge cannot be connected, and perhaps a hint.
        """
        hint = self.hint if failure.check(ServiceUnknown) else ""
        return failure.getErrorMessage() + hint

    def over(self, bridge: Bridge) -> None:
        """
        Both ends of a bridge are gone.
        """
        if self.awaited is not None:
            self.awaited.end(bridge)
        if bridge in self.bridges:
            self.bridges.remove(bridge)
            if self.counts is not None:
                self.counts.open -= 1
            far = bridge.ends[1]
            if self.ports is not None and far.closedFirst:
                self.ports.closedFirst(bridge.peer, far.transport)
            for shares in self._shares.values():
                shares.giveBack(bridge.peer)
            if self.accessLog is not None:
                self._logAccess(self.accessLog, bridge)
        for mux in bridge.muxes:
            # Not all muxes: there may be thousands.
            self._byMux.get(mux, set()).discard(bridge)

    def _logAccess(self, log: AccessLog, bridge: Bridge) -> None:
        """
        Write the line of a connection that has ended.
        """
        near, far = (end.transport for end in bridge.ends)
        peer, received, sent = bridge.peer, 0, 0
        if hasattr(near, "mux"):
            received, sent = near.bytesReceived, near.bytesSent
        elif hasattr(far, "mux"):
            received, sent = far.bytesSent, far.bytesReceived
            peer = far.mux.peerName
        log.add(
            *(bridge.service, peer, addressOf(near), addressOf(far), received, sent),
            self.clock.seconds() - bridge.beganAt,
            *(bridge.ending.code, bridge.ending.reason),
        )


def _mayBeStrangers(mux: Any) -> bool:
    """
    @return: whether a mux is a server's, and its peer has not shown the key.
    """
    return not (mux.authenticated or mux.factory.isClient)


class _Refusal(PassedDropper, Protocol):
    """
    Resets its connection.  A plain close would look like a complete, empty answer.
    """

    takesLocalSocket = True
    transport: Any = None

    def connectionMade(self) -> None:
        """
        Reset the connection.
        """
        outputOf(self.transport).abort()


def forward(
    name: str,
    pool: MuxPool,
    clock: IReactorTime,
    limits: TunnelLimits,
    keyring: Keyring | None = None,
    service: str | None = None,
    peer: str | None = None,
) -> Tunnel:
    """
    Make the factory for a listener whose connections continue as streams.

    @param name: its name in log lines.
    @param pool: the muxes that streams are opened on.
    @param clock: the reactor.
    @param limits: the limits of the tunnel.
    @param keyring: the keyring of the peers that share the descriptors with this side's
        clients, if there is one.
    @param service: the peer's service that the streams are for; C{None} for none.
    @param peer: the name of the peer's key, in that keyring; C{None} for any peer.
    """

    def connect(factory: IProtocolFactory) -> Deferred[IProtocol]:
        if peer is not None and keyring is not None and peer not in keyring.names:
            # It was there, before the keys were read again.
            return fail(OpenStreamError(f"no key has the name {peer!r}"))
        return pool.openStream(factory, tunnel.limits.waitTimeout, service, peer)

    shares = _shares(Shares(limits.maxConnections), keyring)
    tunnel = Tunnel(name, connect, clock, limits, shares)
    tunnel.pool = pool
    tunnel.counts = pool.tally.forwarding(service)
    tunnel.service = service
    if service is not None:
        tunnel.awaited = Deadlines(
            tunnel.clock, limits.answerTimeout, Bridge.unanswered
        )
        if peer is None and keyring is not None and len(keyring.names) > 1:
            tunnel.hint = "; if only one of several peers has it, name that as @PEER"
    return tunnel


def target(
    name: str,
    endpoint: IStreamClientEndpoint,
    clock: IReactorTime,
    limits: TunnelLimits,
    keyring: Keyring | None = None,
    counts: ServiceCounts | None = None,
) -> Tunnel:
    """
    Make the factory for streams that continue as connections to a target.

    @param name: its name in log lines.
    @param endpoint: the endpoint of the target.
    @param clock: the reactor.
    @param limits: the limits of the tunnel.
    @param keyring: the keyring of the peers that share the connections, if several do.
    @param counts: the counts of the streams without a request, if this target serves
        these.
    """

    begin = connector(endpoint, clock)

    def connect(factory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting = (begin or endpoint.connect)(factory)
        if connecting.called:
            return connecting
        return connecting.addTimeout(tunnel.limits.targetTimeout, steady(clock))

    connections = Shares(limits.maxConnections, keyring)
    shares = _shares(connections, keyring)
    tunnel = Tunnel(name, connect, clock, limits, shares)
    if keyring is not None:
        tunnel.ports = shares["local ports"] = LocalPorts(keyring, tunnel.clock)
    tunnel.plain = counts
    return tunnel


def _shares(
    connections: Shares, keyring: Keyring | None
) -> dict[str, Shares | PeerUses]:
    """
    @return: the shares of which each bridge takes one place.
    """
    shares: dict[str, Shares | PeerUses] = {"connections": connections}
    if keyring is not None:
        shares["descriptors"] = keyring.descriptors
        shares["connections to targets"] = keyring.uses
    return shares
