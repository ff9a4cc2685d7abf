"""
Tests for L{gomux._mux.protocol}: Keepalives, write stalls and idle time.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits
from gomux._wire.frame import Flag
from gomux.error import (
    WriteStalled,
)
from gomux.test.support.helpers import Recorder, Rig

CLOSE_MUX = (0, Flag.CLOSE_MUX, 0)


class TimeTests(SynchronousTestCase):
    """
    Keepalives and write stalls.
    """

    def keepalives(self, rig: Rig) -> int:
        """
        @return: how many Keepalives the mux has sent since the last call.
        """
        rig.run()
        frames, rig.peer.frames = rig.peer.frames, []
        return [frame[1] for frame in frames].count(Flag.KEEPALIVE)

    def test_keepalive(self) -> None:
        """
        An idle mux sends a Keepalive every ten minutes.
        """
        rig = Rig()
        rig.meet()
        rig.clock.advance(599)
        self.assertEqual(self.keepalives(rig), 0)
        for _ in range(3):
            rig.clock.advance(1)
            self.assertEqual(self.keepalives(rig), 1)
            rig.clock.advance(599)
            self.assertEqual(self.keepalives(rig), 0)

    def test_answersUnasked(self) -> None:
        """
        A peer that has not announced pings is never taken for one that does not answer.
        """
        rig = Rig()
        for _ in range(100):
            rig.clock.advance(10)
            self.assertTrue(rig.mux.answers)

    def test_keepaliveAfterWrite(self) -> None:
        """
        A Keepalive is sent ten minutes after the last other frame.
        """
        rig = Rig()
        recorder = rig.opened()
        for _ in range(5):
            rig.clock.advance(500)
            recorder.stream.write(b"x")
            self.assertEqual(self.keepalives(rig), 0)
        rig.clock.advance(599)
        self.assertEqual(self.keepalives(rig), 0)
        rig.clock.advance(1)
        self.assertEqual(self.keepalives(rig), 1)

    def test_keepaliveSetting(self) -> None:
        """
        C{Limits.keepalive} sets the time between Keepalives.
        """
        rig = Rig(limits=Limits(keepalive=7))
        rig.meet()
        for _ in range(3):
            rig.clock.advance(7)
            self.assertEqual(self.keepalives(rig), 1)

    def test_keepaliveBlocked(self) -> None:
        """
        While the carrier accepts no output, Keepalives do not pile up.
        """
        rig = Rig(limits=Limits(keepalive=1, writeStall=1e6))
        recorder = rig.opened()
        rig.carrier.outgoing.stall()
        recorder.stream.write(bytes(100000))
        for _ in range(100):
            rig.clock.advance(1)
        rig.carrier.outgoing.unstall()
        self.assertLess(self.keepalives(rig), 2)

    def stalled(self) -> tuple[Rig, Recorder]:
        """
        @return: a rig whose carrier has stopped accepting output, and the protocol of a
            stream with unsent output.
        """
        rig = Rig(bufferSize=1000)
        recorder = rig.opened()
        rig.carrier.outgoing.stall()
        recorder.stream.write(bytes(131072))
        rig.run()
        return rig, recorder

    def stallAgain(self, rig: Rig, recorder: Recorder) -> None:
        """
        Stop accepting output again, while the stream has more of it.
        """
        rig.carrier.outgoing.stall()
        rig.send(0, Flag.WINDOW_UPDATE, 65536)
        recorder.stream.write(bytes(65536))
        rig.run()

    def test_stall(self) -> None:
        """
        A carrier that has accepted no output for a minute is aborted.
        """
        rig, recorder = self.stalled()
        for _ in range(54):
            rig.clock.advance(1)
        self.assertIsNone(rig.reason())
        for _ in range(12):
            rig.clock.advance(1)
        self.assertIsInstance(rig.reason(), WriteStalled)
        self.assertIsInstance(recorder.reason, WriteStalled)

    def test_slow(self) -> None:
        """
        A slow carrier that accepts some output at least once a minute is not aborted.
        """
        rig, recorder = self.stalled()
        for _ in range(20):
            for _ in range(50):
                rig.clock.advance(1)
            rig.carrier.outgoing.unstall()
            rig.run()
            self.stallAgain(rig, recorder)
        self.assertIsNone(rig.reason())

    def test_idle(self) -> None:
        """
        A carrier is not aborted for a stall while there is no output for it, whether or
        not it was blocked before.
        """
        for rig in (Rig(), self.stalled()[0]):
            rig.carrier.outgoing.unstall()
            rig.run()
            for _ in range(550):
                rig.clock.advance(1)
            self.assertIsNone(rig.reason())

    def test_stallAgain(self) -> None:
        """
        A stall is noticed although the carrier was blocked before and took data since.
        """
        rig, recorder = self.stalled()
        rig.carrier.outgoing.unstall()
        rig.run()
        for _ in range(10):
            rig.clock.advance(1)
        self.stallAgain(rig, recorder)
        for _ in range(66):
            rig.clock.advance(1)
        self.assertIsInstance(rig.reason(), WriteStalled)

    def test_standstill(self) -> None:
        """
        A reactor that was blocked for half a minute, or for an hour, does not take that
        time for a write stall.
        """
        rig, recorder = self.stalled()
        for seconds in (30, 3600):
            rig.clock.advance(seconds)
            self.assertIsNone(rig.reason())
            rig.carrier.outgoing.unstall()
            rig.run()
            self.stallAgain(rig, recorder)
        for _ in range(50):
            rig.clock.advance(1)
        self.assertIsNone(rig.reason())
