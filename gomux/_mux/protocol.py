# -*- test-case-name: gomux.test.mux.test_protocol -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The mux itself: a protocol that turns the carrier's bytes into streams.

The carrier is always read.  Backpressure is the windows' business: a stream
that is not read gets no credit, and everything else that a peer can make us
keep has a limit in L{Limits}.  Two peers that stopped reading while their
writes are blocked would wait for each other for ever.  It is left unread only
while frames that have come wait for a later turn of the reactor, because others
are to have theirs: that waits for no peer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast
from typing import Protocol as TypingProtocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, NoProtocol
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gomux._carrier.rate import TokenBucket
from gomux._carrier.transport import MuxCarrier
from gomux._carrier.turns import DONE, TURN_TIME
from gomux._carrier.watch import Watch
from gomux._mux.address import StreamAddress
from gomux._mux.scheduler import Scheduler
from gomux._mux.stream import Stream
from gomux._wire.crypto import Opener, Sealer
from gomux._wire.frame import (
    HELLO_ID,
    ID_END,
    MAX_LENGTH,
    OVERHEAD,
    Flag,
    Frame,
    FrameOpener,
    FrameParser,
)
from gomux._wire.growth import GrowthPolicy
from gomux.error import (
    ConnectionClosed,
    GomuxError,
    KeyRevoked,
    LimitExceeded,
    NonceExhausted,
    OpenStreamError,
    PeerClosedConnection,
    ProtocolViolation,
    Truncated,
    WriteStalled,
)
from gomux.interfaces import IMux

if TYPE_CHECKING:
    from twisted.internet.interfaces import IOpenSSLContextFactory

    from gomux._carrier.accept import AcceptPace
    from gomux._carrier.busypoll import BusyPoll
    from gomux._carrier.turns import Turns
    from gomux._wire.keyring import Keyring
    from gomux._wire.strict import Salts
    from gomux.interfaces import IStreamFactory
    from gomux.limits import Limits

_DATA = int(Flag.DATA)
_WINDOW_UPDATE = int(Flag.WINDOW_UPDATE)

#: For how long at least to leave the frames of a peer that opens streams too fast, in
#: seconds: what it may open then goes together.
REST = 0.002

#: How many frames are handled before the clock is looked at.
FRAMES_PER_LOOK = 8
#: How many bytes of data make a frame that takes long enough to look at the clock
#: after each.
LARGE = 16384

_log = Logger()


class MuxOwner(TypingProtocol):
    """
    What a mux needs of the L{MuxFactory<gomux.MuxFactory>} that made it: the
    settings that are documented there, what all of its muxes share, and to be told
    how the mux fares.
    """

    clock: Any
    limits: Limits
    keyring: Keyring
    streamFactory: IStreamFactory | IProtocolFactory | None
    isClient: bool
    greet: bool
    context: bytes
    salts: Salts
    acceptPace: AcceptPace
    busyPoll: BusyPoll
    turns: Turns

    def muxConnected(self, mux: MuxProtocol) -> None:
        """
        The mux has its carrier.
        """

    def muxAuthenticated(self, mux: MuxProtocol) -> None:
        """
        The peer has shown that it holds the key.
        """

    def muxIdle(self, mux: MuxProtocol) -> None:
        """
        The last stream of the mux has ended.
        """

    def muxLost(self, mux: MuxProtocol, reason: GomuxError) -> None:
        """
        The mux has lost its carrier.

        @param reason: why.
        """


