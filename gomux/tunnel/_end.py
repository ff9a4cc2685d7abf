# -*- test-case-name: gomux.test.tunnel.test_tunnel -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
One end of a bridge: a connection whose input is the other end's output.

An end has two halves, and each half's state only moves forward.  The input is

  - C{HELD}: the other end is not connected yet.  The transport is paused.  Input that
    it delivers nevertheless is kept.
  - C{PASSED}: it is written to the other end.
  - C{DROPPED}: the reader at the other end wants no more of it.  A stream's peer is
    told.  Of other transports L{DROPPED_SIZE} bytes are thrown away, and then the
    transport is paused.
  - C{ENDED}: EOF has come.  It may come in each of the states above.

The output is

  - C{OPEN}: the other end writes to it.
  - C{FINISHING}: the other end has no more to write.  Output written before that is
    being sent.
  - C{CLOSED}: all output is sent, and the half is closed.
  - C{REFUSED}: the reader has closed this half before the bridge did.

When both halves have ended, the end closes its connection.  The whole end is

  - C{LIVE}: the connection is open, perhaps in one direction only.
  - C{CUT}: the other end was cut short.  This end drops its input, sends the output
    that it has, and is then aborted.  So the reader gets that output, and then sees a
    reset and not an orderly end.
  - C{LOST}: the connection is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any
from typing import Protocol as Interface

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gomux._carrier.direct import READ_SIZE
from gomux._carrier.passed import PassedDropper
from gomux._carrier.sockets import IN
from gomux.error import ConnectionClosed, PeerAbortedStream, PeerClosedConnection
from gomux.tunnel._localends import EndOutput, outputOf
from gomux.tunnel._localsocket import LocalSocket

#: How many bytes that nobody reads are dropped before their writer has to wait.  With
#: one more read that is less than a window.
DROPPED_SIZE = READ_SIZE

_log = Logger()


class Input(IntEnum):
    """
    The state of an end's input.
    """

    HELD = 0
    PASSED = 1
    DROPPED = 2
    ENDED = 3


class Output(IntEnum):
    """
    The state of an end's output.
    """

    OPEN = 0
    FINISHING = 1
    CLOSED = 2
    REFUSED = 3


class Life(IntEnum):
    """
    The state of a whole end.
    """

    LIVE = 0
    CUT = 1
    LOST = 2


