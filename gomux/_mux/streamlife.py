# -*- test-case-name: gomux.test.mux.test_stream_ends -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The life of a stream, from its start to its C{connectionLost}.

A stream has two halves: a L{Sender} for the output and a L{Receiver} for the input,
each with states of its own.  A half is made when it is needed.  A stream without one
is open in that direction: without a sender no output waits, and without a receiver
no input has come.  What concerns both halves, or the protocol, is decided here.

The life of the whole stream only moves forward:

  - C{LIVE}: the stream is open, perhaps in one direction only.
  - C{CLOSING}: the application, or the mux, has closed the stream.  There is no more
    input.  CloseStream waits for output, or for a producer that may have some: there
    is a sender, and it is C{FINISHING}.
  - C{DONE}: nothing is sent or received any more, and the mux has forgotten the
    stream.  Only C{connectionLost} is due: soon, or after the input that waits.
  - C{LOST}: the protocol has had its C{connectionLost}.  The halves are gone.

A half says when it has come to its end: the sender with C{outputFinished}, the
receiver with C{inputEnded}.  What follows depends on the life of the stream.

The application is not called from inside a call that it makes: what follows from
such a call is called from the reactor.

On the wire there is one frame for the end of a stream, CloseStream, whether the end
is orderly or not.  So the side that aborts a stream sends a WindowUpdate of 0 bytes
before that.  No other implementation sends one, and it has no effect on a peer that
does not know this rule.  CloseWrite would not do: a Go application that has read all
of its input may well send that too, then the rest of its answer, and then
CloseStream.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol, cast

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from gomux._mux.receiver import Receiver, ReceiverMux, ReceiveState, receiverFor
from gomux._mux.sender import Sender, SenderMux, SendState
from gomux._wire.frame import Flag
from gomux._wire.growth import GrowingWindow
from gomux._wire.window import INITIAL_WINDOW, WINDOW_END, credited
from gomux.error import (
    ConnectionClosed,
    PeerAbortedStream,
    PeerClosedStream,
    StreamClosed,
)

_log = Logger()


class LifeState(IntEnum):
    """
    The state of a whole stream.
    """

    LIVE = 0
    CLOSING = 1
    DONE = 2
    LOST = 3


# Looking a member up in its Enum takes longer than the rest of a call.
_LIVE, _CLOSING, _DONE, _LOST = LifeState


class LifeMux(SenderMux, ReceiverMux, Protocol):
    """
    What the life of a stream needs of the mux.
    """

    def sendControl(self, streamID: int, flag: int) -> None:
        """
        Send a control frame.
        """

    def streamEnded(self, stream: StreamLife) -> None:
        """
        Nothing is sent or received for the stream any more.
        """

    def streamLost(self, stream: StreamLife) -> None:
        """
        The stream's protocol has had its C{connectionLost}.
        """


