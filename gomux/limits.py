# -*- test-case-name: gomux.test.test_limits -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The limits, with their names and defaults.

L{Limits} and L{TunnelLimits} are for users to set.  The constants are limits without an
option.  A few limits of a single module stand in that module, such as the size of a
PROXY protocol header.  So do numbers that limit nothing, such as the size of a read.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: How many keys a keyring may have.  A stranger who connects can make a server try each
#: of them once.
MAX_KEYS = 256
#: How large a file of pre-shared keys may be, in bytes.
MAX_KEY_FILE = 262144
#: How large the file of C{--config} may be, in bytes.
MAX_CONFIG = 1048576
#: A pre-shared key with fewer bytes than this is too easy to guess.
SHORT_PSK = 16
#: The first frames of this many recent muxes of the process are remembered, so that
#: they cannot be replayed.
FIRST_FRAMES = 65536
#: In strict mode, how many frames of a direction are sealed with one key.  This is a
#: part of the wire.
REKEY_FRAMES = 65536
#: In strict mode with C{strictClock}, by how much the clocks of the peers may differ,
#: in seconds.
CLOCK_DIFFERENCE = 300
#: How many salts of finished strict mode handshakes are remembered.
SALTS_REMEMBERED = 1024

#: The default of how long a stream waits for a mux, in seconds.
WAIT_TIMEOUT = 30.0
#: The default of how long a client endpoint keeps a mux without streams, in seconds.
IDLE_TIMEOUT = 60.0
#: The longest pause between two attempts of an endpoint to connect, in seconds.
MAX_RETRY_DELAY = 30.0
#: The default of how many streams of one session, or sessions of one listener, may wait
#: to be accepted.
BACKLOG = 256

#: Once either side of a mux has fewer stream IDs than this left, the mux is worn: a
#: dialler connects another mux beside it.
RESERVED_IDS = 65536
#: How many worn muxes a dialler keeps for the streams that are still open on them.  If
#: there is one more, the oldest is closed.
MAX_WORN = 2

#: How many connections of strangers a server accepts a second in the long run.
ACCEPT_RATE = 2000
#: How many connections of strangers a server accepts at once, before L{ACCEPT_RATE}
#: applies.
ACCEPT_BURST = 100
#: How many connections may wait in the kernel until a server accepts them.
ACCEPT_QUEUE = 512

#: How many streams the status page answers at the same time.
PAGE_STREAMS = 64
#: How large the head of a request for a status page may be, in bytes.
PAGE_REQUEST = 8192
#: How long a request for a status page and its answer may take, in seconds.
PAGE_TIMEOUT = 30.0

#: How many connections the status ports of a process have together.  With one more, the
#: oldest is dropped.
STATUS_CONNECTIONS = 16
#: What the operator's port answers may take at most this part of the process's time:
#: an answer that took long to make is given again for a while.
STATUS_TIME = 0.05

#: How large a request or an answer at the start of a stream may be, in bytes.
MAX_REQUEST = 4096
#: How many opening brackets and braces it may have, also in texts.  If many arrays and
#: objects are made, Python's garbage collector runs, and all peers wait meanwhile.
MAX_NESTED = 64
#: How long the name of a service may be, in characters.
MAX_SERVICE_NAME = 64

#: How many bytes of lines of the access log may wait while they cannot be written.
ACCESS_LOG_WAITING = 1048576
#: The pause before the next attempt to write them, in seconds.
ACCESS_LOG_RETRY = 1.0

#: How many log lines of one kind are written at once.
LINES_BURST = 10
#: The time between two log lines of one kind in the long run, in seconds.
LINE_EVERY = 60.0
#: How many characters of a text from outside a log line shows at most.
TEXT_LENGTH = 500

# Marks a limit that may be 0, which turns something off.
_MAY_BE_OFF = {"mayBeOff": True}


