"""
Tests for L{gomux._mux.sender}.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from gomux._mux.sender import (
    ENOUGH_WINDOW,
    FREE_OUTPUT,
    HIGH_WATER,
    JOINED,
    LOW_WATER,
    Sender,
    SendState,
)
from gomux._mux.sendermux import SenderStream
from gomux._wire.frame import MAX_LENGTH
from gomux._wire.window import INITIAL_WINDOW, MAX_HELD
from gomux.test.support.helpers import PushProducer


class SendingStream:
    """
    Stands in for a stream that has only a sender, and for the mux of that stream.

    @ivar events: the calls of the sender to the stream and the mux, in order.
    @ivar charges: how often the sender has taken memory, or given it back.
    """

    streamID = 6
    sendWindow = INITIAL_WINDOW
    touched = False
    charged = charges = 0
    maxOutput = 10 * HIGH_WATER

    def __init__(self) -> None:
        self.makeSender: Callable[[SenderStream], Sender] = Sender
        self.events: list[object] = []
        self.soon: list[Callable[[], None]] = []
        self.sender: Sender | None = Sender(self)

    @property
    def streams(self) -> SendingStream:
        return self

    def callSoon(self, function: Callable[[], None]) -> None:
        self.soon.append(function)

    def activate(self, sender: Sender, fresh: bool) -> None:
        self.events.append("fresh" if fresh else "more")

    def outputFinished(self) -> None:
        self.events.append("finished")

    def charge(self, size: int) -> None:
        self.charged += size
        self.charges += 1

    def outputExceeded(self, stream: object) -> None:
        self.events.append("exceeded")

    def abortWith(self, reason: BaseException) -> None:
        self.events.append(type(reason))

    def applicationFailed(self) -> None:
        self.events.append("failed")

    def logFailure(self, line: str, **values: object) -> None:
        self.events.append(line)

    def runSoon(self) -> None:
        soon, self.soon = self.soon, []
        for function in soon:
            function()

    def send(self, size: int) -> bytes:
        """
        Take output as the scheduler does, once it is sendable.
        """
        sender = self.sender
        assert sender is not None
        assert size <= sender.sendable()
        taken = bytes(sender.takeOutput(size))
        sender.outputTaken()
        return taken

    def credit(self, size: int) -> None:
        """
        Give credit as the peer does.
        """
        self.sendWindow += size
        if self.sender is not None:
            self.sender.windowGrew()


class SenderTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.stream = SendingStream()
        assert self.stream.sender is not None
        self.sender = self.stream.sender
        self.events = self.stream.events


class OutputTests(SenderTestCase):
    """
    Output that is written and taken.
    """

    def test_charged(self) -> None:
        """
        Memory is taken for output that waits, but for the last L{FREE_OUTPUT} bytes of
        it, and given back when the output is taken or dropped.
        """
        sender, stream = self.sender, self.stream
        for size in (1, FREE_OUTPUT, 100, 30000, 50000, 100000, 1):
            sender.write(bytes(size))
            self.assertEqual(stream.charged, sender.charged)
            sender.checkInvariants()
        self.assertEqual(stream.charged, sender.unsent)
        sender.write(bytes(300000))
        peak = sender.unsent
        while sender.unsent > 50000:
            stream.send(50000)
            stream.credit(50000)
            self.assertEqual(stream.charged, sender.charged)
            sender.checkInvariants()
        self.assertLess(stream.charged, peak)
        sender.write(b"x")
        sender.close()
        self.assertEqual(stream.charged, 0)

    def test_chargedNothing(self) -> None:
        """
        No memory is taken any more when all output is taken.
        """
        self.sender.write(bytes(60000))
        self.assertEqual(self.stream.charged, 60000)
        self.stream.send(60000)
        self.assertEqual(self.stream.charged, 0)
        self.assertIsNone(self.stream.sender)

    def test_joined(self) -> None:
        """
        Small pieces of output that wait are joined.
        """
        for _ in range(100 * JOINED):
            self.sender.write(b"x")
        pieces = self.sender._pieces
        assert pieces is not None
        self.assertEqual(len(pieces), 100)

    def test_maxOutput(self) -> None:
        """
        A write of any size is taken, and so are further writes while no more than
        C{maxOutput} bytes wait.  The next write is reported.
        """
        self.sender.write(bytes(self.stream.maxOutput))
        self.sender.write(bytes(100 * self.stream.maxOutput))
        self.assertNotIn("exceeded", self.events)
        self.sender.write(b"x")
        self.assertEqual(self.events.count("exceeded"), 1)

    def test_everySize(self) -> None:
        """
        Whatever the sizes of the written and the taken pieces, the bytes come out
        unchanged, and C{unsent} counts the rest.
        """
        data = bytes(range(60))
        for written in range(1, 61):
            for taken in range(1, 61):
                stream = SendingStream()
                sender = stream.sender
                assert sender is not None
                for start in range(0, 60, written):
                    sender.write(data[start : start + written])
                self.assertEqual(sender.unsent, 60)
                got = b""
                while sender.unsent:
                    got += stream.send(min(taken, sender.unsent))
                    self.assertEqual(sender.unsent, 60 - len(got))
                self.assertEqual(got, data)

    def test_mixed(self) -> None:
        """
        Output may be written between two takes.
        """
        sender = self.sender
        sender.write(b"abcdef")
        self.assertEqual(bytes(sender.takeOutput(2)), b"ab")
        sender.write(b"gh")
        self.assertEqual(bytes(sender.takeOutput(5)), b"cdefg")
        sender.write(b"i")
        self.assertEqual(bytes(sender.takeOutput(2)), b"hi")
        self.assertEqual(sender.unsent, 0)

    def test_notCopied(self) -> None:
        """
        Output that lies within one written piece is taken without a copy.
        """
        sender = self.sender
        data = bytes(100)
        sender.write(data)
        part = sender.takeOutput(40)
        assert isinstance(part, memoryview)
        self.assertIs(part.obj, data)
        part = sender.takeOutput(60)
        assert isinstance(part, memoryview)
        self.assertIs(part.obj, data)
        sender.write(data)
        self.assertIs(sender.takeOutput(100), data)

    def test_atRest(self) -> None:
        """
        Once all output is sent, the stream drops its sender.
        """
        self.sender.write(b"abc")
        self.stream.send(2)
        self.assertIs(self.stream.sender, self.sender)
        self.stream.send(1)
        self.assertIsNone(self.stream.sender)

    def test_atRestWithProducer(self) -> None:
        """
        A sender with a producer stays when all output is sent, but frees its buffer.
        """
        self.sender.registerProducer(PushProducer(), True)
        self.sender.write(b"abc")
        self.stream.send(3)
        self.assertIs(self.stream.sender, self.sender)
        self.assertIsNone(self.sender._pieces)

    def test_atRestClosed(self) -> None:
        """
        A closed sender stays when all output is sent, but frees its buffer.
        """
        self.sender.write(b"abc")
        self.sender.finish()
        self.stream.send(3)
        self.assertIs(self.stream.sender, self.sender)
        self.assertIsNone(self.sender._pieces)

    def test_activates(self) -> None:
        """
        A write activates a sender that is not queued, as fresh if the sender had no
        output before.
        """
        self.sender.write(b"a")
        self.sender.write(b"b")
        self.assertEqual(self.events, ["fresh", "more"])
        self.sender.queued = True
        self.sender.write(b"c")
        self.assertEqual(self.events, ["fresh", "more"])
        self.sender.queued = False
        self.sender.registerProducer(PushProducer(), True)
        self.stream.send(3)
        self.sender.write(b"d")
        self.assertEqual(self.events, ["fresh", "more", "fresh"])

    def test_touched(self) -> None:
        """
        A write marks the stream as touched.
        """
        self.sender.registerProducer(PushProducer(), True)
        self.assertFalse(self.stream.touched)
        self.sender.write(b"a")
        self.assertTrue(self.stream.touched)


class WindowTests(SenderTestCase):
    """
    The send window
    """

    def test_taken(self) -> None:
        """
        Taken output is subtracted from the send window, and credit activates a sender
        that has more output.
        """
        self.sender.write(bytes(INITIAL_WINDOW + 1))
        self.stream.send(INITIAL_WINDOW)
        self.assertEqual(self.stream.sendWindow, 0)
        self.assertEqual(self.sender.sendable(), 0)
        del self.events[:]
        self.stream.credit(1)
        self.assertEqual(self.events, ["more"])
        self.assertEqual(self.sender.sendable(), 1)

    def test_smallest(self) -> None:
        """
        If the window does not take all of the output, nothing is sendable until the
        window takes a full frame.
        """
        self.sender.write(bytes(2 * INITIAL_WINDOW))
        self.stream.send(INITIAL_WINDOW)
        self.stream.credit(ENOUGH_WINDOW - 1)
        self.assertEqual(self.sender.sendable(), 0)
        self.stream.credit(1)
        self.assertEqual(self.sender.sendable(), MAX_LENGTH)

    def test_mostHeldBack(self) -> None:
        """
        The sender can still send if the peer holds back as many consumed bytes as the
        protocol allows.
        """
        self.sender.write(bytes(2 * INITIAL_WINDOW))
        self.stream.send(INITIAL_WINDOW)
        self.stream.credit(INITIAL_WINDOW - MAX_HELD)
        self.assertGreater(self.sender.sendable(), 0)

    def test_nothingToSend(self) -> None:
        """
        Credit does not activate a sender that has no output, or that is queued.
        """
        self.stream.credit(1)
        self.sender.write(b"a")
        self.sender.queued = True
        self.stream.credit(1)
        self.assertEqual(self.events, ["fresh"])


class StateTests(SenderTestCase):
    """
    The states of a sender, from C{OPEN} to C{CLOSED}
    """

    def test_finish(self) -> None:
        """
        A sender with nothing to wait for finishes at once, and only once.
        """
        self.sender.finish()
        self.assertIs(self.sender.state, SendState.CLOSED)
        self.sender.finish()
        self.assertEqual(self.events, ["finished"])

    def test_output(self) -> None:
        """
        A finishing sender sends the output written so far, and accepts no more.
        """
        self.sender.write(b"abc")
        self.sender.finish()
        self.sender.write(b"d")
        self.assertIs(self.sender.state, SendState.FINISHING)
        self.assertEqual(self.sender.unsent, 3)
        self.stream.send(2)
        self.assertIs(self.sender.state, SendState.FINISHING)
        self.stream.send(1)
        self.assertIs(self.sender.state, SendState.CLOSED)
        self.assertEqual(self.events, ["fresh", "finished"])

    def test_pausedProducer(self) -> None:
        """
        A finishing sender resumes its paused push producer, and sends what the producer
        then writes.
        """
        producer = PushProducer()
        self.sender.registerProducer(producer, True)
        self.sender.write(bytes(HIGH_WATER + 1))
        self.sender.finish()
        self.stream.send(HIGH_WATER + 1)
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.sender.write(b"more")
        self.stream.runSoon()
        self.assertIs(self.sender.state, SendState.FINISHING)
        self.assertEqual(self.stream.send(4), b"more")
        self.assertIs(self.sender.state, SendState.CLOSED)

    def test_pullProducer(self) -> None:
        """
        A finishing sender waits for its pull producer until that is unregistered.
        """
        producer = PushProducer()
        self.sender.registerProducer(producer, False)
        self.sender.finish()
        self.sender.write(b"more")
        self.stream.send(4)
        self.assertEqual(producer.calls, ["resume", "resume"])
        self.stream.runSoon()
        self.assertIs(self.sender.state, SendState.FINISHING)
        self.sender.unregisterProducer()
        self.assertIs(self.sender.state, SendState.CLOSED)
        self.assertEqual(self.events, ["fresh", "finished"])

    def test_close(self) -> None:
        """
        C{close} drops output, stops the producer and tells the stream nothing.
        """
        producer = PushProducer()
        self.sender.registerProducer(producer, True)
        self.sender.write(b"abc")
        del self.events[:]
        self.sender.close()
        self.sender.write(b"d")
        self.assertEqual(self.sender.sendable(), 0)
        self.assertEqual(producer.calls, ["stop"])
        self.assertIsNone(self.sender.producer)
        self.sender.outputTaken()
        self.assertEqual(self.events, [])

    def test_stopFails(self) -> None:
        """
        A sender closes even if its producer's C{stopProducing} raises.
        """

        class Failing(PushProducer):
            def stopProducing(self) -> None:
                raise ZeroDivisionError

        self.sender.registerProducer(Failing(), True)
        self.sender.close()
        self.assertIs(self.sender.state, SendState.CLOSED)
        self.assertEqual(self.events[-1], "a producer's stopProducing failed")


class ProducerTests(SenderTestCase):
    """
    Producers of a sender
    """

    def setUp(self) -> None:
        super().setUp()
        self.producer = PushProducer()

    def test_told(self) -> None:
        """
        C{producer} tells the registered producer and its kind, and a second producer is
        refused.
        """
        self.assertIsNone(self.sender.producer)
        for streaming in (True, False):
            self.sender.registerProducer(self.producer, streaming)
            self.assertEqual(self.sender.producer, (self.producer, streaming))
            self.assertRaises(
                RuntimeError, self.sender.registerProducer, PushProducer(), True
            )
            self.sender.unregisterProducer()
            self.assertIsNone(self.sender.producer)

    def test_water(self) -> None:
        """
        A push producer is paused above L{HIGH_WATER} and resumed at L{LOW_WATER}, once
        each.
        """
        self.sender.registerProducer(self.producer, True)
        self.sender.write(bytes(HIGH_WATER))
        self.assertEqual(self.producer.calls, [])
        self.sender.write(b"a")
        self.sender.write(b"b")
        self.assertEqual(self.producer.calls, ["pause"])
        self.stream.send(HIGH_WATER - LOW_WATER + 1)
        self.assertEqual(self.producer.calls, ["pause"])
        self.stream.send(1)
        self.stream.send(1)
        self.assertEqual(self.producer.calls, ["pause", "resume"])

    def test_memoryIsKept(self) -> None:
        """
        A producer that is resumed takes no memory for as much output as before.  If it
        writes nothing, the memory is given back.
        """
        sender, stream = self.sender, self.stream
        pieces = [bytes(HIGH_WATER)] * 10

        class Writing(PushProducer):
            def resumeProducing(self) -> None:
                for piece in pieces[:2]:
                    sender.write(piece)
                del pieces[:2]

        producer = Writing()
        sender.registerProducer(producer, True)
        producer.resumeProducing()
        taken = stream.charges
        while pieces:
            self.assertEqual((stream.charges, stream.charged), (taken, 2 * HIGH_WATER))
            stream.send(HIGH_WATER)
            stream.credit(HIGH_WATER)
            sender.checkInvariants()
        stream.send(HIGH_WATER)
        stream.send(HIGH_WATER)
        self.assertEqual((stream.charges, stream.charged), (taken + 1, 0))

    def test_late(self) -> None:
        """
        A producer that is registered above L{HIGH_WATER} is paused in the next turn of
        the reactor, unless it was unregistered by then.
        """
        self.sender.write(bytes(HIGH_WATER + 1))
        self.sender.registerProducer(self.producer, True)
        self.assertEqual(self.producer.calls, [])
        self.stream.runSoon()
        self.assertEqual(self.producer.calls, ["pause"])
        self.sender.unregisterProducer()
        other = PushProducer()
        self.sender.registerProducer(other, True)
        self.sender.unregisterProducer()
        self.stream.runSoon()
        self.assertEqual(other.calls, [])

    def test_lateAndSent(self) -> None:
        """
        A producer that is registered above L{HIGH_WATER} is not paused if enough output
        was sent before the next turn of the reactor.
        """
        self.sender.write(bytes(HIGH_WATER + 1))
        self.sender.registerProducer(self.producer, True)
        self.stream.send(1)
        self.stream.runSoon()
        self.assertEqual(self.producer.calls, [])

    def test_pull(self) -> None:
        """
        A pull producer is asked for more each time all output is sent, and not before.
        """
        self.sender.write(b"abc")
        self.sender.registerProducer(self.producer, False)
        self.stream.send(2)
        self.assertEqual(self.producer.calls, [])
        self.stream.send(1)
        self.assertEqual(self.producer.calls, ["resume"])
        self.sender.write(b"d")
        self.stream.send(1)
        self.assertEqual(self.producer.calls, ["resume", "resume"])

    def test_afterClose(self) -> None:
        """
        A producer that is registered after the end is stopped at once.
        """
        self.sender.close()
        self.sender.registerProducer(self.producer, True)
        self.assertEqual(self.producer.calls, ["stop"])
        self.assertIsNone(self.sender.producer)

    def test_fails(self) -> None:
        """
        If a producer raises when it is paused or resumed, the stream is told that its
        application has failed.
        """

        class Failing(PushProducer):
            def pauseProducing(self) -> None:
                raise ZeroDivisionError

            resumeProducing = pauseProducing

        self.sender.registerProducer(Failing(), True)
        self.sender.write(bytes(HIGH_WATER + 1))
        self.assertEqual(self.events, ["failed", "fresh"])
        self.stream.send(HIGH_WATER + 1)
        self.assertEqual(self.events, ["failed", "fresh", "failed"])
