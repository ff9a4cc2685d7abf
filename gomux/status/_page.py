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

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from gomux._mux.log import describeAddress
from gomux._mux.protocol import MuxProtocol
from gomux._version import __version__
from gomux._wire.keyring import Keyring
from gomux._wire.shares import Shares
from gomux.limits import PAGE_STREAMS
from gomux.status._http import Answer, OneAnswer, Request, text

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


class _PageProtocol(OneAnswer):
    """
    Answers the first request of a stream and ends the stream.

    @ivar _mux: the mux of the stream.
    @ivar _shares: the shares of the peer and the others; C{None} if the peer has no
        place left for the stream.
    """

    factory: PageFactory
    _mux: MuxProtocol
    _shares: Shares | None = None

    def connectionMade(self) -> None:
        """
        Wait for the request, but not for ever.  Refuse the stream if its peer has used
        up its share.
        """
        self._mux = self.transport.mux
        self.clock = self._mux.factory.clock
        super().connectionMade()
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
            self.drop()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The stream has ended.
        """
        super().connectionLost(reason)
        if self._shares is not None:
            self.factory.streams -= 1
            self._shares.giveBack(self._mux.peerName)

    def respond(self, request: Request) -> Answer:
        """
        @return: the page, or its values as JSON.
        """
        found = status(self._mux)
        if request.path == b"/status.json":
            body = json.dumps(found) + "\n"
            return Answer("200 OK", "application/json", body.encode())
        if request.path != b"/":
            return text("404 Not Found", "there are only / and /status.json")
        texts = {name: escape(str(value)) for name, value in found.items()}
        rows = "\n".join(
            f'<tr><th scope="row">{_LABELS[name]}</th><td>{value}</td></tr>'
            for name, value in texts.items()
        )
        page = _PAGE.format(peer=texts["peer"], rows=rows, version=__version__)
        return Answer("200 OK", "text/html; charset=utf-8", page.encode())


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
