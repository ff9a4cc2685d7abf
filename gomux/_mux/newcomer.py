# -*- test-case-name: gomux.test.mux.test_newcomer -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The connections that a server has accepted, until their first frame.

Strangers can connect as fast as they like.  A mux has a hundred objects, and they refer
to each other, so only Python's garbage collector frees them, and all peers wait while
it runs.  So a server makes a mux only when the gate has opened the first frame.  It
also makes one if the peer is silent for C{silentGrace} seconds, because a peer of the
reference implementation may be silent for as long as it likes.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IDelayedCall, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure

from gomux._carrier.passed import PassedDropper
from gomux._carrier.transport import addressFrom, dropTransport
from gomux._carrier.turns import DONE
from gomux._mux.gate import Gate, explainLoss
from gomux._mux.incoming import Early
from gomux._wire.frame import Frame, FrameParser, NotYet
from gomux.error import GomuxError, KeyRevoked, LimitExceeded

if TYPE_CHECKING:
    from gomux._carrier.turns import StrangersTurns
    from gomux._mux.protocol import MuxProtocol
    from gomux._mux.strangers import Refused
    from gomux._mux.tally import Tally
    from gomux.limits import Limits

#: How long a peer may be silent before it gets its mux, in seconds, if C{silentGrace}
#: is off.  The mux of strict mode limits the time for the handshake.
SILENT = 1.0


class NewcomersOwner(typing.Protocol):
    """
    The part of the factory of the muxes that newcomers use.  See
    L{MuxFactory<gomux.MuxFactory>}.
    """

    clock: Any
    limits: Limits
    retired: bool
    strangersTurns: StrangersTurns
    tally: Tally

    def logPrefix(self) -> str:
        """
        @return: the log prefix of the muxes.
        """

    def refused(self, address: IAddress | None) -> Refused | None:
        """
        @return: a protocol that refuses a new connection, or C{None}.
        """

    def isKnown(self, address: IAddress) -> bool:
        """
        @return: whether a peer at this address has shown a key before.
        """

    def makeGate(self, address: IAddress) -> Gate:
        """
        @return: the gate of a new mux.
        """

    def isRevoked(self, gate: Gate | None) -> bool:
        """
        @return: whether the key that a gate has found was revoked since.
        """

    def makeMux(self, newcomer: Newcomer, early: Early) -> MuxProtocol:
        """
        @return: the mux of a connection.
        """

    def newcomerConnected(self, newcomer: Newcomer) -> None:
        """
        A connection waits for its first frame.
        """

    def newcomerGone(self, newcomer: Newcomer) -> None:
        """
        A connection ends without a mux.
        """

    def logEnd(self, reason: GomuxError, peer: IAddress) -> None:
        """
        Log the end of a connection.
        """


