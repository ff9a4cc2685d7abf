# -*- test-case-name: gomux.test.mux.test_sender -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The writing half of a stream.

The sender keeps what the application writes until the scheduler takes it.  The
scheduler takes no more than the peer has given window for.  What the application
writes above L{HIGH_WATER} pauses its producer, and the producer is resumed when
no more than L{LOW_WATER} is left.

A stream has a sender while there is something to keep: output, a producer, or the end
of the writing half.  When the last output has been sent on a stream that is open
and has no producer, the sender takes itself off the stream, and the next write makes
a new one.  So a stream costs little while it is quiet.  The send window outlives
the sender, and belongs to the stream.

The state of a sender only moves forward:

  - C{OPEN}: the application may write.
  - C{FINISHING}: the application has asked for the end of the writing half or of
    the whole stream, and something is still ahead of that end: output that waits,
    a pull producer, or a push producer that is paused.  Only a producer may
    still write.
  - C{CLOSED}: nothing can be written, nothing waits, and there is no producer that
    could be paused.  Either all output was sent, and the stream was told so with
    C{outputFinished}, or the output that waited was dropped.

What the producer does is L{_Flow}.  A sender has a producer in all states of that
but C{NONE}:

  - C{NONE}: there is no producer.
  - C{RUNNING}: a push producer may write.
  - C{PAUSED}: a push producer was told to pause.
  - C{PULL}: a pull producer is asked for more each time all output is sent.

The application's producer is only called with these states already set: it may
write, unregister itself or close the stream at once.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import Logger

from gomux._fastpaths import FastPaths, fastPaths
from gomux._wire.frame import MAX_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable

#: With more bytes of output than this the producer is paused.
HIGH_WATER = 65536
#: With this many bytes of output or fewer the producer is resumed.
LOW_WATER = 32768
#: With less window than this the sender waits for more credit, unless the window
#: has room for all of its output.  A Go peer gives credit for each read of its
#: application; without the wait such a reader would get two frames where one would do.
#: The wait ends: a window is twice as large, and no peer may hold back more than
#: C{MAX_LENGTH} consumed bytes, because a Go sender waits for as much.
ENOUGH_WINDOW = MAX_LENGTH

_log = Logger()


class SendState(IntEnum):
    """
    The state of a L{Sender}.
    """

    OPEN = 0
    FINISHING = 1
    CLOSED = 2


class _Flow(IntEnum):
    """
    What the producer of a L{Sender} does.
    """

    NONE = 0
    RUNNING = 1
    PAUSED = 2
    PULL = 3


# Looking a member up in its Enum takes longer than the rest of a call.
_OPEN, _FINISHING, _CLOSED = SendState
_NONE, _RUNNING, _PAUSED, _PULL = _Flow


class SenderMux(Protocol):
    """
    What a sender needs of the mux.

    @ivar makeSender: makes the sender of a stream.
    """

    makeSender: Callable[[SenderStream], Sender]

    def callSoon(self, function: Callable[[], None]) -> None:
        """
        Call a function from the reactor, as soon as it can.
        """

    def activate(self, sender: Sender, fresh: bool) -> None:
        """
        The sender may have become able to send.

        @param fresh: whether it had nothing to send before.
        """


class SenderStream(Protocol):
    """
    What a sender needs of its stream.

    @ivar sendWindow: how many bytes the peer lets the stream send.
    @ivar touched: whether anything was ever written to the stream.
    @ivar sender: the sender.
    """

    streamID: int
    sendWindow: int
    touched: bool
    sender: Sender | None

    @property
    def streams(self) -> SenderMux:
        """
        The streams of the mux, with what they call.
        """

    def outputFinished(self) -> None:
        """
        L{Sender.finish} was called, and all output is sent.
        """

    def applicationFailed(self) -> None:
        """
        The application raised the exception that is being handled.
        """


