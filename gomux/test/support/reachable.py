"""
Finds what an object keeps alive.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import FrameType, FunctionType, ModuleType
from typing import Any
from unittest import TestCase
from weakref import WeakKeyDictionary

from twisted.internet.base import ReactorBase
from twisted.logger import Logger

_BOUNDS = (type, ModuleType, ReactorBase, TestCase, Logger, WeakKeyDictionary)


def reachable(*roots: object) -> Iterator[Any]:
    """
    @return: all objects that can be reached from C{roots}, without what can only be
        reached through a module, a class or the globals of a function: this is code,
        which is the same in all processes.  Also without what can only be reached
        through the real reactor, a test, a log or a dictionary of all clocks: this is
        of other tests.  Also without the variables of the functions that run now.
    """
    seen: set[int] = set()
    # Before Python 3.11 a traceback leads to them.
    running: FrameType | None = sys._getframe()
    while running is not None:
        seen.add(id(running))
        running = running.f_back
    waiting = list(roots)
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, _BOUNDS):
            continue
        seen.add(id(found))
        yield found
        if isinstance(found, FunctionType):
            waiting += found.__closure__ or ()
            waiting += found.__defaults__ or ()
        else:
            waiting += gc.get_referents(found)
