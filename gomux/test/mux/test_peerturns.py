# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for the time that the peers of a keyring have: each as much, however many muxes it
has.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gomux import Keyring, MuxFactory
from gomux._carrier.turns import TURN_TIME, PeersTurns
from gomux._wire.frame import Flag
from gomux.test.support.helpers import Recorder, Recorders, Rig
from gomux.test.support.slowclock import SlowClock

KEYS = {"alice": "the key of alice", "bob": "the key of bob"}


class PeerTurnsTests(SynchronousTestCase):
    """
    The muxes of two peers of a server.
    """

    def setUp(self) -> None:
        self.clock = SlowClock()
        self.took: list[str] = []
        self.keyring = Keyring(KEYS)

    def rigs(self, *names: str) -> list[Rig]:
        """
        @return: a mux of each of some peers, with a stream whose protocol takes a whole
            turn for each piece of data.
        """

        def received(recorder: Recorder) -> None:
            self.took.append(bytes(recorder.received).decode())
            self.clock.work(TURN_TIME)

        factory = MuxFactory(
            self.keyring, False, Recorders(data=received), clock=self.clock
        )
        rigs = [Rig(factory=factory, clock=self.clock, psk=KEYS[n]) for n in names]
        for rig in rigs:
            rig.send(0, Flag.OPEN_STREAM)
            self.clock.turn()
        self.clock.turn()
        return rigs

    def receive(self, rig: Rig, data: str) -> None:
        """
        Have a frame arrive, and take only the turn in which it arrives.
        """
        rig.mux.dataReceived(rig.peer.seal(0, Flag.DATA, data.encode()))

    def test_shared(self) -> None:
        """
        Once one mux of a peer has used up the time of a turn, its others wait for later
        turns, and are not read meanwhile.  The other peer does not wait.
        """
        *alice, bob = self.rigs("alice", "alice", "alice", "bob")
        for number, rig in enumerate(alice):
            self.receive(rig, f"a{number}")
        self.receive(bob, "b")
        self.assertEqual(self.took, ["a0", "b"])
        self.assertEqual([rig.carrier.reading for rig in alice], [True, False, False])
        self.assertTrue(bob.carrier.reading)
        self.clock.turn()
        self.assertEqual(self.took[2:], ["a1"])
        self.clock.turn()
        self.assertEqual(self.took[3:], ["a2"])
        self.assertTrue(all(rig.carrier.reading for rig in alice))
        self.assertEqual(self.took, ["a0", "b", "a1", "a2"])

    def test_nextTurn(self) -> None:
        """
        In the next turn the peer has time again.
        """
        first, second, _ = self.rigs("alice", "alice", "bob")
        self.receive(first, "1")
        self.clock.turn()
        self.receive(second, "2")
        self.assertEqual(self.took, ["1", "2"])

    def test_littleTime(self) -> None:
        """
        The time that several muxes of a peer take in a turn is added up.
        """
        first, second, third, _ = self.rigs("alice", "alice", "alice", "bob")
        self.clock.work(1)
        self.patch(self.clock, "work", lambda seconds: self.advance(seconds * 0.6))
        for number, rig in enumerate((first, second, third)):
            self.receive(rig, str(number))
        self.assertEqual(self.took, ["0", "1"])
        self.clock.turn()
        self.assertEqual(self.took, ["0", "1", "2"])

    def advance(self, seconds: float) -> None:
        self.clock.rightNow += seconds

    def test_singlePeer(self) -> None:
        """
        The muxes of a single peer share nothing.
        """
        self.keyring = Keyring({"alice": KEYS["alice"]})
        for number, rig in enumerate(self.rigs("alice", "alice")):
            self.receive(rig, str(number))
        self.assertEqual(self.took, ["0", "1"])

    def test_secondPeer(self) -> None:
        """
        Once another peer has a key, the muxes that the first has already share its
        time.
        """
        self.keyring = Keyring({"alice": KEYS["alice"]})
        rigs = self.rigs("alice", "alice")
        self.keyring.adopt(Keyring(KEYS))
        for number, rig in enumerate(rigs):
            self.receive(rig, str(number))
        self.assertEqual(self.took, ["0"])
        self.clock.turn()
        self.assertEqual(self.took, ["0", "1"])


class PeersTurnsTests(SynchronousTestCase):
    """
    L{PeersTurns}
    """

    def test_of(self) -> None:
        """
        Each peer has turns of its own.  Those of a peer whose key was removed are
        forgotten when another peer comes.
        """
        keyring = Keyring(KEYS)
        turns = PeersTurns(SlowClock(), keyring)
        alice = turns.of("alice")
        bob = turns.of("bob")
        self.assertIsNot(alice, bob)
        self.assertIs(turns.of("alice"), alice)
        keyring.adopt(Keyring({"bob": KEYS["bob"], "carol": "the key of carol"}))
        turns.of("carol")
        self.assertIs(turns.of("bob"), bob)
        self.assertIsNot(turns.of("alice"), alice)