@dataclass(frozen=True)
class Limits:
    """
    How much memory and time a peer, or a slow network, may take.

    Sizes are in bytes, times in seconds, rates in events a second.

    @ivar maxMuxes: how many muxes one peer may have on a server.  More are ended as
        soon as they have shown the key.  A mux that was lost without a word counts
        until C{deadPeer} or C{carrierTimeout} ends it.  All who have the same key are
        one peer.

    @ivar maxStreams: how many streams of one mux the peer may have open.  More are
        refused.  A stream that the peer has closed counts until its protocol's
        C{connectionLost} has run.

    @ivar openRate: how many streams a second the peer may open in the long run.
        If it opens more, everything that it sends on the mux waits.

    @ivar openBurst: how many streams the peer may open at once, before C{openRate}
        applies.

    @ivar maxWindow: how large the receive window of one stream may grow.  It starts
        with 131072 bytes.

    @ivar maxGrowth: how much all receive windows of one mux together may grow
        beyond their initial size.

    @ivar maxOutput: how much output of one stream may wait when the application begins
        a write.  If more waits, the write aborts the stream.  So a single write may
        have any size.  This is for applications that do not pause when they are told
        to, and for those that write without end to a peer that does not read.

    @ivar maxBuffered: how much memory all muxes of the process together may take for
        their streams and for data that waits.  If they take more, the mux that takes
        most is ended, of the peer that takes most.  Above three quarters of it, no
        window grows, and a peer that has more than its share opens no more streams.

    @ivar maxRefusals: how many refusals of streams may wait to be sent.  If the peer
        goes on opening streams past C{maxStreams} without reading the refusals, the
        mux is aborted.

    @ivar maxControl: how many control frames other than refusals may wait to be sent.
        While this many wait, L{openStream<gomux.MuxProtocol.openStream>} fails, and the
        mux is aborted if the peer opens a stream.

    @ivar resetRate: how many streams a second the peer may in the long run open and
        close again before this side has written anything to them.

    @ivar resetBurst: how many streams the peer may open and close again at once, before
        C{resetRate} applies.

    @ivar ignoredRate: how many frames without effect the peer may send a second in the
        long run: empty data, keepalives, unknown flags, frames for streams that were
        never opened, window updates of 0 bytes.

    @ivar ignoredBurst: how many frames without effect the peer may send at once, before
        C{ignoredRate} applies.

    @ivar keepalive: a Keepalive frame is sent when nothing else was sent for this long.
        This is for peers that do not echo pings, such as those of the Go package.

    @ivar writeStall: how long the carrier may accept no data while there is data to
        send.  Then the mux is aborted.

    @ivar carrierTimeout: how long the peer's machine may acknowledge nothing.  Then the
        carrier is lost.  This is for carriers over TCP, where the system can tell.

    @ivar closeTimeout: how long an orderly close may take to flush the streams and then
        the carrier.  Then the carrier is aborted.

    @ivar maxUnauthenticated: how many connections of one factory may wait for their
        first authenticated frame.  If there are more, an older connection is aborted,
        if possible a connection whose peer has sent no genuine frame at all.  If more
        than half as many wait, new connections from addresses that have others are
        refused at random.

    @ivar addressQuota: how many connections from one address may wait for their first
        authenticated frame.  Of IPv6 each /64 counts as one address.  More are refused
        at once, unless a connection of the address has been silent for 10 seconds: that
        one is dropped instead.  This does not apply to Unix sockets.

    @ivar silentGrace: how long a server waits for the first frame of a peer.  After
        that it opens streams to the peer although the peer has not shown that it holds
        the key.  A silent client of the Go package needs that.  0 turns it off: then
        the server opens streams only to peers that have shown that they hold the key.

    @ivar busyPoll: how long to poll for the next message before sleeping, if the
        previous one arrived equally fast.  Polling costs CPU time and halves the time
        of a round trip.  0 turns it off.

    @ivar handshakeTimeout: in strict mode, how long the handshake may take.

    @ivar greetTimeout: how long a stream for a service waits for the peer's greeting,
        which announces that the peer understands requests.  A peer of the Go package
        never sends a greeting.

    @ivar requestTimeout: how long the request of a stream that the peer opens may take
        to arrive.  Then the stream is aborted.

    @ivar ping: the time between two pings.  They are for peers that echo pings: those
        of this software.  If the peer has echoed none of the pings that were sent in
        the last two such intervals, new streams use another mux, if there is one.

    @ivar deadPeer: the mux is aborted if the peer has echoed none of the pings that
        were sent in this time.  This is for peers that echo pings.  The default leaves
        time for a peer that pauses and for packets that are lost.
    """

    maxMuxes: int = 4096
    maxStreams: int = 16384
    openRate: float = 10000.0
    openBurst: int = 1000
    maxWindow: int = 4 * 1024 * 1024
    maxGrowth: int = 16 * 1024 * 1024
    maxOutput: int = 256 * 1024 * 1024
    maxBuffered: int = 1024 * 1024 * 1024
    maxRefusals: int = 163
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
    addressQuota: int = 64
    silentGrace: float = field(default=1.0, metadata=_MAY_BE_OFF)
    busyPoll: float = field(default=0.0004, metadata=_MAY_BE_OFF)
    handshakeTimeout: float = 10.0
    greetTimeout: float = 5.0
    requestTimeout: float = 10.0
    ping: float = 5.0
    deadPeer: float = 45.0

    def __post_init__(self) -> None:
        requireAllowed(self)


