# -*- test-case-name: gomux.test.test_carrier -*-
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
from typing import Any, cast

from twisted.internet.interfaces import (
    IDelayedCall,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
)

from gomux._direct import DirectTransport

#: How many bytes the kernel may keep for a carrier before it can send them,
#: where it has such a limit.
UNSENT = 131072
#: How long a port leaves the reactor to others after it has accepted a connection, in
#: seconds.  To set a mux up and find that it is a stranger's takes a third of that.
ACCEPT_INTERVAL = 0.001
#: How many probes in a row may go unanswered.
PROBES = 4


class Carrier(DirectTransport):
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


class AcceptPace:
    """
    Has the ports of a server accept one connection at a time, and no sooner than
    L{ACCEPT_INTERVAL} after the one before.

    A port of Twisted accepts as many as wait, up to as many as it accepted the last
    time, and more each time that there were more.  Those who connect as fast as they
    can, strangers among them, would keep everybody else waiting for all of that.
    """

    def __init__(self) -> None:
        # The ports that wait, and what they wait for.
        self._waiting: dict[Any, IDelayedCall] = {}

    def accepted(self, transport: Any) -> None:
        """
        A port may have accepted a connection.

        @param transport: what a port has just made, or what is over it.
        """
        while transport is not None:
            port = getattr(transport, "server", None)
            if port is not None and hasattr(port, "numberAccepts"):
                self._pause(port)
                return
            transport = getattr(transport, "transport", None)

    def _pause(self, port: Any) -> None:
        # It goes on from here while it accepts, and so never finds that there might
        # be more.
        port.numberAccepts = 0
        if port not in self._waiting:
            port.pauseProducing()
            self._waiting[port] = port.reactor.callLater(
                ACCEPT_INTERVAL, self._resume, port
            )

    def _resume(self, port: Any) -> None:
        del self._waiting[port]
        port.resumeProducing()

    def stop(self) -> None:
        """
        No port accepts any more.
        """
        for call in self._waiting.values():
            call.cancel()
        self._waiting.clear()


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
