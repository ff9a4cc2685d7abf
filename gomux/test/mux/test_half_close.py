"""
Tests for L{gomux._mux.stream}: half-closes in every order, and the effect of the mux's
end on streams.
"""

from __future__ import annotations

from itertools import permutations

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.frame import Flag
from gomux.error import (
    ConnectionClosed,
    PeerClosedConnection,
    PeerClosedStream,
    ProtocolViolation,
    StreamClosed,
    Truncated,
)
from gomux.test.support.helpers import (
    CLOSE_READ,
    CLOSE_STREAM,
    CLOSE_WRITE,
    EndsTestCase,
    HalfRecorder,
    Recorder,
    Recorders,
)
from gomux.testing import MuxPair


class HalfCloseTests(EndsTestCase):
    """
    Half-closes of a stream whose protocol is half-closeable.  (Trap 10 in
    docs/design.rst.)
    """

    kind = HalfRecorder

    def test_own(self) -> None:
        """
        C{writeConnectionLost} is called once, after all output that
        C{loseWriteConnection} waits for is sent.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.loseWriteConnection()
        self.rig.run()
        self.assertEqual(self.recorder.events, ["made"])
        self.unblock()
        self.rig.run()
        self.assertEqual(self.recorder.events, ["made", "writeLost"])
        self.stream.loseWriteConnection()
        self.rig.run()
        self.assertEqual(self.recorder.events, ["made", "writeLost"])

    def test_ownAtOnce(self) -> None:
        """
        C{writeConnectionLost} is never called inside the application's
        C{loseWriteConnection}.
        """
        self.stream.loseWriteConnection()
        self.assertEqual(self.recorder.events, ["made"])
        self.rig.run()
        self.assertEqual(self.recorder.events, ["made", "writeLost"])

    def test_ownAndEnd(self) -> None:
        """
        If the stream ends before C{writeConnectionLost} is called, only
        C{connectionLost} is called.
        """
        self.stream.loseWriteConnection()
        self.stream.abortConnection()
        self.rig.run()
        self.assertEqual(self.recorder.events, ["made", "lost"])

    def test_peers(self) -> None:
        """
        CloseRead causes C{readConnectionLost}, once, after the data that precedes it.
        Writing goes on.
        """
        self.rig.sendMany((0, Flag.DATA, b"bye"), CLOSE_READ, CLOSE_READ)
        self.assertEqual(self.recorder.events, ["made", "data", "readLost"])
        self.stream.write(b"answer")
        self.assertEqual(self.rig.sentData(), b"answer")
        self.stream.loseWriteConnection()
        self.assertEqual(self.rig.sent(), [CLOSE_READ, CLOSE_STREAM])
        self.check_lost(StreamClosed)
        self.assertEqual(
            self.recorder.events, ["made", "data", "readLost", "writeLost", "lost"]
        )

    def test_peersPaused(self) -> None:
        """
        While the stream is paused, C{readConnectionLost} waits for the unread data.
        """
        self.stream.pauseProducing()
        self.rig.sendMany((0, Flag.DATA, b"bye"), CLOSE_READ)
        self.assertEqual(self.recorder.events, ["made"])
        self.stream.resumeProducing()
        self.rig.run()
        self.assertEqual(self.recorder.events, ["made", "data", "readLost"])

    def test_peersCloseWrite(self) -> None:
        """
        CloseWrite causes C{writeConnectionLost} once and at once.  Reading goes on.
        """
        self.block()
        self.stream.write(b"last words")
        self.rig.sendMany(CLOSE_WRITE, CLOSE_WRITE, (0, Flag.DATA, b"still here"))
        self.assertEqual(self.recorder.events, ["made", "writeLost", "data"])
        self.assertEqual(self.stream.unsent, 0)

    def test_closeWriteTaken(self) -> None:
        """
        If CloseWrite arrives while C{loseWriteConnection} waits for output,
        C{writeConnectionLost} is called once.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.loseWriteConnection()
        self.rig.send(*CLOSE_WRITE)
        self.assertEqual(self.recorder.events, ["made", "writeLost"])
        self.assertEqual(self.rig.sent(), [])

    def test_closeWriteCrosses(self) -> None:
        """
        If CloseWrite crosses this side's CloseRead, C{writeConnectionLost} is called
        once.
        """
        self.stream.loseWriteConnection()
        self.rig.mux.dataReceived(self.rig.peer.seal(*CLOSE_WRITE))
        self.rig.run()
        self.assertEqual(self.recorder.events, ["made", "writeLost"])

    def test_bothPeersHalves(self) -> None:
        """
        If the peer closes both halves of a stream, the stream closes.
        """
        self.rig.sendMany(CLOSE_WRITE, CLOSE_READ)
        self.assertEqual(self.rig.sent(), [CLOSE_STREAM])
        self.check_lost(ConnectionDone)

    def test_peerEndsToo(self) -> None:
        """
        If the peer closes the last open half and the stream in one read, it needs no
        CloseStream from this side.
        """
        self.stream.loseWriteConnection()
        self.assertEqual(self.rig.sent(), [CLOSE_READ])
        self.rig.sendMany(CLOSE_READ, CLOSE_STREAM)
        self.assertEqual(self.rig.sent(), [])
        self.check_lost(PeerClosedStream)
        self.assertEqual(
            self.recorder.events, ["made", "writeLost", "readLost", "lost"]
        )

    def test_answerInReadLost(self) -> None:
        """
        An application may write and close the stream inside C{readConnectionLost}.
        """

        def answer(recorder: HalfRecorder) -> None:
            recorder.stream.write(b"answer")
            recorder.stream.loseConnection()

        self.recorder.hooks["readLost"] = answer
        self.rig.send(*CLOSE_READ)
        self.assertEqual(self.rig.sent(), [(0, Flag.DATA, 6), CLOSE_STREAM])
        self.check_lost(StreamClosed)

    def test_everyOrder(self) -> None:
        """
        In whatever order the two sides close the halves, the stream ends once both
        halves are closed, and each half is reported at most once.
        """
        steps = {
            "ourWrite": lambda: self.stream.loseWriteConnection(),
            "ourRead": lambda: self.stream.loseReadConnection(),
            "peersWrite": lambda: self.rig.send(*CLOSE_READ),
            "peersRead": lambda: self.rig.send(*CLOSE_WRITE),
        }
        orders = [order for size in (2, 3, 4) for order in permutations(steps, size)]
        ended = 0
        for order in orders:
            self.setUp()
            for step in order:
                steps[step]()
                self.rig.run()
            reading = {"ourRead", "peersWrite"} & set(order)
            writing = {"ourWrite", "peersRead"} & set(order)
            if reading and writing:
                ended += 1
                self.check_lost(ConnectionDone)
                frames = self.rig.sent()
                self.assertEqual(frames.count(CLOSE_STREAM), 1, order)
                self.assertEqual(frames[-1], CLOSE_STREAM, order)
            else:
                self.assertEqual(self.rig.mux.streamCount, 1, order)
            for event in ("readLost", "writeLost"):
                self.assertLessEqual(self.recorder.events.count(event), 1, order)
        self.assertEqual(ended, 56)


