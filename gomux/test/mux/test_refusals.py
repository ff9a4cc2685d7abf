"""
Tests for streams that are refused: the peer is told of an abort, which does not look
like a complete and empty answer, and the log has the reason.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.logger import Logger, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits, MuxFactory, PeerAbortedStream
from gomux._mux.log import CountedLog
from gomux._wire.frame import Flag
from gomux.limits import LINE_EVERY
from gomux.test.support.helpers import ABORTS, CLOSE_STREAM, Recorder, Recorders, Rig
from gomux.test.support.logs import Lines
from gomux.test.support.sessionpair import SessionPair
from gomux.testing import PSK, MuxPair


class RefusalTests(SynchronousTestCase):
    """
    Each reason to refuse a stream.
    """

    def setUp(self) -> None:
        lines = Lines("gomux")
        self.lines = lines.lines
        globalLogPublisher.addObserver(lines)
        self.addCleanup(globalLogPublisher.removeObserver, lines)

    def assertRefused(self, reason: str, streams: Any = None, **limits: Any) -> MuxPair:
        """
        Assert that the next stream of a client is refused.
        """
        pair = self.pair(streams, **limits)
        self.assertNextRefused(pair, reason)
        return pair

    def pair(self, streams: Any, **limits: Any) -> MuxPair:
        clock = Clock()
        factory = MuxFactory(
            PSK, False, streams, clock=clock, limits=Limits(**limits), greet=False
        )
        pair = MuxPair(serverFactory=factory, clock=clock)
        pair.flush()
        return pair

    def assertNextRefused(self, pair: MuxPair, reason: str) -> None:
        opened = Recorders()
        self.successResultOf(pair.client.openStream(opened))
        pair.flush()
        (recorder,) = opened.made
        self.assertEqual(recorder.events, ["made", "lost"])
        self.assertIsInstance(recorder.reason, PeerAbortedStream)
        self.assertIsInstance(recorder.reason, ConnectionLost)
        self.assertNotIsInstance(recorder.reason, ConnectionDone)
        self.assertIn("may have refused", str(recorder.reason))
        found = [line for line in self.lines if "refused" in line and reason in line]
        self.assertEqual(len(found), 1, self.lines)
        self.assertIsNone(pair.client.reason)

    def test_maxStreams(self) -> None:
        """
        The peer has as many streams as it may have.
        """
        pair = self.pair(Recorders(), maxStreams=1)
        self.successResultOf(pair.client.openStream(Recorders()))
        pair.flush()
        self.assertNextRefused(pair, "maxStreams")

    def test_draining(self) -> None:
        """
        The mux drains.
        """
        pair = self.pair(Recorders())
        self.successResultOf(pair.client.openStream(Recorders()))
        pair.flush()
        pair.server.drain()
        self.assertNextRefused(pair, "draining, because it was told to stop")

    def test_noFactory(self) -> None:
        """
        Nothing serves the streams, as after their port was stopped.
        """
        pair = self.pair(Recorders())
        pair.serverFactory.streamFactory = None
        self.assertNextRefused(pair, "nothing serves")

    def test_noProtocol(self) -> None:
        """
        The factory makes no protocol.
        """
        streams: Any = Recorders()
        streams.buildProtocol = lambda addr: None
        self.assertRefused("made no protocol", streams)

    def test_buildProtocolFails(self) -> None:
        """
        The factory raises: the log has the traceback.
        """
        streams: Any = Recorders()
        streams.buildProtocol = lambda addr: 1 / 0
        self.assertRefused("buildProtocol failed", streams)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_connectionMadeFails(self) -> None:
        """
        The protocol raises in C{connectionMade}.
        """

        def fail(recorder: Recorder) -> None:
            raise ZeroDivisionError

        pair = self.pair(Recorders(made=fail))
        opened = Recorders()
        self.successResultOf(pair.client.openStream(opened))
        pair.flush()
        self.assertIsInstance(opened.made[0].reason, PeerAbortedStream)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_backlog(self) -> None:
        """
        The backlog of a session is full.
        """
        both = SessionPair(backlog=1)
        opened = [self.successResultOf(both.client.openStream()) for _ in range(3)]
        both.pair.flush()
        for conn in opened[1:]:
            self.failureResultOf(conn.read(), PeerAbortedStream)
        found = [line for line in self.lines if "the backlog allows" in line]
        self.assertEqual(len(found), 1)

    def test_data(self) -> None:
        """
        A stream that has answered before it was aborted does not count as refused.
        """
        rig = Rig()
        recorder = rig.open()
        rig.sendMany(
            (1, Flag.DATA, b"half"),
            (1, Flag.WINDOW_UPDATE, 0),
            (1, Flag.CLOSE_STREAM, 0),
        )
        self.assertNotIn("refused", str(recorder.reason))
        self.assertIsInstance(recorder.reason, PeerAbortedStream)

    def test_flood(self) -> None:
        """
        However many streams are refused, one line a minute reports them.
        """
        rig = Rig(limits=Limits(maxStreams=1, openRate=1e9, openBurst=1000))
        rig.opened()
        for number in range(1, 100):
            rig.send(2 * number, Flag.OPEN_STREAM)
        rig.sent()
        self.assertEqual(len([line for line in self.lines if "refused" in line]), 1)

    def test_wire(self) -> None:
        """
        On the wire a refusal is an abort.
        """
        rig = Rig(limits=Limits(maxStreams=1))
        rig.factory.streamFactory = None
        rig.send(0, Flag.OPEN_STREAM)
        self.assertEqual(rig.sent(), [ABORTS, CLOSE_STREAM])


class CountedLogTests(SynchronousTestCase):
    """
    L{CountedLog}
    """

    def test_counts(self) -> None:
        """
        Each kind of line is logged at once, and then at most once in a while, with the
        number of events that it reports.
        """
        clock = Clock()
        observer = Lines()
        log = CountedLog(Logger(observer=observer), clock)
        for _ in range(3):
            log.warn("{count} apples of {name}", name="a")
            log.warn("{count} pears")
        self.assertEqual(observer.lines, ["1 apples of a", "1 pears"])
        clock.advance(LINE_EVERY)
        log.warn("{count} apples of {name}", name="b")
        log.warn("{count} apples of {name}", name="b")
        self.assertEqual(observer.lines[2:], ["3 apples of b"])
