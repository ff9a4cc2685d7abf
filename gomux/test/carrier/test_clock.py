"""
Tests for L{gomux._carrier.clock}.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import directlyProvides, providedBy
from zope.interface.verify import verifyObject

from gomux._carrier import clock as _clock
from gomux._carrier.clock import SteadyClock, steady

reactor: Any = _reactor


class SettableReactor(Clock):
    """
    A reactor whose clock can be set, and the monotonic clock beside it.

    @ivar monotonic: the time that only goes forward.
    """

    monotonic = 0.0

    def pass_(self, seconds: float) -> None:
        """
        Let some time pass.
        """
        self.monotonic += seconds
        self.advance(seconds)

    def set(self, seconds: float) -> None:
        """
        Set the system's clock: no time passes.
        """
        self.rightNow += seconds

    def addSystemEventTrigger(self, *args: object) -> None:
        """
        The reactor of these tests is never stopped.
        """

    def callFromThread(self, function: Callable[[], None]) -> None:
        function()


class SteadyClockTests(SynchronousTestCase):
    """
    L{SteadyClock} beside a clock that is set.
    """

    def setUp(self) -> None:
        self.reactor = SettableReactor()
        self.reactor.advance(1000)
        # The tests compare the clocks themselves, so there is no thread that does.
        self.patch(SteadyClock, "_watch", threading.current_thread())
        self.comparison = OneComparison(self.reactor)
        self.clock = SteadyClock(
            self.reactor, lambda: self.reactor.monotonic, self.comparison
        )
        self.called: list[object] = []

    def later(self, delay: float, what: object = None) -> Any:
        return self.clock.callLater(delay, self.called.append, what)

    def test_interface(self) -> None:
        """
        It provides L{IReactorTime}, and hands on the rest of the reactor.
        """
        self.assertTrue(verifyObject(IReactorTime, self.clock))
        self.assertEqual(
            self.clock.addSystemEventTrigger, self.reactor.addSystemEventTrigger
        )

    def test_order(self) -> None:
        """
        Calls are made when they are due, in that order; what was cancelled is not.
        """
        for delay in (3, 1, 2, 2.5):
            self.later(delay, delay)
        self.later(1.5).cancel()
        self.assertEqual(len(self.clock.getDelayedCalls()), 4)
        self.reactor.pass_(1)
        self.assertEqual(self.called, [1])
        self.reactor.pass_(1.75)
        self.assertEqual(self.called, [1, 2, 2.5])
        self.reactor.pass_(1)
        self.assertEqual(self.called, [1, 2, 2.5, 3])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_resetAndDelay(self) -> None:
        """
        A call may be put off and brought forward.
        """
        later, sooner = self.later(1, "later"), self.later(10, "sooner")
        later.delay(4)
        sooner.reset(2)
        self.reactor.pass_(1)
        self.assertEqual(self.called, [])
        self.reactor.pass_(1)
        self.assertEqual(self.called, ["sooner"])
        later.reset(6)
        self.reactor.pass_(5.5)
        self.assertEqual(self.called, ["sooner"])
        self.reactor.pass_(0.5)
        self.assertEqual(self.called, ["sooner", "later"])

    def test_failure(self) -> None:
        """
        A call that fails is logged, and the others are made.
        """
        self.clock.callLater(1, lambda: 1 / 0)
        self.later(1)
        self.later(2)
        self.reactor.pass_(1)
        self.reactor.pass_(1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.called, [None, None])

    def test_cancelledAreDropped(self) -> None:
        """
        Calls that were cancelled do not pile up.
        """
        self.patch(_clock, "CANCELLED_KEPT", 10)
        kept = self.later(1000)
        for _ in range(100):
            self.later(1000).cancel()
        self.assertLess(self.clock.size, 20)
        self.assertEqual(self.clock.getDelayedCalls(), [kept])

    def test_noneLeft(self) -> None:
        """
        Where all calls were cancelled, the reactor has none either.
        """
        first, second = self.later(10), self.later(2)
        first.reset(1)
        second.cancel()
        first.cancel()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.later(3)
        self.reactor.pass_(3)
        self.assertEqual(self.called, [None])

    def test_setForward(self) -> None:
        """
        A step forward makes no call early.
        """
        self.later(10)
        self.reactor.set(3600)
        self.reactor.pass_(9)
        self.assertEqual(self.called, [])
        self.reactor.pass_(1)
        self.assertEqual(self.called, [None])

    def test_setBack(self) -> None:
        """
        After a step back, the calls of before are on time once another is made.
        """
        self.later(10, "before")
        self.reactor.set(-3600)
        self.reactor.pass_(9)
        self.later(5, "after")
        self.reactor.pass_(1)
        self.assertEqual(self.called, ["before"])
        self.reactor.pass_(4)
        self.assertEqual(self.called, ["before", "after"])

    def test_setBackSoon(self) -> None:
        """
        A call without a delay is made in the next turn too, once another call is made.
        """
        self.later(0, "before")
        self.reactor.set(-3600)
        self.later(0, "after")
        self.reactor.pass_(0)
        self.assertEqual(sorted(map(str, self.called)), ["after", "before"])
        self.later(0, "before")
        self.reactor.set(-3600)
        self.later(5, "later")
        self.reactor.pass_(0)
        self.assertEqual(self.called[-1], "before")

    def test_soonDropped(self) -> None:
        """
        Calls without a delay that were made do not pile up.
        """
        self.patch(SteadyClock, "_soonSize", 10)
        self.patch(_clock, "CANCELLED_KEPT", 10)
        for _ in range(100):
            self.later(0)
            self.reactor.pass_(0)
        self.assertEqual(len(self.called), 100)
        self.assertLess(self.clock.size, 12)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_setBackWhileIdle(self) -> None:
        """
        Where no other call is made, the comparison of the clocks finds the step.
        """
        self.later(10)
        self.clock.compare()
        self.assertTrue(self.comparison.done)
        self.reactor.pass_(10)
        self.assertEqual(self.called, [None])

    def test_idleStep(self) -> None:
        """
        The comparison finds a step back that is smaller than the time since the last
        call was scheduled.
        """
        self.later(100)
        self.reactor.pass_(90)
        self.comparison.between = lambda: self.reactor.set(-60)
        self.clock.compare()
        self.reactor.pass_(10)
        self.assertEqual(self.called, [None])

    def test_thereAndBack(self) -> None:
        """
        The comparison of the clocks also finds a step back that undoes a step forward,
        where both have come since the last comparison.
        """

        def between() -> None:
            self.reactor.set(3600)
            self.later(10)
            self.reactor.set(-3600)

        self.comparison.between = between
        self.clock.compare()
        self.reactor.pass_(10)
        self.assertEqual(self.called, [None])

    def test_steady(self) -> None:
        """
        A test's clock stays as it is; a reactor has one steady clock.
        """
        clock = Clock()
        self.assertIs(steady(clock), clock)
        directlyProvides(self.reactor, IReactorFromThreads, providedBy(self.reactor))
        ours = steady(self.reactor)
        self.assertIsInstance(ours, SteadyClock)
        self.assertIs(steady(self.reactor), ours)
        self.assertIs(steady(ours), ours)


class OneComparison(threading.Event):
    """
    Lets the clocks be compared once.

    @ivar between: called before that.
    """

    done = False

    def __init__(self, reactor: SettableReactor) -> None:
        super().__init__()
        self.between: Callable[[], object] = lambda: reactor.set(-60)

    def wait(self, timeout: float | None = None) -> bool:
        if self.done:
            return True
        self.done = True
        self.between()
        return False


class RealTests(TestCase):
    """
    A L{SteadyClock} in the global reactor.
    """

    def test_setBack(self) -> None:
        """
        The reactor's own time goes back by an hour, and the calls come on time.
        """
        clock = SteadyClock(reactor, stopped=(stopped := threading.Event()))
        self.addCleanup(stopped.set)
        self.patch(_clock, "COMPARE_INTERVAL", 0.05)
        fired: Deferred[None] = Deferred()
        clock.callLater(0.2, fired.callback, None)
        now = reactor.seconds
        self.patch(reactor, "seconds", lambda: now() - 3600)
        fired.addTimeout(10, clock)
        return fired  # type: ignore[return-value]
