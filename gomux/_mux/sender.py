# -*- test-case-name: gomux.test.mux.test_sender -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The writing half of a stream.

The sender keeps the application's output until the scheduler takes it.  The scheduler
takes no more than the send window allows.  The sender pauses the application's producer
when more than L{HIGH_WATER} bytes of output wait, and resumes it when no more than
L{LOW_WATER} bytes are left.  An application that writes on regardless loses its stream:
the write that begins while more than L{Limits.maxOutput<gomux.Limits>} bytes wait ends
it.  So one write may have any size, but output does not grow without bound.

A stream has a sender only while the sender has something to keep: output, a producer,
or the closed state of the writing half.  When the last output is sent on a stream that
is open and has no producer, the sender removes itself from the stream.  The next write
makes a new sender.  So a quiet stream takes little memory.  The send window belongs to
the stream, because it must outlive the sender.

The state of a sender only moves forward:

  - C{OPEN}: the application may write.
  - C{FINISHING}: the application or the mux has asked to close the writing half or the
    whole stream.  The close waits for output, for a pull producer, or for a push
    producer that is paused.  Only the producer may still write.
  - C{CLOSED}: no output waits, and new output is dropped.  Either all output was
    sent, and the sender has called the stream's C{outputFinished}; a push producer that
    was running then is still registered.  Or the output was dropped, and the producer
    was stopped.

L{_Flow} is the state of the producer:

  - C{NONE}: no producer is registered.
  - C{RUNNING}: a push producer may write.
  - C{PAUSED}: a push producer was told to pause.
  - C{PULL}: a pull producer is asked for more each time all output is sent.

The sender sets both states before it calls the producer, because the producer may
write, unregister itself or close the stream at once.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from gomux._wire.frame import MAX_LENGTH

if TYPE_CHECKING:
    from gomux._mux.sendermux import SenderStream

#: The producer is paused when more than this many bytes of output wait.
HIGH_WATER = 65536
#: The producer is resumed when this many bytes of output or fewer wait.
LOW_WATER = 32768
#: So many bytes of output may wait uncounted, in addition to those that are counted in
#: the mux's account.
FREE_OUTPUT = 2048
#: The most memory that stays taken for output that was sent, in bytes, until no output
#: waits.  A producer that is paused and resumed then takes no memory each time.
MOST_SURPLUS = 2 * HIGH_WATER
#: Small pieces of output are joined to pieces of up to this many bytes, because a piece
#: takes 50 bytes more than its data.
JOINED = 1024
#: With a smaller send window, in bytes, the sender waits for more credit, unless all
#: output fits into the window.  So a peer that gives credit in small pieces gets fewer
#: frames.  Every peer gives that much credit, because a Go sender waits for it too.
ENOUGH_WINDOW = MAX_LENGTH


class SendState(IntEnum):
    """
    The state of a L{Sender}.
    """

    OPEN = 0
    FINISHING = 1
    CLOSED = 2


class _Flow(IntEnum):
    """
    The state of a L{Sender}'s producer.
    """

    NONE = 0
    RUNNING = 1
    PAUSED = 2
    PULL = 3


# A look-up in an Enum would take longer than the rest of a call.
_OPEN, _FINISHING, _CLOSED = SendState
_NONE, _RUNNING, _PAUSED, _PULL = _Flow


