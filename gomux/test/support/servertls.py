# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
TLS around server endpoints, also for a Twisted that has none: C{wrapServerTLS} and the
endpoint string C{tls:} came after Twisted 25.5.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from twisted.internet import endpoints
from twisted.internet.interfaces import (
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.ssl import PrivateCertificate
from twisted.plugin import IPlugin, getPlugins
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface, implementer


@implementer(IStreamServerEndpoint)
class TLSServerEndpoint:
    """
    Listens with TLS on top of another endpoint.
    """

    def __init__(self, options: Any, endpoint: IStreamServerEndpoint) -> None:
        self.options = options
        self.endpoint = endpoint

    def listen(self, protocolFactory: Any) -> Any:
        return self.endpoint.listen(
            TLSMemoryBIOFactory(self.options, False, protocolFactory)
        )


#: Twisted's, if it is there.
wrapServerTLS = getattr(endpoints, "wrapServerTLS", TLSServerEndpoint)


@implementer(IPlugin, IStreamServerEndpointStringParser)
class TLSParser:
    """
    Makes C{tls:DIRECTORY:PORT} an endpoint with the directory's only certificate.
    """

    prefix = "tls"

    def parseStreamServer(
        self, reactor: Any, *args: Any, **kwargs: Any
    ) -> IStreamServerEndpoint:
        return self.parse(reactor, *args, **kwargs)

    def parse(
        self, reactor: Any, path: str, port: str = "443", interface: str = "::"
    ) -> IStreamServerEndpoint:
        [name] = os.listdir(path)
        with open(os.path.join(path, name), "rb") as file:
            options = PrivateCertificate.loadPEM(file.read()).options()
        inner = endpoints.TCP6ServerEndpoint(reactor, int(port), interface=interface)
        return TLSServerEndpoint(options, inner)


def offerTLSString(test: SynchronousTestCase) -> None:
    """
    Let C{serverFromString} know C{tls:} during a test.
    """
    if not hasattr(endpoints, "wrapServerTLS"):

        def plugins(interface: type[Interface]) -> Iterator[Any]:
            if interface is IStreamServerEndpointStringParser:
                yield TLSParser()
            yield from getPlugins(interface)

        test.patch(endpoints, "getPlugins", plugins)
