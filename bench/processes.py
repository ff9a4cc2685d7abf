"""
Child processes: their lines of output, CPU time and CPUs; and the host of a virtual
machine, which may take the CPUs away.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent

#: Seconds to wait for a line of output.
TIMEOUT = 300.0

#: The largest fraction of stolen CPU time with which a round still counts.
STOLEN = 0.01

#: How often a disturbed round is tried at most.
TRIES = 4

CPUS = os.cpu_count() or 1
_TICK = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """
    Something could not be measured.
    """


class Process:
    """
    A program that reports in lines of output.  As a context manager, it is stopped on
    exit.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        user: int | None = None,
        interactive: bool = False,
        checkout: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """
        @param command: the program and its arguments.
        @param user: the user to run the program as, by default the current user.
        @param interactive: whether the program has a standard input, for L{tell}.
        @param checkout: the checkout from which Python imports, by default this one.
        @param environment: what to change in the environment.
        """
        self._command = command
        path = (checkout or str(ROOT), os.environ.get("PYTHONPATH"))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=user,
            # Another user may not be able to read root's current directory.
            extra_groups=None if user is None else [],
            cwd=checkout,
            env={
                **os.environ,
                **(environment or {}),
                "PYTHONPATH": os.pathsep.join(filter(None, path)),
            },
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._seen: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.end()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)  # its end

    def line(self, start: str, anywhere: bool = False) -> str:
        """
        Wait for a line of output.  Lines before it are dropped.

        @param start: the text with which the line begins.
        @param anywhere: whether the text may also be in the middle of the line.
        @return: the rest of the line.
        """
        while True:
            try:
                line = self._lines.get(timeout=TIMEOUT)
            except queue.Empty:
                raise self._error(f"no line {start!r} in time") from None
            if line is None:
                raise self._error(f"it ended without a line {start!r}")
            self._seen.append(line)
            _, found, rest = line.partition(start)
            if found and (anywhere or line.startswith(start)):
                return rest

    def tell(self, line: str) -> None:
        """
        Write a line to the standard input of an interactive program.
        """
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def _error(self, what: str) -> BenchError:
        seen = "\n  ".join(self._seen[-20:])
        return BenchError(f"{' '.join(self._command)}: {what}\n  {seen}")

    @property
    def pid(self) -> int:
        """
        The ID of the process.
        """
        return self._process.pid

    def cpu(self) -> float:
        """
        The CPU time that the process and its children have used, in seconds.
        """
        return _cpu(self.pid)

    def pin(self, cpu: int) -> None:
        """
        Pin the process, with its later threads and children, to one CPU.
        """
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {cpu % CPUS})

    def end(self) -> None:
        """
        Tell the process to end.
        """
        self._process.send_signal(signal.SIGTERM)

    def finish(self) -> float:
        """
        Wait until the process has exited by itself.

        @return: the CPU time that it used in all, in seconds.
        """
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.returncode:
            raise self._error(f"it exited with {self._process.returncode}")
        return usage.ru_utime + usage.ru_stime


def _cpu(pid: int) -> float:
    """
    @return: the seconds of CPU time of a process, of its children that run, and in the
        kernel's ticks of those that have ended.
    """
    process = Path(f"/proc/{pid}")
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    used = sum(map(int, fields[13:15])) / _TICK
    for task in (process / "task").iterdir():
        used += int((task / "schedstat").read_text().split()[0]) / 1e9
        for child in (task / "children").read_text().split():
            used += _cpu(int(child))
    return used


def favour(cpu: int, pid: int = 0) -> None:
    """
    Give a process the highest priority that is permitted, and pin it to one CPU.

    @param cpu: the number of the CPU.
    @param pid: the ID of the process, by default this one.
    """
    os.sched_setaffinity(pid, {cpu % CPUS})
    try:
        os.setpriority(os.PRIO_PROCESS, pid, -20)
    except PermissionError:
        pass  # measure at the usual priority


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """
    Pin this thread, and those that it starts meanwhile, to one CPU.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu % CPUS})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def python(module: str, *arguments: str) -> Process:
    """
    Start a module of this package.
    """
    return Process([sys.executable, "-m", f"bench.{module}", *arguments])


@contextmanager
def wakefulCPUs() -> Iterator[None]:
    """
    Keep all CPUs from sleeping meanwhile, with busy processes of the lowest priority.

    A virtual machine gives a sleeping CPU back to its host, and may have to wait to get
    it again.  While processes exchange messages, most of the stolen time comes from
    such waits.  They say nothing about the software under test.
    """
    with ExitStack() as stack:
        for cpu in range(CPUS):
            stack.enter_context(python("processes", str(cpu)))
        yield


def _stayAwake(cpu: int) -> None:
    parent = os.getppid()
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    # End with the parent process, even if it is killed.
    while os.getppid() == parent:
        pass


def _time() -> tuple[int, int]:
    """
    @return: the stolen time and the whole time of all CPUs since the machine's start,
        in the kernel's units.
    """
    line = Path("/proc/stat").read_text().splitlines()[0]
    fields = [int(field) for field in line.split()[1:9]]
    return fields[7], sum(fields)


class Patience:
    """
    Repeats rounds in which the host took CPU time for other guests.  That can make the
    slowest of many round trips ten times as slow, and no program in the machine can
    prevent it.
    """

    def __init__(self, seconds: float) -> None:
        """
        @param seconds: how long all repetitions together may take.
        """
        self._left = seconds

    def calmest(self, measure: Callable[[], T]) -> tuple[float, T]:
        """
        Measure one round.

        @param measure: measures all sides that are compared.
        @return: the fraction of stolen CPU time in the calmest attempt, and its result.
        """
        best = self._watch(measure)
        for _ in range(TRIES - 1):
            if best[0] <= STOLEN or self._left <= 0:
                break
            started = time.monotonic()
            best = min(best, self._watch(measure), key=lambda attempt: attempt[0])
            self._left -= time.monotonic() - started
        return best

    def _watch(self, measure: Callable[[], T]) -> tuple[float, T]:
        stolen, whole = _time()
        measured = measure()
        laterStolen, laterWhole = _time()
        part = (laterStolen - stolen) / max(1, laterWhole - whole)
        if part > STOLEN:
            print(f"the host took {part:.1%} of the CPU time", file=sys.stderr)
        return part, measured


if __name__ == "__main__":
    _stayAwake(int(sys.argv[1]))
