"""
Tell measurements apart from disturbances by other guests of the same host.

The host of a virtual machine may take its CPUs away, which shows as stolen time.  It
can make the slowest of many round trips ten times as slow.  No program inside can
prevent it, and a ratio of two such figures means nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: The largest fraction of stolen CPU time with which a measurement still counts.
STOLEN = 0.01

#: How often one round is tried.
TRIES = 5

#: How many slices are measured at most for each that is wanted.
SLICES = 10

_STAT = Path("/proc/stat")


def _time() -> tuple[int, int]:
    """
    @return: how much time of all CPUs was stolen since the start, and how much
        there was, in units of the kernel's.
    """
    fields = [int(n) for n in _STAT.read_text().splitlines()[0].split()[1:9]]
    return fields[7], sum(fields)


def watch(measure: Callable[[], T]) -> tuple[float, T]:
    """
    @return: what part of the CPUs' time others took, and what was measured meanwhile.
    """
    stolen, time = _time()
    measured = measure()
    laterStolen, laterTime = _time()
    return (laterStolen - stolen) / max(1, laterTime - time), measured


def calmSlices(measure: Callable[[], T], count: int) -> tuple[float, list[T]]:
    """
    Measure something that can be measured slice by slice.

    @param measure: measures one slice.
    @param count: how many slices are wanted in which the host took nothing to speak
        of.
    @return: the calmest slices, and what part of the CPUs' time others took in them at
        most.
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
    Repeats disturbed measurements, up to a number of repetitions in all.
    """

    def __init__(self, again: int) -> None:
        """
        @param again: how many times a round may be measured again, in all.
        """
        self._again = again

    def calmest(self, measure: Callable[[], T]) -> tuple[float, T]:
        """
        Measure one round.

        @param measure: measures all that is to be compared.
        @return: of the calmest attempt, what part of the CPUs' time others took, and
            what was measured.
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
            print(f"others took {part:.1%} of the CPUs' time", file=sys.stderr)
        return part, measured
