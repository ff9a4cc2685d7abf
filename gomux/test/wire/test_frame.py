"""
Tests for L{gomux._wire.frame}.
"""

from __future__ import annotations

import tracemalloc
from struct import pack

from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.crypto import Opener, Sealer, SequencedOpener
from gomux._wire.frame import (
    HEADER_SIZE,
    MAX_CREDIT,
    MAX_LENGTH,
    OVERHEAD,
    Flag,
    Frame,
    FrameParser,
    NotYet,
)
from gomux.error import AuthenticationFailed, NonceExhausted, ProtocolViolation

KEY = bytes(range(32))


def seal(
    sealer: Sealer, streamID: int, length: int, flag: int, payload: bytes = b""
) -> bytes:
    return b"".join(sealer.seal(streamID, length, flag, payload))


def feed(parser: FrameParser, data: bytes, size: int | None = None) -> list[Frame]:
    """
    Give data to a parser, in pieces of a given size.
    """
    frames = []
    size = size or len(data) or 1
    for start in range(0, len(data), size):
        parser.receive(data[start : start + size])
        while (frame := parser.nextFrame()) is not None:
            frames.append(frame)
    return frames


class LayoutTests(SynchronousTestCase):
    """
    The bytes of frames.
    """

    def test_sizes(self) -> None:
        """
        A header has 36 bytes, and a frame has 52 besides its payload.
        """
        self.assertEqual((HEADER_SIZE, OVERHEAD), (36, 52))
        self.assertEqual(len(seal(Sealer(KEY), 1, 3, Flag.DATA, b"abc")), 55)

    def test_flags(self) -> None:
        """
        Each flag has its number in the protocol.
        """
        self.assertEqual(
            [(flag.value, flag.name) for flag in Flag],
            [
                (0, "DATA"),
                (1, "KEEPALIVE"),
                (2, "OPEN_STREAM"),
                (3, "CLOSE_READ"),
                (4, "CLOSE_WRITE"),
                (5, "CLOSE_STREAM"),
                (6, "WINDOW_UPDATE"),
                (7, "CLOSE_MUX"),
            ],
        )

    def test_header(self) -> None:
        """
        A header is three little-endian integers and the nonce.
        """
        frame = seal(Sealer(KEY, b"p" * 16, 5), 0x01020304, 1000, Flag.WINDOW_UPDATE)
        self.assertEqual(
            frame[:36],
            b"\x04\x03\x02\x01\xe8\x03\0\0\6\0\0\0" + b"p" * 16 + b"\5" + bytes(7),
        )

    def test_last(self) -> None:
        """
        After the nonces have run out, one CloseMux can be sealed, and nothing else.
        """
        sealer = Sealer(KEY, counter=2**64 - 1)
        self.assertRaises(NonceExhausted, sealer.seal, 0, 0, Flag.DATA)
        frames = feed(
            FrameParser(Opener(KEY)), b"".join(sealer.sealLast(Flag.CLOSE_MUX))
        )
        self.assertEqual(frames, [(0, 0, Flag.CLOSE_MUX, b"")])
        self.assertRaises(NonceExhausted, sealer.sealLast, Flag.CLOSE_MUX)


