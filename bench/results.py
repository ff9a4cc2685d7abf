"""
The results of a run: collect, compare and record them.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.figures import Figure, Goal, Measured, Workload

HERE = Path(__file__).resolve().parent
RECORD = HERE / "results.json"

#: The most that the instructions of a frame may rise, divided by those on record.
ENOUGH = 1.15

#: L{ownInstructions} divides by this figure of the bare frames.
UNIT = "echo of 64 bytes"


@dataclass
class Results:
    """
    The results of one run.

    @ivar values: by workload, figure and side, the value of each round in order.
    @ivar stolen: by workload, the fraction of stolen CPU time in each round.
    @ivar others: versions and settings of the other software that was measured.
    """

    values: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    stolen: dict[str, list[float]] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)

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
        self, workload: Workload, figure: Figure, side: str, over: str
    ) -> float | None:
        """
        Divide the values of a side by those of another side in the same rounds.

        @return: the median, or L{None} if one of the two was not measured.
        """
        ours, theirs = (self.of(workload, figure, name) for name in (side, over))
        if not ours or len(ours) != len(theirs) or 0 in theirs:
            return None
        return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))

    def isMet(self, workload: Workload, figure: Figure, goal: Goal) -> bool | None:
        """
        Tell whether a goal is reached, if that was measured.
        """
        if goal.over is None:
            values = self.of(workload, figure, goal.side)
            value = statistics.median(values) if values else None
        else:
            value = self.ratio(workload, figure, goal.side, goal.over)
        if value is None:
            return None
        return value >= goal.bound if figure.more else value <= goal.bound


def ownInstructions(measured: dict[str, Measured]) -> Measured:
    """
    @param measured: the instructions of bare and of this project's frames.
    @return: the instructions beside sealing and opening, divided by those of a bare
        echo.  Thus other versions of Python and of C{cryptography} change them little.
    """
    bare, this = measured["bare"], measured["this"]
    return {name: round((this[name] - bare[name]) / bare[UNIT], 3) for name in this}


def kept() -> dict[str, Any]:
    """
    @return: the recorded results.
    """
    found: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return found


def record(results: Results, names: Iterable[str]) -> Results:
    """
    Add results to those on record, in place of older ones of the same workloads.

    @param names: the names of all workloads that there are; results of others go.
    @return: all results that are on record now.
    """
    before = kept()
    whole: dict[str, Any] = {"machine": machine()}
    for kind, new in vars(results).items():
        whole[kind] = {**before.get(kind, {}), **new}
        if kind != "others":
            known = whole[kind]
            whole[kind] = {name: known[name] for name in names if name in known}
    frames = whole["values"].get("frames", {})
    if all("bare" in sides and "this" in sides for sides in frames.values()):
        whole["instructions"] = ownInstructions(
            {
                side: {name: sides[side][-1] for name, sides in frames.items()}
                for side in ("bare", "this")
            }
        )
    RECORD.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
    return Results(**{name: whole[name] for name in vars(results)})


def risen(measured: dict[str, Measured]) -> list[str]:
    """
    Compare the instructions of frames with those on record.

    @return: a line for each figure that is worse.
    """
    if not measured.keys() >= {"bare", "this"}:
        return ["the instructions of a frame could not be counted"]
    before = kept().get("instructions", {})
    return [
        f"{name}: {now} bare echoes, on record {before[name]}"
        for name, now in ownInstructions(measured).items()
        if name in before and now > before[name] * ENOUGH
    ]


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
