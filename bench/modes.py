"""
Compare strict mode with compatible mode: bulk both ways, and an echo.

    python -m bench.modes

The two modes are measured in turn, each time between new processes, which differ in
speed by up to 15 % in either mode.
"""

from __future__ import annotations

import os
import statistics

from bench.peers import THIS, Side, drive

ROUNDS = 10
SIZE = 1 << 29
#: By name: a driver, and which number of its result counts.
WORK = {
    "sink": (f"sink {SIZE} 1 65536", "rate"),
    "source": (f"source {SIZE} 1", "rate"),
    "echo": ("echo 64 20000", "p50"),
}
STRICT = Side("strict", "this", "this", ("--strict",))


def main() -> None:
    print(f"load before: {os.getloadavg()[0]:.1f}")
    for name, (driver, figure) in WORK.items():
        figures: dict[Side, list[float]] = {THIS: [], STRICT: []}
        cpu: dict[Side, list[float]] = {THIS: [], STRICT: []}
        for number in range(ROUNDS):
            for side in (THIS, STRICT)[:: -1 if number % 2 else 1]:
                driven = drive(side, driver)
                figures[side].append(driven.last[figure])
                cpu[side].append(driven.cpu)
        for what, found in ((figure, figures), ("CPU", cpu)):
            ratios = [b / a for a, b in zip(*found.values(), strict=True)]
            medians = [statistics.median(found[side]) for side in (THIS, STRICT)]
            print(
                f"{name} {what}: {medians[0]:.4g} and {medians[1]:.4g}, ratio"
                f" {medians[1] / medians[0]:.3f}"
                f" ({min(ratios):.3f} to {max(ratios):.3f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
