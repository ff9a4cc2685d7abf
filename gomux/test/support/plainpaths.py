"""
The environment variable C{GOMUX_PLAIN}: switches fast paths off in a test's process.

Its value is C{all}, or names of L{FastPaths<gomux._fastpaths.FastPaths>} joined by
commas.  The tests, the programs in C{interop/} and the processes that they start obey
it.  The package itself does not read it::

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
    Switch some fast paths off, and all others on.

    @param off: the names of the fast paths to switch off.
    @return: the previous setting, for L{useFastPaths}.
    """
    return useFastPaths(FastPaths(**dict.fromkeys(off, False)))


def chosen(text: str) -> frozenset[str]:
    """
    @param text: the value of C{GOMUX_PLAIN}.
    @return: the names of the fast paths in it.
    @raise ValueError: if a name in it is not the name of a fast path.
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
