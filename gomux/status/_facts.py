# -*- test-case-name: gomux.test.status.test_facts -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The facts about a process of C{twistd gomux} that its status ports show.  They are read
from the running service when somebody asks.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

import twisted

from gomux._mux.log import describeAddress
from gomux._version import __version__
from gomux._wire.request import UNNAMED

if TYPE_CHECKING:
    from gomux._mux.protocol import MuxProtocol
    from gomux._mux.tally import ServiceCounts
    from gomux.tunnel._service import Connector, TunnelService

#: What runs, with their versions.
VERSIONS = {
    "version": __version__,
    "python": platform.python_version(),
    "twisted": twisted.__version__,
}

#: How long a mux whose peer has said nothing must stand to count as connected, in
#: seconds.  A Go server says nothing before a stream is opened, and a server with
#: another key drops the mux much sooner.
STANDS = 5.0

#: How many muxes of a peer are listed at most: the newest.
LISTED = 64

#: When this process began, or nearly so, in seconds since the epoch.
STARTED = time.time()


@dataclass
class PeerFacts:
    """
    The facts about a peer.

    @ivar name: its name; empty for a single key without a name.
    @ivar muxes: its muxes, those of each port and connect the oldest first.
    @ivar opened: how many muxes it has had.
    @ivar received: how many bytes were received on them.
    @ivar sent: how many bytes were sent on them.
    @ivar streams: how many streams are open.
    @ivar newest: the newest mux; C{None} without one.
    """

    name: str
    muxes: list[MuxProtocol] = field(default_factory=list)
    opened: int = 0
    received: int = 0
    sent: int = 0
    streams: int = 0
    newest: MuxProtocol | None = None

    def add(self, mux: MuxProtocol) -> None:
        """
        Add a mux that has not ended.
        """
        self.muxes.append(mux)
        self.opened += 1
        self.received += mux.bytesReceived
        self.sent += mux.bytesSent
        self.streams += mux.streamCount
        if self.newest is None or mux.since > self.newest.since:
            self.newest = mux


@dataclass
class ServiceFacts:
    """
    The facts about the streams of a service in one direction.

    @ivar service: the name of the service, C{unnamed} for streams without one.
    @ivar direction: C{forwarded} for connections that this side has accepted for peers,
        C{served} for streams that peers have opened.
    @ivar counts: their counts.
    """

    service: str
    direction: str
    counts: ServiceCounts


@dataclass
class LimitFacts:
    """
    How much of a limit is used.

    @ivar name: the name of the option, or C{descriptors}.
    @ivar used: how much is used.  If each peer, mux or endpoint has the limit, this is
        of the one that uses most.
    @ivar limit: the limit; C{None} if there is none.
    """

    name: str
    used: int
    limit: int | None

    @property
    def ratio(self) -> float:
        """
        How much of it is used, from 0 to 1.
        """
        return self.used / self.limit if self.limit else 0.0


def _nearest(name: str, uses: Iterable[tuple[int, float]]) -> LimitFacts:
    """
    @param uses: how much is used, and the limit, of each that has the limit.
    @return: those of the one that is nearest to its limit.
    """
    used, limit = max(uses, key=lambda use: use[0] / use[1], default=(0, 0))
    return LimitFacts(name, used, None if limit == inf else int(limit))


