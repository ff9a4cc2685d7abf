# -*- test-case-name: gomux.test.tunnel.test_signals -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
What the signals of the process do to the service that C{twistd gomux} runs.

Before the service is stopped, SIGHUP reads files again.  SIGTERM and SIGINT belong to
the reactor, which stops the service.  From then on all three belong to this module:
SIGHUP is only logged, and SIGTERM and SIGINT end the drain at once.  The reactor itself
would log a traceback for the second SIGTERM, because it is stopping already.

Python calls a handler between any two steps of the program.  So a handler here only
asks the reactor to call a function in its next turn.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from enum import Enum
from types import FrameType
from typing import Any

from twisted.logger import Logger

_log = Logger()


class SignalHandler:
    """
    Handles a signal for all services of the process.

    @ivar calls: the function that a signal calls, by service.
    @ivar before: the handler that this object has replaced.
    """

    def __init__(self, number: int) -> None:
        self.calls: dict[object, Callable[[], None]] = {}
        self.before = signal.signal(number, self)

    @classmethod
    def of(cls, number: int) -> SignalHandler:
        """
        @return: the handler of a signal.  It is installed if it is not yet.
        """
        current = signal.getsignal(number)
        return current if isinstance(current, SignalHandler) else cls(number)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        for call in list(self.calls.values()):
            call()
        if number == signal.SIGUSR1 and callable(self.before):
            # twistd moves its own log away.
            self.before(number, frame)


class _State(Enum):
    """
    The state of the service.

    @cvar RUNNING: the service was not told to stop.
    @cvar DRAINING: the service waits for open streams to end.
    @cvar STOPPED: the service has stopped, or waits no longer.
    """

    RUNNING = 1
    DRAINING = 2
    STOPPED = 3


class ServiceSignals:
    """
    The handlers of the signals, from the start of the service to its end.

    @ivar _reactor: the reactor.
    @ivar _reload: called on SIGHUP while the service runs.
    @ivar _hurry: called on SIGTERM and SIGINT during the drain.
    @ivar _state: the state of the service.
    @ivar _handlers: the handlers that call this service, by signal.
    @ivar _trigger: the reactor's trigger that calls L{_processEnds} when the reactor is
        stopped; C{None} before L{start}, after that call, and after L{stop}.
    """

    def __init__(self, reactor: Any, reload: Callable[[], None]) -> None:
        """
        @param reactor: the reactor.
        @param reload: called on SIGHUP while the service runs.
        """
        self._reactor = reactor
        self._reload = reload
        self._state = _State.RUNNING
        self._handlers: dict[int, SignalHandler] = {}
        self._trigger: Any = None

    def start(self) -> None:
        """
        Handle SIGHUP.  A second call has no effect.
        """
        if self._handlers:
            return
        self._state = _State.RUNNING
        self._handle(signal.SIGHUP, self._hangUp)
        # The reactor calls triggers in the order in which they were added.  So this
        # call comes before the services stop: twistd adds the trigger for that later.
        self._trigger = self._reactor.addSystemEventTrigger(
            "before", "shutdown", self._processEnds
        )

    def drain(self, hurry: Callable[[], None]) -> None:
        """
        The service was told to stop, and waits for open streams to end.

        @param hurry: ends the wait at once.
        """
        self._state = _State.DRAINING
        self._hurry = hurry
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handle(number, self._terminate)

    def stop(self) -> None:
        """
        The service has stopped.  Restore the handlers from before, unless another
        service of the process needs the current handlers, or the process is about to
        end: then a handler from before could kill it, or log a traceback.
        """
        self._state = _State.STOPPED
        if self._trigger is not None:
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._trigger = None
            for number, handler in self._handlers.items():
                del handler.calls[self]
                if not handler.calls:
                    signal.signal(number, handler.before)
            self._handlers.clear()

    def _handle(self, number: int, handler: Callable[[str], None]) -> None:
        name = signal.Signals(number).name
        shared = self._handlers[number] = SignalHandler.of(number)
        shared.calls[self] = lambda: self._reactor.callFromThread(handler, name)

    def _processEnds(self) -> None:
        self._trigger = None

    def _hangUp(self, name: str) -> None:
        if self._state is _State.RUNNING:
            self._reload()
        else:
            _log.info(
                "{name}: ignored, because the service is being stopped", name=name
            )

    def _terminate(self, name: str) -> None:
        if self._state is _State.DRAINING:
            self._state = _State.STOPPED
            _log.info("{name} again: not waiting any longer", name=name)
            self._hurry()
