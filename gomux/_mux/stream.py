# -*- test-case-name: gomux.test.mux.test_stream -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
One stream of a mux, as a transport: the methods that the application calls.

Most methods call the stream's sender or receiver.  L{gomux._mux.streamlife} explains
the states of a stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableDescriptor,
    ILoggingContext,
    IProtocol,
    IPushProducer,
    ITCPTransport,
    ITLSTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from gomux._mux.address import StreamAddress
from gomux._mux.log import callInContext, logPrefixOf
from gomux._mux.receiver import ReceiveState
from gomux._mux.streamlife import LifeMux, LifeState, StreamLife
from gomux._wire.frame import Flag
from gomux._wire.growth import GrowingWindow
from gomux.error import StreamClosed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IOpenSSLContextFactory


class StreamMux(LifeMux, Protocol):
    """
    The part of the mux that a stream uses.
    """

    @property
    def mux(self) -> object:
        """
        The mux.
        """

    def getCarrier(self) -> ITCPTransport:
        """
        @return: the mux's own transport.
        """

    @property
    def hasCarrier(self) -> bool:
        """
        Whether the carrier is still connected.
        """

    def getHost(self) -> IAddress:
        """
        @return: the carrier's address at this end, even once the carrier is gone.
        """

    def addressOf(self, streamID: int, service: str | None = None) -> StreamAddress:
        """
        @return: the other end's address of a stream, even once the carrier is gone.
        """

    def startTLS(
        self, stream: Stream, contextFactory: IOpenSSLContextFactory, normal: bool
    ) -> None:
        """
        Put TLS between the stream and its protocol.
        """


