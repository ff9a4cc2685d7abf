"""
Tests for L{gomux._mux.stream}: producers and consumers.
"""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IConsumer
from twisted.protocols.basic import FileSender

from gomux._wire.frame import Flag
from gomux.error import PeerClosedStream, StreamClosed
from gomux.test.support.helpers import (
    CLOSE_READ,
    CLOSE_STREAM,
    CLOSE_WRITE,
    EndsTestCase,
    PullProducer,
    PushProducer,
)


class PushTests(EndsTestCase):
    """
    Push producers.
    """

    def setUp(self) -> None:
        super().setUp()
        self.producer = PushProducer()
        self.stream.registerProducer(self.producer, True)

    def fill(self) -> None:
        """
        Write more than the window and the high-water mark together allow.
        """
        self.stream.write(bytes(131072 + 65536 + 1))
        self.rig.sent()

    def test_paused(self) -> None:
        """
        A producer is paused above the high-water mark, and resumed once enough output
        is sent.
        """
        self.stream.write(bytes(65536))
        self.assertEqual(self.producer.calls, [])
        self.stream.write(bytes(1))
        self.assertEqual(self.producer.calls, ["pause"])
        self.rig.run()
        self.assertEqual(self.producer.calls, ["pause", "resume"])

    def test_duplicates(self) -> None:
        """
        A producer that goes on writing is paused once and resumed once, however often
        the carrier pauses and resumes.  (Trap 2 in docs/design.rst.)
        """
        self.fill()
        for _ in range(10):
            self.stream.write(bytes(1000))
        scheduler = self.rig.carrier.producer
        for _ in range(5):
            scheduler.pauseProducing()
            scheduler.pauseProducing()
            scheduler.resumeProducing()
        self.assertEqual(self.producer.calls, ["pause"])
        for _ in range(3):
            self.rig.send(0, Flag.WINDOW_UPDATE, 65536)
        self.assertEqual(self.producer.calls, ["pause", "resume"])

    def test_lowWater(self) -> None:
        """
        A producer stays paused while more output waits than the low-water mark.
        """
        self.fill()
        self.rig.send(0, Flag.WINDOW_UPDATE, 32768)
        self.assertEqual(self.producer.calls, ["pause"])
        self.rig.send(0, Flag.WINDOW_UPDATE, 32768)
        self.assertEqual(self.producer.calls, ["pause", "resume"])

    def test_pausedByResume(self) -> None:
        """
        A producer that writes too much inside C{resumeProducing} is paused again from
        there, and resumed again when there is room.  (Trap 3 in docs/design.rst.)
        """

        class Eager(PushProducer):
            left = 5

            def resumeProducing(producer) -> None:
                super().resumeProducing()
                if producer.left:
                    producer.left -= 1
                    self.stream.write(bytes(70000))

        self.stream.unregisterProducer()
        producer = Eager()
        self.stream.registerProducer(producer, True)
        self.stream.write(bytes(70000))
        for _ in range(10):
            self.rig.send(0, Flag.WINDOW_UPDATE, 65536)
        self.assertEqual(producer.calls, ["pause", "resume"] * 6)

    def test_registeredBlocked(self) -> None:
        """
        A producer that is registered while too much output waits is paused in the next
        turn of the reactor.  TLS makes its pull producers ready for a pause only after
        registering them.  (Trap 4 in docs/design.rst.)
        """
        self.stream.unregisterProducer()
        self.fill()
        self.assertEqual(self.producer.calls, [])
        self.stream.registerProducer(self.producer, True)
        self.assertEqual(self.producer.calls, [])
        self.rig.run()
        self.assertEqual(self.producer.calls, ["pause"])
        self.rig.send(0, Flag.WINDOW_UPDATE, 65536)
        self.assertEqual(self.producer.calls, ["pause", "resume"])

    def test_second(self) -> None:
        """
        A second producer is refused.  (Trap 4 in docs/design.rst.)
        """
        second = PushProducer()
        self.assertRaises(RuntimeError, self.stream.registerProducer, second, True)
        self.assertRaises(RuntimeError, self.stream.registerProducer, second, False)
        self.assertEqual(second.calls, [])

    def test_unregister(self) -> None:
        """
        An unregistered producer is not called any more, and another can be registered.
        C{unregisterProducer} may be called twice.  (Trap 4 in docs/design.rst.)
        """
        self.stream.unregisterProducer()
        self.stream.unregisterProducer()
        self.fill()
        self.assertEqual(self.producer.calls, [])
        self.stream.registerProducer(self.producer, True)

    def test_afterEnd(self) -> None:
        """
        A producer that is registered after the end of the stream or of writing is
        stopped at once.  (Trap 4 in docs/design.rst.)
        """
        for end in ("loseConnection", "abortConnection", "loseWriteConnection"):
            for run in (False, True):
                self.setUp()
                self.stream.unregisterProducer()
                getattr(self.stream, end)()
                if run:
                    self.rig.run()
                self.stream.registerProducer(self.producer, True)
                self.assertEqual(self.producer.calls, ["stop"])

    def test_carrierBlocked(self) -> None:
        """
        A carrier that accepts no output causes a stream's producer to be paused once
        enough output waits.
        """
        self.rig.carrier.outgoing.stall()
        self.stream.write(bytes(131072))
        self.rig.run()
        self.stream.write(bytes(65537))
        self.rig.run()
        self.assertEqual(self.producer.calls[-1], "pause")
        self.assertLess(self.rig.carrier.buffered, 200000)
        self.rig.carrier.outgoing.unstall()
        self.rig.send(0, Flag.WINDOW_UPDATE, 65536)
        self.assertEqual(self.producer.calls[-1], "resume")

    def test_stopped(self) -> None:
        """
        Each way to end the stream or its writing half stops the producer, once.
        """
        for end in (
            lambda: self.stream.loseConnection(),
            lambda: self.stream.abortConnection(),
            lambda: self.rig.send(*CLOSE_STREAM),
            lambda: self.rig.send(*CLOSE_WRITE),
            lambda: self.rig.send(*CLOSE_READ),
            lambda: self.rig.send(0, Flag.CLOSE_MUX),
            lambda: self.rig.mux.abort(),
            lambda: self.rig.peerCarrier.abortConnection(),
        ):
            self.setUp()
            end()
            self.rig.run()
            self.assertEqual(self.producer.calls, ["stop"])

    def test_stopFails(self) -> None:
        """
        A stream ends even if its producer's C{stopProducing} raises.
        """

        class Broken(PushProducer):
            def stopProducing(self) -> None:
                raise ZeroDivisionError

        self.stream.unregisterProducer()
        self.stream.registerProducer(Broken(), True)
        self.rig.send(*CLOSE_STREAM)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.check_lost(PeerClosedStream)

    def test_stopCloses(self) -> None:
        """
        A producer that closes the stream inside C{stopProducing} ends it once.
        """

        class Closing(PushProducer):
            def stopProducing(producer) -> None:
                self.stream.loseConnection()

        for end in (CLOSE_STREAM, CLOSE_WRITE):
            super().setUp()
            self.stream.registerProducer(Closing(), True)
            self.rig.send(*end)
            self.check_lost(ConnectionDone)

    def test_resumeFails(self) -> None:
        """
        If a producer's C{resumeProducing} raises, its stream ends, and others go on.
        """

        class Broken(PushProducer):
            def resumeProducing(self) -> None:
                raise ZeroDivisionError

        other = self.rig.opened()
        self.stream.unregisterProducer()
        self.stream.registerProducer(Broken(), True)
        self.stream.write(bytes(70000))
        other.stream.write(b"other")
        self.rig.run()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.recorder.events, ["made", "lost"])
        self.assertIsInstance(self.recorder.reason, ZeroDivisionError)
        self.rig.send(2, Flag.DATA, b"still here")
        self.assertEqual(other.received, b"still here")
        self.assertIn((2, Flag.DATA, 5), self.rig.sent())
        self.assertIsNone(self.rig.reason())


