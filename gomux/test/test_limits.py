"""
Tests for L{gomux.limits}, and for the effect of each limit.
"""

from __future__ import annotations

import random
from dataclasses import FrozenInstanceError, fields

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits, MuxFactory
from gomux._mux.frames import REST
from gomux._wire.frame import Flag
from gomux._wire.salts import Salts
from gomux._wire.window import ReceiveWindow
from gomux.error import (
    BuffersFull,
    ConnectionClosed,
    GomuxError,
    HandshakeFailed,
    LimitExceeded,
    NoRequests,
    OpenStreamError,
    OutputExceeded,
    PeerVanished,
    Truncated,
    WriteStalled,
)
from gomux.test.support.helpers import HalfRecorder, PushProducer, Recorders, Rig
from gomux.testing import PSK, MuxPair


def openedWindow(rig: Rig) -> ReceiveWindow:
    """
    @return: the window of a new stream that has received a byte.
    """
    window = rig.opened(b"x").stream.receiveWindow
    assert window is not None
    return window


class LimitsTests(SynchronousTestCase):
    """
    L{Limits}
    """

    def test_positive(self) -> None:
        """
        A limit must be positive and finite.  Only a limit that can be turned off may be
        0.
        """
        for field in fields(Limits):
            for value in (0, -1, float("inf")):
                if field.name in ("busyPoll", "silentGrace") and value == 0:
                    limits = Limits(**{field.name: 0})
                    self.assertEqual(getattr(limits, field.name), 0)
                    continue
                error = self.assertRaises(ValueError, Limits, **{field.name: value})
                self.assertIn(field.name, str(error))

    def test_frozen(self) -> None:
        """
        Limits cannot be changed.
        """
        with self.assertRaises(FrozenInstanceError):
            Limits().maxStreams = 5  # type: ignore[misc]

    def test_documented(self) -> None:
        """
        Each limit is documented.
        """
        for field in fields(Limits):
            self.assertIn(f"@ivar {field.name}:", Limits.__doc__ or "")

    def test_tested(self) -> None:
        """
        Each limit has a test below.
        """
        for field in fields(Limits):
            self.assertTrue(hasattr(LimitTests, f"test_{field.name}"), field.name)


