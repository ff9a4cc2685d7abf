# -*- test-case-name: gomux.test.mux.test_receiver -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The reading half of a stream.

The receiver takes the data that the peer sends, as far as it has given the peer
window for it, and delivers it to the protocol of the stream.  While the
application has paused the stream, the data waits, and the peer gets no credit for
it.

The state of a receiver only moves forward:

  - C{OPEN}: the application takes input, and the peer may send it.
  - C{REFUSED}: the application takes no more input.  What the peer still sends is
    dropped, and the peer gets credit for it.
  - C{ENDING}: the peer has finished writing, or the stream has ended, and input
    that came before still waits.
  - C{ENDED}: the peer has finished writing, and no input waits.  Data that comes
    after that is against the protocol.
  - C{CLOSED}: the stream is closing or closed.  What the peer still sends is
    dropped, and the peer gets credit for it.

Input waits only in the states C{OPEN} and C{ENDING}.  When the last of it has been
delivered in the state C{ENDING}, the stream is told so with C{inputEnded}.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import ILoggingContext
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.log import callWithContext

from gomux._fastpaths import fastPaths
from gomux._wire.growth import GrowingWindow
from gomux.error import ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IProtocol

#: Input that waits is joined to pieces of up to this many bytes.
_PIECE_SIZE = 16384


class ReceiveState(IntEnum):
    """
    The state of a L{Receiver}.
    """

    OPEN = 0
    REFUSED = 1
    ENDING = 2
    ENDED = 3
    CLOSED = 4


# Looking a member up in its Enum takes longer than the rest of a call.
_OPEN, _REFUSED, _ENDING, _ENDED, _CLOSED = ReceiveState


def logPrefixOf(application: object) -> str:
    """
    @param application: a protocol or a factory.
    @return: what the log calls it.
    """
    if ILoggingContext.providedBy(application):
        return application.logPrefix()
    return type(application).__name__


class ReceiverMux(Protocol):
    """
    What a receiver needs of the mux.
    """

    def callSoon(self, function: Callable[[], None]) -> None:
        """
        Call a function from the reactor, as soon as it can.
        """

    def consumed(self, stream: ReceiverStream, size: int) -> None:
        """
        The application has taken some of the stream's input, or never will.
        """


class ReceiverStream(Protocol):
    """
    What a receiver needs of its stream.

    @ivar paused: whether the application has paused the stream.
    @ivar receiver: the receiver.
    """

    streamID: int
    paused: bool
    receiver: Receiver | None

    @property
    def protocol(self) -> IProtocol:
        """
        The protocol that the input is for.
        """

    @property
    def streams(self) -> ReceiverMux:
        """
        The streams of the mux, with what they call.
        """

    def inputEnded(self) -> None:
        """
        The peer has finished writing, and all input has been delivered.
        """

    def abortWith(self, reason: BaseException) -> None:
        """
        Abort the stream.
        """

    def applicationFailed(self) -> None:
        """
        The application raised the exception that is being handled.
        """


