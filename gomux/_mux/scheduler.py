# -*- test-case-name: gomux.test.mux.test_scheduler -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The scheduler of a mux: it decides which frame is sent next.

Theory of operation
===================

The scheduler is the only producer on the carrier.  While the carrier takes data, the
scheduler writes batches of frames: control frames first, then data.  It seals a frame
only when it writes it, so the nonces follow the order on the wire.

A stream with data to send is in one of two queues.  A stream that had nothing to send
before joins the I{fresh} queue.  A stream that has more to send after its turn, or had
to wait for window, joins the I{bulk} queue.  A batch takes data from one queue only.
Fresh data goes first: a small write then waits neither for the megabytes of other
streams nor for the sealing of their frames.  After L{MAX_LENGTH} bytes of fresh data
one batch of bulk data is due, so many small writers cannot starve a large one.

One turn of a stream is one frame of up to L{MAX_LENGTH} bytes, or two if no other
stream waits.  A frame is shorter only if the stream can send no more, so turns are fair
in bytes.  This is deficit round robin with a quantum of one frame, which leaves no
deficit to carry over.

Queued frames are written in one of three ways:

  - The scheduler calls C{wake} when something is queued.  In the next turn of the
    reactor the mux calls L{Scheduler.pump}.
  - The mux calls L{Scheduler.hold} before it handles received frames.  Until
    L{Scheduler.release} the scheduler does not call C{wake}.  C{release} then writes at
    once, so that replies do not wait for another turn.
  - When a blocked carrier takes data again, it calls L{Scheduler.resumeProducing}.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from gomux._carrier.turns import TURN_TIME
from gomux._carrier.watch import CarrierWatch
from gomux._fastpaths import fastPaths
from gomux._mux.controlqueue import ControlQueue
from gomux._mux.sendermux import SendingStream
from gomux._wire.crypto import Sealer
from gomux._wire.frame import MAX_LENGTH, OVERHEAD, Flag
from gomux.error import GomuxError, LimitExceeded, NonceExhausted

#: The size in bytes at which a batch of frames is written to the carrier.  More urgent
#: frames cannot overtake a frame that the carrier already has.
BATCH_SIZE = 65536

#: After this many full frames in a row, a batch of bulk data has twice that size, which
#: takes less CPU time.
#: Lowered: shorter transfers gain.  But small messages wait for a large batch more
#: often, and a window on a long path grows a round trip later.
CALM_FRAMES = 128

#: The number of control frames after which a batch is written.  The last credit of a
#: batch may take a few frames more.
CONTROL_FRAMES = 32

_DATA = int(Flag.DATA)


