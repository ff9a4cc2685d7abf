# -*- test-case-name: gomux.test.test_tap -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
C{twistd gomux}: the command line, and the service that it describes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from twisted.application.service import IService
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from twisted.python.usage import UsageError

from gomux._mux.factory import MuxFactory
from gomux._mux.newcomer import Newcomers
from gomux._mux.pool import MuxPool
from gomux.endpoints._connecting import clientEndpoint
from gomux.endpoints._listening import forwardingEndpoint, serverEndpoint
from gomux.error import OpenStreamError
from gomux.limits import Limits, TunnelLimits
from gomux.status._page import PageFactory
from gomux.tunnel import Tunnel, forward, target
from gomux.tunnel._accesslog import LoggedFactory
from gomux.tunnel._accessoptions import AccessLogOptions, AccessLogService
from gomux.tunnel._guide import arrange
from gomux.tunnel._keyoptions import KeyOptions
from gomux.tunnel._limitoptions import LIMITS, limitOptions, optionName
from gomux.tunnel._service import (
    Connector,
    ListeningService,
    ServiceDialler,
    TunnelService,
)
from gomux.tunnel._serviceoptions import (
    Rules,
    findFactory,
    splitConnect,
    splitForward,
    splitService,
    withoutSecrets,
)
from gomux.tunnel._strictoptions import StrictOptions

_log = Logger()

_L = TypeVar("_L", Limits, TunnelLimits)

#: The endpoint that accepts muxes if neither C{--listen} nor C{--connect} is given.
DEFAULT_LISTEN = "tcp:7000"


