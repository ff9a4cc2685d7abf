"""
Tests for L{gomux.status._site}, the operator's port.
"""

from __future__ import annotations

import builtins
import json
import re
from typing import Any
from unittest.mock import patch

from twisted.internet.address import UNIXAddress
from twisted.internet.tcp import Port, Server
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from gomux.limits import ACCEPT_QUEUE, PAGE_TIMEOUT, STATUS_CONNECTIONS, STATUS_TIME
from gomux.status import _site
from gomux.status._history import INTERVAL, SAMPLES
from gomux.status._site import ASSETS, StatusFactory, isOwnHost
from gomux.test.support.helpers import Recorders
from gomux.test.support.kernel import Kernel
from gomux.test.support.statusrig import BROWSER, StatusRig


class HostTests(SynchronousTestCase):
    """
    L{isOwnHost}, and its effect
    """

    def test_hosts(self) -> None:
        """
        The port answers for C{localhost}, for addresses, and for the names that the
        operator has given; with any port number, or none.
        """
        for host in (
            *("localhost", "LocalHost:9100", "localhost.", "localhost:"),
            *("127.0.0.1", "127.0.0.1:80", "192.0.2.7:9100", "[::1]", "[::1]:9100"),
            *("[2001:db8::7]:80", "gomux.example.org", "Gomux.Example.Org.:443"),
        ):
            self.assertTrue(isOwnHost(host.encode(), {"gomux.example.org"}), host)

    def test_others(self) -> None:
        """
        It does not answer for any other, nor for what is no C{Host}.
        """
        for host in (
            *("evil.example", "example.org", "localhost.evil.example", "", ":80"),
            *("evil.example:80", "127.0.0.1.evil.example", "localhost:80:80"),
            *("[::1", "[::1]80", "[::1]:x", "::1", "[localhost]x", "localhost:8o"),
            *("127.0.0.1@evil.example", "localhost/", "1270.0.0.1", "\xb2", "0x7f.1"),
            *("gomux.example.org.evil", "localhost:\xb2", "localhost..", "local host"),
        ):
            shown = host.encode("latin-1")
            self.assertFalse(isOwnHost(shown, {"gomux.example.org"}), host)

    def test_answer(self) -> None:
        """
        Every path is refused with another C{Host}, with none, and with several.
        """
        rig = StatusRig(self, ("Gomux.example",))
        for path in ("/", "/status.json", "/metrics", "/healthz", "/page.js", "/x"):
            head, body = rig.get(path, "evil.example")
            self.assertTrue(head.startswith("HTTP/1.1 421 "), head)
            self.assertIn(b"--status-host", body)
            head, _ = rig.get(path, "gomux.example:9100")
            self.assertFalse(head.startswith("HTTP/1.1 421 "), head)
            for hosts in (b"", b"Host: localhost\r\nHost: localhost\r\n"):
                request = b"GET %s HTTP/1.1\r\n%s\r\n" % (path.encode(), hosts)
                answer = rig.send(request).value()
                self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)

    def test_unix(self) -> None:
        """
        On a Unix socket it answers whatever the C{Host}.
        """
        rig = StatusRig(self)
        for host in (b"Host: anything\r\n", b""):
            request = b"GET /healthz HTTP/1.1\r\n%s\r\n" % host
            transport = rig.send(request, UNIXAddress(b"/run/gomux.sock"))
            self.assertTrue(transport.value().startswith(b"HTTP/1.1 200 "))