@implementer(IPushProducer)
class Scheduler:
    """
    Writes the frames of one mux to its carrier, in a fair order.

    @ivar bytesSent: how many bytes were written.
    @ivar sentAt: when the writing began last, or else the time of L{start}, in seconds.
    @ivar paused: whether nothing may be written now: before L{start}, while the carrier
        is blocked, and once C{stopped}.
    @ivar isMute: whether the peer may be a stranger, to whom nothing must be sent.
    @ivar stopped: whether nothing may be written any more.
    @ivar watch: is told when the carrier blocks; the mux sets it.
    @ivar _sealer: seals the frames; set by L{start} at the latest.
    @ivar _write: see L{__init__}.
    @ivar _wake: see L{__init__}.
    @ivar _failed: see L{__init__}.
    @ivar _maxRefusals: how many refusals may wait.
    @ivar _seconds: returns the time, in seconds.
    @ivar _control: the waiting control frames.
    @ivar _greeting: the C{length} of the greeting, until it is queued; C{None} for no
        greeting.
    @ivar _fresh: the streams in the fresh queue.
    @ivar _bulk: the streams in the bulk queue.  An empty deque would take 760 bytes.
    @ivar _queues: all queues, of streams and of control frames.
    @ivar _freshBytes: how many bytes of fresh data were sent since the last bulk frame.
    @ivar _fullFrames: how many frames of data in a row had L{MAX_LENGTH} bytes.
    @ivar _pumping: whether L{pump} is running.
    @ivar _isHeld: whether L{hold} was called, and L{release} not yet.
    @ivar _holds: whether L{hold} has an effect; C{False} only in tests.
    @ivar _freshFirst: whether the fresh queue is used; C{False} only in tests.
    @ivar _batchSize: L{BATCH_SIZE}, or less in tests.
    @ivar _turnTime: how long L{pump} may write before other connections are due their
        turn, in seconds.
    """

    watch: CarrierWatch | None = None

    def __init__(
        self,
        sealer: Sealer | None,
        write: Callable[[list[bytes], int], None],
        wake: Callable[[], None],
        failed: Callable[[GomuxError], None],
        maxRefusals: int,
        seconds: Callable[[], float],
    ) -> None:
        """
        @param sealer: seals all frames of the mux.  With C{None} nothing is written
            before L{start}.
        @param write: writes pieces of data to the carrier; called with them and their
            size.
        @param wake: called when there is something to write.  It must not call
            L{pump} itself, but have it called soon after.
        @param failed: called with L{NonceExhausted} when no nonces are left.  A
            CloseMux was then written as the last frame.
        @param maxRefusals: see L{gomux.Limits.maxRefusals}.
        @param seconds: returns the time, in seconds.
        """
        self._write, self._wake, self._failed = write, wake, failed
        self._maxRefusals, self._seconds = maxRefusals, seconds
        self._control = ControlQueue()
        self._greeting: int | None = None
        self._fresh: list[SendingStream] = []
        self._bulk: list[SendingStream] = []
        control = self._control
        self._queues = (
            *(self._fresh, self._bulk),
            *(control.frames, control.refusals, control.credits),
        )
        self._pumping = self._isHeld = False
        paths = fastPaths()
        self._holds = paths.repliesAtOnce
        self._freshFirst = paths.freshFirst
        self._batchSize = BATCH_SIZE if paths.batches else 1
        self._turnTime = TURN_TIME if paths.longTurns else 0.0
        self.isMute = self.stopped = False
        self.paused = sealer is None
        self.bytesSent = self._freshBytes = self._fullFrames = 0
        self.sentAt = 0.0
        if sealer is not None:
            self._sealer = sealer

    @property
    def controlQueued(self) -> int:
        """How many control frames wait, without refusals and credit."""
        return len(self._control.frames)

    @property
    def idle(self) -> bool:
        """Whether no frames and no streams are queued."""
        return not any(self._queues)

    def start(self, sealer: Sealer, greeting: int | None = None) -> None:
        """
        Begin to write.

        @param sealer: seals all frames of the mux.
        @param greeting: the C{length} of a Keepalive that goes ahead of all other
            frames; C{None} for no such Keepalive.
        """
        if self.stopped:
            return
        self._sealer = sealer
        self._greeting = greeting
        self.sentAt = self._seconds()
        self.paused = False
        if not self.idle:
            self._wakeUp()

    def greet(self) -> None:
        """Send the greeting, if it has not gone ahead of another frame already."""
        greeting, self._greeting = self._greeting, None
        if greeting is not None:
            self.control(0, Flag.KEEPALIVE, greeting)

    def control(
        self,
        streamID: int,
        flag: int,
        length: int = 0,
        sealed: Callable[[int], None] | None = None,
    ) -> None:
        """
        Queue a control frame.  It is sent before all data that is not written yet.

        @param sealed: called when the frame has been sealed, with its nonce's counter.
        """
        if not self.stopped:
            if self._greeting is not None:
                self.greet()
            self._control.frames.append((streamID, flag, length, sealed))
            self._wakeUp()

    def refuse(self, streamID: int) -> None:
        """
        Queue the refusal of a stream that this side does not accept: an abort.  A plain
        CloseStream would look like a complete, empty answer.

        @raise LimitExceeded: if the peer has left too many refusals unread.
        """
        if self.stopped:
            return
        refusals = self._control.refusals
        if len(refusals) >= self._maxRefusals:
            # The refusals may wait only because of hold().
            self.pump()
        if len(refusals) >= self._maxRefusals:
            raise LimitExceeded(
                "the peer goes on opening streams, but does not read the refusals"
            )
        refusals.append(streamID)
        self._wakeUp()

    def credit(self, streamID: int, size: int) -> None:
        """
        Queue credit for a stream.  It is added to the stream's waiting credit.

        @param size: the credit, in bytes.
        """
        if not self.stopped:
            credits = self._control.credits
            credits[streamID] = credits.get(streamID, 0) + size
            self._wakeUp()

    def activate(self, stream: SendingStream, fresh: bool = True) -> None:
        """
        Queue a stream if it has something L{sendable<SendingStream.sendable>}.

        @param fresh: C{True} if the stream had nothing to send before, C{False} if it
            had to wait for window.
        """
        if not (stream.queued or self.stopped) and stream.sendable():
            stream.queued = True
            # A stream that gets more output while the scheduler writes counts as bulk.
            isFresh = fresh and not self._pumping and self._freshFirst
            (self._fresh if isFresh else self._bulk).append(stream)
            self._wakeUp()

    def forget(self, streamID: int) -> int:
        """
        Drop the waiting credit of a stream that has ended.

        @return: the dropped credit, in bytes.
        """
        return self._control.credits.pop(streamID, 0)

    def hold(self) -> None:
        """
        Queue frames without C{wake} from now on.  The caller must call L{release} soon,
        in the same turn of the reactor.
        """
        self._isHeld = self._holds

    def release(self) -> None:
        """End the effect of L{hold}, and write the queued frames."""
        if self._isHeld:
            self._isHeld = False
            self.pump()

    def _wakeUp(self) -> None:
        if not (self._pumping or self._isHeld or self.paused):
            self._wake()

    def pump(self) -> None:
        """
        Write batches until nothing is queued, the carrier is blocked, or other
        connections are due their turn.
        """
        queues = self._queues
        if self._pumping or self.paused or not any(queues):
            return
        self._pumping = True
        self.sentAt = self._seconds()
        until = self.sentAt + self._turnTime
        isBusy = True
        try:
            while isBusy and not self.paused:
                self._writeBatch()
                isBusy = any(queues)
                if isBusy and self._seconds() >= until:
                    break
        except GomuxError as error:
            self._failed(error)
        finally:
            self._pumping = False
        if isBusy:
            self._wakeUp()

    def _writeBatch(self) -> None:
        """Write one batch."""
        parts: list[bytes] = []
        served: list[SendingStream] = []
        control, sealer, size = self._control, self._sealer, 0
        try:
            hasControl = control.frames or control.refusals or control.credits
            if not hasControl or control.seal(sealer, parts, CONTROL_FRAMES):
                size = self._addData(parts, served)
        except NonceExhausted:
            parts += sealer.sealLast(Flag.CLOSE_MUX)
            self._writeLast(parts)
            raise
        if not parts:
            return
        size += len(parts) // 2 * OVERHEAD
        self.bytesSent += size
        self._write(parts, size)
        for stream in served:
            if stream.outputTaken() and not self.stopped:
                self._bulk.append(stream)
            else:
                stream.queued = False

    def _addData(self, parts: list[bytes], served: list[SendingStream]) -> int:
        """
        Give turns to the streams of one queue.

        @param parts: the batch; the frames are added to it.
        @param served: the streams that had a turn are added to it.
        @return: how many bytes of data the frames have.
        """
        queue, room, isBulk = self._fresh, self._batchSize, False
        if self._bulk:
            isBulk = not queue or self._freshBytes >= MAX_LENGTH
            if not isBulk:
                room = min(room, MAX_LENGTH - self._freshBytes)
            else:
                queue = self._bulk
                if self._fullFrames >= CALM_FRAMES:
                    room *= 2
        sealer, added = self._sealer, 0
        while queue and room > 0:
            stream = queue.pop(0)
            size = stream.sendable()
            if not size:
                stream.queued = False
                continue
            served.append(stream)
            while size:
                if size > MAX_LENGTH:
                    size = MAX_LENGTH
                payload = stream.takeOutput(size)
                parts += sealer.seal(stream.streamID, size, _DATA, payload)
                added += size
                room -= OVERHEAD + size
                if size < MAX_LENGTH:
                    self._fullFrames = 0
                    break
                self._fullFrames += 1
                size = 0 if queue or room <= 0 else stream.sendable()
        if added:
            self._freshBytes = 0 if isBulk else self._freshBytes + added
        return added

    def finish(self) -> None:
        """
        Write all waiting control frames and CloseMux, even if the carrier is blocked.
        """
        self.greet()
        parts: list[bytes] = []
        try:
            self._control.seal(self._sealer, parts)
            parts += self._sealer.seal(0, 0, Flag.CLOSE_MUX)
        except NonceExhausted:
            parts += self._sealer.sealLast(Flag.CLOSE_MUX)
        self._writeLast(parts)

    def _writeLast(self, parts: list[bytes]) -> None:
        self.stop()
        size = sum(map(len, parts))
        self.bytesSent += size
        self.sentAt = self._seconds()
        self._write(parts, size)

    def stop(self) -> None:
        """Write nothing any more, and drop everything that is queued, and the keys."""
        self.stopped = self.paused = True
        vars(self).pop("_sealer", None)
        self._control.clear()
        self._fresh.clear()
        self._bulk.clear()

    def checkInvariants(
        self, streamIDs: Collection[int], senders: Iterable[SendingStream]
    ) -> None:
        """
        Check that the queues are consistent.  For tests, outside of L{pump}.

        @param streamIDs: the IDs of the open streams.
        @param senders: the senders of those open streams that have a sender.
        @raise AssertionError: if the queues are not consistent.
        """
        assert len(self._control.refusals) <= self._maxRefusals
        self._control.checkInvariants(streamIDs)
        if self.stopped:
            assert self.idle and self.paused
            return
        queued = [*self._fresh, *self._bulk]
        assert len(set(queued)) == len(queued), "a stream is queued twice"
        assert all(stream.queued for stream in queued)
        for stream in senders:
            assert stream.queued == (stream in queued), stream
            assert stream.queued or not stream.sendable(), f"{stream} waits for ever"

    # IPushProducer, called by the carrier

    def pauseProducing(self) -> None:
        """The carrier is blocked: write nothing."""
        self.paused = True
        if self.watch is not None:
            self.watch.blocked()

    def resumeProducing(self) -> None:
        """The carrier takes data again: write."""
        if not self.stopped:
            self.paused = False
            self.pump()

    def stopProducing(self) -> None:
        """The carrier is about to be lost.  The mux stops the scheduler later."""
        self.paused = True
