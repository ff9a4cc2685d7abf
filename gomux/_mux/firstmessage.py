# -*- test-case-name: gomux.test.mux.test_requests -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The protocol and the receiver of a stream until its first message is complete: see
L{gomux._mux.requests}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from gomux._mux.receiver import Receiver, ReceiveState, receiverFor
from gomux._mux.sender import SendState
from gomux._mux.streamlife import LifeState
from gomux._wire.growth import GrowingWindow
from gomux._wire.request import MalformedMessage, splitMessage

if TYPE_CHECKING:
    from gomux._mux.stream import Stream


class FirstReceiver(Receiver):
    """
    The receiver of a stream whose first message is not complete.  Then an ordinary
    receiver takes its place, with its window.
    """

    __slots__ = ()

    def __init__(self, stream: Stream) -> None:
        self.state = ReceiveState.OPEN
        self.window = GrowingWindow()
        self.waiting = None
        self._stream = stream
        # Nothing is delivered in this context, and nothing else may deliver what waits.
        self._context = {}
        self._delivering = True

    def received(self, payload: bytes) -> None:
        """
        Take data from the peer.  If that completes the message, give it to the
        L{FirstProtocol}, and what is left to the protocol that has taken its place.
        """
        if self.state is not ReceiveState.OPEN:
            super().received(payload)
            return
        size = len(payload)
        stream = cast("Stream", self._stream)
        first = cast(FirstProtocol, stream.protocol)
        kept = self.waiting[0] if self.waiting else b""
        data = kept + payload
        try:
            found = splitMessage(data)
        except MalformedMessage as error:
            first.failed(str(error))
            return
        streams = stream.streams
        if found is None:
            self.window.received(size)
            self.waiting = [data]
            streams.charge(size)
            return
        message, rest = found
        self.window.received(size - len(rest))
        self.waiting = None
        if kept:
            streams.charge(-len(kept))
        streams.consumed(stream.streamID, self.window, len(data) - len(rest))
        self.window.uncount(len(data) - len(rest))
        first.messageReceived(message)
        if self.state is ReceiveState.OPEN:
            stream.receiver = receiverFor(stream, self.window)
        if rest and stream.receiver is not None:
            stream.receiver.received(rest)

    def finish(self) -> None:
        """
        The peer sends no more, so the message stays incomplete.
        """
        self._drop()
        super().finish()


@implementer(IHalfCloseableProtocol)
class FirstProtocol(Protocol):
    """
    The protocol of a stream whose first message is not complete.

    @ivar stream: the stream.
    """

    stream: Stream

    def begin(self, stream: Stream) -> None:
        """
        Wait for the message.  This stands for C{makeConnection}, without its cost.

        @param stream: the stream.
        """
        self.stream = stream
        stream.protocol = self
        stream.receiver = FirstReceiver(stream)

    def messageReceived(self, message: bytes) -> None:
        """
        The message is complete.

        @param message: the JSON of the message.
        """
        raise NotImplementedError

    def failed(self, why: str) -> None:
        """
        Abort the stream, because the message is not valid or does not come.

        @param why: what is wrong with the message.
        """
        self.stream.abortConnection()

    def replace(self, protocol: IProtocol) -> None:
        """
        Let the application's protocol take the place of this one.
        """
        stream = self.stream
        if stream.makeConnection(protocol) and stream.life is LifeState.LIVE:
            sender = stream.sender
            if sender is not None and sender.state is SendState.CLOSED:
                # The peer has said so before the application's protocol was there.
                stream.streams.callSoon(stream.writeHalfClosed)

    def readConnectionLost(self) -> None:
        """
        The peer has finished writing.
        """
        self.failed("it was cut short")

    def writeConnectionLost(self) -> None:
        """
        The peer wants no data.  L{replace} tells the application.
        """
