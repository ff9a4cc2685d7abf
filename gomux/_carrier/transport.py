# -*- test-case-name: gomux.test.carrier.test_carrier -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
How a mux uses the connection that carries it.

What sits in the buffers between two muxes can no longer be overtaken, so as
little as possible should sit there.  A carrier is therefore written to directly
and given more only when it has nothing left, and the kernel is asked not to keep
much that it cannot send yet.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, cast

from twisted.internet.interfaces import (
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
)

from gomux._carrier.direct import DirectTransport

#: How many bytes the kernel may keep for a carrier before it can send them,
#: where it has such a limit.
UNSENT = 131072
#: How many probes in a row may go unanswered.
PROBES = 4


class MuxCarrier(DirectTransport):
    """
    The connection that carries a mux, as its scheduler sees it.
    """

    def __init__(self, transport: ITCPTransport, timeout: float | None = None) -> None:
        """
        @param transport: what the mux's protocol has as its transport, of any
            kind.
        @param timeout: see L{gomux.Limits.carrierTimeout}.
        """
        super().__init__(transport)
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            if ISystemHandle.providedBy(transport):
                limitUnsent(transport.getHandle())
            if timeout is not None:
                watchPeer(transport, timeout)

    @property
    def canWait(self) -> bool:
        """
        Whether it can be kept from reading for a while.
        """
        return hasattr(self.transport, "pauseProducing")

    def pauseReading(self) -> None:
        """
        Read nothing until L{resumeReading}; some that was read before may come.
        """
        cast(IPushProducer, self.transport).pauseProducing()

    def resumeReading(self) -> None:
        """
        Read again.
        """
        cast(IPushProducer, self.transport).resumeProducing()


def layersOf(transport: Any) -> Iterator[Any]:
    """
    Generate a transport and those below it, as TCP is below TLS.
    """
    while transport is not None:
        yield transport
        transport = getattr(transport, "transport", None)


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
    for layer in layersOf(transport):
        handle = layer.getHandle() if ISystemHandle.providedBy(layer) else None
        if isinstance(handle, socket.socket):
            break
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
