# -*- test-case-name: gomux.test.wire.test_strict -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The handshake of strict mode, which binds the frames of a mux to that mux and
to their order.

Frames of the v1 wire are authenticated one by one.  An attacker on the path can
replay, drop, swap or reflect them, and move them from one mux to another.  But
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
direction.  Each side makes a fresh salt, so a prefix that depends on it shows that a
peer with the key answered just now.  The server sends nothing before it has a genuine
hello.  The client sends nothing else before it has the server's confirmation, and the
server sends nothing else before it has the client's.

C{docs/strict.rst} specifies every byte that is sent.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import deque
from enum import IntEnum

from gomux._wire.crypto import (
    KEY_SIZE,
    PREFIX_SIZE,
    Sealer,
    SequencedOpener,
)
from gomux._wire.frame import HELLO_ID, Flag, NotYet, sealFrame, unpackFields
from gomux._wire.keyring import Keys
from gomux._wire.keysearch import KeySearch
from gomux._wire.replay import FirstFrames
from gomux.error import GomuxError, HandshakeFailed
from gomux.limits import SALTS_REMEMBERED

# The bits of a hello's ID that are not the version.
_MAGIC_MASK = 0xFFFFFF

_COUNTER_SIZE = 8
_KEEPALIVE = int(Flag.KEEPALIVE)


class Role(IntEnum):
    """
    A side of the carrier.  Its number is the C{length} of its hello.
    """

    CLIENT = 1
    SERVER = 2


def strictKey(key: bytes) -> bytes:
    """
    Make the key that prefixes are derived with.

    @param key: the key of the frames, 32 bytes.
    @return: 32 bytes.
    """
    return hashlib.blake2b(
        key=key, digest_size=KEY_SIZE, person=b"gomux strict key"
    ).digest()


def transcript(clientHello: bytes, serverHello: bytes, context: bytes) -> bytes:
    """
    Hash everything that the two sides of a handshake must agree on.

    @param clientHello: the header of the client's hello, 36 bytes.
    @param serverHello: the header of the server's hello, 36 bytes.
    @param context: the context that both sides are configured with.
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
    @param sender: the side that sends in that direction.
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


class _State(IntEnum):
    HELLO = 0
    CONFIRMATION = 1
    PASSED = 2
    FAILED = 3


class Handshake:
    """
    One side of one handshake: the gate of a mux in strict mode.

    Send the bytes that L{takeOutput} returns, at the start and after each received
    frame, until L{passed}.  Then L{close} it, also after a failure.

    See L{gomux._mux.gate.Gate}.

    @ivar name: the name of the key that the peer has, once it is known.
    @ivar sealer: seals all further frames; C{None} until L{passed}.
    @ivar opener: opens all further frames, once L{passed}.
    @ivar _search: finds the key that the peer has.
    @ivar _role: this side's role.
    @ivar _peerRole: the role that the peer must have.
    @ivar _context: see L{__init__}.
    @ivar _salts: see L{__init__}.
    @ivar _seen: see L{__init__}.
    @ivar _salt: this side's salt.
    @ivar _state: what is due from the peer, or how the handshake has ended.
    @ivar _hello: the header of this side's hello, once that is sent.
    @ivar _output: the frames that L{takeOutput} returns next.
    @ivar _expected: the first 16 bytes of the peer's nonces, once it has said hello.
    @ivar _sealer: seals this side's confirmation; becomes C{sealer}.
    """

    ownsFrames = True
    sealer: Sealer | None = None
    opener: SequencedOpener

    def __init__(
        self,
        keys: Keys,
        isClient: bool,
        context: bytes = b"",
        salts: Salts = processSalts,
        seen: FirstFrames | None = None,
    ) -> None:
        """
        @param keys: the keys that the peer may have.  A client has one.
        @param isClient: whether this side is the client.
        @param context: the context, which must be the same on both sides.
        @param salts: issues this side's salt.  A hello with one of its salts is
            refused, since this side would be talking to itself.
        @param seen: the hellos that must not come again.
        """
        self._seen = seen
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
        self.key = b""
        if isClient:
            ((self.name, self.key),) = keys
            self._sayHello(self.key)

    @property
    def passed(self) -> bool:
        """
        Whether the peer's confirmation has arrived.
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
        @return: the error if the carrier ends before the gate is passed.
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
        @return: its payload, C{b""}.
        @raise AuthenticationFailed: if the frame is not genuine.
        @raise OutOfSequence: if the frame is a hello that was seen before.
        @raise HandshakeFailed: if the frame is not the one that is due.
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
        self.name, self.key = self._search.open(header, sealed)
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
                " or an attacker sends our own frames back"
                if length == self._role
                else f"the peer has the unknown role {length}"
            )
        if salt in self._salts:
            raise HandshakeFailed("this side is connected with itself")
        if counter != bytes(_COUNTER_SIZE):
            raise HandshakeFailed("the peer's hello is not its first frame")
        if self._seen is not None:
            self._seen.add(header, self.name)
        if self._role is Role.SERVER:
            self._sayHello(self.key)
            self._agree(self.key, header, self._hello)
            self._confirm()
        else:
            self._agree(self.key, self._hello, header)

    def _receiveConfirmation(self, header: bytes, sealed: bytes | memoryview) -> None:
        # This prefix has not been on the wire yet, so it is compared in constant time.
        if not hmac.compare_digest(header[-24:], self._expected + bytes(_COUNTER_SIZE)):
            raise HandshakeFailed(
                "the peer's confirmation does not fit this handshake: the peer has"
                " another context, or an attacker interferes"
            )
        self.opener.open(header, sealed)
        if unpackFields(header) != (0, 0, _KEEPALIVE):
            raise HandshakeFailed("the peer's confirmation is not a Keepalive")
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
        Both hellos are known: derive the prefixes, the sealer and the opener.
        """
        summary = transcript(clientHello, serverHello, self._context)
        derivationKey = strictKey(key)
        self._expected = prefixFor(derivationKey, self._peerRole, summary)
        self._sealer = Sealer(key, prefixFor(derivationKey, self._role, summary))
        self.opener = SequencedOpener(key, self._expected)
