"""
Finds what an object keeps alive.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any


def reachable(*roots: object) -> Iterator[Any]:
    """
    @return: all objects that can be reached from C{roots}, without what can only be
        reached through a module, a class or the globals of a function: this is code,
        which is the same in all processes.
    """
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, (type, ModuleType)):
            continue
        seen.add(id(found))
        yield found
        if isinstance(found, FunctionType):
            waiting += found.__closure__ or ()
            waiting += found.__defaults__ or ()
        else:
            waiting += gc.get_referents(found)
