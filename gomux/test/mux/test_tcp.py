"""
Tests over real TCP, for each way of ending: a test double may differ from a real
connection.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionAborted
from twisted.trial.unittest import TestCase

from gomux import Limits, MuxFactory, MuxProtocol
from gomux._wire.frame import Flag
from gomux._wire.salts import Salts
from gomux.error import (
    AuthenticationFailed,
    ConnectionClosed,
    GomuxError,
    PeerAbortedStream,
    PeerClosedConnection,
    PeerClosedStream,
    ProtocolViolation,
    StreamClosed,
    Truncated,
)
from gomux.test.support.helpers import (
    Parts,
    PullProducer,
    PushProducer,
    Recorder,
)
from gomux.test.support.waiting import Waiting
from gomux.testing import PSK

reactor: Any = _reactor
_T = TypeVar("_T")


class Pair:
    """
    Two muxes over TCP, with a stream from the client.
    """

    client: MuxProtocol
    server: MuxProtocol
    near: Recorder
    far: Recorder

    def __init__(self, served: Waiting, opened: Waiting) -> None:
        self.served = served
        self.opened = opened

    def both(self, event: str) -> Deferred[None]:
        near = self.opened.event(event)
        return near.addCallback(lambda _: self.served.event(event))


class TCPTests(TestCase):
    """
    Muxes over TCP on the loopback interface.
    """

    timeout = 10

    @asynccontextmanager
    async def pair(
        self,
        served: Waiting | None = None,
        opened: Waiting | None = None,
        limits: Limits | None = None,
        strict: bool = False,
    ) -> AsyncIterator[Pair]:
        pair = Pair(served or Waiting(), opened or Waiting())
        servers: Deferred[MuxProtocol] = Deferred()
        serverFactory, clientFactory = (
            MuxFactory(
                PSK,
                isClient,
                None if isClient else pair.served,
                clock=reactor,
                limits=limits,
                strict=strict,
                salts=Salts(),
            )
            for isClient in (False, True)
        )
        build = serverFactory.buildProtocol

        def buildProtocol(addr: Any) -> MuxProtocol:
            mux = build(addr)
            servers.callback(mux)
            return mux

        serverFactory.buildProtocol = buildProtocol  # type: ignore[method-assign]
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            serverFactory
        )
        pair.client = await TCP4ClientEndpoint(  # type: ignore[assignment]
            reactor, "127.0.0.1", port.getHost().port
        ).connect(clientFactory)
        try:
            pair.server = await servers
            await pair.client.openStream(pair.opened)
            await pair.served.event("made")
            pair.near, pair.far = pair.opened.made[0], pair.served.made[0]
            yield pair
            for recorder in (pair.near, pair.far):
                self.assertLessEqual(recorder.events.count("lost"), 1)
                self.assertNotIn("nested!", recorder.events)
        finally:
            pair.client.abort()
            pair.server.abort()
            await pair.client.whenClosed()
            await pair.server.whenClosed()
            await port.stopListening()

    def run_(
        self,
        test: Callable[[Pair], Coroutine[Deferred[Any], Any, None]],
        **settings: Any,
    ) -> Deferred[None]:
        async def runIt() -> None:
            async with self.pair(**settings) as pair:
                await test(pair)

        return Deferred.fromCoroutine(runIt())

    def test_loseConnection(self) -> Deferred[None]:
        """
        All of a large output is sent before the end that C{loseConnection} asks for,
        and both sides see an orderly end.
        """

        async def test(pair: Pair) -> None:
            pair.near.stream.write(bytes(3000000))
            pair.near.stream.loseConnection()
            await pair.both("lost")
            self.assertEqual(len(pair.far.received), 3000000)
            self.assertIsInstance(pair.near.reason, StreamClosed)
            self.assertIsInstance(pair.far.reason, PeerClosedStream)
            self.assertEqual((pair.client.streamCount, pair.server.streamCount), (0, 0))

        return self.run_(test)

    def test_abort(self) -> Deferred[None]:
        """
        C{abortConnection} drops unsent output, and the peer sees an abort.
        """

        async def test(pair: Pair) -> None:
            pair.near.stream.write(bytes(3000000))
            pair.near.stream.abortConnection()
            await pair.both("lost")
            self.assertLess(len(pair.far.received), 3000000)
            self.assertIsInstance(pair.near.reason, ConnectionAborted)
            self.assertIsInstance(pair.far.reason, PeerAbortedStream)

        return self.run_(test)

    def test_halfClose(self) -> Deferred[None]:
        """
        A server that answers a request after its EOF gets the whole request, and its
        answer arrives.  (Trap 10 in docs/design.rst.)
        """

        def answer(recorder: Recorder) -> None:
            recorder.stream.write(bytes(recorder.received[::-1]))
            recorder.stream.loseWriteConnection()

        async def test(pair: Pair) -> None:
            request = bytes(i * 7 % 256 for i in range(500000))
            pair.near.stream.write(request)
            pair.near.stream.loseWriteConnection()
            await pair.both("lost")
            self.assertEqual(pair.near.received, request[::-1])
            self.assertEqual(pair.near.events.count("writeLost"), 1)
            self.assertEqual(pair.near.events.count("readLost"), 1)

        return self.run_(test, served=Waiting(readLost=answer))

    def test_loseRead(self) -> Deferred[None]:
        """
        C{loseReadConnection} stops the producer of the other end, and data in the other
        direction still arrives.
        """

        async def test(pair: Pair) -> None:
            producer = PushProducer()
            pair.far.stream.registerProducer(producer, True)
            pair.far.stream.write(bytes(3000000))
            pair.near.stream.pauseProducing()
            pair.near.stream.loseReadConnection()
            await pair.served.event("writeLost")
            self.assertEqual(producer.calls[-1], "stop")
            pair.near.stream.write(b"still here")
            await pair.served.event("data")

        return self.run_(test)

    def test_close(self) -> Deferred[None]:
        """
        C{close} of a mux sends the output of its streams first, even if the peer has a
        producer that still writes.
        """

        async def test(pair: Pair) -> None:
            pair.near.stream.write(bytes(1000000))
            pull = PullProducer(pair.far.stream, [bytes(100000)] * 10)
            pair.far.stream.registerProducer(pull, False)
            reason: GomuxError = await pair.client.close()
            self.assertIsInstance(reason, ConnectionClosed)
            self.assertIsInstance(await pair.server.whenClosed(), PeerClosedConnection)
            self.assertEqual(len(pair.far.received), 1000000)
            self.assertIsInstance(pair.near.reason, ConnectionClosed)

        return self.run_(test)

    def test_closeBoth(self) -> Deferred[None]:
        """
        If both sides call C{close} at once, both muxes end in good order.
        """

        async def test(pair: Pair) -> None:
            ends = [pair.client.close(), pair.server.close()]
            for end in ends:
                self.assertIsInstance(await end, ConnectionClosed)

        return self.run_(test)

    def test_closeWhileReceiving(self) -> Deferred[None]:
        """
        If C{close} is called while the peer sends at full speed, this side's output and
        CloseMux still arrive.
        """

        async def test(pair: Pair) -> None:
            pair.far.stream.write(bytes(50000000))
            await pair.opened.event("data")
            pair.near.stream.write(b"last words")
            self.assertIsInstance(await pair.client.close(), ConnectionClosed)
            self.assertIsInstance(await pair.server.whenClosed(), PeerClosedConnection)
            self.assertEqual(pair.far.received, b"last words")

        return self.run_(test)

    def test_muxAbort(self) -> Deferred[None]:
        """
        C{abort} of a mux ends the other side and its streams with L{Truncated}.
        """

        async def test(pair: Pair) -> None:
            pair.client.abort()
            self.assertIsInstance(await pair.client.whenClosed(), ConnectionClosed)
            self.assertIsInstance(await pair.server.whenClosed(), Truncated)
            self.assertIsInstance(pair.near.reason, ConnectionClosed)
            self.assertIsInstance(pair.far.reason, Truncated)

        return self.run_(test)

    def test_reset(self) -> Deferred[None]:
        """
        A reset of the carrier ends both muxes with L{Truncated}, and all streams.
        """

        async def test(pair: Pair) -> None:
            pair.client.getCarrier().abortConnection()
            self.assertIsInstance(await pair.client.whenClosed(), Truncated)
            self.assertIsInstance(await pair.server.whenClosed(), Truncated)
            await pair.both("lost")

        return self.run_(test)

    def test_afterwards(self) -> Deferred[None]:
        """
        A stream still tells its addresses and its keepalive setting after the carrier
        is gone, although the carrier's own transport no longer does.
        """

        async def test(pair: Pair) -> None:
            stream = pair.near.stream
            before = stream.getHost(), stream.getPeer()
            stream.setTcpKeepAlive(True)
            self.assertTrue(stream.getTcpKeepAlive())
            found: list[object] = []

            def look(recorder: object) -> None:
                found.append((stream.getHost(), stream.getPeer()))
                stream.setTcpKeepAlive(True)
                found.append(stream.getTcpKeepAlive())

            pair.near.hooks = {"lost": look}
            pair.client.getCarrier().abortConnection()
            await pair.client.whenClosed()
            self.assertEqual(found, [before, False])

        return self.run_(test)

    def test_fin(self) -> Deferred[None]:
        """
        If the carrier ends without CloseMux, the data received before is delivered, and
        the mux ends with L{Truncated}.
        """

        async def test(pair: Pair) -> None:
            pair.near.stream.write(b"data")
            await pair.served.event("data")
            carrier: Any = pair.client.getCarrier()
            carrier.getHandle().shutdown(socket.SHUT_WR)
            self.assertIsInstance(await pair.server.whenClosed(), Truncated)
            self.assertEqual(pair.far.received, b"data")
            self.assertIsInstance(pair.far.reason, Truncated)

        return self.run_(test)

    def test_paused(self) -> Deferred[None]:
        """
        While both readers are paused, no more is sent than the windows allow, the
        producers are paused, and other streams work.  After a resume all data arrives.
        (Trap 5 in docs/design.rst.)
        """

        async def test(pair: Pair) -> None:
            producers = [PushProducer(), PushProducer()]
            ends = (pair.near, pair.far)
            for end, producer in zip(ends, producers, strict=True):
                end.stream.pauseProducing()
                end.stream.registerProducer(producer, True)
                end.stream.write(bytes(1000000))
            other = Waiting()
            await pair.client.openStream(other)
            other.made[0].stream.write(b"another stream")
            await pair.served.event("data", 1)
            for end, producer in zip(ends, producers, strict=True):
                self.assertEqual(producer.calls, ["pause"])
                self.assertEqual(end.stream.unsent, 1000000 - 131072)
                self.assertEqual(end.received, b"")
            for end in ends:
                end.stream.resumeProducing()
            await pair.opened.until(lambda: len(pair.near.received) == 1000000)
            await pair.served.until(lambda: len(pair.far.received) == 1000000)

        return self.run_(test)

    def test_applicationFails(self) -> Deferred[None]:
        """
        An application that raises loses its stream.  Other streams go on.
        """

        def fail(recorder: Recorder) -> None:
            if recorder.received == b"fail":
                raise ZeroDivisionError

        async def test(pair: Pair) -> None:
            other = Waiting()
            await pair.client.openStream(other)
            pair.near.stream.write(b"fail")
            await pair.both("lost")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            other.made[0].stream.write(b"still here")
            await pair.served.event("data", 1)

        return self.run_(test, served=Waiting(data=fail))

    def test_violation(self) -> Deferred[None]:
        """
        A violation ends the mux, and data sent after it is not delivered.
        """

        async def test(pair: Pair) -> None:
            pair.near.stream.write(b"data")
            await pair.served.event("data")
            Parts(pair.client).scheduler.control(0, Flag.OPEN_STREAM)
            pair.near.stream.write(bytes(100000))
            self.assertIsInstance(await pair.server.whenClosed(), ProtocolViolation)
            self.assertIsInstance(await pair.client.whenClosed(), Truncated)
            self.assertEqual(pair.far.received, b"data")

        return self.run_(test)

    def test_refusalFlood(self) -> Deferred[None]:
        """
        A mux goes on after a thousand refused streams.
        """

        async def test(pair: Pair) -> None:
            refused = Waiting()
            for _ in range(1000):
                await pair.client.openStream(refused)
            await refused.event("lost", 999)
            self.assertEqual(pair.client.streamCount, 1)
            self.assertEqual(pair.server.streamCount, 1)

        return self.run_(test, limits=Limits(maxStreams=1))

    def test_strict(self) -> Deferred[None]:
        """
        In strict mode, the frames of a stream that was opened early follow the
        handshake.
        """

        async def test(pair: Pair) -> None:
            pair.near.stream.write(bytes(1000000))
            pair.near.stream.loseConnection()
            await pair.both("lost")
            self.assertEqual(len(pair.far.received), 1000000)
            self.assertIsInstance(await pair.client.close(), ConnectionClosed)

        return self.run_(test, strict=True)

    def test_wrongKey(self) -> Deferred[None]:
        """
        Bytes that are not sealed with the key end the mux with L{AuthenticationFailed}.
        """

        async def test(pair: Pair) -> None:
            pair.client.dataReceived(bytes(100))
            self.assertIsInstance(await pair.client.whenClosed(), AuthenticationFailed)

        return self.run_(test)
