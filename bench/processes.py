"""
Child processes: their lines of output, CPU time and memory.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent

#: Seconds to wait for a line of output.
TIMEOUT = 300.0

CPUS = os.cpu_count() or 1
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


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
        user: int | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        """
        @param command: the program and its arguments.
        @param user: the user to run the program as, by default the current user.
        @param stdin: the standard input of the program.
        """
        self._command = command
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=user,
            # Another user may not be able to read root's current directory.
            extra_groups=None if user is None else [],
            env={**os.environ, "PYTHONPATH": path},
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
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

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
        The CPU time that the process has used, in seconds.
        """
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def resident(self) -> int:
        """
        The resident memory of the process, in bytes.
        """
        statm = Path(f"/proc/{self._process.pid}/statm").read_text()
        return int(statm.split()[1]) * _PAGE

    def favour(self, cpu: int) -> None:
        """
        Give the process the highest priority that is permitted, and pin it to one CPU.
        """
        favour(cpu, self._process.pid)

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


def python(module: str, *arguments: str) -> Process:
    """
    Start a module of this package.
    """
    return Process([sys.executable, "-m", f"bench.{module}", *arguments])


@contextmanager
def wakefulCPUs() -> Iterator[None]:
    """
    Keep all CPUs from sleeping meanwhile: see L{bench.awake}.
    """
    with ExitStack() as stack:
        for cpu in range(CPUS):
            stack.enter_context(python("awake", str(cpu)))
        yield
