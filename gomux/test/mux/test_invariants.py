"""
Tests for the C{checkInvariants} methods, on which other tests rely: they accept
consistent bookkeeping, and raise an error for bookkeeping that is wrong.
"""

from __future__ import annotations

from collections import deque
from unittest.mock import Mock, patch

from twisted.internet.protocol import connectionDone
from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits
from gomux._carrier.turns import DONE
from gomux._mux.incoming import Incoming
from gomux._mux.muxlife import ENDED, ENDING
from gomux._mux.nextturn import NextTurn
from gomux._mux.receiver import Receiver, ReceiveState
from gomux._mux.scheduler import Scheduler
from gomux._mux.sender import Sender, SendState
from gomux._wire.frame import Flag
from gomux._wire.growth import GrowingWindow, GrowthPolicy
from gomux._wire.window import INITIAL_WINDOW, MAX_HELD, ReceiveWindow
from gomux.error import ConnectionClosed
from gomux.test.support.helpers import Parts, PushProducer, Rig


class WindowTests(SynchronousTestCase):
    """
    L{ReceiveWindow.checkInvariants} and L{GrowthPolicy.checkInvariants}
    """

    def setUp(self) -> None:
        self.window = GrowingWindow()
        self.window.received(5000)
        self.window.consumed(3000)
        self.growth = GrowthPolicy(500000, 400000)

    def test_right(self) -> None:
        """
        The checks pass before a window has grown, and after each step of its growth.
        """
        self.window.checkInvariants(2000)
        self.growth.checkInvariants([self.window])
        now, wait = 1000.0, 1.0
        for _ in range(6):
            size = self.window.available
            self.window.received(size)
            self.window.checkInvariants(2000 + size)
            now += wait
            wait /= 2
            credit = self.window.consumed(size)
            self.growth.credited(self.window, credit, now, 0)
            self.window.checkInvariants(2000)
            self.growth.checkInvariants([self.window])
        self.assertGreater(self.window.size, INITIAL_WINDOW)

    def test_window(self) -> None:
        """
        A window whose size, available bytes or held credit is off by one byte fails the
        check, and so does a wrong count of unread bytes.
        """
        for name in ("size", "available", "held"):
            for change in (-1, 1):
                with patch.object(
                    self.window, name, getattr(self.window, name) + change
                ):
                    self.assertRaises(AssertionError, self.window.checkInvariants, 2000)
        self.assertRaises(AssertionError, self.window.checkInvariants, 1999)

    def test_bounds(self) -> None:
        """
        A window with a number out of its bounds fails the check, even if its numbers
        add up.
        """
        for size, available, held, unread in (
            (INITIAL_WINDOW - 1, INITIAL_WINDOW - 1, 0, 0),
            (INITIAL_WINDOW, -1, 0, INITIAL_WINDOW + 1),
            (INITIAL_WINDOW, INITIAL_WINDOW - MAX_HELD - 1, MAX_HELD + 1, 0),
        ):
            window = ReceiveWindow()
            window.size, window.available, window.held = size, available, held
            self.assertRaises(AssertionError, window.checkInvariants, unread)

    def test_growth(self) -> None:
        """
        The check fails if growth is granted twice or lost, if a window holds negative
        credit, and if a window or the sum of all growth is above its limit.
        """
        windows = [self.window]
        self.growth.budget -= 1
        self.assertRaises(AssertionError, self.growth.checkInvariants, windows)
        self.window.size += 1
        self.growth.checkInvariants(windows)
        self.assertRaises(AssertionError, self.growth.checkInvariants, [])
        self.window.held = -1
        self.assertRaises(AssertionError, self.growth.checkInvariants, windows)
        self.window.held = 0
        for grown in (500001 - INITIAL_WINDOW, 400001):
            growth = GrowthPolicy(500000 if grown < 400000 else 1000000, 400000)
            self.window.size = INITIAL_WINDOW + grown
            growth.budget -= grown
            self.assertRaises(AssertionError, growth.checkInvariants, windows)


