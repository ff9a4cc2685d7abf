"""
Tests for L{gomux._carrier.watch}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gomux._carrier.watch import LOOKS, Watch


class WatchTests(SynchronousTestCase):
    """
    L{Watch}
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.progress: int | None = 0
        self.stalled: list[float] = []
        self.watch = Watch(
            self.clock,
            LOOKS,
            lambda: self.progress,
            lambda: self.stalled.append(self.clock.seconds()),
        )

    def wait(self, seconds: int) -> None:
        self.clock.pump([1] * seconds)

    def test_stalls(self) -> None:
        """
        Something without progress is reported once, after the timeout.
        """
        self.wait(3 * LOOKS)
        self.assertEqual(self.stalled, [LOOKS])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_goesOn(self) -> None:
        """
        Something with a little progress now and then is not reported.
        """
        for _ in range(10):
            self.wait(LOOKS - 1)
            assert self.progress is not None
            self.progress += 1
        self.assertEqual(self.stalled, [])
        self.wait(LOOKS + 1)
        self.assertEqual(len(self.stalled), 1)

    def test_isOver(self) -> None:
        """
        Once no progress is due, there are no more checks.
        """
        self.wait(LOOKS - 1)
        self.assertFalse(self.watch.isOver)
        self.progress = None
        self.wait(2)
        self.assertTrue(self.watch.isOver)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.stalled, [])

    def test_jump(self) -> None:
        """
        If the reactor itself is held up for long, nothing is reported.
        """
        self.clock.advance(100 * LOOKS)
        self.assertEqual(self.stalled, [])
        self.progress = 1
        self.wait(LOOKS - 1)
        self.assertEqual(self.stalled, [])

    def test_stop(self) -> None:
        """
        A watch can be stopped before and after it is over.
        """
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.watch.stop()
        self.wait(2 * LOOKS)
        self.assertEqual(self.stalled, [])
