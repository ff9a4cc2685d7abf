# -*- test-case-name: gomux.test.endpoints.test_connecting -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Client endpoints from strings.

Twisted's C{tcp:} endpoint takes only the first IPv4 address of a name, and its
C{connect} never ends if the name cannot exist, such as C{a..b}.  L{HostnameEndpoint}
tries all addresses of a name, IPv6 addresses too, and refuses such a name at once.
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
    resolves = IReactorPluggableNameResolver.providedBy(reactor)
    if type(endpoint) is not TCP4ClientEndpoint or not resolves:
        return endpoint  # type: ignore[no-any-return]
    # Twisted has no string for a HostnameEndpoint without TLS, so one is made here.  An
    # endpoint has no public attributes for its arguments.
    host = endpoint._host
    if isIPAddress(host) or isIPv6Address(host):
        # An address needs no resolver, whose threads would take time.
        return endpoint
    return HostnameEndpoint(
        reactor, host, endpoint._port, endpoint._timeout, endpoint._bindAddress
    )