class SchedulerTests(SynchronousTestCase):
    """
    L{Scheduler.checkInvariants}
    """

    def setUp(self) -> None:
        self.scheduler = Scheduler(
            None, Mock(), Mock(), Mock(), maxRefusals=2, seconds=lambda: 0.0
        )
        self.stream = Rig().opened().stream
        self.sender = self.stream.makeSender()
        self.streams = {0: self.sender}

    def check(self) -> None:
        self.scheduler.checkInvariants(self.streams, self.streams.values())

    def assertNoticed(self) -> None:
        self.assertRaises(AssertionError, self.check)

    def test_right(self) -> None:
        """
        A scheduler with control frames, refusals and credit to send passes the check,
        and so does a stopped scheduler.
        """
        self.scheduler.control(0, Flag.CLOSE_READ)
        self.scheduler.refuse(2)
        self.scheduler.credit(0, 100)
        self.check()
        self.scheduler.stop()
        self.check()

    def test_refusals(self) -> None:
        """
        More queued refusals than the limit allows fail the check.
        """
        self.scheduler.refuse(2)
        self.scheduler.refuse(4)
        self.check()
        with patch.object(self.scheduler, "_maxRefusals", 1):
            self.assertNoticed()

    def test_credit(self) -> None:
        """
        Credit for a stream that is not open fails the check, and so does credit of 0
        bytes.
        """
        self.scheduler.credit(2, 100)
        self.assertNoticed()
        self.scheduler.forget(2)
        self.check()
        self.scheduler.credit(0, 0)
        self.assertNoticed()

    def test_queued(self) -> None:
        """
        A queued stream that is not marked as queued fails the check, whether the stream
        is open or not.
        """
        self.stream.write(b"x")
        self.sender.queued = False
        self.scheduler.activate(self.sender)
        self.check()
        self.sender.queued = False
        self.assertNoticed()
        self.streams.clear()
        self.assertNoticed()

    def test_stopped(self) -> None:
        """
        A stopped scheduler that still has frames to send fails the check.
        """
        self.scheduler.control(0, Flag.CLOSE_READ)
        self.check()
        with patch.object(self.scheduler, "stopped", True):
            self.assertNoticed()


