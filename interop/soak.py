"""
The soak test: many streams between two processes, under one injected fault after
another::

    python -m interop.soak --seconds 120 --streams 500

A client process keeps its streams going through a L{FaultProxy} to a server process.
When the streams have recovered from one fault, the next follows after a few seconds: a
process is killed, the server restarts with another key, or the proxy resets, cuts,
stalls or swallows the traffic, or delays, flips, drops, repeats or swaps frames.  The
network changes: the connection that is up is dead from then on, in both directions and
without an end, and a new one works.  The wall clock of one or both processes is set
back or forward; that must not end the mux.  Some streams have TLS, and some of these
end without its close_notify.  Both ends compare every byte.  The memory and descriptors
of both are sampled each second.

The test fails on a wrong byte, a cut that looks complete, a mux that ends although no
fault ends it, a traceback, a recovery that takes too long (99 in 100 kills must recover
within L{RECOVERY} seconds), or growth of memory or descriptors.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall, deferLater, react
from twisted.python.failure import Failure

from gomux.test.support.certificates import PEM
from gomux.test.support.ports import freePort
from gomux.testing import (
    Action,
    Direction,
    FaultProxy,
    WireFrame,
    blackHole,
    cut,
    delay,
    drop,
    duplicate,
    flip,
    stall,
    swap,
)
from interop.peers.peerlib import percentile
from interop.peers.soak_peer import LIMITS, WEIGHTS, Kind
from interop.support.harness import ROOT

PSK, OTHER_PSK = "the pre-shared key of the soak test", "quite another pre-shared key"

#: Seconds within which 99 of 100 kills must have recovered.
RECOVERY = 5.0
#: Seconds within which every fault must have recovered.  This is longer because some
#: faults are noticed only by silence.
PATIENCE = 30.0
#: Seconds within which each stream must go on after a step of the clock.
GOES_ON = 10.0
#: Seconds within which a change of the network must have recovered: to notice it, and
#: to recover from it.
NETWORK_CHANGE = LIMITS.deadPeer + RECOVERY
#: From this many streams on, some must have had TLS.
MANY = 2000
#: By how many bytes the memory of a process may grow, from the second to the last
#: quarter of the time in which no process is killed.
GROWTH = 16 << 20
#: How many more descriptors a process may have than after its start, without those of
#: streams to the target.  A connection whose traffic is swallowed keeps its descriptor
#: until a timeout.
DESCRIPTORS = 8
WINDOW = 131072

KILLS = ("kill the server", "kill the client")
OTHER_KEY = "another key"
CHANGE = "change the network"
STEPS = ("clock back", "clock forward", "clock there and back")
#: By how many seconds the wall clock is set.
STEP_SIZES = (1, 5, 60, 3600, 86400)

#: Loaded at the start of a process: its wall clock is off by what a file says.
CLOCK = """
import mmap, struct, time
with open({path!r}, "rb") as file:
    offset = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
