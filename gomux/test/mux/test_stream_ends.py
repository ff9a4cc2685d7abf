"""
Tests for L{gomux._mux.stream}: ends that the application asks for.
"""

from __future__ import annotations

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.python.failure import Failure

from gomux._wire.frame import Flag
from gomux.error import StreamClosed
from gomux.test.support.helpers import (
    ABORTS,
    CLOSE_READ,
    CLOSE_STREAM,
    CLOSE_WRITE,
    EndsTestCase,
    HalfRecorder,
    Recorder,
    Rig,
)


class OwnEndTests(EndsTestCase):
    """
    Ends that the application asks for.
    """

    def test_loseConnection(self) -> None:
        """
        C{loseConnection} closes the stream at once if nothing waits.
        """
        self.stream.loseConnection()
        self.assertEqual(self.recorder.events, ["made"])
        self.assertEqual(self.rig.sent(), [CLOSE_STREAM])
        self.check_lost(ConnectionDone)
        self.assertIsInstance(self.recorder.reason, StreamClosed)

    def test_loseConnectionPending(self) -> None:
        """
        C{loseConnection} closes the stream when all that waits is sent.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.loseConnection()
        self.assertEqual(self.rig.sent(), [])
        self.assertEqual(self.recorder.events, ["made"])
        self.unblock()
        self.assertEqual(self.rig.sent(), [(0, Flag.DATA, 10), CLOSE_STREAM])
        self.check_lost(StreamClosed)

    def test_written(self) -> None:
        """
        What is written in the same turn as C{loseConnection} is sent.
        """
        self.stream.write(b"bye")
        self.stream.loseConnection()
        self.assertEqual(self.rig.sent(), [(0, Flag.DATA, 3), CLOSE_STREAM])

    def test_abort(self) -> None:
        """
        C{abortConnection} drops what waits, and says that it is no good end.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.abortConnection()
        self.assertEqual(self.recorder.events, ["made"])
        self.assertEqual(self.rig.sent(), [ABORTS, CLOSE_STREAM])
        self.check_lost(ConnectionAborted)

    def test_abortAfterLose(self) -> None:
        """
        C{abortConnection} ends the wait of C{loseConnection}.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.loseConnection()
        self.stream.abortConnection()
        self.stream.abortConnection()
        self.assertEqual(self.rig.sent(), [ABORTS, CLOSE_STREAM])
        self.check_lost(ConnectionAborted)

    def test_writeAfter(self) -> None:
        """
        Trap 13: what is written after the end is dropped.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.loseConnection()
        self.stream.write(b"too late")
        self.unblock()
        self.assertEqual(self.rig.sentData(), b"last words")
        self.stream.write(b"too late")
        self.assertEqual(self.rig.sent(), [])

    def test_again(self) -> None:
        """
        Trap 6: C{loseConnection} may be called again, also after the end.
        """
        self.stream.loseConnection()
        self.stream.loseConnection()
        self.assertEqual(self.rig.sent(), [CLOSE_STREAM])
        self.stream.loseConnection()
        self.stream.abortConnection()
        self.stream.loseWriteConnection()
        self.stream.loseReadConnection()
        self.stream.stopProducing()
        self.assertEqual(self.rig.sent(), [])
        self.check_lost(StreamClosed)

    def test_insideDataReceived(self) -> None:
        """
        Trap 6: C{loseConnection} inside C{dataReceived}; trap 7: the frames
        behind it in the same piece are not delivered.
        """
        self.recorder.hooks["data"] = lambda recorder: recorder.stream.loseConnection()
        self.rig.sendMany(
            (0, Flag.DATA, b"one"), (0, Flag.DATA, b"two"), (0, Flag.CLOSE_READ, 0)
        )
        self.assertEqual(self.recorder.received, b"one")
        self.assertEqual(self.rig.sent(), [CLOSE_STREAM])
        self.check_lost(StreamClosed)

    def test_abortInsideDataReceived(self) -> None:
        """
        Traps 6 and 7 for C{abortConnection}.
        """
        self.recorder.hooks["data"] = lambda recorder: recorder.stream.abortConnection()
        self.rig.sendMany((0, Flag.DATA, b"one"), (0, Flag.DATA, b"two"))
        self.assertEqual(self.recorder.received, b"one")
        self.check_lost(ConnectionAborted)

    def test_dataWhileClosing(self) -> None:
        """
        Trap 7: data that comes after C{loseConnection} is not delivered, but
        gets credit: the peer may have to write before it reads.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.loseConnection()
        self.rig.send(0, Flag.DATA, bytes(65536))
        self.assertEqual(self.rig.sent(), [(0, Flag.WINDOW_UPDATE, 65536)])
        self.assertEqual(self.recorder.received, b"")

    def test_unreadAtLose(self) -> None:
        """
        Data that waits when C{loseConnection} is called is dropped, and gets
        credit.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.pauseProducing()
        self.rig.send(0, Flag.DATA, bytes(65536))
        self.stream.loseConnection()
        self.assertEqual(self.rig.sent(), [(0, Flag.WINDOW_UPDATE, 65536)])
        self.unblock()
        self.check_lost(StreamClosed)
        self.assertEqual(self.recorder.received, b"")

    def test_loseWriteConnection(self) -> None:
        """
        After C{loseWriteConnection} what waits is sent, then CloseRead; reading
        goes on.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.loseWriteConnection()
        self.stream.loseWriteConnection()
        self.stream.write(b"too late")
        self.assertEqual(self.rig.sent(), [])
        self.unblock()
        self.assertEqual(self.rig.sent(), [(0, Flag.DATA, 10), CLOSE_READ])
        self.stream.write(b"too late")
        self.rig.send(0, Flag.DATA, b"still here")
        self.assertEqual(self.recorder.received, b"still here")
        self.assertEqual(self.rig.sent(), [])

    def test_loseAfterLoseWrite(self) -> None:
        """
        Trap 6: C{loseConnection} after C{loseWriteConnection}.
        """
        self.stream.loseWriteConnection()
        self.stream.loseConnection()
        self.assertEqual(self.rig.sent(), [CLOSE_READ, CLOSE_STREAM])
        self.check_lost(StreamClosed)

    def test_loseAfterPendingLoseWrite(self) -> None:
        """
        Trap 6: C{loseConnection} takes over what C{loseWriteConnection} waits
        for.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.loseWriteConnection()
        self.stream.loseConnection()
        self.unblock()
        self.assertEqual(self.rig.sent(), [(0, Flag.DATA, 10), CLOSE_STREAM])
        self.check_lost(StreamClosed)

    def test_stopProducing(self) -> None:
        """
        C{stopProducing} is C{loseConnection}.
        """
        self.stream.stopProducing()
        self.assertEqual(self.rig.sent(), [CLOSE_STREAM])
        self.check_lost(StreamClosed)

    def test_loseReadConnection(self) -> None:
        """
        After C{loseReadConnection} the peer is told, and its data is dropped
        with credit.
        """
        self.stream.pauseProducing()
        self.rig.send(0, Flag.DATA, bytes(40000))
        self.stream.loseReadConnection()
        self.stream.loseReadConnection()
        self.assertEqual(self.rig.sent(), [CLOSE_WRITE, (0, Flag.WINDOW_UPDATE, 40000)])
        self.rig.send(0, Flag.DATA, bytes(40000))
        self.assertEqual(self.rig.sent(), [(0, Flag.WINDOW_UPDATE, 40000)])
        self.assertEqual(self.recorder.received, b"")
        self.stream.write(b"still here")
        self.assertEqual(self.rig.sentData(), b"still here")

    def test_bothOwnHalves(self) -> None:
        """
        Closing both halves here closes the stream, whichever comes first.
        """
        for first, second in (
            ("loseReadConnection", "loseWriteConnection"),
            ("loseWriteConnection", "loseReadConnection"),
        ):
            self.setUp()
            getattr(self.stream, first)()
            getattr(self.stream, second)()
            frames = self.rig.sent()
            self.assertEqual(set(frames[:2]), {CLOSE_READ, CLOSE_WRITE})
            self.assertEqual(frames[2:], [CLOSE_STREAM])
            self.check_lost(StreamClosed)

    def test_descriptor(self) -> None:
        """
        As a half-closeable descriptor it closes the halves it is told to.
        """
        self.stream.writeConnectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.rig.sent(), [CLOSE_READ])
        self.stream.readConnectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.rig.sent(), [CLOSE_WRITE, CLOSE_STREAM])

    def test_insideConnectionMade(self) -> None:
        """
        Trap 6: each way to end a stream is legal inside C{connectionMade}.
        """
        for method, frames in (
            ("loseConnection", [CLOSE_STREAM]),
            ("abortConnection", [ABORTS, CLOSE_STREAM]),
            ("loseWriteConnection", [CLOSE_READ]),
            ("loseReadConnection", [CLOSE_WRITE]),
        ):

            def made(recorder: Recorder, method: str = method) -> None:
                getattr(recorder.stream, method)()

            rig = Rig(made=made)
            recorder = rig.opened()
            self.assertEqual(rig.sent(), frames)
            self.assertNotIn("nested!", recorder.events)
            own = Rig(isClient=True)
            own.open(made=made)
            self.assertEqual(own.sent(), [(0, Flag.OPEN_STREAM, 0), *frames])


class HalfClosedAbortTests(EndsTestCase):
    """
    Aborts of streams of which one half is closed.
    """

    kind = HalfRecorder

    def check_abort(self) -> None:
        self.rig.sent()
        self.stream.abortConnection()
        self.assertEqual(self.rig.sent(), [ABORTS, CLOSE_STREAM])
        self.check_lost(ConnectionAborted)

    def test_peerFinished(self) -> None:
        """
        The peer is told also when it has finished writing: it still reads.
        """
        self.rig.send(*CLOSE_READ)
        self.check_abort()

    def test_peerRefuses(self) -> None:
        """
        And when it does not read any more.
        """
        self.rig.send(*CLOSE_WRITE)
        self.check_abort()

    def test_finished(self) -> None:
        """
        And when this side has finished writing.
        """
        self.stream.loseWriteConnection()
        self.check_abort()

    def test_refused(self) -> None:
        """
        And when this side does not read any more.
        """
        self.stream.loseReadConnection()
        self.check_abort()
