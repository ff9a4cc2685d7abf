# -*- test-case-name: gomux.test.wire.test_replay -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Recognizes the recorded first frame of an earlier mux.

No sender uses a nonce twice.  So a first frame whose nonce was seen before is a replay:
an attacker has recorded it, and sends it over a connection of its own.
"""

from __future__ import annotations

from collections import deque

from gomux.error import OutOfSequence
from gomux.limits import FIRST_FRAMES

_NONCE_SIZE = 24


class FirstFrames:
    """
    The nonces of the first frames of the last L{FIRST_FRAMES} muxes.  Only the frames
    of peers with a key are added.  If there are more, the oldest of the key with most
    is forgotten, so that no peer can have those of others forgotten.

    @ivar _seen: the nonces.
    @ivar _order: the nonces by the hash of the key, the oldest first.  No key is kept.
    """

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._order: dict[int, deque[bytes]] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, header: bytes, key: bytes) -> None:
        """
        Remember a first frame that was opened.

        @param header: its whole header.
        @param key: the key that opened it.
        @raise OutOfSequence: if the frame was seen before.
        """
        nonce = header[-_NONCE_SIZE:]
        if nonce in self._seen:
            raise OutOfSequence("the first frame of an earlier mux came again")
        self._seen.add(nonce)
        self._order.setdefault(hash(key), deque()).append(nonce)
        if len(self._seen) > FIRST_FRAMES:
            self._forgetOne()

    def _forgetOne(self) -> None:
        owner, nonces = max(self._order.items(), key=lambda item: len(item[1]))
        self._seen.remove(nonces.popleft())
        if not nonces:
            del self._order[owner]


#: The first frames of all muxes in this process, so that a frame which one server has
#: opened is refused by all others with the same key.
processFirstFrames = FirstFrames()
