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
from gomux._carrier.clock import SteadyClock, steady, turnOf
from gomux.test.support.settablereactor import SettableReactor

reactor: Any = _reactor


class SteadyClockTests(SynchronousTestCase):
    """
    L{SteadyClock} over a reactor whose clock is set.
    """

    def setUp(self) -> None:
        self.reactor = SettableReactor()
        self.reactor.advance(1000)
        # The tests compare the clocks themselves, so no thread is started for that.
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
        A steady clock provides L{IReactorTime}, and passes other attributes of the
        reactor on.
        """
        self.assertTrue(verifyObject(IReactorTime, self.clock))
        self.assertEqual(
            self.clock.addSystemEventTrigger, self.reactor.addSystemEventTrigger
        )

    def test_order(self) -> None:
        """
        Calls are made in the order in which they are due.  A cancelled call is not
        made.
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
        A call can be put off and brought forward.
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
        If a call raises, the error is logged, and the other calls are made.
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
        Cancelled calls do not pile up.
        """
        self.patch(_clock, "CANCELLED_KEPT", 10)
        kept = self.later(1000)
        for _ in range(100):
            self.later(1000).cancel()
        self.assertLess(self.clock.size, 20)
        self.assertEqual(self.clock.getDelayedCalls(), [kept])

    def test_noneLeft(self) -> None:
        """
        Once all calls are cancelled, the reactor has no delayed call left.
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
        If the reactor's clock is set forward, no call is made early.
        """
        self.later(10)
        self.reactor.set(3600)
        self.reactor.pass_(9)
        self.assertEqual(self.called, [])
        self.reactor.pass_(1)
        self.assertEqual(self.called, [None])

    def test_setBack(self) -> None:
        """
        After the reactor's clock was set back, earlier calls are on time as soon as
        another call is scheduled.
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
        After the reactor's clock was set back, an earlier call without a delay is made
        in the next turn as soon as another call is scheduled.
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
        Finished calls without a delay do not pile up.
        """
        self.patch(SteadyClock, "_soonSize", 10)
        self.patch(_clock, "CANCELLED_KEPT", 10)
        for _ in range(100):
            self.later(0)
            self.reactor.pass_(0)
        self.assertEqual(len(self.called), 100)
        self.assertLess(self.clock.size, 12)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_turn(self) -> None:
        """
        The calls that a function leaves for later are made when it returns, and so are
        those that they leave.  The rest waits for the next turn of the reactor.
        """

        def leave(depth: int) -> str:
            self.called.append(depth)
            if depth:
                self.clock.soon(lambda: leave(depth - 1))
            return "done"

        self.assertEqual(self.clock.turn(leave, 4), "done")
        self.assertEqual(self.called, [4, 3, 2])
        self.reactor.pass_(0)
        self.assertEqual(self.called, [4, 3, 2, 1, 0])

    def test_turnInTurn(self) -> None:
        """
        A turn within a turn leaves everything to the end of the outer one.
        """

        def inner() -> None:
            self.clock.soon(lambda: self.called.append("later"))

        def outer() -> None:
            self.clock.turn(inner)
            self.called.append("outer")

        self.clock.turn(outer)
        self.assertEqual(self.called, ["outer", "later"])

    def test_turnFails(self) -> None:
        """
        If the function fails, or a call that it leaves, the other calls are made
        nevertheless.
        """

        def fail() -> None:
            self.clock.soon(lambda: 1 // 0)
            self.clock.soon(lambda: self.called.append("later"))
            raise KeyError

        self.assertRaises(KeyError, self.clock.turn, fail)
        self.assertEqual(self.called, ["later"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.soon(lambda: self.called.append("next"))
        self.assertEqual(self.called, ["later"])
        self.reactor.pass_(0)
        self.assertEqual(self.called, ["later", "next"])

    def test_turnOf(self) -> None:
        """
        A test's clock has no turns: its calls are only made.
        """
        self.assertEqual(turnOf(self.clock), self.clock.turn)
        self.assertEqual(turnOf(Clock())(divmod, 7, 2), (3, 1))

    def test_setBackWhileIdle(self) -> None:
        """
        After the reactor's clock was set back, the comparison of the clocks puts calls
        on time even if no other call is scheduled.
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
        if both were made since the last comparison.
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
        C{steady} returns a test's clock as it is, and always the same steady clock for
        a reactor.
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

    @ivar between: a function that is called before the comparison.
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
    A L{SteadyClock} over the global reactor.
    """

    def test_setBack(self) -> None:
        """
        Calls are made on time when the reactor's time goes back by an hour.
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
