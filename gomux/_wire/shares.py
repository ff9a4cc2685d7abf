# -*- test-case-name: gomux.test.wire.test_shares -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
How the peers of a keyring share a limited number of places, such as the connections to
a target, or the descriptors of the process.

One peer alone can use nearly all, and can never lock another peer out:

  1. A peer may take one more place if it has fewer than L{MOST} times as many as are
     free.  So while one peer has nearly all, a sixteenth stays free for the others.
     While they take places, the first gets no more, and as places are given back, all
     that want more come to have equally many.
  2. Each peer has a minimum, which it gets as long as any place is free.  The minimums
     of all peers are a sixteenth of all places, or one place each.  What the others
     lack to their minimums counts as used, up to an eighth of all places.

With a single peer there are no shares: it can use all.  What no peer causes, such as
the connections of a C{--forward}, leaves it its minimum: otherwise anybody who can
cause that could keep the peer from coming back.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Protocol

try:
    import resource
except ImportError:  # pragma: no cover  (Windows has no such limit.)
    resource = None  # type: ignore[assignment]

#: See rule 1.
MOST = 15
#: The minimums of all peers together are this part of all places.
MINIMUMS = 16
#: At most this part of all places is kept free for the minimums.
KEPT = 8
#: This part of the descriptors is for strangers, who have not shown a key yet.
STRANGERS = 4
#: So many descriptors, and this part of them, are for all that is not counted, such as
#: ports, logs and look-ups of names.
UNCOUNTED, UNCOUNTED_PART = 32, 16


class Peers(Protocol):
    """
    The part of a keyring that shares need.
    """

    @property
    def names(self) -> Collection[str]:
        """
        The names of the peers.
        """


class Shares:
    """
    Shares a number of places among the peers of a keyring.  A place may also be a byte.

    @ivar total: how many places there are.
    @ivar used: how many of them are used.
    @ivar strangers: how many places strangers use, which count only for a single peer.
    @ivar _alone: see L{__init__}.
    @ivar _peers: see L{__init__}.
    @ivar _used: how many places each peer uses, without peers that use none.
    """

    def __init__(
        self, total: int, peers: Peers | None = None, alone: int | None = None
    ) -> None:
        """
        @param total: how many places there are.
        @param peers: the keyring; C{None} if only one peer uses the places.
        @param alone: how many places a single peer has; by default C{total}.
        """
        self.total = total
        self.used = self.strangers = 0
        self._alone = total if alone is None else alone
        self._peers = peers
        self._used: dict[str | None, int] = {}

    def __getitem__(self, peer: str | None) -> int:
        """
        @return: how many places a peer uses.
        """
        return self._used.get(peer, 0)

    def resize(self, total: int) -> None:
        """
        Change how many places there are.  Places that are used stay used.

        @param total: as for L{__init__}.
        """
        self._alone += total - self.total
        self.total = total

    @property
    def left(self) -> int:
        """
        How many places a single peer and strangers leave; less than 0 if they use too
        many.
        """
        return self._alone - self.used - self.strangers

    @property
    def kept(self) -> int:
        """
        How many places are kept free for a single peer: what it lacks to its minimum.
        """
        return max(0, self.total // MINIMUMS - (self.used - self[None]))

    def mayTake(self, peer: str | None) -> bool:
        """
        @param peer: the name of the peer.  It need not be in the keyring: C{None} is
            for what no peer causes.
        @return: whether the peer may take one more place.
        """
        # While less than half is used, rule 1 lets each peer take more.
        return 2 * self.used < self.total or self.room(peer) > 0

    def room(self, peer: str | None) -> int:
        """
        @param peer: as for L{mayTake}.
        @return: how many more places the peer may take.
        """
        names = () if self._peers is None else self._peers.names
        if len(names) < 2:
            kept = self.kept if names and peer is None else 0
            return max(0, self.left - kept)
        free = self.total - self.used
        minimum = max(1, self.total // (MINIMUMS * len(names)))
        # Most peers may use none, so only those that use some are looked at.
        others = [
            min(minimum, used)
            for name, used in self._used.items()
            if name != peer and name in names
        ]
        lacking = minimum * (len(names) - (peer in names)) - sum(others)
        kept = min(lacking, max(1, self.total // KEPT))
        # With each place that the peer takes, one more is used and one less is free.
        # Rounded up, because rule 1 is about the places before.
        shared = -((self[peer] - MOST * (free - kept)) // (MOST + 1))
        return max(0, min(minimum - self[peer], free), shared)

    def refusal(self, peer: str | None, places: str) -> str:
        """
        @param places: what is shared, such as C{"connections"}.
        @return: why the peer may not take one more.
        """
        own = f", {self[peer]} of them by {peer!r}" if peer else ""
        return f"{self.used} {places} are used already{own}"

    def take(self, peer: str | None, places: int = 1) -> None:
        """
        A peer takes places, whether L{room} allows that or not.
        """
        self.used += places
        self._used[peer] = self._used.get(peer, 0) + places

    def giveBack(self, peer: str | None, places: int = 1) -> None:
        """
        A peer uses some of its places no more.
        """
        self.used -= places
        left = self._used.pop(peer) - places
        if left:
            self._used[peer] = left


def strangersMost() -> int:
    """
    @return: how many descriptors strangers may have.
    """
    return descriptors() // STRANGERS


def shareDescriptors(peers: Peers) -> Shares:
    """
    @param peers: the keyring.
    @return: the shares of the descriptors that this process may have, apart from those
        of strangers and those that are not counted.  A single peer may also have those
        that strangers do not use at the moment.
    """
    most = descriptors()
    alone = max(1, most - max(UNCOUNTED, most // UNCOUNTED_PART))
    return Shares(max(1, alone - most // STRANGERS), peers, alone)


def descriptors() -> int:
    """
    @return: how many descriptors this process may have.
    """
    if resource is None:  # pragma: no cover  (Windows)
        return sys.maxsize
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if most == resource.RLIM_INFINITY else most
