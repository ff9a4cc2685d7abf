"""
Tests for L{gomux._mux.frames}: the rules for the frames of a peer.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits
from gomux._mux.frames import COMPATIBLE, STRICT, Rules
from gomux._wire.frame import ID_END, Flag
from gomux.error import LimitExceeded, ProtocolViolation
from gomux.limits import RESERVED_IDS
from gomux.test.support.helpers import Recorders, Rig
from gomux.test.support.strictrig import StrictRig

UNKNOWN_FLAGS = (8, 2**32 - 1)
NEVER_OPENED = 6


class RulesTests(SynchronousTestCase):
    """
    L{COMPATIBLE} and L{STRICT}, applied by a mux.
    """

    def rig(self, rules: Rules) -> Rig:
        """
        @return: a rig whose mux has these rules, one stream, and a limit of three
            frames without effect.
        """
        limits = Limits(ignoredRate=0.001, ignoredBurst=3)
        rig = StrictRig(limits=limits) if rules is STRICT else Rig(limits=limits)
        rig.opened()
        return rig

    def test_complete(self) -> None:
        """
        Both tables have a rule for each flag except Data.
        """
        for rules in (COMPATIBLE, STRICT):
            self.assertEqual(set(rules.flags), set(Flag) - {Flag.DATA})

    def test_sameHandlers(self) -> None:
        """
        A flag has the same handler in both tables, except Keepalive: too many of them
        give another error in strict mode.
        """
        for flag, rule in COMPATIBLE.flags.items():
            if flag != Flag.KEEPALIVE:
                self.assertIs(STRICT.flags[flag].handle, rule.handle)

    def test_neverOpenedBelow(self) -> None:
        """
        In both modes frames for streams that were never opened also count below the
        highest ID that the peer has used, if it has skipped most of them.  After fewer
        skipped IDs, and for this side's own streams, they do not.
        """
        for rules in (COMPATIBLE, STRICT):
            for highest, frames, isLost in (
                (ID_END - 2, 3, False),
                (ID_END - 2, 4, True),
                (2 * RESERVED_IDS + 2, 1000, False),
                (2 * RESERVED_IDS + 4, 4, True),
            ):
                rig = self.rig(rules)
                rig.send(highest, Flag.OPEN_STREAM)
                rig.send(0, Flag.CLOSE_STREAM)
                for _ in range(frames):
                    rig.send(NEVER_OPENED, Flag.DATA, b"late")
                self.assertEqual(rig.mux.reason is not None, isLost, highest)
                if isLost:
                    self.assertIsInstance(rig.mux.reason, LimitExceeded)
            rig = self.rig(rules)
            rig.send(ID_END - 2, Flag.OPEN_STREAM)
            rig.mux.openStream(Recorders())
            rig.send(1, Flag.CLOSE_STREAM)
            for _ in range(1000):
                rig.send(1, Flag.CLOSE_WRITE)
            self.assertIsNone(rig.mux.reason)

    def test_length(self) -> None:
        """
        A frame with a length ends the mux, without any other effect, if the rule of its
        flag allows no length.
        """
        for rules in (COMPATIBLE, STRICT):
            for flag, rule in rules.flags.items():
                rig = self.rig(rules)
                [recorder] = rig.streams.made
                rig.send(2 if flag == Flag.OPEN_STREAM else 0, flag, 1)
                if rule.hasLength:
                    self.assertNotIsInstance(rig.mux.reason, ProtocolViolation)
                    continue
                self.assertIsInstance(rig.mux.reason, ProtocolViolation)
                self.assertIn("announces a length of 1", str(rig.mux.reason))
                self.assertEqual(len(rig.streams.made), 1)
                self.assertNotIn("readLost", recorder.events)

    def test_hasLength(self) -> None:
        """
        In strict mode only credit and OpenStream may have a length.  In compatible mode
        any frame may.
        """
        allowed = {flag for flag, rule in STRICT.flags.items() if rule.hasLength}
        self.assertEqual(allowed, {Flag.OPEN_STREAM, Flag.WINDOW_UPDATE})
        self.assertTrue(all(rule.hasLength for rule in COMPATIBLE.flags.values()))

    def check_ignored(
        self, rig: Rig, frame: tuple[int, int, int], what: str = "frames without effect"
    ) -> None:
        """
        Check that a frame has no effect, but counts: three are allowed, and the fourth
        ends the mux.

        @param what: the frames that the error names.
        """
        rig.sendMany(*[frame] * 3)
        self.assertIsNone(rig.mux.reason)
        rig.send(*frame)
        self.assertIsInstance(rig.mux.reason, LimitExceeded)
        self.assertIn(f"too many {what}", str(rig.mux.reason))

    def test_ignored(self) -> None:
        """
        Frames without effect are counted where they are allowed, and too many end the
        mux.
        """
        for flag in UNKNOWN_FLAGS:
            self.check_ignored(self.rig(COMPATIBLE), (0, flag, 1))
        frame = NEVER_OPENED, int(Flag.CLOSE_READ), 0
        what = "frames for streams that were never opened"
        self.check_ignored(self.rig(COMPATIBLE), frame, what)
        keepalive = 0, int(Flag.KEEPALIVE), 0
        for rules in (COMPATIBLE, STRICT):
            self.check_ignored(self.rig(rules), keepalive, "keepalives")

    def test_refused(self) -> None:
        """
        In strict mode an unknown flag and a frame for a stream that was never opened
        end the mux.
        """
        frames: list[tuple[int, int, int]] = [
            *((0, flag, 0) for flag in UNKNOWN_FLAGS),
            *((NEVER_OPENED, flag, 0) for flag in (Flag.DATA, Flag.CLOSE_READ)),
        ]
        for frame in frames:
            rig = self.rig(STRICT)
            rig.send(*frame)
            self.assertIsInstance(rig.mux.reason, ProtocolViolation)

    def test_ended(self) -> None:
        """
        In both tables, frames for a stream that has ended are not counted.
        """
        for rules in (COMPATIBLE, STRICT):
            rig = self.rig(rules)
            rig.streams.made[0].stream.abortConnection()
            for _ in range(5):
                rig.sendMany((0, Flag.DATA, b"late"), (0, Flag.CLOSE_STREAM, 0))
            self.assertIsNone(rig.mux.reason)
