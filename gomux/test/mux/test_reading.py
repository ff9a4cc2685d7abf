"""
Tests for L{gomux._mux.stream}: received data, and the memory that streams need.
"""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits
from gomux._mux.sender import HIGH_WATER
from gomux._wire.frame import Flag
from gomux.error import LimitExceeded, ProtocolViolation
from gomux.test.support.helpers import CLOSE_STREAM, Parts, Recorder, Recorders, Rig


class ReadTests(SynchronousTestCase):
    """
    Data that a stream receives.
    """

    def setUp(self) -> None:
        self.rig = Rig()
        self.recorder = self.rig.opened()
        self.stream = self.recorder.stream

    def credit(self) -> int:
        """
        Check that only credit was sent, and no frame with more credit than the
        reference accepts.

        @return: the credit sent since the last call.
        """
        frames = self.rig.sent()
        self.assertEqual({frame[1] for frame in frames} - {Flag.WINDOW_UPDATE}, set())
        for frame in frames:
            self.assertLessEqual(frame[2], 65536)
            self.assertGreater(frame[2], 0)
        return sum(frame[2] for frame in frames)

    def test_delivered(self) -> None:
        """
        Data is delivered as it arrives.
        """
        self.rig.send(0, Flag.DATA, b"hello, ")
        self.rig.send(0, Flag.DATA, b"world")
        self.assertEqual(self.recorder.received, b"hello, world")
        self.assertEqual(self.recorder.pieces, [7, 5])

    def test_credit(self) -> None:
        """
        Credit for delivered data is sent in batches.
        """
        self.rig.send(0, Flag.DATA, bytes(32768))
        self.assertEqual(self.credit(), 0)
        self.rig.send(0, Flag.DATA, bytes(1))
        self.assertEqual(self.credit(), 32769)

    def test_others(self) -> None:
        """
        C{consumerChanges} grows by 1 each time a stream consumes data after another
        stream did.  The growth of windows depends on it.
        """
        self.rig.opened()
        changes = []
        for streamID in (0, 0, 2, 2, 0):
            self.rig.send(streamID, Flag.DATA, b"x")
            changes.append(Parts(self.rig.mux).streams.consumerChanges)
        self.assertEqual(changes, [1, 1, 2, 2, 3])

    def test_creditAfterEnd(self) -> None:
        """
        Unsent credit is dropped when its stream ends.
        """
        self.recorder.hooks["data"] = lambda recorder: (
            recorder.received.endswith(b"bye") and recorder.stream.loseConnection()
        )
        self.rig.sendMany((0, Flag.DATA, bytes(40000)), (0, Flag.DATA, b"bye"))
        self.assertEqual(self.rig.sent(), [CLOSE_STREAM])

    def test_creditHeld(self) -> None:
        """
        A stream never holds back credit for 65536 bytes or more.
        """
        received = given = 0
        for size in (1000, 65536, 40000, 1, 32768, 5, 65536, 9999) * 5:
            self.rig.send(0, Flag.DATA, bytes(size))
            received += size
            given += self.credit()
            self.assertLess(received - given, 65536)
        self.assertLessEqual(given, received)

    def test_paused(self) -> None:
        """
        While the application has paused the stream, no data is delivered and no credit
        is sent.
        """
        self.stream.pauseProducing()
        self.rig.send(0, Flag.DATA, bytes(65536))
        self.rig.send(0, Flag.DATA, bytes(65536))
        self.assertEqual(self.recorder.received, b"")
        self.assertEqual(self.credit(), 0)
        self.stream.resumeProducing()
        self.assertEqual(self.recorder.received, b"")
        self.rig.run()
        self.assertEqual(len(self.recorder.received), 131072)
        self.assertEqual(self.credit(), 131072)

    def test_othersGoOn(self) -> None:
        """
        A paused stream with a full window does not block other streams or the carrier.
        """
        self.stream.pauseProducing()
        self.rig.send(0, Flag.DATA, bytes(65536))
        self.rig.send(0, Flag.DATA, bytes(65536))
        other = self.rig.opened()
        for _ in range(10):
            self.rig.send(2, Flag.DATA, bytes(65536))
        self.assertEqual(len(other.received), 655360)

    def test_pausedInside(self) -> None:
        """
        An application that pauses inside C{dataReceived} gets no more data until it
        resumes, and then gets the data in order.
        """
        pieces = [bytes([i]) * 20000 for i in range(6)]
        self.recorder.hooks["data"] = lambda recorder: recorder.stream.pauseProducing()
        self.rig.sendMany(*((0, Flag.DATA, piece) for piece in pieces))
        for count in range(1, 7):
            self.assertEqual(self.recorder.received, b"".join(pieces[:count]))
            self.stream.resumeProducing()
            self.rig.run()

    def test_resumedAtOnce(self) -> None:
        """
        An application that resumes and pauses again in one turn of the reactor gets no
        data.
        """
        self.stream.pauseProducing()
        self.rig.send(0, Flag.DATA, b"data")
        self.stream.resumeProducing()
        self.stream.pauseProducing()
        self.rig.run()
        self.assertEqual(self.recorder.received, b"")
        self.stream.resumeProducing()
        self.stream.resumeProducing()
        self.rig.run()
        self.assertEqual(self.recorder.pieces, [4])

    def test_resumedThenData(self) -> None:
        """
        Data that arrives between a resume and the delivery of the buffered input is
        delivered after that input.
        """
        self.stream.pauseProducing()
        self.rig.send(0, Flag.DATA, b"first ")
        self.stream.resumeProducing()
        # Not with send(), which would deliver the buffered input first.
        self.rig.mux.dataReceived(self.rig.peer.seal(0, Flag.DATA, b"second"))
        self.rig.run()
        self.assertEqual(self.recorder.received, b"first second")

    def test_lostWhileDelivering(self) -> None:
        """
        A carrier may be lost while input is delivered, as in a nested turn of the
        reactor.
        """

        def lose(recorder: Recorder) -> None:
            self.rig.mux.connectionLost(Failure(ConnectionDone()))

        self.recorder.hooks["data"] = lose
        self.rig.mux.dataReceived(self.rig.peer.seal(0, Flag.DATA, b"the last"))
        self.assertEqual(self.recorder.received, b"the last")
        self.assertTrue(self.stream.disconnected)

    def test_neverNested(self) -> None:
        """
        C{resumeProducing} inside C{dataReceived} does not call C{dataReceived} again
        from there.
        """

        def flicker(recorder: Recorder) -> None:
            recorder.stream.pauseProducing()
            recorder.stream.resumeProducing()

        self.recorder.hooks["data"] = flicker
        self.rig.sendMany(*((0, Flag.DATA, bytes(20000)) for _ in range(5)))
        self.assertEqual(len(self.recorder.received), 100000)
        self.assertNotIn("nested!", self.recorder.events)

    def test_smallPieces(self) -> None:
        """
        Unread data takes about as much memory in small pieces as in large ones.
        (Trap 5 in docs/design.rst.)
        """
        self.stream.pauseProducing()
        frames = b"".join(self.rig.peer.seal(0, Flag.DATA, b"x") for _ in range(20000))
        gc.collect()
        tracemalloc.start()
        try:
            self.rig.mux.dataReceived(frames)
            size = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        self.assertLess(size, 60000)
        self.stream.resumeProducing()
        self.rig.run()
        self.assertEqual(self.recorder.received, b"x" * 20000)

    def test_beyondWindow(self) -> None:
        """
        One byte beyond the window ends the mux.  The data delivered before stays
        delivered.
        """
        self.rig.send(0, Flag.DATA, b"delivered")
        self.stream.pauseProducing()
        self.rig.send(0, Flag.DATA, bytes(65536))
        self.rig.send(0, Flag.DATA, bytes(65536 - 9))
        self.assertIsNone(self.rig.reason())
        self.rig.send(0, Flag.DATA, bytes(1))
        self.assertIsInstance(self.rig.reason(), ProtocolViolation)
        self.assertNotIsInstance(self.rig.reason(), LimitExceeded)
        self.assertEqual(self.recorder.received, b"delivered")


