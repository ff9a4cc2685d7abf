# -*- test-case-name: gomux.test.status.test_statusoptions -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The options of C{twistd gomux} for the operator's port.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.python.usage import Options

from gomux.endpoints._listening import serverEndpoint
from gomux.status._site import StatusFactory, StatusSite
from gomux.tunnel._plan import Item, Plan
from gomux.tunnel.options._given import Mistakes, labelOf

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

    @ivar site: answers on all such ports of the process; C{None} if the options were
        read again.
    @ivar statusTexts: the values of C{--status}.
    @ivar statusHosts: the values of C{--status-host}.
    """

    site: StatusSite | None = None

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
        self.statusHosts.append(name)

    def findStatus(
        self, reactor: Any, first: StatusOptions, before: Plan | None, m: Mistakes
    ) -> list[Item]:
        """
        @param reactor: the reactor.
        @param first: the options that were read first.
        @param before: the plan that the process follows.
        @param m: gets what is wrong.
        @return: the operator's ports.
        """
        hosts = set()
        for name in self.statusHosts:
            with m.of(labelOf("status-host", name)):
                hosts.add(checkStatusHost(name))
        if first.site is None:
            first.site = StatusSite(reactor)
        factory = StatusFactory(first.site, hosts)
        items: list[Item] = []
        for text in self.statusTexts:
            with m.of(labelOf("status", text)):
                old = None if before is None else before.find("status", text)
                what = _endpoint(reactor, str(text)) if old is None else old.what
                item = Item("status", text, what, string=str(text), factory=factory)
                if item.key in [other.key for other in items]:
                    raise ValueError("can be given only once")
                items.append(item)
        return items


def _endpoint(reactor: Any, text: str) -> Any:
    try:
        return serverEndpoint(reactor, text)
    except Exception as error:
        raise ValueError(f"not a usable endpoint: {error}") from None
