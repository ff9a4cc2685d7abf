# -*- test-case-name: gomux.test.tunnel.test_transport -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The transport of a bridge's end: a stream, or a transport of any other kind.

Streams and TCP can be paused, half-closed and aborted, and report why a connection was
lost.  Standard input and output, SSH channels, WebSockets, processes and serial lines
lack some of these operations.  An operation that a transport lacks is left out, or
replaced by the nearest operation that the transport has.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.protocols.policies import ProtocolWrapper

from gomux._carrier.direct import DirectTransport
from gomux._carrier.transport import layersOf, limitUnsent
from gomux._mux.stream import Stream

#: The first byte of C{TCP_INFO} once a connection is closed.  Then the kernel has
#: nothing left to send.
_TCP_CLOSE = 7


class StreamOutput:
    """
    A stream as the transport of a bridge's end.

    The methods are those of L{EndTransport}.

    @ivar write: sends data on the stream.
    @ivar _stream: the stream.
    """

    __slots__ = ("write", "_stream")

    reportsAborts = True

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.write = stream.write

    # Input

    def received(self, size: int) -> None:
        pass

    def passer(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        return write

    def pauseReading(self) -> None:
        self._stream.pauseProducing()

    def resumeReading(self) -> None:
        self._stream.resumeProducing()

    def refuseInput(self) -> bool:
        self._stream.loseReadConnection()
        return True

    @property
    def unread(self) -> int:
        return self._stream.unread

    def wasReset(self) -> bool:
        return False

    # Output

    def registerProducer(self, producer: IPushProducer) -> None:
        self._stream.registerProducer(producer, True)

    def unregisterProducer(self) -> None:
        self._stream.unregisterProducer()

    @property
    def unsent(self) -> int:
        return self._stream.unsent

    # Ends

    def finish(self) -> None:
        self._stream.unregisterProducer()
        self._stream.loseWriteConnection()

    def halvesClosed(self) -> None:
        pass  # Then a stream closes itself.

    def close(self) -> None:
        self._stream.unregisterProducer()
        self._stream.loseConnection()

    def abort(self) -> None:
        self._stream.unregisterProducer()
        self._stream.abortConnection()


class EndTransport(DirectTransport):
    """
    A transport of any kind as the transport of a bridge's end.

    @ivar reportsAborts: whether the transport can be aborted, and then calls
        C{connectionLost}.  L{abort} closes any other transport, which may never call
        C{connectionLost}.
    """

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        self.reportsAborts = hasattr(transport, "abortConnection")
        if _hasTCPAddress(transport):
            for name in ("setTcpNoDelay", "setTcpKeepAlive"):
                if hasattr(transport, name):
                    getattr(transport, name)(True)
        for layer in layersOf(transport):
            handle = getattr(layer, "socket", None)
            keepUrgent(handle)
            limitUnsent(handle)

    # Input

    def passer(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """
        @param write: the C{write} of the other end's output.
        @return: the C{dataReceived} that passes input on to the other end.
        """
        received = self.received

        def passOn(data: bytes) -> None:
            received(len(data))
            write(data)

        return passOn if self.isDirect else write

    def pauseReading(self) -> None:
        """
        Read nothing for now, if the transport can be paused.
        """
        if hasattr(self.transport, "pauseProducing"):
            self.transport.pauseProducing()

    def resumeReading(self) -> None:
        """
        Read again.
        """
        if hasattr(self.transport, "resumeProducing"):
            self.transport.resumeProducing()

    def refuseInput(self) -> bool:
        """
        Tell the other machine to send no more, if the transport can do that.  Only
        streams can.

        @return: whether it can.
        """
        # What TLS has, it has from the stream below, whose half-close would break TLS.
        return False

    @property
    def unread(self) -> int:
        """
        How many bytes of input wait in a paused stream; 0 for other transports.
        """
        return int(getattr(self.transport, "unread", 0))

    # Output

    def registerProducer(self, producer: IPushProducer) -> None:
        """
        Pause and resume a producer from now on, if the transport can do that.
        """
        if hasattr(self.transport, "registerProducer"):
            super().registerProducer(producer)

    @property
    def unsent(self) -> int:
        """
        How many bytes of output the other machine may not have received yet, as far as
        this is known.
        """
        return sum(map(_unsent, layersOf(self.transport)))

    # Ends

    def finish(self) -> None:
        """
        Close the writing half once all output is written, or the whole connection if
        the transport has no half-close.
        """
        self.unregisterProducer()
        close = self.transport.loseConnection
        # A TLS transport also has a half-close, but it half-closes the TCP connection
        # below, which breaks TLS.
        if not ISSLTransport.providedBy(self.transport):
            for name in ("closeStdin", "loseWriteConnection"):
                close = getattr(self.transport, name, close)
        close()

    def halvesClosed(self) -> None:
        """
        Both halves are closed: close the connection, unless it closes itself.
        """
        self.close()

    def close(self) -> None:
        """
        Close the connection once all output is written.
        """
        self.unregisterProducer()
        self.transport.loseConnection()

    def abort(self) -> None:
        """
        Drop the connection at once, so that the other machine sees a reset.
        """
        self.unregisterProducer()
        if self.reportsAborts:
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()


def _hasTCPAddress(transport: Any) -> bool:
    """
    @return: whether a transport has the address of a TCP connection.
    """
    try:
        return isinstance(transport.getPeer(), (IPv4Address, IPv6Address))
    except Exception:
        # Not all transports have addresses: those of processes raise
        # NotImplementedError.
        return False


def keepUrgent(handle: Any) -> None:
    """
    Have the kernel deliver a byte that was sent as urgent data in its place among the
    other bytes.  Otherwise the byte would be lost.
    """
    if isinstance(handle, socket.socket):
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def _unsent(layer: Any) -> int:
    """
    @return: how many bytes of output wait in one layer of a transport.
    """
    size = 0
    if hasattr(type(layer), "unsent"):
        # A stream, or a carrier in memory.
        size += layer.unsent
    elif isinstance(layer, FileDescriptor):
        size += len(layer.dataBuffer) - layer.offset + layer._tempDataLen
        size += unsentByKernel(getattr(layer, "socket", None))
    elif isinstance(layer, ProtocolWrapper):
        # TLS keeps output until the handshake is done, and small writes for one turn
        # of the reactor.
        aggregator = vars(layer).get("_aggregator")
        for held in (vars(layer).get("_appSendBuffer"), vars(aggregator or layer)):
            held = held.get("_buffer") if isinstance(held, dict) else held
            size += sum(map(len, held or ()))
    return size


def unsentByKernel(handle: Any) -> int:
    """
    @return: how many bytes of a TCP socket's output the peer's machine has not
        acknowledged; 0 if the system does not tell.
    """
    if not isinstance(handle, socket.socket) or handle.family not in (
        socket.AF_INET,
        socket.AF_INET6,
    ):
        return 0
    try:
        if handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE:
            return 0
        answer = fcntl.ioctl(handle.fileno(), termios.TIOCOUTQ, bytes(4))
    except (AttributeError, OSError):
        return 0
    return int(struct.unpack("i", answer)[0])
