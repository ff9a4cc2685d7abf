"""
Strict mode, on top of L{interop.peers.blocking_greeting}: the Noise handshake, keys
that change, and the stricter rules.

It follows C{docs/strict.rst} and C{docs/protocol.rst} alone, on PyNaCl and the hashes
of the standard library.
"""

from __future__ import annotations

import hmac
import os
import socket
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt as openMessage,
)
from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_encrypt as sealMessage,
)
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_encrypt as seal,
)
from nacl.bindings import (
    crypto_scalarmult,
    crypto_scalarmult_base,
)
from nacl.exceptions import CryptoError

from interop.peers.blocking_greeting import BOUND, NONCE, GreetingMux
from interop.peers.blocking_mux import (
    HEADER,
    MAX_LENGTH,
    TAG_SIZE,
    Flag,
    MuxError,
    openFrame,
)

NOISE = b"Noise_NNpsk0_25519_ChaChaPoly_BLAKE2b"
MAGIC, VERSION = b"GMX", 2
HELLO_SIZE = 60
HELLO_ID = int.from_bytes(MAGIC + bytes([VERSION]), "little")
PAYLOAD = struct.Struct("<IQ")
"""The bits and the clock in a Noise message."""

REKEY = 65536
"""How many frames are sealed under one key."""

HANDSHAKE_TIMEOUT = 10.0
MAX_SKEW = 300
REMEMBERED = 65536


def hkdf(chainingKey: bytes, data: bytes) -> tuple[bytes, bytes, bytes]:
    """
    Derive three values of 64 bytes, as Noise does.
    """
    temporary = hmac.digest(chainingKey, data, blake2b)
    first = hmac.digest(temporary, b"\1", blake2b)
    second = hmac.digest(temporary, first + b"\2", blake2b)
    return first, second, hmac.digest(temporary, second + b"\3", blake2b)


class Noise:
    """
    One side of a handshake: C{Noise_NNpsk0_25519_ChaChaPoly_BLAKE2b}.

    @ivar _ck: The chaining key.
    @ivar _h: The hash of all that both sides have sent.
    @ivar _k: The key of the next payload.
    @ivar _peers: The peer's ephemeral public key, once it has come.
    """

    def __init__(self, psk: bytes, prologue: bytes, private: bytes) -> None:
        """
        @param private: The ephemeral private key: 32 random bytes.
        """
        self._private = private
        self._public = crypto_scalarmult_base(private)
        self._peers = b""
        self._k = b""
        self._ck = self._h = NOISE.ljust(64, b"\0")
        self._mixHash(prologue)
        self._ck, temporary, _ = hkdf(self._ck, psk)
        self._mixHash(temporary)

    def write(self, number: int, payload: bytes) -> bytes:
        """
        Make a message.

        @param number: 1 for the client, 2 for the server.
        @raise MuxError: if it is message 2, and the shared secret is zero.
        """
        self._mixEphemeral(number, self._public)
        sealed = sealMessage(payload, self._h, bytes(12), self._k)
        self._mixHash(sealed)
        return self._public + sealed

    def read(self, number: int, message: bytes) -> bytes:
        """
        Open the peer's message.

        @return: Its payload.
        @raise CryptoError: if it does not open.
        @raise MuxError: if it is message 2, and the shared secret is zero.
        """
        self._peers, sealed = message[:32], message[32:]
        self._mixEphemeral(number, self._peers)
        payload = openMessage(sealed, self._h, bytes(12), self._k)
        self._mixHash(sealed)
        return payload

    def split(self) -> tuple[bytes, bytes]:
        """
        @return: The key 0 of the client's frames, and of the server's.
        """
        first, second, _ = hkdf(self._ck, b"")
        return first[:32], second[:32]

    def _mixEphemeral(self, number: int, public: bytes) -> None:
        """
        Mix in the public key at the start of a message, and in message 2 the shared
        secret.

        @raise MuxError: if the shared secret is zero.
        """
        self._mixHash(public)
        self._mixKey(public)
        if number == 2:
            try:
                self._mixKey(crypto_scalarmult(self._private, self._peers))
            except CryptoError:
                raise MuxError("the shared secret is zero") from None

    def _mixHash(self, data: bytes) -> None:
        self._h = blake2b(self._h + data).digest()

    def _mixKey(self, data: bytes) -> None:
        self._ck, key, _ = hkdf(self._ck, data)
        self._k = key[:32]


def prologueOf(context: bytes) -> bytes:
    """
    Make the prologue of the handshake.
    """
    size = len(context).to_bytes(4, "little")
    return b"gomux strict mode" + bytes([VERSION, 1, 2]) + size + context


