# -*- test-case-name: gomux.test.mux.test_requests -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
What the muxes of a factory serve to their peers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory

from gomux._carrier.accept import AcceptPace
from gomux._carrier.busypoll import BusyPoll
from gomux._fastpaths import fastPaths
from gomux._mux.log import logPrefixOf
from gomux._mux.startstop import startFactory, stopFactories
from gomux._mux.strangers import Strangers
from gomux._wire.request import checkServiceName
from gomux.error import ServiceWithdrawn

if TYPE_CHECKING:
    from gomux._mux.protocol import MuxProtocol
    from gomux._mux.streamlife import StreamLife
    from gomux.interfaces import IStreamFactory
    from gomux.limits import Limits


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
    busyPoll: BusyPoll
    limits: Limits
    muxes: list[MuxProtocol]
    lingering: dict[StreamLife, MuxProtocol]
    streamFactory: IStreamFactory | IProtocolFactory | None = None
    services: dict[str, IStreamFactory | IProtocolFactory] = {}
    _strangers: Strangers
    mayUse: Callable[[str, str | None], bool] | None = None

    def serve(
        self,
        streamFactory: IStreamFactory | IProtocolFactory | None,
        services: Mapping[str, IStreamFactory | IProtocolFactory],
    ) -> None:
        """
        Set what is served, for streams that are opened from now on.

        @param streamFactory: makes the protocols of streams without a service.
        @param services: makes those of streams for a service, by its name.
        @raise ValueError: if a name is not valid.
        """
        checked = {checkServiceName(name): f for name, f in services.items()}
        before = (self.streamFactory, *self.services.values())
        self.streamFactory = streamFactory
        self.services = checked
        if self.numPorts:
            after = (streamFactory, *checked.values())
            for factory in after:
                if not any(factory is old for old in before):
                    startFactory(factory)
            stopFactories(
                old for old in before if not any(old is factory for factory in after)
            )

    def limit(self, limits: Limits) -> None:
        """
        Set the limits of the muxes that are made from now on.
        """
        self.limits = self._strangers.limits = limits
        self.busyPoll.moment = limits.busyPoll if fastPaths().busyPoll else 0.0

    def endWithdrawn(self) -> None:
        """
        End the streams of peers for services that L{mayUse} does not allow any more, at
        once.  Their waiting input is dropped.
        """
        streams: list[tuple[Any, MuxProtocol]] = [*self.lingering.items()]
        streams += [(s, mux) for mux in self.muxes for s in mux.acceptedStreams]
        for stream, mux in streams:
            isPeers = mux.isPeers(stream.streamID)
            if isPeers and not self.isAllowed(mux.peerName, stream.service):
                stream.drop(ServiceWithdrawn())

    def isAllowed(self, peer: str, service: str | None) -> bool:
        """
        @param peer: the name of the peer's key.
        @param service: the name of the service; C{None} for a stream without one.
        @return: whether the peer may use the service.
        """
        return self.mayUse is None or self.mayUse(peer, service)

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
