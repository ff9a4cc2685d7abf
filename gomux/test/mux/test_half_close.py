"""
Tests for L{gomux._mux.stream}: half-closes, in every order, and the ends of muxes.
"""

from __future__ import annotations

from itertools import permutations

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.frame import Flag
from gomux.error import (
    ConnectionClosed,
    PeerClosedConnection,
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
    Trap 10: half-closes, told to a protocol that wants to know.
    """

    kind = HalfRecorder

    def test_own(self) -> None:
        """
        C{loseWriteConnection} is told as done from the reactor, once all
        output is sent.
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
        It is never told from inside the application's call.
        """
        self.stream.loseWriteConnection()
        self.assertEqual(self.recorder.events, ["made"])
        self.rig.run()
        self.assertEqual(self.recorder.events, ["made", "writeLost"])

    def test_ownAndEnd(self) -> None:
        """
        A stream that ends before the half-close could be told only ends.
        """
        self.stream.loseWriteConnection()
        self.stream.abortConnection()
        self.rig.run()
        self.assertEqual(self.recorder.events, ["made", "lost"])

    def test_peers(self) -> None:
        """
        CloseRead is told after the data ahead of it; writing goes on.
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
        CloseRead waits for the data ahead of it, and then is told.
        """
        self.stream.pauseProducing()
        self.rig.sendMany((0, Flag.DATA, b"bye"), CLOSE_READ)
        self.assertEqual(self.recorder.events, ["made"])
        self.stream.resumeProducing()
        self.rig.run()
        self.assertEqual(self.recorder.events, ["made", "data", "readLost"])

    def test_peersCloseWrite(self) -> None:
        """
        CloseWrite is told at once; reading goes on.
        """
        self.block()
        self.stream.write(b"last words")
        self.rig.sendMany(CLOSE_WRITE, CLOSE_WRITE, (0, Flag.DATA, b"still here"))
        self.assertEqual(self.recorder.events, ["made", "writeLost", "data"])
        self.assertEqual(self.stream.unsent, 0)

    def test_closeWriteTaken(self) -> None:
        """
        CloseWrite while C{loseWriteConnection} waits is told once.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.loseWriteConnection()
        self.rig.send(*CLOSE_WRITE)
        self.assertEqual(self.recorder.events, ["made", "writeLost"])
        self.assertEqual(self.rig.sent(), [])

    def test_closeWriteCrosses(self) -> None:
        """
        CloseWrite that crosses our CloseRead is told once.
        """
        self.stream.loseWriteConnection()
        self.rig.mux.dataReceived(self.rig.peer.seal(*CLOSE_WRITE))
        self.rig.run()
        self.assertEqual(self.recorder.events, ["made", "writeLost"])

    def test_bothPeersHalves(self) -> None:
        """
        When the peer has closed both halves the stream is closed.
        """
        self.rig.sendMany(CLOSE_WRITE, CLOSE_READ)
        self.assertEqual(self.rig.sent(), [CLOSE_STREAM])
        self.check_lost(ConnectionDone)

    def test_answerInReadLost(self) -> None:
        """
        An application may write and close inside C{readConnectionLost}.
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
        In whatever order the halves are closed by either side, the stream ends
        on both, and each half is told once.
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
    Two peers that close, at once or one after the other.
    """

    def test_everyCrossing(self) -> None:
        """
        Whatever two ends do, in any order and with the news crossing or not,
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
    What the end of the mux is to its streams.
    """

    def test_closeMux(self) -> None:
        """
        CloseMux: data, then L{PeerClosedConnection}.
        """
        self.rig.sendMany((0, Flag.DATA, b"bye"), (0, Flag.CLOSE_MUX, 0))
        self.assertEqual(self.recorder.received, b"bye")
        self.check_lost(PeerClosedConnection)
        self.assertIsInstance(self.recorder.reason, ConnectionDone)

    def test_fin(self) -> None:
        """
        The carrier's end without CloseMux: data, then L{Truncated}.
        """
        self.rig.send(0, Flag.DATA, b"bye")
        self.rig.peerCarrier.loseConnection()
        self.check_lost(Truncated)
        self.assertEqual(self.recorder.received, b"bye")
        self.assertIsInstance(self.recorder.reason, ConnectionLost)

    def test_reset(self) -> None:
        """
        A reset of the carrier in the middle of a frame: L{Truncated}.
        """
        self.rig.send(0, Flag.DATA, b"bye")
        self.rig.sendRaw(self.rig.peer.seal(0, Flag.DATA, b"cut off")[:-1])
        self.rig.peerCarrier.abortConnection()
        self.check_lost(Truncated)
        self.assertEqual(self.recorder.received, b"bye")

    def test_violation(self) -> None:
        """
        A violation: what was violated.
        """
        self.rig.send(0, Flag.OPEN_STREAM)
        self.check_lost(ProtocolViolation)

    def test_close(self) -> None:
        """
        Our own C{close}: output is sent, then L{ConnectionClosed}.
        """
        self.stream.write(b"last words")
        self.rig.mux.close()
        self.assertEqual(
            self.rig.sent(), [(0, Flag.DATA, 10), CLOSE_STREAM, (0, Flag.CLOSE_MUX, 0)]
        )
        self.check_lost(ConnectionClosed)

    def test_abort(self) -> None:
        """
        Our own C{abort}: L{ConnectionClosed}, at once.
        """
        self.block()
        self.stream.write(b"last words")
        self.rig.mux.abort()
        self.assertEqual(self.recorder.events, ["made"])
        self.check_lost(ConnectionClosed)
        self.assertEqual(self.rig.sent(), [])

    def test_closingStreamCut(self) -> None:
        """
        A stream that was waiting to send the rest of its output before its end
        does not end as if it had.
        """
        self.block()
        self.stream.write(b"last words")
        self.stream.loseConnection()
        self.rig.peerCarrier.abortConnection()
        self.check_lost(Truncated)

    def test_manyStreams(self) -> None:
        """
        Trap 8: every stream is told, also if they end each other.
        """
        others = [self.rig.opened() for _ in range(5)]
        for other in others:
            other.hooks["lost"] = lambda _: others[-1].stream.abortConnection()
        self.rig.peerCarrier.abortConnection()
        self.check_lost(Truncated)
        for other in others:
            self.assertEqual(other.events, ["made", "lost"])
