# -*- test-case-name: gomux.test.status.test_options -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The options of C{twistd gomux} for the operator's port.
"""

from __future__ import annotations

import re

from twisted.python.usage import Options, UsageError

_name = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")


def checkStatusHost(name: str) -> str:
    """
    @param name: the value of a C{--status-host}.
    @return: the name, in lower case.
    @raise ValueError: if it is not the name of a host.
    """
    if not _name.fullmatch(name):
        raise ValueError("a name such as gomux.example.org is needed, without a port")
    return name.lower()


class StatusOptions(Options):
    """
    The options for the operator's port.

    @ivar statusTexts: the values of C{--status}.
    @ivar statusHosts: the values of C{--status-host}.
    """

    def __init__(self) -> None:
        super().__init__()
        self.statusTexts: list[str] = []
        self.statusHosts: list[str] = []

    def opt_status(self, endpoint: str) -> None:
        """
        Serve a status page for the operator at this ENDPOINT, over HTTP: / is a page,
        /status.json has the same facts, /metrics is for Prometheus, and /healthz says
        whether all ports listen and all --connect are connected. Whoever can connect
        there can read all of it, so use an address of this machine only, or a Unix
        socket: tcp:9100:interface=127.0.0.1. Can be given several times.
        """
        self.statusTexts.append(endpoint)

    def opt_status_host(self, name: str) -> None:
        """
        Answer at the --status ports if a browser asks for this NAME too. Otherwise they
        answer only if it asks for localhost or an address. Can be given several times.
        """
        try:
            self.statusHosts.append(checkStatusHost(name))
        except ValueError as error:
            raise UsageError(f"--status-host {name}: {error}") from None
