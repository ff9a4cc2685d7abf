"""
The workloads of one mux, and the list of all workloads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from bench import bystanders, frames, sockets, tunnels
from bench.figures import Figure, Goal, Measured, Workload
from bench.peers import PSK, SIDES, drive, listen
from bench.processes import python, wakefulCPUs

MIB = 1 << 20

BOTH = ("Go", "this")
PROGRAMS = (*BOTH, "program")
REACTORS = ("epoll", "asyncio", "uvloop")
MIXED = ("this to Go", "Go to this")


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
        bytes_ = int(size * scale)
        if name == "sockets":
            return {"rate": sockets.pipeline(bytes_)}
        driven = drive(name, f"{driver} {bytes_} {arguments}")
        cpu = driven.cpu / driven.last["bytes"] * (1 << 30)
        return {"rate": driven.last["rate"] / 1e6, "CPU": cpu}

    return measure


def echo(name: str, scale: float) -> Measured:
    count = int(20000 * scale)
    driven = drive(name, f"echo 64 {count}")
    cpu = driven.cpu / count * 1e6
    return {"p50": driven.last["p50"], "p99": driven.last["p99"], "CPU": cpu}


def echoBeside(sinks: int, count: int) -> Callable[[str, float], Measured]:
    """
    Make a function that measures an echo beside C{sinks} sinks.

    The figure is the time of the slowest round trips.  So the CPUs are kept awake;
    otherwise the host could take one back while both ends wait.
    """

    def measure(name: str, scale: float) -> Measured:
        driver = f"echo-beside 64 {int(count * scale)} {sinks}"
        with wakefulCPUs():
            result = drive(name, driver).last
        return {"p99": result["p99"], "sinks": result["sink_rate"] / 1e6}

    return measure


def opens(name: str, scale: float) -> Measured:
    count = int(10000 * scale)
    driven = drive(name, f"opens {count}")
    return {"rate": driven.last["rate"], "CPU": driven.cpu / count * 1e6}


def idle(name: str, scale: float) -> Measured:
    result: dict[str, Any] = drive(name, f"idle {int(10000 * scale)}").last
    count = result["count"]
    return {
        "client": (result["rss_after"] - result["rss_before"]) / count,
        "server": (result["peer_rss_after"] - result["peer_rss_before"]) / count,
    }


def muxes(name: str, scale: float) -> Measured:
    count = str(int(1000 * scale))
    with listen(SIDES[name]) as server:
        address = server.line("listening ")
        with python("program", "muxes", address, PSK, count, "10") as client:
            rate, _, each = client.line("opened ").partition(" ")
    return {"resident": float(each), "rate": float(rate)}


def longPath(name: str, scale: float) -> Measured:
    # The reference sends only 128 KiB in a round trip, so it takes long.
    size = int((12 if name == "Go" else 192) * MIB * scale)
    result = drive(name, f"sink {size} 1 65536", delay=0.025).last
    return {"rate": result["rate"] / 1e6}


def tls(depth: int, count: int) -> Callable[[str, float], Measured]:
    """
    Make a function that measures messages over TLS.

    @param depth: how many messages are under way.
    """

    def measure(name: str, scale: float) -> Measured:
        return {"rate": drive(name, f"tls {depth} {int(count * scale)}").last["rate"]}

    return measure


CPU_GIB = Figure("CPU", "s/GiB", more=False)
#: A user's own program takes as much CPU time as the peers do.
CPU_PROGRAM = replace(CPU_GIB, goals=(Goal(1.1, "this", "program"),))
CPU_EACH = Figure("CPU", "us", more=False)


#: Bulk transfers: name, driver, MiB, streams, bytes a write (of a sink), goal.
BULKS = (
    ("sink", "sink", 1024, 1, 65536, 2.5),
    ("sink-100", "sink", 1024, 100, 65536, 2.0),
    ("source", "source", 1024, 1, 0, 2.2),
    ("source-100", "source", 1024, 100, 0, 2.2),
    ("small", "sink", 64, 1, 128, 2.5),
    ("small-100", "sink", 64, 100, 128, 2.5),
)


def _bulks(isMixed: bool) -> Iterator[Workload]:
    for name, driver, size, streams, write, least in BULKS:
        isSmall = write == 128
        if not isMixed:
            goals = [Goal(least), Goal(0.9, "this", "program")]
            sides = PROGRAMS if isSmall else (*PROGRAMS, "sockets")
        elif name != "small-100":
            # The reference needs a subkey for each frame, which small writes feel.
            goals = [Goal(0.5 if isSmall else 1.0, side="Go to this")]
            goals += [] if isSmall else [Goal(1.0, side="this to Go")]
            sides = ("Go", *MIXED)
            size = size if isSmall else 512
        else:
            continue
        of = (
            f"{size} MiB, {streams} stream{'s' * (streams > 1)}"
            + ", writes of 128 bytes" * isSmall
        )
        yield Workload(
            f"mixed-{name}" if isMixed else name,
            "Mixed" if isMixed else "Throughput",
            f"{driver} {of}",
            (Figure("rate", "MB/s", tuple(goals)), CPU_GIB if isMixed else CPU_PROGRAM),
            sides,
            bulk(driver, size * MIB, f"{streams} {write}".removesuffix(" 0")),
        )


def _besides() -> Iterator[Workload]:
    for sinks, count in ((1, 5000), (4, 5000), (16, 2000)):
        yield Workload(
            f"echo-beside-{sinks}",
            "Latency",
            f"echo beside {sinks} saturating sinks",
            (
                Figure("p99", "us", (Goal(0.5),), more=False),
                Figure("sinks", "MB/s", (Goal(1.0),)),
            ),
            BOTH,
            echoBeside(sinks, count),
        )


#: An echo is as fast as the reference's, or as the machine lets two processes be.
ECHO_GOALS = (Goal(1.0), Goal(0.65, over="Twisted"))

ALL = (
    Workload(
        "limits",
        "Limits of this machine",
        "64 KiB at a time, cryptography and blocking sockets",
        tuple(Figure(it, "MB/s") for it in ("seal", "open", "move", "pipeline")),
        ("sockets",),
        sockets.limits,
    ),
    *_bulks(isMixed=False),
    Workload(
        "echo",
        "Latency",
        "echo of 64 bytes",
        (
            Figure("p50", "us", ECHO_GOALS, more=False, either=True),
            Figure("p99", "us", ECHO_GOALS, more=False, either=True),
            CPU_EACH,
        ),
        (*PROGRAMS, "Twisted"),
        echo,
    ),
    *_besides(),
    Workload(
        "opens",
        "Streams",
        "open, ok, close, one after another",
        (Figure("rate", "streams/s", (Goal(1.5),)), CPU_EACH),
        BOTH,
        opens,
    ),
    Workload(
        "idle",
        "Streams",
        "10000 idle streams",
        tuple(
            Figure(end, "B/stream", (Goal(640, over=None),), more=False)
            for end in ("client", "server")
        ),
        BOTH,
        idle,
        rounds=3,
    ),
    Workload(
        "muxes",
        "Streams",
        "1000 muxes of 10 streams on a server, opened from one process",
        (
            Figure("resident", "B/mux", (Goal(16384, over=None),), more=False),
            Figure("rate", "streams/s", (Goal(1.0),)),
        ),
        BOTH,
        muxes,
        rounds=3,
    ),
    *tunnels.ALL,
    Workload(
        "long-path",
        "Long path",
        "1 stream over 50 ms round trip",
        (
            Figure(
                "rate", "MB/s", tuple(Goal(20, side=s) for s in ("this", "Go to this"))
            ),
        ),
        ("Go", "this", "Go to this"),
        longPath,
        rounds=3,
    ),
    *_bulks(isMixed=True),
    *frames.ALL,
    Workload(
        "reactor-sink",
        "Reactors",
        "sink 1024 MiB, 1 stream",
        (Figure("rate", "MB/s"), CPU_GIB),
        REACTORS,
        bulk("sink", 1024 * MIB, "1 65536"),
    ),
    Workload(
        "reactor-echo",
        "Reactors",
        "echo of 64 bytes",
        (Figure("p50", "us", more=False), Figure("p99", "us", more=False), CPU_EACH),
        REACTORS,
        echo,
    ),
    *(
        Workload(
            f"tls-{depth}",
            "TLS in a stream",
            f"messages of 20 writes of 20 bytes, {depth} at a time",
            (Figure("rate", "messages/s"),),
            ("Twisted", "program"),
            tls(depth, count),
        )
        for depth, count in ((1, 5000), (50, 50000))
    ),
    *bystanders.ALL,
)

#: The groups that are measured by name only, because they have no goals.
ON_REQUEST = ("Handshakes", "Reactors", "TLS in a stream", *bystanders.GROUPS)


def chosen(names: list[str]) -> list[Workload]:
    """
    @param names: names of workloads or groups, or nothing for those with goals.
    @return: the workloads, in the order of L{ALL}.
    @raise ValueError: if there is no such name.
    """
    wanted = {name.lower() for name in names}
    if unknown := wanted - {n.lower() for w in ALL for n in (w.name, w.group)}:
        raise ValueError(f"no such workload or group: {', '.join(sorted(unknown))}")
    if not names:
        return [w for w in ALL if w.group not in ON_REQUEST]
    return [w for w in ALL if {w.name, w.group.lower()} & wanted]
