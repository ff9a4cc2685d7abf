"""
C{python -m interop.strictmodel}; see the package.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from dataclasses import asdict

from interop.strictmodel.roles import Rules
from interop.strictmodel.search import PROPERTIES
from interop.strictmodel.weakenings import WEAKENINGS, search


def show(title: str, expected: str, rules: Rules, sessions: int, frames: int) -> bool:
    """
    Search, and print what was found.

    @return: whether it is what was expected.
    """
    normal = asdict(Rules())
    changes = [f"{k}={v}" for k, v in asdict(rules).items() if v != normal[k]]
    print(": ".join([title, *changes]))
    began, broken = time.monotonic(), ""
    for setup, result in search(rules, expected, sessions, frames):
        broken = result.broken
        print(
            f"  {setup.name}, {setup.frames} frames and CloseMux a side, new keys every"
            f" {setup.every}: {result.states} states, {result.steps} steps"
        )
        for number, line in enumerate(result.trace, 1):
            print(f"    {number:2} {line}")
    seconds = time.monotonic() - began
    print(f"  broken: {broken or 'nothing'} ({seconds:.1f} s)", flush=True)
    return broken == expected


def main(arguments: list[str]) -> int:
    """
    @return: 0 if strict mode holds, and each weakening breaks what it should.
    """
    parser = ArgumentParser(
        prog="python -m interop.strictmodel",
        description="Search a model of strict mode for attacks.",
    )
    parser.add_argument("--weak", choices=WEAKENINGS, help="search with this weakening")
    parser.add_argument("--all", action="store_true", help="search with each of them")
    parser.add_argument(
        "--bound",
        nargs=2,
        type=int,
        default=(2, 3),
        metavar=("SESSIONS", "FRAMES"),
        help="sessions a role, and frames a side before CloseMux (default: 2 3)",
    )
    options = parser.parse_args(arguments)
    searched = {options.weak: WEAKENINGS[options.weak]} if options.weak else {}
    if not options.weak:
        print(*(f"{name}: {text}" for name, text in PROPERTIES.items()), sep="\n")
        searched = {"strict mode, version 2": ("", Rules())}
    if options.all:
        searched |= WEAKENINGS
    wrong = [
        title
        for title, (expected, rules) in searched.items()
        if not show(title, expected, rules, *options.bound)
    ]
    if wrong:
        print("not as expected:", ", ".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
