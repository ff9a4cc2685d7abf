"""
Tests for L{gomux.testing}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory
from gomux.error import ConnectionClosed, PeerClosedConnection, Truncated
from gomux.test.support.helpers import Recorders
from gomux.testing import PSK, MuxPair


class MuxPairTests(SynchronousTestCase):
    """
    L{MuxPair}
    """

    def test_connected(self) -> None:
        """
        The two muxes are connected; they share only the clock.
        """
        served, opened = Recorders(), Recorders()
        pair = MuxPair(served)
        pair.client.openStream(opened)
        pair.flush()
        opened.made[0].stream.write(b"hello")
        served.made[0].stream.write(b"hi")
        pair.flush()
        self.assertEqual(served.made[0].received, b"hello")
        self.assertEqual(opened.made[0].received, b"hi")
        self.assertIsNot(pair.clientFactory.pool, pair.serverFactory.pool)

    def test_otherWay(self) -> None:
        """
        The server can open streams to the client.
        """
        served = Recorders()
        pair = MuxPair(clientStreams=served)
        pair.server.openStream(Recorders())
        pair.flush()
        self.assertEqual(len(served.made), 1)

    def test_factories(self) -> None:
        """
        The pair uses the factories that it is given.
        """
        clock = Clock()
        client = MuxFactory(PSK, True, clock=clock)
        server = MuxFactory(PSK, False, clock=clock)
        pair = MuxPair(clientFactory=client, serverFactory=server, clock=clock)
        self.assertIs(pair.clientFactory, client)
        self.assertIs(pair.serverFactory, server)
        self.assertIs(pair.clock, clock)

    def test_flush(self) -> None:
        """
        C{flush} advances the clock until everything has arrived.
        """
        served = Recorders(data=lambda recorder: recorder.stream.write(b"pong"))
        opened = Recorders(made=lambda recorder: recorder.stream.write(b"ping"))
        pair = MuxPair(served, latency=0.25)
        pair.flush()
        start = pair.clock.seconds()
        pair.client.openStream(opened)
        pair.flush()
        self.assertEqual(opened.made[0].received, b"pong")
        self.assertAlmostEqual(pair.clock.seconds() - start, 0.5)

    def test_flushStalled(self) -> None:
        """
        C{flush} returns even when a pipe is stalled.
        """
        pair = MuxPair(latency=0.25)
        pair.clientToServer.stall()
        pair.flush()
        self.assertFalse(pair.server.authenticated)
        pair.clientToServer.unstall()
        pair.flush()
        self.assertTrue(pair.server.authenticated)

    def test_advance(self) -> None:
        """
        C{advance} makes each call at the time it is due.
        """
        pair = MuxPair(latency=1.0, greet=False)
        times: list[float] = []

        def tick() -> None:
            times.append(pair.clock.seconds())
            pair.clock.callLater(1, tick)

        tick()
        pair.advance(3.5)
        self.assertEqual(times, [0.0, 1.0, 2.0, 3.0])
        self.assertEqual(pair.clock.seconds(), 3.5)

    def test_loseCarrier(self) -> None:
        """
        A clean end of the carrier arrives after the bytes in flight.
        """
        served = Recorders()
        pair = MuxPair(served, latency=1.0)
        pair.client.openStream(
            Recorders(made=lambda recorder: recorder.stream.write(b"data"))
        )
        pair.advance(0)
        pair.loseCarrier()
        pair.flush()
        self.assertEqual(served.made[0].received, b"data")
        for mux in (pair.client, pair.server):
            waiting = mux.whenClosed()
            pair.flush()
            self.assertIsInstance(self.successResultOf(waiting), Truncated)

    def test_resetCarrier(self) -> None:
        """
        A reset of the carrier discards the bytes in flight.
        """
        served = Recorders()
        pair = MuxPair(served, latency=1.0)
        pair.client.openStream(Recorders())
        pair.advance(0)
        pair.loseCarrier(reset=True)
        pair.flush()
        self.assertEqual(served.made, [])
        for mux in (pair.client, pair.server):
            waiting = mux.whenClosed()
            pair.flush()
            self.assertIsInstance(self.successResultOf(waiting), Truncated)

    def test_everything(self) -> None:
        """
        Over all kinds of carriers, data arrives intact and in order, and the muxes
        close cleanly.
        """
        data = bytes(i * 7 % 256 for i in range(300000))
        settings: list[dict[str, float]] = [
            {},
            {"latency": 0.1},
            {"chunkSize": 1000},
            {"bufferSize": 1},
            {"latency": 0.01, "chunkSize": 3333, "bufferSize": 100},
        ]
        for setting in settings:
            served = Recorders()
            pair = MuxPair(served, **setting)  # type: ignore[arg-type]
            opened = Recorders(made=lambda recorder: recorder.stream.write(data))
            pair.client.openStream(opened)
            pair.flush()
            self.assertEqual(served.made[0].received, data)
            ends = (pair.client.close(), pair.server.whenClosed())
            pair.flush()
            self.assertIsInstance(self.successResultOf(ends[0]), ConnectionClosed)
            self.assertIsInstance(self.successResultOf(ends[1]), PeerClosedConnection)
            self.assertEqual(pair.clock.getDelayedCalls(), [])