real, read = time.time, struct.Struct("d").unpack_from
time.time = lambda: real() + read(offset)[0]
"""


class WallClock:
    """
    Sets the wall clock of a process, without the machine's own.

    @ivar path: a directory whose modules the process must find first.
    @ivar offset: by how many seconds the process's clock is off.
    """

    offset = 0

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self._file = path / "offset"
        self._file.write_bytes(bytes(8))
        (path / "sitecustomize.py").write_text(CLOCK.format(path=str(self._file)))

    def set(self, offset: int) -> None:
        """
        Set the clock.

        @param offset: by how many seconds it is off from now on.
        """
        self.offset = offset
        with self._file.open("r+b") as file:
            file.write(struct.pack("d", offset))


class Process(ProcessProtocol):
    """
    The process of one end.  It is started again after it was killed.

    @ivar clock: the wall clock of the process.
    @ivar last: the counts that the current process printed last.
    @ivar total: the sum of the counts over all processes of this role.
    """

    def __init__(
        self, role: str, soak: Soak, clock: WallClock, arguments: list[str]
    ) -> None:
        self.role = role
        self.clock = clock
        self.total = dict.fromkeys(
            ("done", "cut", "wrong", "bytes", "tls", "tlsCut", "targetCut"), 0
        )
        self.tracebacks = ""
        self.pid = 0
        self.base = 0
        self.since = 0.0
        self.descriptors = 0
        self._soak = soak
        self._arguments = arguments
        self._partial = b""
        self.last: dict[str, Any] = {}
        self.ended: Deferred[None] = Deferred()
        self.ready: Deferred[None] = Deferred()

    def start(self, psk: str = PSK) -> None:
        self._errors = b""
        self._partial = b""
        self.last = {}
        self.base = self.descriptors = 0
        self.ended = Deferred()
        self.ready = Deferred()
        path = [str(self.clock.path), str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "GOMUX_PSK": psk, "SOAK_PEM": PEM.decode()}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        command = [sys.executable, "-m", "interop.peers.soak_peer", self.role]
        process = reactor.spawnProcess(
            self, sys.executable, command + self._arguments, env=environment
        )
        self.pid = process.pid
        self.since = time.monotonic()

    def signal(self, name: str) -> Deferred[None]:
        """
        Send the process a signal.

        @return: fires when the process has ended.
        """
        try:
            self.transport.signalProcess(name)
        except ProcessExitedAlready:
            pass
        return self.ended

    def outReceived(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            for name in self.total:
                self.total[name] += said[name] - self.last.get(name, 0)
            self.last = said
            if not self.ready.called:
                self.ready.callback(None)
            if "up" in said:
                self._soak.isUp(said["t"])
            elif "oldest" in said:
                self._soak.goesOn(said["t"], said["oldest"])

    def errReceived(self, data: bytes) -> None:
        self._errors = (self._errors + data)[-20000:]
        if b"Traceback" in self._errors and not self.tracebacks:
            reactor.callLater(0.5, self._keepErrors)

    def _keepErrors(self) -> None:
        self.tracebacks = self.tracebacks or self._errors.decode(errors="replace")

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)

    def usage(self) -> tuple[int, int]:
        """
        @return: the resident bytes and the number of descriptors of the process.
        """
        try:
            with open(f"/proc/{self.pid}/statm") as statm:
                fields = statm.read().split()
            descriptors = len(os.listdir(f"/proc/{self.pid}/fd"))
        except (FileNotFoundError, ProcessLookupError):
            return 0, 0
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE"), descriptors


@dataclass
class Sample:
    """
    Memory and descriptors of both processes at one time.
    """

    seconds: float
    serverBytes: int
    serverDescriptors: int
    clientBytes: int
    clientDescriptors: int
    streams: int
    faults: int


@dataclass
class Recovery:
    """
    A fault from which the streams have recovered.

    @ivar seconds: how long it took until correct bytes arrived over a new mux.  After a
        fault that does not end the mux: on each stream.
    """

    fault: str
    seconds: float


@dataclass
class Verdict:
    """
    The result of a run.

    @ivar problems: what went wrong; empty if the run passed.
    """

    recoveries: list[Recovery] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Soak:
    """
    One run of the soak test.
    """

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options = options
        self._directory = directory
        self.random = random.Random(options.seed)
        self.verdict = Verdict()
        self.samples: list[Sample] = []
        self.kills = 0
        self.faults = 0
        self._fault = ""
        self._since = 0.0
        self._recovered: Deferred[None] | None = None
        self._lastKill = 0.0

    async def run(self) -> Verdict:
        """
        Start the processes, inject the faults, end the processes and judge the run.
        """
        options = self.options
        mode = "compatible" if options.compatible else "strict"
        port = freePort()
        self.proxy = FaultProxy(reactor, "127.0.0.1", port)
        self.proxy.start()
        streams = str(options.streams)
        clocks = [WallClock(self._directory / role) for role in ("server", "client")]
        self.server = Process("server", self, clocks[0], [str(port), streams, mode])
        self.client = Process(
            "client", self, clocks[1], [str(self.proxy.port), streams, mode]
        )
        self.processes = (self.server, self.client)
        self._await("start")
        self._started = self._since
        for process in self.processes:
            process.start()
            await process.ready
        await self._recovery()
        sampling = LoopingCall(self._sample)
        sampling.start(1.0)
        try:
            await self._injectFaults()
        finally:
            sampling.stop()
            await self._end()
        self._judge()
        return self.verdict

    async def _injectFaults(self) -> None:
        end = time.monotonic() + self.options.seconds
        faults = self._schedule()
        while True:
            await deferLater(reactor, self.options.interval)
            if time.monotonic() >= end:
                return
            name, fault = next(faults)
            self.faults += 1
            if name in KILLS:
                self.kills += 1
            if name in (*KILLS, OTHER_KEY):
                self._lastKill = time.monotonic()
            self._await(name)
            await fault()
            await self._recovery()

    def _schedule(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """
        Generate all kinds of fault in random order, again and again.  Before each comes
        a kill, until there were as many kills as asked for.
        """
        kills = {KILLS[0]: self._killServer, KILLS[1]: self._killClient}
        others: dict[str, Callable[[], Any]] = {
            "reset": self._reset,
            OTHER_KEY: self._otherKey,
            STEPS[0]: lambda: self._stepClocks(-1),
            STEPS[1]: lambda: self._stepClocks(1),
            STEPS[2]: self._thereAndBack,
        }
        if not self.options.compatible:
            others[CHANGE] = self._changeNetwork
        others |= {
            name: self._onNextFrame(action)
            for name, action in NETWORK.items()
            if not (self.options.compatible and name in UNNOTICED)
        }
        if self.options.only:
            others = {name: others[name] for name in self.options.only}
        while True:
            turn = [*others.items()]
            self.random.shuffle(turn)
            for name, fault in turn:
                if self.kills < self.options.kills:
                    yield self.random.choice([*kills.items()])
                elif name == OTHER_KEY:
                    # From here on the growth of memory is measured, so no process may
                    # be restarted.
                    continue
                yield name, fault

    # Faults

    def _await(self, fault: str) -> None:
        """
        Note that a fault begins, and start to wait for the recovery.
        """
        self._fault = fault
        self._since = time.monotonic()
        self._recovered = Deferred()

    def isUp(self, when: float) -> None:
        """
        Note that correct bytes have arrived over a new mux, which ends the recovery,
        unless the fault must not end a mux.
        """
        if self._fault in HARMLESS:
            self._problem(f"{self._fault}: a mux has ended")
        self._isOver(when)

    def goesOn(self, when: float, oldest: float) -> None:
        """
        Note that each stream goes on, which ends a fault that does not end the mux.

        @param oldest: each stream has got correct bytes, or was opened, since then.
        """
        if self._fault in HARMLESS and oldest > self._since:
            self._isOver(when)

    def _isOver(self, when: float) -> None:
        waiting = self._recovered
        if waiting is not None and not waiting.called and when > self._since:
            seconds = when - self._since
            self.verdict.recoveries.append(Recovery(self._fault, seconds))
            waiting.callback(None)

    async def _recovery(self) -> None:
        assert self._recovered is not None
        self._recovered.addTimeout(PATIENCE, reactor)
        try:
            await self._recovered
        except Exception:
            self.verdict.problems.append(
                f"{self._fault} at {self._since - self._started:.0f} s: not over after"
                f" {PATIENCE:g} seconds; waits longest:"
                f" {self.client.last.get('stream')}"
            )
        finally:
            for direction in (self.proxy.toServer, self.proxy.toClient):
                direction.clear()

    async def _kill(self, process: Process) -> None:
        await process.signal("KILL")
        process.start()

    async def _killServer(self) -> None:
        await self._kill(self.server)

    async def _killClient(self) -> None:
        await self._kill(self.client)

    async def _otherKey(self) -> None:
        """
        Run the server with another key for two seconds.
        """
        await self.server.signal("KILL")
        self.server.start(OTHER_PSK)
        await self.server.ready
        await deferLater(reactor, 2.0)
        await self.server.signal("KILL")
        self._await(self._fault)
        self.server.start()

    async def _reset(self) -> None:
        self.proxy.reset()

    async def _changeNetwork(self) -> None:
        """
        Let nothing more pass on the connection that is up, in both directions, not even
        its end.  The next connection works.
        """
        action = self.random.choice([blackHole(), stall()])
        for direction in (self.proxy.toServer, self.proxy.toClient):
            self._onNext(direction, action)

    async def _stepClocks(self, sign: int) -> None:
        """
        Set the wall clock of one or both processes.  A step that would take a clock off
        by more than a day goes to the next such limit instead.

        @param sign: 1 for forward, -1 for back.
        """
        day = STEP_SIZES[-1]
        step = sign * self.random.choice(STEP_SIZES)
        for clock in self._someClocks():
            clock.set(max(-day, min(day, clock.offset + step)))
        self._await(self._fault)

    async def _thereAndBack(self) -> None:
        """
        Set the wall clock of one or both processes, and set it back within a second.
        """
        step = self.random.choice((-1, 1)) * self.random.choice(STEP_SIZES)
        clocks = self._someClocks()
        before = [clock.offset for clock in clocks]
        self._recovered = None
        for clock in clocks:
            clock.set(clock.offset + step)
        await deferLater(reactor, self.random.uniform(0.05, 0.95))
        for clock, offset in zip(clocks, before, strict=True):
            clock.set(offset)
        self._await(self._fault)

    def _someClocks(self) -> list[WallClock]:
        clocks = [process.clock for process in self.processes]
        return self.random.choice([clocks[:1], clocks[1:], clocks])

    def _onNextFrame(self, action: Action) -> Callable[[], Any]:
        async def fault() -> None:
            direction: Direction = self.random.choice(
                [self.proxy.toServer, self.proxy.toClient]
            )
            self._onNext(direction, action)

        return fault

    def _onNext(self, direction: Direction, action: Action) -> None:
        """
        Apply an action to the next frame in one direction.  Frames on older
        connections than the newest do not count: after some faults, the server goes on
        with an old connection for some seconds.
        """
        met = False
        newest = self.proxy.accepted - 1

        def isNext(frame: WireFrame) -> bool:
            nonlocal met
            if met or frame.connection < newest:
                return False
            met = True
            return True

        direction.clear()
        direction.when(isNext, action)

    # Checks

    def _sample(self) -> None:
        usages = [process.usage() for process in self.processes]
        now = time.monotonic()
        for process, (size, descriptors) in zip(self.processes, usages, strict=True):
            if process.last and not process.base:
                process.base, process.descriptors = size, descriptors
            elif process.base and size:
                most = process.base + self.options.streams * WINDOW + (64 << 20)
                if size > most:
                    self._problem(f"the {process.role} has {size >> 20} MiB")
                if descriptors > process.descriptors + self._moreDescriptors():
                    self._problem(f"the {process.role} has {descriptors} descriptors")
        (serverBytes, serverDescriptors), (clientBytes, clientDescriptors) = usages
        self.samples.append(
            Sample(
                round(now - self._started, 2),
                serverBytes,
                serverDescriptors,
                clientBytes,
                clientDescriptors,
                self.client.last.get("open", 0),
                self.faults,
            )
        )

    def _moreDescriptors(self) -> float:
        """
        @return: how many more descriptors a process may have than after its start.
            Each stream to the target takes two; three times their average are allowed.
        """
        share = WEIGHTS[Kind.TARGET_CUT] / sum(WEIGHTS.values())
        return DESCRIPTORS + 2 * 3 * share * self.options.streams

    def _problem(self, text: str) -> None:
        if len(self.verdict.problems) < 20:
            self.verdict.problems.append(text)

    async def _end(self) -> None:
        for process in (self.client, self.server):
            process.signal("TERM")
            process.ended.addTimeout(PATIENCE, reactor)
            try:
                await process.ended
            except Exception:
                self._problem(f"the {process.role} did not end")
                process.ended = Deferred()
                await process.signal("KILL")
        await self.proxy.stop()

    def _judge(self) -> None:
        for process in self.processes:
            if process.total["wrong"]:
                self._problem(f"{process.role}: {process.total['wrong']} wrong streams")
            if process.tracebacks:
                self._problem(f"{process.role}: {process.tracebacks}")
            if not process.total["done"]:
                self._problem(f"{process.role}: no stream came to its end")
        if self.client.total["done"] >= MANY:
            for name in ("tls", "tlsCut", "targetCut"):
                if not self.client.total[name]:
                    self._problem(f"no stream counts as {name}")
        for fault, limit in ((CHANGE, NETWORK_CHANGE), *((s, GOES_ON) for s in STEPS)):
            slowest = max(self.times(fault), default=0.0)
            if slowest > limit:
                self._problem(f"{fault}: {slowest:.1f} s until all is well")
        times = self.times(*KILLS)
        if percentile(times, 99) > RECOVERY:
            self._problem(
                f"after a kill: {percentile(times, 99):.1f} s until all is well"
            )
        for name in ("serverBytes", "clientBytes"):
            self._judgeGrowth(name)

    def _judgeGrowth(self, name: str) -> None:
        """
        Compare the memory in the second and in the last quarter of the time without
        kills.
        """
        calm = max(self._lastKill - self._started, 0.0) + 10
        sizes = [getattr(s, name) for s in self.samples if s.seconds > calm]
        if len(sizes) >= 60:
            quarter = len(sizes) // 4
            before = sum(sizes[quarter : 2 * quarter]) / quarter
            after = sum(sizes[-quarter:]) / quarter
            if after - before > GROWTH:
                self._problem(f"{name} grew by {(after - before) / 2**20:.1f} MiB")

    def times(self, *faults: str) -> list[float]:
        """
        @return: how many seconds each recovery from these kinds of fault took.
        """
        return [r.seconds for r in self.verdict.recoveries if r.fault in faults]


NETWORK: dict[str, Action] = {
    "cut a frame": cut(40),
    "cut a frame with a reset": cut(20, reset=True),
    "stall": stall(),
    "black hole": blackHole(),
    "delay": delay(1.0),
    "flip a bit": flip(300),
    "drop a frame": drop(),
    "repeat a frame": duplicate(),
    "swap two frames": swap(),
}
#: The faults that compatible mode notices only between peers that greet each other.
UNNOTICED = ("black hole", "drop a frame", "repeat a frame", "swap two frames")
#: The faults that do not end the mux.
HARMLESS = ("delay", *STEPS)

_BARS = " ▁▂▃▄▅▆▇█"


def line(label: str, values: list[float], unit: float, width: int = 72) -> str:
    """
    @return: a plot of one line, from 0 to the largest value.
    """
    most = max(values, default=0) or 1
    step = max(1, len(values) / width)
    columns = []
    for column in range(min(width, len(values))):
        part = values[int(column * step) : max(1, int((column + 1) * step))]
        columns.append(_BARS[round(max(part, default=0) / most * (len(_BARS) - 1))])
    return f"{label:20} {''.join(columns)}  up to {most / unit:.0f}"


def report(soak: Soak) -> Iterator[str]:
    """
    @return: the report on a run, line by line.
    """
    samples = soak.samples
    yield line("server, MiB", [s.serverBytes for s in samples], 2**20)
    yield line("client, MiB", [s.clientBytes for s in samples], 2**20)
    yield line("server, descriptors", [s.serverDescriptors for s in samples], 1)
    yield line("client, descriptors", [s.clientDescriptors for s in samples], 1)
    yield line("streams", [s.streams for s in samples], 1)
    yield f"{'until all is well, s':26} {'times':>5} {'p50':>6} {'p99':>6} {'max':>6}"
    kinds = sorted({r.fault for r in soak.verdict.recoveries})
    for name, faults in [("all kills", KILLS), *((kind, (kind,)) for kind in kinds)]:
        times = soak.times(*faults)
        if times:
            yield (
                f"{name:26} {len(times):5} {percentile(times, 50):6.2f}"
                f" {percentile(times, 99):6.2f} {max(times):6.2f}"
            )
    for problem in soak.verdict.problems:
        yield f"PROBLEM: {problem}"
    ends = [process.total for process in soak.processes]
    kills = soak.times(*KILLS)
    yield (
        f"{samples[-1].seconds:.0f} s, {soak.options.streams} streams,"
        f" {soak.faults} faults of which {soak.kills} kills:"
        f" {ends[1]['done']} streams came to their end, {ends[1]['cut']} were cut;"
        f" {sum(end['bytes'] for end in ends) >> 20} MiB compared,"
        f" {sum(end['wrong'] for end in ends)} streams wrong;"
        f" {ends[1]['tls']} with TLS and its end,"
        f" {ends[1]['tlsCut']} with TLS without its end,"
        f" {ends[1]['targetCut']} to a target that cut TLS;"
        f" p99 after a kill {percentile(kills, 99):.2f} s"
    )


def plot(samples: list[Sample], path: Path) -> None:
    """
    Plot memory and descriptors over time, with matplotlib.
    """
    from matplotlib import pyplot

    figure, (memory, descriptors) = pyplot.subplots(2, sharex=True, figsize=(9, 6))
    seconds = [s.seconds for s in samples]
    for role in ("server", "client"):
        sizes = [getattr(s, f"{role}Bytes") / 2**20 for s in samples]
        memory.plot(seconds, sizes, label=role)
        counts = [getattr(s, f"{role}Descriptors") for s in samples]
        descriptors.plot(seconds, counts, label=role)
    memory.set_ylabel("resident MiB")
    memory.legend()
    descriptors.set_ylabel("descriptors")
    descriptors.set_xlabel("seconds")
    figure.savefig(path)


def save(samples: list[Sample], path: Path) -> None:
    """
    Write all samples as CSV.
    """
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(Sample.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(vars(sample) for sample in samples)


async def main(reactor: Any, options: argparse.Namespace) -> None:
    """
    Run the soak test, and exit with 1 if there was a problem.
    """
    with tempfile.TemporaryDirectory() as directory:
        soak = Soak(options, Path(directory).resolve())
        await soak.run()
    if options.csv is not None:
        save(soak.samples, options.csv)
    if options.plot is not None:
        plot(soak.samples, options.plot)
    print(*report(soak), sep="\n")
    if soak.verdict.problems:
        sys.exit(1)


def parse(arguments: list[str]) -> argparse.Namespace:
    """
    Read the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m interop.soak")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--interval", type=float, default=5.0)
    parser.add_argument("--kills", type=int, default=1 << 30, help="at most")
    parser.add_argument(
        "--only",
        action="append",
        metavar="FAULT",
        help="besides kills; may be repeated",
    )
    parser.add_argument("--compatible", action="store_true")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--csv", type=Path, help="write the samples to this file")
    parser.add_argument("--plot", type=Path, help="plot the samples; needs matplotlib")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    react(main, [parse(sys.argv[1:])])
