# -*- test-case-name: gomux.test.status.test_site -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The operator's port: a page, the same facts as JSON, metrics, and health.

A page of another site that is open in an operator's browser must not read this one.  It
could if it had a name of its own resolve to the address of this port (DNS rebinding).
So the port answers only if the request's C{Host} is C{localhost}, the literal of an
address, or a name that the operator has given.  A browser cannot connect to a Unix
socket, so there any C{Host} will do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from importlib.resources import files
from ipaddress import ip_address
from time import perf_counter
from typing import TYPE_CHECKING, Any

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from gomux._carrier.accept import acceptOne
from gomux._carrier.clock import steady
from gomux.limits import STATUS_CONNECTIONS, STATUS_TIME
from gomux.status._facts import Facts
from gomux.status._history import INTERVAL, SAMPLES, History
from gomux.status._http import Answer, OneAnswer, Request, text

if TYPE_CHECKING:
    from gomux.tunnel._service import TunnelService

#: The files of the page, and the types of their content.
ASSETS = {
    "page.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

# The page loads nothing but its own files, and no other page can embed it.
_POLICY = (
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "X-Content-Type-Options: nosniff\r\n"
)

#: The type of the metrics.  All versions of Prometheus know it.
METRICS = "text/plain; version=0.0.4; charset=utf-8"

_host = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[^][:]+))(?::[0-9]*)?")

_WHERE = "there are only /, /status.json, /metrics and /healthz"


def isOwnHost(host: bytes, names: Collection[str]) -> bool:
    """
    @param host: the C{Host} of a request.
    @param names: the names that the operator has given, in lower case.
    @return: whether the port answers to it.
    """
    match = _host.fullmatch(host.decode("latin-1").lower())
    if match is None:
        return False
    name = match["name"].removesuffix(".") if match["name"] else ""
    if name == "localhost" or name in names:
        return True
    try:
        ip_address(match["six"] or name)
    except ValueError:
        return False
    return True


