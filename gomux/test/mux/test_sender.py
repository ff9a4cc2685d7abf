"""
Tests for L{gomux._mux.sender}.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from gomux._mux.sender import (
    ENOUGH_WINDOW,
    HIGH_WATER,
    LOW_WATER,
    Sender,
    SenderStream,
    SendState,
)
from gomux._wire.frame import MAX_LENGTH
from gomux._wire.window import INITIAL_WINDOW, MAX_HELD
from gomux.test.support.helpers import PushProducer


class SendingStream:
    """
    A stream that has only a writing half, and the mux of that stream.

    @ivar events: what the sender told the stream and the mux, in order.
    """

    streamID = 6
    sendWindow = INITIAL_WINDOW
    touched = False

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

    def applicationFailed(self) -> None:
        self.events.append("failed")

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
    What is written and taken.
    """

    def test_everySize(self) -> None:
        """
        Whatever the sizes that bytes are written and taken in, they come out
        as they were, and are counted.
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
        Bytes may be written between takes.
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
        What lies within one piece is not copied.
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
        Once all output is sent, the stream has no sender any more, unless that has a
        producer or was closed.
        """
        self.sender.write(b"abc")
        self.stream.send(2)
        self.assertIs(self.stream.sender, self.sender)
        self.stream.send(1)
        self.assertIsNone(self.stream.sender)

    def test_atRestWithProducer(self) -> None:
        """
        With a producer it has, but that keeps no memory for output.
        """
        self.sender.registerProducer(PushProducer(), True)
        self.sender.write(b"abc")
        self.stream.send(3)
        self.assertIs(self.stream.sender, self.sender)
        self.assertIsNone(self.sender._pieces)

    def test_atRestClosed(self) -> None:
        """
        A sender that was closed stays, and keeps no memory for output either.
        """
        self.sender.write(b"abc")
        self.sender.finish()
        self.stream.send(3)
        self.assertIs(self.stream.sender, self.sender)
        self.assertIsNone(self.sender._pieces)

    def test_activates(self) -> None:
        """
        The scheduler learns of output while it has not queued the sender: as of fresh
        output when there was none.
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
        The stream learns that something was written.
        """
        self.sender.registerProducer(PushProducer(), True)
        self.assertFalse(self.stream.touched)
        self.sender.write(b"a")
        self.assertTrue(self.stream.touched)


class WindowTests(SenderTestCase):
    """
    The send window.
    """

    def test_taken(self) -> None:
        """
        What is taken is taken out of the window, and output that waits goes on when
        there is credit.
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
        A window that does not take all of the output must take a full frame.
        """
        self.sender.write(bytes(2 * INITIAL_WINDOW))
        self.stream.send(INITIAL_WINDOW)
        self.stream.credit(ENOUGH_WINDOW - 1)
        self.assertEqual(self.sender.sendable(), 0)
        self.stream.credit(1)
        self.assertEqual(self.sender.sendable(), MAX_LENGTH)

    def test_mostHeldBack(self) -> None:
        """
        A peer that holds back as many consumed bytes as a peer may does not stop the
        sender.
        """
        self.sender.write(bytes(2 * INITIAL_WINDOW))
        self.stream.send(INITIAL_WINDOW)
        self.stream.credit(INITIAL_WINDOW - MAX_HELD)
        self.assertGreater(self.sender.sendable(), 0)

    def test_nothingToSend(self) -> None:
        """
        Credit is no news for the scheduler while there is no output, or while the
        sender is queued.
        """
        self.stream.credit(1)
        self.sender.write(b"a")
        self.sender.queued = True
        self.stream.credit(1)
        self.assertEqual(self.events, ["fresh"])


class StateTests(SenderTestCase):
    """
    From C{OPEN} to C{CLOSED}.
    """

    def test_finish(self) -> None:
        """
        It finishes at once if there is nothing to wait for, and only once.
        """
        self.sender.finish()
        self.assertIs(self.sender.state, SendState.CLOSED)
        self.sender.finish()
        self.assertEqual(self.events, ["finished"])

    def test_output(self) -> None:
        """
        Output goes ahead of the end, and no more is accepted.
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
        A push producer that is paused may write ahead of the end once it is resumed.
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
        A pull producer is ahead of the end until it is unregistered.
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
        To close it drops output and stops the producer, and says nothing of it.
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
        A producer whose stopProducing fails is stopped all the same.
        """

        class Failing(PushProducer):
            def stopProducing(self) -> None:
                raise ZeroDivisionError

        self.sender.registerProducer(Failing(), True)
        self.sender.close()
        self.assertIs(self.sender.state, SendState.CLOSED)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ProducerTests(SenderTestCase):
    """
    Producers.
    """

    def setUp(self) -> None:
        super().setUp()
        self.producer = PushProducer()

    def test_told(self) -> None:
        """
        It tells which producer it has, and of which kind.
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

    def test_late(self) -> None:
        """
        A producer that is registered above L{HIGH_WATER} is paused soon, not at once;
        and not at all if it is gone by then.
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
        Nor is it if the output is sent by then.
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
        A producer that is registered after the end is stopped.
        """
        self.sender.close()
        self.sender.registerProducer(self.producer, True)
        self.assertEqual(self.producer.calls, ["stop"])
        self.assertIsNone(self.sender.producer)

    def test_fails(self) -> None:
        """
        A producer that fails when it is paused or resumed is an application that
        failed.
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