def pskOf(key: bytes) -> bytes:
    """
    Derive the pre-shared key of Noise from the key of frames in compatible mode.
    """
    return blake2b(b"", key=key, person=b"gomux strict psk", digest_size=32).digest()


class Ratchet:
    """
    The keys of one direction.  Only the newest is kept.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._index = 0

    def keyOf(self, counter: int) -> bytes:
        """
        Find the key of a frame.

        @param counter: The frame's counter, which never goes back.
        """
        while self._index < counter // REKEY:
            nonce = bytes(4) + b"\xff" * 8
            self._key = sealMessage(bytes(32), None, nonce, self._key)[:32]
            self._index += 1
        return self._key


class Memory:
    """
    The last of many nonces.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nonces: OrderedDict[bytes, None] = OrderedDict()

    def add(self, nonce: bytes) -> bool:
        """
        Remember a nonce.

        @return: Whether it is new.
        """
        with self._lock:
            isNew = nonce not in self._nonces
            self._nonces[nonce] = None
            if len(self._nonces) > REMEMBERED:
                self._nonces.popitem(last=False)
            return isNew

    def __contains__(self, nonce: bytes) -> bool:
        with self._lock:
            return nonce in self._nonces


class Hellos:
    """
    The hellos that a process remembers.

    @ivar sent: The prefixes of the hellos that it sent.
    @ivar opened: The nonces of the hellos that it opened.
    """

    def __init__(self) -> None:
        self.sent = Memory()
        self.opened = Memory()


HELLOS = Hellos()


