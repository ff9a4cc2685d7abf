"""
Faults and abuse: windows, credit and slow readers.
"""

from __future__ import annotations

from twisted.internet.error import ConnectionDone

from gomux import Limits
from gomux.error import ProtocolViolation, WriteStalled
from interop.faults.attacker import (
    CLOSE_READ,
    DATA,
    KEEPALIVE,
    UPDATE,
    WINDOW,
)
from interop.faults.cases import Apps, HalfApp, RowTestCase, inBothRoles, row

FRAME = 65536


@inBothRoles
class Flow(RowTestCase):
    """
    A peer or an application stretches or breaks the rules of flow control.
    """

    @row(2)
    async def test_allPaused(self) -> None:
        """
        While all readers are paused and all receive windows are full, the mux still
        reads the carrier: credit from the peer lets the subject send more.
        """
        await self.start()
        await self.attacker.sync()
        streams = [await self.stream() for _ in range(20)]
        for streamID, app in streams:
            app.transport.pauseProducing()
            for _ in range(2):
                self.attacker.send(DATA, streamID, bytes(FRAME))
        await self.assertLives()
        self.attacker.send(KEEPALIVE)
        first, app = streams[0]
        app.transport.write(b"x" * WINDOW)
        await self.attacker.until(lambda: len(self.attacker.data(first)) == WINDOW)
        self.attacker.send(UPDATE, first, length=FRAME)
        app.transport.write(b"y" * FRAME)
        await self.attacker.until(lambda: self.attacker.data(first).endswith(b"y"))
        for streamID, app in streams:
            self.assertEqual(self.attacker.credit(streamID), 0)
            app.transport.resumeProducing()
        await self.attacker.until(
            lambda: all(self.attacker.credit(number) for number, _ in streams)
        )
        self.assertEqual({len(app.received) for _, app in streams}, {WINDOW})

    @row(3)
    async def test_overWindow(self) -> None:
        """
        Data one byte over the window ends the mux.  The application still receives the
        data before it.
        """
        await self.start()
        streamID, app = await self.stream()
        self.attacker.send(DATA, streamID, b"a" * 10)
        await self.attacker.sync()
        app.transport.pauseProducing()
        for _ in range(2):
            self.attacker.send(DATA, streamID, b"b" * (FRAME - 5))
        await self.assertLives()
        # The subject may have sent the credit for the 10 bytes, or not yet.
        credit = self.attacker.credit(streamID)
        self.attacker.send(DATA, streamID, b"c" * (credit + 1))
        await self.assertMuxEnds(ProtocolViolation, "window")
        self.assertEqual(bytes(app.received), b"a" * 10)
        app.transport.resumeProducing()
        await self.eventually(lambda: app.losses)
        self.assertEqual(bytes(app.received), b"a" * 10 + b"b" * 2 * (FRAME - 5))
        self.assertIsInstance(app.reason, ProtocolViolation)

    @row(4)
    async def test_creditPastTheEnd(self) -> None:
        """
        Credit that makes the send window 2**31 bytes ends the mux; one byte less is
        accepted.
        """
        await self.start()
        streamID, app = await self.stream()
        step = self.attacker.frame(UPDATE, streamID, length=FRAME)
        update = self.attacker.frame(UPDATE, streamID, length=FRAME - 1)
        whole = (2**31 - WINDOW) // FRAME - 1
        # A genuine frame may be sent again: nonces are not checked.
        self.attacker.transport.write(step * whole + update)
        await self.assertLives()
        self.attacker.send(UPDATE, streamID, length=1)
        await self.assertMuxEnds(ProtocolViolation, "2**31")
        self.assertEqual(app.losses, 1)

    @row(5)
    async def test_emptyCredit(self) -> None:
        """
        A WindowUpdate of 0 bytes counts against the budget for frames without effect.
        Beyond the budget it ends the mux.
        """
        await self.start(limits=Limits(ignoredBurst=50, ignoredRate=0.001))
        streamID, _ = await self.stream()
        frame = self.attacker.frame(UPDATE, streamID, length=0)
        self.attacker.transport.write(frame * 50)
        await self.assertLives()
        self.attacker.transport.write(frame)
        await self.assertMuxEnds(ProtocolViolation, "0 bytes")

    @row(5)
    async def test_moreCreditThanSent(self) -> None:
        """
        Credit for more bytes than the subject has sent enlarges the send window.
        """
        await self.start()
        streamID, app = await self.stream()
        self.attacker.send(UPDATE, streamID, length=FRAME)
        await self.attacker.sync()
        app.transport.write(bytes(WINDOW + FRAME + 1))
        size = WINDOW + FRAME
        await self.attacker.until(lambda: len(self.attacker.data(streamID)) >= size)
        await self.assertLives()
        self.assertEqual(len(self.attacker.data(streamID)), size)

    @row(12)
    async def test_dribblingCredit(self) -> None:
        """
        Credit that arrives one byte at a time is collected until it allows a full Data
        frame.
        """
        await self.start()
        streamID, app = await self.stream()
        app.transport.write(bytes(WINDOW * 2))
        await self.attacker.until(lambda: len(self.attacker.data(streamID)) == WINDOW)
        before = self.attacker.count(DATA, streamID)
        frame = self.attacker.frame(UPDATE, streamID, length=1)
        for _ in range(70):
            self.attacker.transport.write(frame * 1000)
        await self.assertLives()
        sizes = [f.length for f in self.attacker.frames if f[:2] == (DATA, streamID)][
            before:
        ]
        self.assertEqual(sizes, [FRAME])

    @row(13)
    async def test_neverReads(self) -> None:
        """
        A peer that grants credit but reads nothing is dropped after C{writeStall}.
        Until then the backlog is bounded.
        """
        await self.start(limits=Limits(writeStall=0.6))
        streamID, app = await self.stream()
        credit = self.attacker.frame(UPDATE, streamID, length=FRAME)
        self.attacker.transport.write(credit * 1000)
        await self.attacker.sync()
        self.attacker.transport.pauseProducing()
        most = 0

        class Producer:
            """
            Writes until it is paused.
            """

            written = 0
            paused = False

            def resumeProducing(self) -> None:
                self.paused = False
                while not self.paused:
                    self.written += FRAME
                    app.transport.write(bytes(FRAME))

            def pauseProducing(self) -> None:
                nonlocal most
                self.paused = True
                most = max(most, app.transport.unsent)

            def stopProducing(self) -> None:
                self.paused = True

        producer = Producer()
        app.transport.registerProducer(producer, True)
        producer.resumeProducing()
        await self.eventually(lambda: self.mux._scheduler.paused)
        await self.eventually(lambda: self.mux.reason is not None)
        self.attacker.transport.resumeProducing()
        await self.assertMuxEnds(WriteStalled)
        self.assertLessEqual(most, 2 * FRAME + 65536)
        self.assertLess(producer.written, 32 * 1024 * 1024)
        self.assertEqual(app.losses, 1)

    @row(28)
    async def test_dataAfterItsEnd(self) -> None:
        """
        Data after the peer's CloseRead ends the stream, and the mux goes on.
        """
        await self.start(Apps(HalfApp))
        streamID, app = await self.stream()
        self.attacker.send(DATA, streamID, b"before")
        self.attacker.send(CLOSE_READ, streamID)
        self.attacker.send(DATA, streamID, b"after")
        reason = await self.assertStreamEnds(app, streamID)
        self.assertIsInstance(reason, ProtocolViolation)
        self.assertEqual(app.received, b"before")

    @row(50)
    async def test_longCredit(self) -> None:
        """
        The subject accepts up to 131072 bytes of credit in one frame, and itself sends
        no frame with a length of more than 65536.
        """
        await self.start()
        streamID, app = await self.stream()
        self.attacker.send(UPDATE, streamID, length=WINDOW)
        await self.attacker.sync()
        app.transport.write(bytes(2 * WINDOW))
        await self.attacker.until(
            lambda: len(self.attacker.data(streamID)) == 2 * WINDOW
        )
        app.transport.pauseProducing()
        for _ in range(2):
            self.attacker.send(DATA, streamID, bytes(FRAME))
        await self.attacker.sync()
        app.transport.resumeProducing()
        await self.attacker.until(lambda: self.attacker.credit(streamID) >= WINDOW)
        self.assertTrue(all(frame.length <= FRAME for frame in self.attacker.frames))
        self.attacker.send(UPDATE, streamID, length=WINDOW + 1)
        await self.assertMuxEnds(ProtocolViolation, str(WINDOW + 1))

    @row(10)
    async def test_oneByteFrames(self) -> None:
        """
        Backlogged one-byte frames are merged: memory grows with the bytes, not with
        the number of frames.
        """
        await self.start()
        streamID, app = await self.stream()
        app.transport.pauseProducing()
        await self.attacker.sync()
        frame = self.attacker.frame(DATA, streamID, b"x")
        for _ in range(64):
            self.attacker.transport.write(frame * 1024)
            await self.attacker.sync()
        pieces = app.transport.receiver.waiting
        self.assertEqual(sum(map(len, pieces)), 65536)
        self.assertLessEqual(len(pieces), 8)
        app.transport.resumeProducing()
        await self.attacker.until(lambda: self.attacker.credit(streamID))
        self.assertEqual(bytes(app.received), b"x" * 65536)
        await self.assertLives()
        self.attacker.send(5, streamID)
        await self.eventually(lambda: app.losses)
        self.assertIsInstance(app.reason, ConnectionDone)
