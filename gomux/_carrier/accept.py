# -*- test-case-name: gomux.test.carrier.test_accept -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
How fast the ports of a server accept connections.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.tcp import Port, Server

from gomux._carrier.transport import layersOf

#: How long a port leaves the reactor to others after it has accepted a connection that
#: may be a stranger's, in seconds.  To set a mux up and find that takes a third of it.
ACCEPT_INTERVAL = 0.001


class AcceptPace:
    """
    Has the ports of a server accept one connection at a time, and the next one when
    the peer has shown that it holds the key, or after L{ACCEPT_INTERVAL}.

    A port of Twisted accepts as many as wait, up to as many as it accepted the last
    time, and more each time that there were more.  Strangers that connect as fast as
    they can would keep everybody else waiting for all of that.
    """

    def __init__(self) -> None:
        # By port that waits, the connection for which it does, and until when.
        self._waiting: dict[Port, tuple[Any, IDelayedCall]] = {}

    def accepted(self, transport: Any) -> None:
        """
        A port may have accepted a connection.

        @param transport: what a port has just made, or what is over it.
        """
        port = _portOf(transport)
        if port is None:
            return
        # Port.doRead takes this number once, before it accepts as many connections: to
        # pause the port does not end that.  Then it compares the number with how many
        # came, raises it by 20 where it was reached, and else makes it as many as came.
        # 0 is never reached, so it does not rise.
        port.numberAccepts = 0
        if port not in self._waiting:
            port.pauseProducing()
            call = port.reactor.callLater(ACCEPT_INTERVAL, self._resume, port)  # type: ignore[attr-defined]
            self._waiting[port] = (transport, call)

    def authenticated(self, transport: Any) -> None:
        """
        A peer has shown that it holds the key.

        @param transport: as L{accepted}.
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
        No port accepts any more.
        """
        for _, call in self._waiting.values():
            call.cancel()
        self._waiting.clear()


def _portOf(transport: Any) -> Port | None:
    """
    @return: the port of TCP or of a Unix socket that made a transport, or one below
        it, if there is any.
    """
    for layer in layersOf(transport):
        if isinstance(layer, Server) and isinstance(layer.server, Port):
            return layer.server
    return None
