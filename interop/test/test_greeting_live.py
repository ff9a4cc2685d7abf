"""
Greetings, bound nonces and pings, with an independent implementation of them.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from gomux import Limits
from gomux.error import OutOfSequence, PeerVanished
from gomux.test.support.echo import Echo
from interop.peers.blocking_greeting import GreetingMux
from interop.peers.blocking_mux import Flag
from interop.support.independent import IndependentTestCase, Watched

PSK = "a pre-shared key of the live tests"


class GreetingTests(IndependentTestCase):
    """
    This project in each role.
    """

    async def start(self, isClient: bool, **limits: Any) -> None:
        """
        Connect a mux of this project with one of the other implementation.

        @param isClient: Whether this project is the client.
        """
        factory = Watched(
            PSK,
            isClient,
            Factory.forProtocol(Echo),
            clock=reactor,  # type: ignore[arg-type]
            limits=Limits(**limits),
        )
        await self.join(lambda there: GreetingMux(there, PSK, not isClient), factory)

    async def test_pings(self) -> None:
        """
        Each side echoes the other's pings, beside a stream.
        """
        for isClient in (True, False):
            await self.start(isClient, ping=0.1, deadPeer=5.0)
            stream = self.peer.openStream()
            stream.write(b"hello")
            self.assertEqual(await deferToThread(stream.read, 10), b"hello")
            await self.eventually(lambda: self.mux.roundTrip is not None)
            await self.eventually(lambda: self.peer.echoes > 10)
            await self.eventually(lambda: self.mux.answers)
            self.peer.ping()
            await self.eventually(lambda: self.peer.roundTrip is not None)
            self.assertIsNone(self.mux.reason)

    async def test_silent(self) -> None:
        """
        A peer that stops to echo is given up, whatever else it sends.
        """
        await self.start(False, ping=0.1, deadPeer=0.5)
        await self.eventually(lambda: self.peer.echoes)
        self.peer._pinged = lambda number: None  # type: ignore[method-assign]
        while self.mux.reason is None:
            self.peer._send(0, Flag.WINDOW_UPDATE, length=1)
            await deferLater(reactor, 0.05)
        self.assertIsInstance(self.mux.reason, PeerVanished)

    async def test_bound(self) -> None:
        """
        A counter that is left out ends the mux.
        """
        for isClient in (True, False):
            await self.start(isClient)
            await self.eventually(lambda: self.mux.authenticated)
            self.peer._counter += 1
            self.peer._send(0, Flag.KEEPALIVE)
            self.assertIsInstance(await self.mux.whenClosed(), OutOfSequence)
