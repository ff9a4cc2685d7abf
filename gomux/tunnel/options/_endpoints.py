# -*- test-case-name: gomux.test.test_tap -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The options of C{twistd gomux} for endpoints and factories, and for which peers may use
which services.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

from gomux._wire.keyring import Keyring
from gomux.endpoints._connecting import clientEndpoint
from gomux.endpoints._listening import forwardingEndpoint, serverEndpoint
from gomux.tunnel._plan import Item, Plan
from gomux.tunnel.options._given import FileOptions, Mistakes, labelOf
from gomux.tunnel.options._services import (
    checkAllowed,
    findFactory,
    splitAllow,
    splitConnect,
    splitForward,
    splitService,
)


class Anybody(Collection[str]):
    """
    Stands for the names of the peers if they are not known.
    """

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 1


#: The endpoint that accepts muxes if neither C{--listen} nor C{--connect} is given.
DEFAULT_LISTEN = "tcp:7000"


class EndpointOptions(FileOptions):
    """
    The options for endpoints and factories.

    @ivar peerServices: from a file, the services that a peer may use, by the name of
        the peer.
    @ivar _given: the values of the options that may be repeated, by option.
    """

    def __init__(self) -> None:
        super().__init__()
        self._given: defaultdict[str, list[str]] = defaultdict(list)
        self.peerServices: dict[str, list[str]] = {}

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

    def findItems(
        self, reactor: Any, keyring: Keyring | None, before: Plan | None, m: Mistakes
    ) -> list[Item]:
        """
        @param reactor: the reactor.
        @param keyring: the keyring; C{None} if it could not be read, so that nothing is
            known about peers.
        @param before: the plan that the process follows.  Items of it are not made
            again, and their peers need no key.
        @param m: gets what is wrong.
        @return: the endpoints and factories.
        """
        if not (self._given["listen"] or self._given["connect"]):
            self._given["listen"].append(DEFAULT_LISTEN)
        names = Anybody() if keyring is None else keyring.names

        def connect(text: str) -> tuple[str | None, str | None, str]:
            if keyring is None:
                return None, *splitService(text)
            return None, *splitConnect(text, keyring)

        items: list[Item] = []
        for option, parse, split in (
            ("listen", serverEndpoint, _unsplit),
            ("connect", clientEndpoint, connect),
            ("forward", forwardingEndpoint, lambda text: splitForward(text, names)),
            ("target", clientEndpoint, _onlyService),
            ("factory", lambda _, name: findFactory(name), _onlyService),
        ):
            for text in self._given[option]:
                with m.of(labelOf(option, text)):
                    item = None if before is None else before.find(option, text)
                    if item is None:
                        item = _item(reactor, option, text, parse, split)
                    _checkNew(item, items)
                    items.append(item)
        return items

    def findRules(self, peers: Collection[str], m: Mistakes) -> dict[str, set[str]]:
        """
        @param peers: the names of the peers.
        @param m: gets what is wrong.
        @return: the services that the peers with a rule may use, by the peer.
        """
        rules: defaultdict[str, set[str]] = defaultdict(set)
        for text in self._given["allow"]:
            with m.of(f"--allow {text}"):
                peer, services = splitAllow(text, peers)
                rules[peer].update(services)
        for peer, texts in self.peerServices.items():
            allowed = rules[peer]
            for service in texts:
                with m.of(getattr(service, "where", "")):
                    allowed.add(str(checkAllowed(service)))
        return rules


def _item(
    reactor: Any,
    option: str,
    text: str,
    parse: Callable[[Any, str], Any],
    split: Callable[[str], tuple[str | None, str | None, str]],
) -> Item:
    """
    @param parse: makes an endpoint of a string, or a factory of a name.
    @param split: splits the text into a service, a peer and the string.
    @return: the item of an option.
    @raise ValueError: if the text is not valid.
    """
    # Twisted's parsers take no subclass of str.
    service, peer, string = split(str(text))
    try:
        what = parse(reactor, string)
    except Exception as error:
        if option == "factory":
            raise
        raise ValueError(f"not a usable endpoint: {error}") from None
    return Item(option, text, what, service, peer, string)


def _checkNew(new: Item, items: list[Item]) -> None:
    """
    @raise ValueError: if an item cannot stand beside others.
    """
    serving = ("target", "factory")
    for item in items:
        if new.key == item.key:
            raise ValueError("can be given only once")
        if {new.option, item.option} <= {*serving} and new.service == item.service:
            if new.service is not None:
                raise ValueError(f"{new.service!r} is served already")
            raise ValueError("only one of --target and --factory can lack a SERVICE")


def _unsplit(text: str) -> tuple[None, None, str]:
    return None, None, text


def _onlyService(text: str) -> tuple[str | None, None, str]:
    service, rest = splitService(text)
    return service, None, rest
