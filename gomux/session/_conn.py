# -*- test-case-name: gomux.test.session.test_conn -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
One stream of a L{gomux.Session}.  Its calls return Deferreds to await.

Input: the transport is paused except while a read waits.  Unread data stays in the
stream and earns the peer no credit, so the peer can send no more than the stream's
window.  A L{Conn} itself keeps at most the rest of one frame, which is counted.

Output: the transport pauses the L{Conn} when it has enough.  Data that it has not taken
stays with the calls of L{Conn.write} that wait.
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
from gomux._mux.keeping import Keeping
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
from gomux.session._backlog import takeEach
from gomux.session._deadline import Deadline
from gomux.session._pending import READ_SIZE, WRITE_SIZE, PendingRead, PendingWrite


@implementer(IHalfCloseableProtocol, IPushProducer)
class Conn(Keeping, Protocol):
    """
    One stream, which the Go package calls a C{Stream}.

    Made by L{Session.openStream<gomux.Session.openStream>} and
    L{Session.acceptStream<gomux.Session.acceptStream>}.

    Every Deferred can be cancelled.  That loses no received data, and the stream
    stays open.

    @ivar _clock: the reactor.
    @ivar _made: see L{__init__}.
    @ivar _lost: see L{__init__}.
    @ivar _rest: the data of the last frame, until all of it is read.
    @ivar _offset: how many bytes of C{_rest} were read.
    @ivar _inPlace: whether a partial read moves C{_offset}.  If not, it cuts C{_rest}.
    @ivar _reads: the reads that wait, the oldest first.
    @ivar _writes: the writes that wait, the oldest first.
    @ivar _readEnded: whether there is no more to read.
    @ivar _readError: the error of later reads; C{None} if they return C{b""}.
    @ivar _writeError: the error of later writes; C{None} while writing is possible.
    @ivar _full: whether the transport has paused this producer.
    @ivar _closed: whether this side has closed the stream or its mux.
    @ivar _goneCall: the delayed call that ends the writes after the peer has ended
        the stream.
    @ivar _readDeadline: the time after which reads fail.
    @ivar _writeDeadline: the time after which writes fail.
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
        @param made: called when the stream is open.
        @param lost: called when the stream is gone.
        """
        self._clock = clock
        self._made = made
        self._lost = lost
        self._rest = b""
        self._offset = 0
        self._inPlace = fastPaths().restsInPlace
        self._reads: deque[PendingRead] = deque()
        self._writes: deque[PendingWrite] = deque()
        self._readEnded = False
        self._readError: GomuxError | None = None
        self._writeError: GomuxError | None = None
        self._full = self._closed = False
        self._goneCall: IDelayedCall | None = None
        self._readDeadline = Deadline(clock, self._readsExpired)
        self._writeDeadline = Deadline(clock, self._writesExpired)

    def __repr__(self) -> str:
        return f"<Conn over {self.transport!r}>"

    @property
    def unread(self) -> int:
        """
        How many received bytes were not read yet.
        """
        return len(self._rest) - self._offset + self.transport.unread

    @property
    def service(self) -> str | None:
        """
        The name of the service that the stream is for; C{None} for none.
        """
        return self.transport.service

    # The methods of the Go package

    def read(self, size: int = READ_SIZE) -> Deferred[bytes]:
        """
        Read some data, as soon as there is any.

        Calls that wait at the same time are served in order.

        @param size: the most to read, in bytes, at least 1.
        @return: the data.  At EOF it is C{b""}: the peer has closed its writing
            half or the stream, or this side its reading half.  After an abort by
            the peer or the loss of the mux, it fails with the reason once all
            data has been read.  It fails at once with L{StreamClosed} or
            L{ConnectionClosed} after this side has closed the stream or the
            session, and with L{DeadlineExceeded} after the deadline.
        @raise ValueError: if C{size} is less than 1.
        """
        if size < 1:
            raise ValueError(f"cannot read {size} bytes")
        if self._readDeadline.passed:
            return fail(DeadlineExceeded())
        if self._rest and not self._reads:
            return succeed(self._take(size))
        if self._readEnded:
            error = self._readError
            return succeed(b"") if error is None else fail(copy(error))
        read = PendingRead(size, Deferred(lambda _: self._cancelRead(read)))
        self._reads.append(read)
        self.transport.resumeProducing()
        return read.result

    def write(self, data: bytes | bytearray | memoryview) -> Deferred[int]:
        """
        Write some data.

        Calls that wait at the same time are served in order.

        @param data: the data.
        @return: the size of the data, once the mux has taken all of it.  The mux
            buffers at most about 128 KiB while the peer's window is used up.
            Fails with L{WriteClosed}, L{PeerClosedStream},
            L{PeerAbortedStream}, L{StreamClosed}, L{DeadlineExceeded} or the
            reason why the mux ended.  The C{written} of the error is how many
            bytes of the data the mux had taken.
        @raise TypeError: if C{data} is text.
        """
        if isinstance(data, str):
            raise TypeError("Data must be bytes, not str")
        if self._writeError is not None:
            return fail(copy(self._writeError))
        if self._writeDeadline.passed:
            return fail(DeadlineExceeded())
        result: Deferred[int] = Deferred(lambda _: self._writes.remove(write))
        write = PendingWrite(bytes(data), result)
        self._writes.append(write)
        self._writeMore()
        return write.result

    def close(self) -> None:
        """
        Close the stream.  Data that the mux has taken is still sent, unread data is
        dropped, and calls that wait fail with L{StreamClosed}.

        It is legal to call this again, or after the peer has closed the stream.
        """
        if not self._closed:
            self._closed = True
            self._leave(StreamClosed())
            self.transport.loseConnection()

    def closeRead(self) -> None:
        """
        Close the reading half.  Unread data is dropped, reads return C{b""}, and
        the peer is told to send no more.
        """
        if not self._closed:
            self._endReads(None)
            self._take(len(self._rest))
            self.transport.loseReadConnection()
            # After the peer's EOF, only a resumed transport ends the stream.
            self.transport.resumeProducing()

    def closeWrite(self) -> None:
        """
        Close the writing half.  The peer reads the data that the mux has taken,
        then EOF.  Writes fail with L{WriteClosed}, also those that wait.
        """
        if self._writeError is None:
            self._endWrites(WriteClosed())
            self.transport.loseWriteConnection()

    def localAddr(self) -> IAddress:
        """
        @return: this end's L{StreamAddress<gomux.StreamAddress>}.
        """
        return self.transport.getHost()

    def remoteAddr(self) -> IAddress:
        """
        @return: the other end's L{StreamAddress<gomux.StreamAddress>}.
        """
        return self.transport.getPeer()

    def setDeadline(self, time: float | None) -> None:
        """
        Set the read deadline and the write deadline.

        @param time: the deadline, in seconds of the reactor's clock; C{None} for
            never.
        """
        self.setReadDeadline(time)
        self.setWriteDeadline(time)

    def setReadDeadline(self, time: float | None) -> None:
        """
        Set the time from which reads fail with L{DeadlineExceeded}, also reads that
        wait then.  A later deadline lets reads work again.

        @param time: as for L{setDeadline}.
        """
        self._readDeadline.set(time)

    def setWriteDeadline(self, time: float | None) -> None:
        """
        Set the time from which writes fail with L{DeadlineExceeded}, also writes that
        wait then.  A later deadline lets writes work again.

        @param time: as for L{setDeadline}.
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
        if self.kept:
            self.keep(self.transport, 0)
        return rest[start:] if start else rest

    def _pauseUnlessRead(self) -> None:
        if not self._reads and not self._readEnded:
            self.transport.pauseProducing()

    def _cancelRead(self, read: PendingRead) -> None:
        self._reads.remove(read)
        self._pauseUnlessRead()

    def _readsExpired(self) -> None:
        for read in takeEach(self._reads):
            read.result.errback(DeadlineExceeded())
        self._pauseUnlessRead()

    def _endReads(self, error: GomuxError | None) -> None:
        """
        @param error: the error of reads; C{None} for EOF.
        """
        self._readEnded = True
        self._readError = error
        for read in takeEach(self._reads):
            if error is None:
                read.result.callback(b"")
            else:
                read.result.errback(copy(error))

    # Writing

    def _writeMore(self) -> None:
        """
        Write data to the transport until it pauses us or no data is left.
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
        for write in takeEach(self._writes):
            own = copy(error)
            own.written = write.written
            write.result.errback(own)

    def _writesExpired(self) -> None:
        self._failWrites(DeadlineExceeded())

    def _endWrites(self, error: GomuxError) -> None:
        """
        @param error: the error of writes.
        """
        self._writeError = error
        if self._goneCall is not None:
            self._goneCall.cancel()
            self._goneCall = None
        self.transport.unregisterProducer()
        self._failWrites(error)

    # The end of the stream

    def _leave(self, error: GomuxError) -> None:
        """
        End reads, writes and deadlines, because this side closes the stream.
        """
        self._endReads(error)
        self._take(len(self._rest))
        self._endWrites(error)
        self._readDeadline.stop()
        self._writeDeadline.stop()

    def muxClosing(self) -> None:
        """
        This side closes the mux, which will close this stream.  Called by the
        session.
        """
        if not self._closed:
            self._closed = True
            self._leave(ConnectionClosed())

    def muxLost(self, error: GomuxError) -> None:
        """
        The mux is gone, but this stream has unread data.  Called by the session.
        """
        if not self._closed:
            self._endWrites(error)

    # IPushProducer

    def pauseProducing(self) -> None:
        """
        The transport's buffer is full: write no more.
        """
        self._full = True

    def resumeProducing(self) -> None:
        """
        The transport has room again: write the data that waits.
        """
        self._full = False
        self._writeMore()

    def stopProducing(self) -> None:
        """
        The transport will take no more data.

        In most cases another method gives the reason in this reactor turn.  One
        case is different: unread data ahead of the peer's CloseStream delays
        C{connectionLost} until it is read.  Writes must fail without that delay.
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
        The stream is open.  Pause it until the first read.
        """
        self.transport.pauseProducing()
        self.transport.registerProducer(self, True)
        self._made(self)

    def dataReceived(self, data: bytes) -> None:
        """
        Give data to the reads that wait.  The transport is paused while no read
        waits, so there is at least one.
        """
        if self._readEnded:
            return
        self._rest, self._offset = data, 0
        while self._reads and self._rest:
            read = self._reads.popleft()
            read.result.callback(self._take(read.size))
        if self._rest:
            self.keep(self.transport, len(self._rest))
        self._pauseUnlessRead()

    def readConnectionLost(self) -> None:
        """
        The peer has closed its writing half: reads get EOF.
        """
        if not self._readEnded:
            self._endReads(None)

    def writeConnectionLost(self) -> None:
        """
        The writing half is closed, by this side or by the peer.
        """
        if self._writeError is None:
            self._endWrites(WriteClosed())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The stream is gone.
        """
        self._lost(self)
        self.keep(self.transport, 0)
        error = reason.value if isinstance(reason.value, GomuxError) else StreamClosed()
        if not self._readEnded:
            self._endReads(None if isinstance(error, PeerClosedStream) else error)
        # If this side has not closed the stream, StreamClosed means that both halves
        # were closed one by one, and writes have already failed with WriteClosed.
        if not self._closed and not isinstance(error, StreamClosed):
            self._endWrites(error)
        self._readDeadline.stop()
        self._writeDeadline.stop()