class LimitTests(SynchronousTestCase):
    """
    The effect of each limit
    """

    def check_exceeded(self, rig: Rig) -> None:
        self.assertIsInstance(rig.reason(), LimitExceeded)

    def test_maxMuxes(self) -> None:
        """
        A peer's muxes over C{maxMuxes} end.
        """
        clock = Clock()
        factory = MuxFactory(PSK, False, clock=clock, limits=Limits(maxMuxes=2))
        pairs = [MuxPair(serverFactory=factory, clock=clock) for _ in range(3)]
        for pair in pairs:
            pair.flush()
        reasons = [type(pair.server.reason) for pair in pairs]
        self.assertEqual(reasons, [type(None), type(None), LimitExceeded])

    def test_maxStreams(self) -> None:
        """
        The peer's streams over C{maxStreams} are refused.  A stream that the peer has
        closed counts until the application is done with it.
        """
        rig = Rig(limits=Limits(maxStreams=2))
        first, _ = rig.opened(), rig.opened()
        rig.send(4, Flag.OPEN_STREAM)
        self.assertEqual(
            rig.sent(), [(4, Flag.WINDOW_UPDATE, 0), (4, Flag.CLOSE_STREAM, 0)]
        )
        first.stream.pauseProducing()
        rig.send(0, Flag.DATA, b"unread")
        rig.send(0, Flag.CLOSE_STREAM)
        rig.send(6, Flag.OPEN_STREAM)
        self.assertEqual(
            rig.sent(), [(6, Flag.WINDOW_UPDATE, 0), (6, Flag.CLOSE_STREAM, 0)]
        )
        first.stream.resumeProducing()
        rig.run()
        rig.send(8, Flag.OPEN_STREAM)
        self.assertEqual(rig.sent(), [])
        self.assertEqual(len(rig.streams.made), 3)
        self.assertIsNone(rig.reason())

    def openMany(self, rig: Rig, count: int) -> None:
        """
        Have the peer open many streams, which arrive in one read.
        """
        seal = rig.peer.seal
        opens = [seal(2 * i, Flag.OPEN_STREAM, 0) for i in range(count)]
        rig.mux.dataReceived(b"".join(opens))

    def test_openBurst(self) -> None:
        """
        A peer may open C{openBurst} streams at once.  The next stream waits, and so
        does everything after it.
        """
        rig = Rig(limits=Limits(openBurst=20, openRate=2))
        self.openMany(rig, 21)
        rig.send(0, Flag.DATA, b"later")
        rig.clock.pump([0.1] * 4)
        self.assertEqual(len(rig.streams.made), 20)
        self.assertEqual(rig.streams.made[0].received, b"")
        rig.clock.advance(0.1)
        rig.run()
        self.assertEqual(len(rig.streams.made), 21)
        rig.clock.pump([0.1] * 6)
        self.assertEqual(rig.streams.made[0].received, b"later")
        self.assertIsNone(rig.reason())

    def test_openRate(self) -> None:
        """
        In the long run a peer may open C{openRate} streams a second.  If it opens more,
        the log says so once.
        """
        rig = Rig(limits=Limits(openBurst=20, openRate=10 / REST))
        with capturedLogs() as events:
            self.openMany(rig, 500)
            for _ in range(30):
                rig.clock.advance(REST)
                rig.run()
        texts = [formatEvent(event) for event in events]
        self.assertEqual(len([text for text in texts if "openRate" in text]), 1, texts)
        self.assertAlmostEqual(len(rig.streams.made), 20 + 30 * 10, delta=10)
        rig.clock.advance(1)
        self.assertEqual(rig.mux.streamCount, 340)
        for _ in range(20):
            rig.clock.advance(REST)
            rig.run()
        self.assertEqual(rig.mux.streamCount, 500)
        self.assertIsNone(rig.reason())

    def test_openSlowly(self) -> None:
        """
        A peer that opens streams no faster than C{openRate} never waits.
        """
        rig = Rig(limits=Limits(openBurst=20, openRate=1000))
        for i in range(300):
            rig.send(2 * i, Flag.OPEN_STREAM)
            self.assertEqual(rig.mux.streamCount, i + 1)
            self.assertTrue(rig.carrier.reading)
            rig.clock.advance(0.001)

    def test_openThenGone(self) -> None:
        """
        Streams that were opened before the carrier was lost are handled in batches too,
        but faster than C{openRate} in the end.  Then they end.
        """
        rig = Rig(limits=Limits(openBurst=20, openRate=1))
        self.openMany(rig, 50)
        closed = rig.mux.whenClosed()
        rig.peerCarrier.abortConnection()
        rig.run()
        self.assertEqual(rig.mux.streamCount, 20)
        rig.clock.advance(1)
        rig.run()
        self.assertEqual(rig.mux.streamCount, 21)
        self.assertNoResult(closed)
        for _ in range(30):
            rig.clock.advance(REST)
            rig.run()
        self.assertIsInstance(self.successResultOf(closed), Truncated)
        self.assertEqual(len(rig.streams.made), 50)
        for recorder in rig.streams.made:
            self.assertEqual(recorder.events, ["made", "lost"])

    def test_ownStreams(self) -> None:
        """
        Streams that this side opens do not count for C{maxStreams}.
        """
        rig = Rig(limits=Limits(maxStreams=2))
        for _ in range(3):
            rig.open()
        rig.opened()
        self.assertEqual(len(rig.streams.made), 1)

    def test_busyPoll(self) -> None:
        """
        The reactor polls only after two messages within C{busyPoll} seconds.
        C{test_busypoll} has more tests of polling.
        """
        rig = Rig(limits=Limits(busyPoll=0.5))
        rig.send(0, Flag.KEEPALIVE)
        before = len(rig.clock.getDelayedCalls())
        for wait, awake in ((0.6, False), (0.4, True), (0.6, False)):
            rig.clock.advance(wait)
            rig.send(0, Flag.KEEPALIVE)
            self.assertEqual(len(rig.clock.getDelayedCalls()) > before, awake)

    def granted(self, limits: Limits, streams: int, ends: bool = False) -> list[int]:
        """
        Have the peer use windows up faster and faster.

        @param ends: whether each stream ends before the next begins.

        @return: how much each stream's window has grown.
        """
        rig = Rig(limits=limits)
        rig.clock.advance(1000)
        grown = []
        for i in range(streams):
            window = openedWindow(rig)
            wait = 1.0
            for _ in range(6):
                todo = window.size
                wait /= 2
                while todo > 0:
                    size = min(65536, window.available, todo)
                    rig.send(2 * i, Flag.DATA, bytes(size))
                    todo -= size
                    rig.clock.advance(wait * size / 131072)
            credit = sum(frame[2] for frame in rig.sent())
            received = len(rig.streams.made[i].received)
            self.assertEqual(window.size, 131072 + credit - received + window.held)
            grown.append(window.size - 131072)
            rig.streams.made[i].received.clear()
            if ends:
                rig.streams.made[i].stream.loseConnection()
                rig.sent()
        self.assertIsNone(rig.reason())
        rig.mux.checkInvariants()
        return grown

    def test_maxWindow(self) -> None:
        """
        The window of one stream grows up to C{maxWindow}.
        """
        limits = Limits(maxWindow=500000, maxGrowth=1 << 30)
        self.assertEqual(self.granted(limits, 1), [500000 - 131072])

    def test_maxGrowth(self) -> None:
        """
        All windows of a mux together grow by at most C{maxGrowth}.
        """
        limits = Limits(maxWindow=500000, maxGrowth=500000)
        self.assertEqual(sum(self.granted(limits, 3)), 500000)

    def test_growthReleased(self) -> None:
        """
        When a stream ends, other windows may use the growth of its window.
        """
        limits = Limits(maxWindow=500000, maxGrowth=500000 - 131072)
        grown = self.granted(limits, 3, ends=True)
        self.assertEqual(grown, [500000 - 131072] * 3)

    def test_maxOutput(self) -> None:
        """
        An application that writes on while more than C{maxOutput} bytes wait loses its
        stream: it learns why, the peer sees an abort, and the log says so.  Other
        streams do not notice.
        """
        rig = Rig(limits=Limits(maxOutput=1000000))
        other, echo = rig.opened(b"x"), rig.opened()
        echo.hooks["data"] = lambda echo: echo.stream.write(bytes(65536))
        with capturedLogs() as events:
            for _ in range((131072 + 1000000) // 65536 + 1):
                rig.send(2, Flag.DATA, b"x")
            self.assertIsNone(echo.reason)
            rig.send(2, Flag.DATA, b"x")
        self.assertIsInstance(echo.reason, OutputExceeded)
        rig.sent()
        self.assertEqual(len(rig.peer.frames), 0)
        [text] = [formatEvent(event) or "" for event in events]
        self.assertIn("its application went on writing", text)
        other.stream.write(b"still here")
        self.assertEqual(rig.sentData(), b"still here")

    def test_maxOutputAborts(self) -> None:
        """
        The peer of a stream that exceeds C{maxOutput} sees an abort, and its producer
        is stopped.
        """
        rig = Rig(limits=Limits(maxOutput=200000))
        recorder = rig.opened()
        recorder.stream.write(bytes(131072 + 200000))
        rig.sent()
        producer = PushProducer()
        recorder.stream.registerProducer(producer, True)
        recorder.stream.write(b"x")
        self.assertEqual(rig.sent(), [])
        recorder.stream.write(b"x")
        self.assertEqual(
            rig.sent(), [(0, Flag.WINDOW_UPDATE, 0), (0, Flag.CLOSE_STREAM, 0)]
        )
        self.assertIn("stop", producer.calls)
        recorder.stream.write(b"x")
        self.assertEqual(recorder.stream.unsent, 0)

    def test_maxOutputOneWrite(self) -> None:
        """
        One write may be larger than C{maxOutput}.
        """
        rig = Rig(limits=Limits(maxOutput=1))
        recorder = rig.opened()
        recorder.stream.write(bytes(10000000))
        rig.run()
        self.assertIsNone(recorder.reason)
        self.assertEqual(recorder.stream.unsent, 10000000 - 131072)

    def test_maxBuffered(self) -> None:
        """
        The mux is ended if what waits in it exceeds C{maxBuffered}.  More tests are in
        L{gomux.test.mux.test_buffers}.
        """
        rig = Rig(limits=Limits(maxBuffered=100000))
        rig.opened().stream.pauseProducing()
        rig.send(0, Flag.DATA, bytes(60000))
        self.assertIsNone(rig.reason())
        rig.send(0, Flag.DATA, bytes(10000))
        self.assertIsInstance(rig.reason(), BuffersFull)

    def test_maxRefusals(self) -> None:
        """
        The mux is aborted if the peer goes on opening streams without reading the
        refusals.
        """
        limits = Limits(maxStreams=1, maxRefusals=10)
        rig = Rig(limits=limits, bufferSize=1)
        rig.opened()
        for i in range(1, 50):
            rig.send(2 * i, Flag.OPEN_STREAM)
        self.assertIsNone(rig.reason())
        rig.carrier.outgoing.stall()
        # The first one fills the carrier.
        for i in range(50, 61):
            rig.send(2 * i, Flag.OPEN_STREAM)
        self.assertIsNone(rig.reason())
        rig.send(200, Flag.OPEN_STREAM)
        self.check_exceeded(rig)

    def test_refusalsAfterClose(self) -> None:
        """
        After CloseMux a mux sends no refusals, so the peer may open any number of
        streams until it receives the CloseMux.
        """
        rig = Rig(limits=Limits(maxRefusals=10))
        rig.meet()
        closing = rig.mux.close()
        rig.sendMany(*[(2 * i, Flag.OPEN_STREAM, 0) for i in range(50)])
        self.assertNoResult(closing)
        rig.peerCarrier.loseConnection()
        rig.run()
        self.assertIsInstance(self.successResultOf(closing), ConnectionClosed)

    def test_maxControl(self) -> None:
        """
        While C{maxControl} control frames wait, no stream can be opened.
        """
        rig = Rig(limits=Limits(maxControl=10), bufferSize=1)
        rig.carrier.outgoing.stall()
        rig.open()
        rig.run()
        for _ in range(10):
            rig.open()
        self.failureResultOf(rig.mux.openStream(Recorders()), OpenStreamError)
        rig.carrier.outgoing.unstall()
        rig.run()
        rig.open()
        self.assertEqual(rig.mux.streamCount, 12)

    def test_maxControlPeer(self) -> None:
        """
        The mux is aborted if the peer opens a stream while C{maxControl} control frames
        wait.
        """
        rig = Rig(
            HalfRecorder,
            limits=Limits(maxControl=10),
            bufferSize=1,
            made=lambda recorder: recorder.stream.loseWriteConnection(),
        )
        rig.carrier.outgoing.stall()
        for _ in range(11):
            rig.opened()
        self.assertIsNone(rig.reason())
        rig.send(100, Flag.OPEN_STREAM)
        self.check_exceeded(rig)

    def resets(self, rig: Rig, count: int) -> None:
        """
        Have the peer open and close streams as fast as it can.
        """
        first = len(rig.streams.made)
        for i in range(first, first + count):
            rig.sendMany((2 * i, Flag.OPEN_STREAM, 0), (2 * i, Flag.CLOSE_STREAM, 0))

    def test_resetBurst(self) -> None:
        """
        A peer may open and close C{resetBurst} streams at once.
        """
        rig = Rig(limits=Limits(resetBurst=20))
        self.resets(rig, 20)
        self.assertIsNone(rig.reason())
        self.resets(rig, 1)
        self.check_exceeded(rig)

    def test_resetRate(self) -> None:
        """
        A peer may open and close C{resetRate} streams a second.
        """
        rig = Rig(limits=Limits(resetBurst=20, resetRate=10))
        self.resets(rig, 20)
        for _ in range(10):
            rig.clock.advance(1)
            self.resets(rig, 10)
        self.assertIsNone(rig.reason())
        rig.clock.advance(1)
        self.resets(rig, 11)
        self.check_exceeded(rig)

    def test_churn(self) -> None:
        """
        Streams that were written to do not count as resets, and neither do streams that
        this side closes.
        """
        rig = Rig(limits=Limits(resetBurst=5), made=lambda r: r.transport.write(b"hi"))
        self.resets(rig, 50)
        self.assertIsNone(rig.reason())
        rig = Rig(limits=Limits(resetBurst=5), made=lambda r: r.stream.loseConnection())
        self.resets(rig, 50)
        self.assertIsNone(rig.reason())
        rig = Rig(limits=Limits(resetBurst=5), isClient=True)
        for i in range(50):
            rig.open()
            rig.run()
            rig.send(2 * i, Flag.CLOSE_STREAM)
        self.assertIsNone(rig.reason())

    def test_ordinaryChurn(self) -> None:
        """
        The default limits allow 2000 resets a second.
        """
        rig = Rig()
        for _ in range(20):
            self.resets(rig, 1000)
            rig.clock.advance(0.5)
        self.assertIsNone(rig.reason())

    def test_ignoredBurst(self) -> None:
        """
        A peer may send C{ignoredBurst} frames without effect, of any kind, at once.
        """
        frames: list[tuple[int, int, int | bytes]] = [
            (0, Flag.KEEPALIVE, 0),
            (0, 99, 0),
            (0, Flag.DATA, b""),
            (0, Flag.WINDOW_UPDATE, 0),
            (100, Flag.DATA, b"never opened"),
            (100, Flag.WINDOW_UPDATE, 5),
            (100, Flag.CLOSE_STREAM, 0),
            (101, Flag.CLOSE_READ, 0),
            (101, Flag.CLOSE_WRITE, 0),
        ]
        for frame in frames:
            rig = Rig(limits=Limits(ignoredBurst=20))
            rig.opened()
            rig.sendMany(*[frame] * 20)
            self.assertIsNone(rig.reason(), frame)
            rig.sendMany(frame)
            self.check_exceeded(rig)

    def test_aborts(self) -> None:
        """
        A frame that announces an abort has an effect if the abort follows.  Repeats of
        it before one abort count as frames without effect.
        """
        rig = Rig(limits=Limits(ignoredBurst=5))
        for streamID in range(0, 200, 2):
            rig.sendMany(
                (streamID, Flag.OPEN_STREAM, 0),
                (streamID, Flag.WINDOW_UPDATE, 0),
                (streamID, Flag.CLOSE_STREAM, 0),
            )
        self.assertIsNone(rig.reason())
        rig.sendMany(
            (200, Flag.OPEN_STREAM, 0),
            *[(200, Flag.WINDOW_UPDATE, 0)] * 3,
            (200, Flag.CLOSE_STREAM, 0),
        )
        rig.sendMany(*[(0, Flag.KEEPALIVE, 0)] * 3)
        self.assertIsNone(rig.reason())
        rig.sendMany((0, Flag.KEEPALIVE, 0))
        self.check_exceeded(rig)

    def test_lateFramesOutOfOrder(self) -> None:
        """
        Late frames for ended streams do not count, in whatever order the streams were
        opened.
        """
        rig = Rig(limits=Limits(ignoredBurst=5))
        for streamID in (4, 0):
            rig.send(streamID, Flag.OPEN_STREAM)
            rig.streams.made[-1].stream.loseConnection()
            rig.run()
        for _ in range(50):
            rig.sendMany((0, Flag.DATA, b"late"), (4, Flag.WINDOW_UPDATE, 5))
        self.assertIsNone(rig.reason())

    def test_ignoredRate(self) -> None:
        """
        A peer may send C{ignoredRate} frames without effect a second.
        """
        rig = Rig(limits=Limits(ignoredBurst=20, ignoredRate=10))
        rig.sendMany(*[(0, Flag.KEEPALIVE, 0)] * 20)
        for _ in range(10):
            rig.clock.advance(1)
            rig.sendMany(*[(0, Flag.KEEPALIVE, 0)] * 10)
        self.assertIsNone(rig.reason())
        rig.sendMany((0, Flag.KEEPALIVE, 0))
        self.check_exceeded(rig)

    def test_lateFrames(self) -> None:
        """
        Frames for streams that have ended or were refused do not count, in whatever
        order the streams were opened.
        """
        rig = Rig(limits=Limits(ignoredBurst=5, maxStreams=2))
        rig.open()
        rig.send(1, Flag.CLOSE_STREAM)
        for streamID in (4, 0, 2):
            rig.send(streamID, Flag.OPEN_STREAM)
        for streamID in (0, 4):
            rig.send(streamID, Flag.CLOSE_STREAM)
        for streamID in (0, 1, 2, 4):
            for flag in (Flag.DATA, Flag.CLOSE_READ, Flag.CLOSE_WRITE):
                rig.sendMany(*[(streamID, flag, b"x" if not flag else 0)] * 10)
            rig.sendMany(*[(streamID, Flag.WINDOW_UPDATE, 1)] * 10)
            rig.sendMany(*[(streamID, Flag.CLOSE_STREAM, 0)] * 10)
        self.assertIsNone(rig.reason())

    def test_nextStreams(self) -> None:
        """
        Frames for the next stream of either side, which is not open yet, count.
        """
        for streamID in (2, 3):
            rig = Rig(limits=Limits(ignoredBurst=5))
            rig.opened()
            rig.open()
            rig.sendMany(*[(streamID, Flag.DATA, b"early")] * 6)
            self.check_exceeded(rig)

    def test_smallFrames(self) -> None:
        """
        Frames with an effect do not count, however small they are.
        """
        rig = Rig(limits=Limits(ignoredBurst=5))
        recorder = rig.opened()
        for _ in range(50):
            rig.sendMany((0, Flag.DATA, b"x"), (0, Flag.WINDOW_UPDATE, 1))
        self.assertIsNone(rig.reason())
        self.assertEqual(len(recorder.received), 50)

    def test_keepalive(self) -> None:
        """
        After C{keepalive} seconds without output, a Keepalive is sent.
        """
        rig = Rig(limits=Limits(keepalive=7))
        rig.meet()
        rig.clock.advance(6.9)
        rig.run()
        self.assertEqual(rig.peer.frames, [])
        rig.clock.advance(0.1)
        rig.run()
        self.assertEqual([frame[1] for frame in rig.peer.frames], [Flag.KEEPALIVE])

    def test_writeStall(self) -> None:
        """
        The mux is aborted after C{writeStall} seconds in which the carrier took no
        data.
        """
        rig = Rig(limits=Limits(writeStall=6), bufferSize=1)
        rig.carrier.outgoing.stall()
        rig.opened().stream.write(bytes(100000))
        for _ in range(50):
            rig.clock.advance(0.1)
        self.assertIsNone(rig.reason())
        for _ in range(30):
            rig.clock.advance(0.1)
        self.assertIsInstance(rig.reason(), WriteStalled)

    def test_carrierTimeout(self) -> None:
        """
        C{carrierTimeout} sets TCP options that make the kernel probe the carrier.  The
        live test C{test_faults} shows the effect.
        """
        pair = MuxPair()
        self.assertTrue(pair.clientCarrier.keepAlive)
        self.assertTrue(pair.serverCarrier.keepAlive)

    def test_closeTimeout(self) -> None:
        """
        A close becomes an abort after C{closeTimeout} seconds.
        """
        rig = Rig(limits=Limits(closeTimeout=3))
        rig.opened().stream.write(bytes(200000))
        closing: Deferred[GomuxError] = rig.mux.close()
        rig.clock.advance(2.9)
        rig.run()
        self.assertNoResult(closing)
        rig.clock.advance(0.1)
        rig.run()
        self.assertIsInstance(self.successResultOf(closing), ConnectionClosed)

    def test_maxUnauthenticated(self) -> None:
        """
        If more than C{maxUnauthenticated} connections have had no authenticated frame,
        the oldest of them is aborted, and no other.
        """
        # No connection is refused.
        self.patch(random, "random", lambda: 1.0)
        clock = Clock()
        factory = MuxFactory(
            PSK, False, Recorders(), clock=clock, limits=Limits(maxUnauthenticated=3)
        )
        rigs = [Rig(clock=clock, factory=factory) for _ in range(3)]
        rigs[0].send(0, Flag.KEEPALIVE)
        gone = Rig(clock=clock, factory=factory)
        gone.peerCarrier.abortConnection()
        clock.advance(0)
        rigs += [Rig(clock=clock, factory=factory) for _ in range(2)]
        reasons = [rig.reason() for rig in rigs]
        self.assertIsInstance(reasons.pop(1), LimitExceeded)
        self.assertEqual(reasons, [None] * 4)

    def test_addressQuota(self) -> None:
        """
        A connection is refused if C{addressQuota} connections from its address have had
        no authenticated frame.
        """
        clock = Clock()
        factory = MuxFactory(PSK, False, clock=clock, limits=Limits(addressQuota=2))
        rigs = [Rig(clock=clock, factory=factory) for _ in range(2)]
        refused = Rig(clock=clock, factory=factory)
        self.assertFalse(refused.peerCarrier.connected)
        rigs[0].meet()
        Rig(clock=clock, factory=factory).meet()
        self.assertEqual(len(factory.muxes), 3)

    def test_silentGrace(self) -> None:
        """
        A server waits C{silentGrace} seconds before it opens streams to a peer that has
        not shown that it holds the key.
        """
        clock = Clock()
        factory = MuxFactory(PSK, False, clock=clock, limits=Limits(silentGrace=3))
        rig = Rig(clock=clock, factory=factory)
        clock.advance(2.9)
        self.assertEqual(factory.pool.muxes, [])
        clock.advance(0.1)
        self.assertEqual(factory.pool.muxes, [rig.mux])

    def test_silentGraceOff(self) -> None:
        """
        Without C{silentGrace} a server opens no streams to a peer that has not shown
        that it holds the key.
        """
        clock = Clock()
        factory = MuxFactory(PSK, False, clock=clock, limits=Limits(silentGrace=0))
        rig = Rig(clock=clock, factory=factory)
        clock.advance(1000)
        self.assertEqual(factory.pool.muxes, [])
        rig.meet()
        self.assertEqual(factory.pool.muxes, [rig.mux])

    def test_unauthenticatedClients(self) -> None:
        """
        C{maxUnauthenticated} does not apply to a client.
        """
        clock = Clock()
        factory = MuxFactory(
            PSK, True, clock=clock, limits=Limits(maxUnauthenticated=1)
        )
        rigs = [Rig(isClient=True, clock=clock, factory=factory) for _ in range(5)]
        self.assertEqual([rig.reason() for rig in rigs], [None] * 5)

    def strictPair(self, limits: Limits) -> MuxPair:
        """
        @param limits: the limits of the client.
        """
        clock = Clock()
        client, server = (
            MuxFactory(
                PSK,
                isClient,
                clock=clock,
                strict=True,
                limits=limits if isClient else None,
                salts=Salts(),
            )
            for isClient in (True, False)
        )
        return MuxPair(clock=clock, clientFactory=client, serverFactory=server)

    def test_handshakeTimeout(self) -> None:
        """
        In strict mode the mux is aborted if the handshake takes longer than
        C{handshakeTimeout} seconds.
        """
        pair = self.strictPair(Limits(handshakeTimeout=3))
        pair.serverToClient.stall()
        waiting = pair.client.whenClosed()
        pair.advance(2.9)
        self.assertNoResult(waiting)
        pair.advance(0.2)
        self.assertIsInstance(self.successResultOf(waiting), HandshakeFailed)

    def test_greetTimeout(self) -> None:
        """
        A stream for a service fails if the peer sends no greeting in C{greetTimeout}
        seconds.
        """
        rig = Rig(isClient=True, greet=True, limits=Limits(greetTimeout=3))
        opening = rig.mux.openStream(Recorders(), "chat")
        rig.clock.advance(2.9)
        self.assertNoResult(opening)
        rig.clock.advance(0.2)
        self.failureResultOf(opening, NoRequests)

    def test_requestTimeout(self) -> None:
        """
        A stream of the peer is aborted if its request is not complete in
        C{requestTimeout} seconds.
        """
        rig = Rig(limits=Limits(requestTimeout=3))
        rig.send(0, Flag.OPEN_STREAM, 1)
        rig.clock.advance(2.9)
        self.assertEqual(rig.mux.streamCount, 1)
        rig.clock.advance(0.2)
        self.assertEqual(rig.mux.streamCount, 0)

    def test_ping(self) -> None:
        """
        A ping is sent every C{ping} seconds, and each ping of the peer is echoed.
        """
        limits = Limits(ping=2.5)
        for pair in (self.strictPair(limits), MuxPair(limits=limits)):
            pair.flush()
            before = pair.client.bytesSent
            pair.advance(50)
            theirs = 50 / pair.server.factory.limits.ping
            self.assertEqual(pair.client.bytesSent - before, (20 + theirs) * 52)

    def test_deadPeer(self) -> None:
        """
        The mux is aborted if the peer has echoed no ping of the last C{deadPeer}
        seconds.
        """
        pair = self.strictPair(Limits(deadPeer=24))
        pair.flush()
        pair.advance(60)
        waiting = pair.client.whenClosed()
        self.assertNoResult(waiting)
        pair.serverToClient.stall()
        pair.advance(13)
        self.assertNoResult(waiting)
        pair.advance(14)
        self.assertIsInstance(self.successResultOf(waiting), PeerVanished)
