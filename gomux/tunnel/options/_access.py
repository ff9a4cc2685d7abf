# -*- test-case-name: gomux.test.tunnel.test_accesslog -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The option of C{twistd gomux} for the access log, and the service that opens the log.
"""

from __future__ import annotations

import os

from twisted.python.usage import CompleteFiles, Completions, UsageError

from gomux.tunnel._accesslog import STANDARD_OUTPUT
from gomux.tunnel.options._given import FileOptions


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
