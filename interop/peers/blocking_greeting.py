"""
What a peer does that greets, on top of L{interop.peers.blocking_mux}: bound nonces,
pings and echoes.  It follows C{docs/protocol.rst} alone.
"""

from __future__ import annotations

import os
import socket
import struct
import time

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_encrypt as seal,
)

from interop.peers.blocking_mux import HEADER, Flag, Mux, MuxError

BOUND = 1
NONCE = struct.Struct("<16sQ")
LOW = 0xFFFFFFFF


class GreetingMux(Mux):
    """
    A mux that greets.  If the peer greets too, both ping.

    @ivar roundTrip: How long the last ping took that was echoed, or L{None}.
    @ivar echoed: When the last ping was sent that was echoed.
    @ivar echoes: How many pings of the peer were answered.
    """

    def __init__(self, connection: socket.socket, psk: str, isClient: bool) -> None:
        self.roundTrip: float | None = None
        self.echoed = 0.0
        self.echoes = 0
        self._prefix = os.urandom(16)
        self._counter = 0
        self._peersNonce: tuple[bytes, int] | None = None
        self._isFirst = True
        self._greeted = False
        self._unechoed: list[tuple[int, float]] = []
        self._isClient = isClient
        super().__init__(connection, psk, isClient)
        if isClient:
            self._greet()

    def _greet(self) -> None:
        with self._lock:
            greeted, self._greeted = self._greeted, True
        if not greeted:
            self._sealed(0, Flag.KEEPALIVE, b"", BOUND)

    def ping(self) -> None:
        """
        Send a ping.
        """
        assert self._peersNonce is not None
        self._sealed(self._peersNonce[1] & LOW, Flag.KEEPALIVE, b"", 0, isPing=True)

    def _send(
        self, number: int, flag: Flag, payload: bytes = b"", length: int = 0
    ) -> None:
        self._greet()
        self._sealed(number, flag, payload, length)

    def _sealed(
        self,
        number: int,
        flag: Flag,
        payload: bytes,
        length: int,
        isPing: bool = False,
    ) -> None:
        with self._sending:
            nonce = NONCE.pack(self._prefix, self._counter)
            if isPing:
                self._unechoed.append((self._counter & LOW, time.monotonic()))
            key = self._sealingKey(self._counter)
            self._counter += 1
            header = HEADER.pack(number, length or len(payload), flag, nonce)
            try:
                self._socket.sendall(header + seal(payload, header, nonce, key))
            except OSError as e:
                error = MuxError(f"could not write: {e}")
                self._end(error)
                raise error from e

    def _sealingKey(self, counter: int) -> bytes:
        """
        Find the key that seals the frame with this counter.
        """
        return self._key

    def _open(self, header: bytes, sealed: bytes) -> bytes:
        payload = super()._open(header, sealed)
        self._check(*HEADER.unpack(header))
        return payload

    def _process(self, number: int, length: int, flag: int, payload: bytes) -> None:
        super()._process(number, length, flag, payload)
        if flag == Flag.KEEPALIVE and length == 0 and self._peersNonce is not None:
            self._pinged(number)

    def _check(self, number: int, length: int, flag: int, nonce: bytes) -> None:
        """
        @raise MuxError: If a frame may not come now.
        """
        prefix, counter = NONCE.unpack(nonce)
        if prefix == self._prefix:
            raise MuxError("a frame came back")
        if self._isFirst:
            self._isFirst = False
            if (number, flag) == (0, Flag.KEEPALIVE) and length & BOUND:
                self._peersNonce = prefix, counter
            self._greet()
        elif self._peersNonce is not None:
            if (prefix, counter) != (self._peersNonce[0], self._peersNonce[1] + 1):
                raise MuxError("a frame is not the next one")
            self._peersNonce = prefix, counter

    def _pinged(self, number: int) -> None:
        isEcho = False
        while self._unechoed and (number - self._unechoed[0][0]) & LOW < 1 << 31:
            self.echoed = self._unechoed.pop(0)[1]
            self.roundTrip = time.monotonic() - self.echoed
            isEcho = True
        if not isEcho:
            assert self._peersNonce is not None
            self.echoes += 1
            self._sealed(self._peersNonce[1] & LOW, Flag.KEEPALIVE, b"", 0)
