# -*- test-case-name: gomux.test.mux.test_streams -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The open streams of a mux, by ID.

The client opens streams with even IDs, the server with odd IDs.  An ID is used once: a
side that has no IDs left opens no more streams.  Both sides see how many IDs either
side has left.  When few are left, the mux is I{worn}: the client's dialler connects
another mux beside it, and both sides prefer the new mux for new streams.  The worn mux
ends with its last stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    ITCPTransport,
)
from twisted.python.failure import Failure

from gomux._fastpaths import fastPaths
from gomux._mux.acceptor import Acceptor
from gomux._mux.address import StreamAddress
from gomux._mux.buffers import Account
from gomux._mux.nextturn import NextTurn
from gomux._mux.plainsender import senderMaker
from gomux._mux.requests import Accepting, Opening
from gomux._mux.scheduler import Scheduler
from gomux._mux.startstop import startFactory, stopFactory
from gomux._mux.stream import Stream
from gomux._wire.frame import ID_END, REQUEST, Flag
from gomux._wire.growth import GrowingWindow, GrowthPolicy
from gomux._wire.window import MAX_HELD
from gomux.error import OutputExceeded, StreamClosed
from gomux.limits import RESERVED_IDS

if TYPE_CHECKING:
    from twisted.internet.interfaces import IOpenSSLContextFactory

    from gomux._mux.owner import CarriedMux, MuxOwner
    from gomux._mux.sendermux import SenderStream
    from gomux._mux.streamlife import StreamLife
    from gomux._wire.peerrules import PeerUse
    from gomux.interfaces import IStreamFactory

# Each side has only every second ID.
_WORN_FROM = ID_END - 2 * RESERVED_IDS


