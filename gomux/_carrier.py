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

#: How many bytes are read from a carrier at once.  Twisted's 65536 are less than
#: one frame, so that nearly all of them would be cut.
READ_SIZE = 262144
#: How many bytes the kernel may keep for a carrier before it can send them,
#: where it has such a limit.
UNSENT = 131072


class Carrier:
    """
    The connection that carries a mux, as its scheduler sees it.

    @ivar transport: what the mux's protocol has as its transport.
    """

    def __init__(self, transport: ITCPTransport) -> None:
        """
        @param transport: a transport of any kind.
        """
        self.transport = transport
        # A plain socket, as opposed to TLS or a test's transport.
        self._descriptor = transport if isinstance(transport, FileDescriptor) else None
        self._producer: IPushProducer | None = None
        if self._descriptor is not None:
            self._descriptor.bufferSize = READ_SIZE
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            if ISystemHandle.providedBy(transport):
                limitUnsent(transport.getHandle())

    def registerProducer(self, producer: IPushProducer) -> None:
        """
        Have a producer paused and resumed.
        """
        self._producer = producer
        # A descriptor resumes a pull producer whenever its buffer is empty.
        cast(IConsumer, self.transport).registerProducer(
            producer, self._descriptor is None
        )

    def unregisterProducer(self) -> None:
        """
        Forget the producer.
        """
        cast(IConsumer, self.transport).unregisterProducer()

    def write(self, parts: list[bytes]) -> None:
        """
        Write some data, at once where that is possible.

        The producer is paused unless the kernel took all of it.
        """
        self.transport.writeSequence(parts)
        if self._descriptor is not None and self._producer is not None:
            self._producer.pauseProducing()
            # An error shows again when the reactor tries.
            self._descriptor.doWrite()


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
