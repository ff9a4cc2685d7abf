# -*- test-case-name: gomux.test.mux.test_protocol -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The mux itself: a protocol that turns the carrier's bytes into streams.

L{MuxProtocol} connects the parts of a mux.  Each part has a module in this package:

  - L{gomux._mux.muxfacts}: what the mux tells about itself.
  - L{gomux._mux.muxlife}: the states of a mux, how it closes and ends.
  - L{gomux._mux.gate}: how the peer shows that it holds the key.
  - L{gomux._mux.incoming}: when received frames are handled.
  - L{gomux._mux.frames}: the effect of each frame, and the rules for the peer.
  - L{gomux._mux.streams}: the streams by ID.
  - L{gomux._mux.acceptor}: which protocols the peer's streams get.
  - L{gomux._mux.scheduler}: which frame is sent next.
  - L{gomux._mux.nextturn}: calls and sending in the next turn of the reactor.
  - L{gomux._mux.liveness}: how a dead carrier or peer is noticed.

C{Incoming} cuts received bytes into frames, and C{PeerFrames} handles them.  Output
waits in its stream's sender until C{Scheduler}, the carrier's producer, takes it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from gomux._carrier.transport import MuxCarrier, addressFrom, shared
from gomux._mux.frames import PeerFrames
from gomux._mux.gate import Gate, GreetingWait, WaitingStreams, explainLoss
from gomux._mux.incoming import Early, Incoming
from gomux._mux.liveness import CarrierLiveness, PeerLiveness
from gomux._mux.muxfacts import MuxFacts
from gomux._mux.muxlife import CLOSING, ENDED, ENDING, OPEN, MuxLife
from gomux._mux.nextturn import NextTurn
from gomux._mux.scheduler import Scheduler
from gomux._mux.streams import Streams
from gomux._wire.crypto import Sealer, SequencedOpener
from gomux._wire.frame import Frame
from gomux.error import (
    BuffersFull,
    GomuxError,
    KeyRevoked,
    LimitExceeded,
    OpenStreamError,
    Truncated,
)
from gomux.interfaces import IMux

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gomux._mux.owner import MuxOwner
    from gomux.interfaces import IStreamFactory


