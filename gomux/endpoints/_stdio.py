# -*- test-case-name: gomux.test.endpoints.test_listening -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The standard input and output as one connection.

Twisted's own endpoint never closes the two.  Whoever reads the output would wait for
its end for as long as the process runs.
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
    """

    def __init__(self, protocol: Any, reactor: Any) -> None:
        """
        @param protocol: what it is the transport of.
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
        Close the connection once all output is written, which may have happened.
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
    Take over a descriptor.  What the process reads or writes there from now on has
    nothing to do with the connection: log lines for the standard output go to the
    standard error, unless that is the same file.

    @return: another number for its file.
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
    Accepts one connection at once: the standard input and output.
    """

    def __init__(self, reactor: Any) -> None:
        """
        @param reactor: the reactor.
        """
        self._reactor = reactor

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Connect.

        @param factory: makes the protocol.
        @return: has fired with a port that has nothing more to accept.
        """
        factory.doStart()
        protocol = factory.buildProtocol(StandardAddress())
        if protocol is not None:
            StandardConnection(protocol, self._reactor)
        return succeed(_Port(factory))


@implementer(IListeningPort)
class _Port:
    """
    A port without more connections.
    """

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory

    def startListening(self) -> None:
        """
        Do nothing: the connection is there.
        """

    def stopListening(self) -> None:
        """
        Tell the factory.  The connection goes on.
        """
        self._factory.doStop()

    def getHost(self) -> StandardAddress:
        """
        @return: the address.
        """
        return StandardAddress()
