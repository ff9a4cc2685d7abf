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
from gomux._carrier.transport import layersOf

#: How long a port pauses after it has accepted a connection that may be a stranger's,
#: in seconds.  To set up a mux and refuse the stranger takes a third of that.
ACCEPT_INTERVAL = 0.001


class AcceptPace:
    """
    Makes the ports of a server accept one connection at a time.  A port accepts the
    next connection when the peer has shown that it holds the key, or after
    L{ACCEPT_INTERVAL}.

    A Twisted port accepts all connections that wait, up to a number that rises while
    there are more.  If strangers connect as fast as they can, all other connections in
    the reactor would have to wait.

    @ivar _waiting: for each paused port, the connection that it accepted last and the
        call that resumes it.
    """

    def __init__(self) -> None:
        self._waiting: dict[Port, tuple[Any, IDelayedCall]] = {}

    def accepted(self, transport: Any) -> None:
        """
        A port may have accepted a connection: pause it.

        @param transport: the new connection, or a transport on top of it, as TLS is.
        """
        port = _portOf(transport)
        if port is None:
            return
        # Port.doRead reads this number once, and accepts up to that many connections,
        # even if the port is paused meanwhile.  Then it compares the number with how
        # many it accepted.  If the two are equal it raises the number by 20, and
        # otherwise it sets the number to how many it accepted.  It has accepted at
        # least this connection.  So the number is never equal to 0, and does not rise.
        port.numberAccepts = 0
        if port not in self._waiting:
            port.pauseProducing()
            clock = steady(cast(IReactorTime, port.reactor))
            call = clock.callLater(ACCEPT_INTERVAL, self._resume, port)
            self._waiting[port] = (transport, call)

    def authenticated(self, transport: Any) -> None:
        """
        A peer has shown that it holds the key: the port need not pause any longer.

        @param transport: as for L{accepted}.
        """
        port = _portOf(transport)
        if port is None:
            return
        waiting = self._waiting.get(port)
        if waiting is not None and waiting[0] is transport:
            waiting[1].cancel()
            self._resume(port)

    def _resume(self, port: Port) -> None:
        del self._waiting[port]
        port.resumeProducing()

    def stop(self) -> None:
        """
        Forget all ports, which are about to stop.
        """
        for _, call in self._waiting.values():
            call.cancel()
        self._waiting.clear()


def _portOf(transport: Any) -> Port | None:
    """
    @return: the port, of TCP or of a Unix socket, that accepted the connection of a
        transport; C{None} if no port has accepted it.
    """
    for layer in layersOf(transport):
        if isinstance(layer, Server) and isinstance(layer.server, Port):
            return layer.server
    return None
