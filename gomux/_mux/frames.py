# -*- test-case-name: gomux.test.mux.test_frames -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Handles the peer's frames, and enforces the rules for what a peer may send.

L{PeerFrames} has a method for each kind of frame.  A table of rules maps each flag to
its method and says what else is allowed.  L{COMPATIBLE} is the table for peers that may
be any implementation of gomux v1.  L{STRICT} is the table for peers in strict mode.
Such peers send no frame without effect except Keepalives.

A frame that breaks the rules ends the mux: its method raises a
L{GomuxError<gomux.error.GomuxError>}.  A frame that is allowed but has no effect
counts against L{Limits.ignoredRate<gomux.Limits>}.  A frame for a stream that has
ended does not count: the peer may have sent it before it learned of the end.  A peer
that has skipped most of its IDs has that benefit no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from gomux._carrier.rate import TokenBucket
from gomux._mux.gate import Gate
from gomux._mux.liveness import PeerLiveness
from gomux._mux.muxlife import MuxLife
from gomux._mux.owner import MuxOwner
from gomux._mux.scheduler import Scheduler
from gomux._mux.stream import Stream
from gomux._mux.streams import Streams
from gomux._wire.crypto import SequencedOpener
from gomux._wire.frame import HELLO_ID, REQUEST, Flag, Frame
from gomux.error import LimitExceeded, ProtocolViolation

#: The minimum pause for a peer over its C{openRate}, in seconds; a longer pause lets
#: its next streams be handled in one batch.
REST = 0.002

_DATA = int(Flag.DATA)


class Rule(NamedTuple):
    """
    The rule for one kind of frame.

    @ivar handle: called with the L{PeerFrames}, the frame's stream ID and its length.
    @ivar hasLength: whether the C{length} may be other than 0.
    """

    handle: Callable[[PeerFrames, int, int], None]
    hasLength: bool


class Rules(NamedTuple):
    """
    The rules for what a peer may send.

    @ivar flags: the rule for each flag except Data, which every table handles alike.
    @ivar unknownFlag: called with the L{PeerFrames} and a flag without a rule.
    @ivar neverOpened: called with the L{PeerFrames} and the stream ID of a frame for
        a stream that was never opened.
    """

    flags: Mapping[int, Rule]
    unknownFlag: Callable[[PeerFrames, int], None]
    neverOpened: Callable[[PeerFrames, int], None]


class FramesMux(Protocol):
    """
    The part of the mux that L{PeerFrames} uses.
    """

    @property
    def hasCarrier(self) -> bool:
        """
        Whether the carrier is still connected.
        """

    @property
    def takesStreams(self) -> bool:
        """
        Whether the peer may open streams.
        """


