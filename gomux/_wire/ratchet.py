# -*- test-case-name: gomux.test.wire.test_ratchet -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Sealing and opening with keys that change: the frames of strict mode after its
handshake.

After L{REKEY_FRAMES} frames of a direction, both sides replace its key by one that is
made from it.  The old key cannot be found from the new one.  So an attacker who learns
the keys of a mux cannot read the frames of before.  Nothing keeps an old key, and
nothing that was derived from it.
"""

from __future__ import annotations

from collections.abc import Iterator

from gomux._wire.crypto import LAST_COUNTER, Sealer, SequencedOpener, nonceFor
from gomux._wire.noise import rekey
from gomux.error import NonceExhausted
from gomux.limits import REKEY_FRAMES


class RatchetSealer(Sealer):
    """
    Seals the frames of one direction of one mux in strict mode.

    @ivar _key: the current key.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes, prefix: bytes) -> None:
        """
        @param key: the first key of the direction, 32 bytes.
        @param prefix: the first 16 bytes of all nonces.
        """
        super().__init__(key, prefix)
        self._key = key
        self._end = REKEY_FRAMES

    def _renew(self, counter: int) -> None:
        """
        The frames of the current key are sealed: use the next key.
        """
        if counter >= LAST_COUNTER:
            raise NonceExhausted()
        self._key = rekey(self._key)
        self._useKey(self._key)
        # The last frame of all is sealed with the key of the frames before it.
        self._end = min(counter + REKEY_FRAMES, LAST_COUNTER)


class RatchetOpener(SequencedOpener):
    """
    Opens the frames of one direction of one mux in strict mode.

    @ivar _key: the current key.
    @ivar _end: the first counter of the next key.
    """

    __slots__ = ("_key", "_end")

    def __init__(self, key: bytes, prefix: bytes) -> None:
        """
        @param key: the first key of the direction, 32 bytes.
        @param prefix: the first 16 bytes of all nonces.
        """
        self._key = key
        self._end = REKEY_FRAMES
        super().__init__(key, prefix)

    def _noncesFrom(self, counter: int) -> Iterator[bytes]:
        return map(nonceFor, range(counter, self._end))

    def _renew(self) -> bool:
        """
        The frames of the current key are opened: use the next key.

        @return: C{False} after the last frame of all.
        """
        counter, self._end = self._end, min(self._end + REKEY_FRAMES, LAST_COUNTER + 1)
        if counter > LAST_COUNTER:
            return False
        self._key = rekey(self._key)
        self._useKey(self._key, counter)
        return True
