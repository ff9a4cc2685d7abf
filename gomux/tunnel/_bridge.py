# -*- test-case-name: gomux.test.tunnel.test_bridge -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
A bridge joins two connections, its ends.

The bridge writes the input of each end to the other end, and registers the transport of
each end as the other's producer.  So a slow reader at one end slows down the writer at
the other end.

The bridge passes on how an end closes:

  - If an end reads EOF, the bridge closes the writing half of the other end.
  - If the reader at an end wants no more, the bridge stops reading the other end.
  - If an end closes in an orderly way, the other end sends its output, then closes.
  - If an end is cut short, the other end sends the output that it has, and is then
    aborted: truncated data must not look complete.  A stream that the peer aborts
    before EOF was cut short.  But an abort by the Go package looks like an orderly
    close.  If the peer's key was revoked, the other end is aborted at once.

The state of a bridge only moves forward:

  - C{CONNECTING}: the near end exists, and stays paused until the far end is connected.
  - C{JOINED}: both ends are connected.  A far end that is a stream for a service need
    not be accepted yet: what the near end sends follows the request at once, and is
    lost if the peer refuses the stream.
  - C{ENDING}: one end is gone, or the bridge was aborted.
  - C{OVER}: both ends are gone, and the tunnel has forgotten the bridge.

While both halves of both ends are open, the bridge has no timeout.  After that it is
aborted if no bytes move for too long, because the program at an end may stop reading or
writing for ever.  The shorter of these timeouts counts:

  - L{TunnelLimits.halfOpenTimeout} once one half is closed, or one end is gone.
  - L{TunnelLimits.lingerTimeout} once the mux of an end has ended.
"""

from __future__ import annotations

from enum import IntEnum
from math import inf
from typing import Any
from typing import Protocol as Interface

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from gomux._mux.deadlines import Deadlines
from gomux._mux.log import ThrottledLog, describeAddress
from gomux.error import KeyRevoked, ServiceTimeout, ServiceWithdrawn
from gomux.limits import TunnelLimits
from gomux.tunnel._codes import MUX_LOST, Ending, codeOf
from gomux.tunnel._end import End, Life, NearEnd
from gomux.tunnel._patience import Patience


class State(IntEnum):
    """
    The state of a L{Bridge}.
    """

    CONNECTING = 0
    JOINED = 1
    ENDING = 2
    OVER = 3


class BridgeTunnel(Interface):
    """
    What a bridge needs of its tunnel.
    """

    name: str
    clock: Any
    log: ThrottledLog
    limits: TunnelLimits
    awaited: Deadlines[Bridge] | None

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect the far end.
        """

    def began(self, bridge: Bridge) -> None:
        """
        The near end is connected.
        """

    def follows(self, bridge: Bridge, mux: Any) -> None:
        """
        An end is a stream: tell the bridge when the mux of the stream has ended.
        """

    def failed(self, bridge: Bridge, failure: Failure) -> None:
        """
        Count that the far end cannot be connected.
        """

    def explain(self, failure: Failure) -> str:
        """
        Say why the far end cannot be connected.
        """

    def over(self, bridge: Bridge) -> None:
        """
        Both ends are gone.
        """


