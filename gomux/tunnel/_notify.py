# -*- test-case-name: gomux.test.tunnel.test_notify -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
What the process tells the service manager, systemd, as C{sd_notify(3)} describes it.

The manager gives the path of a socket in the environment.  Each message is a datagram
of lines.  A process that was started by hand has no such socket, and tells nothing.

  - C{READY=1} once every port listens, and again after each reload.
  - C{RELOADING=1} before a reload.
  - C{STOPPING=1} when the service is told to stop.  It may take as long as the drain.
  - C{STATUS=}, the number of muxes and streams, when it has changed.
  - C{WATCHDOG=1} twice in the time after which the manager takes the process for hung.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

_log = Logger()

#: The longest time between two checks of the status, in seconds.
_PERIOD = 5.0
#: The time between two checks whether all ports listen, in seconds.
_READY_PERIOD = 0.05
#: How much longer than the drain the end may take, in seconds.
_END = 15
#: How many lines wait at most while they cannot be sent.
_UNTOLD = 16


class ServiceManager:
    """
    Tells the service manager how the process is.

    @ivar _clock: the reactor.
    @ivar _isReady: returns whether every port listens.
    @ivar _describe: returns the status, in a few words.
    @ivar _address: the address of the manager's socket; empty without a manager.
    @ivar _period: the time between two checks of the status, in seconds.
    @ivar _hasWatchdog: whether the manager waits for signs of life.
    @ivar _wasReady: whether the manager was told that the process is ready.
    @ivar _status: the status that the manager was told last.
    @ivar _untold: the last lines that could not be sent.
    @ivar _hasFailed: whether it was logged that nothing can be sent.
    @ivar _check: the delayed call of the next check; C{None} if none is due.
    """

    _address = ""
    _period = _PERIOD
    _hasWatchdog = False
    _hasFailed = False

    def __init__(
        self, clock: Any, isReady: Callable[[], bool], describe: Callable[[], str]
    ) -> None:
        """
        @param clock: the reactor.
        @param isReady: returns whether every port listens.
        @param describe: returns the status, in a few words.
        """
        self._clock = clock
        self._isReady = isReady
        self._describe = describe
        self._wasReady = False
        self._status = ""
        self._untold: tuple[str, ...] = ()
        self._check: IDelayedCall | None = None

    def start(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """
        Tell the manager once every port listens.

        @param environ: the environment.  What is read there is removed, because it is
            not for the programs that this process may start.
        """
        self._address = environ.pop("NOTIFY_SOCKET", self._address)
        pid = environ.pop("WATCHDOG_PID", str(os.getpid()))
        timeout = environ.pop("WATCHDOG_USEC", "")
        if timeout.isdecimal() and int(timeout) and pid == str(os.getpid()):
            self._hasWatchdog = True
            self._period = min(_PERIOD, int(timeout) / 1e6 / 2)
        if self._address and self._check is None:
            self._checkLater(0)

    def reloading(self) -> None:
        """
        The service begins to read files again.
        """
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}")

    def reloaded(self) -> None:
        """
        The service has read its files again, or has kept what it had.
        """
        self._tell("READY=1")

    def stopping(self, seconds: float) -> None:
        """
        The service was told to stop.

        @param seconds: how long that may take.
        """
        self._wasReady = True
        timeout = int((seconds + _END) * 1e6)
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={timeout}", *self._news())

    def stop(self) -> None:
        """
        The service has stopped: tell the manager nothing more.
        """
        if self._check is not None:
            self._check.cancel()
            self._check = None
        self._wasReady = False

    def _checkLater(self, seconds: float) -> None:
        self._check = self._clock.callLater(seconds, self._checkNow)

    def _checkNow(self) -> None:
        lines = self._news()
        if not self._wasReady and self._isReady():
            self._wasReady = True
            lines.append("READY=1")
        if self._hasWatchdog:
            lines.append("WATCHDOG=1")
        self._tell(*lines)
        self._checkLater(self._period if self._wasReady else _READY_PERIOD)

    def _news(self) -> list[str]:
        """
        @return: the line with the status, if it has changed.
        """
        status = self._describe()
        if status == self._status:
            return []
        self._status = status
        return [f"STATUS={status}"]

    def _tell(self, *lines: str) -> None:
        """
        Send a message, unless there is nobody to send it to.  It is never waited for.
        """
        if not lines or not self._address:
            return
        lines = (*self._untold, *lines)
        self._untold = ()
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            with socket.socket(socket.AF_UNIX, kind) as manager:
                manager.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            # The manager may be busy, or this process may have no descriptor left for
            # a moment: these lines go with the next message.
            self._untold = lines[-_UNTOLD:]
            if not self._hasFailed and not isinstance(error, BlockingIOError):
                self._hasFailed = True
                _log.warn(
                    "the service manager cannot be told anything at {address!r}:"
                    " {error}",
                    address=self._address,
                    error=error.strerror or error,
                )
        else:
            self._hasFailed = False
