# -*- test-case-name: gomux.test.endpoints.test_haproxy -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Connections with a PROXY protocol header, in which a load balancer tells the address of
its client.

Twisted has a wrapper for these.  It closes a connection of which the client has closed
one half, drops one whose header comes in small pieces, and builds the protocol before
it knows the client's address.  This one uses Twisted's parsers of complete headers.
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

from gomux._carrier.clock import steady
from gomux._mux.log import ThrottledLog, describeAddress

_log = Logger()

#: How long the header may take, in seconds.
HEADER_TIMEOUT = 10.0
#: How long a header of version 1 may be, as its specification says, and one of version
#: 2 with all that load balancers add to it, in bytes.
MAX_TEXT, MAX_BINARY = 107, 4096

_PREFIX: bytes = V2Parser.PREFIX


@implementer(IStreamServerEndpoint)
class ProxiedServerEndpoint:
    """
    Listens for connections with a header.
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
    """

    def __init__(self, factory: IProtocolFactory, clock: IReactorTime) -> None:
        super().__init__(factory)
        self.clock: Any = steady(clock)
        self.log = ThrottledLog(_log, self.clock)

    def buildProtocol(self, addr: IAddress | None) -> ProxiedProtocol:
        """
        @return: a protocol that waits for the header.
        """
        return ProxiedProtocol(self)


@implementer(IHalfCloseableProtocol)
class ProxiedProtocol(ProtocolWrapper):
    """
    Reads the header, and is the transport of the protocol behind it.

    @ivar wrappedProtocol: that protocol; C{None} before the header is complete.
    @ivar _header: what has come of the header.
    @ivar _timeout: ends a connection whose header does not come.
    @ivar _source: the client's address, if the header has it.
    @ivar _destination: the address to which the client had connected.
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
        @return: the factory's.
        """
        return str(self.factory.logPrefix())

    def makeConnection(self, transport: Any) -> None:
        """
        Wait for the header.
        """
        directlyProvides(self, providedBy(transport))
        Protocol.makeConnection(self, transport)
        self.factory.registerProtocol(self)
        self._timeout = self.factory.clock.callLater(
            HEADER_TIMEOUT, self._drop, f"no header within {HEADER_TIMEOUT:g} seconds"
        )

    def dataReceived(self, data: bytes) -> None:
        """
        Pass data on that comes after the header.
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
            # Twisted's parser wants something after that.
            return
        isBinary = header.startswith(_PREFIX)
        info = V2Parser.parse(header) if isBinary else V1Parser.parse(header[:-2])
        self._source = _canonical(info.source)
        self._destination = _canonical(info.destination)

    def _start(self, rest: bytes) -> None:
        """
        The header is complete: make the protocol.
        """
        self._timeout.cancel()
        self._header.clear()
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
        if self._timeout.active():
            self._timeout.cancel()
        self._end()

    def _end(self) -> None:
        """
        End a connection that has no protocol.
        """
        end = getattr(self.transport, "abortConnection", self.transport.loseConnection)
        end()

    def getPeer(self) -> IAddress:
        """
        @return: the client's address, or the load balancer's, if the header has none.
        """
        peer: IAddress = self._source or self.transport.getPeer()
        return peer

    def getHost(self) -> IAddress:
        """
        @return: the address to which the client had connected, or this machine's.
        """
        host: IAddress = self._destination or self.transport.getHost()
        return host

    # The ends

    def readConnectionLost(self) -> None:
        """
        The client has closed its writing half: do what the transport would have done,
        had it known the protocol.
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
        if self._timeout.active():
            self._timeout.cancel()
        self.factory.unregisterProtocol(self)
        wrapped, self.wrappedProtocol = self.wrappedProtocol, None
        if wrapped is not None:
            wrapped.connectionLost(reason)


def headerSize(data: bytes | bytearray) -> int | None:
    """
    @param data: what has come so far.
    @return: the size of the header, or C{None} if more of it has yet to come.
    @raise ValueError: if it is none.
    """
    isBinary = data[: len(_PREFIX)] == _PREFIX[: len(data)]
    if isBinary:
        if len(data) < 16:
            return None
        size = 16 + int.from_bytes(data[14:16], "big")
        if size > MAX_BINARY:
            raise ValueError("a header of that size")
        return size if len(data) >= size else None
    if not b"PROXY ".startswith(bytes(data[:6])):
        raise ValueError("no header")
    end = data.find(b"\r\n", 0, MAX_TEXT)
    if end < 0 and len(data) >= MAX_TEXT:
        raise ValueError("a line without an end")
    return None if end < 0 else end + 2


def _canonical(address: Any) -> IAddress | None:
    """
    @return: an address of a header as it is usually written.
    @raise ValueError: if it is no address: a stranger may have written anything there.
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
        # An empty one tells nothing.
        return address if name else None
    return None
