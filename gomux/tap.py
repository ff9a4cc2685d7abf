# -*- test-case-name: gomux.test.test_tap -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
C{twistd gomux}: the command line, and the service that it describes.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from twisted.application.service import IService
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from twisted.python.usage import CompleteFiles, Completions, UsageError

from gomux._mux.factory import MuxFactory
from gomux._mux.newcomer import Newcomers
from gomux._mux.pool import MuxPool
from gomux._wire.keyring import Keyring, readPSKFile
from gomux.endpoints._connecting import clientEndpoint
from gomux.endpoints._listening import forwardingEndpoint, serverEndpoint
from gomux.error import KeyringError
from gomux.limits import SHORT_PSK, Limits, TunnelLimits
from gomux.status._page import PageFactory
from gomux.tunnel import Tunnel, forward, target
from gomux.tunnel._guide import GUIDE
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
    splitService,
    withoutSecrets,
)
from gomux.tunnel._strictoptions import StrictOptions

_log = Logger()

_L = TypeVar("_L", Limits, TunnelLimits)

#: The endpoint that accepts muxes if neither C{--listen} nor C{--connect} is given.
DEFAULT_LISTEN = "tcp:7000"
#: The environment variable that may have the pre-shared key.
ENVIRONMENT = "GOMUX_PSK"


