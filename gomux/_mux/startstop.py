# -*- test-case-name: gomux.test.mux.test_factories -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Calls of the C{doStart} and C{doStop} of factories, which may lack these methods.
"""

from __future__ import annotations

from twisted.logger import Logger

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
