# -*- test-case-name: gomux.test.endpoints.test_listening -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The standard input and output as one connection.

Twisted's own endpoint closes neither of the two, so the reader of the output would not
get EOF before the process ends.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.stdio import StandardIO as _StandardIO
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IAddress)
class StandardAddress:
    """
    The address of both ends.
    """

    name = "standard input and output"


# Its type depends on the platform.
StandardIO: Any = _StandardIO


class StandardConnection(StandardIO):  # type: ignore[misc]
    """
    The connection.  It has descriptors of its own, and closes them.

    @ivar _descriptors: the open descriptors, as C{"read"} and C{"write"}.
    """

    def __init__(self, protocol: Any, reactor: Any) -> None:
        """
        @param protocol: the protocol whose transport the connection is.
        @param reactor: the reactor.
        """
        self._descriptors = {"read": _take(0), "write": _take(1)}
        read, write = self._descriptors.values()
        super().__init__(protocol, read, write, reactor)

    def childConnectionLost(self, fd: str, reason: Failure) -> None:
        """
        The input or the output has ended: close it.
        """
        descriptor = self._descriptors.pop(fd, None)
        if descriptor is not None:
            os.close(descriptor)
        super().childConnectionLost(fd, reason)

    def loseConnection(self) -> None:
        """
        Close the connection once all output is written.  If the output is closed
        already, the connection is lost at once: Twisted's own method would never end
        it.
        """
        super().loseConnection()
        if self._writer is None and not self.disconnected:
            self.connectionLost(Failure(ConnectionDone()))

    def getPeer(self) -> StandardAddress:
        """
        @return: the address.
        """
        return StandardAddress()

    getHost = getPeer


def _take(descriptor: int) -> int:
    """
    Take over the file of a descriptor, and put C{/dev/null} in its place.  So nothing
    else in the process can read the input or write to the output.  The standard output
    is replaced with the standard error, for log lines, unless both are the same file.

    @return: the new descriptor of the file.
    """
    taken = os.dup(descriptor)
    replacement = os.open(os.devnull, os.O_RDWR)
    os.dup2(replacement, descriptor)
    os.close(replacement)
    if descriptor == 1 and not os.path.samestat(os.fstat(taken), os.fstat(2)):
        os.dup2(2, descriptor)
    return taken


@implementer(IStreamServerEndpoint)
class StandardServerEndpoint:
    """
    Accepts a single connection, at once: the standard input and output.

    @ivar _reactor: the reactor.
    """

    def __init__(self, reactor: Any) -> None:
        """
        @param reactor: the reactor.
        """
        self._reactor = reactor

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Connect a protocol to the standard input and output.

        @param factory: makes the protocol.
        @return: a Deferred that has fired with a port that accepts no connections.
        """
        factory.doStart()
        protocol = factory.buildProtocol(StandardAddress())
        if protocol is not None:
            StandardConnection(protocol, self._reactor)
        return succeed(_Port(factory))


@implementer(IListeningPort)
class _Port:
    """
    A port that accepts no connections.

    @ivar _factory: the factory of the protocol that is connected already.
    """

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory

    def startListening(self) -> None:
        """
        Do nothing, because the only connection exists already.
        """

    def stopListening(self) -> None:
        """
        Stop the factory.  The connection stays open.
        """
        self._factory.doStop()

    def getHost(self) -> StandardAddress:
        """
        @return: the address.
        """
        return StandardAddress()
