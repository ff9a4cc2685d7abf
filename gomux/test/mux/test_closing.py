"""
Tests for L{gomux._mux.protocol}: the ends of muxes.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.frame import Flag
from gomux.error import (
    ConnectionClosed,
    GomuxError,
    NonceExhausted,
    PeerClosedConnection,
    Truncated,
)
from gomux.test.support.helpers import (
    ABORTS,
    CLOSE_STREAM,
    PushProducer,
    Recorders,
    Rig,
    useUpNonces,
)
from gomux.testing import MuxPair

CLOSE_MUX = (0, Flag.CLOSE_MUX, 0)


class CloseTests(SynchronousTestCase):
    """
    C{close}
    """

    def setUp(self) -> None:
        self.rig = Rig()
        self.recorder = self.rig.opened()

    def test_order(self) -> None:
        """
        C{close} sends the output of every stream, closes the streams, then the mux, and
        leaves it to the peer to end the carrier.
        """
        other = self.rig.opened()
        self.recorder.stream.write(b"one")
        other.stream.write(b"two")
        closing = self.rig.mux.close()
        self.assertEqual(
            self.rig.sent(),
            [
                (0, Flag.DATA, 3),
                (2, Flag.DATA, 3),
                CLOSE_STREAM,
                (2, Flag.CLOSE_STREAM, 0),
                CLOSE_MUX,
            ],
        )
        self.assertNoResult(closing)
        self.assertTrue(self.rig.carrier.connected)
        self.rig.peerCarrier.loseConnection()
        self.rig.run()
        self.assertIsInstance(self.successResultOf(closing), ConnectionClosed)
        for recorder in (self.recorder, other):
            self.assertIsInstance(recorder.reason, ConnectionClosed)

    def test_noStreams(self) -> None:
        """
        C{close} closes a mux without streams at once.
        """
        rig = Rig()
        rig.meet()
        rig.mux.close()
        self.assertEqual(rig.sent(), [CLOSE_MUX])

    def test_waitsForWindow(self) -> None:
        """
        C{close} waits for output that waits for credit.
        """
        self.recorder.stream.write(bytes(140000))
        self.rig.mux.close()
        self.assertNotIn(CLOSE_MUX, self.rig.sent())
        self.rig.send(0, Flag.WINDOW_UPDATE, 65536)
        self.assertEqual(
            self.rig.sent(), [(0, Flag.DATA, 140000 - 131072), CLOSE_STREAM, CLOSE_MUX]
        )

    def test_producer(self) -> None:
        """
        If a stream has a producer, C{close} sends its output and then aborts it,
        because the application may have had more to write.
        """
        self.recorder.stream.registerProducer(PushProducer(), True)
        self.recorder.stream.write(b"half of")
        other = self.rig.opened()
        other.stream.registerProducer(PushProducer(), True)
        other.stream.write(b"all")
        other.stream.unregisterProducer()
        self.rig.mux.close()
        frames = self.rig.sent()
        self.assertEqual(
            [frame for frame in frames if not frame[0]],
            [(0, Flag.DATA, 7), ABORTS, CLOSE_STREAM, CLOSE_MUX],
        )
        self.assertEqual(
            [frame for frame in frames if frame[0]],
            [(2, Flag.DATA, 3), (2, Flag.CLOSE_STREAM, 0)],
        )

    def test_producerPaused(self) -> None:
        """
        If a stream has a paused producer, C{close} resumes the producer, sends the
        output and then aborts the stream.
        """
        self.recorder.stream.registerProducer(PushProducer(), True)
        self.recorder.stream.write(bytes(131072 + 65537))
        self.rig.mux.close()
        self.assertNotIn(CLOSE_STREAM, self.rig.sent())
        for _ in range(2):
            self.rig.send(0, Flag.WINDOW_UPDATE, 65536)
        self.assertEqual(self.rig.sent()[-3:], [ABORTS, CLOSE_STREAM, CLOSE_MUX])

    def test_producerClosed(self) -> None:
        """
        C{close} does not abort a stream with a producer if the application had closed
        the stream itself.
        """
        self.recorder.stream.registerProducer(PushProducer(), True)
        self.recorder.stream.write(bytes(140000))
        self.recorder.stream.loseConnection()
        self.rig.mux.close()
        self.rig.send(0, Flag.WINDOW_UPDATE, 65536)
        frames = self.rig.sent()
        self.assertNotIn(ABORTS, frames)
        self.assertEqual(frames[-2:], [CLOSE_STREAM, CLOSE_MUX])

    def test_refuses(self) -> None:
        """
        A closing mux refuses new streams.
        """
        self.recorder.stream.write(bytes(140000))
        self.rig.mux.close()
        self.rig.sent()
        self.rig.send(2, Flag.OPEN_STREAM)
        self.assertEqual(
            self.rig.sent(), [(2, Flag.WINDOW_UPDATE, 0), (2, Flag.CLOSE_STREAM, 0)]
        )
        self.assertEqual(len(self.rig.streams.made), 1)

    def test_openedAfter(self) -> None:
        """
        After CloseMux was sent, new streams of the peer have no effect, however many
        arrive.
        """
        self.rig.mux.close()
        self.rig.sent()
        self.rig.sendMany(*((i, Flag.OPEN_STREAM, 0) for i in range(2, 2000, 2)))
        self.assertEqual(self.rig.sent(), [])
        self.rig.peerCarrier.loseConnection()
        self.assertIsInstance(self.rig.reason(), ConnectionClosed)

    def test_twice(self) -> None:
        """
        Every call of C{close} waits for the same end.
        """
        waiting = [self.rig.mux.close(), self.rig.mux.close()]
        self.assertEqual(self.rig.sent(), [CLOSE_STREAM, CLOSE_MUX])
        self.rig.peerCarrier.loseConnection()
        self.rig.run()
        waiting.append(self.rig.mux.close())
        self.rig.run()
        for closing in waiting:
            self.assertIsInstance(self.successResultOf(closing), ConnectionClosed)

    def test_timeout(self) -> None:
        """
        Output that cannot be sent delays the end by no more than C{closeTimeout}.
        """
        self.recorder.stream.write(bytes(140000))
        closing = self.rig.mux.close()
        self.rig.clock.advance(9.9)
        self.assertNoResult(closing)
        self.rig.clock.advance(0.1)
        self.rig.run()
        self.assertIsInstance(self.successResultOf(closing), ConnectionClosed)
        self.assertIsInstance(self.recorder.reason, ConnectionClosed)
        self.assertIsInstance(self.rig.peer.lost, ConnectionLost)

    def test_peerStays(self) -> None:
        """
        A peer that does not end the carrier delays the end by no more than
        C{closeTimeout}.
        """
        closing = self.rig.mux.close()
        self.rig.clock.advance(10)
        self.rig.run()
        self.assertIsInstance(self.successResultOf(closing), ConnectionClosed)

    def test_blocked(self) -> None:
        """
        A carrier that accepts no output delays the end by no more than C{closeTimeout}.
        """
        self.rig.carrier.outgoing.stall()
        self.recorder.stream.write(bytes(1000000))
        closing = self.rig.mux.close()
        self.rig.clock.advance(10)
        self.rig.run()
        self.assertIsInstance(self.successResultOf(closing), ConnectionClosed)

    def test_peerClosesBlocked(self) -> None:
        """
        A carrier that accepts no output delays the end by no more than C{closeTimeout},
        even if the peer has sent CloseMux too.
        """
        self.rig.carrier.outgoing.stall()
        self.recorder.stream.write(bytes(100000))
        closing = self.rig.mux.close()
        self.rig.send(*CLOSE_MUX)
        self.assertNoResult(closing)
        self.rig.clock.advance(10)
        self.rig.run()
        self.assertIsInstance(self.successResultOf(closing), ConnectionClosed)

    def test_peerClosesAlone(self) -> None:
        """
        A peer that sends CloseMux, and then neither reads nor ends the carrier, loses
        the carrier after C{closeTimeout}.
        """
        self.rig.carrier.outgoing.stall()
        self.recorder.stream.write(bytes(100000))
        self.rig.run()
        self.rig.send(*CLOSE_MUX)
        waiting = self.rig.mux.whenClosed()
        self.rig.clock.advance(9.9)
        self.assertNoResult(waiting)
        self.rig.clock.advance(0.1)
        self.rig.run()
        self.assertIsInstance(self.successResultOf(waiting), PeerClosedConnection)

    def test_noTimersLeft(self) -> None:
        """
        A mux that has ended leaves no delayed call.
        """
        for end in ("close", "abort"):
            for delay in (0, 10):
                rig = Rig()
                rig.opened()
                rig.mux.drain(100)
                getattr(rig.mux, end)()
                rig.clock.advance(delay)
                rig.peerCarrier.loseConnection()
                rig.run()
                self.assertEqual(rig.clock.getDelayedCalls(), [])

    def test_applicationWrites(self) -> None:
        """
        Data that an application writes after C{close} of the mux is dropped.
        """
        self.rig.mux.close()
        self.recorder.stream.write(b"too late")
        self.assertEqual(self.rig.sent(), [CLOSE_STREAM, CLOSE_MUX])

    def test_both(self) -> None:
        """
        If both sides close at once, both muxes end in good order.
        """
        for latency in (0.0, 0.1):
            pair = MuxPair(Recorders(), latency=latency)
            pair.client.openStream(Recorders())
            pair.flush()
            ends = [pair.client.close(), pair.server.close()]
            pair.flush()
            for end in ends:
                self.assertIsInstance(self.successResultOf(end), ConnectionClosed)

    def test_busyPeer(self) -> None:
        """
        C{close} while the peer is sending ends both muxes in good order, and delivers
        all of this side's output.
        """
        served = Recorders()
        opened = Recorders()
        pair = MuxPair(served, latency=0.1)
        pair.client.openStream(opened)
        pair.flush()
        served.made[0].stream.write(bytes(500000))
        opened.made[0].stream.write(b"last words")
        pair.advance(0.15)
        ends = [pair.client.close(), pair.server.whenClosed()]
        pair.flush()
        self.assertIsInstance(self.successResultOf(ends[0]), ConnectionClosed)
        self.assertIsInstance(self.successResultOf(ends[1]), PeerClosedConnection)
        self.assertEqual(served.made[0].received, b"last words")


class DrainTests(SynchronousTestCase):
    """
    C{drain}
    """

    def test_drain(self) -> None:
        """
        A draining mux refuses new streams, and closes after its last stream.
        """
        rig = Rig()
        recorder = rig.opened()
        draining = rig.mux.drain()
        self.assertFalse(rig.mux.canOpen)
        rig.send(2, Flag.OPEN_STREAM)
        self.assertEqual(
            rig.sent(), [(2, Flag.WINDOW_UPDATE, 0), (2, Flag.CLOSE_STREAM, 0)]
        )
        rig.send(0, Flag.DATA, b"still here")
        self.assertEqual(recorder.received, b"still here")
        recorder.stream.loseConnection()
        self.assertEqual(rig.sent(), [CLOSE_STREAM, CLOSE_MUX])
        rig.peerCarrier.loseConnection()
        rig.run()
        self.assertIsInstance(self.successResultOf(draining), ConnectionClosed)

    def test_idle(self) -> None:
        """
        C{drain} closes a mux without streams at once.
        """
        rig = Rig()
        rig.meet()
        rig.mux.drain()
        self.assertEqual(rig.sent(), [CLOSE_MUX])

    def test_timeout(self) -> None:
        """
        C{drain} with a timeout closes the mux after that time; the first timeout
        counts.
        """
        rig = Rig()
        rig.opened()
        rig.mux.drain(20)
        rig.mux.drain(5)
        rig.clock.advance(19)
        self.assertEqual(rig.sent(), [])
        rig.clock.advance(1)
        self.assertEqual(rig.sent(), [CLOSE_STREAM, CLOSE_MUX])

    def test_afterClose(self) -> None:
        """
        C{drain} after C{close} waits for the same end.
        """
        rig = Rig()
        rig.mux.close()
        draining = rig.mux.drain(5)
        rig.peerCarrier.loseConnection()
        rig.run()
        self.assertIsInstance(self.successResultOf(draining), ConnectionClosed)


class OtherEndTests(SynchronousTestCase):
    """
    Ends of a mux by C{abort}, by CloseMux, and by lack of nonces.
    """

    def test_abort(self) -> None:
        """
        C{abort} drops the carrier at once, also while the mux is closing.
        """
        for close in (False, True):
            rig = Rig()
            if close:
                rig.mux.close()
            rig.mux.abort()
            rig.mux.abort()
            self.assertIsInstance(rig.reason(), ConnectionClosed)
            self.assertIsInstance(rig.peer.lost, ConnectionLost)
            rig.mux.abort()

    def test_closeMux(self) -> None:
        """
        A mux that receives CloseMux ends the carrier in good order.
        """
        rig = Rig()
        rig.send(*CLOSE_MUX)
        self.assertIsInstance(rig.reason(), PeerClosedConnection)
        self.assertIsInstance(rig.peer.lost, ConnectionDone)

    def test_producerUnregistered(self) -> None:
        """
        The scheduler is unregistered from the carrier before the carrier is closed,
        because some carriers wait for their producer.  (Trap 1 in docs/design.rst.)
        """
        rig = Rig()
        events: list[str] = []
        carrier = rig.carrier
        unregister, lose = carrier.unregisterProducer, carrier.loseConnection

        def noteUnregister() -> None:
            events.append("unregister")
            unregister()

        def noteLose() -> None:
            events.append("lose")
            lose()

        carrier.unregisterProducer = noteUnregister  # type: ignore[method-assign]
        carrier.loseConnection = noteLose  # type: ignore[method-assign]
        rig.send(*CLOSE_MUX)
        self.assertEqual(events, ["unregister", "lose"])

    def test_whenClosed(self) -> None:
        """
        C{whenClosed} fires for every caller after all streams have ended, not before
        the call returns, and also if it is called after the end.
        """
        events: list[str] = []

        def note(reason: GomuxError) -> None:
            events.append(type(reason).__name__)

        rig = Rig(lost=lambda _: events.append("lost"))
        rig.opened()
        for _ in range(2):
            rig.mux.whenClosed().addCallback(note)
        rig.peerCarrier.abortConnection()
        rig.run()
        late: Deferred[GomuxError] = rig.mux.whenClosed()
        late.addCallback(note)
        self.assertEqual(events, ["lost", "Truncated", "Truncated"])
        rig.run()
        self.assertEqual(len(events), 4)

    def test_stopProducing(self) -> None:
        """
        The carrier's C{stopProducing}, which comes before C{connectionLost}, does not
        change the reason that streams get.  (Trap 9 in docs/design.rst.)
        """
        rig = Rig()
        recorder = rig.opened(b"data")
        rig.carrier.producer.stopProducing()
        self.assertEqual(recorder.events, ["made", "data"])
        rig.peerCarrier.abortConnection()
        rig.run()
        self.assertEqual(recorder.events, ["made", "data", "lost"])
        self.assertIsInstance(recorder.reason, Truncated)

    def test_noNonces(self) -> None:
        """
        A mux whose nonces run out sends CloseMux under the last one.
        """
        rig = Rig()
        recorder = rig.opened()
        useUpNonces(rig.mux, 2)
        recorder.stream.write(b"one")
        rig.run()
        recorder.stream.write(b"two")
        self.assertEqual(rig.sent(), [(0, Flag.DATA, 3), CLOSE_MUX])
        rig.peerCarrier.loseConnection()
        self.assertIsInstance(rig.reason(), NonceExhausted)
        self.assertIsInstance(recorder.reason, NonceExhausted)

    def test_othersGoOn(self) -> None:
        """
        The end of one mux does not affect another mux of the same factory.
        """
        rig = Rig()
        other = Rig(clock=rig.clock, factory=rig.factory)
        rig.mux.abort()
        rig.run()
        other.send(0, Flag.OPEN_STREAM)
        other.send(0, Flag.DATA, b"still here")
        self.assertEqual(rig.streams.made[0].received, b"still here")
