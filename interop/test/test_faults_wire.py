"""
Faults and abuse: bytes that are not frames, invalid frames, and wrong keys.
"""

from __future__ import annotations

import struct

from gomux import Limits
from gomux.error import (
    AuthenticationFailed,
    GomuxError,
    ProtocolViolation,
    Truncated,
)
from interop.faults.attacker import (
    CLOSE,
    CLOSE_READ,
    CLOSE_WRITE,
    DATA,
    KEEPALIVE,
    OPEN,
    UPDATE,
)
from interop.faults.cases import CLIENT, SERVER, RowTestCase, inBothRoles, row

GARBAGE = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8.0\r\n\r\n" * 2,
    "TLS": bytes.fromhex("16030102000100 01fc0303") + bytes(600),
    "zeros": bytes(100),
    "ones": b"\xff" * 36,
}


@inBothRoles
class Wire(RowTestCase):
    """
    The attacker sends bytes that are not frames, or invalid frames.
    """

    @row(16)
    async def test_garbage(self) -> None:
        """
        Bytes that are not a frame end the mux, and the subject answers nothing.
        """
        await self.start(greet=False)
        for what, data in GARBAGE.items():
            self.mux, self.attacker = await self.pair()
            self.attacker.transport.write(data)
            await self.assertMuxEnds(GomuxError)
            self.assertEqual(self.attacker.bytesReceived, 0, what)
            # assertMuxEnds expects one log line in all.
            self.events.clear()

    @row(17)
    async def test_truncation(self) -> None:
        """
        If the carrier ends within a frame, nothing of that frame is delivered, and the
        mux ends with C{Truncated}.
        """
        await self.start()
        payload = b"truncated"
        for flag in range(8):
            for cut in range(1, 52 + (len(payload) if flag == DATA else 0), 5):
                self.mux, self.attacker = await self.pair()
                streamID, app = await self.stream()
                self.attacker.send(DATA, streamID, b"before")
                frame = self.attacker.frame(
                    flag, streamID, payload if flag == DATA else b""
                )
                self.attacker.transport.write(frame[:cut])
                self.attacker.transport.loseConnection()
                reason = await self.mux.whenClosed()
                self.assertIsInstance(reason, Truncated, (flag, cut))
                await self.eventually(lambda app=app: app.losses)
                self.assertEqual(app.received, b"before")
                self.assertIsInstance(app.reason, Truncated)
                self.apps.streams.clear()

    @row(18)
    async def test_flippedBits(self) -> None:
        """
        A flipped bit in a frame ends the mux.  If the flip makes the length larger, the
        mux ends when that many bytes have arrived.
        """
        await self.start()
        size = 36 + 3 + 16
        for byte in range(size):
            self.mux, self.attacker = await self.pair()
            streamID, app = await self.stream()
            frame = bytearray(self.attacker.frame(DATA, streamID, b"abc"))
            frame[byte] ^= 1 << byte % 8
            self.attacker.transport.write(bytes(frame))
            if byte in (4, 5, 6):
                self.attacker.transport.write(bytes(0x20000))
            await self.assertMuxEnds(GomuxError, isOneOfMany=True)
            await self.eventually(lambda app=app: app.losses)
            self.assertEqual(app.received, b"")
            self.events.clear()
            self.apps.streams.clear()

    @row(19)
    async def test_tooLong(self) -> None:
        """
        A length above the maximum ends the mux as soon as the header has arrived.
        """
        await self.start()
        for flag in range(8):
            for length in (65537, 131073, 2**32 - 1):
                if flag == UPDATE and length == 65537:
                    continue  # row 50
                self.mux, self.attacker = await self.pair()
                header = struct.pack("<III", 1, length, flag) + bytes(24)
                self.attacker.transport.write(header)
                await self.assertMuxEnds(ProtocolViolation, str(length), True)
                self.events.clear()

    @row(20)
    async def test_lengthWithoutPayload(self) -> None:
        """
        A nonzero length in a frame without payload is ignored.
        """
        await self.start()
        streamID = self.attacker.nextID
        self.attacker.nextID += 2
        self.attacker.send(OPEN, streamID, length=99)
        await self.eventually(lambda: streamID in self.apps.streams)
        self.attacker.send(KEEPALIVE, length=65536)
        self.attacker.send(CLOSE_WRITE, streamID, length=7)
        await self.assertLives()
        self.attacker.send(CLOSE_READ, streamID, length=7)
        await self.eventually(lambda: self.apps.streams[streamID].losses)
        await self.assertLives()

    @row(21)
    async def test_unknownFlags(self) -> None:
        """
        Frames with unknown flags are ignored.  Beyond the budget they end the mux.
        """
        await self.start(limits=Limits(ignoredBurst=20, ignoredRate=0.001))
        for flag in (8, 9, 255, 256, 0x80000000, 2**32 - 1):
            self.attacker.send(flag, 0)
            self.attacker.send(flag, 1)
        await self.assertLives()
        for _ in range(9):
            self.attacker.send(8)
        await self.assertMuxEnds(ProtocolViolation, "without effect")

    @row(22)
    async def test_openTwice(self) -> None:
        """
        An OpenStream for an open stream ends the mux.
        """
        await self.start()
        streamID, app = await self.stream()
        self.attacker.send(OPEN, streamID)
        await self.assertMuxEnds(ProtocolViolation, "twice")
        self.assertEqual(app.losses, 1)

    @row(23)
    async def test_openOurs(self) -> None:
        """
        An OpenStream with an ID from the subject's own range ends the mux.  It may be
        the subject's own frame, sent back.
        """
        await self.start()
        await self.attacker.sync()
        self.attacker.send(OPEN, self.attacker.nextID + 1001)
        await self.assertMuxEnds(ProtocolViolation, "an ID of ours")

    @row(24)
    async def test_anyOrder(self) -> None:
        """
        The peer may open streams in any order of their IDs.
        """
        await self.start()
        first = self.attacker.nextID + 2
        for streamID in (first + 40, first, first + 8, first + 2, first + 1000):
            self.attacker.send(OPEN, streamID)
            self.attacker.send(DATA, streamID, b"ECHO")
            await self.attacker.untilFrame(DATA, streamID)
            self.attacker.send(CLOSE, streamID)
        await self.assertLives()
        self.assertEqual(len(self.apps.streams), 6)


