# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The fuzz target C{strings}: endpoint strings of clients and servers.
"""

from __future__ import annotations

import os
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import NamedTemporaryFile
from typing import Any
from unittest.mock import patch

from twisted.internet.endpoints import (
    clientFromString,
    quoteStringArgument,
    serverFromString,
)
from twisted.internet.testing import MemoryReactorClock

from gomux import MuxClientEndpoint, MuxServerEndpoint
from gomux.endpoints._strings import _muxes

#: The parts of the keys in the strings.  No other text has them.
PARTS = ("Zq7Wk9Gt4Nc6Ld2R", "Xv3Yp5Mw8", "Jh1Bf8Sd0")
#: The keys in the strings.  The colon of most is not quoted, so that Twisted takes the
#: rest of the key for other parts of the string.
KEYS = (
    "-".join(PARTS),
    ":".join(PARTS),
    quoteStringArgument(":".join(PARTS)),
    f"{PARTS[0]}:{PARTS[1]}={PARTS[2]}",
    f"{PARTS[0]}:timeout={PARTS[1]}:{PARTS[2]}",
    f"{PARTS[0]}:strict={PARTS[1]}{PARTS[2]}",
    f"{PARTS[0]}:pskFile={PARTS[1]}:{PARTS[2]}",
    f"{PARTS[0]}:privateKey={PARTS[1]}:certKey={PARTS[2]}",
)

#: Stands for C{:psk=} with a key of L{KEYS}.
_KEY = re.compile("[\x01-\x08]")


def strings(data: bytes) -> None:
    """
    Parse an endpoint string.  The first byte selects a server or a client.  The rest
    is what follows C{gomux:}.  In it a byte from 1 to 8 stands for C{:psk=} with a key,
    and the byte 14 for C{:pskFile=} with the path of a file that has a key.
    """
    isServer, text = bool(data[:1] > b"\x7f"), data[1:].decode(errors="surrogateescape")
    with NamedTemporaryFile(prefix="gomux-fuzz-") as file:
        file.write(KEYS[0].encode() + b"\n")
        file.flush()
        text = text.replace("\x0e", f":pskFile={quoteStringArgument(file.name)}")
        text = _KEY.sub(lambda match: f":psk={KEYS[ord(match[0]) - 1]}", text)
        # Twisted raises RuntimeError if a single backslash ends the string, and calls
        # no plugin.
        if (len(text) - len(text.rstrip("\\"))) % 2:
            text += "\\"
        string = f"gomux:{text.removeprefix(':')}"
        said = _parse(isServer, string)
        assert _parse(isServer, string) == said, "the string was parsed in two ways"
    # A key after a backslash or in another part is not a keyword's value.
    if not _isQuoted(text):
        assert not any(part in said for part in PARTS), said


def _isQuoted(text: str) -> bool:
    """
    @return: whether a C{psk=} of the target is not a keyword, because a backslash
        quotes the colon before it.
    """
    return re.search(r"\\:psk=", text) is not None


def _parse(isServer: bool, string: str) -> str:
    """
    Parse a string.

    @return: all that was said about it: the error and the warnings.
    """
    reactor: Any = MemoryReactorClock()
    said = []
    with warnings.catch_warnings(record=True) as warned, _offline():
        warnings.simplefilter("always")
        try:
            if isServer:
                server = serverFromString(reactor, string)
                assert isinstance(server, MuxServerEndpoint)
            else:
                client = clientFromString(reactor, string)
                assert isinstance(client, MuxClientEndpoint)
                again = clientFromString(reactor, string)
                assert client._mux is again._mux, "the mux is not shared"
                assert [*_muxes[reactor].values()] == [client._mux]
        except (ValueError, OSError) as error:
            # With every error that led to it.
            said += traceback.format_exception_only(error)
            while (cause := error.__cause__ or _shown(error)) is not None:
                said += traceback.format_exception_only(cause)
                error = cause  # type: ignore[assignment]
    said += [str(warning.message) for warning in warned]
    assert not reactor.getDelayedCalls(), "a delayed call was made"
    for made in ("Clients", "Servers"):
        for kind in ("tcp", "ssl", "unix"):
            assert not getattr(reactor, kind + made), "a socket was opened"
    return "".join(said)


def _shown(error: BaseException) -> BaseException | None:
    return None if error.__suppress_context__ else error.__context__


@contextmanager
def _offline() -> Iterator[None]:
    """
    Fail if a socket is made, or a file is removed.
    """
    refused = AssertionError("a string opened a socket or removed a file")
    with (
        patch("socket.socket", side_effect=refused),
        patch.object(os, "unlink", side_effect=refused),
    ):
        yield
