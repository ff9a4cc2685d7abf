# -*- test-case-name: gomux.test.carrier.test_carrier -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
How a mux uses the connection that carries it.

A frame in a buffer between two muxes cannot be overtaken by a more urgent one, so
these buffers should be short.  A carrier is therefore written to directly, and gets
more only when it has sent everything.  The kernel is asked to keep little data that it
cannot send yet.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, cast

from twisted.internet.interfaces import (
    IAddress,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
    ITransport,
)
from zope.interface import implementer

from gomux._carrier.direct import DirectTransport
from gomux._carrier.restraint import leaveOutput
from gomux._fastpaths import fastPaths

#: How many bytes that cannot be sent yet the kernel may keep for a carrier, if the
#: kernel has such a limit.
UNSENT = 131072
#: How many keepalive probes in a row may go unanswered.
PROBES = 4


class MuxCarrier(DirectTransport):
    """
    The connection that carries a mux, for its scheduler to write to.
    """

    __slots__ = ()

    def __init__(self, transport: ITCPTransport, timeout: float | None = None) -> None:
        """
        @param transport: the transport of the mux's protocol, of any kind.
        @param timeout: see L{gomux.Limits.carrierTimeout}.
        """
        super().__init__(transport)
        if ITCPTransport.providedBy(transport):
            try:
                transport.setTcpNoDelay(True)
            except OSError:
                # The UNIX sockets of an old Twisted have this method and no such
                # option.
                pass
            if ISystemHandle.providedBy(transport) and fastPaths().unsentLimit:
                limitUnsent(transport.getHandle())
            if timeout is not None:
                watchPeer(transport, timeout)

    def registerProducer(self, producer: IPushProducer) -> None:
        """
        Pause and resume a producer from now on.
        """
        leaveOutput(self.transport)
        super().registerProducer(producer)

    @property
    def canWait(self) -> bool:
        """
        Whether reading can be paused.
        """
        transport = self.transport
        return hasattr(transport, "pauseProducing") and hasattr(
            transport, "resumeProducing"
        )

    def pauseReading(self) -> None:
        """
        Read nothing until L{resumeReading}.  Data that was read before may still be
        delivered.
        """
        cast(IPushProducer, self.transport).pauseProducing()

    def resumeReading(self) -> None:
        """
        Read again, if reading can be paused.
        """
        if self.canWait:
            cast(IPushProducer, self.transport).resumeProducing()


def dropTransport(transport: ITransport) -> None:
    """
    Abort a transport, or close it if it cannot be aborted.
    """
    abort = getattr(transport, "abortConnection", None)
    (transport.loseConnection if abort is None else abort)()


@implementer(IAddress)
class NoAddress:
    """
    The address of a transport that tells no address, such as a serial port.
    """

    def __repr__(self) -> str:
        return "NoAddress()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NoAddress)

    def __hash__(self) -> int:
        return hash(NoAddress)


def addressFrom(ask: Callable[[], IAddress]) -> IAddress:
    """
    @param ask: C{getHost} or C{getPeer} of a transport.
    @return: the address that it returns, or a L{NoAddress}.
    """
    try:
        address = ask()
    except (AttributeError, NotImplementedError):
        return NoAddress()
    return NoAddress() if address is None else address


def shared(address: IAddress) -> IAddress:
    """
    @param address: the address of this end of a carrier.
    @return: an equal address; the same object for all carriers of a port.
    """
    try:
        return _shared(address)
    except TypeError:
        # An address of another package need not be hashable.
        return address


@lru_cache(maxsize=64)
def _shared(address: IAddress) -> IAddress:
    return address


def layersOf(transport: Any) -> Iterator[Any]:
    """
    Generate a transport and all transports below it, as TCP is below TLS.
    """
    while transport is not None:
        yield transport
        transport = getattr(transport, "transport", None)


def limitUnsent(handle: object) -> None:
    """
    Ask the kernel to keep little data that it cannot send yet.

    @param handle: the handle of the transport.  The limit applies if it is a TCP
        socket.
    """
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is None or not isinstance(handle, socket.socket):
        return
    try:
        handle.setsockopt(socket.IPPROTO_TCP, option, UNSENT)
    except OSError:
        # The socket is not TCP, or the kernel has no such limit: do without.
        pass


def watchPeer(transport: ITCPTransport, timeout: float) -> None:
    """
    Ask the kernel to drop the connection when the peer's machine stops answering,
    whether or not there is data to send.

    @param transport: a transport over TCP, with or without TLS.
    @param timeout: how long the machine may be silent, in seconds.
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
                # The kernel has no such option: the others must do.
                pass
