# -*- test-case-name: gomux.test.mux.test_scheduler -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Who may write to the carrier next.

The scheduler is the one producer on the carrier.  Whenever the carrier has
room it writes a batch of frames: control frames first, then data.  Frames are
sealed only then, so their nonces follow the order on the wire.

Streams with something to send stand in one of two queues.  One that had
nothing to send before joins the I{fresh} queue; once it has had a turn and has
more, or has waited for window, it joins the I{bulk} queue, and there the streams
take turns.  The fresh queue goes first, and in batches of its own, so a small
write does not wait for other streams' megabytes, nor for a frame of them to be
sealed; but for each frame's worth of fresh data there is one of bulk, so many
small writers cannot starve a large one.

One turn is one frame of up to L{MAX_LENGTH} bytes.  A stream with more than
that to send always fills its turn, so turns are fair in bytes: this is deficit
round robin with a quantum of a frame, which leaves no deficit to carry over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from gomux._carrier.turns import TURN_TIME
from gomux._fastpaths import fastPaths
from gomux._wire.crypto import Sealer
from gomux._wire.frame import MAX_LENGTH, OVERHEAD, Flag, sealFrame, sealLastFrame
from gomux.error import GomuxError, LimitExceeded, NonceExhausted

#: How many bytes of frames are written to the carrier at once.  What the
#: carrier has can no longer be overtaken.
BATCH_SIZE = 65536

#: How many control frames are sealed at once, or a few more.
CONTROL_FRAMES = 32

_DATA = int(Flag.DATA)
_CLOSE_STREAM = int(Flag.CLOSE_STREAM)
_WINDOW_UPDATE = int(Flag.WINDOW_UPDATE)

# A control frame that waits: the arguments of Scheduler.control.
_Control = tuple[int, int, int, Callable[[int], None] | None]


class SendingStream(Protocol):
    """
    What the scheduler needs to know of a stream.

    @ivar streamID: the ID that its frames carry.
    @ivar queued: whether it stands in one of the scheduler's queues; for the
        scheduler alone to set.
    """

    streamID: int
    queued: bool

    def sendable(self) -> int:
        """
        @return: how many bytes of data there are, as far as there is window for them.
        """

    def takeOutput(self, size: int) -> bytes | memoryview:
        """
        @param size: at least 1, and no more than is L{sendable}.
        @return: so many bytes of the next data, taken out of the window.
        """

    def outputTaken(self) -> None:
        """
        Data that was taken has been written: the stream may ask for more.
        """


