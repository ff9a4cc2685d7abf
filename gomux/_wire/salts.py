# -*- test-case-name: gomux.test.wire.test_strict -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The salts of the hellos of strict mode, by which a process recognizes its own.
"""

from __future__ import annotations

import os
from collections import deque

from gomux._wire.crypto import PREFIX_SIZE
from gomux.limits import SALTS_REMEMBERED


class Salts:
    """
    The salts that were issued: those of handshakes in progress, and the last
    ones of handshakes that are over.  A salt is the first half of the nonces of one
    side.

    A hello with a salt of a handshake in progress could succeed, so it must be refused.
    A hello with an older salt could not succeed, but refusing it gives a clear error at
    once, not a timeout.

    @ivar _current: the salts of handshakes in progress.
    @ivar _past: the last salts of handshakes that are over, the oldest first.
    """

    def __init__(self, size: int = SALTS_REMEMBERED) -> None:
        """
        @param size: how many salts of handshakes that are over to remember.
        """
        self._current: set[bytes] = set()
        self._past: deque[bytes] = deque(maxlen=size)

    def issue(self) -> bytes:
        """
        @return: a fresh salt, 16 bytes.
        """
        salt = os.urandom(PREFIX_SIZE)
        self._current.add(salt)
        return salt

    def retire(self, salt: bytes) -> None:
        """
        A salt's handshake is over.
        """
        if salt in self._current:
            self._current.remove(salt)
            self._past.append(salt)

    @property
    def inProgress(self) -> int:
        """
        How many handshakes are in progress.
        """
        return len(self._current)

    def __contains__(self, salt: bytes) -> bool:
        return salt in self._current or salt in self._past


#: The salts of all handshakes in this process.
processSalts = Salts()
