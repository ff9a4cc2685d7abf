"""
Tests for L{gomux._mux.scheduler}.
"""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from gomux._carrier.turns import TURN_TIME
from gomux._mux.scheduler import (
    BATCH_SIZE,
    CALM_FRAMES,
    CONTROL_FRAMES,
    Scheduler,
)
from gomux._wire.crypto import Opener, Sealer
from gomux._wire.frame import OVERHEAD, Flag, FrameParser
from gomux.error import GomuxError, LimitExceeded, NonceExhausted

KEY = bytes(32)


def refusal(streamID: int) -> list[tuple[int, int, int]]:
    """
    @return: the frames that refuse a stream: an abort, so that it does not look like a
        stream with an empty answer.
    """
    return [(streamID, Flag.WINDOW_UPDATE, 0), (streamID, Flag.CLOSE_STREAM, 0)]


class Output:
    """
    A stream with the attributes and methods that a scheduler uses.
    """

    def __init__(self, streamID: int, size: int = 0) -> None:
        self.streamID = streamID
        self.queued = False
        self.size = size
        self.window = 1 << 30
        self.taken = 0

    def sendable(self) -> int:
        return min(self.size, self.window)

    def takeOutput(self, size: int) -> bytes:
        self.size -= size
        self.window -= size
        return bytes(size)

    def outputTaken(self) -> int:
        self.taken += 1
        return self.sendable()


