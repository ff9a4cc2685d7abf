"""
Show results: one table for each group, and one chart.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from bench.figures import Figure, Goal, Workload
from bench.processes import STOLEN
from bench.results import HERE, Results, machine

TABLES = HERE / "RESULTS.md"


def number(value: float) -> str:
    """
    Format a number with three significant digits, or as an integer from 100 on.
    """
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """
    Format the median of some values, and their range.
    """
    if not values:
        return ""
    middle = number(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values))} - {number(max(values))})"


def goals(results: Results, workload: Workload, figure: Figure) -> str:
    """
    Format the goals of a figure, and tell whether each is reached.
    """
    sign = ">=" if figure.more else "<="
    cells = []
    for goal in figure.goals:
        met = results.isMet(workload, figure, goal)
        if met is not None:
            of = _of(workload, goal)
            cells.append(f"{of}{sign} {goal.bound:g}: {'yes' if met else 'NO'}")
    return (" or " if figure.either else ", ").join(cells)


def _of(workload: Workload, goal: Goal) -> str:
    """
    @return: which ratio a goal is for, if the workload has several.
    """
    if goal.over is None or len(workload.pairs) == 1:
        return ""
    return f"{goal.side} / {goal.over} "


def groups(
    results: Results, workloads: Iterable[Workload]
) -> Iterator[tuple[str, list[list[str]]]]:
    """
    Make a table for each group with results.

    @return: the title and the rows of each table; the first row is the heading.
    """
    measured = [workload for workload in workloads if workload.name in results.values]
    for group in dict.fromkeys(workload.group for workload in measured):
        yield group, list(_rows(results, [w for w in measured if w.group == group]))


def _rows(results: Results, workloads: list[Workload]) -> Iterator[list[str]]:
    sides = list(dict.fromkeys(side for w in workloads for side in w.sides))
    pairs = list(dict.fromkeys(pair for w in workloads for pair in w.pairs))
    yield ["workload", "figure", *sides, *(f"{a} / {b}" for a, b in pairs), "goal"]
    title = None
    for workload in workloads:
        for figure in workload.figures:
            values = [results.of(workload, figure, side) for side in sides]
            if not any(values):
                continue
            row = [workload.title if workload.title != title else ""]
            title = workload.title
            row.append(", ".join(filter(None, (figure.name, figure.unit))))
            row += map(spread, values)
            for side, over in pairs:
                ratio = results.ratio(workload, figure, side, over)
                row.append("" if ratio is None else f"{ratio:.2f}")
            yield [*row, goals(results, workload, figure)]


def terminal(rows: list[list[str]]) -> str:
    """
    Lay a table out in columns.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def markdown(rows: list[list[str]]) -> str:
    """
    Write a table in Markdown.
    """
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def write(results: Results, workloads: Iterable[Workload]) -> None:
    """
    Write the tables of all recorded results to C{RESULTS.md}.
    """
    parts = ["# Results", "Written by `python -m bench --write`.", f"{machine()}."]
    parts += [f"{name} is {what}." for name, what in sorted(results.others.items())]
    spoiled = [name for name, taken in results.stolen.items() if max(taken) > STOLEN]
    parts.append(
        f"The host took more than {STOLEN:.0%} of the CPU time for others in a recorded"
        f" round of {', '.join(spoiled) or 'no workload'}. Such rounds were repeated."
    )
    for title, rows in groups(results, workloads):
        parts += [f"## {title}", markdown(rows)]
    TABLES.write_text("\n\n".join(parts) + "\n")


def draw(results: Results, workloads: Iterable[Workload], path: str) -> None:
    """
    Draw a bar for each ratio that has a goal, and a mark at the goal.
    """
    from matplotlib import pyplot

    names, ratios, bounds, colours = [], [], [], []
    for workload in workloads:
        for figure in workload.figures:
            for goal in figure.goals:
                over = goal.over or ""
                ratio = results.ratio(workload, figure, goal.side, over)
                if ratio is not None:
                    pair = f"{goal.side} / {over}"
                    names.append(f"{workload.name}: {figure.name}, {pair}")
                    ratios.append(ratio)
                    bounds.append(goal.bound)
                    isMet = results.isMet(workload, figure, goal)
                    colours.append("tab:blue" if isMet else "tab:orange")
    pyplot.figure(figsize=(10, 1 + 0.25 * len(names)))
    pyplot.barh(names, ratios, color=colours)
    pyplot.plot(bounds, names, "k|", markersize=12, label="goal")
    pyplot.xscale("log")
    pyplot.gca().invert_yaxis()
    pyplot.title("Ratios with goals; orange: not reached")
    pyplot.legend()
    pyplot.tight_layout()
    pyplot.savefig(path)
