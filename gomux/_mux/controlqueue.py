# -*- test-case-name: gomux.test.mux.test_scheduler -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The control frames that wait to be sent: all frames but Data.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection

from gomux._wire.crypto import Sealer
from gomux._wire.frame import MAX_LENGTH, Flag

_CLOSE_STREAM = int(Flag.CLOSE_STREAM)
_WINDOW_UPDATE = int(Flag.WINDOW_UPDATE)


class ControlQueue:
    """
    The control frames of one mux that wait.  The L{Scheduler
    <gomux._mux.scheduler.Scheduler>} adds to it, and bounds its size.

    The queues are lists, because an empty deque takes 760 bytes.

    @ivar frames: all waiting frames but refusals and credit: stream ID, flag and
        C{length} of each, and a function that is called with the counter of its nonce
        once it is sealed, or C{None}.
    @ivar refusals: the IDs of the streams whose refusals wait.
    @ivar credits: the waiting credit by stream ID, in bytes.
    """

    __slots__ = ("frames", "refusals", "credits")

    def __init__(self) -> None:
        self.frames: list[tuple[int, int, int, Callable[[int], None] | None]] = []
        self.refusals: list[int] = []
        self.credits: dict[int, int] = {}

    def clear(self) -> None:
        """
        Drop all frames.
        """
        self.frames.clear()
        self.refusals.clear()
        self.credits.clear()

    def seal(
        self, sealer: Sealer, parts: list[bytes], limit: int = sys.maxsize
    ) -> bool:
        """
        Seal waiting frames: first those in C{frames}, then refusals, then credit.

        @param sealer: seals them.
        @param parts: the batch; the frames are added to it.
        @param limit: about how many frames to add.
        @return: whether no frames are left.
        @raise NonceExhausted: if no nonces are left.
        """
        if self.frames:
            # Removed at once: tens of thousands may wait behind them.
            taken = self.frames[:limit]
            del self.frames[:limit]
            for streamID, flag, length, sealed in taken:
                parts += sealer.seal(streamID, length, flag)
                if sealed is not None:
                    sealed(sealer.last)
        limit *= 2  # A sealed control frame has two parts.
        while self.refusals and len(parts) < limit:
            streamID = self.refusals.pop(0)
            parts += sealer.seal(streamID, 0, _WINDOW_UPDATE)
            parts += sealer.seal(streamID, 0, _CLOSE_STREAM)
        while self.credits and len(parts) < limit:
            streamID, credit = self.credits.popitem()
            while credit > 0:
                size = min(credit, MAX_LENGTH)
                parts += sealer.seal(streamID, size, _WINDOW_UPDATE)
                credit -= size
        return not (self.frames or self.refusals or self.credits)

    def checkInvariants(self, streamIDs: Collection[int]) -> None:
        """
        Check that the waiting credit is consistent.  For tests.

        @param streamIDs: the IDs of the open streams.
        @raise AssertionError: if the credit is not consistent.
        """
        assert self.credits.keys() <= set(streamIDs), "credit for no open stream"
        assert all(size > 0 for size in self.credits.values()), self.credits
