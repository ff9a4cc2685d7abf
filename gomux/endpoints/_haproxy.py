# -*- test-case-name: gomux.test.endpoints.test_haproxy -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Connections with a PROXY protocol header, in which a load balancer tells the address of
its client.

Twisted's own wrapper closes a connection when the client closes its writing half, drops
a connection whose header comes in small pieces, and builds the protocol before it knows
the client's address.  This module does none of that.  It finds the end of a header
itself, and leaves only the parsing of the complete header to Twisted.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from gomux._carrier.accept import acceptOne
from gomux._carrier.clock import steady
from gomux._carrier.passed import PassedDropper
from gomux._carrier.restraint import release, restrain
from gomux._carrier.transport import dropTransport
from gomux._mux.log import ThrottledLog, describeAddress
from gomux._wire.shares import descriptors

_log = Logger()

#: How long the header may take, in seconds.
HEADER_TIMEOUT = 10.0
#: The largest accepted header of version 1 and of version 2, in bytes.  The first is
#: from the specification.  The second leaves room for all that load balancers add.
MAX_TEXT, MAX_BINARY = 107, 4096
#: How many connections of one port may wait for their header.  A load balancer sends
#: the header at once.  If the process may have few descriptors, it is this part of
#: them, but at least C{LEAST_WAITING}.
MAX_WAITING, PART_WAITING, LEAST_WAITING = 256, 32, 16

_PREFIX: bytes = V2Parser.PREFIX


@implementer(IStreamServerEndpoint)
class ProxiedServerEndpoint:
    """
    Listens for connections that begin with a header.

    @ivar _clock: the reactor.
    @ivar _endpoint: listens for the connections.
    """

    def __init__(self, clock: IReactorTime, endpoint: IStreamServerEndpoint) -> None:
        """
        @param clock: the reactor.
        @param endpoint: where to listen.
        """
        self._clock = clock
        self._endpoint = endpoint

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen.

        @param factory: makes the protocols, for the addresses in the headers.
        @return: fires with the port.
        """
        return self._endpoint.listen(ProxiedFactory(factory, self._clock))


class ProxiedFactory(WrappingFactory):
    """
    Puts a L{ProxiedProtocol} below each protocol of a factory.

    @ivar clock: tells the time.
    @ivar log: logs connections without a valid header.
    @ivar waiting: the connections whose header is not complete, the oldest first.
    @ivar mostWaiting: how many of these there may be.
    """

    def __init__(self, factory: IProtocolFactory, clock: IReactorTime) -> None:
        super().__init__(factory)
        self.clock: Any = steady(clock)
        self.log = ThrottledLog(_log, self.clock)
        self.waiting: dict[ProxiedProtocol, None] = {}
        part = max(LEAST_WAITING, descriptors() // PART_WAITING)
        self.mostWaiting = min(MAX_WAITING, part)

    def buildProtocol(self, addr: IAddress | None) -> ProxiedProtocol:
        """
        @return: a protocol that waits for the header.
        """
        return ProxiedProtocol(self)


@implementer(IHalfCloseableProtocol)
class ProxiedProtocol(PassedDropper, ProtocolWrapper):
    """
    Reads the header.  After that it is the transport of the application's protocol.

    @ivar wrappedProtocol: the application's protocol; C{None} before the header is
        complete.
    @ivar _header: the received part of the header.
    @ivar _timeout: the delayed call that drops the connection if the header is late.
    @ivar _source: the client's address; C{None} if the header does not have it.
    @ivar _destination: the address to which the client had connected; C{None} if the
        header does not have it.
    """

    factory: ProxiedFactory
    transport: Any
    wrappedProtocol: Any
    _timeout: IDelayedCall
    _source: IAddress | None = None
    _destination: IAddress | None = None

    def __init__(self, factory: ProxiedFactory) -> None:
        super().__init__(factory, None)  # type: ignore[arg-type]
        self._header = bytearray()

    def logPrefix(self) -> str:
        """
        @return: the log prefix of the factory.
        """
        return str(self.factory.logPrefix())

    def makeConnection(self, transport: Any) -> None:
        """
        Wait for the header.
        """
        directlyProvides(self, providedBy(transport))
        Protocol.makeConnection(self, transport)
        acceptOne(transport)
        restrain(transport)
        self.factory.registerProtocol(self)
        self._timeout = self.factory.clock.callLater(
            HEADER_TIMEOUT, self._drop, f"no header within {HEADER_TIMEOUT:g} seconds"
        )
        waiting = self.factory.waiting
        waiting[self] = None
        if len(waiting) > self.factory.mostWaiting:
            next(iter(waiting))._drop("too many connections wait for a header")

    def dataReceived(self, data: bytes) -> None:
        """
        Collect the header, then pass on all data after it.
        """
        if self.wrappedProtocol is not None:
            self.wrappedProtocol.dataReceived(data)
        elif self._timeout.active():
            self._header += data
            try:
                size = headerSize(self._header)
                if size is not None:
                    self._parse(bytes(self._header[:size]))
            except Exception as error:
                self._drop(f"no valid header: {type(error).__name__}")
            else:
                if size is not None:
                    self._start(bytes(self._header[size:]))

    def _parse(self, header: bytes) -> None:
        if header.startswith(b"PROXY UNKNOWN"):
            # Legal without anything after it, but Twisted's parser would refuse that.
            return
        isBinary = header.startswith(_PREFIX)
        info = V2Parser.parse(header) if isBinary else V1Parser.parse(header[:-2])
        self._source = _canonical(info.source)
        self._destination = _canonical(info.destination)

    def _start(self, rest: bytes) -> None:
        """
        The header is complete: make the protocol.
        """
        self._waitsNoMore()
        self._header.clear()
        release(self.transport)
        wrapped = self.factory.wrappedFactory.buildProtocol(self.getPeer())
        if wrapped is None:
            self._end()
            return
        self.wrappedProtocol = wrapped
        wrapped.makeConnection(self)
        if rest:
            wrapped.dataReceived(rest)

    def _drop(self, why: str) -> None:
        self.factory.log.warn(
            "PROXY protocol: dropped {peer}: {why}",
            peer=describeAddress(self.transport.getPeer()),
            why=why,
        )
        self._waitsNoMore()
        self._end()

    def _waitsNoMore(self) -> None:
        """
        The header is complete, or the connection ends.
        """
        self.factory.waiting.pop(self, None)
        if self._timeout.active():
            self._timeout.cancel()

    def _end(self) -> None:
        """
        End a connection that has no protocol.
        """
        dropTransport(self.transport)

    def getPeer(self) -> IAddress:
        """
        @return: the client's address, or the load balancer's, if the header has none.
        """
        peer: IAddress = self._source or self.transport.getPeer()
        return peer

    def getHost(self) -> IAddress:
        """
        @return: the address to which the client had connected, or this machine's, if
            the header has none.
        """
        host: IAddress = self._destination or self.transport.getHost()
        return host

    # The ends

    def readConnectionLost(self) -> None:
        """
        The client has closed its writing half.  Tell a half-closeable protocol.  Under
        any other protocol, end the connection as the transport itself would.
        """
        half = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if half is not None:
            half.readConnectionLost()
        elif isinstance(self.transport, Connection):
            self.transport.connectionLost(connectionDone)
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """
        The writing half is closed.
        """
        half = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if half is not None:
            half.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection is gone.
        """
        self._waitsNoMore()
        self.factory.unregisterProtocol(self)
        wrapped, self.wrappedProtocol = self.wrappedProtocol, None
        if wrapped is not None:
            wrapped.connectionLost(reason)


