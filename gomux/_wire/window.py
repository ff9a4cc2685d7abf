# -*- test-case-name: gomux.test.wire.test_window -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Flow control: who may send how much on a stream.

Each direction of a stream has a window, which starts with L{INITIAL_WINDOW}
bytes on both sides.  Sending takes from it.  The receiver's accounting mirrors
the sender's: receipt debits, and what the application has consumed is given
back as credit, in batches.  A receiver may give more than was consumed, which
makes the window larger.
"""

from __future__ import annotations

from collections.abc import Iterable

from gomux.error import ProtocolViolation

#: What either side may send on a new stream before it gets any credit.
INITIAL_WINDOW = 131072
#: A send window may never hold this much or more.
WINDOW_END = 1 << 31
#: A peer that waits for window for a whole frame stalls if more consumed
#: credit than this is kept back.
MAX_HELD = 65536

#: A faster rate than before, by this factor, shows that the window was what
#: limited the stream.
_WORTH_GROWING = 1.4
#: With fewer bytes than this on the way, on all streams together, one end of a
#: path without delay waits for the other.
_ENOUGH_IN_FLIGHT = 196608
#: What a stream that is alone there needs.
_ALONE = 2 * INITIAL_WINDOW
#: What it makes do with beside others, which wait for what it has on the way: with a
#: frame less it moves a tenth less.
_BESIDE_OTHERS = 196608
#: With this many streams there is enough on the way even if each has only half a
#: window.
_SEVERAL = 3
#: A windowful that passes faster than this, in seconds, has no delay to fill.
_NO_DELAY = 0.002
#: One that takes longer than this, in seconds, has, and not just an end that has
#: something else to do.
_DELAY = 0.02
#: So many windowfuls show which of the two it is if none takes that long.
_ENOUGH = 4
#: What is left of the best rate after each windowful that does not reach it.
_FORGET = 0.9
#: For how long, in seconds, a windowful that passed so fast on one stream tells that
#: there is no delay, whatever slows the others down; and for how long there are others
#: once there were some.
_REMEMBERED = 2.0


def credited(window: int, size: int) -> int:
    """
    Take the credit of a WindowUpdate.

    @param window: what may be sent on a stream, in bytes.
    @param size: the credit, in bytes.
    @return: what may be sent then.
    @raise ProtocolViolation: if that is too much.
    """
    if window + size >= WINDOW_END:
        raise ProtocolViolation("a window update lifts the window past 2**31 bytes")
    return window + size


class Growth:
    """
    What the receive windows of one mux may together grow by.

    @ivar maxWindow: the most that one window may have.
    @ivar maxGrowth: the most that all of them may grow by together, in bytes.
    @ivar available: how many bytes are left for all.
    @ivar passed: how many bytes all streams of the mux have consumed.
    @ivar best: how fast they were when they were fast, in bytes a second: what
        the path can do, also if somebody just slows it down.
    @ivar seen: how many windowfuls tell that.
    @ivar noDelayUntil: until when the path is known to have no delay, in seconds.
    @ivar served: the window of the stream that was the last to consume something.
    @ivar changes: how often that was another one than before.
    @ivar sharedUntil: until when more than one stream is taken to be active, in
        seconds.
    """

    __slots__ = (
        *("maxWindow", "maxGrowth", "available", "passed", "best", "seen"),
        *("noDelayUntil", "served", "changes", "sharedUntil"),
    )

    def __init__(self, maxWindow: int, maxGrowth: int) -> None:
        self.maxWindow = maxWindow
        self.available = self.maxGrowth = maxGrowth
        self.passed = 0
        self.best = 0.0
        self.seen = 0
        self.noDelayUntil = self.sharedUntil = float("-inf")
        self.served: ReceiveWindow | None = None
        self.changes = 0

    def see(self, passed: int, elapsed: float, now: float) -> None:
        """
        A windowful has passed on a stream, all of which waited for credit.

        @param passed: how many bytes passed on the mux meanwhile.
        @param elapsed: how long that took, in seconds.
        @param now: the time in seconds.
        """
        rate = passed / elapsed if elapsed > 0 else 0.0
        self.best = max(rate, self.best * _FORGET)
        self.seen += 1
        # There is never more than a windowful on the way.
        if 0 < elapsed < _NO_DELAY:
            self.noDelayUntil = now + _REMEMBERED

    def isFast(self, size: int, now: float) -> bool:
        """
        @param size: of a window, in bytes.
        @param now: the time in seconds.
        @return: whether the path has no delay that takes such a window to fill.
        """
        return now < self.noDelayUntil or size < _NO_DELAY * self.best

    def checkInvariants(self, windows: Iterable[ReceiveWindow]) -> None:
        """
        See whether all growth is accounted for.  For tests.

        @param windows: those of all open streams.
        @raise AssertionError: if it is not.
        """
        grown = 0
        for window in windows:
            assert window.size <= max(INITIAL_WINDOW, self.maxWindow), window.size
            # Windows shrink only once a windowful has told how fast the path is.
            assert window.held >= 0 or self.seen, window.held
            grown += window.size - INITIAL_WINDOW
        assert 0 <= self.available, self.available
        assert grown + self.available == self.maxGrowth, (grown, self.available)


class ReceiveWindow:
    """
    How much the peer may send on a stream, and what to give back when.

    The window may double after each windowful.  It does when that went by
    clearly faster than the last time the window grew: then it was the window
    that held the sender back, as on a path with a long round trip.  Where the
    rate stays the same, the window has reached what the path can use.  On a
    path without delay there is next to nothing to gain, and every byte on the
    way holds up those behind it, so there all streams together get no more than
    it takes to keep both ends busy, a little less while there are others to hold
    up, and what is more is taken back.

    @ivar size: the window's present size: what the peer may have sent without
        our application having consumed it.
    @ivar available: what the peer may still send.
    @ivar held: what has been consumed and not yet been given back; less than 0
        while the window shrinks.
    @ivar kept: how much of that to keep back for now: on a path without delay
        that several streams keep busy, half a window each is as good, and
        holds up others less.
    """

    __slots__ = (
        "size",
        "available",
        "held",
        "kept",
        "_passed",
        "_since",
        "_before",
        "_changes",
        "_rate",
    )

    def __init__(self) -> None:
        self.size = INITIAL_WINDOW
        self.available = INITIAL_WINDOW
        self.held = 0
        self.kept = 0
        self._passed = 0
        # When the windowful began, what had passed on the mux by then, and how often
        # another stream had been served than before.
        self._since = 0.0
        self._before = 0
        self._changes = 0
        # How fast the stream was when the window last grew; none before the
        # first windowful.
        self._rate: float | None = None

    def received(self, size: int) -> None:
        """
        The peer sent some data.

        @raise ProtocolViolation: if that is more than it was allowed to.
        """
        if size > self.available:
            raise ProtocolViolation(
                f"{size} bytes of data came for a window of {self.available} bytes"
            )
        self.available -= size

    def consumed(self, size: int) -> int:
        """
        The application has had some data.

        @return: the credit to give back now, 0 while it is not worth a frame.
        """
        held = self.held + size
        due = held - self.kept
        if due <= 0 or (not self.kept and due * 4 <= self.size and due <= MAX_HELD):
            self.held = held
            return 0
        self.held = held - due
        self.available += due
        return due

    def grow(self, passed: int, now: float, growth: Growth) -> int:
        """
        See whether the window should be larger, each time credit is given.

        @param passed: how many bytes were consumed since the last call.
        @param now: the time in seconds.
        @param growth: what this and the other windows of the mux may grow by.
        @return: how much credit to give on top, mostly 0.
        """
        if not self._since:
            self._since = now
            self._before = growth.passed
            self._changes = growth.changes
        growth.passed += passed
        self._passed += passed
        if self._passed < self.size:
            return 0
        elapsed = now - self._since
        passed = self._passed
        onMux = growth.passed - self._before
        rate = passed / elapsed if elapsed > 0 else 0.0
        isFirst = self._rate is None
        if not isFirst:
            growth.see(onMux, elapsed, now)
        if growth.changes != self._changes:
            growth.sharedUntil = now + _REMEMBERED
        self._since = now
        self._before = growth.passed
        self._changes = growth.changes
        self._passed = 0
        isFaster = rate > (self._rate or 0.0) * _WORTH_GROWING
        self.kept = 0
        if growth.isFast(self.size, now):
            most = self._fit(onMux >= _SEVERAL * passed, now, growth)
            # The others, for which it had less, are gone.
            isBack = INITIAL_WINDOW < self.size < most
            isWorth = isBack or (isFaster and onMux <= _ENOUGH_IN_FLIGHT)
        else:
            most = growth.maxWindow
            isSure = elapsed > _DELAY or growth.seen >= _ENOUGH
            isWorth = isFaster and (
                onMux <= _ENOUGH_IN_FLIGHT or (isSure and not isFirst)
            )
        more = min(self.size, most - self.size, growth.available)
        if more <= 0 or not isWorth:
            self._rate = self._rate or 0.0
            return 0
        # The first windowful waited for no credit: its rate is that of a burst.
        self._rate = 0.0 if isFirst else rate
        growth.available -= more
        self.size += more
        self.available += more
        return more

    def _fit(self, isAmongSeveral: bool, now: float, growth: Growth) -> int:
        """
        Take back what is of no use on a path without delay.

        @param isAmongSeveral: whether so many streams are active that half a window
            each will do.
        @return: what the window may have there.
        """
        most = _BESIDE_OTHERS if now < growth.sharedUntil else _ALONE
        if isAmongSeveral:
            self._shrink(INITIAL_WINDOW, growth)
            self.kept = MAX_HELD
        elif self.size > most:
            self._shrink(most, growth)
        return min(most, growth.maxWindow)

    def _shrink(self, size: int, growth: Growth) -> None:
        """
        Take back what the window has grown by, down to some size: that much of what
        is consumed next is not given back.
        """
        less = self.size - size
        self.held -= less
        growth.available += less
        self.size = size

    def release(self, growth: Growth) -> None:
        """
        The stream has ended: what its window had grown by is free for others.
        """
        self._shrink(INITIAL_WINDOW, growth)
        if growth.served is self:
            growth.served = None

    def checkInvariants(self, unread: int) -> None:
        """
        See whether each byte of the window is accounted for.  For tests.

        @param unread: how many bytes have come that the application has not had.
        @raise AssertionError: if it is not.
        """
        assert self.size >= INITIAL_WINDOW, self.size
        assert self.available >= 0, self.available
        assert self.held <= MAX_HELD, self.held
        assert self.available + self.held + unread == self.size, (
            self.available,
            self.held,
            unread,
            self.size,
        )
