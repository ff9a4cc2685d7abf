# -*- test-case-name: gomux.test.wire.test_request -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The requests with which some streams begin, and their answers.

A I{message} is a size in two bytes, little-endian, and that many bytes of JSON.  The
first message of the side that has opened the stream is a L{Request}.  The first message
of the other side is the answer.  C{docs/protocol.rst} describes them.

L{splitMessage} finds a message in the first bytes of a direction.  The other functions
encode and decode messages, or the text in them.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

from gomux.limits import MAX_NESTED, MAX_REQUEST, MAX_SERVICE_NAME

#: The name that stands for streams without a request in rules about services.
UNNAMED = "unnamed"

#: The codes of refusals, and the reason that goes with each.  A reason says no more
#: than its code.
CODES = {
    "unknown": "there is no such service",
    "not-allowed": "the peer may not use this",
    "refused": "the target has refused the connection",
    "unreachable": "the target cannot be reached",
    "timeout": "the target did not answer in time",
    "busy": "there are too many connections",
    "failed": "the connection could not be made",
}

#: How many of the last messages of each kind are remembered, with what they mean: most
#: streams are for the same few services.
CACHED = 64

#: The size of the field that has the size of a message, in bytes.
SIZE_BYTES = 2

_name = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_SERVICE_NAME}}}", re.ASCII)
_hostAndPort = re.compile(
    r"(?:\[(?P<ip>[0-9A-Za-z:.%_-]+)\]|(?P<host>[^\s\[\]:]+)):(?P<port>[0-9]{1,5})",
    re.ASCII,
)


class MalformedMessage(ValueError):
    """
    A request or an answer cannot be understood.
    """


class Request(NamedTuple):
    """
    What a peer asks for.  Exactly one of C{service} and C{connect} is given.

    @ivar service: the name of a service; C{None} for none.
    @ivar connect: the host and port to connect to; C{None} for none.
    @ivar client: the address of the client for whom the stream was opened, as text;
        C{None} if it is not told.  On the wire this is C{from}.
    @ivar reached: the address to which the client connected, as text; C{None} if it is
        not told.  On the wire this is C{to}.
    """

    service: str | None = None
    connect: tuple[str, int] | None = None
    client: str | None = None
    reached: str | None = None


def checkServiceName(name: str) -> str:
    """
    @param name: the name of a service.
    @return: the name.
    @raise ValueError: if it is not a valid name, or the reserved one.
    """
    if not isinstance(name, str) or not _name.fullmatch(name):
        raise ValueError(
            f"{name!r} is not the name of a service: 1 to {MAX_SERVICE_NAME} of the"
            " characters A-Z, a-z, 0-9, '.', '_' and '-'"
        )
    if name == UNNAMED:
        raise ValueError(
            f"{name!r} is not the name of a service: it stands for streams without one"
        )
    return name


def splitMessage(data: bytes) -> tuple[bytes, bytes] | None:
    """
    Find the message at the start of some bytes.

    @param data: the first bytes of a direction.
    @return: the JSON of the message, and the bytes after the message; C{None} if the
        message is not complete.
    @raise MalformedMessage: if the message is too large.
    """
    if len(data) < SIZE_BYTES:
        return None
    size = int.from_bytes(data[:SIZE_BYTES], "little")
    if size > MAX_REQUEST:
        raise MalformedMessage(f"it has {size} bytes, more than {MAX_REQUEST}")
    end = SIZE_BYTES + size
    if len(data) < end:
        return None
    return data[SIZE_BYTES:end], data[end:]


@lru_cache(maxsize=CACHED)
def encodeRequest(request: Request) -> bytes:
    """
    @return: the message of a request.
    @raise ValueError: if the request is not valid, or too large for a message.
    """
    members: dict[str, object] = {}
    if request.service is not None:
        members["service"] = checkServiceName(request.service)
    if request.connect is not None:
        host, port = request.connect
        members["connect"] = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if request.client is not None:
        members["from"] = request.client
    if request.reached is not None:
        members["to"] = request.reached
    message = _encode(members)
    decodeRequest(message[SIZE_BYTES:])
    return message


