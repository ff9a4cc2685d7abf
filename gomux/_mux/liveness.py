# -*- test-case-name: gomux.test.mux.test_time -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
How a mux notices that its carrier or its peer is dead, although the carrier reports no
loss.

L{CarrierLiveness} is for every mux.  It sends a Keepalive when nothing was sent for a
long time, because TCP notices a dead path only when it sends.  It fails the mux when
the carrier stays blocked for too long.

L{PeerLiveness} is for peers that are known to echo pings.  It fails the mux when the
peer has echoed no recent ping.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall

from gomux._carrier.watch import Watch
from gomux._mux.gate import Gate
from gomux._mux.muxlife import MuxLife
from gomux._mux.owner import MuxOwner
from gomux._mux.scheduler import Scheduler
from gomux._wire.crypto import SequencedOpener
from gomux._wire.frame import Flag
from gomux.error import HandshakeFailed, PeerVanished, WriteStalled

# A Keepalive has the low 32 bits of a counter, so it tells this many counters apart.
_COUNTERS = 1 << 32


class CarrierLiveness:
    """
    Sends Keepalives on a quiet carrier, and notices when the carrier stays blocked.

    @ivar _scheduler: writes to the carrier.
    @ivar _clock: the reactor.
    @ivar _limits: the factory's limits.
    @ivar _life: the mux's state.
    @ivar _call: the delayed call that sends the next Keepalive if it is needed; C{None}
        before L{start}, and after L{stopKeepalives}.
    @ivar _stall: watches whether the carrier takes data; C{None} before the carrier
        was blocked for the first time.
    """

    __slots__ = ("_scheduler", "_clock", "_limits", "_life", "_call", "_stall")

    def __init__(
        self,
        owner: MuxOwner[Any],
        scheduler: Scheduler,
        life: MuxLife,
    ) -> None:
        """
        @param owner: the mux's factory, with the limits C{keepalive} and C{writeStall}.
        @param scheduler: writes to the carrier.
        @param life: the mux's state, which L{WriteStalled} ends when the carrier is
            blocked for too long.
        """
        self._scheduler = scheduler
        self._clock = owner.clock
        self._limits = owner.limits
        self._life = life
        self._call: IDelayedCall | None = None
        self._stall: Watch | None = None

    @property
    def isRunning(self) -> bool:
        """
        Whether a delayed call is pending.
        """
        return self._call is not None and self._call.active()

    def start(self) -> None:
        """
        The mux begins to send.
        """
        self._call = self._clock.callLater(self._limits.keepalive, self._keepAlive)

    def blocked(self) -> None:
        """
        The carrier takes no more data: watch it until it does.
        """
        if self._stall is None or self._stall.isOver:
            self._stall = Watch(
                self._clock, self._limits.writeStall, self._progress, self._stalled
            )

    def stopKeepalives(self) -> None:
        """
        Send no more Keepalives, because pings keep the carrier in use from now on.
        """
        _cancel(self._call)
        self._call = None

    def stop(self) -> None:
        """
        The carrier is gone: cancel the delayed calls.
        """
        _cancel(self._call)
        if self._stall is not None:
            self._stall.stop()

    def _keepAlive(self) -> None:
        """
        Send a Keepalive if nothing was sent for C{keepalive} seconds.  A peer that may
        be a stranger gets none.
        """
        keepalive = self._limits.keepalive
        wait = self._scheduler.sentAt + keepalive - self._clock.seconds()
        if wait <= 0:
            wait = keepalive
            isHeld = self._scheduler.paused or self._scheduler.isMute
            if self._scheduler.idle and not isHeld:
                self._scheduler.control(0, Flag.KEEPALIVE)
        self._call = self._clock.callLater(wait, self._keepAlive)

    def _progress(self) -> int | None:
        """
        @return: a number that stays the same while the carrier is blocked and takes
            nothing; C{None} while the carrier is not blocked.
        """
        scheduler = self._scheduler
        return scheduler.bytesSent if scheduler.paused else None

    def _stalled(self) -> None:
        self._life.fail(WriteStalled())


