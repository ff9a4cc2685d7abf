# -*- test-case-name: gomux.test.status.test_page -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
As much of HTTP as a status page needs: one request a connection, with GET or HEAD and
without a body.  C{twisted.web} would keep connections open, answer any number of
requests on each, and keep bodies.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from gomux._carrier.transport import dropTransport
from gomux.limits import PAGE_REQUEST, PAGE_TIMEOUT


class Request(NamedTuple):
    """
    The head of a request with GET or HEAD.

    @ivar path: its path, without a query.
    @ivar version: the version of HTTP, such as C{HTTP/1.1}.
    @ivar fields: the names of the fields, in lower case, and their values.
    """

    path: bytes
    version: bytes
    fields: tuple[tuple[bytes, bytes], ...]

    def values(self, name: bytes) -> list[bytes]:
        """
        @return: the values of all fields with a name.
        """
        return [value for own, value in self.fields if own == name]


class Answer(NamedTuple):
    """
    An answer.

    @ivar code: the code with its reason.
    @ivar kind: the type of the body.
    @ivar body: the body.
    @ivar fields: further fields of the head.
    """

    code: str
    kind: str
    body: bytes
    fields: str = ""


def text(code: str, sentence: str, fields: str = "") -> Answer:
    """
    @return: an answer that is a sentence.
    """
    return Answer(code, "text/plain; charset=utf-8", sentence.encode() + b"\n", fields)


class OneAnswer(Protocol):
    """
    Answers the first request of a connection and ends the connection.  It keeps nothing
    but the head of that request, and takes no request that has a body.

    @ivar clock: the reactor.
    @ivar _head: what has come of the head; C{None} once the request was answered.
    @ivar _timeout: the call that ends the connection if the request, or the reading of
        the answer, takes too long.
    """

    transport: Any
    clock: Any
    _head: bytes | None = b""
    _timeout: IDelayedCall

    def respond(self, request: Request) -> Answer:
        """
        @return: the answer to a request.
        """
        raise NotImplementedError

    def connectionMade(self) -> None:
        """
        Wait for the request, but not for ever.
        """
        self._timeout = self.clock.callLater(PAGE_TIMEOUT, self.drop)

    def drop(self) -> None:
        """
        Drop the connection.
        """
        dropTransport(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection has ended.
        """
        if self._timeout.active():
            self._timeout.cancel()

    def dataReceived(self, data: bytes) -> None:
        """
        Answer once the head is complete.  What comes after it is ignored.
        """
        if self._head is None:
            return
        # Not more is copied than the head may have.
        self._head += data[: PAGE_REQUEST + 1 - len(self._head)]
        head, end, _ = self._head.partition(b"\r\n\r\n")
        if end:
            self._answerTo(head)
        elif len(self._head) > PAGE_REQUEST:
            self._send(text("431 Request Header Fields Too Large", "the head is long"))

    def _answerTo(self, head: bytes) -> None:
        line, *lines = head.split(b"\r\n")
        words = line.split(b" ")
        parts = [field.partition(b":") for field in lines]
        fields = tuple(
            (name.strip().lower(), value.strip()) for name, _, value in parts
        )
        names = {name for name, _ in fields}
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            self._send(text("400 Bad Request", "this is not HTTP/1"))
        elif names & {b"content-length", b"transfer-encoding"}:
            self._send(text("413 Content Too Large", "requests have no bodies here"))
        elif words[0] not in (b"GET", b"HEAD"):
            refusal = "405 Method Not Allowed", "there are only GET and HEAD"
            self._send(text(*refusal, "Allow: GET, HEAD\r\n"))
        else:
            path = words[1].partition(b"?")[0]
            answer = self.respond(Request(path, words[2], fields))
            self._send(answer, hasBody=words[0] == b"GET")

    def _send(self, answer: Answer, hasBody: bool = True) -> None:
        self._head = None
        head = (
            f"HTTP/1.1 {answer.code}\r\nCache-Control: no-store\r\n"
            f"Content-Type: {answer.kind}\r\nContent-Length: {len(answer.body)}\r\n"
            f"{answer.fields}Connection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + (answer.body if hasBody else b""))
        self.transport.loseConnection()
