"""
Strict mode against somebody in the middle, with real muxes: whatever is done to
whichever frame of a session, the mux ends there.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

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
        self.recorded = Middle(self, Attack(CLIENT, 1 << 30))
        self.recorded.session()

    def test_undisturbed(self) -> None:
        """
        A session that nobody disturbs comes to its orderly end.
        """
        self.assertEqual(self.recorded.delivered(), (200, 200))
        self.assertIsInstance(self.recorded.reason(SERVER), PeerClosedConnection)
        self.assertEqual([len(sent) > 15 for sent in self.recorded.sent], [True] * 2)
        self.assertEqual(self.recorded.clock.getDelayedCalls(), [])

    def attackAll(self, kind: type[Attack]) -> Iterable[tuple[Attack, Middle]]:
        for side in (CLIENT, SERVER):
            for number in range(len(self.recorded.sent[side])):
                attack = kind(side, number)
                middle = Middle(self, attack)
                if isinstance(attack, Splice):
                    attack.other = self.recorded
                    middle.hopeless = number == 0
                middle.session()
                yield attack, middle
                # Nothing stays, also where there was only silence.
                middle.wait()
                self.assertEqual(middle.clock.getDelayedCalls(), [])

    def assertStopped(self, kind: type[Attack]) -> None:
        count = 0
        for attack, middle in self.attackAll(kind):
            self.assertTrue(middle.stopped, (attack.side, attack.number))
            count += 1
        self.assertEqual(count, sum(map(len, self.recorded.sent)))

    def test_replay(self) -> None:
        """
        A frame that comes twice.
        """
        for attack, middle in self.attackAll(Replay):
            # Only of CloseMux is the repetition not looked at any more.
            last = len(self.recorded.sent[CLIENT]) - 1
            isCloseMux = attack.side == CLIENT and attack.number == last
            self.assertEqual(middle.stopped, not isCloseMux)

    def test_reflect(self) -> None:
        """
        A frame that comes back to where it came from.
        """
        self.assertStopped(Reflect)

    def test_change(self) -> None:
        """
        A frame with another bit in its tag.
        """
        self.assertStopped(Change)

    def test_drop(self) -> None:
        """
        A frame that is missing: the next one is not taken, and where none
        comes, the silence is noticed.
        """
        self.checkMissing(Drop)

    def test_swap(self) -> None:
        """
        A frame that comes before the one that was sent before it.
        """
        self.checkMissing(Swap)

    def checkMissing(self, kind: type[Attack]) -> None:
        stopped = 0
        for attack, middle in self.attackAll(kind):
            before = middle.delivered()
            middle.wait()
            stopped += middle.stopped
            reason = middle.reason(1 - attack.side)
            if attack.number == len(self.recorded.sent[SERVER]) - 1 and attack.side:
                # After its last frame the client had closed the mux itself.
                self.assertIsInstance(reason, ConnectionClosed)
                continue
            self.assertIsInstance(
                reason, (OutOfSequence, HandshakeFailed, PeerVanished, Truncated)
            )
            self.assertEqual(middle.delivered(), before)
        self.assertGreater(stopped, 20)

    def test_splice(self) -> None:
        """
        A frame from the same place of another session under the same key.
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
        A carrier that ends before some frame never passes for an orderly end.
        """
        for _, middle in self.attackAll(Cut):
            self.assertIsInstance(middle.reason(SERVER), (Truncated, HandshakeFailed))

    def test_oldSession(self) -> None:
        """
        All that a client sent once, sent again to the server: there never is a
        mux, and nothing reaches an application.
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
        The same for what a server sent.
        """
        middle = Middle(self, lambda side, number, frame: [])
        middle.hopeless = True
        for frame in self.recorded.sent[SERVER]:
            middle.deliver(CLIENT, frame, False)
            if middle.reason(CLIENT) is not None:
                break
        self.assertEqual(frame, self.recorded.sent[SERVER][1])
        self.assertIsInstance(middle.reason(CLIENT), HandshakeFailed)
        self.assertFalse(middle.muxes[CLIENT].authenticated)

    def test_silence(self) -> None:
        """
        A hello, genuine or from a recording, and then silence: both sides give
        up in time, and nothing was opened.
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
                self.assertFalse(middle.muxes[side].authenticated)
            self.assertEqual(middle.delivered(), (0, 0))
