# -*- test-case-name: gomux.test.mux.test_muxlife -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The life of a mux: its states and their transitions.

A mux is in one of six states (L{MuxState}) and only moves forward:

  - C{GATED}: only the gate's own frames may be sent.  Calls of C{openStream()} wait.  A
    mux whose gate lets it send at once leaves this state in C{connectionMade}.
  - C{OPEN}: both sides may open streams.
  - C{DRAINING}: no new streams are opened or accepted.  C{CLOSING} follows when the
    last stream has ended.
  - C{CLOSING}: the mux closes all streams.  When the last stream has ended, the mux
    sends CloseMux and waits for the peer to drop the carrier.  If this side dropped the
    carrier while it had unread bytes, CloseMux could be lost.  If C{CLOSING} takes
    longer than L{Limits.closeTimeout<gomux.Limits>}, the mux drops the carrier anyway.
  - C{ENDING}: the mux has a reason for its end, and neither sends nor handles frames.
    The carrier is gone or about to go.  Once it is gone, the mux ends its streams.
  - C{ENDED}: the carrier is gone, and every stream was told the reason.

C{drain()} leads to C{DRAINING}, C{close()} to C{CLOSING}.  In C{GATED} there are no
streams to close, so both abort.  Both also abort a server's mux whose peer may be a
stranger, because a stranger is sent nothing.  CloseMux from the peer, an error,
C{abort()} and the loss of the carrier lead to C{ENDING}.  The mux has a reason if and
only if the state is C{ENDING} or C{ENDED}.

The carrier can be lost in any state, and may still be connected in C{ENDING}.  If
received frames wait for a later turn when the carrier is lost, the mux handles them
first.  Only then does the loss lead to C{ENDING}.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IDelayedCall, ITCPTransport
from twisted.python.failure import Failure

from gomux._carrier.transport import dropTransport
from gomux._carrier.turns import DONE
from gomux._mux.owner import MuxOwner
from gomux._mux.scheduler import Scheduler
from gomux._mux.stream import Stream
from gomux._mux.streams import Streams
from gomux.error import (
    ConnectionClosed,
    GomuxError,
    NonceExhausted,
    PeerClosedConnection,
)

#: How long a carrier may take to go after it was dropped, in seconds.
DROP_TIMEOUT = 1.0


class MuxState(IntEnum):
    """
    The state of a mux.  The module's docstring explains each state.
    """

    GATED = 0
    OPEN = 1
    DRAINING = 2
    CLOSING = 3
    ENDING = 4
    ENDED = 5


# A look-up in an Enum takes longer than a comparison.
GATED, OPEN, DRAINING, CLOSING, ENDING, ENDED = MuxState


class LivingMux(Protocol):
    """
    The part of the mux that L{MuxLife} uses.
    """

    def getCarrier(self) -> ITCPTransport:
        """
        @return: the mux's own transport.
        """

    def connectionLost(self, reason: Failure) -> None:
        """
        The carrier is gone.
        """


