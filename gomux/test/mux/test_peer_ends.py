"""
Tests for L{gomux._mux.stream}: ends caused by the peer.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost

from gomux._mux.stream import Stream
from gomux._wire.frame import Flag
from gomux.error import (
    PeerAbortedStream,
    PeerClosedConnection,
    PeerClosedStream,
    ProtocolViolation,
    StreamClosed,
    Truncated,
)
from gomux.test.support.helpers import (
    ABORTS,
    CLOSE_READ,
    CLOSE_STREAM,
    CLOSE_WRITE,
    EndsTestCase,
    PushProducer,
)


class PeersEndTests(EndsTestCase):
    """
    Ends caused by the peer, of streams whose protocol is not half-closeable.
    """

    def test_closeStream(self) -> None:
        """
        CloseStream ends the stream after the data that precedes it, and is not
        answered.
        """
        self.rig.sendMany((0, Flag.DATA, b"bye"), CLOSE_STREAM)
        self.assertEqual(self.recorder.received, b"bye")
        self.check_lost(ConnectionDone)
        self.assertIsInstance(self.recorder.reason, PeerClosedStream)
        self.assertEqual(self.rig.sent(), [])

    def test_closeStreamPending(self) -> None:
        """
        CloseStream drops unsent output.
        """
        self.block()
        self.stream.write(b"last words")
        self.rig.send(*CLOSE_STREAM)
        self.check_lost(PeerClosedStream)
        self.assertEqual(self.stream.unsent, 0)
        self.assertEqual(self.rig.sent(), [])

    def test_abort(self) -> None:
        """
        A WindowUpdate of 0 bytes followed by CloseStream is an abort: after the data
        that precedes it, the stream ends as a reset TCP connection does.
        """
        self.rig.sendMany((0, Flag.DATA, b"half of"), ABORTS, CLOSE_STREAM)
        self.assertEqual(self.recorder.received, b"half of")
        self.check_lost(ConnectionLost)
        self.assertIsInstance(self.recorder.reason, PeerAbortedStream)
        self.assertEqual(self.rig.sent(), [])

    def test_abortWhileClosing(self) -> None:
        """
        A stream that is still sending its output after C{loseConnection} reports the
        peer's abort as the reason of its end.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.loseConnection()
        self.rig.sendMany(ABORTS, CLOSE_STREAM)
        self.check_lost(PeerAbortedStream)

    def test_creditOfNothing(self) -> None:
        """
        A WindowUpdate of 0 bytes that no CloseStream follows has no effect.
        """
        self.rig.sendMany(ABORTS, (0, Flag.DATA, b"still here"))
        self.assertEqual(self.recorder.received, b"still here")
        self.stream.write(b"here too")
        self.assertEqual(self.rig.sentData(), b"here too")

    def test_closeRead(self) -> None:
        """
        CloseRead has the effect of a C{loseConnection} by the application: as over TCP,
        the output written so far is still sent.
        """
        self.block()
        self.stream.write(b"last words")
        self.rig.sendMany((0, Flag.DATA, b"bye"), CLOSE_READ)
        self.assertEqual(self.recorder.received, b"bye")
        self.assertEqual(self.recorder.events, ["made", "data"])
        self.unblock()
        self.assertEqual(self.rig.sent(), [(0, Flag.DATA, 10), CLOSE_STREAM])
        self.check_lost(StreamClosed)

    def test_closeWrite(self) -> None:
        """
        CloseWrite drops unsent output.  Reading goes on.
        """
        self.block()
        self.stream.write(b"last words")
        self.rig.send(*CLOSE_WRITE)
        self.assertEqual(self.stream.unsent, 0)
        self.stream.write(b"too late")
        self.unblock()
        self.assertEqual(self.rig.sent(), [])
        self.rig.send(0, Flag.DATA, b"still here")
        self.assertEqual(self.recorder.received, b"still here")
        self.assertEqual(self.recorder.events, ["made", "data"])

    def test_closeWriteWhileClosing(self) -> None:
        """
        If CloseWrite arrives while a stream is closing, the stream closes at once,
        since the peer does not want the rest of its output.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.loseConnection()
        self.rig.send(*CLOSE_WRITE)
        self.assertEqual(self.rig.sent(), [CLOSE_STREAM])
        self.check_lost(StreamClosed)

    def test_closeReadWhileClosing(self) -> None:
        """
        A stream that is closing after C{loseConnection} still sends its output when
        CloseRead arrives.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.loseConnection()
        self.rig.send(*CLOSE_READ)
        self.rig.send(*CLOSE_READ)
        self.assertEqual(self.rig.sent(), [])
        self.unblock()
        self.assertEqual(self.rig.sent(), [(0, Flag.DATA, 10), CLOSE_STREAM])

    def test_closeStreamWhileClosing(self) -> None:
        """
        A stream that has sent CloseStream, or is about to, ends only once when the
        peer's CloseStream arrives.
        """
        self.stream.loseConnection()
        self.rig.mux.dataReceived(self.rig.peer.seal(*CLOSE_STREAM))
        self.check_lost(StreamClosed)
        self.setUp()
        self.block()
        self.stream.write(b"last words")
        self.stream.loseConnection()
        self.rig.send(*CLOSE_STREAM)
        self.check_lost(StreamClosed)
        self.assertEqual(self.rig.sent(), [])

    def test_dataAfterCloseRead(self) -> None:
        """
        Data after CloseRead is a violation that ends the stream, but not the mux.
        """
        self.stream.pauseProducing()
        self.rig.send(0, Flag.DATA, b"bye")
        self.rig.send(*CLOSE_READ)
        self.rig.send(0, Flag.DATA, b"not bye")
        self.assertEqual(self.rig.sent(), [ABORTS, CLOSE_STREAM])
        self.check_lost(ProtocolViolation)
        self.assertIsNone(self.rig.reason())

    def test_dataAfterUnwantedCloseRead(self) -> None:
        """
        Data after CloseRead ends the stream even if this side had stopped reading
        before.
        """
        self.stream.loseReadConnection()
        self.rig.send(0, Flag.DATA, b"legal")
        self.rig.send(*CLOSE_READ)
        self.assertEqual(self.rig.sent(), [CLOSE_WRITE])
        self.rig.send(0, Flag.DATA, b"not legal")
        self.assertEqual(self.rig.sent(), [ABORTS, CLOSE_STREAM])
        self.check_lost(ProtocolViolation)

    def test_noLateCredit(self) -> None:
        """
        No credit is sent for a stream that the peer has closed.
        """
        self.rig.sendMany((0, Flag.DATA, bytes(40000)), CLOSE_STREAM)
        self.assertEqual(self.rig.sent(), [])
        self.assertEqual(len(self.recorder.received), 40000)

    def test_lateFrames(self) -> None:
        """
        Late frames of every kind for a stream that has ended are ignored and get no
        credit, however many arrive.  (Trap 12 in docs/design.rst.)
        """
        self.stream.loseConnection()
        self.rig.sent()
        for flag, what in (
            (Flag.DATA, bytes(60000)),
            (Flag.WINDOW_UPDATE, 65536),
            (Flag.CLOSE_READ, 0),
            (Flag.CLOSE_WRITE, 0),
            (Flag.CLOSE_STREAM, 0),
        ):
            for _ in range(20):
                self.rig.send(0, flag, what)
        self.assertEqual(self.rig.sent(), [])
        self.assertIsNone(self.rig.reason())
        self.check_lost(StreamClosed)

    def test_afterLoss(self) -> None:
        """
        A lost stream has freed its sender and receiver.  Method calls then have no
        effect, except that a producer that is registered is stopped at once.
        """
        self.stream.write(bytes(200000))
        self.rig.send(0, Flag.DATA, b"x")
        self.stream.abortConnection()
        self.rig.run()
        self.assertIsNone(self.stream.sender)
        self.assertIsNone(self.stream.receiver)
        self.rig.sent()
        producer = PushProducer()
        self.stream.registerProducer(producer, True)
        self.stream.write(b"x")
        self.stream.loseWriteConnection()
        self.stream.loseReadConnection()
        self.stream.pauseProducing()
        self.stream.resumeProducing()
        self.stream.unregisterProducer()
        self.rig.run()
        self.assertEqual(producer.calls, ["stop"])
        self.assertEqual(self.stream.unsent, 0)
        self.assertEqual(self.rig.sent(), [])

    def test_remembersNothing(self) -> None:
        """
        Streams that have ended leave no data behind in the mux.  (Trap 12 in
        docs/design.rst.)
        """
        for _ in range(100):
            self.rig.opened(b"x").stream.loseConnection()
            self.rig.run()
        self.assertEqual(self.rig.mux.streamCount, 1)
        for name, value in vars(self.rig.mux).items():
            if isinstance(value, (dict, set, list)):
                self.assertLess(len(value), 10, name)


