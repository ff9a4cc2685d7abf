# -*- test-case-name: gomux.test.tunnel.test_accesslog -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The option of C{twistd gomux} for the access log, and the service that opens the log.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.application.service import Service
from twisted.python.usage import CompleteFiles, Completions, UsageError

from gomux.tunnel._accesslog import STANDARD_OUTPUT, AccessLog
from gomux.tunnel._given import FileOptions
from gomux.tunnel._parts import CannotListen
from gomux.tunnel._serviceoptions import withoutSecrets
from gomux.tunnel._signals import SignalHandler


class AccessLogOptions(FileOptions):
    """
    The option for the access log.
    """

    optParameters = [
        [
            "access-log",
            None,
            None,
            "Write a JSON line for each connection that has ended to this file, or with"
            " - to the standard output.  On SIGUSR1 the file is opened again.",
        ],
    ]

    compData = Completions(optActions={"access-log": CompleteFiles()})

    @property
    def accessLog(self) -> str | None:
        """
        The path of the access log; C{None} if there is none.
        """
        path = self["access-log"]
        if path in (None, STANDARD_OUTPUT):
            return path  # type: ignore[no-any-return]
        return os.path.abspath(os.path.join(self.directory, path))

    def checkAccessLog(self) -> None:
        """
        Check the option.

        @raise UsageError: if the option is not valid.
        """
        path, label = self["access-log"], self.label("access-log")
        if path == "" or (path is not None and "\0" in path):
            raise UsageError(f"{label} needs the path of a file, or -")
        isDaemon = self.parent is not None and not self.parent.get("nodaemon", True)
        if path == STANDARD_OUTPUT and isDaemon:
            raise UsageError(
                f"{label} -: a daemon has no standard output: give twistd -n"
            )


class AccessLogService(Service):
    """
    Opens the access log once the process has given up its privileges, and again on
    SIGUSR1, with which C{twistd} moves its own log away.

    @ivar log: the access log.
    @ivar _reactor: the reactor.
    """

    def __init__(self, log: AccessLog, reactor: Any) -> None:
        self.log = log
        self._reactor = reactor

    def startService(self) -> None:
        """
        Open the access log.

        @raise CannotListen: if it cannot be opened.
        """
        super().startService()
        try:
            self.log.open()
        except OSError as error:
            raise CannotListen(
                f"--access-log {withoutSecrets(self.log.path)}: {error.strerror}"
            ) from None
        SignalHandler.of(signal.SIGUSR1).calls[self] = self._rotated

    def _rotated(self) -> None:
        self._reactor.callFromThread(self.log.reopen)

    def stopService(self) -> None:
        """
        Write lines at once from now on: the last connections end during the drain.
        """
        super().stopService()
        # The handler stays: without it a later SIGUSR1 would kill the process.
        SignalHandler.of(signal.SIGUSR1).calls.pop(self, None)
        self.log.finish()