class PeerFrames:
    """
    Handles the peer's frames.

    @ivar rest: the minimum pause before the peer's next frame is handled, in seconds;
        0 unless the peer opens streams faster than its C{openRate}.
    @ivar isBound: whether the peer has announced L{BOUND<gomux._wire.frame.BOUND>}, or
        strict mode implies it.
    @ivar _mux: the mux.
    @ivar _limits: the factory's limits.
    @ivar _clock: the factory's clock.
    @ivar _notices: logs what the peer does, with a limit on the number of lines.
    @ivar _streams: the mux's streams.
    @ivar _byID: the open streams by ID.
    @ivar _scheduler: sends frames.
    @ivar _rules: what the peer may send; not there before L{begin}.
    @ivar _flags: the rules by flag; not there before L{begin}.
    @ivar _life: the mux's state.
    @ivar _liveness: handles the peer's pings.
    @ivar _opens: limits how fast the peer may open streams.
    @ivar _resets: limits how fast the peer may close streams to which this side has
        written nothing; C{None} before the first.
    @ivar _ignored: limits how fast the peer may send frames without effect.
    @ivar _saidRest: whether it was logged that the peer opens streams too fast.
    """

    __slots__ = (
        *("rest", "isBound", "_mux", "_limits", "_clock", "_notices", "_streams"),
        *("_byID", "_scheduler", "_rules", "_flags", "_life", "_liveness", "_opens"),
        *("_resets", "_ignored", "_saidRest"),
    )

    def __init__(
        self,
        mux: FramesMux,
        owner: MuxOwner[Any],
        streams: Streams,
        scheduler: Scheduler,
        life: MuxLife,
        liveness: PeerLiveness,
    ) -> None:
        """
        @param mux: the mux.
        @param owner: the mux's factory.
        @param streams: the mux's streams.
        @param scheduler: sends frames, and counts the control frames that wait.
        @param life: the mux's state, which a CloseMux of the peer ends.
        @param liveness: handles each Keepalive but a greeting.
        """
        self.rest = 0.0
        self.isBound = False
        self._mux = mux
        self._streams = streams
        self._byID = streams.byID
        self._scheduler = scheduler
        self._limits = limits = owner.limits
        self._clock = owner.clock
        self._notices = owner.notices
        self._life = life
        self._liveness = liveness
        self._opens = TokenBucket(limits.openRate, limits.openBurst)
        self._resets: TokenBucket | None = None
        self._ignored = TokenBucket(limits.ignoredRate, limits.ignoredBurst)
        self._saidRest = False

    def begin(self, gate: Gate) -> None:
        """
        The gate is passed: the next frame is the first one to handle.
        """
        self._rules = STRICT if gate.isStrict else COMPATIBLE
        self._flags = self._rules.flags
        self.isBound = isinstance(gate.opener, SequencedOpener)

    def greeted(self, frame: Frame) -> None:
        """
        Note the first frame of a peer in compatible mode, before it is handled.
        A server answers it with its own greeting, which shows the peer that the server
        holds the key.  A client has sent its greeting before.
        """
        streamID, _, flag, _ = frame
        mux = self._mux
        if streamID == HELLO_ID and flag == Flag.DATA:
            self._notices.warn(
                "{mux}: the peer is in strict mode, which is off here", mux=mux
            )
        self._scheduler.greet()

    def received(self, frame: Frame) -> None:
        """
        Handle one authenticated frame.

        @raise GomuxError: if the frame ends the mux.
        """
        streamID, length, flag, payload = frame
        if flag == _DATA:
            stream = self._byID.get(streamID)
            if stream is None:
                self._withoutStream(streamID)
            elif payload:
                (stream.receiver or stream.makeReceiver()).received(payload)
            else:
                self._ignore("empty data frames")
            return
        rule = self._flags.get(flag)
        if rule is None:
            self._rules.unknownFlag(self, flag)
            return
        handle, hasLength = rule
        if length and not hasLength:
            raise ProtocolViolation(
                f"a frame without a payload announces a length of {length}"
            )
        handle(self, streamID, length)

    # Frames about a stream

    def openStream(self, streamID: int, length: int) -> None:
        """
        OpenStream: the peer opens a stream.

        A length of 1 announces that the stream begins with a request.  From a peer that
        is bound, a greater length means something that this version does not
        understand, so such a stream is refused.  From any other peer, a length greater
        than 1 means nothing.
        """
        streams = self._streams
        if not streams.isPeers(streamID):
            raise ProtocolViolation(f"the peer opened stream {streamID}, an ID of ours")
        if streamID in self._byID:
            raise ProtocolViolation(f"the peer opened stream {streamID} twice")
        if self._scheduler.controlQueued >= self._limits.maxControl:
            # Each stream makes this side queue a few control frames.  A peer that does
            # not read those may not open more streams.
            raise LimitExceeded(
                "the peer opens streams, but does not read this side's control frames"
            )
        self._opens.take(self._clock.seconds())
        if wait := self._opens.wait:
            self._leaveAlone(wait)
        isKnown = length <= REQUEST or not self.isBound
        isWelcome = isKnown and self._mux.takesStreams and not streams.isFull
        streams.peerOpens(streamID, isWelcome, length == REQUEST)

    def _leaveAlone(self, wait: float) -> None:
        """
        Pause the handling of the peer's frames.  Once the carrier is gone the pause is
        only L{REST}, because the end of the mux waits for these frames.

        @param wait: the time until the next stream is allowed, in seconds.
        """
        self.rest = max(REST, wait) if self._mux.hasCarrier else REST
        if not self._saidRest:
            self._saidRest = True
            self._notices.info(
                "{mux}: the peer opens streams faster than openRate allows,"
                " which is {rate:g} a second after the first {burst}, and has to wait",
                mux=self._mux,
                rate=self._limits.openRate,
                burst=self._limits.openBurst,
            )

    def windowUpdate(self, streamID: int, length: int) -> None:
        """
        WindowUpdate: the peer gives credit.  A length of 0 announces that the peer's
        next CloseStream is an abort.
        """
        stream = self._byID.get(streamID)
        if stream is None:
            self._withoutStream(streamID)
        elif length:
            stream.frameCredit(length)
        else:
            self._ignore("window updates of 0 bytes")
            stream.peerAborts = True

    def closeRead(self, streamID: int, length: int) -> None:
        """
        CloseRead: the peer has finished writing.
        """
        stream = self._find(streamID)
        if stream is not None:
            stream.frameCloseRead()

    def closeWrite(self, streamID: int, length: int) -> None:
        """
        CloseWrite: the peer wants no more data.
        """
        stream = self._find(streamID)
        if stream is not None:
            stream.frameCloseWrite()

    def closeStream(self, streamID: int, length: int) -> None:
        """
        CloseStream: the peer has closed the stream, or aborted it.
        """
        stream = self._find(streamID)
        if stream is None:
            return
        if not stream.touched and self._streams.isPeers(streamID):
            if self._resets is None:
                limits = self._limits
                self._resets = TokenBucket(limits.resetRate, limits.resetBurst)
            if not self._resets.take(self._clock.seconds()):
                raise LimitExceeded("the peer opens and closes streams too fast")
        if stream.peerAborts:
            # The WindowUpdate of 0 bytes was counted, but now it has an effect.
            self._ignored.giveBack()
        stream.frameCloseStream()

    def _find(self, streamID: int) -> Stream | None:
        stream = self._byID.get(streamID)
        if stream is None:
            self._withoutStream(streamID)
        return stream

    def _withoutStream(self, streamID: int) -> None:
        """
        Handle a frame for a stream that is not open.
        """
        streams = self._streams
        if not streams.wasOpened(streamID):
            self._rules.neverOpened(self, streamID)
        elif streams.isPeers(streamID) and streams.peerSkips:
            self.ignoreNeverOpened(streamID)

    # Frames about the mux

    def keepalive(self, streamID: int, length: int) -> None:
        """
        Keepalive: the peer pings or echoes a ping, if it has announced that.  An echo
        does not count, because the peer cannot send more echoes than it gets pings.
        """
        if length or not self._liveness.heard(streamID):
            self._ignore("keepalives")

    def closeMux(self, streamID: int, length: int) -> None:
        """
        CloseMux: the peer closes the mux.
        """
        self._life.peerCloses()

    # Frames without effect

    def _ignore(self, what: str) -> None:
        """
        Count a frame without effect.

        @param what: what the peer sends, for the error.
        @raise LimitExceeded: if the peer sends too many frames without effect.
        """
        if not self._ignored.take(self._clock.seconds()):
            raise LimitExceeded(f"too many {what}")

    def ignoreFlag(self, flag: int) -> None:
        """
        Count a frame with an unknown flag.
        """
        self._ignore("frames without effect")

    def refuseFlag(self, flag: int) -> None:
        """
        End the mux because of a frame with an unknown flag.
        """
        raise ProtocolViolation(f"a frame has the unknown flags {flag}")

    def ignoreNeverOpened(self, streamID: int) -> None:
        """
        Count a frame for a stream that was never opened.
        """
        self._ignore("frames for streams that were never opened")

    def refuseNeverOpened(self, streamID: int) -> None:
        """
        End the mux because of a frame for a stream that was never opened.
        """
        raise ProtocolViolation(
            f"a frame is for stream {streamID}, which was never opened"
        )


