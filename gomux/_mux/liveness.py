# -*- test-case-name: gomux.test.mux.test_time -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
How a mux notices, by the clock, that its carrier or its peer is gone.

L{CarrierLiveness} is for every mux.  It sends a Keepalive when nothing was sent for a
long time, so that the carrier's own means notice a dead path, and fails the mux when
the carrier takes nothing of what there is to send.

L{PeerLiveness} is for strict mode, where the peer is known to send Keepalives too.  It
fails the mux when the handshake takes too long or nothing comes from the peer.
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
    Keeps the carrier of a mux in use, and notices when it takes nothing any more.

    @ivar answers: C{True}: this tells nothing about the peer.
    @ivar _call: the next look at when something was sent last.
    @ivar _stall: watches whether the carrier takes what there is to send.
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
        @param owner: the mux's factory; of its limits C{keepalive} and C{writeStall}
            count.
        @param scheduler: writes to the carrier.
        @param failed: called when the carrier takes nothing any more.
        """
        self._scheduler = scheduler
        self._clock = owner.clock
        self._limits = owner.limits
        self._failed = failed

    @property
    def isRunning(self) -> bool:
        """
        Whether there is anything that is called later.
        """
        return self._call is not None and self._call.active()

    def start(self) -> None:
        """
        From now on the mux sends.
        """
        self._call = self._clock.callLater(self._limits.keepalive, self._keepAlive)
        self._stall = Watch(
            self._clock, self._limits.writeStall, self._progress, self._stalled
        )

    def stop(self) -> None:
        """
        The carrier is gone.
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
        @return: what is the same twice only if the carrier took nothing in between,
            although there is something to send.
        """
        scheduler = self._scheduler
        return scheduler.bytesSent if scheduler.paused else object()

    def _stalled(self) -> None:
        self._failed(WriteStalled())


class PeerLiveness:
    """
    Expects the handshake of strict mode to be done in time, then Keepalives or
    anything else from the peer, and sends Keepalives itself.

    The time for the handshake runs from the creation of this object.

    @ivar answers: C{True}: the peer is not asked for anything.
    @ivar _call: the end of the time for the handshake; after that the next Keepalive.
    @ivar _silence: watches whether anything comes from the peer.
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
        @param owner: the mux's factory; of its limits C{handshakeTimeout},
            C{strictKeepalive} and C{deadPeer} count.
        @param scheduler: sends the Keepalives.
        @param failed: called when the handshake or the peer's next bytes do not come
            in time.
        @param bytesReceived: tells how many bytes have come from the peer.
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
        Whether there is anything that is called later.
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
        The carrier is gone.
        """
        _cancel(self._call)
        if self._silence is not None:
            self._silence.stop()

    def _callLater(self) -> None:
        self._call = self._clock.callLater(self._limits.strictKeepalive, self._sayAlive)

    def _sayAlive(self) -> None:
        """
        Send a Keepalive.  If the carrier is blocked there is more than enough to send.
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
