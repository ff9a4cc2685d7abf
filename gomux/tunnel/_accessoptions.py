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

from gomux.tunnel._accesslog import STANDARD_OUTPUT, AccessLog, LoggedFactory
from gomux.tunnel._given import FileOptions, Mistakes
from gomux.tunnel._parts import CannotListen
from gomux.tunnel._signals import SignalHandler


class AccessLogOptions(FileOptions):
    """
    The option for the access log.

    @ivar accessLogPath: the value of C{--access-log}; C{None} if it is not given.
    """

    compData = Completions(optActions={"access-log": CompleteFiles()})

    accessLogPath: str | None = None

    def opt_access_log(self, path: str) -> None:
        """
        Write a JSON line for each connection that has ended to this file, or with - to
        the standard output.  On SIGUSR1 the file is opened again.
        """
        if self.accessLogPath is not None:
            raise UsageError("--access-log can be given only once")
        self.accessLogPath = path

    def findAccessLog(self, m: Mistakes) -> str | None:
        """
        @param m: gets what is wrong.
        @return: the absolute path of the access log, or C{-}; C{None} for none.
        """
        path = self.accessLogPath
        with m.of(self.label("access-log")):
            if path == "":
                raise ValueError("needs the path of a file, or -")
            isDaemon = self.parent is not None and not self.parent.get("nodaemon", True)
            if path == STANDARD_OUTPUT and isDaemon:
                raise ValueError("a daemon has no standard output: give twistd -n")
        if path is None or path == STANDARD_OUTPUT:
            return path
        return os.path.abspath(os.path.join(self.directory, path))


class AccessLogService(Service):
    """
    Opens the access log once the process has given up its privileges, and again on
    SIGUSR1, with which C{twistd} moves its own log away.

    @ivar log: the access log; C{None} for none.
    @ivar _reactor: the reactor.
    @ivar _factories: the factories that write lines, by the service, and by the factory
        that they stand for.
    """

    name = "the access log"

    def __init__(self, reactor: Any) -> None:
        self.log: AccessLog | None = None
        self._reactor = reactor
        self._factories: dict[tuple[str | None, Any], LoggedFactory] = {}

    def change(self, path: str | None) -> list[str]:
        """
        Write to another file from now on, or leave everything as it is.

        @param path: the path of the file; C{None} for none.
        @return: the reasons why that is not possible.
        """
        old = self.log
        if path == (None if old is None else old.path):
            return []
        new = None if path is None else AccessLog(path, self._reactor)
        if new is not None and self.running:
            try:
                new.open()
            except OSError as error:
                return [f"--access-log {path}: {error.strerror}"]
        if old is not None:
            old.close()
        self.log = new
        self._factories.clear()
        return []

    def logged(self, service: str | None, factory: Any) -> Any:
        """
        @return: a factory of streams, or one that writes a line for each of its streams
            if there is an access log.  The latter is the same for the same factory.
        """
        if self.log is None:
            return factory
        key = service, factory
        if key not in self._factories:
            made = LoggedFactory(factory, service, self.log, self._reactor)
            self._factories[key] = made
        return self._factories[key]

    def startService(self) -> None:
        """
        Open the access log.

        @raise CannotListen: if it cannot be opened.
        """
        super().startService()
        SignalHandler.of(signal.SIGUSR1).calls[self] = self._rotated
        if self.log is not None:
            try:
                self.log.open()
            except OSError as error:
                path = self.log.path
                raise CannotListen(f"--access-log {path}: {error.strerror}") from None

    def _rotated(self) -> None:
        self._reactor.callFromThread(self._reopen)

    def _reopen(self) -> None:
        if self.log is not None and self.running:
            self.log.reopen()

    def stopService(self) -> None:
        """
        Write lines at once from now on: the last connections end during the drain.
        """
        super().stopService()
        # The handler stays: without it a later SIGUSR1 would kill the process.
        SignalHandler.of(signal.SIGUSR1).calls.pop(self, None)
        if self.log is not None:
            self.log.finish()
