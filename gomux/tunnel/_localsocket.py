# -*- test-case-name: gomux.test.tunnel.test_localsocket -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Local sockets: the plain TCP and Unix sockets of a tunnel, without Twisted's transports.

One object is the reader, the writer and the output of a bridge's end, in place of an
L{EndTransport}.  It stands in the epoll of L{gomux._carrier.sockets}.
L{gomux.tunnel._localends} makes local sockets.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from gomux._carrier.direct import BULK_READ_SIZE, READ_SIZE
from gomux._carrier.sockets import IN, OUT, Sockets
from gomux.tunnel._transport import unsentByKernel

#: The states of the output, in order.  In C{FINISHING} and C{CLOSING}, output that was
#: written before still waits.
_CONNECTING, _OPEN, _FINISHING, _FINISHED, _CLOSING, _CLOSED = range(6)

_LOST, _ABORTED = Failure(error.ConnectionLost()), Failure(error.ConnectionAborted())
#: With this SO_LINGER the kernel sends a reset when the socket is closed.
_RESET = struct.pack("ii", 1, 0)


class LocalSocket:
    """
    A plain socket at the end of a bridge.  The end is told of a half-close at once, and
    that the connection is gone once L{lose} has returned.

    The methods without a description are those of L{EndTransport}.  C{getPeer} also
    works once the socket is closed.

    @ivar _sockets: has the epoll.
    @ivar _handle: the socket.
    @ivar _address: the address of the other machine, as sockets give it.
    @ivar _end: the end of the bridge; C{None} after its C{connectionLost}.
    @ivar _connected: fires with the end; C{None} unless the state is C{CONNECTING}.
    @ivar _state: the state of the output.  It only moves forward.
    @ivar _reads: whether the end wants input, and EOF has not come.
    @ivar _hasReadEOF: whether EOF has come.
    @ivar _failed: whether writing has got an error.
    @ivar _size: how many bytes are read at once.
    @ivar _waiting: the output that waits.
    @ivar _producer: is paused while output waits; C{None} without one.
    @ivar _watched: the events that the kernel reports; 0 for none.
    """

    reportsAborts = True
    unread = 0
    _connected: Any = None
    _state = _OPEN
    _reads = _hasReadEOF = _failed = False
    _size = READ_SIZE
    _producer: IPushProducer | None = None
    _watched = 0

    def __init__(
        self, sockets: Sockets, handle: socket.socket, address: Any, end: Any
    ) -> None:
        self._sockets = sockets
        self._handle = handle
        self._address = address
        self._end = end
        self._waiting = bytearray()

    def getPeer(self) -> IAddress:
        if self._handle.family == socket.AF_UNIX:
            return UNIXAddress(self._address or None)
        kind = IPv4Address if self._handle.family == socket.AF_INET else IPv6Address
        return kind("TCP", *self._address)

    # Connecting

    def connect(self) -> Deferred[IProtocol]:
        """
        Connect to the address.

        @return: fires with the end, often before this method returns.
        """
        self._state = _CONNECTING
        connected: Deferred[Any] = Deferred(lambda _: self.lose(_ABORTED))
        self._connected = connected
        self._connect()
        return connected

    def _connect(self) -> None:
        try:
            failed = self._handle.connect_ex(self._address)
            if failed == errno.EINPROGRESS:
                # Loopback has connected, or refused, when the first call returns.
                failed = self._handle.connect_ex(self._address)
        except Exception as reason:
            # The path or the port is not valid.
            self.lose(Failure(error.ConnectError(string=str(reason))))
            return
        if failed == errno.EALREADY:
            self._watch(OUT)
        elif failed:
            self.lose(Failure(error.getConnectError((failed, os.strerror(failed)))))
        else:
            connected, self._connected = self._connected, None
            self._state = _OPEN
            self._watch()
            self._end.makeConnection(self)
            connected.callback(self._end)

    # Events

    def ready(self, events: int) -> None:
        """
        The kernel reports events.  It also reports that the connection has failed; then
        reading or writing gets the error.
        """
        if self._state == _CONNECTING:
            self._connect()
            return
        if self._reads and events & ~OUT:
            self._read()
        if self._waiting and events & ~IN:
            self._write()
        self._watch()

    def _watch(self, wanted: int = 0) -> None:
        wanted |= (IN if self._reads else 0) | (OUT if self._waiting else 0)
        if wanted != self._watched:
            self._sockets.watch(self, self._handle.fileno(), self._watched, wanted)
            self._watched = wanted

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
        if size >= READ_SIZE:
            self._size = BULK_READ_SIZE
        elif size < READ_SIZE // 2:
            self._size = READ_SIZE

    def passer(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        return write

    def pauseReading(self) -> None:
        # The kernel is told after the next event: reading is often resumed before.
        self._reads = False

    def resumeReading(self) -> None:
        if self._state < _CLOSING and not self._hasReadEOF:
            self._reads = True
            self._watch()

    def refuseInput(self) -> bool:
        return False

    def wasReset(self) -> bool:
        error = self._handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return self._failed or error != 0

    # Output

    def write(self, data: bytes) -> None:
        if self._state != _OPEN:
            return
        if not self._waiting:
            try:
                sent = self._handle.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                # The error was the reset.  After it, reading gets EOF.
                sent, self._failed = 0, True
            if sent == len(data):
                return
            data = data[sent:]
        self._waiting += data
        self._watch()
        if self._producer is not None:
            self._producer.pauseProducing()

    def _write(self) -> None:
        try:
            sent = self._handle.send(self._waiting[:BULK_READ_SIZE])
        except BlockingIOError:
            return
        except OSError:
            self.lose(_LOST)
            return
        del self._waiting[:sent]
        if not self._waiting:
            if self._producer is not None:
                self._producer.resumeProducing()
            self._flushed()

    def _flushed(self) -> None:
        """
        No output waits, or none did: do the closing that waits for that.
        """
        if self._waiting:
            return
        if self._state == _FINISHING:
            self._state = _FINISHED
            if not self._hasReadEOF:  # Otherwise the end closes the connection now.
                self._shutdown(socket.SHUT_WR)
            self._end.writeConnectionLost()
        elif self._state == _CLOSING:
            self.lose(connectionDone)

    def registerProducer(self, producer: IPushProducer) -> None:
        self._producer = producer
        if self._waiting:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    @property
    def unsent(self) -> int:
        return len(self._waiting) + unsentByKernel(self._handle)

    # Ends

    def finish(self) -> None:
        self._producer = None
        if self._state == _OPEN:
            self._state = _FINISHING
            self._flushed()

    def _shutdown(self, how: int) -> None:
        try:
            self._handle.shutdown(how)
        except OSError:
            pass  # The connection is gone.

    def close(self) -> None:
        self._producer = None
        if self._state < _CLOSING:
            self._state = _CLOSING
            self._reads = False
            self._flushed()

    halvesClosed = close

    def abort(self) -> None:
        self.lose(_ABORTED)

    def lose(self, reason: Failure) -> None:
        """
        The connection is gone, or is not wanted: close the socket at the end of the
        turn.
        """
        if self._state != _CLOSED:
            self._state = _CLOSED
            self._producer = None
            self._reads = False
            self._waiting.clear()
            self._watch()
            self._sockets.clock.soon(lambda: self._close(reason))

    def _close(self, reason: Failure) -> None:
        if reason is _ABORTED:
            self._handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif reason is connectionDone and not self._hasReadEOF:
            # A close with unread input is a reset; so the other machine gets EOF first.
            self._shutdown(socket.SHUT_RDWR)
        self._handle.close()
        end, self._end = self._end, None
        connected, self._connected = self._connected, None
        if connected is None:
            end.connectionLost(reason)
        elif not connected.called:
            connected.errback(reason)