class PingedMux(Protocol):
    """
    The part of the mux that L{PeerLiveness} uses.
    """

    @property
    def isBehind(self) -> bool:
        """
        Whether received frames wait to be handled.
        """


class PeerLiveness:
    """
    Pings the peer, and notices when it echoes nothing any more.

    A ping is a Keepalive.  Its stream ID is the low 32 bits of the counter of the last
    frame that was received from the peer.  So a ping of the peer echoes all pings of
    this side that the peer has received.  If it echoes no further ping of this side,
    this side answers at once with another Keepalive, so that the peer need not wait for
    the next ping to get its own echo.

    This is for peers that have announced L{BOUND<gomux._wire.frame.BOUND>}, and for
    strict mode.  In both cases frames open only in sequence.  So the counter tells
    which frames the peer has received, and an attacker cannot fake an echo.

    In strict mode this object also fails the mux if the handshake takes too long: see
    L{limitHandshake}.

    The time in which the process could not run does not count, because the frames that
    the peer has sent meanwhile are not read yet.

    @ivar roundTrip: the time from the newest echoed ping to its echo, in seconds;
        C{None} before the first echo.
    @ivar _scheduler: sends the pings.
    @ivar _clock: the reactor.
    @ivar _limits: the factory's limits.
    @ivar _life: the mux's state.
    @ivar _owner: the mux's factory.
    @ivar _mux: the mux.
    @ivar _opener: opens the peer's frames; C{None} as long as the peer is not pinged.
    @ivar _unechoed: the pings that were sent and not echoed yet: the counter of each,
        and when it was sent.
    @ivar _echoedAt: when the newest echoed ping was sent.
    @ivar _late: for how long, in total, the process could not run, in seconds.
    @ivar _pingAt: when the next ping is due.
    @ivar _dueAt: when C{_call} is due.
    @ivar _pingWaits: whether a ping waits to be sent.
    @ivar _answerWaits: whether an answer to a ping waits to be sent.
    @ivar _answerAgain: whether the peer has sent another ping since.
    @ivar _call: before L{start}, the delayed call that ends the time for the handshake,
        or C{None} if there is none; after L{start}, the next call of L{_look}.
    """

    # A mux that lives long sets all of these.  A dictionary would take 800 bytes.
    __slots__ = (
        *("roundTrip", "_scheduler", "_clock", "_limits", "_life", "_owner", "_mux"),
        *("_opener", "_unechoed", "_echoedAt", "_late", "_pingAt", "_dueAt"),
        *("_pingWaits", "_answerWaits", "_answerAgain", "_call"),
    )

    _echoedAt: float
    _pingAt: float
    _dueAt: float

    def __init__(
        self,
        owner: MuxOwner[Any],
        scheduler: Scheduler,
        life: MuxLife,
        mux: PingedMux,
    ) -> None:
        """
        @param owner: the mux's factory, which is told of each echo; of its limits
            C{handshakeTimeout}, C{ping} and C{deadPeer} count.
        @param scheduler: sends the pings.
        @param life: the mux's state, which ends when the handshake or an echo does not
            come in time.
        @param mux: the mux.
        """
        self._scheduler = scheduler
        self._clock = owner.clock
        self._limits = owner.limits
        self._owner = owner
        self._mux = mux
        self._life = life
        self._unechoed: list[tuple[int, float]] = []
        self.roundTrip: float | None = None
        self._opener: SequencedOpener | None = None
        self._call: IDelayedCall | None = None
        self._late = 0.0
        self._pingWaits = self._answerWaits = self._answerAgain = False

    def limitHandshake(self, gate: Gate, since: float) -> None:
        """
        The peer has C{handshakeTimeout} seconds until L{start} must be called.  A
        further call has no effect.

        @param gate: tells what is missing.
        @param since: when the time began, in seconds of the clock.
        """
        if self._call is None:
            end = since + self._limits.handshakeTimeout
            seconds = max(0.0, end - self._clock.seconds())
            self._call = self._clock.callLater(seconds, self._timedOut, gate)

    @property
    def isRunning(self) -> bool:
        """
        Whether a delayed call is pending.
        """
        return self._call is not None and self._call.active()

    @property
    def answers(self) -> bool:
        """
        See L{MuxProtocol.answers<gomux.MuxProtocol.answers>}.
        """
        return (
            self._opener is None
            or self._now() - self._echoedAt <= 2 * self._limits.ping
            or self._mux.isBehind
        )

    def start(self, opener: SequencedOpener) -> None:
        """
        Ping the peer from now on.

        @param opener: opens the peer's frames.
        """
        self._opener = opener
        _cancel(self._call)
        # The peer's first frame came just now.  It shows as much as an echo does.
        self._echoedAt = now = self._now()
        self._pingAt = now + self._limits.ping
        self._callLater(now)

    def stop(self) -> None:
        """
        The carrier is gone: cancel the delayed calls, and forget the keys.
        """
        _cancel(self._call)
        self._opener = None

    def heard(self, counter: int) -> bool:
        """
        A Keepalive has come.

        @param counter: its stream ID: the low 32 bits of the counter of the last frame
            that the peer had received when it sent this.
        @return: whether the peer echoes a ping.
        """
        if self._opener is None:
            return False
        sentAt = None
        unechoed = self._unechoed
        while unechoed and (counter - unechoed[0][0]) % _COUNTERS < _COUNTERS // 2:
            _, sentAt = unechoed.pop(0)
        if sentAt is None:
            self._answer()
            return False
        self._echoedAt = sentAt
        self.roundTrip = self._now() - sentAt
        self._owner.muxEchoed(self._mux)
        return True

    def _now(self) -> float:
        """
        @return: the time of the clock, less the time in which the process could not
            run.
        """
        now: float = self._clock.seconds()
        return now - self._late

    def _callLater(self, now: float) -> None:
        self._dueAt = min(self._pingAt, self._echoedAt + self._limits.deadPeer)
        # An overdue echo may be among the frames that are not read yet: look again when
        # the next ping is due.
        if self._dueAt <= now:
            self._dueAt = self._pingAt
        self._call = self._clock.callLater(self._dueAt - now, self._look)

    def _look(self) -> None:
        """
        Ping the peer if a ping is due.  Fail the mux if an echo is overdue.
        """
        now = self._dueAt
        self._late += max(0.0, self._now() - now)
        isOverdue = now >= self._echoedAt + self._limits.deadPeer
        if isOverdue and not self._mux.isBehind:
            self._life.fail(PeerVanished())
            return
        if now >= self._pingAt:
            self._pingAt = now + self._limits.ping
            if not self._pingWaits:
                self._pingWaits = True
                self._keepalive(self._sent)
        self._callLater(now)

    def _keepalive(self, sealed: Callable[[int], None] | None = None) -> None:
        assert self._opener is not None
        counter = self._opener.last % _COUNTERS
        self._scheduler.control(counter, Flag.KEEPALIVE, sealed=sealed)

    def _answer(self) -> None:
        """
        Answer a ping.  At most one answer waits, whatever the peer sends.
        """
        self._answerAgain = self._answerWaits
        if not self._answerWaits:
            self._answerWaits = True
            self._keepalive(self._answered)

    def _answered(self, counter: int) -> None:
        """
        An answer was sent.  It does not echo the pings that have come since it was
        queued.
        """
        self._answerWaits = False
        if self._answerAgain:
            self._answer()

    def _sent(self, counter: int) -> None:
        """
        A ping was sent.

        @param counter: its counter.
        """
        self._pingWaits = False
        self._unechoed.append((counter, self._now()))

    def _timedOut(self, gate: Gate) -> None:
        seconds = self._limits.handshakeTimeout
        self._life.fail(
            HandshakeFailed(f"not done after {seconds:g} seconds; {gate.missing}")
        )


def _cancel(call: IDelayedCall | None) -> None:
    if call is not None and call.active():
        call.cancel()