class _StatusProtocol(OneAnswer):
    """
    One connection to the operator's port.

    @ivar _site: answers.
    @ivar _hosts: the names that the port answers to.
    """

    def __init__(self, site: StatusSite, hosts: Collection[str]) -> None:
        self._site = site
        self._hosts = hosts
        self.clock = site.clock

    def connectionMade(self) -> None:
        """
        Wait for the request.
        """
        acceptOne(self.transport)
        super().connectionMade()
        self._site.connected(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection has ended.
        """
        super().connectionLost(reason)
        self._site.lost(self)

    def respond(self, request: Request) -> Answer:
        """
        @return: the answer to a request for one of this port's names.
        """
        if not isinstance(self.transport.getHost(), UNIXAddress):
            hosts = request.values(b"host")
            if len(hosts) != 1:
                return text("400 Bad Request", "a request needs one Host")
            if not isOwnHost(hosts[0], self._hosts):
                return text(
                    "421 Misdirected Request",
                    "this port answers for localhost, for addresses, and for the names"
                    " that --status-host gives",
                )
        return self._site.respond(request.path)


class StatusFactory(Factory):
    """
    The factory of an operator's port.

    @ivar hosts: the names that the port answers to, besides C{localhost} and addresses,
        in lower case.
    @ivar site: answers.
    """

    noisy = False

    def __init__(self, site: StatusSite, hosts: Collection[str] = ()) -> None:
        """
        @param site: answers.
        @param hosts: the names that the port answers to.
        """
        self.site = site
        self.hosts = frozenset(name.lower() for name in hosts)

    def startFactory(self) -> None:
        """
        A port listens.
        """
        self.site.begin()

    def stopFactory(self) -> None:
        """
        No port listens any more.
        """
        self.site.end()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """
        @return: the protocol of a connection.
        """
        return _StatusProtocol(self.site, self.hosts)


class StatusSite:
    """
    What all operator's ports of a process answer.

    @ivar clock: the reactor.
    @ivar connections: the open connections, the oldest first.
    @ivar _ports: how many factories have ports that listen.
    @ivar _facts: reads the facts about the service.
    @ivar _history: the rates of the last minutes.
    @ivar _assets: the files of the page, by path.
    @ivar _made: the last answers that took time to make, by path, and until when each
        is given again.
    @ivar _makers: make these answers.
    """

    _facts: Facts
    _history: History
    _makers: dict[bytes, Callable[[], Answer]]

    def __init__(self, clock: Any) -> None:
        """
        @param clock: the reactor.
        """
        self.clock: Any = steady(clock)
        self.connections: dict[OneAnswer, None] = {}
        self._ports = 0
        self._assets: dict[bytes, Answer] = {}
        self._made: dict[bytes, tuple[float, Answer]] = {}

    def show(self, service: TunnelService) -> None:
        """
        Answer about a service.  Called once, before a port listens.
        """
        self._facts = Facts(service, self.clock)
        self._history = History(self._facts.peers, self.clock)

    def begin(self) -> None:
        """
        There is one more factory with a port.  With the first, read the files, and
        begin to sample the rates.
        """
        self._ports += 1
        if self._ports > 1:
            return
        self._history.start()
        if not self._assets:
            self._assets = _readAssets()
            self._makers = {
                b"/status.json": self._json,
                b"/metrics": _metricsMaker(self._facts),
                b"/healthz": self._health,
            }

    def end(self) -> None:
        """
        There is one less.
        """
        self._ports -= 1
        if not self._ports:
            self._history.stop()

    def connected(self, connection: OneAnswer) -> None:
        """
        There is one more connection: drop the oldest if there are too many, so that
        nobody can keep the operator out by connecting and saying nothing.
        """
        self.connections[connection] = None
        if len(self.connections) > STATUS_CONNECTIONS:
            oldest = next(iter(self.connections))
            del self.connections[oldest]
            oldest.drop()

    def lost(self, connection: OneAnswer) -> None:
        """
        A connection has ended.
        """
        self.connections.pop(connection, None)

    def respond(self, path: bytes) -> Answer:
        """
        @param path: the path of a request.
        @return: the answer.
        """
        if path in self._assets:
            return self._assets[path]
        if path not in self._makers:
            return text("404 Not Found", _WHERE, _POLICY)
        now = self.clock.seconds()
        until, answer = self._made.get(path, (now, None))
        if answer is None or now >= until:
            began = perf_counter()
            answer = self._makers[path]()
            took = perf_counter() - began
            self._made[path] = now + took / STATUS_TIME, answer
        return answer

    def _json(self) -> Answer:
        found = self._facts.asJSON()
        found["interval"], found["samples"] = INTERVAL, SAMPLES
        for peer in found["peers"]:
            rates = self._history.rates.get(peer["name"], ())
            peer["rates"] = {
                "received": [received for received, _ in rates],
                "sent": [sent for _, sent in rates],
            }
        body = json.dumps(found, separators=(",", ":")) + "\n"
        return Answer("200 OK", "application/json", body.encode(), _POLICY)

    def _health(self) -> Answer:
        problems = self._facts.problems()
        if not problems:
            return text("200 OK", "ok", _POLICY)
        return text("503 Service Unavailable", "\n".join(problems), _POLICY)


def _readAssets() -> dict[bytes, Answer]:
    """
    @return: the files of the page, by path.
    """
    folder = files("gomux.status") / "page"
    found = {
        f"/{name}".encode(): Answer(
            "200 OK", kind, (folder / name).read_bytes(), _POLICY
        )
        for name, kind in ASSETS.items()
    }
    found[b"/"] = found.pop(b"/page.html")
    return found


def _metricsMaker(facts: Facts) -> Callable[[], Answer]:
    """
    @return: makes the answer with the metrics.
    """
    try:
        from prometheus_client import generate_latest

        from gomux.status._metrics import registryOf
    except ImportError:
        return lambda: text(
            "501 Not Implemented",
            "metrics need the Python package prometheus-client:"
            " pip install 'gomux[metrics]'",
            _POLICY,
        )
    registry = registryOf(facts)
    return lambda: Answer("200 OK", METRICS, generate_latest(registry), _POLICY)
