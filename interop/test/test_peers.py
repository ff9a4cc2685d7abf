"""
Test the other implementations' peers against each other.  A failure in L{test_matrix}
points at this project only if its counterparts work.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from interop.support.harness import (
    GRACEFUL,
    TIMEOUT,
    PeerTestCase,
    closes,
    drive,
    whyMissing,
)

DRIVERS = (
    "echo 64 20",
    "echo 70000 5",
    "sink 3000000 3 65536",
    "sink 20000 2 128",
    "source 3000000 3",
    "verify-source 1000001 7",
    "hash 1000001 3",
    "echo-hash 3000001 3",
    "close-after 100000 5",
    "write-close 100000 5",
    "halfclose all",
    "opens 50",
    "idle 20",
    "echo-beside 64 20 2",
    "open halfclose all",
    "open echo-hash 1000001 3",
)


@implementer(IHalfCloseableProtocol)
class ReversingServer(Protocol):
    """
    Sends its input back in reverse order after the client's half-close.
    """

    def connectionMade(self) -> None:
        self._received = b""

    def dataReceived(self, data: bytes) -> None:
        self._received += data

    def readConnectionLost(self) -> None:
        self.transport.write(self._received[::-1])
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass


@implementer(IHalfCloseableProtocol)
class HalfClosingClient(Protocol):
    """
    Sends a message, half-closes, and collects the answer.
    """

    def __init__(self, message: bytes, answer: Deferred[bytes]) -> None:
        self._message = message
        self._answer = answer
        self._received = b""

    def connectionMade(self) -> None:
        self.transport.write(self._message)
        self.transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        self._received += data

    def readConnectionLost(self) -> None:
        self._answer.callback(self._received)
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass


class PeerTests(PeerTestCase):
    """
    Tests of each kind of peer with each, in both roles.  The loop below makes them.
    """

    skip = whyMissing("go", "blocking")

    async def _clientDrives(self, listener: str, connector: str) -> None:
        _, client = await self.startPair(
            listener, connector, connectorOptions=drive(*DRIVERS)
        )
        await self.assertDrives(client, len(DRIVERS))

    async def _serverDrives(self, listener: str, connector: str) -> None:
        server, _ = await self.startPair(
            listener, connector, listenerOptions=drive(*DRIVERS)
        )
        await self.assertDrives(server, len(DRIVERS))

    async def _terminated(self, listener: str, connector: str) -> None:
        for _ in closes(listener):
            server, client = await self.startPair(listener, connector)
            server.signal("TERM")
            self.assertEqual(await server.exitCode(), 0)
            reason = await client.line("mux down: ")
            if reason == GRACEFUL:
                break
        self.assertEqual(reason, GRACEFUL)
        self.assertEqual(await client.exitCode(), 0)

    async def _failingDriver(self, listener: str, connector: str) -> None:
        _, client = await self.startPair(
            listener, connector, connectorOptions=drive("nonsense", "echo 1 1")
        )
        self.assertFalse(json.loads("{" + await client.line("{"))["ok"])
        self.assertTrue(json.loads("{" + await client.line("{"))["ok"])
        self.assertEqual(await client.exitCode(), 1)

    async def _forward(self, listener: str, connector: str) -> None:
        target = await self._startTarget()
        _, client = await self.startPair(
            listener,
            connector,
            ("--target", target),
            ("--forward", "127.0.0.1:0"),
        )
        await self._assertTunnel(await client.line("forwarding "))

    async def _reverse(self, listener: str, connector: str) -> None:
        target = await self._startTarget()
        server, _ = await self.startPair(
            listener,
            connector,
            ("--forward", "127.0.0.1:0"),
            ("--target", target),
        )
        await self._assertTunnel(await server.line("forwarding "))

    async def _startTarget(self) -> str:
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(Factory.forProtocol(ReversingServer))
        self.addCleanup(port.stopListening)
        return f"127.0.0.1:{port.getHost().port}"

    async def _assertTunnel(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        message = bytes(range(251)) * 4000
        answer: Deferred[bytes] = Deferred()
        answer.addTimeout(TIMEOUT, reactor)
        await TCP4ClientEndpoint(reactor, host, int(port)).connect(
            Factory.forProtocol(lambda: HalfClosingClient(message, answer))
        )
        self.assertTrue(await answer == message[::-1], "what came back differs")


def _makeTest(
    name: str, listener: str, connector: str
) -> Callable[[PeerTests], Coroutine[Any, Any, None]]:
    async def test(self: PeerTests) -> None:
        await getattr(self, f"_{name}")(listener, connector)

    test.__doc__ = f"{name}, {listener} listening and {connector} connecting."
    return test


for _name in (
    "clientDrives",
    "serverDrives",
    "terminated",
    "failingDriver",
    "forward",
    "reverse",
):
    for _listener, _connector in itertools.product(("go", "blocking"), repeat=2):
        setattr(
            PeerTests,
            f"test_{_name}_{_listener}_{_connector}",
            _makeTest(_name, _listener, _connector),
        )
