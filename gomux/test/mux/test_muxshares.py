# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for the shares that the peers of a server have of its muxes.
"""

from __future__ import annotations

import resource
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits, MuxFactory
from gomux._mux.strangers import Strangers
from gomux._wire.keyring import Keyring
from gomux._wire.salts import Salts
from gomux._wire.shares import Shares
from gomux.error import LimitExceeded
from gomux.test.support.helpers import Recorders
from gomux.testing import MuxPair

ALICE = "the pre-shared key of alice"
OTHER = "another pre-shared key of alice"
BOB = "the pre-shared key of bob"


class MuxSharesTests(SynchronousTestCase):
    """
    How the peers of a keyring share the muxes of a server, in compatible mode.
    """

    strict = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.keyring = Keyring([("alice", ALICE), ("alice", OTHER), ("bob", BOB)])
        self.keyring.descriptors = Shares(40, self.keyring)
        self.server = self.factory(self.keyring, False)
        self.addCleanup(self.assertNothingKept)

    def assertNothingKept(self) -> None:
        """
        When all muxes have ended, nothing is counted any more.
        """
        for mux in list(self.server.muxes):
            mux.abort()
        self.clock.advance(0)
        self.assertEqual(self.server.muxes, [])
        self.assertEqual(self.keyring.descriptors.used, 0)
        self.assertEqual(self.server._descriptors, {})
        for name in self.keyring.names:
            self.assertEqual(self.keyring.uses[name].muxes, 0)

    def factory(self, psk: str | Keyring, isClient: bool) -> MuxFactory:
        return MuxFactory(
            psk,
            isClient,
            Recorders(),
            clock=self.clock,
            strict=self.strict,
            salts=Salts(),
        )

    def connect(self, psk: str) -> MuxPair:
        """
        Connect a client with this key to the server.
        """
        pair = MuxPair(
            clientFactory=self.factory(psk, True),
            serverFactory=self.server,
            clock=self.clock,
        )
        pair.flush()
        return pair

    def connectAll(self, *psks: str) -> list[MuxPair]:
        """
        Connect clients with these keys in turn, until one is refused.
        """
        pairs: list[MuxPair] = []
        while len(pairs) < 50:
            pair = self.connect(psks[len(pairs) % len(psks)])
            if pair.server.reason is not None:
                break
            pairs.append(pair)
        return pairs

    def test_alone(self) -> None:
        """
        A peer alone can have nearly all muxes, and then another can still have some.
        """
        self.assertEqual(len(self.connectAll(ALICE)), 37)
        refused = self.connect(ALICE).server
        self.assertIsInstance(refused.reason, LimitExceeded)
        self.assertIn("37 descriptors are used already, 37", str(refused.reason))
        self.assertFalse(refused.authenticated)
        self.assertEqual(len(self.connectAll(BOB)), 3)

    def test_refused(self) -> None:
        """
        A mux that is refused never gets to the pool, and takes no streams.
        """
        pairs = self.connectAll(ALICE)
        pair = MuxPair(
            clientFactory=self.factory(ALICE, True),
            serverFactory=self.server,
            clock=self.clock,
        )
        pair.client.openStream(Recorders())
        pair.flush()
        self.assertEqual(len(self.server.pool.muxes), len(pairs))
        self.assertEqual(pair.server.streamCount, 0)
        self.assertIsNotNone(pair.client.reason)

    def test_twoKeys(self) -> None:
        """
        The keys of one name are those of one peer, which has one share.
        """
        self.assertEqual(len(self.connectAll(ALICE, OTHER)), 37)

    def test_ends(self) -> None:
        """
        A peer can have other muxes once its muxes have ended, however they end.
        """
        pairs = self.connectAll(ALICE)
        pairs[0].client.close()
        pairs[1].client.abort()
        pairs[2].server.abort()
        pairs[3].server.connectionLost(Failure(ConnectionLost()))
        pairs[4].serverCarrier.write(b"x" * 1000)
        pairs[5].clientCarrier.write(b"x" * 1000)
        for pair in pairs[:6]:
            pair.flush()
        self.assertEqual(self.keyring.descriptors["alice"], 31)
        self.assertEqual(len(self.connectAll(ALICE)), 6)

    def test_maxMuxes(self) -> None:
        """
        A peer has no more than C{maxMuxes}, on all servers with the keyring together
        and with all its keys.  A refused mux takes no streams.  Other peers do not
        notice, and what a client has dialled does not count.
        """
        self.server.limits = Limits(maxMuxes=3)
        pairs = self.connectAll(ALICE, OTHER)
        self.assertEqual(len(pairs), 3)
        first = self.server
        self.server = self.factory(self.keyring, False)
        self.server.limits = Limits(maxMuxes=4)
        pairs += self.connectAll(ALICE)
        self.assertEqual(len(pairs), 4)
        refused = self.connect(ALICE)
        self.assertIsInstance(refused.server.reason, LimitExceeded)
        self.assertIn("has 4 muxes already", str(refused.server.reason))
        self.assertFalse(refused.server.authenticated)
        self.assertEqual(len(self.connectAll(BOB)), 4)
        other, self.server = self.server, first
        pairs[0].client.abort()
        pairs[0].flush()
        pairs[3].client.close()
        pairs[3].flush()
        self.assertEqual(len(self.connectAll(ALICE)), 1)
        for mux in list(other.muxes):
            mux.abort()
        client = self.factory(ALICE, True)
        for _ in range(5):
            pair = MuxPair(
                clientFactory=client,
                serverFactory=self.factory(ALICE, False),
                clock=self.clock,
            )
            pair.flush()
            self.assertTrue(pair.client.authenticated)
        self.assertEqual(client.keyring.uses[""].muxes, 0)

    def test_single(self) -> None:
        """
        A server with the keys of a single peer takes as many muxes as it is given.
        """
        self.keyring = Keyring([("alice", ALICE), ("alice", OTHER)])
        self.keyring.descriptors.total = 10
        self.server = self.factory(self.keyring, False)
        for _ in range(20):
            self.assertIsNone(self.connect(ALICE).server.reason)


class StrictMuxSharesTests(MuxSharesTests):
    """
    How the peers of a keyring share the muxes of a server, in strict mode.
    """

    strict = True


class StrangersTests(SynchronousTestCase):
    """
    L{Strangers}, and the descriptors
    """

    def test_descriptors(self) -> None:
        """
        A quarter of the descriptors is the most that strangers can have.  If there is
        one peer, they can have no more than it leaves, and it no more than they leave.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        for psks, limit, most in (
            ({"alice": ALICE, "bob": BOB}, 256, 50),
            ({"alice": ALICE, "bob": BOB}, 40, 40),
            ({"alice": ALICE}, 256, 50),
        ):
            keyring = Keyring(psks)
            strangers = Strangers(
                Limits(maxUnauthenticated=limit), keyring, Clock().seconds
            )
            muxes: list[object] = [object() for _ in range(most + 1)]
            dropped = [strangers.add(mux, None) for mux in muxes]  # type: ignore[arg-type]
            self.assertEqual(dropped, [None] * most + [muxes[0]])
            other = Strangers(Limits(), keyring, Clock().seconds)
            if limit == 256:
                # All places are taken at the first port.
                self.assertIsNone(other.add(muxes[-1], None))  # type: ignore[arg-type]
                self.assertIsNotNone(other.add(muxes[-2], None))  # type: ignore[arg-type]
                for mux in muxes[-2:]:
                    other.remove(mux)  # type: ignore[arg-type]
            if len(psks) == 1 and limit == 256:
                descriptors = keyring.descriptors
                self.assertEqual(descriptors.room("alice"), 200 - 32 - most - 1)
                for mux in muxes:
                    strangers.remove(mux)  # type: ignore[arg-type]
                self.assertEqual(descriptors.room("alice"), 200 - 32)
                descriptors.take("alice", 150)
                added = [strangers.add(mux, None) for mux in muxes[:19]]  # type: ignore[arg-type]
                self.assertEqual(added, [None] * 18 + [muxes[0]])

    def test_back(self) -> None:
        """
        Connections that no peer causes, and strangers, leave a single peer a place, so
        that it can come back.
        """
        keyring = Keyring({"alice": ALICE})
        descriptors = keyring.descriptors = Shares(160, keyring, 200)
        while descriptors.mayTake(None):
            descriptors.take(None)
        strangers = Strangers(Limits(), keyring, Clock().seconds)
        muxes: list[Any] = [object() for _ in range(10)]
        dropped = [strangers.add(mux, None) for mux in muxes]
        self.assertEqual(dropped, [None] * 5 + [muxes[0]] * 5)
        for mux in muxes[:5]:
            strangers.remove(mux)
        self.assertTrue(descriptors.mayTake("alice"))
