"""
Tests for L{gomux._mux.stream}: applications that fail.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.frame import Flag
from gomux.error import PeerClosedStream
from gomux.test.support.helpers import (
    CLOSE_READ,
    CLOSE_STREAM,
    CLOSE_WRITE,
    HalfRecorder,
    Recorder,
    Rig,
)


def fail(recorder: Recorder) -> None:
    """
    What an application does when it fails.
    """
    raise ZeroDivisionError


class FailureTests(SynchronousTestCase):
    """
    Applications that raise: their stream ends, the traceback is logged, and
    the mux goes on.
    """

    def check(self, rig: Rig, recorder: Recorder) -> None:
        rig.run()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(recorder.events.count("lost"), 1)
        self.assertIsInstance(recorder.reason, ZeroDivisionError)
        frames = rig.sent()
        self.assertEqual(frames.count(CLOSE_STREAM), 1)
        self.check_mux(rig)

    def check_mux(self, rig: Rig) -> None:
        self.assertIsNone(rig.reason())
        self.assertEqual(rig.mux.streamCount, 0)
        streamID = 1000 + rig.isClient
        rig.streams.hooks.clear()
        rig.send(streamID, Flag.OPEN_STREAM)
        rig.send(streamID, Flag.DATA, b"still here")
        self.assertEqual(rig.streams.made[-1].received, b"still here")

    def test_dataReceived(self) -> None:
        """
        In C{dataReceived}; what follows in the same piece is not delivered.
        """
        rig = Rig(data=fail)
        recorder = rig.opened()
        rig.sendMany((0, Flag.DATA, b"one"), (0, Flag.DATA, b"two"))
        self.assertEqual(recorder.received, b"one")
        self.check(rig, recorder)

    def test_dataReceivedLater(self) -> None:
        """
        In C{dataReceived} of data that had waited.
        """
        rig = Rig(data=fail)
        recorder = rig.opened()
        recorder.stream.pauseProducing()
        rig.sendMany((0, Flag.DATA, bytes(20000)), (0, Flag.DATA, b"two"))
        recorder.stream.resumeProducing()
        rig.run()
        self.assertEqual(len(recorder.received), 20000)
        self.check(rig, recorder)

    def test_connectionMade(self) -> None:
        """
        In C{connectionMade} of a stream of the peer's.
        """
        rig = Rig(made=fail)
        recorder = rig.opened(b"data")
        self.assertEqual(recorder.received, b"")
        self.check(rig, recorder)

    def test_connectionMadeHere(self) -> None:
        """
        In C{connectionMade} of a stream of ours.
        """
        rig = Rig(isClient=True)
        recorder = rig.open(made=fail)
        self.check(rig, recorder)

    def test_halves(self) -> None:
        """
        In C{readConnectionLost} and C{writeConnectionLost}.
        """
        for event, frame in (("readLost", CLOSE_READ), ("writeLost", CLOSE_WRITE)):
            rig = Rig(HalfRecorder)
            recorder = rig.opened()
            recorder.hooks[event] = fail
            rig.send(*frame)
            self.check(rig, recorder)
        rig = Rig(HalfRecorder, writeLost=fail)
        recorder = rig.opened()
        recorder.stream.loseWriteConnection()
        self.check(rig, recorder)

    def test_connectionLost(self) -> None:
        """
        In C{connectionLost}, which is the end already.
        """
        rig = Rig(lost=fail)
        recorder = rig.opened()
        rig.send(*CLOSE_STREAM)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsInstance(recorder.reason, PeerClosedStream)
        self.check_mux(rig)

    def test_everyConnectionLost(self) -> None:
        """
        In C{connectionLost} when the mux ends: the others are told all the
        same.
        """
        rig = Rig(lost=fail)
        recorders = [rig.opened() for _ in range(3)]
        rig.peerCarrier.abortConnection()
        rig.run()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
        for recorder in recorders:
            self.assertEqual(recorder.events, ["made", "lost"])
        self.assertIsNotNone(rig.reason())
