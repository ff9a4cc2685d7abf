"""
Tests for what a mux logs, and for the prefixes of the log lines of its streams.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import ILoggingContext
from twisted.internet.protocol import connectionDone
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.context import call
from twisted.python.context import get as getContext
from twisted.python.failure import Failure
from twisted.python.log import ILogContext
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gomux.limits import LINE_EVERY
from gomux.test.support.helpers import HalfRecorder, PushProducer, Recorder, Recorders
from gomux.testing import MuxPair

EVENTS = ("made", "data", "readLost", "writeLost", "lost")


@implementer(ILoggingContext)
class Prefixed(HalfRecorder):
    """
    A protocol with a prefix of its own.
    """

    def logPrefix(self) -> str:
        return "chat"


class PrefixTests(SynchronousTestCase):
    """
    The log lines of a protocol have its prefix, as over TCP.
    """

    def prefixes(self, kind: type[Recorder]) -> dict[str, str]:
        """
        @return: the prefix of log lines in each method of a protocol.
        """
        found: dict[str, str] = {}

        def note(event: str) -> Any:
            def look(recorder: Recorder) -> None:
                found[event] = getContext(ILogContext)["system"]

            return look

        served = Recorders(kind, **{event: note(event) for event in EVENTS})
        opened = Recorders(HalfRecorder)
        pair = MuxPair(served)

        def live() -> None:
            pair.client.openStream(opened)
            pair.flush()
            stream = opened.made[0].stream
            stream.write(b"hello")
            pair.flush()
            stream.loseReadConnection()
            stream.loseWriteConnection()
            pair.flush()
            served.made[0].stream.loseConnection()
            pair.flush()

        # As in the reactor, where this is the prefix of the carrier.
        call({ILogContext: {"isError": 0, "system": "MuxProtocol,1"}}, live)
        return found

    def test_plain(self) -> None:
        """
        The prefix is the name of the protocol's class by default.
        """
        expected = dict.fromkeys(EVENTS, "HalfRecorder")
        self.assertEqual(self.prefixes(HalfRecorder), expected)

    def test_own(self) -> None:
        """
        A protocol may have a prefix of its own.
        """
        self.assertEqual(self.prefixes(Prefixed), dict.fromkeys(EVENTS, "chat"))


class LineTests(SynchronousTestCase):
    """
    The log lines of a mux if nothing goes wrong.
    """

    def test_lines(self) -> None:
        """
        A mux that comes up, carries streams and is closed logs a single line at each
        side, all levels counted: twistd's log has the lines of all levels.
        """
        events: list[LogEvent] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for greet in (False, True):
            opened, served = Recorders(), Recorders()
            pair = MuxPair(served, greet=greet)
            for _ in range(3):
                pair.client.openStream(opened)
            pair.flush()
            for recorder in opened.made:
                recorder.stream.write(b"hello")
                recorder.stream.loseConnection()
            pair.flush()
            pair.client.close()
            pair.flush()
        lines = [e for e in events if e["log_namespace"].startswith("gomux")]
        self.assertEqual([e["log_level"] for e in lines], [LogLevel.info] * 4)


class Failing(Recorder):
    """
    A protocol that raises what it is told, and once more at its end.
    """

    def dataReceived(self, data: bytes) -> None:
        self.stream.registerProducer(FailingProducer(), True)
        raise ZeroDivisionError if data == b"divide" else KeyError

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        raise OSError


class FailingProducer(PushProducer):
    def stopProducing(self) -> None:
        raise ArithmeticError


class FailureTests(SynchronousTestCase):
    """
    The tracebacks that a peer can cause.
    """

    def test_flood(self) -> None:
        """
        However often a peer makes the application raise, there are ten tracebacks of a
        kind, and then one a minute that counts the others.
        """
        pair = MuxPair(Recorders(Failing))

        def cause(text: bytes, count: int) -> None:
            for _ in range(count):
                opened = Recorders()
                pair.client.openStream(opened)
                opened.made[0].stream.write(text)
                pair.flush()

        cause(b"divide", 30)
        cause(b"look up", 12)
        for kind in (ZeroDivisionError, KeyError, OSError, ArithmeticError):
            self.assertEqual(len(self.flushLoggedErrors(kind)), 10)
        found: list[LogEvent] = []
        observer: Any = found.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        pair.clock.advance(LINE_EVERY + 1)
        cause(b"divide", 1)
        [event] = self.flushLoggedErrors(ZeroDivisionError)
        self.flushLoggedErrors()
        texts = [formatEvent(e) for e in found if "log_failure" in e]
        self.assertTrue(any("(20 such lines" in text for text in texts), texts)

    def test_refused(self) -> None:
        """
        The same for a factory that raises.
        """

        class Factory(Recorders):
            def buildProtocol(self, addr: object) -> Recorder:
                raise ZeroDivisionError

        pair = MuxPair(Factory())
        for _ in range(30):
            pair.client.openStream(Recorders())
            pair.flush()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 10)
