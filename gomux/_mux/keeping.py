# -*- test-case-name: gomux.test.mux.test_buffers -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Protocols of streams that keep memory which their stream does not know of.
"""

from __future__ import annotations

from typing import Any


class Keeping:
    """
    The part of such a protocol that counts the memory in the account of the mux.

    @ivar kept: for how many bytes it is counted.
    """

    kept = 0

    def keep(self, stream: Any, size: int) -> None:
        """
        Count memory, instead of what was counted before.  At the end of the stream it
        must be 0.

        @param stream: the stream.
        @param size: how many bytes.
        """
        more = size - self.kept
        self.kept = size
        stream.streams.charge(more)
