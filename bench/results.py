"""
The results of a run: collect, compare and record them.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.limits import TITLES
from bench.workloads import CPU, Figure, Measured, Workload

#: Chooses one ratio from the ratios of all rounds.
Choose = Callable[[Sequence[float]], float]

HERE = Path(__file__).resolve().parent
RECORD = HERE / "results.json"
TABLES = HERE / "RESULTS.md"

#: A ratio counts as worse if it is below this fraction of the recorded ratio.
ENOUGH = 0.7


@dataclass
class Results:
    """
    The results of one run.

    @ivar limits: by workload, the machine's limits just before it was measured.
    @ivar values: by workload, figure and side, the value of each round in order.
    @ivar stolen: by workload, the fraction of stolen CPU time in each round.
    @ivar others: versions and settings of the other software that was measured.
    """

    limits: dict[str, dict[str, float]] = field(default_factory=dict)
    values: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    stolen: dict[str, list[float]] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)

    def limit(self, name: str) -> list[float]:
        """
        Return all measurements of one of the machine's limits.
        """
        return [measured[name] for measured in self.limits.values()]

    def addRound(
        self, workload: Workload, measured: dict[str, Measured], stolen: float
    ) -> None:
        """
        Add the values of all sides in one round.
        """
        self.stolen.setdefault(workload.name, []).append(stolen)
        figures = self.values.setdefault(workload.name, {})
        for side, done in measured.items():
            for name, value in done.items():
                figures.setdefault(name, {}).setdefault(side, []).append(value)

    def of(self, workload: Workload, figure: Figure, side: str) -> list[float]:
        """
        Return the values of a side in all rounds.
        """
        figures = self.values.get(workload.name, {})
        return figures.get(figure.name, {}).get(side, [])

    def ratio(
        self,
        workload: Workload,
        figure: Figure,
        side: str,
        yardstick: str | None = None,
        choose: Choose = statistics.median,
    ) -> float | None:
        """
        Divide the values of a side by those of another side in the same rounds.

        @param yardstick: the other side, by default the workload's yardstick.
        @param choose: chooses one of the ratios, by default their median.
        """
        ours = self.of(workload, figure, side)
        theirs = self.of(workload, figure, yardstick or workload.sides[0])
        if not ours or len(ours) != len(theirs) or 0 in theirs:
            return None
        return choose([a / b for a, b in zip(ours, theirs, strict=True)])

    def limitRatio(
        self, workload: Workload, figure: Figure, choose: Choose = statistics.median
    ) -> float | None:
        """
        Divide this project's value by the limit that the figure is compared with.

        @param choose: chooses one of the values, by default their median.
        """
        ours = self.of(workload, figure, "this")
        if not ours or not figure.limit or not self.limits:
            return None
        limit = statistics.median(self.limit(figure.limit))
        if figure.more and TITLES[figure.limit][1] == "us":
            limit = 1e6 / limit
        return choose(ours) / limit


def ratios(
    results: Results, workloads: list[Workload], best: bool = False
) -> dict[str, dict[str, float]]:
    """
    Return the ratios that a later run is compared with, by divisor and figure.

    @param best: whether to take the ratio of the best round instead of the median.
    """
    kept: dict[str, dict[str, float]] = {"Go": {}, "limits": {}}
    for workload, figure in figuresOf(workloads):
        name = f"{workload.name} {figure.name}"
        if figure is CPU:
            continue
        choose: Choose = statistics.median
        if best:
            choose = max if figure.more else min
        for divisor, ratio in (
            ("Go", results.ratio(workload, figure, "this", choose=choose)),
            ("limits", results.limitRatio(workload, figure, choose)),
        ):
            if ratio is not None:
                kept[divisor][name] = round(ratio, 4)
    return kept


def figuresOf(workloads: list[Workload]) -> Iterator[tuple[Workload, Figure]]:
    """
    Generate the figures of some workloads.
    """
    for workload in workloads:
        for figure in workload.figures:
            yield workload, figure


def record(results: Results, workloads: list[Workload], short: bool) -> None:
    """
    Record the ratios of a short run, or the figures of a whole one.
    """
    kept: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if short:
        kept["short"] = ratios(results, workloads)
    else:
        kept["machine"] = machine()
        for name, what in vars(results).items():
            kept.setdefault(name, {}).update(what)
    RECORD.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def recorded() -> Results:
    """
    Return the recorded figures.
    """
    kept = json.loads(RECORD.read_text())
    return Results(**{name: kept[name] for name in vars(Results())})


def fallen(results: Results, workloads: list[Workload]) -> dict[str, list[str]]:
    """
    Compare the ratios of a short run with the recorded ones.  The divisor is the
    reference if it was measured, otherwise the machine's limits.  Only the best round
    counts: a real slowdown shows in every round, a disturbance does not.

    @return: by workload, a line for each ratio that is much worse.
    """
    if not RECORD.exists():
        return {}
    before = json.loads(RECORD.read_text()).get("short", {})
    now = ratios(results, workloads, best=True)
    divisor = "Go" if now["Go"] else "limits"
    worse: dict[str, list[str]] = {}
    for workload, figure in figuresOf(workloads):
        name = f"{workload.name} {figure.name}"
        old, new = before.get(divisor, {}).get(name), now[divisor].get(name)
        if old is None or new is None:
            continue
        if (new / old if figure.more else old / new) < ENOUGH:
            line = f"{name}: {new:.3g} of {divisor}, on record {old:.3g}"
            worse.setdefault(workload.name, []).append(line)
    return worse


def machine() -> str:
    """
    Describe the machine and the versions of the software.
    """
    cpu = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(": ")[2]
    # The Python of a system is mostly built with profile-guided optimization, which
    # makes it faster.
    whose = "the system's" if sys.base_prefix == "/usr" else "not the system's"
    cores = len(list(Path("/sys/devices/system/cpu").glob("cpu[0-9]*")))
    return (
        f"{cpu}, {cores} CPUs, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()} "
        f"({whose}), Twisted {version('twisted')}, "
        f"cryptography {version('cryptography')}"
    )
