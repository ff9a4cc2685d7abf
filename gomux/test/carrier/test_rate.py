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
        The burst is allowed at once, and no more.
        """
        bucket = TokenBucket(1, 5)
        self.assertEqual([bucket.take(0) for _ in range(7)], [True] * 5 + [False] * 2)

    def test_rate(self) -> None:
        """
        In the long run the rate is allowed.
        """
        bucket = TokenBucket(10, 5)
        taken = sum(bucket.take(step / 100) for step in range(10000))
        self.assertIn(taken, range(1003, 1006))

    def test_rest(self) -> None:
        """
        A long rest allows another burst, and no more.
        """
        bucket = TokenBucket(10, 5)
        for _ in range(5):
            bucket.take(0)
        self.assertEqual([bucket.take(1e6) for _ in range(6)], [True] * 5 + [False])

    def test_wait(self) -> None:
        """
        It tells when the next event is allowed.
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
        The time that it begins at makes no difference.
        """
        bucket = TokenBucket(1000, 2)
        self.assertEqual([bucket.take(1e9) for _ in range(3)], [True, True, False])
