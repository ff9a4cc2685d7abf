"""
Tests for L{gomux._wire.window}.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.window import INITIAL_WINDOW, MAX_HELD, Growth, ReceiveWindow, credited
from gomux.error import ProtocolViolation


class CreditedTests(SynchronousTestCase):
    """
    L{credited}
    """

    def test_initial(self) -> None:
        """
        131072 bytes may be sent before there is any credit.
        """
        self.assertEqual(INITIAL_WINDOW, 131072)

    def test_credit(self) -> None:
        """
        Credit adds to the window, also beyond what it started with.
        """
        self.assertEqual(credited(131072, 65536), 131072 + 65536)

    def test_end(self) -> None:
        """
        The window reaches 2**31 - 1 and not a byte more.
        """
        window = credited(131072, 2**31 - 1 - 131072)
        self.assertEqual(window, 2**31 - 1)
        self.assertRaises(ProtocolViolation, credited, window, 1)
        self.assertEqual(credited(window - 10, 10), window)


class ReceiveWindowTests(SynchronousTestCase):
    """
    L{ReceiveWindow}
    """

    def setUp(self) -> None:
        self.window = ReceiveWindow()

    def test_received(self) -> None:
        """
        Data takes from the window, up to all of it.
        """
        self.window.received(131071)
        self.assertEqual(self.window.available, 1)
        self.window.received(1)
        self.assertEqual(self.window.available, 0)

    def test_beyond(self) -> None:
        """
        A byte more than the window is a violation, at any time.
        """
        self.assertRaises(ProtocolViolation, self.window.received, 131073)
        self.window.received(100000)
        self.assertRaises(ProtocolViolation, self.window.received, 31073)
        self.window.received(31072)
        self.assertRaises(ProtocolViolation, self.window.received, 1)

    def test_batched(self) -> None:
        """
        What is consumed is given back when it is more than a quarter of the window.
        """
        self.window.received(100000)
        self.assertEqual(self.window.consumed(32768), 0)
        self.assertEqual(self.window.available, 31072)
        self.assertEqual(self.window.consumed(1), 32769)
        self.assertEqual(self.window.available, 31072 + 32769)
        self.assertEqual(self.window.held, 0)

    def test_framesTogether(self) -> None:
        """
        In a window of four frames or more, two of them are given back together.
        """
        self.window.size = self.window.available = 262144
        self.window.received(131072)
        self.assertEqual([self.window.consumed(65536) for _ in (1, 2)], [0, 131072])

    def test_held(self) -> None:
        """
        Never are more than 65536 bytes of consumed data held back, however
        large the window and whatever the pieces.
        """
        for size in (131072, 300000, 1 << 20, 1 << 30):
            for piece in (1000, 16384, 65536):
                window = ReceiveWindow()
                window.size = window.available = size
                consumed = given = 0
                while consumed < 200000:
                    window.received(piece)
                    consumed += piece
                    given += window.consumed(piece)
                    self.assertEqual(consumed - given, window.held)
                    self.assertLessEqual(window.held, MAX_HELD)

    def test_conserved(self) -> None:
        """
        The window never holds more or less than its size, whether available,
        unread or held back.
        """
        unread = 0
        for step in range(1000):
            size = step * 7919 % 50000
            if step % 3:
                size = min(size, self.window.available)
                self.window.received(size)
                unread += size
            else:
                size = min(size, unread)
                self.window.consumed(size)
                unread -= size
            self.assertEqual(
                self.window.available + unread + self.window.held, INITIAL_WINDOW
            )

    def test_nothing(self) -> None:
        """
        No data takes nothing, and gives no credit.
        """
        self.window.received(0)
        self.assertEqual(self.window.consumed(0), 0)
        self.assertEqual(self.window.available, INITIAL_WINDOW)


class GrowthTests(SynchronousTestCase):
    """
    The growth of a L{ReceiveWindow}.
    """

    def setUp(self) -> None:
        self.now = 1000.0

    def stream(self, window: ReceiveWindow, growth: Growth, rate: float) -> int:
        """
        Have one windowful go by at some rate.

        @return: how much the window grew.
        """
        grown = 0
        todo = window.size
        while todo > 0:
            self.now += 16384 / rate
            grown += window.grow(16384, self.now, growth)
            todo -= 16384
        return grown

    def transfer(
        self, window: ReceiveWindow, growth: Growth, size: int, rate: float
    ) -> None:
        """
        Have some data come at some rate, be consumed at once, and be given credit for.
        """
        self.now += size / rate
        size = min(size, window.available)
        window.received(size)
        given = window.consumed(size)
        if given:
            window.grow(given, self.now, growth)

    def test_faster(self) -> None:
        """
        The window doubles for as long as that makes the stream faster.
        """
        window, growth = ReceiveWindow(), Growth(1 << 30, 1 << 30)
        self.stream(window, growth, 1e6)
        before = window.size
        self.assertEqual(self.stream(window, growth, 3e6), before)
        self.assertEqual(window.size, 2 * before)
        self.assertEqual(self.stream(window, growth, 9e6), 2 * before)

    def test_notFaster(self) -> None:
        """
        The window stays as it is once it has reached what the path can do.
        """
        window, growth = ReceiveWindow(), Growth(1 << 30, 1 << 30)
        for _ in range(3):
            self.stream(window, growth, 1e6)
        size = window.size
        for rate in (1e6, 1.1e6, 0.5e6, 1e6):
            self.assertEqual(self.stream(window, growth, rate), 0)
        self.assertEqual(window.size, size)

    def test_fastPath(self) -> None:
        """
        On a path that is known to be fast a window gets as large as it takes to
        keep both ends busy, and no larger when somebody slows it down.
        """
        window, growth = ReceiveWindow(), Growth(1 << 30, 1 << 30)
        self.stream(window, growth, 1e9)
        self.assertEqual(window.size, 2 * INITIAL_WINDOW)
        for rate in (1e9, 1e7, 3e7, 1e9, 1e7):
            self.assertEqual(self.stream(window, growth, rate), 0)

    def test_fastPathSlowAtFirst(self) -> None:
        """
        A path is not taken for a slow one because all that is at its ends got slow
        and ever faster at the start, as on a machine that is busy.
        """
        window, growth = ReceiveWindow(), Growth(1 << 30, 1 << 30)
        for rate in (1e8, 1.29e8, 2.59e8, 5.23e8, 7.69e8, 7.69e8):
            self.stream(window, growth, rate)
        self.assertEqual(window.size, 2 * INITIAL_WINDOW)

    def test_fastPathSlowForAWhile(self) -> None:
        """
        Nor because they were slow for a while.
        """
        window, growth = ReceiveWindow(), Growth(1 << 30, 1 << 30)
        for rate in [1e9] * 5 + [1e8] * 100 + [1.25e8, 1.75e8, 2.85e8, 4.96e8, 1e9]:
            self.stream(window, growth, rate)
        self.assertEqual(window.size, 2 * INITIAL_WINDOW)

    def test_mediumPath(self) -> None:
        """
        That takes a moment where the delay is some milliseconds, and none where
        it is long.
        """
        for delay, windowfuls in ((0.005, 5), (0.05, 2)):
            window, growth = ReceiveWindow(), Growth(1 << 30, 1 << 30)
            needed = 0
            while window.size <= 2 * INITIAL_WINDOW:
                self.stream(window, growth, window.size / delay)
                needed += 1
            self.assertEqual(needed, windowfuls)

    def test_shrinksAlone(self) -> None:
        """
        A window that had grown shrinks to what it takes to keep both ends busy once
        the path turns out to be fast, and no byte of credit is lost or made up.
        """
        window, growth = ReceiveWindow(), Growth(1 << 30, 1 << 30)
        for rate in (1e6, 3e6, 9e6):
            self.stream(window, growth, rate)
        self.assertEqual(window.size, 8 * INITIAL_WINDOW)
        for _ in range(200):
            self.transfer(window, growth, 32768, 1e9)
            self.assertEqual(window.available + window.held, window.size)
        self.assertEqual(window.size, 2 * INITIAL_WINDOW)
        self.assertEqual(growth.available, (1 << 30) - INITIAL_WINDOW)
        self.assertGreaterEqual(window.held, 0)

    def beside(self, others: Iterable[bool], before: int) -> list[int]:
        """
        Have windowfuls of a stream pass, each with or without a little of another.

        @param before: how much of others passes before; if it is much, the window does
            not grow with the first windowful, but because the stream gets faster.
        @return: the window's size after each.
        """
        window, growth = ReceiveWindow(), Growth(1 << 30, 1 << 30)
        sizes = []
        self.transfer(window, growth, 65536, 1e9)
        growth.passed += before
        for isBeside in others:
            growth.changes += 2 * isBeside
            for _ in range(8):
                self.transfer(window, growth, 65536, 1e9)
                self.assertEqual(window.available + window.held, window.size)
                self.assertEqual(growth.available + window.size, (1 << 30) + (1 << 17))
            sizes.append(window.size)
        return sizes

    def test_besideAnother(self) -> None:
        """
        A stream on a fast path has a frame less on the way while others consume
        something now and then, and no byte of credit is lost or made up.
        """
        for before in (0, INITIAL_WINDOW):
            sizes = self.beside([False, True, False, False, True, True], before)
            self.assertEqual(sizes, [262144] + 5 * [196608])

    def test_aloneAgain(self) -> None:
        """
        It gets that back when there were none for a while.
        """
        for before in (0, INITIAL_WINDOW):
            sizes = self.beside([False, True] + 5000 * [False], before)
            self.assertEqual((sizes[1000], sizes[-1]), (196608, 262144))

    def test_forgetsServed(self) -> None:
        """
        Nothing is kept of a stream that has ended.
        """
        window, growth = ReceiveWindow(), Growth(1 << 30, 1 << 30)
        growth.served = window
        ReceiveWindow().release(growth)
        self.assertIs(growth.served, window)
        window.release(growth)
        self.assertIsNone(growth.served)

    def test_fastPathShared(self) -> None:
        """
        Nor does it grow at all when other streams keep the path busy.
        """
        growth = Growth(1 << 30, 1 << 30)
        windows = [ReceiveWindow() for _ in range(4)]
        for _ in range(100):
            for window in windows:
                self.now += 16384 / 1e9
                self.assertEqual(window.grow(16384, self.now, growth), 0)

    def share(self, rate: float) -> list[ReceiveWindow]:
        """
        Have four streams pass eight windowfuls each, in turn.

        @return: their windows.
        """
        growth = Growth(1 << 30, 1)
        windows = [ReceiveWindow() for _ in range(4)]
        for _ in range(16):
            for window in windows:
                self.transfer(window, growth, 65536, rate)
                self.assertLessEqual(window.held, 65536)
                self.assertGreaterEqual(window.available, 65536)
        return windows

    def test_kept(self) -> None:
        """
        Where several streams keep a fast path busy each gets along with half a
        window, which is what a sender needs that waits for a whole frame's.
        """
        for window in self.share(1e9):
            self.assertEqual((window.held, window.available), (65536, 65536))

    def test_notKept(self) -> None:
        """
        On a slow path nothing is kept back.
        """
        for window in self.share(1e7):
            self.assertEqual(window.held, 0)

    def test_shrinks(self) -> None:
        """
        A window that had grown while it was alone on a fast path shrinks when
        others join it, and no byte of credit is lost or made up.
        """
        growth = Growth(1 << 30, 1 << 30)
        windows = [ReceiveWindow() for _ in range(4)]
        first = windows[0]
        sent = 0
        for step in range(60):
            for window in windows if step > 10 else [first]:
                sent += min(32768, window.available) if window is first else 0
                self.transfer(window, growth, 32768, 1e9)
            self.assertEqual(first.available + first.held, first.size)
            if step == 10:
                self.assertEqual(first.size, 2 * INITIAL_WINDOW)
        self.assertEqual(first.size, INITIAL_WINDOW)
        self.assertEqual(growth.available, 1 << 30)
        self.assertGreater(sent, 1 << 20)

    def test_keptNoLonger(self) -> None:
        """
        What was kept back is given when the others have ended, with what is
        consumed next.
        """
        window = self.share(1e9)[0]
        growth = Growth(1 << 30, 1)
        for _ in range(16):
            self.transfer(window, growth, 32768, 5e8)
        self.assertEqual(window.kept, 0)
        self.assertLessEqual(window.held, 32768)

    def test_slowPath(self) -> None:
        """
        What one burst pretended is forgotten where the path is slow.
        """
        window, growth = ReceiveWindow(), Growth(1 << 20, 1 << 30)
        self.stream(window, growth, 1e9)
        self.stream(window, growth, 1e9)
        for _ in range(100):
            self.stream(window, growth, window.size / 0.05)
        self.assertEqual(window.size, 1 << 20)

    def test_maxWindow(self) -> None:
        """
        One window grows no further than C{maxWindow}.
        """
        window, growth = ReceiveWindow(), Growth(300000, 1 << 30)
        for step in range(9):
            self.stream(window, growth, 1e5 * 2**step)
        self.assertEqual(window.size, 300000)
        self.assertEqual(window.available, 300000)

    def test_maxWindowFastPath(self) -> None:
        """
        Nor does it where there is no delay.
        """
        most = INITIAL_WINDOW + 1000
        window, growth = ReceiveWindow(), Growth(most, 1 << 30)
        for _ in range(5):
            self.stream(window, growth, 1e9)
        self.assertEqual(window.size, most)

    def test_maxGrowth(self) -> None:
        """
        All windows together grow by no more than C{maxGrowth}.
        """
        growth = Growth(1 << 30, 400000)
        windows = [ReceiveWindow() for _ in range(5)]
        for window in windows:
            for step in range(9):
                self.stream(window, growth, 1e5 * 2**step)
        grown = sum(window.size - INITIAL_WINDOW for window in windows)
        self.assertEqual(grown, 400000)
        self.assertEqual(growth.available, 0)

    def test_release(self) -> None:
        """
        When a stream ends what its window had grown by is there for others,
        once.
        """
        window, growth = ReceiveWindow(), Growth(1 << 30, 400000)
        for step in range(9):
            self.stream(window, growth, 1e5 * 2**step)
        self.assertEqual(growth.available, 0)
        window.release(growth)
        window.release(growth)
        self.assertEqual(growth.available, 400000)

    def test_standingClock(self) -> None:
        """
        A clock that does not move makes no window grow, and does no harm.
        """
        window, growth = ReceiveWindow(), Growth(1 << 30, 1 << 30)
        self.now = 0.0
        self.assertEqual(window.grow(131072, 0.0, growth), 0)
        self.assertEqual(window.grow(131072, 0.0, growth), 0)

    def test_added(self) -> None:
        """
        What a window grows by may be used at once.
        """
        window, growth = ReceiveWindow(), Growth(1 << 30, 1 << 30)
        window.received(131072)
        grown = self.stream(window, growth, 1e6)
        self.assertEqual(window.available, grown)
        self.assertEqual(grown, 131072)
