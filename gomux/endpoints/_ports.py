# -*- test-case-name: gomux.test.endpoints.test_services -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The listening ports of server endpoints.

Several endpoints with the same carrier, key and settings share one L{SharedPort}, each
with a service of its own.  The carrier is listened on while at least one of them
listens.  Each has a L{MuxPort}.
"""

from __future__ import annotations

from collections.abc import Hashable, MutableMapping
from typing import Any

from twisted.internet.defer import Deferred, fail, gatherResults, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from gomux._mux.factory import MuxFactory
from gomux._mux.newcomer import Newcomers
from gomux._mux.protocol import MuxProtocol
from gomux._mux.startstop import startFactory


class SharedPort:
    """
    The listening port of a carrier, and the services behind it.

    @ivar factory: makes the muxes.
    @ivar port: the listening port of the carrier; C{None} before there is one.
    @ivar _carrier: listens for the carriers.
    @ivar _shared: see L{__init__}.
    @ivar _key: see L{__init__}.
    @ivar _members: the ports that listen, by service.
    @ivar _waiting: the ports that wait for the carrier to listen, with the results of
        L{listen}.
    @ivar _opening: the result of the carrier's C{listen}, while ports wait for it.
    """

    def __init__(
        self,
        carrier: IStreamServerEndpoint,
        factory: MuxFactory,
        shared: MutableMapping[Hashable, SharedPort],
        key: Hashable,
    ) -> None:
        """
        @param carrier: listens for the carriers.
        @param factory: makes the muxes.
        @param shared: the shared ports on which other endpoints can listen.  This one
            is there while it listens, unless another has its place.
        @param key: the key in C{shared}.
        """
        self.factory = factory
        self.port: Any = None
        self._carrier = carrier
        self._shared = shared
        self._key = key
        self._members: dict[str | None, MuxPort] = {}
        self._waiting: dict[MuxPort, Deferred[MuxPort]] = {}
        self._opening: Deferred[IListeningPort] | None = None

    @property
    def isEmpty(self) -> bool:
        """
        Whether nobody listens.
        """
        return not self._members

    def serves(self, service: str | None) -> bool:
        """
        @return: whether a port listens for a service.
        """
        return service in self._members

    def listen(
        self,
        service: str | None,
        streamFactory: IProtocolFactory,
        peer: str | None = None,
    ) -> Deferred[MuxPort]:
        """
        Listen for a service.

        @param service: the name of the service; C{None} for streams without one.
        @param streamFactory: makes the protocol of each stream.
        @param peer: the name of the only peer that may use the service; C{None} if all
            may.
        @return: fires with the port once the carrier is listened on.
        """
        member = MuxPort(self, service, streamFactory, peer)
        try:
            self.add(member)
        except BaseException:
            return fail(Failure())
        if self.port is not None:
            return succeed(member)
        result: Deferred[MuxPort] = Deferred(lambda _: self._cancelled(member))
        self._waiting[member] = result
        if self._opening is None:
            opening: Deferred[IListeningPort] = self._carrier.listen(
                Newcomers(self.factory)
            )
            self._opening = opening
            opening.addCallbacks(self._listens, self._failed)
        return result

    def _listens(self, port: IListeningPort) -> None:
        self._opening = None
        self.port = port
        waiting, self._waiting = self._waiting, {}
        for member, result in waiting.items():
            result.callback(member)

    def _failed(self, failure: Failure) -> None:
        self._opening = None
        waiting, self._waiting = self._waiting, {}
        for member in waiting:
            self._remove(member)
        for result in waiting.values():
            if not result.called:
                result.errback(failure)

    def _cancelled(self, member: MuxPort) -> None:
        """
        A port does not want to listen any more, before the carrier is listened on.
        """
        del self._waiting[member]
        self._remove(member)
        if not self._waiting and self._opening is not None:
            self._opening.cancel()

    def add(self, member: MuxPort) -> None:
        """
        Add a port to those that listen.

        @raise CannotListenError: if another port has the same service.
        """
        service = member.service
        if service in self._members:
            which = "streams" if service is None else f"the service {service!r}"
            why = f"{which} of this carrier is served already"
            raise CannotListenError("gomux", self._carrier, why)
        if not self._members:
            # What the last port that has stopped left for the carrier's port to stop.
            self.factory.streamFactory = None
            self.factory.services.clear()
        if self.factory.numPorts:
            startFactory(member.streamFactory)
        self._members[service] = member
        if member.peer is not None:
            self.factory.mayUse = self._mayUse
        if service is None:
            self.factory.streamFactory = member.streamFactory
        else:
            self.factory.services[service] = member.streamFactory
        self._shared.setdefault(self._key, self)

    def _mayUse(self, peer: str, service: str | None) -> bool:
        """
        @return: whether a peer may use a service.  Nobody may use any after the last
            port has stopped, although the factory still has its streams' factory.
        """
        member = self._members.get(service)
        if member is None:
            return not self.isEmpty
        return member.peer in (None, peer)

    def _remove(self, member: MuxPort) -> None:
        """
        Remove a port from those that listen.  After the last, the factory keeps its
        streams' factory, and stops it when the carrier's port stops.
        """
        del self._members[member.service]
        if not self._members:
            if self._shared.get(self._key) is self:
                del self._shared[self._key]
        elif member.service is None:
            self.factory.streamFactory = None
        else:
            del self.factory.services[member.service]

    def restart(self, member: MuxPort) -> None:
        """
        Let a port listen again.

        @raise CannotListenError: if the carrier cannot be listened on, or another port
            has the same service.
        """
        wasEmpty = self.isEmpty
        self.add(member)
        if wasEmpty:
            self.factory.retired = False
            try:
                self.port.startListening()
            except BaseException:
                self._remove(member)
                raise

    def stop(self, member: MuxPort) -> Deferred[Any]:
        """
        Accept no more streams for a port.  With the last one, stop listening and accept
        no more muxes.

        @return: fires when that is done and, with the last, muxes without streams are
            gone.
        """
        if self._members.get(member.service) is member:
            self._remove(member)
            if self._members:
                if not self.factory.numPorts:
                    return succeed(None)
                doStop = getattr(member.streamFactory, "doStop", lambda: None)
                return maybeDeferred(doStop)
        elif self._members:
            return succeed(None)
        # stdio: has no port, only the carrier itself.
        stop = getattr(self.port, "stopListening", lambda: None)
        stopped: Deferred[Any] = maybeDeferred(stop)
        self.factory.retire()
        idle = [mux for mux in self.factory.muxes if not mux.streamCount]
        return stopped.addCallback(_whenClosed, idle)


@implementer(IListeningPort)
class MuxPort:
    """
    The listening port of a L{MuxServerEndpoint}.

    @ivar factory: makes the muxes.  Its C{pool} has the muxes that are up.
    @ivar service: the name of the service; C{None} for streams without one.
    @ivar streamFactory: makes the protocol of each stream.
    @ivar peer: the name of the only peer that may use the service; C{None} if all may.
    @ivar _shared: the port of the carrier.
    """

    def __init__(
        self,
        shared: SharedPort,
        service: str | None,
        streamFactory: IProtocolFactory,
        peer: str | None = None,
    ) -> None:
        self._shared = shared
        self.factory = shared.factory
        self.service = service
        self.peer = peer
        self.streamFactory = streamFactory

    def __repr__(self) -> str:
        name = "" if self.service is None else f" {self.service!r}"
        return f"<MuxPort{name} on {self._shared.port!r}>"

    def getHost(self) -> IAddress:
        """
        @return: the address that the carrier listens on.
        """
        host: IAddress = self._shared.port.getHost()
        return host

    def startListening(self) -> None:
        """
        Listen again.

        @raise CannotListenError: if the carrier cannot be listened on, or if another
            port has the same service by now.
        """
        self._shared.restart(self)

    def stopListening(self) -> Deferred[None]:
        """
        Accept no more streams.  If no other service is served on the carrier, accept no
        more muxes either.  A mux that was accepted before but comes up later is then
        closed as soon as it is up.

        Open streams stay open, as TCP connections do.  A mux is closed when its
        last stream ends.  L{close} ends streams and muxes.

        @return: fires when the carrier has stopped listening and the muxes
            that had no streams are gone.
        """
        return self._shared.stop(self)

    def close(self) -> Deferred[None]:
        """
        Stop listening, and close all muxes.  Each stream first sends its output,
        for at most L{gomux.Limits.closeTimeout} seconds.  If other services are served
        on the carrier, close only the streams of this one.

        @return: fires when all muxes are gone, or at once if other services are served.
        """
        stopped = self.stopListening()
        muxes = list(self.factory.muxes)
        if not self._shared.isEmpty:
            for mux in muxes:
                mux.closeService(self.service)
            return stopped
        for mux in muxes:
            if mux.streamCount:
                mux.close()
        return stopped.addBoth(_whenClosed, muxes)


def _whenClosed(result: Any, muxes: list[MuxProtocol]) -> Deferred[Any]:
    """
    @return: fires with C{result} once all muxes are gone.
    """
    closed: Deferred[Any] = gatherResults([mux.whenClosed() for mux in muxes])
    return closed.addCallback(lambda _: result)
