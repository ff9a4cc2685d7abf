"""
The Twisted plugins of gomux: the C{twistd} service and the C{gomux:} endpoint strings.

Every C{twistd} and every use of an endpoint plugin loads this module.  To keep that
fast, it imports gomux only when a plugin is called.
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
    Parses C{gomux:} strings of servers and clients, with L{gomux.endpoints._strings}.

    @ivar prefix: the first word of the strings that it parses.
    """

    prefix = "gomux"

    # The slash lets a string have a keyword "reactor", which no endpoint knows.

    def parseStreamServer(  # type: ignore[override]
        self, reactor: IReactorCore, /, *args: object, **kwargs: object
    ) -> IStreamServerEndpoint:
        from gomux.endpoints._strings import parseServer

        return parseServer(reactor, args, kwargs)

    def parseStreamClient(  # type: ignore[override]
        self, reactor: IReactorCore, /, *args: object, **kwargs: object
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
