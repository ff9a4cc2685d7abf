# -*- test-case-name: gomux.test.mux.test_dialler -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The dialler of a client: keeps a mux connected for as long as a mux is wanted.

Theory of operation
===================

L{Dialler.start} tells the dialler that a mux is wanted, L{Dialler.stop} that no mux
is wanted.  The dialler is in one of four states:

    - C{IDLE}: no mux is good for new streams, and no carrier is being connected.
    - C{CONNECTING}: the carrier is being connected.
    - C{UP}: a mux has its carrier, can open streams, and is not worn.
    - C{WAITING}: the next attempt waits for the end of a pause.

Its transitions are:

    - C{IDLE} to C{CONNECTING} when a mux is wanted and there is no pause.
    - C{IDLE} to C{WAITING} when a mux is wanted and there is a pause.
    - C{WAITING} to C{CONNECTING} when the pause is over.
    - C{CONNECTING} to C{UP} when the carrier is connected.
    - C{CONNECTING} to C{IDLE} when the attempt fails.  This begins a pause.
    - C{UP} to C{IDLE} when the mux starts to drain or close, or is worn: either side
      has few stream IDs left.
    - C{UP} to C{IDLE} when the mux is lost.
    - C{CONNECTING} or C{WAITING} to C{IDLE} on C{stop}.  That also resets the number of
      failures, unless the last failure was a mux whose peer had not shown that it holds
      the key.

The loss of a mux begins a pause if the dialler is then C{IDLE}, and if a mux is wanted
or the mux failed before its peer had shown that it holds the key.

If a mux is worn or drains while a mux is wanted, a pause begins too.  After the pause
the dialler connects another mux beside it.  Without the pause, a peer that uses up its
IDs on purpose would be dialled all the time.  The worn mux is closed when it has no
streams, and the peer has shown on the other mux that it holds the key.

The state is not stored.  L{Dialler.state} derives it from the attempt, the delayed call
and the existing muxes.

L{retryPolicy} computes the length of a pause.  Pauses grow with the number of failures
in a row.  The dialler resets that number once a peer has shown that it holds the key.
A peer with another key accepts each connection and then drops it; the dialler must not
dial it more often than a peer that refuses connections.  Twisted's
L{ClientService<twisted.application.internet.ClientService>} resets the number as soon
as it is connected, and cannot connect while its last connection is closing.
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
from gomux.limits import MAX_RETRY_DELAY, MAX_WORN

if TYPE_CHECKING:
    from collections.abc import Collection

    from typing_extensions import Unpack

    from gomux._mux.pool import MuxPool
    from gomux._wire.salts import Salts
    from gomux.error import GomuxError
    from gomux.interfaces import IStreamFactory
    from gomux.limits import Limits

#: The upper bound of the first pause, in seconds.
FIRST_RETRY = 0.25


def retryPolicy(failures: int, maximum: float = MAX_RETRY_DELAY) -> float:
    """
    Compute the pause before the next attempt to connect.  It grows exponentially, and
    is random, so that the clients of a lost server do not all reconnect at once.  This
    is also a retry policy for
    L{ClientService<twisted.application.internet.ClientService>}.

    @param failures: how many attempts have failed in a row, from 1.
    @param maximum: the longest pause, in seconds.
    @return: the pause, in seconds.
    """
    return uniform(0.2, 1.0) * min(maximum, FIRST_RETRY * 2.0 ** min(failures - 1, 16))


class Settings(TypedDict, total=False):
    """
    The optional arguments of L{MuxFactory} that the endpoints also accept.
    """

    limits: Limits | None
    greet: bool
    strict: bool | Collection[str]
    context: bytes
    salts: Salts
    strictClock: bool


class State(Enum):
    """
    The state of a L{Dialler}.  The module's docstring explains each state.
    """

    IDLE = "idle"
    CONNECTING = "connecting"
    UP = "up"
    WAITING = "waiting"


