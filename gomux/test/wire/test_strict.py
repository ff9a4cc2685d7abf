"""
Tests for L{gomux._wire.strict}.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gomux._wire import noise, strict
from gomux._wire.crypto import Sealer, deriveKey
from gomux._wire.frame import (
    HEADER_SIZE,
    HELLO_ID,
    HELLO_SIZE,
    OVERHEAD,
    Flag,
    unpackFields,
)
from gomux._wire.noise import HandshakeState
from gomux._wire.replay import FirstFrames
from gomux._wire.salts import Salts
from gomux._wire.strict import Handshake, noisePSK, prologue
from gomux.error import (
    AuthenticationFailed,
    GomuxError,
    HandshakeFailed,
    OutOfSequence,
)
from gomux.test.support import strictvectors

VECTORS = Path(__file__).parent.parent / "vectors" / "strict.json"
KEY = deriveKey("a pre-shared key for tests alone")
OTHER_KEY = deriveKey("another pre-shared key for tests")
NOW = 1795000000


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


class ZeroKey:
    """
    An ephemeral key that makes all shared secrets zero.
    """

    def public_key(self) -> ZeroKey:
        return self

    def public_bytes_raw(self) -> bytes:
        return bytes(32)

    def exchange(self, public: object) -> bytes:
        return bytes(32)


def take(handshake: Handshake, frame: bytes) -> bytes:
    """
    @return: the output of a handshake after a frame.
    """
    handshake.open(frame[:HEADER_SIZE], frame[HEADER_SIZE:])
    return handshake.takeOutput()


def seal(
    streamID: int,
    length: int,
    flag: int,
    payload: bytes = b"",
    counter: int = 0,
    key: bytes = KEY,
) -> bytes:
    sealer = Sealer(key, None, counter)
    return b"".join(sealer.seal(streamID, length, flag, payload))


def sealHello(
    message: bytes, streamID: int = HELLO_ID, counter: int = 0, key: bytes = KEY
) -> bytes:
    return seal(streamID, len(message), Flag.DATA, message, counter, key)


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
            keys = {
                who: X25519PrivateKey.from_private_bytes(case[f"{who}Private"])
                for who in ("client", "server")
            }
            made = iter((keys["client"], keys["server"]))

            class Fixed:
                generate = made.__next__

            self.patch(noise, "X25519PrivateKey", Fixed)
            client, server = (
                Handshake(
                    "",
                    deriveKey(case["psk"]),
                    who == "client",
                    case["context"],
                    salts=FixedSalts(case[f"{who}Prefix"]),
                    now=lambda time=vector[f"{who}Time"]: time,  # type: ignore[misc]
                )
                for who in ("client", "server")
            )
            self.assertEqual(client.takeOutput(), case["clientHello"])
            self.assertEqual(server.takeOutput(), b"")
            self.assertEqual(take(server, case["clientHello"]), case["serverHello"])
            self.assertFalse(server.passed)
            self.assertEqual(
                take(client, case["serverHello"]), case["clientConfirmation"]
            )
            self.assertTrue(client.passed)
            self.assertEqual(take(server, case["clientConfirmation"]), b"")
            self.assertTrue(server.passed)
            self._exchange(client, server, vector["clientFrames"])
            self._exchange(server, client, vector["serverFrames"])
        self._rekey(client, server, vector["clientRekey"])

    def _exchange(self, sender: Handshake, to: Handshake, sealed: list[str]) -> None:
        assert sender.sealer is not None
        for frame in map(bytes.fromhex, sealed):
            header, body = frame[:HEADER_SIZE], frame[HEADER_SIZE:]
            payload = to.opener.open(header, body)
            streamID, length, flag = unpackFields(header)
            again = sender.sealer.seal(streamID, length, flag, payload)
            self.assertEqual(again, (header, body))

    def _rekey(self, sender: Handshake, to: Handshake, frames: dict[str, str]) -> None:
        """
        Exchange frames until those of the vector have come.
        """
        assert sender.sealer is not None
        found = {}
        while sender.sealer.last < max(map(int, frames)):
            header, body = sender.sealer.seal(0, 0, Flag.KEEPALIVE)
            self.assertEqual(to.opener.open(header, body), b"")
            number = str(sender.sealer.last)
            if number in frames:
                found[number] = (header + body).hex()
        self.assertEqual(found, frames)


class HandshakeTests(SynchronousTestCase):
    """
    L{Handshake}
    """

    def setUp(self) -> None:
        self.clientSalts, self.serverSalts = Salts(), Salts()
        self.seen = FirstFrames()
        self.client = self.make(True)
        self.server = self.make(False)

    def make(
        self, isClient: bool, key: bytes = KEY, context: bytes = b"", **more: Any
    ) -> Handshake:
        salts = self.clientSalts if isClient else self.serverSalts
        settings: dict[str, Any] = {
            "salts": salts,
            "seen": self.seen,
            "now": lambda: NOW,
        }
        return Handshake("alice", key, isClient, context, **{**settings, **more})

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

    def agree(self, client: Handshake, server: Handshake) -> list[bytes]:
        """
        @return: the frames of a whole handshake.
        """
        frames = [client.takeOutput()]
        frames.append(take(server, frames[0]))
        frames.append(take(client, frames[1]))
        self.assertEqual(take(server, frames[2]), b"")
        return frames

    def test_pair(self) -> None:
        """
        Two sides agree.  The hellos have their size, and the confirmation the first
        counter.
        """
        frames = self.agree(self.client, self.server)
        self.assertTrue(self.client.passed and self.server.passed)
        sizes = [len(frame) - OVERHEAD for frame in frames]
        self.assertEqual(sizes, [HELLO_SIZE, HELLO_SIZE, 0])
        for sender, receiver in (
            (self.client, self.server),
            (self.server, self.client),
        ):
            assert sender.sealer is not None
            header, sealed = sender.sealer.seal(0, 0, 0, b"data")
            self.assertEqual(receiver.opener.open(header, sealed), b"data")
        self.assertEqual(self.client.opener.last, 0)
        self.assertEqual(self.server.opener.last, 1)

    def test_serverSilent(self) -> None:
        """
        A server sends nothing before it has a hello, and has no keys to send with
        before it has the confirmation.
        """
        self.assertEqual(self.server.takeOutput(), b"")
        take(self.server, self.client.takeOutput())
        self.assertFalse(self.server.passed)
        self.assertIsNone(self.server.sealer)

    def test_fresh(self) -> None:
        """
        No two handshakes have the same salts or ephemeral keys.
        """
        seen = set()
        for _ in range(10):
            frames = self.agree(self.make(True), self.make(False))
            for frame in frames[:2]:
                seen.add(frame[12:28])
                seen.add(sealed := frame[36:])
                seen.add(sealed[:32])
        self.assertEqual(len(seen), 60)

    def test_compatiblePeer(self) -> None:
        """
        A peer in compatible mode is recognized by its first frame, whatever the flag of
        that frame.
        """
        for flag in Flag:
            for handshake in (self.make(True), self.make(False)):
                handshake.takeOutput()
                self.refused(handshake, seal(0, 0, flag), "not in strict mode")

    def test_otherID(self) -> None:
        """
        Data with the size of a hello is no hello if its ID is another.
        """
        frame = sealHello(bytes(HELLO_SIZE), 2)
        self.refused(self.server, frame, "not in strict mode")

    def test_otherFlag(self) -> None:
        """
        A frame with the ID of a hello is refused if it is not a Data frame, or if it is
        empty.
        """
        for flag in (Flag.KEEPALIVE, Flag.DATA):
            frame = seal(HELLO_ID, 0, flag)
            self.refused(self.make(False), frame, "not in strict mode")

    def test_otherSize(self) -> None:
        """
        A first frame of another size is refused before it is opened.
        """
        self.patch(strict, "Opener", None)
        for size in (1, HELLO_SIZE - 1, HELLO_SIZE + 1, 65536):
            for handshake in (self.make(True), self.make(False)):
                handshake.takeOutput()
                frame = sealHello(bytes(size))
                self.refused(handshake, frame, "carries data", AuthenticationFailed)

    def test_otherVersion(self) -> None:
        """
        A hello with another version is refused.
        """
        for version in (1, 3):
            frame = sealHello(bytes(HELLO_SIZE), HELLO_ID + (version - 2 << 24))
            self.refused(
                self.make(False),
                frame,
                f"version {version} of strict mode, and this side version 2",
            )

    def test_sameRole(self) -> None:
        """
        A client that gets the hello of another client says so.
        """
        other = self.make(True, salts=Salts()).takeOutput()
        self.client.takeOutput()
        self.refused(self.client, other, "the peer is a client, as this side is")

    def test_serverToServer(self) -> None:
        """
        A server does not accept the hello of a server.
        """
        answer = take(self.make(False, salts=Salts()), self.client.takeOutput())
        self.refused(self.server, answer, "or is a server, as this side is")

    def test_otherAnswer(self) -> None:
        """
        A client does not accept a server's hello that answers another client.
        """
        answer = take(self.server, self.make(True).takeOutput())
        self.client.takeOutput()
        self.refused(self.client, answer, "does not answer this side's")

    def test_zeroSecret(self) -> None:
        """
        A peer with the key cannot choose an ephemeral key that makes the shared secret
        zero.  Both sides refuse it, and say so.
        """
        private: Any = ZeroKey()
        noise = HandshakeState(noisePSK(KEY), prologue(b""), private)
        hello = sealHello(noise.writeMessage(bytes(12)))
        self.refused(self.server, hello, "the shared secret zero")
        hello = self.client.takeOutput()
        noise = HandshakeState(noisePSK(KEY), prologue(b""), private)
        noise.readMessage(
            self.make(False).open(hello[:HEADER_SIZE], hello[HEADER_SIZE:])
        )
        answer = sealHello(noise.writeMessage(bytes(12)))
        self.refused(self.client, answer, "the shared secret zero")

    def test_counter(self) -> None:
        """
        A hello that is not the first frame with its salt is refused.
        """
        noise = self.client._startNoise()
        message = noise.writeMessage(bytes(12))
        frame = sealHello(message, counter=1)
        self.refused(self.server, frame, "not its first frame")
        take(self.make(False), sealHello(message))

    def test_wrongKey(self) -> None:
        """
        A hello that is sealed with another key is refused.
        """
        frame = self.make(True, OTHER_KEY).takeOutput()
        self.refused(self.server, frame, "another pre-shared key", AuthenticationFailed)

    def test_wrongPSK(self) -> None:
        """
        A hello that is sealed with the right key is refused if its Noise message was
        made with another.
        """
        message = self.make(True, OTHER_KEY)._startNoise().writeMessage(bytes(12))
        self.refused(self.server, sealHello(message), "another context")

    @settings(max_examples=200, deadline=None)
    @given(st.integers(0, 8 * 112 - 1), st.integers(0, 2))
    def test_flipped(self, bit: int, which: int) -> None:
        """
        One changed bit in any frame of the handshake ends it at that frame.
        """
        client, server = self.make(True), self.make(False)
        frame = client.takeOutput()
        receivers = [server, client, server]
        for receiver in receivers[:which]:
            frame = take(receiver, frame)
        changed = bytearray(frame)
        changed[bit // 8 % len(frame)] ^= 1 << bit % 8
        self.assertRaises(GomuxError, take, receivers[which], bytes(changed))
        self.assertEqual(receivers[which].takeOutput(), b"")
        self.assertFalse(receivers[which].passed)

    def test_context(self) -> None:
        """
        A hello from a side with another context is refused, and names the context.
        """
        for own, other in ((b"", b"a"), (b"a", b""), (b"ab", b"a")):
            hello = self.make(True, context=own).takeOutput()
            server = self.make(False, context=other)
            self.refused(server, hello, "the peer has another context")
            self.agree(self.make(True, context=own), self.make(False, context=own))

    def test_confirmationForm(self) -> None:
        """
        A confirmation that is not a plain Keepalive is refused.
        """
        for fields in ((1, 0, Flag.KEEPALIVE), (0, 1, Flag.KEEPALIVE), (0, 0, 7)):
            client, server = self.make(True), self.make(False)
            take(client, take(server, client.takeOutput()))
            client._sealer._next = 0
            frame = b"".join(client._sealer.seal(*fields))
            self.refused(server, frame, "is not a Keepalive")

    def test_noConfirmation(self) -> None:
        """
        The client's second frame with its new key is no confirmation, nor is a frame
        under the pre-shared key.
        """
        for make in (
            lambda client: client.sealer.seal(0, 0, Flag.KEEPALIVE),
            lambda client: Sealer(KEY, client._salt).seal(0, 0, Flag.KEEPALIVE),
        ):
            client, server = self.make(True), self.make(False)
            take(client, take(server, client.takeOutput()))
            self.refused(server, b"".join(make(client)), "does not fit this handshake")

    def test_dead(self) -> None:
        """
        After an error every frame is refused.
        """
        self.refused(self.server, seal(0, 0, Flag.KEEPALIVE), "not in strict mode")
        self.refused(self.server, self.client.takeOutput(), "after the end")

    def test_seen(self) -> None:
        """
        A hello that was seen before is refused without an answer, and the error tells
        how old it is.
        """
        hello = self.client.takeOutput()
        self.assertNotEqual(take(self.server, hello), b"")
        again = self.make(False, now=lambda: NOW + 7200.5)
        self.refused(again, hello, "7200 seconds old", OutOfSequence)

    def test_clock(self) -> None:
        """
        With C{checksClock} either side refuses a hello whose time stamp differs by more
        than 300 seconds.  Without it any time stamp is accepted.
        """
        for difference in (-301, 301, -300, 300, -(10**9), 10**15):
            isOff = abs(difference) > 300
            then = NOW + difference
            for checks in (True, False):
                client = self.make(True, now=lambda then=then: then)
                server = self.make(False, checksClock=checks)
                hello = client.takeOutput()
                if isOff and checks:
                    order = "ahead of" if difference > 0 else "behind"
                    self.refused(
                        server, hello, f"{abs(difference)} seconds {order} this side's"
                    )
                else:
                    take(server, hello)
                client = self.make(True, checksClock=checks)
                server = self.make(False, now=lambda then=then: then)
                answer = take(server, client.takeOutput())
                if isOff and checks:
                    self.refused(client, answer, "the peer's clock is")
                else:
                    take(client, answer)

    def test_missing(self) -> None:
        """
        What is told of a handshake that is not done says what is missing, and whether
        the hello may be an old one.
        """
        old = self.make(True, now=lambda: NOW - 4000)
        for client, hint in ((self.client, ""), (old, "4000 seconds behind")):
            server = self.make(False)
            self.assertIn("has sent no hello", str(server.interrupted("")))
            self.assertIn("has not answered", str(client.interrupted(" And more.")))
            self.assertIn(" And more.", str(client.interrupted(" And more.")))
            take(server, client.takeOutput())
            error = server.interrupted("")
            self.assertIsInstance(error, HandshakeFailed)
            self.assertIn("has not confirmed its hello", str(error))
            self.assertIn(hint, str(error))
            self.assertEqual("old one" in str(error), bool(hint))

    def test_noKeyForReplays(self) -> None:
        """
        A server makes no ephemeral key for a hello that it refuses.
        """
        hello = self.client.takeOutput()
        take(self.server, hello)
        self.patch(noise, "X25519PrivateKey", None)
        self.refused(self.make(False), hello, "came again", OutOfSequence)
        self.refused(self.make(False), seal(0, 0, 1), "not in strict mode")

    def test_forgets(self) -> None:
        """
        A handshake drops its Noise state when it is done, when it fails, and when it is
        closed.
        """
        hello = self.client.takeOutput()
        self.assertIsNotNone(self.client._noise)
        take(self.client, take(self.server, hello))
        self.assertIsNone(self.client._noise)
        self.assertIsNone(self.server._noise)
        client = self.make(True)
        self.assertRaises(HandshakeFailed, take, client, seal(0, 0, 1))
        client.close()
        self.assertIsNone(client._noise)


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
            client = Handshake("", KEY, True, salts=salts)
            server = Handshake("", KEY, False, salts=salts)
            if closed:
                client.close()
            error = self.assertRaises(
                HandshakeFailed, take, server, client.takeOutput()
            )
            self.assertIn("connected with itself", str(error))

    def test_reflected(self) -> None:
        """
        A client that gets its own hello back is connected with itself.
        """
        client = Handshake("", KEY, True, salts=Salts())
        error = self.assertRaises(HandshakeFailed, take, client, client.takeOutput())
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