class Streams:
    """
    The streams of a mux.  Each stream calls its mux through this object, which is its
    L{StreamMux<gomux._mux.stream.StreamMux>}.

    @ivar mux: the mux.
    @ivar byID: the streams that are open on the wire.
    @ivar nextID: the ID of the next stream that this side opens.
    @ivar peerNextID: the peer's lowest ID above all IDs that it has used.
    @ivar isWorn: whether either side has fewer than L{RESERVED_IDS} IDs left.
    @ivar peerCount: how many of the peer's streams have a protocol whose
        C{connectionLost} was not called yet.
    @ivar account: counts the memory that the mux takes.
    @ivar growth: limits the growth of all receive windows together.
    @ivar consumerChanges: how often input was consumed on another stream than before.
    @ivar callSoon: calls a function in the next turn of the reactor.
    @ivar makeSender: makes the sender of a stream.
    @ivar maxOutput: see L{gomux.Limits.maxOutput}.
    @ivar activate: queues a sender in the scheduler, if it can send.
    @ivar sendControl: sends a control frame.
    @ivar acceptor: makes the protocols of the streams that the peer opens.
    @ivar lingering: the streams that have ended and still have input that waits.
    @ivar _scheduler: sends the streams' frames.
    @ivar _owner: the mux's factory.
    @ivar _clock: the reactor.
    @ivar _maxStreams: how many streams the peer may have.
    @ivar _ended: see L{__init__}.
    @ivar _batch: the largest credit that is held back to save frames, in bytes.
    @ivar _lastConsumer: the ID of the stream whose input was consumed last; -1 for no
        stream.
    @ivar _peerOpened: how many streams the peer has opened.
    @ivar _peerParity: the remainder of the peer's IDs divided by 2: 0 or 1.
    @ivar _factories: the factories of this side's streams, by ID.  Each stays until
        C{connectionLost} of its stream's protocol was called.
    """

    __slots__ = (
        *("mux", "byID", "nextID", "peerNextID", "isWorn", "peerCount", "account"),
        *("growth", "consumerChanges", "callSoon", "makeSender", "maxOutput"),
        *("activate", "sendControl", "acceptor", "lingering", "_scheduler", "_owner"),
        *("_clock", "_maxStreams", "_ended", "_batch", "_lastConsumer"),
        *("_peerOpened", "_peerParity", "_factories"),
    )

    def __init__(
        self,
        mux: CarriedMux,
        owner: MuxOwner[Any],
        scheduler: Scheduler,
        nextTurn: NextTurn,
        *,
        ended: Callable[[], None],
        overfull: Callable[[], None],
    ) -> None:
        """
        @param mux: the mux.
        @param owner: the mux's factory.
        @param scheduler: sends the streams' frames.
        @param nextTurn: makes calls in the next turn of the reactor.
        @param ended: called when a stream is no longer open on the wire.
        @param overfull: see L{Account}.
        """
        self.mux = mux
        self.byID: dict[int, Stream] = {}
        self.nextID = 0 if owner.isClient else 1
        self._peerParity = self.peerNextID = 1 - self.nextID
        self._peerOpened = 0
        self.isWorn = False
        self.peerCount = 0
        paths = fastPaths()
        limits = owner.limits
        maxGrowth = limits.maxGrowth if paths.changingWindows else 0
        self.account = Account(owner.buffers, limits.maxBuffered, overfull)
        self.growth = GrowthPolicy(limits.maxWindow, maxGrowth, self.account)
        self.makeSender = senderMaker()
        self.maxOutput = limits.maxOutput
        self._batch = MAX_HELD if paths.batchedCredit else 0
        self.consumerChanges = 0
        self._lastConsumer = -1
        self.callSoon = nextTurn.callSoon
        self.activate = scheduler.activate
        self.sendControl = scheduler.control
        self._factories: dict[int, IStreamFactory | IProtocolFactory] = {}
        self.lingering = owner.lingering
        self._scheduler = scheduler
        self._owner = owner
        self._clock = owner.clock
        self._maxStreams = limits.maxStreams
        self._ended = ended
        self.acceptor = Acceptor(mux, owner)

    def __repr__(self) -> str:
        return repr(self.mux)

    def __len__(self) -> int:
        return len(self.byID)

    @property
    def protocolCount(self) -> int:
        """
        How many protocols of streams, open or ended, have not had C{connectionLost}.
        """
        return self.peerCount + len(self._factories)

    def checkInvariants(self) -> None:
        """
        Check that the streams and their windows are consistent.  For tests.

        @raise AssertionError: if they are not consistent.
        """
        for streamID, stream in self.byID.items():
            assert stream.streamID == streamID, (streamID, stream)
            stream.checkInvariants()
        windows = [stream.receiveWindow for stream in self.byID.values()]
        self.growth.checkInvariants(filter(None, windows))
        assert all(map(self.wasOpened, (*self.byID, *self._factories)))
        peers = set(filter(self.isPeers, self.byID))
        assert len(peers) <= self.peerCount <= self._maxStreams, self.peerCount
        protocols = [self.byID[streamID].protocol for streamID in peers]
        accepted = [p for p in protocols if not isinstance(p, Accepting)]
        assert len(accepted) <= self.acceptor.use.streams, accepted
        assert self.byID.keys() - peers <= self._factories.keys(), self._factories

    def begin(self, use: PeerUse) -> None:
        """
        The peer has shown its key.

        @param use: what the peer may use.
        """
        self.acceptor.use = use
        self.account.begin(use)

    # IDs

    @property
    def hasIDs(self) -> bool:
        """
        Whether this side has IDs left.
        """
        return self.nextID < ID_END

    def _wears(self) -> None:
        """
        One side has few IDs left.
        """
        if not self.isWorn:
            self.isWorn = True
            self._owner.muxWorn(self.mux)

    def isPeers(self, streamID: int) -> bool:
        """
        @return: whether an ID belongs to the peer's streams.
        """
        return streamID % 2 == self._peerParity

    def wasOpened(self, streamID: int) -> bool:
        """
        @return: whether a stream with an ID may have been opened.
        """
        nextID = self.peerNextID if self.isPeers(streamID) else self.nextID
        return streamID < nextID

    @property
    def peerSkips(self) -> bool:
        """
        Whether the peer has skipped so many IDs that a lower one says little about
        whether its stream was opened.  An honest peer skips few: those of streams for
        which it then made no protocol.
        """
        used = (self.peerNextID - self._peerParity) // 2
        return used - self._peerOpened > RESERVED_IDS

    @property
    def isFull(self) -> bool:
        """
        Whether the peer has as many streams as it may have.
        """
        return self.peerCount >= self._maxStreams

    # The start of streams

    def open(
        self, factory: IStreamFactory | IProtocolFactory, service: str | None = None
    ) -> Deferred[IProtocol]:
        """
        Open a stream to the peer.

        @param factory: makes the stream's protocol.
        @param service: the name of the peer's service; C{None} for none.
        @return: as L{gomux.interfaces.IMux.openStream}.
        """
        # Set before buildProtocol, which may open streams too.
        streamID = self.nextID
        self.nextID += 2
        if streamID >= _WORN_FROM:
            self._wears()
        opening = None
        try:
            startFactory(factory)
            if service is None:
                protocol = factory.buildProtocol(self.addressOf(streamID))
            else:
                protocol = opening = Opening(factory, service, self.acceptor)
        except BaseException:
            failure = Failure()
            stopFactory(factory)
            return fail(failure)
        if protocol is None:
            stopFactory(factory)
            return fail(NoProtocol())
        self._factories[streamID] = factory
        self.account.opened(self._scheduler.controlQueued)
        stream = self.byID[streamID] = Stream(self, streamID, service)
        if opening is None:
            self._scheduler.control(streamID, Flag.OPEN_STREAM)
            stream.makeConnection(protocol)
            return succeed(protocol)
        self._scheduler.control(streamID, Flag.OPEN_STREAM, REQUEST)
        opening.begin(stream)
        return opening.result

    def peerOpens(
        self, streamID: int, isWelcome: bool, hasRequest: bool = False
    ) -> None:
        """
        The peer opens a stream: accept or refuse it.

        @param isWelcome: whether the mux accepts streams now.
        @param hasRequest: whether the stream begins with a request.
        @raise LimitExceeded: if the peer leaves too many refusals unread.
        """
        self._peerOpened += 1
        self.peerNextID = max(self.peerNextID, streamID + 2)
        if streamID >= _WORN_FROM:
            self._wears()
        protocol: IProtocol | None = None
        if isWelcome and not self.account.mayOpen:
            self.acceptor.refuse("the peer has its share of maxBuffered", "busy")
        elif isWelcome and hasRequest:
            protocol = Accepting(self.acceptor)
        elif isWelcome:
            protocol = self.acceptor.makePlain(self.addressOf(streamID))
        elif self.isFull:
            self.acceptor.refuse(
                "the peer has as many streams open as maxStreams allows", "busy"
            )
        else:
            self.acceptor.refuse(
                "the mux is draining, because it was told to stop", "failed"
            )
        if protocol is None:
            self._scheduler.refuse(streamID)
            return
        self.peerCount += 1
        self.account.opened(self._scheduler.controlQueued)
        stream = self.byID[streamID] = Stream(self, streamID)
        if hasRequest:
            cast(Accepting, protocol).begin(stream)
        else:
            stream.makeConnection(protocol)

    def closeService(self, service: str | None) -> None:
        """
        Close the peer's streams for a service, or those without one.
        """
        for streamID, stream in list(self.byID.items()):
            if stream.service == service and self.isPeers(streamID):
                stream.closeWith(StreamClosed())

    # StreamMux

    def getCarrier(self) -> ITCPTransport:
        """
        @return: the mux's own transport.
        """
        return self.mux.getCarrier()

    @property
    def hasCarrier(self) -> bool:
        """
        Whether the carrier is still connected.
        """
        return self.mux.hasCarrier

    def getHost(self) -> IAddress:
        """
        @return: the carrier's address at this end, even once the carrier is gone.
        """
        return self.mux.getHost()

    def addressOf(self, streamID: int, service: str | None = None) -> StreamAddress:
        """
        @return: the other end's address of a stream, even once the carrier is gone.
        """
        mux = self.mux
        return StreamAddress(mux.getPeer(), streamID, mux.peerName, service)

    def startTLS(
        self, stream: Stream, contextFactory: IOpenSSLContextFactory, normal: bool
    ) -> None:
        """
        Put TLS between a stream and its protocol.
        """
        # Imported here because only this method needs OpenSSL.
        from gomux._mux.starttls import startTLS

        isOwn = not self.isPeers(stream.streamID)
        startTLS(stream, contextFactory, isOwn == normal, self._clock)

    def consumed(self, streamID: int, window: GrowingWindow, size: int) -> None:
        """
        Input of a stream was delivered or dropped: give the peer credit for it, once
        the credit is worth a frame.

        @param streamID: the stream's ID.
        @param window: its receive window.
        @param size: the number of bytes.
        """
        if streamID != self._lastConsumer:
            self._lastConsumer = streamID
            self.consumerChanges += 1
        credit = window.consumed(size, self._batch)
        if credit and streamID in self.byID:
            credit += self.growth.credited(
                window, credit, self._clock.seconds(), self.consumerChanges
            )
            self._scheduler.credit(streamID, credit)

    def charge(self, size: int) -> None:
        """
        Take memory from the account, or give it back.

        @param size: how many bytes; less than 0 to give them back.
        """
        self.account.charge(size)

    def logFailure(self, line: str, **values: object) -> None:
        """
        Log the exception that is being handled, which the application has raised.

        @param line: the format of the line.
        @param values: the values for the format.
        """
        self._owner.notices.failure(line, **values)

    def outputExceeded(self, stream: SenderStream) -> None:
        """
        An application goes on writing although more than C{maxOutput} bytes wait: log
        it, and abort the stream.
        """
        self._owner.notices.warn(
            "aborted {stream}: its application went on writing while more than"
            " maxOutput, {size} bytes, waited to be sent",
            stream=stream,
            size=self.maxOutput,
        )
        stream.abortWith(OutputExceeded())

    def streamEnded(self, stream: StreamLife) -> None:
        """
        Nothing is sent or received for a stream any more.
        """
        ended = self.byID.pop(stream.streamID)
        if ended.receiver is not None:
            ended.received = ended.receiver.window.total
            self.growth.release(ended.receiver.window)
        if stream.hasInput:
            self.lingering[stream] = self.mux
        self._scheduler.forget(stream.streamID)
        self._ended()

    def streamLost(self, stream: StreamLife) -> None:
        """
        C{connectionLost} of a stream's protocol was called.
        """
        self.lingering.pop(stream, None)
        self.account.closed()
        if self.isPeers(stream.streamID):
            self.peerCount -= 1
            if not isinstance(stream.protocol, Accepting):
                self.acceptor.lost(stream.service)
        else:
            stopFactory(self._factories.pop(stream.streamID))
