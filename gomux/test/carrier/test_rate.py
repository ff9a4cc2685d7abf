"""
Tests for L{gomux._carrier.rate}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gomux._carrier.rate import TokenBucket


class TokenBucketTests(SynchronousTestCase):
    """
    L{TokenBucket}
    """

    def test_burst(self) -> None:
        """
        The burst is allowed at once, and no further event.
        """
        bucket = TokenBucket(1, 5)
        self.assertEqual([bucket.take(0) for _ in range(7)], [True] * 5 + [False] * 2)

    def test_rate(self) -> None:
        """
        In the long run as many events are allowed as the rate says.
        """
        bucket = TokenBucket(10, 5)
        taken = sum(bucket.take(step / 100) for step in range(10000))
        self.assertIn(taken, range(1003, 1006))

    def test_rest(self) -> None:
        """
        After a long rest another burst is allowed, and no further event.
        """
        bucket = TokenBucket(10, 5)
        for _ in range(5):
            bucket.take(0)
        self.assertEqual([bucket.take(1e6) for _ in range(6)], [True] * 5 + [False])

    def test_wait(self) -> None:
        """
        C{wait} is the time until the next event is allowed.
        """
        bucket = TokenBucket(10, 2)
        bucket.take(5)
        self.assertEqual(bucket.wait, 0)
        bucket.take(5.05)
        self.assertAlmostEqual(bucket.wait, 0.05)
        self.assertFalse(bucket.take(5.08))
        self.assertAlmostEqual(bucket.wait, 0.02)
        self.assertTrue(bucket.take(5.11))

    def test_largeTime(self) -> None:
        """
        A bucket may start at any time of the clock.
        """
        bucket = TokenBucket(1000, 2)
        self.assertEqual([bucket.take(1e9) for _ in range(3)], [True, True, False])