def headerSize(data: bytes | bytearray) -> int | None:
    """
    @param data: the data received so far.
    @return: the size of the header, or C{None} if the header is not complete yet.
    @raise ValueError: if the data is no header, or the header is too large.
    """
    isBinary = data[: len(_PREFIX)] == _PREFIX[: len(data)]
    if isBinary:
        if len(data) < 16:
            return None
        size = 16 + int.from_bytes(data[14:16], "big")
        if size > MAX_BINARY:
            raise ValueError("the header is too large")
        return size if len(data) >= size else None
    if not b"PROXY ".startswith(bytes(data[:6])):
        raise ValueError("no header")
    end = data.find(b"\r\n", 0, MAX_TEXT)
    if end < 0 and len(data) >= MAX_TEXT:
        raise ValueError("the line has no end")
    return None if end < 0 else end + 2


def _canonical(address: Any) -> IAddress | None:
    """
    @return: an address from a header, with its host in the usual form; C{None} if the
        header has none.
    @raise ValueError: if the address is not valid: a stranger may have written it.
    """
    if isinstance(address, (IPv4Address, IPv6Address)):
        host = str(ip_address(address.host))
        if not 0 <= address.port < 65536:
            raise ValueError("no port")
        return type(address)(address.type, host, address.port)
    if isinstance(address, UNIXAddress):
        name = (address.name or b"").decode("ascii")
        if not name.isprintable():
            raise ValueError("no path")
        # A client's socket without a path has an empty name.
        return address if name else None
    return None
