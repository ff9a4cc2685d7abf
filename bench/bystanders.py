"""
Workloads beside others: how an honest client of C{twistd gomux} fares beside a peer
that abuses the server, beside strangers who connect, and beside scrapes of metrics.
"""

from __future__ import annotations

import gc
import os
import random
import resource
import signal
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import abuses
from bench.abuses import Abuse
from bench.figures import Figure, Measured, Workload
from bench.peers import PSK
from bench.processes import Process, favour, python, wakefulCPUs
from gomux._wire.crypto import Opener, Sealer, deriveKey
from gomux._wire.frame import Flag, FrameParser
from interop.peers.peerlib import percentile
from interop.support.harness import TWISTD

MESSAGE = bytes(64)
#: The client gives credit after this many bytes of echoes, for this many bytes.
CREDIT = 65536
#: The average pause between two round trips, and between two new clients, in seconds.
GAP, NEWCOMER_GAP = 0.001, 0.05
#: How long nothing is measured first, in seconds.
SETTLE = 0.5


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
        self._socket.sendall(b"".join(self._sealer.seal(0, size, flag, payload)))

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

    def measure(self, seconds: float) -> list[float]:
        """
        Measure round trips for some time.

        @return: the times of the round trips, in microseconds.
        """
        return _repeat(self.roundTrip, seconds, GAP)


def _repeat(run: Callable[[], float], seconds: float, gap: float) -> list[float]:
    """
    Measure something again and again, with pauses.

    @return: the times, in microseconds.
    """
    times = []
    end = time.perf_counter() + seconds
    gc.collect()
    gc.disable()
    try:
        while time.perf_counter() < end:
            times.append(run() * 1e6)
            time.sleep(random.uniform(0.2, 1.8) * gap)
    finally:
        gc.enable()
    return times


def _times(times: list[float], unit: float = 1.0) -> Measured:
    figures = percentile(times, 50), percentile(times, 99), max(times)
    names = ("p50", "p99", "most")
    return {name: it / unit for name, it in zip(names, figures, strict=True)}


@contextmanager
def serve(keys: int, *more: str) -> Iterator[tuple[Process, str]]:
    """
    Start a server that has a CPU for itself, while no CPU sleeps.

    @param keys: how many keys the server has; the last one is the honest client's.
    @param more: further options of the server.
    @return: the server, and its address.
    """
    before = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    with ExitStack() as stack:
        stack.enter_context(wakefulCPUs())
        file = Path(stack.enter_context(TemporaryDirectory()), "keys")
        others = [f"peer{number}:{os.urandom(20).hex()}" for number in range(keys - 1)]
        file.touch(0o600)
        file.write_text("\n".join(("[keyring]", *others, f"honest:{PSK}", "")))
        command = [*TWISTD, "-n", "--pidfile=", "gomux", "--psk-file", str(file)]
        command += ["--listen", "tcp:0:interface=127.0.0.1", *more]
        command += ["--factory", "bench.program.ServedFactory"]
        server = stack.enter_context(Process(command))
        address = server.line("127.0.0.1: listening on ", anywhere=True)
        favour(0, server.pid)
        favour(1)
        try:
            yield server, address
        finally:
            os.sched_setaffinity(0, before[0])
            try:
                os.setpriority(os.PRIO_PROCESS, 0, before[1])
            except PermissionError:
                pass  # it was never changed


def abused(abuse: Abuse) -> Callable[[str, float], Measured]:
    """
    Make a function that measures echoes without and beside an abuser.
    """

    def measure(side: str, scale: float) -> Measured:
        with serve(abuse.keys) as (_, address), closing(Honest(address)) as honest:
            honest.measure(SETTLE)
            if side == "alone":
                return _times(honest.measure(3 * scale))
            with python("abuses", abuse.name, address, PSK) as abuser:
                abuser.line("ready")
                started = time.monotonic()
                time.sleep(SETTLE)
                measured = _times(honest.measure(3 * scale))
                took = time.monotonic() - started
                abuser.end()
                connections, sent = map(int, abuser.line("did ").split())
        return {
            **measured,
            "connections": connections / took,
            "sent": sent / took / 1e6,
        }

    return measure


#: From how many addresses strangers connect, by side.
STRANGERS = {"alone": 0, "1 address": 1, "200 addresses": 200}


