"""
Measure how an honest peer is affected while another peer abuses the server.

    python -m bench.bystander

An honest client and an abuser are connected to one server, C{twistd gomux}, each with
its own mux.  From time to time the honest client has 64 bytes echoed.  Its round trips
are measured without and with the abuser, in turn.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from bench import abuses, table
from bench.abuses import Abuse
from bench.calm import calmSlices
from bench.peers import PSK
from bench.processes import BenchError, Process, favour, python, wakefulCPUs
from bench.table import number
from gomux._wire.crypto import Opener, Sealer, deriveKey
from gomux._wire.frame import Flag, FrameParser, sealFrame
from interop.peers.peerlib import percentile

MESSAGE = bytes(64)
#: The client gives credit after this many bytes of echoes, for this many bytes.
CREDIT = 65536
#: A round trip of less than C{CALM} seconds counts as undisturbed.  After C{PATIENCE}
#: seconds without one the measurement fails.
CALM = 0.002
PATIENCE = 30.0
#: The pause before each measurement, in seconds.
SETTLE = 0.5
#: The length of a slice, in seconds.  Stolen CPU time is checked after each slice.
SLICE = 0.25


class Honest:
    """
    The honest client: one stream, with blocking calls.
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
        Close the connection.
        """
        self._socket.close()

    def _send(self, flag: int, payload: bytes = b"", length: int = 0) -> None:
        size = len(payload) or length
        self._socket.sendall(b"".join(sealFrame(self._sealer, 0, size, flag, payload)))

    def roundTrip(self) -> float:
        """
        Do one round trip.

        @return: the time that it took, in seconds.
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
        Measure round trips for some time.

        @param gap: the average pause between two round trips, in seconds.
        @return: the times of the round trips, in microseconds.
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

    def measureCalm(self, seconds: float, gap: float) -> tuple[float, list[float]]:
        """
        Measure round trips in slices, and keep the slices in which the host took the
        least CPU time.

        @param seconds: the length of all kept slices together.
        @return: the largest fraction of CPU time that the host took in a kept slice,
            and the times of the round trips in microseconds.
        """
        stolen, slices = calmSlices(
            lambda: self.measure(SLICE, gap), max(1, round(seconds / SLICE))
        )
        return stolen, [time for times in slices for time in times]

    def calmDown(self) -> None:
        """
        Wait until round trips are undisturbed again.
        """
        end = time.monotonic() + PATIENCE
        while percentile([self.roundTrip() for _ in range(200)], 90) > CALM:
            if time.monotonic() > end:
                raise BenchError("round trips stay disturbed after the abuse")


@contextmanager
def serve(keys: int = 1, *more: str) -> Iterator[tuple[Process, str]]:
    """
    Start a server.

    @param keys: how many keys the server has; the last one is the honest client's.
    @param more: further options of the server.
    """
    twistd = [
        str(Path(sys.executable).with_name("twistd")),
        "-n",
        "--pidfile=",
        "gomux",
    ]
    options = ["--listen", "tcp:0:interface=127.0.0.1", "--psk-file"]
    others = [f"peer{number}:{os.urandom(20).hex()}" for number in range(keys - 1)]
    with NamedTemporaryFile("w") as file:
        print("[keyring]", *others, f"honest:{PSK}", sep="\n", file=file, flush=True)
        options += [file.name, "--factory", "bench.served.Served", *more]
        with Process([*twistd, *options]) as server:
            port = server.line("starting on ", anywhere=True)
            yield server, f"127.0.0.1:{port.strip()}"


@dataclass
class Round:
    """
    The results of one round.

    @ivar alone: the times of round trips without the abuser, in microseconds.
    @ivar beside: the times of round trips beside the abuser, in microseconds.
    @ivar connections: how many connections a second the abuser made.
    @ivar sent: how much the abuser sent, in MB/s.
    @ivar stolen: the largest fraction of CPU time that the host took meanwhile.
    """

    alone: list[float]
    beside: list[float]
    connections: float
    sent: float
    stolen: float


def percentiles(rounds: list[Round], percent: int) -> tuple[float, float]:
    """
    @return: a percentile of the round trips of all rounds, without the abuser and
        beside it.
    """
    alone = [time for done in rounds for time in done.alone]
    beside = [time for done in rounds for time in done.beside]
    return percentile(alone, percent), percentile(beside, percent)


def measure(abuse: Abuse, repeat: int, seconds: float, gap: float) -> list[Round]:
    """
    Measure round trips without and with one abuse.

    @param repeat: the number of rounds.
    @param seconds: the length of each half of a round.
    """
    rounds = []
    with serve(abuse.keys) as (server, address), closing(Honest(address)) as honest:
        server.favour(0)
        honest.measure(SETTLE, gap)

        for _ in range(repeat):
            honest.calmDown()
            before, alone = honest.measureCalm(seconds, gap)
            with python("abuses", abuse.name, address, PSK) as abuser:
                abuser.line("ready")
                started = time.monotonic()
                time.sleep(SETTLE)
                stolen, beside = honest.measureCalm(seconds, gap)
                took = time.monotonic() - started
                abuser.end()
                connections, sent = map(int, abuser.line("did ").split())
            rounds.append(
                Round(
                    alone,
                    beside,
                    connections / took,
                    sent / took / 1e6,
                    max(before, stolen),
                )
            )
    return rounds


def row(abuse: Abuse, rounds: list[Round]) -> list[str]:
    """
    Make the table's row for one abuse.
    """
    # In reStructuredText an empty first cell would continue the row above.
    cells = [abuse.rows or "none", abuse.title]
    for percent in (50, 99):
        alone, beside = percentiles(rounds, percent)
        cells += [number(alone), number(beside)]
    cells += [f"{beside / alone:.2f}"]
    for values in (
        [done.connections for done in rounds],
        [done.sent for done in rounds],
    ):
        cells.append(number(statistics.median(values)))
    cells.append(f"{max(done.stolen for done in rounds):.1%}")
    return cells


HEAD = [
    *("#", "beside", "p50", "with it", "p99", "with it", "ratio"),
    *("connections/s", "MB/s", "stolen"),
]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "bystanders.rst"
MARK = ".. The table is written by python -m bench.bystander --write.\n\n"


def write(rows: list[list[str]]) -> None:
    """
    Replace the table at the end of the page.
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
        "--repeat", type=int, default=3, help="how many rounds to measure (default 3)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=2.0,
        help="seconds for each half (default 2)",
    )
    parser.add_argument(
        "--gap",
        type=float,
        default=0.001,
        help="seconds between two round trips, on average (default 0.001)",
    )
    parser.add_argument(
        "--write", action="store_true", help=f"record the table in docs/{PAGE.name}"
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
    with wakefulCPUs():
        for abuse in options.abuses:
            rounds = measure(abuse, options.repeat, options.seconds, options.gap)
            rows.append(row(abuse, rounds))
            print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    print(table.terminal(rows))
    if options.write:
        write(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
