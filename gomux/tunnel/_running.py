# -*- test-case-name: gomux.test.tunnel.test_running -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The running parts of C{twistd gomux}, and how they are made to fit a plan.

L{Running.fit} does that at the start and at each reload.  It makes what the plan has
and the process has not, and has the new ports listen.  If any of them cannot, those
that do are closed again, and nothing has changed.  From then on nothing can fail: what
the plan has not any more is dropped, and the rest gets the plan's settings.

What is dropped:

  - A port stops to listen.  The connections that it has accepted go on, muxes too.
  - A connector dials no more, and its mux is drained: the streams that are open go on.
  - A tunnel makes no more bridges.  Those that it has go on.

A port whose endpoint string stays, but whose service or peer changes, goes on listening
with another factory.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import (
    Deferred,
    DeferredList,
    gatherResults,
    maybeDeferred,
)
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from gomux._mux.factory import MuxFactory
from gomux._mux.newcomer import Newcomers
from gomux._mux.pool import MuxPool
from gomux._wire.salts import Salts, processSalts
from gomux.error import OpenStreamError
from gomux.limits import TunnelLimits
from gomux.tunnel._accesslog import AccessLog, LoggedFactory
from gomux.tunnel._parts import (
    AccessLogService,
    Connector,
    ListeningService,
    ServiceDialler,
)
from gomux.tunnel._plan import Item, Plan
from gomux.tunnel._tunnel import Tunnel, forward, target

_log = Logger()

# What makes an item the same as another.
_Key = tuple[str, str]