@implementer(IPushProducer)
class Scheduler:
    """
    Writes the frames of one mux to its carrier, in a fair order.

    @ivar bytesSent: how many bytes were written.
    @ivar sentAt: when something was written last; at first, when L{start} was called.
    @ivar paused: whether the carrier has asked not to be written to.
    @ivar stopped: whether nothing will be written any more.
    @ivar _greeting: the C{length} of the greeting, until it is queued; C{None} for no
        greeting.
    """

    def __init__(
        self,
        sealer: Sealer | None,
        write: Callable[[list[bytes]], None],
        wake: Callable[[], None],
        failed: Callable[[GomuxError], None],
        maxRefusals: int,
        seconds: Callable[[], float],
    ) -> None:
        """
        @param sealer: seals all frames of the mux.  Without one nothing is
            written until L{start}.
        @param write: writes pieces of data to the carrier.
        @param wake: called when there is something to write, and must have
            L{pump} called soon after, not before it returns.
        @param failed: called when a frame cannot be sealed: with
            L{NonceExhausted}, once a CloseMux has been written.
        @param maxRefusals: see L{gomux.Limits.maxRefusals}.
        @param seconds: tells the time.
        """
        self._write = write
        self._wake = wake
        self._failed = failed
        self._maxRefusals = maxRefusals
        self._seconds = seconds
        self._control: deque[_Control] = deque()
        self._greeting: int | None = None
        self._refusals: deque[int] = deque()
        self._credits: dict[int, int] = {}
        self._fresh: deque[SendingStream] = deque()
        self._bulk: deque[SendingStream] = deque()
        # How much fresh data went out since the last turn of a bulk stream.
        self._freshBytes = 0
        self._pumping = False
        self._isHeld = False
        paths = fastPaths()
        self._holds = paths.repliesAtOnce
        self._freshFirst = paths.freshFirst
        self._batchSize = BATCH_SIZE if paths.batches else 1
        self._turnTime = TURN_TIME if paths.longTurns else 0.0
        self.stopped = False
        self.paused = sealer is None
        self.bytesSent = 0
        self.sentAt = 0.0
        if sealer is not None:
            self._sealer = sealer

    @property
    def controlQueued(self) -> int:
        """
        How many control frames wait, refusals and credits aside.
        """
        return len(self._control)

    @property
    def idle(self) -> bool:
        """
        Whether there is nothing that could be written now.
        """
        return not (
            self._bulk
            or self._fresh
            or self._control
            or self._refusals
            or self._credits
        )

    def start(self, sealer: Sealer, greeting: int | None = None) -> None:
        """
        Write from now on.

        @param sealer: seals all frames of the mux.
        @param greeting: the C{length} of a Keepalive that goes ahead of all other
            frames; C{None} for no such Keepalive.
        """
        self._sealer = sealer
        self._greeting = greeting
        self.sentAt = self._seconds()
        self.paused = self.stopped
        if not self.idle:
            self._wakeUp()

    def greet(self) -> None:
        """
        Send the greeting, if it has not gone ahead of another frame already.
        """
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
        Send a control frame ahead of all data that is not written yet.

        @param sealed: called when the frame has been sealed, with its nonce's counter.
        """
        if not self.stopped:
            if self._greeting is not None:
                self.greet()
            self._control.append((streamID, flag, length, sealed))
            self._wakeUp()

    def refuse(self, streamID: int) -> None:
        """
        Send CloseStream for a stream that the peer wants and does not get.

        @raise LimitExceeded: if the peer has left too many of these unread.
        """
        if self.stopped:
            return
        if len(self._refusals) >= self._maxRefusals:
            # Perhaps they only wait for the end of what is being received.
            self.pump()
        if len(self._refusals) >= self._maxRefusals:
            raise LimitExceeded(
                "refused streams go on coming, and the refusals are not read"
            )
        self._refusals.append(streamID)
        self._wakeUp()

    def credit(self, streamID: int, size: int) -> None:
        """
        Send credit; what is not sent yet for the same stream is added up.
        """
        if not self.stopped:
            self._credits[streamID] = self._credits.get(streamID, 0) + size
            self._wakeUp()

    def activate(self, stream: SendingStream, fresh: bool = True) -> None:
        """
        A stream may have become L{sendable<SendingStream.sendable>}.

        @param fresh: whether it had nothing to send before, as opposed to no
            window for it.
        """
        if not (stream.queued or self.stopped) and stream.sendable():
            stream.queued = True
            # Who writes more as soon as it has had its turn, while we write,
            # has had more to send all along.
            isFresh = fresh and not self._pumping and self._freshFirst
            (self._fresh if isFresh else self._bulk).append(stream)
            self._wakeUp()

    def forget(self, streamID: int) -> int:
        """
        A stream has ended: its credit is no longer of use.

        @return: how much credit that was.
        """
        return self._credits.pop(streamID, 0)

    def hold(self) -> None:
        """
        Leave everything for L{release}, which the caller calls soon.
        """
        self._isHeld = self._holds

    def release(self) -> None:
        """
        Write what has come together since L{hold}.
        """
        if self._isHeld:
            self._isHeld = False
            if not self.paused:
                self.pump()

    def _wakeUp(self) -> None:
        if not (self._pumping or self._isHeld or self.paused):
            self._wake()

    def pump(self) -> None:
        """
        Write what there is, until the carrier has had enough, or others in the
        reactor have waited for long enough.
        """
        if self._pumping:
            return
        if self.idle:
            return
        self._pumping = True
        until = self._seconds() + self._turnTime
        isBusy = True
        try:
            while isBusy and not self.paused:
                self._writeBatch()
                isBusy = not self.idle
                if isBusy and self._seconds() >= until:
                    break
        except GomuxError as error:
            self._failed(error)
        finally:
            self._pumping = False
        if isBusy:
            self._wakeUp()

    def _writeBatch(self) -> None:
        """
        Write some of what there is, if there is any.
        """
        parts: list[bytes] = []
        served: list[SendingStream] = []
        try:
            if self._addControl(parts, CONTROL_FRAMES):
                self._addData(parts, served)
        except NonceExhausted:
            parts += sealLastFrame(self._sealer)
            self._writeLast(parts)
            raise
        if not parts:
            return
        self.bytesSent += sum(map(len, parts))
        self.sentAt = self._seconds()
        self._write(parts)
        for stream in served:
            stream.outputTaken()
            # Asked only now: its producer may just have given it more.
            if stream.sendable() and not self.stopped:
                self._bulk.append(stream)
            else:
                stream.queued = False

    def _addControl(self, parts: list[bytes], limit: float) -> bool:
        """
        @return: whether these were all.
        """
        sealer = self._sealer
        limit *= 2  # each is two parts
        while self._control and len(parts) < limit:
            streamID, flag, length, sealed = self._control.popleft()
            parts += sealFrame(sealer, streamID, length, flag)
            if sealed is not None:
                sealed(sealer.last)
        while self._refusals and len(parts) < limit:
            parts += sealFrame(sealer, self._refusals.popleft(), 0, _CLOSE_STREAM)
        while self._credits and len(parts) < limit:
            streamID, credit = self._credits.popitem()
            while credit > 0:
                size = min(credit, MAX_LENGTH)
                parts += sealFrame(sealer, streamID, size, _WINDOW_UPDATE)
                credit -= size
        return not (self._control or self._refusals or self._credits)

    def _addData(self, parts: list[bytes], served: list[SendingStream]) -> None:
        """
        Give streams their turns, either fresh ones or bulk ones: what is fresh does
        not wait for bulk to be sealed.

        @param parts: what to add their frames to.
        @param served: what to add the streams to.
        """
        fresh, bulk = self._fresh, self._bulk
        isBulk = bool(bulk) and (not fresh or self._freshBytes >= MAX_LENGTH)
        queue = bulk if isBulk else fresh
        room = self._batchSize
        if bulk and not isBulk:
            room = min(room, MAX_LENGTH - self._freshBytes)
        added = 0
        while queue and added < room:
            stream = queue.popleft()
            size = stream.sendable()
            if not size:
                stream.queued = False
                continue
            if size > MAX_LENGTH:
                size = MAX_LENGTH
            payload = stream.takeOutput(size)
            parts += sealFrame(self._sealer, stream.streamID, size, _DATA, payload)
            self._freshBytes = 0 if isBulk else self._freshBytes + size
            added += OVERHEAD + size
            served.append(stream)

    def finish(self) -> None:
        """
        Write the control frames that wait, room or no room, and nothing after
        them.
        """
        parts: list[bytes] = []
        try:
            self._addControl(parts, float("inf"))
        except NonceExhausted:
            parts += sealLastFrame(self._sealer)
        self._writeLast(parts)

    def _writeLast(self, parts: list[bytes]) -> None:
        self.stop()
        if parts:
            self.bytesSent += sum(map(len, parts))
            self.sentAt = self._seconds()
            self._write(parts)

    def stop(self) -> None:
        """
        Write nothing any more, and let go of everything.
        """
        self.stopped = self.paused = True
        self._control.clear()
        self._refusals.clear()
        self._credits.clear()
        self._fresh.clear()
        self._bulk.clear()

    def checkInvariants(
        self, streamIDs: Collection[int], senders: Iterable[SendingStream]
    ) -> None:
        """
        See whether what waits to be written is consistent.  For tests, while nothing is
        being written.

        @param streamIDs: those of the open streams.
        @param senders: the senders of the open streams, as far as these have one.
        @raise AssertionError: if it is not.
        """
        assert len(self._refusals) <= self._maxRefusals, len(self._refusals)
        assert self._credits.keys() <= set(streamIDs), "credit for no open stream"
        assert all(size > 0 for size in self._credits.values()), self._credits
        if self.stopped:
            assert self.idle and self.paused
            return
        queued = [*self._fresh, *self._bulk]
        assert len(set(queued)) == len(queued), "a stream is queued twice"
        assert all(stream.queued for stream in queued)
        for stream in senders:
            assert stream.queued == (stream in queued), stream
            assert stream.queued or not stream.sendable(), f"{stream} waits for ever"

    # IPushProducer, for the carrier

    def pauseProducing(self) -> None:
        """
        The carrier has as much as it wants for now.
        """
        self.paused = True

    def resumeProducing(self) -> None:
        """
        The carrier wants more.
        """
        if not self.stopped:
            self.paused = False
            self.pump()

    def stopProducing(self) -> None:
        """
        The carrier is about to be lost; what follows from that follows from
        the protocol's C{connectionLost}.
        """
        self.paused = True
