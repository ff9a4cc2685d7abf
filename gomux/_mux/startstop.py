# -*- test-case-name: gomux.test.mux.test_factories -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Calls of the C{doStart} and C{doStop} of factories, which may lack these methods.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()


def startFactory(factory: object) -> None:
    """
    Call a factory's C{doStart}, if it has that method, before its first use.
    """
    doStart = getattr(factory, "doStart", None)
    if doStart is not None:
        doStart()


def stopFactory(factory: object) -> None:
    """
    Call a factory's C{doStop}, if it has that method, after its last use.
    """
    doStop = getattr(factory, "doStop", None)
    if doStop is not None:
        try:
            doStop()
        except BaseException:
            _log.failure("doStop of {factory} failed", factory=factory)


def stopFactories(factories: Iterable[object]) -> None:
    """
    Stop all of some factories.  The first error is raised at the end, so that the
    caller that stops a port sees it, and the others are logged.
    """
    failures = []
    for factory in factories:
        try:
            getattr(factory, "doStop", lambda: None)()
        except BaseException:
            failures.append(Failure())
    for failure in failures[1:]:
        _log.failure("doStop of a factory failed", failure)
    if failures:
        failures[0].raiseException()
