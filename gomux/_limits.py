# -*- test-case-name: gomux.test.test_limits -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The limits of a mux, each with its name and default, and the token bucket that
enforces those that are rates.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Marks what does without something with a limit of 0.
_MAY_BE_OFF = {"mayBeOff": True}


@dataclass(frozen=True)
class Limits:
    """
    How much of everything a peer, or a slow network, may take up.

    Sizes are in bytes, times in seconds, rates in events a second.

    @ivar maxStreams: streams of one mux that the peer opened and that are not
        done yet, which for a stream that the peer has closed means until its
        protocol's C{connectionLost} has run.  The next one is refused.

    @ivar openRate: how many streams a second a peer may open in the long run.
        Those beyond wait, and with them all else that it sends on that mux.

    @ivar openBurst: how many streams a peer may open at once, before C{openRate}
        holds.

    @ivar maxWindow: how far the receive window of one stream may grow from
        the 131072 bytes that the protocol starts it with.

    @ivar maxGrowth: how much all receive windows of one mux may together grow
        beyond what they start with.

    @ivar maxRefusals: refusals of streams that may wait to be sent.  A peer
        that goes on opening streams past C{maxStreams} without reading the
        refusals loses the mux at the next one.

    @ivar maxControl: other control frames that may wait to be sent.  While
        there are this many, L{openStream<gomux.MuxProtocol.openStream>} fails,
        and a peer that opens a stream loses the mux.

    @ivar resetRate: how many streams a second a peer may open and close again
        before anything was written to them, in the long run.

    @ivar resetBurst: how many such streams a peer may open and close at once, before
        C{resetRate} holds.

    @ivar ignoredRate: how many frames without any effect a peer may send a
        second in the long run: empty data, keepalives, unknown flags, frames
        for streams that were never opened, window updates of nothing.

    @ivar ignoredBurst: how many such frames a peer may send at once, before
        C{ignoredRate} holds.

    @ivar keepalive: after how long without sending anything a Keepalive frame
        is sent.

    @ivar writeStall: how long the carrier may take nothing of what there is
        to send before the mux is aborted.

    @ivar carrierTimeout: how long the machine of the peer may not answer before
        the carrier is lost, where that is TCP and the system can tell.

    @ivar closeTimeout: how long an orderly close may take, to flush the
        streams and then the carrier, before the carrier is aborted.

    @ivar maxUnauthenticated: connections of one factory on which no frame has
        authenticated yet.  When there is one more the oldest is aborted.

    @ivar silentGrace: how long a server waits for a peer's first frame before
        it opens streams to a peer that has not shown that it holds the key.

    @ivar busyPoll: for how long after something came the process may stay awake for
        what comes next, if that came so soon the last time: it costs some CPU, and a
        round trip takes half the time.  With 0 it never does.

    @ivar handshakeTimeout: in strict mode, how long the handshake may take.

    @ivar strictKeepalive: in strict mode, how often a Keepalive frame is sent,
        whatever else is.

    @ivar deadPeer: in strict mode, after how long without any bytes from the
        peer the mux is aborted.  The peer is taken to send at least every
        C{strictKeepalive} seconds; the rest is for a peer that stands still
        for a while and for what gets lost on the way.
    """

    maxStreams: int = 16384
    openRate: float = 10000.0
    openBurst: int = 1000
    maxWindow: int = 4 * 1024 * 1024
    maxGrowth: int = 16 * 1024 * 1024
    maxRefusals: int = 334
    maxControl: int = 65536
    resetRate: float = 4000.0
    resetBurst: int = 8000
    ignoredRate: float = 100.0
    ignoredBurst: int = 10000
    keepalive: float = 600.0
    writeStall: float = 60.0
    carrierTimeout: float = 120.0
    closeTimeout: float = 10.0
    maxUnauthenticated: int = 256
    silentGrace: float = 1.0
    busyPoll: float = field(default=0.0004, metadata=_MAY_BE_OFF)
    handshakeTimeout: float = 10.0
    strictKeepalive: float = 10.0
    deadPeer: float = 45.0

    def __post_init__(self) -> None:
        requireAllowed(self)


def leastOf(limit: Field[Any]) -> str:
    """
    @param limit: the field of a class of limits.
    @return: what its value must be at least, in words.
    """
    return "0 or more" if limit.metadata.get("mayBeOff") else "greater than 0"


def isAllowed(limit: Field[Any], value: float) -> bool:
    """
    @param limit: the field of a class of limits.
    @param value: what it may be.
    @return: whether it is as L{leastOf} says, and finite.
    """
    return 0 < value < inf or (value == 0 and bool(limit.metadata.get("mayBeOff")))


def requireAllowed(limits: DataclassInstance) -> None:
    """
    See that all limits of one kind are such that one can work with them.

    @raise ValueError: if one is not.
    """
    for limit in fields(limits):
        if not isAllowed(limit, getattr(limits, limit.name)):
            raise ValueError(f"{limit.name} must be {leastOf(limit)}")


class TokenBucket:
    """
    Allows a burst of events at once and a rate of them in the long run.

    @ivar tokens: how many events are allowed at C{updated}.
    """

    __slots__ = ("_rate", "_burst", "tokens", "_updated")

    def __init__(self, rate: float, burst: float) -> None:
        """
        @param rate: events a second in the long run.
        @param burst: events at once.
        """
        self._rate = rate
        self._burst = burst
        self.tokens = float(burst)
        self._updated: float | None = None

    def take(self, now: float) -> bool:
        """
        Count one event.

        @param now: the time in seconds, from a clock that does not run
            backwards.
        @return: whether the event is still allowed.
        """
        if self._updated is not None:
            self.tokens = min(
                self._burst, self.tokens + (now - self._updated) * self._rate
            )
        self._updated = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    @property
    def wait(self) -> float:
        """
        For how long no event is allowed, in seconds after the last one.
        """
        return max(0.0, (1 - self.tokens) / self._rate)

    def giveBack(self) -> None:
        """
        Count one event less: what was taken for one was none.
        """
        self.tokens += 1
