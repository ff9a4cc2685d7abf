"""
Helpers that the tests of this package share: recorders, rigs and producers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IPullProducer,
    IPushProducer,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gomux import Limits, MuxFactory, MuxProtocol
from gomux._mux.stream import Stream
from gomux._wire.crypto import (
    LAST_COUNTER,
    Opener,
    Sealer,
    deriveKey,
    nonceFor,
)
from gomux._wire.frame import Flag, FrameParser
from gomux._wire.ratchet import RatchetSealer
from gomux.error import PeerVanished
from gomux.testing import PSK, MuxPair
from gomux.testing._pair import connect

# Frames for stream 0, the first stream that a client opens.
CLOSE_READ = (0, Flag.CLOSE_READ, 0)
CLOSE_WRITE = (0, Flag.CLOSE_WRITE, 0)
CLOSE_STREAM = (0, Flag.CLOSE_STREAM, 0)
ABORTS = (0, Flag.WINDOW_UPDATE, 0)


class Recorder(Protocol):
    """
    Records what happens to a stream's protocol, in order.

    @ivar events: C{made}, C{data}, C{readLost}, C{writeLost}, C{lost}; data that
        arrives in several pieces counts once, and C{nested!} is a call during another
        call.
    @ivar received: all data received.
    @ivar pieces: the sizes of the pieces of data received.
    @ivar reason: the reason of C{connectionLost}.
    @ivar hooks: by event name, functions that are called with the recorder at that
        event.
    """

    def __init__(self, hooks: dict[str, Callable[[Any], object]] | None = None) -> None:
        self.events: list[str] = []
        self.received = bytearray()
        self.pieces: list[int] = []
        self.reason: BaseException | None = None
        self.hooks = hooks or {}
        self.busy = False

    @property
    def stream(self) -> Stream:
        assert isinstance(self.transport, Stream)
        return self.transport

    def note(self, event: str) -> None:
        if event != "data" or self.events[-1:] != ["data"]:
            self.events.append(event)
        if self.busy:
            self.events.append("nested!")
        hook = self.hooks.get(event)
        if hook is not None:
            self.busy = True
            try:
                hook(self)
            finally:
                self.busy = False

    def connectionMade(self) -> None:
        self.note("made")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.pieces.append(len(data))
        self.note("data")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason.value
        self.note("lost")


@implementer(IHalfCloseableProtocol)
class HalfRecorder(Recorder):
    """
    A recorder that is half-closeable.
    """

    def readConnectionLost(self) -> None:
        self.note("readLost")

    def writeConnectionLost(self) -> None:
        self.note("writeLost")


class Recorders(Factory):
    """
    Makes recorders.

    @ivar made: all recorders made so far.
    """

    noisy = False

    def __init__(
        self, kind: type[Recorder] = Recorder, **hooks: Callable[[Any], object]
    ) -> None:
        self.kind = kind
        self.hooks = hooks
        self.made: list[Recorder] = []

    def buildProtocol(self, addr: IAddress | None) -> Recorder:
        recorder = self.kind(self.hooks)
        self.made.append(recorder)
        return recorder


class FramePeer(Protocol):
    """
    The peer of a mux: sends single frames when the test says so, and records the mux's
    frames without reacting to them.

    @ivar frames: the frames received since L{take}: stream ID, flag, length, payload.
    @ivar lost: the reason for the carrier's end, if it has ended.
    """

    def __init__(self, psk: str = PSK) -> None:
        key = deriveKey(psk)
        self.sealer = Sealer(key)
        self.parser = FrameParser(Opener(key))
        self.frames: list[tuple[int, int, int, bytes]] = []
        self.bytesReceived = 0
        self.lost: BaseException | None = None

    def dataReceived(self, data: bytes) -> None:
        self.bytesReceived += len(data)
        self.parser.receive(data)
        while (frame := self.parser.nextFrame()) is not None:
            streamID, length, flag, payload = frame
            self.frames.append((streamID, flag, length, payload))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason.value

    def seal(self, streamID: int, flag: int, what: int | bytes = 0) -> bytes:
        """
        Seal a frame.

        @param what: the length, or the payload.
        """
        if isinstance(what, bytes):
            return b"".join(self.sealer.seal(streamID, len(what), flag, what))
        return b"".join(self.sealer.seal(streamID, what, flag))

    def take(self) -> list[tuple[int, int, int, bytes]]:
        """
        @return: the frames received since the last call, except Keepalives.
        """
        frames, self.frames = self.frames, []
        return [frame for frame in frames if frame[1] != Flag.KEEPALIVE]


class Parts:
    """
    The internal parts of a mux, for tests of these parts.
    """

    def __init__(self, mux: MuxProtocol) -> None:
        self.carrier = mux._carrier
        self.frames = mux._frames
        self.incoming = mux._incoming
        self.life = mux._life
        self.carrierLiveness = mux._carrierLiveness
        self.peerLiveness = mux._peerLiveness
        self.nextTurn = mux._nextTurn
        self.scheduler = mux._scheduler
        self.streams = mux._streams


class Rig:
    """
    A live mux with a L{FramePeer} at the other end of its carrier.

    @ivar mux: the mux; a server by default.
    @ivar peer: the peer.
    @ivar streams: makes the protocols of the streams that the peer opens.
    """

    def __init__(
        self,
        kind: type[Recorder] = Recorder,
        *,
        isClient: bool = False,
        limits: Limits | None = None,
        greet: bool = False,
        psk: str = PSK,
        bufferSize: int = 65536,
        factory: MuxFactory | None = None,
        clock: Clock | None = None,
        **hooks: Callable[[Any], object],
    ) -> None:
        self.clock = clock = clock or Clock()
        self.streams = Recorders(kind, **hooks)
        self.isClient = isClient
        self.factory = factory or MuxFactory(
            PSK, isClient, self.streams, clock=clock, limits=limits, greet=greet
        )
        here = IPv4Address("TCP", "192.0.2.1", 49152)
        there = IPv4Address("TCP", "192.0.2.2", 7000)
        self.mux = self.factory.buildProtocol(there)
        self.peer = FramePeer(psk)
        self.carrier, self.peerCarrier = connect(
            clock, (self.mux, self.peer), (here, there), 0.0, None, bufferSize
        )
        self.run()

    def run(self) -> None:
        """
        Make all calls that are due now.
        """
        self.clock.advance(0)

    def send(self, streamID: int, flag: int, what: int | bytes = 0) -> None:
        """
        Have the peer send a frame, and let the frame arrive.
        """
        self.sendRaw(self.peer.seal(streamID, flag, what))

    def meet(self) -> None:
        """
        Have the peer show that it holds the key, and forget the answer.
        """
        self.send(0, Flag.KEEPALIVE)
        self.run()
        self.peer.frames = []

    def sendRaw(self, data: bytes) -> None:
        """
        Have the peer send some bytes, and let them arrive.
        """
        assert self.peer.transport is not None
        self.peer.transport.write(data)
        self.run()

    def sendMany(self, *frames: tuple[int, int, int | bytes]) -> None:
        """
        Have the peer send some frames in one write.
        """
        self.sendRaw(b"".join(self.peer.seal(*frame) for frame in frames))

    def opened(self, data: bytes = b"") -> Recorder:
        """
        Have the peer open the next stream.

        @return: the stream's protocol.
        """
        count = len(self.streams.made)
        streamID = 2 * count + self.isClient
        self.send(streamID, Flag.OPEN_STREAM)
        if data:
            self.send(streamID, Flag.DATA, data)
        return self.streams.made[count]

    def open(self, kind: type[Recorder] = Recorder, **hooks: Any) -> Recorder:
        """
        Have the mux open a stream.

        @return: the stream's protocol.
        """
        factory = Recorders(kind, **hooks)
        self.mux.openStream(factory)
        return factory.made[0]

    def sent(self) -> list[tuple[int, int, int]]:
        """
        @return: the frames that the mux has sent since the last call, except
            Keepalives: stream ID, flag, length.
        """
        self.run()
        return [frame[:3] for frame in self.peer.take()]

    def sentData(self) -> bytes:
        """
        @return: the data that the mux has sent since the last call.
        """
        self.run()
        return b"".join(frame[3] for frame in self.peer.take())

    def reason(self) -> BaseException | None:
        """
        @return: the reason for the mux's end, if it has ended.
        """
        reason: BaseException | None = resultOf(self.mux.whenClosed(), self.run)
        return reason


def note(rig: Rig) -> list[bytes]:
    """
    @return: the frames that the mux of a rig sends from now on.
    """
    sent: list[bytes] = []
    parser = rig.peer.parser
    openFrame = parser._open

    def noted(header: bytes, sealed: bytes | memoryview) -> bytes:
        sent.append(header + bytes(sealed))
        return openFrame(header, sealed)

    parser._open = noted
    return sent


def resultOf(deferred: Deferred[Any], run: Callable[[], None]) -> Any:
    """
    @return: the result of a L{Deferred} that fires during C{run}, or else C{None}.
    """
    results: list[Any] = []
    deferred.addBoth(results.append)
    run()
    return results[0] if results else None


def useUpNonces(mux: MuxProtocol, left: int, peer: MuxProtocol | None = None) -> Sealer:
    """
    Leave a mux only its last few nonces.

    @param left: how many nonces to leave, at least 1.
    @param peer: the peer, which expects the next nonce; C{None} if the mux's nonces
        are not bound.
    @return: the mux's sealer.
    """
    sealer = Parts(mux).scheduler._sealer
    sealer._next = counter = 2**64 - left
    if peer is not None:
        opener: Any = getattr(Parts(peer).incoming.parser._open, "__self__", None)
        if isinstance(sealer, RatchetSealer):
            # The same key as that of the frames before, so that both sides have it.
            sealer._end = LAST_COUNTER
            opener._end = LAST_COUNTER + 1
        opener._last = nonceFor(counter - 1)
        opener._nonces = opener._noncesFrom(counter)
    return sealer


def assertLasts(case: SynchronousTestCase, pair: MuxPair, clock: Clock) -> None:
    """
    Two idle muxes keep each other up, also while one process or both stand still for 30
    seconds.  Once nothing arrives any more, both end.

    @param clock: the clock of both, which both processes miss a part of.
    """
    pair.advance(3600)
    clock.advance(30)
    pair.advance(60)
    pair.clientToServer.stall()
    pair.advance(30)
    pair.clientToServer.unstall()
    pair.advance(3600)
    for mux in (pair.client, pair.server):
        case.assertTrue(mux.canOpen)
        case.assertTrue(mux.answers)
    pair.clientToServer.stall()
    pair.serverToClient.stall()
    closed = [pair.client.whenClosed(), pair.server.whenClosed()]
    pair.advance(60)
    for reason in map(case.successResultOf, closed):
        case.assertIsInstance(reason, PeerVanished)


@implementer(IPushProducer)
class PushProducer:
    """
    A push producer that records the calls to it.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