class StreamLife:
    """
    A stream without what its application calls.

    @ivar streamID: the stream's ID on the wire.
    @ivar streams: the streams of the mux, with what they call: a
        L{Streams<gomux._mux.streams.Streams>}.
    @ivar protocol: what the stream is the transport of.
    @ivar sender: the writing half; C{None} while it has nothing to keep.
    @ivar receiver: the reading half; C{None} until it is needed.
    @ivar sendWindow: how many bytes the peer lets the stream send.
    @ivar life: the L{LifeState}.
    @ivar paused: whether the application wants no input for now.
    @ivar touched: whether anything was ever written to the stream.
    @ivar peerAborts: whether the peer has said that the end to come is an abort; for
        the mux to set.
    @ivar _reason: what C{connectionLost} will say; C{None} while the stream is live.
    """

    __slots__ = (
        "streamID",
        "streams",
        "protocol",
        "sender",
        "receiver",
        "sendWindow",
        "life",
        "paused",
        "touched",
        "peerAborts",
        "_reason",
    )

    protocol: IProtocol

    def __init__(self, streams: LifeMux, streamID: int) -> None:
        self.streamID = streamID
        self.streams = streams
        # Made when needed: a mux may have streams by the thousand.
        self.sender: Sender | None = None
        self.receiver: Receiver | None = None
        self.sendWindow = INITIAL_WINDOW
        self.life = _LIVE
        self.paused = False
        self.touched = False
        self.peerAborts = False
        self._reason: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Stream {self.streamID} {self.life.name} of {self.streams!r}>"

    @property
    def receiveWindow(self) -> GrowingWindow | None:
        """
        What the peer may send; C{None} while that is what it may on any new stream.
        """
        return None if self.receiver is None else self.receiver.window

    @property
    def hasInput(self) -> bool:
        """
        Whether input waits, or the last of it is being delivered.
        """
        return self.receiver is not None and self.receiver.waiting is not None

    def makeSender(self) -> Sender:
        """
        Make the writing half, because there is none.

        @return: the half; it is closed if the stream is.
        """
        self.sender = sender = self.streams.makeSender(self)
        if self.life is not _LIVE:
            sender.close()
        return sender

    def makeReceiver(self) -> Receiver:
        """
        Make the reading half, because there is none.

        @return: the half; it is closed if the stream is.
        """
        self.receiver = receiver = receiverFor(self)
        if self.life is not _LIVE:
            receiver.close()
        return receiver

    def checkInvariants(self) -> None:
        """
        See whether the bookkeeping of the stream is consistent.  For tests, between two
        events of its mux.

        @raise AssertionError: if it is not.
        """
        sender, receiver = self.sender, self.receiver
        assert 0 <= self.sendWindow < WINDOW_END, self.sendWindow
        assert (self.life is _LIVE) == (self._reason is None)
        if sender is not None:
            sender.checkInvariants()
        if receiver is not None:
            receiver.checkInvariants()
        if self.life is _CLOSING:
            assert sender is not None and sender.state is SendState.FINISHING
            assert receiver is None or receiver.state is ReceiveState.CLOSED
        elif self.life is not _LIVE and sender is not None:
            assert sender.state is SendState.CLOSED and sender.producer is None

    # For the mux

    def closeWith(self, reason: BaseException) -> None:
        """
        Do the same as C{loseConnection}, with another reason for C{connectionLost}.
        """
        if self.life is _LIVE:
            self.life = _CLOSING
            self._reason = reason
            if self.receiver is not None:
                self.receiver.close()
            sender = self.sender
            if sender is None or sender.state is SendState.CLOSED:
                self.outputFinished()
            else:
                sender.finish()
        elif self.life is _DONE:
            self._dropInput()

    def frameData(self, payload: bytes) -> None:
        """
        The peer sent data.

        @raise ProtocolViolation: if that is more than its window.
        """
        (self.receiver or self.makeReceiver()).received(payload)

    def frameCredit(self, size: int) -> None:
        """
        The peer gives credit.

        @raise ProtocolViolation: if it makes the window too large.
        """
        self.sendWindow = credited(self.sendWindow, size)
        if self.sender is not None:
            self.sender.windowGrew()

    def frameCloseRead(self) -> None:
        """
        The peer has finished writing.
        """
        (self.receiver or self.makeReceiver()).finish()

    def frameCloseWrite(self) -> None:
        """
        The peer has finished reading.
        """
        sender = self.sender or self.makeSender()
        if sender.state is SendState.CLOSED:
            return
        sender.close()
        if self.life is _CLOSING:
            self._end()
        else:
            self._writeHalfClosed()

    def frameCloseStream(self) -> None:
        """
        The peer has closed the stream, or aborted it.
        """
        if not self.peerAborts:
            self.muxEnded(PeerClosedStream())
        elif self.receiver is None:
            self.muxEnded(
                PeerAbortedStream("it may have refused the stream: see its log")
            )
        else:
            self.muxEnded(PeerAbortedStream())

    def muxEnded(self, reason: BaseException) -> None:
        """
        Nothing can be sent or received any more: deliver the input that waits, then
        the end.
        """
        if self.life >= _DONE:
            return
        if self.life is _LIVE or isinstance(reason, ConnectionLost):
            # A stream that is still flushing reports the failure instead of its own
            # clean close.
            self._reason = reason
        # First: a producer's stopProducing may well call loseConnection.
        self.life = _DONE
        if self.sender is not None:
            self.sender.close()
        self.streams.streamEnded(self)
        if self.receiver is not None and self.hasInput:
            self.receiver.finish()
        else:
            self._lose()

    # For the halves

    def outputFinished(self) -> None:
        """
        All output is sent ahead of the end that was asked for: send that.

        If the mux is closing, and not because the application wants this stream
        closed, an application that has a producer had more to send.
        """
        if self.life is _CLOSING:
            hasProducer = self.sender is not None and self.sender.producer is not None
            if hasProducer and isinstance(self._reason, ConnectionClosed):
                self._sayAbort()
            self._end()
        else:
            self.streams.sendControl(self.streamID, Flag.CLOSE_READ)
            self.streams.callSoon(self._writeHalfClosed)

    def inputEnded(self) -> None:
        """
        All input is delivered ahead of the peer's end, or of the stream's: deliver
        that.
        """
        if self.life is _DONE:
            self._lose()
            return
        if not self._tellHalf("readConnectionLost"):
            self.closeWith(StreamClosed())
        self._closeIfBothHalvesAre()

    def applicationFailed(self) -> None:
        """
        The application raised the exception that is being handled: log it, and
        abort the stream.
        """
        failure = Failure()
        _log.failure("the protocol of {stream} failed", failure=failure, stream=self)
        self.abortWith(cast(Exception, failure.value))

    def abortWith(self, reason: BaseException) -> None:
        """
        Do the same as C{abortConnection}, with another reason for C{connectionLost}.
        """
        if self.life <= _CLOSING:
            self._reason = reason
            if self.receiver is not None:
                self.receiver.close()
            self._sayAbort()
            self._end()
        elif self.life is _DONE:
            self._dropInput()

    # Ends

    def _writeHalfClosed(self) -> None:
        """
        The writing half is closed.
        """
        if self.life is _LIVE:
            self._tellHalf("writeConnectionLost")
            self._closeIfBothHalvesAre()

    def _tellHalf(self, method: str) -> bool:
        """
        Call a method of the protocol if it is half-closeable.

        @return: whether it is.
        """
        try:
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is None:
                return False
            getattr(half, method)()
        except Exception:
            self.applicationFailed()
        return True

    def _closeIfBothHalvesAre(self) -> None:
        """
        The reference forgets a stream only when it is closed as a whole.
        """
        if (
            self.life is _LIVE
            and self.sender is not None
            and self.sender.state is SendState.CLOSED
            and self.receiver is not None
            and self.receiver.state in (ReceiveState.ENDED, ReceiveState.REFUSED)
        ):
            self._reason = StreamClosed()
            self._end()

    def _dropInput(self) -> None:
        """
        The application wants no more of the input that waits ahead of the end.
        """
        if self.receiver is not None and self.hasInput:
            self.receiver.close()
            self.streams.callSoon(self._lose)

    def _sayAbort(self) -> None:
        """
        Say that the end that follows is none in good order.
        """
        self.streams.sendControl(self.streamID, Flag.WINDOW_UPDATE)

    def _end(self) -> None:
        """
        Close the stream on the wire, and tell the protocol soon.
        """
        self.life = _DONE
        if self.sender is not None:
            self.sender.close()
        self.streams.sendControl(self.streamID, Flag.CLOSE_STREAM)
        self.streams.streamEnded(self)
        self.streams.callSoon(self._lose)

    def _lose(self) -> None:
        """
        Tell the protocol that this was all.
        """
        if self.life is not _DONE:
            return
        self.life = _LOST
        self.sender = self.receiver = None
        assert self._reason is not None, "a stream ends for a reason"
        try:
            self.protocol.connectionLost(Failure(self._reason))
        except Exception:
            _log.failure(
                "connectionLost of the protocol of {stream} failed", stream=self
            )
        self.streams.streamLost(self)
