# -*- test-case-name: gomux.test.mux.test_protocol -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
What makes muxes, and knows which are up.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger, LogLevel

from gomux._carrier.accept import AcceptPace
from gomux._carrier.busypoll import BusyPoll
from gomux._carrier.clock import steady
from gomux._carrier.turns import Turns
from gomux._fastpaths import fastPaths
from gomux._mux.gate import Gate
from gomux._mux.log import ThrottledLog, describeAddress
from gomux._mux.pool import MuxPool
from gomux._mux.protocol import MuxProtocol
from gomux._mux.receiver import logPrefixOf
from gomux._mux.streams import startFactory
from gomux._wire.keyring import KeyFinder, Keyring, KnownKey
from gomux._wire.strict import Handshake, Salts, processSalts
from gomux.error import KeyRevoked
from gomux.limits import Limits

if TYPE_CHECKING:
    from gomux.error import GomuxError
    from gomux.interfaces import IStreamFactory

_log = Logger()


class MuxFactory(Factory):
    """
    Makes the mux of each carrier that is connected or accepted.

    @ivar isClient: which of the two roles its muxes have: whether they dialled.
    @ivar streamFactory: makes the protocols of streams that peers open; with
        C{None} they are refused.
    @ivar limits: what a mux may take up.
    @ivar greet: whether a client says a Keepalive as soon as it is connected,
        and a server answers it with one.  A Keepalive has no effect, but it
        tells both that the other holds the key, before anything depends on it.
    @ivar pool: has the muxes that are up.
    @ivar muxes: all muxes that have a carrier, whether they are up or not, the
        oldest first.
    @ivar clock: calls later.
    @ivar busyPoll: keeps the reactor awake while an answer is due.
    @ivar keyring: the pre-shared keys.
    @ivar strict: whether the muxes are in strict mode.
    @ivar context: see L{__init__}.
    @ivar salts: see L{__init__}.
    """

    noisy = False

    def __init__(
        self,
        psk: bytes | str | Keyring,
        isClient: bool,
        streamFactory: IStreamFactory | IProtocolFactory | None = None,
        *,
        clock: IReactorTime,
        limits: Limits | None = None,
        greet: bool = True,
        pool: MuxPool | None = None,
        strict: bool = False,
        context: bytes = b"",
        salts: Salts = processSalts,
    ) -> None:
        """
        @param psk: the pre-shared key; text stands for its UTF-8 bytes.  Or
            several of them, for the clients of a server.
        @param isClient: C{True} for the side that dials the carrier, C{False}
            for the side that accepts it.
        @param streamFactory: makes the protocols of streams that peers open.
        @param clock: the reactor, or for tests a
            L{Clock<twisted.internet.task.Clock>}.
        @param limits: by default L{Limits} as it comes.
        @param greet: whether to say and answer a Keepalive at the start.
        @param pool: where to put the muxes that are up, by default one of this
            factory's own.
        @param strict: whether the muxes are in strict mode; the peers' must be,
            too.
        @param context: in strict mode, what the peers must be configured with,
            too: it tells apart what shares a pre-shared key.
        @param salts: in strict mode, what tells when a mux is connected with
            one of its own process, which fails.  Where that is meant to be, let
            both ends have one of their own.
        @raise ValueError: if C{psk} is empty, or several keys for a client.
        """
        self.keyring = Keyring.of(psk)
        if isClient:
            self.keyring.single()
        self.strict = strict
        self.context = context
        self.salts = salts
        self.isClient = isClient
        self.streamFactory = streamFactory
        self.clock = clock = steady(clock)
        self.limits = limits if limits is not None else Limits()
        self.greet = greet
        moment = self.limits.busyPoll if fastPaths().busyPoll else 0.0
        self.busyPoll = BusyPoll(clock, moment)
        self.pool = pool if pool is not None else MuxPool(clock)
        self.muxes: list[MuxProtocol] = []
        self.turns = Turns(clock)
        self.acceptPace = AcceptPace()
        self._losses = ThrottledLog(_log, clock)
        # Those that have not shown that they hold the key, the oldest first,
        # each with when to use it all the same.
        self._unauthenticated: dict[MuxProtocol, IDelayedCall] = {}

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> MuxProtocol:
        """
        @return: the mux of a new carrier.
        @raise ValueError: for a client, if its keyring has several keys now.
        """
        if self.isClient:
            self.keyring.single()
        return MuxProtocol(self)

    def makeGate(self) -> Gate:
        """
        @return: what the peer of a mux has to pass, with the keys of this moment.
            Called by the mux when it has its carrier.
        @raise ValueError: for a client, if its keyring has several keys now.
        """
        keys = self.keyring.keys
        if self.strict:
            return Handshake(keys, self.isClient, self.context, self.salts)
        if len(keys) > 1 and not self.isClient:
            return KeyFinder(keys)
        return KnownKey(*self.keyring.single())

    def startFactory(self) -> None:
        """
        Streams' protocols are to be made from now on: tell their factory.
        """
        startFactory(self.streamFactory)

    def stopFactory(self) -> None:
        """
        The opposite of L{startFactory}.
        """
        self.acceptPace.stop()
        # Whoever stops the port is told of an error in this.
        doStop = getattr(self.streamFactory, "doStop", None)
        if doStop is not None:
            doStop()

    def logPrefix(self) -> str:
        """
        @return: the prefix of the factory of the streams, and how it is served.
        """
        if self.streamFactory is None:
            return type(self).__name__
        return f"{logPrefixOf(self.streamFactory)} (gomux)"

    def muxConnected(self, mux: MuxProtocol) -> None:
        """
        A mux has its carrier.  Called by the mux.
        """
        self.muxes.append(mux)
        if self.isClient:
            if not mux.gated:
                self.pool.add(mux)
            return
        unauthenticated = self._unauthenticated
        unauthenticated[mux] = self.clock.callLater(
            self.limits.silentGrace, self._muxSilent, mux
        )
        if len(unauthenticated) > self.limits.maxUnauthenticated:
            oldest = next(iter(unauthenticated))
            self._forgetUnauthenticated(oldest)
            oldest.evict()

    def _muxSilent(self, mux: MuxProtocol) -> None:
        """
        A peer has said nothing for a while.  A client of the reference does not
        before it opens a stream, but may wait for ours.
        """
        if not mux.gated:
            self.pool.add(mux)

    def _forgetUnauthenticated(self, mux: MuxProtocol) -> None:
        call = self._unauthenticated.pop(mux, None)
        if call is not None and call.active():
            call.cancel()

    def muxAuthenticated(self, mux: MuxProtocol) -> None:
        """
        The peer of a mux has shown that it holds the key.  Called by the mux.
        """
        self.acceptPace.authenticated(mux.transport)
        self._forgetUnauthenticated(mux)
        self.pool.add(mux)

    def endRevoked(self, names: Collection[str]) -> None:
        """
        End the muxes to peers whose keys have one of some names, at once: who
        may not come in any more gets nothing more, not even what is on its way.

        With them go the connections whose peer has not shown its key yet.
        Each tries the keys that there were when it was made.

        @param names: as from L{Keyring.reload<gomux._wire.keyring.Keyring.reload>}.
        """
        if names:
            for mux in list(self.muxes):
                if mux.peerName in names or not mux.authenticated:
                    mux.revoke()

    def muxIdle(self, mux: MuxProtocol) -> None:
        """
        The last stream of a mux has ended.  Called by the mux.
        """

    def muxLost(self, mux: MuxProtocol, reason: GomuxError) -> None:
        """
        A mux has lost its carrier.  Called by the mux.

        @param reason: why.
        """
        self.muxes.remove(mux)
        if not self.muxes:
            self.busyPoll.stop()
        self.pool.remove(mux, reason)
        if self.isClient:
            # Also of one that never got as far as the pool.
            self.pool.lastReason = reason
        self._forgetUnauthenticated(mux)
        level = LogLevel.info if isinstance(reason, ConnectionDone) else LogLevel.warn
        # How many keys are revoked is not for the peers to say.
        log = _log if isinstance(reason, KeyRevoked) else self._losses
        log.emit(
            level,
            "the mux {direction} {name}{peer} ended: {reason}",
            direction="to" if self.isClient else "from",
            name=f"{mux.peerName!r} at " if mux.peerName else "",
            peer=describeAddress(mux.getCarrier().getPeer()),
            reason=reason,
        )
