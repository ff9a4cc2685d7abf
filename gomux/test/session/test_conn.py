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
    With a stream that is open.
    """

    def setUp(self) -> None:
        self.both = SessionPair()
        self.both.open()
        self.here, self.there = self.both.here, self.both.there
        self.flush = self.both.pair.flush
        self.clock = self.both.clock

    def after(self, deferred: Deferred[_T]) -> _T:
        """
        @return: the result, once everything under way has arrived.
        """
        self.flush()
        return self.successResultOf(deferred)

    def error(self, deferred: Deferred[Any], kind: type[GomuxError]) -> GomuxError:
        """
        @return: the error that it failed with, which must be of the very kind.
        """
        self.flush()
        error = self.failureResultOf(deferred).value
        self.assertIs(type(error), kind)
        assert isinstance(error, GomuxError)
        return error

    def readAll(self, conn: Conn) -> bytes:
        """
        @return: all the data up to the end.
        """

        async def read() -> bytes:
            data = b""
            while piece := await conn.read():
                data += piece
            return data

        return self.after(Deferred.fromCoroutine(read()))

    def readSome(self, conn: Conn, size: int) -> bytes:
        """
        @return: so many bytes, in whatever pieces.
        """

        async def read() -> bytes:
            data = b""
            while len(data) < size:
                data += await conn.read(size - len(data))
            return data

        return self.after(Deferred.fromCoroutine(read()))

    def fill(self, conn: Conn) -> Deferred[int]:
        """
        Write more than can go with nobody reading.

        @return: what waits.
        """
        writing = conn.write(LARGE)
        self.flush()
        self.assertNoResult(writing)
        return writing


class InterfaceTests(ConnTestCase):
    """
    What a Conn is.
    """

    def test_interfaces(self) -> None:
        """
        It provides what it says.
        """
        verifyObject(IHalfCloseableProtocol, self.here)
        verifyObject(IPushProducer, self.here)

    def test_repr(self) -> None:
        """
        It can be told which stream it is, before it is connected too.
        """
        self.assertIn("Stream 0", repr(self.here))
        conn = Conn(self.clock, lambda conn: None, lambda conn: None)
        self.assertIn("None", repr(conn))

    def test_addresses(self) -> None:
        """
        Both ends know both addresses, also after the end.
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
        A read waits for data, and gets all that fits.
        """
        reading = self.there.read()
        self.flush()
        self.assertNoResult(reading)
        self.here.write(b"hello")
        self.assertEqual(self.after(reading), b"hello")

    def test_size(self) -> None:
        """
        A read gets no more than it wants, and the next one the rest.
        """
        self.here.write(b"hello")
        self.assertEqual(self.after(self.there.read(2)), b"he")
        self.assertEqual(self.successResultOf(self.there.read(2)), b"ll")
        self.assertEqual(self.successResultOf(self.there.read(2)), b"o")
        self.assertNoResult(self.there.read(2))

    def test_nonsense(self) -> None:
        """
        Nobody can read nothing: that would look like the end.
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
        Who reads again from within a read's callback gets what follows, behind
        those who waited before.
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

    def test_cancel(self) -> None:
        """
        What a cancelled read would have got the next one gets.
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
        Much data arrives as it was sent, in reads of any size.
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

    def test_result(self) -> None:
        """
        It gives the size of the data.
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
        A write waits while nobody reads at the other end, and until then next
        to nothing is kept anywhere.
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
        A read of one byte lets no more than the rest of its frame go ahead.
        """
        self.fill(self.here)
        self.assertEqual(self.after(self.there.read(1)), LARGE[:1])
        unread = self.there.unread
        self.assertLess(unread - self.there.transport.unread, 65536)
        self.assertLess(unread, INITIAL_WINDOW + 65536)

    def test_otherStreams(self) -> None:
        """
        While one stream is blocked, others go on.
        """
        self.fill(self.here)
        before = self.here, self.there
        self.both.open()
        self.assertIsNot(self.both.here, before[0])
        self.both.here.write(b"hello")
        self.assertEqual(self.after(self.both.there.read()), b"hello")

    def test_order(self) -> None:
        """
        Several writes go in the order of the calls.
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
        Of a cancelled write what was not taken yet is dropped, and the others
        go on.
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
        Who writes without end is stopped before anything is read.
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
        Calls that wait and calls that follow fail with StreamClosed.
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
        What was not read is gone.
        """
        self.there.write(b"hello")
        self.assertEqual(self.after(self.here.read(1)), b"h")
        self.here.close()
        self.error(self.here.read(), StreamClosed)

    def test_peer(self) -> None:
        """
        After the peer's close a read gives what came before it, then the end,
        and a write PeerClosedStream.
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
        The rest of what was read in part is still there after the end.
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
        Calls that wait end with the peer's close.
        """
        reading, writing = self.here.read(), self.fill(self.here)
        self.there.close()
        self.assertEqual(self.after(reading), b"")
        error = self.error(writing, PeerClosedStream)
        self.assertGreaterEqual(error.written, INITIAL_WINDOW)

    def test_peerUnread(self) -> None:
        """
        A write that waits ends with the peer's close also while there is data
        to be read.
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
        An abort of the peer's is not the end of the data: a read fails, once it
        has given what came before, and so does a write.
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
        Calls that wait end with it.
        """
        reading, writing = self.here.read(), self.fill(self.here)
        self.there.transport.abortConnection()
        self.error(reading, PeerAbortedStream)
        self.error(writing, PeerAbortedStream)

    def test_peerBeforeClose(self) -> None:
        """
        Who closes a stream that the peer has closed lets go of what was not
        read, and the stream is gone.
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
        No two calls fail with the same error object.
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
        The peer reads to the end; in the other direction all goes on.
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
        Writes that wait fail, and what was taken of them is sent.
        """
        writing = self.fill(self.here)
        self.here.closeWrite()
        error = self.failureResultOf(writing, WriteClosed).value
        self.assertEqual(self.readAll(self.there), LARGE[: error.written])

    def test_closeRead(self) -> None:
        """
        The peer cannot write any more, our reads end; in the other direction
        all goes on.
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
        Reads that wait come to the end.
        """
        reading = self.here.read()
        self.here.closeRead()
        self.assertEqual(self.successResultOf(reading), b"")

    def test_closeReadAfterEnd(self) -> None:
        """
        After the peer's close it lets go of what was not read.
        """
        self.there.write(b"hello")
        self.there.close()
        self.flush()
        self.here.closeRead()
        self.assertEqual(self.after(self.here.read()), b"")
        self.assertEqual(self.both.client.connCount, 0)

    def test_both(self) -> None:
        """
        With both halves closed the stream is gone from both sides, and a read
        still gives the end and a write still WriteClosed.
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
    What a Conn makes of the end of the mux.
    """

    def test_ownClose(self) -> None:
        """
        Everything fails with ConnectionClosed, at once.
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
        What was taken before our close arrives.
        """
        self.here.write(b"hello")
        closing = self.both.client.close()
        self.assertEqual(self.readAll(self.there), b"hello")
        self.successResultOf(closing)
        self.error(self.there.write(b"x"), PeerClosedStream)

    def test_peerCloses(self) -> None:
        """
        Streams that were opened too late for the peer to close them end with
        PeerClosedConnection.
        """
        self.both.server.close()
        here = self.successResultOf(self.both.client.openStream())
        self.flush()
        self.error(here.write(b"x"), PeerClosedConnection)
        self.error(self.both.client.openStream(), PeerClosedConnection)

    def goCloses(self) -> None:
        """
        Close the mux as the Go package does: without the streams.
        """
        server = self.both.pair.server
        scheduler = Parts(server).scheduler
        scheduler.control(0, Flag.CLOSE_MUX)
        scheduler.finish()
        server.getCarrier().loseConnection()

    def test_goCloses(self) -> None:
        """
        After a CloseMux ahead of the streams' ends what was sent can be read,
        then everything fails with PeerClosedConnection.
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
        The same with data to be read, ahead of which writes fail already.
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
        An end of the carrier without a word is told apart, also after data.
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
        Who has come to the peer's end has read all there was.
        """
        self.there.closeWrite()
        self.assertEqual(self.after(self.here.read()), b"")
        self.both.pair.loseCarrier()
        self.assertEqual(self.after(self.here.read()), b"")
        self.error(self.here.write(b"x"), Truncated)

    def test_authentication(self) -> None:
        """
        A frame that was changed on the way ends everything with
        AuthenticationFailed.
        """
        reading = self.here.read()
        self.both.pair.client.dataReceived(bytes(52))
        self.error(reading, AuthenticationFailed)
        self.error(self.here.write(b""), AuthenticationFailed)
        self.error(self.both.client.openStream(), AuthenticationFailed)

    def test_foreignReason(self) -> None:
        """
        An end that is none of the mux's leaves a GomuxError all the same.
        """
        reading = self.here.read()
        self.here.transport.abortConnection()
        self.error(reading, StreamClosed)


class DeadlineTests(ConnTestCase):
    """
    L{Conn.setDeadline} and the two others
    """

    def test_kind(self) -> None:
        """
        The error is what a timeout is elsewhere too, and says so.
        """
        self.here.setDeadline(0)
        error = self.error(self.here.read(), DeadlineExceeded)
        self.assertIsInstance(error, TimeoutError)
        self.assertEqual(str(error), "The deadline has passed")
        self.assertEqual(error.written, 0)

    def test_passed(self) -> None:
        """
        After the deadline calls fail at once, data or no data, and work again
        without one or with a later one.
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
        A read that waits fails at the deadline, and the next one gets the
        data.
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
        A deadline ends also calls that waited before it was set, and at once
        if it has passed.
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
        A deadline that is cleared or moved ends nothing.
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
        A write that waits fails at the deadline, says how much was taken, and
        who goes on from there loses nothing.
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
        Reading and writing have a deadline each.
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
        A write after the end fails with the end, whatever the deadline.
        """
        self.here.setDeadline(0)
        self.here.close()
        self.failureResultOf(self.here.write(b"x"), StreamClosed)

    def test_noTimers(self) -> None:
        """
        A stream that is gone leaves no timers behind, nor lets any be set.
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
        The two understand each other.
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