@implementer(IPullProducer)
class PullProducer:
    """
    A pull producer that writes some pieces of data and then finishes.
    """

    def __init__(self, consumer: Any, pieces: list[bytes]) -> None:
        self.consumer = consumer
        self.pieces = list(pieces)
        self.stopped = False

    def resumeProducing(self) -> None:
        if self.pieces:
            self.consumer.write(self.pieces.pop(0))
        if not self.pieces:
            self.consumer.unregisterProducer()

    def stopProducing(self) -> None:
        self.stopped = True


class EndsTestCase(SynchronousTestCase):
    """
    Base of tests of one stream that the peer has opened.
    """

    kind: type[Recorder] = Recorder

    def setUp(self) -> None:
        self.rig = Rig(self.kind)
        self.recorder = self.rig.opened()
        self.stream = self.recorder.stream

    def block(self) -> None:
        """
        Use up the send window, so that output has to wait.
        """
        self.stream.write(bytes(131072))
        self.rig.sent()

    def unblock(self) -> None:
        """
        Give the stream new credit, so that output can be sent.
        """
        self.rig.send(0, Flag.WINDOW_UPDATE, 65536)

    def check_lost(self, kind: type[BaseException]) -> None:
        """
        Check that C{connectionLost} was called once, as the last event, with this kind
        of reason, and that the mux has counted it once.
        """
        self.rig.run()
        self.assertEqual(self.recorder.events.count("lost"), 1)
        self.assertEqual(self.recorder.events[-1], "lost")
        self.assertNotIn("nested!", self.recorder.events)
        self.assertIsInstance(self.recorder.reason, kind)
        self.assertEqual(self.rig.mux.streamCount, 0)
        self.assertEqual(self.rig.mux.protocolCount, 0)
