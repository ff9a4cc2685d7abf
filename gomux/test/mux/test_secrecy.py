"""
Tests for what strict mode keeps secret: who learns the pre-shared key, or takes over
both processes later, cannot open a recorded session.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.protocols.wire import Echo
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory
from gomux._wire import noise, ratchet
from gomux._wire.crypto import Subkeys, deriveKey
from gomux._wire.frame import HEADER_SIZE
from gomux._wire.noise import HandshakeState, rekey
from gomux._wire.salts import Salts
from gomux._wire.strict import Handshake, noisePSK
from gomux.error import HandshakeFailed
from gomux.test.support.helpers import Parts, Recorders
from gomux.test.support.middle import cutFrames
from gomux.test.support.reachable import reachable
from gomux.testing import PSK, MuxPair

KEY = deriveKey(PSK)
FRAMES = 8


def opensWith(key: bytes, frame: bytes) -> bool:
    """
    @return: whether a key opens a frame.
    """
    subkey = Subkeys(key).derive(frame[12:28])
    return decrypts(ChaCha20Poly1305(subkey), frame)


def decrypts(cipher: ChaCha20Poly1305, frame: bytes) -> bool:
    """
    @return: whether the cipher, whose key may be a subkey, opens a frame.
    """
    header, sealed = frame[:HEADER_SIZE], frame[HEADER_SIZE:]
    try:
        cipher.decrypt(bytes(4) + header[-8:], sealed, header)
    except InvalidTag:
        return False
    return True


class Session:
    """
    A session in strict mode, recorded on the path, with all secrets that its handshake
    has made.

    @ivar made: the secrets: the ephemeral private keys, and all outputs of Noise's key
        derivation.
    @ivar pair: the muxes.
    """

    def __init__(self, case: SynchronousTestCase) -> None:
        case.patch(ratchet, "REKEY_FRAMES", FRAMES)
        self.made: list[bytes] = []
        patches = [
            case.patch(noise, "_hkdf", self._noting(noise._hkdf)),
            case.patch(noise, "X25519PrivateKey", self),
        ]
        clock = Clock()
        self.client, self.server = (
            MuxFactory(
                PSK,
                isClient,
                Factory.forProtocol(Echo),
                clock=clock,
                strict=True,
                salts=Salts(),
            )
            for isClient in (True, False)
        )
        self.pair = MuxPair(
            clientFactory=self.client, serverFactory=self.server, clock=clock
        )
        self.recorded = [bytearray(), bytearray()]
        for number, mux in enumerate((self.pair.client, self.pair.server)):
            carrier: Any = mux.transport
            whole = self.recorded[number]

            def write(parts: Any, before: Any = carrier.writeSequence, to: Any = whole):  # type: ignore[no-untyped-def]
                to += b"".join(parts)
                before(parts)

            case.patch(carrier, "writeSequence", write)
        self.pair.flush()
        for patch in patches:
            patch.restore()

    def _noting(self, function: Callable[..., list[bytes]]) -> Callable[..., Any]:
        def noting(*args: Any) -> list[bytes]:
            outputs = function(*args)
            self.made += [output[:32] for output in outputs]
            return outputs

        return noting

    def generate(self) -> X25519PrivateKey:
        """
        Make an ephemeral private key.
        """
        key = X25519PrivateKey.generate()
        self.made.append(key.private_bytes_raw())
        return key

    def talk(self, times: int) -> None:
        """
        Exchange some frames in both directions.
        """
        streams = Recorders()
        for mux in (self.pair.client, self.pair.server):
            mux.openStream(streams)
        self.pair.flush()
        for _ in range(times):
            for made in streams.made:
                made.stream.write(b"something secret")
            self.pair.flush()

    def frames(self, number: int) -> list[bytes]:
        """
        @return: the frames of one side, without those of the handshake.
        """
        frames = cutFrames(bytes(self.recorded[number]))
        return [frame for frame in frames if frame[:3] != b"GMX"]

    def held(self) -> Iterator[Any]:
        """
        @return: all that both processes hold.
        """
        modules = [
            vars(module)
            for name, module in list(sys.modules.items())
            if name.startswith("gomux") and not name.startswith("gomux.test")
        ]
        return reachable(self.client, self.server, *modules)


class SecrecyTests(SynchronousTestCase):
    """
    The secrets of a session, and whether anything keeps them.
    """

    def setUp(self) -> None:
        self.session = Session(self)
        # A client's frame confirms the handshake; a server's may still be missing.
        self.first = self.currentKeys()

    def currentKeys(self) -> list[bytes]:
        """
        @return: the key of each direction.
        """
        pair = self.session.pair
        sealers: list[Any] = [
            Parts(mux).scheduler._sealer for mux in (pair.client, pair.server)
        ]
        return [sealer._key for sealer in sealers]

    def assertNotHeld(self, *secrets: bytes) -> None:
        """
        Check that neither process holds any of these bytes.
        """
        self.assertTrue(secrets)
        for found in self.session.held():
            if isinstance(found, (bytes, bytearray)):
                for secret in secrets:
                    self.assertNotIn(secret, bytes(found))

    def test_handshake(self) -> None:
        """
        After the handshake, nothing of it is left but the keys of the two directions:
        no ephemeral key, no chaining key, no key of a message, and not the pre-shared
        key of Noise.
        """
        made = self.session.made
        # Two private keys; message 1 has 5 outputs at each side, message 2 has 4, and
        # Split has 2.
        self.assertEqual(len(made), 2 + 2 * (5 + 4 + 2))
        for key in self.first:
            self.assertEqual(made.count(key), 2)
        held = list(self.session.held())
        for key in self.first:
            self.assertIn(key, [found for found in held if isinstance(found, bytes)])
        for found in held:
            if isinstance(found, X25519PrivateKey):
                self.assertNotIn(found.private_bytes_raw(), made)
        del held
        others = {secret for secret in made if secret not in self.first}
        self.assertNotHeld(noisePSK(KEY), *others)

    def test_rekey(self) -> None:
        """
        After a change of keys, neither process holds the keys of before.
        """
        session = self.session
        old = list(self.first)
        for _ in range(3):
            session.talk(FRAMES)
            self.assertNotHeld(*old)
            for key in self.currentKeys():
                self.assertNotIn(key, old)
                old.append(key)

    def tryAll(self, frames: list[bytes], held: list[Any]) -> list[bool]:
        """
        Try to open frames with all that is held, and with what can be derived from it.

        @return: for each frame, whether it opens.
        """
        keys = {bytes(found) for found in held if type(found) in (bytes, bytearray)}
        keys = {key[i : i + 32] for key in keys for i in range(0, len(key), 32)}
        keys = {key for key in keys if len(key) == 32} | {KEY, noisePSK(KEY)}
        keys |= {rekey(key) for key in keys}
        ciphers = [found for found in held if isinstance(found, ChaCha20Poly1305)]
        return [
            any(decrypts(cipher, frame) for cipher in ciphers)
            or any(opensWith(key, frame) for key in keys)
            for frame in frames
        ]

    def test_recorded(self) -> None:
        """
        A recorded session cannot be opened with the pre-shared key and all that both
        processes hold: while the mux is up, only the frames since the last change of
        keys can be opened, and once it has ended, none.
        """
        session = self.session
        session.talk(FRAMES)
        held = list(session.held())
        for number in (0, 1):
            frames = session.frames(number)
            self.assertGreater(len(frames), 2 * FRAMES)
            current = (len(frames) - 1) // FRAMES * FRAMES
            opened = self.tryAll(frames, held)
            expected = [False] * current + [True] * (len(frames) - current)
            self.assertEqual(opened, expected)
            # The keys of before do open the frames of before.
            key = self.first[number]
            for start in range(0, len(frames), FRAMES):
                part = frames[start : start + FRAMES]
                self.assertTrue(all(opensWith(key, frame) for frame in part))
                key = rekey(key)
        del held
        session.pair.client.close()
        session.pair.flush()
        self.assertEqual(session.client.muxes + session.server.muxes, [])
        held = list(session.held())
        for number in (0, 1):
            self.assertNotIn(True, self.tryAll(session.frames(number), held))

    def test_kept(self) -> None:
        """
        An application that keeps a stream of a mux that has ended keeps no key.
        """
        session = self.session
        pair = session.pair
        streams = Recorders()
        pair.client.openStream(streams)
        session.talk(FRAMES)
        pair.server.close()
        pair.flush()
        kept = list(reachable(pair.client, pair.server, streams.made))
        self.assertIn(streams.made[0].stream, kept)
        for number in (0, 1):
            self.assertNotIn(True, self.tryAll(session.frames(number), kept))

    def test_failed(self) -> None:
        """
        The reason of a mux that has ended because of a forged frame, which the client's
        pool keeps, keeps no key of the mux.
        """
        session = self.session
        session.talk(FRAMES)
        session.pair.client.dataReceived(bytes(HEADER_SIZE + 16))
        session.pair.flush()
        self.assertIs(session.client.pool.lastReason, session.pair.client.reason)
        held = list(session.held())
        for number in (0, 1):
            self.assertNotIn(True, self.tryAll(session.frames(number), held))

    def test_failedHandshake(self) -> None:
        """
        The error of a handshake keeps no ephemeral key, and nothing else of Noise.
        """
        hellos = []
        sides = [
            Handshake("", KEY, isClient, salts=Salts())
            for isClient in (True, True, False)
        ]
        for side in sides[:2]:
            hellos.append(side.takeOutput())
        client, other, server = sides
        server.open(hellos[1][:HEADER_SIZE], hellos[1][HEADER_SIZE:])
        answer = server.takeOutput()
        cases = [(client, answer), (Handshake("", KEY, False, b"x"), hellos[0])]
        for side, hello in cases:
            error = self.assertRaises(
                HandshakeFailed, side.open, hello[:HEADER_SIZE], hello[HEADER_SIZE:]
            )
            found = [type(found) for found in reachable(error)]
            self.assertTrue(Handshake in found)
            self.assertFalse(HandshakeState in found)

    def test_unanswered(self) -> None:
        """
        A client whose hello is never answered forgets its ephemeral key at the end.
        """
        client = Handshake("", KEY, True, salts=Salts())
        client.takeOutput()
        found = [type(found) for found in reachable(client)]
        self.assertTrue(HandshakeState in found)
        client.close()
        found = [type(found) for found in reachable(client)]
        self.assertFalse(HandshakeState in found)
