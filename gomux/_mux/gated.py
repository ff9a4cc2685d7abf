# -*- test-case-name: gomux.test.mux.test_gated -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Muxes that send nothing of their own before they have heard from their peer:
those in strict mode, and those of a server that tells by the first frame which
of several pre-shared keys the peer has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IProtocol, IProtocolFactory
from twisted.python.failure import Failure

from gomux._carrier.watch import Watch
from gomux._mux.protocol import MuxOwner, MuxProtocol, errorOf
from gomux._wire.crypto import Sealer
from gomux._wire.frame import Flag, FrameOpener
from gomux._wire.keyring import KeyFinder
from gomux._wire.strict import Handshake
from gomux.error import (
    GomuxError,
    HandshakeFailed,
    OpenStreamError,
    PeerVanished,
    ProtocolViolation,
)

if TYPE_CHECKING:
    from gomux.interfaces import IStreamFactory


class Gate(FrameOpener, Protocol):
    """
    What opens the first frames of a mux, until it has seen enough.
    """

    @property
    def passed(self) -> bool:
        """
        Whether it has.
        """

    @property
    def name(self) -> str:
        """
        The name of the peer's key, once C{passed}.
        """

    @property
    def sealer(self) -> Sealer:
        """
        What seals all further frames, once C{passed}.
        """

    @property
    def opener(self) -> FrameOpener:
        """
        What opens all further frames, once C{passed}.
        """

    def takeOutput(self) -> bytes:
        """
        @return: frames to send now, often none.
        """

    def close(self) -> None:
        """
        It is not needed any more.
        """


class GatedMuxProtocol(MuxProtocol):
    """
    A mux with a gate: before that is passed nothing is sent but what the gate
    says, and streams wait to be opened.
    """

    gated = True

    def __init__(self, factory: MuxOwner) -> None:
        super().__init__(factory)
        self._waiting: dict[Deferred[IProtocol], IStreamFactory | IProtocolFactory] = {}

    def _makeGate(self) -> Gate:
        raise NotImplementedError()

    def connectionMade(self) -> None:
        """
        Take the carrier over, as far as the gate.
        """
        self._gate = self._makeGate()
        self._takeCarrier(self._gate, None)
        self._sendGateOutput()
        self.factory.muxConnected(self)

    def _carrierLost(self) -> None:
        super()._carrierLost()
        self._gate.close()
        assert self._reason is not None
        while self._waiting:
            self._waiting.popitem()[0].errback(self._reason)

    def openStream(
        self, factory: IStreamFactory | IProtocolFactory
    ) -> Deferred[IProtocol]:
        """
        Open a stream to the peer, once the gate is passed.

        @return: as that of any mux, and it may be cancelled.  Fails with the
            reason of the mux's end if the gate is not passed.
        """
        if self.authenticated or not self.canOpen:
            return super().openStream(factory)
        if len(self._waiting) >= self._limits.maxControl:
            return fail(OpenStreamError("too many streams wait for the peer"))
        opened: Deferred[IProtocol] = Deferred(self._cancel)
        self._waiting[opened] = factory
        return opened

    def _cancel(self, opened: Deferred[IProtocol]) -> None:
        self._waiting.pop(opened, None)

    def _openWaiting(self) -> None:
        while self._waiting:
            opened = next(iter(self._waiting))
            factory = self._waiting.pop(opened)
            super().openStream(factory).chainDeferred(opened)

    def _close(self) -> None:
        if self.authenticated:
            super()._close()
        else:
            # There is nothing yet that could be closed in an orderly way.
            self.abort()

    def _end(self, reason: GomuxError) -> None:
        if self.authenticated:
            super()._end(reason)
        else:
            # The carrier has no producer yet.
            self._reason = reason
            self._scheduler.stop()

    def _sendGateOutput(self) -> None:
        output = self._gate.takeOutput()
        if output and not self._carrierGone:
            self._scheduler.bytesSent += len(output)
            self._carrier.write(output)

    def _passGate(self) -> None:
        """
        From now on this is a mux as any other.
        """
        gate = self._gate
        gate.close()
        self._name = gate.name
        self._parser.useOpener(gate.opener)
        self._scheduler.start(gate.sealer)
        self._startSending()


