# -*- test-case-name: gomux.test.mux.test_protocol -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The mux itself: a protocol that turns the carrier's bytes into streams.

L{MuxProtocol} is what the reactor, the application and the factory see of a mux.  It
puts the parts of a mux together, each of which has a module in this room:

  - L{gomux._mux.muxlife}: the states of a mux, how it closes and ends.
  - L{gomux._mux.gate}: what the peer has to show before the mux is open to it.
  - L{gomux._mux.incoming}: when the frames that have come are handled.
  - L{gomux._mux.frames}: what each of the peer's frames does, and what it may send.
  - L{gomux._mux.streams}: the streams by ID, and what they call.
  - L{gomux._mux.scheduler}: which frame is sent next.
  - L{gomux._mux.liveness}: how a dead carrier or peer is noticed.

Bytes come in through L{MuxProtocol.dataReceived}, and C{Incoming} has C{PeerFrames}
handle one frame after another.  What streams write waits in them until the
C{Scheduler}, which is the carrier's producer, takes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from gomux._carrier.transport import MuxCarrier
from gomux._mux.frames import COMPATIBLE, STRICT, PeerFrames
from gomux._mux.gate import Gate, WaitingStreams, explainLoss
from gomux._mux.incoming import Incoming
from gomux._mux.liveness import CarrierLiveness, PeerLiveness
from gomux._mux.muxlife import CLOSING, ENDED, ENDING, GATED, OPEN, MuxLife
from gomux._mux.nextturn import NextTurn
from gomux._mux.scheduler import Scheduler
from gomux._mux.streams import Streams
from gomux._wire.crypto import Sealer, SequencedOpener
from gomux._wire.frame import Frame
from gomux.error import (
    GomuxError,
    KeyRevoked,
    LimitExceeded,
    OpenStreamError,
)
from gomux.interfaces import IMux

if TYPE_CHECKING:
    from gomux._mux.owner import MuxOwner
    from gomux.interfaces import IStreamFactory


