# -*- test-case-name: gomux.test.mux.test_stream_ends -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The life of a stream, from its start to its C{connectionLost}.

A stream has two halves: a L{Sender} for the output and a L{Receiver} for the input.
Each half has its own states, and is made when it is needed.  A stream without a sender
is open for output, and no output waits.  A stream without a receiver is open for input,
and no input has been received.  L{StreamLife} decides everything that concerns both
halves or the protocol.

The state of the whole stream only moves forward:

  - C{LIVE}: the stream is open, perhaps in one direction only.
  - C{CLOSING}: the application or the mux has closed the stream.  No more input is
    delivered.  CloseStream waits for output, or for a producer that may still write.
    The sender is C{FINISHING}.
  - C{DONE}: nothing is sent or received any more, and the mux has forgotten the stream.
    Only C{connectionLost} is due: in the next turn of the reactor, or after the waiting
    input is delivered.
  - C{LOST}: C{connectionLost} was called.  The halves are gone.

A half reports its end: the sender calls C{outputFinished}, the receiver C{inputEnded}.
The state of the stream decides what happens then.

The stream does not call the protocol from inside a call that the application makes, but
in the next turn of the reactor.  Only a producer is called at once.

On the wire CloseStream ends a stream, whether the end is orderly or an abort.  So the
side that aborts a stream sends a WindowUpdate of 0 bytes ahead of CloseStream.  No
other implementation sends such a frame, and it has no effect on a peer that does not
know this rule.  CloseWrite cannot announce an abort: a Go application that has read all
of its input may also send CloseWrite, then the rest of its output, and then
CloseStream.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import Protocol, cast

from twisted.internet import protocol
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.python.failure import Failure

from gomux._mux.log import callInContext
from gomux._mux.receiver import Receiver, ReceiverMux, ReceiveState, receiverFor
from gomux._mux.sender import Sender, SendState
from gomux._mux.sendermux import SenderMux
from gomux._wire.frame import Flag
from gomux._wire.window import INITIAL_WINDOW, WINDOW_END, credited
from gomux.error import (
    BuffersFull,
    ConnectionClosed,
    PeerAbortedStream,
    PeerClosedStream,
    StreamClosed,
)


class LifeState(IntEnum):
    """
    The state of a whole stream.
    """

    LIVE = 0
    CLOSING = 1
    DONE = 2
    LOST = 3


# A look-up in an Enum would take longer than the rest of a call.
_LIVE, _CLOSING, _DONE, _LOST = LifeState

#: The protocol of a stream that is C{LOST}.
_NOBODY = protocol.Protocol()


class LifeMux(SenderMux, ReceiverMux, Protocol):
    """
    The part of the mux that L{StreamLife} uses.
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
        C{connectionLost} of the stream's protocol was called.
        """