def newcomers(side: str, scale: float) -> Measured:
    """
    Measure the time from C{connect} to the end of an echo of new clients.  Meanwhile
    strangers without a key connect a thousand times a second, say nothing, and leave.
    """

    def newcomer() -> float:
        began = time.perf_counter()
        with closing(Honest(address)) as honest:
            honest.roundTrip()
            return time.perf_counter() - began

    with ExitStack() as stack:
        _, address = stack.enter_context(serve(1))
        _repeat(newcomer, SETTLE, NEWCOMER_GAP)
        if sources := STRANGERS[side]:
            command = ("strangers", address, str(sources))
            stack.enter_context(python("abuses", *command)).line("ready")
            time.sleep(2 * SETTLE)
        return _times(_repeat(newcomer, 20 * scale, NEWCOMER_GAP), 1e3)


def scrape(path: str) -> None:
    """
    Fetch the metrics from the operator's port.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while data := client.recv(1 << 20):
            answer += data
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise ValueError(answer[:200])


def hold(address: str, muxes: str) -> None:
    """
    Hold many muxes, each with a stream.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        for _ in range(int(muxes)):
            stack.enter_context(closing(Honest(address))).roundTrip()
        print("holding", flush=True)
        signal.pause()


def poll(path: str, times: str) -> None:
    """
    Scrape every second.  An answer is given again for a while.
    """
    for _ in range(int(times)):
        began = time.perf_counter()
        scrape(path)
        took = time.perf_counter() - began
        print("took", took * 1e3, flush=True)
        time.sleep(max(0.0, 1 - took))


def scraped(muxes: int, keys: int) -> Callable[[str, float], Measured]:
    """
    Make a function that measures echoes beside scrapes, and then scrapes alone.
    """

    def measure(side: str, scale: float) -> Measured:
        with ExitStack() as stack:
            path = stack.enter_context(TemporaryDirectory()) + "/status"
            status = ("--status", f"unix:{path}")
            server, address = stack.enter_context(serve(keys, *status))
            holder = python("bystanders", "hold", address, str(muxes - 1))
            stack.enter_context(holder).line("holding")
            honest = stack.enter_context(closing(Honest(address)))
            honest.measure(SETTLE)
            if side == "alone":
                return _times(honest.measure(2 * scale))
            with python("bystanders", "poll", path, "3") as poller:
                poller.line("took ")
                measured = _times(honest.measure(2 * scale))
                took = [float(poller.line("took ")) for _ in range(2)]
            costs = []
            for _ in range(2):
                time.sleep(1)
                before = server.cpu()
                scrape(path)
                costs.append((server.cpu() - before) * 1e3)
        measured["scrape"] = statistics.median(took)
        return {**measured, "scrape, CPU": statistics.median(costs)}

    return measure


def _timeFigures(unit: str = "us") -> tuple[Figure, ...]:
    return tuple(Figure(name, unit, more=False) for name in ("p50", "p99", "most"))


GROUPS = ("Bystanders", "Newcomers", "Scrapes")

ALL = (
    *(
        Workload(
            f"beside-{abuse.name}",
            "Bystanders",
            f"{abuse.title} ({abuse.rows})" if abuse.rows else abuse.title,
            (
                *_timeFigures(),
                Figure("connections", "/s"),
                Figure("sent", "MB/s"),
            ),
            ("alone", "beside"),
            abused(abuse),
        )
        for abuse in abuses.ALL
    ),
    Workload(
        "newcomers",
        "Newcomers",
        "a new client's first answer beside 1000 connections/s of strangers",
        _timeFigures("ms"),
        tuple(STRANGERS),
        newcomers,
    ),
    *(
        Workload(
            f"scrape-{muxes}-{keys}",
            "Scrapes",
            f"echo beside a scrape a second, {muxes} muxes, {keys} keys",
            (
                *_timeFigures(),
                Figure("scrape", "ms", more=False),
                Figure("scrape, CPU", "ms", more=False),
            ),
            ("alone", "beside"),
            scraped(muxes, keys),
            rounds=1,
        )
        for muxes, keys in ((1, 1), (1000, 1), (1, 256), (1000, 256))
    ),
)


if __name__ == "__main__":
    {"hold": hold, "poll": poll}[sys.argv[1]](*sys.argv[2:])
