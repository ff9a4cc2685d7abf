"""
Tests for L{gomux._mux.stream}: ends that the application asks for.
"""

from __future__ import annotations

import gc
from weakref import ref

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

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
        C{loseConnection} closes the stream at once if no output waits.
        """
        self.stream.loseConnection()
        self.assertEqual(self.recorder.events, ["made"])
        self.assertEqual(self.rig.sent(), [CLOSE_STREAM])
        self.check_lost(ConnectionDone)
        self.assertIsInstance(self.recorder.reason, StreamClosed)

    def test_loseConnectionPending(self) -> None:
        """
        C{loseConnection} closes the stream once all output is sent.
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
        Data written in the same turn as C{loseConnection} is sent.
        """
        self.stream.write(b"bye")
        self.stream.loseConnection()
        self.assertEqual(self.rig.sent(), [(0, Flag.DATA, 3), CLOSE_STREAM])

    def test_abort(self) -> None:
        """
        C{abortConnection} drops unsent output, and tells the peer that the stream was
        aborted.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.abortConnection()
        self.assertEqual(self.recorder.events, ["made"])
        self.assertEqual(self.rig.sent(), [ABORTS, CLOSE_STREAM])
        self.check_lost(ConnectionAborted)

    def test_abortAfterLose(self) -> None:
        """
        C{abortConnection} ends a stream at once, also one that is closing after
        C{loseConnection}.
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
        Data written after C{loseConnection} is dropped.  (Trap 13 in docs/design.rst.)
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
        Each method that ends a stream may be called again, also after the end, without
        effect.  (Trap 6 in docs/design.rst.)
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
        C{loseConnection} may be called inside C{dataReceived}.  Frames that arrived
        together with the delivered data are then dropped.  (Trap 6 in docs/design.rst.)
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
        C{abortConnection} may be called inside C{dataReceived}.  Data that arrived
        together with the delivered data is then dropped.
        """
        self.recorder.hooks["data"] = lambda recorder: recorder.stream.abortConnection()
        self.rig.sendMany((0, Flag.DATA, b"one"), (0, Flag.DATA, b"two"))
        self.assertEqual(self.recorder.received, b"one")
        self.check_lost(ConnectionAborted)

    def test_dataWhileClosing(self) -> None:
        """
        Data that arrives after C{loseConnection} is dropped, and the peer gets credit
        for it: the peer may have to write before it reads.  (Trap 7 in
        docs/design.rst.)
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.loseConnection()
        self.rig.send(0, Flag.DATA, bytes(65536))
        self.assertEqual(self.rig.sent(), [(0, Flag.WINDOW_UPDATE, 65536)])
        self.assertEqual(self.recorder.received, b"")

    def test_unreadAtLose(self) -> None:
        """
        Unread data is dropped by C{loseConnection}, and the peer gets credit for it.
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
        After C{loseWriteConnection} the unsent output is sent, then CloseRead.  Reading
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
        C{loseConnection} may follow C{loseWriteConnection}, and closes the stream.
        (Trap 6 in docs/design.rst.)
        """
        self.stream.loseWriteConnection()
        self.stream.loseConnection()
        self.assertEqual(self.rig.sent(), [CLOSE_READ, CLOSE_STREAM])
        self.check_lost(StreamClosed)

    def test_loseAfterPendingLoseWrite(self) -> None:
        """
        C{loseConnection} called while C{loseWriteConnection} waits for output closes
        the whole stream once that output is sent.
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
        C{stopProducing} does the same as C{loseConnection}.
        """
        self.stream.stopProducing()
        self.assertEqual(self.rig.sent(), [CLOSE_STREAM])
        self.check_lost(StreamClosed)

    def test_loseReadConnection(self) -> None:
        """
        C{loseReadConnection} sends CloseWrite.  Unread and later data is dropped, and
        the peer gets credit for it.
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
        If this side closes both halves of a stream, in either order, the stream closes.
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
        The C{writeConnectionLost} and C{readConnectionLost} methods of
        C{IHalfCloseableDescriptor} each close one half of the stream.
        """
        self.stream.writeConnectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.rig.sent(), [CLOSE_READ])
        self.stream.readConnectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.rig.sent(), [CLOSE_WRITE, CLOSE_STREAM])

    def test_insideConnectionMade(self) -> None:
        """
        Each method that ends a stream may be called inside C{connectionMade}.  (Trap 6
        in docs/design.rst.)
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


class GarbageTests(SynchronousTestCase):
    """
    What a stream leaves behind
    """

    def test_protocol(self) -> None:
        """
        A stream that has ended lets go of its protocol, so neither of the two waits for
        the garbage collector.
        """
        gc.disable()
        self.addCleanup(gc.enable)
        rig = Rig()
        made = ref(rig.opened())
        rig.streams.made.clear()
        rig.send(*CLOSE_STREAM)
        rig.run()
        self.assertIsNone(made())


class HalfClosedAbortTests(EndsTestCase):
    """
    Aborts of streams with one half closed.
    """

    kind = HalfRecorder

    def check_abort(self) -> None:
        """
        Check that the peer is told of an abort.
        """
        self.rig.sent()
        self.stream.abortConnection()
        self.assertEqual(self.rig.sent(), [ABORTS, CLOSE_STREAM])
        self.check_lost(ConnectionAborted)

    def test_peerFinished(self) -> None:
        """
        The peer is told of an abort even if it has finished writing, since it still
        reads.
        """
        self.rig.send(*CLOSE_READ)
        self.check_abort()

    def test_peerRefuses(self) -> None:
        """
        The peer is told of an abort even if it has stopped reading.
        """
        self.rig.send(*CLOSE_WRITE)
        self.check_abort()

    def test_finished(self) -> None:
        """
        The peer is told of an abort even if this side has finished writing.
        """
        self.stream.loseWriteConnection()
        self.check_abort()

    def test_refused(self) -> None:
        """
        The peer is told of an abort even if this side has stopped reading.
        """
        self.stream.loseReadConnection()
        self.check_abort()
