"""
Fault tests that are run with each kind of live peer.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from gomux import GomuxError, Limits, MuxProtocol
from gomux.error import (
    AuthenticationFailed,
    PeerClosedConnection,
    PeerClosedStream,
    Truncated,
    WriteStalled,
)
from gomux.testing import cut, drop, flip
from interop.faults.attacker import CLOSE, DATA, LONG, OPEN
from interop.faults.cases import (
    row,
)
from interop.faults.live import LiveTestCase, Raising
from interop.support.harness import Peer, drive

MEBIBYTE = 1 << 20


class LiveRows(LiveTestCase):
    """
    Tests of the fault table's rows, for any kind of peer and either role.
    """

    @row(1)
    async def test_slowReader(self) -> None:
        """
        A stream that is not read does not slow down the others.
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
        While all applications are paused, the mux still reads the carrier.
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
        Streams beyond C{maxStreams} are refused, and the mux goes on.
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
        Opening and closing streams at an ordinary rate does not end the mux.
        """
        mux = await self.connect(limits=Limits(resetBurst=50, resetRate=10))
        app = await self.ask(mux, "open opens 400")
        await self.eventually(lambda: app.received.endswith(b"}\n"))
        self.assertIn(b'"ok":true', app.received.replace(b" ", b""))
        await self.assertAnswers(mux)

    @row(10)
    async def test_oneByteFrames(self) -> None:
        """
        Data that arrives in one-byte frames does no harm.
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
        A peer that has stopped reading is dropped after a timeout.
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
        A peer that stops for less than the timeout is not dropped.
        """
        limits, stall = (Limits(), 30.0) if LONG else (Limits(writeStall=6.0), 1.5)
        mux = await self.connect(limits=limits)
        app = await self.ask(mux, f"sink {8 * MEBIBYTE}")
        self.peer.signal("STOP")
        app.transport.write(bytes(8 * MEBIBYTE))
        await self.eventually(lambda: app.transport.unsent < 8 * MEBIBYTE - 100000)
        reactor.callLater(stall, self.resumePeer)
        await self.eventually(lambda: app.received == b"ok\n")
        await self.assertAnswers(mux)

    @row(14, 15)
    async def test_wrongKey(self) -> None:
        """
        With different keys no mux comes up.  The side that gets no answer reports the
        likely reason.
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
        Check that damage to a data frame ends the mux, that the data before it is
        delivered, and that its own data is not.
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
        A carrier that ends within a frame ends the mux.
        """
        await self.assertHarmed(cut(100), Truncated)

    @row(31)
    async def test_reset(self) -> None:
        """
        A carrier that is reset within a frame ends the mux.
        """
        await self.assertHarmed(cut(100, reset=True), Truncated)

    @row(18)
    async def test_flipped(self) -> None:
        """
        A flipped bit in received data ends the mux.
        """
        await self.assertHarmed(flip(8 * 100), AuthenticationFailed)

    @row(18)
    async def test_flippedToPeer(self) -> None:
        """
        A flipped bit in data to the peer makes the peer end the mux.
        """
        mux = await self.connect()
        self.toPeer.when(lambda frame: frame.flag == DATA, flip(8 * 40))
        await self.ask(mux, "idle")
        await self.peer.line("mux down")
        await self.assertEnds(mux, Truncated)

    @row(26)
    async def test_lateFrames(self) -> None:
        """
        Frames that were in flight when their stream was closed are ignored.
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
        When the peer closes the mux, the subject's mux ends cleanly.
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
        When the peer is killed under load, the mux and its streams end.
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
        An application that raises loses its stream, and the mux goes on.
        """
        mux = await self.connect()
        app = await self.ask(mux, "source 10", Raising)
        self.assertIsInstance(await app.lost, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        await self.assertAnswers(mux)

    async def assertDriven(self, *drivers: str, options: tuple[str, ...] = ()) -> None:
        """
        Check that drivers succeed between the peer and a subject in its own process,
        with either side driving.
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
        The halves of a stream can be closed in all orders, with either side driving.
        """
        await self.assertDriven("halfclose all")

    @row(49)
    async def test_manyStreams(self) -> None:
        """
        200 streams carry bulk data in both directions, with either side driving.
        """
        await self.assertDriven(f"echo-hash {16 * MEBIBYTE} 200")

    @row(50)
    async def test_longReads(self) -> None:
        """
        Bulk data arrives at a peer whose application reads into a large buffer.
        """
        long = ("--read-size", str(MEBIBYTE), "--read-delay", "1")
        await self.assertDriven(f"sink {8 * MEBIBYTE} 1 65536", options=long)