class StreamLife:
    """
    A stream without the methods that its application calls.

    @ivar streamID: the stream's ID on the wire.
    @ivar streams: the mux, as its streams call it: a
        L{Streams<gomux._mux.streams.Streams>}.
    @ivar protocol: the protocol whose transport the stream is.
    @ivar service: the name of the service that the stream is for; C{None} for none, and
        before the peer's request is there.
    @ivar sender: the writing half; C{None} while it has nothing to keep.
    @ivar receiver: the reading half; C{None} until it is needed.
    @ivar sendWindow: how many bytes the peer still lets the stream send.
    @ivar granted: how many bytes the peer has let the stream send since the start.
    @ivar life: the L{LifeState}.
    @ivar paused: whether the application has paused the stream.
    @ivar touched: whether output was ever written to the stream.
    @ivar peerAborts: whether the peer has announced that its next CloseStream is an
        abort.  The mux sets it.
    @ivar _reason: the reason for C{connectionLost}; C{None} while the stream is live.
    """

    __slots__ = (
        "streamID",
        "streams",
        "protocol",
        "sender",
        "receiver",
        "sendWindow",
        "granted",
        "life",
        "paused",
        "touched",
        "peerAborts",
        "_reason",
    )

    protocol: IProtocol
    service: str | None

    def __init__(self, streams: LifeMux, streamID: int) -> None:
        self.streamID = streamID
        self.streams = streams
        # The halves are made when needed, because a mux may have thousands of streams.
        self.sender: Sender | None = None
        self.receiver: Receiver | None = None
        self.sendWindow = self.granted = INITIAL_WINDOW
        self.life = _LIVE
        self.paused = False
        self.touched = False
        self.peerAborts = False
        self._reason: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Stream {self.streamID} {self.life.name} of {self.streams!r}>"

    @property
    def hasInput(self) -> bool:
        """
        Whether input waits, or the last waiting input is being delivered.
        """
        return self.receiver is not None and self.receiver.waiting is not None

    def makeSender(self) -> Sender:
        """
        Make the missing writing half.

        @return: the writing half; closed, unless the stream is live.
        """
        sender: Sender = self.streams.makeSender(self)
        self.sender = sender
        if self.life is not _LIVE:
            sender.close()
        return sender

    def makeReceiver(self) -> Receiver:
        """
        Make the missing reading half.

        @return: the reading half; closed, unless the stream is live.
        """
        self.receiver = receiver = receiverFor(self)
        if self.life is not _LIVE:
            receiver.close()
        return receiver

    def checkInvariants(self) -> None:
        """
        Check that the stream's state is consistent.  For tests, between two events of
        its mux.

        @raise AssertionError: if the state is not consistent.
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

    # Called by the mux

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

    def frameCredit(self, size: int) -> None:
        """
        The peer gives credit.

        @param size: the credit, in bytes.
        @raise ProtocolViolation: if the credit makes the send window too large.
        """
        self.sendWindow = credited(self.sendWindow, size)
        self.granted += size
        if self.sender is not None:
            self.sender.windowGrew()

    def frameCloseRead(self) -> None:
        """The peer has finished writing."""
        (self.receiver or self.makeReceiver()).finish()

    def frameCloseWrite(self) -> None:
        """The peer has finished reading."""
        sender = self.sender or self.makeSender()
        if sender.state is SendState.CLOSED:
            return
        sender.close()
        if self.life is _CLOSING:
            self._end()
        else:
            self.writeHalfClosed()

    def frameCloseStream(self) -> None:
        """The peer has closed the stream, or aborted it."""
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
        The peer has closed the stream, or the mux has ended: deliver the waiting input,
        then call C{connectionLost}.

        @param reason: the reason for C{connectionLost}.
        """
        if self.life >= _DONE:
            return
        if self.life is _LIVE or isinstance(reason, ConnectionLost):
            # A stream that is still flushing reports the failure instead of its own
            # clean close.
            self._reason = reason
        # Set before sender.close(): a producer's stopProducing may call loseConnection.
        self.life = _DONE
        if self.sender is not None:
            self.sender.close()
        self.streams.streamEnded(self)
        if self.receiver is None or not self.hasInput:
            self._lose()
        elif isinstance(reason, BuffersFull):
            self._dropInput()
        else:
            self.receiver.finish()

    def drop(self, reason: BaseException) -> None:
        """
        The peer's key was revoked, or memory is short: drop the waiting input, and call
        C{connectionLost} in the next turn of the reactor.
        """
        if self.hasInput:
            # The peer may have closed the stream already.
            self._reason = reason
        self.abortWith(reason)

    # Called by the halves

    def outputFinished(self) -> None:
        """
        All output is sent: close the stream or its writing half on the wire.

        If the mux closes the stream although a producer is registered, the application
        had more to send.  The peer must then see an abort.
        """
        if self.life is _CLOSING:
            hasProducer = self.sender is not None and self.sender.producer is not None
            if hasProducer and isinstance(self._reason, ConnectionClosed):
                self._sayAbort()
            self._end()
        else:
            self.streams.sendControl(self.streamID, Flag.CLOSE_READ)
            self.streams.callSoon(self.writeHalfClosed)

    def inputEnded(self) -> None:
        """
        All input is delivered, and the peer has finished writing or the stream has
        ended: tell the protocol.
        """
        if self.life is _DONE:
            self._lose()
            return
        if not self._tellHalf("readConnectionLost"):
            self.closeWith(StreamClosed())
        # The peer's CloseStream may follow in the same read.
        self._closeIfBothHalvesAre(isSoon=True)

    def applicationFailed(self) -> None:
        """
        The application has raised an exception, which is being handled: log it, and
        abort the stream.
        """
        self.streams.logFailure("the protocol of {stream} failed", stream=self)
        self.abortWith(cast(Exception, sys.exc_info()[1]))

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

    def writeHalfClosed(self) -> None:
        """The writing half is closed: tell the protocol."""
        if self.life is _LIVE:
            self._tellHalf("writeConnectionLost")
            self._closeIfBothHalvesAre()

    def _tellHalf(self, method: str) -> bool:
        """
        Call a method of the protocol if the protocol is half-closeable.

        @return: whether the protocol is half-closeable, or has failed.
        """
        try:
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is None:
                return False
            callInContext(self.protocol, getattr(half, method))
        except BaseException:
            self.applicationFailed()
        return True

    def _closeIfBothHalvesAre(self, isSoon: bool = False) -> None:
        """
        Send CloseStream once both halves are closed: the reference implementation keeps
        a stream until it gets that frame.

        @param isSoon: whether to do that in the next turn of the reactor.
        """
        if (
            self.life is _LIVE
            and self.sender is not None
            and self.sender.state is SendState.CLOSED
            and self.receiver is not None
            and self.receiver.state in (ReceiveState.ENDED, ReceiveState.REFUSED)
        ):
            if isSoon:
                self.streams.callSoon(self._closeIfBothHalvesAre)
            else:
                self._reason = StreamClosed()
                self._end()

    def _dropInput(self) -> None:
        """
        The application has closed a stream that is C{DONE}: drop the waiting input, and
        call C{connectionLost} in the next turn of the reactor.
        """
        if self.receiver is not None and self.hasInput:
            self.receiver.close()
            self.streams.callSoon(self._lose)

    def _sayAbort(self) -> None:
        """
        Announce to the peer that the next CloseStream is an abort.
        """
        self.streams.sendControl(self.streamID, Flag.WINDOW_UPDATE)

    def _end(self) -> None:
        """
        Send CloseStream, and call C{connectionLost} in the next turn of the reactor.
        """
        self.life = _DONE
        if self.sender is not None:
            self.sender.close()
        self.streams.sendControl(self.streamID, Flag.CLOSE_STREAM)
        self.streams.streamEnded(self)
        self.streams.callSoon(self._lose)

    def _lose(self) -> None:
        """
        Call the protocol's C{connectionLost}, unless it was called already.
        """
        if self.life is not _DONE:
            return
        self.life = _LOST
        self.sender = self.receiver = None
        assert self._reason is not None, "a stream ends for a reason"
        try:
            reason = Failure(self._reason)
            callInContext(self.protocol, self.protocol.connectionLost, reason)
        except BaseException:
            self.streams.logFailure(
                "connectionLost of the protocol of {stream} failed", stream=self
            )
        self.streams.streamLost(self)
        # Two objects that refer to each other wait for the garbage collector.
        self.protocol = _NOBODY