class Options(KeyOptions, StrictOptions, AccessLogOptions):
    """
    The command line.

    @ivar listenEndpoints: where to accept muxes.  Each endpoint here and below is a
        pair of its name in log lines and the endpoint.
    @ivar connectEndpoints: where to connect muxes to, and the peer whose key is used.
    @ivar forwardEndpoints: where to accept connections that continue as streams, and
        the service and the peer that the streams are for.
    @ivar targets: where the peer's streams are connected to, by service.
    @ivar streamFactory: the factory that serves the peer's streams.
    @ivar services: the factories that serve the peer's streams for a service, by name.
    @ivar rules: which peers may use which services.
    @ivar _given: the values of the options that may be repeated, by option.
    """

    # If this were not set, --help would show the docstring of the running program.
    longdesc = ""
    synopsis = "[options]"

    optParameters = [option for limits in LIMITS for option in limitOptions(limits)]

    streamFactory: IProtocolFactory | None = None

    def __init__(self) -> None:
        super().__init__()
        self._given: defaultdict[str, list[str]] = defaultdict(list)
        self.services: dict[str, IProtocolFactory] = {}
        self.rules = Rules()
        self.listenEndpoints: list[tuple[str, Any]] = []
        self.connectEndpoints: list[tuple[str, Any, str | None]] = []
        self.forwardEndpoints: list[tuple[str, Any, str | None, str | None]] = []
        self.targets: dict[str | None, tuple[str, Any]] = {}

    def getUsage(self, width: int | None = None) -> str:
        """
        @return: the text of C{--help}.
        """
        limits = [optionName(f.name) for kind in LIMITS for f in fields(kind)]
        return arrange(super().getUsage(width), limits)

    def opt_listen(self, endpoint: str) -> None:
        """
        Accept muxes at this ENDPOINT.  Can be given several times.  [default:
        tcp:7000, unless --connect is given]
        """
        self._given["listen"].append(endpoint)

    def opt_connect(self, endpoint: str) -> None:
        """
        Keep one mux connected to this [PEER=]ENDPOINT. PEER says whose key in the
        --psk-file to use. It is needed if the file has several. Can be given several
        times.
        """
        self._given["connect"].append(endpoint)

    def opt_forward(self, endpoint: str) -> None:
        """
        Accept connections at this [SERVICE][@PEER]=ENDPOINT, and carry each to the peer
        as a stream, for that service of the peer if there is one. PEER is a name in the
        --psk-file: connections wait for that peer, and go to no other. Without a PEER,
        connections go to each peer in turn. Can be given several times.
        """
        self._given["forward"].append(endpoint)

    def opt_target(self, endpoint: str) -> None:
        """
        Connect the streams that the peer opens to this [SERVICE=]ENDPOINT: those for
        that service, or without one those without a service. Can be given several
        times.
        """
        self._given["target"].append(endpoint)

    def opt_factory(self, name: str) -> None:
        """
        Serve the streams that the peer opens with this factory: [SERVICE=], and the
        dotted name of an IProtocolFactory, or of a callable that returns one. With a
        SERVICE, it serves the streams for that service, and the option can be given
        several times. Without one, it serves those without a service.
        gomux.PageFactory is a status page about the mux.  With neither --target nor
        --factory, the streams are refused; but a process with both --listen and
        --connect serves that page.
        """
        self._given["factory"].append(name)

    def opt_allow(self, rule: str) -> None:
        """
        Which services a peer may use: PEER=SERVICE[,SERVICE...]. PEER is a name in the
        --psk-file, or * for all peers that have no rule of their own. The service
        unnamed stands for streams without a service. Can be given several times.
        [default: every peer may use everything]
        """
        self._given["allow"].append(rule)

    def parseArgs(self, *arguments: str) -> None:
        """
        Refuse arguments that are not options.
        """
        if arguments:
            # After --psk, it may be the rest of a key with a space.
            rest = withoutSecrets(arguments[0])
            shown = "" if dict(self._psks).get("--psk") else f": {rest!r}"
            raise UsageError(f"unexpected argument{shown}")

    def postOptions(self) -> None:
        """
        Check the options together, and make the endpoints.

        @raise UsageError: if the options are not valid.
        """
        self.keyring = self.findKeyring()
        self.checkStrict(self.keyring)
        self.checkAccessLog()
        for text in self._given["allow"]:
            try:
                self.rules.allow(text, self.keyring.names)
            except ValueError as error:
                raise UsageError(f"--allow {text}: {error}") from None
        if not (self._given["listen"] or self._given["connect"]):
            self._given["listen"].append(DEFAULT_LISTEN)
        keyring = self.keyring
        self.listenEndpoints += self._endpoints("listen", serverEndpoint, _unsplit)
        self.connectEndpoints += self._endpoints(
            *("connect", clientEndpoint), lambda text: splitConnect(text, keyring)
        )
        self.forwardEndpoints += self._endpoints(
            *("forward", forwardingEndpoint),
            lambda text: splitForward(text, keyring.names),
        )
        targets = self._endpoints("target", clientEndpoint, splitService)
        for name, endpoint, service in targets:
            if service in self.targets:
                which = service or "streams without a SERVICE"
                raise UsageError(f"--target can be given only once for {which}")
            self.targets[service] = name, endpoint
        for text in self._given["factory"]:
            self._addFactory(text)

    def _addFactory(self, text: str) -> None:
        """
        @raise UsageError: if the value of a C{--factory} cannot be used.
        """
        try:
            service, name = splitService(text)
            if service is None and None in self.targets:
                raise ValueError("--target and --factory both lack a SERVICE")
            factory = findFactory(name)
        except ValueError as error:
            raise UsageError(f"--factory {text}: {error}") from None
        if service is not None:
            if service in self.services or service in self.targets:
                raise UsageError(f"--factory {text}: {service!r} is served already")
            self.services[service] = factory
            return
        if self.streamFactory is not None:
            raise UsageError("--factory can be given only once without a SERVICE")
        self.streamFactory = factory

    def _endpoints(
        self,
        option: str,
        parse: Callable[[Any, str], Any],
        split: Callable[[str], tuple[Any, ...]],
    ) -> list[tuple[Any, ...]]:
        """
        @param parse: makes an endpoint of a string.
        @param split: splits a value into names and the string.
        @return: an option's endpoints, each after its name in log lines and before
            those names.
        @raise UsageError: if a name or an endpoint string is not valid.
        """
        from twisted.internet import reactor

        found = []
        for text in self._given[option]:
            name = f"--{option} {withoutSecrets(text)}"
            try:
                *names, string = split(text)
            except ValueError as error:
                raise UsageError(f"{name}: {error}") from None
            try:
                found.append((name, parse(reactor, string), *names))
            except Exception as error:
                raise UsageError(f"{name}: not a usable endpoint: {error}") from None
        return found

    def missing(self) -> dict[str, str]:
        """
        @return: the options that name a peer without a key, with the peer.  The keys of
            some may have been removed.
        """
        named = {f"--allow {peer}": peer for peer in self.rules.peers}
        named.update((name, peer) for name, _, peer in self.connectEndpoints if peer)
        named.update((name, peer) for name, *_, peer in self.forwardEndpoints if peer)
        names = self.keyring.names
        return {option: peer for option, peer in named.items() if peer not in names}

    def limits(self, kind: type[_L]) -> _L:
        """
        @return: the limits of one kind, with the values of the options.
        """
        return kind(**{f.name: self[optionName(f.name)] for f in fields(kind)})