class SchedulerTests(SynchronousTestCase):
    """
    L{Scheduler}
    """

    def setUp(self) -> None:
        self.writes: list[bytes] = []
        self.woken = 0
        self.errors: list[GomuxError] = []
        self.parser = FrameParser(Opener(KEY))
        self.scheduler = self.make(Sealer(KEY))
        # How many writes the carrier accepts before it pauses the scheduler.
        self.room = 1000
        # The time on the clock, and how long each write takes.
        self.now = self.duration = 0.0

    def make(self, sealer: Sealer | None) -> Scheduler:
        return Scheduler(
            sealer, self.write, self.wake, self.errors.append, 3, lambda: self.now
        )

    def write(self, parts: list[bytes], size: int) -> None:
        self.writes.append(b"".join(parts))
        self.assertEqual(len(self.writes[-1]), size)
        self.now += self.duration
        self.room -= 1
        if self.room <= 0:
            self.scheduler.pauseProducing()

    def wake(self) -> None:
        self.woken += 1

    def frames(self) -> list[tuple[int, int, int]]:
        """
        @return: the frames written since the last call.
        """
        writes, self.writes = self.writes, []
        found = []
        for data in writes:
            self.parser.receive(data)
            while (frame := self.parser.nextFrame()) is not None:
                found.append((frame[0], frame[2], frame[1]))
        return found

    def test_interface(self) -> None:
        """
        A scheduler is a push producer.
        """
        verifyObject(IPushProducer, self.scheduler)

    def test_wakes(self) -> None:
        """
        Each kind of output makes the scheduler ask for a pump, and is only written by
        the pump.
        """
        self.scheduler.control(0, Flag.KEEPALIVE)
        self.scheduler.refuse(1)
        self.scheduler.credit(2, 3)
        self.scheduler.activate(Output(4, 5))
        self.assertEqual(self.woken, 4)
        self.assertEqual(self.writes, [])
        self.assertFalse(self.scheduler.idle)
        self.scheduler.pump()
        self.assertEqual(
            self.frames(),
            [
                (0, Flag.KEEPALIVE, 0),
                *refusal(1),
                (2, Flag.WINDOW_UPDATE, 3),
                (4, Flag.DATA, 5),
            ],
        )
        self.assertTrue(self.scheduler.idle)

    def test_oneWrite(self) -> None:
        """
        Frames queued before a pump leave in one write.
        """
        for streamID in range(10):
            self.scheduler.control(streamID, Flag.OPEN_STREAM)
            self.scheduler.activate(Output(streamID, 100))
        self.scheduler.pump()
        self.assertEqual(len(self.writes), 1)
        self.assertEqual(self.scheduler.bytesSent, len(self.writes[0]))

    def test_nothing(self) -> None:
        """
        A pump without output writes nothing.
        """
        self.scheduler.pump()
        self.scheduler.activate(Output(0, 0))
        self.scheduler.pump()
        self.assertEqual((self.writes, self.woken), ([], 0))

    def test_controlFirst(self) -> None:
        """
        Control frames are written ahead of data that was queued before them.
        """
        self.scheduler.activate(Output(0, 10))
        self.scheduler.control(2, Flag.CLOSE_READ)
        self.scheduler.pump()
        self.assertEqual([frame[0] for frame in self.frames()], [2, 0])

    def test_creditAddsUp(self) -> None:
        """
        Unsent credit of one stream is added up, and split into frames of at most 65536
        bytes of credit.
        """
        self.scheduler.credit(0, 65536)
        self.scheduler.credit(2, 5)
        self.scheduler.credit(0, 65537)
        self.scheduler.pump()
        frames = self.frames()
        self.assertEqual(
            sorted(frames),
            [
                (0, Flag.WINDOW_UPDATE, 1),
                (0, Flag.WINDOW_UPDATE, 65536),
                (0, Flag.WINDOW_UPDATE, 65536),
                (2, Flag.WINDOW_UPDATE, 5),
            ],
        )

    def test_forget(self) -> None:
        """
        Credit of a stream that has ended is not sent.
        """
        self.scheduler.credit(0, 5)
        self.scheduler.credit(2, 5)
        self.scheduler.forget(0)
        self.scheduler.forget(4)
        self.scheduler.pump()
        self.assertEqual(self.frames(), [(2, Flag.WINDOW_UPDATE, 5)])

    def test_refusals(self) -> None:
        """
        While the carrier is blocked, more refusals than the limit raise
        L{LimitExceeded}.  Written refusals no longer count.
        """
        self.scheduler.pauseProducing()
        for streamID in (1, 3, 5):
            self.scheduler.refuse(streamID)
        self.assertRaises(LimitExceeded, self.scheduler.refuse, 7)
        self.scheduler.resumeProducing()
        self.assertEqual(self.frames(), [*refusal(1), *refusal(3), *refusal(5)])
        self.scheduler.refuse(7)

    def test_refusalsWritten(self) -> None:
        """
        If the carrier has room, refusals are written before they reach the limit.
        """
        for streamID in range(1, 21, 2):
            self.scheduler.refuse(streamID)
        self.scheduler.pump()
        self.assertEqual(
            self.frames(), [frame for i in range(1, 21, 2) for frame in refusal(i)]
        )

    def test_fair(self) -> None:
        """
        Streams with much output take turns of one frame each, and a stream that joins
        them waits for no more than one turn of each.
        """
        for streamID in (0, 2, 4):
            self.scheduler.activate(Output(streamID, 9 * 65536))
        while not self.scheduler.idle:
            self.scheduler.pump()
        turns = [frame[0] for frame in self.frames()]
        self.assertEqual(len(turns), 27)
        for end in range(6, 24):
            counts = [turns[:end].count(streamID) for streamID in (0, 2, 4)]
            self.assertLessEqual(max(counts) - min(counts), 3)
            if end > 9:
                self.assertEqual(set(turns[end - 3 : end]), {0, 2, 4})

    def test_smallWrite(self) -> None:
        """
        A small write goes ahead of streams with megabytes of output.
        """
        for streamID in (0, 2, 4):
            self.scheduler.activate(Output(streamID, 1 << 20))
        self.room = 6
        self.scheduler.pump()
        self.frames()
        self.scheduler.activate(Output(6, 10))
        self.room = 1
        self.scheduler.resumeProducing()
        self.assertEqual(self.frames()[0], (6, Flag.DATA, 10))

    def test_smallWriteAlone(self) -> None:
        """
        Small writes do not wait until a large frame is sealed, and leave together.
        """
        for streamID in (0, 2, 4):
            self.scheduler.activate(Output(streamID, 65536), fresh=False)
        for streamID in (6, 8):
            self.scheduler.activate(Output(streamID, 10))
        self.scheduler.pump()
        sizes = [len(written) for written in self.writes]
        self.assertEqual(sizes, [2 * (OVERHEAD + 10)] + 3 * [OVERHEAD + 65536])

    def writtenFrames(self, count: int) -> list[int]:
        """
        Let the carrier accept some writes.

        @return: how many full frames each of them has.
        """
        self.writes.clear()
        self.room = count
        self.scheduler.resumeProducing()
        return [len(written) // (OVERHEAD + 65536) for written in self.writes]

    def test_calm(self) -> None:
        """
        After L{CALM_FRAMES} full frames, full frames leave two at a time until a small
        frame was sent.
        """
        for streamID in (0, 2, 4):
            self.scheduler.activate(Output(streamID, 1 << 30), fresh=False)
        self.assertEqual(self.writtenFrames(CALM_FRAMES), CALM_FRAMES * [1])
        self.assertEqual(self.writtenFrames(3), [2, 2, 2])
        self.scheduler.activate(Output(6, 10))
        self.assertEqual(self.writtenFrames(3), [0, 1, 1])

    def test_calmFresh(self) -> None:
        """
        Fresh data leaves one full frame at a time, and has its turn after bulk data.
        """
        self.scheduler.activate(Output(0, 1 << 30), fresh=False)
        self.writtenFrames(CALM_FRAMES)
        for streamID in (2, 4):
            self.scheduler.activate(Output(streamID, 65536))
        self.assertEqual(self.writtenFrames(3), [1, 2, 1])

    def test_calmAlone(self) -> None:
        """
        The two frames can be of one stream, if no other waits.
        """
        self.scheduler.activate(Output(0, (CALM_FRAMES + 3) * 65536), fresh=False)
        self.writtenFrames(CALM_FRAMES)
        self.assertEqual(self.writtenFrames(10), [2, 1])

    def test_smallWritersDoNotStarve(self) -> None:
        """
        However many streams have small writes, a stream with much output gets a turn
        after each 65536 bytes of theirs.
        """
        bulk = Output(0, 1 << 20)
        self.scheduler.activate(bulk)
        self.room = 1
        self.scheduler.pump()
        self.frames()
        small = 0
        for _ in range(4):
            for streamID in range(2, 402, 2):
                self.scheduler.activate(Output(streamID, 1000))
            self.room = 4
            self.scheduler.resumeProducing()
        frames = self.frames()
        turns = [i for i, frame in enumerate(frames) if frame[0] == 0]
        self.assertGreater(len(turns), 5)
        for first, second in zip(turns, turns[1:], strict=False):
            small = sum(frame[2] for frame in frames[first + 1 : second])
            self.assertLess(small, 65536 + 1000)

    def test_batch(self) -> None:
        """
        A write holds little more than one batch, so that later urgent output can
        overtake.  Once the carrier is full, no other write follows.
        """
        output = Output(0, 1 << 20)
        self.scheduler.activate(output)
        self.room = 1
        self.scheduler.pump()
        self.assertEqual(len(self.writes), 1)
        self.assertLess(len(self.writes[0]), BATCH_SIZE + 65536 + 52)
        self.assertTrue(self.scheduler.paused)

    def test_turn(self) -> None:
        """
        A pump stops after L{TURN_TIME} and asks for another turn of the reactor,
        however much the carrier accepts.
        """
        streams = [Output(streamID, 3 * 2 * BATCH_SIZE) for streamID in (0, 2)]
        for stream in streams:
            self.scheduler.activate(stream, fresh=False)
        self.duration = TURN_TIME / 4
        for turn in range(1, 4):
            self.woken = 0
            self.scheduler.pump()
            self.assertEqual(len(self.writes), turn * 4)
            self.assertEqual(self.woken, turn < 3)
        self.assertEqual([stream.size for stream in streams], [0, 0])

    def test_controlTurn(self) -> None:
        """
        Only a few control frames are sealed at a time, so that a flood of them does not
        block the reactor.  Data stays behind all of them.
        """
        for number in range(3 * CONTROL_FRAMES):
            self.scheduler.control(number, Flag.CLOSE_READ)
        self.scheduler.activate(Output(1000, 10))
        self.duration = TURN_TIME
        for turn in range(1, 4):
            self.scheduler.pump()
            self.assertEqual(len(self.writes), 1)
            self.assertEqual(len(self.frames()), CONTROL_FRAMES + (turn == 3))

    def test_paused(self) -> None:
        """
        While the carrier is full, nothing is written and no pump is asked for.  When
        the carrier has room, the waiting frames are written at once.
        """
        self.scheduler.pauseProducing()
        self.scheduler.pauseProducing()
        self.scheduler.control(0, Flag.KEEPALIVE)
        self.scheduler.activate(Output(2, 10))
        self.scheduler.pump()
        self.assertEqual((self.writes, self.woken), ([], 0))
        self.scheduler.resumeProducing()
        self.assertEqual(len(self.frames()), 2)

    def test_pausedInWrite(self) -> None:
        """
        The carrier may pause the scheduler again inside the write that
        C{resumeProducing} makes.  (Trap 3 in docs/design.rst.)
        """
        output = Output(0, 1 << 20)
        self.scheduler.activate(output)
        self.room = 1
        self.scheduler.pump()
        for _ in range(3):
            self.room = 1
            self.scheduler.resumeProducing()
            self.assertTrue(self.scheduler.paused)
        self.assertEqual(len(self.writes), 4)

    def test_windowEmptied(self) -> None:
        """
        A queued stream that has lost its window is passed over, and is served again
        after it is activated again.
        """
        first, second = Output(0, 10), Output(2, 10)
        self.scheduler.activate(first)
        self.scheduler.activate(second)
        first.window = 0
        self.scheduler.pump()
        self.assertEqual(self.frames(), [(2, Flag.DATA, 10)])
        self.assertFalse(first.queued)
        first.window = 4
        self.scheduler.activate(first)
        self.scheduler.pump()
        self.assertEqual(self.frames(), [(0, Flag.DATA, 4)])

    def test_queuedOnce(self) -> None:
        """
        A stream that is activated several times is queued once.
        """
        output = Output(0, 10)
        for _ in range(3):
            self.scheduler.activate(output)
        self.assertEqual(self.woken, 1)
        self.scheduler.pump()
        self.assertEqual(output.taken, 1)

    def test_again(self) -> None:
        """
        A stream that has had its turn can be activated again.
        """
        output = Output(0, 10)
        for size in (10, 20):
            output.size = size
            self.scheduler.activate(output)
            self.scheduler.pump()
            self.assertEqual(self.frames(), [(0, Flag.DATA, size)])

    def test_refilledOnce(self) -> None:
        """
        Output that a stream writes after its turn is sent by the same pump, without
        another activation.
        """

        class Refilled(Output):
            def outputTaken(stream) -> int:
                super().outputTaken()
                stream.size = 20 * (stream.taken == 1)
                return stream.size

        self.scheduler.activate(Refilled(0, 10))
        self.scheduler.pump()
        self.assertEqual(self.frames(), [(0, Flag.DATA, 10), (0, Flag.DATA, 20)])
        self.assertTrue(self.scheduler.idle)

    def test_stoppedInTurn(self) -> None:
        """
        A stream that stops the scheduler after its turn is not queued again.
        """

        class Stopper(Output):
            def outputTaken(stream) -> int:
                self.scheduler.stop()
                return super().outputTaken()

        self.scheduler.activate(Stopper(0, 1 << 20))
        self.scheduler.pump()
        self.assertEqual(len(self.frames()), 1)
        self.assertTrue(self.scheduler.idle)

    def test_nestedPump(self) -> None:
        """
        A call of C{pump} inside a pump leaves the work, in order, to the pump that is
        running.
        """
        output = Output(0, 10)

        class Writer(Output):
            def outputTaken(writer) -> int:
                if not writer.taken:
                    self.scheduler.activate(output)
                    self.scheduler.control(4, Flag.KEEPALIVE)
                    self.scheduler.pump()
                return super().outputTaken()

        self.scheduler.activate(Writer(2, 10))
        self.scheduler.pump()
        self.assertEqual([frame[0] for frame in self.frames()], [2, 4, 0])
        self.assertEqual(self.woken, 1)

    def test_refilled(self) -> None:
        """
        A stream that is filled again after each turn goes behind a stream with new
        output.
        """

        class Refilled(Output):
            def outputTaken(stream) -> int:
                stream.size = 65536
                self.scheduler.activate(stream)
                return super().outputTaken()

        for streamID in (0, 2, 4):
            self.scheduler.activate(Refilled(streamID, 65536))
        self.room = 6
        self.scheduler.pump()
        self.frames()
        self.scheduler.activate(Output(6, 10))
        self.room = 1
        self.scheduler.resumeProducing()
        self.assertEqual(self.frames()[0][0], 6)

    def test_waitedForWindow(self) -> None:
        """
        A stream with output that waited for its window goes behind a stream with new
        output.
        """
        for streamID in (0, 2, 4):
            self.scheduler.activate(Output(streamID, 65536), fresh=False)
        self.scheduler.activate(Output(6, 10))
        self.scheduler.pump()
        self.assertEqual([frame[0] for frame in self.frames()], [6, 0, 2, 4])

    def test_noNonce(self) -> None:
        """
        When the nonces run out, the frames that are already sealed are written, then
        CloseMux under the last nonce, and the error is reported.
        """
        self.scheduler = self.make(Sealer(KEY, counter=2**64 - 2))
        self.scheduler.control(0, Flag.OPEN_STREAM)
        self.scheduler.activate(Output(0, 10))
        self.scheduler.pump()
        [error] = self.errors
        self.assertIsInstance(error, NonceExhausted)
        self.assertEqual(
            self.frames(), [(0, Flag.OPEN_STREAM, 0), (0, Flag.CLOSE_MUX, 0)]
        )
        self.check_stopped()

    def test_noNonceAtTheEnd(self) -> None:
        """
        If the nonces run out in C{finish}, the last one is still used for CloseMux.
        """
        self.scheduler = self.make(Sealer(KEY, counter=2**64 - 2))
        for flag in (Flag.CLOSE_STREAM, Flag.CLOSE_STREAM):
            self.scheduler.control(0, flag)
        self.scheduler.finish()
        self.assertEqual(
            [frame[1] for frame in self.frames()], [Flag.CLOSE_STREAM, Flag.CLOSE_MUX]
        )
        self.check_stopped()

    def test_start(self) -> None:
        """
        Without a sealer nothing is written and no pump is asked for, until C{start}
        gives one.
        """
        self.scheduler = self.make(None)
        self.scheduler.control(0, Flag.OPEN_STREAM)
        self.scheduler.pump()
        self.assertEqual((self.writes, self.woken), ([], 0))
        self.scheduler.start(Sealer(KEY))
        self.assertEqual(self.woken, 1)
        self.scheduler.pump()
        self.assertEqual(self.frames(), [(0, Flag.OPEN_STREAM, 0)])

    def test_startIdle(self) -> None:
        """
        C{start} asks for no pump if there is nothing to write.
        """
        self.scheduler = self.make(None)
        self.scheduler.start(Sealer(KEY))
        self.assertEqual(self.woken, 0)

    def test_finish(self) -> None:
        """
        C{finish} writes the queued control frames, and CloseMux as the last frame, even
        if the carrier is full, but no data.  After it nothing is written.
        """
        self.scheduler.pauseProducing()
        self.scheduler.activate(Output(0, 10))
        self.scheduler.credit(2, 7)
        self.scheduler.refuse(4)
        self.scheduler.control(0, Flag.CLOSE_STREAM)
        self.scheduler.finish()
        self.assertEqual(
            [frame[:2] for frame in self.frames()],
            [
                (0, Flag.CLOSE_STREAM),
                (4, Flag.WINDOW_UPDATE),
                (4, Flag.CLOSE_STREAM),
                (2, Flag.WINDOW_UPDATE),
                (0, Flag.CLOSE_MUX),
            ],
        )
        self.check_stopped()

    def test_finishNothing(self) -> None:
        """
        C{finish} writes only CloseMux if no control frame is queued.
        """
        self.scheduler.finish()
        self.assertEqual([frame[1] for frame in self.frames()], [Flag.CLOSE_MUX])
        self.check_stopped()

    def test_stop(self) -> None:
        """
        After C{stop} nothing is written, even if the carrier resumes the scheduler.
        """
        self.scheduler.control(0, Flag.KEEPALIVE)
        self.scheduler.stop()
        self.check_stopped()

    def check_stopped(self) -> None:
        """
        Check that the scheduler neither queues nor writes anything.
        """
        self.assertTrue(self.scheduler.stopped)
        self.assertTrue(self.scheduler.idle)
        woken = self.woken
        self.scheduler.control(0, Flag.KEEPALIVE)
        self.assertTrue(self.scheduler.idle)
        self.scheduler.refuse(2)
        self.scheduler.credit(4, 100)
        self.assertTrue(self.scheduler.idle)
        self.scheduler.activate(Output(0, 10))
        self.assertTrue(self.scheduler.idle)
        self.scheduler.resumeProducing()
        self.assertTrue(self.scheduler.paused)
        self.scheduler.pump()
        self.assertEqual((self.writes, self.woken), ([], woken))

    def test_stopProducing(self) -> None:
        """
        C{stopProducing} only pauses the scheduler, because the carrier calls it before
        the mux gets C{connectionLost}.  (Trap 9 in docs/design.rst.)
        """
        self.scheduler.stopProducing()
        self.assertTrue(self.scheduler.paused)
        self.assertFalse(self.scheduler.stopped)
        self.scheduler.control(0, Flag.KEEPALIVE)
        self.scheduler.pump()
        self.assertEqual(self.writes, [])

    def test_controlQueued(self) -> None:
        """
        C{controlQueued} counts the queued control frames, without refusals and credit.
        """
        self.scheduler.control(0, Flag.OPEN_STREAM)
        self.scheduler.control(0, Flag.CLOSE_READ)
        self.scheduler.refuse(1)
        self.scheduler.credit(0, 1)
        self.assertEqual(self.scheduler.controlQueued, 2)
        self.scheduler.pump()
        self.assertEqual(self.scheduler.controlQueued, 0)

    def test_bytesSent(self) -> None:
        """
        C{bytesSent} counts every byte that is written.
        """
        self.scheduler.activate(Output(0, 300000))
        self.scheduler.control(2, Flag.KEEPALIVE)
        self.scheduler.credit(4, 100000)
        self.scheduler.pump()
        self.scheduler.finish()
        self.assertEqual(self.scheduler.bytesSent, sum(map(len, self.writes)))
