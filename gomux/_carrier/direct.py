# -*- test-case-name: gomux.test.carrier.test_carrier -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Sockets that are used without the detours that Twisted's transports take.

A transport keeps what is written to it until the reactor finds that the socket
can be written to.  Mostly it can be: then data might as well go out at once,
which saves whoever waits for it a round through the reactor.  And whoever has
much to write learns from the kernel that it has enough, not from a buffer in
between.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.tcp import Connection
from zope.interface import implementer

#: How many bytes are read from a socket at once, while it has no more than that.
READ_SIZE = 65536
#: How many bytes are read at once while more comes than C{READ_SIZE}.  Python
#: makes a buffer of this size for each read; for a small one that takes longer
#: than all the rest.
BULK_READ_SIZE = 262144
#: How many parts at most the kernel gathers.  Where there are more, they are small,
#: and to put them together takes less than to tell it of each.
GATHERED = 8


@implementer(IPushProducer)
class DirectTransport:
    """
    A transport that is written to directly, where it is a plain socket, and
    read from in pieces that suit what comes.  Any other, as one over TLS or
    one of a test, is used as it is.

    @ivar transport: the transport.
    """

    def __init__(self, transport: Any) -> None:
        """
        @param transport: a transport of any kind.
        """
        self.transport = transport
        self._descriptor = (
            transport
            if isinstance(transport, FileDescriptor)
            and not getattr(transport, "TLS", False)
            else None
        )
        # Sends several parts without putting them together.
        self._gather: Callable[[list[bytes]], int] | None = None
        if (
            self._descriptor is not None
            # Others may have more to do than to send, as those that pass on files.
            and type(transport).writeSomeData is Connection.writeSomeData
        ):
            self._gather = getattr(transport.socket, "sendmsg", None)
        # Whether the descriptor has something in its own buffer.
        self._full = False
        self._producer: IPushProducer | None = None

    def registerProducer(self, producer: IPushProducer) -> None:
        """
        Have a producer paused and resumed.
        """
        transport = cast(IConsumer, self.transport)
        if self._descriptor is None:
            self._producer = producer
            transport.registerProducer(self, True)
            return
        # A descriptor resumes a pull producer whenever its buffer is empty; and
        # at once, which tells nothing.
        full = self._full
        transport.registerProducer(self, False)
        self._producer = producer
        self._full = full
        if full:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """
        Forget the producer, if there is one.
        """
        if self._producer is not None:
            self._producer = None
            cast(IConsumer, self.transport).unregisterProducer()

    @property
    def isDirect(self) -> bool:
        """
        Whether it is a plain socket.
        """
        return self._descriptor is not None

    def wasReset(self) -> bool:
        """
        Ask the kernel whether what looks like the end of the input is none.

        epoll can tell of a reset just before it tells of the end that comes with it,
        and then Twisted takes it for an end in good order.
        """
        handle = getattr(self._descriptor, "socket", None)
        if handle is None:
            return False
        return cast(int, handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) != 0

    # IPushProducer, for the transport

    def pauseProducing(self) -> None:
        """
        The transport's buffer is full.
        """
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """
        The transport's buffer is empty.
        """
        self._full = False
        if self._producer is not None:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """
        The transport is about to be lost.
        """
        if self._producer is not None:
            self._producer.stopProducing()

    # For whoever writes

    def write(self, data: bytes) -> None:
        """
        Write some data, at once where that is possible.

        The producer is paused unless the kernel took all of it.
        """
        if self._descriptor is None:
            self.transport.write(data)
            return
        if not self._full:
            sent = self._descriptor.writeSomeData(data)
            if sent == len(data):
                return
            if isinstance(sent, int):
                data = data[sent:]
            # Else it is an error, which shows again when the reactor tries.
        self._leave([data])

    def writeSequence(self, parts: list[bytes]) -> None:
        """
        Write data that comes in parts, as L{write}.  The kernel takes few parts as
        they are: only it copies them.

        @param parts: the parts, at least one and none empty.
        """
        if self._gather is None or self._full or len(parts) > GATHERED:
            self.write(b"".join(parts))
            return
        try:
            sent = self._gather(parts)
        except OSError:
            # The kernel is full; else the error shows again when the reactor tries.
            sent = 0
        if sent == sum(map(len, parts)):
            return
        rest = []
        for part in parts:
            if sent < len(part):
                rest.append(part[sent:])
            sent = max(0, sent - len(part))
        self._leave(rest)

    def _leave(self, parts: list[bytes]) -> None:
        """
        The kernel has had enough: leave the rest to the transport.
        """
        self._full = True
        self.pauseProducing()
        self.transport.writeSequence(parts)

    # For whoever reads

    def received(self, size: int) -> None:
        """
        Choose how much the transport reads next.

        @param size: how many bytes the last read brought.
        """
        descriptor = self._descriptor
        if descriptor is not None:
            if size >= READ_SIZE:
                descriptor.bufferSize = BULK_READ_SIZE
            elif size < READ_SIZE // 2:
                descriptor.bufferSize = READ_SIZE
