# -*- test-case-name: gomux.test.test_tap -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
C{twistd gomux}: the command line, and the service that it describes.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Any, TypeVar

from twisted.application.service import IService
from twisted.python.usage import Completions, UsageError
from twisted.python.usage import Options as BaseOptions

from gomux._wire.keyring import Keyring
from gomux._wire.peerrules import EVERYBODY, PeerRules
from gomux.limits import Limits, TunnelLimits
from gomux.status._options import StatusOptions
from gomux.status._page import PageFactory
from gomux.tunnel._plan import Item, Plan, Refused
from gomux.tunnel._service import TunnelService
from gomux.tunnel.options._access import AccessLogOptions
from gomux.tunnel.options._check import describe
from gomux.tunnel.options._config import ConfigOptions
from gomux.tunnel.options._endpoints import Anybody, EndpointOptions
from gomux.tunnel.options._given import Mistakes, hideSecrets
from gomux.tunnel.options._guide import arrange, repeatable
from gomux.tunnel.options._keys import KeyOptions
from gomux.tunnel.options._limits import LIMITS, limitOptions, optionName
from gomux.tunnel.options._services import checkPeer
from gomux.tunnel.options._strict import StrictOptions

_L = TypeVar("_L", Limits, TunnelLimits)


class Options(
    KeyOptions,
    StrictOptions,
    EndpointOptions,
    StatusOptions,
    AccessLogOptions,
    ConfigOptions,
):
    """
    The command line.

    @ivar plan: what to run.
    @ivar before: if files are read again, the options that were read first.
    @ivar planBefore: then, the plan that the process follows.
    """

    # If this were not set, --help would show the docstring of the running program.
    longdesc = ""
    synopsis = "[options]"

    optParameters = [option for limits in LIMITS for option in limitOptions(limits)]

    before: Options | None = None
    plan: Plan
    planBefore: Plan | None = None

    def getUsage(self, width: int | None = None) -> str:
        """
        @return: the text of C{--help}.
        """
        limits = [optionName(f.name) for kind in LIMITS for f in fields(kind)]
        return arrange(super().getUsage(width), limits)

    def parseOptions(self, options: Any = None) -> None:
        """
        Parse the options, and show no key in an error: it may be in the value of a
        wrong option.
        """
        given = sys.argv[1:] if options is None else list(options)
        try:
            super().parseOptions(options)
        except Refused as error:
            raise Refused([hideSecrets(t, given) for t in error.mistakes]) from None
        except UsageError as error:
            raise UsageError(hideSecrets(str(error), given)) from None
        except SystemExit as error:
            if isinstance(error.code, str):
                raise SystemExit(hideSecrets(error.code, given)) from None
            raise

    def parseArgs(self, *arguments: str) -> None:
        """
        Refuse arguments that are not options.
        """
        if arguments:
            # After --psk, it may be the rest of a key with a space.
            shown = "" if dict(self._psks).get("--psk") else f": {arguments[0]!r}"
            raise UsageError(f"unexpected argument{shown}")

    def postOptions(self) -> None:
        """
        Read the files, check the options together, and make the plan.

        @raise UsageError: if the options are not valid.
        @raise SystemExit: the same, if there is a C{--config}, or if C{--check} was
            given: the mistakes are printed without the help.  After C{--check} also if
            all is well.
        """
        try:
            self.plan = self._makePlan()
        except Refused as error:
            if self.before is None and (self.config is not None or self["check"]):
                lines = [f"error: {text}" for text in error.mistakes]
                raise SystemExit("\n".join(lines)) from None
            raise
        if self["check"]:
            print(describe(self.plan))
            sys.stdout.flush()
            raise SystemExit(0)

    def again(self, plan: Plan) -> Plan:
        """
        Read the files again, with the same command line.

        @param plan: the plan that the process follows.
        @return: the next plan.
        @raise Refused: if the files are not valid.
        """
        options = type(self)()
        options.parent = self.parent
        options.directory = self.directory
        options.before = self
        options.planBefore = plan
        options.parseOptions(self.arguments)
        return options.plan

    def _makePlan(self) -> Plan:
        """
        @return: what to run.
        @raise Refused: if the options are not valid.
        """
        from twisted.internet import reactor

        mistakes = Mistakes()
        self.takeConfig(mistakes)
        keyring: Keyring | None = None
        with mistakes.of():
            keyring = self.keyring = self.findKeyring()
            self.checkRevoking()
        before = self.planBefore
        peers: Any = Anybody() if keyring is None else keyring.names
        if keyring is not None and before is not None:
            peers = peers | before.known
        for peer, path in self.peerTables.items():
            if peer != EVERYBODY:
                with mistakes.of(path):
                    checkPeer(peer, peers)
        self.checkStrict(peers, mistakes)
        with mistakes.of():
            self.checkAccessLog()
        services = self.findRules(peers, mistakes)
        rules = {
            peer: PeerRules(services.get(peer), **self.peerShares.get(peer, {}))
            for peer in services.keys() | self.peerShares.keys()
        }
        items = self.findItems(reactor, keyring, before, mistakes)
        items += self.findStatus(reactor, self.before or self, before, mistakes)
        mistakes.check()
        assert keyring is not None
        options = {item.option for item in items}
        if {"listen", "connect"} <= options and not options & {"target", "factory"}:
            # Perhaps a demonstration.
            name = "gomux.PageFactory"
            page = None if before is None else before.find("factory", name)
            items.append(page or Item("factory", name, PageFactory(), string=name))
        files = {
            "the config": self.config is not None,
            "the pre-shared keys": self.keysFromFile,
        }
        return Plan(
            *(keyring, items, rules),
            *(self.limits(Limits), self.limits(TunnelLimits)),
            *(self.strictSettings, bool(self["end-revoked"])),
            accessLog=self.accessLog,
            files=tuple(what for what, isRead in files.items() if isRead),
        )

    def limits(self, kind: type[_L]) -> _L:
        """
        @return: the limits of one kind, with the values of the options.
        """
        return kind(**{f.name: self[optionName(f.name)] for f in fields(kind)})


def _unindentHelp() -> None:
    """
    Remove the indentation of the C{opt_} docstrings, which C{--help} would print.
    """
    kinds = [kind for kind in Options.__mro__ if BaseOptions in kind.__mro__[1:]]
    for name, method in (i for kind in kinds for i in vars(kind).items()):
        if name.startswith("opt_"):
            method.__doc__ = " ".join((method.__doc__ or "").split())


_unindentHelp()
Options.compData = Completions(multiUse=repeatable(Options))


def makeService(options: Options) -> IService:
    """
    Make the service that the options describe.
    """
    from twisted.internet import reactor

    clock: Any = reactor
    service = TunnelService(options.plan, clock, options.again)
    assert options.site is not None
    options.site.show(service)
    return service
