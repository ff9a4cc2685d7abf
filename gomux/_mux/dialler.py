# -*- test-case-name: gomux.test.mux.test_dialler -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Dialling: a client that keeps a mux connected for as long as one is wanted.

Theory of operation
===================

L{Dialler.start} tells the dialler that a mux is wanted, L{Dialler.stop} that none is.
The dialler is in one of four states:

    - C{IDLE}: no mux can open streams, and none is being made.
    - C{CONNECTING}: the carrier is being connected.
    - C{UP}: a mux has its carrier, and can open streams.
    - C{WAITING}: the next attempt waits for the end of a pause.

It goes from one to another like this:

    - C{IDLE} to C{CONNECTING} when a mux is wanted and no pause goes on.
    - C{IDLE} to C{WAITING} when a mux is wanted and a pause goes on.
    - C{WAITING} to C{CONNECTING} when the pause is over.
    - C{CONNECTING} to C{UP} when the carrier is connected.
    - C{CONNECTING} to C{IDLE} when that fails.  This begins a pause.
    - C{UP} to C{IDLE} when the mux starts to close.  The next C{start} connects another
      carrier beside the one that is being closed.
    - C{UP} to C{IDLE} when the mux is lost.  This begins a pause if a mux is wanted, or
      if the mux failed before its peer had shown that it holds the key.
    - C{CONNECTING} or C{WAITING} to C{IDLE} on C{stop}, which forgets the failures too.

The state is not stored.  L{Dialler.state} derives it from the attempt, the delayed call
and the muxes that exist.