class EndBridge(Interface):
    """
    What an end needs of its bridge.
    """

    def connected(self, end: End) -> None:
        """The end is connected."""

    def answered(self) -> None:
        """
        The end is a stream for a service, and the peer has accepted it.
        """

    def halfClosed(self) -> None:
        """A half of an end was closed."""

    def lost(self, end: End, reason: Failure) -> None:
        """The end is gone."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class End(Protocol):
    """
    One end of a bridge, and the producer of what the other end writes.

    @ivar output: its transport, to which the other end writes.
    @ivar takesLocalSocket: its transport may be a L{LocalSocket}.
    @ivar needsLogContext: C{False}: its log lines name the bridge.
    @ivar answersRequests: an end of a stream for a service answers the peer's request
        once the other end is connected.
    @ivar answer: sends that answer; C{None} for any other end.
    @ivar life: the L{Life}.
    @ivar moved: how many bytes of input have passed since L{countInput}.
    @ivar closedFirst: whether this side has begun to close before it has read EOF.
    @ivar _bridge: the bridge.
    @ivar _input: the L{Input}.
    @ivar _written: the L{Output}.
    @ivar _other: the other end; C{None} before that is connected.
    @ivar _early: input that arrived before the other end was connected.
    """

    takesLocalSocket = True
    needsLogContext = False
    output: EndOutput
    answersRequests = True
    answer: Callable[[str | None], None] | None = None
    # Any transport will do.
    transport: Any = None
    life = Life.LIVE
    moved = 0
    closedFirst = False
    _input = Input.HELD
    _written = Output.OPEN
    _other: End | None = None

    def __init__(self, bridge: EndBridge) -> None:
        self._bridge = bridge
        self._early: list[bytes] = []

    @property
    def hasEarlyInput(self) -> bool:
        """
        Whether input waits for the other end to be connected.
        """
        return bool(self._early)

    @property
    def hasReadEOF(self) -> bool:
        """
        Whether the input has ended in an orderly way.
        """
        return self._input is Input.ENDED

    @property
    def waiting(self) -> int:
        """
        How many bytes of input and output wait in this end.
        """
        if self.transport is None or self.life is Life.LOST:
            return 0
        return self.output.unsent + self.output.unread

    # What its transport calls

    def connectionMade(self) -> None:
        """
        This end is connected.  Pause it until the other end is connected too.
        """
        self.output = outputOf(self.transport)
        self.output.pauseReading()
        self._bridge.connected(self)

    def answered(self) -> None:
        """This end is a stream for a service, and the peer has accepted it."""
        self._bridge.answered()

    def dataReceived(self, data: bytes) -> None:
        """
        Keep input that a transport delivers although it is paused.
        """
        self._early.append(data)

    def readConnectionLost(self) -> None:
        """
        This end has read EOF: close the writing half of the other end.
        """
        if self.output.wasReset():
            # Report the reset now.  The transport reports its loss only later, and as
            # the abort.
            self.output.abort()
            self.connectionLost(Failure(ConnectionLost()))
            return
        self._input = Input.ENDED
        if self._other is not None:
            self._other.finish()
        self._halfClosed()

    def writeConnectionLost(self) -> None:
        """
        The writing half is closed.  If the bridge did not close it, the reader did:
        discard the input of the other end.
        """
        if self._written is Output.FINISHING:
            self._written = Output.CLOSED
        elif self._written is Output.OPEN:
            self._written = Output.REFUSED
            if self._other is not None:
                self._other.discard()
        self._halfClosed()

    def connectionLost(self, reason: Failure | None = connectionDone) -> None:
        """
        This end is gone: tell the bridge.

        @param reason: why; C{None} from a transport that gives no reason.
        """
        if self.life is not Life.LOST:
            self.life = Life.LOST
            self.dataReceived = _discard  # type: ignore[method-assign]
            self._bridge.lost(self, reason or Failure(ConnectionDone()))

    # What the bridge calls

    def join(self, other: End) -> None:
        """
        The other end is connected: pass input on to it.
        """
        self._other = other
        write = other.output.write
        for data in self._early:
            write(data)
        self._early.clear()
        if self.life is Life.LIVE and self._input is Input.HELD:
            self._input = Input.PASSED
            self.dataReceived = self.output.passer(write)  # type: ignore[assignment,method-assign]
            self.output.resumeReading()
            other.output.registerProducer(self)

    # IPushProducer, for the output of the other end

    def pauseProducing(self) -> None:
        """The other end takes no more for now: read no more."""
        self.output.pauseReading()

    def resumeProducing(self) -> None:
        """The other end takes more: read again."""
        self.output.resumeReading()

    def stopProducing(self) -> None:
        """
        The other end takes no more data.  It is lost next, or later.
        """
        if self.life is not Life.LOST:
            self._bridge.halfClosed()

    def follow(self) -> None:
        """
        Tell the other end that this end has read EOF, or that its reader wants no more,
        if that happened before the two were joined.
        """
        assert self._other is not None
        if self._input is Input.ENDED:
            self._other.finish()
        if self._written is Output.REFUSED:
            self._other.discard()

    def countInput(self) -> None:
        """
        Count the input that passes from now on.
        """
        if self._input is not Input.PASSED or self.life is not Life.LIVE:
            return
        passOn = self.dataReceived

        def count(data: bytes) -> None:
            self.moved += len(data)
            passOn(data)

        self.dataReceived = count  # type: ignore[method-assign]

    def finish(self) -> None:
        """
        There is no more to write: close the writing half, or the whole connection
        if the transport has no half-close.
        """
        if self.life is Life.LIVE and self._written is Output.OPEN:
            self._written = Output.FINISHING
            self.closedFirst = self._input is not Input.ENDED
            self.output.finish()

    def discard(self) -> None:
        """
        Nobody reads the input of this end any more.  Tell the writer, if the transport
        can.  If not, read and drop a little, to get to an EOF that is near, and then
        read no more: whoever goes on writing has to wait.
        """
        self.dataReceived = _discard  # type: ignore[method-assign]
        if self.life is Life.LIVE and self._input is not Input.ENDED:
            self._input = Input.DROPPED
            if not self.output.refuseInput():
                self.output.received(0)  # The reads are small again.
                self.dataReceived = self._dropper()  # type: ignore[assignment,method-assign]
                self.output.resumeReading()

    def _dropper(self) -> Callable[[bytes], None]:
        """
        @return: the C{dataReceived} that drops input, and pauses after the first
            L{DROPPED_SIZE} bytes.
        """
        dropped = 0

        def drop(data: bytes) -> None:
            nonlocal dropped
            dropped += len(data)
            if dropped >= DROPPED_SIZE:
                self.output.pauseReading()

        return drop

    def close(self) -> None:
        """
        Close this end when its output is written.
        """
        # With both halves ended, this end has closed itself or is about to.
        if self.life is Life.LIVE and (
            self._input is not Input.ENDED or self._written is Output.OPEN
        ):
            self.closedFirst |= self._input is not Input.ENDED
            self.output.close()
            self._loseIfSilent()

    def cut(self) -> None:
        """
        The other end was cut short: abort this one when its output is sent.
        """
        if self.life is Life.LIVE and self.transport is not None:
            self.life = Life.CUT
            self.output.unregisterProducer()
            self.dataReceived = _discard  # type: ignore[method-assign]
            self.output.pauseReading()
            self.abortIfSent()

    def abortIfSent(self) -> None:
        """
        Finish L{cut} if the output is sent.
        """
        # A transport that cannot be aborted is closed, and sends its output first.
        if self.life is Life.CUT and not (
            self.output.reportsAborts and self.output.unsent
        ):
            self.abort()

    def abort(self) -> None:
        """
        Abort the connection, so that the peer sees a reset and not an orderly end.
        """
        if self.life is Life.LOST or self.transport is None:
            return
        try:
            self.output.abort()
        except Exception:
            _log.failure("{transport} cannot be aborted", transport=self.transport)
            self.connectionLost(Failure())
        if not self.output.reportsAborts:
            self.connectionLost(Failure(ConnectionLost()))

    def forget(self) -> None:
        """
        The bridge is over: refer to its other parts no more.
        """
        if self.life is Life.LOST:
            self._other = None
            vars(self).pop("_bridge", None)

    def isOrderly(self, reason: Failure) -> bool:
        """
        @return: whether this end closed without losing data.
        """
        error = reason.value
        isEnded = self._input is Input.ENDED
        if isinstance(error, PeerAbortedStream):
            # If EOF came before the abort, no input is lost: the abort can only refuse
            # more output.
            return isEnded
        if not isinstance(error, ConnectionDone):
            return False
        if isinstance(error, (ConnectionClosed, PeerClosedConnection)):
            # The end of the mux may have cut this stream short.
            return isEnded and self._written >= Output.CLOSED
        return True

    # Both halves

    def _halfClosed(self) -> None:
        """
        Close the connection if both halves are closed: TCP does not do so itself.
        """
        if self._input is Input.ENDED and self._written >= Output.CLOSED:
            self.output.halvesClosed()
            self._loseIfSilent()
        if self.life is not Life.LOST:
            self._bridge.halfClosed()

    def _loseIfSilent(self) -> None:
        """
        Count a connection that was closed as gone, if its transport may never report
        that.
        """
        if not self.output.reportsAborts and self._written >= Output.CLOSED:
            self.connectionLost(connectionDone)


class NearEnd(PassedDropper, End):
    """
    An end that a port has accepted, or that is a stream of the peer.  It drops the
    descriptors that a client passes over a Unix socket.

    The other end must not do so: if a protocol takes descriptors, the client endpoints
    of Twisted do not tell it of half-closes.
    """

    def connectionMade(self) -> None:
        """
        This end is connected.  Read at once what a client may have sent already.
        """
        super().connectionMade()
        if isinstance(self.output, LocalSocket):
            self.output.ready(IN)


def _discard(data: bytes) -> None:
    """
    Drop input.
    """