class ClosingTests(EndsTestCase):
    """
    Producers and C{loseConnection}
    """

    def test_unpaused(self) -> None:
        """
        As over TCP, C{loseConnection} does not wait for a push producer that is not
        paused.
        """
        producer = PushProducer()
        self.stream.registerProducer(producer, True)
        self.stream.loseConnection()
        self.assertEqual(self.rig.sent(), [CLOSE_STREAM])
        self.assertEqual(producer.calls, ["stop"])

    def test_paused(self) -> None:
        """
        As over TCP, a push producer that was paused may write its rest after
        C{loseConnection} or C{loseWriteConnection}.
        """

        class Rest(PushProducer):
            def resumeProducing(producer) -> None:
                super().resumeProducing()
                self.stream.write(b"the rest")

        for end, frame, stop in (
            ("loseConnection", CLOSE_STREAM, ["stop"]),
            # The producer may be a transport that is still needed to write to.
            ("loseWriteConnection", CLOSE_READ, []),
        ):
            self.setUp()
            producer = Rest()
            self.stream.registerProducer(producer, True)
            self.stream.write(bytes(131072 + 65536 + 1))
            getattr(self.stream, end)()
            self.rig.sent()
            for _ in range(2):
                self.rig.send(0, Flag.WINDOW_UPDATE, 65536)
            frames = self.rig.sent()
            self.assertEqual(sum(frame[2] for frame in frames), 65537 + 8)
            self.assertEqual(frames[-1], frame)
            self.assertEqual(producer.calls, ["pause", "resume", *stop])

    def test_pausedIdle(self) -> None:
        """
        After C{loseConnection}, a paused push producer that writes nothing once it is
        resumed does not delay the end.
        """
        producer = PushProducer()
        self.stream.registerProducer(producer, True)
        self.stream.write(bytes(131072 + 65536 + 1))
        self.stream.loseConnection()
        self.rig.sent()
        for _ in range(2):
            self.rig.send(0, Flag.WINDOW_UPDATE, 65536)
        self.assertEqual(self.rig.sent()[-1], CLOSE_STREAM)
        self.assertEqual(producer.calls, ["pause", "resume", "stop"])
        self.check_lost(StreamClosed)

    def test_slowPull(self) -> None:
        """
        C{loseConnection} waits for a pull producer that does not write at once.
        """
        producer = PullProducer(self.stream, [])
        producer.resumeProducing = lambda: None  # type: ignore[method-assign]
        self.stream.registerProducer(producer, False)
        self.stream.loseConnection()
        self.assertEqual(self.rig.sent(), [])
        self.stream.write(b"at last")
        self.assertEqual(self.rig.sent(), [(0, Flag.DATA, 7)])
        self.stream.unregisterProducer()
        self.assertEqual(self.rig.sent(), [CLOSE_STREAM])

    def test_unregistered(self) -> None:
        """
        After C{loseConnection}, C{unregisterProducer} ends the wait for a paused
        producer.
        """
        producer = PushProducer()
        self.stream.registerProducer(producer, True)
        self.stream.write(bytes(131072 + 65536 + 1))
        self.stream.loseConnection()
        self.stream.unregisterProducer()
        self.rig.sent()
        for _ in range(2):
            self.rig.send(0, Flag.WINDOW_UPDATE, 65536)
        self.assertEqual(self.rig.sent()[-1], CLOSE_STREAM)
        self.check_lost(StreamClosed)

    def test_pull(self) -> None:
        """
        C{loseConnection} waits until a pull producer has written everything.
        """
        producer = PullProducer(self.stream, [b"one", b"two", b"three"])
        self.stream.registerProducer(producer, False)
        self.stream.loseConnection()
        frames = self.rig.sent()
        self.assertEqual(sum(frame[2] for frame in frames), 11)
        self.assertEqual(frames[-1], CLOSE_STREAM)
        self.assertEqual(frames.count(CLOSE_STREAM), 1)
        self.assertFalse(producer.stopped)
        self.check_lost(StreamClosed)

    def test_pullHalf(self) -> None:
        """
        C{loseWriteConnection} waits until a pull producer has written everything.
        """
        producer = PullProducer(self.stream, [b"one", b"two", b"three"])
        self.stream.registerProducer(producer, False)
        self.stream.loseWriteConnection()
        frames = self.rig.sent()
        self.assertEqual(sum(frame[2] for frame in frames), 11)
        self.assertEqual(frames[-1], CLOSE_READ)


