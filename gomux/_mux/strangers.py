# -*- test-case-name: gomux.test.mux.test_strangers -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The connections to a server whose peers have not shown yet that they hold a key, and
which of them the server drops when there are too many.

  1. Each address has a quota of such connections.  A connection over the quota is
     refused before a mux is made for it.  But if the address has a connection that has
     been silent for more than L{PATIENCE} seconds, the oldest such connection is
     dropped instead.  Otherwise somebody with the same address could keep a client out
     for ever.  An IPv6 network of 64 bits counts as one address, because its owner can
     use all addresses in it.  Unix sockets have no addresses, and no quota.
  2. Once there are more than half of C{maxUnauthenticated} such connections, a new
     connection may be refused at random: the more there are, the more likely.  (sshd
     does the same with its C{MaxStartups}.)  This never happens to the only connection
     from an address, which may be an honest client's.
  3. If there are more than C{maxUnauthenticated} such connections, an older connection
     is dropped.  First in line is the address with most connections whose peers have
     sent no genuine frame: its oldest such connection is dropped.  If there is no such
     connection but the new one, the oldest of all is dropped.  These connections also
     have no more than a quarter of the descriptors of the process, on all its ports
     with the same keyring together, and no more than a single peer leaves.

An honest client sends its first frame as soon as it is connected, so its connection is
silent for a moment only.
"""

from __future__ import annotations

import random
import typing
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from math import inf
from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import IAddress, ITransport
from twisted.internet.protocol import Protocol

from gomux._carrier.accept import acceptOne
from gomux._carrier.passed import PassedDropper
from gomux._carrier.transport import dropTransport
from gomux._wire.shares import strangersMost

if TYPE_CHECKING:
    from gomux._wire.keyring import Keyring
    from gomux.limits import Limits

#: How many bits of an IPv6 address its owner cannot choose.
NETWORK_BITS = 64
#: How many addresses of peers that have shown a key are remembered.
KNOWN_ADDRESSES = 1024
#: For how long a silent connection holds its place in the quota of its address, in
#: seconds.
PATIENCE = 10.0


def sourceOf(address: IAddress | None) -> int | None:
    """
    @param address: the address of a peer.
    @return: a number for its IPv4 address, or its IPv6 network; C{None} if it has
        neither.
    """
    host = getattr(address, "host", None)
    return _sourceOf(host) if host else None


@lru_cache(maxsize=1024)
def _sourceOf(host: str) -> int | None:
    try:
        ip = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is None:
            # Negative, so that no IPv4 address has the same number.
            return -1 - (int(ip) >> NETWORK_BITS)
        ip = ip.ipv4_mapped
    return int(ip)


class Stranger(typing.Protocol):
    """
    A connection whose peer has not shown that it holds a key, with its mux or without.
    """

    def getPeer(self) -> IAddress:
        """
        @return: the address of the peer.
        """

    def evict(self) -> None:
        """
        Drop the connection, because there are too many.
        """


class Strangers:
    """
    The muxes of a server whose peers have not shown yet that they hold a key.

    @ivar limits: the factory's limits.  May be changed.
    @ivar _keyring: the keyring.
    @ivar _seconds: tells the time.
    @ivar _random: returns a random number from 0 up to 1.
    @ivar _sources: the muxes, the oldest first, with the source of each.
    @ivar _counts: how many muxes each source has.
    @ivar _heard: the muxes whose peers have sent a genuine frame, and are preferred
        for it, with the names of their keys.
    @ivar _heardOf: how many of these each name has.
    @ivar _known: by source, the name of the key that a peer has shown last.
    @ivar _silent: by source, the muxes whose peers have shown no genuine frame, the
        oldest first, and when each got its carrier.
    """

    def __init__(
        self, limits: Limits, keyring: Keyring, seconds: Callable[[], float]
    ) -> None:
        """
        @param limits: the factory's limits.
        @param keyring: the keyring.
        @param seconds: tells the time.
        """
        self.limits = limits
        self._keyring = keyring
        self._seconds = seconds
        self._random = random.random
        self._sources: dict[Stranger, int | None] = {}
        self._counts: Counter[int | None] = Counter()
        self._heard: dict[Stranger, str] = {}
        self._heardOf: Counter[str] = Counter()
        self._known: dict[int, str] = {}
        self._silent: dict[int | None, dict[Stranger, float]] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def __contains__(self, mux: object) -> bool:
        return mux in self._sources

    @property
    def _most(self) -> int:
        """
        How many of these connections there may be.
        """
        keyring = self._keyring
        elsewhere = keyring.descriptors.strangers - len(self)
        left = strangersMost() - elsewhere
        if len(keyring.names) < 2:
            # The single peer may use what is not left to strangers.  They may use half
            # of what is kept for it, because it is one of them when it comes.
            free = keyring.descriptors.left - keyring.descriptors.kept // 2
            left = min(left, len(self) + free)
        return min(self.limits.maxUnauthenticated, max(1, left))

    def refusal(self, address: IAddress | None) -> str | None:
        """
        @param address: where a new connection comes from.
        @return: why to refuse it, or C{None}.
        """
        source = sourceOf(address)
        if source is None:
            return None
        own = self._counts[source]
        if own >= self.limits.addressQuota and not self._hasOld(source):
            return "too many connections from this address wait for a first frame"
        if own and len(self) > self._most * (1 + self._random()) / 2:
            return "many connections wait for a first frame"
        return None

    def _hasOld(self, source: int) -> bool:
        """
        @return: whether a connection of a source has been silent for long.
        """
        oldest = next(iter(self._silent.get(source, {}).values()), inf)
        return self._seconds() - oldest > PATIENCE

    def add(self, mux: Stranger, address: IAddress | None) -> Stranger | None:
        """
        A mux has its carrier.

        @param address: where the mux comes from.
        @return: the mux to drop, if there are too many, or too many of the address;
            else C{None}.
        """
        source = self._sources[mux] = sourceOf(address)
        self._counts[source] += 1
        own = self._silent.setdefault(source, {})
        own[mux] = self._seconds()
        self._keyring.descriptors.strangers += 1
        if source is not None and self._counts[source] > self.limits.addressQuota:
            return next(iter(own))
        if len(self) <= self._most:
            return None
        ofSource = max(self._silent.values(), key=len)
        victim = next(iter(ofSource))
        # The new mux is spared, because its peer has had no time to send anything yet.
        return victim if victim is not mux else next(iter(self._sources))

    def replace(self, old: Stranger, new: Stranger) -> None:
        """
        A connection gets its mux, which takes its place: it is as old.
        """
        self._sources = {new if m is old else m: s for m, s in self._sources.items()}
        source = self._sources[new]
        silent = self._silent.get(source, {})
        if old in silent:
            self._silent[source] = {
                new if mux is old else mux: since for mux, since in silent.items()
            }

    def met(self, address: IAddress, name: str) -> None:
        """
        Remember the address of a peer that has shown its key.

        @param name: the name of the key.
        """
        source = sourceOf(address)
        if source is not None:
            self._known.pop(source, None)
            self._known[source] = name
            if len(self._known) > KNOWN_ADDRESSES:
                del self._known[next(iter(self._known))]

    def nameAt(self, address: IAddress | None) -> str | None:
        """
        @return: the name of the key that a peer at this address has shown last; C{None}
            if none has, or it is forgotten.
        """
        source = sourceOf(address)
        return None if source is None else self._known.get(source)

    def heard(self, mux: Stranger, name: str) -> None:
        """
        The peer has sent a genuine frame.  The frame may still be a recorded one, so
        the peer is a stranger until it has finished the handshake of strict mode.

        One peer can protect only half of the connections that there may be in this way:
        the frames may all be recorded ones, from before this process was started.

        @param name: the name of its key.
        """
        if mux in self._sources and mux not in self._heard:
            if 2 * self._heardOf[name] >= self._most:
                return
            self._heard[mux] = name
            self._heardOf[name] += 1
            self._speaks(mux)

    def _speaks(self, mux: Stranger) -> None:
        """
        The peer is silent no more.
        """
        source = self._sources.get(mux)
        silent = self._silent.get(source, {})
        silent.pop(mux, None)
        if not silent:
            self._silent.pop(source, None)

    def remove(self, mux: Stranger) -> None:
        """
        The peer has shown that it holds a key, or the mux has ended.
        """
        self._speaks(mux)
        name = self._heard.pop(mux, None)
        if name is not None:
            self._heardOf[name] -= 1
            if not self._heardOf[name]:
                del self._heardOf[name]
        if mux in self._sources:
            source = self._sources.pop(mux)
            self._keyring.descriptors.strangers -= 1
            self._counts[source] -= 1
            if not self._counts[source]:
                del self._counts[source]


class Refused(PassedDropper, Protocol):
    """
    The protocol of a connection that is refused: it drops the connection.

    C{buildProtocol} does not return C{None} instead, because some wrappers of
    factories, such as that of TLS, do not allow that.
    """

    def connectionMade(self) -> None:
        """
        Drop the connection.
        """
        acceptOne(self.transport)
        dropTransport(cast(ITransport, self.transport))
