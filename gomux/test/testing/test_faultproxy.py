# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux.testing._faultproxy} and L{gomux.testing._faults}, over real sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from gomux import testing
from gomux._wire.crypto import Sealer
from gomux._wire.frame import Flag

reactor: Any = _reactor

KEY = bytes(32)
#: Not the start of any frame, so the proxy forwards it at once.
NO_FRAME = b"\xff" * 40


class End(Protocol):
    """
    Collects what it receives, and lets a test wait for it.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[BaseException | None] = Deferred()
        self._wanted: list[tuple[int, Deferred[bytes]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        for size, waiting in list(self._wanted):
            if len(self.received) >= size:
                self._wanted.remove((size, waiting))
                waiting.callback(self.received)

    def until(self, size: int) -> Deferred[bytes]:
        """
        Wait until C{size} bytes have been received in all.
        """
        waiting: Deferred[bytes] = Deferred()
        self._wanted.append((size, waiting))
        self.dataReceived(b"")
        return waiting.addTimeout(10, reactor)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(reason.value)


class FaultProxyTests(TestCase):
    """
    L{testing.FaultProxy}
    """

    timeout = 20

    def setUp(self) -> None:
        self.ends: list[End] = []
        self.accepted: Deferred[End] = Deferred()
        factory = Factory.forProtocol(self._accept)
        factory.noisy = False
        listener = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(listener.stopListening)
        self.proxy = testing.FaultProxy(reactor, "127.0.0.1", listener.getHost().port)
        self.proxy.start()
        self.addCleanup(self.proxy.stop)
        sealer = Sealer(KEY)
        sizes = (0, 1, 1000, 65536, 3)
        self.frames = [
            b"".join(sealer.seal(i, size, Flag.DATA, b"." * size))
            for i, size in enumerate(sizes)
        ]

    def _accept(self) -> End:
        end = End()
        reactor.callLater(0, self.accepted.callback, end)
        return end

    async def connect(self) -> tuple[End, End]:
        """
        Connect through the proxy.

        @return: the client's end and the server's.
        """
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.port)
        near = await connectProtocol(endpoint, End())
        return near, await self.accepted

    async def assertPasses(self, action: testing.Action, expected: bytes) -> None:
        """
        Check what is forwarded when an action is applied to the third frame.
        """
        self.proxy.toServer.when(2, action)
        near, far = await self.connect()
        near.transport.write(b"".join(self.frames))
        near.transport.loseConnection()
        await far.lost
        self.assertEqual(far.received, expected)

    async def test_nothing(self) -> None:
        """
        Without rules the proxy forwards everything in both directions, gomux frames
        or not.
        """
        near, far = await self.connect()
        near.transport.write(b"".join(self.frames) + bytes(10))
        far.transport.write(b"\xff" * 100000)
        await near.until(100000)
        near.transport.loseConnection()
        self.assertIsInstance(await far.lost, ConnectionDone)
        self.assertEqual(far.received, b"".join(self.frames) + bytes(10))
        self.assertEqual(near.received, b"\xff" * 100000)
        self.assertEqual(self.proxy.accepted, 1)

    async def test_connection(self) -> None:
        """
        A rule can tell the proxy's connections apart.
        """
        self.proxy.toServer.when(lambda frame: frame.connection == 1, testing.drop())
        for connection in range(3):
            self.accepted = Deferred()
            near, far = await self.connect()
            near.transport.write(self.frames[1])
            near.transport.loseConnection()
            await far.lost
            expected = b"" if connection == 1 else self.frames[1]
            self.assertEqual(far.received, expected)

    def test_drop(self) -> Deferred[None]:
        """
        C{drop} loses one frame.
        """
        a, b, _, d, e = self.frames
        return Deferred.fromCoroutine(self.assertPasses(testing.drop(), a + b + d + e))

    def test_duplicate(self) -> Deferred[None]:
        """
        C{duplicate} repeats one frame.
        """
        a, b, c, d, e = self.frames
        return Deferred.fromCoroutine(
            self.assertPasses(testing.duplicate(2), a + b + c * 3 + d + e)
        )

    def test_swap(self) -> Deferred[None]:
        """
        C{swap} exchanges a frame and the next one.
        """
        a, b, c, d, e = self.frames
        return Deferred.fromCoroutine(
            self.assertPasses(testing.swap(), a + b + d + c + e)
        )

    def test_insert(self) -> Deferred[None]:
        """
        C{insert} sends bytes before a frame.
        """
        a, b, c, d, e = self.frames
        return Deferred.fromCoroutine(
            self.assertPasses(testing.insert(a), a + b + a + c + d + e)
        )

    def test_flip(self) -> Deferred[None]:
        """
        C{flip} inverts one bit.
        """
        whole = bytearray(b"".join(self.frames))
        whole[len(self.frames[0] + self.frames[1]) + 40] ^= 4
        return Deferred.fromCoroutine(
            self.assertPasses(testing.flip(8 * 40 + 2), bytes(whole))
        )

    def test_delayAndSlices(self) -> Deferred[None]:
        """
        C{delay} and C{slices} keep all bytes in order.
        """
        self.proxy.toServer.when(1, testing.delay(0.01))
        return Deferred.fromCoroutine(
            self.assertPasses(testing.slices(100, 0.001), b"".join(self.frames))
        )

    async def test_predicate(self) -> None:
        """
        A rule can match frames by a function; the first rule that matches applies,
        and C{clear} removes all rules.
        """
        seen: list[int] = []

        def choose(frame: testing.WireFrame) -> bool:
            seen.append(frame.index)
            return frame.length > 1

        self.proxy.toServer.when(choose, testing.drop())
        self.proxy.toServer.when(2, testing.duplicate())
        near, far = await self.connect()
        near.transport.write(b"".join(self.frames))
        await far.until(len(self.frames[0] + self.frames[1]))
        self.assertEqual(seen, [0, 1, 2, 3, 4])
        self.proxy.toServer.clear()
        near.transport.write(self.frames[3])
        await far.until(len(far.received) + 1)
        self.assertEqual(far.received[:105], self.frames[0] + self.frames[1])

    async def assertCut(self, reset: bool, expected: type[Exception]) -> None:
        """
        Check that both sides get the same kind of end.
        """
        self.proxy.toServer.when(2, testing.cut(7, reset=reset))
        near, far = await self.connect()
        near.transport.write(b"".join(self.frames))
        for end in (near, far):
            self.assertIsInstance(await end.lost, expected)
        start = self.frames[0] + self.frames[1] + self.frames[2][:7]
        self.assertEqual(far.received, start)

    def test_cut(self) -> Deferred[None]:
        """
        C{cut} ends the connection in the middle of a frame.
        """
        return Deferred.fromCoroutine(self.assertCut(False, ConnectionDone))

    def test_reset(self) -> Deferred[None]:
        """
        C{cut} can reset the connection instead.
        """
        return Deferred.fromCoroutine(self.assertCut(True, ConnectionLost))

    async def assertVanishes(
        self, action: Callable[[], testing.Action]
    ) -> tuple[End, End]:
        """
        Check that nothing after the second frame is forwarded, and that the other
        direction still works.
        """
        self.proxy.toServer.when(2, action())
        near, far = await self.connect()
        near.transport.write(b"".join(self.frames))
        await far.until(105)
        far.transport.write(NO_FRAME)
        await near.until(40)
        self.assertEqual(len(far.received), 105)
        return near, far

    async def test_blackHole(self) -> None:
        """
        After C{blackHole} the proxy reads and drops the client's bytes, and does not
        forward the end of its connection.
        """
        near, far = await self.assertVanishes(testing.blackHole)
        for _ in range(300):
            near.transport.write(bytes(65536))
        near.transport.loseConnection()
        await near.lost
        self.assertFalse(far.lost.called)
        self.assertEqual(len(far.received), 105)

    async def test_stall(self) -> None:
        """
        After C{stall} the proxy reads nothing more from the client, and forwards
        nothing to the server.
        """
        near, far = await self.assertVanishes(testing.stall)
        for _ in range(300):
            near.transport.write(bytes(65536))
        far.transport.write(NO_FRAME)
        await near.until(80)
        self.assertGreater(unwritten(near), 65536)
        self.assertEqual(len(far.received), 105)

    async def test_noServer(self) -> None:
        """
        The proxy resets a connection if it cannot reach the server.
        """
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        proxy = testing.FaultProxy(reactor, "127.0.0.1", number)
        proxy.start()
        self.addCleanup(proxy.stop)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", proxy.port)
        near = await connectProtocol(endpoint, End())
        self.assertIsInstance(await near.lost, ConnectionLost)


def unwritten(end: End) -> int:
    """
    @return: how many bytes wait in a transport's output buffer.
    """
    transport = end.transport
    size: int = len(transport.dataBuffer) - transport.offset
    return size + int(transport._tempDataLen)