class PairTests(SynchronousTestCase):
    """
    Two peers that close a stream, at once or one after the other.
    """

    def test_everyCrossing(self) -> None:
        """
        Whichever way each end closes a stream, and whether their frames cross or not,
        no stream is left on either side.
        """
        calls = ["loseConnection", "abortConnection", "loseWriteConnection"]
        for kinds in (
            (HalfRecorder, HalfRecorder),
            (HalfRecorder, Recorder),
        ):
            for first in calls:
                for second in calls:
                    for crossing in (False, True):
                        self.check(kinds, first, second, crossing)

    def check(
        self,
        kinds: tuple[type[Recorder], type[Recorder]],
        first: str,
        second: str,
        crossing: bool,
    ) -> None:
        served = Recorders(kinds[1])
        pair = MuxPair(served)
        opened = Recorders(kinds[0])
        pair.client.openStream(opened)
        pair.flush()
        near, far = opened.made[0], served.made[0]
        near.stream.write(b"near")
        far.stream.write(b"far")
        if crossing:
            pair.clientToServer.stall()
            pair.serverToClient.stall()
        getattr(near.stream, first)()
        pair.flush()
        getattr(far.stream, second)()
        pair.flush()
        if crossing:
            pair.clientToServer.unstall()
            pair.serverToClient.unstall()
            pair.flush()
        what = (first, second, crossing)
        for end in (near, far):
            self.assertEqual(end.events.count("lost"), 1, what)
            self.assertEqual(end.events[-1], "lost", what)
            self.assertNotIn("nested!", end.events, what)
        self.assertEqual(pair.client.streamCount, 0, what)
        self.assertEqual(pair.server.streamCount, 0, what)
        self.assertNoResult(pair.client.whenClosed())


