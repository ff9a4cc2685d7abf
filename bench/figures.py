"""
What a benchmark is made of: a workload gives figures for several sides, and a figure
may have goals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: The values that one measurement gives, by the names of the figures.
Measured = dict[str, float]

#: This project's name among the sides.
THIS = "this"

#: Sides that this project is divided by, although they are not a workload's first one.
LIMITS = (
    *("OpenSSH", "OpenSSH AES", "OpenSSL", "Twisted", "loop in Twisted", "loop"),
    "sockets",
)

#: Sides that are divided by this project, because they are kinds of it.
KINDS = ("program", "service", "strict")


@dataclass(frozen=True)
class Goal:
    """
    A goal of a figure.

    @ivar bound: the least value if more is better, otherwise the largest.
    @ivar over: the side by whose value the value is divided, or L{None} for the value
        itself.
    @ivar side: the side that has to reach the goal.
    """

    bound: float
    over: str | None = "Go"
    side: str = THIS


@dataclass(frozen=True)
class Figure:
    """
    One number that a workload gives.

    @ivar name: its name in tables.
    @ivar unit: its unit.
    @ivar goals: its goals.
    @ivar more: whether a larger value is better.
    @ivar either: whether one goal of several is enough.
    """

    name: str
    unit: str
    goals: tuple[Goal, ...] = ()
    more: bool = True
    either: bool = False


@dataclass(frozen=True)
class Workload:
    """
    One piece of work.

    @ivar name: its name on the command line.
    @ivar group: the table that it belongs to.
    @ivar title: its title in tables.
    @ivar figures: the figures that it gives.
    @ivar sides: the sides that are measured, the yardstick first.
    @ivar measure: measures it once.  Takes the side's name and the fraction of the
        usual work to do.
    @ivar rounds: the most rounds, for a workload that takes long or never varies.
    """

    name: str
    group: str
    title: str
    figures: tuple[Figure, ...]
    sides: tuple[str, ...]
    measure: Callable[[str, float], Measured]
    rounds: int = 1000

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """
        The sides that tables divide by each other.
        """
        first = self.sides[0]
        base = THIS if THIS in self.sides else first
        return [
            (base, side) if side in LIMITS else (side, base if side in KINDS else first)
            for side in self.sides[1:]
        ]
