# -*- test-case-name: gomux.test.carrier.test_restraint -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
What TLS does for a peer that may be a stranger.

TLS handles and answers some messages by itself, such as those that ask for a new key.
They are small, so one read has thousands of them.  A stranger may send them without end
and read none of the answers.  So while the peer has not shown a key, only a little is
read at once, and the connection is dropped if many answers wait.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from zope.interface import implementer

#: How many bytes of TLS are read at once from a stranger.
STRANGERS_READ = 2048
#: How many bytes of TLS may wait for a stranger to read them.
STRANGERS_OUTPUT = 65536


@implementer(IPushProducer)
class _Watch:
    """
    Watches the output of the socket below TLS, as its producer.

    @ivar _socket: the transport of the socket.
    @ivar _isDropped: whether it was dropped.
    """

    def __init__(self, socket: FileDescriptor) -> None:
        self._socket: Any = socket
        self._isDropped = False

    def pauseProducing(self) -> None:
        """
        Something was written, and more than the size of a read waits.
        """
        waiting = len(self._socket.dataBuffer) + self._socket._tempDataLen
        if waiting > STRANGERS_OUTPUT and not self._isDropped:
            self._isDropped = True
            drop = getattr(self._socket, "abortConnection", self._socket.loseConnection)
            drop()

    def resumeProducing(self) -> None:
        """
        Do nothing.
        """

    def stopProducing(self) -> None:
        """
        Do nothing.
        """


def _socketBelow(transport: Any) -> FileDescriptor | None:
    """
    @return: the transport of the socket below TLS; C{None} if there is no TLS.
    """
    below: Any = transport if ISSLTransport.providedBy(transport) else None
    while getattr(below, "transport", None) is not None:
        below = below.transport
    return below if isinstance(below, FileDescriptor) else None


def restrain(transport: Any) -> None:
    """
    The peer of a new connection may be a stranger.
    """
    socket = _socketBelow(transport)
    if socket is not None and socket.producer is None:
        socket.bufferSize = STRANGERS_READ
        socket.registerProducer(_Watch(socket), True)


def leaveOutput(transport: Any) -> None:
    """
    The output gets another producer, which heeds the peer that does not read.
    """
    socket = _socketBelow(transport)
    if socket is not None and isinstance(socket.producer, _Watch):
        socket.unregisterProducer()


def release(transport: Any) -> None:
    """
    The peer has shown a key.
    """
    leaveOutput(transport)
    socket = _socketBelow(transport)
    if socket is not None:
        socket.bufferSize = FileDescriptor.bufferSize