class PullTests(EndsTestCase):
    """
    Pull producers.
    """

    def test_pulled(self) -> None:
        """
        A pull producer is asked for more each time its output is sent, and not while
        output waits.
        """
        producer = PullProducer(self.stream, [bytes(100000) for _ in range(5)])
        self.stream.registerProducer(producer, False)
        self.rig.run()
        self.assertEqual(len(producer.pieces), 3)
        for _ in range(8):
            self.rig.send(0, Flag.WINDOW_UPDATE, 65536)
            self.assertLessEqual(self.stream.unsent, 100000)
            self.assertTrue(self.stream.unsent or not producer.pieces)
        self.assertEqual(producer.pieces, [])
        self.assertEqual(len(self.rig.sentData()), 500000)

    def test_registeredBlocked(self) -> None:
        """
        A pull producer that is registered while output waits is asked for more once
        that output is sent.
        """
        self.stream.write(bytes(131073))
        self.rig.run()
        producer = PullProducer(self.stream, [b"later", b"!"])
        self.stream.registerProducer(producer, False)
        self.rig.run()
        self.assertEqual(len(producer.pieces), 2)
        self.rig.send(0, Flag.WINDOW_UPDATE, 65536)
        self.assertEqual(producer.pieces, [])

    def test_stopped(self) -> None:
        """
        A pull producer is stopped when the stream ends.
        """
        producer = PullProducer(self.stream, [bytes(200000), b"more"])
        self.stream.registerProducer(producer, False)
        self.rig.run()
        self.rig.send(*CLOSE_STREAM)
        self.assertTrue(producer.stopped)
        self.assertEqual(producer.pieces, [b"more"])

    def test_fileSender(self) -> None:
        """
        Twisted's C{FileSender} can send a file over a stream.
        """
        from io import BytesIO

        consumer = IConsumer(self.stream)
        sending = FileSender().beginFileTransfer(
            BytesIO(bytes(range(256)) * 400), consumer
        )
        self.rig.run()
        self.assertEqual(self.rig.sentData(), bytes(range(256)) * 400)
        self.successResultOf(sending)

    def test_resumeFails(self) -> None:
        """
        A pull producer whose C{resumeProducing} raises on a later call loses its
        stream.
        """

        class Broken(PullProducer):
            def resumeProducing(self) -> None:
                if len(self.pieces) == 1:
                    raise ZeroDivisionError
                super().resumeProducing()

        self.stream.registerProducer(Broken(self.stream, [b"one", b"two"]), False)
        self.rig.run()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.check_lost(ZeroDivisionError)
        self.assertIsNone(self.rig.reason())
