"""
Repeat measurements that other guests of the same host have disturbed.

The host of a virtual machine may take its CPUs away, which shows as stolen time.  That
can make the slowest of many round trips ten times as slow, so a ratio of two such
figures means nothing.  No program in the machine can prevent it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: The largest fraction of stolen CPU time with which a measurement still counts.
STOLEN = 0.01

#: How often a disturbed round is tried at most.
TRIES = 5

#: How many slices are measured at most for each slice that is wanted.
SLICES = 10

_STAT = Path("/proc/stat")


def _time() -> tuple[int, int]:
    """
    @return: the stolen time and the whole time of all CPUs since the machine's start,
        in the kernel's units.
    """
    fields = [int(n) for n in _STAT.read_text().splitlines()[0].split()[1:9]]
    return fields[7], sum(fields)


def watch(measure: Callable[[], T]) -> tuple[float, T]:
    """
    Run a measurement.

    @return: the fraction of CPU time that was stolen meanwhile, and the result.
    """
    stolen, time = _time()
    measured = measure()
    laterStolen, laterTime = _time()
    return (laterStolen - stolen) / max(1, laterTime - time), measured


def calmSlices(measure: Callable[[], T], count: int) -> tuple[float, list[T]]:
    """
    Run a measurement in slices, until enough slices are undisturbed.

    @param measure: measures one slice.
    @param count: the number of undisturbed slices that are wanted.
    @return: the largest fraction of stolen CPU time in the calmest slices, and the
        results of these slices.
    """
    slices: list[tuple[float, T]] = []
    calm = 0
    while calm < count and len(slices) < count * SLICES:
        slices.append(watch(measure))
        calm += slices[-1][0] <= STOLEN
    slices.sort(key=lambda one: one[0])
    return slices[count - 1][0], [measured for _, measured in slices[:count]]


class Patience:
    """
    Repeats disturbed measurements, and limits the number of all repetitions.
    """

    def __init__(self, again: int) -> None:
        """
        @param again: the number of repetitions of all rounds together.
        """
        self._again = again

    def calmest(self, measure: Callable[[], T]) -> tuple[float, T]:
        """
        Measure one round.

        @param measure: measures all sides that are compared.
        @return: the fraction of stolen CPU time in the calmest attempt, and its result.
        """
        best = self._watch(measure)
        for _ in range(TRIES - 1):
            if best[0] <= STOLEN or not self._again:
                break
            self._again -= 1
            best = min(best, self._watch(measure), key=lambda attempt: attempt[0])
        return best

    def _watch(self, measure: Callable[[], T]) -> tuple[float, T]:
        part, measured = watch(measure)
        if part > STOLEN:
            print(f"the host took {part:.1%} of the CPU time", file=sys.stderr)
        return part, measured
