"""
Faults and abuse: targets, listeners, processes and what is written to logs.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
from collections import Counter
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    clientFromString,
)
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from gomux._service import retryDelay
from gomux.endpoints import MuxClientEndpoint, retryPolicy
from gomux.tunnel import TunnelLimits, target
from interop.faults.attacker import CLOSE, CLOSE_MUX, DATA, KEEPALIVE, PSK, Attacker
from interop.faults.cases import (
    CLIENT,
    SERVER,
    Apps,
    FaultTestCase,
    RowTestCase,
    inBothRoles,
    row,
)
from interop.harness import Peer, PeerTestCase

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


class Server(Protocol):
    """
    Echoes; resets the connection when told to.
    """

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)
        if data == b"RESET":
            reactor.callLater(0.1, self.transport.abortConnection)


@inBothRoles
class Targets(RowTestCase):
    """
    Streams that are continued at a target.
    """

    async def startTunnel(self, endpoint: Any, limits: TunnelLimits) -> None:
        """
        Connect an attacker with a subject whose streams go to a target.
        """
        self.tunnel = target("the target", endpoint, reactor, limits)
        self.makeSubject(self.tunnel)
        self.mux, self.attacker = await self.pair()

    def port(self) -> int:
        """
        Start a server for a target.
        """
        return self.listen(Factory.forProtocol(Server))

    def unused(self) -> int:
        """
        Find a port that nobody listens on.
        """
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        port.stopListening()
        return number

    async def assertClosed(self, words: str) -> None:
        """
        Check that streams to the target are closed, the target is named, and
        the mux lives.
        """
        for _ in range(2):
            streamID = self.attacker.open()
            self.attacker.send(DATA, streamID, b"data")
            await self.attacker.untilFrame(CLOSE, streamID)
        self.assertIsNone(self.mux._reason)
        self.assertEqual(self.mux.streamCount, 0)
        self.assertEqual(len(self.logged("the target", words)), 2)
        await self.eventually(lambda: not self.tunnel.bridges)

    @row(37)
    async def test_refuses(self) -> None:
        """
        A target that refuses connections.
        """
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.unused())
        await self.startTunnel(endpoint, TunnelLimits())
        await self.assertClosed("refused")

    @row(37)
    async def test_timesOut(self) -> None:
        """
        A target that does not answer.
        """

        class Silent:
            def connect(self, factory: object) -> Deferred[Any]:
                return Deferred()

        await self.startTunnel(Silent(), TunnelLimits(targetTimeout=0.2))
        await self.assertClosed("")

    @row(37)
    async def test_noAddress(self) -> None:
        """
        A target whose name has no address.
        """
        endpoint = HostnameEndpoint(reactor, "name.invalid", 80)
        await self.startTunnel(endpoint, TunnelLimits())
        await self.assertClosed("name.invalid")

    @row(38)
    async def test_resets(self) -> None:
        """
        A target that resets the connection: the stream ends, and the log says
        why.
        """
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port())
        await self.startTunnel(endpoint, TunnelLimits())
        streamID = self.attacker.open()
        self.attacker.send(DATA, streamID, b"RESET")
        await self.attacker.untilFrame(CLOSE, streamID)
        self.assertEqual(self.attacker.data(streamID), b"RESET")
        self.assertEqual(len(self.logged("the target", "cut short")), 1)
        await self.attacker.sync()

    @row(36)
    async def test_noDescriptor(self) -> None:
        """
        With no file descriptor left for the target the stream is closed; when
        there are some again the next one is not.
        """
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port())
        await self.startTunnel(endpoint, TunnelLimits())
        await self.attacker.sync()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        held = []
        try:
            while True:
                try:
                    held.append(os.dup(0))
                except OSError:
                    break
            streamID = self.attacker.open()
            await self.attacker.untilFrame(CLOSE, streamID)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for number in held:
                os.close(number)
        self.assertIsNone(self.mux._reason)
        self.assertEqual(len(self.logged("the target", "Too many open files")), 1)
        streamID = self.attacker.open()
        self.attacker.send(DATA, streamID, b"again")
        await self.attacker.untilFrame(DATA, streamID)

    @row(8)
    async def test_closedWhileConnecting(self) -> None:
        """
        A stream that is closed while its target is connected to is given up.
        """
        cancelled: list[object] = []

        class Silent:
            def connect(self, factory: object) -> Deferred[Any]:
                return Deferred(cancelled.append)

        await self.startTunnel(Silent(), TunnelLimits())
        for _ in range(5):
            self.attacker.send(CLOSE, self.attacker.open())
        await self.eventually(lambda: len(cancelled) == 5)
        await self.eventually(lambda: not self.tunnel.bridges)
        self.assertIsNone(self.mux._reason)


class Retries(FaultTestCase):
    """
    Clients that wait for a server.
    """

    pairing = CLIENT

    @row(41)
    def test_spread(self) -> None:
        """
        Of 1000 clients that have lost their server at once, only so many try
        in the same second, once a few attempts have failed.
        """

        class Down:
            def connect(self, factory: object) -> Deferred[Any]:
                times.append(clock.seconds())
                return fail(ConnectError("down"))

        clock = Clock()
        times: list[float] = []
        endpoints = [
            MuxClientEndpoint(clock, Down(), PSK, timeout=301.0)  # type: ignore[arg-type]
            for _ in range(1000)
        ]
        waiting = [endpoint.connect(Apps()) for endpoint in endpoints]
        for _ in range(3000):
            clock.advance(0.1)
        self.assertLess(len(times), 20 * 1000)
        late = Counter(int(when) for when in times if when >= 120)
        # On average they try every 22.5 seconds.
        self.assertLess(max(late.values()), 3 * 1000 / 22.5)
        self.assertGreater(len(late), 150)
        clock.advance(10)
        for one in waiting:
            self.failureResultOf(one)
        self.assertFalse(clock.getDelayedCalls())

    @row(41)
    def test_delays(self) -> None:
        """
        Delays grow up to a limit, and differ.
        """
        for delay in (retryPolicy, lambda n: retryDelay(n, 4.0)):
            for failures in range(1, 40):
                found = {delay(failures) for _ in range(100)}
                self.assertGreater(max(found) - min(found), 0.1 * max(found))
                self.assertLessEqual(max(found), 30.0)


class Processes(FaultTestCase, PeerTestCase):
    """
    C{twistd gomux} under attack.
    """

    pairing = SERVER
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
        All that a process has printed.
        """
        return "\n".join([*peer._seen, peer._errors.decode()])

    async def said(self, peer: Peer, pattern: str) -> re.Match[str]:
        """
        Wait until a process has printed something.
        """
        found: re.Match[str] = await self.eventually(
            lambda: re.search(pattern, self.output(peer))
        )
        return found

    async def attack(self, port: int, psk: str = "") -> Attacker:
        """
        Connect an attacker.
        """
        attacker = Attacker(True, psk or self.secret)
        await self.connectTo(port, Factory.forProtocol(lambda: attacker))
        return attacker

    async def startService(self, *options: str) -> tuple[Peer, int]:
        """
        Start a server, and find its port.
        """
        peer = self.twistd("--listen", "tcp:0:interface=127.0.0.1", *options)
        found = await self.said(peer, r"listening on \S*?:(\d+)")
        return peer, int(found[1])

    @row(51)
    async def test_secret(self) -> None:
        """
        The pre-shared key, or the key made of it, is not to be found in the
        log, in the page, or in what describes the objects.
        """
        peer, port = await self.startService()
        key = Attacker(True, self.secret).key
        attacker = await self.attack(port)
        streamID = attacker.open()
        request = b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
        attacker.send(DATA, streamID, request)
        await attacker.untilFrame(CLOSE, streamID)
        page = attacker.data(streamID).decode()
        self.assertIn("200 OK", page)
        wrong = await self.attack(port, "another secret")
        wrong.send(KEEPALIVE)
        await wrong.lost
        garbage = await self.attack(port)
        garbage.transport.write(bytes(100))
        await garbage.lost
        attacker.send(2, 1)
        await attacker.lost
        peer.signal("TERM")
        self.assertEqual(await peer.exitCode(), -signal.SIGTERM)
        text = page + self.output(peer)
        self.assertIn("ended", text)
        for secret in (self.secret, key.hex(), repr(key)[2:-1]):
            self.assertNotIn(secret, text)

    @row(51)
    async def test_reprs(self) -> None:
        """
        Nor in tracebacks with all variables.
        """
        from gomux import Limits, MuxFactory

        factory = MuxFactory(self.secret, False, clock=reactor, limits=Limits())
        described = repr([factory, factory.keyring, vars(factory), Limits()])
        client = clientFromString(reactor, "tcp:127.0.0.1:1")
        endpoint = MuxClientEndpoint(reactor, client, self.secret)
        described += repr([endpoint, vars(endpoint), vars(endpoint._link)])
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
        After SIGTERM no stream is accepted, those that are open go on up to a
        limit, then the mux is closed and the process exits.
        """
        target_ = self.listen(Factory.forProtocol(Server))
        peer, port = await self.startService(
            "--target", f"tcp:127.0.0.1:{target_}", "--drain-timeout", "1.5"
        )
        attacker = await self.attack(port)
        first = attacker.open()
        attacker.send(DATA, first, b"before")
        await attacker.untilFrame(DATA, first)
        peer.signal("TERM")
        # There is nothing to tell when it has arrived but that it has effect.
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

    @row(36)
    async def test_noDescriptorToAccept(self) -> None:
        """
        A server that has no file descriptor left for a connection accepts
        others again when it has some.
        """
        peer, port = await self.startService()
        first = await self.attack(port)
        first.send(KEEPALIVE)
        await first.untilFrame(KEEPALIVE)
        pid = peer.transport.pid
        used = len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 3, used + 3))
        many = [await self.attack(port) for _ in range(12)]
        await self.eventually(lambda: len(os.listdir(f"/proc/{pid}/fd")) >= used + 2)
        first.send(DATA, first.open(), b"GET / HTTP/1.0\r\n\r\n")
        await first.untilFrame(DATA)
        for attacker in many:
            attacker.transport.abortConnection()
            self.assertIsInstance(await attacker.lost, (ConnectionLost, Exception))
        again = await self.attack(port)
        again.send(KEEPALIVE)
        await again.untilFrame(KEEPALIVE)
        for attacker in (first, again):
            attacker.transport.abortConnection()
            await attacker.lost
        os.kill(pid, signal.SIGTERM)
        self.assertEqual(await peer.exitCode(), -signal.SIGTERM)
