# -*- test-case-name: gomux.test.mux.test_muxlife -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The life of a mux: its states, and what moves it from one to the next.

A mux is in one of six states (L{MuxState}) and only moves forward:

  - C{GATED}: the gate lets nothing be sent but its own frames.  Calls of
    C{openStream()} wait.  A mux whose gate lets it send at once leaves this state in
    C{connectionMade}.
  - C{OPEN}: both sides may open streams.
  - C{DRAINING}: no new streams are opened or accepted.  C{CLOSING} follows the end of
    the last one.
  - C{CLOSING}: all streams were told to close.  When the last one has sent its output,
    CloseMux is sent, and the peer ends the carrier.  If this side ended it, CloseMux
    could be lost together with the bytes that this side has not read.
    L{Limits.closeTimeout<gomux.Limits>} bounds all of this.
  - C{ENDING}: there is a reason for the end.  Nothing is sent or handled any more.  The
    carrier is gone or about to go; then the streams are told.
  - C{ENDED}: the carrier is gone, and every stream was told.

C{drain()} leads to C{DRAINING}, C{close()} to C{CLOSING}.  In C{GATED} there is nothing
to close in good order, so both abort.  CloseMux from the peer, an error, C{abort()} and
the loss of the carrier lead to C{ENDING} from every state.  There is a reason if and
only if the state is C{ENDING} or C{ENDED}.

The carrier has a life of its own: it is there, or it was lost for some reason.  It can
be lost in any state, and it can stay for a while in C{ENDING}.  Frames that came before
its loss may wait for their turn; until they are handled, its loss changes nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, ITCPTransport
from twisted.python.failure import Failure

from gomux._carrier.turns import DONE
from gomux._mux.owner import MuxOwner
from gomux._mux.scheduler import Scheduler
from gomux._mux.streamlife import StreamLife
from gomux._mux.streams import Streams
from gomux._wire.frame import Flag
from gomux.error import (
    ConnectionClosed,
    GomuxError,
    NonceExhausted,
    PeerClosedConnection,
)


class MuxState(IntEnum):
    """
    Where a mux is in its life; the module tells what each state means.
    """

    GATED = 0
    OPEN = 1
    DRAINING = 2
    CLOSING = 3
    ENDING = 4
    ENDED = 5


# To look a member up in its Enum takes longer than to compare it.
GATED, OPEN, DRAINING, CLOSING, ENDING, ENDED = MuxState


class LivingMux(Protocol):
    """
    What the life of a mux needs of the mux.
    """

    def getCarrier(self) -> ITCPTransport:
        """
        @return: the mux's own transport.
        """


