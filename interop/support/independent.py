"""
Tests of a mux of this project with an independent implementation in the same process.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from gomux import MuxFactory, MuxProtocol


class Watched(MuxFactory):
    """
    Tells of each mux that is connected.
    """

    connected: Deferred[MuxProtocol]

    def muxConnected(self, mux: MuxProtocol) -> None:
        super().muxConnected(mux)
        self.connected.callback(mux)


class IndependentTestCase(TestCase):
    """
    A test of one mux.

    @ivar mux: The mux of this project.
    @ivar peer: The mux of the other implementation.
    """

    timeout = 60
    mux: MuxProtocol
    peer: Any

    async def join(
        self, makePeer: Callable[[socket.socket], Any], factory: Watched
    ) -> None:
        """
        Connect a mux of this project with one of the other implementation, until the
        end of the test.

        @param makePeer: Makes the mux of the other implementation.
        @param factory: Makes the mux of this project.
        """
        here, there = socket.socketpair()
        self.peer = makePeer(there)
        factory.connected = Deferred()
        here.setblocking(False)
        port: Any = reactor
        port.adoptStreamConnection(here.fileno(), socket.AF_UNIX, factory)
        here.close()
        self.mux = await factory.connected
        self.addCleanup(self._finish, self.mux, self.peer)

    async def _finish(self, mux: MuxProtocol, peer: Any) -> None:
        mux.abort()
        await mux.whenClosed()
        await deferToThread(peer.linger)

    async def eventually(self, condition: Callable[[], object]) -> None:
        """
        Wait until a condition holds, or the test times out.
        """
        while not condition():
            await deferLater(reactor, 0.01)