class Dialler(MuxFactory):
    """
    Makes a client's muxes and connects them, one at a time, while a mux is wanted.

    @ivar carrier: the endpoint that connects the carriers.
    @ivar maxRetryDelay: the longest pause, in seconds, except after a mux whose peer
        did not show that it holds the key.  May be changed.
    @ivar _wanted: whether a mux is wanted.
    @ivar _failures: how many attempts and muxes have failed in a row.
    @ivar _rejected: whether the last failure was a mux whose peer had not shown that it
        holds the key.  Then L{stop} does not end the pause: an application may call
        C{start} and C{stop} again for each stream that it loses.
    @ivar _delay: the length of the last pause, in seconds.
    @ivar _notBefore: when the last pause ends, by the clock; 0 for no pause.  There is
        also no pause once that time has passed.
    @ivar _attempt: fires when the carrier is connected; C{None} when no carrier is
        being connected.
    @ivar _retry: the delayed call of the next attempt; C{None} except in C{WAITING}.
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
        peer: str | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        """
        @param psk: the pre-shared key.
        @param carrier: connects the carriers.
        @param maxRetryDelay: the longest pause between two attempts, in seconds.
        @param streamFactory: as for L{MuxFactory}.
        @param clock: as for L{MuxFactory}.
        @param pool: as for L{MuxFactory}.
        @param peer: as for L{MuxFactory}.
        @param settings: the other arguments of L{MuxFactory}.
        """
        super().__init__(
            *(psk, True, streamFactory),
            clock=clock,
            pool=pool,
            peer=peer,
            **settings,
        )
        self.carrier = carrier
        self.maxRetryDelay = maxRetryDelay
        self._wanted = False
        self._failures = 0
        self._rejected = False
        self._notBefore = 0.0
        self._delay = 0.0
        self._attempt: Deferred[IProtocol] | None = None
        self._retry: IDelayedCall | None = None

    @property
    def state(self) -> State:
        """
        The current state.
        """
        if self._attempt is not None:
            return State.CONNECTING
        if self._retry is not None:
            return State.WAITING
        if any(mux.canOpen and not mux.isWorn for mux in self.muxes):
            return State.UP
        return State.IDLE

    def start(self) -> None:
        """
        Keep a mux connected from now on.  May be called again at any time.
        """
        self._wanted = True
        self._dial()

    def stop(self) -> None:
        """
        Connect no more muxes.  Connected muxes stay connected.
        """
        self._wanted = False
        pending = self._attempt or self._retry
        if pending is not None:
            self._attempt = self._retry = None
            if not self._rejected:
                self._failures = 0
                self._notBefore = 0.0
            pending.cancel()

    def _dial(self) -> None:
        """
        Connect a carrier if a mux is wanted and missing, after the pause if there is
        one.
        """
        if not self._wanted or self.state is not State.IDLE:
            return
        # If the clock was set back, the pause must not grow by as much.
        pause = min(self._notBefore - self.clock.seconds(), self._delay)
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
        # Ignore the result if the attempt was cancelled or its mux has its carrier.
        if self._attempt is attempt:
            self._attempt = None
            if isinstance(result, Failure):
                self.attemptFailed(result)

    def _pause(self) -> None:
        """
        Count a failure, and begin the pause before the next attempt.
        """
        self._failures += 1
        # A peer that has not shown that it holds the key will hardly do so soon.
        longest = self.maxRetryDelay
        if self._rejected:
            longest = max(longest, MAX_RETRY_DELAY)
        self._delay = retryPolicy(self._failures, longest)
        self._notBefore = self.clock.seconds() + self._delay
        self._dial()

    # Events of attempts and muxes

    def attemptFailed(self, failure: Failure) -> None:
        """
        An attempt has failed.
        """
        self.pool.lastReason = failure.value
        self._rejected = False
        self._pause()

    def muxConnected(self, mux: MuxProtocol) -> None:
        """
        A mux has its carrier.
        """
        # The Deferred has not fired yet.  stop() must not cancel it: that would drop
        # the mux's carrier.
        self._attempt = None
        super().muxConnected(mux)

    def muxAuthenticated(self, mux: MuxProtocol) -> None:
        """
        The peer holds the key: reset the number of failures.
        """
        self._failures = 0
        self._rejected = False
        super().muxAuthenticated(mux)
        for old in list(self.muxes):
            if not old.streamCount:
                self._closeReplaced(old)

    def muxWorn(self, mux: MuxProtocol) -> None:
        """
        A mux should get no more streams: if a mux is wanted, connect another beside it.
        """
        super().muxWorn(mux)
        worn = [mux for mux in self.muxes if mux.takesStreams and mux.isWorn]
        if len(worn) > MAX_WORN:
            worn[0].close()
        if self._wanted and self.state is State.IDLE:
            self._pause()

    def muxIdle(self, mux: MuxProtocol) -> None:
        """
        The last stream of a mux has ended: close the mux if another has replaced it.
        """
        super().muxIdle(mux)
        self._closeReplaced(mux)

    def _closeReplaced(self, old: MuxProtocol) -> None:
        """
        Close a worn mux without streams, once the peer has shown on another mux that it
        holds the key.  From then on the peer opens its streams there.
        """
        if old.isWorn and any(
            mux.authenticated and mux.canOpen and not mux.isWorn for mux in self.muxes
        ):
            old.close()

    def muxLost(self, mux: MuxProtocol, reason: GomuxError) -> None:
        """
        A mux is lost: begin a pause, after which another is connected if wanted.
        """
        super().muxLost(mux, reason)
        failed = not (mux.authenticated or isinstance(reason, ConnectionDone))
        self._rejected = failed
        if (self._wanted or failed) and self.state is State.IDLE:
            self._pause()
