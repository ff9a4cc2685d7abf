# -*- test-case-name: gomux.test.endpoints.test_lookups -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
One look-up of a name at a time, for all connections to it.

Twisted looks names up in a few threads, and cannot cancel a look-up.  A peer that opens
and closes streams to a target causes a look-up each time.  If each were made, they
would queue up without bound, and the look-ups of all others would wait behind them.
"""

from __future__ import annotations

from math import inf
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from zope.interface import implementer

from gomux._carrier.clock import steady
from gomux._carrier.turns import DONE, Turns

#: A look-up that has taken longer than this is not waited for any more, in seconds.
#: Some failures of the resolver are never reported.
LOOK_UP_TIMEOUT = 30.0


@implementer(IReactorPluggableNameResolver)
class ResolvedReactor:
    """
    The reactor for endpoints of a name that was looked up before.

    @ivar nameResolver: has the addresses.
    @ivar addresses: the addresses of the name.
    @ivar _reactor: the reactor.
    """

    def __init__(self, reactor: Any) -> None:
        """
        @param reactor: the reactor.
        """
        self.nameResolver = self
        self.addresses: list[IAddress] = []
        self._reactor = reactor

    def resolveHostName(
        self, receiver: Any, hostName: str, portNumber: int = 0, *ignored: object
    ) -> Any:
        """
        Tell the addresses at once.
        """
        receiver.resolutionBegan(None)
        for address in self.addresses:
            receiver.addressResolved(address)
        receiver.resolutionComplete()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@implementer(IResolutionReceiver)
class _LookUp:
    """
    A look-up.

    @ivar since: when it began, in seconds.
    @ivar addresses: the addresses so far.
    @ivar _done: called at its end.
    """

    def __init__(self, since: float, done: Any) -> None:
        self.since = since
        self.addresses: list[IAddress] = []
        self._done = done

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """
        It begins.
        """

    def addressResolved(self, address: IAddress) -> None:
        """
        Take an address.
        """
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        """
        It has ended.
        """
        self._done(self)


@implementer(IStreamClientEndpoint)
class SharedLookUps:
    """
    An endpoint that looks its name up once for all connections that wait meanwhile.
    When the look-up has ended, the connections are begun in turns.

    @ivar endpoint: makes the connections, to addresses that are known.
    @ivar _named: the part of it that has the name.
    @ivar _reactor: the reactor.
    @ivar _resolved: the reactor of C{endpoint}.
    @ivar _clock: tells the time.
    @ivar _turns: spreads the beginnings of connections over turns of the reactor.
    @ivar _lookUp: the look-up that is under way; C{None} if there is none.
    @ivar _waiting: the connections that wait for it, as the keys of a dictionary.
    @ivar _ready: the connections that can begin.
    """

    def __init__(
        self,
        reactor: Any,
        resolved: ResolvedReactor,
        endpoint: IStreamClientEndpoint,
        named: HostnameEndpoint,
    ) -> None:
        """
        @param reactor: the reactor.
        @param resolved: the reactor of C{endpoint}.
        @param endpoint: makes the connections.
        @param named: the part of it that has the name: itself, or what it wraps.
        """
        self.endpoint = endpoint
        self._named: Any = named
        self._reactor = reactor
        self._resolved = resolved
        self._clock: Any = steady(reactor)
        self._turns = Turns(self._clock)
        self._lookUp: _LookUp | None = None
        self._waiting: dict[Deferred[Any], None] = {}
        self._ready: dict[Deferred[Any], list[IAddress]] = {}

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect, once the name was looked up.

        @param protocolFactory: makes the protocol.
        @return: fires with the protocol.  Can be cancelled.
        """
        found: Deferred[Any] = Deferred(self._forget)
        self._waiting[found] = None
        # When that waits for the connection, it can still be cancelled.
        found.addCallback(self._connect, protocolFactory)
        since = -inf if self._lookUp is None else self._lookUp.since
        now = self._clock.seconds()
        if now - since > LOOK_UP_TIMEOUT:
            self._lookUp = lookUp = _LookUp(now, self._found)
            named = self._named
            self._reactor.nameResolver.resolveHostName(
                lookUp, named._hostText, portNumber=named._port
            )
        return found

    def _connect(
        self, addresses: list[IAddress], protocolFactory: IProtocolFactory
    ) -> Deferred[IProtocol]:
        self._resolved.addresses = addresses
        return self.endpoint.connect(protocolFactory)

    def _forget(self, found: Deferred[Any]) -> None:
        self._waiting.pop(found, None)
        self._ready.pop(found, None)

    def _found(self, lookUp: _LookUp) -> None:
        """
        A look-up has ended: begin the connections that wait.
        """
        if lookUp is not self._lookUp:
            return
        self._lookUp = None
        isIdle = not self._ready
        self._ready.update(dict.fromkeys(self._waiting, lookUp.addresses))
        self._waiting.clear()
        if isIdle and self._ready:
            self._turns.begin(self._beginSome)

    def _beginSome(self, until: float) -> float:
        """
        Begin connections.

        @param until: the time after which to leave the rest for a later turn.
        @return: 0 if some are left, else L{DONE}.
        """
        while self._ready:
            found = next(iter(self._ready))
            found.callback(self._ready.pop(found))
            if self._ready and self._clock.seconds() >= until:
                return 0.0
        return DONE