@implementer(
    ITLSTransport, IHalfCloseableDescriptor, IConsumer, IPushProducer, ILoggingContext
)
class Stream(StreamLife):
    """
    One stream of a mux, as a transport.  Only the mux makes streams.

    @ivar streams: the mux, as its streams call it.
    @ivar received: the last value of L{bytesReceived}, once the stream has ended on the
        wire.
    @ivar _noDelay: the last argument of L{setTcpNoDelay}; missing before any call.
    """

    __slots__ = ("service", "received", "_noDelay")

    streams: StreamMux
    _noDelay: bool

    def __init__(
        self, streams: StreamMux, streamID: int, service: str | None = None
    ) -> None:
        super().__init__(streams, streamID)
        self.service = service
        self.received = 0

    # State, with the names of Twisted's own transports

    @property
    def connected(self) -> bool:
        """
        Whether C{connectionLost} is still due.
        """
        return self.life is not LifeState.LOST

    @property
    def disconnecting(self) -> bool:
        """
        Whether the stream is closing, and delivers no more input.

        While input received before the end still waits, this is C{False}, because a
        C{LineReceiver} delivers no more lines once it is C{True}.
        """
        if self.life is LifeState.DONE:
            return not self.hasInput
        return self.life is LifeState.CLOSING

    @property
    def disconnected(self) -> bool:
        """
        Whether C{connectionLost} was called.
        """
        return self.life is LifeState.LOST

    @property
    def unsent(self) -> int:
        """
        How many bytes of output wait.
        """
        return 0 if self.sender is None else self.sender.unsent

    @property
    def unread(self) -> int:
        """
        How many bytes of input wait, because the application has paused the stream.
        """
        if self.receiver is None or self.receiver.waiting is None:
            return 0
        return sum(map(len, self.receiver.waiting))

    @property
    def receiveWindow(self) -> GrowingWindow | None:
        """
        The receive window; C{None} while it is the window of any new stream.
        """
        return None if self.receiver is None else self.receiver.window

    @property
    def bytesReceived(self) -> int:
        """
        How many bytes of data the peer has sent, without its request or answer.  The
        application has not read those that wait, or that were dropped.
        """
        window = self.receiveWindow
        return self.received if window is None else window.total

    @property
    def bytesSent(self) -> int:
        """
        How many bytes of the application's output were sent to the peer.
        """
        # The request or the answer may still wait to be sent.
        return max(0, self.granted - self.sendWindow)

    @property
    def mux(self) -> Any:
        """
        The mux of the stream: a L{MuxProtocol<gomux.MuxProtocol>}.
        """
        return self.streams.mux

    # ITransport

    def write(self, data: bytes) -> None:
        """
        Send some data, as soon as the send window and the carrier allow it.

        Data is dropped once the stream or its writing half is closed.

        @raise TypeError: if C{data} is text.
        """
        if type(data) is not bytes:
            if isinstance(data, str):
                raise TypeError("Data must be bytes")
            data = bytes(data)
        if data:
            (self.sender or self.makeSender()).write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """
        Send several pieces of data.

        @raise TypeError: if a piece is text.
        """
        try:
            joined = b"".join(data)
        except TypeError:
            raise TypeError("Data must be bytes") from None
        self.write(joined)

    def loseConnection(self) -> None:
        """
        Close the stream once all output is sent.  Input is dropped from now on.

        A pull producer, or a push producer that is paused, may write until it is
        unregistered.
        """
        self.closeWith(StreamClosed())

    def getHost(self) -> StreamAddress:  # type: ignore[override]
        """
        @return: this end's address.
        """
        host = self.streams.getHost()
        return StreamAddress(host, self.streamID, service=self.service)

    def getPeer(self) -> StreamAddress:  # type: ignore[override]
        """
        @return: the other end's address.
        """
        return self.streams.addressOf(self.streamID, self.service)

    # ITCPTransport

    def loseWriteConnection(self) -> None:
        """
        Close the writing half once all output is sent.
        """
        if self.life is LifeState.LIVE:
            (self.sender or self.makeSender()).finish()

    def abortConnection(self) -> None:
        """
        Close the stream at once.  Waiting output is dropped, and the peer is told that
        this is an abort.
        """
        self.abortWith(ConnectionAborted())

    def getTcpNoDelay(self) -> bool:
        """
        @return: the last argument of L{setTcpNoDelay}; by default C{True}.
        """
        return getattr(self, "_noDelay", True)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        Set the result of L{getTcpNoDelay}.  There is no other effect: a stream never
        delays data in order to send it together with later data.
        """
        self._noDelay = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        """
        @return: whether the carrier probes an idle connection.
        """
        carrier = self._tcpCarrier()
        return carrier is not None and bool(carrier.getTcpKeepAlive())

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """
        Have the carrier probe an idle connection.  The carrier serves all streams, so
        none of them can turn the probes off again.
        """
        carrier = self._tcpCarrier()
        if enabled and carrier is not None:
            carrier.setTcpKeepAlive(True)

    def _tcpCarrier(self) -> ITCPTransport | None:
        """
        @return: the carrier, if it is a TCP connection and still connected.
        """
        carrier = self.streams.getCarrier()
        if self.streams.hasCarrier and ITCPTransport.providedBy(carrier):
            return carrier
        return None

    # ITLSTransport

    def startTLS(  # type: ignore[override]
        self, contextFactory: IOpenSSLContextFactory, normal: bool = True
    ) -> None:
        """
        Encrypt all further data with TLS.  The mux then encrypts it a second time.

        @param contextFactory: the settings of TLS.
        @param normal: whether the side that opened the stream is TLS's client.
        """
        self.streams.startTLS(self, contextFactory, normal)

    # IHalfCloseableDescriptor

    def writeConnectionLost(self, reason: Failure) -> None:
        """
        The same as L{loseWriteConnection}.
        """
        self.loseWriteConnection()

    def readConnectionLost(self, reason: Failure) -> None:
        """
        The same as L{loseReadConnection}.
        """
        self.loseReadConnection()

    def loseReadConnection(self) -> None:
        """
        Close the reading half.  Waiting and later input is dropped, and the peer is
        told to send no more.
        """
        if self.life is LifeState.LIVE:
            receiver = self.receiver or self.makeReceiver()
            if receiver.state is ReceiveState.OPEN:
                self.streams.sendControl(self.streamID, Flag.CLOSE_WRITE)
            receiver.refuse()
            self._closeIfBothHalvesAre()

    # IConsumer

    @property
    def producer(self) -> tuple[Any, bool] | None:
        """
        The registered producer and whether it is a push producer; C{None} without one.
        """
        return None if self.sender is None else self.sender.producer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Register a producer, to be paused and resumed as output is sent.

        @raise RuntimeError: if a producer is registered already.
        """
        (self.sender or self.makeSender()).registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """
        Forget the producer.  If a close waited only for the producer, it happens now.
        """
        if self.sender is not None:
            self.sender.unregisterProducer()

    # IPushProducer

    def pauseProducing(self) -> None:
        """
        Deliver no more input, and give the peer no more credit.
        """
        self.paused = True

    def resumeProducing(self) -> None:
        """
        Deliver input again.  Input that waits is delivered in the next turn.
        """
        if self.paused:
            self.paused = False
            if self.receiver is not None:
                self.receiver.resume()

    def stopProducing(self) -> None:
        """
        The same as L{loseConnection}.
        """
        self.loseConnection()

    # Other methods that many protocols expect of a transport

    def stopReading(self) -> None:
        """
        The same as L{pauseProducing}.
        """
        self.pauseProducing()

    def startReading(self) -> None:
        """
        The same as L{resumeProducing}.
        """
        self.resumeProducing()

    def stopConsuming(self) -> None:
        """
        Forget the producer, and close the stream.
        """
        self.unregisterProducer()
        self.loseConnection()

    # ILoggingContext

    def logPrefix(self) -> str:
        """
        @return: the protocol's own prefix, or the name of its class.
        """
        return logPrefixOf(self.protocol)

    # Called by the mux

    def makeConnection(self, protocol: IProtocol) -> bool:
        """
        Start the stream's protocol.

        @return: whether the protocol started.  If it failed, the stream is aborted.
        """
        self.protocol = protocol
        try:
            callInContext(protocol, protocol.makeConnection, self)
        except BaseException:
            self.applicationFailed()
            return False
        return True
