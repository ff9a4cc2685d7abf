# -*- test-case-name: gomux.test.test_fastpaths -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The choice of the senders of a mux: those with all fast paths, or those for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from gomux._fastpaths import FastPaths, fastPaths
from gomux._mux.sender import Sender, SendState
from gomux._mux.sendermux import SenderStream


class PlainSender(Sender):
    """
    A sender for tests.  It copies its output, or stays on the stream when it is empty.

    @ivar _paths: the fast paths that are on.
    """

    __slots__ = ("_paths",)

    def __init__(self, paths: FastPaths, stream: SenderStream) -> None:
        super().__init__(stream)
        self._paths = paths

    def takeOutput(self, size: int) -> bytes | memoryview:
        taken = super().takeOutput(size)
        return taken if self._paths.outputInPlace else bytes(bytearray(taken))

    def outputTaken(self) -> int:
        stream = self._stream
        left = super().outputTaken()
        isGone = stream.sender is None and self.state is SendState.OPEN
        if isGone and not self._paths.shortSenders:
            stream.sender = self
            self._pieces = None
        return left


def senderMaker() -> Callable[[SenderStream], Sender]:
    """
    @return: a function that makes the sender of a stream.
    """
    paths = fastPaths()
    if paths.outputInPlace and paths.shortSenders:
        return Sender
    return partial(PlainSender, paths)
