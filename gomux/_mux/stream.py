# -*- test-case-name: gomux.test.mux.test_stream -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
One stream of a mux, as a transport.

Three things describe where a stream is in its life, and each only moves
forward:

  - L{_WriteState}: the writing half.  C{OPEN}, then C{FINISHING} while output waits
    ahead of the end that was asked for, then C{CLOSED}.
  - L{_ReadState}: the reading half.  C{OPEN}, then C{ENDING} while input waits
    ahead of the peer's end, then C{ENDED}; or C{REFUSED} when this side wants
    no more input.
  - L{_LifeState}: the whole.  C{LIVE}, then C{CLOSING} while output waits ahead of
    CloseStream, then C{DONE} when the wire knows the stream no more and only
    C{connectionLost} is due, then C{LOST} when the protocol has had it.

The application is never called from inside its own calls: what follows from
one of these is called from the reactor.

The wire has one frame for the end of a stream, whether that is a good one or
not.  So an abort says beforehand that it is one: by a WindowUpdate of 0 bytes,
which no other peer sends, and which means nothing to those that do not know of
this.  CloseWrite would not do: a Go application that has read all of its input
may well send that too, then the rest of its answer, and then CloseStream.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    ILoggingContext,
    IProtocol,
    IPushProducer,
    ITCPTransport,
    ITLSTransport,
)
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.log import callWithContext
from zope.interface import implementer