class CostTests(SynchronousTestCase):
    """
    The memory that streams need.
    """

    def test_idle(self) -> None:
        """
        An idle stream needs less than 2 KiB, not counting its protocol.
        """
        rig = Rig(isClient=True, limits=Limits())

        class Shared(Recorders):
            def buildProtocol(self, addr: Any) -> Any:
                return protocol

        protocol = Protocol()
        factory = Shared()
        for _ in range(10):
            rig.mux.openStream(factory)
        rig.run()
        rig.peer.frames = []
        gc.collect()
        tracemalloc.start()
        try:
            for _ in range(2000):
                rig.mux.openStream(factory)
            rig.run()
            rig.peer.frames = []
            gc.collect()
            size = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        self.assertEqual(rig.mux.streamCount, 2010)
        self.assertLess(size / 2000, 2048)

    def test_used(self) -> None:
        """
        A stream that was used and is idle again needs less than 3 KiB.
        """
        rig = Rig()
        gc.collect()
        tracemalloc.start()
        try:
            for i in range(500):
                rig.send(2 * i, Flag.OPEN_STREAM)
                stream = rig.streams.made[i].stream
                stream.pauseProducing()
                rig.send(2 * i, Flag.DATA, bytes(1000))
                stream.resumeProducing()
                stream.write(bytes(1000))
                rig.streams.made[i].received.clear()
                rig.run()
                rig.peer.frames = []
                rig.streams.made[i].received = bytearray()
            gc.collect()
            size = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        self.assertLess(size / 500, 3072)

    def test_highWater(self) -> None:
        """
        Output above a stream's high-water mark is kept: limiting it is the task of the
        application.
        """
        rig = Rig()
        stream = rig.opened().stream
        stream.write(bytes(10 * HIGH_WATER))
        self.assertEqual(stream.unsent, 10 * HIGH_WATER)