class MuxLife:
    """
    The life of a mux.

    @ivar state: where the mux is in its life.
    @ivar reason: why the mux ended; C{None} before C{ENDING}.
    @ivar loss: why the carrier is gone; C{None} while it is there.
    @ivar _letGo: see L{__init__}.
    @ivar _explain: see L{__init__}.
    @ivar _told: see L{__init__}.
    @ivar _drainCall: closes the mux when it has drained for too long.
    @ivar _closeCall: aborts the carrier when the peer does not end it in time.
    @ivar _untold: the streams that have yet to be told of the end.
    @ivar _waiting: the results of L{whenClosed} that have not fired.
    """

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
        @param letGo: called when C{ENDING} begins while the carrier is there: from then
            on nothing may be sent or handled.
        @param explain: tells what the loss of the carrier means, if nothing else ended
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
        self._untold: deque[StreamLife] = deque()
        self._waiting: list[Deferred[GomuxError]] = []

    def checkInvariants(self) -> None:
        """
        See whether the state is consistent.  For tests.

        @raise AssertionError: if it is not.
        """
        assert (self.reason is not None) == (self.state >= ENDING), self.state
        if self.state is ENDED:
            assert self.loss is not None
            assert not self._untold and not self._streams.byID
            for call in (self._drainCall, self._closeCall):
                assert call is None or not call.active(), call

    # What moves the mux on in good order

    def open(self) -> None:
        """
        The gate lets frames be sent.  Called in C{GATED} only.
        """
        self.state = OPEN

    def drain(self, timeout: float | None = None) -> None:
        """
        Close when the last stream is done.

        @param timeout: after how many seconds to close anyway.
        """
        if self.state is GATED:
            self.abort()
        elif self.state <= DRAINING:
            self.state = DRAINING
            if timeout is not None and self._drainCall is None and self.loss is None:
                self._drainCall = self._clock.callLater(timeout, self.close)
            self.streamEnded()

    def close(self) -> None:
        """
        Close all streams once their output is sent, then the mux.
        """
        if self.state is GATED:
            self.abort()
        elif self.state <= DRAINING:
            self.state = CLOSING
            self._awaitLoss()
            for stream in list(self._streams.byID.values()):
                stream.closeWith(ConnectionClosed())
            self.streamEnded()

    def streamEnded(self) -> None:
        """
        A stream is no longer open: go on if it was the last.
        """
        if self._streams.byID:
            return
        if self.state is DRAINING:
            self.close()
        elif self.state is CLOSING and not self._scheduler.stopped:
            self._scheduler.control(0, Flag.CLOSE_MUX)
            self._scheduler.finish()

    def peerCloses(self) -> None:
        """
        CloseMux has come: the carrier can go once what was written to it is sent.
        """
        isAnswer = self.state is CLOSING
        self._end(ConnectionClosed() if isAnswer else PeerClosedConnection())
        self._mux.getCarrier().loseConnection()
        self._awaitLoss()

    def _awaitLoss(self) -> None:
        """
        Give the carrier some time to come to its end.
        """
        if self._closeCall is None:
            self._closeCall = self._clock.callLater(self._closeTimeout, self.abort)

    # What ends it at once

    def abort(self) -> None:
        """
        Drop the carrier at once, also when the mux has ended, but the carrier not yet.
        """
        if self.state < ENDING:
            self._end(ConnectionClosed())
        if self.loss is None:
            self._mux.getCarrier().abortConnection()

    def fail(self, error: GomuxError) -> None:
        """
        End the mux for an error.
        """
        if self.state >= ENDING:
            return
        self._end(error)
        if isinstance(error, NonceExhausted):
            # CloseMux was written: as in an orderly close.
            self._awaitLoss()
        elif self.loss is None:
            self._mux.getCarrier().abortConnection()

    def _end(self, reason: GomuxError) -> None:
        self.state = ENDING
        self.reason = reason
        self._letGo()

    # The end

    def lost(self) -> None:
        """
        The carrier is gone, as L{loss} has it, and what came before that is handled:
        tell the streams.
        """
        assert self.loss is not None
        for call in (self._drainCall, self._closeCall):
            if call is not None and call.active():
                call.cancel()
        if self.reason is None:
            isOrderly = self.state is CLOSING
            reason = ConnectionClosed() if isOrderly else self._explain(self.loss)
            self.state = ENDING
            self.reason = reason
        self._untold.extend(self._streams.byID.values())
        self._turns.begin(self._tellStreams)

    def _tellStreams(self, until: float) -> float:
        """
        Tell the streams of the end.

        @param until: when to leave others for a later turn of the reactor.
        @return: how long to leave them, or that there are none left.
        """
        assert self.reason is not None
        while self._untold:
            self._untold.popleft().muxEnded(self.reason)
            if self._untold and self._clock.seconds() >= until:
                return 0.0
        self.state = ENDED
        self._told(self.reason)
        if self._waiting:
            self._streams.callSoon(self._fire)
        return DONE

    def whenClosed(self) -> Deferred[GomuxError]:
        """
        @return: fires with the reason when the state is C{ENDED}.
        """
        waiting: Deferred[GomuxError] = Deferred()
        self._waiting.append(waiting)
        if self.state is ENDED:
            self._streams.callSoon(self._fire)
        return waiting

    def _fire(self) -> None:
        assert self.reason is not None
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(self.reason)
