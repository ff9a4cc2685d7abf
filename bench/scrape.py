"""
Measure what it costs to ask for the metrics of a server.

    python -m bench.scrape

A server, C{twistd gomux}, has many muxes, or keys for many peers.  Once a second its
C{/metrics} are fetched over a Unix socket.  Meanwhile a client of the server has 64
bytes echoed.  The last column is the CPU time of the server for one scrape, as a part
of one CPU if it is scraped every second.
"""

from __future__ import annotations

import argparse
import resource
import socket
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import table
from bench.bystander import Honest, serve
from bench.calm import watch
from bench.processes import favour, python, wakefulCPUs
from interop.peers.peerlib import percentile

#: How many muxes and keys the server has.
CASES = ((1, 1), (1000, 1), (1, 256), (1000, 256))
#: The time between two scrapes, in seconds.
EVERY = 1.0
#: The average pause between two echoes, in seconds.
GAP = 0.001

HEAD = [
    *("muxes", "peers", "echo p50", "p99", "most", "p99 beside", "most beside"),
    *("scrape p50", "most", "CPU", "stolen"),
]


def scrape(path: str, what: str = "/metrics") -> int:
    """
    Fetch something from the operator's port.

    @return: the size of the answer.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(f"GET {what} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer = b""
        while data := client.recv(1 << 20):
            answer += data
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise ValueError(answer[:200])
    return len(answer)


def poll(path: str, seconds: float) -> None:
    """
    Scrape every second, and print how long each scrape took, in milliseconds.
    """
    for _ in range(round(seconds / EVERY)):
        began = time.perf_counter()
        scrape(path)
        took = time.perf_counter() - began
        print("took", took * 1e3, flush=True)
        time.sleep(max(0.0, EVERY - took))
    print("done", flush=True)


def hold(address: str, muxes: int) -> None:
    """
    Hold many muxes, each with a stream, until the standard input ends.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        for _ in range(muxes):
            stack.enter_context(closing(Honest(address))).roundTrip()
        print("holding", flush=True)
        time.sleep(3600)


def used(pid: int) -> float:
    """
    @return: the CPU time of a process's main thread, in seconds.
    """
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def cost(pid: int, path: str, count: int) -> float:
    """
    @return: the median CPU time of one scrape, in seconds.
    """
    costs = []
    for _ in range(count):
        before = used(pid)
        scrape(path)
        costs.append(used(pid) - before)
        # An answer is given again for a while.
        time.sleep(EVERY)
    return statistics.median(costs)


def measure(muxes: int, peers: int, seconds: float) -> list[str]:
    """
    Measure echoes without and beside scrapes.

    @return: a row of the table.
    """
    with TemporaryDirectory() as directory:
        path = f"{directory}/status"
        with (
            serve(peers, "--status", f"unix:{path}") as (server, address),
            python("scrape", "hold", address, str(muxes - 1)) as holder,
            closing(Honest(address)) as honest,
        ):
            server.favour(0)
            holder.line("holding")
            honest.measure(1.0, GAP)
            stolen, alone = watch(lambda: honest.measure(seconds, GAP))
            scrape(path)
            with python("scrape", "poll", path, str(seconds)) as poller:
                first = float(poller.line("took "))
                stolenBeside, beside = watch(lambda: honest.measure(seconds, GAP))
                scrapes = [first]
                scrapes += [
                    float(poller.line("took ")) for _ in range(round(seconds) - 1)
                ]
                poller.line("done")
            cpu = cost(server.pid, path, 10)
    times = (percentile(alone, 50), percentile(alone, 99), max(alone))
    times += (percentile(beside, 99), max(beside))  # type: ignore[assignment]
    cells = [str(muxes), str(peers), *(f"{t / 1e3:.2f} ms" for t in times)]
    cells += [f"{percentile(scrapes, 50):.1f} ms", f"{max(scrapes):.1f} ms"]
    return [*cells, f"{cpu / EVERY:.2%}", f"{max(stolen, stolenBeside):.1%}"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.scrape",
        description="Measure what it costs to ask for metrics.",
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="for each part (default 20)"
    )
    parser.add_argument(
        "--case", type=int, help="measure only this row of the table, from 0"
    )
    options = parser.parse_args(arguments)
    cases = CASES if options.case is None else [CASES[options.case]]
    favour(1)
    with wakefulCPUs():
        rows = [measure(*case, options.seconds) for case in cases]
    print(table.terminal([HEAD, *rows]))
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["poll"]:
        poll(sys.argv[2], float(sys.argv[3]))
        sys.exit(0)
    if sys.argv[1:2] == ["hold"]:
        hold(sys.argv[2], int(sys.argv[3]))
    sys.exit(main())
