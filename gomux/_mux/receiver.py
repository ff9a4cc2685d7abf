# -*- test-case-name: gomux.test.mux.test_receiver -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The reading half of a stream.

The receiver takes the data that the peer sends, and delivers it to the stream's
protocol.  The peer may not send more than the receive window allows.  While the
application has paused the stream, the receiver keeps the data, and gives the peer no
credit for it.

The state of a receiver only moves forward:

  - C{OPEN}: the application takes input, and the peer may send it.
  - C{REFUSED}: the application takes no more input.  Data from the peer is dropped, and
    the peer gets credit for it.
  - C{ENDING}: the peer has finished writing, or the stream has ended.  Input received
    before that still waits.
  - C{ENDED}: the peer has finished writing, and no input waits.  Data from the peer is
    now a violation of the protocol.
  - C{CLOSED}: the stream is closing or closed.  Data from the peer is dropped, and the
    peer gets credit for it.

Input waits only in the states C{OPEN} and C{ENDING}.  When the receiver has delivered
the last input in C{ENDING}, it calls the stream's C{inputEnded}.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from twisted.python.context import call
from twisted.python.log import ILogContext

from gomux._fastpaths import fastPaths
from gomux._mux.log import logContextOf, logPrefixOf
from gomux._wire.growth import GrowingWindow
from gomux.error import ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IProtocol

#: Small pieces of waiting input are joined to pieces of up to this many bytes.
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


# A look-up in an Enum would take longer than the rest of a call.
_OPEN, _REFUSED, _ENDING, _ENDED, _CLOSED = ReceiveState


class ReceiverMux(Protocol):
    """
    The part of the mux that a receiver uses.
    """

    def callSoon(self, function: Callable[[], None]) -> None:
        """
        Call a function in the next turn of the reactor.
        """

    def charge(self, size: int) -> None:
        """
        Take memory for input that waits, or give it back.

        @param size: how many bytes; less than 0 to give them back.
        """

    def consumed(self, stream: ReceiverStream, size: int) -> None:
        """
        Input of the stream was delivered or dropped: give the peer credit for it.

        @param size: the number of bytes.
        """


class ReceiverStream(Protocol):
    """
    The part of the stream that its receiver uses.

    @ivar streamID: the stream's ID on the wire.
    @ivar paused: whether the application has paused the stream.
    @ivar receiver: the receiver.
    """

    streamID: int
    paused: bool
    receiver: Receiver | None

    @property
    def protocol(self) -> IProtocol:
        """
        The protocol that gets the input.
        """

    @property
    def streams(self) -> ReceiverMux:
        """
        The mux, as its streams call it.
        """

    def inputEnded(self) -> None:
        """
        The peer has finished writing or the stream has ended, and all input has been
        delivered.
        """

    def abortWith(self, reason: BaseException) -> None:
        """
        Abort the stream.

        @param reason: the reason for C{connectionLost}.
        """

    def applicationFailed(self) -> None:
        """
        The application has raised an exception.  Called in the C{except} block.
        """


