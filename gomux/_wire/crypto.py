# -*- test-case-name: gomux.test.wire.test_crypto -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
XChaCha20-Poly1305 under a pre-shared key, built from the ciphers of C{cryptography}.

XChaCha20-Poly1305 with a 24-byte nonce is ChaCha20-Poly1305 under a subkey,
HChaCha20 of the key and the nonce's first 16 bytes, with the other 8 bytes as
the end of the nonce.  L{Sealer} keeps those 16 bytes the same for a whole mux, so it
computes HChaCha20 once.  L{Opener} remembers the last subkey.  It computes HChaCha20
once for a peer that does the same, and for every frame of the reference, whose nonces
are random.

@see: U{https://datatracker.ietf.org/doc/html/draft-irtf-cfrg-xchacha-03}
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cached_property
from itertools import count
from struct import Struct
from struct import error as StructError

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from gomux._fastpaths import fastPaths
from gomux.error import AuthenticationFailed, NonceExhausted, OutOfSequence

KEY_SIZE = 32
PREFIX_SIZE = 16
NONCE_SIZE = 24
TAG_SIZE = 16


_NONCE_START = b"\x00\x00\x00\x00"
_COUNTER_END = 1 << 64
#: The counter that is reserved for the frame that ends a mux.
LAST_COUNTER = _COUNTER_END - 1

_fourWords = Struct("<4I")
_eightWords = Struct("<8I")
# The first and the last four words of a block.
_outerWords = Struct("<4I32x4I")
_ZEROS = bytes(_outerWords.size)
_counter = Struct("<Q")
# Returns the header of a frame: three fields, and the prefix and counter of its nonce.
_packHeader = Struct("<III16sQ").pack
#: Returns a nonce of ChaCha20-Poly1305: 4 zero bytes, and a counter.
nonceFor = Struct("<4xQ").pack
# "expand 32-byte k", the constant that ChaCha20's state starts with.
_SIGMA = _fourWords.unpack(b"expand 32-byte k")


class Key(bytes):
    """
    The key of a mux: 32 bytes, with the object that derives its subkeys.

    All users of the key share that object.  Otherwise each connection of a stranger
    would cost a new cipher, and each mux would keep a cipher.  The object lives as long
    as the key, and must be used in one thread only.
    """

    @cached_property
    def subkeys(self) -> Subkeys:
        """
        Derives the subkeys.
        """
        # A copy: the cipher keeps its key, and this object would otherwise keep itself
        # alive through the cipher.
        return Subkeys(bytes(self))


def deriveKey(psk: bytes | str) -> Key:
    """
    Make the key of a mux from its pre-shared key: unkeyed BLAKE2b-256.

    The PSK is neither stretched nor salted, so it must be hard to guess by itself.

    @param psk: the pre-shared key; text stands for its UTF-8 bytes.
    @return: 32 bytes.
    @raise ValueError: if C{psk} is empty.
    """
    if isinstance(psk, str):
        psk = psk.encode("utf-8")
    if not psk:
        raise ValueError("the pre-shared key is empty")
    return Key(hashlib.blake2b(psk, digest_size=KEY_SIZE).digest())


class Subkeys:
    """
    Derives subkeys from one key, each with 16 bytes of nonce.

    ChaCha20's block function adds the state it started with to the result of
    its rounds.  HChaCha20 is the first and last four words of that result,
    without the addition.  So a block of ChaCha20's key stream minus the starting
    state has all eight words.

    @ivar _key: the key.
    @ivar _useNonce: restarts the key stream with a nonce of 16 bytes.
    @ivar _encrypt: encrypts with the key stream.
    """

    __slots__ = ("_key", "_useNonce", "_encrypt", "__weakref__")

    def __init__(self, key: bytes) -> None:
        """
        @param key: 32 bytes.
        """
        # Making a cipher takes three times as long as deriving a subkey with it.
        cipher = Cipher(ChaCha20(key, bytes(PREFIX_SIZE)), mode=None).encryptor()
        self._key = key
        # A cipher can be restarted since cryptography 43.
        self._useNonce = getattr(cipher, "reset_nonce", self._renew)
        self._encrypt = cipher.update

    def _renew(self, nonce: bytes) -> None:
        """
        Start the key stream with a nonce in a new cipher.
        """
        cipher = Cipher(ChaCha20(self._key, nonce), mode=None).encryptor()
        self._encrypt = cipher.update

    def derive(self, nonce: bytes) -> bytes:
        """
        Derive a subkey.

        @param nonce: 16 bytes.
        @return: 32 bytes.
        """
        self._useNonce(nonce)
        a, b, c, d, e, f, g, h = _outerWords.unpack(self._encrypt(_ZEROS))
        i, j, k, l = _SIGMA  # noqa: E741
        m, n, o, p = _fourWords.unpack(nonce)
        w = 0xFFFFFFFF
        return _eightWords.pack(
            (a - i) & w,
            (b - j) & w,
            (c - k) & w,
            (d - l) & w,
            (e - m) & w,
            (f - n) & w,
            (g - o) & w,
            (h - p) & w,
        )


def subkeysOf(key: bytes) -> Subkeys:
    """
    @param key: 32 bytes.
    @return: derives the subkeys of C{key}; the same for all users of a L{Key}.
    """
    return key.subkeys if isinstance(key, Key) else Subkeys(key)


def opens(key: bytes, header: bytes, sealed: bytes | memoryview) -> bool:
    """
    @param key: 32 bytes.
    @param header: the whole header of a frame.
    @param sealed: its ciphertext with its tag.
    @return: whether the frame was sealed with this key.
    """
    subkey = subkeysOf(key).derive(header[-24:-8])
    try:
        ChaCha20Poly1305(subkey).decrypt(_NONCE_START + header[-8:], sealed, header)
    except InvalidTag:
        return False
    return True


class Sealer:
    """
    Seals the frames of one direction of one mux, each with the next nonce of
    a sequence: a 16-byte prefix, then a 64-bit little-endian counter.

    @ivar prefix: the first 16 bytes of every nonce.
    @ivar _next: the counter of the next nonce.
    @ivar _end: the first counter that must not be used with the current key.
    @ivar _encrypt: encrypts and authenticates with the subkey of C{prefix}.
    """

    __slots__ = ("prefix", "_next", "_end", "_encrypt")

    def __init__(
        self, key: bytes, prefix: bytes | None = None, counter: int = 0
    ) -> None:
        """
        @param key: 32 bytes.
        @param prefix: 16 bytes that were never used with this key before.  By
            default they are random.
        @param counter: the first nonce's counter, from 0 to 2**64 - 1.
        """
        self._next = counter
        self._end = LAST_COUNTER
        self.prefix = os.urandom(PREFIX_SIZE) if prefix is None else prefix
        self._useKey(key)

    @property
    def last(self) -> int:
        """
        The counter of the last frame that was sealed.
        """
        return self._next - 1

    def _useKey(self, key: bytes) -> None:
        subkey = subkeysOf(key).derive(self.prefix)
        self._encrypt = ChaCha20Poly1305(subkey).encrypt

    def _renew(self, counter: int) -> None:
        """
        The current key must not seal another frame.

        @param counter: the counter of the next frame.
        @raise NonceExhausted: see L{seal}.
        """
        raise NonceExhausted()

    def seal(
        self, streamID: int, length: int, flag: int, payload: bytes | memoryview = b""
    ) -> tuple[bytes, bytes]:
        """
        Seal one frame, ready to be written.  Frames must be written in the order in
        which they are sealed.

        @param streamID: the stream's ID, 0 in a frame about the whole mux.
        @param length: the size of the payload, or the credit of a WindowUpdate, in
            bytes; 0 in any other frame.
        @param flag: a L{Flag<gomux._wire.frame.Flag>}.
        @param payload: the payload of a Data frame.
        @return: the two parts of the frame: the header, which is authenticated, and the
            sealed payload with its tag.
        @raise NonceExhausted: if of all 2**64 nonces only the last one is left,
            which is reserved for L{sealLast}.
        """
        counter = self._next
        if counter >= self._end:
            self._renew(counter)
        self._next = counter + 1
        header = _packHeader(streamID, length, flag, self.prefix, counter)
        return header, self._encrypt(nonceFor(counter), payload, header)

    def sealLast(self, flag: int) -> tuple[bytes, bytes]:
        """
        Seal the frame that ends the mux, with the nonce that is reserved for it.
        The frame has no payload.  No frame can be sealed after it.

        @param flag: the frame's L{Flag<gomux._wire.frame.Flag>}.
        @return: as L{seal}.
        @raise NonceExhausted: if the last frame was sealed before.
        """
        if self._next > LAST_COUNTER:
            raise NonceExhausted()
        self._next = _COUNTER_END
        header = _packHeader(0, 0, flag, self.prefix, LAST_COUNTER)
        return header, self._encrypt(nonceFor(LAST_COUNTER), b"", header)


class Opener:
    """
    Opens the frames of one direction of one mux, whatever their nonces.

    @ivar _own: the prefix that no frame may have.
    @ivar _subkeys: derives a subkey for each prefix of a nonce.
    @ivar _prefix: the first 16 bytes of the last frame's nonce.
    @ivar _remembers: whether the next frame may use the same subkey.
    @ivar _decrypt: decrypts with the subkey of C{_prefix}.
    """

    __slots__ = ("_own", "_subkeys", "_prefix", "_remembers", "_decrypt")

    def __init__(self, key: bytes, own: bytes = b"") -> None:
        """
        @param key: 32 bytes.
        @param own: the first 16 bytes of this side's own nonces.  If a frame has them,
            this side has sent it, and an attacker has sent it back.
        """
        self._own = own
        self._subkeys = subkeysOf(key)
        # No frame has this prefix, so the first frame derives a subkey.
        self._prefix = b""
        self._remembers = fastPaths().lastSubkey

    def _useSubkeyOf(self, prefix: bytes) -> None:
        if prefix == self._own:
            raise OutOfSequence("a frame that this side has sent came back")
        if self._remembers:
            self._prefix = prefix
        self._decrypt = ChaCha20Poly1305(self._subkeys.derive(prefix)).decrypt

    def open(self, header: bytes, sealed: bytes | memoryview) -> bytes:
        """
        Open one frame.

        @param header: the whole header.  Its last 24 bytes are the nonce.
        @param sealed: the ciphertext with its tag.
        @return: the payload.
        @raise OutOfSequence: if this side has sent the frame itself.
        @raise AuthenticationFailed: if the frame was not sealed with this key
            or was changed since.
        """
        if header[-24:-8] != self._prefix:
            self._useSubkeyOf(header[-24:-8])
        try:
            return self._decrypt(_NONCE_START + header[-8:], sealed, header)
        except InvalidTag:
            pass
        # Not raised inside the except block: the error would then keep the stack of
        # InvalidTag, which holds memory views in cryptography 40 and 41.
        raise AuthenticationFailed()


class SequencedOpener:
    """
    Opens the frames of one direction of one mux in order: each frame must have the
    next nonce of the peer's L{Sealer}.

    A frame is opened with the nonce that is due, and not with the nonce in its header.
    So a frame that was sealed with another nonce does not open, and the two nonces need
    not be compared.

    @ivar _prefix: the first 16 bytes of every nonce.
    @ivar _last: the last 12 bytes of the last frame's nonce; C{b""} before the first
        frame.
    @ivar _nonces: the last 12 bytes of the nonces that are due.
    @ivar _decrypt: decrypts with the subkey of C{_prefix}.
    """

    __slots__ = ("_prefix", "_last", "_nonces", "_decrypt")

    def __init__(self, key: bytes, prefix: bytes, counter: int = 0) -> None:
        """
        @param key: 32 bytes.
        @param prefix: the first 16 bytes of all nonces.
        @param counter: the next nonce's counter, from 0 to 2**64, where no frame can
            follow.
        """
        self._prefix = prefix
        self._last = nonceFor(counter - 1) if counter else b""
        self._useKey(key, counter)

    def _useKey(self, key: bytes, counter: int) -> None:
        """
        Open frames with a key.

        @param key: 32 bytes.
        @param counter: the counter that is due.
        """
        self._nonces = self._noncesFrom(counter)
        self._decrypt = ChaCha20Poly1305(subkeysOf(key).derive(self._prefix)).decrypt

    def _noncesFrom(self, counter: int) -> Iterator[bytes]:
        """
        @return: the last 12 bytes of the nonces from C{counter} on.
        """
        return map(nonceFor, count(counter))

    def _renew(self) -> bool:
        """
        The nonces have run out.

        @return: whether there are more now.
        """
        return False

    @property
    def last(self) -> int:
        """
        The counter of the last frame of the sequence; -1 before the first frame.
        """
        last = self._last
        return int.from_bytes(last[len(_NONCE_START) :], "little") if last else -1

    def open(self, header: bytes, sealed: bytes | memoryview) -> bytes:
        """
        Open one frame.

        @param header: the whole header.
        @param sealed: the ciphertext with its tag.
        @return: the payload.
        @raise OutOfSequence: if another frame is due.
        @raise AuthenticationFailed: if the frame was not sealed with this key
            or was changed since.
        """
        try:
            nonce = next(self._nonces)
            payload = self._decrypt(nonce, sealed, header)
        except (InvalidTag, StructError):
            pass
        except StopIteration:
            if self._renew():
                return self.open(header, sealed)
        else:
            self._last = nonce
            return payload
        # Not raised inside the except block: Opener.open says why.
        raise self._explain(header)

    def _explain(self, header: bytes) -> AuthenticationFailed:
        """
        @return: why a frame does not open.  The frame that was due is still due.
        """
        due = self.last + 1
        self._nonces = self._noncesFrom(due)
        if due >= _COUNTER_END:
            return OutOfSequence("a frame came after the end of the sequence")
        if header[-24:] != self._prefix + _counter.pack(due):
            return OutOfSequence(f"frame {due} was due, and another frame came")
        return AuthenticationFailed()
