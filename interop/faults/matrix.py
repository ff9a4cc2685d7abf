"""
Run the tests of faults and abuse.  Print the matrix of their results, and write it to a
file if one is named::

    python -m interop.faults.matrix [docs/faults.rst]

The exit status is 0 if no test failed and no cell is empty.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.trial.reporter import TreeReporter
from twisted.trial.runner import TestLoader, TrialRunner

from interop.faults.cases import PAIRINGS
from interop.faults.reports import section
from interop.faults.table import NOT_APPLICABLE, REFERENCE_FAILS, ROWS

TESTS = Path(__file__).resolve().parent.parent / "test"

OK, FAILED, SKIPPED = "ok", "FAILED", "not run"

results: dict[tuple[int, str], list[str]] = {}

INTRODUCTION = """\
Faults and abuse
================

Each row is a fault of the peer, the network or the application, and each column
is a pairing in which it was tested. This project is the server or the client
against a peer that can send any frame, and against itself. Against the Go
reference, the reference is the client or the server. This command runs the
tests and writes this page: ``python -m interop.faults.matrix docs/faults.rst``.

"""


class Collector(TreeReporter):
    """
    A trial reporter that records the outcome of each test by row and pairing.
    """

    def _note(self, test: Any, outcome: str) -> None:
        method = getattr(test, getattr(test, "_testMethodName", ""), None)
        for number in getattr(method, "faultRows", ()):
            pairing = method.faultPairing or test.pairing  # type: ignore[union-attr]
            results.setdefault((number, pairing), []).append(outcome)

    def addSuccess(self, test: Any) -> None:
        super().addSuccess(test)
        self._note(test, OK)

    def addFailure(self, test: Any, failure: Any) -> None:
        super().addFailure(test, failure)
        self._note(test, FAILED)

    def addError(self, test: Any, error: Any) -> None:
        super().addError(test, error)
        self._note(test, FAILED)

    def addSkip(self, test: Any, reason: Any) -> None:
        super().addSkip(test, reason)
        self._note(test, SKIPPED)


def cell(number: int, pairing: str) -> str:
    """
    Make the text of a cell: the outcome of the tests of one row in one pairing.
    """
    outcomes = results.get((number, pairing))
    if outcomes is None:
        return "n.a." if (number, pairing) in NOT_APPLICABLE else "NOT TESTED"
    for outcome in (FAILED, SKIPPED):
        if outcome in outcomes:
            return outcome
    return f"{OK} ({len(outcomes)})"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """
    Write a table in reStructuredText.
    """
    grid = [list(heads), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in grid
    ]
    lines = [line.rstrip() for line in lines]
    return [rule, lines[0], rule, *lines[1:], rule]


def page() -> str:
    """
    Make the page with the matrix and its notes.
    """
    rows = [
        [str(number), text, *(cell(number, pairing) for pairing in PAIRINGS)]
        for number, text in ROWS.items()
    ]
    lines = table(["#", "case", *PAIRINGS], rows)
    reasons: dict[str, dict[int, None]] = {}
    for (number, _), reason in sorted(NOT_APPLICABLE.items()):
        reasons.setdefault(reason, {})[number] = None
    lines += ["", "In brackets: how many tests. Not applicable:", ""]
    lines += [
        f"- {', '.join(map(str, numbers))}: {reason}."
        for reason, numbers in reasons.items()
    ]
    lines += ["", "Known problems of the reference, by row:", ""]
    lines += [f"- {number}: {text}." for number, text in REFERENCE_FAILS.items()]
    lines += section()
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """
    Run all tests.

    @return: The exit status.
    """
    loader = TestLoader()
    suite = loader.suiteFactory(
        loader.loadByName(f"interop.test.{path.stem}")
        for path in sorted([*TESTS.glob("test_faults_*.py"), TESTS / "test_reports.py"])
    )
    outcome = TrialRunner(Collector, workingDirectory="_trial_temp").run(suite)
    print(page())
    if arguments:
        Path(arguments[0]).write_text(INTRODUCTION + page())
    complete = "NOT TESTED" not in page()
    return 0 if outcome.wasSuccessful() and complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
