# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._wire.replay}.
"""

from __future__ import annotations

import tracemalloc
from functools import partial

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory
from gomux._mux.gate import KeyFinder
from gomux._wire import replay
from gomux._wire.crypto import Sealer, deriveKey
from gomux._wire.frame import HELLO_SIZE, OVERHEAD, Flag, FrameParser
from gomux._wire.keyring import Keyring
from gomux._wire.keysearch import KnownKey
from gomux._wire.replay import FirstFrames
from gomux._wire.salts import Salts
from gomux._wire.strict import Handshake
from gomux.error import AuthenticationFailed, OutOfSequence
from gomux.limits import FIRST_FRAMES
from gomux.test.support.helpers import Rig

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
            seen.add(header(number), KEY)
        for number in range(100):
            self.assertRaises(OutOfSequence, seen.add, header(number), KEY)
        self.assertRaises(OutOfSequence, seen.add, b"x" + header(5)[1:], OTHER)
        self.assertEqual(len(seen), 100)

    def test_limit(self) -> None:
        """
        Only the last L{FIRST_FRAMES} are remembered, and take a few megabytes.
        """
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        seen = FirstFrames()
        for number in range(FIRST_FRAMES + 10):
            seen.add(header(number), KEY)
        self.assertEqual(len(seen), FIRST_FRAMES)
        self.assertRaises(OutOfSequence, seen.add, header(10), KEY)
        seen.add(header(9), KEY)
        self.assertLess(tracemalloc.get_traced_memory()[0], 16e6)

    def test_shares(self) -> None:
        """
        A peer with very many muxes cannot have the first frames of another forgotten.
        """
        seen = FirstFrames()
        seen.add(header(0), OTHER)
        for number in range(1, FIRST_FRAMES + 10):
            seen.add(header(number), KEY)
        self.assertEqual(len(seen), FIRST_FRAMES)
        self.assertRaises(OutOfSequence, seen.add, header(0), OTHER)
        seen.add(header(1), KEY)

    def test_manyKeys(self) -> None:
        """
        The number of keys of which something is remembered is limited, too.
        """
        self.patch(replay, "FIRST_FRAMES", 10)
        seen = FirstFrames()
        for number in range(100):
            seen.add(header(number), number.to_bytes(32, "big"))
        self.assertEqual(len(seen), 10)
        self.assertEqual(len(seen._order), 10)

    def test_process(self) -> None:
        """
        All factories of a process that are given the same pre-shared key refuse what
        one of them has opened, also if each has a keyring of its own.
        """
        hello = Handshake("", KEY, True, salts=Salts()).takeOutput()
        greeting = b"".join(Sealer(KEY).seal(0, 1, Flag.KEEPALIVE))
        psks: tuple[str | bytes | Keyring, ...] = (
            "a pre-shared key",
            b"a pre-shared key",
            Keyring({"alice": "a pre-shared key", "bob": "another pre-shared key"}),
        )
        for strict, first in ((True, hello), (False, greeting)):
            reasons = []
            for psk in psks:
                clock = Clock()
                factory = MuxFactory(psk, False, clock=clock, strict=strict)
                rig = Rig(factory=factory, clock=clock, psk="a pre-shared key")
                rig.sendRaw(first)
                reasons.append(rig.mux.reason)
            self.assertIsNone(reasons.pop(0))
            for reason in reasons:
                self.assertIsInstance(reason, OutOfSequence)


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
            frame = b"".join(Sealer(KEY).seal(0, 0, Flag.OPEN_STREAM))
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
