"""
Run the tests of faults and abuse repeatedly, and count the failures::

    python -m interop.faults.repeat [--rounds N] [--all]

The default is 20 rounds of the fast tests, which take about a minute in all.  C{--all}
adds the tests that start a peer process each.  Each round runs in a new process.  The
exit status is 0 if nothing failed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

TESTS = ROOT / "interop" / "test"

IN_MEMORY = ("wire", "carrier", "mux", "session", "tunnel", "test_fuzz")
"""The modules of the package's own tests that cover rows of the fault table."""

SLOW = ("cut_short", "go", "live", "network", "operator")
"""The modules C{interop.test.test_faults_...} that only C{--all} runs."""

ROUNDS = 20

TIME_LIMIT = 900.0
"""Seconds that one round may take."""


def modules(slow: bool) -> list[str]:
    """
    Find the test modules of one round.

    @param slow: Whether to include the slow modules.
    """
    names = [path.stem for path in sorted(TESTS.glob("test_faults_*.py"))]
    left = [] if slow else [f"test_faults_{name}" for name in SLOW]
    return [
        *(f"gomux.test.{name}" for name in IN_MEMORY),
        *(f"interop.test.{name}" for name in names if name not in left),
    ]


def runRound(tests: list[str], directory: str) -> tuple[int, list[str], str]:
    """
    Run tests once.

    @return: How many tests ran, the names of those that did not pass (skipped tests
        included), and trial's output.
    """
    trial = [sys.executable, "-m", "twisted.trial", "--reporter=text"]
    try:
        done = subprocess.run(
            [*trial, "--temp-directory", directory, *tests],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIME_LIMIT,
        )
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        return 0, ["(a round that did not end)"], output
    output = done.stdout.decode(errors="replace")
    ran = re.search(r"^Ran (\d+) tests", output, re.MULTILINE)
    names = re.findall(r"^(?:gomux|interop)(?:\.\w+){3,}$", output, re.MULTILINE)
    if ran is None or (done.returncode and not names):
        names.append("(a round that broke off)")
    return int(ran[1]) if ran else 0, names, output


def main(arguments: list[str]) -> int:
    """
    Run all rounds.

    @return: The exit status.
    """
    parser = ArgumentParser(prog="python -m interop.faults.repeat")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args(arguments)
    tests = modules(options.all)
    failures: Counter[str] = Counter()
    total = 0
    for number in range(1, options.rounds + 1):
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="gomux-repeat-") as directory:
            ran, names, output = runRound(tests, f"{directory}/trial")
        total += ran
        failures.update(names)
        if names:
            print(output)
        seconds = time.monotonic() - began
        print(
            f"round {number}: {ran} tests, {len(names)} did not pass, {seconds:.0f} s",
            flush=True,
        )
    for name, count in failures.most_common():
        print(f"{name}: {count} of {options.rounds}")
    print(f"{options.rounds} rounds, {total} tests, {failures.total()} did not pass")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
