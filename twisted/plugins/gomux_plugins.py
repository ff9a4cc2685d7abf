"""
What Twisted finds of gomux: the C{twistd} service and the string endpoints.

Every C{twistd} and every use of an endpoint plugin loads this module, so it
imports nothing of gomux: that happens when the plugins are called.
"""

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import (
    IReactorCore,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(
    IPlugin,
    IStreamServerEndpointStringParser,
    IStreamClientEndpointStringParserWithReactor,
)
class _EndpointParser:
    """
    C{gomux:}, for servers and for clients; L{gomux.endpoints._strings} does the work.

    @ivar prefix: The endpoint strings' first word.
    """

    prefix = "gomux"

    def parseStreamServer(
        self, reactor: IReactorCore, *args: object, **kwargs: object
    ) -> IStreamServerEndpoint:
        from gomux.endpoints._strings import parseServer

        return parseServer(reactor, args, kwargs)

    def parseStreamClient(
        self, reactor: IReactorCore, *args: object, **kwargs: object
    ) -> IStreamClientEndpoint:
        from gomux.endpoints._strings import parseClient

        return parseClient(reactor, args, kwargs)


gomuxService = ServiceMaker(
    "gomux",
    "gomux.tap",
    "A stream multiplexer: many services through one encrypted connection.",
    "gomux",
)
gomuxEndpoints = _EndpointParser()