class PausedEndTests(EndsTestCase):
    """
    Ends of streams that are paused.
    """

    def setUp(self) -> None:
        super().setUp()
        self.stream.pauseProducing()
        self.rig.send(0, Flag.DATA, b"unread")

    def check_unread(self, kind: type[BaseException]) -> None:
        """
        Check that the application gets the unread input, and then the end, once it
        resumes.
        """
        self.rig.run()
        self.assertEqual(self.recorder.events, ["made"])
        self.assertTrue(self.stream.connected)
        self.stream.resumeProducing()
        self.assertEqual(self.recorder.events, ["made"])
        self.rig.run()
        self.assertEqual(self.recorder.received, b"unread")
        self.check_lost(kind)

    def test_closeStream(self) -> None:
        """
        Input received before CloseStream can still be read.
        """
        self.rig.send(*CLOSE_STREAM)
        self.check_unread(PeerClosedStream)
        self.assertEqual(self.rig.sent(), [])

    def test_abort(self) -> None:
        """
        Input received before an abort can still be read.
        """
        self.rig.sendMany(ABORTS, CLOSE_STREAM)
        self.check_unread(PeerAbortedStream)

    def test_closeRead(self) -> None:
        """
        CloseRead takes effect once the input received before it has been read.
        """
        self.rig.send(*CLOSE_READ)
        self.check_unread(StreamClosed)

    def test_closeReadAndStream(self) -> None:
        """
        Input received before CloseRead and CloseStream can still be read.
        """
        self.rig.send(*CLOSE_READ)
        self.rig.send(*CLOSE_STREAM)
        self.check_unread(PeerClosedStream)

    def test_closeMux(self) -> None:
        """
        Input received before CloseMux can still be read.
        """
        self.rig.send(0, Flag.CLOSE_MUX)
        self.check_unread(PeerClosedConnection)

    def test_truncated(self) -> None:
        """
        Input received before the carrier broke can still be read.
        """
        self.rig.peerCarrier.abortConnection()
        self.check_unread(Truncated)

    def test_notDisconnecting(self) -> None:
        """
        A stream with unread input that the peer has closed is not C{disconnecting}: if
        it were, a C{LineReceiver} would deliver no more lines.
        """
        self.rig.send(*CLOSE_STREAM)
        self.assertFalse(self.stream.disconnecting)
        self.stream.loseConnection()
        self.assertTrue(self.stream.disconnecting)

    def test_producerCloses(self) -> None:
        """
        A producer that calls C{loseConnection} when it is stopped drops the unread
        input, and the stream ends once.
        """
        producer = PushProducer()
        producer.stopProducing = (  # type: ignore[method-assign]
            self.stream.loseConnection
        )
        self.stream.registerProducer(producer, True)
        self.rig.send(*CLOSE_STREAM)
        self.rig.run()
        self.assertEqual(self.recorder.received, b"")
        self.check_lost(PeerClosedStream)

    def test_closedUnread(self) -> None:
        """
        An application that does not want the unread input may still close or abort the
        stream after the peer has closed it.
        """
        closes: list[Callable[[Stream], None]] = [
            Stream.loseConnection,
            Stream.abortConnection,
        ]
        for close in closes:
            self.setUp()
            self.rig.send(*CLOSE_STREAM)
            close(self.stream)
            self.assertEqual(self.recorder.events, ["made"])
            self.check_lost(PeerClosedStream)
            self.assertEqual(self.recorder.received, b"")

    def test_pausedAgain(self) -> None:
        """
        An application that pauses after each piece gets the end after the last piece.
        """
        for _ in range(2):
            self.rig.send(0, Flag.DATA, bytes(20000))
        self.rig.send(*CLOSE_STREAM)
        self.recorder.hooks["data"] = lambda recorder: recorder.stream.pauseProducing()
        for _ in range(3):
            self.assertNotIn("lost", self.recorder.events)
            self.stream.resumeProducing()
            self.rig.run()
        self.check_lost(PeerClosedStream)
        self.assertEqual(len(self.recorder.received), 40006)

    def test_closedWhileDelivered(self) -> None:
        """
        An application that closes the stream while buffered input is delivered gets no
        more input.
        """
        self.rig.send(0, Flag.DATA, bytes(20000))
        self.rig.send(*CLOSE_STREAM)
        self.recorder.hooks["data"] = lambda recorder: recorder.stream.loseConnection()
        self.stream.resumeProducing()
        self.check_lost(PeerClosedStream)
        self.assertEqual(self.recorder.received, b"unread")

    def test_resumedAtEnd(self) -> None:
        """
        C{resumeProducing} after the end has no effect.
        """
        self.stream.abortConnection()
        self.check_lost(ConnectionAborted)
        self.stream.resumeProducing()
        self.check_lost(ConnectionAborted)

    def test_readingEnded(self) -> None:
        """
        C{loseReadConnection} after CloseRead sends nothing, and counts as the end of
        that half.
        """
        self.rig.send(*CLOSE_READ)
        self.stream.loseReadConnection()
        self.assertEqual(self.rig.sent(), [])
        self.stream.loseWriteConnection()
        self.assertEqual(self.rig.sent(), [CLOSE_READ, CLOSE_STREAM])
        self.check_lost(StreamClosed)
