# -*- test-case-name: gomux.test.test_limits -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Every limit, with its name and its default.

L{Limits} and L{TunnelLimits} are for users to set.  The constants bound what has no
option of its own.  A number that bounds nothing, such as the size of a read, stands in
the module that uses it.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: How many keys a keyring may have.  Anybody who can connect can make a server try all
#: of them once.
MAX_KEYS = 256
#: How large a file of pre-shared keys may be, in bytes.
MAX_KEY_FILE = 262144
#: A pre-shared key of fewer bytes is too easy to guess.
SHORT_PSK = 16
#: For how many keys the ciphers that derive their subkeys are kept.
KEYS_KEPT = 64
#: How many salts of finished strict mode handshakes are remembered.
SALTS_REMEMBERED = 1024

#: How long a stream waits for a mux, in seconds, unless the caller says otherwise.
WAIT_TIMEOUT = 30.0
#: How many streams may wait for a mux, unless the caller says otherwise.
MAX_WAITING = 1024
#: How long a client endpoint keeps a mux that has no streams, in seconds, unless the
#: caller says otherwise.
IDLE_TIMEOUT = 60.0
#: The longest pause between two attempts of an endpoint to connect, in seconds.
MAX_RETRY_DELAY = 30.0
#: How many streams of one session, or sessions of one listener, may wait to be
#: accepted, unless the caller says otherwise.
BACKLOG = 256

#: How many log lines of one kind are written at once, and how many a second after that.
LINES_BURST = 20
LINES_RATE = 0.5

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


@dataclass(frozen=True)
class TunnelLimits:
    """
    How long things may take, and how many there may be.  Times are in seconds.

    @ivar targetTimeout: how long it may take to connect to the target before
        the stream is closed.

    @ivar waitTimeout: how long a connection waits for a mux that is not up
        before it is closed.

    @ivar maxWaiting: how many connections may wait for a mux.

    @ivar maxConnections: how many connections one forwarding endpoint, or the
        target, has at a time.  More are closed at once.

    @ivar maxRetryDelay: how long to wait at most before the next attempt to
        connect to a peer that could not be reached.

    @ivar drainTimeout: how long streams may go on when the service is told to
        stop.
    """

    targetTimeout: float = 30.0
    waitTimeout: float = 30.0
    maxWaiting: int = 1024
    maxConnections: int = 4096
    maxRetryDelay: float = 2.0
    drainTimeout: float = 30.0

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
