"""
Tests for L{gomux._mux.incoming}: errors and ends while received frames wait for a later
turn of the reactor.  L{gomux.test.carrier.test_turns} tests frames that take long.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gomux._carrier.turns import TURN_TIME
from gomux._mux import incoming
from gomux._mux.frames import PeerFrames
from gomux._wire.frame import Flag
from gomux.error import PeerClosedConnection, Truncated
from gomux.test.support.helpers import Parts, Rig
from gomux.test.support.slowclock import SlowClock


class LaterTests(SynchronousTestCase):
    """
    A mux that handles one frame in each turn of the reactor.
    """

    def setUp(self) -> None:
        self.patch(incoming, "FRAMES_PER_LOOK", 1)
        self.clock = clock = SlowClock()
        self.rig = Rig(clock=clock, data=lambda _: clock.work(TURN_TIME))
        self.recorder = self.rig.opened()

    def sendData(self, *more: tuple[int, int, int | bytes]) -> None:
        """
        Have nine bytes arrive, each in a frame of its own, and run only the turn in
        which they arrive.
        """
        frames = [(0, int(Flag.DATA), bytes([i])) for i in range(9)]
        sealed = [self.rig.peer.seal(*frame) for frame in (*frames, *more)]
        self.rig.mux.dataReceived(b"".join(sealed))
        self.assertTrue(Parts(self.rig.mux).incoming.isBehind)

    def test_bugAfterLoss(self) -> None:
        """
        If an error inside gomux stops the handling of frames, the streams still learn
        that the carrier was lost before.
        """
        self.sendData()
        self.rig.peerCarrier.abortConnection()
        while self.rig.mux.hasCarrier:
            self.clock.turn()
        self.assertTrue(Parts(self.rig.mux).incoming.isBehind)
        self.assertEqual(self.recorder.events, ["made", "data"])

        def fail(frame: object) -> None:
            raise RuntimeError("a bug")

        self.patch(PeerFrames, "received", staticmethod(fail))
        self.rig.run()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIsInstance(self.rig.reason(), Truncated)
        self.assertEqual(self.recorder.events, ["made", "data", "lost"])
        self.rig.mux.checkInvariants()

    def test_nothingAfterEnd(self) -> None:
        """
        Frames behind CloseMux are dropped, and the end of the carrier is then noticed.
        """
        self.sendData((0, Flag.CLOSE_MUX, 0), (0, Flag.DATA, b"never"))
        while self.rig.mux.reason is None:
            self.assertFalse(self.rig.carrier.reading)
            self.clock.turn()
        self.assertEqual(Parts(self.rig.mux).incoming.parser.pending, 0)
        self.rig.peerCarrier.loseConnection()
        self.rig.run()
        self.assertIsInstance(self.rig.reason(), PeerClosedConnection)
        self.assertEqual(bytes(self.recorder.received), bytes(range(9)))
