"""
A reactor in memory that has a steady clock.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer


@implementer(IReactorFromThreads)
class OwnReactor(MemoryReactorClock):
    """
    A reactor in memory, for which L{steady<gomux._carrier.clock.steady>} makes a clock
    as for a real one.
    """

    def callFromThread(self, callable: Any, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("there are no threads")
