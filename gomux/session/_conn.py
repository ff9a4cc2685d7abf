# -*- test-case-name: gomux.test.session.test_conn -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
One stream of a L{gomux.Session}, to be awaited.

The stream's transport is paused except while somebody waits to read, so what
nobody has read stays in the stream, without credit, and the peer can send no
more than the stream's window.  The most that is kept here is the rest of one
frame.  In the other direction the transport pauses us, and what has not been
written to it stays with the calls that wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from copy import copy

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from gomux._fastpaths import fastPaths
from gomux._mux.stream import Stream
from gomux.error import (
    ConnectionClosed,
    DeadlineExceeded,
    GomuxError,
    PeerAbortedStream,
    PeerClosedStream,
    StreamClosed,
    WriteClosed,
)
from gomux.session._deadline import Deadline

#: How much is read by default, in bytes.
READ_SIZE = 65536
#: How much is written to the transport at once, in bytes.
WRITE_SIZE = 65536


class _PendingRead:
    """
    A call of L{Conn.read} that waits.
    """

    __slots__ = ("size", "result")

    def __init__(self, size: int, result: Deferred[bytes]) -> None:
        self.size = size
        self.result = result


class _PendingWrite:
    """
    A call of L{Conn.write} that waits.

    @ivar written: how much of the data the transport has been given.
    """

    __slots__ = ("data", "written", "result")

    def __init__(self, data: bytes, result: Deferred[int]) -> None:
        self.data = data
        self.written = 0
        self.result = result


