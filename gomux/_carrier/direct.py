# -*- test-case-name: gomux.test.carrier.test_carrier -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Writing to a socket at once, instead of through the buffer of a Twisted transport.

A Twisted transport keeps written data until the reactor finds that the socket is
writable.  Most of the time the socket is writable already, so the data is written at
once here, one turn of the reactor sooner.  And a producer is paused when the kernel has
taken enough, not when a buffer in between is full.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.tcp import Connection
from zope.interface import implementer

from gomux._fastpaths import fastPaths

#: How many bytes are read from a socket at once, while less than that arrives.
READ_SIZE = 65536
#: How many bytes are read at once while more arrives.  Python makes a buffer of this
#: size for each read, which takes longer than handling a small message.
BULK_READ_SIZE = 262144
#: How many parts the kernel gathers at most.  If there are more parts, they are small,
#: and joining them takes less time than passing each to the kernel.
GATHERED = 8


@implementer(IPushProducer)
class DirectTransport:
    """
    A transport that is written to directly if it is a plain socket, and that reads
    more at once while much arrives.  Any other transport, such as TLS or a test's, is
    used as it is.

    @ivar transport: the transport.
    @ivar isDirect: whether the transport is a plain socket.
    @ivar _descriptor: the transport if it is written to directly, else C{None}.
    @ivar _changesReads: whether L{received} chooses how much is read.
    @ivar _gather: sends several parts to the socket without joining them; C{None} if
        the transport cannot do that.
    @ivar _full: whether the descriptor has data in its own buffer, so the kernel has
        taken enough.
    @ivar _failed: whether writing has got an error.
    @ivar _producer: the producer, if one is registered.
    """

    __slots__ = (
        *("transport", "isDirect", "_descriptor", "_changesReads", "_gather"),
        *("_full", "_failed", "_producer"),
    )

    def __init__(self, transport: Any) -> None:
        """
        @param transport: a transport of any kind.
        """
        paths = fastPaths()
        self.transport = transport
        self.isDirect = isinstance(transport, FileDescriptor) and not getattr(
            transport, "TLS", False
        )
        self._changesReads = self.isDirect and paths.changingReads
        self._descriptor = transport if self.isDirect and paths.directWrites else None
        self._gather: Callable[[list[bytes]], int] | None = None
        if (
            self._descriptor is not None
            and paths.gatheredWrites
            # Other classes may do more than send: some also pass on files.
            and type(transport).writeSomeData is Connection.writeSomeData
        ):
            self._gather = getattr(transport.socket, "sendmsg", None)
        self._full = False
        self._failed = False
        self._producer: IPushProducer | None = None

    def registerProducer(self, producer: IPushProducer) -> None:
        """
        Pause and resume a producer from now on.

        @param producer: the producer.
        """
        transport = cast(IConsumer, self.transport)
        if not hasattr(transport, "registerProducer"):
            # The transport, such as a channel of conch, always takes more.
            return
        if self._descriptor is None:
            self._producer = producer
            transport.registerProducer(self, True)
            return
        # A descriptor resumes a pull producer whenever its buffer is empty.  It also
        # does so right now, which says nothing about its buffer.
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

    def wasReset(self) -> bool:
        """
        Ask the kernel whether the end of the input was a reset.

        epoll can report the end of the input before it reports the reset, and then
        Twisted takes it for an orderly end.  If writing has got the error, reading gets
        EOF.

        @return: whether the connection was reset.
        """
        handle = getattr(self.transport, "socket", None) if self.isDirect else None
        if handle is None:
            return False
        error = handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return self._failed or cast(int, error) != 0

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

    # Writing

    def write(self, data: bytes) -> None:
        """
        Write some data, at once if possible.

        The producer is paused unless the kernel takes all of the data.
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
            else:
                # The error was the reset.  The reactor gets another when it writes.
                self._failed = True
        self._leave([data])

    def writeSequence(self, parts: list[bytes], size: int) -> None:
        """
        Write data that consists of several parts, as L{write} does.  If they are few,
        only the kernel copies them.

        @param parts: the parts, at least one and none empty.
        @param size: how many bytes they have.
        """
        if self._gather is None or self._full or len(parts) > GATHERED:
            self.write(b"".join(parts))
            return
        try:
            sent = self._gather(parts)
        except BlockingIOError:
            # The kernel's buffer is full.
            sent = 0
        except OSError:
            sent, self._failed = 0, True
        if sent == size:
            return
        rest = []
        for part in parts:
            if sent < len(part):
                rest.append(part[sent:])
            sent = max(0, sent - len(part))
        self._leave(rest)

    def _leave(self, parts: list[bytes]) -> None:
        """
        The kernel has taken enough: leave the rest to the transport.
        """
        self._full = True
        self.pauseProducing()
        self.transport.writeSequence(parts)

    # Reading

    def received(self, size: int) -> None:
        """
        Choose how much the transport reads next.

        @param size: how many bytes the last read returned.
        """
        if self._changesReads:
            if size >= READ_SIZE:
                self.transport.bufferSize = BULK_READ_SIZE
            elif size < READ_SIZE // 2:
                self.transport.bufferSize = READ_SIZE
