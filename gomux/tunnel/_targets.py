# -*- test-case-name: gomux.test.tunnel.test_targets -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Connecting local sockets to a target.

Over loopback, and often to a machine nearby, a connection exists when C{connect} has
returned.  Then its bridge is joined at once, without a turn of the reactor and without
a timeout.  Otherwise the same socket waits in the epoll.  A target with a name is left
to its endpoint, because the name has to be looked up.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    TimeoutError,
    getConnectError,
)
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.python.failure import Failure

from gomux._carrier.sockets import OUT, Sockets, socketsOf
from gomux.tunnel._localsocket import LocalSocket


class Connecting:
    """
    A socket that is not connected yet.

    @ivar connected: fires with the end once the socket is connected.
    @ivar _sockets: has the epoll.
    @ivar _handle: the socket.
    @ivar _end: the end of the bridge.
    @ivar _address: where to connect to.
    """

    def __init__(
        self, sockets: Sockets, handle: socket.socket, end: Any, address: Any
    ) -> None:
        self._sockets = sockets
        self._handle = handle
        self._end = end
        self._address = address
        self.connected: Deferred[IProtocol] = Deferred(lambda _: self._stop())
        sockets.watch(self, handle.fileno(), 0, OUT)

    def ready(self, events: int) -> None:
        """
        The socket is connected, or cannot be.
        """
        failed = self._handle.connect_ex(self._address)
        if failed == errno.EALREADY:
            return
        if failed:
            self._stop()
            self.connected.errback(_errorOf(failed))
        else:
            self._sockets.watch(self, self._handle.fileno(), OUT, 0)
            local = LocalSocket(self._sockets, self._handle, self._end, self._address)
            self._end.makeConnection(local)
            self.connected.callback(self._end)

    def lose(self, reason: Failure) -> None:
        """
        Give up.
        """
        self._stop()
        if not self.connected.called:
            self.connected.errback(reason)

    def _stop(self) -> None:
        self._sockets.watch(self, self._handle.fileno(), OUT, 0)
        self._handle.close()


def connector(
    endpoint: Any, clock: Any
) -> Callable[[IProtocolFactory], Deferred[IProtocol]] | None:
    """
    @param endpoint: the endpoint of a target.
    @param clock: the reactor.
    @return: the function that takes the place of the endpoint's C{connect}; C{None} if
        that one is to be used.
    """
    sockets = socketsOf(clock)
    kind = type(endpoint)
    if sockets is None:
        return None
    # Endpoints have no public attributes for their arguments.
    if kind is UNIXClientEndpoint and not endpoint._checkPID:
        path, seconds = endpoint._path, endpoint._timeout
        return _Target(sockets, socket.AF_UNIX, path, UNIXAddress(path), seconds)
    if kind in (TCP4ClientEndpoint, TCP6ClientEndpoint) and not endpoint._bindAddress:
        host, port, seconds = endpoint._host, endpoint._port, endpoint._timeout
        place = host, port
        if isIPAddress(host):
            peer4 = IPv4Address("TCP", host, port)
            return _Target(sockets, socket.AF_INET, place, peer4, seconds)
        if isIPv6Address(host):
            peer6 = IPv6Address("TCP", host, port)
            return _Target(sockets, socket.AF_INET6, place, peer6, seconds)
    return None


class _Target:
    """
    Connects local sockets to one address.

    @ivar _sockets: has the epoll.
    @ivar _family: the family of the address.
    @ivar _address: the address, as sockets take it.
    @ivar _peer: the address, as Twisted has it.
    @ivar _timeout: how long it may take, in seconds.
    """

    def __init__(
        self,
        sockets: Sockets,
        family: int,
        address: Any,
        peer: IAddress,
        timeout: float,
    ) -> None:
        self._sockets = sockets
        self._family = family
        self._address = address
        self._peer = peer
        self._timeout = timeout

    def __call__(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect the protocol of a factory.

        @return: as the C{connect} of an endpoint.
        """
        end: Any = factory.buildProtocol(self._peer)
        address = self._address
        try:
            handle = socket.socket(self._family, socket.SOCK_STREAM)
        except OSError as error:
            # There are no descriptors left.
            return fail(ConnectBindError(error.errno, error.strerror))
        try:
            handle.setblocking(False)
            failed = handle.connect_ex(address)
            if failed == errno.EINPROGRESS:
                # Loopback connects, or refuses, as soon as connect() has returned.
                failed = handle.connect_ex(address)
        except OSError as error:
            # The path or the scope of the address is not valid.
            handle.close()
            return fail(ConnectError(error.errno, error.strerror or str(error)))
        if not failed:
            end.makeConnection(LocalSocket(self._sockets, handle, end, address))
            return succeed(end)
        if failed != errno.EALREADY:
            handle.close()
            return fail(_errorOf(failed))
        waiting = Connecting(self._sockets, handle, end, address)
        return waiting.connected.addTimeout(
            self._timeout, self._sockets.clock, _tooLate
        )


def _errorOf(failed: int) -> Exception:
    error: Exception = getConnectError((failed, os.strerror(failed)))
    return error


def _tooLate(result: object, timeout: float) -> NoReturn:
    raise TimeoutError()
