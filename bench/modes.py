"""
Compare strict mode with compatible mode by the CPU instructions of a frame.  The count
depends neither on the machine's load nor on the position of a process in memory, both
of which change times by more than the modes differ.

    python -m bench.modes

This needs valgrind.  It prints the instructions of a small frame, of an echo of
64 bytes, and of a 64 KiB frame with its credit, in both muxes together.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from twisted.internet.protocol import Protocol

from bench.frame import FRAME, SMALL, Echo, Pair
from bench.instructions import instructions

#: How many calls the shorter run has, and how many more the longer one.
FEW, MORE = 200, 1000


def echo(strict: bool) -> Callable[[], None]:
    """
    @return: a function that does one echo.
    """
    pair = Pair(Echo, strict)
    stream = pair.open()

    def run() -> None:
        stream.write(SMALL)
        pair.settle()

    return run


def bulk(strict: bool) -> Callable[[], None]:
    """
    @return: a function that sends one large frame, and gets its credit.
    """
    pair = Pair(Protocol, strict)
    stream = pair.open()

    def run() -> None:
        stream.write(FRAME)
        pair.settle()

    return run


#: By name: what is done, and how many frames it is.
WORK = {"echo": (echo, 2), "bulk": (bulk, 1)}


def count(name: str, strict: bool, times: int) -> int:
    """
    @return: the instructions of a process that makes this many calls.
    """
    return instructions("bench.modes", name, str(int(strict)), str(times))


def main() -> None:
    for name, (_, frames) in WORK.items():
        costs = []
        for strict in (False, True):
            more = count(name, strict, FEW + MORE) - count(name, strict, FEW)
            costs.append(more / MORE / frames)
        compatible, both = costs[0], costs[1] / costs[0]
        print(
            f"{name}: {compatible:.0f} and {costs[1]:.0f}, ratio {both:.3f}", flush=True
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        make, _ = WORK[sys.argv[1]]
        run = make(sys.argv[2] == "1")
        for _ in range(int(sys.argv[3])):
            run()
    else:
        main()
