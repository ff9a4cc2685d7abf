# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._wire.replay}.
"""

from __future__ import annotations

import tracemalloc
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from gomux._mux.gate import KeyFinder
from gomux._wire.crypto import Sealer, deriveKey
from gomux._wire.frame import HELLO_SIZE, OVERHEAD, Flag, FrameParser, sealFrame
from gomux._wire.keysearch import KnownKey
from gomux._wire.replay import FirstFrames
from gomux._wire.salts import Salts
from gomux._wire.strict import Handshake
from gomux.error import AuthenticationFailed, OutOfSequence
from gomux.limits import FIRST_FRAMES

KEY = deriveKey("a pre-shared key")
OTHER = deriveKey("another pre-shared key")


def header(number: int) -> bytes:
    """
    @return: the header of a frame with a nonce of its own.
    """
    return bytes(12) + number.to_bytes(24, "big")


class FirstFramesTests(SynchronousTestCase):
    """
    L{FirstFrames}
    """

    def test_replay(self) -> None:
        """
        A first frame with a nonce that was seen before is refused, also if the rest of
        its header differs.
        """
        seen = FirstFrames()
        for number in range(100):
            seen.add(header(number), "alice")
        for number in range(100):
            self.assertRaises(OutOfSequence, seen.add, header(number), "alice")
        self.assertRaises(OutOfSequence, seen.add, b"x" + header(5)[1:], "bob")
        self.assertEqual(len(seen), 100)

    def test_limit(self) -> None:
        """
        Only the last L{FIRST_FRAMES} are remembered, and take a few megabytes.
        """
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        seen = FirstFrames()
        for number in range(FIRST_FRAMES + 10):
            seen.add(header(number), "alice")
        self.assertEqual(len(seen), FIRST_FRAMES)
        self.assertRaises(OutOfSequence, seen.add, header(10), "alice")
        seen.add(header(9), "alice")
        self.assertLess(tracemalloc.get_traced_memory()[0], 16e6)

    def test_shares(self) -> None:
        """
        A peer with very many muxes cannot have the first frames of another forgotten.
        """
        seen = FirstFrames()
        seen.add(header(0), "bob")
        for number in range(1, FIRST_FRAMES + 10):
            seen.add(header(number), "alice")
        self.assertEqual(len(seen), FIRST_FRAMES)
        self.assertRaises(OutOfSequence, seen.add, header(0), "bob")
        seen.add(header(1), "alice")


class GateTests(SynchronousTestCase):
    """
    The gates remember the first frames that they open, and no others.
    """

    def setUp(self) -> None:
        self.seen = FirstFrames()

    def receive(self, gate: object, frame: bytes) -> None:
        """
        Give a frame to a gate.
        """
        parser = FrameParser(gate)  # type: ignore[arg-type]
        parser.receive(frame)
        self.assertIsNotNone(parser.nextFrame())

    def test_compatible(self) -> None:
        """
        In compatible mode a recorded first frame is refused, with one key and with
        several.  A frame that does not open is not remembered.
        """
        keys = (("a", OTHER), ("b", KEY))
        for make in (
            lambda: KnownKey("", KEY, self.seen),
            lambda: KeyFinder(keys, partial(KnownKey, seen=self.seen), False),
        ):
            frame = b"".join(sealFrame(Sealer(KEY), 0, 0, Flag.OPEN_STREAM))
            forged = frame[:-1] + bytes([frame[-1] ^ 1])
            error = self.assertRaises(
                AuthenticationFailed, self.receive, make(), forged
            )
            self.assertNotIsInstance(error, OutOfSequence)
            self.receive(make(), frame)
            for gate in (make(), make()):
                self.assertRaises(OutOfSequence, self.receive, gate, frame)
                self.assertFalse(gate.passed)

    def test_strict(self) -> None:
        """
        In strict mode a server refuses a recorded hello.
        """
        hello = Handshake("", KEY, True, salts=Salts()).takeOutput()
        self.assertEqual(len(hello), OVERHEAD + HELLO_SIZE)
        first, second = (
            Handshake("", KEY, False, salts=Salts(), seen=self.seen) for _ in range(2)
        )
        self.receive(first, hello)
        self.assertNotEqual(first.takeOutput(), b"")
        self.assertRaises(OutOfSequence, self.receive, second, hello)
        self.assertEqual(second.takeOutput(), b"")