L{retryPolicy} says how long a pause is.  Pauses grow with the number of failures in a
row.  The dialler resets that number once a peer has shown that it holds the key: a peer
that has another key accepts connections only to drop them, and must not be asked more
often than a peer that refuses them.
L{ClientService<twisted.application.internet.ClientService>} resets it as soon as there
is a connection, and cannot connect while the last connection is being closed.
"""

from __future__ import annotations

from enum import Enum
from random import uniform
from typing import TYPE_CHECKING, TypedDict

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure

from gomux._mux.factory import MuxFactory
from gomux._mux.protocol import MuxProtocol
from gomux._wire.keyring import Keyring
from gomux.limits import MAX_RETRY_DELAY

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gomux._mux.pool import MuxPool
    from gomux._wire.strict import Salts
    from gomux.error import GomuxError
    from gomux.interfaces import IStreamFactory
    from gomux.limits import Limits

#: The longest first pause, in seconds.
FIRST_RETRY = 0.25


def retryPolicy(failures: int, maximum: float = MAX_RETRY_DELAY) -> float:
    """
    How long to wait before the next attempt to connect, also for
    L{ClientService<twisted.application.internet.ClientService>}: exponential, and so
    random that clients which lost their server together do not come back together.

    @param failures: how many attempts have failed in a row, from 1.
    @param maximum: the most to wait, in seconds.
    @return: seconds.
    """
    return uniform(0.2, 1.0) * min(maximum, FIRST_RETRY * 2.0 ** min(failures - 1, 16))


class Settings(TypedDict, total=False):
    """
    The optional arguments of L{MuxFactory} that endpoints have too.
    """

    limits: Limits | None
    greet: bool
    strict: bool
    context: bytes
    salts: Salts


class State(Enum):
    """
    The state of a L{Dialler}, as explained above.
    """

    IDLE = "idle"
    CONNECTING = "connecting"
    UP = "up"
    WAITING = "waiting"


class Dialler(MuxFactory):
    """
    Makes a client's muxes, and connects them, one at a time, while one is wanted.

    @ivar carrier: the endpoint that connects the carriers.
    @ivar _maxRetryDelay: the longest pause, in seconds.
    @ivar _wanted: whether a mux is wanted.
    @ivar _failures: how many carriers in a row came to nothing.
    @ivar _notBefore: when the pause is over, by the clock.
    @ivar _attempt: fires when the carrier is connected; C{None} when none is being
        connected.
    @ivar _retry: the next attempt, in C{WAITING}.
    """

    def __init__(
        self,
        psk: bytes | str | Keyring,
        carrier: IStreamClientEndpoint,
        maxRetryDelay: float,
        streamFactory: IStreamFactory | IProtocolFactory | None = None,
        *,
        clock: IReactorTime,
        pool: MuxPool | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        """
        @param psk: the pre-shared key.
        @param carrier: connects the carriers.
        @param maxRetryDelay: the longest pause between two attempts, in seconds.
        @param streamFactory: as for L{MuxFactory}.
        @param clock: as for L{MuxFactory}.
        @param pool: as for L{MuxFactory}.
        @param settings: the other arguments of L{MuxFactory}.
        """
        super().__init__(psk, True, streamFactory, clock=clock, pool=pool, **settings)
        self.carrier = carrier
        self._maxRetryDelay = maxRetryDelay
        self._wanted = False
        self._failures = 0
        self._notBefore = 0.0
        self._attempt: Deferred[IProtocol] | None = None
        self._retry: IDelayedCall | None = None

    @property
    def state(self) -> State:
        """
        What the dialler is doing.
        """
        if self._attempt is not None:
            return State.CONNECTING
        if self._retry is not None:
            return State.WAITING
        if any(mux.canOpen for mux in self.muxes):
            return State.UP
        return State.IDLE

    def start(self) -> None:
        """
        A mux is wanted.  May be called again at any time.
        """
        self._wanted = True
        self._dial()

    def stop(self) -> None:
        """
        No mux is wanted.  Those that are connected are left alone.
        """
        self._wanted = False
        pending = self._attempt or self._retry
        if pending is not None:
            self._attempt = self._retry = None
            self._failures = 0
            self._notBefore = 0.0
            pending.cancel()

    def _dial(self) -> None:
        """
        Connect a carrier if one is needed, and as soon as one may be.
        """
        if not self._wanted or self.state is not State.IDLE:
            return
        # Should the clock be set back, a pause is not any longer for that.
        pause = min(self._notBefore - self.clock.seconds(), self._maxRetryDelay)
        if pause > 0.0:
            self._retry = self.clock.callLater(pause, self._pauseOver)
            return
        attempt = self._attempt = maybeDeferred(self.carrier.connect, self)
        attempt.addBoth(self._attemptOver, attempt)

    def _pauseOver(self) -> None:
        self._retry = None
        self._notBefore = 0.0
        self._dial()

    def _attemptOver(
        self, result: IProtocol | Failure, attempt: Deferred[IProtocol]
    ) -> None:
        # A failure is old news if the attempt was cancelled, or if its mux came up.
        if self._attempt is attempt:
            self._attempt = None
            if isinstance(result, Failure):
                self.attemptFailed(result)

    def _pause(self) -> None:
        """
        A carrier came to nothing: make the next attempt wait.
        """
        self._failures += 1
        delay = retryPolicy(self._failures, self._maxRetryDelay)
        self._notBefore = self.clock.seconds() + delay
        self._dial()

    # What happens to attempts and muxes

    def attemptFailed(self, failure: Failure) -> None:
        """
        An attempt has failed.
        """
        self.pool.lastReason = failure.value
        self._pause()

    def muxConnected(self, mux: MuxProtocol) -> None:
        """
        A mux has its carrier.
        """
        # It has yet to fire, but to cancel it now would cut the mux.
        self._attempt = None
        super().muxConnected(mux)

    def muxAuthenticated(self, mux: MuxProtocol) -> None:
        """
        The peer holds the key: its next failure is the first.
        """
        self._failures = 0
        super().muxAuthenticated(mux)

    def muxLost(self, mux: MuxProtocol, reason: GomuxError) -> None:
        """
        A mux is gone: make another, after a pause, if one is wanted.
        """
        super().muxLost(mux, reason)
        failed = not (mux.authenticated or isinstance(reason, ConnectionDone))
        if (self._wanted or failed) and self.state is State.IDLE:
            self._pause()
