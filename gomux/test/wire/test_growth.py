"""
Tests for L{gomux._wire.growth}.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.growth import GrowingWindow, GrowthPolicy, Path
from gomux._wire.window import INITIAL_WINDOW

#: More than any window grows to in these tests.
PLENTY = 1 << 30


class PathTests(SynchronousTestCase):
    """
    L{Path}
    """

    def setUp(self) -> None:
        self.path = Path()

    def test_unknown(self) -> None:
        """
        Before a windowful has passed, the path counts as neither short nor long.
        """
        self.assertFalse(self.path.isShort(1, 1000.0))
        self.assertFalse(self.path.isLong(0.0))

    def test_proof(self) -> None:
        """
        A windowful within 2 ms proves for 2 seconds that the path is short, for a
        window of any size.
        """
        self.path.timed(1, 0.0019, 1000.0)
        self.assertTrue(self.path.isShort(1 << 30, 1001.9))
        self.assertFalse(self.path.isShort(1 << 30, 1002.1))

    def test_noProof(self) -> None:
        """
        A windowful that took longer than 2 ms does not prove that the path is short,
        nor does a windowful that took no time at all.
        """
        for elapsed in (0.0021, 0.0):
            self.path.timed(1, elapsed, 1000.0)
            self.assertFalse(self.path.isShort(131072, 1000.0))

    def test_bestRate(self) -> None:
        """
        The path is short for a window that passes within 2 ms at the best rate so
        far.
        """
        self.path.timed(10**7, 0.01, 1000.0)
        self.assertTrue(self.path.isShort(1999999, 1000.0))
        self.assertFalse(self.path.isShort(2000000, 1000.0))

    def test_bestRateDecays(self) -> None:
        """
        Each windowful below the best rate lowers the best rate by a tenth.
        """
        self.path.timed(10**7, 0.01, 1000.0)
        self.path.timed(1, 0.01, 1000.0)
        self.assertTrue(self.path.isShort(1799999, 1000.0))
        self.assertFalse(self.path.isShort(1800000, 1000.0))

    def test_longAtOnce(self) -> None:
        """
        A windowful that took more than 20 ms shows a long round trip.
        """
        self.assertTrue(self.path.isLong(0.021))
        self.assertFalse(self.path.isLong(0.02))

    def test_longInTheEnd(self) -> None:
        """
        After four windowfuls, a shorter time than 20 ms shows a long round trip too.
        """
        known = []
        for _ in range(5):
            known.append(self.path.isLong(0.005))
            self.path.timed(1, 0.005, 1000.0)
        self.assertEqual(known, [False, False, False, False, True])


class GrowthTests(SynchronousTestCase):
    """
    L{GrowthPolicy}
    """

    def setUp(self) -> None:
        self.now = 1000.0
        # How often the mux has delivered data to another stream than the last time.
        self.changes = 0
        self.window = GrowingWindow()
        self.policy = GrowthPolicy(PLENTY, PLENTY)

    def stream(self, rate: float, window: GrowingWindow | None = None) -> int:
        """
        Have one windowful of a stream pass at some rate, in bytes a second.

        @return: how much the window grew.
        """
        window = window or self.window
        grown = 0
        todo = window.size
        while todo > 0:
            self.now += 16384 / rate
            grown += self.policy.credited(window, 16384, self.now, self.changes)
            todo -= 16384
        return grown

    def transfer(
        self, size: int, rate: float, window: GrowingWindow | None = None
    ) -> None:
        """
        Have data of a stream arrive at some rate, and be consumed at once.
        """
        window = window or self.window
        self.now += size / rate
        size = min(size, window.available)
        window.received(size)
        given = window.consumed(size)
        if given:
            self.policy.credited(window, given, self.now, self.changes)

    def test_faster(self) -> None:
        """
        The window doubles as long as each doubling makes the stream faster.
        """
        self.stream(1e6)
        before = self.window.size
        self.assertEqual(self.stream(3e6), before)
        self.assertEqual(self.window.size, 2 * before)
        self.assertEqual(self.stream(9e6), 2 * before)

    def test_notFaster(self) -> None:
        """
        The window stays as it is once the stream gets no faster.
        """
        for _ in range(3):
            self.stream(1e6)
        size = self.window.size
        for rate in (1e6, 1.1e6, 0.5e6, 1e6):
            self.assertEqual(self.stream(rate), 0)
        self.assertEqual(self.window.size, size)

    def test_shortPath(self) -> None:
        """
        On a short path a window grows to twice its initial size, which keeps both ends
        busy.  It grows no further when a busy machine slows the stream down for a
        while.
        """
        self.stream(1e9)
        self.assertEqual(self.window.size, 2 * INITIAL_WINDOW)
        for rate in (1e9, 1e7, 3e7, 1e9, 1e7):
            self.assertEqual(self.stream(rate), 0)

    def test_shortPathBudget(self) -> None:
        """
        On a short path a window that had too little budget grows to twice its initial
        size once there is budget, and no further.
        """
        self.policy.budget = 40000
        self.stream(1e8)
        self.assertEqual(self.window.size, INITIAL_WINDOW + 40000)
        self.policy.budget = PLENTY
        self.stream(1e9)
        self.assertEqual(self.window.size, 2 * INITIAL_WINDOW)

    def test_others(self) -> None:
        """
        The rate of all streams together shows that a path is short, even to a stream
        that is slow itself.
        """
        self.policy.credited(self.window, 1, self.now, self.changes)
        for _ in range(10):
            self.policy.passed += 10**8
            self.assertEqual(self.stream(INITIAL_WINDOW / 0.005), 0)

    def test_newStream(self) -> None:
        """
        Other streams that were active before a stream began do not keep its window from
        growing.
        """
        self.policy.passed = 10**8
        self.changes = 100
        self.assertEqual(self.stream(1e9), INITIAL_WINDOW)
        for _ in range(2):
            self.stream(1e9)
        self.assertEqual(self.window.size, 2 * INITIAL_WINDOW)

    def test_shortPathSlowAtFirst(self) -> None:
        """
        A short path whose ends start slowly and get ever faster, as on a busy machine,
        is not taken for a long path.
        """
        for rate in (1e8, 1.29e8, 2.59e8, 5.23e8, 7.69e8, 7.69e8):
            self.stream(rate)
        self.assertEqual(self.window.size, 2 * INITIAL_WINDOW)

    def test_shortPathSlowForAWhile(self) -> None:
        """
        A short path whose ends are slow for a while is not taken for a long path.
        """
        for rate in [1e9] * 5 + [1e8] * 100 + [1.25e8, 1.75e8, 2.85e8, 4.96e8, 1e9]:
            self.stream(rate)
        self.assertEqual(self.window.size, 2 * INITIAL_WINDOW)

    def test_longPath(self) -> None:
        """
        A window grows beyond twice its initial size after 5 windowfuls if the round
        trip takes some milliseconds, and after 2 if it is long.
        """
        for roundTrip, windowfuls in ((0.005, 5), (0.05, 2)):
            self.setUp()
            needed = 0
            while self.window.size <= 2 * INITIAL_WINDOW:
                self.stream(self.window.size / roundTrip)
                needed += 1
            self.assertEqual(needed, windowfuls)

    def test_burst(self) -> None:
        """
        A fast burst on a long path is forgotten, and the window grows.
        """
        self.policy.maxWindow = 1 << 20
        self.stream(1e9)
        self.stream(1e9)
        for _ in range(100):
            self.stream(self.window.size / 0.05)
        self.assertEqual(self.window.size, 1 << 20)

    def test_shrinksAlone(self) -> None:
        """
        A window that has grown shrinks to what keeps both ends busy once the path
        turns out to be short, and no byte of credit is lost or made up.
        """
        for rate in (1e6, 3e6, 9e6):
            self.stream(rate)
        self.assertEqual(self.window.size, 8 * INITIAL_WINDOW)
        for _ in range(200):
            self.transfer(32768, 1e9)
            self.assertEqual(self.window.available + self.window.held, self.window.size)
        self.assertEqual(self.window.size, 2 * INITIAL_WINDOW)
        self.assertEqual(self.policy.budget, PLENTY - INITIAL_WINDOW)
        self.assertGreaterEqual(self.window.held, 0)

    def beside(self, others: Iterable[bool], before: int) -> list[int]:
        """
        Have windowfuls of a stream pass on a short path, each with or without a little
        data of another stream.

        @param before: how many bytes of other streams pass first.  If they are many,
            the window grows not with the first windowful, but because the stream gets
            faster.
        @return: the window's size after each windowful.
        """
        self.setUp()
        window, policy = self.window, self.policy
        sizes = []
        self.transfer(65536, 1e9)
        policy.passed += before
        for isBeside in others:
            self.changes += 2 * isBeside
            for _ in range(8):
                self.transfer(65536, 1e9)
                self.assertEqual(window.available + window.held, window.size)
                self.assertEqual(policy.budget + window.size, PLENTY + INITIAL_WINDOW)
            sizes.append(window.size)
        return sizes

    def test_besideAnother(self) -> None:
        """
        A window on a short path is a frame smaller while other streams consume
        something now and then, and no byte of credit is lost or made up.
        """
        for before in (0, INITIAL_WINDOW):
            sizes = self.beside([False, True, False, False, True, True], before)
            self.assertEqual(sizes, [262144] + 5 * [196608])

    def test_aloneAgain(self) -> None:
        """
        A window that shrank by a frame because of other streams grows back once no
        other stream has consumed anything for a while.
        """
        for before in (0, INITIAL_WINDOW):
            sizes = self.beside([False, True] + 5000 * [False], before)
            self.assertEqual((sizes[1000], sizes[-1]), (196608, 262144))

    def test_shortPathShared(self) -> None:
        """
        On a short path no window grows while other streams keep both ends busy.
        """
        windows = [GrowingWindow() for _ in range(4)]
        for _ in range(100):
            for window in windows:
                self.now += 16384 / 1e9
                self.assertEqual(self.policy.credited(window, 16384, self.now, 0), 0)

    def share(self, rate: float) -> list[GrowingWindow]:
        """
        Have four streams pass eight windowfuls each, in turn.

        @return: their windows.
        """
        self.policy.budget = 1
        windows = [self.window, *(GrowingWindow() for _ in range(3))]
        for _ in range(16):
            for window in windows:
                self.transfer(65536, rate, window)
                self.assertLessEqual(window.held, 65536)
                self.assertGreaterEqual(window.available, 65536)
        return windows

    def test_kept(self) -> None:
        """
        If several streams keep a short path busy, each window keeps half of its bytes
        back.  The other half is enough for a sender that waits for a whole frame.
        """
        for window in self.share(1e9):
            self.assertEqual((window.held, window.available), (65536, 65536))

    def test_notKept(self) -> None:
        """
        On a long path no window keeps bytes back.
        """
        for window in self.share(1e7):
            self.assertEqual(window.held, 0)

    def test_keptNoLonger(self) -> None:
        """
        Once the other streams have ended, the bytes kept back are given as credit
        together with the bytes consumed next.
        """
        self.share(1e9)
        for _ in range(16):
            self.transfer(32768, 5e8)
        self.assertEqual(self.window.kept, 0)
        self.assertLessEqual(self.window.held, 32768)

    def test_shrinks(self) -> None:
        """
        A window that grew while its stream was alone on a short path shrinks when other
        streams join, and no byte of credit is lost or made up.
        """
        first = self.window
        windows = [first, *(GrowingWindow() for _ in range(3))]
        sent = 0
        for step in range(60):
            for window in windows if step > 10 else [first]:
                sent += min(32768, window.available) if window is first else 0
                self.transfer(32768, 1e9, window)
            self.assertEqual(first.available + first.held, first.size)
            if step == 10:
                self.assertEqual(first.size, 2 * INITIAL_WINDOW)
        self.assertEqual(first.size, INITIAL_WINDOW)
        self.assertEqual(self.policy.budget, PLENTY)
        self.assertGreater(sent, 1 << 20)

    def test_maxWindow(self) -> None:
        """
        A window grows no further than C{maxWindow}.
        """
        self.policy = GrowthPolicy(300000, PLENTY)
        for step in range(9):
            self.stream(1e5 * 2**step)
        self.assertEqual(self.window.size, 300000)
        self.assertEqual(self.window.available, 300000)

    def test_maxWindowShortPath(self) -> None:
        """
        On a short path, too, a window grows no further than C{maxWindow}.
        """
        most = INITIAL_WINDOW + 1000
        self.policy = GrowthPolicy(most, PLENTY)
        for _ in range(5):
            self.stream(1e9)
        self.assertEqual(self.window.size, most)

    def test_maxGrowth(self) -> None:
        """
        All windows together grow by no more than C{maxGrowth}.
        """
        self.policy = GrowthPolicy(PLENTY, 400000)
        windows = [GrowingWindow() for _ in range(5)]
        for window in windows:
            for step in range(9):
                self.stream(1e5 * 2**step, window)
        grown = sum(window.size - INITIAL_WINDOW for window in windows)
        self.assertEqual(grown, 400000)
        self.assertEqual(self.policy.budget, 0)

    def test_release(self) -> None:
        """
        When a stream ends, other windows may grow by the growth of its window.  A
        second release adds nothing.
        """
        self.policy = GrowthPolicy(PLENTY, 400000)
        for step in range(9):
            self.stream(1e5 * 2**step)
        self.assertEqual(self.policy.budget, 0)
        self.policy.release(self.window)
        self.policy.release(self.window)
        self.assertEqual(self.policy.budget, 400000)

    def test_standingClock(self) -> None:
        """
        While the clock stands still no window grows.
        """
        for _ in range(3):
            self.assertEqual(self.policy.credited(self.window, 131072, 0.0, 0), 0)

    def test_added(self) -> None:
        """
        The peer may use the growth of a window at once.
        """
        self.window.received(131072)
        grown = self.stream(1e6)
        self.assertEqual(self.window.available, grown)
        self.assertEqual(grown, 131072)
