"""
Tests for L{gomux._wire.crypto}.
"""

from __future__ import annotations

import gc
import hashlib
import weakref
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from twisted.trial.unittest import SynchronousTestCase

from gomux._wire import crypto
from gomux._wire.crypto import (
    Opener,
    Sealer,
    SequencedOpener,
    Subkeys,
    deriveKey,
    subkeysOf,
)
from gomux._wire.frame import Flag
from gomux.error import AuthenticationFailed, NonceExhausted, OutOfSequence
from gomux.limits import MAX_KEYS

KEY = bytes(range(32))
FIELDS = (1, 2, 3)

SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you "
    b"only one tip for the future, sunscreen would be it."
)
SEALED_SUNSCREEN = bytes.fromhex(
    "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb"
    "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452"
    "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
    "21f9664c97637da9768812f615c68b13b52e"
    "c0875924c1c7987947deafd8780acf49"
)


class KeyTests(SynchronousTestCase):
    """
    L{deriveKey}
    """

    def test_blake2b(self) -> None:
        """
        The key is the unkeyed BLAKE2b-256 of the pre-shared key.
        """
        self.assertEqual(
            deriveKey("test").hex(),
            "928b20366943e2afd11ebc0eae2e53a93bf177a4fcf35bcc64d503704e65e202",
        )

    def test_text(self) -> None:
        """
        Text is encoded as UTF-8.
        """
        self.assertEqual(deriveKey("grüße"), deriveKey("grüße".encode()))
        self.assertEqual(
            deriveKey("ß"), hashlib.blake2b(b"\xc3\x9f", digest_size=32).digest()
        )

    def test_empty(self) -> None:
        """
        An empty pre-shared key is refused.
        """
        self.assertRaises(ValueError, deriveKey, b"")
        self.assertRaises(ValueError, deriveKey, "")


class DraftTests(SynchronousTestCase):
    """
    The test vectors of draft-irtf-cfrg-xchacha-03.
    """

    def test_hchacha20(self) -> None:
        """
        Section 2.2.1: the subkey of a key and a nonce.
        """
        nonce = bytes.fromhex("000000090000004a0000000031415927")
        self.assertEqual(
            Subkeys(KEY).derive(nonce).hex(),
            "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc",
        )

    def test_subkeys(self) -> None:
        """
        A subkey does not depend on those that were derived before it.
        """
        subkeys = Subkeys(KEY)
        for nonce in (bytes(16), b"\xff" * 16, bytes(16), bytes(range(16))):
            self.assertEqual(subkeys.derive(nonce), Subkeys(KEY).derive(nonce))

    def test_oldCryptography(self) -> None:
        """
        A cipher that cannot be restarted, as those before cryptography 43, gives the
        same subkeys.
        """

        class Old:
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                self.cipher = Cipher(*args, **kwargs)

            def encryptor(self) -> Any:
                return SimpleNamespace(update=self.cipher.encryptor().update)

        nonces = [bytes([n]) * 16 for n in (1, 2, 1)]
        expected = [Subkeys(KEY).derive(nonce) for nonce in nonces]
        self.patch(crypto, "Cipher", Old)
        subkeys = Subkeys(KEY)
        self.assertEqual([subkeys.derive(nonce) for nonce in nonces], expected)

    def test_subkeysShared(self) -> None:
        """
        All users of a key from a pre-shared key share one L{Subkeys}, however many keys
        there are, and each key has its own.
        """
        keys = [deriveKey(str(number)) for number in range(MAX_KEYS)]
        shared = [subkeysOf(key) for key in keys]
        self.assertEqual(len(set(map(id, shared))), MAX_KEYS)
        for key, subkeys in zip(keys, shared, strict=True):
            self.assertIs(subkeysOf(key), subkeys)
            self.assertEqual(
                subkeys.derive(bytes(16)), Subkeys(bytes(key)).derive(bytes(16))
            )

    def test_subkeysForgotten(self) -> None:
        """
        Nothing keeps what derives the subkeys of a key that nobody has any more.
        """
        gone = weakref.ref(subkeysOf(deriveKey("psk")))
        gc.collect()
        self.assertIsNone(gone())

    def test_openersOfOneKey(self) -> None:
        """
        Sealers and openers that share a L{Subkeys} do not disturb each other.
        """
        ends = [(Sealer(KEY), Opener(KEY)) for _ in range(3)]
        for i in range(3):
            for sealer, opener in ends:
                header, sealed = sealer.seal(*FIELDS, b"%d" % i)
                self.assertEqual(opener.open(header, sealed), b"%d" % i)
        (sealer, _), (_, opener), _ = ends
        self.assertEqual(opener.open(*sealer.seal(*FIELDS, b"again")), b"again")

    def test_aead(self) -> None:
        """
        Appendix A.3.1: the vector opens in the way in which L{Opener} opens a frame.

        Its associated data is shorter than a header, so the test uses the cipher and
        the subkey directly.
        """
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        key = bytes(range(0x80, 0xA0))
        nonce = bytes(range(0x40, 0x58))
        aad = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
        cipher = ChaCha20Poly1305(Subkeys(key).derive(nonce[:16]))
        self.assertEqual(
            cipher.encrypt(bytes(4) + nonce[16:], SUNSCREEN, aad), SEALED_SUNSCREEN
        )
        self.assertEqual(
            crypto_aead_xchacha20poly1305_ietf_encrypt(SUNSCREEN, aad, nonce, key),
            SEALED_SUNSCREEN,
        )