class KeyAsServer(RowTestCase):
    """
    The client's key differs from that of the subject, which is the server.
    """

    pairing = SERVER

    @row(14)
    async def test_wrongKey(self) -> None:
        """
        A client with a wrong key is dropped at its first frame, and gets no answer.
        """
        await self.start(psk="another secret")
        self.attacker.send(KEEPALIVE)
        await self.assertMuxEnds(AuthenticationFailed)
        self.assertEqual(self.attacker.bytesReceived, 0)

    @row(14, 16)
    async def test_logRate(self) -> None:
        """
        Log lines about clients with a wrong key are rate-limited.
        """
        await self.start()
        for _ in range(60):
            mux, attacker = await self.pair("another secret")
            attacker.send(KEEPALIVE)
            await attacker.lost
        lines = [line for line in self.logged("ended") if "authenticate" in line]
        self.assertLess(len(lines), 30)
        self.assertGreater(len(lines), 0)
        self.assertEqual(len(lines), len(self.loggedHere()))


class KeyAsClient(RowTestCase):
    """
    The server's key differs from that of the subject, which is the client.
    """

    pairing = CLIENT

    @row(15)
    async def test_wrongKey(self) -> None:
        """
        If the server closes or resets the connection without an answer, the client's
        reason and log say that the key may be wrong.
        """
        await self.start()
        for reset in (False, True):
            self.mux, self.attacker = await self.pair()
            stream = await self.mux.openStream(self.apps)
            if reset:
                self.attacker.transport.abortConnection()
            else:
                self.attacker.transport.loseConnection()
            reason = await self.mux.whenClosed()
            self.assertIn("wrong pre-shared key", str(reason))
            self.assertIsInstance(await stream.lost, Truncated)
            lines = self.logged(str(reason))
            self.assertEqual(len(lines), 1, lines)
            self.events.clear()

    @row(14)
    async def test_serverHasAnother(self) -> None:
        """
        The client drops a server whose first frame is sealed with another key.
        """
        await self.start(psk="another secret")
        self.attacker.send(KEEPALIVE)
        self.attacker.dataReceived = lambda data: None  # type: ignore[method-assign]
        await self.assertMuxEnds(AuthenticationFailed)
