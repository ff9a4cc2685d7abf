# -*- test-case-name: gomux.test.endpoints.test_parser -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Endpoint strings: C{gomux:}, then the endpoint string of the carrier.  These keywords
may stand anywhere in it.

  - C{pskFile}: the file that has the pre-shared key.
  - C{pskFileInsecure}: C{yes} to accept a file that other users can read or change,
    or own.
  - C{allowShortPSK}: C{yes} to accept keys that are so short that they are easy to
    guess.
  - C{psk}: the key itself.  Anybody who can see the string can read the key.
  - C{strict}: C{yes} for strict mode, which the peer must use too.
  - C{strictPeer}: the names of the peers with which strict mode is used, separated by
    commas, and with no others.
  - C{context}: the context of strict mode.  The peer must use the same.
  - C{strictClock}: C{yes} to refuse, in strict mode, peers whose clock differs much.
  - C{allowSelf}: C{yes} to let a process connect to itself in strict mode.
  - C{service}: the name of the service: for servers of the service that is served, and
    for clients of the peer's service.
  - C{peer}: a name in the file of keys.  For clients, whose key to use; for servers,
    the only peer that may use what is served.
  - C{timeout}, for clients: how many seconds to wait for a mux.
  - C{idleTimeout}, for clients: how many seconds to keep a mux without streams.

C{docs/howto/endpoints.rst} has examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from warnings import warn
from weakref import WeakKeyDictionary, WeakValueDictionary

from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint

from gomux._mux.dialler import Settings
from gomux._wire.keyring import Keyring, readPSKFile
from gomux._wire.request import checkServiceName
from gomux._wire.salts import Salts, processSalts
from gomux.endpoints._clientmux import ClientMux
from gomux.endpoints._connecting import clientEndpoint
from gomux.endpoints._endpoints import MuxClientEndpoint, MuxServerEndpoint
from gomux.endpoints._listening import serverEndpoint
from gomux.error import KeyringError
from gomux.limits import IDLE_TIMEOUT, WAIT_TIMEOUT

_T = TypeVar("_T")

#: The muxes that endpoint strings share: one per reactor, carrier, key and settings.
#: The references here are weak: the endpoints of a mux, and a connected carrier, keep
#: it alive.
_muxes: WeakKeyDictionary[Any, WeakValueDictionary[object, ClientMux]] = (
    WeakKeyDictionary()
)

#: What recognizes the hellos of servers and of clients with C{allowSelf}.
_serverSalts = Salts()
_clientSalts = Salts()

_words = {
    "yes": True,
    "true": True,
    "1": True,
    "no": False,
    "false": False,
    "0": False,
}


def parseServer(
    reactor: Any, args: Sequence[object], kwargs: Mapping[str, object]
) -> IStreamServerEndpoint:
    """
    Make the server endpoint that a string describes.  Endpoints with the same carrier,
    pre-shared key and settings share one port, each with its own C{service}.

    @param reactor: the reactor.
    @param args: the string's positional arguments after C{gomux}.
    @param kwargs: the string's keyword arguments.
    @return: the endpoint.
    @raise ValueError: if the string is not valid.
    """
    words = _Words(args, kwargs)
    keyring = words.takeKeyring()
    settings = words.takeSettings(keyring, _serverSalts)
    service = words.takeService()
    peer = words.takePeer(keyring)
    carrier = words.carrier("server", serverEndpoint, reactor)
    description = words.description()
    return MuxServerEndpoint.described(
        description, reactor, carrier, keyring, service, peer, **settings
    )


