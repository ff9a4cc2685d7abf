"""
Connections that are forwarded to a peer by name never come to another peer.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory
from gomux._mux.pool import MuxPool
from gomux._wire.keyring import Keyring
from gomux.limits import TunnelLimits
from gomux.test.support.helpers import Recorder
from gomux.test.support.tunnelrig import HERE, THERE
from gomux.testing import MuxPair
from gomux.testing._pair import connect
from gomux.tunnel import forward

NAMES = ("alice", "bob", "carol")
TRIED = 10000


class Name(Protocol):
    """
    Says the name of its peer, and closes.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.name.encode())
        self.transport.loseConnection()


class PeerFactory(Factory):
    noisy = False

    def __init__(self, name: str) -> None:
        self.name = name

    def buildProtocol(self, addr: Any) -> Name:
        return Name(self.name)


class NamedPeersTests(SynchronousTestCase):
    """
    C{--forward @PEER} and C{--forward SERVICE@PEER}, in memory
    """

    def setUp(self) -> None:
        self.random = random.Random(19)
        self.clock = Clock()
        self.pool = MuxPool(self.clock, 5)
        self.keyring = Keyring({name: f"the key of {name}" for name in NAMES})
        self.pairs: list[MuxPair] = []
        limits = TunnelLimits(waitTimeout=5)
        self.forwards = {
            (name, service): forward(
                *(name, self.pool, self.clock, limits, self.keyring, service, name)
            )
            for name in NAMES
            for service in (None, "web")
        }

    def comes(self) -> None:
        """
        A peer connects a mux.
        """
        name = self.random.choice(NAMES)
        served = PeerFactory(name)
        client = MuxFactory(
            *(Keyring({name: f"the key of {name}"}), True, served),
            clock=self.clock,
            services={"web": served},
        )
        server = MuxFactory(self.keyring, False, clock=self.clock, pool=self.pool)
        pair = MuxPair(clientFactory=client, serverFactory=server, clock=self.clock)
        self.pairs.append(pair)

    def goes(self) -> None:
        """
        A mux ends, in one of several ways.
        """
        pair = self.pairs.pop(self.random.randrange(len(self.pairs)))
        self.random.choice(
            (pair.loseCarrier, pair.client.close, pair.server.abort, pair.server.drain)
        )()
        pair.flush()

    def tries(self) -> tuple[tuple[str, str | None], Recorder]:
        """
        A client connects to a listener.
        """
        which = self.random.choice(list(self.forwards))
        end, client = self.forwards[which].buildProtocol(HERE), Recorder()
        assert end is not None
        connect(self.clock, (client, end), (HERE, THERE), 0.0, None, 65536)
        return which, client

    def test_neverAnother(self) -> None:
        """
        Of 10000 connections, while muxes come and go, each comes to the peer that its
        listener names, or to nobody.
        """
        tried = []
        while len(tried) < TRIED:
            if len(self.pairs) < 2 or (
                len(self.pairs) < 6 and self.random.random() < 0.5
            ):
                self.comes()
            else:
                self.goes()
            for _ in range(self.random.randrange(40)):
                tried.append(self.tries())
                if self.random.random() < 0.05:
                    self.random.choice(self.pairs).flush()
            for pair in self.pairs:
                pair.flush()
            self.clock.advance(self.random.random())
        self.clock.advance(60)
        for pair in self.pairs:
            pair.flush()
        reached = dict.fromkeys(self.forwards, 0)
        for which, client in tried:
            self.assertIn(client.received, (b"", which[0].encode()))
            reached[which] += bool(client.received)
            self.assertEqual(client.events[-1], "lost")
        # Most come through, of each kind.
        self.assertGreater(min(reached.values()), TRIED / len(reached) / 2, reached)