@lru_cache(maxsize=CACHED)
def decodeRequest(message: bytes) -> Request:
    """
    @param message: the JSON of a request.
    @return: the request.
    @raise MalformedMessage: if it is not a request.
    """
    members = _decode(message)
    if ("service" in members) == ("connect" in members):
        raise MalformedMessage("it must have exactly one of service and connect")
    service = connect = None
    if "service" in members:
        try:
            service = checkServiceName(members["service"])
        except ValueError as error:
            raise MalformedMessage(str(error)) from None
    else:
        connect = _parseHostAndPort(members["connect"])
        if not connect[1]:
            raise MalformedMessage("nothing can be connected to port 0")
    return Request(service, connect, _address(members, "from"), _address(members, "to"))


@lru_cache(maxsize=CACHED)
def encodeAnswer(code: str | None = None) -> bytes:
    """
    @param code: the code of a refusal, one of L{CODES}; C{None} to accept.
    @return: the message of the answer.
    """
    if code is None:
        return _encode({"ok": True})
    return _encode({"error": code, "reason": CODES[code]})


@lru_cache(maxsize=CACHED)
def decodeAnswer(message: bytes) -> tuple[str, str] | None:
    """
    @param message: the JSON of an answer.
    @return: the code of a refusal, and the peer's reason, which may be any text;
        C{None} if the request is accepted.  A code that is not known is C{failed}.
    @raise MalformedMessage: if it is not an answer.
    """
    members = _decode(message)
    if ("ok" in members) == ("error" in members):
        raise MalformedMessage("it must have exactly one of ok and error")
    if "ok" in members:
        if members["ok"] is not True:
            raise MalformedMessage("ok is not true")
        return None
    code, reason = members["error"], members.get("reason", "")
    if not isinstance(code, str) or not isinstance(reason, str):
        raise MalformedMessage("error or reason is not a text")
    return (code if code in CODES else "failed"), reason


def _encode(members: dict[str, object]) -> bytes:
    message = json.dumps(members, separators=(",", ":")).encode("ascii")
    if len(message) > MAX_REQUEST:
        raise MalformedMessage(f"it has more than {MAX_REQUEST} bytes")
    return len(message).to_bytes(SIZE_BYTES, "little") + message


def _decode(message: bytes) -> dict[str, Any]:
    """
    @return: the members of the object that is a message.
    @raise MalformedMessage: if the message is anything else.
    """
    if message.count(b"[") + message.count(b"{") > MAX_NESTED:
        raise MalformedMessage(f"it has more than {MAX_NESTED} arrays and objects")
    try:
        members = json.loads(
            message.decode("utf-8"),
            object_pairs_hook=_members,
            parse_constant=_refuseConstant,
        )
    except ValueError as error:
        raise MalformedMessage(f"it is not JSON in UTF-8: {error}") from None
    if not isinstance(members, dict):
        raise MalformedMessage("it is not a JSON object")
    return members


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """
    @raise ValueError: if two members have the same name.  Which of them counts would
        differ from one implementation to another.
    """
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member is there twice")
    return members


def _refuseConstant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parseHostAndPort(text: object) -> tuple[str, int]:
    """
    @return: the host and the port in C{host:port}.
    @raise MalformedMessage: if the text has another form.
    """
    match = _hostAndPort.fullmatch(text) if isinstance(text, str) else None
    if match is None or not match[0].isprintable() or int(match["port"]) > 65535:
        raise MalformedMessage("an address does not have the form host:port")
    return match["ip"] or match["host"], int(match["port"])


def _address(members: dict[str, Any], name: str) -> str | None:
    """
    @return: the address in a member; C{None} without the member.
    @raise MalformedMessage: if it is no address.
    """
    if name not in members:
        return None
    text = members[name]
    if isinstance(text, str) and text.startswith("unix:") and "\0" not in text:
        return text
    _parseHostAndPort(text)
    return str(text)
