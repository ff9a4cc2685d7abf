# -*- test-case-name: gomux.test.mux.test_protocol -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
What a mux tells about itself: facts for its owner, for pools, and for status pages.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, ITCPTransport

from gomux._carrier.passed import PassedDropper
from gomux._mux.log import describeAddress
from gomux._mux.muxlife import ENDED, GATED, OPEN
from gomux._mux.requests import Accepting
from gomux.error import HandshakeFailed, NoRequests, Truncated

if TYPE_CHECKING:
    from gomux._mux.frames import PeerFrames
    from gomux._mux.gate import GreetingWait
    from gomux._mux.incoming import Incoming
    from gomux._mux.liveness import CarrierLiveness, PeerLiveness
    from gomux._mux.muxlife import MuxLife
    from gomux._mux.nextturn import NextTurn
    from gomux._mux.scheduler import Scheduler
    from gomux._mux.stream import Stream
    from gomux._mux.streams import Streams
    from gomux._wire.keyring import Keys
    from gomux.error import GomuxError


class MuxFacts(PassedDropper):
    """
    The facts about a L{MuxProtocol<gomux.MuxProtocol>}, which sets all attributes.

    @ivar factory: the factory that made the mux.
    @ivar bytesReceived: how many bytes were received from the carrier.
    @ivar transport: the carrier.
    @ivar greetingWait: how long streams for services wait for the peer's greeting.
    @ivar _key: the name of the peer's key, and the key; C{None} until the peer has
        shown it.
    @ivar _host: the carrier's address at this end.
    @ivar _peer: the carrier's address at the other end; C{None} before the mux has its
        carrier.
    @ivar _life: the mux's state.
    @ivar _streams: the mux's streams.
    @ivar _nextTurn: makes calls in the next turn of the reactor.
    @ivar _scheduler: sends frames.
    @ivar _frames: handles the peer's frames.
    @ivar _isBound: whether this side has announced
        L{BOUND<gomux._wire.frame.BOUND>}, or strict mode implies it.
    @ivar _incoming: keeps received bytes, and has their frames handled.
    @ivar _carrierLiveness: notices a dead carrier.
    @ivar _peerLiveness: pings the peer, and notices when it is gone.
    """

    factory: Any
    bytesReceived = 0
    transport: Any
    greetingWait: GreetingWait
    _key: tuple[str, bytes] | None = None
    _peer: IAddress | None = None
    _host: IAddress
    _life: MuxLife
    _streams: Streams
    _nextTurn: NextTurn
    _scheduler: Scheduler
    _frames: PeerFrames
    _isBound = False
    _incoming: Incoming
    _carrierLiveness: CarrierLiveness
    _peerLiveness: PeerLiveness

    def __repr__(self) -> str:
        peer = "nobody yet" if self._peer is None else describeAddress(self._peer)
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
        The name of the peer's key in the L{Keyring}; C{""} if unnamed or not yet shown.
        """
        return self._key[0] if self._key is not None else ""

    @property
    def hasPeer(self) -> bool:
        """
        Whether the mux belongs to a peer, and not to a stranger: the peer has shown its
        key, or this side has dialled it.
        """
        return self._key is not None or self.factory.isClient

    @property
    def isStrict(self) -> bool:
        """
        Whether the mux of this peer is in strict mode.
        """
        strict = self.factory.strict
        return strict if isinstance(strict, bool) else self.expectedName in strict

    def isRevoked(self, names: Collection[str], keys: Keys) -> bool:
        """
        @param names: names of which a key was revoked.
        @param keys: the keys that are still valid.
        @return: whether the peer has such a name, and its key is not valid any more.
        """
        return self.peerName in names and self._key not in keys

    @property
    def _expectedKey(self) -> tuple[str, bytes] | None:
        """
        The name of the peer's key, and the key.  A client has dialled the peer of a
        key, which need not have shown it yet.
        """
        gate = self._incoming.gate
        if self._key is None and self.factory.isClient and gate is not None:
            return gate.name, gate.key
        return self._key

    @property
    def expectedName(self) -> str:
        """
        The name of the key that the peer has shown, or that a client expects.
        """
        key = self._expectedKey
        return "" if key is None else key[0]

    def isWith(self, peer: str) -> bool:
        """
        @param peer: the name of a peer.
        @return: whether everything sent on this mux is for that peer alone: it has
            shown its key, or a client has dialled it, and the key is still in the
            keyring.
        """
        key = self._expectedKey
        return key is not None and key[0] == peer and key in self.factory.keyring.keys

    @property
    def gated(self) -> bool:
        """
        Whether the gate still keeps the mux from sending.
        """
        return self._life.state is GATED

    @property
    def isBehind(self) -> bool:
        """
        Whether received frames wait for a later turn of the reactor.
        """
        return self._incoming.isBehind

    @property
    def canOpen(self) -> bool:
        """
        Whether this side can open streams: the mux is neither draining, closing nor
        closed, and has IDs left.
        """
        return self._life.state <= OPEN and self._streams.hasIDs

    @property
    def takesStreams(self) -> bool:
        """
        Whether the peer may open streams.
        """
        return self._life.state <= OPEN

    @property
    def takesRequests(self) -> bool | None:
        """
        Whether this side may open streams for services: the peer has announced that it
        understands requests, and this side announces the same.  C{None} while that is
        not known yet.
        """
        if self._key is not None:
            # The peer has shown its key: the mux is not gated any more.
            return self._isBound and self._frames.isBound
        if self.gated:
            return None
        return False if not self._isBound or self.greetingWait.isOver else None

    def noRequests(self) -> NoRequests:
        """
        @return: why this side may not open streams for services.
        """
        if not self._isBound:
            return NoRequests("greet=False is set on this side")
        if self.authenticated:
            return NoRequests("its first frame was no greeting; is it a Go peer?")
        seconds = self.factory.limits.greetTimeout
        return NoRequests(f"no greeting came in {seconds:g} seconds; is it a Go peer?")

    @property
    def isWorn(self) -> bool:
        """
        Whether either side has few stream IDs left.  A new stream should rather go
        over another mux.
        """
        return self._streams.isWorn

    @property
    def answers(self) -> bool:
        """
        Whether the peer has echoed a recent ping.  C{False} if the newest echoed ping
        is older than two intervals between pings.  Always C{True} with a peer that has
        not announced that it echoes pings, and while received frames wait.

        A new stream should rather go over another mux while this is C{False}.
        """
        return self._peerLiveness.answers

    @property
    def roundTrip(self) -> float | None:
        """
        The time from the newest echoed ping to its echo, in seconds.  C{None} before
        the first echo, and with a peer that has not announced that it echoes pings.
        """
        return self._peerLiveness.roundTrip

    @property
    def reason(self) -> GomuxError | None:
        """
        Why the mux has ended; C{None} before that.  The carrier may still be connected.
        """
        return self._life.reason

    @property
    def leftSilently(self) -> bool:
        """
        Whether the mux ended because the peer has ended the carrier before either side
        had sent a byte.
        """
        loss = self._life.loss
        if self.bytesReceived or self.bytesSent or loss is None:
            return False
        # If this side has closed the mux, the reason is another error.
        isCut = isinstance(self.reason, (Truncated, HandshakeFailed))
        return isCut and loss.type in (ConnectionDone, ConnectionLost)

    @property
    def bytesSent(self) -> int:
        """
        How many bytes were written to the carrier.
        """
        return self._scheduler.bytesSent

    @property
    def streamCount(self) -> int:
        """
        How many streams are open.
        """
        return len(self._streams)

    @property
    def peerStreamCount(self) -> int:
        """
        How many streams count against C{maxStreams}.
        """
        return self._streams.peerCount

    @property
    def acceptedStreams(self) -> list[Stream]:
        """
        The open streams of the peer, without those whose request is not complete.
        """
        streams = self._streams
        return [
            stream
            for streamID, stream in streams.byID.items()
            if streams.isPeers(streamID) and not isinstance(stream.protocol, Accepting)
        ]

    def isPeers(self, streamID: int) -> bool:
        """
        @return: whether an ID belongs to the peer's streams.
        """
        return self._streams.isPeers(streamID)

    @property
    def protocolCount(self) -> int:
        """
        How many protocols of streams, open or ended, have not had C{connectionLost}.
        """
        return self._streams.protocolCount

    @property
    def hasCarrier(self) -> bool:
        """
        Whether the carrier is still connected.
        """
        return self._life.loss is None

    def getCarrier(self) -> ITCPTransport:
        """
        @return: the mux's own transport.
        """
        carrier: ITCPTransport = self.transport
        return carrier

    def getHost(self) -> IAddress:
        """
        @return: the carrier's address at this end, even once the carrier is gone.
        """
        return self._host

    def getPeer(self) -> IAddress:
        """
        @return: the carrier's address at the other end, even once the carrier is gone.
        """
        return self._peer  # type: ignore[return-value]

    def checkInvariants(self) -> None:
        """
        Check the mux and its parts.  For tests, once the mux has had its carrier, and
        not from inside a call of the mux or the carrier.

        @raise AssertionError: if their state is not consistent.
        """
        scheduler = self._scheduler
        self._streams.checkInvariants()
        senders = [stream.sender for stream in self._streams.byID.values()]
        scheduler.checkInvariants(self._streams.byID, filter(None, senders))
        streams: list[Any] = [*self._streams.byID.values()]
        lingering = self._streams.lingering.items()
        streams += [stream for stream, mux in lingering if mux is self]
        waiting = sum(
            stream.unread
            + (stream.sender.charged if stream.sender else 0)
            + getattr(stream.protocol, "kept", 0)
            for stream in streams
        )
        isUp = self._life.state is not ENDED
        count = self._streams.protocolCount
        self._streams.account.checkInvariants(waiting, count, isUp)
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
        # The ID of the next stream that this side opens.  Tests set it.
        return self._streams.nextID

    @_nextID.setter
    def _nextID(self, streamID: int) -> None:
        self._streams.nextID = streamID
