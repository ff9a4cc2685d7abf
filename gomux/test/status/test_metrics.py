"""
Tests for L{gomux.status._metrics}.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

import gomux
from gomux.status._facts import STARTED, VERSIONS
from gomux.status._metrics import MuxCollector
from gomux.test.support.helpers import Recorders
from gomux.test.support.statusrig import StatusRig
from gomux.tunnel._service import Reloaded

ROOT = Path(gomux.__file__).resolve().parent.parent

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class MetricsTests(SynchronousTestCase):
    """
    What C{/metrics} answers
    """

    def setUp(self) -> None:
        self.rig = StatusRig(self)

    def scrape(self) -> Series:
        """
        @return: the values by name and labels, as a parser of the format reads them.
        """
        head, body = self.rig.get("/metrics")
        self.assertTrue(head.startswith("HTTP/1.1 200 OK\r\n"), head)
        self.assertIn("Content-Type: text/plain; version=0.0.4; charset=utf-8", head)
        self.rig.clock.advance(60)
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.scrape()[name, tuple(sorted(labels.items()))]

    def test_values(self) -> None:
        """
        The values are those of the facts.
        """
        self.assertEqual(self.value("gomux_build_info", **VERSIONS), 1)
        started = self.value("process_start_time_seconds")
        self.assertLess(abs(started - STARTED), 3600)
        self.assertTrue(math.isnan(self.value("gomux_round_trip_seconds", peer="bob")))
        pair = self.rig.connect("bob")
        pair.client.openStream(Recorders(), "web")
        pair.flush()
        bob = {"peer": "bob"}
        web = {"service": "web", "direction": "served"}
        mux = pair.server
        received = mux.bytesReceived
        found = self.scrape()
        for name, labels, value in (
            ("gomux_muxes", bob, 1),
            ("gomux_muxes_opened_total", bob, 1),
            ("gomux_streams", bob, 1),
            ("gomux_strict", bob, 0),
            ("gomux_received_bytes_total", bob, received),
            ("gomux_connections", web, 1),
            ("gomux_connections_opened_total", web, 1),
            ("gomux_connection_failures_total", {**web, "code": "busy"}, 0),
            ("gomux_limit_used_ratio", {"limit": "max-muxes"}, 1 / 4096),
            ("gomux_healthy", {}, 1),
            ("gomux_strangers", {}, 0),
            ("gomux_waiting_connections", {}, 0),
        ):
            key = name, tuple(sorted(labels.items()))
            self.assertEqual(found[key], value, name)

    def test_reload(self) -> None:
        """
        When the last reload was and whether it worked is told.
        """
        for reloaded, at, worked in (
            (None, 0, 1),
            (Reloaded(1234.5, True), 1234.5, 1),
            (Reloaded(2345.5, False), 2345.5, 0),
        ):
            self.rig.service.reloaded = reloaded
            self.assertEqual(self.value("gomux_last_reload_timestamp_seconds"), at)
            self.assertEqual(self.value("gomux_last_reload_successful"), worked)

    def test_seriesStay(self) -> None:
        """
        All series are there from the start, whatever happens, and none is for an
        address or for a name that a peer has chosen.
        """
        before = set(self.scrape())
        pair = self.rig.connect()
        for service in ("web", "nobody has this"):
            opening = pair.client.openStream(Recorders(), service)
            opening.addErrback(lambda _: None)
        pair.client.openStream(Recorders())
        pair.flush()
        self.assertEqual(set(self.scrape()), before)
        pair.loseCarrier()
        self.rig.clock.advance(1)
        self.assertEqual(set(self.scrape()), before)
        labels = {value for _, pairs in before for _, value in pairs}
        self.assertEqual([label for label in labels if "192.0.2" in label], [])

    def test_countersGrow(self) -> None:
        """
        Counters move while a mux lasts, and never go back.
        """
        last: Series = {}
        moved = set()
        for _ in range(3):
            pair = self.rig.connect()
            for _ in range(3):
                pair.client.openStream(Recorders(), "web")
                pair.flush()
                now = self.scrape()
                for key, value in now.items():
                    if key[0].endswith("_total") and last:
                        self.assertGreaterEqual(value, last[key], key)
                        if value > last[key]:
                            moved.add(key[0])
                last = now
            pair.loseCarrier()
        self.assertLessEqual(
            {
                "gomux_received_bytes_total",
                "gomux_sent_bytes_total",
                "gomux_connections_opened_total",
                "gomux_muxes_opened_total",
            },
            moved,
        )

    def names(self) -> set[str]:
        """
        @return: the names of the metrics of this package.
        """
        families = MuxCollector(self.rig.facts).collect()
        return {sample.name for family in families for sample in family.samples}

    def test_dashboard(self) -> None:
        """
        The dashboard for Grafana shows metrics that there are, by labels that they
        have.
        """
        path = ROOT / "contrib" / "grafana.json"
        dashboard = json.loads(path.read_text())
        targets = [
            target["expr"]
            for panel in dashboard["panels"]
            for target in panel.get("targets", ())
        ]
        self.assertGreater(len(targets), 8)
        used = set(re.findall(r"\b(?:gomux|process)_\w+", " ".join(targets)))
        own = {name for name in used if name.startswith("gomux_")}
        self.assertEqual(own - self.names(), set())
        self.assertGreater(len(own), 8)
        labels = {label for _, pairs in self.scrape() for label, _ in pairs}
        for expression in targets:
            for by in re.findall(r"by \(([^)]*)\)", expression):
                self.assertLessEqual(set(re.split(r", *", by)), labels | {"instance"})

    def test_documented(self) -> None:
        """
        The documentation has a row for each metric, and for no other.
        """
        text = (ROOT / "docs" / "howto" / "status.rst").read_text()
        rows = set(re.findall(r"^``(gomux_\w+)``", text, re.MULTILINE))
        self.assertEqual(rows, self.names())
