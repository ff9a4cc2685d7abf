# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux.endpoints._connecting}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from gomux.endpoints._connecting import clientEndpoint
from gomux.endpoints._lookups import SharedLookUps


class ClientEndpointTests(TestCase):
    """
    Tests for L{clientEndpoint}.
    """

    timeout = 5

    def test_name(self) -> None:
        """
        All addresses of a name are tried, with the timeout and the local address of the
        string.
        """
        shared: Any = clientEndpoint(
            reactor, "tcp:service.test:80:timeout=7:bindAddress=127.0.0.2"
        )
        endpoint = shared.endpoint
        self.assertIs(type(endpoint), HostnameEndpoint)
        self.assertEqual(endpoint._hostText, "service.test")
        self.assertEqual(endpoint._port, 80)
        self.assertEqual(endpoint._timeout, 7)
        self.assertEqual(endpoint._bindAddress, ("127.0.0.2", 0))

    def test_address(self) -> None:
        """
        The endpoint of an address, with or without a scope, is Twisted's own.
        """
        for host in ("127.0.0.1", r"\:\:1", r"fe80\:\:1%eth0"):
            endpoint = clientEndpoint(reactor, f"tcp:{host}:80")
            self.assertIs(type(endpoint), TCP4ClientEndpoint, host)

    def test_otherEndpoints(self) -> None:
        """
        An endpoint that is not C{tcp:} is Twisted's own.
        """
        endpoint = clientEndpoint(reactor, "unix:/nowhere")
        self.assertIs(type(endpoint), UNIXClientEndpoint)

    def test_tlsAddress(self) -> None:
        """
        The endpoint of an address with TLS is Twisted's own.
        """
        endpoint: Any = clientEndpoint(reactor, "tls:127.0.0.1:443")
        self.assertNotIsInstance(endpoint, SharedLookUps)
        self.assertIs(endpoint._wrappedEndpoint._reactor, reactor)

    async def test_badName(self) -> None:
        """
        A name that cannot exist fails at once: an empty label, or one that is too long.
        """
        for host in ("a..b", "a" * 64 + ".test"):
            endpoint = clientEndpoint(reactor, f"tcp:{host}:80")
            connecting = endpoint.connect(Factory.forProtocol(Protocol))
            await self.assertFailure(connecting, ValueError)