class Sender:
    """
    The writing half of one stream: its output and its producer.

    The application writes pieces of any size, and the scheduler takes pieces of other
    sizes.  The sender copies output only if it must join several written pieces.

    @ivar streamID: the ID in the stream's frames, for the scheduler.
    @ivar queued: whether the sender is in one of the scheduler's queues.  Only the
        scheduler sets it.
    @ivar state: the L{SendState}.
    @ivar unsent: how many bytes of output wait.
    @ivar _stream: the stream.
    @ivar _pieces: the waiting output, as it was written.  C{None} if there is none,
        because an empty C{deque} takes as much memory as ten streams.
    @ivar charged: for how many bytes of output memory is taken.
    @ivar _mark: a write that leaves more than this many bytes waiting calls
        L{_passedMark}.
    @ivar _producer: the registered producer; C{None} if there is none.
    @ivar _flow: the state of the producer.
    """

    __slots__ = (
        "streamID",
        "queued",
        "state",
        "unsent",
        "_stream",
        "_pieces",
        "charged",
        "_mark",
        "_producer",
        "_flow",
    )

    def __init__(self, stream: SenderStream) -> None:
        self.streamID = stream.streamID
        self.queued = False
        self.state = _OPEN
        self.unsent = 0
        self._stream = stream
        self._pieces: deque[bytes | memoryview] | None = None
        self.charged = 0
        self._mark = FREE_OUTPUT
        self._producer: Any = None
        self._flow = _NONE

    # Called by the stream

    @property
    def producer(self) -> tuple[Any, bool] | None:
        """
        The registered producer and whether it is a push producer; C{None} without one.
        """
        if self._flow is _NONE:
            return None
        return self._producer, self._flow is not _PULL

    def write(self, data: bytes) -> None:
        """
        Add output, or drop it if the state does not allow more.

        @param data: at least one byte.
        """
        if self.state is not _OPEN and (self.state is _CLOSED or self._flow is _NONE):
            return
        size = len(data)
        pieces = self._pieces
        fresh = pieces is None
        if pieces is None:
            pieces = self._pieces = deque()
            self._stream.touched = True
            pieces.append(data)
        elif size < JOINED and pieces and len(pieces[-1]) + size <= JOINED:
            pieces[-1] = b"".join((pieces[-1], data))
        else:
            pieces.append(data)
        self.unsent += size
        if self.unsent > self._mark:
            self._passedMark(size)
        if not self.queued:
            self._stream.streams.activate(self, fresh)

    def _passedMark(self, size: int) -> None:
        """
        Take memory for the output that waits.  If more than L{HIGH_WATER} bytes wait,
        pause the producer.  If that has not helped before, have the stream end.

        @param size: the size of the newest output.
        """
        if self.unsent - size > self._stream.streams.maxOutput:
            self._stream.streams.outputExceeded(self._stream)
            return
        if self.unsent > self.charged:
            self._charge(self.unsent)
        if self.unsent > HIGH_WATER:
            self._pauseProducer()

    def _charge(self, size: int) -> None:
        """
        Take memory for some bytes of output, instead of those before.
        """
        more = size - self.charged
        self.charged = size
        self._mark = min(size + FREE_OUTPUT, HIGH_WATER)
        self._stream.streams.charge(more)

    def finish(self) -> None:
        """
        Close the sender once all output is sent, and call the stream's
        C{outputFinished}.  With nothing to wait for this happens before C{finish}
        returns.
        """
        if self.state is _OPEN:
            self.state = _FINISHING
        self._closeIfFinished()

    def _closeIfFinished(self) -> None:
        """
        Close the sender if it is C{FINISHING} and has nothing to wait for any more.
        """
        if self.state is not _FINISHING or self.unsent:
            return
        if self._flow is _NONE or self._flow is _RUNNING:
            self.state = _CLOSED
            self._pieces = None
            self._stream.outputFinished()

    def close(self) -> None:
        """
        Close the sender at once: drop its output and stop its producer.
        """
        self.state = _CLOSED
        self.unsent = 0
        self._pieces = None
        if self.charged:
            self._charge(0)
        producer = self._producer
        self._forgetProducer()
        if producer is not None:
            try:
                producer.stopProducing()
            except BaseException:
                self._stream.streams.logFailure("a producer's stopProducing failed")

    def windowGrew(self) -> None:
        """
        The peer has given credit: queue the sender if its output waited for window.
        """
        if self.unsent and not self.queued:
            self._stream.streams.activate(self, False)

    def checkInvariants(self) -> None:
        """
        Check that the sender's state is consistent.  For tests, between two events of
        its mux.

        @raise AssertionError: if the state is not consistent.
        """
        pieces = self._pieces
        assert (pieces is None) == (not self.unsent), "memory for no output"
        if pieces is not None:
            assert self.unsent == sum(map(len, pieces))
        surplus = self.charged - self.unsent
        assert -FREE_OUTPUT <= surplus <= MOST_SURPLUS, surplus
        assert (self._producer is None) == (self._flow is _NONE)
        if self.state is _FINISHING:
            assert self.unsent or self._flow is not _NONE, "an end that nothing delays"
        elif self.state is _CLOSED:
            assert not self.unsent, "output that cannot be sent"
            assert self._flow is _NONE or self._flow is _RUNNING

    # The producer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Register a producer, to be paused and resumed as output is sent.  If the sender
        is closed, stop the producer instead.

        @raise RuntimeError: if a producer is registered already.
        """
        if self._flow is not _NONE:
            raise RuntimeError(
                f"Cannot register producer {producer}, because producer "
                f"{self._producer} was never unregistered."
            )
        if self.state is _CLOSED:
            producer.stopProducing()
            return
        self._producer = producer
        if not streaming:
            self._flow = _PULL
            if not self.unsent:
                producer.resumeProducing()
            return
        self._flow = _RUNNING
        if self.unsent > HIGH_WATER:
            # Not at once: TLS registers its producer before the producer can be paused.
            self._stream.streams.callSoon(self._pauseProducer)

    def unregisterProducer(self) -> None:
        """
        Forget the producer.  If the close waited only for it, close the sender.
        """
        self._forgetProducer()
        self._closeIfFinished()

    def _forgetProducer(self) -> None:
        self._producer = None
        self._flow = _NONE

    def _pauseProducer(self) -> None:
        """
        Pause a running push producer if too much output waits.
        """
        if self._flow is _RUNNING and self.unsent > HIGH_WATER:
            self._flow = _PAUSED
            try:
                self._producer.pauseProducing()
            except BaseException:
                self._stream.applicationFailed()

    def _resumeProducer(self) -> None:
        """
        Ask a paused push producer for more output, or a pull producer once all output
        is sent.  The producer may still write before the sender is closed.
        """
        if self._flow is _RUNNING:
            self._closeIfFinished()
            return
        if self._flow is _PAUSED:
            self._flow = _RUNNING
        elif self.unsent:
            return
        try:
            self._producer.resumeProducing()
        except BaseException:
            # The scheduler is writing: the exception must not end the mux.
            self._stream.applicationFailed()
        if self.state is _FINISHING:
            self._stream.streams.callSoon(self._closeIfFinished)

    # Called by the scheduler

    def sendable(self) -> int:
        """
        @return: how many bytes of output may be sent now: all if they fit into the send
            window, else the size of the window, or 0 if that is less than
            L{ENOUGH_WINDOW}.
        """
        size = self.unsent
        window = self._stream.sendWindow
        if size <= window:
            return size
        return window if window >= ENOUGH_WINDOW else 0

    def takeOutput(self, size: int) -> bytes | memoryview:
        """
        Remove output from the sender, and its size from the send window.

        @param size: the number of bytes, from 1 to L{sendable}.
        @return: the output.
        """
        self._stream.sendWindow -= size
        self.unsent -= size
        pieces = self._pieces
        assert pieces is not None, "there is output"
        parts = []
        piece = pieces.popleft()
        while len(piece) < size:
            parts.append(piece)
            size -= len(piece)
            piece = pieces.popleft()
        if len(piece) > size:
            view = memoryview(piece)
            pieces.appendleft(view[size:])
            piece = view[:size]
        return b"".join((*parts, piece)) if parts else piece

    def outputTaken(self) -> int:
        """
        The output taken last has been written.  Ask the producer for more, close the
        sender, or remove it from the stream if it has nothing to keep.

        @return: as L{sendable}.
        """
        unsent = self.unsent
        if self._flow is not _NONE:
            if not unsent:
                self._pieces = None
            isQuiet = self._flow is _RUNNING and self.state is _OPEN
            if unsent <= LOW_WATER and not isQuiet:
                self._resumeProducer()
                unsent = self.unsent
        elif not unsent:
            if self.state is _OPEN:
                self._stream.sender = None
            else:
                self._closeIfFinished()
        # Not earlier: the producer may have used the memory again.
        if self.charged and (not unsent or self.charged - unsent > MOST_SURPLUS):
            self._charge(unsent)
        return unsent and self.sendable()