class SealerTests(SynchronousTestCase):
    """
    L{Sealer}
    """

    def test_nacl(self) -> None:
        """
        Another implementation opens the frames of a sealer, for payload sizes around
        the size of a block.
        """
        sealer = Sealer(KEY)
        for size in (0, 1, 15, 16, 17, 63, 64, 65, 1000, 65536):
            payload = bytes(size)
            header, sealed = sealer.seal(*FIELDS, payload)
            self.assertEqual(
                crypto_aead_xchacha20poly1305_ietf_decrypt(
                    bytes(sealed), header, header[12:], KEY
                ),
                payload,
            )

    def test_memoryview(self) -> None:
        """
        The payload can be a memoryview.
        """
        whole = memoryview(b"some payload, and more")
        header, sealed = Sealer(KEY).seal(*FIELDS, whole[:12])
        self.assertEqual(Opener(KEY).open(header, sealed), b"some payload")

    def test_nonces(self) -> None:
        """
        The nonces are a prefix and a little-endian counter.
        """
        sealer = Sealer(KEY, b"sixteen bytes...")
        nonces = [sealer.seal(*FIELDS, b"")[0][12:] for _ in range(3)]
        self.assertEqual(
            nonces, [b"sixteen bytes..." + bytes([i]) + bytes(7) for i in range(3)]
        )
        self.assertEqual(sealer.prefix, b"sixteen bytes...")

    def test_prefixes(self) -> None:
        """
        Two sealers of the same key do not have the same prefix.
        """
        self.assertNotEqual(Sealer(KEY).prefix, Sealer(KEY).prefix)
        self.assertEqual(len(Sealer(KEY).prefix), 16)

    def test_exhausted(self) -> None:
        """
        When the counter has run out, one last frame can be sealed, and no nonce is used
        twice.
        """
        sealer = Sealer(KEY, counter=2**64 - 2)
        header, _ = sealer.seal(*FIELDS, b"")
        self.assertEqual(header[-8:], b"\xfe" + b"\xff" * 7)
        self.assertRaises(NonceExhausted, sealer.seal, *FIELDS, b"")
        self.assertRaises(NonceExhausted, sealer.seal, *FIELDS, b"")
        header, sealed = sealer.sealLast(Flag.CLOSE_MUX)
        self.assertEqual(header[-8:], b"\xff" * 8)
        self.assertEqual(Opener(KEY).open(header, sealed), b"")
        self.assertRaises(NonceExhausted, sealer.sealLast, Flag.CLOSE_MUX)
        self.assertRaises(NonceExhausted, sealer.seal, *FIELDS, b"")

    def test_lastIsLast(self) -> None:
        """
        No frame can be sealed after the last one, wherever the counter was.
        """
        sealer = Sealer(KEY)
        sealer.sealLast(Flag.CLOSE_MUX)
        self.assertRaises(NonceExhausted, sealer.seal, *FIELDS, b"")


