"""
The workloads: what is measured, and how.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench import load, peers, tunnels
from bench.peers import GO, GO_TO_THIS, REACTORS, THIS, THIS_TO_GO, drive
from bench.processes import CPUS, python, wakefulCPUs

MIB = 1 << 20

Measured = dict[str, float]


@dataclass(frozen=True)
class Figure:
    """
    One number that a workload gives.

    @ivar name: its name in tables.
    @ivar unit: its unit.
    @ivar goal: the goal for this project's value divided by the yardstick's: the least
        ratio if C{more}, otherwise the largest.
    @ivar more: whether a larger value is better.
    @ivar most: the goal for this project's value itself: the largest value.
    @ivar besideSSH: the goal for this project's value divided by that of OpenSSH: the
        least ratio.
    @ivar limit: the name of the machine's limit that it is compared with, if any.
    """

    name: str
    unit: str
    goal: float | None = None
    more: bool = True
    most: float | None = None
    besideSSH: float | None = None
    limit: str | None = None


@dataclass(frozen=True)
class Workload:
    """
    One piece of work.

    @ivar name: its name on the command line.
    @ivar group: the table that it belongs to.
    @ivar title: its title in tables.
    @ivar figures: the figures that it gives.
    @ivar sides: the sides that are measured, the yardstick first.
    @ivar measure: measures it once.  Takes the side's name and the fraction of the
        usual work to do.
    @ivar repeats: the most rounds, for a workload that takes long.
    """

    name: str
    group: str
    title: str
    figures: tuple[Figure, ...]
    sides: tuple[str, ...]
    measure: Callable[[str, float], Measured]
    repeats: int = 1000


SIDES = {side.name: side for side in (GO, THIS, THIS_TO_GO, GO_TO_THIS, *REACTORS)}

#: Sides that are neither a yardstick nor judged against a goal.
OTHERS = ("OpenSSH", "asyncssh", "Twisted")

BOTH = ("Go", "this")
TUNNELS = (*BOTH, "OpenSSH", "asyncssh")
MIXED = ("Go", "this to Go", "Go to this")

CPU = Figure("CPU", "s/GiB", more=False)


def isThere(name: str) -> bool:
    """
    Tell whether a side can be measured here.
    """
    side = SIDES.get(name)
    return tunnels.isThere(name) if side is None else side.isThere


def bulk(driver: str, size: int, arguments: str) -> Callable[[str, float], Measured]:
    """
    Make a function that measures a driver that moves bytes.
    """

    def measure(name: str, scale: float) -> Measured:
        driven = drive(SIDES[name], f"{driver} {int(size * scale)} {arguments}")
        return {"rate": driven.last["rate"] / 1e6, "CPU": driven.perGiB}

    return measure


def echo(name: str, scale: float) -> Measured:
    result = drive(SIDES[name], f"echo 64 {int(20000 * scale)}").last
    return {"p50": result["p50"], "p99": result["p99"]}


def echoBeside(sinks: int, count: int) -> Callable[[str, float], Measured]:
    """
    Make a function that measures an echo beside C{sinks} sinks.

    The figure is the time of the slowest round trips.  So the CPUs are kept awake;
    otherwise the host could take one back while both ends wait.
    """

    def measure(name: str, scale: float) -> Measured:
        driver = f"echo-beside 64 {int(count * scale)} {sinks}"
        with wakefulCPUs():
            result = drive(SIDES[name], driver).last
        return {"p99": result["p99"], "sinks": result["sink_rate"] / 1e6}

    return measure


def opens(name: str, scale: float) -> Measured:
    return {"rate": drive(SIDES[name], f"opens {int(5000 * scale)}").last["rate"]}


def idle(name: str, scale: float) -> Measured:
    result: dict[str, Any] = drive(SIDES[name], f"idle {int(10000 * scale)}").last
    count = result["count"]
    return {
        "client": (result["rss_after"] - result["rss_before"]) / count,
        "server": (result["peer_rss_after"] - result["peer_rss_before"]) / count,
    }


def muxes(name: str, scale: float) -> Measured:
    with (
        peers.listen(SIDES[name]) as server,
        python(
            "muxes",
            server.line("listening "),
            peers.PSK,
            str(int(1000 * scale)),
            "10",
        ) as client,
    ):
        rate, _, each = client.line("opened ").partition(" ")
    return {"resident": float(each), "rate": float(rate)}


def tunnel(name: str, scale: float) -> Measured:
    size = int(512 * MIB * scale)
    with (
        python("load") as server,
        tunnels.between(name, server.line("listening ")) as address,
    ):
        load.connects(address, 10)
        one = load.sink(address, size, 1) / 1e6
        ten = load.sink(address, size, 10) / 1e6
        source = load.source(address, size) / 1e6
        p50, p99 = load.echo(address, 64, int(5000 * scale))
        connects = load.connects(address, int(1000 * scale))
    return {
        "sink 1": one,
        "sink 10": ten,
        "source": source,
        "p50": p50,
        "p99": p99,
        "connects": connects,
    }


def smallTunnel(name: str, scale: float) -> Measured:
    with (
        python("load") as server,
        tunnels.between(name, server.line("listening "), pins=True) as address,
    ):
        os.sched_setaffinity(server.pid, {1 % CPUS})
        load.connects(address, 10)
        return {
            "requests": load.requests(address, 64, int(100000 * scale), 50),
            "connects": load.connects(address, int(2000 * scale)),
            "connects 50": load.connectsAtOnce(address, int(4000 * scale), 50),
        }


def longPath(name: str, scale: float) -> Measured:
    # The reference sends only 128 KiB in a round trip, so it takes long.
    size = int((12 if name == "Go" else 192) * MIB * scale)
    result = drive(SIDES[name], f"sink {size} 1 65536", delay=0.025).last
    return {"rate": result["rate"] / 1e6}


GROWTH = (1, 10, 100, 1000, 10000)
GROWTH_TIMES = 15


def growth(name: str, scale: float) -> Measured:
    """
    Measure the cost of a frame while more and more streams are open on one mux.  The
    least of several measurements counts, because it is the least disturbed.
    """
    size, count = int(32 * MIB * scale), int(1000 * scale)
    work = [f"sink {size} 4 65536", f"echo 64 {count}"] * GROWTH_TIMES
    drivers: list[str] = []
    for before, streams in zip((0, *GROWTH), GROWTH, strict=False):
        drivers += [f"idle {streams - before}", *work]
    results = drive(SIDES[name], *drivers).results
    measured = {}
    for i, streams in enumerate(GROWTH):
        _, *done = results[i * (1 + len(work)) :][: 1 + len(work)]
        bulk, small = (min(r["seconds"] for r in done[kind::2]) for kind in (0, 1))
        measured[f"bulk {streams}"] = bulk / (size / 65536) * 1e6
        # A round trip is two frames.
        measured[f"small {streams}"] = small / count / 2 * 1e6
    for kind in ("bulk", "small"):
        costs = [cost for name, cost in measured.items() if name.startswith(kind)]
        measured[f"{kind}, most / least"] = max(costs) / min(costs)
    return measured


def _bulkFigures(goal: float | None, limit: str | None = None) -> tuple[Figure, ...]:
    return (Figure("rate", "MB/s", goal, limit=limit), CPU)


def _growthFigures() -> tuple[Figure, ...]:
    figures = []
    for kind in ("bulk", "small"):
        figures += [Figure(f"{kind} {n}", "us/frame", more=False) for n in GROWTH]
        figures.append(Figure(f"{kind}, most / least", "", more=False, most=1.2))
    return tuple(figures)


ALL = (
    Workload(
        "sink",
        "Throughput",
        "sink 1 GiB, 1 stream",
        _bulkFigures(1.5, "pipeline"),
        BOTH,
        bulk("sink", 1024 * MIB, "1 65536"),
    ),
    Workload(
        "sink-100",
        "Throughput",
        "sink 1 GiB, 100 streams",
        _bulkFigures(1.5, "pipeline"),
        BOTH,
        bulk("sink", 1024 * MIB, "100 65536"),
    ),
    Workload(
        "source",
        "Throughput",
        "source 1 GiB, 1 stream",
        _bulkFigures(1.5, "pipeline"),
        BOTH,
        bulk("source", 1024 * MIB, "1"),
    ),
    Workload(
        "small",
        "Throughput",
        "sink 64 MiB, writes of 128 bytes, 1 stream",
        _bulkFigures(2.0, "pipeline"),
        BOTH,
        bulk("sink", 64 * MIB, "1 128"),
    ),
    Workload(
        "small-100",
        "Throughput",
        "sink 64 MiB, writes of 128 bytes, 100 streams",
        _bulkFigures(2.0, "pipeline"),
        BOTH,
        bulk("sink", 64 * MIB, "100 128"),
    ),
    Workload(
        "echo",
        "Latency",
        "echo of 64 bytes",
        (
            Figure("p50", "us", 1.0, more=False, limit="echo p50"),
            Figure("p99", "us", 1.0, more=False, limit="echo p99"),
        ),
        BOTH,
        echo,
    ),
    *(
        Workload(
            f"echo-beside-{sinks}",
            "Latency",
            f"echo beside {sinks} saturating sinks",
            (
                Figure("p99", "us", 0.5, more=False),
                Figure("sinks", "MB/s", 1.0),
            ),
            BOTH,
            echoBeside(sinks, count),
        )
        for sinks, count in ((1, 5000), (4, 5000), (16, 2000))
    ),
    Workload(
        "opens",
        "Streams",
        "open, ok, close, one after another",
        (Figure("rate", "streams/s", 1.0, limit="echo p50"),),
        BOTH,
        opens,
    ),
    Workload(
        "idle",
        "Streams",
        "10000 idle streams",
        (
            Figure("client", "B/stream", more=False, most=2048),
            Figure("server", "B/stream", more=False, most=2048),
        ),
        BOTH,
        idle,
        3,
    ),
    Workload(
        "muxes",
        "Streams",
        "1000 muxes of 10 streams on a server, opened from one process",
        (
            Figure("resident", "B/mux", more=False),
            Figure("rate", "streams/s"),
        ),
        BOTH,
        muxes,
        3,
    ),
    Workload(
        "tunnel",
        "Tunnels",
        "TCP - tunnel - TCP",
        (
            Figure("sink 1", "MB/s", 1.5, besideSSH=1.0),
            Figure("sink 10", "MB/s", 1.5, besideSSH=1.0),
            Figure("source", "MB/s", 1.5, besideSSH=1.0),
            Figure("p50", "us", 1.0, more=False),
            Figure("p99", "us", 1.0, more=False),
            Figure("connects", "/s", 1.0),
        ),
        TUNNELS,
        tunnel,
    ),
    Workload(
        "tunnel-small",
        "Tunnels",
        "64-byte requests on 50 connections; new connections, one after another and"
        " 50 at a time; ends pinned to CPUs, the same cipher in OpenSSH, Twisted's own"
        " forwarder twice in a row",
        (
            Figure("requests", "/s", 1.2, besideSSH=0.6),
            Figure("connects", "/s", 1.2, besideSSH=0.6),
            Figure("connects 50", "/s", 1.2, besideSSH=0.6),
        ),
        (*BOTH, "OpenSSH", "Twisted"),
        smallTunnel,
    ),
    Workload(
        "long-path",
        "Long path",
        "1 stream over 50 ms round trip",
        (Figure("rate", "MB/s", 20.0),),
        ("Go", "this", "Go to this"),
        longPath,
        3,
    ),
    Workload(
        "growth",
        "Growth",
        "a frame, beside so many open streams",
        _growthFigures(),
        BOTH,
        growth,
        3,
    ),
    Workload(
        "mixed-sink",
        "Mixed",
        "sink 1 GiB, 1 stream",
        _bulkFigures(1.0),
        MIXED,
        bulk("sink", 1024 * MIB, "1 65536"),
    ),
    Workload(
        "mixed-source",
        "Mixed",
        "source 1 GiB, 1 stream",
        _bulkFigures(1.0),
        MIXED,
        bulk("source", 1024 * MIB, "1"),
    ),
    Workload(
        "reactor-sink",
        "Reactors",
        "sink 1 GiB, 1 stream",
        _bulkFigures(None),
        tuple(side.name for side in REACTORS),
        bulk("sink", 1024 * MIB, "1 65536"),
    ),
    Workload(
        "reactor-echo",
        "Reactors",
        "echo of 64 bytes",
        (Figure("p50", "us", more=False), Figure("p99", "us", more=False)),
        tuple(side.name for side in REACTORS),
        echo,
    ),
)

SHORT = ("sink", "source", "small", "echo", "opens")
#: The fraction of the usual work that a short run does of each workload.
SHORT_SCALE = 0.125
