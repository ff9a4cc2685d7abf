# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux.session._conn}, with both ends in memory.
"""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from gomux._mux.address import StreamAddress
from gomux._mux.factory import MuxFactory
from gomux._mux.sender import HIGH_WATER
from gomux._wire.frame import Flag
from gomux._wire.window import INITIAL_WINDOW
from gomux.error import (
    AuthenticationFailed,
    ConnectionClosed,
    DeadlineExceeded,
    GomuxError,
    PeerAbortedStream,
    PeerClosedConnection,
    PeerClosedStream,
    StreamClosed,
    Truncated,
    WriteClosed,
)
from gomux.session._conn import Conn
from gomux.session._session import _SessionFactory
from gomux.test.support.helpers import Parts
from gomux.test.support.sessionpair import LARGE, SessionPair
from gomux.testing import PSK, MuxPair

_T = TypeVar("_T")


class ConnTestCase(SynchronousTestCase):
    """
    Provides an open stream with a Conn at each end.
    """

    def setUp(self) -> None:
        self.both = SessionPair()
        self.both.open()
        self.here, self.there = self.both.here, self.both.there
        self.flush = self.both.pair.flush
        self.clock = self.both.clock

    def after(self, deferred: Deferred[_T]) -> _T:
        """
        Let everything in flight arrive.

        @return: the result.
        """
        self.flush()
        return self.successResultOf(deferred)

    def error(self, deferred: Deferred[Any], kind: type[GomuxError]) -> GomuxError:
        """
        @return: the error of a failed Deferred, which must be of exactly this
            class.
        """
        self.flush()
        error = self.failureResultOf(deferred).value
        self.assertIs(type(error), kind)
        assert isinstance(error, GomuxError)
        return error

    def readAll(self, conn: Conn) -> bytes:
        """
        @return: all data up to EOF.
        """

        async def read() -> bytes:
            data = b""
            while piece := await conn.read():
                data += piece
            return data

        return self.after(Deferred.fromCoroutine(read()))

    def readSome(self, conn: Conn, size: int) -> bytes:
        """
        @return: this many bytes, joined from reads of any size.
        """

        async def read() -> bytes:
            data = b""
            while len(data) < size:
                data += await conn.read(size - len(data))
            return data

        return self.after(Deferred.fromCoroutine(read()))

    def fill(self, conn: Conn) -> Deferred[int]:
        """
        Write more than the window and the buffers take while the peer does not read.

        @return: the write that waits.
        """
        writing = conn.write(LARGE)
        self.flush()
        self.assertNoResult(writing)
        return writing


class InterfaceTests(ConnTestCase):
    """
    The interfaces, text and addresses of a Conn.
    """

    def test_interfaces(self) -> None:
        """
        A Conn provides the interfaces that it declares.
        """
        verifyObject(IHalfCloseableProtocol, self.here)
        verifyObject(IPushProducer, self.here)

    def test_repr(self) -> None:
        """
        The text of a Conn names its stream, also before it is connected.
        """
        self.assertIn("Stream 0", repr(self.here))
        conn = Conn(self.clock, lambda conn: None, lambda conn: None)
        self.assertIn("None", repr(conn))

    def test_addresses(self) -> None:
        """
        Both ends know both addresses, also after the stream has ended.
        """
        for _ in range(2):
            self.assertEqual(self.here.localAddr(), self.there.remoteAddr())
            self.assertEqual(self.here.remoteAddr(), self.there.localAddr())
            self.assertEqual(
                self.here.remoteAddr(), StreamAddress(self.both.client.remoteAddr(), 0)
            )
            self.both.pair.loseCarrier()
            self.flush()


class ReadTests(ConnTestCase):
    """
    L{Conn.read}
    """

    def test_waits(self) -> None:
        """
        A read waits for data, and returns all of it up to its size.
        """
        reading = self.there.read()
        self.flush()
        self.assertNoResult(reading)
        self.here.write(b"hello")
        self.assertEqual(self.after(reading), b"hello")

    def test_size(self) -> None:
        """
        A read returns at most its size, and the next read the rest.
        """
        self.here.write(b"hello")
        self.assertEqual(self.after(self.there.read(2)), b"he")
        self.assertEqual(self.successResultOf(self.there.read(2)), b"ll")
        self.assertEqual(self.successResultOf(self.there.read(2)), b"o")
        self.assertNoResult(self.there.read(2))

    def test_nonsense(self) -> None:
        """
        A read of 0 bytes is refused: its result would look like EOF.
        """
        self.assertRaises(ValueError, self.here.read, 0)
        self.assertRaises(ValueError, self.here.read, -1)

    def test_order(self) -> None:
        """
        Several reads are served in the order of the calls.
        """
        reads = [self.there.read(size) for size in (1, 2, 3)]
        self.here.write(b"abc")
        self.flush()
        self.here.write(b"def")
        self.flush()
        self.assertEqual(
            [self.successResultOf(read) for read in reads], [b"a", b"bc", b"def"]
        )

    def test_again(self) -> None:
        """
        A read made in the callback of another read is served after the reads that
        already waited.
        """
        got: list[bytes] = []

        async def twice(size: int) -> None:
            got.append(await self.there.read(size))
            got.append(await self.there.read(size))

        both = [Deferred.fromCoroutine(twice(size)) for size in (1, 2)]
        self.here.write(b"abbccc")
        self.flush()
        self.assertEqual(got, [b"a", b"bb", b"c", b"cc"])
        for one in both:
            self.successResultOf(one)

    def test_cancelSiblings(self) -> None:
        """
        When reads or writes end together, the callback of the first can cancel the
        others.
        """

        def end() -> None:
            self.here.transport.abortConnection()

        def expire() -> None:
            self.there.setDeadline(self.clock.seconds() + 1)
            self.both.pair.advance(1.5)

        for cause in (expire, end):
            reads: list[Deferred[Any]] = [self.there.read() for _ in range(3)]
            writes: list[Deferred[Any]] = [self.there.write(LARGE) for _ in range(3)]
            for calls in (reads, writes):
                calls[0].addErrback(self.cancelAll, calls[1:])
            self.flush()
            cause()
            self.flush()
            for calls in (reads, writes):
                self.successResultOf(calls[0])
                self.failureResultOf(calls[1], CancelledError)
                self.failureResultOf(calls[2], CancelledError)
            self.there.setDeadline(None)

    def cancelAll(self, failure: object, calls: list[Deferred[Any]]) -> None:
        """
        Cancel calls, as a group of workers does when the first fails.
        """
        for call in calls:
            call.cancel()

    def test_readAgain(self) -> None:
        """
        A read that is made when another has met its deadline, with a later deadline,
        does not fail with it.
        """
        again: list[Deferred[bytes]] = []

        def expired(failure: object) -> None:
            self.there.setReadDeadline(None)
            again.append(self.there.read())

        self.there.read().addErrback(expired)
        self.there.setReadDeadline(self.clock.seconds() + 1)
        self.both.pair.advance(1.5)
        self.assertNoResult(again[0])
        self.here.write(b"abc")
        self.assertEqual(self.after(again[0]), b"abc")

    def test_cancel(self) -> None:
        """
        The data of a cancelled read goes to the next read.
        """
        first, second = self.there.read(3), self.there.read(3)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.here.write(b"abc")
        self.assertEqual(self.after(second), b"abc")
        last = self.there.read()
        last.cancel()
        self.failureResultOf(last, CancelledError)
        self.here.write(b"def")
        self.flush()
        self.assertEqual(self.after(self.there.read()), b"def")

    def test_integrity(self) -> None:
        """
        Much data arrives unchanged, in reads of any size.
        """
        writing = self.here.write(LARGE)
        writing.addCallback(lambda _: self.here.closeWrite())

        async def read() -> bytes:
            data, size = [], 1
            while piece := await self.there.read(size):
                data.append(piece)
                size = size * 7 % 70001
            return b"".join(data)

        self.assertEqual(self.after(Deferred.fromCoroutine(read())), LARGE)
        self.successResultOf(writing)


class WriteTests(ConnTestCase):
    """
    L{Conn.write}
    """

    def test_writeText(self) -> None:
        """
        Text cannot be written, whatever the state of the stream.
        """
        text: Any = "text"
        self.assertRaises(TypeError, self.here.write, text)
        self.here.close()
        self.assertRaises(TypeError, self.here.write, text)

    def test_result(self) -> None:
        """
        A write returns the size of the data.
        """
        self.assertEqual(self.successResultOf(self.here.write(b"hello")), 5)
        self.assertEqual(self.successResultOf(self.here.write(b"")), 0)
        self.assertEqual(self.successResultOf(self.here.write(bytearray(b"abc"))), 3)
        self.assertEqual(self.after(self.there.read()), b"helloabc")

    def test_text(self) -> None:
        """
        Text is refused.
        """
        self.assertRaises(TypeError, self.here.write, "hello")

    def test_backpressure(self) -> None:
        """
        A write waits while the peer does not read.  Meanwhile only little data is
        buffered.
        """
        writing = self.fill(self.here)
        self.assertLessEqual(self.here.transport.unsent, HIGH_WATER + 65536)
        self.assertEqual(self.here.transport.sendWindow, 0)
        self.assertEqual(self.there.transport.unread, INITIAL_WINDOW)
        self.assertEqual(self.there.unread, INITIAL_WINDOW)
        self.assertEqual(self.readSome(self.there, len(LARGE)), LARGE)
        self.assertEqual(self.successResultOf(writing), len(LARGE))

    def test_partialRead(self) -> None:
        """
        A read of one byte lets the writer send at most the rest of that frame.
        """
        self.fill(self.here)
        self.assertEqual(self.after(self.there.read(1)), LARGE[:1])
        unread = self.there.unread
        self.assertLess(unread - self.there.transport.unread, 65536)
        self.assertLess(unread, INITIAL_WINDOW + 65536)

    def test_otherStreams(self) -> None:
        """
        While one stream is blocked, other streams go on.
        """
        self.fill(self.here)
        before = self.here, self.there
        self.both.open()
        self.assertIsNot(self.both.here, before[0])
        self.both.here.write(b"hello")
        self.assertEqual(self.after(self.both.there.read()), b"hello")

    def test_order(self) -> None:
        """
        Several writes are sent in the order of the calls.
        """
        first = self.fill(self.here)
        second = self.here.write(b"second")
        third = self.here.write(b"third")
        self.assertNoResult(second)
        expected = LARGE + b"secondthird"
        self.assertEqual(self.readSome(self.there, len(expected)), expected)
        self.assertEqual(self.successResultOf(first), len(LARGE))
        self.assertEqual(self.successResultOf(second), 6)
        self.assertEqual(self.successResultOf(third), 5)

    def test_cancel(self) -> None:
        """
        A cancelled write drops the data that the mux has not taken.  Other writes go
        on.
        """
        first = self.fill(self.here)
        second, third = self.here.write(b"second"), self.here.write(b"third")
        second.cancel()
        self.failureResultOf(second, CancelledError)
        taken = INITIAL_WINDOW + self.here.transport.unsent
        first.cancel()
        self.failureResultOf(first, CancelledError)
        expected = LARGE[:taken] + b"third"
        self.assertEqual(self.readSome(self.there, len(expected)), expected)
        self.assertEqual(self.successResultOf(third), 5)
        reading = self.there.read()
        self.flush()
        self.assertNoResult(reading)

    def test_endless(self) -> None:
        """
        A writer that never stops is paused before the peer reads anything.
        """

        async def write() -> None:
            while True:
                await self.here.write(bytes(1000))

        writing = Deferred.fromCoroutine(write())
        self.assertNoResult(writing)
        self.here.close()
        self.failureResultOf(writing, StreamClosed)


class CloseTests(ConnTestCase):
    """
    L{Conn.close} on either side.
    """

    def test_own(self) -> None:
        """
        After our close, calls that wait and later calls fail with StreamClosed.
        """
        reading, writing = self.here.read(), self.fill(self.here)
        self.here.close()
        self.failureResultOf(reading, StreamClosed)
        error = self.failureResultOf(writing, StreamClosed).value
        self.assertGreaterEqual(error.written, INITIAL_WINDOW)
        self.assertLess(error.written, len(LARGE))
        self.failureResultOf(self.here.read(), StreamClosed)
        self.failureResultOf(self.here.write(b"x"), StreamClosed)
        self.here.close()
        self.here.closeRead()
        self.here.closeWrite()
        self.assertEqual(self.readAll(self.there), LARGE[: error.written])
        self.error(self.here.read(), StreamClosed)
        self.error(self.here.write(b""), StreamClosed)

    def test_ownUnread(self) -> None:
        """
        Our close drops unread data.
        """
        self.there.write(b"hello")
        self.assertEqual(self.after(self.here.read(1)), b"h")
        self.here.close()
        self.error(self.here.read(), StreamClosed)

    def test_peer(self) -> None:
        """
        After the peer's close, reads return the data before it and then EOF, and a
        write fails with PeerClosedStream.
        """
        self.there.write(b"hello")
        self.there.close()
        self.flush()
        self.error(self.here.write(b"x"), PeerClosedStream)
        self.assertEqual(self.readAll(self.here), b"hello")
        self.assertEqual(self.after(self.here.read()), b"")
        self.error(self.here.write(b"x"), PeerClosedStream)
        self.here.close()
        self.assertEqual(self.both.pair.client.streamCount, 0)
        self.assertEqual(self.both.pair.server.streamCount, 0)

    def test_peerRest(self) -> None:
        """
        The rest of a frame that was read in part can be read after the peer's close.
        """
        self.there.write(b"hello")
        self.there.closeWrite()
        self.there.close()
        self.assertEqual(self.after(self.here.read(2)), b"he")
        self.assertEqual(self.after(self.here.read(2)), b"ll")
        self.assertEqual(self.after(self.here.read(2)), b"o")
        self.assertEqual(self.after(self.here.read(2)), b"")

    def test_peerWaiting(self) -> None:
        """
        The peer's close ends calls that wait.
        """
        reading, writing = self.here.read(), self.fill(self.here)
        self.there.close()
        self.assertEqual(self.after(reading), b"")
        error = self.error(writing, PeerClosedStream)
        self.assertGreaterEqual(error.written, INITIAL_WINDOW)

    def test_peerUnread(self) -> None:
        """
        The peer's close fails a write that waits, even while there is unread data.
        """
        self.there.write(b"hello")
        self.flush()
        writing = self.fill(self.here)
        second = self.here.write(b"second")
        self.there.close()
        self.error(writing, PeerClosedStream)
        self.assertEqual(self.error(second, PeerClosedStream).written, 0)
        self.assertEqual(self.readAll(self.here), b"hello")

    def test_peerAborts(self) -> None:
        """
        An abort by the peer is not EOF: reads return the data before it and then fail,
        and a write fails.
        """
        self.there.write(b"half of")
        self.flush()
        self.there.transport.abortConnection()
        self.flush()
        self.error(self.here.write(b"x"), PeerAbortedStream)
        self.assertEqual(self.after(self.here.read()), b"half of")
        self.error(self.here.read(), PeerAbortedStream)
        self.error(self.here.write(b"x"), PeerAbortedStream)

    def test_peerAbortsWaiting(self) -> None:
        """
        An abort by the peer fails the calls that wait.
        """
        reading, writing = self.here.read(), self.fill(self.here)
        self.there.transport.abortConnection()
        self.error(reading, PeerAbortedStream)
        self.error(writing, PeerAbortedStream)

    def test_peerBeforeClose(self) -> None:
        """
        Our close after the peer's close drops unread data, and the stream is gone.
        """
        self.there.write(b"hello")
        self.there.close()
        self.flush()
        self.assertEqual(self.both.client.connCount, 1)
        self.here.close()
        self.error(self.here.read(), StreamClosed)
        self.assertEqual(self.both.client.connCount, 0)

    def test_errorsApart(self) -> None:
        """
        Each call fails with an error object of its own.
        """
        reads = [self.here.read(), self.here.read()]
        self.here.close()
        reads.append(self.here.read())
        errors = {id(self.failureResultOf(read).value) for read in reads}
        self.assertEqual(len(errors), 3)


class HalfCloseTests(ConnTestCase):
    """
    L{Conn.closeRead} and L{Conn.closeWrite}
    """

    def test_closeWrite(self) -> None:
        """
        After C{closeWrite} the peer reads up to EOF, and the other direction goes on.
        """
        self.here.write(b"request")
        self.here.closeWrite()
        self.here.closeWrite()
        self.assertEqual(self.readAll(self.there), b"request")
        self.error(self.here.write(b"x"), WriteClosed)
        self.there.write(b"response")
        self.there.close()
        self.assertEqual(self.readAll(self.here), b"response")
        self.error(self.there.read(), StreamClosed)

    def test_closeWriteWaiting(self) -> None:
        """
        C{closeWrite} fails the writes that wait, and the data that the mux had taken is
        sent.
        """
        writing = self.fill(self.here)
        self.here.closeWrite()
        error = self.failureResultOf(writing, WriteClosed).value
        self.assertEqual(self.readAll(self.there), LARGE[: error.written])

    def test_closeRead(self) -> None:
        """
        After C{closeRead} the peer cannot write and our reads return EOF.  The other
        direction goes on.
        """
        self.there.write(b"unread")
        reading = self.here.read(1)
        self.assertEqual(self.after(reading), b"u")
        writing = self.fill(self.there)
        reading.addCallback(lambda _: self.here.read())
        self.here.closeRead()
        self.here.closeRead()
        self.assertEqual(self.after(self.here.read()), b"")
        self.error(writing, WriteClosed)
        self.error(self.there.write(b"x"), WriteClosed)
        self.here.write(b"hello")
        self.assertEqual(self.after(self.there.read()), b"hello")

    def test_closeReadWaiting(self) -> None:
        """
        C{closeRead} gives EOF to reads that wait.
        """
        reading = self.here.read()
        self.here.closeRead()
        self.assertEqual(self.successResultOf(reading), b"")

    def test_closeReadAfterEnd(self) -> None:
        """
        C{closeRead} after the peer's close drops unread data.
        """
        self.there.write(b"hello")
        self.there.close()
        self.flush()
        self.here.closeRead()
        self.assertEqual(self.after(self.here.read()), b"")
        self.assertEqual(self.both.client.connCount, 0)

    def test_both(self) -> None:
        """
        With both halves closed, the stream is gone on both sides.  A read still returns
        EOF, and a write still fails with WriteClosed.
        """
        self.here.closeWrite()
        self.there.closeWrite()
        for conn in (self.here, self.there):
            self.assertEqual(self.after(conn.read()), b"")
            self.error(conn.write(b"x"), WriteClosed)
        for mux in (self.both.pair.client, self.both.pair.server):
            self.assertEqual(mux.streamCount, 0)
        self.assertEqual(self.both.client.connCount, 0)
        self.assertEqual(self.both.server.connCount, 0)

    def test_eitherHalf(self) -> None:
        """
        One side can close both halves by itself.
        """
        self.here.write(b"hello")
        self.here.closeRead()
        self.here.closeWrite()
        self.assertEqual(self.readAll(self.there), b"hello")
        self.error(self.there.write(b"x"), WriteClosed)
        self.assertEqual(self.after(self.here.read()), b"")
        self.error(self.here.write(b"x"), WriteClosed)


class MuxEndTests(ConnTestCase):
    """
    How calls of a Conn fail when the mux ends.
    """

    def test_ownClose(self) -> None:
        """
        When this side closes the mux, all calls fail with ConnectionClosed at once.
        """
        self.there.write(b"unread")
        self.flush()
        writing = self.fill(self.here)
        closing = self.both.client.close()
        self.failureResultOf(writing, ConnectionClosed)
        self.failureResultOf(self.here.read(), ConnectionClosed)
        self.failureResultOf(self.here.write(b"x"), ConnectionClosed)
        self.assertNoResult(closing)
        reading = self.both.server.acceptStream()
        self.assertEqual(len(self.readAll(self.there)), 2 * INITIAL_WINDOW)
        self.successResultOf(closing)
        self.error(reading, PeerClosedConnection)
        self.here.close()
        self.error(self.here.read(), ConnectionClosed)

    def test_ownCloseSends(self) -> None:
        """
        Data taken before this side closes the mux arrives.
        """
        self.here.write(b"hello")
        closing = self.both.client.close()
        self.assertEqual(self.readAll(self.there), b"hello")
        self.successResultOf(closing)
        self.error(self.there.write(b"x"), PeerClosedStream)

    def test_peerCloses(self) -> None:
        """
        A stream opened too late for the peer to close it ends with
        PeerClosedConnection.
        """
        self.both.server.close()
        here = self.successResultOf(self.both.client.openStream())
        self.flush()
        self.error(here.write(b"x"), PeerClosedConnection)
        self.error(self.both.client.openStream(), PeerClosedConnection)

    def goCloses(self) -> None:
        """
        Close the mux as the Go package does: without closing its streams first.
        """
        server = self.both.pair.server
        scheduler = Parts(server).scheduler
        scheduler.control(0, Flag.CLOSE_MUX)
        scheduler.finish()
        server.getCarrier().loseConnection()

    def test_goCloses(self) -> None:
        """
        If CloseMux comes before the streams are closed, the data before it can be
        read.  Then calls fail with PeerClosedConnection.
        """
        writing = self.fill(self.here)
        reading = self.here.read()
        self.goCloses()
        self.error(writing, PeerClosedConnection)
        self.error(reading, PeerClosedConnection)
        self.error(self.here.read(), PeerClosedConnection)
        self.error(self.here.write(b"x"), PeerClosedConnection)
        self.here.close()

    def test_goClosesUnread(self) -> None:
        """
        If CloseMux comes before the streams are closed, writes fail even while there is
        unread data.
        """
        self.there.write(b"hello")
        self.flush()
        writing = self.fill(self.here)
        self.goCloses()
        self.error(writing, PeerClosedConnection)
        self.error(self.here.write(b"x"), PeerClosedConnection)
        self.assertEqual(self.after(self.here.read()), b"hello")
        self.error(self.here.read(), PeerClosedConnection)

    def test_truncated(self) -> None:
        """
        If the carrier ends without a CloseMux, the data before it can be read.  Then
        calls fail with Truncated.
        """
        self.there.write(b"hello")
        self.flush()
        self.both.pair.loseCarrier(reset=True)
        self.flush()
        self.error(self.here.write(b"x"), Truncated)
        self.assertEqual(self.after(self.here.read()), b"hello")
        self.error(self.here.read(), Truncated)
        self.error(self.both.client.openStream(), Truncated)
        self.error(self.both.client.acceptStream(), Truncated)

    def test_truncatedAfterEnd(self) -> None:
        """
        If the carrier is lost after the peer's EOF, reads still return EOF.
        """
        self.there.closeWrite()
        self.assertEqual(self.after(self.here.read()), b"")
        self.both.pair.loseCarrier()
        self.assertEqual(self.after(self.here.read()), b"")
        self.error(self.here.write(b"x"), Truncated)

    def test_authentication(self) -> None:
        """
        A frame that was changed in transit ends all calls with AuthenticationFailed.
        """
        reading = self.here.read()
        server = Parts(self.both.pair.server).scheduler._sealer
        header, tag = server.seal(0, 0, 0)
        self.both.pair.client.dataReceived(header + bytes(len(tag)))
        self.error(reading, AuthenticationFailed)
        self.error(self.here.write(b""), AuthenticationFailed)
        self.error(self.both.client.openStream(), AuthenticationFailed)

    def test_foreignReason(self) -> None:
        """
        If a stream is lost for a reason that is no GomuxError, calls still fail with a
        GomuxError.
        """
        reading = self.here.read()
        self.here.transport.abortConnection()
        self.error(reading, StreamClosed)


class DeadlineTests(ConnTestCase):
    """
    L{Conn.setDeadline}, L{Conn.setReadDeadline} and L{Conn.setWriteDeadline}
    """

    def test_kind(self) -> None:
        """
        DeadlineExceeded is a standard timeout error, and its text says so.
        """
        self.here.setDeadline(0)
        error = self.error(self.here.read(), DeadlineExceeded)
        self.assertIsInstance(error, TimeoutError)
        self.assertEqual(str(error), "The deadline has passed")
        self.assertEqual(error.written, 0)

    def test_passed(self) -> None:
        """
        After the deadline calls fail at once, even if there is data.  They work again
        without a deadline or with a later one.
        """
        self.there.write(b"hello")
        self.flush()
        self.clock.advance(10)
        self.here.setDeadline(9)
        self.failureResultOf(self.here.read(), DeadlineExceeded)
        self.failureResultOf(self.here.write(b"x"), DeadlineExceeded)
        self.here.setDeadline(None)
        self.assertEqual(self.after(self.here.read(1)), b"h")
        self.here.setDeadline(10)
        self.failureResultOf(self.here.read(), DeadlineExceeded)
        self.here.setDeadline(11)
        self.assertEqual(self.successResultOf(self.here.read()), b"ello")
        self.assertEqual(self.successResultOf(self.here.write(b"y")), 1)
        self.assertEqual(self.after(self.there.read()), b"y")

    def test_readWaiting(self) -> None:
        """
        A read that waits fails at the deadline, and the next read gets the data.
        """
        self.here.setReadDeadline(5)
        reading = self.here.read()
        self.clock.advance(4.9)
        self.assertNoResult(reading)
        self.clock.advance(0.1)
        self.failureResultOf(reading, DeadlineExceeded)
        self.there.write(b"hello")
        self.flush()
        self.here.setReadDeadline(None)
        self.assertEqual(self.after(self.here.read()), b"hello")

    def test_setWhileWaiting(self) -> None:
        """
        A new deadline applies to calls that already wait.  If it has passed, they fail
        at once.
        """
        reading = self.here.read()
        self.here.setReadDeadline(5)
        self.here.setReadDeadline(3)
        self.clock.advance(3)
        self.failureResultOf(reading, DeadlineExceeded)
        self.here.setReadDeadline(None)
        reading = self.here.read()
        self.here.setReadDeadline(2)
        self.failureResultOf(reading, DeadlineExceeded)

    def test_cleared(self) -> None:
        """
        A deadline that was cleared or moved fails no call at its old time.
        """
        reading = self.here.read()
        self.here.setReadDeadline(5)
        self.here.setReadDeadline(None)
        self.clock.advance(6)
        self.assertNoResult(reading)
        self.here.setReadDeadline(10)
        self.here.setReadDeadline(12)
        self.clock.advance(5)
        self.assertNoResult(reading)
        self.clock.advance(1)
        self.failureResultOf(reading, DeadlineExceeded)

    def test_writeWaiting(self) -> None:
        """
        A write that waits fails at the deadline, and says how much was taken.  A writer
        that continues from there loses no data.
        """
        self.here.setWriteDeadline(5)
        first = self.fill(self.here)
        second = self.here.write(b"second")
        self.clock.advance(5)
        written = self.error(first, DeadlineExceeded).written
        self.assertEqual(written, INITIAL_WINDOW + self.here.transport.unsent)
        self.assertEqual(self.error(second, DeadlineExceeded).written, 0)
        self.here.setWriteDeadline(None)
        self.here.write(LARGE[written:])
        self.assertEqual(self.readSome(self.there, len(LARGE)), LARGE)

    def test_apart(self) -> None:
        """
        Reads and writes have separate deadlines.
        """
        self.here.setReadDeadline(0)
        self.successResultOf(self.here.write(b"x"))
        self.here.setReadDeadline(None)
        self.here.setWriteDeadline(0)
        self.there.write(b"hello")
        self.assertEqual(self.after(self.here.read()), b"hello")
        self.failureResultOf(self.here.write(b"x"), DeadlineExceeded)

    def test_endFirst(self) -> None:
        """
        After the end of the stream, a write fails with the reason, even past the
        deadline.
        """
        self.here.setDeadline(0)
        self.here.close()
        self.failureResultOf(self.here.write(b"x"), StreamClosed)

    def test_noTimers(self) -> None:
        """
        A stream that is gone leaves no delayed calls and sets none.
        """

        def timers() -> int:
            return len(self.clock.getDelayedCalls())

        before = timers()
        self.here.setDeadline(1000)
        self.assertEqual(timers(), before + 2)
        self.here.close()
        self.flush()
        self.assertEqual(timers(), before)
        self.here.setDeadline(1000)
        self.assertEqual(timers(), before)
        self.there.setDeadline(1000)
        self.assertEqual(timers(), before)


class PlainPeerTests(SynchronousTestCase):
    """
    A Conn with an ordinary Twisted protocol at the other end.
    """

    def test_echo(self) -> None:
        """
        A Conn and an ordinary protocol exchange data.
        """

        class Echo(Protocol):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.write(data)

        clock = Clock()
        factory = _SessionFactory(PSK, True, 1, clock=clock)
        pair = MuxPair(
            clientFactory=factory,
            serverFactory=MuxFactory(
                PSK, False, Factory.forProtocol(Echo), clock=clock
            ),
            clock=clock,
        )

        async def talk() -> bytes:
            conn = await factory.sessionOf(pair.client).openStream()
            await conn.write(b"hello")
            data = await conn.read()
            conn.closeWrite()
            return data + await conn.read()

        talking = Deferred.fromCoroutine(talk())
        pair.flush()
        self.assertEqual(self.successResultOf(talking), b"hello")