class Receiver:
    """
    The reading half of one stream: its receive window and its input.

    @ivar state: the L{ReceiveState}.
    @ivar window: the receive window: how much the peer may send.
    @ivar waiting: the waiting input, in order; C{None} if none waits.  An empty list
        while the last waiting input is being delivered.
    @ivar _stream: the stream.
    @ivar _context: the log context in which the protocol gets data; C{None} for none.
    @ivar _delivering: whether L{_deliverWaiting} is due in the next turn, or running.
    """

    __slots__ = ("state", "window", "waiting", "_stream", "_context", "_delivering")

    def __init__(
        self, stream: ReceiverStream, window: GrowingWindow | None = None
    ) -> None:
        """
        @param stream: the stream.
        @param window: the receive window; by default that of a new stream.
        """
        self.state = _OPEN
        self.window = GrowingWindow() if window is None else window
        self.waiting: list[bytes] | None = None
        self._stream = stream
        self._delivering = False
        try:
            self._context = logContextOf(stream.protocol)
        except BaseException:
            self._context = None
            stream.applicationFailed()

    def received(self, payload: bytes) -> None:
        """
        Take data from the peer.

        @raise ProtocolViolation: if the data exceeds the receive window.
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
        Drop data that the application does not read.  If the peer had finished writing,
        the data is a violation.  Otherwise it is legal, and the peer gets credit for
        it, because the peer may be waiting for credit.
        """
        if self.state is _ENDING or self.state is _ENDED:
            self._stream.abortWith(ProtocolViolation("data came after CloseRead"))
        else:
            self._stream.streams.consumed(self._stream, size)

    def _deliver(self, payload: bytes) -> None:
        stream = self._stream
        try:
            if self._context is None:
                stream.protocol.dataReceived(payload)
            else:
                call(self._context, stream.protocol.dataReceived, payload)
        except BaseException:
            stream.applicationFailed()
        else:
            stream.streams.consumed(stream, len(payload))

    def _keep(self, payload: bytes) -> None:
        """
        Let input wait.  Join small pieces.
        """
        self._stream.streams.charge(len(payload))
        waiting = self.waiting
        if waiting is None:
            self.waiting = [payload]
        elif waiting and len(waiting[-1]) + len(payload) <= _PIECE_SIZE:
            waiting[-1] += payload
        else:
            waiting.append(payload)

    def resume(self) -> None:
        """
        The application has resumed the stream: deliver the waiting input in the next
        turn of the reactor.
        """
        if not self._delivering and self.waiting is not None:
            self._delivering = True
            self._stream.streams.callSoon(self._deliverWaiting)

    def _deliverWaiting(self) -> None:
        """
        Deliver the waiting input until the application pauses the stream again.  If no
        input is left in C{ENDING}, report the end.
        """
        while self.waiting and not self._stream.paused:
            piece = self.waiting.pop(0)
            self._stream.streams.charge(-len(piece))
            self._deliver(piece)
        self._delivering = False
        if not self.waiting:
            self.waiting = None
            if self.state is _ENDING:
                self._end()

    def finish(self) -> None:
        """
        The peer sends no more input.  Call the stream's C{inputEnded} once the waiting
        input is delivered.  If no input waits, that happens before C{finish} returns.
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
        The application takes no more input: drop the waiting input.
        """
        if self.state is _OPEN:
            self.state = _REFUSED
        elif self.state is _ENDING:
            self.state = _ENDED
        self._drop()

    def close(self) -> None:
        """
        The stream is closing: drop the waiting input.
        """
        self.state = _CLOSED
        self._drop()

    def checkInvariants(self) -> None:
        """
        Check that the receiver's state is consistent.  For tests, between two events of
        its mux.

        @raise AssertionError: if the state is not consistent.
        """
        self.window.checkInvariants(sum(map(len, self.waiting or ())))
        if self.waiting is not None:
            assert self.state is _OPEN or self.state is _ENDING, "input for nobody"
            assert self._stream.paused or self._delivering, "input that waits for ever"
        else:
            assert self.state is not _ENDING, "an end that nothing delays"

    def _drop(self) -> None:
        """
        Drop the waiting input, and give the peer credit for it.  Without that credit
        the peer might never read the output of this side.
        """
        waiting, self.waiting = self.waiting, None
        if waiting:
            size = sum(map(len, waiting))
            self._stream.streams.charge(-size)
            self._stream.streams.consumed(self._stream, size)


class PlainReceiver(Receiver):
    """
    A receiver without its fast path: it makes the log context for each piece of data.
    """

    __slots__ = ()

    def _deliver(self, payload: bytes) -> None:
        context = {"isError": 0, "system": logPrefixOf(self._stream.protocol)}
        self._context = {ILogContext: context}
        super()._deliver(payload)


def receiverFor(
    stream: ReceiverStream, window: GrowingWindow | None = None
) -> Receiver:
    """
    Make the receiver of a stream.

    @param window: the receive window; by default that of a new stream.
    """
    kind = Receiver if fastPaths().sparedContext else PlainReceiver
    return kind(stream, window)
