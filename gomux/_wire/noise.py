# -*- test-case-name: gomux.test.wire.test_noise -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
C{Noise_NNpsk0_25519_ChaChaPoly_BLAKE2b}, as revision 34 of the Noise Protocol Framework
defines it.  The classes are those of the specification, without what this one handshake
pattern does not use::

    NNpsk0:
      -> psk, e
      <- e, ee

This module knows nothing of gomux.

@see: U{https://noiseprotocol.org/noise.html}
"""

from __future__ import annotations

import hashlib
import hmac
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

PROTOCOL_NAME = b"Noise_NNpsk0_25519_ChaChaPoly_BLAKE2b"
#: The size of a public key, in bytes.
DH_SIZE = 32
#: The size of the key of a cipher, in bytes.
KEY_SIZE = 32
#: The size of a hash, in bytes.
HASH_SIZE = 64

# A nonce of ChaCha20-Poly1305: 4 zero bytes, and a little-endian number.
_nonce = Struct("<4xQ").pack
_REKEY_NONCE = _nonce(2**64 - 1)


class NoiseError(Exception):
    """
    A message does not open: it was made with another pre-shared key or prologue, is the
    answer to another message, or was changed.
    """


class ZeroSecret(Exception):
    """
    The other side's ephemeral public key is one of the few that make the shared secret
    zero, whatever the private key.
    """


def rekey(key: bytes) -> bytes:
    """
    The function REKEY of a cipher.

    @param key: a key.
    @return: the next key, which does not tell anything about C{key}.
    """
    encrypted = ChaCha20Poly1305(key).encrypt(_REKEY_NONCE, bytes(KEY_SIZE), b"")
    return encrypted[:KEY_SIZE]


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data).digest()


def _hkdf(chainingKey: bytes, material: bytes, outputs: int) -> list[bytes]:
    """
    The function HKDF, which is that of RFC 5869.

    @param outputs: how many outputs to make.
    @return: the outputs, L{HASH_SIZE} bytes each.
    """
    temporary = hmac.digest(chainingKey, material, hashlib.blake2b)
    found: list[bytes] = []
    last = b""
    for number in range(1, outputs + 1):
        last = hmac.digest(temporary, last + bytes([number]), hashlib.blake2b)
        found.append(last)
    return found


class CipherState:
    """
    A key, and the nonce of the next message under it.

    @ivar key: the key, 32 bytes.
    @ivar _n: the nonce of the next message.
    """

    __slots__ = ("key", "_n")

    def __init__(self, key: bytes) -> None:
        """
        @param key: 32 bytes.
        """
        self.key = key
        self._n = 0

    def encrypt(self, ad: bytes, plaintext: bytes) -> bytes:
        """
        C{EncryptWithAd}.
        """
        sealed = ChaCha20Poly1305(self.key).encrypt(_nonce(self._n), plaintext, ad)
        self._n += 1
        return sealed

    def decrypt(self, ad: bytes, ciphertext: bytes) -> bytes:
        """
        C{DecryptWithAd}.

        @raise NoiseError: if the ciphertext does not open.
        """
        try:
            opened = ChaCha20Poly1305(self.key).decrypt(_nonce(self._n), ciphertext, ad)
        except InvalidTag:
            raise NoiseError("the message does not open") from None
        self._n += 1
        return opened

    def rekey(self) -> None:
        """
        C{Rekey}.
        """
        self.key = rekey(self.key)


class SymmetricState:
    """
    What both sides have mixed into the handshake so far.

    @ivar hash: the hash of everything that both sides know, C{h}.
    @ivar _chainingKey: the key that everything secret has gone into, C{ck}.
    @ivar _cipher: encrypts the payloads of the messages; not there before the first key
        is mixed in.
    """

    _cipher: CipherState

    def __init__(self) -> None:
        # The name is not longer than a hash.
        self.hash = self._chainingKey = PROTOCOL_NAME.ljust(HASH_SIZE, b"\0")

    def mixKey(self, material: bytes) -> None:
        """
        C{MixKey}.
        """
        self._chainingKey, key = _hkdf(self._chainingKey, material, 2)
        self._cipher = CipherState(key[:KEY_SIZE])

    def mixHash(self, data: bytes) -> None:
        """
        C{MixHash}.
        """
        self.hash = _hash(self.hash + data)

    def mixKeyAndHash(self, material: bytes) -> None:
        """
        C{MixKeyAndHash}.
        """
        self._chainingKey, temporary, key = _hkdf(self._chainingKey, material, 3)
        self.mixHash(temporary)
        self._cipher = CipherState(key[:KEY_SIZE])

    def encryptAndHash(self, plaintext: bytes) -> bytes:
        """
        C{EncryptAndHash}.
        """
        sealed = self._cipher.encrypt(self.hash, plaintext)
        self.mixHash(sealed)
        return sealed

    def decryptAndHash(self, ciphertext: bytes) -> bytes:
        """
        C{DecryptAndHash}.

        @raise NoiseError: if the ciphertext does not open.
        """
        opened = self._cipher.decrypt(self.hash, ciphertext)
        self.mixHash(ciphertext)
        return opened

    def split(self) -> tuple[bytes, bytes]:
        """
        C{Split}.

        @return: the keys of the initiator's and of the responder's messages.
        """
        first, second = _hkdf(self._chainingKey, b"", 2)
        return first[:KEY_SIZE], second[:KEY_SIZE]


class HandshakeState(SymmetricState):
    """
    One side of one handshake.  The initiator calls L{writeMessage} and then
    L{readMessage}, the responder the other way round.  Then both call L{split}.

    @ivar _psk: the pre-shared key, before the first message.
    @ivar _private: this side's ephemeral private key, from its message on.
    @ivar _peers: the other side's ephemeral public key, once it is known.
    """

    _private: X25519PrivateKey | None
    _peers: bytes | None = None

    def __init__(
        self, psk: bytes, prologue: bytes, private: X25519PrivateKey | None = None
    ) -> None:
        """
        @param psk: the pre-shared key, 32 bytes.
        @param prologue: what both sides must agree on besides.
        @param private: this side's ephemeral private key, for tests; by default a
            random one.
        """
        super().__init__()
        self.mixHash(prologue)
        self._psk: bytes | None = psk
        self._private = private

    def writeMessage(self, payload: bytes) -> bytes:
        """
        C{WriteMessage}.

        @param payload: what to tell the other side.
        @return: the message.
        @raise ZeroSecret: if this message answers one with a bad public key.
        """
        self._mixPSK()
        private = self._private = self._private or X25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        self._mixEphemeral(public)
        if self._peers is not None:
            self._mixShared(private, self._peers)
        return public + self.encryptAndHash(payload)

    def readMessage(self, message: bytes) -> bytes:
        """
        C{ReadMessage}.

        @param message: the other side's message.
        @return: its payload.
        @raise NoiseError: if the message does not open.  The handshake has then failed.
        @raise ZeroSecret: if the message is an answer with a bad public key.
        """
        isAnswer = self._psk is None
        self._mixPSK()
        self._peers = message[:DH_SIZE]
        self._mixEphemeral(self._peers)
        if isAnswer:
            assert self._private is not None
            self._mixShared(self._private, self._peers)
        return self.decryptAndHash(message[DH_SIZE:])

    def _mixPSK(self) -> None:
        """
        The token C{psk}, with which the first message begins.
        """
        if self._psk is not None:
            self.mixKeyAndHash(self._psk)
            self._psk = None

    def _mixEphemeral(self, public: bytes) -> None:
        """
        The token C{e}: with a pre-shared key, it is mixed into the key too.
        """
        self.mixHash(public)
        self.mixKey(public)

    def _mixShared(self, private: X25519PrivateKey, peers: bytes) -> None:
        """
        The token C{ee}, which the second message has.

        @raise ZeroSecret: if the other side's public key is of low order.
        """
        try:
            shared = private.exchange(X25519PublicKey.from_public_bytes(peers))
        except ValueError:
            raise ZeroSecret() from None
        self.mixKey(shared)
