"""
Faults and abuse: a peer sends too many legal frames, and applications raise.
"""

from __future__ import annotations

import random
import time
from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from gomux import Limits
from gomux.error import LimitExceeded
from interop.faults.attacker import (
    CLOSE,
    CLOSE_READ,
    CLOSE_WRITE,
    DATA,
    KEEPALIVE,
    OPEN,
    OVERHEAD,
    UPDATE,
)
from interop.faults.cases import (
    SERVER,
    App,
    RowTestCase,
    inBothRoles,
    row,
)

SOON_SPENT = Limits(ignoredBurst=50, ignoredRate=0.001)


@inBothRoles
class Floods(RowTestCase):
    """
    A peer sends frames that are legal one by one, but too many of them.
    """

    def openMany(self, count: int) -> list[int]:
        """
        Have the attacker open streams, all in one write.

        @return: Their IDs.
        """
        numbers = [self.attacker.nextID + 2 * i for i in range(count)]
        self.attacker.nextID += 2 * count
        self.attacker.transport.write(
            b"".join(self.attacker.frame(OPEN, number) for number in numbers)
        )
        return numbers

    @row(6)
    async def test_tooManyStreams(self) -> None:
        """
        Streams beyond C{maxStreams} are refused, and a stream that ends makes room for
        another.
        """
        await self.start(limits=Limits(maxStreams=10))
        await self.attacker.sync()
        numbers = self.openMany(12)
        await self.attacker.untilFrame(CLOSE, numbers[-1])
        self.assertEqual(self.attacker.count(CLOSE), 3)
        self.assertEqual(self.mux.streamCount, 10)
        self.attacker.send(CLOSE, numbers[0])
        streamID, _ = await self.stream()
        self.assertEqual(self.attacker.count(CLOSE), 3)
        await self.assertLives()

    @row(6)
    async def test_openedTooFast(self) -> None:
        """
        A peer that opens streams too fast is slowed to C{openRate}; other peers are
        not.
        """
        await self.start(limits=Limits(openBurst=10, openRate=1000))
        await self.attacker.sync()
        began = time.monotonic()
        self.openMany(500)
        await self.attacker.sync()
        self.assertGreater(time.monotonic() - began, 0.4)
        self.assertEqual(self.mux.streamCount, 501)
        await self.assertLives()

    @row(6)
    async def test_refusalsUnread(self) -> None:
        """
        A peer that does not read its refusals is dropped when C{maxRefusals} of them,
        at most 17 KiB, are unsent.
        """
        await self.start(limits=Limits(maxStreams=1))
        await self.attacker.sync()
        self.attacker.transport.pauseProducing()
        self.assertLessEqual(Limits().maxRefusals * 2 * OVERHEAD, 17 * 1024)

        async def flood() -> None:
            while self.mux.reason is None:
                self.openMany(2000)
                await self.eventually(
                    lambda: (
                        not self.attacker.transport.dataBuffer
                        and not self.attacker.transport._tempDataLen
                        or self.mux.reason
                    )
                )

        await flood()
        self.attacker.transport.resumeProducing()
        await self.assertMuxEnds(LimitExceeded, "refus")

    @row(7)
    async def test_rapidReset(self) -> None:
        """
        A peer that opens streams and closes them again at once loses its mux when it
        exceeds C{resetBurst}.
        """
        await self.start(limits=Limits(resetBurst=100, resetRate=0.001))
        await self.attacker.sync()
        for i in range(101):
            streamID = self.attacker.open()
            self.attacker.send(CLOSE, streamID)
            if i == 99:
                await self.assertLives()
        await self.assertMuxEnds(LimitExceeded, "too fast")

    @row(7)
    async def test_ordinaryChurn(self) -> None:
        """
        Opening and closing 2000 streams a second is allowed indefinitely; the test
        runs for three bursts.
        """
        await self.start(limits=Limits(resetBurst=400))
        await self.attacker.sync()
        began, done = time.monotonic(), 0
        while done < 1200:
            due = min(1200, int((time.monotonic() - began) * 2000) + 1)
            for _ in range(min(due - done, 300)):
                streamID = self.attacker.open()
                self.attacker.send(CLOSE, streamID)
                done += 1
            await self.attacker.sync()
        await self.assertLives()
        self.assertEqual(self.mux._streams.peerCount, 1)

    @row(8)
    async def test_closedButNotDone(self) -> None:
        """
        A stream that the peer has closed counts toward C{maxStreams} until its
        application has read everything.
        """
        await self.start(limits=Limits(maxStreams=3))
        await self.attacker.sync()
        busy = []
        for _ in range(2):
            streamID, app = await self.stream()
            app.transport.pauseProducing()
            app.transport.write(b"answer")
            await self.attacker.untilFrame(DATA, streamID)
            self.attacker.send(DATA, streamID, b"work")
            self.attacker.send(CLOSE, streamID)
            busy.append(app)
        await self.attacker.sync()
        refused = self.attacker.open()
        await self.attacker.untilFrame(CLOSE, refused)
        busy[0].transport.resumeProducing()
        await busy[0].lost
        self.assertEqual(busy[0].received, b"work")
        await self.stream()
        await self.assertLives()

    async def assertBudget(self, frame: bytes, words: str) -> None:
        """
        Check that 50 copies of a frame are accepted without a log line, and that
        further copies end the mux.

        @param words: What the mux's reason says.
        """
        await self.attacker.sync()
        self.attacker.transport.write(frame * 50)
        await self.assertLives()
        self.assertEqual(self.loggedHere(), [])
        self.attacker.transport.write(frame * 20)
        await self.assertMuxEnds(LimitExceeded, words)

    @row(9)
    async def test_emptyData(self) -> None:
        """
        Empty Data frames end the mux when they exceed their budget.
        """
        await self.start(limits=SOON_SPENT)
        streamID, _ = await self.stream()
        await self.assertBudget(self.attacker.frame(DATA, streamID), "empty data")

    @row(11)
    async def test_keepalives(self) -> None:
        """
        Keepalives end the mux when they exceed their budget.  Within it, none is
        logged.
        """
        await self.start(limits=SOON_SPENT)
        await self.assertBudget(self.attacker.frame(KEEPALIVE), "keepalives")

    @row(11, 21)
    async def test_unknown(self) -> None:
        """
        Frames with unknown flags end the mux when they exceed their budget.  Within it,
        none is logged.
        """
        await self.start(limits=SOON_SPENT)
        await self.assertBudget(self.attacker.frame(77), "without effect")

    @row(27)
    async def test_neverOpened(self) -> None:
        """
        Frames for streams that were never opened end the mux when they exceed their
        budget.
        """
        await self.start(limits=SOON_SPENT)
        for flag in (DATA, UPDATE, CLOSE_READ, CLOSE_WRITE, CLOSE):
            self.mux, self.attacker = await self.pair()
            frame = self.attacker.frame(flag, self.attacker.nextID + 4000)
            await self.assertBudget(frame, "never opened")
            self.events.clear()

    @row(27)
    async def test_neverOpenedBelow(self) -> None:
        """
        This holds also once the peer has opened the stream with its highest ID.
        """
        await self.start(limits=SOON_SPENT)
        lowest = self.attacker.nextID
        self.attacker.send(OPEN, lowest + 2**32 - 2)
        await self.attacker.sync()
        frame = self.attacker.frame(CLOSE_WRITE, lowest + 4000)
        await self.assertBudget(frame, "never opened")

    @row(26)
    async def test_lateFrames(self) -> None:
        """
        Any number of frames for ended streams is legal.  Their data earns no credit,
        and the mux remembers nothing of the streams.
        """
        await self.start(limits=SOON_SPENT)
        await self.attacker.sync()
        ended = []
        for _ in range(20):
            streamID, app = await self.stream()
            app.transport.loseConnection()
            await self.attacker.untilFrame(CLOSE, streamID)
            ended.append(streamID)
        for streamID in ended:
            self.attacker.transport.write(
                self.attacker.frame(DATA, streamID, bytes(4096)) * 40
                + self.attacker.frame(UPDATE, streamID, length=4096) * 40
                + self.attacker.frame(CLOSE_READ, streamID)
                + self.attacker.frame(CLOSE_WRITE, streamID)
                + self.attacker.frame(CLOSE, streamID)
            )
        await self.assertLives()
        self.assertEqual(sum(map(self.attacker.credit, ended)), 0)
        self.assertEqual(self.mux.streamCount, 1)
        self.assertEqual(self.mux._streams.peerCount, 1)

    @row(6, 13)
    async def test_controlUnread(self) -> None:
        """
        A peer that makes the subject send control frames, and does not read them, is
        dropped when more than C{maxControl} of them are queued.
        """
        await self.start(limits=Limits(maxControl=500))
        await self.attacker.sync()
        self.attacker.transport.pauseProducing()
        most = 0
        while self.mux.reason is None:
            numbers = self.openMany(500)
            self.attacker.transport.write(
                b"".join(self.attacker.frame(CLOSE_READ, n) for n in numbers)
            )
            await self.eventually(
                lambda: (
                    not self.attacker.transport.dataBuffer
                    and not self.attacker.transport._tempDataLen
                    or self.mux.reason
                )
            )
            most = max(most, self.mux._scheduler.controlQueued)
            self.assertLess(most, 10000)
        self.attacker.transport.resumeProducing()
        await self.assertMuxEnds(LimitExceeded)


