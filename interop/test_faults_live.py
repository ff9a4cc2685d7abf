"""
Faults and abuse: this project with live peers of its own kind and of the
reference's, in both roles, through a proxy that does the harm.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from gomux import GomuxError, Limits, MuxProtocol
from gomux.error import (
    AuthenticationFailed,
    HandshakeFailed,
    LimitExceeded,
    PeerClosedConnection,
    PeerClosedStream,
    Truncated,
    WriteStalled,
)
from gomux.testing import FaultProxy, cut, drop, flip
from interop.faults.attacker import CLOSE, DATA, OPEN
from interop.faults.cases import (
    CLIENT,
    GO_CLIENT,
    GO_SERVER,
    App,
    Apps,
    FaultTestCase,
    Subject,
    row,
)
from interop.harness import Peer, PeerTestCase, drive, whyMissing

PSK = "interop secret"
MEBIBYTE = 1 << 20


class Line(App):
    """
    Asks for something in the line protocol; answers C{idle} in it.
    """

    def __init__(self, line: str = "") -> None:
        super().__init__()
        self.line = line
        self.size = 0

    def connectionMade(self) -> None:
        if self.line:
            self.transport.write(self.line.encode() + b"\n")

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        if data == b"idle\n":
            self.transport.write(b"ok\n")
        elif self.size < MEBIBYTE:
            self.received += data


class Raising(Line):
    """
    Raises.
    """

    def dataReceived(self, data: bytes) -> None:
        raise ZeroDivisionError("dataReceived")


class LiveAsServer(FaultTestCase, PeerTestCase):
    """
    The subject in this process, as server, the peer in another one.

    @cvar kind: Of the peer.
    @cvar listens: Whether the subject does.
    """

    timeout = 100
    kind = "this"
    listens = True

    async def connect(
        self,
        *options: str,
        limits: Limits | None = None,
        psk: str = PSK,
        **settings: Any,
    ) -> MuxProtocol:
        """
        Start the peer, and connect it with the subject.
        """
        self.apps = Apps(Line)
        self.subject = Subject(
            PSK, not self.listens, self.apps, limits=limits, **settings
        )
        connected = self.subject.next()
        if self.listens:
            self.proxy = FaultProxy(reactor, "127.0.0.1", self.listen(self.subject))
            self.startProxy()
            address = f"127.0.0.1:{self.proxy.port}"
            self.peer = self.spawn(self.kind, "--connect", address, *options, psk=psk)
        else:
            self.peer = self.spawn(
                self.kind, "--listen", "127.0.0.1:0", *options, psk=psk
            )
            host, _, port = (await self.peer.line("listening ")).partition(":")
            self.proxy = FaultProxy(reactor, host, int(port))
            self.startProxy()
            await self.connectTo(self.proxy.port, self.subject)
        mux = await connected
        self.addCleanup(self._abort, mux)
        await self.peer.line("mux up")
        return mux

    def startProxy(self) -> None:
        """
        Start the proxy until the end of the test.
        """
        self.proxy.start()
        self.addCleanup(self.proxy.stop)
        directions = (self.proxy.toServer, self.proxy.toClient)
        self.toPeer, self.toSubject = directions[:: -1 if self.listens else 1]

    async def _abort(self, mux: MuxProtocol) -> None:
        mux.abort()
        await mux.whenClosed()

    def resumePeer(self) -> None:
        """
        Let a peer that was stopped go on.
        """
        os.kill(self.peer.transport.pid, signal.SIGCONT)

    async def ask(self, mux: MuxProtocol, line: str, kind: type = Line) -> Any:
        """
        Open a stream with a command.
        """
        return await mux.openStream(Apps(lambda: kind(line)))

    async def assertAnswers(self, mux: MuxProtocol) -> None:
        """
        Check that the mux lives.
        """
        app = await self.ask(mux, "idle")
        await self.eventually(lambda: app.received == b"ok\n")
        app.transport.loseConnection()
        await app.lost

    async def assertEnds(self, mux: MuxProtocol, error: Any) -> GomuxError:
        """
        Check how the mux ends, and that it is logged, once.
        """
        reason = await mux.whenClosed().addTimeout(30, reactor)
        self.assertIsInstance(reason, error)
        self.assertEqual(len(self.logged("ended", str(reason))), 1)
        return reason

    @row(1)
    async def test_slowReader(self) -> None:
        """
        One stream that is not read does not slow the others down.
        """
        mux = await self.connect()
        best = 0.0
        for _ in range(6):
            alone = await self._timeThree(mux)
            slow = await self.ask(mux, f"source {64 * MEBIBYTE}")
            slow.transport.pauseProducing()
            beside = await self._timeThree(mux)
            self.assertLessEqual(slow.size, MEBIBYTE)
            slow.transport.abortConnection()
            best = max(best, alone / beside)
            if best >= 0.9:
                break
        self.assertGreaterEqual(best, 0.9)

    async def _timeThree(self, mux: MuxProtocol) -> float:
        size = 4 * MEBIBYTE
        began = time.monotonic()
        apps = [await self.ask(mux, f"source {size}") for _ in range(3)]
        await self.eventually(lambda: all(app.size == size for app in apps))
        for app in apps:
            app.transport.loseConnection()
        return time.monotonic() - began

    @row(2)
    async def test_allPaused(self) -> None:
        """
        With no stream read the carrier still is.
        """
        mux = await self.connect()
        apps = [await self.ask(mux, f"source {MEBIBYTE}") for _ in range(30)]
        for app in apps:
            app.transport.pauseProducing()
        await self.assertAnswers(mux)
        for app in apps:
            app.transport.resumeProducing()
        await self.eventually(lambda: all(app.size == MEBIBYTE for app in apps))

    @row(6)
    async def test_tooManyStreams(self) -> None:
        """
        Streams past the limit are refused, and the mux goes on.
        """
        mux = await self.connect(limits=Limits(maxStreams=5))
        seen: list[tuple[str, int]] = []
        for name, way in (("in", self.toSubject), ("out", self.toPeer)):
            way.when(lambda frame, n=name: seen.append((n, frame.flag)), drop())
        await self.ask(mux, "open sink 20 20 1")
        await self.eventually(lambda: seen.count(("in", OPEN)) == 20)
        await self.eventually(lambda: seen.count(("out", CLOSE)) >= 15)
        self.assertEqual(len(self.apps.streams), 5)
        await self.assertAnswers(mux)

    @row(7, 24)
    async def test_churn(self) -> None:
        """
        Ordinary churn is no rapid reset.
        """
        mux = await self.connect(limits=Limits(resetBurst=50, resetRate=10))
        app = await self.ask(mux, "open opens 400")
        await self.eventually(lambda: app.received.endswith(b"}\n"))
        self.assertIn(b'"ok":true', app.received.replace(b" ", b""))
        await self.assertAnswers(mux)

    @row(10)
    async def test_oneByteFrames(self) -> None:
        """
        Data that comes byte by byte does no harm.
        """
        mux = await self.connect()
        app = await self.ask(mux, "open sink 2000 1 1")
        await self.eventually(lambda: self.apps.streams)
        (sink,) = self.apps.streams.values()
        sink.transport.pauseProducing()
        await self.assertAnswers(mux)
        sink.transport.resumeProducing()
        await self.eventually(lambda: sink.size >= 2000)
        sink.transport.write(b"ok\n")
        await self.eventually(lambda: app.received.endswith(b"}\n"))

    @row(13)
    async def test_stopped(self) -> None:
        """
        A peer that stands still is dropped when it has taken nothing for too
        long.
        """
        mux = await self.connect(limits=Limits(writeStall=1.0))
        apps = [await self.ask(mux, f"sink {64 * MEBIBYTE}") for _ in range(100)]
        self.peer.signal("STOP")
        for app in apps:
            app.transport.write(bytes(2 * MEBIBYTE))
        await self.assertEnds(mux, WriteStalled)
        self.resumePeer()

    @row(39)
    async def test_pausedPeer(self) -> None:
        """
        A peer that stands still for less long is not.
        """
        mux = await self.connect(limits=Limits(writeStall=6.0))
        app = await self.ask(mux, f"sink {8 * MEBIBYTE}")
        self.peer.signal("STOP")
        app.transport.write(bytes(8 * MEBIBYTE))
        await self.eventually(lambda: app.transport.unsent < 8 * MEBIBYTE - 100000)
        reactor.callLater(1.5, self.resumePeer)
        await self.eventually(lambda: app.received == b"ok\n")
        await self.assertAnswers(mux)

    @row(14, 15)
    async def test_wrongKey(self) -> None:
        """
        With another key than the peer's nothing comes up, and whoever is told
        nothing is told why that may be.
        """
        mux = await self.connect(*drive("opens 1"), psk="another secret")
        if self.listens:
            await self.assertEnds(mux, AuthenticationFailed)
        else:
            await self.ask(mux, "idle")
            reason = await self.assertEnds(mux, (Truncated, AuthenticationFailed))
            if isinstance(reason, Truncated):
                self.assertIn("wrong pre-shared key", str(reason))

    async def assertHarmed(self, action: Any, *errors: type[GomuxError]) -> None:
        """
        Check that harm done to a data frame ends the mux, with all of the data
        before it delivered, and none of it.
        """
        mux = await self.connect()
        app = await self.ask(mux, f"source {4 * MEBIBYTE}")
        sizes: list[int] = []

        def isMeant(frame: Any) -> bool:
            if frame.flag == DATA and sum(sizes) < MEBIBYTE:
                sizes.append(frame.length)
                return False
            return bool(frame.flag == DATA)

        self.toSubject.when(isMeant, action)
        await self.assertEnds(mux, errors)
        self.assertIsInstance(await app.lost, errors)
        self.assertEqual(app.size, sum(sizes))
        await self.peer.line("mux down")

    @row(17, 30)
    async def test_truncated(self) -> None:
        """
        A carrier that ends within a frame.
        """
        await self.assertHarmed(cut(100), Truncated)

    @row(31)
    async def test_reset(self) -> None:
        """
        A carrier that is reset within a frame.
        """
        await self.assertHarmed(cut(100, reset=True), Truncated)

    @row(18)
    async def test_flipped(self) -> None:
        """
        A flipped bit in what comes.
        """
        await self.assertHarmed(flip(8 * 100), AuthenticationFailed)

    @row(18)
    async def test_flippedToPeer(self) -> None:
        """
        A flipped bit in what goes out: the peer ends the mux.
        """
        mux = await self.connect()
        self.toPeer.when(lambda frame: frame.flag == DATA, flip(8 * 40))
        await self.ask(mux, "idle")
        await self.peer.line("mux down")
        await self.assertEnds(mux, Truncated)

    @row(26)
    async def test_lateFrames(self) -> None:
        """
        What is under way when a stream is closed is ignored.
        """
        mux = await self.connect(limits=Limits(ignoredBurst=5, ignoredRate=0.001))
        for _ in range(20):
            app = await self.ask(mux, f"source {16 * MEBIBYTE}")
            await self.eventually(lambda app=app: app.size > 100000)
            app.transport.loseConnection()
            await app.lost
        await self.assertAnswers(mux)
        self.assertEqual(mux.streamCount, 0)

    @row(32)
    async def test_closeMux(self) -> None:
        """
        A peer that closes the mux.
        """
        mux = await self.connect()
        idle = await self.ask(mux, "idle")
        await self.eventually(lambda: idle.received)
        await self.ask(mux, "closemux")
        await self.assertEnds(mux, PeerClosedConnection)
        self.assertIsInstance(await idle.lost, (PeerClosedConnection, PeerClosedStream))

    @row(40)
    async def test_killed(self) -> None:
        """
        A peer that is killed under load.
        """
        mux = await self.connect()
        apps = [await self.ask(mux, f"source {1024 * MEBIBYTE}") for _ in range(10)]
        await self.eventually(lambda: all(app.size for app in apps))
        self.peer.signal("KILL")
        await self.assertEnds(mux, Truncated)
        reasons = await gatherResults([app.lost for app in apps])
        self.assertEqual({type(reason) for reason in reasons}, {Truncated})
        self.assertEqual({app.losses for app in apps}, {1})

    @row(48)
    async def test_raises(self) -> None:
        """
        An application that raises loses its stream only.
        """
        mux = await self.connect()
        app = await self.ask(mux, "source 10", Raising)
        self.assertIsInstance(await app.lost, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        await self.assertAnswers(mux)

    async def assertDriven(self, *drivers: str, options: tuple[str, ...] = ()) -> None:
        """
        Check that drivers do well between a subject in a process of its own
        and the peer, on either side.
        """
        for subjectDrives in (True, False):
            subject, peer = drive(*drivers) if subjectDrives else (), options
            if not subjectDrives:
                peer = (*options, *drive(*drivers))
            if self.listens:
                one, other = await self.startPair("this", self.kind, subject, peer)
            else:
                other, one = await self.startPair(self.kind, "this", peer, subject)
            driving: Peer = one if subjectDrives else other
            await self.assertDrives(driving, len(drivers))

    @row(29)
    async def test_halfCloses(self) -> None:
        """
        All orders of half-closes.
        """
        await self.assertDriven("halfclose all")

    @row(49)
    async def test_manyStreams(self) -> None:
        """
        200 streams, bulk both ways.
        """
        await self.assertDriven(f"echo-hash {16 * MEBIBYTE} 200")

    @row(50)
    async def test_longReads(self) -> None:
        """
        A peer whose application reads into a large buffer.
        """
        long = ("--read-size", str(MEBIBYTE), "--read-delay", "1")
        await self.assertDriven(f"sink {8 * MEBIBYTE} 1 65536", options=long)


class LiveAsClient(LiveAsServer):
    """
    This project with itself, the subject as client.
    """

    pairing = CLIENT
    listens = False


class GoClient(LiveAsServer):
    """
    The subject as server of the reference.
    """

    pairing = GO_CLIENT
    kind = "go"
    skip = whyMissing("go")

    @row(46)
    async def test_strict(self) -> None:
        """
        The mux does not come up, with a clear error, and there is no fallback.
        """
        limits = Limits(handshakeTimeout=1.0)
        mux = await self.connect(*drive("opens 1"), strict=True, limits=limits)
        reason = await self.assertEnds(mux, HandshakeFailed)
        self.assertIn("strict mode", str(reason))
        self.assertFalse(mux.authenticated)
        self.assertEqual(mux.streamCount, 0)

    @row(35)
    async def test_silentClients(self) -> None:
        """
        Clients that say nothing, as the reference's may: the oldest has to go.
        """
        mux = await self.connect(limits=Limits(maxUnauthenticated=1))
        connected = self.subject.next()
        self.spawn(self.kind, "--connect", f"127.0.0.1:{self.proxy.port}")
        second = await connected
        await self.assertEnds(mux, LimitExceeded)
        await self.peer.line("mux down")
        await self.assertAnswers(second)
        await self._abort(second)


class GoServer(LiveAsServer):
    """
    The subject as client of the reference.
    """

    pairing = GO_SERVER
    kind = "go"
    listens = False
    skip = whyMissing("go")

    @row(46)
    async def test_strict(self) -> None:
        """
        The mux does not come up, with a clear error, and there is no fallback.
        """
        limits = Limits(handshakeTimeout=1.0)
        mux = await self.connect(*drive("opens 1"), strict=True, limits=limits)
        reason = await self.assertEnds(mux, HandshakeFailed)
        self.assertIn("strict mode", str(reason))
        self.assertFalse(mux.authenticated)
        self.assertEqual(mux.streamCount, 0)