class StreamTests(SynchronousTestCase):
    """
    L{StreamLife.checkInvariants<gomux._mux.streamlife.StreamLife.checkInvariants>}
    """

    def setUp(self) -> None:
        self.rig = Rig()
        self.stream = self.rig.opened().stream

    def assertNoticed(self) -> None:
        self.assertRaises(AssertionError, self.stream.checkInvariants)

    def test_sendWindow(self) -> None:
        """
        A send window that is negative, or larger than the protocol allows, fails the
        check.
        """
        for size in (-1, 2**31):
            self.stream.sendWindow = size
            self.assertNoticed()

    def test_receiveWindow(self) -> None:
        """
        Unread input that is not counted in the receive window fails the check.
        """
        receiver = self.paused()
        with patch.object(receiver, "window", GrowingWindow()):
            self.assertNoticed()

    def paused(self) -> Receiver:
        """
        Pause the stream, and have the peer send input.

        @return: the stream's receiver, which holds unread input.
        """
        self.stream.pauseProducing()
        self.rig.send(0, Flag.DATA, b"input")
        self.stream.checkInvariants()
        assert self.stream.receiver is not None
        return self.stream.receiver

    def test_input(self) -> None:
        """
        The check fails if unread input is kept after reading was closed or while the
        stream is not paused, and if EOF is delayed though there is no unread input.
        """
        receiver = self.paused()
        with patch.object(self.stream, "paused", False):
            self.assertNoticed()
        for state in (ReceiveState.REFUSED, ReceiveState.ENDED, ReceiveState.CLOSED):
            with patch.object(receiver, "state", state):
                self.assertNoticed()
        with patch.object(Receiver, "_drop"):
            self.stream.loseConnection()
        self.assertNoticed()
        self.stream = self.rig.opened(b"input").stream
        with patch.object(self.stream.receiver, "state", ReceiveState.ENDING):
            self.assertNoticed()

    def test_output(self) -> None:
        """
        The check fails if unsent output is miscounted, if a closed sender keeps output,
        and if a sender without output keeps a buffer.
        """
        self.stream.write(bytes(INITIAL_WINDOW + 1))
        self.rig.run()
        self.assertEqual(self.stream.unsent, 1)
        self.stream.checkInvariants()
        sender = self.stream.sender
        for name, value in (
            ("unsent", 2),
            ("_pieces", None),
            ("state", SendState.CLOSED),
        ):
            with patch.object(sender, name, value):
                self.assertNoticed()
        self.stream = self.rig.opened().stream
        with patch.object(self.stream.makeSender(), "_pieces", deque()):
            self.assertNoticed()

    def test_ends(self) -> None:
        """
        The check fails if a sender without output is still finishing, or if a closing
        stream has no finishing sender or still reads.  After the end of the stream, an
        open sender fails the check.
        """
        sender = self.stream.makeSender()
        with patch.object(sender, "state", SendState.FINISHING):
            self.assertNoticed()
        self.stream.write(bytes(INITIAL_WINDOW + 1))
        self.rig.send(0, Flag.DATA, b"input")
        self.stream.loseConnection()
        self.rig.run()
        self.stream.checkInvariants()
        with patch.object(self.stream, "sender", None):
            self.assertNoticed()
        with patch.object(sender, "state", SendState.OPEN):
            self.assertNoticed()
        with patch.object(self.stream.receiver, "state", ReceiveState.OPEN):
            self.assertNoticed()
        self.stream.abortConnection()
        self.stream.checkInvariants()
        with patch.object(sender, "state", SendState.OPEN):
            self.assertNoticed()

    def test_producer(self) -> None:
        """
        The check fails if the sender's state says that there is a producer and there is
        none, or the other way round, and if a producer is left after the end.
        """
        sender = self.stream.makeSender()
        with patch.object(sender, "_producer", PushProducer()):
            self.assertNoticed()
        sender.registerProducer(PushProducer(), False)
        self.stream.checkInvariants()
        with patch.object(sender, "_producer", None):
            self.assertNoticed()
        with patch.object(sender, "state", SendState.CLOSED):
            self.assertNoticed()
        sender.unregisterProducer()
        sender.registerProducer(PushProducer(), True)
        self.stream.loseWriteConnection()
        self.stream.checkInvariants()
        with patch.object(Sender, "close"):
            self.stream.abortConnection()
        self.assertNoticed()

    def test_reason(self) -> None:
        """
        A live stream that has a reason for its end fails the check.
        """
        with patch.object(self.stream, "_reason", ConnectionClosed()):
            self.assertNoticed()


