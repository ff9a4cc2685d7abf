# -*- test-case-name: gomux.test.tunnel.test_localends -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Where bridges get local sockets from: the port that accepts a connection, and the target
that a connection is made to.

Over loopback, and often to a machine nearby, a connection to a target exists at once.
Then its bridge is joined without a turn of the reactor and without a timeout.  A target
with a name is left to its endpoint, because the name has to be looked up.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.error import ConnectBindError, TimeoutError
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.python.failure import Failure

from gomux._carrier.accept import acceptNoMore, acceptOne
from gomux._carrier.records import pace
from gomux._carrier.sockets import socketsOf
from gomux._carrier.transport import limitUnsent
from gomux._mux.stream import Stream
from gomux.tunnel._localsocket import LocalSocket
from gomux.tunnel._transport import EndTransport, StreamOutput, keepUrgent

#: What an end of a bridge writes to.
EndOutput = EndTransport | LocalSocket | StreamOutput


def outputOf(transport: Any) -> EndOutput:
    """
    @param transport: the transport of a new connection.
    @return: the output of an end with that transport.
    """
    if isinstance(transport, LocalSocket):
        return transport
    if type(transport) is Stream:
        return StreamOutput(transport)
    acceptOne(transport)
    pace(transport)
    return EndTransport(transport)


def prepare(handle: socket.socket) -> None:
    """
    Set the options of a socket, except that it does not block.  The TCP sockets that a
    port accepts have those of its own socket.
    """
    if handle.family != socket.AF_UNIX:
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        limitUnsent(handle)
    keepUrgent(handle)


def acceptLocally(port: Any) -> None:
    """
    Have a port make local sockets for ends of bridges, if it is a port for plain TCP or
    Unix sockets.

    @param port: a listening port of any kind, with any factory.
    """
    sockets = socketsOf(port.reactor) if type(port) in (tcp.Port, unix.Port) else None
    if sockets is None:
        return
    usual, isUnix = port.transport, type(port) is unix.Port
    if not isUnix:
        prepare(port.socket)

    def accept(handle: socket.socket, protocol: Any, address: Any, *rest: Any) -> Any:
        if not getattr(protocol, "takesLocalSocket", False):
            return usual(handle, protocol, address, *rest)
        acceptNoMore(port)
        handle.setblocking(False)
        if isUnix:
            prepare(handle)
        return LocalSocket(sockets, handle, address, protocol)

    port.transport = accept
    # The calls that an accepted connection leaves are made in the same turn.
    port.doRead = partial(sockets.clock.turn, port.doRead)


def connector(
    endpoint: Any, clock: Any
) -> Callable[[IProtocolFactory], Deferred[IProtocol]] | None:
    """
    @param endpoint: the endpoint of a target.
    @param clock: the reactor.
    @return: the function that takes the place of the endpoint's C{connect}; C{None} if
        that one is to be used.
    """
    sockets, kind = socketsOf(clock), type(endpoint)
    # Endpoints have no public attributes for their arguments.
    if kind is UNIXClientEndpoint and not endpoint._checkPID:
        family, address = socket.AF_UNIX, endpoint._path
    elif kind in (TCP4ClientEndpoint, TCP6ClientEndpoint) and not endpoint._bindAddress:
        address = endpoint._host, endpoint._port
        if isIPAddress(endpoint._host):
            family = socket.AF_INET
        elif isIPv6Address(endpoint._host):
            family = socket.AF_INET6
        else:
            return None
    else:
        return None
    if sockets is None:
        return None

    def connect(factory: Any) -> Deferred[IProtocol]:
        place: Any = address
        if family == socket.AF_INET6:
            # The address may name an interface.
            place = socket.getaddrinfo(endpoint._host, endpoint._port)[0][4]
        try:
            handle = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            # There are no descriptors left.
            raise ConnectBindError(error.errno, error.strerror) from None
        prepare(handle)
        local = LocalSocket(sockets, handle, place, factory.buildProtocol(None))
        connected = local.connect()
        if not connected.called:
            connected.addTimeout(
                endpoint._timeout,
                sockets.clock,
                lambda result, timeout: Failure(TimeoutError()),
            )
        return connected

    return connect