@dataclass(frozen=True)
class TunnelLimits:
    """
    How much time and how many connections a tunnel may take.  Times are in seconds.

    @ivar targetTimeout: how long it may take to connect to the target.  Then the
        stream is aborted.

    @ivar waitTimeout: how long a connection waits while no mux is up.  Then it is
        reset.

    @ivar answerTimeout: how long the peer may take to accept a stream for a service,
        from the time when it is opened.  Then the connection is reset.

    @ivar maxWaiting: how many connections may wait for a mux.

    @ivar maxConnections: how many connections one forwarding endpoint, or the
        target, may have at a time.  More are reset at once.

    @ivar maxRetryDelay: the longest pause before the next attempt to connect to a peer
        that could not be reached.

    @ivar drainTimeout: how long streams may go on after the service is told to stop.

    @ivar halfOpenTimeout: after one half or one end of a connection has closed, how
        long nothing may be sent or read on it.  Then the connection is reset.  0 turns
        the limit off.

    @ivar lingerTimeout: after the mux of a connection has ended, how long nothing may
        be sent or read on the connection.  Then it is reset.
    """

    targetTimeout: float = 30.0
    waitTimeout: float = 30.0
    answerTimeout: float = 45.0
    maxWaiting: int = 1024
    maxConnections: int = 4096
    maxRetryDelay: float = 2.0
    drainTimeout: float = 30.0
    halfOpenTimeout: float = field(default=7200.0, metadata=_MAY_BE_OFF)
    lingerTimeout: float = 5.0

    def __post_init__(self) -> None:
        requireAllowed(self)


def leastOf(limit: Field[Any]) -> str:
    """
    @param limit: the field of a class of limits.
    @return: the range of its values, in words.
    """
    return "0 or more" if limit.metadata.get("mayBeOff") else "greater than 0"


def isAllowed(limit: Field[Any], value: float) -> bool:
    """
    @param limit: the field of a class of limits.
    @param value: a value for it.
    @return: whether the value is in the range of L{leastOf}, and finite.
    """
    return 0 < value < inf or (value == 0 and bool(limit.metadata.get("mayBeOff")))


def requireAllowed(limits: DataclassInstance) -> None:
    """
    Check all limits of a class of limits.

    @param limits: the limits.
    @raise ValueError: if a value is not allowed.
    """
    for limit in fields(limits):
        if not isAllowed(limit, getattr(limits, limit.name)):
            raise ValueError(f"{limit.name} must be {leastOf(limit)}")
