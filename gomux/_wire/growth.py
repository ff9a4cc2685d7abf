# -*- test-case-name: gomux.test.wire.test_growth -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
When receive windows grow and shrink.

A sender has at most one window of data in flight.  On a path with a long round trip
a small window is the bottleneck: the sender waits for credit while the path carries
nothing.  On a path with a short round trip, a local network or one machine, a larger
window gains next to nothing, and each byte in flight delays all those behind it, of
other streams too.  So windows grow on a long path and stay small on a short one.

No frame tells the round trip.  The policy times I{windowfuls} instead: a windowful
has passed when the application has consumed as many bytes as the window has.  The
last of them were sent with credit that was given when the windowful began, so it
takes at least one round trip.  The first windowful of a stream is the exception: it
waits for no credit.

 - A windowful that passes within L{SHORT_ROUND_TRIP} proves that the path is short.
   That is remembered for L{MEMORY}.  The path also counts as short for a window that
   would pass within L{SHORT_ROUND_TRIP} at the best rate that the mux has reached.
 - A slow windowful proves less: the round trip may be long, or one of the two
   machines is busy.  It counts as a long round trip if it took more than
   L{LONG_ROUND_TRIP}, or if L{WINDOWFULS_TO_TELL} windowfuls have passed and none of
   the recent ones was a proof of a short path.

On a long path a window doubles after each windowful that was faster by L{SPEEDUP}
than when the window last grew: then the window was the bottleneck.  Once the rate
stays the same, the window has the size that the path can use.

On a short path a stream that is alone on its mux gets L{SHORT_PATH_WINDOW}, which
keeps both ends busy.  Beside another active stream it may have
L{SHARED_SHORT_PATH_WINDOW}.  A window that is larger shrinks to that.  From
L{STREAMS_FOR_HALF_WINDOWS} equally busy streams on, each goes back to the initial
window and keeps half of it back: together they still keep both ends busy, and other
streams wait behind fewer bytes in flight.

One window gets no larger than C{maxWindow}.  What all windows of a mux have grown by,
together, stays within a budget: C{maxGrowth}.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from gomux._wire.window import INITIAL_WINDOW, MAX_HELD, ReceiveWindow

#: A windowful that passes faster than this, in seconds, proves a short path.
#: Raised: windows stay small on more paths, and small messages wait less behind bulk
#: data there.  But a path with a round trip just below this never gets a window that
#: fills it.
SHORT_ROUND_TRIP = 0.002

#: A windowful that takes longer than this, in seconds, counts as a long round trip at
#: once.
#: Raised: a machine that is busy for a moment is mistaken for a long path less often.
#: But a window on a path with a round trip below this starts to grow later, after
#: L{WINDOWFULS_TO_TELL}.
LONG_ROUND_TRIP = 0.02

#: After how many windowfuls of the mux a windowful counts as a long round trip if it
#: took between L{SHORT_ROUND_TRIP} and L{LONG_ROUND_TRIP}.
#: Raised: machines that are slow while they warm up are mistaken for a long path less
#: often.  But a window on such a path starts to grow one round trip later for each.
WINDOWFULS_TO_TELL = 4

#: If the rate of a stream rose by this factor since its window last grew, the window
#: was the bottleneck, and it doubles.
#: Raised: rates that vary by chance make fewer windows grow.  But a window stops
#: growing earlier, before it fills a path that others use too.
SPEEDUP = 1.4

#: Below this many bytes in flight on the mux, one end of a short path idles while it
#: waits for the other.
#: Raised: windows also grow when other streams are active, before the path is known,
#: and a few streams together move more.  But small messages wait behind more bytes.
ENOUGH_IN_FLIGHT = 196608

#: The largest window of a stream that is alone on a short path, in bytes: four frames.
#: Raised: the stream moves more if one of its ends pauses now and then.  But the first
#: bytes of any other stream wait behind more of its data.
SHORT_PATH_WINDOW = 2 * INITIAL_WINDOW

#: The same while other streams are active too: three frames.
#: Raised: the stream moves up to a tenth more.  But the others wait behind more data:
#: an echo beside one bulk stream takes a third longer with four frames.
SHARED_SHORT_PATH_WINDOW = 196608

#: From this many equally busy streams on, each keeps half of its window back on a
#: short path.
#: Raised: streams that are few move more if some of them pause.  But each message
#: waits behind up to a whole window of every other stream.
STREAMS_FOR_HALF_WINDOWS = 3

