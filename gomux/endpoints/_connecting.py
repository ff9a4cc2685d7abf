# -*- test-case-name: gomux.test.endpoints.test_connecting -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Client endpoints from strings.

Twisted's C{tcp:} endpoint takes only the first IPv4 address of a name, and its
C{connect} never ends if the name cannot exist, such as C{a..b}.  L{HostnameEndpoint}
tries all addresses of a name, IPv6 addresses too, and refuses such a name at once.

All connections of an endpoint share its look-ups: see L{gomux.endpoints._lookups}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    clientFromString,
)
from twisted.internet.interfaces import (
    IReactorPluggableNameResolver,
    IStreamClientEndpoint,
)

from gomux.endpoints._lookups import ResolvedReactor, SharedLookUps


def clientEndpoint(reactor: Any, description: str) -> IStreamClientEndpoint:
    """
    Make the client endpoint that a string describes.  If it is a C{tcp:} endpoint with
    a name, all addresses of that name are tried.

    @param reactor: the reactor.
    @param description: the endpoint string.
    @return: the endpoint.
    @raise ValueError: if the string is not valid.
    """
    endpoint: Any = clientFromString(reactor, description)
    if not IReactorPluggableNameResolver.providedBy(reactor):
        return endpoint  # type: ignore[no-any-return]
    resolved = ResolvedReactor(reactor)
    # An endpoint has no public attributes for its arguments.
    named = getattr(endpoint, "_wrappedEndpoint", None)
    if isinstance(named, HostnameEndpoint):
        # TLS.
        if _isAddress(named._hostText):
            return endpoint  # type: ignore[no-any-return]
        endpoint = clientFromString(resolved, description)
        named = endpoint._wrappedEndpoint
    elif type(endpoint) is not TCP4ClientEndpoint or _isAddress(endpoint._host):
        return endpoint  # type: ignore[no-any-return]
    else:
        # Twisted has no string for a HostnameEndpoint without TLS.
        endpoint = named = HostnameEndpoint(
            resolved,
            endpoint._host,
            endpoint._port,
            endpoint._timeout,
            endpoint._bindAddress,
        )
    if named._badHostname:
        return endpoint  # type: ignore[no-any-return]
    return SharedLookUps(reactor, resolved, endpoint, named)


def _isAddress(host: str) -> bool:
    """
    @return: whether a host is an address, which needs no resolver, whose threads would
        take time.
    """
    return isIPAddress(host) or isIPv6Address(host)
