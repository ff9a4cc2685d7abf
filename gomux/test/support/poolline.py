"""
A server and clients for tests of the pool.
"""

from __future__ import annotations

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from gomux import MuxFactory
from gomux._mux.pool import MuxPool
from gomux._wire.keyring import Keyring
from gomux.testing import PSK, MuxPair

NAMES = ("alice", "bob")


class Line:
    """
    A server with several clients, whose muxes are in one pool.
    """

    def __init__(self, maxWaiting: int | None = None) -> None:
        self.clock = Clock()
        self.pool = MuxPool(self.clock, timeout=10, maxWaiting=maxWaiting)
        self.pairs: list[MuxPair] = []
        self.streams = Factory.forProtocol(Protocol)

    def connect(self, greet: bool = True, name: str = "") -> MuxPair:
        """
        Connect a client.

        @param name: the name of its key, or C{""} for a key without a name.
        """
        psk = PSK if not name else Keyring({name: "the key of " + name})
        keys = PSK if not name else Keyring({n: "the key of " + n for n in NAMES})
        pair = MuxPair(
            clientFactory=MuxFactory(
                psk, True, self.streams, clock=self.clock, greet=greet
            ),
            serverFactory=MuxFactory(keys, False, clock=self.clock, pool=self.pool),
            clock=self.clock,
        )
        self.pairs.append(pair)
        return pair

    def flush(self) -> None:
        for pair in self.pairs:
            pair.flush()
