"""
Tests of strict mode with real muxes and an attacker on the path: any change to any
frame of a session ends the mux at that frame.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from gomux._wire import ratchet
from gomux.error import (
    ConnectionClosed,
    GomuxError,
    HandshakeFailed,
    OutOfSequence,
    PeerClosedConnection,
    PeerVanished,
    Truncated,
)
from gomux.test.support.middle import (
    CLIENT,
    SERVER,
    Attack,
    Change,
    Cut,
    Drop,
    Middle,
    Reflect,
    Replay,
    Splice,
    Swap,
)


class AttackTests(SynchronousTestCase):
    """
    Each frame of a session is attacked in turn.
    """

    def setUp(self) -> None:
        # The keys change several times within a session.
        self.patch(ratchet, "REKEY_FRAMES", 5)
        self.recorded = Middle(self, Attack(CLIENT, 1 << 30))
        self.recorded.session()

    def test_undisturbed(self) -> None:
        """
        A session without an attack delivers all data and ends in good order.
        """
        self.assertEqual(self.recorded.delivered(), (200, 200))
        self.assertIsInstance(self.recorded.reason(SERVER), PeerClosedConnection)
        self.assertEqual([len(sent) > 15 for sent in self.recorded.sent], [True] * 2)
        self.assertEqual(self.recorded.clock.getDelayedCalls(), [])

    def attackAll(self, kind: type[Attack]) -> Iterable[tuple[Attack, Middle]]:
        """
        Run one session for each frame of the recorded session, and attack that frame.
        """
        for side in (CLIENT, SERVER):
            for number in range(len(self.recorded.sent[side])):
                attack = kind(side, number)
                middle = Middle(self, attack)
                if isinstance(attack, Splice):
                    attack.other = self.recorded
                    middle.hopeless = number == 0
                middle.session()
                yield attack, middle
                # No delayed call is left, even if the mux had to time out.
                middle.wait()
                self.assertEqual(middle.clock.getDelayedCalls(), [])

    def assertStopped(self, kind: type[Attack]) -> None:
        """
        Check that the attacked frame ends the mux in every session.
        """
        count = 0
        for attack, middle in self.attackAll(kind):
            self.assertTrue(middle.stopped, (attack.side, attack.number))
            count += 1
        self.assertEqual(count, sum(map(len, self.recorded.sent)))

    def test_replay(self) -> None:
        """
        A repeated frame ends the mux, except a repeated CloseMux: a mux reads no frames
        after CloseMux.
        """
        for attack, middle in self.attackAll(Replay):
            # A mux reads nothing after CloseMux, so a second CloseMux goes unnoticed.
            last = len(self.recorded.sent[CLIENT]) - 1
            isCloseMux = attack.side == CLIENT and attack.number == last
            self.assertEqual(middle.stopped, not isCloseMux)

    def test_reflect(self) -> None:
        """
        A frame sent back to its sender ends the sender's mux.
        """
        self.assertStopped(Reflect)

    def test_change(self) -> None:
        """
        A frame with one changed bit in its tag ends the mux.
        """
        self.assertStopped(Change)

    def test_drop(self) -> None:
        """
        If a frame is dropped, the next frame is not accepted.  If no frame follows, the
        mux times out.
        """
        self.checkMissing(Drop)

    def test_swap(self) -> None:
        """
        A frame that arrives ahead of its predecessor is not accepted.
        """
        self.checkMissing(Swap)

    def checkMissing(self, kind: type[Attack]) -> None:
        """
        Check that an attack which withholds a frame ends the receiver's mux, and that
        nothing is delivered afterwards.
        """
        stopped = 0
        for attack, middle in self.attackAll(kind):
            before = middle.delivered()
            middle.wait()
            stopped += middle.stopped
            reason = middle.reason(1 - attack.side)
            if attack.number == len(self.recorded.sent[SERVER]) - 1 and attack.side:
                # After the server's last frame the client had closed the mux itself.
                self.assertIsInstance(reason, ConnectionClosed)
                continue
            self.assertIsInstance(
                reason, (OutOfSequence, HandshakeFailed, PeerVanished, Truncated)
            )
            self.assertEqual(middle.delivered(), before)
        self.assertGreater(stopped, 20)

    def test_splice(self) -> None:
        """
        A frame from the same place of another session under the same key ends the mux.
        A hello from another session makes the handshake fail.
        """
        for attack, middle in self.attackAll(Splice):
            if attack.number:
                self.assertTrue(middle.stopped, (attack.side, attack.number))
            else:
                middle.wait()
                for side in (CLIENT, SERVER):
                    self.assertIsInstance(middle.reason(side), HandshakeFailed)
                    self.assertFalse(middle.muxes[side].authenticated)

    def test_cut(self) -> None:
        """
        A carrier that is cut before any of the frames is never taken for an orderly
        end.
        """
        for _, middle in self.attackAll(Cut):
            self.assertIsInstance(middle.reason(SERVER), (Truncated, HandshakeFailed))

    def test_oldSession(self) -> None:
        """
        If a server gets the frames of a recorded client, the handshake fails at the
        second frame, and no application receives data.
        """
        middle = Middle(self, lambda side, number, frame: [])
        middle.hopeless = True
        for frame in self.recorded.sent[CLIENT]:
            middle.deliver(SERVER, frame, False)
            if middle.reason(SERVER) is not None:
                break
        self.assertEqual(frame, self.recorded.sent[CLIENT][1])
        self.assertIsInstance(middle.reason(SERVER), HandshakeFailed)
        self.assertFalse(middle.muxes[SERVER].authenticated)
        self.assertEqual(middle.delivered(), (0, 0))

    def test_oldServer(self) -> None:
        """
        If a client gets the frames of a recorded server, the handshake fails at the
        first frame.
        """
        middle = Middle(self, lambda side, number, frame: [])
        middle.hopeless = True
        for frame in self.recorded.sent[SERVER]:
            middle.deliver(CLIENT, frame, False)
            if middle.reason(CLIENT) is not None:
                break
        self.assertEqual(frame, self.recorded.sent[SERVER][0])
        self.assertIsInstance(middle.reason(CLIENT), HandshakeFailed)
        self.assertFalse(middle.muxes[CLIENT].authenticated)

    def test_silence(self) -> None:
        """
        If the attacker delivers nothing, or only the hellos, both sides time out, and
        no application receives data.  The server has opened no stream, and the client
        only if it had the server's hello.
        """
        for hellos in (0, 1):
            middle = Middle(
                self,
                lambda side, number, frame, hellos=hellos: (
                    [(1 - side, frame, False)] if number < hellos else []
                ),
            )
            middle.session()
            middle.wait()
            for side in (CLIENT, SERVER):
                self.assertIsInstance(middle.reason(side), GomuxError)
                isUp = side == CLIENT and bool(hellos)
                self.assertEqual(middle.muxes[side].authenticated, isUp)
            self.assertEqual(middle.delivered(), (0, 0))
            self.assertEqual(len(middle.sent[SERVER]), hellos)
