# -*- test-case-name: gomux.test.endpoints.test_listening -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Server endpoints from strings, as Twisted makes them, except that

  - C{haproxy:} supports half-close, accepts a header in any pieces, and builds the
    protocol for the address in the header: see L{gomux.endpoints._haproxy};
  - C{stdio:} closes the standard output at the end: see L{gomux.endpoints._stdio};
  - C{unix:} makes a socket that only its owner may use, unless C{mode=} is given, and
    replaces a stale socket: a socket on which no process listens any more.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from gomux.endpoints._haproxy import ProxiedServerEndpoint
from gomux.endpoints._stdio import StandardServerEndpoint

#: The mode of a Unix socket, unless the string gives another mode.
MODE = 0o600

#: How many connections may wait in the kernel until a forwarding endpoint accepts them.
BACKLOG = 1024

_FIELD = re.compile(r"((?:\\.|[^:\\])*)(?::|$)", re.DOTALL)
_KEYWORD = re.compile(r"((?:\\.|[^=\\])*)=(.*)", re.DOTALL)


def serverEndpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """
    Make a server endpoint.

    @param reactor: the reactor.
    @param description: an endpoint string.
    @return: the endpoint.
    @raise ValueError: if the string is not valid; Twisted's parsers raise some other
        exceptions too.
    """
    kind, _, rest = description.partition(":")
    if kind == "haproxy":
        return ProxiedServerEndpoint(reactor, serverEndpoint(reactor, rest))
    if kind == "stdio" and not rest:
        return StandardServerEndpoint(reactor)
    if kind == "unix":
        return _unixEndpoint(reactor, description, rest)
    endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    return endpoint


def forwardingEndpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """
    Make a server endpoint whose connections are forwarded.  Its clients, such as web
    browsers, may connect in bursts.  By default Twisted lets only 50 connections wait
    to be accepted.  The kernel of any further client tries again after a second.

    @param reactor: the reactor.
    @param description: an endpoint string.  It may have a C{backlog} of its own.
    @return: the endpoint.
    @raise ValueError: as for L{serverEndpoint}.
    """
    kind = description.removeprefix("haproxy:").partition(":")[0]
    if kind in ("tcp", "tcp6", "ssl", "unix") and "backlog=" not in description:
        try:
            return serverEndpoint(reactor, f"{description}:backlog={BACKLOG}")
        except TypeError:
            # The string gives a backlog by position, without the keyword.
            pass
    return serverEndpoint(reactor, description)


def _unixEndpoint(reactor: Any, description: str, rest: str) -> IStreamServerEndpoint:
    """
    Make the endpoint for a Unix socket.

    @param rest: the string after its first colon.
    """
    words: list[str] = []
    keywords: dict[str, str] = {}
    for field in _FIELD.findall(rest):
        match = _KEYWORD.fullmatch(field)
        if match:
            keywords[_unquote(match[1])] = _unquote(match[2])
        else:
            words.append(_unquote(field))
    words = [word for word in words if word]
    path = keywords.get("address") or "".join(words[:1])
    if not path:
        raise ValueError("unix: needs the path of the socket")
    if "address" not in keywords:
        words.pop(0)
    mode = keywords.get("mode", words[0] if words else None)
    if mode is None:
        description += f":mode={MODE:o}"
    endpoint = serverFromString(reactor, description)
    return UnixServerEndpoint(endpoint, path, MODE if mode is None else int(mode, 8))


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


@implementer(IStreamServerEndpoint)
class UnixServerEndpoint:
    """
    Listens on a Unix socket.

    @ivar _endpoint: see L{__init__}.
    @ivar _path: see L{__init__}.
    @ivar _mode: see L{__init__}.
    """

    def __init__(self, endpoint: Any, path: str, mode: int) -> None:
        """
        @param endpoint: Twisted's own endpoint for the socket.
        @param path: the path of the socket.
        @param mode: its mode.
        """
        self._endpoint = endpoint
        self._path = path
        self._mode = mode

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Remove a stale socket, then listen.

        @param factory: makes the protocols.
        @return: fires with the port.
        """
        removeStale(self._path)
        # Twisted sets the mode only after it has made the socket.  Until then the mask
        # keeps other users out.
        mask = os.umask(0o777 & ~self._mode)
        try:
            listening: Deferred[IListeningPort] = self._endpoint.listen(factory)
            return listening
        finally:
            os.umask(mask)


def removeStale(path: str) -> None:
    """
    Remove a Unix socket on which no process listens, and its lock.  Twisted keeps the
    lock if a process with the number in it exists, but that can be another process that
    got the same number later.  A file that is no socket, or a socket that is in use, is
    not removed, so listening there fails.

    @param path: where the socket may be.
    """
    lock = f"{path}.lock"
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode) or _isLive(path):
            return
        os.unlink(path)
        if os.readlink(lock).isdigit():
            os.unlink(lock)
    except (OSError, ValueError):
        return


def _isLive(path: str) -> bool:
    """
    @return: whether a process listens on a Unix socket, as far as can be seen.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            # It is busy, or this user may not connect to it.
            pass
    return True