class AnswerTests(SynchronousTestCase):
    """
    What the port answers
    """

    def setUp(self) -> None:
        self.rig = StatusRig(self)

    def test_health(self) -> None:
        """
        C{/healthz} answers 200, or 503 with what is wrong.
        """
        head, body = self.rig.get("/healthz")
        self.assertTrue(head.startswith("HTTP/1.1 200 OK\r\n"))
        self.assertEqual(body, b"ok\n")
        self.rig.listener.port = None
        self.rig.connector()
        self.rig.clock.advance(1)
        head, body = self.rig.get("/healthz")
        self.assertTrue(head.startswith("HTTP/1.1 503 Service Unavailable\r\n"))
        self.assertEqual(body, b"--listen x\n--connect bob=x\n")

    def test_json(self) -> None:
        """
        C{/status.json} has the facts, and the rates of the last minutes.
        """
        pair = self.rig.connect()
        pair.client.openStream(Recorders(), "web")
        pair.flush()
        received = pair.server.bytesReceived
        self.rig.clock.advance(INTERVAL)
        head, body = self.rig.get("/status.json")
        self.assertIn("Content-Type: application/json\r\n", head)
        found = json.loads(body)
        self.assertTrue(found["healthy"])
        self.assertEqual((found["interval"], found["samples"]), (INTERVAL, SAMPLES))
        alice, bob = found["peers"]
        self.assertEqual(len(alice["rates"]["received"]), SAMPLES)
        self.assertEqual(alice["rates"]["received"][-1], received // INTERVAL)
        self.assertEqual(bob["rates"], {"received": [], "sent": []})

    def test_ports(self) -> None:
        """
        The rates are sampled while any port listens.
        """
        other = StatusFactory(self.rig.site)
        other.doStart()
        self.rig.port.doStop()
        self.assertEqual(len(self.rig.clock.getDelayedCalls()), 1)
        other.doStop()
        self.assertEqual(self.rig.clock.getDelayedCalls(), [])

    def test_head(self) -> None:
        """
        HEAD is answered as GET is, without the body.
        """
        head, body = self.rig.get("/")
        answer = self.rig.send(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n").value()
        self.assertEqual(answer.decode(), head + "\r\n\r\n")
        self.assertIn(f"Content-Length: {len(body)}", head)

    def test_otherMethods(self) -> None:
        """
        Other methods are refused, and so is an unknown path.
        """
        for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT", b"get"):
            request = method + b" /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
            answer = self.rig.send(request).value()
            self.assertTrue(answer.startswith(b"HTTP/1.1 405 "), answer)
            self.assertIn(b"\r\nAllow: GET, HEAD\r\n", answer)
        for path in ("/x", "/page.html", "/../setup.py", "//", "http://localhost/"):
            head, body = self.rig.get(path)
            self.assertTrue(head.startswith("HTTP/1.1 404 "), head)
            self.assertIn(b"/healthz", body)

    def test_query(self) -> None:
        """
        A query is ignored.
        """
        head, _ = self.rig.get("/healthz?verbose")
        self.assertTrue(head.startswith("HTTP/1.1 200 "))

    def test_noLibrary(self) -> None:
        """
        Without C{prometheus_client}, C{/metrics} says what to install.
        """
        imported = builtins.__import__

        def without(name: str, *others: Any) -> Any:
            if name.startswith("prometheus_client"):
                raise ImportError(name)
            return imported(name, *others)

        with patch.object(builtins, "__import__", without):
            rig = StatusRig(self)
        head, body = rig.get("/metrics")
        self.assertTrue(head.startswith("HTTP/1.1 501 Not Implemented\r\n"))
        self.assertIn(b"pip install 'gomux[metrics]'", body)
        head, _ = rig.get("/status.json")
        self.assertTrue(head.startswith("HTTP/1.1 200 "))

    def test_expensive(self) -> None:
        """
        An answer that took long to make is given again for a while, so that nobody can
        keep the process busy by asking.
        """
        times = iter((100.0, 100.5, 200.0, 200.5))
        self.patch(_site, "perf_counter", lambda: next(times))
        first = self.rig.get("/status.json")
        self.rig.connect()
        self.rig.clock.advance(0.5 / STATUS_TIME - 0.1)
        self.assertEqual(self.rig.get("/status.json"), first)
        self.rig.clock.advance(0.2)
        self.assertNotEqual(self.rig.get("/status.json"), first)


class PageTests(SynchronousTestCase):
    """
    The page and its files
    """

    def setUp(self) -> None:
        self.rig = StatusRig(self)

    def test_files(self) -> None:
        """
        The page refers to its own files alone, which the port serves, and may load
        nothing else.
        """
        head, page = self.rig.get("/")
        self.assertIn("Content-Type: text/html; charset=utf-8\r\n", head)
        self.assertIn("\r\nContent-Security-Policy: default-src 'none'; ", head)
        self.assertNotIn("unsafe", head)
        found = re.findall(r'(?:src|href)="([^"]+)"', page.decode())
        self.assertGreater(len(found), 5)
        for name in found:
            head, _ = self.rig.get("/" + name)
            self.assertTrue(head.startswith("HTTP/1.1 200 "), name)
            self.assertIn("X-Content-Type-Options: nosniff", head)
        self.assertLessEqual(ASSETS.keys() - {"page.html"}, set(found))

    def test_nothingElsewhere(self) -> None:
        """
        No file refers to another site, or has a script or a style within the page, and
        the script makes no markup of text.
        """
        for name in ("", *(name for name in ASSETS if name != "page.html")):
            text = self.rig.get("/" + name)[1].decode()
            text = text.replace("http://www.w3.org/2000/svg", "")
            self.assertNotIn("//", re.sub(r"^ *//.*$", "", text, flags=re.M), name)
            for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write"):
                self.assertNotIn(word, text)
            for word in ("<style", " style=", " onclick", "eval(", "Function("):
                self.assertNotIn(word, text)
        self.assertNotRegex(self.rig.get("/")[1].decode(), r"<script(?! src=)")


class AbuseTests(SynchronousTestCase):
    """
    Clients that mean no good
    """

    def setUp(self) -> None:
        self.rig = StatusRig(self)

    def test_pipelined(self) -> None:
        """
        Only the first of several requests is answered, and the connection ends.
        """
        request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
        transport: Any = self.rig.send(request * 100)
        transport.protocol.dataReceived(request)
        self.assertEqual(transport.value().count(b"HTTP/1.1 "), 1)
        self.assertIn(b"\r\nConnection: close\r\n", transport.value())
        self.assertTrue(transport.disconnecting)

    def test_bodies(self) -> None:
        """
        A request with a body is refused.
        """
        for field in (b"Content-Length: 5", b"transfer-encoding:chunked"):
            request = b"POST / HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n" % field
            answer = self.rig.send(request).value()
            self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), answer)

    def test_slow(self) -> None:
        """
        A client that does not finish its request in time is dropped.
        """
        transport: Any = self.rig.send(b"GET / HTTP/1.1\r\n")
        self.rig.clock.advance(PAGE_TIMEOUT - 1)
        transport.protocol.dataReceived(b"X: y\r\n")
        self.assertFalse(transport.disconnecting)
        self.rig.clock.advance(1)
        self.assertTrue(transport.disconnecting)

    def test_notReading(self) -> None:
        """
        So is a client that does not read the answer.
        """
        transport: Any = self.rig.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        transport.disconnecting = False
        self.rig.clock.advance(PAGE_TIMEOUT)
        self.assertTrue(transport.disconnecting)

    def test_oneEachTurn(self) -> None:
        """
        A port accepts one connection in each turn of the reactor.
        """
        protocol = self.rig.port.buildProtocol(BROWSER)
        reactor = MemoryReactorClock()
        port = Port(0, self.rig.port, backlog=ACCEPT_QUEUE, reactor=reactor)
        port.numberAccepts = 10
        client = ("127.0.0.1", 50000)
        server = Server(Kernel(), protocol, client, port, 0, reactor)  # type: ignore[arg-type]
        protocol.makeConnection(server)
        self.assertEqual(port.numberAccepts, -1)

    def test_many(self) -> None:
        """
        The number of connections is bounded.  The oldest goes, so clients that say
        nothing cannot keep the operator out.
        """
        silent: list[Any] = [self.rig.send(b"") for _ in range(STATUS_CONNECTIONS)]
        self.assertFalse(any(transport.disconnecting for transport in silent))
        head, _ = self.rig.get("/healthz")
        self.assertTrue(head.startswith("HTTP/1.1 200 "))
        self.assertTrue(silent[0].disconnecting)
        self.assertFalse(any(transport.disconnecting for transport in silent[1:]))
        silent[0].protocol.connectionLost()
        self.assertEqual(len(self.rig.site.connections), STATUS_CONNECTIONS - 1)
        for transport in silent[1:]:
            transport.protocol.connectionLost()
        self.assertEqual(self.rig.site.connections, {})
        # That of the history.
        self.assertEqual(len(self.rig.clock.getDelayedCalls()), 1)