class Receiver:
    """
    The reading half of one stream: its receive window and its input.

    @ivar state: the L{ReceiveState}.
    @ivar window: what the peer may send.
    @ivar waiting: the input that waits, in order; C{None} while the next input can be
        delivered as soon as it comes.
    @ivar _stream: the stream that this is a half of.
    @ivar _delivering: whether a call that delivers the input that waits is due or
        under way.
    """

    __slots__ = ("state", "window", "waiting", "_stream", "_delivering")

    def __init__(self, stream: ReceiverStream) -> None:
        self.state = _OPEN
        self.window = GrowingWindow()
        self.waiting: list[bytes] | None = None
        self._stream = stream
        self._delivering = False

    def received(self, payload: bytes) -> None:
        """
        The peer sent data.

        @raise ProtocolViolation: if that is more than its window.
        """
        size = len(payload)
        self.window.received(size)
        if self.state is not _OPEN:
            self._receivedUnwanted(size)
        elif self.waiting is not None or self._stream.paused:
            self._keep(payload)
        else:
            self._deliver(payload)

    def _receivedUnwanted(self, size: int) -> None:
        """
        Take data that no application reads.  It is legal after this side's end, and
        the peer must not be left waiting for credit.  After the peer's own end it
        is not legal.
        """
        if self.state is _ENDING or self.state is _ENDED:
            self._stream.abortWith(ProtocolViolation("data came after CloseRead"))
        else:
            self._stream.streams.consumed(self._stream, size)

    def _deliver(self, payload: bytes) -> None:
        stream = self._stream
        try:
            stream.protocol.dataReceived(payload)
        except Exception:
            stream.applicationFailed()
        else:
            stream.streams.consumed(stream, len(payload))

    def _keep(self, payload: bytes) -> None:
        """
        Keep input for later.  Small pieces are joined.
        """
        waiting = self.waiting
        if waiting is None:
            self.waiting = [payload]
        elif waiting and len(waiting[-1]) + len(payload) <= _PIECE_SIZE:
            waiting[-1] += payload
        else:
            waiting.append(payload)

    def resume(self) -> None:
        """
        Deliver the input that waits, from the reactor: the application has resumed
        the stream.
        """
        if not self._delivering and self.waiting is not None:
            self._delivering = True
            self._stream.streams.callSoon(self._deliverWaiting)

    def _deliverWaiting(self) -> None:
        """
        Deliver the input that waits, until the application pauses the stream again,
        and then the end if that has come.
        """
        while self.waiting and not self._stream.paused:
            self._deliver(self.waiting.pop(0))
        self._delivering = False
        if not self.waiting:
            self.waiting = None
            if self.state is _ENDING:
                self._end()

    def finish(self) -> None:
        """
        No more input comes.  Call the stream's C{inputEnded} once what has come is
        delivered: before this returns if no input waits.
        """
        if self.state is _REFUSED:
            self.state = _ENDED
        elif self.state is _OPEN:
            self.state = _ENDING
            if self.waiting is None:
                self._end()

    def _end(self) -> None:
        self.state = _ENDED
        self._stream.inputEnded()

    def refuse(self) -> None:
        """
        The application takes no more input: drop what waits.
        """
        if self.state is _OPEN:
            self.state = _REFUSED
        elif self.state is _ENDING:
            self.state = _ENDED
        self._drop()

    def close(self) -> None:
        """
        The stream is closing: drop the input that waits.
        """
        self.state = _CLOSED
        self._drop()

    def checkInvariants(self) -> None:
        """
        See whether the bookkeeping of the receiver is consistent.  For tests, between
        two events of its mux.

        @raise AssertionError: if it is not.
        """
        self.window.checkInvariants(sum(map(len, self.waiting or ())))
        if self.waiting is not None:
            assert self.state is _OPEN or self.state is _ENDING, "input for nobody"
            assert self._stream.paused or self._delivering, "input that waits for ever"
        else:
            assert self.state is not _ENDING, "an end that nothing delays"

    def _drop(self) -> None:
        """
        Drop the input that waits, and give credit for it: this side's output may
        wait for a peer that waits for that credit.
        """
        waiting, self.waiting = self.waiting, None
        if waiting:
            self._stream.streams.consumed(self._stream, sum(map(len, waiting)))


class PrefixedReceiver(Receiver):
    """
    A receiver that delivers each piece of data in a log context with the prefix of
    the protocol.
    """

    __slots__ = ()

    def _deliver(self, payload: bytes) -> None:
        try:
            context = {"system": logPrefixOf(self._stream.protocol)}
        except Exception:
            self._stream.applicationFailed()
        else:
            callWithContext(context, super()._deliver, payload)


def receiverFor(stream: ReceiverStream) -> Receiver:
    """
    Make the receiver of a stream.  The log calls most protocols by the name of their
    class.  They get no log context: to make one for each piece of data takes a
    microsecond.
    """
    prefix = getattr(type(stream.protocol), "logPrefix", TwistedProtocol.logPrefix)
    isPlain = prefix is TwistedProtocol.logPrefix and fastPaths().sparedContext
    return Receiver(stream) if isPlain else PrefixedReceiver(stream)