from gomux._mux.address import StreamAddress
from gomux._mux.output import NO_OUTPUT, Output
from gomux._wire.frame import Flag
from gomux._wire.growth import GrowingWindow
from gomux._wire.window import INITIAL_WINDOW, WINDOW_END, credited
from gomux.error import (
    ConnectionClosed,
    PeerAbortedStream,
    PeerClosedStream,
    ProtocolViolation,
    StreamClosed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IOpenSSLContextFactory

#: How many bytes of output may wait before the producer is paused.
HIGH_WATER = 65536
#: How few bytes of output must wait before it is resumed.
LOW_WATER = 32768
#: With less window than this a stream waits for more, unless all of its output
#: fits: dribbling credit must not make it send dribbling frames.
SMALLEST_FRAME = 16384
#: Input that waits is put together in pieces of up to this size.
_PIECE_SIZE = 16384

_log = Logger()


class _WriteState(IntEnum):
    OPEN = 0
    FINISHING = 1
    CLOSED = 2


class _ReadState(IntEnum):
    OPEN = 0
    REFUSED = 1
    ENDING = 2
    ENDED = 3


class _LifeState(IntEnum):
    LIVE = 0
    CLOSING = 1
    DONE = 2
    LOST = 3


def logPrefixOf(application: object) -> str:
    """
    @param application: a protocol or a factory.
    @return: how it wants to be called in the log.
    """
    if ILoggingContext.providedBy(application):
        return application.logPrefix()
    return type(application).__name__


# To look a member up in its Enum takes longer than all that is done with it.
_WRITE_OPEN, _WRITE_FINISHING, _WRITE_CLOSED = _WriteState
_READ_OPEN, _READ_REFUSED, _READ_ENDING, _READ_ENDED = _ReadState
_LIVE, _CLOSING, _DONE, _LOST = _LifeState


class StreamMux(Protocol):
    """
    What a stream needs of its mux.
    """

    @property
    def mux(self) -> object:
        """
        The mux.
        """

    def callSoon(self, function: Callable[[], None]) -> None:
        """
        Call a function from the reactor, as soon as it can.
        """

    def sendAtOnce(self, write: Callable[[bytes], None], data: bytes) -> None:
        """
        Call C{write} with C{data}, and send that before this returns if it is worth it.
        """

    def activate(self, stream: Stream, fresh: bool) -> None:
        """
        The stream may have become able to send.

        @param fresh: whether it had nothing to send before.
        """

    def sendControl(self, streamID: int, flag: int) -> None:
        """
        Send a control frame.
        """

    def consumed(self, stream: Stream, size: int) -> None:
        """
        The application has had some of the stream's input.
        """

    def streamEnded(self, stream: Stream) -> None:
        """
        Nothing is sent or received for the stream any more.
        """

    def streamLost(self, stream: Stream) -> None:
        """
        The stream's protocol has had its C{connectionLost}.
        """

    def getCarrier(self) -> ITCPTransport:
        """
        @return: the mux's own transport.
        """

    @property
    def hasCarrier(self) -> bool:
        """
        Whether that is still there.
        """

    def getHost(self) -> IAddress:
        """
        @return: its own address, also once it is gone.
        """

    def startTLS(
        self, stream: Stream, contextFactory: IOpenSSLContextFactory, normal: bool
    ) -> None:
        """
        Put TLS between the stream and its protocol.
        """


@implementer(
    ITLSTransport, IHalfCloseableDescriptor, IConsumer, IPushProducer, ILoggingContext
)
class Stream:
    """
    One stream of a mux, as a transport.

    Made by the mux alone, which also calls the C{frame...} methods and
    L{muxEnded}.

    @ivar streamID: the stream's ID on the wire.
    @ivar protocol: what the stream is the transport of.
    @ivar queued: whether the scheduler has the stream in a queue.
    @ivar sendWindow: how many bytes may still be sent.
    @ivar receiveWindow: what may still be received; C{None} until something was.
    @ivar touched: whether anything was ever written to the stream.
    @ivar peerAborts: whether the peer has said that the end to come is an abort.
    """

    __slots__ = (
        "streamID",
        "protocol",
        "queued",
        "sendWindow",
        "receiveWindow",
        "touched",
        "peerAborts",
        "_mux",
        "_output",
        "_unread",
        "_delivering",
        "_paused",
        "_producer",
        "_streaming",
        "_producerPaused",
        "_noDelay",
        "_ownContext",
        "_write",
        "_read",
        "_life",
        "_reason",
    )

    protocol: IProtocol

    def __init__(self, mux: StreamMux, streamID: int) -> None:
        self.streamID = streamID
        self.queued = False
        # Those who open streams by the thousand pay for each object.
        self.sendWindow = INITIAL_WINDOW
        self.receiveWindow: GrowingWindow | None = None
        self.touched = False
        self.peerAborts = False
        self._mux = mux
        self._output = NO_OUTPUT
        self._unread: list[bytes] | None = None
        self._delivering = False
        self._paused = False
        self._producer: Any = None
        self._streaming = False
        self._producerPaused = False
        self._noDelay = True
        self._ownContext = False
        self._write = _WRITE_OPEN
        self._read = _READ_OPEN
        self._life = _LIVE
        self._reason: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Stream {self.streamID} {self._life.name} of {self._mux!r}>"

    # State, as Twisted's own transports show it

    @property
    def connected(self) -> bool:
        """
        Whether C{connectionLost} has yet to come.
        """
        return self._life is not _LOST

    @property
    def disconnecting(self) -> bool:
        """
        Whether the stream is on its way to its end, and no more input comes.

        Input that waits ahead of the peer's end does: a C{LineReceiver} gives
        out no more lines once this is true.
        """
        return self._life is _CLOSING or (self._life is _DONE and self._unread is None)

    @property
    def disconnected(self) -> bool:
        """
        Whether C{connectionLost} has come.
        """
        return self._life is _LOST

    @property
    def unsent(self) -> int:
        """
        How many bytes of output wait.
        """
        return self._output.size

    @property
    def unread(self) -> int:
        """
        How many bytes of input wait, because the application has paused it.
        """
        return sum(map(len, self._unread or ()))

    @property
    def mux(self) -> Any:
        """
        The mux of the stream: a L{MuxProtocol<gomux.MuxProtocol>}.
        """
        return self._mux.mux

    def checkInvariants(self) -> None:
        """
        See whether the bookkeeping of the stream is consistent.  For tests, between two
        events of its mux.

        @raise AssertionError: if it is not.
        """
        assert 0 <= self.sendWindow < WINDOW_END, self.sendWindow
        if self.receiveWindow is None:
            assert not self.unread, "input without a window"
        else:
            self.receiveWindow.checkInvariants(self.unread)
        assert (self._output is NO_OUTPUT) == (not self.unsent)
        if self._producer is None:
            assert not (self._streaming or self._producerPaused)
        if self._write is _WRITE_CLOSED or self._life >= _DONE:
            assert not self.unsent, "output that cannot be sent"
        if self._life >= _DONE:
            assert self._producer is None
        isRead = self._read not in (_READ_REFUSED, _READ_ENDED)
        if not isRead or self._life in (_CLOSING, _LOST):
            assert self._unread is None, "input that nobody will have"
        assert (self._life is _LIVE) == (self._reason is None)

    # ITransport

    def write(self, data: bytes) -> None:
        """
        Send some data, when the peer has window for it and the carrier room.

        After the end of the stream or of its writing half it is dropped.

        @raise TypeError: if C{data} is text.
        """
        if type(data) is not bytes:
            if isinstance(data, str):
                raise TypeError("Data must be bytes")
            data = bytes(data)
        if not data or not self._acceptsOutput():
            return
        output = self._output
        fresh = output is NO_OUTPUT
        if fresh:
            output = self._output = Output()
            self.touched = True
        output.append(data)
        if output.size > HIGH_WATER:
            self._pauseProducer()
        if not self.queued:
            self._mux.activate(self, fresh)

    def writeAtOnce(self, data: bytes) -> None:
        """
        Send some data as L{write} does, but for whoever has no more to write in this
        turn of the reactor: to wait for its end would only take time.

        @raise TypeError: if C{data} is text.
        """
        self._mux.sendAtOnce(self.write, data)

    def _acceptsOutput(self) -> bool:
        """
        Once an end has been asked for, only a producer may still write.
        """
        if self._write is _WRITE_OPEN and self._life is _LIVE:
            return True
        return (
            self._producer is not None
            and self._write is not _WRITE_CLOSED
            and self._life <= _CLOSING
        )

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """
        Send several pieces of data.

        @raise TypeError: if one of them is text.
        """
        try:
            joined = b"".join(data)
        except TypeError:
            raise TypeError("Data must be bytes") from None
        self.write(joined)

    def loseConnection(self) -> None:
        """
        Close the stream once all output is sent; input is dropped from now on.

        A pull producer, or a push producer that is paused, gets the chance to
        finish first.
        """
        self.closeWith(StreamClosed())

    def getHost(self) -> StreamAddress:  # type: ignore[override]
        """
        @return: this end's address.
        """
        return StreamAddress(self._mux.getHost(), self.streamID)

    def getPeer(self) -> StreamAddress:  # type: ignore[override]
        """
        @return: the other end's address.
        """
        return StreamAddress(self._mux.getCarrier().getPeer(), self.streamID)

    # ITCPTransport

    def loseWriteConnection(self) -> None:
        """
        Close the writing half once all output is sent.
        """
        if self._life is _LIVE and self._write is _WRITE_OPEN:
            self._write = _WRITE_FINISHING
            self._finishOutput()

    def abortConnection(self) -> None:
        """
        Close the stream at once; output that waits is dropped, and the other
        end is told that this was no orderly end.
        """
        self._abort(ConnectionAborted())

    def getTcpNoDelay(self) -> bool:
        """
        @return: what L{setTcpNoDelay} was given; by default C{True}.
        """
        return self._noDelay

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        Remembered, and without effect: a stream never holds data back in the
        hope of more.
        """
        self._noDelay = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        """
        @return: whether the carrier probes an idle connection.
        """
        carrier = self._tcpCarrier()
        return carrier is not None and bool(carrier.getTcpKeepAlive())

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """
        Have the carrier probe an idle connection.  It serves all streams, so
        none can turn the probes off again.
        """
        carrier = self._tcpCarrier()
        if enabled and carrier is not None:
            carrier.setTcpKeepAlive(True)

    def _tcpCarrier(self) -> ITCPTransport | None:
        """
        @return: the carrier, if it is one of TCP and still there.
        """
        carrier = self._mux.getCarrier()
        if self._mux.hasCarrier and ITCPTransport.providedBy(carrier):
            return carrier
        return None

    # ITLSTransport

    def startTLS(  # type: ignore[override]
        self, contextFactory: IOpenSSLContextFactory, normal: bool = True
    ) -> None:
        """
        Encrypt all that comes from now on, over and above what the mux does,
        with TLS.

        @param contextFactory: how.
        @param normal: whether the side that opened the stream is TLS's client.
        """
        self._mux.startTLS(self, contextFactory, normal)

    # IHalfCloseableDescriptor, which otherwise is for the reactor

    def writeConnectionLost(self, reason: Failure) -> None:
        """
        The same as L{loseWriteConnection}.
        """
        self.loseWriteConnection()

    def readConnectionLost(self, reason: Failure) -> None:
        """
        The same as L{loseReadConnection}.
        """
        self.loseReadConnection()

    def loseReadConnection(self) -> None:
        """
        Close the reading half: input that waits and that is still to come is
        dropped, and the peer is told to send no more.
        """
        if self._life is _LIVE and self._read in (_READ_OPEN, _READ_ENDING):
            self._dropInput()
            if self._read is _READ_OPEN:
                self._read = _READ_REFUSED
                self._mux.sendControl(self.streamID, Flag.CLOSE_WRITE)
            else:
                self._read = _READ_ENDED
            self._closeIfBothHalvesAre()

    # IConsumer

    @property
    def producer(self) -> tuple[Any, bool] | None:
        """
        The producer that is registered, if any, and whether it is a push
        producer.
        """
        return None if self._producer is None else (self._producer, self._streaming)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Have a producer paused and resumed as output goes.

        @raise RuntimeError: if there is one already.
        """
        if self._producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer}, because producer "
                f"{self._producer} was never unregistered."
            )
        if self._life >= _DONE or self._write is _WRITE_CLOSED:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = bool(streaming)
        self._producerPaused = False
        if not streaming:
            if not self._output.size:
                producer.resumeProducing()
        elif self._output.size > HIGH_WATER:
            # Not at once: TLS registers a producer before it is ready for this.
            self._mux.callSoon(self._pauseProducer)

    def _pauseProducer(self) -> None:
        if (
            self._output.size > HIGH_WATER
            and self._streaming
            and not self._producerPaused
        ):
            self._producerPaused = True
            try:
                self._producer.pauseProducing()
            except Exception:
                self._applicationFailed()

    def unregisterProducer(self) -> None:
        """
        Forget the producer; an end that waits for it need not any more.
        """
        self._producer = None
        self._streaming = False
        self._producerPaused = False
        self._finishOutput()

    # IPushProducer

    def pauseProducing(self) -> None:
        """
        Deliver no more input, and give the peer no more credit.
        """
        self._paused = True

    def resumeProducing(self) -> None:
        """
        Deliver input again, from the reactor if some waits.
        """
        if self._paused and self._life is not _LOST:
            self._paused = False
            if not self._delivering and self._unread is not None:
                self._delivering = True
                self._mux.callSoon(self._deliverUnread)

    def stopProducing(self) -> None:
        """
        The same as L{loseConnection}.
        """
        self.loseConnection()

    # What many protocols expect of a transport beside all this

    def stopReading(self) -> None:
        """
        The same as L{pauseProducing}.
        """
        self.pauseProducing()

    def startReading(self) -> None:
        """
        The same as L{resumeProducing}.
        """
        self.resumeProducing()

    def stopConsuming(self) -> None:
        """
        The producer has nothing more: close the stream.
        """
        self.unregisterProducer()
        self.loseConnection()

    # ILoggingContext

    def logPrefix(self) -> str:
        """
        @return: the protocol's own prefix, or the name of its class.
        """
        return logPrefixOf(self.protocol)

    # For the mux

    def makeConnection(self, protocol: IProtocol) -> bool:
        """
        Start the stream's protocol.

        @return: whether it started; if not, the stream is closed.
        """
        self.protocol = protocol
        # Those that say no more than their class is called do not get a context
        # of their own for each piece of data, which takes a microsecond.
        prefix = getattr(type(protocol), "logPrefix", TwistedProtocol.logPrefix)
        self._ownContext = prefix is not TwistedProtocol.logPrefix
        try:
            protocol.makeConnection(self)
        except Exception:
            self._applicationFailed()
            return False
        return True

    def closeWith(self, reason: BaseException) -> None:
        """
        As L{loseConnection}, with another reason for C{connectionLost}.

        When that is the end of the mux, and not what the application asked
        for, an application with a producer had more to send.
        """
        if self._life is _LIVE:
            self._life = _CLOSING
            self._reason = reason
            self._dropInput()
            self._finishOutput()
        elif self._life is _DONE:
            self._dropInput()

    def frameData(self, payload: bytes) -> None:
        """
        The peer sent data.

        @raise ProtocolViolation: if that is more than its window.
        """
        size = len(payload)
        window = self.receiveWindow
        if window is None:
            window = self.receiveWindow = GrowingWindow()
        window.received(size)
        if self._life is not _LIVE or self._read is not _READ_OPEN:
            self._frameUnwanted(size)
        elif self._paused or self._unread is not None:
            self._keep(payload)
        else:
            self._deliver(payload)

    def _frameUnwanted(self, size: int) -> None:
        """
        Take data that nobody reads: after our own end it is legal, and the
        peer must not be left waiting for credit; after its own it is not.
        """
        if self._life is _LIVE and self._read >= _READ_ENDING:
            self._abort(ProtocolViolation("data came after CloseRead"))
        else:
            self._mux.consumed(self, size)

    def frameCredit(self, size: int) -> None:
        """
        The peer gives credit.

        @raise ProtocolViolation: if it makes the window too large.
        """
        self.sendWindow = credited(self.sendWindow, size)
        if self._output.size and not self.queued:
            self._mux.activate(self, False)

    def frameCloseRead(self) -> None:
        """
        The peer has finished writing.
        """
        if self._read is _READ_REFUSED:
            self._read = _READ_ENDED
        elif self._read is _READ_OPEN:
            self._read = _READ_ENDING
            if self._unread is None and self._life is _LIVE:
                self._endInput()

    def frameCloseWrite(self) -> None:
        """
        The peer has finished reading.
        """
        if self._write is _WRITE_CLOSED:
            return
        self._write = _WRITE_CLOSED
        self._dropOutput()
        if self._life is _CLOSING:
            self._end()
        elif self._life is _LIVE:
            self._tellHalf("writeConnectionLost")
            self._closeIfBothHalvesAre()

    def frameCloseStream(self) -> None:
        """
        The peer has closed the stream, or aborted it.
        """
        self.muxEnded(PeerAbortedStream() if self.peerAborts else PeerClosedStream())

    def muxEnded(self, reason: BaseException) -> None:
        """
        Nothing can be sent or received any more: deliver what has come, then
        the end.
        """
        if self._life >= _DONE:
            return
        if self._life is _LIVE or isinstance(reason, ConnectionLost):
            # Who waits for the rest of its output to be sent learns it was not.
            self._reason = reason
        # First: a producer's stopProducing may well call loseConnection.
        self._life = _DONE
        self._dropOutput()
        self._mux.streamEnded(self)
        if self._unread is None:
            self._lose()

    # Output, for the scheduler

    def sendable(self) -> int:
        """
        @return: how many bytes of output there are, as far as there is window for
            them; 0 if that is neither for all nor for enough of them.
        """
        size = self._output.size
        available = self.sendWindow
        if size <= available:
            return size
        return available if available >= SMALLEST_FRAME else 0

    def takeOutput(self, size: int) -> bytes | memoryview:
        """
        @param size: at least 1, and no more than is L{sendable}.
        @return: so many bytes of the next output, taken out of the window.
        """
        self.sendWindow -= size
        return self._output.take(size)

    def outputTaken(self) -> None:
        """
        Output has been written: see who waits for that.
        """
        if not self._output.size:
            self._output = NO_OUTPUT
            if self._producer is None:
                self._finishOutput()
                return
        if self._output.size <= LOW_WATER and self._producer is not None:
            self._resumeProducer()

    def _resumeProducer(self) -> None:
        if self._streaming:
            if not self._producerPaused:
                self._finishOutput()
                return
            self._producerPaused = False
        elif self._output.size:
            return
        try:
            self._producer.resumeProducing()
        except Exception:
            # Not an error of the mux, which calls this while it writes.
            self._applicationFailed()
        if self._life is _CLOSING or self._write is _WRITE_FINISHING:
            self._mux.callSoon(self._finishOutput)

    def _finishOutput(self) -> None:
        """
        Send the end that was asked for, unless output or a producer that may
        have some is ahead of it.
        """
        if self._life is _LIVE and self._write is _WRITE_OPEN:
            return
        if self._output.size or self._producerPaused:
            return
        if self._producer is not None and not self._streaming:
            return
        if self._life is _CLOSING:
            if self._producer is not None and isinstance(
                self._reason, ConnectionClosed
            ):
                self._sayAbort()
            self._end()
        elif self._life is _LIVE and self._write is _WRITE_FINISHING:
            self._write = _WRITE_CLOSED
            self._mux.sendControl(self.streamID, Flag.CLOSE_READ)
            self._mux.callSoon(self._writeHalfClosed)

    def _writeHalfClosed(self) -> None:
        if self._life is _LIVE:
            self._tellHalf("writeConnectionLost")
            self._closeIfBothHalvesAre()

    def _dropOutput(self) -> None:
        """
        Forget output, and stop whoever makes it.
        """
        self._output = NO_OUTPUT
        producer = self._producer
        self._producer = None
        self._streaming = self._producerPaused = False
        if producer is not None:
            try:
                producer.stopProducing()
            except Exception:
                _log.failure("a producer's stopProducing failed")

    # Input

    def _deliver(self, payload: bytes) -> None:
        try:
            if self._ownContext:
                context = {"system": self.logPrefix()}
                callWithContext(context, self.protocol.dataReceived, payload)
            else:
                self.protocol.dataReceived(payload)
        except Exception:
            self._applicationFailed()
        else:
            self._mux.consumed(self, len(payload))

    def _keep(self, payload: bytes) -> None:
        """
        Keep input for later; small pieces are put together.
        """
        unread = self._unread
        if unread is None:
            self._unread = [payload]
        elif unread and len(unread[-1]) + len(payload) <= _PIECE_SIZE:
            unread[-1] += payload
        else:
            unread.append(payload)

    def _deliverUnread(self) -> None:
        """
        Deliver the input that was kept, until the application pauses again;
        then what came after it.
        """
        while self._unread and not self._paused:
            self._deliver(self._unread.pop(0))
        self._delivering = False
        if self._unread:
            return
        self._unread = None
        if self._life is _DONE:
            self._lose()
        elif self._life is _LIVE and self._read is _READ_ENDING:
            self._endInput()

    def _dropInput(self) -> None:
        """
        Forget input that waits, giving credit for it: a peer that waits for
        that may be what our output waits for.
        """
        unread, self._unread = self._unread, None
        if unread is not None and self._life is not _DONE:
            self._mux.consumed(self, sum(map(len, unread)))
        elif unread is not None:
            self._mux.callSoon(self._lose)

    def _endInput(self) -> None:
        self._read = _READ_ENDED
        if not self._tellHalf("readConnectionLost"):
            self.closeWith(StreamClosed())
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
            self._applicationFailed()
        return True

    # Ends

    def _closeIfBothHalvesAre(self) -> None:
        """
        The reference forgets a stream only when it is closed as a whole.
        """
        if (
            self._life is _LIVE
            and self._write is _WRITE_CLOSED
            and self._read in (_READ_ENDED, _READ_REFUSED)
        ):
            self._reason = StreamClosed()
            self._end()

    def _applicationFailed(self) -> None:
        """
        The application raised: log it, and close its stream.
        """
        failure = Failure()
        _log.failure("the protocol of {stream} failed", failure=failure, stream=self)
        self._abort(cast(Exception, failure.value))

    def _abort(self, reason: BaseException) -> None:
        if self._life <= _CLOSING:
            self._reason = reason
            self._dropInput()
            self._sayAbort()
            self._end()
        elif self._life is _DONE:
            self._dropInput()

    def _sayAbort(self) -> None:
        """
        Say that the end that follows is none in good order.
        """
        self._mux.sendControl(self.streamID, Flag.WINDOW_UPDATE)

    def _end(self) -> None:
        """
        Close the stream on the wire, and tell the protocol soon.
        """
        self._life = _DONE
        self._dropOutput()
        self._mux.sendControl(self.streamID, Flag.CLOSE_STREAM)
        self._mux.streamEnded(self)
        self._mux.callSoon(self._lose)

    def _lose(self) -> None:
        """
        Tell the protocol that this was all.
        """
        if self._life is not _DONE:
            return
        self._life = _LOST
        self._dropOutput()
        assert self._reason is not None, "a stream ends for a reason"
        try:
            self.protocol.connectionLost(Failure(self._reason))
        except Exception:
            _log.failure(
                "connectionLost of the protocol of {stream} failed", stream=self
            )
        self._mux.streamLost(self)
