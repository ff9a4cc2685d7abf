# -*- test-case-name: gomux.test.wire.test_strict -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The handshake of strict mode, which binds the frames of a mux to that mux and
to their order.

Frames of the v1 wire are authenticated one by one: who sits on the path can
replay, drop, swap or reflect them and move them from one mux to another.  But
a sender chooses its nonces, and Keepalives have no effect, so freshness and
order fit into the wire as it is::

    client                                              server
    hello:  Keepalive, nonce = salt, 0      -->
                                            <--         hello, with its own salt
                                            <--         confirmation
    confirmation: Keepalive,                -->
            nonce = prefix, 0
    frame:  nonce = prefix, 1               -->
                                            <--         frame: nonce = prefix, 1

The prefixes depend on the pre-shared key and on both hellos, and differ by
direction.  A salt is fresh, so whoever has one of the two knows that a peer
that holds the key has just now answered it.  The server says nothing before it
has a genuine hello, the client nothing more before it has the server's
confirmation, the server nothing more before it has the client's.

What exactly is sent is laid down in the documentation, C{docs/strict.rst}.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import deque
from collections.abc import Mapping
from enum import IntEnum

from gomux._wire.crypto import (
    KEY_SIZE,
    PREFIX_SIZE,
    Sealer,
    SequencedOpener,
)
from gomux._wire.frame import HELLO_ID, Flag, NotYet, sealFrame, unpackFields
from gomux._wire.keyring import KeySearch
from gomux.error import GomuxError, HandshakeFailed
from gomux.limits import SALTS_REMEMBERED

# What of a hello's ID is not the version.
_MAGIC_MASK = 0xFFFFFF

_COUNTER_SIZE = 8
_KEEPALIVE = int(Flag.KEEPALIVE)


class Role(IntEnum):
    """
    Which side of the carrier somebody is on; the C{length} of a hello.
    """

    CLIENT = 1
    SERVER = 2


def strictKey(key: bytes) -> bytes:
    """
    Make the key that the prefixes are derived with.

    @param key: the key of the frames, 32 bytes.
    @return: 32 bytes.
    """
    return hashlib.blake2b(
        key=key, digest_size=KEY_SIZE, person=b"gomux strict key"
    ).digest()


def transcript(clientHello: bytes, serverHello: bytes, context: bytes) -> bytes:
    """
    Sum up a handshake.

    @param clientHello: the header of the client's hello, 36 bytes.
    @param serverHello: the header of the server's hello, 36 bytes.
    @param context: what both sides were configured with.
    @return: 32 bytes.
    """
    return hashlib.blake2b(
        clientHello + serverHello + context,
        digest_size=32,
        person=b"gomux transcript",
    ).digest()


def prefixFor(key: bytes, sender: Role, summary: bytes) -> bytes:
    """
    Derive the first 16 bytes of the nonces of one direction.

    @param key: from L{strictKey}.
    @param sender: who sends in that direction.
    @param summary: the handshake's L{transcript}.
    @return: 16 bytes.
    """
    return hashlib.blake2b(
        bytes([sender]) + summary, key=key, digest_size=PREFIX_SIZE
    ).digest()


