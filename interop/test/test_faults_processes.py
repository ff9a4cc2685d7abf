"""
Faults and abuse: C{twistd gomux} under attack, and the secrecy of its keys.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import (
    clientFromString,
)
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from gomux.endpoints import MuxClientEndpoint
from interop.faults.attacker import (
    CLOSE,
    CLOSE_MUX,
    DATA,
    KEEPALIVE,
    OPEN,
    Attacker,
)
from interop.faults.cases import (
    CLIENT,
    SERVER,
    FaultTestCase,
    row,
)
from interop.support.harness import TWISTD, Peer, PeerTestCase

#: The options of a service that answers streams with a page.
PAGE = ("--factory", "gomux.PageFactory")


class Server(Protocol):
    """
    Echoes its input, and resets the connection after C{RESET}.
    """

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)
        if data == b"RESET":
            reactor.callLater(0.1, self.transport.abortConnection)


class Service:
    """
    Helpers that start C{twistd gomux} and attack it.
    """

    secret = "a pre-shared key that nobody may see"

    def twistd(self, *options: str) -> Peer:
        """
        Start C{twistd gomux}.
        """
        peer = Peer("twistd gomux")
        command = [*TWISTD, "-n", "--pidfile=", "gomux", *options]
        path = os.pathsep.join(filter(None, sys.path))
        environment = {**os.environ, "PYTHONPATH": path, "GOMUX_PSK": self.secret}
        reactor.spawnProcess(peer, command[0], command, env=environment)
        self.addCleanup(self._reap, peer)
        return peer

    def output(self, peer: Peer) -> str:
        """
        @return: All that a process has printed.
        """
        return "\n".join([*peer._seen, peer._errors.decode()])

    async def said(self, peer: Peer, pattern: str) -> re.Match[str]:
        """
        Wait until the output of a process matches a pattern.
        """
        found: re.Match[str] = await self.eventually(
            lambda: re.search(pattern, self.output(peer))
        )
        return found

    async def attack(self, port: int, psk: str = "") -> Attacker:
        """
        Connect an attacker to a server.

        @param psk: The attacker's key, by default that of the service.
        """
        attacker = Attacker(True, psk or self.secret)
        await self.connectTo(port, Factory.forProtocol(lambda: attacker))
        return attacker

    async def startService(self, *options: str) -> tuple[Peer, int]:
        """
        Start a server.

        @return: The process, and the port that it listens on.
        """
        peer = self.twistd("--listen", "tcp:0:interface=127.0.0.1", *options)
        found = await self.said(peer, r"listening on \S*?:(\d+)")
        return peer, int(found[1])


class Processes(Service, FaultTestCase, PeerTestCase):
    """
    C{twistd gomux} under attack.
    """

    pairing = SERVER

    async def attackService(self, *options: str) -> tuple[Peer, Attacker]:
        """
        Start a service in the role of C{pairing}, and connect an attacker to it.
        """
        if self.pairing == SERVER:
            peer, self.port = await self.startService(*options)
            return peer, await self.attack(self.port)
        attacker = Attacker(False, self.secret)
        port = self.listen(Factory.forProtocol(lambda: attacker))
        peer = self.twistd("--connect", f"tcp:127.0.0.1:{port}", *options)
        await attacker.up
        return peer, attacker

    @row(51)
    async def test_secret(self) -> None:
        """
        Neither the pre-shared key nor the key derived from it appears in the log or
        on the status page.
        """
        peer, attacker = await self.attackService(*PAGE)
        streamID = attacker.open()
        request = b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
        attacker.send(DATA, streamID, request)
        await attacker.untilFrame(CLOSE, streamID)
        page = attacker.data(streamID).decode()
        self.assertIn("200 OK", page)
        if self.pairing == SERVER:
            for data in (bytes(100), Attacker(True, "another").frame(KEEPALIVE)):
                stranger = await self.attack(self.port)
                stranger.transport.write(data)
                await stranger.lost
        # Have a protocol violation logged, too.
        attacker.send(OPEN, streamID ^ 1)
        await attacker.lost
        await self.said(peer, "an ID of ours")
        peer.signal("TERM")
        self.assertEqual(await peer.exitCode(), -signal.SIGTERM)
        text = page + self.output(peer)
        self.assertIn("ended", text)
        for secret in (self.secret, attacker.key.hex(), repr(attacker.key)[2:-1]):
            self.assertNotIn(secret, text)

    @row(51)
    async def test_reprs(self) -> None:
        """
        Neither the pre-shared key nor the key derived from it appears in the repr of an
        object or of its attributes, or in a verbose traceback.
        """
        from gomux import Limits, MuxFactory

        factory = MuxFactory(self.secret, False, clock=reactor, limits=Limits())
        described = repr([factory, factory.keyring, vars(factory), Limits()])
        client = clientFromString(reactor, "tcp:127.0.0.1:1")
        endpoint = MuxClientEndpoint(reactor, client, self.secret)
        described += repr([endpoint, vars(endpoint), vars(endpoint._mux)])
        mux = factory.buildProtocol(None)
        described += repr([mux, vars(mux)])
        try:
            MuxFactory("", False, clock=reactor)
        except ValueError:
            described += Failure().getTraceback(detail="verbose")
        key = Attacker(True, self.secret).key
        for secret in (self.secret, key.hex(), repr(key)[2:-1]):
            self.assertNotIn(secret, described)

    @row(43)
    async def test_terminated(self) -> None:
        """
        After SIGTERM the process refuses new streams.  Open streams go on until
        C{--drain-timeout}, then the mux is closed and the process exits.
        """
        target_ = self.listen(Factory.forProtocol(Server))
        peer, attacker = await self.attackService(
            "--target", f"tcp:127.0.0.1:{target_}", "--drain-timeout", "1.5"
        )
        first = attacker.open()
        attacker.send(DATA, first, b"before")
        await attacker.untilFrame(DATA, first)
        peer.signal("TERM")
        # The process is known to have seen the signal when it refuses a stream.
        refused: list[int] = []

        def isRefused() -> bool:
            refused.append(attacker.open())
            return attacker.count(CLOSE) > 0

        await self.eventually(isRefused)
        self.assertEqual(attacker.count(CLOSE, first), 0)
        attacker.send(DATA, first, b"after")
        await attacker.until(lambda: attacker.data(first).endswith(b"after"))
        await attacker.untilFrame(CLOSE_MUX)
        self.assertEqual(attacker.count(CLOSE, first), 1)
        attacker.transport.loseConnection()
        self.assertEqual(await peer.exitCode(), -signal.SIGTERM)


class ProcessesAsClient(Processes):
    """
    The tests of L{Processes}, with the subject as client.
    """

    pairing = CLIENT


class Accepting(Service, FaultTestCase, PeerTestCase):
    """
    A server runs out of file descriptors.
    """

    @row(36)
    async def test_noDescriptorToAccept(self) -> None:
        """
        A server without free file descriptors keeps serving its streams, and accepts
        connections again when descriptors are free.
        """
        peer, port = await self.startService(*PAGE)
        first = await self.attack(port)
        first.send(KEEPALIVE)
        await first.untilFrame(KEEPALIVE)
        pid = peer.transport.pid

        def count() -> int:
            return len(os.listdir(f"/proc/{pid}/fd"))

        used = count()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 3, used + 3))
        many = []
        for _ in range(12):
            try:
                many.append(await self.attack(port))
            except ConnectError:
                pass  # reset before this process saw that it was connected
        await self.eventually(lambda: count() >= used + 2)
        first.send(DATA, first.open(), b"GET / HTTP/1.0\r\n\r\n")
        await first.untilFrame(DATA)
        for attacker in many:
            attacker.transport.abortConnection()
            self.assertIsInstance(await attacker.lost, (ConnectionLost, Exception))
        # Until the server has closed the lost connections it would refuse another.
        await self.eventually(lambda: count() <= used)
        again = await self.attack(port)
        again.send(KEEPALIVE)
        await again.untilFrame(KEEPALIVE)
        for attacker in (first, again):
            attacker.transport.abortConnection()
            await attacker.lost
        os.kill(pid, signal.SIGTERM)
        self.assertEqual(await peer.exitCode(), -signal.SIGTERM)


class Page(Service, FaultTestCase, PeerTestCase):
    """
    The page that C{twistd gomux} serves to a peer's streams.
    """

    pairing = SERVER

    @row(64)
    async def test_page(self) -> None:
        """
        Requests one after the other are answered once.  Requests with bodies, and
        streams over the limit, cost neither descriptors nor files nor memory.
        """
        peer, port = await self.startService(*PAGE)
        attacker = await self.attack(port)
        get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        post = b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n"
        chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n"

        async def ask(request: bytes) -> bytes:
            stream = attacker.open()
            for start in range(0, len(request), 60000):
                attacker.send(DATA, stream, request[start : start + 60000])
            await attacker.untilFrame(CLOSE, stream)
            attacker.send(CLOSE, stream)
            return attacker.data(stream)

        def measure() -> tuple[int, int]:
            with open(f"/proc/{peer.transport.pid}/status") as status:
                found = re.search(r"VmRSS:\s+(\d+) kB", status.read())
            assert found is not None
            return int(found[1]), len(os.listdir(f"/proc/{peer.transport.pid}/fd"))

        self.assertIn(b"200 OK", await ask(get))
        memory, descriptors = measure()
        for _ in range(30):
            answer = await ask(get * 4000)
            self.assertEqual(answer.count(b"HTTP/1.1 "), 1)
        for request in (post, chunked):
            for _ in range(100):
                answer = await ask(request + bytes(60000))
                self.assertIn(b" 413 ", answer)
        for _ in range(300):
            attacker.send(DATA, attacker.open(), b"GET / HTTP/1.1\r\n")
        await attacker.until(lambda: attacker.count(CLOSE) >= 231 + 300 - 64)
        more, opened = measure()
        self.assertLessEqual(more - memory, 16 * 1024)
        self.assertEqual(opened, descriptors)
