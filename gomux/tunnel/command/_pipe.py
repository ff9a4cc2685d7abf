# -*- test-case-name: gomux.test.tunnel.test_pipe -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
C{python -m gomux pipe}: the standard input and output as one stream.

A bridge joins the two, as in a tunnel.  So half-closes pass, and a slow reader at one
end slows down the writer at the other end.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel

from gomux._mux.log import ThrottledLog, printable
from gomux.endpoints._stdio import StandardServerEndpoint
from gomux.limits import TunnelLimits
from gomux.tunnel import Tunnel
from gomux.tunnel._bridge import Bridge
from gomux.tunnel.command._run import CommandFailed, gomuxEndpoint


async def pipe(reactor: Any, endpoint: str) -> str:
    """
    Join the standard input and output with one stream.

    @param reactor: the reactor.
    @param endpoint: the endpoint string of a client.
    @return: C{""}, once the stream has ended in an orderly way.
    @raise CommandFailed: if it cannot be opened, or is cut short.
    """
    tunnel = PipeTunnel(gomuxEndpoint(reactor, endpoint), reactor)
    await StandardServerEndpoint(reactor).listen(tunnel)
    await tunnel.ended
    if tunnel.trouble.seen:
        raise CommandFailed("; ".join(tunnel.trouble.seen))
    return ""


class Trouble(ThrottledLog):
    """
    Keeps the log lines of a bridge: each of them says why the bridge has not ended in
    an orderly way.

    @ivar seen: the lines.
    """

    def __init__(self, clock: Any) -> None:
        super().__init__(Logger(), clock)
        self.seen: list[str] = []

    def always(self, level: LogLevel, line: str, **values: object) -> None:
        """
        Keep a line.
        """
        shown = {name: printable(str(value)) for name, value in values.items()}
        self.seen.append(line.format(**shown))


class PipeTunnel(Tunnel):
    """
    A tunnel with a single bridge.

    @ivar ended: fires when the bridge is over.
    @ivar trouble: why the bridge has not ended in an orderly way.
    """

    def __init__(self, endpoint: Any, reactor: Any) -> None:
        """
        @param endpoint: opens the stream.
        @param reactor: the reactor.
        """
        super().__init__("pipe", endpoint.connect, reactor, TunnelLimits(), {})
        self.ended: Deferred[None] = Deferred()
        self.log = self.trouble = Trouble(reactor)

    def over(self, bridge: Bridge) -> None:
        """
        The bridge is over.
        """
        super().over(bridge)
        if not self.ended.called:
            self.ended.callback(None)