class ParserTests(SynchronousTestCase):
    """
    L{FrameParser}
    """

    def setUp(self) -> None:
        self.sealer = Sealer(KEY)
        self.parser = FrameParser(Opener(KEY))

    def test_everyCut(self) -> None:
        """
        The parser returns the same frames wherever the bytes are cut.
        """
        expected: list[Frame] = [
            (0, 0, Flag.OPEN_STREAM, b""),
            (0, 5, Flag.DATA, b"hello"),
            (2**32 - 1, MAX_LENGTH, Flag.WINDOW_UPDATE, b""),
            (0, 0, Flag.DATA, b""),
            (0, 0, Flag.CLOSE_STREAM, b""),
        ]
        data = b"".join(seal(self.sealer, *frame) for frame in expected)
        for first in range(len(data)):
            parser = FrameParser(Opener(KEY))
            frames = feed(parser, data[:first]) + feed(parser, data[first:])
            self.assertEqual(frames, expected)
            self.assertEqual(parser.pending, 0)
        for size in range(1, 120):
            self.assertEqual(feed(FrameParser(Opener(KEY)), data, size), expected)

    def test_pending(self) -> None:
        """
        C{pending} counts the bytes that wait for the rest of their frame.
        """
        data = seal(self.sealer, 0, 5, Flag.DATA, b"hello")
        for size in range(len(data)):
            parser = FrameParser(Opener(KEY))
            self.assertEqual(feed(parser, data[:size]), [])
            self.assertEqual(parser.pending, size)

    def test_largest(self) -> None:
        """
        A frame can have 65536 bytes of data.
        """
        data = seal(self.sealer, 0, MAX_LENGTH, Flag.DATA, bytes(MAX_LENGTH))
        [frame] = feed(self.parser, data, 10000)
        self.assertEqual(frame[3], bytes(MAX_LENGTH))

    def test_tooLong(self) -> None:
        """
        A header with a length above the limit is refused as soon as the header has
        arrived, in one piece or cut, before memory is allocated for the frame.
        """
        for flag in [*range(9), 2**32 - 1]:
            limit = MAX_CREDIT if flag == Flag.WINDOW_UPDATE else MAX_LENGTH
            for length in (limit + 1, 2**31, 2**32 - 1):
                header = pack("<III", 0, length, flag) + bytes(24)
                for size in (36, 1):
                    parser = FrameParser(Opener(KEY))
                    tracemalloc.start()
                    try:
                        error = self.assertRaises(
                            ProtocolViolation, feed, parser, header, size
                        )
                        peak = tracemalloc.get_traced_memory()[1]
                    finally:
                        tracemalloc.stop()
                    self.assertIn(str(length), str(error))
                    self.assertLess(peak, 50000)

    def test_credit(self) -> None:
        """
        A frame can give credit of up to 131072 bytes, as the reference does.
        """
        data = seal(self.sealer, 0, MAX_CREDIT, Flag.WINDOW_UPDATE)
        self.assertEqual(
            feed(self.parser, data), [(0, MAX_CREDIT, Flag.WINDOW_UPDATE, b"")]
        )

    def test_lengthOfOthers(self) -> None:
        """
        A frame that is not Data has no payload, whatever its length field says.
        """
        data = seal(self.sealer, 0, 1000, Flag.CLOSE_STREAM)
        self.assertEqual(len(data), OVERHEAD)
        self.assertEqual(feed(self.parser, data), [(0, 1000, Flag.CLOSE_STREAM, b"")])

    def test_unknownFlag(self) -> None:
        """
        A frame with an unknown flag is returned like any other.
        """
        data = seal(self.sealer, 7, 0, 2**32 - 1)
        self.assertEqual(feed(self.parser, data, 10), [(7, 0, 2**32 - 1, b"")])

    def test_notGenuine(self) -> None:
        """
        Frames ahead of a forged frame are returned.  The forged frame raises
        L{AuthenticationFailed}.
        """
        good = seal(self.sealer, 0, 5, Flag.DATA, b"hello")
        bad = bytearray(seal(self.sealer, 0, 5, Flag.DATA, b"hello"))
        bad[-1] ^= 1
        for size in (len(good + bad), 7):
            parser = FrameParser(Opener(KEY))
            frames: list[Frame] = []
            with self.assertRaises(AuthenticationFailed):
                for start in range(0, len(good + bad), size):
                    parser.receive((good + bytes(bad))[start : start + size])
                    while (frame := parser.nextFrame()) is not None:
                        frames.append(frame)
            self.assertEqual(frames, [(0, 5, Flag.DATA, b"hello")])

    def test_useOpener(self) -> None:
        """
        The opener can be replaced between two frames that arrived together.
        """
        sealer = Sealer(bytes(32), bytes(16))
        data = seal(self.sealer, 1, 0, 1) + seal(sealer, 2, 0, 1)
        self.parser.receive(data)
        self.assertEqual(self.parser.nextFrame(), (1, 0, 1, b""))
        self.parser.useOpener(SequencedOpener(bytes(32), bytes(16)))
        self.assertEqual(self.parser.nextFrame(), (2, 0, 1, b""))

    def test_notYet(self) -> None:
        """
        A frame for which the opener needs more time stays the next frame, even if more
        bytes arrive before it is offered again.
        """

        class Slow(Opener):
            refusals = 0

            def open(self, header: bytes, sealed: bytes | memoryview) -> bytes:
                if self.refusals:
                    self.refusals -= 1
                    raise NotYet()
                return super().open(header, sealed)

        data = seal(self.sealer, 0, 5, Flag.DATA, b"hello")
        more = seal(self.sealer, 2, 0, Flag.KEEPALIVE)
        for cut in (0, 1, len(data) - 1):
            opener = Slow(KEY)
            parser = FrameParser(opener)
            parser.receive(data[:cut])
            self.assertIsNone(parser.nextFrame())
            opener.refusals = 3
            parser.receive(data[cut:])
            self.assertRaises(NotYet, parser.nextFrame)
            self.assertEqual(parser.pending, len(data))
            parser.receive(more)
            self.assertRaises(NotYet, parser.nextFrame)
            self.assertRaises(NotYet, parser.nextFrame)
            self.assertEqual(parser.nextFrame(), (0, 5, Flag.DATA, b"hello"))
            self.assertEqual(parser.nextFrame(), (2, 0, Flag.KEEPALIVE, b""))
            self.assertIsNone(parser.nextFrame())

    def test_clear(self) -> None:
        """
        C{clear} drops all pending bytes, whether they are one frame, several or a part
        of one.
        """
        frame = seal(self.sealer, 0, 5, Flag.DATA, b"hello")
        for size in (1, len(frame), 2 * len(frame)):
            self.parser.receive((2 * frame)[:size])
            if size == 1:
                self.assertIsNone(self.parser.nextFrame())
            self.parser.clear()
            self.assertEqual(self.parser.pending, 0)
            self.assertIsNone(self.parser.nextFrame())

    def test_views(self) -> None:
        """
        The parser's buffer can grow while an opener keeps a memoryview of it.  (Trap 15
        in docs/design.rst.)
        """
        kept: list[bytes | memoryview] = []

        class Keeper(Opener):
            def open(self, header: bytes, sealed: bytes | memoryview) -> bytes:
                kept.append(sealed)
                return super().open(header, sealed)

        parser = FrameParser(Keeper(KEY))
        data = b"".join(seal(self.sealer, 0, 3, Flag.DATA, b"abc") for _ in range(5))
        for size in (1, 30, 60):
            self.assertEqual(len(feed(parser, data, size)), 5)
        self.assertEqual(len(kept), 15)
