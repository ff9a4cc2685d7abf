"""
Measure how long a new honest client waits for its first answer while strangers connect.

    python -m bench.newcomers

Strangers without a key connect to a server, C{twistd gomux}, a thousand times a second,
from one address or from 200.  They say nothing, and close each connection a little
later.  Meanwhile one honest client after another connects, opens a stream and has
64 bytes echoed.  The time is measured from C{connect} to the end of the echo.
"""

from __future__ import annotations

import argparse
import random
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing

from bench import table
from bench.abuses import source
from bench.bystander import Honest, serve
from bench.calm import watch
from bench.processes import favour, python, wakefulCPUs
from interop.peers.peerlib import percentile

#: How many connections a second the strangers make, and how many are open at a time.
RATE, OPEN = 1000, 200
#: From how many addresses the strangers connect.
SOURCES = (0, 1, 200)
#: The average pause between two honest clients, in seconds.
GAP = 0.05
#: How long the strangers connect before the first honest client, in seconds.
SETTLE = 1.0

HEAD = ["strangers from", "connections/s", "clients", "p50", "p99", "most", "stolen"]


def flood(address: str, sources: int) -> None:
    """
    Connect C{RATE} times a second, until SIGTERM.

    @param address: the server's host and port.
    @param sources: from how many addresses of this machine to connect, in turn.
    """
    host, _, port = address.rpartition(":")
    waiting: deque[socket.socket] = deque()
    made = 0
    going = True

    def stop(*_: object) -> None:
        nonlocal going
        going = False

    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    started = time.monotonic()
    while going:
        while made < (time.monotonic() - started) * RATE:
            stranger = socket.socket()
            stranger.setblocking(False)
            stranger.bind(source(made, sources))
            stranger.connect_ex((host, int(port)))
            waiting.append(stranger)
            made += 1
        while len(waiting) > OPEN:
            waiting.popleft().close()
        # A pause between bursts, so that the strangers take little CPU time.
        time.sleep(0.002)
    print("did", round(made / (time.monotonic() - started)), flush=True)


def newcomers(address: str, seconds: float) -> list[float]:
    """
    Connect honest clients, one after another.

    @param seconds: for how long.
    @return: the time of each, in milliseconds.
    """
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        with closing(Honest(address)) as honest:
            honest.roundTrip()
            times.append((time.perf_counter() - began) * 1e3)
        time.sleep(random.uniform(0.2, 1.8) * GAP)
    return times


def measure(sources: int, seconds: float) -> list[str]:
    """
    Measure honest clients beside strangers.

    @param sources: from how many addresses the strangers connect; 0 for no strangers.
    @return: a row of the table.
    """
    rate = "0"
    with serve() as (server, address):
        server.favour(0)
        newcomers(address, SETTLE)
        if not sources:
            stolen, times = watch(lambda: newcomers(address, seconds))
        else:
            with python("newcomers", "flood", address, str(sources)) as strangers:
                strangers.line("ready")
                time.sleep(SETTLE)
                stolen, times = watch(lambda: newcomers(address, seconds))
                strangers.end()
                rate = strangers.line("did ").strip()
    figures = [percentile(times, 50), percentile(times, 99), max(times)]
    name = {0: "nowhere", 1: "1 address"}.get(sources, f"{sources} addresses")
    cells = [name, rate, str(len(times))]
    return [*cells, *(f"{figure:.1f} ms" for figure in figures), f"{stolen:.1%}"]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.newcomers",
        description="Measure new honest clients beside strangers who connect.",
    )
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="for each row (default 30)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    favour(1)
    with wakefulCPUs():
        rows = [measure(sources, options.seconds) for sources in SOURCES]
    print(table.terminal([HEAD, *rows]))
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["flood"]:
        flood(sys.argv[2], int(sys.argv[3]))
        sys.exit(0)
    sys.exit(main())