#: What remains of the best known rate after each windowful that does not reach it.
#: Raised, towards 1: a short path with a machine that is busy for long is still known
#: to be short.  But one lucky burst on a long path keeps its windows small for longer.
BEST_RATE_DECAY = 0.9

#: How long, in seconds, the proof of a short path counts, and for how long other
#: streams are taken to be active once they were.
#: Raised: a busy machine is mistaken for a long path less often.  But after a path has
#: become longer its windows start to grow later, and a stream that is alone again gets
#: its larger window later.
MEMORY = 2.0


class Path:
    """
    What the windowfuls of one mux tell about the round trip of its path.

    @ivar _bestRate: the best rate of the mux, in bytes a second.  It decays.
    @ivar _windowfuls: how many windowfuls were timed.
    @ivar _shortUntil: until when the path is known to be short, in seconds.
    """

    __slots__ = ("_bestRate", "_windowfuls", "_shortUntil")

    def __init__(self) -> None:
        self._bestRate = 0.0
        self._windowfuls = 0
        self._shortUntil = float("-inf")

    def timed(self, passed: int, elapsed: float, now: float) -> None:
        """
        A windowful that waited for credit has passed on one of the streams.

        @param passed: how many bytes passed meanwhile on all streams.
        @param elapsed: how long it took, in seconds.
        @param now: the time in seconds.
        """
        rate = passed / elapsed if elapsed > 0 else 0.0
        self._bestRate = max(rate, self._bestRate * BEST_RATE_DECAY)
        self._windowfuls += 1
        if 0 < elapsed < SHORT_ROUND_TRIP:
            self._shortUntil = now + MEMORY

    def isShort(self, size: int, now: float) -> bool:
        """
        @param size: the size of a window, in bytes.
        @param now: the time in seconds.
        @return: whether the round trip is too short for such a window to be the
            bottleneck.
        """
        return now < self._shortUntil or size < SHORT_ROUND_TRIP * self._bestRate

    def isLong(self, elapsed: float) -> bool:
        """
        Tell a long round trip from a busy machine, where L{isShort} is false.

        @param elapsed: how long the last windowful took, in seconds.
        @return: whether the round trip is known to be long.
        """
        return elapsed > LONG_ROUND_TRIP or self._windowfuls >= WINDOWFULS_TO_TELL


class GrowingWindow(ReceiveWindow):
    """
    A receive window with what L{GrowthPolicy} knows of its stream.  The two are one
    object because an active stream has both, and one object is smaller.  Only the
    policy uses these attributes.

    @ivar since: when the current windowful began, in seconds; C{None} before the
        first credit.
    @ivar passed: how many bytes of it have passed.
    @ivar muxBefore: C{GrowthPolicy.passed} when it began.
    @ivar changesBefore: C{changes} of L{GrowthPolicy.credited} when it began.
    @ivar rate: how fast the stream was when the window last grew, in bytes a second;
        C{None} before the end of the first windowful.
    """

    __slots__ = ("since", "passed", "muxBefore", "changesBefore", "rate")

    def __init__(self) -> None:
        super().__init__()
        self.since: float | None = None
        self.passed = 0
        self.muxBefore = 0
        self.changesBefore = 0
        self.rate: float | None = None


class Memory(Protocol):
    """
    The memory that the muxes of a process take.
    """

    @property
    def mayGrow(self) -> bool:
        """
        Whether receive windows may grow.
        """