@implementer(IMux)
class MuxProtocol(MuxFacts, Protocol):
    """
    One mux over one carrier, made by a L{MuxFactory<gomux.MuxFactory>}.

    @ivar factory: the factory that made the mux; the mux uses its settings.
    @ivar since: when the mux got its carrier, in seconds of the clock.
    @ivar streamFactory: see the factory, which is asked if this is C{None}.
    @ivar services: the factories of services that only this mux has, by name.
    @ivar _early: what a server has received before it made the mux.
    @ivar _limits: the factory's limits.
    @ivar _waiting: the calls of L{openStream} that wait for the gate or the greeting.
    @ivar _proving: the results of L{whenAuthenticated} that have not fired.
    @ivar _carrier: the carrier, as the scheduler uses it.
    """

    factory: MuxOwner[MuxProtocol]
    since: float
    streamFactory: IStreamFactory | IProtocolFactory | None = None
    services: Mapping[str, IStreamFactory | IProtocolFactory] = MappingProxyType({})

    def __init__(
        self, factory: MuxOwner[MuxProtocol], early: Early | None = None
    ) -> None:
        self.factory = factory
        self._early = early
        clock = factory.clock
        self._limits = limits = factory.limits
        self._waiting = WaitingStreams(limits.maxControl)
        self.greetingWait = GreetingWait(clock, limits, self._ungreeted)
        self._proving: list[Deferred[MuxProtocol]] = []
        self._nextTurn = nextTurn = NextTurn(self, clock)
        self._scheduler = scheduler = Scheduler(
            None,
            self._write,
            nextTurn.wake,
            self._fail,
            limits.maxRefusals,
            clock.seconds,
        )
        nextTurn.scheduler = scheduler
        scheduler.isMute = not factory.isClient
        self._streams = Streams(
            self,
            factory,
            scheduler,
            nextTurn,
            ended=self._streamEnded,
            overfull=self._overfull,
        )
        self._life = MuxLife(
            self,
            factory,
            self._streams,
            scheduler,
            letGo=self._letGo,
            explain=self._explain,
            told=self._told,
        )

    # IMux

    def openStream(
        self, factory: IStreamFactory | IProtocolFactory, service: str | None = None
    ) -> Deferred[IProtocol]:
        if not self.canOpen:
            why = "has no IDs left" if self.takesStreams else "is closing or closed"
            return fail(OpenStreamError(f"the mux {why}"))
        if self.gated:
            return self._waiting.add(factory, service)
        if service is not None and not self.takesRequests:
            if self.takesRequests is not None:
                return fail(self.noRequests())
            self.greetingWait.begin()
            return self._waiting.add(factory, service)
        if not (self.authenticated or self.factory.isClient):
            gate = self._incoming.gate
            assert gate is not None
            if self.factory.isRevoked(gate):
                self._fail(KeyRevoked())
                return fail(OpenStreamError("the key of the mux was revoked"))
        if self._scheduler.controlQueued >= self._limits.maxControl:
            return fail(OpenStreamError("too many frames wait for the carrier"))
        # The application has decided to send, although the peer may be a stranger.
        self._scheduler.isMute = False
        opened = self._streams.open(factory, service)
        if not (self._streams.hasIDs or self._streams.byID):
            self.close()
        return opened

    def drain(self, timeout: float | None = None) -> Deferred[GomuxError]:
        """
        Open and accept no new streams, and L{close} when the last stream has ended.

        @param timeout: close after this many seconds even if streams are open.
        @return: as L{whenClosed}.
        """
        wasOpen = self._life.state is OPEN
        self._life.drain(timeout)
        if wasOpen:
            self.factory.muxWorn(self)
        return self.whenClosed()

    def close(self) -> Deferred[GomuxError]:
        self._life.close()
        return self.whenClosed()

    def closeService(self, service: str | None) -> None:
        """
        Close the peer's streams for a service; C{None} for those without one.
        """
        self._streams.closeService(service)

    def abort(self) -> None:
        self._life.abort()

    def evict(self) -> None:
        """
        Drop the carrier, because too many peers have not yet shown a key.
        """
        self._fail(LimitExceeded("too many connections wait for their first frame"))

    def revoke(self) -> None:
        """
        Drop the carrier, because the peer's key was revoked, or may have been.  No
        input is delivered any more.  Streams whose input waits end in the next turn of
        the reactor, the others once the carrier is gone.
        """
        self._fail(KeyRevoked())
        for stream in [s for s in self._streams.byID.values() if s.hasInput]:
            stream.drop(KeyRevoked())

    def whenClosed(self) -> Deferred[GomuxError]:
        return self._life.whenClosed()

    def whenAuthenticated(self) -> Deferred[MuxProtocol]:
        """
        Wait until the peer shows that it holds the key.  A Go server does so only when
        it sends something, so it may take until this side has opened a stream.

        A program that connects muxes by itself should pause after a failure.  Do not
        use this as the C{prepareConnection} of a
        L{ClientService<twisted.application.internet.ClientService>}, which cannot
        handle the loss of a connection meanwhile.

        @return: fires with this mux.  Fails with the reason if the mux ends before.
        """
        proved: Deferred[MuxProtocol] = Deferred(self._proving.remove)
        self._proving.append(proved)
        if self.authenticated or self._life.state is ENDED:
            self._nextTurn.callSoon(self._fireProving)
        return proved

    def _fireProving(self) -> None:
        proving, self._proving = self._proving, []
        for proved in proving:
            if self.authenticated:
                proved.callback(self)
            else:
                assert self.reason is not None
                proved.errback(self.reason)

    # IProtocol

    def connectionMade(self) -> None:
        """
        The carrier is connected: make the parts of the mux that need it.
        """
        factory = self.factory
        early, self._early = self._early, None
        self.since = factory.clock.seconds()
        if early is None:
            factory.acceptPace.accepted(self.transport)
        else:
            self.bytesReceived = early.size
            self.since = early.since
        gate = (early and early.gate) or factory.makeGate()
        carrier = self.getCarrier()
        self._host = shared(addressFrom(lambda: carrier.getHost()))
        self._peer = addressFrom(lambda: carrier.getPeer())
        self._carrier = MuxCarrier(carrier, self._limits.carrierTimeout)
        needs = (factory, self._scheduler, self._life)
        self._carrierLiveness = CarrierLiveness(*needs)
        self._scheduler.watch = self._carrierLiveness
        self._peerLiveness = PeerLiveness(*needs, self)
        self._frames = PeerFrames(
            self,
            factory,
            self._streams,
            self._scheduler,
            self._life,
            self._peerLiveness,
        )
        self._incoming = Incoming(
            factory,
            gate,
            self._frames,
            self._scheduler,
            self._carrier,
            self._life,
            gateOpened=self._gateOpened,
            caughtUp=self._caughtUp,
            parser=None if early is None else early.parser,
        )
        self._sendOutputOf(gate, self.since)
        if gate.sealer is not None:
            self._startSending(gate.sealer, gate.isStrict)
            if factory.isClient:
                self._scheduler.greet()
        self._streams.account.begin()
        factory.muxConnected(self)
        if early is not None and early.frame is not None:
            self._incoming.begin(early.frame)

    def dataReceived(self, data: bytes) -> None:
        """
        Take bytes that were read from the carrier.
        """
        life = self._life
        if life.state >= ENDING or life.loss is not None:
            return
        size = len(data)
        self.bytesReceived += size
        self._carrier.received(size)
        self._incoming.receive(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The carrier is gone.  End the streams once all received frames are handled.
        """
        if not self.hasCarrier:
            return
        self._life.loss = reason or connectionDone  # Some transports give C{None}.
        self._scheduler.stop()
        if not self._incoming.isBehind:
            self._lost()

    # The gate

    def _gateOpened(self, frame: Frame) -> Frame | None:
        """
        Send the gate's answer to a frame, and drop the gate once it is passed.

        @return: the frame if the mux must handle it as well, otherwise C{None}.
        @raise KeyRevoked: if the peer comes up with a key that was revoked meanwhile.
        @raise LimitExceeded: if the peer may not have another mux.
        """
        gate, factory = self._incoming.gate, self.factory
        assert gate is not None
        # A client's mux that may send is up already: it keeps its key.
        if (self.gated or not factory.isClient) and factory.isRevoked(gate):
            raise KeyRevoked()
        self._sendOutputOf(gate, factory.clock.seconds())
        if not gate.passed:
            factory.muxHeard(self, gate.name)
            return None
        factory.checkRoom(gate.name)
        self._scheduler.isMute = False
        gate.close()
        self._incoming.parser.useOpener(gate.opener)
        self._incoming.turns = factory.peersTurns.of(gate.name)
        if self.gated:
            assert gate.sealer is not None
            self._startSending(gate.sealer, gate.isStrict)
        self._frames.begin(gate)
        if self._isBound and isinstance(gate.opener, SequencedOpener):
            self._carrierLiveness.stopKeepalives()
            self._peerLiveness.start(gate.opener)
        self.greetingWait.end()
        self._key = (gate.name, gate.key)
        self._streams.begin(factory.keyring.uses[gate.name])
        self.factory.muxAuthenticated(self)
        if self._proving:
            self._nextTurn.callSoon(self._fireProving)
        if not gate.ownsFrames:
            self._frames.greeted(frame)
        self._waiting.open(self.openStream)
        return None if gate.ownsFrames or self._life.state >= ENDING else frame

    def _sendOutputOf(self, gate: Gate, since: float) -> None:
        if gate.isStrict:
            self._peerLiveness.limitHandshake(gate, since)
        output = gate.takeOutput()
        if output and self.hasCarrier:
            self._scheduler.bytesSent += len(output)
            self._carrier.write(output)

    def _startSending(self, sealer: Sealer, isStrict: bool) -> None:
        """
        The gate lets the mux send from now on.
        """
        self._life.open()
        # The frames of strict mode are bound without a greeting.
        self._isBound = isStrict or self.factory.greet
        greets = self.factory.greet and not isStrict
        self._scheduler.start(sealer, int(self._isBound) if greets else None)
        self._carrier.registerProducer(self._scheduler)
        self._carrierLiveness.start()

    # Called by the parts of the mux

    def _ungreeted(self) -> None:
        """
        The peer has sent no greeting in time.
        """
        self._waiting.fail(self.noRequests())
        self.factory.muxUngreeted(self)

    def _write(self, parts: list[bytes], size: int) -> None:
        if self._life.loss is None:
            try:
                self._carrier.writeSequence(parts, size)
            except BaseException:
                self._fail(Truncated(Failure().getErrorMessage()))

    def _streamEnded(self) -> None:
        self._life.streamEnded()
        if self._streams.byID or self._life.state >= CLOSING:
            return
        if self._streams.hasIDs:
            self.factory.muxIdle(self)
        else:
            self.close()

    def _fail(self, error: GomuxError) -> None:
        self._life.fail(error)

    def _explain(self, loss: Failure) -> GomuxError:
        return explainLoss(self._incoming.gate, loss)

    def _told(self, reason: GomuxError) -> None:
        self._incoming.forgetKeys()
        self._streams.account.muxEnded()
        self.factory.muxLost(self, reason)

    def _overfull(self) -> None:
        """
        The muxes of the process take too much memory, and this one takes most.  It ends
        in the next turn, because an application may be writing.
        """
        self._nextTurn.callSoon(self._endOverfull)

    def _endOverfull(self) -> None:
        self._fail(BuffersFull())
        for stream in [s for s, m in self.factory.lingering.items() if m is self]:
            stream.drop(BuffersFull())

    def _letGo(self) -> None:
        """
        Stop sending and handling frames.
        """
        self._scheduler.stop()
        self._incoming.clear()
        if self.hasCarrier:
            self._carrier.unregisterProducer()

    def _caughtUp(self, isWell: bool) -> None:
        """
        No received frames wait for a later turn any more: read again.

        @param isWell: C{False} if a bug made the handling of the frames fail.
        """
        if not self.hasCarrier:
            self._lost()
        elif isWell:
            self._carrier.resumeReading()
        else:
            self._life.dropCarrier()

    def _lost(self) -> None:
        """
        The carrier is gone, and all received frames are handled.
        """
        self._carrierLiveness.stop()
        self._peerLiveness.stop()
        self.greetingWait.end()
        self._streams.acceptor.waiting.stop()
        gate = self._incoming.gate
        if gate is not None:
            gate.close()
        self._life.lost()
        assert self.reason is not None
        self._waiting.fail(self.reason)
        if self._proving and not self.authenticated:
            self._fireProving()