class StrictMux(GreetingMux):
    """
    A mux in strict mode.  Its reader thread shakes hands first, and the other threads
    wait for that before they send anything.

    @ivar _sendKeys: The keys of the frames that this side sends.
    @ivar _receiveKeys: The keys of the frames that the peer sends.
    @ivar _lastOpened: The highest number of a stream that the peer has opened.
    @ivar _up: Set when the mux is up, and also when it has ended.
    """

    maxCredit = 131072

    def __init__(
        self,
        connection: socket.socket,
        psk: str,
        isClient: bool,
        context: bytes = b"",
        *,
        hellos: Hellos = HELLOS,
        checksClock: bool = False,
        interval: float = 5.0,
        deadPeer: float = 45.0,
        random: Callable[[int], bytes] = os.urandom,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        @param hellos: Remembers hellos.
        @param checksClock: Whether to refuse a peer whose clock differs by more than
            L{MAX_SKEW} seconds.
        @param interval: How many seconds pass between two pings.
        @param deadPeer: After how many seconds without an echo the mux ends.
        @param random: Makes the prefix of 16 bytes and the private key of 32.
        @param clock: Tells the seconds since 1970.
        """
        self._context = context
        self._hellos = hellos
        self._checksClock = checksClock
        self._interval = interval
        self._deadPeer = deadPeer
        self._random = random
        self._clock = clock
        self._lastOpened = -1
        self._up = threading.Event()
        super().__init__(connection, psk, isClient)

    # The handshake

    def _greet(self) -> None:
        pass  # the hello announces all

    def _readFrames(self) -> None:
        try:
            self._shakeHands()
        except (MuxError, OSError) as e:
            self._end(MuxError(f"handshake: {e}"))
            self._socket.close()
            return
        threading.Thread(target=self._sendPings, daemon=True).start()
        self._up.set()
        super()._readFrames()

    def _shakeHands(self) -> None:
        """
        Shake hands in this side's role.

        @raise MuxError: if the peer does not do its part.
        """
        self._deadline = time.monotonic() + HANDSHAKE_TIMEOUT
        private = self._random(32)
        noise = Noise(pskOf(self._key), prologueOf(self._context), private)
        self._prefix = self._random(16)
        if self._isClient:
            self._sendHello(noise, 1)
            self._readHello(noise, 2)
            self._sendKeys, self._receiveKeys = map(Ratchet, noise.split())
            self.echoed = time.monotonic()
            self._sealed(0, Flag.KEEPALIVE, b"", 0)
        else:
            self._readHello(noise, 1)
            self._sendHello(noise, 2)
            self._receiveKeys, self._sendKeys = map(Ratchet, noise.split())
            self._readConfirmation()
            self.echoed = time.monotonic()
        self._socket.settimeout(None)

    def _sendHello(self, noise: Noise, number: int) -> None:
        nonce = NONCE.pack(self._prefix, 0)
        self._hellos.sent.add(self._prefix)
        message = noise.write(number, PAYLOAD.pack(BOUND, int(self._clock())))
        header = HEADER.pack(HELLO_ID, HELLO_SIZE, Flag.DATA, nonce)
        self._socket.sendall(header + seal(message, header, nonce, self._key))

    def _readHello(self, noise: Noise, number: int) -> None:
        header = self._receive(HEADER.size)
        streamID, length, flag, nonce = HEADER.unpack(header)
        size = length if flag == Flag.DATA else 0
        greatest = self.maxCredit if flag == Flag.WINDOW_UPDATE else MAX_LENGTH
        if size not in (0, HELLO_SIZE) or length > greatest:
            raise MuxError("the first frame is no hello")
        message = openFrame(header, self._receive(TAG_SIZE + size), self._key)
        magic = streamID.to_bytes(4, "little")
        prefix, counter = NONCE.unpack(nonce)
        if not size or magic[:3] != MAGIC:
            raise MuxError("the peer has the key, but is not in strict mode")
        if magic[3] != VERSION:
            raise MuxError(f"the peer has version {magic[3]}, this side {VERSION}")
        if prefix in self._hellos.sent:
            raise MuxError("this side is connected with itself")
        if counter:
            raise MuxError(f"the counter of the peer's hello is {counter}")
        try:
            _, moment = PAYLOAD.unpack(noise.read(number, message))
        except CryptoError:
            raise MuxError("the peer has another context, or the same role") from None
        if not self._hellos.opened.add(nonce):
            raise MuxError("the peer's hello came before")
        skew = moment - self._clock()
        if self._checksClock and abs(skew) > MAX_SKEW:
            raise MuxError(f"the peer's clock differs by {skew:.0f} seconds")
        self._peersNonce = prefix, -1
        self._isFirst = False

    def _readConfirmation(self) -> None:
        header = self._receive(HEADER.size)
        number, length, flag, _ = HEADER.unpack(header)
        if (number, length, flag) != (0, 0, Flag.KEEPALIVE):
            raise MuxError("no confirmation")
        self._open(header, self._receive(TAG_SIZE))

    def _receive(self, size: int) -> bytes:
        """
        Receive exactly this many bytes before the handshake times out.
        """
        data = b""
        while len(data) < size:
            self._socket.settimeout(max(self._deadline - time.monotonic(), 0.001))
            piece = self._socket.recv(size - len(data))
            if not piece:
                raise MuxError("the connection ended")
            data += piece
        return data

    # Frames

    def _send(
        self, number: int, flag: Flag, payload: bytes = b"", length: int = 0
    ) -> None:
        if flag == Flag.CLOSE_MUX and not self._up.is_set():
            raise MuxError("the mux is not up")
        self._up.wait()
        if self._error is not None:
            raise self._error
        self._sealed(number, flag, payload, length)

    def _sealingKey(self, counter: int) -> bytes:
        return self._sendKeys.keyOf(counter)

    def _open(self, header: bytes, sealed: bytes) -> bytes:
        self._check(*HEADER.unpack(header))
        assert self._peersNonce is not None
        return openFrame(header, sealed, self._receiveKeys.keyOf(self._peersNonce[1]))

    def _process(self, number: int, length: int, flag: int, payload: bytes) -> None:
        if flag > Flag.CLOSE_MUX:
            raise MuxError(f"unknown flags {flag}")
        if length and flag not in (Flag.DATA, Flag.WINDOW_UPDATE, Flag.OPEN_STREAM):
            raise MuxError(f"a length of {length} with flags {flag}")
        if flag == Flag.OPEN_STREAM:
            if self._isOwn(number) or number in self._streams:
                raise MuxError(f"the peer opened stream {number}")
            self._lastOpened = max(self._lastOpened, number)
            if length:  # a request
                self._send(number, Flag.WINDOW_UPDATE)
                self._send(number, Flag.CLOSE_STREAM)
                return
        elif flag not in (Flag.KEEPALIVE, Flag.CLOSE_MUX) and not self._was(number):
            raise MuxError(f"stream {number} was never opened")
        super()._process(number, length, flag, payload)

    def _isOwn(self, number: int) -> bool:
        return number % 2 != self._isClient

    def _was(self, number: int) -> bool:
        """
        Tell whether a stream was ever opened.
        """
        if self._isOwn(number):
            return number < self._nextNumber
        return number <= self._lastOpened

    def _end(self, error: MuxError) -> None:
        super()._end(error)
        self._up.set()

    def _sendPings(self) -> None:
        """
        Ping until the mux ends, or end it because the peer does not answer.
        """
        while True:
            with self._lock:
                if self._lock.wait_for(lambda: self._error, self._interval):
                    return
            if time.monotonic() - self.echoed > self._deadPeer:
                self._end(MuxError("the peer does not answer pings"))
                self._shutdown(socket.SHUT_RDWR)
                return
            try:
                self.ping()
            except MuxError:
                return
