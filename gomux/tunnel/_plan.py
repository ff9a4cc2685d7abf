# -*- test-case-name: gomux.test.tunnel.test_running -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The plan: what a process is to run, as a plain value.

The options make it, from the command line and from a file: see L{gomux.tap}.
L{Running<gomux.tunnel._running.Running>} makes the process fit it, at the start and at
each reload.  Two items of two plans are the same if they have the same option and the
same text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from twisted.logger import Logger
from twisted.python.usage import UsageError

from gomux._wire.keyring import Keyring
from gomux._wire.peerrules import EVERYBODY, PeerRules
from gomux.limits import Limits, TunnelLimits

_log = Logger()


class Refused(UsageError):
    """
    The options are not valid.

    @ivar mistakes: each mistake, in a text of its own.
    """

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def withoutSecrets(endpoint: str) -> str:
    """
    @return: an endpoint string for log lines, without the pre-shared key and all after
        it: a key may have a colon, though there it ends for the parser.
    """
    return re.sub(r"\bpsk\\*=.*", "psk=...", endpoint, flags=re.DOTALL | re.IGNORECASE)


class Item(NamedTuple):
    """
    An endpoint or a factory.

    @ivar option: the option, without dashes.
    @ivar text: the value of the option.
    @ivar what: the endpoint, or the factory.
    @ivar service: the name of the service; C{None} for none.
    @ivar peer: the name of the peer; C{None} for none.
    @ivar string: the endpoint's string, without the names in front of it.
    @ivar factory: for a port that accepts neither muxes nor connections to forward, the
        factory for its connections.
    """

    option: str
    text: str
    what: Any
    service: str | None = None
    peer: str | None = None
    string: str = ""
    factory: Any = None

    @property
    def name(self) -> str:
        """
        Its name in log lines.
        """
        return f"--{self.option} {withoutSecrets(self.text)}"

    @property
    def key(self) -> tuple[str, str]:
        """
        What makes it the same item as another.
        """
        return self.option, str(self.text)


class Strict(NamedTuple):
    """
    The settings of strict mode.

    @ivar strict: whether all muxes are in strict mode, or the names of the peers whose
        muxes are.
    @ivar context: as for L{MuxFactory<gomux.MuxFactory>}.
    @ivar clock: as C{strictClock} there.
    @ivar allowSelf: whether the process may connect to itself.
    """

    strict: bool | tuple[str, ...] = False
    context: bytes = b""
    clock: bool = False
    allowSelf: bool = False


@dataclass
class Plan:
    """
    What a process is to run.

    @ivar keyring: the pre-shared keys.
    @ivar items: the endpoints and factories, in order: of the options C{listen},
        C{connect}, C{forward}, C{target}, C{factory}.  Items of any other option are
        ports with a C{factory} of their own.
    @ivar peers: the rules of single peers, by the name of the peer.
    @ivar muxLimits: the limits of muxes.
    @ivar limits: the limits of tunnels.
    @ivar strict: the settings of strict mode.
    @ivar endRevoked: whether a reload ends the muxes of revoked keys.
    @ivar accessLog: the path of the access log; C{None} if there is none.
    @ivar files: the files that a reload reads again, in words.
    """

    keyring: Keyring
    items: list[Item] = field(default_factory=list)
    peers: dict[str, PeerRules] = field(default_factory=dict)
    muxLimits: Limits = field(default_factory=Limits)
    limits: TunnelLimits = field(default_factory=TunnelLimits)
    strict: Strict = Strict()
    endRevoked: bool = False
    accessLog: str | None = None
    files: tuple[str, ...] = ()

    def of(self, *options: str) -> list[Item]:
        """
        @return: the items of some options.
        """
        return [item for item in self.items if item.option in options]

    def find(self, option: str, text: str) -> Item | None:
        """
        @return: the item of an option with a text; C{None} if there is none.
        """
        for item in self.items:
            if item.key == (option, str(text)):
                return item
        return None

    @property
    def ports(self) -> list[Item]:
        """
        The items that listen.
        """
        notPorts = ("connect", "target", "factory")
        return [item for item in self.items if item.option not in notPorts]

    @property
    def named(self) -> dict[str, str]:
        """
        The peers that the options name, by the option.
        """
        named = {
            f"--allow {peer}": peer
            for peer, rules in self.peers.items()
            if peer != EVERYBODY and rules.services is not None
        }
        named.update((item.name, item.peer) for item in self.items if item.peer)
        return named

    @property
    def known(self) -> frozenset[str]:
        """
        The names of peers that options may name: also those without a key, if options
        of the running process name them.  Their keys may have been removed.
        """
        strict = self.strict.strict
        peers = strict if isinstance(strict, tuple) else ()
        known = {*self.keyring.names, *self.named.values(), *peers, *self.peers}
        return frozenset(known)


def logChanges(old: Plan, new: Plan) -> None:
    """
    Log what a reload has added and removed.
    """
    keys = {item.key for item in old.items}, {item.key for item in new.items}
    for item in old.items:
        if item.key not in keys[1]:
            _log.info("{name}: removed; what is open goes on", name=item.name)
    for item in new.items:
        if item.key not in keys[0]:
            _log.info("{name}: added", name=item.name)
