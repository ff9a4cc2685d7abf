"""
Tests over real TCP: trap 13, that doubles lie, for each way of ending.
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
from gomux._wire.strict import Salts
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
    HalfRecorder,
    Parts,
    PullProducer,
    PushProducer,
    Recorder,
    Recorders,
)
from gomux.testing import PSK

reactor: Any = _reactor
_T = TypeVar("_T")


class Waiting(Recorders):
    """
    Makes recorders of which one can be waited for, and for an event of it.
    """

    def __init__(self, kind: type[Recorder] = HalfRecorder, **hooks: Any) -> None:
        super().__init__(kind, **hooks)
        self.waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def buildProtocol(self, addr: Any) -> Recorder:
        recorder = super().buildProtocol(addr)
        note = recorder.note

        def noteAndTell(event: str) -> None:
            note(event)
            self.tell()

        recorder.note = noteAndTell  # type: ignore[method-assign]
        return recorder

    def tell(self) -> None:
        for entry in list(self.waiting):
            if entry[0]():
                self.waiting.remove(entry)
                entry[1].callback(None)

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        """
        Wait until something holds after an event of any recorder.
        """
        waiting: Deferred[None] = Deferred()
        self.waiting.append((condition, waiting))
        self.tell()
        return waiting

    def event(self, name: str, index: int = 0) -> Deferred[None]:
        return self.until(
            lambda: len(self.made) > index and name in self.made[index].events
        )


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
        C{loseConnection}, with much to send, then the end on both sides.
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
        C{abortConnection}, with much to send.
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
        Trap 10: a request until its end, and the answer after it.
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
        C{loseReadConnection}: the other end's producer stops.
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
        Traps 1 and 8: C{close} of a mux with output and producers.
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
        C{close} on both sides at once.
        """

        async def test(pair: Pair) -> None:
            ends = [pair.client.close(), pair.server.close()]
            for end in ends:
                self.assertIsInstance(await end, ConnectionClosed)

        return self.run_(test)

    def test_closeWhileReceiving(self) -> Deferred[None]:
        """
        C{close} while the peer sends as fast as it can: what was written here
        arrives, and so does CloseMux.
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
        C{abort} of a mux: the other side is cut short.
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
        A reset of the carrier.
        """

        async def test(pair: Pair) -> None:
            pair.client.getCarrier().abortConnection()
            self.assertIsInstance(await pair.client.whenClosed(), Truncated)
            self.assertIsInstance(await pair.server.whenClosed(), Truncated)
            await pair.both("lost")

        return self.run_(test)

    def test_afterwards(self) -> Deferred[None]:
        """
        Streams may be asked about their carrier when that is gone, which its
        own transport may not.
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
        An end of the carrier without CloseMux, after data.
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
        Trap 5: with both readers paused no more is sent than windows allow,
        the producers are paused, and all goes on after the resumption.
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
        An application that raises loses its stream, and nobody else theirs.
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
        Trap 7: a violation, in the middle of much else, ends the mux.
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
        Traps 11 and 12: many refused streams are nothing special.
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
        In strict mode, a stream that waits for the handshake does not overtake
        the end of it.
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
        A peer without the key gets no byte.
        """

        async def test(pair: Pair) -> None:
            pair.client.dataReceived(bytes(100))
            self.assertIsInstance(await pair.client.whenClosed(), AuthenticationFailed)

        return self.run_(test)
