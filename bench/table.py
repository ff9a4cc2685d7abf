"""
Tables, for the terminal and in Markdown.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from bench.limits import TITLES
from bench.results import Results
from bench.workloads import OTHERS, Figure, Workload


def number(value: float) -> str:
    """
    Format a number with three significant digits, or as an integer from 100 on.
    """
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


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


def goal(figure: Figure) -> str:
    """
    Format the goal of a figure.
    """
    goals = []
    if figure.most is not None:
        goals.append(f"<= {number(figure.most)} {figure.unit}".rstrip())
    if figure.goal is not None:
        goals.append(f"{'>=' if figure.more else '<='} {figure.goal:g}")
    if figure.besideSSH is not None:
        goals.append(f"OpenSSH >= {figure.besideSSH:g}")
    return ", ".join(goals)


def verdict(results: Results, workload: Workload, figure: Figure) -> str:
    """
    Tell whether a figure reaches its goal, if it has one.
    """
    met = []
    ours = results.of(workload, figure, "this")
    if figure.most is not None and ours:
        met.append(statistics.median(ours) <= figure.most)
    for side in workload.sides[1:]:
        ratio = results.ratio(workload, figure, side)
        if figure.goal is not None and ratio is not None and side not in OTHERS:
            met.append(ratio >= figure.goal if figure.more else ratio <= figure.goal)
    beside = results.ratio(workload, figure, "this", "OpenSSH")
    if figure.besideSSH is not None and beside is not None:
        met.append(beside >= figure.besideSSH)
    if not met:
        return ""
    return " yes" if all(met) else " NO"


def groups(
    results: Results, workloads: list[Workload]
) -> Iterator[tuple[str, list[list[str]]]]:
    """
    Make a table for each group.

    @return: the title and the rows of each table; the first row is the heading.
    """
    limits = [["what", "unit", "measured"]]
    if results.limits:
        for name, (title, unit) in TITLES.items():
            limits.append([title, unit, spread(results.limit(name))])
        yield "Limits of this machine", limits
    for group in dict.fromkeys(workload.group for workload in workloads):
        yield group, list(_rows(results, [w for w in workloads if w.group == group]))


def _rows(results: Results, workloads: list[Workload]) -> Iterator[list[str]]:
    measured = [
        (workload, figure)
        for workload in workloads
        for figure in workload.figures
        if any(results.of(workload, figure, side) for side in workload.sides)
    ]
    sides = [
        side
        for side in dict.fromkeys(s for workload in workloads for s in workload.sides)
        if any(results.of(workload, figure, side) for workload, figure in measured)
    ]
    first = workloads[0].sides[0]
    pairs = [
        ("this", side) if side in OTHERS else (side, first)
        for side in sides
        if side != first and first in sides
    ]
    yield ["workload", "figure", *sides, *(f"{a} / {b}" for a, b in pairs), "goal"]
    title = None
    for workload, figure in measured:
        row = [workload.title if workload.title != title else ""]
        title = workload.title
        row.append(", ".join(filter(None, (figure.name, figure.unit))))
        row += [spread(results.of(workload, figure, side)) for side in sides]
        for side, yardstick in pairs:
            ratio = results.ratio(workload, figure, side, yardstick)
            row.append("" if ratio is None else f"{ratio:.2f}")
        row.append(goal(figure) + verdict(results, workload, figure))
        yield row


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