def _unindentHelp() -> None:
    """
    Remove the indentation of the C{opt_} docstrings, which C{--help} would print.
    """
    for name, method in (
        i for c in (Options, KeyOptions, StrictOptions) for i in vars(c).items()
    ):
        if name.startswith("opt_"):
            method.__doc__ = " ".join((method.__doc__ or "").split())


_unindentHelp()


def _unsplit(text: str) -> tuple[str]:
    return (text,)


def _makeReload(
    options: Options, pool: MuxPool, factories: list[MuxFactory]
) -> Callable[[], bool | None]:
    """
    @param pool: the muxes that are up.
    @param factories: the factories of the service's muxes.
    @return: the function to call on SIGHUP.  It returns whether it worked, C{None} if
        there was nothing to read.
    """

    def reload() -> bool | None:
        if not options.keysFromFile:
            _log.info("SIGHUP: no --psk-file was given: there is nothing to read again")
            return None
        revoked = options.reload()
        if revoked is None:
            return False
        missing = options.missing()
        for option, peer in missing.items():
            _log.warn(
                "{option}: no key has the name {peer!r} now; until one has, nothing"
                " goes to that peer, and the rules for it stay",
                option=option,
                peer=peer,
            )
        names = set(missing.values())
        pool.failPeers(names, OpenStreamError("the key of the peer was removed"))
        if options["end-revoked"]:
            for factory in factories:
                factory.endRevoked(revoked)
        return True

    return reload


def makeService(options: Options) -> IService:
    """
    Make the service that the command line describes.
    """
    from twisted.internet import reactor

    clock: Any = reactor
    limits = options.limits(TunnelLimits)
    pool = MuxPool(clock, limits.waitTimeout, limits.maxWaiting)
    tunnels: list[Tunnel] = []
    services: dict[Any, IProtocolFactory] = dict(options.services)
    if options.streamFactory is not None:
        services[None] = options.streamFactory
    for wanted, named in options.targets.items():
        services[wanted] = tunnel = target(*named, clock, limits, options.keyring)
        tunnels.append(tunnel)
    if not services and options.listenEndpoints and options.connectEndpoints:
        # Perhaps a demonstration.
        services[None] = PageFactory()
    log = options.accessLog(clock)
    if log is not None:
        for wanted, served in services.items():
            if not isinstance(served, Tunnel):
                services[wanted] = LoggedFactory(served, wanted, log, clock)
    streams = services.pop(None, None)

    factories: list[MuxFactory] = []
    service = TunnelService(
        *(pool, tunnels, clock, limits),
        *(_makeReload(options, pool, factories), factories, options.keyring),
    )
    settings: dict[str, Any] = {
        "clock": clock,
        "limits": options.limits(Limits),
        "pool": pool,
        "services": services,
    }
    mayUse = options.rules.mayUse if options.rules else None
    serverStrict, clientStrict = options.strictSettings(), options.strictSettings()
    for name, endpoint in options.listenEndpoints:
        server = MuxFactory(options.keyring, False, streams, **serverStrict, **settings)
        # The service closes the muxes, once their streams have had time to end.
        server.closesAtShutdown = False
        factories.append(server)
        server.mayUse = mayUse
        service.addService(ListeningService(name, endpoint, Newcomers(server)))
    for name, endpoint, wanted, peer in options.forwardEndpoints:
        tunnel = forward(name, pool, clock, limits, options.keyring, wanted, peer)
        tunnels.append(tunnel)
        service.addService(ListeningService(name, endpoint, tunnel))
    for name, endpoint, peer in options.connectEndpoints:
        client = ServiceDialler(
            *(options.keyring, endpoint, limits.maxRetryDelay, streams),
            peer=peer,
            **clientStrict,
            **settings,
        )
        factories.append(client)
        client.mayUse = mayUse
        service.addService(Connector(name, client))
    if log is not None:
        for tunnel in tunnels:
            tunnel.accessLog = log
        service.addService(AccessLogService(log, clock))
    return service