@implementer(IMux)
class MuxProtocol(Protocol):
    """
    One mux over one carrier.

    Made by L{MuxFactory<gomux.MuxFactory>}.

    @ivar factory: the factory that made it, whose settings it uses.
    @ivar bytesReceived: how many bytes came off the carrier.
    @ivar streamFactory: makes the protocols of streams that the peer opens; with
        C{None} the factory's own does.
    @ivar _key: the name of the key that the peer has shown to hold; C{None} before.
    @ivar _life: the mux's state.
    @ivar _streams: the mux's streams.
    @ivar _waiting: the calls of L{openStream} that wait for the gate.
    @ivar _nextTurn: makes calls from the reactor.
    @ivar _scheduler: sends frames.
    @ivar _incoming: has the frames that come handled.
    @ivar _frames: handles the peer's frames.
    @ivar _carrierLiveness: notices a dead carrier.
    @ivar _peerLiveness: pings the peer, and notices when it is gone.
    @ivar _carrier: the carrier, as the scheduler uses it.
    @ivar _host: this end's address of the carrier.
    @ivar _isBound: whether this side has announced
        L{BOUND<gomux._wire.frame.BOUND>}, or strict mode implies it.
    """

    factory: MuxOwner[MuxProtocol]
    streamFactory: IStreamFactory | IProtocolFactory | None = None
    bytesReceived = 0
    _key: str | None = None

    def __init__(self, factory: MuxOwner[MuxProtocol]) -> None:
        self.factory = factory
        clock = factory.clock
        self._limits = limits = factory.limits
        self._waiting = WaitingStreams(limits.maxControl)
        self._nextTurn = nextTurn = NextTurn(self, clock)
        self._scheduler = scheduler = Scheduler(
            None,
            self._write,
            nextTurn.wake,
            self._fail,
            limits.maxRefusals,
            clock.seconds,
        )
        nextTurn.pump = scheduler.pump
        self._streams = Streams(
            self,
            factory,
            scheduler,
            nextTurn,
            peersFactory=self._peersFactory,
            ended=self._streamEnded,
        )
        self._life = MuxLife(
            self,
            factory,
            self._streams,
            scheduler,
            letGo=self._letGo,
            explain=lambda loss: explainLoss(self._incoming.gate, loss),
            told=lambda reason: self.factory.muxLost(self, reason),
        )

    def __repr__(self) -> str:
        peer = self.transport.getPeer() if self.transport is not None else "nobody yet"
        name = f"{self.peerName!r} at " if self.peerName else ""
        direction = "to" if self.factory.isClient else "from"
        return f"<{type(self).__name__} {direction} {name}{peer}>"

    @property
    def authenticated(self) -> bool:
        """
        Whether the peer has shown that it holds the key.
        """
        return self._key is not None

    @property
    def peerName(self) -> str:
        """
        The name in the L{Keyring} of the key that the peer has shown to hold;
        C{""} before that, and if it has none.
        """
        return self._key or ""

    @property
    def gated(self) -> bool:
        """
        Whether nothing can be sent before C{authenticated}.
        """
        return self._life.state is GATED

    @property
    def canOpen(self) -> bool:
        """
        Whether L{openStream} can succeed, as far as is known beforehand.
        """
        return self._life.state <= OPEN

    @property
    def answers(self) -> bool:
        """
        Whether the peer has echoed a recent ping.  C{False} if the newest ping of this
        mux that the peer has echoed is older than two intervals between pings.  Always
        C{True} with a peer that has not announced that it echoes pings.

        A new stream should rather go over another mux while this is C{False}.
        """
        return self._peerLiveness.answers

    @property
    def roundTrip(self) -> float | None:
        """
        How long the newest ping that the peer has echoed took until its echo came, in
        seconds.  C{None} before the first echo, and with a peer that has not announced
        that it echoes pings.
        """
        return self._peerLiveness.roundTrip

    @property
    def reason(self) -> GomuxError | None:
        """
        What made the mux end, as soon as that is known, which is before the carrier
        is gone; C{None} until then.
        """
        return self._life.reason

    @property
    def bytesSent(self) -> int:
        """
        How many bytes were given to the carrier.
        """
        return self._scheduler.bytesSent

    @property
    def streamCount(self) -> int:
        """
        How many streams are open.
        """
        return len(self._streams)

    @property
    def protocolCount(self) -> int:
        """
        How many protocols of streams have not had C{connectionLost} yet: those of the
        open streams, and those of streams that have ended while the application had
        input paused, which comes first.
        """
        return self._streams.protocolCount

    def checkInvariants(self) -> None:
        """
        See whether the bookkeeping of the mux, of its streams and of what it has to
        send is consistent.  For tests, between two events of a mux that has had its
        carrier: not from inside a call of the mux, or of its carrier.

        @raise AssertionError: if it is not.
        """
        scheduler = self._scheduler
        self._streams.checkInvariants()
        senders = [stream.sender for stream in self._streams.byID.values()]
        scheduler.checkInvariants(self._streams.byID, filter(None, senders))
        self._nextTurn.checkInvariants(scheduler.idle or scheduler.paused)
        self._life.checkInvariants()
        if self.reason is None and self.hasCarrier:
            self._incoming.checkInvariants()
        else:
            assert scheduler.stopped
        if self._life.state is ENDED:
            assert not self._carrierLiveness.isRunning
            assert not self._peerLiveness.isRunning

    @property
    def _nextID(self) -> int:
        """
        The ID of the next stream that this side opens.
        """
        return self._streams.nextID

    @_nextID.setter
    def _nextID(self, streamID: int) -> None:
        self._streams.nextID = streamID

    # IMux

    def openStream(
        self, factory: IStreamFactory | IProtocolFactory
    ) -> Deferred[IProtocol]:
        if not self.canOpen:
            return fail(OpenStreamError("the mux is closing or closed"))
        if self.gated:
            return self._waiting.add(factory)
        if self._scheduler.controlQueued >= self._limits.maxControl:
            return fail(
                OpenStreamError("the carrier is blocked and too many frames wait")
            )
        opened = self._streams.open(factory)
        if not self._streams.hasIDs:
            # An application that needs more streams needs a new mux.
            self.drain()
        return opened

    def drain(self, timeout: float | None = None) -> Deferred[GomuxError]:
        """
        Open and accept no new streams, and L{close} when the last one is done.

        @param timeout: after how many seconds to close anyway; by default never.
        @return: as L{whenClosed}.
        """
        self._life.drain(timeout)
        return self.whenClosed()

    def close(self) -> Deferred[GomuxError]:
        self._life.close()
        return self.whenClosed()

    def abort(self) -> None:
        self._life.abort()

    def evict(self) -> None:
        """
        Drop the carrier, in favour of a newer one, because the peer has not shown that
        it holds the key.
        """
        self._fail(LimitExceeded("too many connections wait for their first frame"))

    def revoke(self) -> None:
        """
        Drop the carrier, because the key that the peer has, or might yet show, is not
        to be let in any more.
        """
        self._fail(KeyRevoked())

    def whenClosed(self) -> Deferred[GomuxError]:
        return self._life.whenClosed()

    # IProtocol

    def connectionMade(self) -> None:
        """
        Take the carrier over.
        """
        factory = self.factory
        factory.acceptPace.accepted(self.transport)
        gate = factory.makeGate()
        self._host = self.getCarrier().getHost()
        self._carrier = MuxCarrier(self.getCarrier(), self._limits.carrierTimeout)
        needs = (factory, self._scheduler, self._fail)
        self._carrierLiveness = CarrierLiveness(*needs)
        self._peerLiveness = PeerLiveness(*needs, lambda: self._incoming.isBehind)
        self._frames = PeerFrames(
            self,
            factory,
            self._streams,
            self._scheduler,
            STRICT if factory.strict else COMPATIBLE,
            peerCloses=self._life.peerCloses,
            heard=self._peerLiveness.heard,
        )
        self._incoming = Incoming(
            factory,
            gate,
            self._frames,
            self._scheduler,
            self._carrier,
            gateOpened=self._gateOpened,
            failed=self._fail,
            caughtUp=self._caughtUp,
        )
        self._sendOutputOf(gate)
        if gate.sealer is not None:
            self._startSending(gate.sealer)
            if factory.isClient:
                self._scheduler.greet()
        factory.muxConnected(self)

    def dataReceived(self, data: bytes) -> None:
        """
        Take bytes off the carrier: frames for the streams.
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
        The carrier is gone, and with it, once what came before that is handled, all
        streams.
        """
        self._life.loss = reason
        self._scheduler.stop()
        if not self._incoming.isBehind:
            self._lost()

    # The gate

    def _gateOpened(self, frame: Frame) -> Frame | None:
        """
        The gate has opened a frame: send its answer.  If it is passed, go on without.

        @return: the frame, if it is to be handled as well.
        """
        gate = self._incoming.gate
        assert gate is not None
        self._sendOutputOf(gate)
        if not gate.passed:
            return None
        gate.close()
        self._incoming.parser.useOpener(gate.opener)
        if self.gated:
            assert gate.sealer is not None
            self._startSending(gate.sealer)
        self._frames.isBound = isinstance(gate.opener, SequencedOpener)
        if self._isBound and isinstance(gate.opener, SequencedOpener):
            self._carrierLiveness.stopKeepalives()
            self._peerLiveness.start(gate.opener)
        self._key = gate.name
        self.factory.muxAuthenticated(self)
        if not gate.ownsFrames:
            self._frames.greeted(frame)
        self._waiting.open(self.openStream)
        return None if gate.ownsFrames or self._life.state >= ENDING else frame

    def _sendOutputOf(self, gate: Gate) -> None:
        output = gate.takeOutput()
        if output and self.hasCarrier:
            self._scheduler.bytesSent += len(output)
            self._carrier.write(output)

    def _startSending(self, sealer: Sealer) -> None:
        """
        The gate lets frames be sent.
        """
        self._life.open()
        factory = self.factory
        # The frames of strict mode are bound without a greeting.
        self._isBound = sealer.isBound and (factory.strict or factory.greet)
        greets = factory.greet and not factory.strict
        self._scheduler.start(sealer, int(self._isBound) if greets else None)
        self._carrier.registerProducer(self._scheduler)
        self._carrierLiveness.start()

    # What the parts of the mux need

    def getCarrier(self) -> ITCPTransport:
        """
        @return: the mux's own transport.
        """
        return cast(ITCPTransport, self.transport)

    @property
    def hasCarrier(self) -> bool:
        """
        Whether the carrier is still there.
        """
        return self._life.loss is None

    def getHost(self) -> IAddress:
        """
        @return: this end's address of the carrier, also once that is gone.
        """
        return self._host

    def _peersFactory(self) -> IStreamFactory | IProtocolFactory | None:
        own = self.streamFactory
        return self.factory.streamFactory if own is None else own

    def _write(self, parts: list[bytes]) -> None:
        if self._life.loss is None:
            self._carrier.writeSequence(parts)

    def _streamEnded(self) -> None:
        self._life.streamEnded()
        if not self._streams.byID and self._life.state < CLOSING:
            self.factory.muxIdle(self)

    # The end

    def _fail(self, error: GomuxError) -> None:
        self._life.fail(error)

    def _letGo(self) -> None:
        """
        Send and handle nothing any more.
        """
        self._scheduler.stop()
        self._incoming.clear()
        if self.hasCarrier:
            self._carrier.unregisterProducer()

    def _caughtUp(self, isWell: bool) -> None:
        """
        No frames wait for a later turn any more: read again.

        @param isWell: C{False} if a bug is the cause.
        """
        if not self.hasCarrier:
            self._lost()
        elif isWell:
            self._carrier.resumeReading()
        else:
            self.getCarrier().abortConnection()

    def _lost(self) -> None:
        """
        The carrier is gone, and what came before that is handled.
        """
        self._carrierLiveness.stop()
        self._peerLiveness.stop()
        gate = self._incoming.gate
        if gate is not None:
            gate.close()
        self._life.lost()
        assert self.reason is not None
        self._waiting.fail(self.reason)
