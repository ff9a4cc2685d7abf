# -*- test-case-name: gomux.test.wire.test_strict -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The handshake of strict mode: it makes fresh keys for the frames of a mux, and binds
the frames to that mux and to their order.

Frames of the v1 wire are authenticated one by one.  An attacker on the path can
replay, drop, swap or reflect them, and move them from one mux to another, and can read
a recording once the pre-shared key is known.  But the payload of a Data frame may be
anything, and a sender chooses its nonces.  So a Noise handshake fits into the wire as
it is::

    client                                              server
    hello: Data, nonce = Pc, 0              -->
           first Noise message
                                            <--         hello: Data, nonce = Ps, 0
                                                               second Noise message
    confirmation: Keepalive,                -->
           nonce = Pc, 0
    frame: nonce = Pc, 1                    -->
                                            <--         frame: nonce = Ps, 0

The hellos are sealed with the pre-shared key, so a server drops a stranger before any
public-key arithmetic.  All other frames are sealed with the keys that the handshake
makes, one for each direction, by L{gomux._wire.ratchet}.  The server sends nothing
before it has a genuine hello, and nothing but its own hello before it has the client's
confirmation, because the client's hello may be a recording.

C{docs/strict.rst} specifies every byte that is sent.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from enum import IntEnum
from struct import Struct

from gomux._wire.crypto import (
    KEY_SIZE,
    NONCE_SIZE,
    Opener,
    Sealer,
)
from gomux._wire.frame import (
    BOUND,
    HELLO_ID,
    HELLO_SIZE,
    Flag,
    unpackFields,
)
from gomux._wire.keysearch import NO_KEY, requireFirst
from gomux._wire.noise import HandshakeState, NoiseError, ZeroSecret
from gomux._wire.ratchet import RatchetOpener, RatchetSealer
from gomux._wire.replay import FirstFrames
from gomux._wire.salts import Salts, processSalts
from gomux.error import (
    AuthenticationFailed,
    GomuxError,
    HandshakeFailed,
    OutOfSequence,
)
from gomux.limits import CLOCK_DIFFERENCE

# The bits of a hello's ID that are not the version.
_MAGIC_MASK = 0xFFFFFF
_VERSION = HELLO_ID >> 24

_COUNTER_SIZE = 8
_DATA = int(Flag.DATA)
_KEEPALIVE = int(Flag.KEEPALIVE)
# The payload of a Noise message: what the sender does, and the time of its clock.
_payload = Struct("<IQ")

# The names of the two roles, as the prologue has them.
_CLIENT = 1
_SERVER = 2


def noisePSK(key: bytes) -> bytes:
    """
    Make the pre-shared key of Noise.

    @param key: the key of the frames, 32 bytes.
    @return: 32 bytes.
    """
    return hashlib.blake2b(
        key=key, digest_size=KEY_SIZE, person=b"gomux strict psk"
    ).digest()