@implementer(IMux)
class MuxProtocol(Protocol):
    """
    One mux over one carrier.

    Made by L{MuxFactory<gomux.MuxFactory>}.

    @ivar factory: the factory that made it, whose settings it uses.
    @ivar bytesReceived: how many bytes came off the carrier.
    @ivar authenticated: whether the peer has shown that it holds the key, with
        at least one genuine frame.
    @ivar streamFactory: makes the protocols of streams that the peer opens; with
        C{None} the factory's own does.
    @ivar gated: whether nothing can be sent before C{authenticated}.
    """

    factory: MuxOwner
    gated = False
    streamFactory: IStreamFactory | IProtocolFactory | None = None
    # What made the mux end; set before the carrier is gone.
    _reason: GomuxError | None = None
    _draining = False
    _closing = False
    _carrierGone = False
    # Whether frames that have come wait for a later turn of the reactor.
    _behind = False
    # How long they are to wait at least, in seconds.
    _rest = 0.0
    # Whether they ever had to, because the peer opened streams too fast.
    _hasRested = False
    # Whether all streams have been told of the end.
    _hasEnded = False
    # Why the carrier is gone.
    _carrierReason: Failure
    _soonCall: IDelayedCall | None = None
    _drainCall: IDelayedCall | None = None
    _closeCall: IDelayedCall | None = None
    _keepaliveCall: IDelayedCall | None = None
    _stallWatch: Watch | None = None
    bytesReceived = 0
    # The stream to which data was delivered last, and how often that was another one
    # than before.
    _lastConsumer = -1
    _consumerChanges = 0
    authenticated = False
    # Of the peer's key.
    _name = ""

    def __init__(self, factory: MuxOwner) -> None:
        self.factory = factory
        self._clock = factory.clock
        self._limits = limits = factory.limits
        self._streams: dict[int, Stream] = {}
        self._opened: dict[int, IStreamFactory | IProtocolFactory] = {}
        self._nextID = 0 if factory.isClient else 1
        self._peerParity = 1 - self._nextID
        self._peerNextID = self._peerParity
        self._peerStreams = 0
        self._growth = GrowthPolicy(limits.maxWindow, limits.maxGrowth)
        self._opens = TokenBucket(limits.openRate, limits.openBurst)
        self._resets = TokenBucket(limits.resetRate, limits.resetBurst)
        self._ignored = TokenBucket(limits.ignoredRate, limits.ignoredBurst)
        self._soon: list[Callable[[], None]] = []
        self._closed: list[Deferred[GomuxError]] = []
        self._dispatch: dict[int, Callable[[int, int], None]] = {
            Flag.OPEN_STREAM: self._frameOpenStream,
            Flag.CLOSE_READ: self._frameCloseRead,
            Flag.CLOSE_WRITE: self._frameCloseWrite,
            Flag.CLOSE_STREAM: self._frameCloseStream,
            Flag.WINDOW_UPDATE: self._frameWindowUpdate,
            Flag.CLOSE_MUX: self._frameCloseMux,
        }

    def __repr__(self) -> str:
        peer = self.transport.getPeer() if self.transport is not None else "nobody yet"
        name = f"{self.peerName!r} at " if self.peerName else ""
        direction = "to" if self.factory.isClient else "from"
        return f"<{type(self).__name__} {direction} {name}{peer}>"

    @property
    def peerName(self) -> str:
        """
        The name in the L{Keyring} of the key that the peer has shown to hold;
        C{""} before that, and if it has none.
        """
        return self._name if self.authenticated else ""

    @property
    def canOpen(self) -> bool:
        """
        Whether L{openStream} can succeed, as far as is known beforehand.
        """
        return not self._draining and self._reason is None

    @property
    def reason(self) -> GomuxError | None:
        """
        What made the mux end, as soon as that is known, which is before the carrier
        is gone; C{None} until then.
        """
        return self._reason

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
        return self._peerStreams + len(self._opened)

    def checkInvariants(self) -> None:
        """
        See whether the bookkeeping of the mux, of its streams and of what it has to
        send is consistent.  For tests, between two events of a mux that has had its
        carrier: not from inside a call of the mux, or of its carrier.

        @raise AssertionError: if it is not.
        """
        limits = self._limits
        streams = self._streams
        for streamID, stream in streams.items():
            assert stream.streamID == streamID, (streamID, stream)
            stream.checkInvariants()
        self._growth.checkInvariants(
            [
                stream.receiveWindow
                for stream in streams.values()
                if stream.receiveWindow is not None
            ]
        )
        fromPeer = {ID for ID in streams if ID % 2 == self._peerParity}
        assert all(ID < self._peerNextID for ID in fromPeer), fromPeer
        assert len(fromPeer) <= self._peerStreams <= limits.maxStreams, (
            len(fromPeer),
            self._peerStreams,
        )
        assert streams.keys() - fromPeer <= self._opened.keys(), self._opened
        assert all(ID < self._nextID for ID in self._opened), self._opened
        scheduler = self._scheduler
        scheduler.checkInvariants(streams)
        isDue = self._soonCall is not None
        assert isDue or not self._soon, "nothing makes the calls that wait"
        assert isDue or scheduler.idle or scheduler.paused, "nothing has frames sent"
        assert self._draining or not self._closing
        if self._reason is not None or self._carrierGone:
            assert scheduler.stopped
        elif not self._behind:
            assert self._parser.pending < OVERHEAD + MAX_LENGTH, "a whole frame waits"
        if self._hasEnded:
            assert not streams, streams
            for call in (self._drainCall, self._closeCall, self._keepaliveCall):
                assert call is None or not call.active(), call

    # IMux

    def openStream(
        self, factory: IStreamFactory | IProtocolFactory
    ) -> Deferred[IProtocol]:
        """
        Open a stream to the peer.

        There is no accept message in the protocol: a peer that does not want
        the stream closes it.

        @param factory: makes the stream's protocol, for the L{StreamAddress}
            of the peer's end.
        @return: the protocol, connected.  Fails with L{OpenStreamError} if
            there can be no new stream on this mux now, and with
            L{twisted.internet.error.NoProtocol} if the factory makes none.
        """
        if not self.canOpen:
            return fail(OpenStreamError("the mux is closing or closed"))
        if self._scheduler.controlQueued >= self._limits.maxControl:
            return fail(
                OpenStreamError("the carrier is blocked and too many frames wait")
            )
        # Taken at once, for buildProtocol may open streams too.
        streamID = self._nextID
        self._nextID += 2
        try:
            startFactory(factory)
            protocol = factory.buildProtocol(self._address(streamID))
        except Exception:
            failure = Failure()
            stopFactory(factory)
            return fail(failure)
        if protocol is None:
            stopFactory(factory)
            return fail(NoProtocol())
        self._opened[streamID] = factory
        stream = self._streams[streamID] = Stream(self, streamID)
        self._scheduler.control(streamID, Flag.OPEN_STREAM)
        stream.makeConnection(protocol)
        if self._nextID >= ID_END:
            # IDs are not used again; who needs more streams needs a new mux.
            self.drain()
        return succeed(protocol)

    def drain(self, timeout: float | None = None) -> Deferred[GomuxError]:
        """
        Open and accept no new streams, and L{close} when the last one is done.

        @param timeout: after how many seconds to close anyway; by default
            never.
        @return: as L{whenClosed}.
        """
        if timeout is not None and not self._closing and not self._carrierGone:
            if self._drainCall is None:
                self._drainCall = self._clock.callLater(timeout, self.close)
        self._draining = True
        self._closeIfDrained()
        return self.whenClosed()

    def _closeIfDrained(self) -> None:
        if self._draining and not self._streams and not self._closing:
            self._close()

    def close(self) -> Deferred[GomuxError]:
        """
        Close all streams once their output is sent, then the mux.

        After L{Limits.closeTimeout} the carrier is aborted, wherever this is.

        @return: as L{whenClosed}.
        """
        self._draining = True
        self._close()
        return self.whenClosed()

    def _close(self) -> None:
        if not self._closing and self._reason is None:
            self._closing = True
            self._awaitEnd()
            for stream in list(self._streams.values()):
                stream.closeWith(ConnectionClosed())
            self._finishClosing()

    def abort(self) -> None:
        """
        Drop the carrier at once.
        """
        if self._reason is None:
            self._end(ConnectionClosed())
        if not self._carrierGone:
            # Also when the mux has ended, but the carrier not yet.
            self.getCarrier().abortConnection()

    def evict(self) -> None:
        """
        Drop the carrier, in favour of a newer one, because the peer has not
        shown that it holds the key.
        """
        self._fail(LimitExceeded("too many connections wait for their first frame"))

    def revoke(self) -> None:
        """
        Drop the carrier, because the key that the peer has, or might yet show,
        is not to be let in any more.
        """
        self._fail(KeyRevoked())

    def whenClosed(self) -> Deferred[GomuxError]:
        """
        Wait for the end of the mux.

        @return: fires, and never fails, with the reason once the carrier is
            gone and every stream has been told.
        """
        waiting: Deferred[GomuxError] = Deferred()
        self._closed.append(waiting)
        if self._hasEnded:
            self.callSoon(self._tellClosed)
        return waiting

    # IProtocol

    def connectionMade(self) -> None:
        """
        Take the carrier over.
        """
        self._name, key = self.factory.keyring.single()
        self._takeCarrier(Opener(key), Sealer(key))
        self._startSending()
        if self.factory.greet and self.factory.isClient:
            self._scheduler.control(0, Flag.KEEPALIVE)
        self.factory.muxConnected(self)

    def _takeCarrier(self, opener: FrameOpener, sealer: Sealer | None) -> None:
        """
        Make what parses and schedules frames.

        @param opener: opens the peer's frames.
        @param sealer: seals ours; without one nothing can be sent yet.
        """
        self.factory.acceptPace.accepted(self.transport)
        self._carrier = MuxCarrier(self.getCarrier(), self._limits.carrierTimeout)
        self._host = self.getCarrier().getHost()
        self._parser = FrameParser(opener)
        self._scheduler = Scheduler(
            sealer,
            self._write,
            self._wake,
            self._fail,
            self._limits.maxRefusals,
            self._clock.seconds,
        )

    def _startSending(self) -> None:
        """
        Have the carrier ask for frames, and watch over it.
        """
        limits = self._limits
        self._carrier.registerProducer(self._scheduler)
        self._sentAt = self._clock.seconds()
        self._keepaliveCall = self._clock.callLater(limits.keepalive, self._keepAlive)
        self._stallWatch = Watch(
            self._clock,
            limits.writeStall,
            self._writeProgress,
            lambda: self._fail(WriteStalled()),
        )

    def dataReceived(self, data: bytes) -> None:
        """
        Take bytes off the carrier: frames for the streams.
        """
        if self._reason is not None or self._carrierGone:
            return
        size = len(data)
        self.bytesReceived += size
        self._carrier.received(size)
        self._parser.receive(data)
        if not self._behind:
            self.factory.turns.begin(self._takeFrames)

    def _takeFrames(self, until: float) -> float:
        """
        Handle the frames that have come.

        @param until: when to leave the others for a later turn of the reactor.
        @return: how long to leave them, or that there are none left.
        """
        scheduler = self._scheduler
        nextFrame = self._parser.nextFrame
        handled = 0
        left = DONE
        self._rest = 0.0
        scheduler.expectsPump = True
        try:
            while self._reason is None:
                frame = nextFrame()
                if frame is None:
                    break
                self._frameReceived(frame)
                if scheduler.urgent:
                    scheduler.pump()
                handled += 1
                if (
                    self._rest
                    or (
                        (handled % FRAMES_PER_LOOK == 0 or len(frame[3]) >= LARGE)
                        and self._clock.seconds() >= until
                    )
                ) and self._canWait():
                    left = self._rest
                    break
        except GomuxError as error:
            self._fail(error)
        except Exception:
            if self._behind and not self._carrierGone:
                # A bug of ours, and no reactor ends the carrier because of it.
                self._behind = False
                self.getCarrier().abortConnection()
            raise
        finally:
            scheduler.expectsPump = False
        if not scheduler.paused:
            scheduler.pump()
        self.factory.busyPoll.moved()
        if (left == DONE) is self._behind:
            self._fallBehind(left != DONE)
        return left

    def _canWait(self) -> bool:
        """
        @return: whether there are frames that can be left for a later turn.
        """
        return self._parser.pending > 0 and self._carrier.canWait

    def _fallBehind(self, behind: bool) -> None:
        """
        Read nothing while frames that have come wait for their turn.
        """
        self._behind = behind
        if behind:
            self._carrier.pauseReading()
        elif self._carrierGone:
            self._carrierLost()
        else:
            self._carrier.resumeReading()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The carrier is gone, and with it, once what came before that is handled,
        all streams.
        """
        self._carrierGone = True
        self._carrierReason = reason
        self._scheduler.stop()
        if not self._behind:
            self._carrierLost()

    def _carrierLost(self) -> None:
        for call in (self._drainCall, self._closeCall, self._keepaliveCall):
            if call is not None and call.active():
                call.cancel()
        if self._stallWatch is not None:
            self._stallWatch.stop()
        if self._reason is None:
            self._reason = self._reasonOf(self._carrierReason)
        self._ending = deque(self._streams.values())
        self.factory.turns.begin(self._endStreams)

    def _endStreams(self, until: float) -> float:
        """
        End the streams, and in the end the mux.

        @param until: when to leave others for a later turn of the reactor.
        @return: how long to leave them, or that there are none left.
        """
        assert self._reason is not None
        while self._ending:
            self._ending.popleft().muxEnded(self._reason)
            if self._ending and self._clock.seconds() >= until:
                return 0.0
        self._hasEnded = True
        self.factory.muxLost(self, self._reason)
        if self._closed:
            self.callSoon(self._tellClosed)
        return DONE

    def _reasonOf(self, reason: Failure) -> GomuxError:
        """
        @return: what a carrier that ended by itself means.
        """
        if self._closing:
            return ConnectionClosed()
        if not self.authenticated:
            return Truncated(
                "before any authenticated frame came;"
                f" wrong pre-shared key, or no gomux peer?{errorOf(reason)}"
            )
        return Truncated(reason.getErrorMessage())

    def _tellClosed(self) -> None:
        assert self._reason is not None
        closed, self._closed = self._closed, []
        for waiting in closed:
            waiting.callback(self._reason)

    def _write(self, parts: list[bytes]) -> None:
        self._sentAt = self._clock.seconds()
        if not self._carrierGone:
            self._carrier.writeSequence(parts)

    # What the streams need

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
        return not self._carrierGone

    def getHost(self) -> IAddress:
        """
        @return: this end's address of the carrier, also once that is gone.
        """
        return self._host

    def startTLS(
        self, stream: Stream, contextFactory: IOpenSSLContextFactory, normal: bool
    ) -> None:
        """
        Put TLS between a stream and its protocol.
        """
        # Needs OpenSSL, which nothing else here does.
        from gomux._mux.starttls import startTLS

        ours = stream.streamID % 2 != self._peerParity
        startTLS(stream, contextFactory, ours == normal, self._clock)

    def callSoon(self, function: Callable[[], None]) -> None:
        """
        Call a function from the reactor, as soon as it can.
        """
        self._soon.append(function)
        self._wake()

    def sendAtOnce(self, write: Callable[[bytes], None], data: bytes) -> None:
        """
        Have a stream write something, and send it before this returns, unless that
        was done a moment ago: then there is perhaps more, which can go with it.

        @param write: the stream's method.
        """
        scheduler = self._scheduler
        if scheduler.expectsPump or self._clock.seconds() - self._sentAt < TURN_TIME:
            write(data)
            return
        scheduler.expectsPump = True
        try:
            write(data)
        finally:
            scheduler.expectsPump = False
        scheduler.pump()

    def activate(self, stream: Stream, fresh: bool) -> None:
        """
        The stream may have become able to send.
        """
        self._scheduler.activate(stream, fresh)

    def sendControl(self, streamID: int, flag: int) -> None:
        """
        Send a control frame.
        """
        self._scheduler.control(streamID, flag)

    def consumed(self, stream: Stream, size: int) -> None:
        """
        The application has taken some of a stream's input: give credit for it once
        that is worth a frame.

        @param stream: the stream.
        @param size: how many bytes.
        """
        window = stream.receiveWindow
        assert window is not None, "there was input"
        streamID = stream.streamID
        if streamID != self._lastConsumer:
            self._lastConsumer = streamID
            self._consumerChanges += 1
        credit = window.consumed(size)
        if credit and streamID in self._streams:
            # With half its window used up, the peer may soon have to wait for credit.
            # A window that keeps half back is always that low.
            available = window.available - credit
            isUrgent = available * 2 <= window.size and not window.kept
            credit += self._growth.credited(
                window, credit, self._clock.seconds(), self._consumerChanges
            )
            self._scheduler.credit(streamID, credit, isUrgent)

    def streamEnded(self, stream: Stream) -> None:
        """
        Nothing is sent or received for a stream any more.
        """
        del self._streams[stream.streamID]
        if stream.receiveWindow is not None:
            self._growth.release(stream.receiveWindow)
        self._scheduler.forget(stream.streamID)
        if self._closing:
            self._finishClosing()
        else:
            self._closeIfDrained()
            if not self._streams:
                self.factory.muxIdle(self)

    def streamLost(self, stream: Stream) -> None:
        """
        A stream's protocol is done.
        """
        if stream.streamID % 2 == self._peerParity:
            self._peerStreams -= 1
        else:
            stopFactory(self._opened.pop(stream.streamID))

    def _wake(self) -> None:
        if self._soonCall is None:
            self._soonCall = self._clock.callLater(0, self._runSoon)

    def _runSoon(self) -> None:
        """
        Make the calls that wait, and send what has come together since.
        """
        soon, self._soon = self._soon, []
        for function in soon:
            try:
                function()
            except Exception:
                # The other streams' calls must not be lost with this one.
                _log.failure("a call for the next turn of {mux} failed", mux=self)
        self._soonCall = None
        if self._soon:
            self._wake()
        self._scheduler.pump()

    def _address(self, streamID: int) -> StreamAddress:
        return StreamAddress(self.getCarrier().getPeer(), streamID)

    # Frames

    def _frameReceived(self, frame: Frame) -> None:
        """
        Handle one genuine frame.

        @raise GomuxError: if it means the end of the mux.
        """
        streamID, length, flag, payload = frame
        if not self.authenticated:
            self._authenticate(streamID, flag)
        if flag == _DATA:
            stream = self._streams.get(streamID)
            if stream is None:
                self._frameUnknown(streamID)
            elif payload:
                stream.frameData(payload)
            else:
                self._frameIgnored("empty data frames")
            return
        handle = self._dispatch.get(flag)
        if handle is None:
            self._frameWithoutEffect(flag)
        else:
            handle(streamID, length)

    def _authenticate(self, streamID: int, flag: int) -> None:
        """
        The first genuine frame has come: the peer holds the key.  Show a
        client that greets that so do we.
        """
        self.authenticated = True
        self.factory.muxAuthenticated(self)
        if streamID == HELLO_ID and flag == Flag.KEEPALIVE:
            _log.warn("{mux}: the peer is in strict mode, which is off here", mux=self)
        _log.debug("{mux} is not in strict mode: no replay would be noticed", mux=self)
        if flag == Flag.KEEPALIVE and self.factory.greet and not self.factory.isClient:
            self._scheduler.control(0, Flag.KEEPALIVE)

    def _frameIgnored(self, what: str) -> None:
        """
        Count a frame that has no effect.

        @raise LimitExceeded: if there are too many of them.
        """
        if not self._ignored.take(self._clock.seconds()):
            raise LimitExceeded(f"too many {what}")

    def _frameUnknown(self, streamID: int) -> None:
        """
        Ignore a frame for no stream we have: what was under way when we
        closed it, which the peer may have had every right to send, or else
        a frame that is counted.
        """
        fromPeer = streamID % 2 == self._peerParity
        if streamID >= (self._peerNextID if fromPeer else self._nextID):
            self._frameNeverOpened(streamID)

    def _frameNeverOpened(self, streamID: int) -> None:
        self._frameIgnored("frames for streams that were never opened")

    def _frameWithoutEffect(self, flag: int) -> None:
        self._frameIgnored("frames without effect")

    def _frameOpenStream(self, streamID: int, length: int) -> None:
        if streamID % 2 != self._peerParity:
            raise ProtocolViolation(f"the peer opened stream {streamID}, an ID of ours")
        if streamID in self._streams:
            raise ProtocolViolation(f"the peer opened stream {streamID} twice")
        if self._scheduler.controlQueued >= self._limits.maxControl:
            # What a stream makes us say is bounded; so must be the streams.
            raise LimitExceeded(
                "streams go on coming, and what was said about others is not read"
            )
        self._opens.take(self._clock.seconds())
        wait = self._opens.wait
        if wait:
            self._openedTooFast(wait)
        self._peerNextID = max(self._peerNextID, streamID + 2)
        if self._draining or self._peerStreams >= self._limits.maxStreams:
            self._scheduler.refuse(streamID)
            return
        protocol = self._buildProtocol(streamID)
        if protocol is None:
            self._scheduler.refuse(streamID)
            return
        self._peerStreams += 1
        stream = self._streams[streamID] = Stream(self, streamID)
        stream.makeConnection(protocol)

    def _openedTooFast(self, wait: float) -> None:
        """
        Leave what comes next for a while, but do not put the end off for long.

        @param wait: until the next stream is allowed, in seconds.
        """
        self._rest = REST if self._carrierGone else max(REST, wait)
        if not self._hasRested:
            self._hasRested = True
            _log.info(
                "{mux}: the peer opens streams faster than openRate allows,"
                " which is {rate:g} a second after the first {burst}, and has to wait",
                mux=self,
                rate=self._limits.openRate,
                burst=self._limits.openBurst,
            )

    def _buildProtocol(self, streamID: int) -> IProtocol | None:
        factory = self.streamFactory
        if factory is None:
            factory = self.factory.streamFactory
        if factory is None:
            return None
        try:
            return factory.buildProtocol(self._address(streamID))
        except Exception:
            _log.failure(
                "buildProtocol failed for stream {id} of {mux}", id=streamID, mux=self
            )
            return None

    def _frameWindowUpdate(self, streamID: int, length: int) -> None:
        stream = self._streams.get(streamID)
        if stream is None:
            self._frameUnknown(streamID)
        elif length:
            stream.frameCredit(length)
        else:
            self._frameIgnored("window updates of 0 bytes")
            stream.peerAborts = True

    def _frameCloseRead(self, streamID: int, length: int) -> None:
        stream = self._streams.get(streamID)
        if stream is None:
            self._frameUnknown(streamID)
        else:
            stream.frameCloseRead()

    def _frameCloseWrite(self, streamID: int, length: int) -> None:
        stream = self._streams.get(streamID)
        if stream is None:
            self._frameUnknown(streamID)
        else:
            stream.frameCloseWrite()

    def _frameCloseStream(self, streamID: int, length: int) -> None:
        stream = self._streams.get(streamID)
        if stream is None:
            self._frameUnknown(streamID)
            return
        if not stream.touched and streamID % 2 == self._peerParity:
            if not self._resets.take(self._clock.seconds()):
                raise LimitExceeded("streams are opened and closed again too fast")
        if stream.peerAborts:
            # So that frame had an effect.
            self._ignored.giveBack()
        stream.frameCloseStream()

    def _frameCloseMux(self, streamID: int, length: int) -> None:
        self._end(ConnectionClosed() if self._closing else PeerClosedConnection())
        self.getCarrier().loseConnection()
        self._awaitEnd()

    # Ends

    def _finishClosing(self) -> None:
        """
        Once there are no streams, say CloseMux, and leave it to the peer to
        end the carrier: if we did, what we have not read could take the
        CloseMux with it.
        """
        if not self._streams and not self._scheduler.stopped:
            self._scheduler.control(0, Flag.CLOSE_MUX)
            self._scheduler.finish()

    def _fail(self, error: GomuxError) -> None:
        """
        End the mux at once.
        """
        if self._reason is None:
            self._end(error)
            if isinstance(error, NonceExhausted):
                # CloseMux was written: as in an orderly close.
                self._awaitEnd()
            elif not self._carrierGone:
                self.getCarrier().abortConnection()

    def _awaitEnd(self) -> None:
        """
        Give the carrier some time to come to its end.
        """
        if self._closeCall is None:
            self._closeCall = self._clock.callLater(
                self._limits.closeTimeout, self.abort
            )

    def _end(self, reason: GomuxError) -> None:
        """
        Take the hands off the carrier.
        """
        self._reason = reason
        self._scheduler.stop()
        if not self._carrierGone:
            self._carrier.unregisterProducer()

    # Time

    def _keepAlive(self) -> None:
        """
        Send a Keepalive if nothing was sent for so long.
        """
        keepalive = self._limits.keepalive
        wait = self._sentAt + keepalive - self._clock.seconds()
        if wait <= 0:
            wait = keepalive
            if self._scheduler.idle and not self._scheduler.paused:
                self._scheduler.control(0, Flag.KEEPALIVE)
        self._keepaliveCall = self._clock.callLater(wait, self._keepAlive)

    def _writeProgress(self) -> object:
        """
        @return: what stays the same only while the carrier takes nothing of what
            there is to send.
        """
        scheduler = self._scheduler
        return scheduler.bytesSent if scheduler.paused else object()


def errorOf(reason: Failure) -> str:
    """
    @param reason: why a carrier ended before anything came of it.
    @return: what to add where that was for an error, such as a certificate
        that TLS did not accept.
    """
    if reason.check(ConnectionDone):
        return ""
    return f" The carrier's own error: {reason.getErrorMessage()}"


def startFactory(factory: object) -> None:
    """
    Tell a factory, if it wants to know, that it is used from now on.
    """
    doStart = getattr(factory, "doStart", None)
    if doStart is not None:
        doStart()


def stopFactory(factory: object) -> None:
    """
    The opposite of L{startFactory}.
    """
    doStop = getattr(factory, "doStop", None)
    if doStop is not None:
        try:
            doStop()
        except Exception:
            _log.failure("doStop of {factory} failed", factory=factory)
