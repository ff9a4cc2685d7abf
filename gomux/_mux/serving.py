# -*- test-case-name: gomux.test.mux.test_requests -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
What the muxes of a factory serve to their peers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory

from gomux._carrier.accept import AcceptPace
from gomux._mux.log import logPrefixOf
from gomux._mux.startstop import startFactory, stopFactories
from gomux._wire.request import checkServiceName

if TYPE_CHECKING:
    from gomux.interfaces import IStreamFactory


class ServingFactory(Factory):
    """
    The part of a L{MuxFactory<gomux.MuxFactory>} that has the factories of streams.

    @ivar streamFactory: makes the protocols of streams that peers open; with
        C{None} the mux refuses those streams.
    @ivar services: the factories of the streams that peers open for a service, by the
        name of the service.
    @ivar mayUse: called for each stream that a peer opens, with the name of the peer's
        key and the name of the service, C{None} for a stream without one.  Returns
        whether the peer may use the service.  If not, the peer does not learn whether
        there is such a service.  C{None} if peers may use all services.
    @ivar acceptPace: limits how fast new carriers are accepted.
    """

    acceptPace: AcceptPace
    streamFactory: IStreamFactory | IProtocolFactory | None
    services: dict[str, IStreamFactory | IProtocolFactory]
    mayUse: Callable[[str, str | None], bool] | None = None

    def serve(
        self,
        streamFactory: IStreamFactory | IProtocolFactory | None,
        services: Mapping[str, IStreamFactory | IProtocolFactory],
    ) -> None:
        """
        Set what is served.

        @param streamFactory: makes the protocols of streams without a service.
        @param services: makes those of streams for a service, by its name.
        @raise ValueError: if a name is not valid.
        """
        self.streamFactory = streamFactory
        self.services = {checkServiceName(name): f for name, f in services.items()}

    def startFactory(self) -> None:
        """
        Start the streams' factories, which make protocols from now on.
        """
        startFactory(self.streamFactory)
        for factory in self.services.values():
            startFactory(factory)

    def stopFactory(self) -> None:
        """
        Stop the streams' factories.
        """
        self.acceptPace.stop()
        stopFactories((self.streamFactory, *self.services.values()))

    def logPrefix(self) -> str:
        """
        @return: the log prefix of the streams' factory, or of the first service's,
            followed by C{(gomux)}.
        """
        for factory in (self.streamFactory, *self.services.values()):
            if factory is not None:
                return f"{logPrefixOf(factory)} (gomux)"
        return type(self).__name__
