"""
Tests for L{gomux.status._page}.
"""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory, PageFactory
from gomux._wire.keyring import Keyring
from gomux.limits import PAGE_REQUEST, PAGE_STREAMS, PAGE_TIMEOUT
from gomux.test.support.helpers import Recorder, Recorders
from gomux.test.support.logs import Lines
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
        self.pair = MuxPair(PageFactory(), Recorders(), clock=self.clock)

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
            clientFactory=MuxFactory(PSK, True, PageFactory(), clock=self.clock),
            serverFactory=MuxFactory(PSK, False, clock=self.clock),
            clock=self.clock,
        )
        recorders = Recorders()
        pair.server.openStream(recorders)
        recorders.made[0].stream.write(b"GET /status.json HTTP/1.0\r\n\r\n")
        pair.flush()
        self.assertIn(b'"role": "client"', recorders.made[0].received)


class AbuseTests(SynchronousTestCase):
    """
    Requests of a peer that means no good
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.page = PageFactory()
        self.pair = MuxPair(self.page, Recorders(), clock=self.clock)

    def send(self, request: bytes) -> Recorder:
        """
        Send a request over a new stream.
        """
        recorders = Recorders()
        self.pair.client.openStream(recorders)
        recorder: Recorder = recorders.made[0]
        recorder.stream.write(request)
        self.pair.flush()
        return recorder

    def test_pipelined(self) -> None:
        """
        Only the first of several requests is answered.
        """
        recorder = self.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        recorder.stream.write(b"GET / HTTP/1.1\r\n\r\n")
        self.pair.flush()
        self.assertEqual(recorder.received.count(b"HTTP/1.1"), 1)
        self.assertIsNotNone(recorder.reason)
        self.assertEqual(self.page.streams, 0)

    def test_afterAnswer(self) -> None:
        """
        What comes while the stream is closing is ignored.
        """
        transport: Any = StringTransport()
        transport.mux = self.pair.server
        protocol = self.page.buildProtocol(None)
        assert protocol is not None
        protocol.makeConnection(transport)
        for _ in range(2):
            protocol.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(transport.value().count(b"HTTP/1.1"), 1)
        self.assertTrue(transport.disconnecting)

    def test_bodies(self) -> None:
        """
        A request with a body, a request that is malformed or has too large a head, and
        a method other than GET and HEAD are refused.
        """
        large = b"GET / HTTP/1.1\r\nX: " + bytes(PAGE_REQUEST)
        for request, code in (
            (b"GET / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n", 413),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n5\r\n", 413),
            (b"nonsense\r\n\r\n", 400),
            (b"GET / HTTP/2\r\n\r\n", 400),
            (b"DELETE / HTTP/1.1\r\n\r\n", 405),
            (large, 431),
        ):
            recorder = self.send(request)
            self.assertTrue(recorder.received.startswith(b"HTTP/1.1 %d " % code))
            self.assertIsNotNone(recorder.reason)

    def test_head(self) -> None:
        """
        The answer to HEAD has no body.
        """
        recorder = self.send(b"HEAD / HTTP/1.1\r\n\r\n")
        self.assertIn(b" 200 OK\r\n", recorder.received)
        self.assertTrue(recorder.received.endswith(b"\r\n\r\n"))

    def test_slow(self) -> None:
        """
        A request may come in pieces, but must be complete in time.
        """
        recorder = self.send(b"GET / HTT")
        recorder.stream.write(b"P/1.0\r\n\r\n")
        self.pair.flush()
        self.assertIn(b" 200 OK\r\n", recorder.received)
        recorder = self.send(b"GET / HTTP/1.1\r\n")
        self.assertEqual(self.page.streams, 1)
        self.clock.advance(PAGE_TIMEOUT)
        self.pair.flush()
        self.assertIsNotNone(recorder.reason)
        self.assertEqual(recorder.received, b"")
        self.assertEqual(self.page.streams, 0)

    def test_many(self) -> None:
        """
        Streams over the limit are refused.
        """
        kept = [self.send(b"GET") for _ in range(PAGE_STREAMS)]
        self.assertIsNotNone(self.send(b"GET").reason)
        for recorder in kept:
            self.assertIsNone(recorder.reason)
            recorder.stream.abortConnection()
        self.pair.flush()
        self.assertIsNone(self.send(b"GET").reason)


class SharesTests(SynchronousTestCase):
    """
    How the peers of a keyring share the streams of the page.
    """

    def test_shares(self) -> None:
        """
        If a peer has nearly all streams, another is still served.  The log says why a
        stream is refused, and its place is not counted when it ends.
        """
        clock = Clock()
        page = PageFactory()
        keyring = Keyring({"alice": "a" * 40, "bob": "b" * 40})
        server = MuxFactory(keyring, False, page, clock=clock)
        lines = Lines("gomux._mux.factory")
        globalLogPublisher.addObserver(lines)
        self.addCleanup(globalLogPublisher.removeObserver, lines)
        held = {}
        for psk in ("a" * 40, "b" * 40):
            client = MuxFactory(psk, True, clock=clock)
            pair = MuxPair(clientFactory=client, serverFactory=server, clock=clock)
            recorders = Recorders()
            for _ in range(PAGE_STREAMS):
                pair.client.openStream(recorders)
            pair.flush()
            held[psk] = [each for each in recorders.made if each.reason is None]
        alice, bob = held.values()
        self.assertEqual((len(alice), len(bob), page.streams), (59, 5, 64))
        self.assertRegex(
            lines.lines[0],
            "^refused a stream of <MuxProtocol from 'alice' at .*: 59 streams of"
            " the status page are used already, 59 of them by 'alice'$",
        )
        for recorder in alice + bob:
            recorder.stream.abortConnection()
        clock.advance(0)
        (shares,) = page._shares.values()
        self.assertEqual((shares.used, page.streams), (0, 0))

    def test_twoKeyrings(self) -> None:
        """
        The limit is for the peers of all keyrings together.
        """
        clock = Clock()
        page = PageFactory()
        open = 0
        for psk in ("a" * 40, "b" * 40):
            pair = MuxPair(
                clientFactory=MuxFactory(psk, True, clock=clock),
                serverFactory=MuxFactory(psk, False, page, clock=clock),
                clock=clock,
            )
            recorders = Recorders()
            for _ in range(PAGE_STREAMS - 10):
                pair.client.openStream(recorders)
            pair.flush()
            open += sum(each.reason is None for each in recorders.made)
        self.assertEqual((open, page.streams), (PAGE_STREAMS, PAGE_STREAMS))