def parseClient(
    reactor: Any, args: Sequence[object], kwargs: Mapping[str, object]
) -> IStreamClientEndpoint:
    """
    Make the client endpoint that a string describes.  Endpoints with the same
    carrier, pre-shared key and settings share one mux, even if their C{timeout} or
    C{service} differs.

    @param reactor: the reactor.
    @param args: the string's positional arguments after C{gomux}.
    @param kwargs: the string's keyword arguments.
    @return: the endpoint.
    @raise ValueError: if the string is not valid.
    """
    words = _Words(args, kwargs)
    keyring = words.takeKeyring()
    peer = words.takePeer(keyring)
    try:
        _, pskKey = keyring.single(peer)
    except KeyringError as error:
        raise KeyringError(f"{error}; say whose key to use with peer=") from None
    settings = words.takeSettings(keyring, _clientSalts)
    service = words.takeService()
    timeout = words.takeSeconds("timeout", WAIT_TIMEOUT)
    idleTimeout = words.takeSeconds("idleTimeout", IDLE_TIMEOUT)
    carrier = words.carrier("client", clientEndpoint, reactor)
    muxes = _muxes.setdefault(reactor, WeakValueDictionary())
    key = (words.description(), pskKey, idleTimeout, *sorted(settings.items()))
    mux = muxes.get(key)
    if mux is None:
        mux = ClientMux(
            *(reactor, carrier, keyring),
            peer=peer,
            idleTimeout=idleTimeout,
            **settings,
        )
        muxes[key] = mux
    return MuxClientEndpoint.sharing(mux, timeout, service)


