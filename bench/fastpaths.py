"""
Measure what each fast path of C{gomux._fastpaths} gains, between peers of this project.

    python -m bench.fastpaths [--seconds 55] FILE GROUP PATH...
    python -m bench.fastpaths FILE

The first form measures a group of workloads with one fast path after another switched
off.  The names C{,} and C{,,} stand for no path, and so measure the noise.  All
processes are started first, and then take short turns.  The results are added to FILE.

The second form prints the results in FILE.  They say how many percent more time, CPU
time or round-trip time each workload takes without a path, with a 95 % confidence
interval.  Each figure is a lower quartile, which disturbances affect least.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import selectors
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench import load, peers
from bench.peers import PSK, THIS
from bench.processes import CPUS, Process, python, wakefulCPUs
from bench.workloads import MIB, Measured
from gomux.test.support.plainpaths import NAMES, VARIABLE

#: Names that stand for no path.
NONE = ","

DIRECT = {
    "bulk": f"sink {40 * MIB} 1 65536",
    "bulk 100": f"sink {40 * MIB} 100 65536",
    "echo": "echo 64 600",
    "small": f"sink {4 * MIB} 1 128",
    "small 100": f"sink {4 * MIB} 100 128",
    "opens": "opens 400",
}
BESIDE = {"beside": "echo-beside 64 1000 1"}
LONG_PATH = {"long path": f"sink {48 * MIB} 1 65536"}

#: More rounds than there is time for.
ROUNDS = 100
CONNECTIONS = 50
#: How many bootstrap samples to draw for the confidence interval.
SAMPLES = 400
MESSAGE = bytes(64)

Work = Callable[[], Measured]


def cpu(*processes: Process) -> float:
    """
    @return: the seconds of CPU time that some processes have used.  This is more exact
        than the ticks in C{/proc/PID/stat}.
    """
    tasks = [t for p in processes for t in Path(f"/proc/{p.pid}/task").iterdir()]
    return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks) / 1e9


def start(stack: ExitStack, process: Process) -> Process:
    """
    Run a process until the stack closes; its exit status does not matter.
    """
    stack.enter_context(process)
    stack.callback(os.kill, process.pid, signal.SIGKILL)
    return process


def direct(
    stack: ExitStack, drivers: dict[str, str], delay: float = 0.0
) -> dict[str, Work]:
    """
    Start two peers.  The client's command line repeats its drivers in the same order.
    """
    server = start(stack, peers.listen(THIS))
    address = stack.enter_context(peers.proxied(server.line("listening "), delay))
    options = []
    for driver in drivers.values():
        # After an idle driver a peer waits for a line.
        options += ["--drive", "idle 0", "--drive", driver]
    stdin, go = os.pipe()
    stack.callback(os.close, go)
    command = [*peers.command(THIS.client), "--psk", PSK, "--connect", address]
    client = start(stack, Process([*command, *options * ROUNDS], stdin=stdin))
    os.close(stdin)

    def work() -> Measured:
        client.line('{"count": 0, "driver": "idle"')
        before = cpu(server, client)
        os.write(go, b"\n")
        result = json.loads("{" + client.line("{"))
        measured = {"CPU": cpu(server, client) - before}
        for kind in ("p50", "p99"):
            if kind in result:
                measured[kind] = result[kind]
        if "sink_rate" in result:
            measured["sink"] = 1 / result["sink_rate"]
        elif "p50" not in result:
            measured["time"] = result["seconds"]
        return measured

    return dict.fromkeys(drivers, work)


def tunnel(stack: ExitStack) -> dict[str, Work]:
    """
    Start a tunnel.  Each end shares a CPU with the program that it exchanges data with.
    """
    ends = start(stack, python("load"))
    target = ends.line("listening ")
    server = start(stack, peers.listen(THIS, "--target", target))
    address = server.line("listening ")
    client = start(stack, peers.connect(THIS, address, "--forward", peers.ANY))
    entry = client.line("forwarding ")
    client.line("mux up")
    for pid, at in ((0, 0), (client.pid, 0), (server.pid, 1), (ends.pid, 1)):
        os.sched_setaffinity(pid, {at % CPUS})
    selector = stack.enter_context(selectors.DefaultSelector())
    for _ in range(CONNECTIONS):
        connection = stack.enter_context(load._connect(entry, "echo"))
        selector.register(connection, selectors.EVENT_READ, connection)

    def crowd() -> None:
        connections = [key.data for key in selector.get_map().values()]
        for connection in connections:
            connection.sendall(MESSAGE)
        count = 1200
        while count > 0:
            for key, _ in selector.select(60):
                load._receive(key.data, len(MESSAGE))
                key.data.sendall(MESSAGE)
                count -= 1
        for connection in connections:
            load._receive(connection, len(MESSAGE))

    def timed(run: Callable[[], object]) -> Work:
        def work() -> Measured:
            before, started = cpu(server, client), time.monotonic()
            run()
            took = time.monotonic() - started
            return {"time": took, "CPU": cpu(server, client) - before}

        return work

    return {
        "tunnel 50": timed(crowd),
        "tunnel 1": timed(lambda: load.echo(entry, len(MESSAGE), 250)),
        "tunnel connects": timed(lambda: load.connects(entry, 50)),
        "tunnel sink": timed(lambda: load.sink(entry, 16 * MIB, 1)),
    }


GROUPS: dict[str, Callable[[ExitStack], dict[str, Work]]] = {
    "direct": lambda stack: direct(stack, DIRECT),
    "beside": lambda stack: direct(stack, BESIDE),
    "longPath": lambda stack: direct(stack, LONG_PATH, 0.025),
    "tunnel": tunnel,
}


def record(file: Path, group: str, paths: list[str], seconds: float) -> None:
    """
    Measure for at least C{seconds} seconds, and add the results to a file.
    """
    end = time.monotonic() + seconds
    with ExitStack() as stack, file.open("a") as output:
        if group == "beside":
            stack.enter_context(wakefulCPUs())
        works = {}
        for path in paths:
            os.environ[VARIABLE] = path
            works[path] = GROUPS[group](stack)
        for number in itertools.count():
            for name in works[NONE]:
                for path in random.sample(paths, len(paths)):
                    took = works[path][name]()
                    for kind, value in took.items() if number else ():
                        line = [int(end), path, f"{name}, {kind}", value]
                        print(json.dumps(line), file=output)
            if time.monotonic() > end:
                break


def quarter(values: list[float]) -> float:
    """
    @return: the lower quartile, because disturbances only make values larger.
    """
    return sorted(values)[len(values) // 4]


def show(file: Path) -> None:
    """
    Print what each path gains.
    """
    # C{taken} has the values by run, figure and path.  C{parts} has them by path and
    # figure, divided by the lower quartile with all paths in the same run.
    taken: dict[tuple[int, str], dict[str, list[float]]] = {}
    parts: dict[str, dict[str, list[float]]] = {}
    for line in file.read_text().splitlines():
        run, path, figure, value = json.loads(line)
        of = taken.setdefault((run, figure), {})
        of.setdefault(NONE if path.startswith(NONE) else path, []).append(value)
    for (_, figure), of in taken.items():
        least = quarter(of[NONE])
        for path, values in of.items():
            part = [value / least for value in values]
            parts.setdefault(path, {}).setdefault(figure, []).extend(part)
    for path, figures in sorted(parts.items()):
        for figure, values in figures.items():
            drawn = sorted(
                quarter(random.choices(values, k=len(values)))
                / quarter(random.choices(parts[NONE][figure], k=len(values)))
                for _ in range(SAMPLES)
            )
            low, middle, high = (drawn[SAMPLES * n // 40] for n in (1, 20, 39))
            print(
                f"{path:16} {figure:22} {percent(middle)}"
                f"  [{percent(low)}, {percent(high)}]  {len(values)}"
            )


def percent(ratio: float) -> str:
    """
    @return: by how many percent a ratio exceeds 1.
    """
    return f"{(ratio - 1) * 100:+7.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description="What each fast path gains.")
    parser.add_argument("--seconds", type=float, default=55)
    parser.add_argument("file", type=Path)
    parser.add_argument("group", nargs="?", choices=GROUPS)
    parser.add_argument("paths", nargs="*", default=[NONE, *NAMES])
    options = parser.parse_args()
    if options.group is None:
        show(options.file)
    else:
        record(options.file, options.group, options.paths, options.seconds)


if __name__ == "__main__":
    main()
