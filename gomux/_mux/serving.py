# -*- test-case-name: gomux.test.mux.test_requests -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
What the muxes of a factory serve to their peers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from gomux._carrier.accept import AcceptPace
from gomux._carrier.busypoll import BusyPoll
from gomux._fastpaths import fastPaths
from gomux._mux.log import logPrefixOf
from gomux._mux.startstop import startFactory, stopFactories, stopFactory
from gomux._mux.strangers import Strangers
from gomux._wire.request import checkServiceName
from gomux.error import KeyRevoked, LimitExceeded, ServiceWithdrawn

if TYPE_CHECKING:
    from gomux._mux.newcomer import Newcomer
    from gomux._mux.protocol import MuxProtocol
    from gomux._mux.streamlife import StreamLife
    from gomux._wire.keyring import Keyring
    from gomux.interfaces import IStreamFactory
    from gomux.limits import Limits

_log = Logger()


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
    isClient: bool
    keyring: Keyring
    limits: Limits
    muxes: list[MuxProtocol]
    lingering: dict[StreamLife, MuxProtocol]
    streamFactory: IStreamFactory | IProtocolFactory | None = None
    services: dict[str, IStreamFactory | IProtocolFactory] = {}
    _newcomers: set[Newcomer]
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
            for factory in (streamFactory, *checked.values()):
                try:
                    startFactory(factory)
                except Exception:
                    _log.failure("doStart of {factory} failed", factory=factory)
            for old in before:
                stopFactory(old)

    def limit(self, limits: Limits) -> None:
        """
        Set the limits of the muxes that are made from now on.
        """
        self.limits = self._strangers.limits = limits
        self.busyPoll.moment = limits.busyPoll if fastPaths().busyPoll else 0.0

    def checkRoom(self, peer: str) -> None:
        """
        Check that a peer that comes up may have another mux.

        @param peer: the name of its key.
        @raise LimitExceeded: if not.
        """
        keyring = self.keyring
        if not keyring.descriptors.mayTake(peer):
            why = keyring.descriptors.refusal(peer, "descriptors")
            raise LimitExceeded(why)
        use = keyring.uses[peer]
        most = use.rules.maxMuxes or self.limits.maxMuxes
        if use.muxes >= most and not self.isClient:
            raise LimitExceeded(f"the peer has {use.muxes} muxes already, see maxMuxes")

    @property
    def isIdle(self) -> bool:
        """
        Whether it has no muxes, no connections that may become muxes, and no streams
        that still have input to deliver.
        """
        return not (self.muxes or self.lingering or len(self._strangers))

    def endRevoked(self, names: Collection[str]) -> None:
        """
        End the muxes of peers with revoked keys, at once.  Output that is not sent
        yet is dropped, and so is input that a paused stream has not delivered, also if
        its mux has ended before.  If a reload has taken one of two keys of a name away,
        a mux with the other key goes on.

        This also ends every mux whose peer has not shown a key yet: its gate still
        accepts the keys from before the revocation.

        @param names: the names of the revoked keys, as returned by
            L{Keyring.reload<gomux._wire.keyring.Keyring.reload>}.
        """
        if names:
            for newcomer in list(self._newcomers):
                newcomer.revoke()
            keyring = self.keyring
            keys = tuple(key for key in keyring.keys if key[0] in keyring.replaced)
            for mux in list(self.muxes):
                if not mux.authenticated or mux.isRevoked(names, keys):
                    mux.revoke()
            for stream, mux in list(self.lingering.items()):
                if mux.isRevoked(names, keys):
                    stream.drop(KeyRevoked())

    def dropStrangers(self) -> None:
        """
        Drop a server's connections whose peers have not shown the key, at once.
        """
        for newcomer in list(self._newcomers):
            newcomer.drop()
        for mux in list(self.muxes):
            if not (mux.authenticated or self.isClient):
                mux.abort()

    def endWithdrawn(self) -> None:
        """
        End the streams of peers for services that the rules of the keyring do not allow
        any more, at once.  Their waiting input is dropped.
        """
        lingering: Any = self.lingering.items()
        streams = [(s, mux) for s, mux in lingering if mux.isPeers(s.streamID)]
        streams += [(s, mux) for mux in self.muxes for s in mux.acceptedStreams]
        for stream, mux in streams:
            if not self.keyring.uses[mux.peerName].mayUse(stream.service):
                stream.drop(ServiceWithdrawn())

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
