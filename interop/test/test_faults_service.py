"""
Faults and abuse: targets of a tunnel that fail, and clients that wait for a server.
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
    Echoes its input, and resets the connection after C{RESET}.
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
    The subject connects each stream to a target.
    """

    async def startTunnel(self, endpoint: Any, limits: TunnelLimits) -> None:
        """
        Make a subject that connects its streams to a target, and attach an attacker.

        @param endpoint: The endpoint of the target.
        """
        self.tunnel = target("the target", endpoint, reactor, limits)
        self.makeSubject(self.tunnel)
        self.mux, self.attacker = await self.pair()

    def port(self) -> int:
        """
        Start the target.

        @return: Its port.
        """
        return self.listen(Factory.forProtocol(Server))

    def unused(self) -> int:
        """
        @return: A port that nobody listens on.
        """
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        port.stopListening()
        return number

    async def assertClosed(self, words: str) -> None:
        """
        Check that streams to the target are closed, that the log names the target, and
        that the mux goes on.

        @param words: What the log line says besides.
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
        If the target refuses the connection, the stream is aborted.
        """
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.unused())
        await self.startTunnel(endpoint, TunnelLimits())
        await self.assertClosed("refused")

    @row(37)
    async def test_timesOut(self) -> None:
        """
        If the target does not answer within C{targetTimeout}, the stream is aborted.
        """

        class Silent:
            def connect(self, factory: object) -> Deferred[Any]:
                return Deferred()

        await self.startTunnel(Silent(), TunnelLimits(targetTimeout=0.2))
        await self.assertClosed("")

    @row(37)
    async def test_noAddress(self) -> None:
        """
        If the name of the target cannot be resolved, the stream is aborted.
        """
        endpoint = HostnameEndpoint(reactor, "name.invalid", 80)
        await self.startTunnel(endpoint, TunnelLimits())
        await self.assertClosed("name.invalid")

    @row(38)
    async def test_resets(self) -> None:
        """
        When the target resets the connection, the stream ends and the reset is logged.
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
        When the target resets the connection after the peer's half-close, the subject
        sends an empty WindowUpdate before CloseStream.  It tells a peer that the answer
        is incomplete.
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
        If there is no file descriptor for the connection to the target, the stream is
        aborted.  When descriptors are free again, a new stream works.
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
        If the peer closes a stream whose target is still being connected, the attempt
        is cancelled.
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
    Clients try again and again to reach a server.
    """

    pairing = CLIENT

    @row(41)
    def test_spread(self) -> None:
        """
        When 1000 clients try to reach a server that is down, their attempts soon spread
        over time.
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
        # Each client tries every 18 seconds on average.
        self.assertLess(max(late.values()), 3 * 1000 / 18)
        self.assertGreater(len(late), 150)
        clock.advance(10)
        for one in waiting:
            self.failureResultOf(one)
        self.assertFalse(clock.getDelayedCalls())

    @row(41)
    def test_delays(self) -> None:
        """
        The delays after the same number of failures vary at random, and never exceed 30
        seconds.
        """
        for delay in (retryPolicy, lambda n: retryPolicy(n, 4.0)):
            for failures in range(1, 40):
                found = {delay(failures) for _ in range(100)}
                self.assertGreater(max(found) - min(found), 0.1 * max(found))
                self.assertLessEqual(max(found), 30.0)
