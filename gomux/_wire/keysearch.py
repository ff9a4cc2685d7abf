# -*- test-case-name: gomux.test.wire.test_keyring -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Which of the keys a peer has: the gates of muxes in compatible mode.
"""

from __future__ import annotations

from itertools import islice

from gomux._wire.crypto import (
    NONCE_SIZE,
    PREFIX_SIZE,
    TAG_SIZE,
    Opener,
    Sealer,
    SequencedOpener,
    opens,
)
from gomux._wire.frame import HELLO_SIZE, NotYet, isBound
from gomux._wire.keyring import Keys
from gomux._wire.replay import FirstFrames
from gomux.error import AuthenticationFailed, GomuxError, NeverAuthenticated

#: How many keys are tried in one turn of the reactor.  That takes some 0.07 ms: a
#: stranger's first frame costs all keys, and other connections must not wait for that.
KEYS_A_TURN = 8
#: What it means that no key opens a first frame.
NO_KEY = "the peer has another pre-shared key, or does not speak gomux"


def requireFirst(sealed: bytes | memoryview) -> None:
    """
    Check the size of a first frame, which strangers can send too.

    @param sealed: its ciphertext with its tag.
    @raise AuthenticationFailed: if no peer sends such a frame first: it carries data,
        and not as much as a hello of strict mode.
    """
    if len(sealed) not in (TAG_SIZE, HELLO_SIZE + TAG_SIZE):
        raise AuthenticationFailed("the first frame carries data")


class KeySearch:
    """
    Finds the key that a peer has by its first frame, L{KEYS_A_TURN} keys at a time.

    @ivar _untried: the keys that are not tried yet, with their names.
    @ivar _left: how many keys are not tried yet.
    """

    def __init__(self, keys: Keys) -> None:
        """
        @param keys: the keys that the peer may have.
        """
        self._untried = iter(keys)
        self._left = len(keys)

    def open(self, header: bytes, sealed: bytes | memoryview) -> tuple[str, bytes]:
        """
        Try the next keys.

        Strangers can make this side do that.  So a frame that no peer sends first is
        not tried.

        @param header: the whole header of the first frame.
        @param sealed: its ciphertext with its tag.
        @return: the key's name, and the key.
        @raise NotYet: if there are more keys to try.
        @raise AuthenticationFailed: if the peer has none of the keys.
        """
        requireFirst(sealed)
        for name, key in islice(self._untried, KEYS_A_TURN):
            self._left -= 1
            if opens(key, header, sealed):
                return name, key
        if self._left:
            raise NotYet()
        raise AuthenticationFailed(NO_KEY)


class FirstFrame:
    """
    The gate of a mux in compatible mode, passed with the first genuine frame.  That
    frame is for the mux: it has its usual effect.

    See L{gomux._mux.gate.Gate}.

    @ivar missing: why a genuine frame may not come.
    @ivar passed: whether a genuine frame has come.
    @ivar name: the name of the peer's key.
    @ivar key: that key.
    @ivar opener: opens all further frames, once C{passed}.
    @ivar _seen: the first frames that must not come again; C{None} for no check.
    """

    ownsFrames = False
    isStrict = False
    missing = "wrong pre-shared key, or no gomux peer?"
    passed = False
    name = ""
    key = b""
    _seen: FirstFrames | None = None
    opener: Opener | SequencedOpener

    def takeOutput(self) -> bytes:
        """
        @return: C{b""}, because this gate has no frames of its own.
        """
        return b""

    def _pass(self, key: bytes, header: bytes) -> None:
        """
        The first frame has been opened.

        @param key: the key that opened it.
        @param header: its header.
        @raise OutOfSequence: if it was the first frame of an earlier mux.
        """
        if self._seen is not None:
            self._seen.add(header, key)
        self.key = key
        if isBound(header):
            nonce = header[-NONCE_SIZE:]
            counter = int.from_bytes(nonce[PREFIX_SIZE:], "little")
            self.opener = SequencedOpener(key, nonce[:PREFIX_SIZE], counter + 1)
        self.passed = True

    def close(self) -> None:
        """
        The gate is not needed any more.
        """

    def interrupted(self, detail: str) -> GomuxError:
        """
        @return: what it means that the carrier ends before a genuine frame has come.
        """
        return NeverAuthenticated(
            f"before any authenticated frame came; {self.missing}{detail}"
        )


class KnownKey(FirstFrame):
    """
    The gate for a single key, with which this side may send at once.

    @ivar sealer: seals the mux's frames.
    """

    def __init__(self, name: str, key: bytes, seen: FirstFrames | None = None) -> None:
        """
        @param name: the name of the key.
        @param key: the key, 32 bytes.
        @param seen: the first frames that must not come again.
        """
        self._seen = seen
        self.name = name
        self.key = key
        self.sealer = Sealer(key)
        self.opener = Opener(key, self.sealer.prefix)

    def open(self, header: bytes, sealed: bytes | memoryview) -> bytes:
        """
        Take the peer's first frame.

        @return: its payload.
        @raise AuthenticationFailed: if the frame is not genuine, is this side's own, or
            is a replay.
        """
        payload = self.opener.open(header, sealed)
        self._pass(self.key, header)
        return payload