class GrowthPolicy:
    """
    Decides when the receive windows of one mux grow and shrink.

    @ivar maxWindow: the most that one window may have, in bytes.
    @ivar maxGrowth: how many bytes all windows together may grow by.
    @ivar memory: tells whether windows may grow at all now; C{None} if they always may.
    @ivar budget: how many of these are left.
    @ivar passed: how many bytes have got credit on all streams.
    @ivar path: tells whether the path is short or long.
    @ivar sharedUntil: until when more than one stream is taken to be active, in
        seconds.
    """

    __slots__ = (
        "maxWindow",
        "maxGrowth",
        "memory",
        "budget",
        "passed",
        "path",
        "sharedUntil",
    )

    def __init__(
        self,
        maxWindow: int,
        maxGrowth: int,
        memory: Memory | None = None,
    ) -> None:
        self.memory = memory
        self.maxWindow = maxWindow
        self.maxGrowth = self.budget = maxGrowth
        self.passed = 0
        self.path = Path()
        self.sharedUntil = float("-inf")

    def credited(
        self, window: GrowingWindow, size: int, now: float, changes: int
    ) -> int:
        """
        Credit is about to be given on a stream: let its window grow, or shrink, if a
        windowful has passed.

        @param window: the stream's window.
        @param size: the credit in bytes.
        @param now: the time in seconds.
        @param changes: how often the mux has delivered data to another stream than
            the time before.
        @return: how much credit to give in addition, mostly 0.
        """
        if window.since is None:
            window.since = now
            window.muxBefore = self.passed
            window.changesBefore = changes
        self.passed += size
        window.passed += size
        if window.passed < window.size:
            return 0
        return self._windowful(window, now - window.since, now, changes)

    def _windowful(
        self, window: GrowingWindow, elapsed: float, now: float, changes: int
    ) -> int:
        """
        A windowful has passed: decide, and begin the next one.

        @param elapsed: how long it took, in seconds.
        @return: how much credit to give in addition.
        """
        rate = window.passed / elapsed if elapsed > 0 else 0.0
        onMux = self.passed - window.muxBefore
        isFaster = rate > (window.rate or 0.0) * SPEEDUP
        isAlone = onMux <= ENOUGH_IN_FLIGHT
        isFirst = window.rate is None
        if isFirst:
            # It waited for no credit, so it tells nothing about the path, and its
            # rate is that of a burst.
            window.rate = rate = 0.0
        else:
            self.path.timed(onMux, elapsed, now)
        if changes != window.changesBefore:
            self.sharedUntil = now + MEMORY
        window.kept = 0
        if self.path.isShort(window.size, now):
            most = self._shrinkToFit(window, onMux, now)
            # A window that shrank beside other streams grows back without them.
            isBack = INITIAL_WINDOW < window.size < most
            mayGrow = isBack or (isFaster and isAlone)
        else:
            most = self.maxWindow
            isLong = not isFirst and self.path.isLong(elapsed)
            mayGrow = isFaster and (isAlone or isLong)
        window.since = now
        window.passed = 0
        window.muxBefore = self.passed
        window.changesBefore = changes
        return self._grow(window, most, rate) if mayGrow else 0

    def _grow(self, window: GrowingWindow, most: int, rate: float) -> int:
        """
        Double a window, as far as its limit and the budget allow.

        @param most: the most that it may have, in bytes.
        @param rate: the rate of its stream, in bytes a second.
        @return: how much it grew, in bytes.
        """
        more = min(window.size, most - window.size, self.budget)
        if more <= 0 or not (self.memory is None or self.memory.mayGrow):
            return 0
        window.rate = rate
        self.budget -= more
        window.enlarge(more)
        return more

    def _shrinkToFit(self, window: GrowingWindow, onMux: int, now: float) -> int:
        """
        Take back what a window does not need on a short path.

        @param onMux: how many bytes passed on the mux during the windowful.
        @return: the most that the window may have there, in bytes.
        """
        isShared = now < self.sharedUntil
        most = SHARED_SHORT_PATH_WINDOW if isShared else SHORT_PATH_WINDOW
        if onMux >= STREAMS_FOR_HALF_WINDOWS * window.passed:
            self._shrink(window, INITIAL_WINDOW)
            window.kept = MAX_HELD
        elif window.size > most:
            self._shrink(window, most)
        return min(most, self.maxWindow)

    def _shrink(self, window: GrowingWindow, size: int) -> None:
        """
        Shrink a window, and free its part of the budget.

        @param size: the size that it is to have, in bytes.
        """
        less = window.size - size
        self.budget += less
        window.shrink(less)

    def release(self, window: GrowingWindow) -> None:
        """
        A stream has ended: other windows may grow by what its window had grown.
        """
        if window.size != INITIAL_WINDOW:
            self._shrink(window, INITIAL_WINDOW)

    def checkInvariants(self, windows: Iterable[GrowingWindow]) -> None:
        """
        Check that all growth is accounted for.  For tests.

        @param windows: the windows of all open streams.
        @raise AssertionError: if some growth is not accounted for.
        """
        grown = 0
        for window in windows:
            assert window.size <= max(INITIAL_WINDOW, self.maxWindow), window.size
            # A window shrinks only after credit was given.
            assert window.held >= 0 or self.passed, window.held
            grown += window.size - INITIAL_WINDOW
        assert 0 <= self.budget, self.budget
        assert grown + self.budget == self.maxGrowth, (grown, self.budget)
