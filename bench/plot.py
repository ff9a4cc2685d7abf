"""
Draws one plot for each group, with matplotlib.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from matplotlib import pyplot

from bench.results import Results
from bench.workloads import GROWTH, Workload


def draw(results: Results, workloads: list[Workload], directory: str) -> None:
    """
    Draw all groups, each into a file of its own.
    """
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    for group in dict.fromkeys(workload.group for workload in workloads):
        members = [
            w for w in workloads if w.group == group and w.name in results.values
        ]
        if members:
            draw_ = _growth if group == "Growth" else _bars
            draw_(results, members)
            pyplot.title(group)
            pyplot.legend()
            pyplot.tight_layout()
            pyplot.savefig(path / f"{group.lower().replace(' ', '-')}.svg")
            pyplot.close()


def _bars(results: Results, workloads: list[Workload]) -> None:
    """
    Draw the figures of each side, divided by those of the yardstick.
    """
    sides = list(dict.fromkeys(side for w in workloads for side in w.sides))
    figures = [(w, f) for w in workloads for f in w.figures]
    pyplot.figure(figsize=(10, 1 + 0.5 * len(figures)))
    height = 0.8 / len(sides)
    for i, side in enumerate(sides):
        ratios = [results.ratio(w, f, side) or 0 for w, f in figures]
        places = [row + i * height for row in range(len(figures))]
        pyplot.barh(places, ratios, height, label=side)
    names = [f"{w.title}: {f.name}, {f.unit}" for w, f in figures]
    pyplot.yticks([row + 0.4 - height / 2 for row in range(len(figures))], names)
    pyplot.gca().invert_yaxis()
    pyplot.xlabel(f"divided by {workloads[0].sides[0]}")


def _growth(results: Results, workloads: list[Workload]) -> None:
    """
    Draw the cost of a frame over the number of open streams.
    """
    [workload] = workloads
    pyplot.figure(figsize=(8, 5))
    for kind in ("bulk", "small"):
        figures = [f for f in workload.figures if f.name.split()[0] == kind]
        for side in workload.sides:
            costs = [results.of(workload, figure, side) for figure in figures]
            known = [(n, c) for n, c in zip(GROWTH, costs, strict=False) if c]
            pyplot.plot(
                [n for n, _ in known],
                [statistics.median(c) for _, c in known],
                label=f"{side}, {kind}",
                marker="o",
            )
    pyplot.xscale("log")
    pyplot.yscale("log")
    pyplot.xlabel("open streams")
    pyplot.ylabel("us a frame")
