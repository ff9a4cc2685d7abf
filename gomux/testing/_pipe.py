# -*- test-case-name: gomux.test.testing.test_memory -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
One direction of the path between two carriers in memory.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

#: The most bytes that a carrier reads in one turn of the reactor.
_READ_SIZE = 65536

# Besides bytes, a pipe carries the end of the connection.
FIN = object()
RESET = object()


class Pipe:
    """
    One direction of the path between two carriers.

    @ivar latency: how long written bytes take to arrive, in seconds.
    @ivar chunkSize: the most bytes that the reader gets at once, or C{None} for as
        many as a socket would give it.
    @ivar bytesDelivered: how many bytes the reader has received.
    @ivar _clock: tells the time, and makes the calls that deliver.
    @ivar _stalled: whether the pipe is stalled.
    @ivar _items: what is in flight, and when it arrives: bytes, L{FIN} or L{RESET}.
    @ivar _call: the delayed call of the next delivery; C{None} for none.
    @ivar _writer: the carrier that writes to the pipe, which sets this.
    @ivar _reader: the carrier that reads from the pipe, which sets this.
    """

    def __init__(self, clock: Clock, latency: float, chunkSize: int | None) -> None:
        self.latency = latency
        self.chunkSize = chunkSize
        self.bytesDelivered = 0
        self._clock = clock
        self._stalled = False
        self._items: deque[tuple[float, Any]] = deque()
        self._call: IDelayedCall | None = None
        self._writer: Any
        self._reader: Any

    @property
    def stalled(self) -> bool:
        """
        Whether the pipe is stalled.
        """
        return self._stalled

    @property
    def inFlight(self) -> int:
        """
        How many bytes have left the writer and not reached the reader.
        """
        return sum(len(item) for _, item in self._items if isinstance(item, bytes))

    @property
    def due(self) -> float | None:
        """
        The earliest time on the clock, in seconds, at which something in flight may
        reach the reader; C{None} while nothing is in flight, or while the reader is
        paused.
        """
        return None if self._call is None else self._call.getTime()

    def stall(self) -> None:
        """
        Stop all delivery, even of the end: take nothing from the writer, and give
        nothing to the reader.
        """
        self._stalled = True

    def unstall(self) -> None:
        """
        Deliver again.
        """
        self._stalled = False
        self._schedule()
        self._writer._startWriting()

    def end(self, reset: bool = False) -> None:
        """
        Have the network tell the reader that the connection has ended.

        @param reset: C{False} for a clean end, which arrives after the bytes in
            flight; C{True} for a reset, which discards them.
        """
        if reset:
            self._reset()
        else:
            self._put(FIN)

    def _put(self, item: Any) -> None:
        self._items.append((self._clock.seconds() + self.latency, item))
        self._schedule()

    def _reset(self) -> None:
        """
        Drop the bytes in flight.
        """
        self._items.clear()
        self._put(RESET)

    def _schedule(self) -> None:
        if self._call is None and self._items and not self._stalled:
            wait = self._items[0][0] - self._clock.seconds()
            self._call = self._clock.callLater(max(0.0, wait), self._deliver)

    def _deliver(self) -> None:
        self._call = None
        reader = self._reader
        if self._stalled or not self._items:
            return
        due, item = self._items[0]
        if due > self._clock.seconds():
            pass
        elif item is RESET:
            self._items.clear()
            reader._lose(ConnectionLost())
        elif reader.disconnected:
            self._items.popleft()
            if item is not FIN:
                reader.outgoing._reset()
        elif not reader.reading:
            return
        elif item is FIN:
            self._items.popleft()
            reader._finReceived()
        else:
            size = self.chunkSize or _READ_SIZE
            self._items.popleft()
            if len(item) > size:
                self._items.appendleft((due, item[size:]))
            chunk = item[:size]
            self.bytesDelivered += len(chunk)
            reader._dataReceived(chunk)
        self._schedule()
