"""
Tests for L{gomux.tunnel._signals}, the signals of C{twistd gomux}.
"""

from __future__ import annotations

import os
import signal
from functools import partial

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gomux.test.support.logs import Lines
from gomux.test.support.process import ProcessClock
from gomux.tunnel._signals import ServiceSignals

SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


class ServiceSignalsTests(SynchronousTestCase):
    """
    L{ServiceSignals}
    """

    def setUp(self) -> None:
        self.observer = Lines("gomux.tunnel._signals")
        globalLogPublisher.addObserver(self.observer)
        self.addCleanup(globalLogPublisher.removeObserver, self.observer)
        # Services of other tests may have left their handlers behind.
        for number in SIGNALS:
            self.addCleanup(signal.signal, number, signal.getsignal(number))
            signal.signal(number, signal.SIG_IGN)
        self.before = [signal.getsignal(number) for number in SIGNALS]
        self.calls: list[str] = []
        self.clock = ProcessClock()
        self.signals = ServiceSignals(self.clock, lambda: self.calls.append("reload"))

    def send(self, *numbers: int) -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    def drain(self) -> None:
        self.signals.drain(lambda: self.calls.append("hurry"))

    def test_running(self) -> None:
        """
        While the service runs, each SIGHUP reloads, and the reactor keeps its own
        handlers of SIGTERM and SIGINT.
        """
        self.signals.start()
        self.send(signal.SIGHUP, signal.SIGHUP)
        self.assertEqual(self.calls, ["reload", "reload"])
        handlers = [signal.getsignal(number) for number in SIGNALS]
        self.assertEqual(handlers[1:], self.before[1:])

    def test_nextTurn(self) -> None:
        """
        A signal handler makes no call itself, but asks the reactor to make it.
        """
        later: list[object] = []
        self.clock.callFromThread = (  # type: ignore[method-assign]
            lambda *call: later.append(call)
        )
        self.signals.start()
        self.send(signal.SIGHUP)
        self.assertEqual(self.calls, [])
        self.assertEqual(len(later), 1)

    def test_draining(self) -> None:
        """
        During the drain SIGHUP is only logged.  SIGTERM and SIGINT end the drain, once.
        """
        self.signals.start()
        self.drain()
        self.send(signal.SIGHUP)
        self.assertEqual(self.calls, [])
        self.send(signal.SIGINT, signal.SIGTERM, signal.SIGINT)
        self.assertEqual(self.calls, ["hurry"])
        self.assertEqual(
            self.observer.lines,
            [
                "SIGHUP: ignored, because the service is being stopped",
                "SIGINT again: not waiting any longer",
            ],
        )

    def test_stopped(self) -> None:
        """
        A service that stops while the process goes on gives all handlers back, and
        leaves no trigger in the reactor.
        """
        self.signals.start()
        self.drain()
        self.signals.stop()
        handlers = [signal.getsignal(number) for number in SIGNALS]
        self.assertEqual(handlers, self.before)
        self.assertEqual(self.clock.triggers, [])

    def test_twoServices(self) -> None:
        """
        All services of the process get a signal.  After one of them has stopped, the
        other still gets it.  The order in which they started does not matter.
        """
        for first in (0, 1):
            self.calls.clear()
            both = [
                ServiceSignals(ProcessClock(), partial(self.calls.append, name))
                for name in ("a", "b")
            ]
            for signals in both:
                signals.start()
            self.send(signal.SIGHUP)
            self.assertEqual(self.calls, ["a", "b"])
            both[first].stop()
            self.send(signal.SIGHUP)
            self.assertEqual(self.calls[2:], ["ab"[1 - first]])
            both[1 - first].stop()
            self.assertEqual(signal.getsignal(signal.SIGHUP), self.before[0])

    def test_processEnds(self) -> None:
        """
        If the reactor is being stopped, no signal has an effect after the drain: the
        handlers from before could kill the process, or stop the reactor again.
        """
        self.signals.start()
        self.clock.shutDown()
        self.drain()
        self.signals.stop()
        self.send(*SIGNALS, *SIGNALS)
        self.assertEqual(self.calls, [])

    def test_startedAgain(self) -> None:
        """
        A service that was stopped can be started again, and a second start changes
        nothing.
        """
        for _ in range(2):
            self.signals.start()
            self.signals.start()
            self.assertEqual(len(self.clock.triggers), 1)
            self.send(signal.SIGHUP)
            self.drain()
            self.signals.stop()
        self.assertEqual(self.calls, ["reload", "reload"])
        self.assertIs(signal.getsignal(signal.SIGHUP), self.before[0])
