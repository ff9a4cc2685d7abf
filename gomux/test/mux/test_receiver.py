"""
Tests for L{gomux._mux.receiver}.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from gomux._mux.receiver import Receiver, ReceiveState
from gomux._wire.window import INITIAL_WINDOW
from gomux.error import ProtocolViolation


class Reader(Protocol):
    """
    Records the data that it receives, and then calls C{hook}.
    """

    def __init__(self, events: list[object]) -> None:
        self.events = events
        self.hook: Callable[[], object] = lambda: None

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)
        self.hook()


class ReceivingStream:
    """
    Stands in for a stream that has only a receiver, and for the mux of that stream.

    @ivar events: the calls of the receiver to the protocol, the stream and the mux, in
        order.  A number is the size of consumed data.
    """

    streamID = 6
    paused = False
    charged = 0

    def __init__(self) -> None:
        self.events: list[object] = []
        self.soon: list[Callable[[], None]] = []
        self.protocol = Reader(self.events)
        self.receiver: Receiver | None = Receiver(self)

    @property
    def streams(self) -> ReceivingStream:
        return self

    def callSoon(self, function: Callable[[], None]) -> None:
        self.soon.append(function)

    def charge(self, size: int) -> None:
        self.charged += size

    def consumed(self, streamID: int, window: object, size: int) -> None:
        self.events.append(size)

    def inputEnded(self) -> None:
        self.events.append("ended")

    def abortWith(self, reason: BaseException) -> None:
        self.events.append(type(reason))

    def applicationFailed(self) -> None:
        self.events.append("failed")

    def resume(self) -> None:
        self.paused = False
        assert self.receiver is not None
        self.receiver.resume()

    def runSoon(self) -> None:
        soon, self.soon = self.soon, []
        for function in soon:
            function()


class ReceiverTests(SynchronousTestCase):
    """
    L{Receiver}
    """

    def test_charged(self) -> None:
        """
        Memory is taken for input that waits, until it is delivered or dropped.
        """
        stream = ReceivingStream()
        receiver = stream.receiver
        assert receiver is not None
        stream.paused = True
        for _ in range(3):
            receiver.received(bytes(10000))
        self.assertEqual(stream.charged, 30000)
        stream.protocol.hook = lambda: setattr(stream, "paused", True)
        stream.resume()
        stream.runSoon()
        self.assertEqual(stream.charged, 20000)
        receiver.close()
        self.assertEqual(stream.charged, 0)

    def setUp(self) -> None:
        self.stream = ReceivingStream()
        assert self.stream.receiver is not None
        self.receiver = self.stream.receiver
        self.events = self.stream.events

    def pausedWith(self, *pieces: bytes) -> None:
        self.stream.paused = True
        for piece in pieces:
            self.receiver.received(piece)
        self.assertEqual(self.events, [])

    def test_delivers(self) -> None:
        """
        Data is delivered, and then counts as consumed.
        """
        self.receiver.received(b"abc")
        self.assertEqual(self.events, [b"abc", 3])

    def test_window(self) -> None:
        """
        Data beyond the window is a violation, even after C{refuse}.
        """
        self.receiver.received(bytes(INITIAL_WINDOW))
        self.receiver.refuse()
        self.assertRaises(ProtocolViolation, self.receiver.received, b"a")

    def test_fails(self) -> None:
        """
        Data does not count as consumed if the application raises while it is delivered.
        """

        def fail() -> None:
            raise ZeroDivisionError

        self.stream.protocol.hook = fail
        self.receiver.received(b"abc")
        self.assertEqual(self.events, [b"abc", "failed"])

    def test_paused(self) -> None:
        """
        While the stream is paused, data is buffered and small pieces are joined.  After
        a resume the reactor delivers the buffered data first, then new data.
        """
        self.pausedWith(b"ab", b"cd", bytes(16384))
        self.stream.resume()
        self.receiver.received(b"e")
        self.assertEqual(self.events, [])
        self.stream.runSoon()
        self.assertEqual(self.events, [b"abcd", 4, bytes(16384), 16384, b"e", 1])
        self.receiver.received(b"f")
        self.assertEqual(self.events[-2:], [b"f", 1])

    def test_resumedTwice(self) -> None:
        """
        A second C{resume} before the delivery schedules no second delivery.
        """
        self.pausedWith(b"ab")
        self.stream.resume()
        self.stream.resume()
        self.assertEqual(len(self.stream.soon), 1)

    def test_pausedAgain(self) -> None:
        """
        An application that pauses while buffered data is delivered gets neither more
        data nor the end until it resumes.
        """
        self.pausedWith(b"ab", bytes(16384))
        self.receiver.finish()

        def pause() -> None:
            self.stream.paused = True

        self.stream.protocol.hook = pause
        self.stream.resume()
        self.stream.runSoon()
        self.assertEqual(self.events, [b"ab", 2])
        self.assertIs(self.receiver.state, ReceiveState.ENDING)
        self.stream.resume()
        self.stream.runSoon()
        self.assertEqual(self.events[2:], [bytes(16384), 16384, "ended"])
        self.assertIs(self.receiver.state, ReceiveState.ENDED)

    def test_finish(self) -> None:
        """
        The end is reported once, and at once if no data is buffered.  Data after it
        aborts the stream.
        """
        self.receiver.finish()
        self.receiver.finish()
        self.assertEqual(self.events, ["ended"])
        self.receiver.received(b"a")
        self.assertEqual(self.events, ["ended", ProtocolViolation])

    def test_dataWhileEnding(self) -> None:
        """
        Data after the peer's end aborts the stream even while buffered data delays the
        report of the end.
        """
        self.pausedWith(b"a")
        self.receiver.finish()
        self.receiver.received(b"b")
        self.assertEqual(self.events, [ProtocolViolation])

    def test_refuse(self) -> None:
        """
        After C{refuse}, buffered and new data is consumed without delivery.  The peer's
        end is not reported, but data after it still aborts the stream.
        """
        self.pausedWith(b"abc")
        self.receiver.refuse()
        self.assertIs(self.receiver.state, ReceiveState.REFUSED)
        self.receiver.received(b"de")
        self.assertEqual(self.events, [3, 2])
        self.receiver.finish()
        self.assertIs(self.receiver.state, ReceiveState.ENDED)
        self.receiver.received(b"f")
        self.assertEqual(self.events, [3, 2, ProtocolViolation])

    def test_refuseEnding(self) -> None:
        """
        C{refuse} after the peer's end only drops the buffered data.
        """
        self.pausedWith(b"abc")
        self.receiver.finish()
        self.stream.resume()
        self.receiver.refuse()
        self.stream.runSoon()
        self.assertIs(self.receiver.state, ReceiveState.ENDED)
        self.assertEqual(self.events, [3])

    def test_close(self) -> None:
        """
        After C{close} all data is consumed without delivery, even behind the peer's
        end, and no end is reported.
        """
        self.pausedWith(b"abc")
        self.stream.resume()
        self.receiver.close()
        self.receiver.finish()
        self.receiver.received(b"de")
        self.stream.runSoon()
        self.assertEqual(self.events, [3, 2])
        self.assertIs(self.receiver.state, ReceiveState.CLOSED)

    def test_closedWhileDelivering(self) -> None:
        """
        An application that closes the stream while buffered data is delivered gets no
        more data.
        """
        self.pausedWith(b"ab", bytes(16384))
        self.stream.protocol.hook = self.receiver.close
        self.stream.resume()
        self.stream.runSoon()
        self.assertEqual(self.events, [b"ab", 16384, 2])
