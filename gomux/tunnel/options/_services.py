# -*- test-case-name: gomux.test.test_tap -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The services and peers in the options of C{twistd gomux}: which factory serves a
service, which peers may use it, and to which peer a connection goes.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from twisted.internet.interfaces import IProtocolFactory
from twisted.python.reflect import namedAny

from gomux._wire.keyring import HEADING, Keyring
from gomux._wire.peerrules import EVERYBODY
from gomux._wire.request import UNNAMED, checkServiceName
from gomux.error import KeyringError


def splitService(text: str) -> tuple[str | None, str]:
    """
    Split the value of an option: C{[SERVICE=]REST}.

    @return: the name of the service, C{None} without one; and the rest.
    @raise ValueError: if the name is not valid.
    """
    service, rest = _split(text)
    return service if service is None else checkServiceName(service), rest


def checkPeer(peer: str, peers: Collection[str]) -> str:
    """
    @param peer: the name of a peer.
    @param peers: the names of the peers' keys.
    @return: the name.
    @raise ValueError: if no key has it.
    """
    if not peer or peer not in peers:
        hint = f"; a file that begins with {HEADING.decode()} has names"
        more = "" if any(peers) else hint
        raise ValueError(f"no key has the name {peer!r}{more}")
    return peer


def splitForward(
    text: str, peers: Collection[str]
) -> tuple[str | None, str | None, str]:
    """
    Split the value of an option: C{[SERVICE][@PEER]=ENDPOINT}.

    @param peers: the names of the peers' keys.
    @return: the names of the service and the peer, C{None} for each that is not given;
        and the endpoint.
    @raise ValueError: if a name is not valid, or no key has it.
    """
    names, endpoint = _split(text)
    if names is None:
        return None, None, endpoint
    service, isNamed, peer = names.partition("@")
    return (
        checkServiceName(service) if service or not isNamed else None,
        checkPeer(peer, peers) if isNamed else None,
        endpoint,
    )


def splitConnect(text: str, keyring: Keyring) -> tuple[str | None, str]:
    """
    Split the value of an option: C{[PEER=]ENDPOINT}.

    @return: the name of the peer, C{None} if there is a single key and no name; and the
        endpoint.
    @raise ValueError: if no key has the name, or a name is needed.
    """
    peer, endpoint = _split(text)
    if peer is not None:
        return checkPeer(peer, keyring.names), endpoint
    try:
        keyring.single()
    except KeyringError as error:
        raise ValueError(f"say whose key to use, as PEER=ENDPOINT: {error}") from None
    return None, endpoint


def _split(text: str) -> tuple[str | None, str]:
    """
    Split the value of an option: C{[NAME=]REST}.

    @param text: the value.  C{REST} is the name of a factory or the string of an
        endpoint, neither of which begins with a word and an equals sign.
    """
    match = re.fullmatch("([^:=]*)=(.*)", text, re.DOTALL)
    return (None, text) if match is None else (match[1], match[2])


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


def splitAllow(text: str, peers: Collection[str]) -> tuple[str, list[str]]:
    """
    Split the value of an option: C{PEER=SERVICE[,SERVICE...]}.

    @param peers: the names of the peers' keys.
    @return: the name of the peer, or L{EVERYBODY}, and those of the services.
    @raise ValueError: if the rule is not valid, or for nobody.
    """
    peer, isRule, services = text.partition("=")
    if not isRule:
        raise ValueError("a rule has the form PEER=SERVICE[,SERVICE...]")
    if peer != EVERYBODY:
        checkPeer(peer, peers)
    return peer, [checkAllowed(service) for service in services.split(",")]


def checkAllowed(service: str) -> str:
    """
    @param service: the name of a service in a rule; C{unnamed} for streams without one.
    @return: the name.
    @raise ValueError: if it is not valid.
    """
    return service if service == UNNAMED else checkServiceName(service)
