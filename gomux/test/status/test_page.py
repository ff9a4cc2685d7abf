"""
Tests for L{gomux.status._page}.
"""

from __future__ import annotations

import json
from html.parser import HTMLParser

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory
from gomux.status._page import PageFactory
from gomux.test.support.helpers import Recorder, Recorders
from gomux.testing import PSK, MuxPair


class Checker(HTMLParser):
    """
    Checks that each HTML element is closed, and keeps the text.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        last = self.open.pop()
        assert last == tag, f"</{tag}> closes <{last}>"

    def handle_data(self, data: str) -> None:
        self.text += data


class PageTests(SynchronousTestCase):
    """
    L{PageFactory}
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.pair = MuxPair(PageFactory(self.clock), Recorders(), clock=self.clock)

    def get(self, path: str) -> tuple[str, bytes]:
        """
        Fetch a page over a new stream.

        @return: the head and the body of the response.
        """
        recorders = Recorders()
        self.pair.client.openStream(recorders)
        recorder: Recorder = recorders.made[0]
        recorder.stream.write(
            f"GET {path} HTTP/1.1\r\nHost: mux\r\nConnection: close\r\n\r\n".encode()
        )
        self.pair.flush()
        head, _, body = bytes(recorder.received).partition(b"\r\n\r\n")
        return head.decode(), body

    def test_page(self) -> None:
        """
        The page closes each HTML element, shows the current values of this mux, and
        must not be cached.
        """
        self.pair.client.openStream(Recorders())
        head, body = self.get("/")
        self.assertTrue(head.startswith("HTTP/1.1 200 OK\r\n"), head)
        self.assertIn("Cache-Control: no-store", head)
        self.assertIn("Content-Type: text/html; charset=utf-8", head)
        checker = Checker()
        checker.feed(body.decode())
        self.assertEqual(checker.open, [])
        for tag in ("title", "h1", "main", "caption", "th"):
            self.assertIn(tag, checker.seen)
        self.assertIn('<html lang="en">', body.decode())
        self.assertIn("192.0.2.1:49152", checker.text)
        self.assertIn("Open streams2", checker.text)

    def test_json(self) -> None:
        """
        C{/status.json} serves the values of the page as JSON.
        """
        for streams in (2, 3):
            self.pair.client.openStream(Recorders())
            self.pair.flush()
            server = self.pair.server
            before = server.bytesReceived
            sent = server.bytesSent
            head, body = self.get("/status.json")
            self.assertIn("Content-Type: application/json", head)
            found = json.loads(body)
            self.assertEqual(
                (found["peer"], found["role"], found["streams"], found["bytesSent"]),
                ("192.0.2.1:49152", "server", streams, sent),
            )
            self.assertGreater(found["bytesReceived"], before)
            self.assertEqual(found["bytesReceived"], server.bytesReceived)

    def test_elsewhere(self) -> None:
        """
        Any other path is not found.
        """
        head, _ = self.get("/other")
        self.assertIn(" 404 ", head)

    def test_noSecret(self) -> None:
        """
        No page shows the pre-shared key.
        """
        for path in ("/", "/status.json", "/other"):
            head, body = self.get(path)
            self.assertNotIn(PSK, head + body.decode())

    def test_clientServes(self) -> None:
        """
        The page of a client's mux says that its end is the client.
        """
        pair = MuxPair(
            clientFactory=MuxFactory(
                PSK, True, PageFactory(self.clock), clock=self.clock
            ),
            serverFactory=MuxFactory(PSK, False, clock=self.clock),
            clock=self.clock,
        )
        recorders = Recorders()
        pair.server.openStream(recorders)
        recorders.made[0].stream.write(b"GET /status.json HTTP/1.0\r\n\r\n")
        pair.flush()
        self.assertIn(b'"role": "client"', recorders.made[0].received)
