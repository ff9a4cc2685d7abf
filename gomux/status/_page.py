# -*- test-case-name: gomux.test.status.test_page -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The page that C{twistd gomux} serves to a peer's streams if it both listens and connects
and has neither a target nor a factory.  It shows the mux that the streams belong to.
"""

from __future__ import annotations

import json
from html import escape
from typing import cast

from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from gomux._mux.log import describeAddress
from gomux._mux.protocol import MuxProtocol
from gomux._mux.stream import Stream
from gomux._version import __version__
from gomux._wire.keyring import Keyring
from gomux._wire.shares import Shares
from gomux.limits import PAGE_REQUEST, PAGE_STREAMS, PAGE_TIMEOUT

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gomux: {peer}</title>
<style>
body {{ font: 1.1em/1.5 sans-serif; max-width: 40em; margin: 2em auto; padding: 0 1em;
        color: #222; background: #fff }}
table {{ border-collapse: collapse }}
th, td {{ text-align: left; padding: .3em 1.5em .3em 0; border-bottom: 1px solid #bbb }}
caption {{ text-align: left; font-weight: bold; padding: .3em 0 }}
</style>
</head>
<body>
<main>
<h1>It works</h1>
<p>This page came to you through a <em>mux</em>: one encrypted connection that carries
many streams.  The far end of the mux serves this page on each stream that is opened to
it, because it was given neither <code>--target</code> nor <code>--factory</code>: see
<code>twistd gomux --help</code>.</p>
<table>
<caption>The mux, as its far end saw it when this page was loaded</caption>
{rows}
</table>
<p>The same <a href="status.json">as JSON</a>.  gomux for Twisted {version}.</p>
</main>
</body>
</html>
"""


def status(mux: MuxProtocol) -> dict[str, str | int]:
    """
    @return: the current values of a mux by their names, ready for JSON.
    """
    return {
        "peer": describeAddress(mux.getPeer()),
        "role": "client" if mux.factory.isClient else "server",
        "streams": mux.streamCount,
        "bytesReceived": mux.bytesReceived,
        "bytesSent": mux.bytesSent,
    }


_LABELS = {
    "peer": "Peer",
    "role": "This end is the",
    "streams": "Open streams",
    "bytesReceived": "Bytes received",
    "bytesSent": "Bytes sent",
}


def _answer(method: bytes, path: bytes, mux: MuxProtocol) -> tuple[str, str, str]:
    """
    @return: the code with its reason, the type of the body, and the body.
    """
    if method not in (b"GET", b"HEAD"):
        return "405 Method Not Allowed", "text/plain", "only GET and HEAD\n"
    found = status(mux)
    if path == b"/status.json":
        return "200 OK", "application/json", json.dumps(found) + "\n"
    if path != b"/":
        return "404 Not Found", "text/plain", "there are only / and /status.json\n"
    texts = {name: escape(str(value)) for name, value in found.items()}
    rows = "\n".join(
        f'<tr><th scope="row">{_LABELS[name]}</th><td>{value}</td></tr>'
        for name, value in texts.items()
    )
    page = _PAGE.format(peer=texts["peer"], rows=rows, version=__version__)
    return "200 OK", "text/html; charset=utf-8", page


class _PageProtocol(Protocol):
    """
    Answers the first request of a stream and ends the stream.  It keeps nothing but the
    head of that request, and takes no request that has a body.

    @ivar _mux: the mux of the stream.
    @ivar _head: what has come of the head; C{None} once the request was answered.
    @ivar _shares: the shares of the peer and the others; C{None} if the peer has no
        place left for the stream.
    @ivar _timeout: the call that ends the stream if the request, or the peer's reading
        of the answer, takes too long.
    """

    factory: PageFactory
    _head: bytes | None = b""
    _shares: Shares | None = None
    _timeout: IDelayedCall

    def connectionMade(self) -> None:
        """
        Wait for the request, but not for ever.  Refuse the stream if its peer has used
        up its share.
        """
        stream = cast(Stream, self.transport)
        self._mux = cast(MuxProtocol, stream.mux)
        self._timeout = self._mux.factory.clock.callLater(
            PAGE_TIMEOUT, stream.abortConnection
        )
        shares = self.factory.sharesOf(self._mux)
        if shares.mayTake(self._mux.peerName):
            shares.take(self._mux.peerName)
            self.factory.streams += 1
            self._shares = shares
        else:
            self._mux.factory.notices.warn(
                "refused a stream of {mux}: {why}",
                kind=self._mux.peerName,
                mux=self._mux,
                why=shares.refusal(self._mux.peerName, "streams of the status page"),
            )
            stream.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The stream has ended.
        """
        if self._shares is not None:
            self.factory.streams -= 1
            self._shares.giveBack(self._mux.peerName)
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
            self._send("GET", "431 Request Header Fields Too Large", "text/plain", "")

    def _answerTo(self, head: bytes) -> None:
        line, *fields = head.split(b"\r\n")
        words = line.split(b" ")
        names = {field.partition(b":")[0].strip().lower() for field in fields}
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            self._send("GET", "400 Bad Request", "text/plain", "")
        elif names & {b"content-length", b"transfer-encoding"}:
            self._send("GET", "413 Content Too Large", "text/plain", "no bodies\n")
        else:
            method = "HEAD" if words[0] == b"HEAD" else "GET"
            self._send(method, *_answer(words[0], words[1], self._mux))

    def _send(self, method: str, code: str, kind: str, text: str) -> None:
        self._head = None
        body = text.encode("utf-8")
        head = (
            f"HTTP/1.1 {code}\r\nCache-Control: no-store\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        stream = cast(Stream, self.transport)
        stream.write(head.encode("ascii") + (b"" if method == "HEAD" else body))
        stream.loseConnection()


class PageFactory(Factory):
    """
    Serves the status page over streams: one answer a stream.

    @ivar streams: how many streams are open, without those that are refused.
    @ivar _shares: how the peers of each keyring share the streams.
    """

    noisy = False
    streams = 0

    def __init__(self) -> None:
        self._shares: dict[Keyring, Shares] = {}

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """
        @return: the protocol of a stream, or C{None} if too many are open.
        """
        if self.streams >= PAGE_STREAMS:
            return None
        protocol = _PageProtocol()
        protocol.factory = self
        return protocol

    def sharesOf(self, mux: MuxProtocol) -> Shares:
        """
        @return: how the peers of a mux's keyring share the streams.
        """
        keyring = mux.factory.keyring
        if keyring not in self._shares:
            self._shares[keyring] = Shares(PAGE_STREAMS, keyring)
        return self._shares[keyring]
