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
from gomux._carrier.transport import layersOf
from gomux.limits import ACCEPT_BURST, ACCEPT_QUEUE, ACCEPT_RATE


class AcceptPace:
    """
    Makes the ports of a server accept one connection in each turn of the reactor, and
    pauses them while more strangers connect than the server can take besides its work.

    A Twisted port accepts all connections that wait, up to a number that rises while
    there are more.  Strangers that connect as fast as they can would make all other
    connections in the reactor wait for that.  In a turn of the reactor all connections
    are served, so the next one can be accepted in the next turn.

    To set up a mux and find out that its peer is a stranger takes some 0.4 ms.  At more
    than L{ACCEPT_RATE} a second that takes most of the time, so then the ports pause.
    The kernel keeps up to L{ACCEPT_QUEUE} connections meanwhile.  Twisted's 50 are too
    few: a client that the kernel drops tries again only after a second.

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
        port = self.refused(transport)
        if port is None:
            return
        clock = steady(cast(IReactorTime, port.reactor))
        if not self._bucket.take(clock.seconds()) and port not in self._waiting:
            port.pauseProducing()
            call = clock.callLater(self._bucket.wait, self._resume, port)
            self._waiting[port] = call

    def refused(self, transport: Any) -> Port | None:
        """
        A port may have accepted a connection, which is dropped at once.  That takes so
        little time that the port need not pause.

        @param transport: as for L{accepted}.
        @return: the port.
        """
        port = _portOf(transport)
        if port is not None:
            # Port.doRead takes this number once, before it accepts as many connections:
            # to pause the port does not end that.  Then it compares the number with how
            # many came, raises it by 20 where it was reached, and else makes it as many
            # as came.  0 is never reached, so it does not rise.
            port.numberAccepts = 0
            if port.backlog < ACCEPT_QUEUE:
                port.backlog = ACCEPT_QUEUE
                port.socket.listen(ACCEPT_QUEUE)
        return port

    def authenticated(self, transport: Any) -> None:
        """
        A peer has shown that it holds the key: it was no stranger.

        @param transport: as for L{accepted}.
        """
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


def _portOf(transport: Any) -> Port | None:
    """
    @return: the port of TCP or of a Unix socket that accepted the connection of a
        transport; C{None} if no port did.
    """
    for layer in layersOf(transport):
        if isinstance(layer, Server) and isinstance(layer.server, Port):
            return layer.server
    return None
