# -*- test-case-name: gomux.test.carrier.test_records -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
TLS records, a few in each turn of the reactor.

A record of TLS can be as small as 22 bytes, so one read can have thousands.  Each takes
time, also if it has no data for the application: TLS handles and answers some messages
by itself, such as those that ask for a new key.  Here only a few records are handled in
a turn, and the rest of what was read waits for later turns.  A sender that reads none
of the answers is dropped.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IDelayedCall, ISSLTransport
from twisted.python.failure import Failure

from gomux._carrier.transport import dropTransport, layersOf

#: How many records of a connection are handled in a turn of the reactor.
RECORDS = 32
#: How many bytes of answers of TLS itself may wait for a peer that does not read.
ANSWERS = 65536
#: How many bytes of all kinds may wait for a peer that does not read, on the carrier of
#: a mux.  The mux itself waits long before that.
MUX_OUTPUT = 4 * 1024 * 1024

# The size of the header of a record.
_HEADER = 5


class RecordPace:
    """
    Stands between a socket and the TLS above it.

    @ivar _hasMux: whether a mux is above the TLS.  Then not all that is written while
        records are handled is answers of TLS: the mux answers, too.
    @ivar _tls: the TLS, a
        L{TLSMemoryBIOProtocol<twisted.protocols.tls.TLSMemoryBIOProtocol>}.
    @ivar _below: the transport of the TLS.
    @ivar _socket: the lowest transport.
    @ivar _deliver: gives received bytes to the TLS.
    @ivar _wanted: whether the application wants to read.
    @ivar _held: received bytes that wait for later turns.
    @ivar _call: the next turn, if it is due.
    @ivar _header: the incomplete header of the next record.
    @ivar _left: how many bytes of the current record are still to come.
    @ivar _loss: why the connection is gone, while a mux has not got all records.
    @ivar _answers: how many bytes of answers were written since the socket last had
        nothing to send.
    """

    def __init__(self, tls: Any, socket: FileDescriptor, hasMux: bool) -> None:
        self._hasMux = hasMux
        self._tls = tls
        self._below = tls.transport
        self._socket: Any = socket
        self._deliver = tls.dataReceived
        self._wanted = True
        self._held = b""
        self._call: IDelayedCall | None = None
        self._header = b""
        self._left = 0
        self._answers = 0
        self._loss: Failure | None = None
        tls.dataReceived = self.dataReceived
        tls.connectionLost = self.connectionLost
        tls.pauseProducing = self.pauseProducing
        tls.resumeProducing = self.resumeProducing

    # What the transport below calls

    def dataReceived(self, data: bytes) -> None:
        """
        Handle the first few records, and the rest in later turns.
        """
        if self._held:
            self._held += data
        else:
            self._handle(data)

    def connectionLost(self, reason: Failure) -> None:
        """
        The connection is gone.  A tunnel's connection was cut short if records wait.  A
        mux gets those first.
        """
        if self._hasMux and self._held:
            # In later turns, also if the mux has paused reading: it may never resume.
            self._loss = reason
            self.resumeProducing()
            return
        if self._call is not None:
            self._call.cancel()
        for name in (
            *("dataReceived", "connectionLost"),
            *("pauseProducing", "resumeProducing"),
        ):
            delattr(self._tls, name)
        self._tls.connectionLost(reason)

    # What the application calls

    def pauseProducing(self) -> None:
        """
        Read nothing.  The records that a lost connection has left still come.
        """
        self._wanted = self._loss is not None
        self._below.pauseProducing()

    def resumeProducing(self) -> None:
        """
        Read again, once the records that wait are handled.
        """
        self._wanted = True
        self._goOn()

    def _goOn(self) -> None:
        if not self._wanted:
            return
        if not self._held and self._loss is None:
            self._below.resumeProducing()
        elif self._call is None:
            self._call = self._socket.reactor.callLater(0, self._more)

    def _more(self) -> None:
        self._call = None
        if not self._held and self._loss is not None:
            self.connectionLost(self._loss)
        elif self._wanted:
            data, self._held = self._held, b""
            self._handle(data)
            self._goOn()

    def _handle(self, data: bytes) -> None:
        size = self._sizeOfFew(data)
        if size < len(data):
            self._held = data[size:]
            self._below.pauseProducing()
            self._goOn()
            data = data[:size]
        if self._hasMux:
            self._deliver(data)
            if self._unsent > MUX_OUTPUT:
                dropTransport(self._socket)
            return
        before = self._unsent
        self._deliver(data)
        if not before:
            self._answers = 0
            return
        self._answers += max(0, self._unsent - before)
        if self._answers > ANSWERS:
            dropTransport(self._socket)

    @property
    def _unsent(self) -> int:
        socket = self._socket
        return int(len(socket.dataBuffer) - socket.offset + socket._tempDataLen)

    def _sizeOfFew(self, data: bytes) -> int:
        """
        @return: how many bytes of some data the next L{RECORDS} records have.
        """
        records = at = 0
        while records < RECORDS and at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = _HEADER - len(self._header)
                self._header += data[at : at + step]
                if len(self._header) < _HEADER:
                    return len(data)
                self._left = int.from_bytes(self._header[3:], "big")
                self._header = b""
            at += step
            records += not self._left
        return at


def pace(transport: Any, hasMux: bool = False) -> None:
    """
    Handle a few records in a turn only, if there is TLS right above a socket.

    @param transport: the transport of a new connection, of any kind.
    @param hasMux: whether it carries a mux.
    """
    layers = list(layersOf(transport))
    for layer in layers:
        isTLS = ISSLTransport.providedBy(layer) and (
            "_tlsConnection" in getattr(layer, "__dict__", ())
        )
        if isTLS and isinstance(layers[-1], FileDescriptor):
            RecordPace(layer, layers[-1], hasMux)
            return