class OpenerTests(SynchronousTestCase):
    """
    L{Opener}
    """

    def test_nacl(self) -> None:
        """
        An opener opens the frames of another implementation, whatever their nonces.
        """
        opener = Opener(KEY)
        for start in (0, 0, 7, 1, 7, 0):
            header = b"twelve bytes" + bytes(range(start, start + 24))
            sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(
                b"payload", header, header[12:], KEY
            )
            self.assertEqual(opener.open(header, memoryview(sealed)), b"payload")

    def test_changed(self) -> None:
        """
        A frame with one bit changed in its header, payload or tag does not open.
        """
        header, sealed = Sealer(KEY).seal(*FIELDS, b"payload")
        frame = header + bytes(sealed)
        for bit in range(8 * len(frame)):
            changed = bytearray(frame)
            changed[bit // 8] ^= 1 << bit % 8
            self.assertRaises(
                AuthenticationFailed,
                Opener(KEY).open,
                bytes(changed[:36]),
                bytes(changed[36:]),
            )

    def test_own(self) -> None:
        """
        A frame with the prefix that no frame may have does not open, and others do.
        """
        own, other = Sealer(KEY), Sealer(KEY)
        opener = Opener(KEY, own.prefix)
        for _ in range(2):
            self.assertEqual(opener.open(*other.seal(*FIELDS, b"x")), b"x")
            self.assertRaises(OutOfSequence, opener.open, *own.seal(*FIELDS, b"x"))

    def test_otherKey(self) -> None:
        """
        A frame does not open with another key.
        """
        header, sealed = Sealer(KEY).seal(*FIELDS, b"payload")
        opener = Opener(bytes(32))
        self.assertRaises(AuthenticationFailed, opener.open, header, sealed)

    def test_quiet(self) -> None:
        """
        The error does not show the cipher's own error.
        """
        header, sealed = Sealer(KEY).seal(*FIELDS, b"payload")
        error = self.assertRaises(
            AuthenticationFailed, Opener(bytes(32)).open, header, sealed
        )
        self.assertIsNone(error.__context__)


class SequencedOpenerTests(SynchronousTestCase):
    """
    L{SequencedOpener}
    """

    def setUp(self) -> None:
        self.sealer = Sealer(KEY, bytes(16))
        self.opener = SequencedOpener(KEY, bytes(16))

    def test_inTurn(self) -> None:
        """
        Frames in order open.
        """
        for i in range(3):
            frame = self.sealer.seal(*FIELDS, bytes([i]))
            self.assertEqual(self.opener.open(*frame), bytes([i]))

    def test_outOfTurn(self) -> None:
        """
        A frame that is repeated, too early or from another sequence does not open, and
        the next frame still does.
        """
        first, second, third = (self.sealer.seal(*FIELDS, b"") for _ in range(3))
        self.opener.open(*first)
        other = Sealer(KEY, b"another prefix..", 1).seal(*FIELDS, b"")
        for frame in (first, third, other):
            self.assertRaises(OutOfSequence, self.opener.open, *frame)
        self.opener.open(*second)

    def test_changed(self) -> None:
        """
        The next frame does not open if it was changed.
        """
        header, sealed = self.sealer.seal(*FIELDS, b"payload")
        changed = bytes([sealed[0] ^ 1]) + bytes(sealed[1:])
        self.assertRaises(AuthenticationFailed, self.opener.open, header, changed)

    def test_firstChanged(self) -> None:
        """
        The first frame of the sequence does not open if it was changed, and then does.
        """
        header, sealed = self.sealer.seal(*FIELDS, b"payload")
        error = self.assertRaises(
            AuthenticationFailed, self.opener.open, header, bytes(len(sealed))
        )
        self.assertIs(type(error), AuthenticationFailed)
        self.assertEqual(self.opener.open(header, sealed), b"payload")

    def test_last(self) -> None:
        """
        The counter of the last frame is known.
        """
        opener = SequencedOpener(KEY, bytes(16), 7)
        self.assertEqual(opener.last, 6)
        sealer = Sealer(KEY, bytes(16), 7)
        for counter in (7, 8):
            opener.open(*sealer.seal(*FIELDS, b""))
            self.assertEqual(opener.last, counter)

    def test_end(self) -> None:
        """
        No frame opens after the last nonce of the sequence.
        """
        sealer = Sealer(KEY, bytes(16), 2**64 - 1)
        opener = SequencedOpener(KEY, bytes(16), 2**64 - 1)
        frame = sealer.sealLast(Flag.CLOSE_MUX)
        self.assertEqual(opener.open(*frame), b"")
        self.assertRaises(OutOfSequence, opener.open, *frame)
