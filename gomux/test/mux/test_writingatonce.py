"""
Tests for L{gomux._mux.requests} with protocols that write before the peer has answered.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import error as twisted
from twisted.internet.defer import Deferred
from twisted.internet.error import NoProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory, error
from gomux._wire.frame import BOUND, REQUEST, Flag
from gomux._wire.request import CODES, encodeAnswer
from gomux.test.support.helpers import (
    ABORTS,
    CLOSE_READ,
    CLOSE_STREAM,
    CLOSE_WRITE,
    HalfRecorder,
    Recorders,
    Rig,
)
from gomux.test.support.requestvectors import message
from gomux.testing import PSK

CHAT = message('{"service":"chat"}')
OK = message('{"ok":true}')


class AtOnce(HalfRecorder):
    """
    Writes at once, and records when the peer has answered.
    """

    def connectionMade(self) -> None:
        super().connectionMade()
        self.stream.write(b"first")

    def answered(self) -> None:
        self.note("answered")


class RecordersAtOnce(Recorders):
    """
    A factory whose protocols write at once.
    """

    writesAtOnce = True


class WritingAtOnceTests(SynchronousTestCase):
    """
    L{gomux._mux.requests.WritingAtOnce}
    """

    def open(self, isClient: bool = True, **hooks: Any) -> Deferred[Any]:
        clock = Clock()
        factory = MuxFactory(PSK, isClient, Recorders(), clock=clock)
        self.rig = Rig(isClient=isClient, factory=factory, clock=clock)
        self.rig.send(0, Flag.KEEPALIVE, BOUND)
        self.made = RecordersAtOnce(AtOnce, **hooks)
        opening = self.rig.mux.openStream(self.made, "chat")
        self.own = 0 if isClient else 1
        return opening

    def events(self) -> list[str]:
        self.rig.run()
        return list(self.made.made[0].events)

    def end(self) -> list[tuple[Any, ...]]:
        """
        Check that nothing of the stream is left, and the mux goes on.

        @return: the frames of the stream.
        """
        self.rig.run()
        self.assertIsNone(self.rig.reason())
        self.rig.mux.checkInvariants()
        self.assertEqual(self.rig.mux.protocolCount, 0)
        return [frame for frame in self.rig.sent() if frame[0] == self.own]

    def test_behindRequest(self) -> None:
        """
        The data follows the request, before any answer, and the answer is no data.
        """
        for isClient in (True, False):
            for cut in range(1, len(OK) + 4):
                recorder = self.successResultOf(self.open(isClient))
                self.rig.run()
                self.assertEqual(
                    [frame[1:] for frame in self.rig.peer.take()][-2:],
                    [
                        (Flag.OPEN_STREAM, REQUEST, b""),
                        (Flag.DATA, len(CHAT) + 5, CHAT + b"first"),
                    ],
                )
                answer = OK + b"data"
                self.rig.send(self.own, Flag.DATA, answer[:cut])
                self.rig.send(self.own, Flag.DATA, answer[cut:])
                self.assertEqual(self.events(), ["made", "answered", "data"])
                self.assertEqual(recorder.received, b"data")
                recorder.stream.loseConnection()
                self.rig.run()
                self.assertIsInstance(recorder.reason, error.StreamClosed)
                self.end()

    def test_refused(self) -> None:
        """
        A refusal aborts the stream.  The protocol gets the error with the code.
        """
        for code in CODES:
            recorder = self.successResultOf(self.open())
            self.rig.sent()
            self.rig.send(self.own, Flag.DATA, encodeAnswer(code))
            self.rig.send(self.own, Flag.CLOSE_STREAM)
            self.assertEqual(self.events(), ["made", "lost"])
            self.assertIsInstance(recorder.reason, error.RequestRefused)
            self.assertEqual(
                (recorder.reason.code, recorder.reason.service), (code, "chat")
            )
            self.assertEqual(self.end(), [ABORTS, CLOSE_STREAM])

    def test_noAnswer(self) -> None:
        """
        However a stream ends before the answer, the end is not an orderly one.
        """
        endings: list[tuple[list[Any], type[Exception]]] = [
            ([(Flag.CLOSE_STREAM,)], error.OpenStreamError),
            ([(Flag.WINDOW_UPDATE,), (Flag.CLOSE_STREAM,)], error.OpenStreamError),
            ([(Flag.CLOSE_READ,)], error.ServiceFailed),
            ([(Flag.DATA, b"\xff\xff")], error.ServiceFailed),
            ([(Flag.DATA, message("{}"))], error.ServiceFailed),
            ([(Flag.DATA, OK[:-1]), (Flag.CLOSE_READ,)], error.ServiceFailed),
        ]
        for frames, reason in endings:
            recorder = self.successResultOf(self.open())
            for frame in frames:
                self.rig.send(self.own, *frame)
            self.assertEqual(self.events(), ["made", "lost"])
            self.assertIsInstance(recorder.reason, reason)
            self.assertNotIsInstance(recorder.reason, twisted.ConnectionDone)
            self.end()
        recorder = self.successResultOf(self.open())
        self.rig.mux.abort()
        self.assertEqual(self.events(), ["made", "lost"])
        self.assertIsInstance(recorder.reason, error.OpenStreamError)

    def test_ownEnd(self) -> None:
        """
        A protocol that closes or aborts its stream before the answer gets its own end.
        """
        for close, reason in (
            ("loseConnection", error.StreamClosed),
            ("abortConnection", twisted.ConnectionAborted),
        ):
            recorder = self.successResultOf(self.open())
            getattr(recorder.stream, close)()
            self.assertEqual(self.events(), ["made", "lost"])
            self.assertIsInstance(recorder.reason, reason)
            self.rig.send(self.own, Flag.DATA, OK + b"late")
            self.end()

    def test_halfClose(self) -> None:
        """
        The writing half can be closed before the answer, by either side.
        """
        recorder = self.successResultOf(self.open())
        recorder.stream.loseWriteConnection()
        self.assertEqual(self.events(), ["made", "writeLost"])
        self.assertIn(CLOSE_READ, self.rig.sent())
        self.rig.send(self.own, Flag.DATA, OK + b"data")
        self.rig.send(*CLOSE_READ)
        self.assertEqual(
            self.events(), ["made", "writeLost", "answered", "data", "readLost", "lost"]
        )
        self.end()
        recorder = self.successResultOf(self.open())
        self.rig.send(*CLOSE_WRITE)
        self.rig.send(self.own, Flag.DATA, OK)
        self.assertEqual(self.events(), ["made", "writeLost", "answered"])
        recorder.stream.loseConnection()
        self.end()

    def test_paused(self) -> None:
        """
        Data behind the answer waits while the protocol has paused the stream, and the
        protocol can pause and resume it before the answer.
        """
        for resumesFirst in (True, False):
            recorder = self.successResultOf(
                self.open(made=lambda recorder: recorder.stream.pauseProducing())
            )
            if resumesFirst:
                recorder.stream.resumeProducing()
            self.rig.send(self.own, Flag.DATA, OK[:3])
            self.rig.run()
            self.rig.send(self.own, Flag.DATA, OK[3:] + b"data")
            expected = ["made", "answered"]
            if not resumesFirst:
                self.assertEqual(self.events(), expected)
                recorder.stream.resumeProducing()
            self.assertEqual(self.events(), [*expected, "data"])
            recorder.stream.loseConnection()
            self.end()

    def test_fails(self) -> None:
        """
        A factory or protocol that fails aborts the stream.
        """

        def fail(recorder: Any) -> None:
            raise ValueError("of the test")

        self.open(made=fail)
        self.assertEqual(self.events(), ["made", "lost"])
        self.assertEqual(self.end()[-2:], [ABORTS, CLOSE_STREAM])
        self.open(answered=fail)
        self.rig.send(self.own, Flag.DATA, OK)
        self.assertEqual(self.events(), ["made", "answered", "lost"])
        self.end()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
        for result, reason in ((None, NoProtocol), (ValueError(), ValueError)):
            self.open()
            self.patch(
                self.made, "buildProtocol", lambda addr, result=result: make(result)
            )
            opening = self.rig.mux.openStream(self.made, "chat")
            self.failureResultOf(opening, reason)
            self.made.made[0].stream.abortConnection()
            self.end()


def make(result: Exception | None) -> None:
    if result is not None:
        raise result
