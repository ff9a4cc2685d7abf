"""
Tests for a forwarding endpoint whose connections have gone to a silent peer.
"""

from __future__ import annotations

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from gomux.limits import TunnelLimits
from gomux.test.support.helpers import HalfRecorder
from gomux.test.support.poolline import Line
from gomux.test.support.tunnelrig import HERE, THERE
from gomux.testing._pair import connect
from gomux.tunnel import forward
from gomux.tunnel._bridge import Bridge


class SilentTests(SynchronousTestCase):
    """
    L{Tunnel<gomux.tunnel._tunnel.Tunnel>}
    """

    def setUp(self) -> None:
        self.line = Line()
        self.here = forward("", self.line.pool, self.line.clock, TunnelLimits())
        self.silent = self.line.connect(greet=False)
        self.silent.advance(1.5)

    def open(self) -> HalfRecorder:
        """
        @return: the protocol of a new client.
        """
        end = self.here.buildProtocol(HERE)
        assert end is not None
        client = HalfRecorder()
        connect(self.line.clock, (client, end), (HERE, THERE), 0.0, None, 65536)
        return client

    def test_anotherShowsKey(self) -> None:
        """
        When another peer shows the key, the connections are reset, so that their
        clients try again.  Those on the mux of that peer go on.
        """
        for _ in range(2):
            clients = [self.open() for _ in range(3)]
            self.assertEqual(self.silent.server.streamCount, 3)
            peer = self.line.connect()
            self.line.flush()
            for client in clients:
                self.assertIsInstance(client.reason, ConnectionLost)
            self.assertEqual(len(self.here.bridges), 0)
            late = self.open()
            self.line.connect()
            self.line.flush()
            self.assertEqual(late.events, ["made"])
            for pair in self.line.pairs[1:]:
                pair.loseCarrier()
            self.line.flush()
            self.silent.advance(30)
            self.assertEqual(peer.server.streamCount, 0)

    def test_sameShowsKey(self) -> None:
        """
        When the silent peer shows the key itself, its connections go on.
        """
        client = self.open()
        self.silent.client.openStream(self.line.streams)
        self.line.flush()
        self.assertTrue(self.silent.server.authenticated)
        self.line.connect()
        self.line.flush()
        self.assertEqual(client.events, ["made"])

    def test_inTurns(self) -> None:
        """
        If the time of a turn is over, the rest is reset in later turns; but not those
        whose peer has shown the key meanwhile.
        """
        abort = Bridge.abort

        def slow(bridge: Bridge, *why: str) -> None:
            abort(bridge, *why)
            self.line.clock.rightNow += 1

        self.patch(Bridge, "abort", slow)
        clients = [self.open() for _ in range(50)]
        self.line.connect()
        self.silent.client.openStream(self.line.streams)
        self.line.flush()
        self.assertTrue(self.silent.server.authenticated)
        ends = [client.events for client in clients]
        self.assertIn(["made"], ends)
        self.assertIn(["made", "lost"], ends)

    def test_silentLeaves(self) -> None:
        """
        When the silent peer leaves, its connections are cut, and the next ones that a
        silent peer gets are reset all the same.
        """
        self.open()
        self.silent.loseCarrier()
        self.line.flush()
        self.silent = self.line.connect(greet=False)
        self.silent.advance(40)
        client = self.open()
        self.assertEqual(self.silent.server.streamCount, 1)
        self.line.connect()
        self.line.flush()
        self.assertIsInstance(client.reason, ConnectionLost)
