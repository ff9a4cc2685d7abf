"""
What a peer in good standing notices of another that abuses the server.

    python -m bench.bystander

One server, C{twistd gomux}; one honest client, on a mux of its own, that has 64
bytes echoed every now and then; and one abuser.  The round trips are measured
without and with the abuser, in turn.
"""

from __future__ import annotations

import argparse
import gc
import random
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import abuses, table
from bench.abuses import Abuse
from bench.peers import PSK
from bench.processes import BenchError, Process, favour, python
from bench.table import number
from gomux._crypto import Opener, Sealer, deriveKey
from gomux._frame import Flag, FrameParser, sealFrame
from interop.peerlib import percentile

MESSAGE = bytes(64)
#: After how many bytes of echoes there is credit for as many.
CREDIT = 65536
#: What is not disturbed takes less, and how long to wait for that, in seconds.
CALM = 0.002
PATIENCE = 30.0
#: How long to let things settle before each measurement, in seconds.
SETTLE = 0.5


class Honest:
    """
    A client with one stream, in blocking calls.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        key = deriveKey(PSK)
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(20)
        self._sealer = Sealer(key)
        self._parser = FrameParser(Opener(key))
        self._missing = CREDIT
        self._send(Flag.OPEN_STREAM)
        self._send(Flag.DATA, b"echo\n")

    def close(self) -> None:
        """
        End all.
        """
        self._socket.close()

    def _send(self, flag: int, payload: bytes = b"", length: int = 0) -> None:
        size = len(payload) or length
        self._socket.sendall(b"".join(sealFrame(self._sealer, 0, size, flag, payload)))

    def roundTrip(self) -> float:
        """
        @return: how long one took, in seconds.
        """
        started = time.perf_counter()
        self._send(Flag.DATA, MESSAGE)
        missing = len(MESSAGE)
        while missing:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("the server has ended the mux")
            self._parser.receive(data)
            while frame := self._parser.nextFrame():
                if frame[2] == Flag.DATA:
                    missing -= len(frame[3])
        took = time.perf_counter() - started
        self._missing -= len(MESSAGE)
        if self._missing <= 0:
            self._send(Flag.WINDOW_UPDATE, length=CREDIT)
            self._missing += CREDIT
        return took

    def measure(self, seconds: float, gap: float) -> list[float]:
        """
        @param gap: how long to wait between two round trips, on average.
        @return: all round trips of some time, in microseconds.
        """
        times = []
        end = time.perf_counter() + seconds
        gc.collect()
        gc.disable()
        try:
            while time.perf_counter() < end:
                times.append(self.roundTrip() * 1e6)
                if gap:
                    time.sleep(random.uniform(0.2, 1.8) * gap)
        finally:
            gc.enable()
        return times

    def calmDown(self) -> None:
        """
        Wait until nothing disturbs any more.
        """
        end = time.monotonic() + PATIENCE
        calm = 0
        while calm < 50:
            calm = calm + 1 if self.roundTrip() < CALM else 0
            if time.monotonic() > end:
                raise BenchError("the server does not come to rest")
            time.sleep(0.005)


@contextmanager
def serve() -> Iterator[tuple[Process, str]]:
    """
    Start a server.
    """
    twistd = [
        str(Path(sys.executable).with_name("twistd")),
        "-n",
        "--pidfile=",
        "gomux",
    ]
    options = ["--psk", PSK, "--listen", "tcp:0:interface=127.0.0.1"]
    with Process([*twistd, *options, "--factory", "bench.served.Served"]) as server:
        port = server.line("starting on ", anywhere=True)
        yield server, f"127.0.0.1:{port.strip()}"


@dataclass
class Measured:
    """
    What was measured beside one abuse.

    @ivar p50: medians without it, and with it, in microseconds.
    @ivar p99: the same of 99th percentiles.
    @ivar connections: how many a second the abuser made.
    @ivar sent: how much it sent, in MB/s.
    """

    p50: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    p99: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    connections: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)

    def add(self, disturbed: bool, times: list[float]) -> None:
        self.p50[disturbed].append(percentile(times, 50))
        self.p99[disturbed].append(percentile(times, 99))


def measure(abuse: Abuse, repeat: int, seconds: float, gap: float) -> Measured:
    measured = Measured()
    with serve() as (server, address), closing(Honest(address)) as honest:
        server.favour(0)
        honest.measure(SETTLE, gap)
        for _ in range(repeat):
            honest.calmDown()
            measured.add(False, honest.measure(seconds, gap))
            with python("abuses", abuse.name, address, PSK) as abuser:
                abuser.line("ready")
                started = time.monotonic()
                time.sleep(SETTLE)
                measured.add(True, honest.measure(seconds, gap))
                took = time.monotonic() - started
                abuser.end()
                connections, sent = abuser.line("did ").split()
                measured.connections.append(int(connections) / took)
                measured.sent.append(int(sent) / took / 1e6)
    return measured


def row(abuse: Abuse, measured: Measured) -> list[str]:
    """
    Write down what was measured: medians.
    """
    cells = [abuse.rows, abuse.title]
    for kind in (measured.p50, measured.p99):
        alone, beside = map(statistics.median, kind)
        cells += [number(alone), number(beside)]
    ratios = (beside / alone for alone, beside in zip(*measured.p99, strict=True))
    cells += [f"{statistics.median(ratios):.2f}"]
    cells += [number(statistics.median(measured.connections))]
    cells += [number(statistics.median(measured.sent))]
    return cells


HEAD = [
    *("#", "beside", "p50", "with it", "p99", "with it", "ratio"),
    *("connections/s", "MB/s"),
]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "bystanders.rst"
MARK = ".. The table is written by python -m bench.bystander --write.\n\n"


def write(rows: list[list[str]]) -> None:
    """
    Put the table at the end of the page about it.
    """
    text, _, _ = PAGE.read_text().partition(MARK)
    head, rule, *body = table.terminal(rows).splitlines()
    rule = rule.replace("-", "=")
    PAGE.write_text(text + MARK + "\n".join((rule, head, rule, *body, rule)) + "\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.bystander",
        description="Measure an honest peer's round trips beside an abuser.",
    )
    names = [abuse.name for abuse in abuses.ALL]
    parser.add_argument(
        "--only",
        metavar="NAMES",
        help="which abuses, joined by commas: " + ", ".join(names),
    )
    parser.add_argument(
        "--repeat", type=int, default=5, help="how often to measure (default 5)"
    )
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="for how long (default 2)"
    )
    parser.add_argument(
        "--gap",
        type=float,
        default=0.001,
        help="seconds between two round trips, on average (default 0.001)",
    )
    parser.add_argument(
        "--write", action="store_true", help=f"record it in docs/{PAGE.name}"
    )
    options = parser.parse_args(arguments)
    chosen = options.only.split(",") if options.only else names
    if unknown := set(chosen) - set(names):
        parser.error(f"no such abuse: {', '.join(sorted(unknown))}")
    options.abuses = [abuse for abuse in abuses.ALL if abuse.name in chosen]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    favour(1)
    rows = [HEAD]
    for abuse in options.abuses:
        measured = measure(abuse, options.repeat, options.seconds, options.gap)
        rows.append(row(abuse, measured))
        print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    print(table.terminal(rows))
    if options.write:
        write(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
