"""
Tests of the Noise handshake, with the published test vector and with the package
noiseprotocol as the other side.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from noise.connection import NoiseConnection
from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.noise import (
    PROTOCOL_NAME,
    CipherState,
    HandshakeState,
    NoiseError,
    ZeroSecret,
    rekey,
)

VECTORS = Path(__file__).parent.parent / "vectors" / "noise.json"
PSK = bytes(range(32))
PROLOGUE = b"a prologue"


def oracle(initiator: bool, psk: bytes = PSK) -> NoiseConnection:
    """
    @return: one side of a handshake by another implementation.
    """
    other = NoiseConnection.from_name(PROTOCOL_NAME)
    other.set_psks(psk)
    other.set_prologue(PROLOGUE)
    if initiator:
        other.set_as_initiator()
    else:
        other.set_as_responder()
    other.start_handshake()
    return other


class VectorTests(SynchronousTestCase):
    """
    The test vector of cacophony, which other implementations of Noise use too.
    """

    def setUp(self) -> None:
        [self.vector] = json.loads(VECTORS.read_text())["vectors"]
        self.assertEqual(self.vector["protocol_name"].encode(), PROTOCOL_NAME)

    def bytesOf(self, name: str) -> bytes:
        return bytes.fromhex(self.vector[name])

    def side(self, who: str) -> HandshakeState:
        [psk] = self.vector[f"{who}_psks"]
        private = X25519PrivateKey.from_private_bytes(self.bytesOf(f"{who}_ephemeral"))
        return HandshakeState(
            bytes.fromhex(psk), self.bytesOf(f"{who}_prologue"), private
        )

    def test_vector(self) -> None:
        """
        Both sides make and open the messages of the vector, and end with its handshake
        hash.
        """
        messages = [
            (bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"]))
            for m in self.vector["messages"]
        ]
        self.assertEqual(len(messages), 6)
        initiator, responder = self.side("init"), self.side("resp")
        for (payload, message), writer, reader in zip(
            messages[:2], (initiator, responder), (responder, initiator), strict=True
        ):
            self.assertEqual(writer.writeMessage(payload), message)
            self.assertEqual(reader.readMessage(message), payload)
        for side in (initiator, responder):
            self.assertEqual(side.hash, self.bytesOf("handshake_hash"))
        self.assertEqual(initiator.split(), responder.split())
        ciphers = [CipherState(key) for key in initiator.split()]
        for number, (payload, message) in enumerate(messages[2:]):
            self.assertEqual(ciphers[number % 2].encrypt(b"", payload), message)


class OracleTests(SynchronousTestCase):
    """
    Handshakes with another implementation.
    """

    def test_initiator(self) -> None:
        """
        The other implementation can be the responder.
        """
        for _ in range(20):
            ours, other = HandshakeState(PSK, PROLOGUE), oracle(False)
            payload, answer = os.urandom(12), os.urandom(7)
            self.assertEqual(other.read_message(ours.writeMessage(payload)), payload)
            self.assertEqual(
                ours.readMessage(bytes(other.write_message(answer))), answer
            )
            self.assertTransport(other, *ours.split())

    def test_responder(self) -> None:
        """
        The other implementation can be the initiator.
        """
        for _ in range(20):
            ours, other = HandshakeState(PSK, PROLOGUE), oracle(True)
            payload, answer = os.urandom(12), os.urandom(7)
            message = bytes(other.write_message(payload))
            self.assertEqual(ours.readMessage(message), payload)
            self.assertEqual(other.read_message(ours.writeMessage(answer)), answer)
            first, second = ours.split()
            self.assertTransport(other, second, first)

    def assertTransport(
        self, other: NoiseConnection, sending: bytes, receiving: bytes
    ) -> None:
        """
        Check that the other implementation has the same keys, before and after it has
        changed them.

        @param sending: the key of the messages to the other side.
        @param receiving: the key of the messages from it.
        """
        ours, theirs = CipherState(sending), CipherState(receiving)
        for _ in range(3):
            self.assertEqual(other.decrypt(ours.encrypt(b"", b"ping")), b"ping")
            self.assertEqual(
                theirs.decrypt(b"", bytes(other.encrypt(b"pong"))), b"pong"
            )
            ours.rekey()
            theirs.rekey()
            other.rekey_inbound_cipher()
            other.rekey_outbound_cipher()

    def test_otherPSK(self) -> None:
        """
        A message under another pre-shared key opens at neither side.
        """
        other = oracle(False, bytes(32))
        message = HandshakeState(PSK, PROLOGUE).writeMessage(b"")
        self.assertRaises(InvalidTag, other.read_message, message)
        message = bytes(oracle(True, bytes(32)).write_message(b""))
        ours = HandshakeState(PSK, PROLOGUE)
        self.assertRaises(NoiseError, ours.readMessage, message)


class RefusalTests(SynchronousTestCase):
    """
    What L{HandshakeState} does not accept.
    """

    def handshake(self, ofClient: bytes = PROLOGUE) -> tuple[HandshakeState, bytes]:
        client, server = HandshakeState(PSK, ofClient), HandshakeState(PSK, PROLOGUE)
        server.readMessage(client.writeMessage(b"hello"))
        return client, server.writeMessage(b"welcome")

    def test_prologue(self) -> None:
        """
        Both sides need the same prologue.
        """
        self.assertRaises(NoiseError, self.handshake, b"another prologue")

    def test_changed(self) -> None:
        """
        A message with any bit changed does not open.
        """
        for number in range(32 + 7 + 16):
            client, message = self.handshake()
            changed = bytearray(message)
            changed[number] ^= 1
            self.assertRaises(NoiseError, client.readMessage, bytes(changed))

    def test_otherHandshake(self) -> None:
        """
        The answer to another handshake does not open.
        """
        client, _ = self.handshake()
        _, message = self.handshake()
        self.assertRaises(NoiseError, client.readMessage, message)

    def test_reflected(self) -> None:
        """
        A side's own message does not open as the answer to it.
        """
        client = HandshakeState(PSK, PROLOGUE)
        message = client.writeMessage(b"hello")
        self.assertRaises(NoiseError, client.readMessage, message)

    def test_zero(self) -> None:
        """
        A public key that makes the shared secret zero is refused.
        """
        server = HandshakeState(PSK, PROLOGUE)
        client = HandshakeState(PSK, PROLOGUE)
        client.writeMessage(b"")
        message = bytes(32) + bytes(16)
        self.assertRaises(ZeroSecret, client.readMessage, message)
        server._mixPSK()
        server._peers = bytes(32)
        self.assertRaises(ZeroSecret, server.writeMessage, b"")

    def test_rekey(self) -> None:
        """
        The new key is the encryption of zeros under the old one.
        """
        old = CipherState(PSK)
        old._n = 2**64 - 1
        self.assertEqual(rekey(PSK), old.encrypt(b"", bytes(32))[:32])