class MuxLife:
    """
    The life of a mux.

    @ivar state: the L{MuxState}.
    @ivar reason: why the mux ended; C{None} before C{ENDING}.
    @ivar loss: why the carrier is gone; C{None} while it is connected.
    @ivar _mux: the mux.
    @ivar _streams: the mux's streams.
    @ivar _scheduler: sends CloseMux.
    @ivar _turns: spreads the end of many streams over several turns of the reactor.
    @ivar _clock: the reactor.
    @ivar _closeTimeout: how long the mux waits for the loss of the carrier, in seconds.
    @ivar _letGo: see L{__init__}.
    @ivar _explain: see L{__init__}.
    @ivar _told: see L{__init__}.
    @ivar _drainCall: closes the mux if draining takes longer than its timeout; C{None}
        without a timeout.
    @ivar _closeCall: drops the carrier after C{_closeTimeout}; C{None} until the mux
        waits for the loss of the carrier.
    @ivar _dropCall: ends the mux if a carrier that was dropped does not go; C{None}
        until the carrier is dropped.
    @ivar _waiting: the results of L{whenClosed} that have not fired.
    """

    __slots__ = (
        *("state", "reason", "loss", "_mux", "_streams", "_scheduler", "_turns"),
        *("_clock", "_closeTimeout", "_letGo", "_explain", "_told", "_drainCall"),
        *("_closeCall", "_dropCall", "_waiting"),
    )

    def __init__(
        self,
        mux: LivingMux,
        owner: MuxOwner[Any],
        streams: Streams,
        scheduler: Scheduler,
        *,
        letGo: Callable[[], None],
        explain: Callable[[Failure], GomuxError],
        told: Callable[[GomuxError], None],
    ) -> None:
        """
        @param mux: the mux.
        @param owner: the mux's factory.
        @param streams: the mux's streams.
        @param scheduler: sends CloseMux.
        @param letGo: called when C{ENDING} begins for any cause but the loss of the
            carrier.  It must stop the sending and handling of frames.
        @param explain: converts the loss of the carrier to a reason, if that loss ended
            the mux.
        @param told: called with the reason when C{ENDED} begins.
        """
        self.state = GATED
        self.reason: GomuxError | None = None
        self.loss: Failure | None = None
        self._mux = mux
        self._streams = streams
        self._scheduler = scheduler
        self._turns = owner.turns
        self._clock = owner.clock
        self._closeTimeout = owner.limits.closeTimeout
        self._letGo = letGo
        self._explain = explain
        self._told = told
        self._drainCall: IDelayedCall | None = None
        self._closeCall: IDelayedCall | None = None
        self._dropCall: IDelayedCall | None = None
        self._waiting: tuple[Deferred[GomuxError], ...] = ()

    def checkInvariants(self) -> None:
        """
        Check that the state is consistent.  For tests.

        @raise AssertionError: if the state is not consistent.
        """
        assert (self.reason is not None) == (self.state >= ENDING), self.state
        if self.state is ENDED:
            assert self.loss is not None
            assert not self._streams.byID
            for call in (self._drainCall, self._closeCall, self._dropCall):
                assert call is None or not call.active(), call

    # Orderly transitions

    def open(self) -> None:
        """
        The gate lets the mux send from now on.  Called in C{GATED} only.
        """
        self.state = OPEN

    def drain(self, timeout: float | None = None) -> None:
        """
        Open and accept no new streams, and close when the last stream has ended.

        @param timeout: close after this many seconds even if streams are open.
        """
        if self._isSilent:
            self.abort()
        elif self.state <= DRAINING:
            self.state = DRAINING
            if timeout is not None and self._drainCall is None and self.loss is None:
                self._drainCall = self._clock.callLater(timeout, self.close)
            self.streamEnded()

    def close(self) -> None:
        """
        Close all streams once their output is sent, then close the mux.
        """
        if self._isSilent:
            self.abort()
        elif self.state <= DRAINING:
            self.state = CLOSING
            self._awaitLoss()
            unclosed = deque(self._streams.byID.values())
            self._turns.begin(partial(self._closeStreams, unclosed))
            self.streamEnded()

    def _closeStreams(self, unclosed: deque[Stream], until: float) -> float:
        """
        Close streams that were open when C{CLOSING} began.

        @param unclosed: those that are not closed yet.
        @param until: the time after which to leave the rest for a later turn of the
            reactor.
        @return: 0 if streams are left, otherwise L{DONE}.
        """
        while unclosed and self.state is CLOSING:
            unclosed.popleft().closeWith(ConnectionClosed())
            if unclosed and self._clock.seconds() >= until:
                return 0.0
        return DONE

    @property
    def _isSilent(self) -> bool:
        """
        Whether the mux must not send anything, not even to close in good order.
        """
        return self.state is GATED or (self.state is OPEN and self._scheduler.isMute)

    def streamEnded(self) -> None:
        """
        If no streams are open, take the next step of draining or closing.
        """
        if self._streams.byID:
            return
        if self.state is DRAINING:
            self.close()
        elif self.state is CLOSING and not self._scheduler.stopped:
            self._scheduler.finish()

    def peerCloses(self) -> None:
        """
        The peer has sent CloseMux: close the carrier once it has sent the output that
        it already has.
        """
        isAnswer = self.state is CLOSING
        self._end(ConnectionClosed() if isAnswer else PeerClosedConnection())
        # First, because the carrier may be lost before loseConnection returns.
        self._awaitLoss()
        self._mux.getCarrier().loseConnection()

    def _awaitLoss(self) -> None:
        """
        Drop the carrier if it is not lost within C{_closeTimeout}.
        """
        if self._closeCall is None:
            self._closeCall = self._clock.callLater(self._closeTimeout, self.abort)

    # Immediate ends

    def abort(self) -> None:
        """
        End the mux, and drop the carrier at once.  In C{ENDING}, only drop the carrier
        if it is still connected.
        """
        if self.state < ENDING:
            self._end(ConnectionClosed())
        self.dropCarrier()

    def dropCarrier(self) -> None:
        """
        Drop the carrier, unless it is gone.  It counts as gone L{DROP_TIMEOUT} later:
        a transport that has no C{abortConnection} may wait for a peer that reads
        nothing.
        """
        if self.loss is not None or self._dropCall is not None:
            return
        self._dropCall = self._clock.callLater(
            DROP_TIMEOUT, self._mux.connectionLost, Failure(ConnectionAborted())
        )
        dropTransport(self._mux.getCarrier())

    def fail(self, error: GomuxError) -> None:
        """
        End the mux because of an error.
        """
        if self.state >= ENDING:
            return
        self._end(error)
        if isinstance(error, NonceExhausted):
            # The scheduler has written CloseMux, so the peer drops the carrier.
            self._awaitLoss()
        else:
            self.dropCarrier()

    def _end(self, reason: GomuxError) -> None:
        self.state = ENDING
        # The frames of the stack have the keys of the mux, and the reason is kept.
        self.reason = reason.with_traceback(None)
        self._letGo()

    # The end

    def lost(self) -> None:
        """
        The carrier is gone, L{loss} is set, and all received frames are handled: end
        the streams.
        """
        assert self.loss is not None
        for call in (self._drainCall, self._closeCall, self._dropCall):
            if call is not None and call.active():
                call.cancel()
        if self.reason is None:
            isOrderly = self.state is CLOSING
            reason = ConnectionClosed() if isOrderly else self._explain(self.loss)
            self.state = ENDING
            self.reason = reason
        untold = deque(self._streams.byID.values())
        self._turns.begin(partial(self._tellStreams, untold))

    def _tellStreams(self, untold: deque[Stream], until: float) -> float:
        """
        End streams with the reason, then call C{_told}.

        @param untold: the open streams that were not told the reason yet.
        @param until: the time after which to leave the rest for a later turn of the
            reactor.
        @return: 0 if streams are left, otherwise L{DONE}.
        """
        assert self.reason is not None
        while untold:
            untold.popleft().muxEnded(self.reason)
            if untold and self._clock.seconds() >= until:
                return 0.0
        self.state = ENDED
        self._told(self.reason)
        if self._waiting:
            self._streams.callSoon(self._fire)
        return DONE

    def whenClosed(self) -> Deferred[GomuxError]:
        """
        @return: fires with the reason once the state is C{ENDED}.
        """
        waiting: Deferred[GomuxError] = Deferred()
        self._waiting += (waiting,)
        if self.state is ENDED:
            self._streams.callSoon(self._fire)
        return waiting

    def _fire(self) -> None:
        assert self.reason is not None
        waiting, self._waiting = self._waiting, ()
        for deferred in waiting:
            if not deferred.called:
                deferred.callback(self.reason)
