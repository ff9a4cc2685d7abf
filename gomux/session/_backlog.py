# -*- test-case-name: gomux.test.session.test_session -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The queue of streams or sessions that have arrived and were not accepted yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from copy import copy
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from gomux.error import GomuxError

_T = TypeVar("_T")


class Backlog(Generic[_T]):
    """
    A queue with a limit.  It holds either items that were not accepted yet, or calls
    of L{get} that wait for an item.

    @ivar items: the items that have arrived, the oldest first.
    @ivar _size: how many items may wait.
    @ivar _waiting: the calls of L{get} that wait, the oldest first.
    @ivar _end: why no more items arrive; C{None} while they may arrive.
    """

    def __init__(self, size: int) -> None:
        """
        @param size: how many items may wait to be accepted, at least 1.
        """
        if size < 1:
            raise ValueError("a backlog must be at least 1")
        self._size = size
        self._waiting: deque[Deferred[_T]] = deque()
        self._end: GomuxError | None = None
        self.items: deque[_T] = deque()

    @property
    def full(self) -> bool:
        """
        Whether the queue can take no more items.
        """
        return self._end is not None or (
            not self._waiting and len(self.items) >= self._size
        )

    def put(self, item: _T) -> None:
        """
        Give an item to the oldest call that waits, or queue it.
        """
        if self._waiting:
            self._waiting.popleft().callback(item)
        else:
            self.items.append(item)

    def get(self) -> Deferred[_T]:
        """
        @return: the next item, once there is one.  The Deferred can be cancelled.
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
        Take no more items.

        @param error: the error of the calls of L{get} that wait, and of later calls
            that find the queue empty.
        """
        if self._end is None:
            self._end = error
            for waiting in takeEach(self._waiting):
                waiting.errback(copy(error))


def takeEach(waiting: deque[_T]) -> Iterator[_T]:
    """
    Remove and return, one after another, the calls that wait now.  The caller gives
    each its result, and the application may then cancel calls that still wait, or make
    new ones, which go on waiting.

    @param waiting: the calls that wait.
    """
    for call in list(waiting):
        if call in waiting:
            waiting.remove(call)
            yield call


def nothing(ignored: object) -> None:
    """
    Do and return nothing.
    """
