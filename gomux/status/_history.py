# -*- test-case-name: gomux.test.status.test_history -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The rates of the peers over the last minutes, for the charts of the page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet.task import LoopingCall

if TYPE_CHECKING:
    from gomux.status._facts import PeerFacts

#: The time between two samples, in seconds.
INTERVAL = 5.0
#: How many samples of a peer are kept: those of five minutes.
SAMPLES = 60
#: How many peers have samples at most.  A peer that is idle for five minutes has none.
PEERS = 64


class History:
    """
    Samples the rates of the peers while it runs.

    @ivar rates: by the name of the peer, the bytes received and sent a second between
        two samples, the oldest first.
    @ivar _read: reads the sums.
    @ivar _clock: the reactor.
    @ivar _sums: the sums of the last sample, by the name of the peer.
    @ivar _at: when that was taken, by the clock.
    @ivar _loop: takes the samples.
    """

    def __init__(self, read: Callable[[], Iterable[PeerFacts]], clock: Any) -> None:
        """
        @param read: reads the sums of all peers.
        @param clock: the reactor.
        """
        self.rates: dict[str, deque[tuple[int, int]]] = {}
        self._read = read
        self._clock = clock
        self._sums: dict[str, tuple[int, int]] = {}
        self._at = 0.0
        self._loop = LoopingCall(self._sample)
        self._loop.clock = clock

    def start(self) -> None:
        """
        Begin with no samples.
        """
        self.rates.clear()
        self._sums.clear()
        self._loop.start(INTERVAL)

    def stop(self) -> None:
        """
        Take no more samples.
        """
        if self._loop.running:
            self._loop.stop()

    def _sample(self) -> None:
        now = self._clock.seconds()
        seconds, self._at = now - self._at, now
        sums = {peer.name: (peer.received, peer.sent) for peer in self._read()}
        before, self._sums = self._sums, sums
        if not before or seconds <= 0.0:
            return
        for name, (received, sent) in sums.items():
            lastReceived, lastSent = before.get(name, (0, 0))
            rate = (
                round((received - lastReceived) / seconds),
                round((sent - lastSent) / seconds),
            )
            own = self.rates.get(name)
            if own is None:
                if rate == (0, 0) or len(self.rates) >= PEERS:
                    continue
                own = self.rates[name] = deque([(0, 0)] * (SAMPLES - 1), SAMPLES)
            own.append(rate)
        for name in [name for name, own in self.rates.items() if _isIdle(own)]:
            del self.rates[name]


def _isIdle(rates: Iterable[tuple[int, int]]) -> bool:
    return all(rate == (0, 0) for rate in rates)
