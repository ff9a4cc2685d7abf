# -*- test-case-name: gomux.test.mux.test_protocol -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The factory that makes muxes, and keeps track of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, cast

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocolFactory,
    IReactorCore,
    IReactorTime,
)
from twisted.logger import Logger

from gomux._carrier.accept import AcceptPace
from gomux._carrier.busypoll import BusyPoll
from gomux._carrier.clock import steady
from gomux._carrier.turns import PeersTurns, StrangersTurns, Turns
from gomux._fastpaths import fastPaths
from gomux._mux.buffers import buffersOf
from gomux._mux.gate import Gate, KeyFinder
from gomux._mux.log import ThrottledLog, describeAddress, logEnd
from gomux._mux.pool import MuxPool
from gomux._mux.protocol import MuxProtocol
from gomux._mux.serving import ServingFactory
from gomux._mux.strangers import Refused, Stranger, Strangers
from gomux._wire.keyring import Keyring
from gomux._wire.keysearch import KnownKey
from gomux._wire.salts import Salts, processSalts
from gomux._wire.shares import Shares
from gomux._wire.strict import Handshake
from gomux.limits import Limits

if TYPE_CHECKING:
    from gomux._mux.incoming import Early
    from gomux._mux.newcomer import Newcomer
    from gomux._mux.streamlife import StreamLife
    from gomux.error import GomuxError
    from gomux.interfaces import IStreamFactory

_log = Logger()