@implementer(IHalfCloseableProtocol, IPushProducer)
class Conn(Protocol):
    """
    One stream, to be awaited: what the Go package calls a C{Stream}.

    Made by L{Session.openStream<gomux.Session.openStream>} and
    L{Session.acceptStream<gomux.Session.acceptStream>}.

    What returns a Deferred may be cancelled: nothing that has come is lost by
    that, and the stream goes on.
    """

    transport: Stream

    def __init__(
        self,
        clock: IReactorTime,
        made: Callable[[Conn], None],
        lost: Callable[[Conn], None],
    ) -> None:
        """
        @param clock: the reactor.
        @param made: called when the stream is there.
        @param lost: called when it is gone.
        """
        self._clock = clock
        self._made = made
        self._lost = lost
        # The rest of a frame that was read in part, from the offset on.
        self._rest = b""
        self._offset = 0
        self._inPlace = fastPaths().restsInPlace
        self._reads: deque[_PendingRead] = deque()
        self._writes: deque[_PendingWrite] = deque()
        self._readEnded = False
        # Why reading ended, if it was not by the end of the data.
        self._readError: GomuxError | None = None
        self._writeError: GomuxError | None = None
        # Whether the transport wants no more at present.
        self._full = False
        self._closed = False
        self._goneCall: IDelayedCall | None = None
        self._readDeadline = Deadline(clock, self._readsExpired)
        self._writeDeadline = Deadline(clock, self._writesExpired)

    def __repr__(self) -> str:
        return f"<Conn over {self.transport!r}>"

    @property
    def unread(self) -> int:
        """
        How many bytes have come that were not read.
        """
        return len(self._rest) - self._offset + self.transport.unread

    # What the Go package has

    def read(self, size: int = READ_SIZE) -> Deferred[bytes]:
        """
        Read some data, as soon as there is any.

        Several calls at a time are served in their order.

        @param size: the most to read, in bytes, at least 1.
        @return: the data; C{b""} once there will be no more because the peer
            has closed its writing half or the stream, or this side its reading
            half.  Fails with the reason once all data has been read and the
            mux is gone or the peer has aborted the stream, and at once with
            L{StreamClosed} or L{ConnectionClosed} after our own close and with
            L{DeadlineExceeded} when the deadline has passed.
        @raise ValueError: if C{size} is less than 1.
        """
        if size < 1:
            raise ValueError(f"cannot read {size} bytes")
        if self._readDeadline.passed:
            return fail(DeadlineExceeded())
        if self._rest and not self._reads:
            return succeed(self._take(size))
        if self._readEnded:
            return (
                succeed(b"") if self._readError is None else fail(copy(self._readError))
            )
        read = _PendingRead(size, Deferred(lambda _: self._cancelRead(read)))
        self._reads.append(read)
        self.transport.resumeProducing()
        return read.result

    def write(self, data: bytes | bytearray | memoryview) -> Deferred[int]:
        """
        Write some data.

        Several calls at a time are served in their order.

        @param data: what to write.
        @return: the size of the data, once all of it is on its way: the mux
            keeps no more than about 128 KiB of what the peer gives no window
            for.  Fails with L{WriteClosed}, L{PeerClosedStream},
            L{PeerAbortedStream}, L{StreamClosed} or the end of the mux, or with
            L{DeadlineExceeded}; the C{written} of the error says how much of
            the data had been taken.
        @raise TypeError: if C{data} is text.
        """
        if isinstance(data, str):
            raise TypeError("Data must be bytes, not str")
        if self._writeError is not None:
            return fail(copy(self._writeError))
        if self._writeDeadline.passed:
            return fail(DeadlineExceeded())
        write = _PendingWrite(
            bytes(data), Deferred(lambda _: self._writes.remove(write))
        )
        self._writes.append(write)
        self._writeMore()
        return write.result

    def close(self) -> None:
        """
        Close the stream: what was taken of the data is sent, what has not been
        read is dropped, and calls that wait fail with L{StreamClosed}.

        More than once is fine, and so is after the peer has.
        """
        if not self._closed:
            self._closed = True
            self._leave(StreamClosed())
            self.transport.loseConnection()

    def closeRead(self) -> None:
        """
        Close the reading half: what has not been read is dropped, from now on
        reads give C{b""}, and the peer is told to send no more.
        """
        if not self._closed:
            self._endReads(None)
            self._rest = b""
            self.transport.loseReadConnection()
            # After the peer's end only that makes the transport let go.
            self.transport.resumeProducing()

    def closeWrite(self) -> None:
        """
        Close the writing half: the peer comes to the end of the data after
        what was taken.  Writes fail with L{WriteClosed}, those that wait too.
        """
        if self._writeError is None:
            self._endWrites(WriteClosed())
            self.transport.loseWriteConnection()

    def localAddr(self) -> IAddress:
        """
        @return: this end's L{StreamAddress<gomux.StreamAddress>}.
        """
        return self._local

    def remoteAddr(self) -> IAddress:
        """
        @return: the other end's L{StreamAddress<gomux.StreamAddress>}.
        """
        return self._remote

    def setDeadline(self, time: float | None) -> None:
        """
        The same as both L{setReadDeadline} and L{setWriteDeadline}.

        @param time: in seconds of the reactor's clock; C{None} for never.
        """
        self.setReadDeadline(time)
        self.setWriteDeadline(time)

    def setReadDeadline(self, time: float | None) -> None:
        """
        From some time on have reads fail with L{DeadlineExceeded}, those that
        wait then too, until a later deadline is set.

        @param time: in seconds of the reactor's clock; C{None} for never.
        """
        self._readDeadline.set(time)

    def setWriteDeadline(self, time: float | None) -> None:
        """
        From some time on have writes fail with L{DeadlineExceeded}, those that
        wait then too, until a later deadline is set.

        @param time: in seconds of the reactor's clock; C{None} for never.
        """
        self._writeDeadline.set(time)

    # Reading

    def _take(self, size: int) -> bytes:
        rest, start = self._rest, self._offset
        end = start + size
        if end < len(rest):
            if self._inPlace:
                self._offset = end
            else:
                self._rest = rest[end:]
            return rest[start:end]
        self._rest = b""
        self._offset = 0
        return rest[start:] if start else rest

    def _pauseUnlessRead(self) -> None:
        if not self._reads and not self._readEnded:
            self.transport.pauseProducing()

    def _cancelRead(self, read: _PendingRead) -> None:
        self._reads.remove(read)
        self._pauseUnlessRead()

    def _readsExpired(self) -> None:
        reads, self._reads = self._reads, deque()
        for read in reads:
            read.result.errback(DeadlineExceeded())
        self._pauseUnlessRead()

    def _endReads(self, error: GomuxError | None) -> None:
        """
        @param error: why there is no more to read; C{None} if that is all.
        """
        self._readEnded = True
        self._readError = error
        reads, self._reads = self._reads, deque()
        for read in reads:
            if error is None:
                read.result.callback(b"")
            else:
                read.result.errback(copy(error))

    # Writing

    def _writeMore(self) -> None:
        """
        Give the transport data until it wants no more.
        """
        while self._writes and not self._full:
            write = self._writes[0]
            piece = write.data[write.written : write.written + WRITE_SIZE]
            write.written += len(piece)
            self.transport.write(piece)
            if write.written == len(write.data):
                self._writes.popleft()
                write.result.callback(write.written)

    def _failWrites(self, error: GomuxError) -> None:
        writes, self._writes = self._writes, deque()
        for write in writes:
            own = copy(error)
            own.written = write.written
            write.result.errback(own)

    def _writesExpired(self) -> None:
        self._failWrites(DeadlineExceeded())

    def _endWrites(self, error: GomuxError) -> None:
        """
        @param error: why there can be no more writes.
        """
        self._writeError = error
        if self._goneCall is not None:
            self._goneCall.cancel()
            self._goneCall = None
        self.transport.unregisterProducer()
        self._failWrites(error)

    # Ends

    def _leave(self, error: GomuxError) -> None:
        """
        End everything on this side.
        """
        self._endReads(error)
        self._rest = b""
        self._endWrites(error)
        self._readDeadline.stop()
        self._writeDeadline.stop()

    def muxClosing(self) -> None:
        """
        Our own side closes the mux, and this stream next.  Called by the
        session.
        """
        if not self._closed:
            self._closed = True
            self._leave(ConnectionClosed())

    def muxLost(self, error: GomuxError) -> None:
        """
        The mux is gone, but some data has not been read yet.  Called by the
        session.
        """
        if not self._closed:
            self._endWrites(error)

    # IPushProducer

    def pauseProducing(self) -> None:
        """
        The transport has enough.
        """
        self._full = True

    def resumeProducing(self) -> None:
        """
        The transport takes data again.
        """
        self._full = False
        self._writeMore()

    def stopProducing(self) -> None:
        """
        The transport will never take any more.

        Most of what can be the cause is told at once by another method.  Only
        where there is data to be read ahead of the peer's CloseStream does
        C{connectionLost} wait for that, but those who write must not.
        """
        self._full = True
        if not self.transport.disconnecting:
            self._goneCall = self._clock.callLater(0, self._peerGone)

    def _peerGone(self) -> None:
        self._goneCall = None
        aborted = self.transport.peerAborts
        self._endWrites(PeerAbortedStream() if aborted else PeerClosedStream())

    # IProtocol and IHalfCloseableProtocol

    def connectionMade(self) -> None:
        """
        Wait until somebody reads.
        """
        # A transport that is gone may not know its addresses any more.
        self._local = self.transport.getHost()
        self._remote = self.transport.getPeer()
        self.transport.pauseProducing()
        self.transport.registerProducer(self, True)
        self._made(self)

    def dataReceived(self, data: bytes) -> None:
        """
        Serve those who wait; it is not called while nobody does.
        """
        if self._readEnded:
            return
        self._rest = data
        self._offset = 0
        while self._reads and self._rest:
            read = self._reads.popleft()
            read.result.callback(self._take(read.size))
        self._pauseUnlessRead()

    def readConnectionLost(self) -> None:
        """
        The peer has finished writing.
        """
        if not self._readEnded:
            self._endReads(None)

    def writeConnectionLost(self) -> None:
        """
        The writing half is closed, by the peer if not by us.
        """
        if self._writeError is None:
            self._endWrites(WriteClosed())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The stream is gone.
        """
        self._lost(self)
        error = reason.value
        if not isinstance(error, GomuxError):
            error = StreamClosed()
        if not self._readEnded:
            self._endReads(None if isinstance(error, PeerClosedStream) else error)
        # StreamClosed, where we did not close, is the end of the second half.
        if not self._closed and not isinstance(error, StreamClosed):
            self._endWrites(error)
        self._readDeadline.stop()
        self._writeDeadline.stop()