class Facts:
    """
    Reads the facts about a service.

    @ivar service: the service.
    @ivar _clock: the reactor.
    """

    def __init__(self, service: TunnelService, clock: Any) -> None:
        """
        @param service: the service.
        @param clock: the reactor.
        """
        self.service = service
        self._clock = clock

    def peers(self) -> list[PeerFacts]:
        """
        @return: the peers that have keys, and those that had, by name.
        """
        service = self.service
        ended = service.pool.tally.ended
        names = {*service.keyring.names, *ended}
        peers = {name: PeerFacts(name) for name in sorted(names)}
        for name, sums in ended.items():
            peer = peers[name]
            peer.opened, peer.received, peer.sent = sums.muxes, sums.received, sums.sent
        for factory in service.factories:
            for mux in factory.muxes:
                if mux.hasPeer:
                    name = mux.expectedName
                    peers.setdefault(name, PeerFacts(name)).add(mux)
        return list(peers.values())

    def services(self) -> list[ServiceFacts]:
        """
        @return: the services of the configuration, and those that were in it before.
        """
        tally = self.service.pool.tally
        for factory in self.service.factories:
            if factory.streamFactory is not None:
                tally.serving(None)
            for name in factory.services:
                tally.serving(name)
        return [
            ServiceFacts(name or UNNAMED, direction, counts)
            for direction, all in (
                ("forwarded", tally.forwarded),
                ("served", tally.served),
            )
            for name, counts in sorted(all.items(), key=lambda item: item[0] or "")
        ]

    def limits(self) -> list[LimitFacts]:
        """
        @return: how much of each limit is used.
        """
        service = self.service
        descriptors = service.keyring.descriptors
        used = descriptors.used + descriptors.strangers
        most = descriptors.left + used
        found = [
            LimitFacts("descriptors", used, most if most < sys.maxsize // 2 else None)
        ]
        factories = service.factories
        if factories:
            limits, buffers = factories[0].limits, factories[0].buffers
            uses = [service.keyring.uses[name] for name in service.keyring.names]
            streams = [mux.peerStreamCount for f in factories for mux in f.muxes]
            servers = sum(not factory.isClient for factory in factories)
            strangers = limits.maxUnauthenticated * servers
            found += [
                _nearest(
                    "max-muxes",
                    ((u.muxes, u.rules.maxMuxes or limits.maxMuxes) for u in uses),
                ),
                _nearest(
                    "max-streams",
                    (
                        (max(streams, default=0), limits.maxStreams),
                        *((u.streams, u.rules.maxStreams or inf) for u in uses),
                    ),
                ),
                LimitFacts("max-buffered", buffers.total, limits.maxBuffered),
                LimitFacts("max-unauthenticated", descriptors.strangers, strangers),
            ]
        pool = service.pool
        return [
            *found,
            _nearest(
                "max-connections",
                ((len(t.bridges), t.limits.maxConnections) for t in service.tunnels),
            ),
            LimitFacts("max-waiting", pool.waiting, pool.maxWaiting),
        ]

    def problems(self) -> list[str]:
        """
        @return: the names of the listeners that do not listen, and of the connects
            without a mux.
        """
        service = self.service
        return [
            *(str(port.name) for port in service.listeners if not port.isListening),
            *(str(each.name) for each in service.connectors if not self._isUp(each)),
        ]

    def _isUp(self, connector: Connector) -> bool:
        """
        @return: whether a connect has a mux that has heard from its peer, or that has
            stood for a while.
        """
        now = self._clock.seconds()
        return any(
            mux.canOpen
            and not mux.gated
            and (mux.authenticated or now - mux.since >= STANDS)
            for mux in connector.dialler.muxes
        )

    # As JSON

    def asJSON(self) -> dict[str, Any]:
        """
        @return: all facts, ready for JSON.
        """
        service = self.service
        reloaded = service.reloaded
        problems = self.problems()
        return {
            **VERSIONS,
            "now": round(time.time(), 3),
            "started": round(STARTED, 3),
            "reload": None
            if reloaded is None
            else {"at": round(reloaded.at, 3), "worked": reloaded.worked},
            "healthy": not problems,
            "problems": problems,
            "peers": [self._peerAsJSON(peer) for peer in self.peers()],
            "services": [
                {
                    "service": facts.service,
                    "direction": facts.direction,
                    "open": facts.counts.open,
                    "total": facts.counts.total,
                    "failures": facts.counts.failures,
                }
                for facts in self.services()
            ],
            "refused": service.pool.tally.refused,
            "waiting": service.pool.waiting,
            "strangers": {
                "waiting": service.keyring.descriptors.strangers,
                "refused": service.pool.tally.strangers,
            },
            "limits": [
                {"name": limit.name, "used": limit.used, "limit": limit.limit}
                for limit in self.limits()
            ],
        }

    def _peerAsJSON(self, peer: PeerFacts) -> dict[str, Any]:
        newest = peer.newest
        listed = sorted(peer.muxes, key=lambda mux: -mux.since)[:LISTED]
        return {
            "name": peer.name,
            "strict": newest is not None and newest.isStrict,
            "muxes": len(peer.muxes),
            "opened": peer.opened,
            "since": self._date(min((m.since for m in peer.muxes), default=None)),
            "roundTrip": None if newest is None else newest.roundTrip,
            "streams": peer.streams,
            "bytesReceived": peer.received,
            "bytesSent": peer.sent,
            "connections": [self._muxAsJSON(mux) for mux in listed],
        }

    def _muxAsJSON(self, mux: MuxProtocol) -> dict[str, Any]:
        return {
            "address": describeAddress(mux.getPeer()),
            "role": "client" if mux.factory.isClient else "server",
            "since": self._date(mux.since),
            "roundTrip": mux.roundTrip,
            "streams": mux.streamCount,
            "bytesReceived": mux.bytesReceived,
            "bytesSent": mux.bytesSent,
        }

    def _date(self, since: float | None) -> float | None:
        """
        @param since: a time by the clock.
        @return: the time in seconds since the epoch.
        """
        if since is None:
            return None
        age: float = self._clock.seconds() - since
        return round(time.time() - age, 1)