class _Words:
    """
    The parts of an endpoint string.  The C{take} methods remove the keywords of
    C{gomux:}.  The rest is the string of the carrier.

    @ivar _args: the positional arguments after C{gomux}.
    @ivar _keywords: the keyword arguments that were not taken yet.
    @ivar _hasKey: whether the string has the key itself.  If the key has a colon, the
        rest of it looks like other parts, so errors must not show these.
    """

    def __init__(self, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        self._args = [_text(arg) for arg in args]
        self._keywords = {key: _text(value) for key, value in kwargs.items()}
        self._hasKey = "psk" in self._keywords

    def description(self) -> str:
        """
        @return: the parts that were not taken, as an endpoint string.
        """
        return ":".join(
            [_quote(arg) for arg in self._args]
            + [
                f"{_quote(key)}={quoteStringArgument(value)}"
                for key, value in sorted(self._keywords.items())
            ]
        )

    def carrier(
        self, role: str, fromString: Callable[[Any, str], _T], reactor: Any
    ) -> _T:
        """
        Make the carrier's endpoint from the parts that were not taken.

        @param role: C{"client"} or C{"server"}, for error messages.
        @param fromString: makes an endpoint from a string.
        @param reactor: the reactor.
        @return: the endpoint.
        @raise ValueError: if the parts do not describe such an endpoint.
        @raise OSError: if a file that they name cannot be read.  If the string has the
            key itself, this is a C{ValueError} too, which names no file.
        """
        description = self.description()
        if not description:
            raise ValueError(
                "gomux: has no carrier; after it there must be another"
                f" {role} endpoint's string, such as tcp:..."
            )
        try:
            return fromString(reactor, description)
        except Exception as error:
            if self._hasKey:
                raise ValueError(
                    f"what follows gomux: is not the string of a {role} endpoint; it is"
                    " not shown, because it has psk=, and a part of the key may be in"
                    " it: a colon in the key needs a backslash"
                    f" ({type(error).__name__})"
                ) from None
            if not isinstance(
                error, (ValueError, TypeError, LookupError, AttributeError)
            ):
                raise
            raise ValueError(
                f"{description!r}, after gomux:, is not the string of a {role}"
                f" endpoint: {error}"
            ) from error

    def takeKeyring(self) -> Keyring:
        """
        @return: the pre-shared key.
        @raise ValueError: if not exactly one of C{pskFile} and C{psk} is given,
            or the key is not valid.
        """
        path = self._keywords.pop("pskFile", None)
        psk = self._keywords.pop("psk", None)
        insecure = self._takeBool("pskFileInsecure")
        if (path is None) == (psk is None):
            raise ValueError("a gomux: endpoint needs either pskFile= or psk=")
        allowShort = self._takeBool("allowShortPSK")
        try:
            if path is not None:
                keyring = readPSKFile(path, insecure, allowShort=allowShort)
            else:
                assert psk is not None
                warn(
                    "psk= in an endpoint string can be read by others; use pskFile=",
                    stacklevel=5,
                )
                keyring = Keyring((("", psk),), allowShort=allowShort)
        except KeyringError as error:
            hint = ""
            if "is shorter than" in str(error):
                hint = ", or give allowShortPSK=yes"
            raise KeyringError(f"{error}{hint}") from None
        for warning in keyring.warnings:
            warn(warning, stacklevel=5)
        return keyring

    def takeSettings(self, keyring: Keyring, own: Salts) -> Settings:
        """
        @param keyring: the pre-shared keys.
        @param own: issues the salts if C{allowSelf} is given.
        @return: the other arguments of L{MuxFactory<gomux.MuxFactory>}.
        @raise ValueError: if an argument of strict mode is given without strict mode,
            or C{strictPeer} names a peer without a key.
        """
        strict: bool | tuple[str, ...] = self._takeBool("strict")
        peers = self._keywords.pop("strictPeer", None)
        if peers is not None:
            if strict:
                raise ValueError("strict=yes is for all peers: leave out strictPeer=")
            strict = tuple(sorted(set(peers.split(","))))
            for peer in strict:
                self._checkPeer("strictPeer", peer, keyring)
        context = self._keywords.pop("context", "")
        strictClock = self._takeBool("strictClock")
        allowSelf = self._takeBool("allowSelf")
        for keyword, value in (
            ("context", context),
            ("strictClock", strictClock),
            ("allowSelf", allowSelf),
        ):
            if value and not strict:
                raise ValueError(
                    f"{keyword}= is of use only with strict=yes or strictPeer="
                )
        return {
            "strict": strict,
            "context": context.encode("utf-8"),
            "strictClock": strictClock,
            "salts": own if allowSelf else processSalts,
        }

    def takeService(self) -> str | None:
        """
        @return: the name of the service; C{None} for none.
        @raise ValueError: if the name is not valid.
        """
        service = self._keywords.pop("service", None)
        if service is None:
            return None
        try:
            return checkServiceName(service)
        except ValueError:
            if not self._hasKey:
                raise
            raise ValueError("service= is not the name of a service") from None

    def takePeer(self, keyring: Keyring) -> str | None:
        """
        @param keyring: the pre-shared keys.
        @return: the name of the peer; C{None} for none.
        @raise ValueError: if no key has it.
        """
        peer = self._keywords.pop("peer", None)
        if peer is not None:
            self._checkPeer("peer", peer, keyring)
        return peer

    def _checkPeer(self, keyword: str, peer: str, keyring: Keyring) -> None:
        if self._hasKey:
            raise ValueError(f"{keyword}= needs pskFile=: a key in psk= has no name")
        if not peer or peer not in keyring.names:
            raise ValueError(f"{keyword}={peer}: no key has this name")

    def takeSeconds(self, keyword: str, default: float) -> float:
        """
        @return: the value of a keyword that takes a number of seconds.
        @raise ValueError: if the value is not such a number.
        """
        value = self._keywords.pop(keyword, None)
        if value is None:
            return default
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1
        if not 0 <= seconds < math.inf:
            raise ValueError(
                f"{self._described(keyword, value)} is not a number of seconds"
            )
        return seconds

    def _takeBool(self, keyword: str) -> bool:
        value = self._keywords.pop(keyword, "no")
        try:
            return _words[value.lower()]
        except KeyError:
            raise ValueError(
                f"{self._described(keyword, value)} is neither yes nor no"
            ) from None

    def _described(self, keyword: str, value: str) -> str:
        """
        @return: a keyword and its value, for an error.
        """
        shown = "..." if self._hasKey else value
        return f"{keyword}={shown}"


def _quote(argument: str) -> str:
    """
    Quote an argument, also its equals signs: with an unquoted equals sign it would be
    parsed as a keyword.
    """
    return str(quoteStringArgument(argument)).replace("=", "\\=")


def _text(value: object) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