class Bridge:
    """
    Joins two connections, its ends.

    @ivar near: the end that was connected first.
    @ivar state: the L{State}.
    @ivar peer: the name of the peer that has opened the near end; C{None} if no peer
        has.
    @ivar service: the service that the connection is for; C{None} for none.
    @ivar ending: how the connection ended, for the access log.
    @ivar beganAt: when the near end was connected, in seconds.
    @ivar muxes: the muxes of the ends that are streams.
    @ivar _tunnel: the tunnel; it connects the far end.
    @ivar _limits: the limits that the tunnel had when the bridge began.
    @ivar _far: the end that the tunnel connects after the near end.
    @ivar _address: the address of the near end.
    @ivar _connecting: fires when the far end is connected; C{None} before the tunnel
        begins to connect it.
    @ivar _lateReason: why the near end was lost, if it was lost before the far end was
        connected, and its input must still reach the far end; otherwise C{None}.
    @ivar _patience: how long nothing may move; C{None} while both halves of both ends
        are open.
    """

    beganAt = 0.0
    _connecting: Deferred[IProtocol] | None = None
    _lateReason: Failure | None = None
    _patience: Patience | None = None

    def __init__(
        self,
        tunnel: BridgeTunnel,
        address: IAddress | None,
        peer: str | None = None,
        service: str | None = None,
    ) -> None:
        self._tunnel = tunnel
        self._limits = tunnel.limits
        self.peer = peer
        self.service = service
        self.muxes: list[Any] = []
        self.ending = Ending()
        self._address = address
        self.state = State.CONNECTING
        self.near = NearEnd(self)
        self._far = End(self)

    @property
    def _name(self) -> str:
        """
        The address of the near end, for log lines.
        """
        return describeAddress(self._address)

    @property
    def ends(self) -> tuple[End, End]:
        """
        The near end and the far end.
        """
        return self.near, self._far

    # What the ends call

    def connected(self, end: End) -> None:
        """
        An end is connected.  After the near end, connect the far end; after the far
        end, join them.
        """
        if end is self.near:
            self.beganAt = self._tunnel.clock.seconds()
            self._tunnel.began(self)
            self._follow(end)
            factory = _EndFactory(self._far, self._tunnel.awaited is not None)
            self._connecting = maybeDeferred(self._tunnel.connect, factory)
            if self.state is not State.JOINED:
                self._connecting.addErrback(self._failed)
        elif self.state is not State.CONNECTING:
            end.abort()
        else:
            self.state = State.JOINED
            if self._tunnel.awaited is not None:
                self._tunnel.awaited.begin(self)
            elif self.near.answer is not None:
                self.near.answer(None)
            self._follow(end)
            self.near.join(end)
            end.join(self.near)
            self.near.follow()
            end.follow()
            if self._lateReason is not None:
                self.lost(self.near, self._lateReason)

    def _follow(self, end: End) -> None:
        mux = getattr(end.transport, "mux", None)
        if hasattr(mux, "whenClosed"):
            self._tunnel.follows(self, mux)

    def answered(self) -> None:
        """
        The far end is a stream, and the peer has accepted it.
        """
        if self._tunnel.awaited is not None:
            self._tunnel.awaited.end(self)
        if self.near.answer is not None:
            self.near.answer(None)

    @property
    def _isAwaited(self) -> bool:
        """
        Whether the far end is a stream that the peer has not accepted yet.
        """
        awaited = self._tunnel.awaited
        return awaited is not None and self in awaited

    def unanswered(self) -> None:
        """
        The peer has not accepted the far end in time.
        """
        self._refuse(Failure(ServiceTimeout()))
        self._far.abort()

    def _failed(self, failure: Failure) -> None:
        """
        The far end cannot be connected.
        """
        if self.state is State.CONNECTING:
            self._refuse(failure)

    def _refuse(self, failure: Failure) -> None:
        """
        Refuse or abort the near end, because there is no far end.
        """
        self._tunnel.failed(self, failure)
        self._tunnel.log.warn(
            "{name}: closed {near}: the other side cannot be connected: {reason}",
            name=self._tunnel.name,
            near=self._name,
            reason=self._tunnel.explain(failure),
        )
        self.ending.refused(failure)
        answer = self.near.answer
        if answer is None or self.near.life is Life.LOST:
            self.abort()
        else:
            # The peer learns why, and the stream closes.
            self.state = State.ENDING
            answer(codeOf(failure))

    def halfClosed(self) -> None:
        """
        A half of an end was closed.
        """
        if self.state is State.JOINED:
            self._limit(self._limits.halfOpenTimeout or inf)

    def lost(self, end: End, reason: Failure) -> None:
        """
        An end is gone: close or cut the other end.
        """
        other = self._far if end is self.near else self.near
        isOrderly = end.isOrderly(reason)
        if not (isOrderly or (end is self._far and self._isAwaited)):
            self.ending.cut(end.transport, end is self.near, reason)
        if self.state is State.CONNECTING:
            if end.hasEarlyInput and isOrderly:
                self._lateReason = reason
                return
            self.state = State.ENDING
            if self._connecting is not None:
                self._connecting.cancel()
        elif self.state is State.JOINED and end is self._far and self._isAwaited:
            self._refuse(reason)
        elif self.state is State.JOINED:
            self.state = State.ENDING
            if isOrderly:
                other.close()
            else:
                self._logCut(end, reason)
                other.cut()
                if reason.check(KeyRevoked, ServiceWithdrawn):
                    # Nothing more of such a peer is delivered.
                    other.abort()
            self._limit(self._limits.halfOpenTimeout or inf)
        if self.near.life is Life.LOST and (
            self._far.life is Life.LOST or self._far.transport is None
        ):
            self._over()

    def _logCut(self, end: End, reason: Failure) -> None:
        """
        Log that an end was cut short.  If the other end had read EOF, the cut is an
        ordinary one: the programs at both ends have finished, and a socket that is
        closed with unread input resets its connection.  A server of TLS often does.
        """
        other = self._far if end is self.near else self.near
        level = LogLevel.info if other.hasReadEOF else LogLevel.warn
        self._tunnel.log.emit(
            level,
            "{name}: {near} was cut short by {end}: {reason}",
            kind=level,
            name=self._tunnel.name,
            near=self._name,
            end="its own side" if end is self.near else "the other side",
            reason=reason.getErrorMessage(),
        )

    def _over(self) -> None:
        self.state = State.OVER
        if self._patience is not None:
            self._patience.stop()
        self._tunnel.over(self)
        # Objects that refer to each other would wait for the garbage collector.
        self._patience = self._connecting = None
        for end in self.ends:
            end.forget()

    # What the tunnel calls

    def muxEnded(self) -> None:
        """
        The mux of an end has ended.  Input received before that may still wait for the
        reader at the other end.
        """
        self._limit(self._limits.lingerTimeout)

    def abort(self, code: str = "failed", reason: str | None = None) -> None:
        """
        Abort both ends.

        @param code: the code for the access log, unless something else came first.
        @param reason: why, for the access log.
        """
        if self.state is State.OVER:
            return
        self.ending.set(code, reason)
        isConnecting = self.state is State.CONNECTING
        self.state = State.ENDING
        if isConnecting and self._connecting is not None:
            self._connecting.cancel()
        self.near.abort()
        self._far.abort()
        if self._lateReason is not None and isConnecting:
            self._over()

    # Timeouts

    def _limit(self, seconds: float) -> None:
        """
        From now on abort the bridge if nothing has moved for some time.  This has no
        effect if the current timeout is shorter.

        @param seconds: for how long nothing may move; infinite for any time.
        """
        if self.state is State.OVER:
            return
        if self._patience is None:
            clock = self._tunnel.clock
            self._patience = Patience(self.near, self._far, clock, self._tooLong)
        self._patience.limit(seconds)

    def _tooLong(self) -> None:
        """
        Nothing has moved for too long.
        """
        assert self._patience is not None
        seconds = self._patience.seconds
        self._tunnel.log.warn(
            "{name}: aborted {near}: nothing was sent or read for"
            " {seconds:g} seconds after one half or the mux had ended",
            name=self._tunnel.name,
            near=self._name,
            seconds=seconds,
        )
        isLingering = seconds == self._tunnel.limits.lingerTimeout
        self.abort(MUX_LOST if isLingering else "timeout", "nothing moved")


@implementer(IProtocolFactory)
class _EndFactory:
    """
    Makes one protocol: the far end of a bridge.  It logs nothing.

    @ivar writesAtOnce: see
        L{WritingAtOnce<gomux._mux.requests.WritingAtOnce>}.
    @ivar _end: the far end.
    """

    def __init__(self, end: End, writesAtOnce: bool) -> None:
        self._end = end
        self.writesAtOnce = writesAtOnce

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        pass

    def buildProtocol(self, addr: IAddress | None) -> IProtocol:
        return self._end
