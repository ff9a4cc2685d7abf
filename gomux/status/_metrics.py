# -*- test-case-name: gomux.test.status.test_metrics -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The facts as metrics for Prometheus.  This module needs C{prometheus_client}.

Labels are bounded: they are the names of peers and services in the configuration, and
of codes and limits.  No label is an address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import nan
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gomux.status._facts import VERSIONS

if TYPE_CHECKING:
    from gomux.status._facts import Facts, LimitFacts, PeerFacts, ServiceFacts

    _Family = type[CounterMetricFamily] | type[GaugeMetricFamily]


def _roundTrip(peer: PeerFacts) -> float:
    newest = peer.newest
    last = None if newest is None else newest.roundTrip
    return nan if last is None else last


# The metrics of each peer: what makes them, their names and texts, and their values.
_PEER: tuple[tuple[_Family, str, str, Callable[[PeerFacts], float]], ...] = (
    (
        GaugeMetricFamily,
        "gomux_muxes",
        "Muxes of a peer that are connected.",
        lambda peer: len(peer.muxes),
    ),
    (
        CounterMetricFamily,
        "gomux_muxes_opened",
        "Muxes that a peer has had.",
        lambda peer: peer.opened,
    ),
    (
        GaugeMetricFamily,
        "gomux_strict",
        "1 if the newest mux of a peer is in strict mode.",
        lambda peer: peer.newest is not None and peer.newest.isStrict,
    ),
    (
        GaugeMetricFamily,
        "gomux_streams",
        "Open streams on the muxes of a peer.",
        lambda peer: peer.streams,
    ),
    (
        GaugeMetricFamily,
        "gomux_round_trip_seconds",
        "Round trip of the newest ping on the newest mux of a peer; NaN if unknown.",
        _roundTrip,
    ),
    (
        CounterMetricFamily,
        "gomux_received_bytes",
        "Bytes that were received from a peer, on all its muxes.",
        lambda peer: peer.received,
    ),
    (
        CounterMetricFamily,
        "gomux_sent_bytes",
        "Bytes that were sent to a peer, on all its muxes.",
        lambda peer: peer.sent,
    ),
)


class MuxCollector(Collector):
    """
    Reads the facts when the metrics are asked for.

    @ivar _facts: reads the facts.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        """
        @return: all metrics, each with all its series.
        """
        facts = self._facts
        yield InfoMetricFamily("gomux_build", "The versions that run.", VERSIONS)
        peers = facts.peers()
        for make, name, text, value in _PEER:
            family = make(name, text, labels=["peer"])
            for peer in peers:
                family.add_metric([peer.name], value(peer))
            yield family
        yield from _ofServices(facts.services())
        yield from _ofLimits(facts.limits())
        yield from self._ofProcess()

    def _ofProcess(self) -> Iterator[Metric]:
        """
        @return: the metrics without labels, and the streams refused by code.
        """
        service = self._facts.service
        tally, reloaded = service.pool.tally, service.reloaded
        refused = CounterMetricFamily(
            "gomux_refused_streams",
            "Streams of peers that were refused and belong to no service here.",
            labels=["code"],
        )
        for code, count in tally.refused.items():
            refused.add_metric([code], count)
        yield refused
        yield CounterMetricFamily(
            "gomux_strangers_refused",
            "Connections that ended without having shown a key, or were refused"
            " because too many such connections waited.",
            tally.strangers,
        )
        gauges: tuple[tuple[str, str, float], ...] = (
            (
                "gomux_strangers",
                "Connections whose peers have not shown a key yet.",
                service.keyring.descriptors.strangers,
            ),
            (
                "gomux_waiting_connections",
                "Connections that wait for a mux.",
                service.pool.waiting,
            ),
            (
                "gomux_healthy",
                "1 if /healthz answers with 200.",
                not self._facts.problems(),
            ),
            (
                "gomux_last_reload_successful",
                "0 if the last reload has failed, so that nothing has changed.",
                reloaded is None or reloaded.worked,
            ),
            (
                "gomux_last_reload_timestamp_seconds",
                "When the last reload was, since the epoch; 0 before the first.",
                0.0 if reloaded is None else reloaded.at,
            ),
        )
        for name, text, value in gauges:
            yield GaugeMetricFamily(name, text, value)


def _ofServices(services: list[ServiceFacts]) -> Iterator[Metric]:
    labels = ["service", "direction"]
    open = GaugeMetricFamily(
        "gomux_connections", "Open connections or streams of a service.", labels=labels
    )
    total = CounterMetricFamily(
        "gomux_connections_opened",
        "Connections or streams of a service, with those that failed.",
        labels=labels,
    )
    failures = CounterMetricFamily(
        "gomux_connection_failures",
        "Connections or streams of a service that failed, by code.",
        labels=[*labels, "code"],
    )
    for facts in services:
        label = [facts.service, facts.direction]
        open.add_metric(label, facts.counts.open)
        total.add_metric(label, facts.counts.total)
        for code, count in facts.counts.failures.items():
            failures.add_metric([*label, code], count)
    yield from (open, total, failures)


def _ofLimits(limits: list[LimitFacts]) -> Iterator[Metric]:
    ratio = GaugeMetricFamily(
        "gomux_limit_used_ratio",
        "How much of a limit is used, by the peer, mux or endpoint that uses most.",
        labels=["limit"],
    )
    for limit in limits:
        ratio.add_metric([limit.name], limit.ratio)
    yield ratio


def registryOf(facts: Facts) -> CollectorRegistry:
    """
    @param facts: reads the facts.
    @return: a registry with the metrics of a service and of the process.
    """
    # It does not read the facts to learn the metrics' names.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MuxCollector(facts))
    ProcessCollector(registry=registry)
    return registry