class MuxFactory(ServingFactory):
    """
    Makes a mux for each carrier that is connected or accepted.

    @ivar isClient: C{True} if this side dialled the carriers of its muxes.
    @ivar limits: the limits of each mux.
    @ivar greet: whether each side's first frame is a greeting: a Keepalive that
        announces to a peer of the same software what this side does.  A client sends it
        as soon as it is connected, a server after the client's first frame.  It also
        shows each side early that the other holds the key.
    @ivar retired: whether L{retire} was called.  Can be set to C{False} again.
    @ivar pool: the muxes that are up.
    @ivar tally: what has happened on the muxes of the pool.
    @ivar muxes: all muxes that have a carrier, up or not, the oldest first.
    @ivar clock: the reactor, or for tests a clock.
    @ivar busyPoll: keeps the reactor awake while an answer is due.
    @ivar turns: shares the reactor's time among the muxes.
    @ivar peersTurns: shares it among the peers of a keyring.
    @ivar strangersTurns: shares the reactor's time among the muxes whose peers have
        not shown that they hold the key.
    @ivar buffers: counts the memory that the muxes of the reactor take.
    @ivar acceptPace: limits how fast new carriers are accepted.
    @ivar notices: logs what peers and strangers do, with a limit on the number of lines
        for all muxes together.
    @ivar lingering: the streams that have ended, and whose protocols still have to read
        the last input.  Each with its mux, which may have ended too.
    @ivar keyring: the pre-shared keys.
    @ivar peer: see L{__init__}.
    @ivar strict: see L{__init__}.
    @ivar strictClock: see L{__init__}.
    @ivar context: see L{__init__}.
    @ivar salts: see L{__init__}.
    @ivar closesAtShutdown: whether the muxes are closed when the reactor stops, so that
        the peers learn that this is an orderly end.  The reactor waits for that, for at
        most C{closeTimeout}.
    @ivar _trigger: the reactor's trigger that closes the muxes when the reactor stops;
        C{None} while there are no muxes.
    @ivar _strangers: a server's muxes whose peers have not shown a key.
    @ivar _newcomers: the connections that wait for their first frame.
    @ivar _descriptors: for each mux whose peer has shown the key, the shares that the
        mux's descriptor is counted in.
    @ivar _unauthenticated: for each of these muxes, the delayed call that lets the pool
        use it anyway after C{silentGrace} seconds.
    """

    noisy = False
    closesAtShutdown = True

    def __init__(
        self,
        psk: bytes | str | Keyring,
        isClient: bool,
        streamFactory: IStreamFactory | IProtocolFactory | None = None,
        *,
        clock: IReactorTime,
        services: Mapping[str, IStreamFactory | IProtocolFactory] | None = None,
        limits: Limits | None = None,
        greet: bool = True,
        pool: MuxPool | None = None,
        strict: bool | Collection[str] = False,
        context: bytes = b"",
        salts: Salts = processSalts,
        strictClock: bool = False,
        peer: str | None = None,
    ) -> None:
        """
        @param psk: the pre-shared key; text stands for its UTF-8 bytes.  A server
            may have a L{Keyring} with several keys.
        @param isClient: C{True} for the side that dials the carrier, C{False}
            for the side that accepts it.
        @param streamFactory: makes the protocols of streams that peers open.
        @param clock: the reactor, or for tests a
            L{Clock<twisted.internet.task.Clock>}.
        @param services: makes the protocols of streams that peers open for a service,
            by the name of the service.
        @param limits: the limits of each mux; by default L{Limits()<Limits>}.
        @param greet: whether to send a greeting as the first frame.  Other
            implementations ignore it.
        @param pool: where to put the muxes that are up; by default a new pool.
        @param strict: whether the muxes are in strict mode; the peers must be in
            strict mode too.  A collection of names says that the muxes of these peers
            are, and of no others.
        @param context: in strict mode, the bytes that both peers must be
            configured with.  It separates services that share a pre-shared key.
        @param salts: in strict mode, issues the salts of the handshakes and
            recognizes them.  A handshake fails between two muxes that share one
            L{Salts} object, as all muxes of a process do by default.  To connect
            two muxes of one process, give each end its own object.
        @param strictClock: in strict mode, whether to refuse a peer whose clock differs
            by more than 5 minutes.  Then a recorded hello can be sent again for 5
            minutes only, also after a restart of this process.
        @param peer: for a client, the name of the key to use; C{None} if the keyring
            has a single key.
        @raise ValueError: if C{psk} is empty, if a client is given several keys and
            none of them is named, or if the name of a service is not valid.
        """
        self.keyring = Keyring.of(psk)
        self.peer = peer
        if isClient:
            self.keyring.single(peer)
        self.strict = (strict,) if isinstance(strict, str) else strict
        self.strictClock = strictClock
        self.context = context
        self.salts = salts
        self.isClient = isClient
        self.serve(streamFactory, services or {})
        self.buffers = buffersOf(clock)
        self.clock = clock = steady(clock)
        self.limits = limits if limits is not None else Limits()
        self.greet = greet
        moment = self.limits.busyPoll if fastPaths().busyPoll else 0.0
        self.busyPoll = BusyPoll(clock, moment)
        self.pool = pool if pool is not None else MuxPool(clock)
        self.tally = self.pool.tally
        self.retired = False
        self.muxes: list[MuxProtocol] = []
        self.turns = Turns(clock)
        self.peersTurns = PeersTurns(clock, self.keyring)
        self.strangersTurns = StrangersTurns(clock)
        self.acceptPace = AcceptPace()
        self.lingering: dict[StreamLife, MuxProtocol] = {}
        self._trigger: object = None
        self.notices = ThrottledLog(_log, clock)
        self._strangers = Strangers(self.limits, self.keyring, clock.seconds)
        self._unauthenticated: dict[Stranger, IDelayedCall] = {}
        self._newcomers: set[Newcomer] = set()
        self._descriptors: dict[MuxProtocol, Shares] = {}

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> MuxProtocol:
        """
        @return: the mux of a new carrier.  A server may return a protocol that refuses
            the carrier.
        @raise ValueError: if this is a client and its keyring now has several keys.
        """
        if self.isClient:
            self.keyring.single(self.peer)
        return self.refused(addr) or MuxProtocol(self)  # type: ignore[return-value]

    def refused(self, address: IAddress | None) -> Refused | None:
        """
        @param address: where a new carrier comes from.
        @return: a protocol that refuses it, if strangers have too many; else C{None}.
        """
        why = None if self.isClient else self._strangers.refusal(address)
        if why is None:
            return None
        self.tally.strangers += 1
        self.notices.warn(
            "refused a connection from {peer}: {why}",
            peer=describeAddress(address),
            why=why,
        )
        return Refused()

    def isRevoked(self, gate: Gate | None) -> bool:
        """
        @param gate: the gate of a mux, if it has one.
        @return: whether the gate has found a key that was revoked after the gate was
            made.
        """
        if gate is None or not gate.key:
            return False
        return (gate.name, gate.key) not in self.keyring.keys

    def makeMux(self, newcomer: Newcomer, early: Early) -> MuxProtocol:
        """
        @param newcomer: a connection that was accepted.
        @param early: what it has received.
        @return: its mux, which takes its place among the strangers.
        """
        mux = MuxProtocol(self, early)
        self._newcomers.remove(newcomer)
        self._strangers.replace(newcomer, mux)
        return mux

    def makeGate(self, address: IAddress | None = None) -> Gate:
        """
        @param address: where the peer is, if that is known.
        @return: the gate of a new mux, with the current keys.
        @raise ValueError: if this is a client and its keyring now has several keys.
        """
        keys = self.keyring.keys
        if len(keys) > 1 and not self.isClient:
            known = self._strangers.nameAt(address)
            if known is not None:
                keys = tuple(sorted(keys, key=lambda key: key[0] != known))
            return KeyFinder(keys, self._gateFor, self.strict is True)
        return self._gateFor(*self.keyring.single(self.peer))

    def _gateFor(self, name: str, key: bytes) -> Gate:
        """
        @return: the gate of a mux whose peer has a key.
        """
        strict, seen = self.strict, self.keyring.firstFrames
        if not (strict if isinstance(strict, bool) else name in strict):
            return KnownKey(name, key, seen)
        settings = (self.context, self.salts, seen, self.strictClock)
        return Handshake(name, key, self.isClient, *settings)

    def isKnown(self, address: IAddress | None) -> bool:
        """
        @return: whether a peer at this address has shown a key before.
        """
        return self._strangers.nameAt(address) is not None

    def newcomerConnected(self, newcomer: Newcomer) -> None:
        """
        A connection was accepted, and waits for its first frame.
        """
        self.acceptPace.accepted(newcomer.transport)
        self._newcomers.add(newcomer)
        self._addStranger(newcomer)

    def newcomerGone(self, newcomer: Newcomer) -> None:
        """
        A connection ends without a mux.
        """
        self._newcomers.discard(newcomer)
        self._strangers.remove(newcomer)

    def _addStranger(self, stranger: Stranger) -> None:
        surplus = self._strangers.add(stranger, stranger.getPeer())
        if surplus is not None:
            self._forgetUnauthenticated(surplus)
            surplus.evict()

    def muxConnected(self, mux: MuxProtocol) -> None:
        """
        A mux has its carrier.  Called by the mux.
        """
        self.muxes.append(mux)
        atShutdown = getattr(self.clock, "addSystemEventTrigger", None)
        if self.closesAtShutdown and self._trigger is None and atShutdown is not None:
            self._trigger = atShutdown("before", "shutdown", self._reactorStops)
        if self.isClient:
            if not mux.gated:
                self._muxUp(mux)
            return
        grace = self.limits.silentGrace
        if grace:
            delay = max(0.0, mux.since + grace - self.clock.seconds())
            call = self.clock.callLater(delay, self._muxSilent, mux)
            self._unauthenticated[mux] = call
        if mux not in self._strangers:
            self._addStranger(mux)

    def _reactorStops(self) -> Deferred[list[GomuxError]]:
        self._trigger = None
        return gatherResults([mux.close() for mux in list(self.muxes)])

    def _muxSilent(self, mux: MuxProtocol) -> None:
        """
        A peer has sent nothing for a while: let the pool use its mux.  A client of
        the reference implementation sends nothing before it opens a stream, and may
        be waiting for this side to open one.
        """
        if self.retired:
            mux.abort()
        elif not mux.gated:
            self.pool.add(mux)

    def _muxUp(self, mux: MuxProtocol) -> None:
        """
        A mux is up: give it to the pool, or drain it if the factory is retired.
        """
        if self.retired:
            mux.drain()
        else:
            self.pool.add(mux)

    def retire(self, makeMuxes: bool = True) -> None:
        """
        Open and accept no more streams.  Drain the muxes that are up.  Drain a mux that
        comes up later as soon as it is up, so that its peer gets a CloseMux.  Drop a
        connection to a server whose peer does not show within C{silentGrace} seconds
        that it holds the key: a stranger is sent nothing.

        @param makeMuxes: whether connections that wait for their first frame get their
            muxes now, so that the end of these can be waited for.  There may be
            hundreds, which takes a while.
        """
        self.retired = True
        for newcomer in list(self._newcomers if makeMuxes else ()):
            newcomer.enter()
        for mux in list(self.muxes):
            call = self._unauthenticated.get(mux)
            isComing = mux.gated if call is None else call.active()
            if not isComing:
                mux.drain()

    def _forgetUnauthenticated(self, mux: Stranger) -> None:
        self._strangers.remove(mux)
        call = self._unauthenticated.pop(mux, None)
        if call is not None and call.active():
            call.cancel()

    def muxHeard(self, mux: MuxProtocol, name: str) -> None:
        """
        The peer has sent a genuine frame, but has not finished the handshake.  Called
        by the mux.
        """
        self._strangers.heard(mux, name)

    def muxAuthenticated(self, mux: MuxProtocol) -> None:
        """
        The peer of a mux has shown that it holds the key.  Called by the mux.
        """
        self.acceptPace.authenticated(mux.transport)
        self._strangers.met(mux.getPeer(), mux.peerName)
        self._forgetUnauthenticated(mux)
        self._descriptors[mux] = descriptors = self.keyring.descriptors
        descriptors.take(mux.peerName)
        self.keyring.uses[mux.peerName].muxes += not self.isClient
        self._muxUp(mux)

    def muxEchoed(self, mux: MuxProtocol) -> None:
        """
        The peer has echoed a ping, so C{mux.roundTrip} is new.  Called by the mux.
        """

    def muxUngreeted(self, mux: MuxProtocol) -> None:
        """
        Streams for services wait for the peer's greeting, and it did not come in time.
        Called by the mux.
        """
        self.pool.giveUpNamed()

    def muxWorn(self, mux: MuxProtocol) -> None:
        """
        A mux has few IDs left for new streams, or has begun to drain.  Called by the
        mux.
        """

    def muxIdle(self, mux: MuxProtocol) -> None:
        """
        The last stream of a mux has ended.  Called by the mux.
        """

    def muxLost(self, mux: MuxProtocol, reason: GomuxError) -> None:
        """
        A mux has lost its carrier.  Called by the mux.

        @param reason: why the mux ended.
        """
        self.muxes.remove(mux)
        self.tally.muxEnded(mux)
        descriptors = self._descriptors.pop(mux, None)
        if descriptors is not None:
            descriptors.giveBack(mux.peerName)
            self.keyring.uses[mux.peerName].muxes -= not self.isClient
        if not self.muxes:
            self.busyPoll.stop()
            trigger, self._trigger = self._trigger, None
            if trigger is not None:
                cast(IReactorCore, self.clock).removeSystemEventTrigger(trigger)
        self.pool.remove(mux, reason)
        if self.isClient:
            # Also the reason of a mux that was never added to the pool.
            self.pool.lastReason = reason
        self._forgetUnauthenticated(mux)
        if mux.leftSilently and not self.isClient:
            # Health checks connect and leave without a word every few seconds.
            return
        self.logEnd(reason, mux.getPeer(), mux.peerName)

    def logEnd(self, reason: GomuxError, peer: IAddress, name: str = "") -> None:
        """
        Log the end of a mux, or of a connection that got none.

        @param reason: why it has ended.
        @param peer: the address of its peer.
        @param name: the name of the peer, if it has shown its key.
        """
        logEnd(self.notices, "to" if self.isClient else "from", reason, peer, name)
