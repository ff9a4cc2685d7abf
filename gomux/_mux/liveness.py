# -*- test-case-name: gomux.test.mux.test_time -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
How a mux notices that its carrier or its peer is dead, although the carrier reports no
loss.

L{CarrierLiveness} is for every mux.  It sends a Keepalive when nothing was sent for a
long time, because TCP finds out only by sending that a path is dead.  It fails the mux
when the carrier stays blocked for too long.

L{PeerLiveness} is for strict mode, in which both sides must send Keepalives.  It fails
the mux when the handshake takes too long, or when nothing is received from the peer for
too long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from gomux._carrier.watch import Watch
from gomux._mux.owner import MuxOwner
from gomux._mux.scheduler import Scheduler
from gomux._wire.frame import Flag
from gomux.error import GomuxError, HandshakeFailed, PeerVanished, WriteStalled


class CarrierLiveness:
    """
    Sends Keepalives on a quiet carrier, and notices when the carrier stays blocked.

    @ivar answers: C{True}: this tells nothing about the peer.
    @ivar _scheduler: writes to the carrier.
    @ivar _clock: the reactor.
    @ivar _limits: the factory's limits.
    @ivar _failed: see L{__init__}.
    @ivar _call: the delayed call that sends the next Keepalive if it is needed; C{None}
        before L{start}.
    @ivar _stall: watches whether the carrier takes data; C{None} before L{start}.
    """

    answers = True

    _call: IDelayedCall | None = None
    _stall: Watch | None = None

    def __init__(
        self,
        owner: MuxOwner[Any],
        scheduler: Scheduler,
        failed: Callable[[GomuxError], None],
    ) -> None:
        """
        @param owner: the mux's factory, with the limits C{keepalive} and C{writeStall}.
        @param scheduler: writes to the carrier.
        @param failed: called with L{WriteStalled} when the carrier is blocked for too
            long.
        """
        self._scheduler = scheduler
        self._clock = owner.clock
        self._limits = owner.limits
        self._failed = failed

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
        self._stall = Watch(
            self._clock, self._limits.writeStall, self._progress, self._stalled
        )

    def stop(self) -> None:
        """
        The carrier is gone: cancel the delayed calls.
        """
        _cancel(self._call)
        if self._stall is not None:
            self._stall.stop()

    def _keepAlive(self) -> None:
        """
        Send a Keepalive if nothing was sent for C{keepalive} seconds.
        """
        keepalive = self._limits.keepalive
        wait = self._scheduler.sentAt + keepalive - self._clock.seconds()
        if wait <= 0:
            wait = keepalive
            if self._scheduler.idle and not self._scheduler.paused:
                self._scheduler.control(0, Flag.KEEPALIVE)
        self._call = self._clock.callLater(wait, self._keepAlive)

    def _progress(self) -> object:
        """
        @return: a value that equals an earlier one only if the carrier was blocked
            at both times and took nothing in between.
        """
        scheduler = self._scheduler
        return scheduler.bytesSent if scheduler.paused else object()

    def _stalled(self) -> None:
        self._failed(WriteStalled())


class PeerLiveness:
    """
    In strict mode, sends Keepalives, and notices when the handshake takes too long or
    the peer sends nothing.  The time for the handshake begins when this object is made.

    @ivar answers: C{True}: the peer is not asked for anything.
    @ivar _scheduler: sends the Keepalives.
    @ivar _clock: the reactor.
    @ivar _limits: the factory's limits.
    @ivar _bytesReceived: see L{__init__}.
    @ivar _failed: see L{__init__}.
    @ivar _call: the delayed call that ends the time for the handshake; after L{start}
        the delayed call that sends the next Keepalive.
    @ivar _silence: watches whether the peer sends anything; C{None} before L{start}.
    """

    answers = True

    _silence: Watch | None = None

    def __init__(
        self,
        owner: MuxOwner[Any],
        scheduler: Scheduler,
        failed: Callable[[GomuxError], None],
        bytesReceived: Callable[[], int],
    ) -> None:
        """
        @param owner: the mux's factory, with the limits C{handshakeTimeout},
            C{strictKeepalive} and C{deadPeer}.
        @param scheduler: sends the Keepalives.
        @param failed: called with L{HandshakeFailed} or L{PeerVanished}.
        @param bytesReceived: returns how many bytes were received from the peer.
        """
        self._scheduler = scheduler
        self._clock = owner.clock
        self._limits = owner.limits
        self._bytesReceived = bytesReceived
        self._failed = failed
        self._call = self._clock.callLater(
            self._limits.handshakeTimeout, self._handshakeTimedOut
        )

    @property
    def isRunning(self) -> bool:
        """
        Whether a delayed call is pending.
        """
        return bool(self._call.active())

    def start(self) -> None:
        """
        The handshake is done.
        """
        self._call.cancel()
        self._callLater()
        self._silence = Watch(
            self._clock, self._limits.deadPeer, self._bytesReceived, self._vanished
        )

    def stop(self) -> None:
        """
        The carrier is gone: cancel the delayed calls.
        """
        _cancel(self._call)
        if self._silence is not None:
            self._silence.stop()

    def _callLater(self) -> None:
        self._call = self._clock.callLater(self._limits.strictKeepalive, self._sayAlive)

    def _sayAlive(self) -> None:
        """
        Send a Keepalive, unless the carrier is blocked: it still has bytes to send.
        """
        if not self._scheduler.paused:
            self._scheduler.control(0, Flag.KEEPALIVE)
        self._callLater()

    def _handshakeTimedOut(self) -> None:
        self._failed(
            HandshakeFailed(
                f"not done after {self._limits.handshakeTimeout:g} seconds;"
                " a peer that is not in strict mode?"
            )
        )

    def _vanished(self) -> None:
        self._failed(PeerVanished())


def _cancel(call: IDelayedCall | None) -> None:
    if call is not None and call.active():
        call.cancel()