class Sender:
    """
    The writing half of one stream: its output and its producer.

    Output is written in pieces of one size and taken in pieces of another.  It is
    copied only where a piece that is taken is made of several that were written.

    @ivar streamID: the ID that the frames carry; for the scheduler.
    @ivar queued: whether the scheduler has the sender in a queue; for the scheduler
        alone to set.
    @ivar state: the L{SendState}.
    @ivar unsent: how many bytes of output wait.
    @ivar _stream: the stream that this is a half of.
    @ivar _pieces: the output that waits, as it was written; C{None} while there is
        none, because an empty C{deque} takes as much memory as ten streams.
    @ivar _offset: how many bytes of the first piece were taken.
    @ivar _producer: the registered producer, if any.
    @ivar _flow: what that does.
    """

    __slots__ = (
        "streamID",
        "queued",
        "state",
        "unsent",
        "_stream",
        "_pieces",
        "_offset",
        "_producer",
        "_flow",
    )

    def __init__(self, stream: SenderStream) -> None:
        self.streamID = stream.streamID
        self.queued = False
        self.state = _OPEN
        self.unsent = 0
        self._stream = stream
        self._pieces: deque[bytes] | None = None
        self._offset = 0
        self._producer: Any = None
        self._flow = _NONE

    # For the stream

    @property
    def producer(self) -> tuple[Any, bool] | None:
        """
        The registered producer, if any, and whether it is a push producer.
        """
        if self._flow is _NONE:
            return None
        return self._producer, self._flow is not _PULL

    def write(self, data: bytes) -> None:
        """
        Add output at the end, or drop it once there may be no more.

        @param data: at least one byte.
        """
        if self.state is not _OPEN and (self.state is _CLOSED or self._flow is _NONE):
            return
        pieces = self._pieces
        fresh = pieces is None
        if pieces is None:
            pieces = self._pieces = deque()
            self._stream.touched = True
        pieces.append(data)
        self.unsent += len(data)
        if self.unsent > HIGH_WATER:
            self._pauseProducer()
        if not self.queued:
            self._stream.streams.activate(self, fresh)

    def finish(self) -> None:
        """
        Close the sender once all output is sent, and then call the stream's
        C{outputFinished}: before this returns if there is nothing to wait for.
        """
        if self.state is _OPEN:
            self.state = _FINISHING
        self._closeIfFinished()

    def _closeIfFinished(self) -> None:
        """
        Do what L{finish} promised, unless something is still ahead of that.
        """
        if self.state is not _FINISHING or self.unsent:
            return
        if self._flow is _NONE or self._flow is _RUNNING:
            self.state = _CLOSED
            self._pieces = None
            self._stream.outputFinished()

    def close(self) -> None:
        """
        Drop the output that waits, and stop the producer.
        """
        self.state = _CLOSED
        self.unsent = 0
        self._pieces = None
        producer = self._producer
        self._forgetProducer()
        if producer is not None:
            try:
                producer.stopProducing()
            except Exception:
                _log.failure("a producer's stopProducing failed")

    def windowGrew(self) -> None:
        """
        The peer has given credit: go on with the output that waits for it.
        """
        if self.unsent and not self.queued:
            self._stream.streams.activate(self, False)

    def checkInvariants(self) -> None:
        """
        See whether the bookkeeping of the sender is consistent.  For tests, between two
        events of its mux.

        @raise AssertionError: if it is not.
        """
        pieces = self._pieces
        assert (pieces is None) == (not self.unsent), "memory for no output"
        if pieces is not None:
            assert self.unsent == sum(map(len, pieces)) - self._offset
        assert (self._producer is None) == (self._flow is _NONE)
        if self.state is _FINISHING:
            assert self.unsent or self._flow is not _NONE, "an end that nothing delays"
        elif self.state is _CLOSED:
            assert not self.unsent, "output that cannot be sent"
            assert self._flow is _NONE or self._flow is _RUNNING

    # The producer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Have a producer paused and resumed as output goes, or stop it if there may
        be no more output.

        @raise RuntimeError: if there is one already.
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
            # Not at once: TLS registers a producer before it is ready for this.
            self._stream.streams.callSoon(self._pauseProducer)

    def unregisterProducer(self) -> None:
        """
        Forget the producer.  An end that has waited for it waits no longer.
        """
        self._forgetProducer()
        self._closeIfFinished()

    def _forgetProducer(self) -> None:
        self._producer = None
        self._flow = _NONE

    def _pauseProducer(self) -> None:
        """
        Pause a push producer that runs while too much output waits.
        """
        if self._flow is _RUNNING and self.unsent > HIGH_WATER:
            self._flow = _PAUSED
            try:
                self._producer.pauseProducing()
            except Exception:
                self._stream.applicationFailed()

    def _resumeProducer(self) -> None:
        """
        Ask the producer for more, if it waits to be asked, and give it the chance
        to write ahead of the end.
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
        except Exception:
            # Not an error of the mux, which calls this while it writes.
            self._stream.applicationFailed()
        if self.state is _FINISHING:
            self._stream.streams.callSoon(self._closeIfFinished)

    # For the scheduler

    def sendable(self) -> int:
        """
        @return: how many bytes of output there are, as far as there is window for
            them; 0 if the window has room neither for all nor for enough of them.
        """
        size = self.unsent
        window = self._stream.sendWindow
        if size <= window:
            return size
        return window if window >= ENOUGH_WINDOW else 0

    def takeOutput(self, size: int) -> bytes | memoryview:
        """
        @param size: at least 1, and no more than is L{sendable}.
        @return: so many bytes from the start of the output, taken out of the window.
        """
        self._stream.sendWindow -= size
        self.unsent -= size
        pieces = self._pieces
        assert pieces is not None, "there is output"
        offset = self._offset
        first = pieces[0]
        if len(first) == size and not offset:
            pieces.popleft()
            return first
        if len(first) - offset > size:
            self._offset = offset + size
            return memoryview(first)[offset : offset + size]
        parts: list[bytes | memoryview] = []
        while size:
            part = memoryview(pieces[0])[offset : offset + size]
            parts.append(part)
            size -= len(part)
            offset += len(part)
            if offset == len(pieces[0]):
                pieces.popleft()
                offset = 0
        self._offset = offset
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def outputTaken(self) -> None:
        """
        The output that was taken has been written: go on with what has waited for
        that.
        """
        unsent = self.unsent
        if self._flow is not _NONE:
            if not unsent:
                self._pieces = None
            if unsent <= LOW_WATER:
                self._resumeProducer()
        elif not unsent:
            if self.state is _OPEN:
                self._stream.sender = None
            else:
                self._closeIfFinished()


class PlainSender(Sender):
    """
    A sender without its fast paths: it copies what is taken, or stays when it has
    nothing to keep.

    @ivar _paths: the fast paths that are on.
    """

    __slots__ = ("_paths",)

    def __init__(self, paths: FastPaths, stream: SenderStream) -> None:
        super().__init__(stream)
        self._paths = paths

    def takeOutput(self, size: int) -> bytes | memoryview:
        taken = super().takeOutput(size)
        return taken if self._paths.outputInPlace else bytes(bytearray(taken))

    def outputTaken(self) -> None:
        stream = self._stream
        super().outputTaken()
        isGone = stream.sender is None and self.state is _OPEN
        if isGone and not self._paths.shortSenders:
            stream.sender = self
            self._pieces = None


def senderMaker() -> Callable[[SenderStream], Sender]:
    """
    @return: makes the senders of the streams of a mux.
    """
    paths = fastPaths()
    if paths.outputInPlace and paths.shortSenders:
        return Sender
    return partial(PlainSender, paths)
