"""
Tests for L{gomux._wire.strict}.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.crypto import Opener, Sealer, deriveKey
from gomux._wire.frame import HEADER_SIZE, HELLO_ID, Flag, NotYet, sealFrame
from gomux._wire.keysearch import KEYS_A_TURN
from gomux._wire.strict import Handshake, Salts
from gomux.error import AuthenticationFailed, GomuxError, HandshakeFailed
from gomux.test.support import strictvectors

VECTORS = Path(__file__).parent.parent / "vectors" / "strict.json"
KEY = deriveKey("a pre-shared key for tests alone")
OTHER_KEY = deriveKey("another pre-shared key for tests")
FRAME_SIZE = 52


class FixedSalts(Salts):
    """
    Issues the salt that it was made with.
    """

    def __init__(self, salt: bytes) -> None:
        super().__init__()
        self.salt = salt

    def issue(self) -> bytes:
        self._current.add(self.salt)
        return self.salt


def frames(data: bytes) -> list[bytes]:
    """
    Cut a sequence of frames without payload into frames.
    """
    return [data[i : i + FRAME_SIZE] for i in range(0, len(data), FRAME_SIZE)]


def take(handshake: Handshake, frame: bytes) -> list[bytes]:
    """
    @return: the output of a handshake after a frame.
    """
    handshake.open(frame[:HEADER_SIZE], frame[HEADER_SIZE:])
    return frames(handshake.takeOutput())


def seal(
    streamID: int, length: int, flag: int, prefix: bytes | None = None, counter: int = 0
) -> bytes:
    return b"".join(sealFrame(Sealer(KEY, prefix, counter), streamID, length, flag))


def hello(role: int, streamID: int = HELLO_ID, counter: int = 0) -> bytes:
    return seal(streamID, role, Flag.KEEPALIVE, counter=counter)


class VectorTests(SynchronousTestCase):
    """
    The bytes on the wire, compared with those of the specification.
    """

    def setUp(self) -> None:
        self.vectors: list[dict[str, Any]] = json.loads(VECTORS.read_text("utf-8"))

    def test_document(self) -> None:
        """
        An independent computation from the specification gives the same vectors.
        """
        self.assertEqual(strictvectors.vectors(), self.vectors)

    def test_handshake(self) -> None:
        """
        Client and server send exactly the bytes of the vectors, and then open and seal
        the frames in them.
        """
        for vector in self.vectors:
            case = {
                name: bytes.fromhex(value)
                for name, value in vector.items()
                if isinstance(value, str) and name != "about"
            }
            keys = (("", deriveKey(case["psk"])),)
            context = case["context"]
            client = Handshake(keys, True, context, FixedSalts(case["clientSalt"]))
            server = Handshake(keys, False, context, FixedSalts(case["serverSalt"]))
            self.assertEqual(client.takeOutput(), case["clientHello"])
            self.assertEqual(server.takeOutput(), b"")
            self.assertEqual(
                take(server, case["clientHello"]),
                [case["serverHello"], case["serverConfirmation"]],
            )
            self.assertEqual(take(client, case["serverHello"]), [])
            self.assertEqual(
                take(client, case["serverConfirmation"]), [case["clientConfirmation"]]
            )
            self.assertEqual(take(server, case["clientConfirmation"]), [])
            self.assertTrue(client.passed and server.passed)
            self._exchange(client, server, vector["clientFrames"])
            self._exchange(server, client, vector["serverFrames"])

    def _exchange(self, sender: Handshake, to: Handshake, sealed: list[str]) -> None:
        assert sender.sealer is not None
        for frame in map(bytes.fromhex, sealed):
            header, body = frame[:HEADER_SIZE], frame[HEADER_SIZE:]
            payload = to.opener.open(header, body)
            self.assertEqual(sender.sealer.seal(header[:12], payload), (header, body))


class HandshakeTests(SynchronousTestCase):
    """
    L{Handshake}
    """

    def setUp(self) -> None:
        self.clientSalts, self.serverSalts = Salts(), Salts()
        self.client = self.make(True)
        self.server = self.make(False)

    def make(self, isClient: bool, key: bytes = KEY, context: bytes = b"") -> Handshake:
        salts = self.clientSalts if isClient else self.serverSalts
        return Handshake((("", key),), isClient, context, salts)

    def refused(
        self, handshake: Handshake, frame: bytes, message: str, error: Any = None
    ) -> None:
        """
        Give a frame to a handshake, and check that the handshake fails without an
        answer.
        """
        found = self.assertRaises(error or HandshakeFailed, take, handshake, frame)
        self.assertIn(message, str(found))
        self.assertEqual(handshake.takeOutput(), b"")
        self.assertFalse(handshake.passed)

    def test_serverSilent(self) -> None:
        """
        A server sends nothing before it has a hello.
        """
        self.assertEqual(self.server.takeOutput(), b"")

    def test_fresh(self) -> None:
        """
        No two handshakes have the same salt, or the same prefixes.
        """
        seen = set()
        for _ in range(10):
            client, server = self.make(True), self.make(False)
            [clientHello] = frames(client.takeOutput())
            serverHello, confirmation = take(server, clientHello)
            take(client, serverHello)
            [answer] = take(client, confirmation)
            for frame in (clientHello, serverHello, confirmation, answer):
                seen.add(frame[12:28])
        self.assertEqual(len(seen), 40)

    def test_compatiblePeer(self) -> None:
        """
        A peer in compatible mode is recognized by its first frame, whatever the flag of
        that frame.
        """
        for flag in Flag:
            for handshake in (self.make(True), self.make(False)):
                handshake.takeOutput()
                self.refused(handshake, seal(0, 0, flag), "not in strict mode")

    def test_otherFlag(self) -> None:
        """
        A frame with the ID of a hello is refused if it is not a Keepalive.
        """
        frame = seal(HELLO_ID, 1, Flag.WINDOW_UPDATE)
        self.refused(self.server, frame, "not in strict mode")

    def test_data(self) -> None:
        """
        A frame with a payload is refused before any key is tried.
        """
        parts = sealFrame(Sealer(KEY), 0, 5, Flag.DATA, b"hello")
        self.refused(self.server, b"".join(parts), "carries data", AuthenticationFailed)

    def test_otherVersion(self) -> None:
        """
        A hello with another version is refused.
        """
        frame = hello(1, HELLO_ID + (1 << 24))
        self.refused(self.server, frame, "version 2 of strict mode")

    def test_sameRole(self) -> None:
        """
        A hello with this side's own role is refused.
        """
        self.refused(self.server, hello(2), "the peer is a server, as this side is")
        [own] = frames(self.client.takeOutput())
        self.refused(self.client, own, "the peer is a client, as this side is")

    def test_unknownRole(self) -> None:
        """
        A hello with an unknown role is refused.
        """
        self.refused(self.server, hello(3), "unknown role 3")

    def test_counter(self) -> None:
        """
        A hello that is not the first frame with its salt is refused.
        """
        self.refused(self.server, hello(1, counter=1), "not its first frame")

    def test_wrongKey(self) -> None:
        """
        A hello that is sealed with another key is refused.
        """
        [frame] = frames(self.make(True, OTHER_KEY).takeOutput())
        self.refused(self.server, frame, "another pre-shared key", AuthenticationFailed)

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, FRAME_SIZE * 8 - 1), st.integers(0, 3))
    def test_flipped(self, bit: int, which: int) -> None:
        """
        One changed bit in any frame of the handshake ends it at that frame.
        """
        client, server = self.make(True), self.make(False)
        number = 0
        sent = [(server, frame) for frame in frames(client.takeOutput())]
        while sent:
            receiver, frame = sent.pop(0)
            if number == which:
                changed = bytearray(frame)
                changed[bit // 8] ^= 1 << bit % 8
                self.assertRaises(GomuxError, take, receiver, bytes(changed))
                self.assertEqual(receiver.takeOutput(), b"")
                self.assertFalse(receiver.passed)
                return
            other = client if receiver is server else server
            sent += [(other, answer) for answer in take(receiver, frame)]
            number += 1
        self.fail(f"the handshake has no frame {which}")

    def test_context(self) -> None:
        """
        A confirmation from a side with another context is refused.
        """
        server = self.make(False, context=b"another")
        serverHello, confirmation = take(server, self.client.takeOutput())
        take(self.client, serverHello)
        self.refused(self.client, confirmation, "the peer has another context")

    def test_confirmationForm(self) -> None:
        """
        A confirmation that is not a plain Keepalive is refused.
        """
        for streamID, length, flag in (
            (1, 0, Flag.KEEPALIVE),
            (0, 1, Flag.KEEPALIVE),
            (0, 0, Flag.CLOSE_MUX),
        ):
            client, server = self.make(True), self.make(False)
            serverHello, confirmation = take(server, client.takeOutput())
            take(client, serverHello)
            frame = seal(streamID, length, flag, confirmation[12:28])
            self.refused(client, frame, "is not a Keepalive")

    def test_confirmationCounter(self) -> None:
        """
        A confirmation with another counter than 0 is refused.
        """
        serverHello, confirmation = take(self.server, self.client.takeOutput())
        take(self.client, serverHello)
        frame = seal(0, 0, Flag.KEEPALIVE, confirmation[12:28], 1)
        self.refused(self.client, frame, "does not fit this handshake")

    def test_dead(self) -> None:
        """
        After an error every frame is refused.
        """
        self.refused(self.server, hello(2), "a server, as this side is")
        self.refused(self.server, self.client.takeOutput(), "after the end")

    def test_keyring(self) -> None:
        """
        A server finds the client's key from the hello, and answers with that key.
        """
        keys = (("alice", OTHER_KEY), ("bob", KEY))
        server = Handshake(keys, False, salts=self.serverSalts)
        serverHello, confirmation = take(server, self.client.takeOutput())
        take(self.client, serverHello)
        [answer] = take(self.client, confirmation)
        take(server, answer)
        self.assertTrue(server.passed)
        self.assertEqual(server.name, "bob")

    def test_manyKeys(self) -> None:
        """
        If a server has more keys than it tries in one turn of the reactor, the hello
        has to be offered again, and is answered once.
        """
        keys = [(str(number), bytes([number] * 32)) for number in range(KEYS_A_TURN)]
        server = Handshake((*keys, ("bob", KEY)), False, salts=self.serverSalts)
        first = self.client.takeOutput()
        self.assertRaises(NotYet, take, server, first)
        self.assertEqual(server.takeOutput(), b"")
        serverHello, confirmation = take(server, first)
        take(self.client, serverHello)
        self.assertIsNone(server.sealer)
        [answer] = take(self.client, confirmation)
        take(server, answer)
        self.assertTrue(server.passed)
        self.assertIsNotNone(server.sealer)
        self.assertEqual(server.name, "bob")

    def test_pinned(self) -> None:
        """
        A frame after the hello is refused if it is sealed with another key than the
        hello.
        """
        server = Handshake(
            (("a", OTHER_KEY), ("b", KEY)), False, salts=self.serverSalts
        )
        serverHello, confirmation = take(server, self.client.takeOutput())
        take(self.client, serverHello)
        [answer] = take(self.client, confirmation)
        Opener(KEY).open(answer[:HEADER_SIZE], answer[HEADER_SIZE:])
        sealer = Sealer(OTHER_KEY, answer[12:28])
        frame = b"".join(sealFrame(sealer, 0, 0, Flag.KEEPALIVE))
        self.refused(server, frame, "", AuthenticationFailed)


class SaltTests(SynchronousTestCase):
    """
    L{Salts}
    """

    def test_ownSalt(self) -> None:
        """
        A hello with a salt of this process is refused, during its handshake and
        afterwards.
        """
        salts = Salts()
        for closed in (False, True):
            client = Handshake((("", KEY),), True, salts=salts)
            server = Handshake((("", KEY),), False, salts=salts)
            if closed:
                client.close()
            error = self.assertRaises(
                HandshakeFailed, take, server, client.takeOutput()
            )
            self.assertIn("connected with itself", str(error))

    def test_bounded(self) -> None:
        """
        The salts of the last finished handshakes are remembered, and those of all
        handshakes in progress.
        """
        salts = Salts(size=3)
        current = salts.issue()
        past = [salts.issue() for _ in range(5)]
        for salt in past:
            salts.retire(salt)
            salts.retire(salt)
        self.assertEqual([salt in salts for salt in past], [False] * 2 + [True] * 3)
        self.assertIn(current, salts)
        self.assertNotIn(bytes(16), salts)