class Salts:
    """
    The salts that were issued: those of handshakes in progress, and the last
    ones of handshakes that are over.

    Only the former could still come to anything.  The latter make for a clear
    error at once, instead of one when the time for the handshake is up.
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


#: The salts that this process issued.
processSalts = Salts()


class _State(IntEnum):
    HELLO = 0
    CONFIRMATION = 1
    PASSED = 2
    FAILED = 3


class Handshake:
    """
    One side of one handshake: the gate of a mux in strict mode.

    Send what L{takeOutput} returns at the start and after each frame that
    comes, until L{passed}.  Whatever the outcome, L{close} it.

    See L{gomux._mux.gate.Gate}.

    @ivar name: the name of the key that the peer has, once it is known.
    @ivar sealer: seals all further frames; C{None} until L{passed}.
    @ivar opener: opens all further frames, once L{passed}.
    """

    ownsFrames = True
    sealer: Sealer | None = None
    opener: SequencedOpener

    def __init__(
        self,
        keys: Mapping[str, bytes],
        isClient: bool,
        context: bytes = b"",
        salts: Salts = processSalts,
    ) -> None:
        """
        @param keys: the keys that the peer may have, by name, 32 bytes each;
            for a client just one.
        @param isClient: whether this side is the client.
        @param context: what the peer must have been configured with, too.
        @param salts: issues this side's salt.  A hello with one of them is
            refused: this side would be talking to itself.
        """
        self._search = KeySearch(keys)
        self._role = Role.CLIENT if isClient else Role.SERVER
        self._peerRole = Role.SERVER if isClient else Role.CLIENT
        self._context = context
        self._salts = salts
        self._salt = salts.issue()
        self._state = _State.HELLO
        self._hello = b""
        self._output = b""
        self.name = ""
        if isClient:
            ((self.name, key),) = keys.items()
            self._sayHello(key)

    @property
    def passed(self) -> bool:
        """
        Whether the peer's confirmation has come.
        """
        return self._state is _State.PASSED

    def takeOutput(self) -> bytes:
        """
        @return: the frames to send now.
        """
        output, self._output = self._output, b""
        return output

    def close(self) -> None:
        """
        The handshake is over.
        """
        self._salts.retire(self._salt)

    def interrupted(self, detail: str) -> GomuxError:
        """
        @return: what it means that the carrier ends before the gate is passed.
        """
        return HandshakeFailed(
            "the carrier ended before the peer had answered; wrong pre-shared"
            f" key, or a peer that is not in strict mode?{detail}"
        )

    def open(self, header: bytes, sealed: bytes | memoryview) -> bytes:
        """
        Take the peer's next frame.

        @param header: the whole header.
        @param sealed: the ciphertext with its tag.
        @return: C{b""}, which is what the frames of a handshake carry.
        @raise AuthenticationFailed: if the frame is not genuine.
        @raise HandshakeFailed: if it is not the one that is due.
        @raise NotYet: if there are more keys to try with the peer's hello.
        """
        state, self._state = self._state, _State.FAILED
        if state is _State.HELLO:
            try:
                self._receiveHello(header, sealed)
            except NotYet:
                self._state = state
                raise
            self._state = _State.CONFIRMATION
        elif state is _State.CONFIRMATION:
            self._receiveConfirmation(header, sealed)
            self._state = _State.PASSED
            self.sealer = self._sealer
        else:
            raise HandshakeFailed("a frame came after the end of the handshake")
        return b""

    def _receiveHello(self, header: bytes, sealed: bytes | memoryview) -> None:
        self.name, key = self._search.open(header, sealed)
        streamID, length, flag = unpackFields(header)
        salt, counter = header[-24:-8], header[-8:]
        if flag != _KEEPALIVE or streamID & _MAGIC_MASK != HELLO_ID & _MAGIC_MASK:
            raise HandshakeFailed("the peer is not in strict mode")
        if streamID != HELLO_ID:
            raise HandshakeFailed(
                f"the peer has version {streamID >> 24} of strict mode,"
                f" and this side version {HELLO_ID >> 24}"
            )
        if length != self._peerRole:
            raise HandshakeFailed(
                f"the peer is a {self._role.name.lower()}, as this side is,"
                " or somebody sends our own frames back"
                if length == self._role
                else f"the peer has the unknown role {length}"
            )
        if salt in self._salts:
            raise HandshakeFailed("this side is connected with itself")
        if counter != bytes(_COUNTER_SIZE):
            raise HandshakeFailed("the peer's hello is not its first frame")
        if self._role is Role.SERVER:
            self._sayHello(key)
            self._agree(key, header, self._hello)
            self._confirm()
        else:
            self._agree(key, self._hello, header)

    def _receiveConfirmation(self, header: bytes, sealed: bytes | memoryview) -> None:
        # The prefix, unlike those of later frames, was not to be seen before.
        if not hmac.compare_digest(header[-24:], self._expected + bytes(_COUNTER_SIZE)):
            raise HandshakeFailed(
                "the peer's confirmation is of another handshake: its context is"
                " not the same as here, or somebody interferes"
            )
        self.opener.open(header, sealed)
        if unpackFields(header) != (0, 0, _KEEPALIVE):
            raise HandshakeFailed("the peer's confirmation is no Keepalive")
        if self._role is Role.CLIENT:
            self._confirm()

    def _sayHello(self, key: bytes) -> None:
        header, tag = sealFrame(
            Sealer(key, self._salt), HELLO_ID, self._role, _KEEPALIVE
        )
        self._hello = header
        self._output += header + tag

    def _confirm(self) -> None:
        self._output += b"".join(sealFrame(self._sealer, 0, 0, _KEEPALIVE))

    def _agree(self, key: bytes, clientHello: bytes, serverHello: bytes) -> None:
        """
        Both hellos are known: derive what follows from them.
        """
        summary = transcript(clientHello, serverHello, self._context)
        derivationKey = strictKey(key)
        self._expected = prefixFor(derivationKey, self._peerRole, summary)
        self._sealer = Sealer(key, prefixFor(derivationKey, self._role, summary))
        self.opener = SequencedOpener(key, self._expected)