class Raising(App):
    """
    Raises in one of its methods.

    @param where: The name of the method.
    """

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def _raise(self, where: str) -> None:
        if where == self.where:
            raise ZeroDivisionError(where)

    def connectionMade(self) -> None:
        self._raise("connectionMade")

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if data != b"ECHO":
            self._raise("dataReceived")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._raise("connectionLost")


class RaisingApps:
    """
    Makes L{Raising} protocols, or raises in C{buildProtocol}.

    @ivar where: The name of the method that raises.
    """

    where = ""

    def __init__(self) -> None:
        self.streams: dict[int, Any] = {}

    def buildProtocol(self, addr: Any) -> App:
        if self.where == "buildProtocol":
            raise ZeroDivisionError(self.where)
        made = self.streams[addr.streamID] = Raising(self.where)
        return made


@inBothRoles
class Applications(RowTestCase):
    """
    The application on a stream raises an exception.
    """

    @row(48)
    async def test_raises(self) -> None:
        """
        An application that raises loses its stream, and its traceback is logged.  The
        mux goes on.
        """
        apps = RaisingApps()
        await self.start(apps)
        await self.attacker.sync()
        for where in ("buildProtocol", "connectionMade", "dataReceived"):
            apps.where = where
            streamID = self.attacker.open()
            self.attacker.send(DATA, streamID, b"data")
            await self.attacker.untilFrame(CLOSE, streamID)
            await self.assertLives()
            errors = self.flushLoggedErrors(ZeroDivisionError)
            self.assertEqual(len(errors), 1)
            self.assertIn(where, errors[0].getTraceback())
            if where != "buildProtocol":
                self.assertEqual(apps.streams[streamID].losses, 1)
        apps.where = "connectionLost"
        streamID = self.attacker.open()
        self.attacker.send(CLOSE, streamID)
        await self.assertLives()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class UnauthenticatedAsServer(RowTestCase):
    """
    Clients connect and never send an authenticated frame.
    """

    pairing = SERVER

    @row(35)
    async def test_oldestEvicted(self) -> None:
        """
        A connection beyond C{maxUnauthenticated} has the oldest unauthenticated one
        dropped.  Authenticated connections do not count.
        """
        # No connection is refused instead.
        self.patch(random, "random", lambda: 1.0)
        await self.start(limits=Limits(maxUnauthenticated=3))
        await self.attacker.sync()
        await self._bystander.sync()
        frame = self.attacker.frame(KEEPALIVE)
        idle = []
        for size in (0, 1, 36, 51):
            mux, attacker = await self.pair()
            attacker.transport.write(frame[:size])
            idle.append((mux, attacker))
        self.mux, self.attacker = idle[0]
        await self.assertMuxEnds(LimitExceeded, "first frame")
        self.assertEqual([mux.reason is None for mux, _ in idle], [False] + [True] * 3)
        mux, attacker = idle[1]
        attacker.transport.write(frame[1:])
        await attacker.sync()
        self.assertTrue(mux.authenticated)