class MuxTests(SynchronousTestCase):
    """
    L{MuxProtocol.checkInvariants<gomux.MuxProtocol.checkInvariants>}
    """

    def setUp(self) -> None:
        self.rig = rig = Rig(limits=Limits(maxStreams=5))
        self.mux = rig.mux
        self.streams = Parts(self.mux).streams
        self.mine, self.theirs = rig.open().stream, rig.opened().stream
        for stream in (self.mine, self.theirs):
            rig.send(stream.streamID, Flag.DATA, b"input")
            stream.write(b"output")
        rig.sent()
        self.mux.checkInvariants()

    def assertNoticed(self) -> None:
        self.assertRaises(AssertionError, self.mux.checkInvariants)

    def test_streams(self) -> None:
        """
        The check of the mux fails if a stream has a wrong ID, a wrong send window, or a
        sender that is wrongly marked as queued.
        """
        for stream in (self.mine, self.theirs):
            sender = stream.makeSender()
            for part, name, value in (
                (stream, "streamID", 7),
                (stream, "sendWindow", -1),
                (sender, "queued", True),
            ):
                with patch.object(part, name, value):
                    self.assertNoticed()
        self.mux.checkInvariants()

    def test_growth(self) -> None:
        """
        A window that has grown without taking from the mux's growth budget fails the
        check.
        """
        for stream in (self.mine, self.theirs):
            window = stream.receiveWindow
            assert window is not None
            window.size += 1
            window.available += 1
            stream.checkInvariants()
            self.assertNoticed()
            window.size -= 1
            window.available -= 1

    def test_counts(self) -> None:
        """
        The check fails if more protocols are counted for the peer's streams than the
        limit allows, and if the protocol of an open stream is no longer counted, or not
        for its peer.
        """
        with patch.object(self.streams.acceptor.use, "streams", 0):
            self.assertNoticed()
        with patch.object(self.streams, "peerCount", 6):
            self.assertNoticed()
        self.streams.streamLost(self.theirs)
        self.assertNoticed()
        use = self.streams.acceptor.use
        with (
            patch.object(self.streams, "peerCount", 1),
            patch.object(use, "streams", 1),
        ):
            self.streams.account.opened(0)
            self.streams.acceptor.use.streams += 1
            self.mux.checkInvariants()
            self.streams.streamLost(self.mine)
            self.assertNoticed()

    def test_ids(self) -> None:
        """
        An open stream with an ID that was not used yet fails the check.
        """
        for name in ("nextID", "peerNextID"):
            with patch.object(self.streams, name, 0):
                self.assertNoticed()

    def test_state(self) -> None:
        """
        A state of the mux that contradicts its reason or its loss fails the check.
        """
        for name, value in (
            ("state", ENDING),
            ("state", ENDED),
            ("reason", ConnectionClosed()),
            ("loss", connectionDone),
        ):
            with patch.object(Parts(self.mux).life, name, value):
                self.assertNoticed()
        self.mux.checkInvariants()

    def test_queues(self) -> None:
        """
        A stream that has output to send and is not queued fails the check, and so does
        a stream that is queued twice.
        """
        self.rig.carrier.producer.pauseProducing()
        with patch.object(self.streams, "activate"):
            self.mine.write(b"x")
            self.assertNoticed()
        self.mine.write(b"y")
        self.mux.checkInvariants()
        assert self.mine.sender is not None
        self.mine.sender.queued = False
        self.assertNoticed()
        self.mine.write(b"z")
        self.assertNoticed()

    def test_forgotten(self) -> None:
        """
        A waiting call or frame fails the check if no turn of the reactor was scheduled
        for it.
        """
        self.patch(NextTurn, "wake", lambda nextTurn: None)
        for isCall in (False, True):
            mux = Rig().mux
            mux.checkInvariants()
            if isCall:
                Parts(mux).nextTurn.callSoon(lambda: None)
            else:
                Parts(mux).scheduler.control(0, Flag.CLOSE_READ)
            self.assertRaises(AssertionError, mux.checkInvariants)

    def test_pending(self) -> None:
        """
        A complete frame that was received and that no later turn will handle fails the
        check.
        """
        with patch.object(Incoming, "take", return_value=DONE):
            self.rig.send(0, Flag.DATA, bytes(65536))
            self.assertNoticed()

    def test_end(self) -> None:
        """
        After its end a mux may have no streams and no delayed calls.  A paused protocol
        may still wait for its C{connectionLost}.
        """
        self.theirs.pauseProducing()
        self.rig.send(0, Flag.DATA, b"unread")
        self.rig.peerCarrier.abortConnection()
        self.rig.run()
        self.assertEqual((self.mux.streamCount, self.mux.protocolCount), (0, 1))
        self.mux.checkInvariants()
        call = self.rig.clock.callLater(1, id)
        for holder, name in (
            (Parts(self.mux).carrierLiveness, "_call"),
            (Parts(self.mux).peerLiveness, "_call"),
            (Parts(self.mux).life, "_drainCall"),
            (Parts(self.mux).life, "_closeCall"),
        ):
            with patch.object(holder, name, call):
                self.assertNoticed()
        with patch.dict(self.streams.byID, {self.theirs.streamID: self.theirs}):
            self.assertNoticed()
        self.theirs.resumeProducing()
        self.rig.run()
        self.assertEqual(self.mux.protocolCount, 0)
        self.mux.checkInvariants()
