# -*- test-case-name: gomux.test.test_fastpaths -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The fast paths of the package, and a switch for each.

A fast path is a special case that exists for speed alone.  Without it, the frames on
the wire may be cut, timed or numbered differently, but they carry the same streams.
C{docs/performance.rst} says how much each fast path gains.

Each object reads the switches when it is made.  Only tests set them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FastPaths:
    """
    Which fast paths are on.

    @ivar directWrites: writing to the socket at once
    @ivar gatheredWrites: having the kernel gather the parts of a frame
    @ivar changingReads: reading more at once while more comes
    @ivar unsentLimit: having the kernel keep little that it cannot send yet
    @ivar framesInPlace: opening a frame where it was received
    @ivar lastSubkey: remembering the subkey of the last frame that was opened
    @ivar outputInPlace: sealing output where the application left it
    @ivar shortSenders: keeping a sender only while it has something to keep
    @ivar sparedContext: making the log context of a protocol once, not for all data
    @ivar restsInPlace: not copying unread data when a session reads a part of it
    @ivar batchedCredit: holding credit back until it is worth a frame
    @ivar changingWindows: windows that grow and shrink
    @ivar freshFirst: streams that had nothing to send going before the others
    @ivar batches: writing several frames at once
    @ivar longTurns: writing several times before others in the reactor get their turn
    @ivar busyPoll: staying awake while an answer is due
    @ivar repliesAtOnce: sending at the end of what was received, not a turn later
    @ivar localSockets: serving plain sockets of tunnels without Twisted's transports
    """

    directWrites: bool = True
    gatheredWrites: bool = True
    changingReads: bool = True
    unsentLimit: bool = True
    framesInPlace: bool = True
    lastSubkey: bool = True
    outputInPlace: bool = True
    shortSenders: bool = True
    sparedContext: bool = True
    restsInPlace: bool = True
    batchedCredit: bool = True
    changingWindows: bool = True
    freshFirst: bool = True
    batches: bool = True
    longTurns: bool = True
    busyPoll: bool = True
    repliesAtOnce: bool = True
    localSockets: bool = True


_paths = FastPaths()


def fastPaths() -> FastPaths:
    """
    @return: the fast paths of objects that are made now.
    """
    return _paths


def useFastPaths(paths: FastPaths) -> FastPaths:
    """
    Switch fast paths on and off, for objects that are made from now on.  For tests.

    @return: the fast paths before the switch.
    """
    global _paths
    before, _paths = _paths, paths
    return before
