# -*- test-case-name: gomux.test.testing.test_memory -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Connections in memory that behave as Twisted's TCP transports do.

They do so even where other test doubles do not.  They pause a push producer at
I{every} write over the limit.  They do not wait for a push producer before they
close.  They can close one half at a time, and they drop what is written after the
end.  When a connection is reset, the bytes in flight are lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gomux.testing._pipe import FIN, Pipe

#: The most bytes that a carrier sends in one turn of the reactor.
_SEND_SIZE = 131072

_log = Logger()


@implementer(ITCPTransport, IConsumer, IPushProducer)
class Carrier:
    """
    One end of a connection in memory, as a transport.

    It does what Twisted's TCP transport does, and its state has the same names.  If
    the other end still sends after this end has closed, the connection is reset, and
    the other end loses what it has not read.

    @ivar protocol: the protocol whose transport the carrier is.
    @ivar outgoing: the pipe that it writes to.
    @ivar incoming: the pipe that it reads from.
    @ivar bufferSize: how many bytes may wait to be sent before each write
        pauses a push producer.
    @ivar producer: the registered producer, which is paused and resumed as output
        drains.
    @ivar reading: whether the protocol gets what arrives.  False while the protocol
        has paused the carrier, and after it has closed it.
    @ivar connected: whether C{connectionLost} has yet to come.
    @ivar disconnecting: whether C{loseConnection} has been called.
    @ivar disconnected: whether C{connectionLost} has come.
    @ivar noDelay: the last argument of C{setTcpNoDelay}.
    @ivar keepAlive: the last argument of C{setTcpKeepAlive}.
    @ivar _clock: makes the calls in later turns of the reactor.
    @ivar _host: the address of this end.
    @ivar _peer: the address of the other end.
    @ivar _buffer: the output that waits to be sent, in pieces.
    @ivar _buffered: the size of the output that waits, in bytes.
    @ivar _writeCall: the delayed call that sends output.
    @ivar _writeDisconnecting: whether C{loseWriteConnection} has been called.
    @ivar _writeDisconnected: whether the writing half is closed.
    @ivar _readDisconnected: whether EOF has come.
    @ivar _aborting: whether C{abortConnection} has been called.
    @ivar _streaming: whether the producer is a push producer.
    @ivar _producerPaused: whether the push producer was told to pause.
    """

    def __init__(
        self,
        clock: Clock,
        protocol: IProtocol,
        addresses: tuple[IPv4Address, IPv4Address],
        pipes: tuple[Pipe, Pipe],
        bufferSize: int,
    ) -> None:
        self.protocol = protocol
        self.bufferSize = bufferSize
        self.connected = True
        self.disconnecting = False
        self.disconnected = False
        self.noDelay = False
        self.keepAlive = False
        self._clock = clock
        self._host, self._peer = addresses
        self.outgoing, self.incoming = pipes
        self.outgoing._writer = self.incoming._reader = self
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._writeCall: IDelayedCall | None = None
        self._writeDisconnecting = False
        self._writeDisconnected = False
        self._readDisconnected = False
        self._aborting = False
        self.reading = True
        self.producer: Any = None
        self._streaming = False
        self._producerPaused = False

    @property
    def buffered(self) -> int:
        """
        How many bytes wait to be sent.
        """
        return self._buffered

    @property
    def unsent(self) -> int:
        """
        How many bytes were written that have not reached the other end.
        """
        return self._buffered + self.outgoing.inFlight

    # ITransport and IConsumer

    def write(self, data: bytes) -> None:
        """
        Send some data; after the end, drop it.
        """
        self.writeSequence([data])

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """
        Send several pieces of data.
        """
        pieces = list(data)
        for piece in pieces:
            if not isinstance(piece, bytes):
                raise TypeError(f"Data must be bytes, not {type(piece).__name__}")
        size = sum(map(len, pieces))
        if not self.connected or self._writeDisconnected or not size:
            return
        self._buffer += pieces
        self._buffered += size
        if self._streaming and self._buffered > self.bufferSize:
            self._producerPaused = True
            self.producer.pauseProducing()
        self._startWriting()

    def loseConnection(self) -> None:
        """
        Close the connection once everything is sent, even if a push producer is
        registered.  Nothing is read from now on.
        """
        if not self.connected or self.disconnecting:
            return
        self.reading = False
        self.disconnecting = True
        if self._writeDisconnected:
            # Synchronously, although the caller may not expect it: TCP does the same.
            self._lose(ConnectionDone())
        else:
            self._startWriting()

    def getHost(self) -> IPv4Address:
        """
        @return: this end's address.
        """
        return self._host

    def getPeer(self) -> IPv4Address:
        """
        @return: the other end's address.
        """
        return self._peer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Register a producer, to be paused and resumed as output drains.

        @raise RuntimeError: if a producer is already registered.
        """
        if self.producer is not None:
            raise RuntimeError(f"there is a producer already: {self.producer!r}")
        if self.disconnected:
            producer.stopProducing()
            return
        self.producer = producer
        self._streaming = streaming
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """
        Forget the producer.
        """
        self.producer = None
        self._streaming = False
        if self.connected and self.disconnecting:
            self._startWriting()

    # ITCPTransport

    def loseWriteConnection(self) -> None:
        """
        Close the writing half once everything is sent.
        """
        self._writeDisconnecting = True
        self._startWriting()

    def abortConnection(self) -> None:
        """
        Reset the connection: drop what has not arrived.
        """
        if not self.disconnected and not self._aborting:
            self._aborting = True
            self.reading = False
            self._clock.callLater(0, self._lose, ConnectionAborted())

    def getTcpNoDelay(self) -> bool:
        return self.noDelay

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.noDelay = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        return self.keepAlive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.keepAlive = bool(enabled)

    # IPushProducer

    def pauseProducing(self) -> None:
        """
        Read nothing until C{resumeProducing}.
        """
        self.reading = False

    def resumeProducing(self) -> None:
        """
        Read again.
        """
        if self.connected and not self.disconnecting and not self._aborting:
            self.reading = True
            self.incoming._schedule()

    def stopProducing(self) -> None:
        """
        The same as L{loseConnection}.
        """
        self.loseConnection()

    # For tests

    def fail(self, reason: BaseException) -> None:
        """
        End the connection at once because of an error at this end, as when TLS does
        not accept the peer's certificate.  The other end sees a clean end.

        @param reason: what C{connectionLost} gets.
        """
        self._lose(reason)

    # What the reactor calls on a TCP transport

    def _startWriting(self) -> None:
        if self._writeCall is None and self.connected and not self.outgoing.stalled:
            self._writeCall = self._clock.callLater(0, self._doWrite)

    def _doWrite(self) -> None:
        self._writeCall = None
        if self.outgoing.stalled or self._aborting or self.disconnected:
            return
        if self._buffer:
            data = b"".join(self._buffer)
            rest = data[_SEND_SIZE:]
            self._buffer = [rest] if rest else []
            self._buffered = len(rest)
            self.outgoing._put(data[:_SEND_SIZE])
        if self._buffer:
            self._startWriting()
        elif self.producer is not None and (
            self._producerPaused or not self._streaming
        ):
            self._producerPaused = False
            self._try(self.producer.resumeProducing)
        elif self.disconnecting:
            self._lose(ConnectionDone())
        elif self._writeDisconnecting and not self._writeDisconnected:
            self._writeDisconnected = True
            self.outgoing._put(FIN)
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is not None:
                self._try(half.writeConnectionLost)

    def _dataReceived(self, data: bytes) -> None:
        self._try(self.protocol.dataReceived, data)

    def _finReceived(self) -> None:
        if self._readDisconnected:
            return
        self._readDisconnected = True
        half = IHalfCloseableProtocol(self.protocol, None)
        if half is not None:
            self._try(half.readConnectionLost)
        else:
            self._lose(ConnectionDone())

    def _try(self, function: Any, *args: object) -> None:
        """
        Call the protocol or the producer.  If the call raises, the connection ends,
        as under a real reactor.
        """
        try:
            function(*args)
        except BaseException as error:
            _log.failure("the protocol of a carrier in memory failed")
            self._lose(error)

    def _lose(self, reason: BaseException) -> None:
        if self.disconnected:
            return
        self.disconnected = True
        self.connected = False
        self.reading = False
        self._buffer = []
        self._buffered = 0
        producer, self.producer = self.producer, None
        self._streaming = False
        if producer is not None:
            producer.stopProducing()
        if isinstance(reason, ConnectionAborted):
            self.outgoing._reset()
        elif not self._writeDisconnected:
            self.outgoing._put(FIN)
        # Closing with unread input resets the connection.
        self.incoming._schedule()
        self.protocol.connectionLost(Failure(reason))
