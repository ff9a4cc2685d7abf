# -*- test-case-name: gomux.test.mux.test_output -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The bytes that wait to be sent on a stream.
"""

from __future__ import annotations

from collections import deque


class Output:
    """
    Bytes that were written in pieces of one size and are taken in pieces of
    another, copied only where a piece that is taken is made of several.

    @ivar size: how many bytes there are.
    """

    __slots__ = ("size", "_pieces", "_offset")

    def __init__(self) -> None:
        self.size = 0
        self._pieces: deque[bytes] = deque()
        # How much of the first piece has been taken.
        self._offset = 0

    def append(self, data: bytes) -> None:
        """
        Add bytes at the end.
        """
        self._pieces.append(data)
        self.size += len(data)

    def take(self, size: int) -> bytes | memoryview:
        """
        Take bytes from the start.

        @param size: how many, at least 1 and at most as many as there are.
        """
        self.size -= size
        pieces = self._pieces
        offset = self._offset
        first = pieces[0]
        if len(first) == size and not offset:
            pieces.popleft()
            return first
        if len(first) - offset > size:
            self._offset = offset + size
            return memoryview(first)[offset : offset + size]
        parts: list[bytes | memoryview] = []
        while size:
            part = memoryview(pieces[0])[offset : offset + size]
            parts.append(part)
            size -= len(part)
            offset += len(part)
            if offset == len(pieces[0]):
                pieces.popleft()
                offset = 0
        self._offset = offset
        return parts[0] if len(parts) == 1 else b"".join(parts)


#: The output of a stream that has none, which thus costs nothing; never
#: appended to.
NO_OUTPUT = Output()
