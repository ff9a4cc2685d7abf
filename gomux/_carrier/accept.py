# -*- test-case-name: gomux.test.carrier.test_accept -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The rate at which the ports of a server accept connections.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.tcp import Port, Server

from gomux._carrier.clock import steady
from gomux._carrier.rate import TokenBucket
from gomux._carrier.records import pace
from gomux._carrier.restraint import release, restrain
from gomux._carrier.transport import layersOf
from gomux.limits import ACCEPT_BURST, ACCEPT_QUEUE, ACCEPT_RATE


class AcceptPace:
    """
    Makes the ports of a server accept one connection in each turn of the reactor, and
    pauses them while more strangers connect than the server can take besides its work.

    A Twisted port accepts all connections that wait, up to a number that rises while
    there are more.  If strangers connect as fast as they can, all other connections in
    the reactor would have to wait.  In a turn of the reactor all connections are
    served, so a port accepts the next connection only in the next turn.

    To set up a mux and find out that its peer is a stranger takes some 0.4 ms.  More
    than L{ACCEPT_RATE} strangers a second would take up most of the time, so then the
    ports pause.  The kernel keeps up to L{ACCEPT_QUEUE} connections meanwhile.  By
    default Twisted has it keep 50, which is too few: a client that the kernel drops
    tries again only after a second.

    @ivar _bucket: counts the connections that may be strangers'.
    @ivar _waiting: for each paused port, the call that resumes it.
    """

    def __init__(self) -> None:
        self._bucket = TokenBucket(ACCEPT_RATE, ACCEPT_BURST)
        self._waiting: dict[Port, IDelayedCall] = {}

    def accepted(self, transport: Any) -> None:
        """
        A port may have accepted a connection, and a mux was made for it.

        @param transport: the new connection, or a transport on top of it, as TLS is.
        """
        pace(transport, hasMux=True)
        restrain(transport)
        port = acceptOne(transport)
        if port is None:
            return
        clock = steady(cast(IReactorTime, port.reactor))
        if not self._bucket.take(clock.seconds()) and port not in self._waiting:
            port.pauseProducing()
            call = clock.callLater(self._bucket.wait, self._resume, port)
            self._waiting[port] = call

    def authenticated(self, transport: Any) -> None:
        """
        A peer has shown that it holds the key: it was no stranger.

        @param transport: as for L{accepted}.
        """
        release(transport)
        if _portOf(transport) is not None:
            self._bucket.giveBack()

    def _resume(self, port: Port) -> None:
        del self._waiting[port]
        port.resumeProducing()

    def stop(self) -> None:
        """
        Forget all ports, which are about to stop.
        """
        for call in self._waiting.values():
            call.cancel()
        self._waiting.clear()


def acceptOne(transport: Any) -> Port | None:
    """
    Make the port that has accepted a connection accept no other in this turn of the
    reactor.  If it has a short queue, make that longer.

    Called for connections that are dropped at once, too.  A connection keeps its
    descriptor until the next turn of the reactor, so a port that accepts many in one
    turn may use up all descriptors.

    @param transport: the new connection, or a transport on top of it, as TLS is.
    @return: the port; C{None} if no port has accepted the connection.
    """
    port = _portOf(transport)
    if port is not None:
        acceptNoMore(port)
    return port


def acceptNoMore(port: Port) -> None:
    """
    Make a port that has just accepted a connection accept no other in this turn of the
    reactor.  If it has a short queue, make that longer.
    """
    # Port.doRead reads this number once, and accepts up to that many.  If it has
    # accepted exactly as many as the number says then, it raises the number by 20.
    # Otherwise it sets the number to how many it has accepted, and to 1 if that is
    # none.  So with -1 the number does not rise: with 0 it would, if this is not called
    # by doRead, but after a header that came later.
    port.numberAccepts = -1
    # A port that was made from a socket, such as one of systemd's, has no backlog: the
    # program that made the socket has chosen it.
    if port.backlog is not None and port.backlog < ACCEPT_QUEUE:
        port.backlog = ACCEPT_QUEUE
        port.socket.listen(ACCEPT_QUEUE)


def _portOf(transport: Any) -> Port | None:
    """
    @return: the port, of TCP or of a Unix socket, that accepted the connection of a
        transport; C{None} if no port has accepted it.
    """
    for layer in layersOf(transport):
        if isinstance(layer, Server) and isinstance(layer.server, Port):
            return layer.server
    return None
