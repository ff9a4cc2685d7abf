# -*- test-case-name: gomux.test.status.test_page -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The page that C{twistd gomux} serves to a peer's streams if it has neither a target nor
a factory.  It shows the mux that the streams belong to.
"""

from __future__ import annotations

import json
from html import escape
from typing import cast

from twisted.internet.interfaces import IReactorTime
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from gomux._mux.log import describeAddress
from gomux._mux.protocol import MuxProtocol
from gomux._mux.stream import Stream
from gomux._version import __version__

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


class _Status(Resource):
    """
    The L{status} of the mux that a request came through, as HTML or as JSON.

    @ivar _asJSON: C{True} for JSON, C{False} for HTML.
    """

    isLeaf = True

    def __init__(self, asJSON: bool) -> None:
        super().__init__()
        self._asJSON = asJSON

    def render_GET(self, request: Request) -> bytes:
        """
        Render the status.
        """
        stream = cast(Stream, request.channel.transport)
        found = status(cast(MuxProtocol, stream.mux))
        request.setHeader("Cache-Control", "no-store")
        if self._asJSON:
            request.setHeader("Content-Type", "application/json")
            return json.dumps(found).encode("utf-8") + b"\n"
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        texts = {name: escape(str(value)) for name, value in found.items()}
        rows = "\n".join(
            f'<tr><th scope="row">{_LABELS[name]}</th><td>{value}</td></tr>'
            for name, value in texts.items()
        )
        page = _PAGE.format(peer=texts["peer"], rows=rows, version=__version__)
        return page.encode("utf-8")


class PageFactory(Site):
    """
    Serves the status page over streams.
    """

    noisy = False

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: the reactor.
        """
        root = Resource()
        root.putChild(b"", _Status(False))
        root.putChild(b"status.json", _Status(True))
        super().__init__(root, reactor=clock)

    def log(self, request: http.Request) -> None:
        """
        Write no access log.
        """
