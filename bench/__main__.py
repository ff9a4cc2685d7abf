"""
C{python -m bench}: run the benchmarks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from textwrap import fill

from bench import peers, table, tunnels
from bench.figures import KINDS, THIS, Measured, Workload
from bench.processes import BenchError, Patience
from bench.results import Results, record, risen
from bench.workloads import ALL, ON_REQUEST, chosen, isThere
from gomux.test.support import plainpaths

#: The workloads of C{--check} that only have to work, with this project alone, and the
#: fraction of their work.
SMOKE, SMOKE_SCALE = ("source", "echo", "opens", "tunnel-small"), 0.02

HELP = """\
Measure this project beside others: the same work by each side in turn, round after
round, in one run.  What counts is the ratio of two sides, for single values change with
the machine and its load.  NAME is a workload or a group.  Without one, all groups with
goals are measured.

examples:
  python -m bench                       all that has goals
  python -m bench echo tunnels          a workload, and all of a group
  python -m bench sink --rounds 10 --scale 0.2
                                        more and shorter rounds
  python -m bench tunnels --against ../main
                                        this checkout beside another one
  python -m bench echo --without batches,busyPoll
                                        what these two fast paths gain, each alone
  python -m bench --write               record everything in bench/RESULTS.md
  python -m bench muxes --write         record this one again, keep the rest
"""


def listing() -> str:
    """
    List all groups and workloads.
    """
    lines = ["groups and workloads (* only by name):"]
    for group in dict.fromkeys(workload.group for workload in ALL):
        names = " ".join(w.name for w in ALL if w.group == group)
        text = f"{group}{'*' * (group in ON_REQUEST)}: {names}"
        lines.append(fill(text, 79, initial_indent="  ", subsequent_indent="    "))
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=HELP,
        epilog=listing(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="a workload or a group")
    add("--rounds", type=int, default=3, help="how many rounds (default 3)")
    add("--scale", type=float, default=1.0, help="which fraction of the work to do")
    add(
        "--spare",
        type=float,
        default=240,
        help="for how many seconds, in all, to repeat rounds in which the host took CPU"
        " time away (default 240)",
    )
    add("--against", metavar="DIRECTORY", help="another checkout, as a side `before`")
    add("--without", metavar="PATHS", help="fast paths, each off in a side of its own")
    add("--write", action="store_true", help="record the results in bench/RESULTS.md")
    add("--chart", metavar="FILE", help="draw all ratios that have goals (matplotlib)")
    add(
        "--check",
        action="store_true",
        help="for CI: compare the instructions of a frame with the record, and run"
        f" {', '.join(SMOKE)} once",
    )
    options = parser.parse_args(arguments)
    try:
        options.workloads = chosen(options.names)
        off = sorted(plainpaths.chosen(options.without or ""))
    except ValueError as error:
        parser.error(str(error))
    sides = [THIS]
    if options.against:
        sides.append(peers.variant("before", checkout=options.against))
    for path in off:
        sides.append(peers.variant(f"without {path}", off=path))
    if len(sides) > 1:
        if options.write:
            parser.error("--write records only beside others")
        # This project beside itself: the others do not matter.
        options.workloads = [
            replace(workload, sides=tuple(sides))
            for workload in options.workloads
            if THIS in workload.sides
        ]
    return options


def run(workload: Workload, rounds: int, scale: float, patience: Patience) -> Results:
    """
    Measure a workload, each side in turn.
    """
    results = Results()
    sides = [side for side in workload.sides if isThere(side)]
    for side in set(workload.sides) - set(sides):
        progress(f"{workload.name}: {side} is not installed")
    for _ in range(min(rounds, workload.rounds)):
        stolen, measured = patience.calmest(partial(turn, workload, sides, scale))
        results.addRound(workload, measured, stolen)
    for side in set(sides) & set(tunnels.CIPHERS):
        results.others[side] = tunnels.describe(side)
    return results


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


def check() -> int:
    """
    Check only figures that do not depend on the load of the machine.

    @return: the exit status.
    """
    [frames] = chosen(["frames"])
    worse = risen(turn(frames, ["bare", THIS], 1))
    for workload in chosen(list(SMOKE)):
        sides = [side for side in workload.sides if side in (THIS, *KINDS)]
        done = turn(workload, sides, SMOKE_SCALE)
        worse += [f"{workload.name}: {side} failed" for side in set(sides) - set(done)]
    for line in worse:
        print(f"WORSE: {line}")
    if not worse:
        print("a frame takes no more instructions than on record")
    return 1 if worse else 0


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.check:
        return check()
    patience = Patience(options.spare)
    results = Results()
    for workload in options.workloads:
        done = run(workload, options.rounds, options.scale, patience)
        for kind, values in vars(done).items():
            getattr(results, kind).update(values)
        if options.write:
            # At once, so that an interrupted run loses nothing.
            table.write(record(done, [w.name for w in ALL]), ALL)
    if options.scale != 1:
        print(f"\nAll work is {options.scale:g} of the sizes in the titles.")
    for title, rows in table.groups(results, options.workloads):
        print(f"\n{title}\n\n{table.terminal(rows)}")
    if options.chart:
        table.draw(results, options.workloads, options.chart)
    return 0


if __name__ == "__main__":
    sys.exit(main())
