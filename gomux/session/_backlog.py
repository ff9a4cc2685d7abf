# -*- test-case-name: gomux.test.session.test_session -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
What has arrived and waits to be accepted.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from gomux.error import GomuxError

_T = TypeVar("_T")


class Backlog(Generic[_T]):
    """
    What has arrived and was not accepted yet, or who waits for it to arrive.

    @ivar items: what has arrived, the oldest first.
    """

    def __init__(self, size: int) -> None:
        """
        @param size: how much may wait to be accepted, at least 1.
        """
        if size < 1:
            raise ValueError("a backlog must have room for 1 at least")
        self._size = size
        self._waiting: deque[Deferred[_T]] = deque()
        self._end: GomuxError | None = None
        self.items: deque[_T] = deque()

    @property
    def full(self) -> bool:
        """
        Whether nothing more may arrive.
        """
        return self._end is not None or (
            not self._waiting and len(self.items) >= self._size
        )

    def put(self, item: _T) -> None:
        """
        Something has arrived.
        """
        if self._waiting:
            self._waiting.popleft().callback(item)
        else:
            self.items.append(item)

    def get(self) -> Deferred[_T]:
        """
        @return: the next that has arrived or will; may be cancelled.
        """
        if self.items:
            return succeed(self.items.popleft())
        if self._end is not None:
            return fail(copy(self._end))
        waiting: Deferred[_T] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def end(self, error: GomuxError) -> None:
        """
        Nothing arrives any more.

        @param error: what those who wait for more get.
        """
        if self._end is None:
            self._end = error
            waiting, self._waiting = self._waiting, deque()
            for one in waiting:
                one.errback(copy(error))
