"""
Faults and abuse: targets, and clients that wait.
"""

from __future__ import annotations

import os
import resource
from collections import Counter
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
)
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from zope.interface import implementer

from gomux.endpoints import MuxClientEndpoint, retryPolicy
from gomux.tunnel import TunnelLimits, target
from interop.faults.attacker import (
    CLOSE,
    CLOSE_READ,
    DATA,
    PSK,
    UPDATE,
)
from interop.faults.cases import (
    CLIENT,
    Apps,
    FaultTestCase,
    RowTestCase,
    inBothRoles,
    row,
)


class Server(Protocol):
    """
    Echoes; resets the connection when told to.
    """

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)
        if data == b"RESET":
            reactor.callLater(0.1, self.transport.abortConnection)


@implementer(IHalfCloseableProtocol)
class HalfServer(Server):
    """
    A server that is half-closeable: it goes on after EOF.
    """

    def readConnectionLost(self) -> None:
        pass

    def writeConnectionLost(self) -> None:
        pass


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
        self.assertIsNone(self.mux.reason)
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

    @row(38)
    async def test_resetsAnswer(self) -> None:
        """
        A reset after the end of the request ends the stream, too, and the peer learns
        that the answer is incomplete.
        """
        port = self.listen(Factory.forProtocol(HalfServer))
        await self.startTunnel(
            TCP4ClientEndpoint(reactor, "127.0.0.1", port), TunnelLimits()
        )
        streamID = self.attacker.open()
        self.attacker.send(DATA, streamID, b"RESET")
        self.attacker.send(CLOSE_READ, streamID)
        await self.attacker.untilFrame(CLOSE, streamID)
        self.assertEqual(self.attacker.data(streamID), b"RESET")
        last = [frame[:3] for frame in self.attacker.frames if frame[1] == streamID]
        self.assertEqual(last[-2:], [(UPDATE, streamID, 0), (CLOSE, streamID, 0)])
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
        self.assertIsNone(self.mux.reason)
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
        self.assertIsNone(self.mux.reason)


class Retries(FaultTestCase):
    """
    Clients that wait for a server.
    """

    pairing = CLIENT

    @row(41)
    def test_spread(self) -> None:
        """
        After 1000 clients lose their server at once and a few attempts fail, their
        further attempts are spread over time.
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
        self.assertLess(len(times), 25 * 1000)
        late = Counter(int(when) for when in times if when >= 120)
        # On average they try every 18 seconds.
        self.assertLess(max(late.values()), 3 * 1000 / 18)
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
        for delay in (retryPolicy, lambda n: retryPolicy(n, 4.0)):
            for failures in range(1, 40):
                found = {delay(failures) for _ in range(100)}
                self.assertGreater(max(found) - min(found), 0.1 * max(found))
                self.assertLessEqual(max(found), 30.0)