class Options(StrictOptions):
    """
    The command line.

    @ivar keyring: the pre-shared keys.
    @ivar keysFromFile: whether the keys are from a file that L{reload} can read again.
    @ivar listenEndpoints: where to accept muxes.  Each endpoint here and below is a
        pair of its name in log lines and the endpoint.
    @ivar connectEndpoints: where to connect muxes to.
    @ivar forwardEndpoints: where to accept connections that continue as streams, and
        the service that the streams are for.
    @ivar targets: where the peer's streams are connected to, by service.
    @ivar streamFactory: the factory that serves the peer's streams.
    @ivar services: the factories that serve the peer's streams for a service, by name.
    @ivar rules: which peers may use which services.
    @ivar _psks: the options that gave a pre-shared key, and their values.
    @ivar _given: the values of the options that may be repeated, by option.
    """

    # If this were not set, --help would show the docstring of the running program.
    longdesc = ""
    synopsis = "[options]"

    optFlags = [
        [
            "psk-file-insecure",
            None,
            "Use the --psk-file even if other users can read or change it, or own it.",
        ],
        [
            "allow-short-psk",
            None,
            f"Use pre-shared keys of fewer than {SHORT_PSK} bytes, which are easy to"
            " guess.",
        ],
        [
            "end-revoked",
            None,
            "On SIGHUP, end the muxes of peers whose key was removed from the"
            " --psk-file or changed in it. Without this option they stay up.",
        ],
    ]

    optParameters = [option for limits in LIMITS for option in limitOptions(limits)]

    compData = Completions(optActions={"psk-file": CompleteFiles()})

    keyring: Keyring
    keysFromFile = False
    streamFactory: IProtocolFactory | None = None

    def __init__(self) -> None:
        super().__init__()
        self._psks: list[tuple[str, str]] = []
        self._given: defaultdict[str, list[str]] = defaultdict(list)
        self.services: dict[str, IProtocolFactory] = {}
        self.rules = Rules()
        self.listenEndpoints: list[tuple[str, Any]] = []
        self.connectEndpoints: list[tuple[str, Any]] = []
        self.forwardEndpoints: list[tuple[str, Any, str | None]] = []
        self.targets: dict[str | None, tuple[str, Any]] = {}

    def getUsage(self, width: int | None = None) -> str:
        """
        @return: the text of C{--help}.  The guide is not in C{longdesc}, which would
            be wrapped again.
        """
        return str(super().getUsage(width)) + GUIDE

    def opt_psk(self, psk: str) -> None:
        """
        The pre-shared key itself.  Other users can read it in the list of
        processes: --psk-file or the environment variable GOMUX_PSK is safer.
        """
        self._psks.append(("--psk", psk))

    def opt_psk_file(self, path: str) -> None:
        """
        A file with the pre-shared key in a single line, or with several keys in
        lines of the form name:psk.  On SIGHUP it is read again: new muxes use the
        new keys.  See also --end-revoked.
        """
        self._psks.append(("--psk-file", path))

    def opt_listen(self, endpoint: str) -> None:
        """
        Accept muxes at this ENDPOINT.  Can be given several times.  [default:
        tcp:7000, unless --connect is given]
        """
        self._given["listen"].append(endpoint)

    def opt_connect(self, endpoint: str) -> None:
        """
        Keep one mux connected to this ENDPOINT.  Can be given several times.
        """
        self._given["connect"].append(endpoint)

    def opt_forward(self, endpoint: str) -> None:
        """
        Accept connections at this [SERVICE=]ENDPOINT, and carry each to the peer as a
        stream, for that service of the peer if there is one. With several peers,
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
        self.keyring = self._findKeyring()
        self.checkStrict(self.keyring)
        if self["end-revoked"] and not self.keysFromFile:
            raise UsageError(
                "--end-revoked needs a --psk-file: only its keys can be revoked"
            )
        if self._given["connect"]:
            try:
                self.keyring.single()
            except KeyringError as error:
                raise UsageError(
                    "--connect needs a --psk-file with a single pre-shared key:"
                    f" {error}"
                ) from None
        for text in self._given["allow"]:
            try:
                self.rules.allow(text, self.keyring.names)
            except ValueError as error:
                raise UsageError(f"--allow {text}: {error}") from None
        if not (self._given["listen"] or self._given["connect"]):
            self._given["listen"].append(DEFAULT_LISTEN)
        for name, endpoint, _ in self._endpoints("listen", serverEndpoint):
            self.listenEndpoints.append((name, endpoint))
        for name, endpoint, _ in self._endpoints("connect", clientEndpoint):
            self.connectEndpoints.append((name, endpoint))
        self.forwardEndpoints += self._endpoints("forward", forwardingEndpoint)
        for name, endpoint, service in self._endpoints("target", clientEndpoint):
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

    def _findKeyring(self) -> Keyring:
        psks, self._psks = self._psks, []
        # Removed, so that programs that this process starts do not inherit it.
        inherited = os.environ.pop(ENVIRONMENT, None)
        if inherited is not None:
            psks.append((f"the environment's {ENVIRONMENT}", inherited))
        if not psks:
            raise UsageError(
                "a pre-shared key is needed: give --psk-file, or set"
                f" {ENVIRONMENT} in the environment, or give --psk"
            )
        if len(psks) > 1:
            sources = " and ".join(source for source, _ in psks)
            raise UsageError(f"give the pre-shared key only once, not by {sources}")
        [(source, value)] = psks
        allowShort = bool(self["allow-short-psk"])
        try:
            if source == "--psk-file":
                keyring = readPSKFile(
                    value,
                    bool(self["psk-file-insecure"]),
                    allowShort=allowShort,
                    user=self.parent.get("uid") if self.parent is not None else None,
                )
                self.keysFromFile = True
            else:
                # The bytes as they were given, in any locale.
                keyring = Keyring((("", os.fsencode(value)),), allowShort=allowShort)
        except KeyringError as error:
            hint = ""
            if source == "--psk-file" and re.search("others can|its owner", str(error)):
                hint = ", or give --psk-file-insecure"
            elif "is shorter than" in str(error):
                hint = ", or give --allow-short-psk"
            raise UsageError(f"{source}: {error}{hint}") from None
        if source == "--psk":
            _log.warn(
                "--psk: other users of this machine can read the pre-shared key in the"
                " list of processes; --psk-file is better"
            )
        _warn(source, keyring)
        return keyring

    def _endpoints(
        self, option: str, parse: Callable[[Any, str], Any]
    ) -> list[tuple[str, Any, str | None]]:
        """
        @return: an option's endpoints, each with its name in log lines and its service.
        @raise UsageError: if an endpoint string is not valid.
        """
        from twisted.internet import reactor

        found = []
        for text in self._given[option]:
            name = f"--{option} {withoutSecrets(text)}"
            service = None
            try:
                if option in ("forward", "target"):
                    service, text = splitService(text)
                found.append((name, parse(reactor, text), service))
            except Exception as error:
                raise UsageError(f"{name}: not a usable endpoint: {error}") from None
        return found

    def reload(self) -> frozenset[str]:
        """
        Read the file with the pre-shared keys again.  New muxes use the new keys.

        @return: the names of keys that were removed or have changed.
        """
        try:
            revoked = self.keyring.reload()
        except KeyringError as error:
            _log.error("the pre-shared keys stay as they are: {error}", error=error)
            return frozenset()
        _log.info("the pre-shared keys were read again")
        _warn("--psk-file", self.keyring)
        return revoked

    def limits(self, kind: type[_L]) -> _L:
        """
        @return: the limits of one kind, with the values of the options.
        """
        return kind(**{f.name: self[optionName(f.name)] for f in fields(kind)})


def _unindentHelp() -> None:
    """
    Remove the indentation of the C{opt_} docstrings, which C{--help} would print.
    """
    for name, method in (*vars(Options).items(), *vars(StrictOptions).items()):
        if name.startswith("opt_"):
            method.__doc__ = " ".join((method.__doc__ or "").split())


_unindentHelp()


def _warn(source: str, keyring: Keyring) -> None:
    for warning in keyring.warnings:
        # Not "warning": the logger expects a Python warning under that name.
        _log.warn("{source}: {text}", source=source, text=warning)


def _makeReload(options: Options, factories: list[MuxFactory]) -> Callable[[], None]:
    """
    @param factories: the factories of the service's muxes.
    @return: the function to call on SIGHUP.
    """

    def reload() -> None:
        if not options.keysFromFile:
            _log.info("SIGHUP: no --psk-file was given: there is nothing to read again")
            return
        revoked = options.reload()
        if options["end-revoked"]:
            for factory in factories:
                factory.endRevoked(revoked)

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
    streams = services.pop(None, None)

    factories: list[MuxFactory] = []
    service = TunnelService(
        pool, tunnels, clock, limits, _makeReload(options, factories), factories
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
    for name, endpoint, wanted in options.forwardEndpoints:
        tunnel = forward(name, pool, clock, limits, options.keyring, wanted)
        tunnels.append(tunnel)
        service.addService(ListeningService(name, endpoint, tunnel))
    for name, endpoint in options.connectEndpoints:
        client = ServiceDialler(
            *(options.keyring, endpoint, limits.maxRetryDelay, streams),
            **clientStrict,
            **settings,
        )
        factories.append(client)
        client.mayUse = mayUse
        service.addService(Connector(name, client))
    return service
