# -*- test-case-name: gomux.test.test_tap -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The services in the options of C{twistd gomux}: which factory serves a service, and
which peers may use it.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from twisted.internet.interfaces import IProtocolFactory
from twisted.python.reflect import namedAny

from gomux._wire.request import UNNAMED, checkServiceName

#: The name that stands for all peers without a rule of their own.
EVERYBODY = "*"


def splitService(text: str) -> tuple[str | None, str]:
    """
    Split the value of an option: C{[SERVICE=]REST}.

    @param text: the value.  C{REST} is the name of a factory or the string of an
        endpoint, neither of which begins with a word and an equals sign.
    @return: the name of the service, C{None} without one; and the rest.
    @raise ValueError: if the name is not valid.
    """
    match = re.fullmatch("([^:=]*)=(.*)", text, re.DOTALL)
    if match is None:
        return None, text
    return checkServiceName(match[1]), match[2]


def findFactory(name: str) -> IProtocolFactory:
    """
    @param name: the dotted name of a factory, or of a callable that returns one.
    @return: the factory.
    @raise ValueError: if it cannot be imported or is not a factory.
    """
    try:
        found = namedAny(name)
    except Exception as error:
        raise ValueError(f"cannot be imported: {error}") from None
    if not IProtocolFactory.providedBy(found) and callable(found):
        try:
            found = found()
        except Exception as error:
            raise ValueError(f"calling it failed: {error}") from None
    if not IProtocolFactory.providedBy(found):
        raise ValueError("not an IProtocolFactory or a callable that returns one")
    return found


def withoutSecrets(endpoint: str) -> str:
    """
    @return: an endpoint string for log lines, without the pre-shared key and all after
        it: a key may have a colon, though there it ends for the parser.
    """
    return re.sub(r"\bpsk\\*=.*", "psk=...", endpoint, flags=re.DOTALL | re.IGNORECASE)


class Rules:
    """
    Which services each peer may use.

    @ivar _allowed: the services by the name of the peer, L{EVERYBODY} for all others.
    """

    def __init__(self) -> None:
        self._allowed: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._allowed)

    def allow(self, text: str, peers: Collection[str]) -> None:
        """
        Add a rule.

        @param text: the rule: C{PEER=SERVICE[,SERVICE...]}.
        @param peers: the names of the peers' keys.
        @raise ValueError: if the rule is not valid, or for nobody.
        """
        peer, isRule, services = text.partition("=")
        if not isRule:
            raise ValueError("a rule has the form PEER=SERVICE[,SERVICE...]")
        if peer != EVERYBODY and (not peer or peer not in peers):
            raise ValueError(f"no key has the name {peer!r}")
        for service in services.split(","):
            if service != UNNAMED:
                checkServiceName(service)
            self._allowed.setdefault(peer, set()).add(service)

    def mayUse(self, peer: str, service: str | None) -> bool:
        """
        @param peer: the name of the peer's key.
        @param service: the name of the service; C{None} for a stream without one.
        @return: whether the peer may use the service.  A peer with a rule of its own
            has only that.  Without any rule for a peer, it may use everything.
        """
        allowed = self._allowed.get(peer, self._allowed.get(EVERYBODY))
        return allowed is None or (UNNAMED if service is None else service) in allowed
