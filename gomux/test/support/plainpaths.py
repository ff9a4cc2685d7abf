"""
The environment variable C{GOMUX_PLAIN}: which fast paths a process of a test begins
without.

It has names of L{FastPaths<gomux._fastpaths.FastPaths>} with commas between them, or
C{all}.  The tests and the programs in C{interop/} obey it, as do the processes that
those start; the package itself does not know of it::

    GOMUX_PLAIN=all trial gomux.test.mux.test_model interop.test.test_matrix
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from gomux._fastpaths import FastPaths, useFastPaths

VARIABLE = "GOMUX_PLAIN"

#: The names of all fast paths.
NAMES = tuple(field.name for field in fields(FastPaths))


def use(off: Iterable[str]) -> FastPaths:
    """
    Do without some fast paths, and with all others.

    @param off: the names of those.
    @return: the ones of before, for L{useFastPaths}.
    """
    return useFastPaths(FastPaths(**dict.fromkeys(off, False)))


def chosen(text: str) -> frozenset[str]:
    """
    @param text: the value of C{GOMUX_PLAIN}.
    @return: the names of the fast paths that it has.
    @raise ValueError: if there is no fast path of such a name.
    """
    if text == "all":
        return frozenset(NAMES)
    names = frozenset(filter(None, text.split(",")))
    if unknown := names - set(NAMES):
        raise ValueError(
            f"{VARIABLE} has {', '.join(sorted(unknown))};"
            f" there are all, {', '.join(NAMES)}"
        )
    return names