#: What any peer may send.  The reference implementation ignores a length without
#: meaning, so any frame may have a length.
COMPATIBLE = Rules(
    flags={
        Flag.KEEPALIVE: Rule(PeerFrames.keepalive, hasLength=True),
        Flag.OPEN_STREAM: Rule(PeerFrames.openStream, hasLength=True),
        Flag.CLOSE_READ: Rule(PeerFrames.closeRead, hasLength=True),
        Flag.CLOSE_WRITE: Rule(PeerFrames.closeWrite, hasLength=True),
        Flag.CLOSE_STREAM: Rule(PeerFrames.closeStream, hasLength=True),
        Flag.WINDOW_UPDATE: Rule(PeerFrames.windowUpdate, hasLength=True),
        Flag.CLOSE_MUX: Rule(PeerFrames.closeMux, hasLength=True),
    },
    unknownFlag=PeerFrames.ignoreFlag,
    neverOpened=PeerFrames.ignoreNeverOpened,
)

#: What a peer in strict mode may send.
STRICT = Rules(
    flags={
        Flag.KEEPALIVE: Rule(PeerFrames.keepalive, hasLength=False),
        Flag.OPEN_STREAM: Rule(PeerFrames.openStream, hasLength=True),
        Flag.CLOSE_READ: Rule(PeerFrames.closeRead, hasLength=False),
        Flag.CLOSE_WRITE: Rule(PeerFrames.closeWrite, hasLength=False),
        Flag.CLOSE_STREAM: Rule(PeerFrames.closeStream, hasLength=False),
        Flag.WINDOW_UPDATE: Rule(PeerFrames.windowUpdate, hasLength=True),
        Flag.CLOSE_MUX: Rule(PeerFrames.closeMux, hasLength=False),
    },
    unknownFlag=PeerFrames.refuseFlag,
    neverOpened=PeerFrames.refuseNeverOpened,
)