class NamedMuxProtocol(GatedMuxProtocol):
    """
    A server's mux whose key is found by the first frame of the peer.
    """

    def _makeGate(self) -> Gate:
        return KeyFinder(self.factory.keyring.keys)

    def _authenticate(self, streamID: int, flag: int) -> None:
        self._passGate()
        super()._authenticate(streamID, flag)
        self._openWaiting()


class StrictMuxProtocol(GatedMuxProtocol):
    """
    A mux in strict mode: it comes up with a L{Handshake}, takes each frame only
    in its turn, allows only what a peer in strict mode does, and notices when
    the peer has gone without a word.
    """

    _handshakeCall: IDelayedCall | None = None
    _aliveCall: IDelayedCall | None = None
    _silenceWatch: Watch | None = None

    def _makeGate(self) -> Gate:
        factory = self.factory
        return Handshake(
            factory.keyring.keys, factory.isClient, factory.context, factory.salts
        )

    def connectionMade(self) -> None:
        """
        Take the carrier over, and begin the handshake.
        """
        self._handshakeCall = self._clock.callLater(
            self._limits.handshakeTimeout, self._handshakeTimedOut
        )
        super().connectionMade()

    def _carrierLost(self) -> None:
        for call in (self._handshakeCall, self._aliveCall):
            if call is not None and call.active():
                call.cancel()
        if self._silenceWatch is not None:
            self._silenceWatch.stop()
        super()._carrierLost()

    def _reasonOf(self, reason: Failure) -> GomuxError:
        if not self.authenticated:
            return HandshakeFailed(
                "the carrier ended before the peer had answered; wrong pre-shared"
                f" key, or a peer that is not in strict mode?{errorOf(reason)}"
            )
        return super()._reasonOf(reason)

    def _handshakeTimedOut(self) -> None:
        self._fail(
            HandshakeFailed(
                f"not done after {self._limits.handshakeTimeout:g} seconds;"
                " a peer that is not in strict mode?"
            )
        )

    def _authenticate(self, streamID: int, flag: int) -> None:
        """
        A frame of the handshake has come.
        """
        self._sendGateOutput()
        if self._gate.passed:
            assert self._handshakeCall is not None
            self._handshakeCall.cancel()
            self._passGate()
            self.authenticated = True
            self.factory.muxAuthenticated(self)
            self._openWaiting()

    def _passGate(self) -> None:
        super()._passGate()
        for flag, handle in self._dispatch.items():
            if flag != Flag.WINDOW_UPDATE:
                self._dispatch[flag] = _withoutLength(handle)
        self._dispatch[Flag.KEEPALIVE] = _withoutLength(self._frameKeepalive)

    # Frames that have no effect, all but Keepalives, are not for strict peers.

    def _frameKeepalive(self, streamID: int, length: int) -> None:
        self._frameIgnored("keepalives")

    def _frameWithoutEffect(self, flag: int) -> None:
        # The first ones of the handshake come here, too.
        if self.authenticated:
            raise ProtocolViolation(f"a frame has the unknown flags {flag}")

    def _frameNeverOpened(self, streamID: int) -> None:
        raise ProtocolViolation(
            f"a frame is for stream {streamID}, which was never opened"
        )

    # Time

    def _startSending(self) -> None:
        super()._startSending()
        self._sayAlive()
        self._silenceWatch = Watch(
            self._clock,
            self._limits.deadPeer,
            lambda: self.bytesReceived,
            lambda: self._fail(PeerVanished()),
        )

    def _sayAlive(self) -> None:
        """
        Send a Keepalive, unless the carrier is blocked anyway.
        """
        if self._aliveCall is not None and not self._scheduler.paused:
            self._scheduler.control(0, Flag.KEEPALIVE)
        self._aliveCall = self._clock.callLater(
            self._limits.strictKeepalive, self._sayAlive
        )


def _withoutLength(handle: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """
    @return: what handles a frame if its length is 0.
    """

    def handleWithoutLength(streamID: int, length: int) -> None:
        if length:
            raise ProtocolViolation(
                f"a frame without a payload announces a length of {length}"
            )
        handle(streamID, length)

    return handleWithoutLength
