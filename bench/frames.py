"""
Workloads that count the CPU instructions of frames.  They do not depend on other load
of the machine.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import pair
from bench.figures import Figure, Goal, Measured, Workload
from bench.peers import SIDES
from bench.processes import BenchError

GROWTH = (1, 10, 100, 1000, 10000)


class Counter:
    """
    A process under valgrind that makes calls.
    """

    def __init__(self, stack: ExitStack, side: str) -> None:
        if shutil.which("callgrind_control") is None:
            raise BenchError("valgrind is not on the PATH")
        self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._process = stack.enter_context(
            SIDES.get(side, SIDES["this"]).process(
                *("valgrind", "--tool=callgrind"),
                f"--callgrind-out-file={self._directory}/out",
                *(sys.executable, pair.__file__),
                interactive=True,
                environment={"PYTHONHASHSEED": "0"},
            )
        )

    def count(self, what: str, side: str, number: int, times: int) -> float:
        """
        @param number: how many streams are open, for an echo.
        @return: the instructions of one call.
        """
        self._process.tell(f"{what};{side};{number};{times}")
        self._process.line("ready")
        self._control("--zero")
        self._process.tell("")
        self._process.line("done")
        self._control("--dump")
        newest = max(
            self._directory.iterdir(), key=lambda path: path.stat().st_mtime_ns
        )
        found = re.search(r"^(?:totals|summary): (\d+)", newest.read_text(), re.M)
        newest.unlink()
        assert found is not None
        return int(found[1]) / times

    def _control(self, option: str) -> None:
        command = ["callgrind_control", option, str(self._process.pid)]
        subprocess.run(command, check=True, capture_output=True)


def frames(side: str, scale: float) -> Measured:
    measured = {}
    with ExitStack() as stack:
        counter = Counter(stack, side)
        for what, (_, _, times, parts) in pair.WORK.items():
            measured[what] = counter.count(what, side, 1, times) / parts
    return measured


def growth(side: str, scale: float) -> Measured:
    with ExitStack() as stack:
        counter = Counter(stack, side)
        counts = {
            f"{streams} streams": counter.count("echo of 64 bytes", side, streams, 300)
            for streams in GROWTH
        }
    return {**counts, "most / least": max(counts.values()) / min(counts.values())}


ALL = (
    Workload(
        "frames",
        "Instructions",
        "between two muxes in one process; bare: only sealing and opening",
        tuple(Figure(what, "instructions", more=False) for what in pair.WORK),
        ("bare", "this", "strict"),
        frames,
        rounds=1,
    ),
    Workload(
        "growth",
        "Instructions",
        "an echo beside so many open streams",
        (
            *(Figure(f"{n} streams", "instructions", more=False) for n in GROWTH),
            Figure("most / least", "", (Goal(1.01, over=None),), more=False),
        ),
        ("this",),
        growth,
        rounds=1,
    ),
)
