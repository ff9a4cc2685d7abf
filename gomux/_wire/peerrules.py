# -*- test-case-name: gomux.test.wire.test_peerrules -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
What each peer of a keyring may use, and what it uses.

A peer may have L{PeerRules}.  L{PeerUses} keeps the rules of all peers, and one
L{PeerUse} for each peer: what it uses at the moment on all muxes of the keyring.  The
muxes and tunnels ask it before they give the peer more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from math import inf
from types import MappingProxyType

from gomux._wire.request import UNNAMED, checkServiceName

#: The name that stands for all peers in rules.
EVERYBODY = "*"


@dataclass(frozen=True)
class PeerRules:
    """
    What one peer may use.  C{None} sets no rule: then the rule for C{"*"} holds, if
    there is one.  The limits for all peers hold besides.

    @ivar services: the names of the services that the peer may use; C{"unnamed"} stands
        for streams without a service.  Without a rule it may use all.

    @ivar maxMuxes: how many muxes the peer may have on a server, instead of
        L{gomux.Limits.maxMuxes}.

    @ivar maxStreams: how many streams the peer may have open on all its muxes together.
        More are refused; a stream for a service gets the answer C{busy}.

    @ivar maxConnections: how many connections to the targets of tunnels the peer may
        have at a time.  More are refused.

    @ivar maxBuffered: how much memory all muxes of the peer together may take for their
        streams and for data that waits, in bytes.  If they take more, the mux that
        takes most is ended.  Above three quarters of it, no window of the peer grows,
        and the peer opens no more streams.
    """

    services: Collection[str] | None = None
    maxMuxes: int | None = None
    maxStreams: int | None = None
    maxConnections: int | None = None
    maxBuffered: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.services, str):
            raise ValueError("services must be a collection of names, not one name")
        if self.services is not None:
            for name in self.services:
                if name != UNNAMED:
                    checkServiceName(name)
            object.__setattr__(self, "services", frozenset(self.services))
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value is not None and value < 1:
                raise ValueError(f"{field.name} must be greater than 0")

    def over(self, others: PeerRules) -> PeerRules:
        """
        @return: these rules, with those of C{others} where these set none.
        """
        pairs = (
            (getattr(self, field.name), getattr(others, field.name))
            for field in fields(self)
        )
        return PeerRules(*(other if own is None else own for own, other in pairs))


_NO_RULES = PeerRules()


class PeerUse:
    """
    The rules of one peer, and what it uses.

    @ivar name: the name of the peer.
    @ivar rules: its rules.
    @ivar maxBuffered: how many bytes its muxes may take, infinite without a rule.
    @ivar muxes: how many muxes it has on servers.
    @ivar streams: how many streams it has opened and not closed, without those whose
        request was not accepted yet.
    @ivar connections: how many connections to targets it has.
    @ivar buffered: how many bytes of memory its muxes take.
    """

    maxBuffered: float

    def __init__(self, name: str = "", rules: PeerRules = _NO_RULES) -> None:
        self.name = name
        self.muxes = self.streams = self.connections = self.buffered = 0
        self.follow(rules)

    def follow(self, rules: PeerRules) -> None:
        """
        Set the rules.  They hold for what the peer takes from now on.
        """
        self.rules = rules
        self.maxBuffered = inf if rules.maxBuffered is None else rules.maxBuffered

    def mayUse(self, service: str | None) -> bool:
        """
        @param service: the name of a service; C{None} for streams without one.
        @return: whether the peer may use it.
        """
        services = self.rules.services
        return services is None or (UNNAMED if service is None else service) in services

    @property
    def isFull(self) -> bool:
        """
        Whether the peer has as many streams as it may have.
        """
        most = self.rules.maxStreams
        return most is not None and self.streams >= most


#: What a mux uses whose peer has not shown a key yet: it has no streams.
NOBODY = PeerUse()


class PeerUses:
    """
    The rules of all peers of a keyring, and what they use.

    L{mayTake}, L{refusal}, L{take} and L{giveBack} are about connections to targets.
    They are those of L{Shares<gomux._wire.shares.Shares>}.

    @ivar _rules: the rules by the name of the peer.
    @ivar _uses: what each peer uses, by its name.
    """

    def __init__(self) -> None:
        self._rules: Mapping[str, PeerRules] = MappingProxyType({})
        self._uses: dict[str | None, PeerUse] = {}

    def __getitem__(self, name: str | None) -> PeerUse:
        """
        @param name: the name of a peer; C{None} for what no peer causes.
        @return: what the peer uses.
        """
        use = self._uses.get(name)
        if use is None:
            use = self._uses[name] = PeerUse(name or "", self._rulesFor(name))
        return use

    def _rulesFor(self, name: str | None) -> PeerRules:
        if name is None:
            return _NO_RULES
        others = self._rules.get(EVERYBODY, _NO_RULES)
        return self._rules.get(name, _NO_RULES).over(others)

    @property
    def rules(self) -> Mapping[str, PeerRules]:
        """
        The rules by the name of the peer.
        """
        return self._rules

    @rules.setter
    def rules(self, rules: Mapping[str, PeerRules]) -> None:
        self._rules = MappingProxyType(dict(rules))
        for name, use in self._uses.items():
            use.follow(self._rulesFor(name))

    def mayTake(self, peer: str | None) -> bool:
        """
        @param peer: the name of a peer; C{None} for what no peer causes.
        @return: whether the peer may have one more connection.
        """
        use = self[peer]
        most = use.rules.maxConnections
        return most is None or use.connections < most

    def refusal(self, peer: str | None, places: str) -> str:
        """
        @param places: what is counted: C{"connections"}.
        @return: why the peer may not have one more.
        """
        return f"{peer!r} has {self[peer].connections} {places} already"

    def take(self, peer: str | None) -> None:
        """
        A peer has one more connection.
        """
        self[peer].connections += 1

    def giveBack(self, peer: str | None) -> None:
        """
        A connection of a peer has ended.
        """
        self[peer].connections -= 1