def prologue(context: bytes) -> bytes:
    """
    Make what both sides must agree on before the first message.

    @param context: the context that both sides are configured with.
    @return: the prologue of the Noise handshake.
    """
    return b"".join(
        (
            b"gomux strict mode",
            bytes([_VERSION, _CLIENT, _SERVER]),
            len(context).to_bytes(4, "little"),
            context,
        )
    )


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

    @ivar name: the name of the peer's key.
    @ivar key: the pre-shared key of the frames.
    @ivar sealer: seals all further frames; C{None} until L{passed}.
    @ivar opener: opens all further frames, once L{passed}.
    @ivar _isClient: whether this side is the client.
    @ivar _context: see L{__init__}.
    @ivar _salts: see L{__init__}.
    @ivar _seen: see L{__init__}.
    @ivar _checksClock: see L{__init__}.
    @ivar _now: see L{__init__}.
    @ivar _salt: this side's salt, once it has said hello.
    @ivar _state: what is due from the peer, or how the handshake has ended.
    @ivar _noise: this side of the Noise handshake, while it is under way.
    @ivar _difference: by how many seconds the peer's clock is ahead of this side's;
        known once the peer has said hello.
    @ivar _output: the frames that L{takeOutput} returns next.
    @ivar _sealer: seals this side's further frames; becomes C{sealer}.
    """

    ownsFrames = True
    isStrict = True
    sealer: Sealer | None = None
    opener: RatchetOpener
    _noise: HandshakeState | None = None
    _difference = 0
    _salt = b""
    _sealer: RatchetSealer

    def __init__(
        self,
        name: str,
        key: bytes,
        isClient: bool,
        context: bytes = b"",
        salts: Salts = processSalts,
        seen: FirstFrames | None = None,
        checksClock: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        @param name: the name of the peer's key.
        @param key: the pre-shared key of the frames, 32 bytes.
        @param isClient: whether this side is the client.
        @param context: the context, which must be the same on both sides.
        @param salts: issues this side's salt.  A hello with one of its salts is
            refused, since this side would be talking to itself.
        @param seen: the hellos that must not come again.
        @param checksClock: whether to refuse a hello whose time stamp differs from this
            side's clock by more than L{CLOCK_DIFFERENCE}.
        @param now: returns the time of the system's clock.
        """
        self.name = name
        self.key = key
        self._isClient = isClient
        self._context = context
        self._salts = salts
        self._seen = seen
        self._checksClock = checksClock
        self._now = now
        self._state = _State.HELLO
        self._output = b""
        if isClient:
            self._noise = self._startNoise()
            self._sayHello(self._noise)

    @property
    def passed(self) -> bool:
        """
        Whether the handshake is done: for a client, the server's hello has come; for a
        server, the client's confirmation.
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
        self._noise = None
        self._salts.retire(self._salt)

    @property
    def missing(self) -> str:
        """
        What has not come from the peer, and why that may be.
        """
        if self._state is _State.CONFIRMATION:
            return f"the peer has not confirmed its hello{self._clockHint()}"
        if self._isClient:
            return (
                "the peer has not answered, and its log may say why: wrong pre-shared"
                " key, another context, or a peer that is not in strict mode?"
            )
        return "the peer has sent no hello; a peer that is not in strict mode?"

    def interrupted(self, detail: str) -> GomuxError:
        """
        @return: the error if the carrier ends before the gate is passed.
        """
        return HandshakeFailed(f"the carrier ended too early; {self.missing}{detail}")

    def open(self, header: bytes, sealed: bytes | memoryview) -> bytes:
        """
        Take the peer's next frame.

        @param header: the whole header.
        @param sealed: the ciphertext with its tag.
        @return: its payload.
        @raise AuthenticationFailed: if the frame is not genuine.
        @raise OutOfSequence: if the frame is a hello that was seen before.
        @raise HandshakeFailed: if the frame is not the one that is due.
        """
        state, self._state = self._state, _State.FAILED
        if state is _State.HELLO:
            try:
                payload = self._receiveHello(header, sealed)
            except ZeroSecret:
                payload = b""
            finally:
                self._noise = None
            if not payload:
                raise HandshakeFailed(
                    "the peer's ephemeral key makes the shared secret zero; nobody"
                    " makes such a key by chance"
                )
        elif state is _State.CONFIRMATION:
            payload = self._receiveConfirmation(header, sealed)
        else:
            raise HandshakeFailed("a frame came after the end of the handshake")
        if state is _State.CONFIRMATION or self._isClient:
            self._state = _State.PASSED
            self.sealer = self._sealer
        else:
            self._state = _State.CONFIRMATION
        return payload

    def _receiveHello(self, header: bytes, sealed: bytes | memoryview) -> bytes:
        """
        Check the peer's hello, and answer it.
        """
        message = self._openHello(header, sealed)
        # No local variable: an error would keep it, and with it the ephemeral key.
        self._noise = self._noise or self._startNoise()
        try:
            payload = self._noise.readMessage(message)
        except NoiseError:
            payload = b""
        if not payload:
            raise HandshakeFailed(self._whyClosed(message))
        _, clock = _payload.unpack(payload)
        self._difference = clock - int(self._now())
        self._remember(header)
        if self._checksClock and abs(self._difference) > CLOCK_DIFFERENCE:
            raise HandshakeFailed(
                f"the peer's clock is {self._clockText()} this side's; an old hello"
                " that an attacker sends again, or a clock that is wrong"
            )
        if not self._isClient:
            self._sayHello(self._noise)
        self._agree(self._noise, header[-NONCE_SIZE:-_COUNTER_SIZE])
        return message

    def _openHello(self, header: bytes, sealed: bytes | memoryview) -> bytes:
        """
        @return: the Noise message in a hello.
        @raise GomuxError: if the frame is no hello of this version, or is this side's
            own.
        """
        requireFirst(sealed)
        try:
            message = Opener(self.key).open(header, sealed)
        except AuthenticationFailed:
            message = None
        if message is None:
            # Not raised inside the except block: Opener.open says why.
            raise AuthenticationFailed(NO_KEY)
        streamID, _, _ = unpackFields(header)
        if not message or streamID & _MAGIC_MASK != HELLO_ID & _MAGIC_MASK:
            raise HandshakeFailed("the peer has the key, but is not in strict mode")
        if streamID != HELLO_ID:
            raise HandshakeFailed(
                f"the peer has version {streamID >> 24} of strict mode,"
                f" and this side version {_VERSION}"
            )
        if header[-NONCE_SIZE:-_COUNTER_SIZE] in self._salts:
            raise HandshakeFailed("this side is connected with itself")
        if header[-_COUNTER_SIZE:] != bytes(_COUNTER_SIZE):
            raise HandshakeFailed("the peer's hello is not its first frame")
        return message

    def _whyClosed(self, message: bytes) -> str:
        """
        @return: why a Noise message from a peer with the key does not open.
        """
        if self._isClient:
            # If a server can read it, it is a client's.
            try:
                self._startNoise().readMessage(message)
            except NoiseError:
                return (
                    "the peer's hello does not answer this side's; an attacker"
                    " interferes, or the peer has another context"
                )
            return "the peer is a client, as this side is"
        return "the peer has another context, or is a server, as this side is"

    def _remember(self, header: bytes) -> None:
        """
        @raise OutOfSequence: if the hello was seen before.
        """
        if self._seen is None:
            return
        try:
            self._seen.add(header, self.key)
        except OutOfSequence:
            raise OutOfSequence(
                "the hello of an earlier connection came again; by its time stamp it"
                f" is {-self._difference} seconds old"
            ) from None

    def _receiveConfirmation(self, header: bytes, sealed: bytes | memoryview) -> bytes:
        """
        Check the client's first frame with its new key.
        """
        try:
            payload = self.opener.open(header, sealed)
        except AuthenticationFailed:
            payload = None
        if payload is None:
            raise HandshakeFailed(
                "the peer's confirmation does not fit this handshake; an attacker"
                f" interferes, or has sent an old hello again{self._clockHint()}"
            )
        if unpackFields(header) != (0, 0, _KEEPALIVE):
            raise HandshakeFailed("the peer's confirmation is not a Keepalive")
        return payload

    def _startNoise(self) -> HandshakeState:
        return HandshakeState(noisePSK(self.key), prologue(self._context))

    def _sayHello(self, noise: HandshakeState) -> None:
        self._salt = self._salts.issue()
        message = noise.writeMessage(_payload.pack(BOUND, int(self._now())))
        sealer = Sealer(self.key, self._salt)
        self._output += b"".join(sealer.seal(HELLO_ID, HELLO_SIZE, _DATA, message))

    def _agree(self, noise: HandshakeState, peers: bytes) -> None:
        """
        Both hellos are known: make the sealer and the opener of all further frames.

        @param peers: the peer's salt.
        """
        ofClient, ofServer = noise.split()
        sending, receiving = (
            (ofClient, ofServer) if self._isClient else (ofServer, ofClient)
        )
        self._sealer = RatchetSealer(sending, self._salt)
        self.opener = RatchetOpener(receiving, peers)
        if self._isClient:
            self._output += b"".join(self._sealer.seal(0, 0, _KEEPALIVE))

    def _clockText(self) -> str:
        order = "ahead of" if self._difference > 0 else "behind"
        return f"{abs(self._difference)} seconds {order}"

    def _clockHint(self) -> str:
        """
        @return: what the time stamp of the hello suggests, for an error; often C{""}.
        """
        if abs(self._difference) <= CLOCK_DIFFERENCE:
            return ""
        return (
            f"; by its time stamp the hello was made by a clock {self._clockText()}"
            " this side's, so it may be an old one"
        )
