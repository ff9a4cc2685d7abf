# -*- test-case-name: gomux.test.wire.test_window -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Flow control: how much each side of a stream may send, and when it gets credit.

Each direction of a stream has a window.  The sender keeps a number, its send window:
sending takes from it, L{credited} adds to it.  The receiver mirrors that number in a
L{ReceiveWindow}.  These are the rules; C{test_window.py} has a test for each.

 1. A window starts with L{INITIAL_WINDOW} bytes, 131072.
 2. Receipt debits.  Data takes from the window when it arrives, and data for which
    there is no window is a violation of the protocol.
 3. Consumption credits.  Only data that the application has taken is given back, so
    an application that does not read stops the peer.
 4. Credit is given in batches: when more than a quarter of the window is consumed.
 5. Never more than L{MAX_HELD} consumed bytes, 65536, are held back.  A Go sender
    waits until it has window for its whole frame, which may have that size: with
    more held back it would wait for ever.
 6. No byte is lost or made up.  Bytes available to the peer, received but not
    consumed, and held back add up to the size of the window.
 7. A window that is enlarged gives its new bytes at once, as additional credit.
 8. Credit cannot be taken back.  A window that is shrunk gives no credit for the
    next consumed bytes, until it has its new size.
 9. A window may keep up to L{MAX_HELD} consumed bytes back for as long as that is
    good for other streams.  Bytes consumed beyond that are given back at once.
 10. A send window stays below 2**31 bytes.  Credit that takes it there is a violation
     of the protocol.

L{gomux._wire.growth} decides when a window is enlarged or shrunk, and when it keeps
bytes back.
"""

from __future__ import annotations

from gomux.error import ProtocolViolation

#: The size of each window of a new stream, in bytes.
INITIAL_WINDOW = 131072
#: A send window is always smaller than this, in bytes.
WINDOW_END = 1 << 31
#: At most this many consumed bytes are held back: the size of the largest frame.
MAX_HELD = 65536


def credited(window: int, size: int) -> int:
    """
    Add the credit of a WindowUpdate to a send window.

    @param window: the send window in bytes.
    @param size: the credit in bytes.
    @return: the new send window.
    @raise ProtocolViolation: if that would be L{WINDOW_END} or more.
    """
    if window + size >= WINDOW_END:
        raise ProtocolViolation("a window update lifts the window past 2**31 bytes")
    return window + size


class ReceiveWindow:
    """
    How much the peer may still send on a stream, and how much credit is due.

    @ivar size: how many bytes the peer may have in flight, or received here and
        not yet consumed.
    @ivar available: how many bytes the peer may still send.
    @ivar held: how many bytes were consumed and not yet given back.  Less than 0
        while the window shrinks.
    @ivar kept: how many of the held bytes to keep back even if credit for them is
        due, set by the growth policy; 0 or L{MAX_HELD}.
    @ivar given: how many bytes the peer might have sent since the start.  It changes
        only with the credit, so L{total} costs nothing for each frame.
    """

    __slots__ = ("size", "available", "held", "kept", "given")

    def __init__(self) -> None:
        self.size = INITIAL_WINDOW
        self.available = INITIAL_WINDOW
        self.held = 0
        self.kept = 0
        self.given = INITIAL_WINDOW

    @property
    def total(self) -> int:
        """
        How many bytes the peer has sent, without those that L{uncount} has taken off.
        """
        return self.given - self.available

    def uncount(self, size: int) -> None:
        """
        Some received bytes were no data of an application: take them off L{total}.

        @param size: how many bytes.
        """
        self.given -= size

    def received(self, size: int) -> None:
        """
        The peer has sent some data.

        @param size: how many bytes.
        @raise ProtocolViolation: if it had less window than that.
        """
        if size > self.available:
            raise ProtocolViolation(
                f"{size} bytes of data came for a window of {self.available} bytes"
            )
        self.available -= size

    def consumed(self, size: int, batch: int = MAX_HELD) -> int:
        """
        The application has taken some data.

        @param size: how many bytes.
        @param batch: how many bytes may be held back at most.
        @return: the credit to give now, 0 if the batch is too small for a frame.
        """
        held = self.held + size
        due = held - self.kept
        if due <= 0 or (not self.kept and due * 4 <= self.size and due <= batch):
            self.held = held
            return 0
        self.held = held - due
        self.available += due
        self.given += due
        return due

    def enlarge(self, size: int) -> None:
        """
        Let the peer send more.  The caller gives it that much additional credit.

        @param size: by how many bytes the window grows.
        """
        self.size += size
        self.available += size
        self.given += size

    def shrink(self, size: int) -> None:
        """
        Give no credit for the next consumed bytes, until the window has a smaller size.

        @param size: by how many bytes the window shrinks.
        """
        self.size -= size
        self.held -= size

    def checkInvariants(self, unread: int) -> None:
        """
        Check that each byte of the window is accounted for.  For tests.

        @param unread: how many bytes were received and not yet consumed.
        @raise AssertionError: if some bytes are not accounted for.
        """
        assert self.size >= INITIAL_WINDOW, self.size
        assert self.available >= 0, self.available
        assert self.held <= MAX_HELD, self.held
        accounted = self.available + self.held + unread
        assert accounted == self.size, (accounted, self.size)
