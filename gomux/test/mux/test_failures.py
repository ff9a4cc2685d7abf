"""
Tests for L{gomux._mux.stream}: applications that raise exceptions.
"""

from __future__ import annotations

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.frame import Flag
from gomux.error import PeerClosedStream, StreamClosed
from gomux.test.support.helpers import (
    CLOSE_READ,
    CLOSE_STREAM,
    CLOSE_WRITE,
    HalfRecorder,
    Parts,
    PushProducer,
    Recorder,
    Rig,
)


def fail(recorder: Recorder) -> None:
    """
    Fail, as an application with a bug does.
    """
    raise ZeroDivisionError


class RaisingProducer(PushProducer):
    """
    A push producer that fails in C{pauseProducing}.
    """

    def pauseProducing(self) -> None:
        super().pauseProducing()
        raise ZeroDivisionError


class Unadaptable(Recorder):
    """
    A protocol that raises an exception when it is adapted to C{IHalfCloseableProtocol}.
    """

    def __conform__(self, interface: object) -> object:
        if interface is IHalfCloseableProtocol:
            raise ZeroDivisionError
        return None


class FailureTests(SynchronousTestCase):
    """
    When an application raises an exception, its stream ends, the traceback is logged,
    and the mux goes on.
    """

    def check(self, rig: Rig, recorder: Recorder) -> None:
        """
        Check that the stream ended with the application's error, and that the mux goes
        on.
        """
        rig.run()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(recorder.events.count("lost"), 1)
        self.assertIsInstance(recorder.reason, ZeroDivisionError)
        frames = rig.sent()
        self.assertEqual(frames.count(CLOSE_STREAM), 1)
        self.check_mux(rig)

    def check_mux(self, rig: Rig) -> None:
        """
        Check that the mux is up, and that another stream works.
        """
        self.assertIsNone(rig.reason())
        self.assertEqual(rig.mux.streamCount, 0)
        streamID = 1000 + rig.isClient
        rig.streams.hooks.clear()
        rig.send(streamID, Flag.OPEN_STREAM)
        rig.send(streamID, Flag.DATA, b"still here")
        self.assertEqual(rig.streams.made[-1].received, b"still here")

    def test_dataReceived(self) -> None:
        """
        If C{dataReceived} raises, the stream ends.  Data that arrived together with the
        delivered data is dropped.
        """
        rig = Rig(data=fail)
        recorder = rig.opened()
        rig.sendMany((0, Flag.DATA, b"one"), (0, Flag.DATA, b"two"))
        self.assertEqual(recorder.received, b"one")
        self.check(rig, recorder)

    def test_dataReceivedLater(self) -> None:
        """
        If C{dataReceived} raises while buffered input is delivered after a pause, the
        stream ends.
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
        If C{connectionMade} of a stream that the peer opened raises, the stream ends.
        """
        rig = Rig(made=fail)
        recorder = rig.opened(b"data")
        self.assertEqual(recorder.received, b"")
        self.check(rig, recorder)

    def test_connectionMadeHere(self) -> None:
        """
        If C{connectionMade} of a stream that this side opened raises, the stream ends.
        """
        rig = Rig(isClient=True)
        recorder = rig.open(made=fail)
        self.check(rig, recorder)

    def test_halves(self) -> None:
        """
        If C{readConnectionLost} or C{writeConnectionLost} raises, the whole stream
        ends.
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
        If C{connectionLost} raises, the error is logged and has no further effect: the
        stream has ended already.
        """
        rig = Rig(lost=fail)
        recorder = rig.opened()
        rig.send(*CLOSE_STREAM)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsInstance(recorder.reason, PeerClosedStream)
        self.check_mux(rig)

    def test_everyConnectionLost(self) -> None:
        """
        If C{connectionLost} raises while the mux ends, the other streams still get
        their C{connectionLost}.
        """
        rig = Rig(lost=fail)
        recorders = [rig.opened() for _ in range(3)]
        rig.peerCarrier.abortConnection()
        rig.run()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
        for recorder in recorders:
            self.assertEqual(recorder.events, ["made", "lost"])
        self.assertIsNotNone(rig.reason())

    def test_pauseProducing(self) -> None:
        """
        If a producer's C{pauseProducing} raises during C{write}, the C{write} returns
        normally and only that stream ends.
        """
        rig = Rig()
        recorder = rig.opened()
        recorder.stream.registerProducer(RaisingProducer(), True)
        recorder.stream.write(bytes(200000))
        self.check(rig, recorder)

    def test_pauseProducingLater(self) -> None:
        """
        If C{pauseProducing} raises in a later turn, because the producer was registered
        while output waited, the other calls due in that turn are still made.
        """
        rig = Rig()
        failing, other = rig.opened(), rig.opened()
        failing.stream.write(bytes(200000))
        failing.stream.registerProducer(RaisingProducer(), True)
        other.stream.loseConnection()
        rig.run()
        self.assertIsInstance(other.reason, StreamClosed)
        self.assertIn((2, Flag.CLOSE_STREAM, 0), rig.sent())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsInstance(failing.reason, ZeroDivisionError)
        self.check_mux(rig)

    def test_adapter(self) -> None:
        """
        If a protocol raises when it is adapted to C{IHalfCloseableProtocol}, the stream
        ends.
        """
        rig = Rig(Unadaptable)
        recorder = rig.opened()
        rig.send(*CLOSE_READ)
        self.check(rig, recorder)

    def test_callSoon(self) -> None:
        """
        If a call for the next turn raises, the other calls of that turn and of later
        turns are still made.
        """
        rig = Rig()
        recorder = rig.opened()
        Parts(rig.mux).nextTurn.callSoon(lambda: fail(recorder))
        called: list[int] = []
        Parts(rig.mux).nextTurn.callSoon(lambda: called.append(1))
        rig.run()
        Parts(rig.mux).nextTurn.callSoon(lambda: called.append(2))
        rig.run()
        self.assertEqual(called, [1, 2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
