# -*- test-case-name: gomux.test.test_carrier -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
How a mux uses the connection that carries it.

What sits in the buffers between two muxes can no longer be overtaken, so as
little as possible should sit there.  A carrier that is a plain socket is
therefore written to directly, and given more only when its buffer is empty; and
the kernel is asked not to keep much that it cannot send yet.
"""

from __future__ import annotations

import socket
from typing import cast

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
)
from zope.interface import implementer

#: How many bytes are read from a carrier at once, while it has no more than that.
READ_SIZE = 65536
#: How many bytes are read at once while more comes than C{READ_SIZE}: several
#: frames, of which only the last is cut.  Python makes a buffer of this size for
#: each read; for a small one that takes longer than all the rest.
BULK_READ_SIZE = 262144
#: How many bytes the kernel may keep for a carrier before it can send them,
#: where it has such a limit.
UNSENT = 131072
#: How many probes in a row may go unanswered.
PROBES = 4


@implementer(IPushProducer)
class Carrier:
    """
    The connection that carries a mux, as its scheduler sees it.

    @ivar transport: what the mux's protocol has as its transport.
    """

    def __init__(self, transport: ITCPTransport, timeout: float | None = None) -> None:
        """
        @param transport: a transport of any kind.
        @param timeout: see L{gomux.Limits.carrierTimeout}.
        """
        self.transport = transport
        # A plain socket, as opposed to TLS or a test's transport.
        self._descriptor = (
            transport
            if isinstance(transport, FileDescriptor)
            and not getattr(transport, "TLS", False)
            else None
        )
        # Whether the descriptor has something in its own buffer.
        self._full = False
        self._producer: IPushProducer | None = None
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            if ISystemHandle.providedBy(transport):
                limitUnsent(transport.getHandle())
            if timeout is not None:
                watchPeer(transport, timeout)

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
        Forget the producer.
        """
        self._producer = None
        cast(IConsumer, self.transport).unregisterProducer()

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

    # For the mux

    def write(self, parts: list[bytes]) -> None:
        """
        Write some data, at once where that is possible.

        The producer is paused unless the kernel took all of it.
        """
        data = b"".join(parts)
        if self._descriptor is not None:
            if not self._full:
                sent = self._descriptor.writeSomeData(data)
                if sent == len(data):
                    return
                if isinstance(sent, int):
                    data = data[sent:]
                # Else it is an error, which shows again when the reactor tries.
            self._full = True
            self.pauseProducing()
        self.transport.write(data)

    def received(self, size: int) -> None:
        """
        Choose how much to read next.

        @param size: how many bytes the last read brought.
        """
        descriptor = self._descriptor
        if descriptor is not None:
            if size >= READ_SIZE:
                descriptor.bufferSize = BULK_READ_SIZE
            elif size < READ_SIZE // 2:
                descriptor.bufferSize = READ_SIZE


def limitUnsent(handle: object) -> None:
    """
    Ask the kernel not to keep much that it cannot send yet.

    @param handle: the socket, if it is one and of TCP.
    """
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is None or not isinstance(handle, socket.socket):
        return
    try:
        handle.setsockopt(socket.IPPROTO_TCP, option, UNSENT)
    except OSError:
        # Not TCP after all, or a kernel without it: it was only a wish.
        pass


def watchPeer(transport: ITCPTransport, timeout: float) -> None:
    """
    Ask the kernel to drop the connection when the peer's machine does not
    answer any more, whether or not anything is sent.

    @param transport: a transport over TCP, with or without TLS.
    @param timeout: how long it may be silent, in seconds.
    """
    transport.setTcpKeepAlive(True)
    inner: object = transport
    while inner is not None:
        handle = inner.getHandle() if ISystemHandle.providedBy(inner) else None
        if isinstance(handle, socket.socket):
            break
        inner = getattr(inner, "transport", None)
    else:
        return
    interval = max(1, int(timeout / (2 * PROBES)))
    for name, value in (
        ("TCP_KEEPIDLE", max(1, int(timeout / 2))),
        ("TCP_KEEPINTVL", interval),
        ("TCP_KEEPCNT", PROBES),
        ("TCP_USER_TIMEOUT", int(timeout * 1000)),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            try:
                handle.setsockopt(socket.IPPROTO_TCP, option, value)
            except OSError:
                # A kernel without it: then what it has must do.
                pass