class Running:
    """
    The parts of a process, by the option and the text of their items.

    @ivar plan: the plan that the parts fit.
    @ivar keyring: the pre-shared keys.  It is always the same object.
    @ivar pool: the muxes that are up.
    @ivar servers: the factories of the muxes that are accepted.
    @ivar connectors: what keeps muxes connected.
    @ivar tunnels: the tunnels of targets and forwards.
    @ivar ports: what listens.
    @ivar leftFactories: the factories of muxes that the plan has no more, and that may
        still have muxes.
    @ivar leftTunnels: the tunnels that the plan has no more, and that may still have
        bridges.
    @ivar accessLog: writes the access log; C{None} if there is none.
    @ivar _service: the service that the parts belong to.
    @ivar _clock: the reactor.
    @ivar _salts: what issues the salts of servers and of clients if the process may
        connect to itself.
    """

    def __init__(self, service: MultiService, plan: Plan, clock: Any) -> None:
        """
        @param service: the service that the parts belong to.  It does not run yet.
        @param plan: the plan.
        @param clock: the reactor.
        """
        self._service = service
        self._clock = clock
        self._salts = (Salts(), Salts())
        self.keyring = plan.keyring
        limits = plan.limits
        self.pool = MuxPool(clock, limits.waitTimeout, limits.maxWaiting)
        self.plan = Plan(plan.keyring)
        self.servers: dict[_Key, Newcomers] = {}
        self.connectors: dict[_Key, Connector] = {}
        self.tunnels: dict[_Key, Tunnel] = {}
        self.ports: dict[_Key, ListeningService] = {}
        self.leftFactories: list[MuxFactory] = []
        self.leftTunnels: list[Tunnel] = []
        self.accessLog: AccessLogService | None = None
        made = self._make(plan)
        self._follow(plan, *made, self._ports(plan, *made, {}))

    @property
    def factories(self) -> list[MuxFactory]:
        """
        The factories of muxes that the plan has.
        """
        servers: Any = [server.wrappedFactory for server in self.servers.values()]
        return [*servers, *(part.dialler for part in self.connectors.values())]

    def fit(self, plan: Plan) -> Deferred[list[str]]:
        """
        Make the parts fit a plan, or leave everything as it is.

        @return: fires with the reasons why the plan cannot be followed.  If there are
            none, the parts fit it.
        """
        made = self._make(plan)
        kept = self._kept(plan)
        ports = self._ports(plan, *made, kept)
        fresh = [part for key, part in ports.items() if key not in kept]
        if not self._service.running:
            # The ports listen when the service starts.
            return self._follow(plan, *made, ports)

        def listens(results: list[tuple[bool, Any]]) -> Deferred[list[str]]:
            reasons = [
                f"{part.name}: {result.getErrorMessage()}"
                for part, (works, result) in zip(fresh, results, strict=True)
                if not works
            ]
            if not self._service.running:
                reasons.append("the service is being stopped")
            if not reasons:
                reasons += self._openLog(plan)
            if reasons:
                stops = gatherResults([maybeDeferred(p.stopService) for p in fresh])
                return stops.addBoth(lambda _: reasons)
            return self._follow(plan, *made, ports)

        listening = DeferredList([p.listen() for p in fresh], consumeErrors=True)
        return listening.addCallback(listens)

    def _openLog(self, plan: Plan) -> list[str]:
        """
        Open the access log of a plan.  Until now nothing has changed.

        @return: why it cannot be opened.
        """
        path, service = plan.accessLog, self.accessLog
        try:
            if path is not None and service is None:
                log = AccessLog(path, self._clock)
                log.open()
                self.accessLog = AccessLogService(log, self._clock)
            elif path is not None and service is not None and path != service.log.path:
                service.log.move(path)
        except OSError as error:
            return [f"--access-log {path}: {error.strerror or error}"]
        return []

    def _make(self, plan: Plan) -> tuple[dict[_Key, Newcomers], dict[_Key, Tunnel]]:
        """
        @return: the factories of servers and the tunnels for a plan.
        """
        servers = {
            item.key: self.servers.get(item.key)
            or Newcomers(
                MuxFactory(
                    *(self.keyring, False),
                    clock=self._clock,
                    limits=plan.muxLimits,
                    pool=self.pool,
                )
            )
            for item in plan.of("listen")
        }
        tunnels = {
            item.key: self.tunnels.get(item.key) or self._tunnel(item, plan.limits)
            for item in plan.of("target", "forward")
        }
        return servers, tunnels

    def _tunnel(self, item: Item, limits: TunnelLimits) -> Tunnel:
        if item.option == "target":
            isPlain = item.service is None
            counts = self.pool.tally.serving(None) if isPlain else None
            return target(
                item.name, item.what, self._clock, limits, self.keyring, counts
            )
        return forward(
            *(item.name, self.pool, self._clock, limits, self.keyring),
            *(item.service, item.peer),
        )

    def _kept(self, plan: Plan) -> dict[_Key, ListeningService]:
        """
        @return: the ports that go on listening: those of the same items, and of the
            rest those with the same endpoint string.
        """
        kept = {
            item.key: self.ports[item.key]
            for item in plan.ports
            if item.key in self.ports
        }
        free = {
            item.string: self.ports[item.key]
            for item in self.plan.ports
            if item.key not in kept
        }
        for item in plan.ports:
            if item.key not in kept and item.string in free:
                kept[item.key] = free.pop(item.string)
        return kept

    def _ports(
        self,
        plan: Plan,
        servers: dict[_Key, Newcomers],
        tunnels: dict[_Key, Tunnel],
        kept: dict[_Key, ListeningService],
    ) -> dict[_Key, ListeningService]:
        """
        @return: the ports for a plan.  Those that are new do not listen yet.
        """
        return {
            item.key: kept.get(item.key)
            or ListeningService(
                *(item.name, item.what, _factoryOf(item, servers, tunnels))
            )
            for item in plan.ports
        }

    def _follow(
        self,
        plan: Plan,
        servers: dict[_Key, Newcomers],
        tunnels: dict[_Key, Tunnel],
        ports: dict[_Key, ListeningService],
    ) -> Deferred[list[str]]:
        """
        Follow a plan.  Its new ports listen already.

        @return: fires with no reasons, once the ports that are dropped are closed.
        """
        revoked = self.keyring.adopt(plan.keyring)
        plan.keyring = self.keyring
        self.keyring.rules = plan.peers
        dropped = self._dropPorts(plan, servers, tunnels, ports)
        connectors = {
            item.key: self.connectors.get(item.key) or self._connector(item, plan)
            for item in plan.of("connect")
        }
        for key, connector in self.connectors.items():
            if key not in connectors:
                connector.disownServiceParent()
                connector.dialler.retire()
        before, tunnelsBefore = self.factories, self.tunnels.values()
        self.servers, self.connectors, self.tunnels = servers, connectors, tunnels
        self.ports = ports
        left = [f for f in (*self.leftFactories, *before) if f not in self.factories]
        self.leftFactories = [factory for factory in left if not factory.isIdle]
        self.leftTunnels = [
            tunnel
            for tunnel in (*self.leftTunnels, *tunnelsBefore)
            if tunnel not in tunnels.values() and tunnel.bridges
        ]
        self._keepLog(plan)
        self._set(plan)
        self.plan = plan
        if plan.endRevoked:
            for factory in (*self.factories, *self.leftFactories):
                factory.endRevoked(revoked)
        self._tellMissing(plan)
        more = () if self.accessLog is None else (self.accessLog,)
        for part in (*ports.values(), *connectors.values(), *more):
            if part.parent is None:
                part.setServiceParent(self._service)
        return gatherResults(dropped).addCallback(lambda _: [])

    def _dropPorts(
        self,
        plan: Plan,
        servers: dict[_Key, Newcomers],
        tunnels: dict[_Key, Tunnel],
        ports: dict[_Key, ListeningService],
    ) -> list[Deferred[None]]:
        """
        Stop the ports that the plan has no more, and give those that stay the factories
        and the names of their items.

        @return: fire when the ports are closed.
        """
        dropped: list[Deferred[None]] = []
        for part in self.ports.values():
            if part not in ports.values():
                stopped = maybeDeferred(part.disownServiceParent)
                stopped.addErrback(_logOpen, str(part.name))
                dropped.append(stopped)
        for item in plan.ports:
            part = ports[item.key]
            part.switch.change(_factoryOf(item, servers, tunnels))
            part.name = item.name
        self._service.namedServices = {
            part.name: part for part in self._service.services if part.name
        }
        return dropped

    def _keepLog(self, plan: Plan) -> None:
        """
        Give all tunnels the access log of a plan.
        """
        service = self.accessLog
        if plan.accessLog is None and service is not None:
            service.disownServiceParent()
            service.log.close()
            self.accessLog = None
        elif plan.accessLog is not None and service is None:
            # It is opened when the service starts.
            log = AccessLog(plan.accessLog, self._clock)
            self.accessLog = AccessLogService(log, self._clock)
        elif plan.accessLog is not None and service is not None:
            service.log.path = plan.accessLog
        for tunnel in (*self.tunnels.values(), *self.leftTunnels):
            tunnel.accessLog = None if self.accessLog is None else self.accessLog.log

    def _logged(self, item: Item) -> Any:
        """
        @return: the factory of an item, which writes to the access log if there is one.
        """
        if self.accessLog is None:
            return item.what
        log = self.accessLog.log
        return LoggedFactory(item.what, item.service, log, self._clock)

    def _connector(self, item: Item, plan: Plan) -> Connector:
        dialler = ServiceDialler(
            *(self.keyring, item.what, plan.limits.maxRetryDelay),
            clock=self._clock,
            limits=plan.muxLimits,
            pool=self.pool,
            peer=item.peer,
        )
        return Connector(item.name, dialler)

    def _set(self, plan: Plan) -> None:
        """
        Give all parts the settings of a plan.
        """
        services: dict[str | None, Any] = {
            item.service: self.tunnels[item.key] for item in plan.of("target")
        }
        services.update(
            (item.service, self._logged(item)) for item in plan.of("factory")
        )
        streams = services.pop(None, None)
        named = {str(name): factory for name, factory in services.items()}
        for factory in (*self.factories, *self.leftFactories):
            factory.serve(streams, named)
            factory.limit(plan.muxLimits)
            factory.strict, factory.context, factory.strictClock, _ = plan.strict
            factory.salts = (
                self._salts[factory.isClient] if plan.strict.allowSelf else processSalts
            )
            # The service closes the muxes, once their streams have had time to end.
            factory.closesAtShutdown = False
            factory.endWithdrawn()
        limits = plan.limits
        for connector in self.connectors.values():
            connector.dialler.maxRetryDelay = limits.maxRetryDelay
        for tunnel in self.tunnels.values():
            tunnel.limit(limits)
        self.pool.limit(limits.waitTimeout, limits.maxWaiting)

    def _tellMissing(self, plan: Plan) -> None:
        """
        Log the options that name a peer without a key, and fail what waits for it.
        """
        missing = {
            option: peer
            for option, peer in plan.named.items()
            if peer not in self.keyring.names
        }
        for option, peer in missing.items():
            _log.warn(
                "{option}: no key has the name {peer!r} now; until one has, nothing"
                " goes to that peer, and the rules for it stay",
                option=option,
                peer=peer,
            )
        error = OpenStreamError("the key of the peer was removed")
        self.pool.failPeers(set(missing.values()), error)


def _logOpen(failure: Failure, name: str) -> None:
    _log.failure("{name}: the port cannot be closed", failure, name=name)


def _factoryOf(
    item: Item, servers: dict[_Key, Newcomers], tunnels: dict[_Key, Tunnel]
) -> IProtocolFactory:
    """
    @return: the factory for the connections of a port.
    """
    made: Any = servers.get(item.key) or tunnels.get(item.key) or item.factory
    return made  # type: ignore[no-any-return]