class Gone:
    """
    The transport of a connection that is gone.  It drops what is written.

    @ivar _transport: the transport that is gone.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def getHost(self) -> Any:
        """
        @return: the address of this end.
        """
        return self._transport.getHost()

    def getPeer(self) -> Any:
        """
        @return: the address of the other end.
        """
        return self._transport.getPeer()

    def write(self, data: bytes) -> None:
        """
        Drop data.
        """

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """
        Drop data.
        """

    def loseConnection(self) -> None:
        """
        Do nothing.
        """


class Newcomer(PassedDropper, Protocol):
    """
    A connection without a mux.  When it gets its mux, it passes on everything to that.

    @ivar _owner: the factory of the muxes.
    @ivar _gate: the gate of the mux, which opens the first frames; C{None} before the
        first byte.
    @ivar _parser: cuts the received bytes into frames for the gate; C{None} before the
        first byte.
    @ivar _size: how many bytes have been received.
    @ivar _frame: the first frame, once the gate has opened it.
    @ivar _call: gives a silent peer its mux.
    @ivar _since: when the connection was accepted, in seconds of the clock.
    @ivar _waits: whether received bytes wait for a later turn of the reactor.
    @ivar _isDue: whether the connection gets its mux after that turn, in any case.
    @ivar _loss: why the connection was lost, while received bytes wait.
    @ivar _isOver: whether the connection has its mux, or has ended.
    """

    _gate: Gate | None = None
    _parser: FrameParser | None = None
    _size = 0
    _frame: Frame | None = None
    _call: IDelayedCall
    _since: float
    _waits = False
    _isDue = False
    _isOver = False
    _loss: Failure | None = None

    def __init__(self, owner: NewcomersOwner) -> None:
        """
        @param owner: the factory of the muxes.
        """
        self._owner = owner

    def logPrefix(self) -> str:
        """
        @return: the log prefix of the muxes' factory.
        """
        return self._owner.logPrefix()

    def connectionMade(self) -> None:
        """
        Wait for the first frame.
        """
        owner = self._owner
        limits = owner.limits
        grace = min(limits.silentGrace or SILENT, limits.handshakeTimeout)
        self._call = owner.clock.callLater(grace, self._silent)
        self._since = owner.clock.seconds()
        owner.newcomerConnected(self)

    def getPeer(self) -> IAddress:
        """
        @return: the address of the peer.
        """
        transport: Any = self.transport
        return addressFrom(lambda: transport.getPeer())

    def dataReceived(self, data: bytes) -> None:
        """
        Take bytes, and have the gate open the first frame once it is there: at once, or
        after other strangers have had their turns.  At an address at which a peer has
        shown a key before, it is before strangers, and that key is tried first.
        """
        if self._isOver:
            return
        self._size += len(data)
        if self._parser is None:
            self._gate = self._owner.makeGate(self.getPeer())
            self._parser = FrameParser(self._gate)
        self._parser.receive(data)
        if self._waits:
            return
        turns = self._owner.strangersTurns
        if turns.isFree or not hasattr(self.transport, "pauseProducing"):
            turns.begin(self._open)
            return
        isKnown = self._owner.isKnown(self.getPeer())
        (turns.prefer if isKnown else turns.later)(self._open)
        self._wait()

    def _wait(self) -> None:
        """
        Read nothing while received bytes wait for a later turn.
        """
        if not self._waits:
            self._waits = True
            transport: Any = self.transport
            getattr(transport, "pauseProducing", lambda: None)()

    def _open(self, until: float) -> float:
        """
        Have the gate open the first frame.

        @return: 0 if the gate needs another turn of the reactor, else L{DONE}.
        """
        if self._isOver:
            return DONE
        assert self._parser is not None
        turns = self._owner.strangersTurns
        try:
            self._frame = self._parser.nextFrame()
        except NotYet:
            self._wait()
            return 0.0
        except GomuxError as error:
            turns.useUp()
            self._refuse(error)
            return DONE
        if self._waits:
            self._waits = False
            transport: Any = self.transport
            getattr(transport, "resumeProducing", lambda: None)()
        if self._frame is None:
            if self._loss is not None:
                self.connectionLost(self._loss)
            elif self._isDue:
                self.enter()
            return DONE
        turns.useUp()
        if self._owner.isRevoked(self._gate):
            self.revoke()
        else:
            self.enter()
        return DONE

    def _silent(self) -> None:
        """
        The peer has been silent for long enough: it gets its mux, unless the factory
        is retired.  Many may have come at once, and in a turn of the reactor there is
        time for one.
        """
        self._owner.strangersTurns.prefer(self._enterLater)

    def _enterLater(self, until: float) -> float:
        if self._owner.retired and not (self._waits or self._isOver):
            self.drop()
        else:
            self.enter()
        return DONE

    def enter(self) -> None:
        """
        Give the connection its mux, with all that has been received.
        """
        if self._isOver:
            return
        if self._waits:
            self._isDue = True
            return
        self._finish()
        early = Early(self._gate, self._parser, self._size, self._frame, self._since)
        mux = self._owner.makeMux(self, early)
        # The mux forgets its keys when it ends.
        self._gate = self._parser = None
        self.dataReceived = mux.dataReceived  # type: ignore[method-assign]
        self.connectionLost = mux.connectionLost  # type: ignore[method-assign]
        try:
            mux.makeConnection(self.transport)
            if self._loss is not None:
                mux.connectionLost(self._loss)
        except BaseException:
            # This may be a later turn, in which no reactor sees the exception.
            dropTransport(cast(ITransport, self.transport))
            raise

    def _finish(self) -> None:
        self._isOver = True
        if self._call.active():
            self._call.cancel()

    def _end(self) -> None:
        """
        The connection ends without a mux.
        """
        self._finish()
        self._owner.newcomerGone(self)

    def _refuse(self, error: GomuxError) -> None:
        """
        Drop the connection.
        """
        self._owner.tally.strangers += 1
        self._owner.logEnd(error, self.getPeer())
        self.drop()

    def drop(self) -> None:
        """
        Drop the connection without a word.
        """
        self._end()
        self._close()
        self._owner.strangersTurns.hurry(self._open)
        dropTransport(cast(ITransport, self.transport))

    def _close(self) -> None:
        if self._gate is not None:
            self._gate.close()

    def evict(self) -> None:
        """
        Drop the connection, because there are too many without a first frame.
        """
        if not self._isOver:
            self._refuse(
                LimitExceeded("too many connections wait for their first frame")
            )

    def revoke(self) -> None:
        """
        Drop the connection, because its peer's key was revoked, or may have been.
        """
        if not self._isOver:
            self._refuse(KeyRevoked())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection has ended without a first frame.
        """
        if self._isOver:
            return
        loss = reason or connectionDone  # Some transports give C{None}.
        if self._waits:
            # TLS reports the end although it is paused.  The first frame counts.
            self._loss = loss
            self.transport = cast(ITransport, Gone(self.transport))
            return
        self._end()
        if self._size or not loss.check(ConnectionDone, ConnectionLost):
            if self._gate is None:
                self._gate = self._owner.makeGate(self.getPeer())
            self._owner.tally.strangers += 1
            self._owner.logEnd(explainLoss(self._gate, loss), self.getPeer())
        self._close()


class Newcomers(WrappingFactory):
    """
    What a server's ports get in place of the factory of its muxes.

    @ivar wrappedFactory: the factory of the muxes.
    """

    noisy = False
    wrappedFactory: NewcomersOwner

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # type: ignore[override]
        """
        @return: the protocol of a new connection, which may refuse it.
        """
        return self.wrappedFactory.refused(addr) or Newcomer(self.wrappedFactory)

    def logPrefix(self) -> str:
        """
        @return: the log prefix of the muxes' factory.
        """
        return self.wrappedFactory.logPrefix()
