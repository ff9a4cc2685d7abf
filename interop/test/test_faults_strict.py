"""
Faults and abuse: an attacker on the path of a mux, in strict mode and between peers
that greet each other.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint

from gomux import GomuxError, Limits, MuxProtocol
from gomux._wire.crypto import Sealer
from gomux._wire.salts import Salts
from gomux.error import (
    AuthenticationFailed,
    HandshakeFailed,
    NonceExhausted,
    PeerClosedConnection,
    PeerVanished,
    ProtocolViolation,
)
from gomux.test.support.helpers import useUpNonces
from gomux.testing import (
    Action,
    FaultProxy,
    WireFrame,
    blackHole,
    delay,
    drop,
    duplicate,
    flip,
    swap,
)
from interop.faults.attacker import (
    CLOSE_READ,
    DATA,
    KEEPALIVE,
    PSK,
)
from interop.faults.cases import (
    CLIENT,
    SERVER,
    Apps,
    FaultTestCase,
    Quiet,
    Subject,
    row,
)

COUNT = 8


class GreetedAsServer(FaultTestCase):
    """
    Compatible mode, between two muxes that greet each other, with an attacker on the
    path; seen by the server.

    @cvar strict: Whether they are in strict mode.
    @cvar first: The first frame to the subject that can be an application's.
    @cvar firstBack: The first frame from it that can be.
    """

    pairing = SERVER
    strict = False
    first = firstBack = 1

    def setUp(self) -> None:
        super().setUp()
        self.apps = Apps(Quiet)
        self.seen: list[bytes] = []

    async def connect(
        self,
        limits: Limits | None = None,
        others: Limits | None = None,
        **settings: Any,
    ) -> tuple[MuxProtocol, MuxProtocol]:
        """
        Connect a client and a server through a proxy.

        @param limits: The limits of the subject.
        @param others: The limits of the other; by default the same.
        @return: The subject's mux, and the other.
        """
        subjectIsClient = self.pairing == CLIENT
        self.server, self.client = (
            Subject(
                PSK,
                isClient,
                self.apps,
                limits=limits if isClient == subjectIsClient else others or limits,
                strict=self.strict,
                **{"salts": Salts(), **settings},
            )
            for isClient in (False, True)
        )
        self.proxy = FaultProxy(reactor, "127.0.0.1", self.listen(self.server))
        self.proxy.start()
        self.addCleanup(self.proxy.stop)
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.port)
        self.prepare()
        connected = self.server.next()
        client: MuxProtocol = await carrier.connect(self.client)
        server = await connected
        self.addCleanup(self._abort, [client, server])
        return self.order(client, server)

    async def _abort(self, muxes: list[MuxProtocol]) -> None:
        for mux in muxes:
            mux.abort()
            await mux.whenClosed()

    def prepare(self) -> None:
        """
        Set the rules of the proxy before anything is sent.
        """

    def order(self, client: MuxProtocol, server: MuxProtocol) -> Any:
        return server, client

    @property
    def toSubject(self) -> Any:
        return self.proxy.toServer

    @property
    def fromSubject(self) -> Any:
        return self.proxy.toClient

    async def established(self, mux: MuxProtocol, other: MuxProtocol) -> None:
        """
        Wait until both muxes are authenticated.
        """
        await self.eventually(lambda: mux.authenticated and other.authenticated)

    async def assertStopsAt(self, k: int, action: Action) -> None:
        """
        Check that the mux ends at frame k after the handshake: the data of all earlier
        frames was delivered, and that of frame k and later frames was not.

        @param action: What the proxy does to frame k.
        """
        mux, other = await self.connect()
        await self.established(mux, other)
        self.toSubject.when(
            lambda frame: self.seen.append(frame.data) or frame.index == self.first + k,
            action,
        )
        app: Any = await other.openStream(Apps(Quiet))
        for number in range(1, COUNT):
            app.transport.write(b"%d" % number)
            await self.written(other)
        reason = await mux.whenClosed()
        self.assertIsInstance(reason, (AuthenticationFailed, ProtocolViolation))
        streamID = app.transport.getPeer().streamID
        served = self.apps.streams.get(streamID)
        received = b"" if served is None else bytes(served.received)
        self.assertEqual(received, b"".join(b"%d" % n for n in range(1, k)))
        if served is not None:
            self.assertIsInstance(await served.lost, GomuxError)
        self.apps.streams.clear()
        await other.whenClosed()
        await app.lost

    async def written(self, mux: MuxProtocol) -> None:
        """
        Wait until the scheduler is idle, so that the next write is a frame of its own.
        """
        if mux.reason is None:
            await self.eventually(lambda: mux._scheduler.idle)

    @row(44)
    async def test_drop(self) -> None:
        """
        If a frame is dropped, the next frame ends the mux.
        """
        for k in range(COUNT - 1):
            await self.assertStopsAt(k, drop())

    @row(44)
    async def test_swap(self) -> None:
        """
        Two frames that change places end the mux.
        """
        for k in range(COUNT - 1):
            await self.assertStopsAt(k, swap())

    @row(44)
    async def test_flip(self) -> None:
        """
        A frame with a flipped bit ends the mux.
        """
        for k in range(COUNT):
            await self.assertStopsAt(k, flip(8 * 40 + k))

    @row(44)
    async def test_replay(self) -> None:
        """
        A copy of the preceding frame, sent again before frame k, ends the mux.
        """
        for k in range(1, COUNT):
            await self.assertStopsAt(
                k, lambda way, frame: way.send(self.seen[-2] + frame.data)
            )

    @row(44)
    async def test_replayAtOnce(self) -> None:
        """
        A frame that arrives twice in a row ends the mux.
        """
        mux, other = await self.connect()
        await self.established(mux, other)
        self.toSubject.when(self.first, duplicate())
        await other.openStream(Apps(Quiet))
        self.assertIsInstance(await mux.whenClosed(), AuthenticationFailed)

    @row(44)
    async def test_reflect(self) -> None:
        """
        A mux ends when one of its own frames is sent back to it.
        """
        mux, other = await self.connect()
        await self.established(mux, other)
        own: list[bytes] = []
        self.fromSubject.when(
            self.firstBack,
            lambda way, frame: (own.append(frame.data), way.send(frame.data)),
        )
        await mux.openStream(Apps(Quiet))
        await self.eventually(lambda: own)
        self.toSubject.when(self.first, lambda way, frame: way.send(own[0]))
        await other.openStream(Apps(Quiet))
        self.assertIsInstance(await mux.whenClosed(), AuthenticationFailed)

    @row(44)
    async def test_splice(self) -> None:
        """
        A frame recorded on an earlier mux with the same peer ends the mux, even at the
        same position.
        """
        taken: list[bytes] = []
        mux, other = await self.connect()
        await self.established(mux, other)
        self.toSubject.when(self.first, lambda way, frame: taken.append(frame.data))
        await other.openStream(Apps(Quiet))
        await self.eventually(lambda: taken)
        mux, other = await self.connect()
        await self.established(mux, other)
        self.toSubject.when(self.first, lambda way, frame: way.send(taken[0]))
        await other.openStream(Apps(Quiet))
        self.assertIsInstance(await mux.whenClosed(), AuthenticationFailed)

    @row(34)
    async def test_vanished(self) -> None:
        """
        Both sides give up a peer that sends nothing.
        """
        mux, other = await self.connect(Limits(deadPeer=0.8, ping=0.1))
        await self.established(mux, other)
        app: Any = await mux.openStream(Apps(Quiet))
        self.toSubject.when(lambda frame: True, blackHole())
        self.fromSubject.when(lambda frame: True, blackHole())
        self.assertIsInstance(await mux.whenClosed(), PeerVanished)
        self.assertIsInstance(await other.whenClosed(), PeerVanished)
        self.assertIsInstance(await app.lost, PeerVanished)

    @row(73)
    async def test_heldBack(self) -> None:
        """
        Genuine frames of a peer that is gone, held back and let through one by one, do
        not keep the mux up.
        """
        # The other side must not give up before the subject does.
        mux, other = await self.connect(Limits(deadPeer=1.5, ping=0.1), Limits())
        await self.established(mux, other)
        held: list[bytes] = []
        began = mux.factory.clock.seconds()

        def drip(way: Any, frame: WireFrame) -> None:
            held.append(frame.data)
            way.wait(0.4)
            way.send(frame.data)

        self.toSubject.when(lambda frame: frame.index > self.first + 5, drip)
        self.assertIsInstance(await mux.whenClosed(), PeerVanished)
        self.assertGreater(len(held), 2)
        # Frames would be let through for as long as the mux is up.
        self.assertLess(mux.factory.clock.seconds() - began, 30.0)

    @row(39)
    async def test_late(self) -> None:
        """
        A peer that is silent for less than the timeout is kept.
        """
        mux, other = await self.connect(Limits(deadPeer=4.0, ping=0.1))
        await self.established(mux, other)
        self.toSubject.when(lambda frame: frame.index % 8 == 7, delay(0.5))
        app: Any = await other.openStream(Apps(Quiet))
        for _ in range(20):
            app.transport.write(b"x")
            await self.written(other)
        await self.eventually(
            lambda: any(len(a.received) == 20 for a in self.apps.streams.values())
        )
        self.assertIsNone(mux.reason)

    @row(47)
    async def test_lastNonce(self) -> None:
        """
        When the nonces run out the mux is closed, and none is used twice.
        """
        mux, other = await self.connect()
        await self.established(mux, other)
        useUpNonces(mux, 3, other)
        app: Any = await mux.openStream(Apps(Quiet))
        app.transport.write(b"last")
        await self.written(mux)
        if mux.reason is None:
            app.transport.write(b"too much")
        self.assertIsInstance(await mux.whenClosed(), NonceExhausted)
        self.assertIsInstance(await other.whenClosed(), PeerClosedConnection)
        self.assertIsInstance(await app.lost, NonceExhausted)


class StrictAsServer(GreetedAsServer):
    """
    The same in strict mode, after the client's hello and confirmation.
    """

    strict = True
    first, firstBack = 2, 1

    @row(45)
    async def test_oldSalt(self) -> None:
        """
        With a hello recorded on an earlier mux, no mux comes up.
        """
        old: list[bytes] = []

        def record(way: Any, frame: WireFrame) -> None:
            old.append(frame.data)
            way.send(frame.data)

        self.prepare = lambda: self.toSubject.when(0, record)  # type: ignore[method-assign]
        await self.established(*await self.connect())
        self.prepare = lambda: self.toSubject.when(  # type: ignore[method-assign]
            0, lambda way, frame: way.send(old[0])
        )
        mux, other = await self.connect()
        await self.eventually(lambda: mux.reason or other.reason)
        self.assertFalse(mux.authenticated)
        self.assertIsInstance(await other.whenClosed(), GomuxError)
        self.assertIsInstance(
            await mux.whenClosed(), (HandshakeFailed, AuthenticationFailed)
        )

    @row(45, 35)
    async def test_saltThenSilence(self) -> None:
        """
        If a client sends its hello and then nothing, or a server nothing, the mux ends
        after C{handshakeTimeout}.
        """
        last = self.first - 1
        self.prepare = lambda: self.toSubject.when(last, blackHole())  # type: ignore[method-assign]
        mux, other = await self.connect(Limits(handshakeTimeout=0.3))
        self.assertIsInstance(await mux.whenClosed(), HandshakeFailed)
        self.assertFalse(mux.authenticated)

    async def assertNoMux(self, words: str, **settings: Any) -> None:
        """
        Check that no mux comes up, and that the server says why.
        """
        mux, other = await self.connect(**settings)
        reasons = [await mux.whenClosed(), await other.whenClosed()]
        for reason in reasons:
            self.assertIsInstance(reason, HandshakeFailed)
        self.assertFalse(mux.authenticated or other.authenticated)
        self.assertIn(words, str(reasons[self.pairing == CLIENT]))

    @row(74)
    async def test_self(self) -> None:
        """
        A process that is connected with itself is refused.
        """
        await self.assertNoMux("connected with itself", salts=Salts())

    @row(74)
    async def test_redirected(self) -> None:
        """
        A client that is redirected to another holder of its key is refused if the two
        have different contexts.
        """
        self.prepare = lambda: setattr(self.client, "context", b"another")  # type: ignore[method-assign]
        await self.assertNoMux("has another context")

    async def assertFrameEnds(self, fields: tuple[int, int, int], words: str) -> None:
        """
        Check that a frame of the peer, sealed with the right nonce, ends the mux.

        @param fields: The frame's stream ID, length and flag.
        @param words: What the mux's reason says.
        """
        mux, other = await self.connect()
        await self.established(mux, other)
        sealer: Sealer = other._scheduler._sealer  # type: ignore[assignment]
        other.transport.write(b"".join(sealer.seal(*fields)))
        reason = await mux.whenClosed()
        self.assertIsInstance(reason, ProtocolViolation)
        self.assertIn(words, str(reason))

    @row(20)
    async def test_length(self) -> None:
        """
        A nonzero length in a frame without payload ends the mux.
        """
        for flag in (KEEPALIVE, CLOSE_READ):
            await self.assertFrameEnds((0, 7, flag), "length of 7")

    @row(21)
    async def test_unknownFlags(self) -> None:
        """
        A frame with an unknown flag ends the mux.
        """
        for flag in (8, 2**32 - 1):
            await self.assertFrameEnds((0, 0, flag), str(flag))

    @row(27)
    async def test_neverOpened(self) -> None:
        """
        Data for a stream that was never opened ends the mux.
        """
        await self.assertFrameEnds((1000, 0, DATA), "never opened")
        await self.assertFrameEnds((1001, 0, DATA), "never opened")


class Swapped:
    """
    Looks at the client's mux.
    """

    pairing = CLIENT

    def order(self, client: MuxProtocol, server: MuxProtocol) -> Any:
        return client, server

    @property
    def toSubject(self) -> Any:
        return self.proxy.toClient

    @property
    def fromSubject(self) -> Any:
        return self.proxy.toServer


class GreetedAsClient(Swapped, GreetedAsServer):
    """
    Compatible mode, seen by the client.
    """


class StrictAsClient(Swapped, StrictAsServer):
    """
    Strict mode, seen by the client: the server sends its hello only.
    """

    first, firstBack = 1, 2
