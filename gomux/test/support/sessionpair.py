"""
Two sessions in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from gomux._wire.salts import Salts
from gomux.limits import BACKLOG
from gomux.session._conn import Conn
from gomux.session._session import _SessionFactory
from gomux.testing import PSK, MuxPair

#: More bytes than a stream accepts while the other end does not read them.
LARGE = bytes(range(256)) * 4096


class SessionPair:
    """
    Two sessions in memory, with one stream between them.

    @ivar client: the client's session.
    @ivar server: the server's session.
    @ivar here: the client's end of the stream.
    @ivar there: the server's end of the stream.
    """

    here: Conn
    there: Conn

    def __init__(self, backlog: int = BACKLOG, **settings: Any) -> None:
        clock = Clock()
        factories = [
            _SessionFactory(
                PSK, isClient, backlog, clock=clock, salts=Salts(), **settings
            )
            for isClient in (True, False)
        ]
        self.pair = MuxPair(
            clientFactory=factories[0],
            serverFactory=factories[1],
            clock=clock,
            # Less than a frame, so that the carrier buffers next to nothing.
            bufferSize=1,
        )
        self.clock = clock
        self.client = factories[0].sessionOf(self.pair.client)
        self.server = factories[1].sessionOf(self.pair.server)

    def open(self) -> None:
        """
        Open the stream.
        """
        opening = Deferred.fromCoroutine(self._open())
        self.pair.flush()
        self.here, self.there = opening.result  # type: ignore[misc]

    async def _open(self) -> tuple[Conn, Conn]:
        here = await self.client.openStream()
        return here, await self.server.acceptStream()
