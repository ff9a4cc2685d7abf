"""
Tests for L{gomux._wire.window}, whose rules the tests name by their numbers.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.window import INITIAL_WINDOW, MAX_HELD, ReceiveWindow, credited
from gomux.error import ProtocolViolation


class SendWindowTests(SynchronousTestCase):
    """
    A send window, which is a number and L{credited}.
    """

    def test_initial(self) -> None:
        """
        Rule 1: 131072 bytes may be sent before there is any credit.
        """
        self.assertEqual(INITIAL_WINDOW, 131072)

    def test_credit(self) -> None:
        """
        Credit adds to the window, also beyond its initial size.
        """
        self.assertEqual(credited(131072, 65536), 131072 + 65536)

    def test_end(self) -> None:
        """
        Rule 10: the window reaches 2**31 - 1 bytes and not one more.
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

    def test_initial(self) -> None:
        """
        Rule 1: the peer may send 131072 bytes before it gets any credit.
        """
        self.assertEqual((self.window.size, self.window.available), (131072, 131072))

    def test_received(self) -> None:
        """
        Rule 2: arriving data takes from the window, down to 0.
        """
        self.window.received(131071)
        self.assertEqual(self.window.available, 1)
        self.window.received(1)
        self.assertEqual(self.window.available, 0)

    def test_beyond(self) -> None:
        """
        Rule 2: one byte more than the window is a violation, at any time.
        """
        self.assertRaises(ProtocolViolation, self.window.received, 131073)
        self.window.received(100000)
        self.assertRaises(ProtocolViolation, self.window.received, 31073)
        self.window.received(31072)
        self.assertRaises(ProtocolViolation, self.window.received, 1)

    def test_consumed(self) -> None:
        """
        Rule 3: only consumed data is given back, however much was received.
        """
        self.window.received(131072)
        self.assertEqual(self.window.consumed(40000), 40000)
        self.assertEqual(self.window.available, 40000)

    def test_batched(self) -> None:
        """
        Rule 4: consumed data is given back when it is more than a quarter of the
        window.
        """
        self.window.received(100000)
        self.assertEqual(self.window.consumed(32768), 0)
        self.assertEqual(self.window.available, 31072)
        self.assertEqual(self.window.consumed(1), 32769)
        self.assertEqual(self.window.available, 31072 + 32769)
        self.assertEqual(self.window.held, 0)

    def test_framesTogether(self) -> None:
        """
        Rule 4: in a window of four frames, two of them are given back together.
        """
        self.window.enlarge(131072)
        self.window.received(131072)
        self.assertEqual([self.window.consumed(65536) for _ in (1, 2)], [0, 131072])

    def test_held(self) -> None:
        """
        Rule 5: never more than 65536 bytes of consumed data are held back, whatever
        the size of the window and of the data.
        """
        for size in (131072, 300000, 1 << 20, 1 << 30):
            for piece in (1000, 16384, 65536):
                window = ReceiveWindow()
                window.enlarge(size - window.size)
                consumed = given = 0
                while consumed < 200000:
                    window.received(piece)
                    consumed += piece
                    given += window.consumed(piece)
                    self.assertEqual(consumed - given, window.held)
                    self.assertLessEqual(window.held, MAX_HELD)

    def test_conserved(self) -> None:
        """
        Rule 6: bytes available, unread and held back add up to the size of the window,
        also while the size changes.
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
            if step % 100 == 50:
                self.window.enlarge(100000)
            elif step % 100 == 99:
                self.window.shrink(100000)
            self.assertEqual(
                self.window.available + unread + self.window.held, self.window.size
            )
        self.assertEqual(self.window.size, INITIAL_WINDOW)

    def test_enlarge(self) -> None:
        """
        Rule 7: the peer may use the new bytes of an enlarged window at once.
        """
        self.window.received(131072)
        self.window.enlarge(1000)
        self.assertEqual((self.window.size, self.window.available), (132072, 1000))
        self.window.received(1000)
        self.assertRaises(ProtocolViolation, self.window.received, 1)

    def test_shrink(self) -> None:
        """
        Rule 8: a shrunk window gives no credit for consumed data until it has its new
        size. Bytes that the peer may already send are not taken back.
        """
        self.window.enlarge(131072)
        self.window.shrink(131072)
        self.assertEqual((self.window.size, self.window.available), (131072, 262144))
        self.window.received(262144)
        self.assertEqual([self.window.consumed(65536) for _ in (1, 2)], [0, 0])
        self.assertEqual([self.window.consumed(65536) for _ in (3, 4)], [65536, 65536])

    def test_kept(self) -> None:
        """
        Rule 9: a window keeps up to C{kept} consumed bytes back, and gives credit for
        all further bytes at once.
        """
        self.window.kept = 65536
        self.window.received(131072)
        credits = [self.window.consumed(size) for size in (65536, 1, 50000)]
        self.assertEqual(credits, [0, 1, 50000])
        self.window.kept = 0
        self.assertEqual(self.window.consumed(1), 65537)

    def test_nothing(self) -> None:
        """
        Data of 0 bytes takes nothing from the window, and gives no credit.
        """
        self.window.received(0)
        self.assertEqual(self.window.consumed(0), 0)
        self.assertEqual(self.window.available, INITIAL_WINDOW)
