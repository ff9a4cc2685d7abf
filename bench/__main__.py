"""
C{python -m bench}: run the benchmarks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from bench import limits, table, tunnels
from bench.calm import STOLEN, Patience
from bench.processes import BenchError
from bench.results import TABLES, Results, fallen, machine, record, recorded
from bench.workloads import ALL, OTHERS, SHORT, SHORT_SCALE, Measured, Workload, isThere

#: How often a short run repeats the workloads that seem slower than recorded.
SECOND_LOOKS = 4


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Run this project and the Go reference on the same work, in turn.",
    )
    parser.add_argument(
        "--only",
        metavar="NAMES",
        help="which workloads, joined by commas: " + ", ".join(w.name for w in ALL),
    )
    parser.add_argument(
        "--repeat",
        type=int,
        default=None,
        help="how many rounds to measure (default 5, with --short 3)",
    )
    parser.add_argument(
        "--again",
        type=int,
        default=None,
        help="how many rounds to repeat, in all, because the host took CPU time away "
        "(default 20, with --short none)",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="which fraction of the usual work to do (default 1)",
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="run a few small workloads and compare them with the record, for CI",
    )
    parser.add_argument(
        "--write", action="store_true", help="record the results in bench/RESULTS.md"
    )
    parser.add_argument(
        "--plot",
        metavar="DIRECTORY",
        help="plot each group to a file (needs matplotlib)",
    )
    options = parser.parse_args(arguments)
    names = SHORT if options.short else [w.name for w in ALL]
    if options.only:
        names = options.only.split(",")
        unknown = set(names) - {w.name for w in ALL}
        if unknown:
            parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    if options.short:
        options.scale *= SHORT_SCALE
    if options.repeat is None:
        options.repeat = 3 if options.short else 5
    if options.again is None:
        options.again = 0 if options.short else 20
    options.workloads = [w for w in ALL if w.name in names]
    return options


def run(
    results: Results,
    workloads: list[Workload],
    repeat: int,
    scale: float,
    patience: Patience,
) -> None:
    """
    Measure some workloads, each side in turn.

    @param results: the results to add to.
    """
    for workload in workloads:
        sides = [side for side in workload.sides if isThere(side)]
        for side in set(workload.sides) - set(sides):
            progress(f"{workload.name}: {side} is not installed")
        results.limits[workload.name] = limits.measure(scale)
        for _ in range(min(repeat, workload.repeats)):
            stolen, measured = patience.calmest(partial(turn, workload, sides, scale))
            results.addRound(workload, measured, stolen)
        for side in set(sides) & set(OTHERS):
            results.others[side] = tunnels.describe(side)


def stillFallen(
    results: Results, workloads: list[Workload], scale: float, patience: Patience
) -> dict[str, list[str]]:
    """
    Compare a short run with the recorded ratios.  A workload that seems slower is
    measured again after all others.  By then a disturbance by the host is over, while
    a real slowdown remains.

    @return: the ratios that are still worse, by workload.
    """
    worse = fallen(results, workloads)
    for _ in range(SECOND_LOOKS):
        if not worse:
            break
        for line in sum(worse.values(), []):
            progress(f"again, for it seems worse: {line}")
        run(results, [w for w in workloads if w.name in worse], 1, scale, patience)
        worse = fallen(results, workloads)
    return worse


def turn(workload: Workload, sides: list[str], scale: float) -> dict[str, Measured]:
    """
    Measure each side once.

    @return: the results of the sides that did not fail.
    """
    measured = {}
    for side in sides:
        try:
            measured[side] = workload.measure(side, scale)
        except (BenchError, OSError) as e:
            progress(f"{workload.name}, {side}: {e}")
            continue
        shown = (f"{n} {table.number(v)}" for n, v in measured[side].items())
        progress(f"{workload.name}, {side}: {', '.join(shown)}")
    return measured


def progress(line: str) -> None:
    """
    Report progress.
    """
    print(line, file=sys.stderr, flush=True)


def write() -> None:
    """
    Write the tables of all recorded results to C{RESULTS.md}.
    """
    parts = ["# Results", "Written by `python -m bench --write`.", f"{machine()}."]
    results = recorded()
    parts += [f"{name} is {what}." for name, what in sorted(results.others.items())]
    spoiled = [name for name, taken in results.stolen.items() if max(taken) > STOLEN]
    parts.append(
        f"Rounds in which the host took more than {STOLEN:.0%} of the CPU time for "
        f"others were repeated. It still did so in a recorded round of "
        f"{', '.join(spoiled)}."
        if spoiled
        else f"In no round did the host take more than {STOLEN:.0%} of the CPU time."
    )
    for title, rows in table.groups(results, list(ALL)):
        if len(rows) > 1:
            parts += [f"## {title}", table.markdown(rows)]
    TABLES.write_text("\n\n".join(parts) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    workloads: list[Workload] = options.workloads
    patience = Patience(options.again)
    results = Results()
    run(results, workloads, options.repeat, options.scale, patience)
    worse: dict[str, list[str]] = {}
    if options.short and not options.write:
        worse = stillFallen(results, workloads, options.scale, patience)
    tables = list(table.groups(results, workloads))
    if options.scale != 1:
        print(f"\nAll work is {options.scale:g} of the sizes in the titles.")
    for title, rows in tables:
        print(f"\n{title}\n\n{table.terminal(rows)}")
    for line in sum(worse.values(), []):
        print(f"WORSE: {line}")
    if options.write:
        record(results, workloads, options.short)
        if not options.short:
            write()
    if options.plot:
        from bench import plot

        plot.draw(results, workloads, options.plot)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
