"""
Tests for L{gomux._wire.ratchet}.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from twisted.trial.unittest import SynchronousTestCase

from gomux._wire import ratchet
from gomux._wire.crypto import LAST_COUNTER, Opener, Sealer, SequencedOpener, nonceFor
from gomux._wire.frame import Flag
from gomux._wire.noise import rekey
from gomux._wire.ratchet import RatchetOpener, RatchetSealer
from gomux.error import AuthenticationFailed, NonceExhausted, OutOfSequence
from gomux.limits import REKEY_FRAMES
from gomux.test.support.reachable import reachable

KEY = bytes(range(32))
PREFIX = b"sixteen bytes..."
FIELDS = (0, 0, 0)


class RatchetTests(SynchronousTestCase):
    """
    L{RatchetSealer} and L{RatchetOpener}
    """

    def setUp(self) -> None:
        self.patch(ratchet, "REKEY_FRAMES", 4)
        self.sealer = RatchetSealer(KEY, PREFIX)
        self.opener = RatchetOpener(KEY, PREFIX)

    def test_size(self) -> None:
        """
        Outside of these tests a key lasts for as many frames as the protocol says.
        """
        self.assertEqual(REKEY_FRAMES, 65536)

    def test_keys(self) -> None:
        """
        Each key seals four frames, and the counter goes on.
        """
        key = KEY
        for number in range(3):
            for counter in range(4 * number, 4 * number + 4):
                header, sealed = self.sealer.seal(*FIELDS, b"payload")
                self.assertEqual(header[12:], PREFIX + counter.to_bytes(8, "little"))
                self.assertEqual(Opener(key).open(header, sealed), b"payload")
                self.assertEqual(self.sealer.last, counter)
            key = rekey(key)

    def test_opened(self) -> None:
        """
        The opener changes its key at the same frames.
        """
        for counter in range(50):
            frame = self.sealer.seal(*FIELDS, b"%d" % counter)
            self.assertEqual(self.opener.open(*frame), b"%d" % counter)
            self.assertEqual(self.opener.last, counter)

    def test_outOfSequence(self) -> None:
        """
        A frame that was repeated, skipped or changed is not accepted, also where the
        key changes, and leaves the opener as it was.
        """
        for before in range(9):
            sealer, opener = RatchetSealer(KEY, PREFIX), RatchetOpener(KEY, PREFIX)
            old = [sealer.seal(*FIELDS, b"") for _ in range(before)]
            for frame in old:
                opener.open(*frame)
            due, skipped = sealer.seal(*FIELDS, b""), sealer.seal(*FIELDS, b"")
            for frame in (*old, skipped):
                self.assertRaises(OutOfSequence, opener.open, *frame)
            header, sealed = due
            changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
            error = self.assertRaises(
                AuthenticationFailed, opener.open, header, changed
            )
            self.assertNotIsInstance(error, OutOfSequence)
            self.assertEqual(opener.last, before - 1)
            opener.open(*due)
            opener.open(*skipped)

    def test_oldKey(self) -> None:
        """
        A frame with the right nonce under the key of before is not accepted.
        """
        for _ in range(4):
            self.opener.open(*self.sealer.seal(*FIELDS, b""))
        frame = Sealer(KEY, PREFIX, 4).seal(*FIELDS, b"")
        self.assertRaises(AuthenticationFailed, self.opener.open, *frame)

    def test_end(self) -> None:
        """
        The last nonce is kept for the frame that ends the mux, which has the key of the
        frames before it.  Nothing can follow.
        """
        counter = LAST_COUNTER - 5
        self.sealer._next = self.sealer._end = counter
        self.opener._end = counter
        self.opener._last = nonceFor(counter - 1)
        self.opener._nonces = self.opener._noncesFrom(counter)
        for _ in range(5):
            self.opener.open(*self.sealer.seal(*FIELDS, b""))
        self.assertRaises(NonceExhausted, self.sealer.seal, *FIELDS, b"")
        self.opener.open(*self.sealer.sealLast(Flag.CLOSE_MUX))
        self.assertEqual(self.opener.last, LAST_COUNTER)
        self.assertRaises(NonceExhausted, self.sealer.sealLast, Flag.CLOSE_MUX)
        error = self.assertRaises(OutOfSequence, self.opener.open, bytes(36), b"")
        self.assertIn("after the end of the sequence", str(error))

    def test_forgotten(self) -> None:
        """
        After a change, neither the old key nor a cipher of it can be reached.
        """
        for _ in range(5):
            self.opener.open(*self.sealer.seal(*FIELDS, b""))
        for end in (self.sealer, self.opener):
            found = list(reachable(end))
            self.assertIn(rekey(KEY), found)
            self.assertNotIn(KEY, found)
            # The cipher that is in use, bound in one method.
            ciphers = [o for o in found if isinstance(o, ChaCha20Poly1305)]
            self.assertEqual(len(ciphers), 1)

    def test_sequenced(self) -> None:
        """
        An opener without a ratchet never changes its key.
        """
        sealer, opener = Sealer(KEY, PREFIX), SequencedOpener(KEY, PREFIX)
        for _ in range(12):
            opener.open(*sealer.seal(*FIELDS, b""))
        self.assertEqual(opener.last, 11)
