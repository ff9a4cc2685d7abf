# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for the ends of muxes with many streams: others must not wait for them.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gomux import Keyring, MuxFactory
from gomux._carrier.turns import TURN_TIME
from gomux._mux.stream import Stream
from gomux._wire.frame import Flag
from gomux.error import ConnectionClosed, KeyRevoked, PeerClosedStream
from gomux.test.support.helpers import Recorder, Recorders, Rig
from gomux.test.support.slowclock import SlowClock


class ManyStreamsTests(SynchronousTestCase):
    """
    A mux with four streams.  To end one takes a whole turn.
    """

    def setUp(self) -> None:
        self.clock = SlowClock()
        self.streams = Recorders()
        keyring = Keyring({"alice": "the key of alice"})
        factory = MuxFactory(keyring, False, self.streams, clock=self.clock)
        self.rig = Rig(factory=factory, clock=self.clock, psk="the key of alice")
        for number in range(4):
            self.rig.send(2 * number, Flag.OPEN_STREAM)
        self.turns(3)

    def slow(self, method: str) -> None:
        """
        Make a method of streams take a whole turn.
        """
        original = getattr(Stream, method)

        def slow(stream: Stream, reason: BaseException) -> None:
            original(stream, reason)
            self.clock.work(TURN_TIME)

        self.patch(Stream, method, slow)

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.clock.turn()

    def reasons(self) -> list[object]:
        """
        @return: why the protocol of each stream was told that it has ended.
        """
        made: list[Recorder] = self.streams.made
        return [recorder.reason and type(recorder.reason) for recorder in made]

    def test_close(self) -> None:
        """
        The streams of a mux that is closed are closed in turns.  The peer can close one
        before its turn.  The mux is closed when all are.
        """
        self.slow("closeWith")
        self.rig.mux.close()
        self.assertEqual(self.rig.mux.streamCount, 3)
        self.clock.turn()
        self.assertEqual(self.rig.mux.streamCount, 2)
        self.rig.mux.dataReceived(self.rig.peer.seal(6, Flag.CLOSE_STREAM))
        self.turns(6)
        self.assertEqual(self.rig.mux.streamCount, 0)
        self.assertEqual(self.reasons()[:3], [ConnectionClosed] * 3)
        self.assertEqual(self.reasons()[3], PeerClosedStream)
        self.assertEqual(self.rig.peer.frames[-1][1], Flag.CLOSE_MUX)

    def test_closeThenLost(self) -> None:
        """
        If the carrier is lost meanwhile, each stream is told once.
        """
        self.slow("closeWith")
        self.rig.mux.close()
        self.rig.mux.abort()
        self.turns(8)
        self.assertEqual(self.reasons(), [ConnectionClosed] * 4)
        self.rig.mux.checkInvariants()

    def test_revoke(self) -> None:
        """
        The streams of a revoked peer end in turns, but at once if their input waits,
        which is not delivered.
        """
        self.streams.made[2].stream.pauseProducing()
        self.rig.send(4, Flag.DATA, b"late")
        self.turns(2)
        self.slow("muxEnded")
        self.slow("drop")
        self.rig.mux.revoke()
        self.turns(1)
        self.streams.made[2].stream.resumeProducing()
        told = self.reasons()
        self.assertEqual(told[2], KeyRevoked)
        self.assertLess(told.count(KeyRevoked), 4)
        self.turns(8)
        self.assertEqual(self.reasons(), [KeyRevoked] * 4)
        self.assertEqual(self.streams.made[2].received, b"")
