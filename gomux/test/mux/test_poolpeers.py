"""
Tests for L{gomux._mux.pool} with streams for a peer by name.
"""

from __future__ import annotations

from functools import partial
from operator import is_not
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory, MuxProtocol
from gomux._wire.keyring import Keyring
from gomux.error import NoRequests, OpenStreamError
from gomux.test.support.helpers import Recorders
from gomux.test.support.poolline import Line
from gomux.testing import PSK, MuxPair


class PeerTests(SynchronousTestCase):
    """
    L{MuxPool.openStream} with the name of a peer
    """

    def setUp(self) -> None:
        self.line = Line()
        self.pool = self.line.pool

    def open(self, peer: str | None = "alice", **more: Any) -> Deferred[Any]:
        return self.pool.openStream(self.line.streams, peer=peer, **more)

    def counts(self) -> list[int]:
        return [pair.server.streamCount for pair in self.line.pairs]

    def test_onlyPeer(self) -> None:
        """
        A stream for a peer goes over the newest of its muxes, and to no other peer.
        """
        for name in ("alice", "bob", "alice", "bob", ""):
            self.line.connect(name=name)
        self.line.flush()
        for _ in range(3):
            self.successResultOf(self.open())
        self.assertEqual(self.counts(), [0, 0, 3, 0, 0])
        self.line.pairs[2].loseCarrier()
        self.line.flush()
        self.successResultOf(self.open())
        self.assertEqual(self.line.pairs[0].server.streamCount, 1)

    def test_answers(self) -> None:
        """
        Of the peer's muxes the newest is used that answers; if none does, the newest.
        """
        pairs = [self.line.connect(name="alice") for _ in range(2)]
        self.line.flush()
        silent = pairs[1].server
        self.patch(MuxProtocol, "answers", property(partial(is_not, silent)))
        self.open()
        self.assertEqual(self.counts(), [1, 0])
        self.patch(MuxProtocol, "answers", False)
        self.open()
        self.assertEqual(self.counts(), [1, 1])

    def test_waits(self) -> None:
        """
        A stream waits for a mux of its peer, whichever else come up.  Then its time is
        over, and the error names the peer.
        """
        waiting = [self.open() for _ in range(2)]
        late = self.open(timeout=3)
        other = self.open(None)
        self.line.connect(name="bob")
        self.line.flush()
        self.successResultOf(other)
        self.assertNoResult(waiting[0])
        self.line.clock.advance(4)
        error = self.failureResultOf(late, OpenStreamError).value
        self.assertIn("no mux of 'alice' was up within 3 seconds", str(error))
        self.line.connect(name="alice")
        self.line.flush()
        for one in waiting:
            self.successResultOf(one)
        self.assertEqual(self.counts(), [1, 2])

    def test_tooManyWait(self) -> None:
        """
        The error of a stream that cannot wait names the peer.
        """
        self.pool.maxWaiting = 1
        waiting = self.open()
        error = self.failureResultOf(self.open(), OpenStreamError).value
        self.assertIn("no mux of 'alice' is up", str(error))
        self.pool.failPeers(["bob"], OpenStreamError())
        self.assertNoResult(waiting)
        self.pool.failPeers(["alice"], OpenStreamError())
        self.failureResultOf(waiting, OpenStreamError)
        self.assertEqual(self.pool.waiting, 0)

    def test_waitsAlone(self) -> None:
        """
        A stream that waits for a service of its peer costs nothing for the streams and
        the muxes of others.
        """
        for name in ("alice", "carol", "dave"):
            self.open(name, service="chat")
        for _ in range(3):
            self.line.connect(name="bob")
        self.line.flush()
        looked: list[object] = []
        isWith = MuxProtocol.isWith

        def look(mux: MuxProtocol, peer: str) -> bool:
            looked.append(mux)
            return isWith(mux, peer)

        self.patch(MuxProtocol, "isWith", look)
        waiting = self.open(service="chat")
        self.assertNoResult(waiting)
        self.assertEqual(looked, [])
        asked: list[object] = []
        self.patch(self.pool, "_giveUp", asked.append)
        self.open(service="chat")
        self.assertEqual(asked, ["alice"])

    def test_service(self) -> None:
        """
        A stream for a service of a peer fails if that peer does not understand
        requests, whatever others do, and only then.
        """
        recorders = Recorders()
        waiting = self.open(service="chat")
        bobs = self.open("bob", service="chat")
        self.line.connect(name="bob").clientFactory.services["chat"] = recorders
        self.line.flush()
        self.successResultOf(bobs)
        self.assertNoResult(waiting)
        old = self.line.connect(greet=False, name="alice")
        old.client.openStream(Factory.forProtocol(Protocol))
        self.line.flush()
        self.failureResultOf(waiting, NoRequests)
        self.failureResultOf(self.open(service="chat"), NoRequests)
        self.assertEqual(self.pool.waiting, 0)

    def test_revoked(self) -> None:
        """
        A mux is not used whose key is not in the keyring any more, although another
        key has its name.
        """
        pair = self.line.connect(name="alice")
        self.line.flush()
        self.successResultOf(self.open())
        keyring = pair.serverFactory.keyring
        keyring._keys = Keyring({"alice": "another key", "bob": "and another"}).keys
        waiting = self.open()
        self.assertNoResult(waiting)
        self.assertEqual(self.counts(), [1])
        self.pool.failWaiting(OpenStreamError())
        self.failureResultOf(waiting, OpenStreamError)

    def pair(
        self, psk: Keyring, keys: Keyring | str, peer: str | None = None
    ) -> MuxPair:
        factory = partial(MuxFactory, clock=self.line.clock)
        pair = MuxPair(
            clientFactory=factory(psk, True, self.line.streams, peer=peer, greet=False),
            serverFactory=factory(
                keys, False, self.line.streams, pool=self.pool, greet=peer is None
            ),
            clock=self.line.clock,
        )
        self.line.pairs.append(pair)
        return pair

    def test_stranger(self) -> None:
        """
        A silent stranger is not taken for the only peer.
        """
        keys = Keyring({"alice": PSK})
        pair = self.pair(keys, keys)
        waiting = self.open()
        pair.advance(5)
        self.assertEqual(len(self.pool.muxes), 1)
        self.assertNoResult(waiting)
        pair.client.openStream(self.line.streams)
        pair.flush()
        self.successResultOf(waiting)

    def test_dialled(self) -> None:
        """
        A client's mux is with the peer whose key it has dialled with, also before that
        peer has sent anything.
        """
        keys = Keyring({"alice": PSK, "bob": "the key of bob"})
        for peer, count in (("alice", 1), ("bob", 0)):
            pair = self.pair(keys, PSK, peer)
            pool = pair.clientFactory.pool
            opening = pool.openStream(self.line.streams, peer="alice")
            pair.flush()
            self.assertEqual(pair.client.streamCount, count)
            self.assertEqual(pair.client.authenticated, False)
            opening.addErrback(lambda failure: None)
            pool.failWaiting(OpenStreamError())
            pair.loseCarrier()
            pair.flush()
            self.assertEqual((pool.muxes, pool._named), ([], {}))
