# -*- test-case-name: gomux.test.tunnel.test_localsocket -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Local sockets: the plain TCP and Unix sockets of a tunnel, without Twisted's transports.

One object is the reader, the writer and the output of a bridge's end.  It stands in the
epoll of L{gomux._carrier.sockets}.  A port accepts local sockets after
L{acceptLocally}, and L{gomux.tunnel._targets} connects them to targets.  All other
transports, such as TLS, and all other reactors are used through
L{gomux.tunnel._transport}.
"""

from __future__ import annotations

import socket
import struct
from enum import IntEnum
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from gomux._carrier.accept import acceptNoMore
from gomux._carrier.direct import BULK_READ_SIZE, READ_SIZE
from gomux._carrier.sockets import IN, OUT, Sockets, socketsOf
from gomux.tunnel._transport import EndTransport, unsentByKernel

_LOST, _ABORTED = Failure(ConnectionLost()), Failure(ConnectionAborted())
#: With this SO_LINGER the kernel sends a reset when the socket is closed.
_RESET = struct.pack("ii", 1, 0)


class State(IntEnum):
    """
    The state of a local socket's output.  It only moves forward.  In C{FINISHING} and
    C{CLOSING}, output that was written before still waits.
    """

    OPEN = 0
    FINISHING = 1
    FINISHED = 2
    CLOSING = 3
    CLOSED = 4


# A look-up in an Enum would take longer than the rest of some calls.
_OPEN, _FINISHING, _FINISHED, _CLOSING, _CLOSED = State


class LocalSocket:
    """
    A plain socket at the end of a bridge.  The end is told of a half-close at once.
    After L{close} and L{abort} have returned, it is told that the connection is lost.

    @ivar isDirect: C{False}: the end need not call L{received} for each read.
    @ivar reportsAborts: see L{EndTransport}.
    @ivar unread: 0: no input waits here.
    @ivar _sockets: has the epoll.
    @ivar _handle: the socket.
    @ivar _descriptor: its descriptor.
    @ivar _end: the end of the bridge.
    @ivar _address: the address of the other machine, as sockets give it.
    @ivar _accepted: whether a port has accepted the connection.
    @ivar _state: the L{State}.
    @ivar _reads: whether the end wants input, and EOF has not come.
    @ivar _hasReadEOF: whether EOF has come.
    @ivar _size: how many bytes are read at once.
    @ivar _waiting: the output that waits.
    @ivar _producer: is paused while output waits; C{None} without one.
    @ivar _watched: the events that the kernel reports; 0 if the socket is not in the
        epoll.
    """

    __slots__ = (
        *("_sockets", "_handle", "_descriptor", "_end", "_address", "_accepted"),
        *("_state", "_reads", "_hasReadEOF", "_size", "_waiting", "_producer"),
        "_watched",
    )

    isDirect = False
    reportsAborts = True
    unread = 0

    def __init__(
        self, sockets: Sockets, handle: socket.socket, end: Any, address: Any
    ) -> None:
        self._sockets = sockets
        self._handle = handle
        self._descriptor = handle.fileno()
        self._end = end
        self._address = address
        self._accepted = False
        self._state = _OPEN
        self._reads = self._hasReadEOF = False
        self._size = READ_SIZE
        self._waiting: list[bytes] = []
        self._producer: IPushProducer | None = None
        self._watched = 0
        handle.setblocking(False)
        if handle.family != socket.AF_UNIX:
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # An urgent byte stays in its place among the others.
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)

    def getPeer(self) -> IAddress:
        """
        @return: the address of the other machine, even once the socket is closed.
        """
        if not isinstance(self._address, tuple):
            return UNIXAddress(self._address or None)
        kind = IPv4Address if len(self._address) == 2 else IPv6Address
        return kind("TCP", *self._address)

    # Events

    def begin(self) -> None:
        """
        The end is connected: read what an accepted connection may have sent already.
        """
        if self._accepted and self._reads:
            self._read()

    def ready(self, events: int) -> None:
        """
        Read and write.  If the connection has failed, that raises the error.
        """
        if self._reads and events & ~OUT:
            self._read()
        if self._waiting and events & ~IN:
            self._write()
        self._watch()

    def _watch(self) -> None:
        wanted = (IN if self._reads else 0) | (OUT if self._waiting else 0)
        if wanted != self._watched:
            self._sockets.watch(self, self._descriptor, self._watched, wanted)
            self._watched = wanted

    def lose(self, reason: Failure) -> None:
        """
        The connection is gone: close the socket.
        """
        if self._state is not _CLOSED:
            self._stop()
            self._close(reason)

    # Input

    def _read(self) -> None:
        try:
            data = self._handle.recv(self._size)
        except BlockingIOError:
            return
        except OSError:
            self.lose(_LOST)
            return
        if data:
            self.received(len(data))
            self._end.dataReceived(data)
        else:
            self._reads, self._hasReadEOF = False, True
            self._end.readConnectionLost()

    def received(self, size: int) -> None:
        """
        Choose how much is read next.

        @param size: how many bytes the last read returned.
        """
        if size >= READ_SIZE:
            self._size = BULK_READ_SIZE
        elif size < READ_SIZE // 2:
            self._size = READ_SIZE

    def pauseReading(self) -> None:
        """
        Read nothing for now.  The kernel is told after the next event, because reading
        is often resumed before.
        """
        self._reads = False

    def resumeReading(self) -> None:
        """
        Read again.
        """
        if self._state < _CLOSING and not self._hasReadEOF:
            self._reads = True
            self._watch()

    def refuseInput(self) -> bool:
        """
        @return: C{False}: a socket cannot tell the other machine to send no more.
        """
        return False

    def wasReset(self) -> bool:
        """
        @return: whether the end of the input was a reset.
        """
        return self._handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    # Output

    def write(self, data: bytes) -> None:
        """
        Write some data at once.  If the kernel does not take all, the rest waits, and
        the producer is paused.
        """
        if self._state is not _OPEN:
            return
        if not self._waiting:
            try:
                sent = self._handle.send(data)
            except OSError:
                # The kernel has taken enough, or writing again gets the error too.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        self._waiting.append(data)
        self._watch()
        if self._producer is not None:
            self._producer.pauseProducing()

    def _write(self) -> None:
        data = b"".join(self._waiting)
        try:
            sent = self._handle.send(data)
        except BlockingIOError:
            return
        except OSError:
            self.lose(_LOST)
            return
        self._waiting = [data[sent:]] if sent < len(data) else []
        if not self._waiting and self._producer is not None:
            self._producer.resumeProducing()
        self._flushed()

    def _flushed(self) -> None:
        """
        If no output waits, do the closing that waits for that.
        """
        if self._waiting:
            return
        if self._state is _FINISHING:
            self._state = _FINISHED
            try:
                self._handle.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # The connection is gone, as reading tells.
            self._end.writeConnectionLost()
        elif self._state is _CLOSING:
            self._closeSoon(connectionDone)

    def registerProducer(self, producer: IPushProducer) -> None:
        """
        Pause and resume a producer from now on.
        """
        self._producer = producer
        if self._waiting:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """
        Forget the producer.
        """
        self._producer = None

    @property
    def unsent(self) -> int:
        """
        How many bytes of output the other machine may not have received yet.
        """
        return sum(map(len, self._waiting)) + unsentByKernel(self._handle)

    # Ends

    def finish(self) -> None:
        """
        Close the writing half once all output is written.
        """
        self._producer = None
        if self._state is _OPEN:
            self._state = _FINISHING
            self._flushed()

    def close(self) -> None:
        """
        Close the connection once all output is written.
        """
        self._producer = None
        if self._state < _CLOSING:
            self._state = _CLOSING
            self._reads = False
            self._flushed()

    def abort(self) -> None:
        """
        Drop the connection at once, so that the other machine sees a reset.
        """
        self._closeSoon(_ABORTED)

    def _closeSoon(self, reason: Failure) -> None:
        if self._state is not _CLOSED:
            self._stop()
            self._sockets.clock.soon(lambda: self._close(reason))

    def _stop(self) -> None:
        self._state = _CLOSED
        self._producer = None
        self._reads = False
        self._waiting = []
        self._watch()

    def _close(self, reason: Failure) -> None:
        if reason is _ABORTED:
            self._handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._handle.close()
        self._end.connectionLost(reason)


def acceptLocally(port: Any) -> None:
    """
    Have a port make local sockets for ends of bridges, if it is a port for plain TCP or
    Unix sockets.

    @param port: a listening port of any kind, with any factory.
    """
    sockets = socketsOf(port.reactor) if type(port) in (tcp.Port, unix.Port) else None
    if sockets is None:
        return
    usual = port.transport

    def accept(
        handle: socket.socket, protocol: Any, address: Any, *rest: Any
    ) -> LocalSocket | tcp.Server:
        if not getattr(protocol, "takesLocalSocket", False):
            transport: tcp.Server = usual(handle, protocol, address, *rest)
            return transport
        acceptNoMore(port)
        local = LocalSocket(sockets, handle, protocol, address)
        local._accepted = True
        return local

    port.transport = accept


def outputOf(transport: Any) -> EndTransport | LocalSocket:
    """
    @return: the output of an end with a transport.
    """
    return transport if isinstance(transport, LocalSocket) else EndTransport(transport)