class MuxEndTests(EndsTestCase):
    """
    The effect of the mux's end on its streams.
    """

    def test_closeMux(self) -> None:
        """
        CloseMux ends a stream with L{PeerClosedConnection}, after the data that
        precedes it.
        """
        self.rig.sendMany((0, Flag.DATA, b"bye"), (0, Flag.CLOSE_MUX, 0))
        self.assertEqual(self.recorder.received, b"bye")
        self.check_lost(PeerClosedConnection)
        self.assertIsInstance(self.recorder.reason, ConnectionDone)

    def test_fin(self) -> None:
        """
        A carrier that ends without CloseMux ends a stream with L{Truncated}, after the
        data received before.
        """
        self.rig.send(0, Flag.DATA, b"bye")
        self.rig.peerCarrier.loseConnection()
        self.check_lost(Truncated)
        self.assertEqual(self.recorder.received, b"bye")
        self.assertIsInstance(self.recorder.reason, ConnectionLost)

    def test_reset(self) -> None:
        """
        A carrier that is reset in the middle of a frame ends a stream with
        L{Truncated}.
        """
        self.rig.send(0, Flag.DATA, b"bye")
        self.rig.sendRaw(self.rig.peer.seal(0, Flag.DATA, b"cut off")[:-1])
        self.rig.peerCarrier.abortConnection()
        self.check_lost(Truncated)
        self.assertEqual(self.recorder.received, b"bye")

    def test_violation(self) -> None:
        """
        A violation of the protocol ends a stream with that L{ProtocolViolation}.
        """
        self.rig.send(0, Flag.OPEN_STREAM)
        self.check_lost(ProtocolViolation)

    def test_close(self) -> None:
        """
        C{close} of the mux sends a stream's output, then ends it with
        L{ConnectionClosed}.
        """
        self.stream.write(b"last words")
        self.rig.mux.close()
        self.assertEqual(
            self.rig.sent(), [(0, Flag.DATA, 10), CLOSE_STREAM, (0, Flag.CLOSE_MUX, 0)]
        )
        self.check_lost(ConnectionClosed)

    def test_abort(self) -> None:
        """
        C{abort} of the mux drops a stream's output, and ends it with
        L{ConnectionClosed}.
        """
        self.block()
        self.stream.write(b"last words")
        self.rig.mux.abort()
        self.assertEqual(self.recorder.events, ["made"])
        self.check_lost(ConnectionClosed)
        self.assertEqual(self.rig.sent(), [])

    def test_closingStreamCut(self) -> None:
        """
        A stream that is still sending its output after C{loseConnection} ends with
        L{Truncated} if the carrier is lost.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.loseConnection()
        self.rig.peerCarrier.abortConnection()
        self.check_lost(Truncated)

    def test_manyStreams(self) -> None:
        """
        When the mux ends, every stream gets C{connectionLost} once, even if streams
        abort each other.  (Trap 8 in docs/design.rst.)
        """
        others = [self.rig.opened() for _ in range(5)]
        for other in others:
            other.hooks["lost"] = lambda _: others[-1].stream.abortConnection()
        self.rig.peerCarrier.abortConnection()
        self.check_lost(Truncated)
        for other in others:
            self.assertEqual(other.events, ["made", "lost"])
