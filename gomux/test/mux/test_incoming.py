"""
Tests for L{gomux._mux.incoming}: what goes wrong in a later turn of the reactor.
L{gomux.test.carrier.test_turns} has those of frames that take long.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gomux._carrier.turns import TURN_TIME
from gomux._mux import incoming
from gomux._wire.frame import Flag
from gomux.error import PeerClosedConnection, Truncated
from gomux.test.support.helpers import Parts, Rig
from gomux.test.support.slowclock import SlowClock


class LaterTests(SynchronousTestCase):
    """
    Frames of which one is handled a turn.
    """

    def setUp(self) -> None:
        self.patch(incoming, "FRAMES_PER_LOOK", 1)
        self.clock = clock = SlowClock()
        self.rig = Rig(clock=clock, data=lambda _: clock.work(TURN_TIME))
        self.recorder = self.rig.opened()

    def sendData(self, *more: tuple[int, int, int | bytes]) -> None:
        """
        Have nine bytes come in a frame each, and take only the first turn.
        """
        frames = [(0, int(Flag.DATA), bytes([i])) for i in range(9)]
        sealed = [self.rig.peer.seal(*frame) for frame in (*frames, *more)]
        self.rig.mux.dataReceived(b"".join(sealed))
        self.assertTrue(Parts(self.rig.mux).incoming.isBehind)

    def test_bugAfterLoss(self) -> None:
        """
        After an error of our own the streams learn of the end of the carrier also if
        that is gone already.
        """
        self.sendData()
        self.rig.peerCarrier.abortConnection()
        while self.rig.mux.hasCarrier:
            self.clock.turn()
        self.assertTrue(Parts(self.rig.mux).incoming.isBehind)
        self.assertEqual(self.recorder.events, ["made", "data"])

        def fail(frame: object) -> None:
            raise RuntimeError("a bug")

        self.patch(Parts(self.rig.mux).frames, "received", fail)
        self.rig.run()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIsInstance(self.rig.reason(), Truncated)
        self.assertEqual(self.recorder.events, ["made", "data", "lost"])
        self.rig.mux.checkInvariants()

    def test_nothingAfterEnd(self) -> None:
        """
        What has come after CloseMux is forgotten, and the end of the carrier is
        noticed.
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
