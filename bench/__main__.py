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

#: How many times more a short run measures what seems to have become worse.
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
        help="how often to measure (default 5, with --short 3)",
    )
    parser.add_argument(
        "--again",
        type=int,
        default=None,
        help="how many rounds to measure again because a host took the CPUs away "
        "for others (default 20, with --short none)",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="how much of the usual work to do (default 1)",
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="a few workloads, small, and compared with what is on record: for CI",
    )
    parser.add_argument(
        "--write", action="store_true", help="record it in bench/RESULTS.md"
    )
    parser.add_argument(
        "--plot", metavar="DIRECTORY", help="draw each group (needs matplotlib)"
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

    @param results: what it goes into.
    """
    for workload in workloads:
        sides = [side for side in workload.sides if isThere(side)]
        for side in set(workload.sides) - set(sides):
            progress(f"{workload.name}: {side} is not here")
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
    Measure each of some sides once.

    @return: what came of those that went well.
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
    Write down the tables of all that is on record.
    """
    parts = ["# Results", "Written by `python -m bench --write`.", f"{machine()}."]
    results = recorded()
    parts += [f"{name} is {what}." for name, what in sorted(results.others.items())]
    spoiled = [name for name, taken in results.stolen.items() if max(taken) > STOLEN]
    parts.append(
        f"Rounds in which others took more than {STOLEN:.0%} of the CPUs' time were "
        f"measured again; of what is on record they did so in {', '.join(spoiled)}."
        if spoiled
        else f"In no round did others take more than {STOLEN:.0%} of the CPUs' time."
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
        print(f"\nAll at {options.scale:g} of the sizes that the titles say.")
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
