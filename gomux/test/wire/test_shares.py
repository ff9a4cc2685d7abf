# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._wire.shares}.
"""

from __future__ import annotations

import resource
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.keyring import Keyring
from gomux._wire.shares import KEPT, MINIMUMS, MOST, Shares, shareDescriptors


class Names(NamedTuple):
    """
    Stands for a keyring.
    """

    names: tuple[str, ...]


def named(count: int) -> Names:
    """
    @return: so many peers.
    """
    return Names(tuple(f"peer {number}" for number in range(count)))


def takeAll(shares: Shares, peer: str | None) -> int:
    """
    A peer takes what it may take.

    @return: how many places that is.
    """
    taken = 0
    while shares.mayTake(peer):
        shares.take(peer)
        taken += 1
    return taken


class SharesTests(SynchronousTestCase):
    """
    L{Shares}
    """

    def test_single(self) -> None:
        """
        A single peer can use all places, and so can peers that are not known by name.
        """
        for peers in (None, Names(("",)), Names(("alice",))):
            self.assertEqual(takeAll(Shares(40, peers), ""), 40)
        self.assertEqual(takeAll(Shares(40, None, alone=50), ""), 50)

    def test_nobodys(self) -> None:
        """
        What no peer causes leaves a single peer its minimum.
        """
        shares = Shares(320, Names(("alice",)), alone=400)
        self.assertEqual(takeAll(shares, None), 380)
        self.assertEqual(takeAll(shares, "alice"), 20)
        shares = Shares(320, Names(("alice",)), alone=400)
        shares.take("alice", 15)
        self.assertEqual(takeAll(shares, None), 380)
        shares = Shares(320, Names(("alice",)), alone=400)
        shares.take("alice", 25)
        self.assertEqual(takeAll(shares, None), 375)
        self.assertEqual(takeAll(Shares(40), None), 40)

    def test_alone(self) -> None:
        """
        One of several peers can use nearly all places, and then each other peer still
        gets some.
        """
        for total, count, most, least in (
            (40, 2, 37, 2),
            (64, 2, 58, 4),
            (256, 16, 225, 1),
            (4096, 2, 3720, 280),
            (4096, 256, 3600, 1),
        ):
            shares = Shares(total, named(count))
            first, *others = shares._peers.names  # type: ignore[union-attr]
            self.assertGreaterEqual(takeAll(shares, first), most)
            for other in others:
                self.assertGreaterEqual(takeAll(shares, other), least)

    def test_manyPeers(self) -> None:
        """
        If there are more peers than places, one peer still gets most places, and then
        an eighth of all places is for peers that have none.
        """
        shares = Shares(40, named(256))
        self.assertGreaterEqual(takeAll(shares, "peer 0"), 32)
        self.assertGreaterEqual(takeAll(shares, "peer 1"), 1)
        for number in range(2, 6):
            self.assertTrue(shares.mayTake(f"peer {number}"))
            shares.take(f"peer {number}")

    def test_fewPlaces(self) -> None:
        """
        Of very few places a peer does not get the last either, if it has another.
        """
        for total in range(2, 9):
            shares = Shares(total, named(2))
            self.assertEqual(takeAll(shares, "peer 0"), total - 1)
            self.assertEqual(takeAll(shares, "peer 1"), 1)
        self.assertEqual(takeAll(Shares(1, named(2)), "peer 0"), 1)

    def test_competition(self) -> None:
        """
        While two peers both want more than there is, they come to have equally many,
        although only those of the first are given back at first.
        """
        shares = Shares(400, named(2))
        takeAll(shares, "peer 0")
        for turn in range(4000):
            leaving = f"peer {turn % 2}" if turn > 200 else "peer 0"
            shares.giveBack(leaving)
            for peer in ("peer 0", "peer 1"):
                if shares.mayTake(peer):
                    shares.take(peer)
        self.assertLess(abs(shares["peer 0"] - shares["peer 1"]), 20)
        self.assertGreater(shares.used, 370)

    def test_comeBack(self) -> None:
        """
        Places that were given back can be taken again, and peers without places are
        forgotten.
        """
        shares = Shares(40, named(2))
        for peer in ("peer 0", "peer 1", None):
            shares = Shares(40, named(2))
            first = takeAll(shares, peer)
            shares.giveBack(peer, first)
            self.assertEqual((shares.used, shares._used), (0, {}))
            self.assertEqual(takeAll(shares, peer), first)

    def test_keysChange(self) -> None:
        """
        The shares are those of the peers that the keyring has now.
        """
        keyring = Keyring({"alice": b"a" * 16, "bob": b"b" * 16})
        self.assertEqual(keyring.names, {"alice", "bob"})
        shares = Shares(40, keyring)
        taken = takeAll(shares, "alice")
        keyring.names = frozenset(["alice"])
        self.assertEqual(takeAll(shares, "alice"), 40 - taken)
        keyring.names = frozenset(["alice", "bob"])
        self.assertEqual(shares.room("alice"), 0)

    @settings(deadline=None)
    @given(
        st.integers(1, 300),
        st.integers(1, 40),
        st.lists(st.tuples(st.integers(0, 40), st.integers(-20, 40)), max_size=60),
    )
    def test_model(self, total: int, count: int, steps: list[tuple[int, int]]) -> None:
        """
        Whatever peers take within their shares and give back: no more than all places
        are used, a peer with many never gets the last ones, a peer below its minimum
        gets a place while any is free, and to take places one by one is the same as
        together.
        """
        shares = Shares(total, named(count))
        minimum = max(1, total // (MINIMUMS * count))
        for number, places in steps:
            peer = f"peer {number % count}"
            if places < 0:
                back = min(-places, shares[peer])
                if back:
                    shares.giveBack(peer, back)
                continue
            room = shares.room(peer)
            for taken in range(places):
                self.assertEqual(shares.room(peer) > 0, shares.mayTake(peer))
                self.assertEqual(shares.mayTake(peer), taken < room)
                free = total - shares.used
                if not shares.mayTake(peer):
                    break
                if count > 1 and shares[peer] >= minimum:
                    self.assertLess(shares[peer], MOST * free)
                shares.take(peer)
            free = total - shares.used
            self.assertGreaterEqual(free, 0)
            if free and shares[peer] < minimum:
                self.assertTrue(shares.mayTake(peer))
            if count * minimum <= max(1, total // KEPT):
                lacking = [
                    max(0, minimum - shares[f"peer {other}"]) for other in range(count)
                ]
                self.assertGreaterEqual(free, sum(lacking))
        self.assertEqual(shares.used, sum(shares._used.values()))


class DescriptorTests(SynchronousTestCase):
    """
    L{shareDescriptors}
    """

    def test_total(self) -> None:
        """
        The peers together stay below the limit of the process, with some descriptors
        for strangers and for the rest.  A single peer may have those of strangers too.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for most, expected, alone in ((200, 118, 168), (1024, 704, 960)):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            shares = shareDescriptors(named(2))
            self.assertEqual(shares.total, expected)
            self.assertGreater(takeAll(shares, "peer 0"), expected * 0.85)
            self.assertEqual(shareDescriptors(named(1)).room(""), alone)
