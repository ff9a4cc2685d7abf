"""
A peer that sends any frames or bytes that a test asks for.

It was written from the description of the wire.  It seals and opens frames with PyNaCl,
and shares no code with the project.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, NamedTuple

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt as openSealed,
)
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_encrypt as seal,
)
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

DATA, KEEPALIVE, OPEN, CLOSE_READ, CLOSE_WRITE, CLOSE, UPDATE, CLOSE_MUX = range(8)

FIELDS = struct.Struct("<III")
HEADER_SIZE = 36
TAG_SIZE = 16
OVERHEAD = HEADER_SIZE + TAG_SIZE
WINDOW = 131072

PSK = "the secret of the fault tests"

LONG = bool(os.environ.get("GOMUX_FAULTS_LONG"))
"""Whether the slow tests run at full length."""

WAIT = 60.0 if LONG else 20.0
"""Seconds after which a test gives up waiting for an event."""


class Frame(NamedTuple):
    """
    A frame that was received.
    """

    flag: int
    streamID: int
    length: int
    payload: bytes


class Attacker(Protocol):
    """
    The attacker's end of a carrier.

    @ivar name: Its address, as written in log lines.
    @ivar frames: The frames received that authenticated.
    @ivar bytesReceived: How many bytes were received.
    @ivar lost: Fires with the reason when the carrier has ended.
    """

    transport: Any = None

    def __init__(self, isClient: bool, psk: str = PSK) -> None:
        self.key = blake2b(psk.encode(), digest_size=32).digest()
        self.nextID = 0 if isClient else 1
        self.frames: list[Frame] = []
        self.bytesReceived = 0
        self.up: Deferred[Attacker] = Deferred()
        self.lost: Deferred[BaseException | None] = Deferred()
        self._input = bytearray()
        self._waiting: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self._syncID: int | None = None

    # Sending

    def frame(
        self,
        flag: int,
        streamID: int = 0,
        payload: bytes = b"",
        length: int | None = None,
        nonce: bytes | None = None,
    ) -> bytes:
        """
        Make a frame.

        @param length: The length in the header, by default the payload's size.
        """
        if nonce is None:
            nonce = os.urandom(24)
        size = len(payload) if length is None else length
        header = FIELDS.pack(streamID, size, flag) + nonce
        return header + seal(payload, header, nonce, self.key)

    def send(
        self,
        flag: int,
        streamID: int = 0,
        payload: bytes = b"",
        length: int | None = None,
    ) -> None:
        """
        Send a frame.
        """
        self.transport.write(self.frame(flag, streamID, payload, length))

    def open(self) -> int:
        """
        Open a stream.

        @return: Its ID.
        """
        streamID = self.nextID
        self.nextID += 2
        self.send(OPEN, streamID)
        return streamID

    async def sync(self) -> None:
        """
        Wait until the subject has processed everything sent so far.  An echo on a
        separate stream shows it.
        """
        if self._syncID is None:
            self._syncID = self.open()
        mine = self._syncID
        self.send(DATA, mine, b"ECHO")
        count = self.count(DATA, mine)
        await self.until(lambda: self.count(DATA, mine) > count)

    # Receiving

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        host = self.transport.getHost()
        self.name = f"{host.host}:{host.port}"
        self.up.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.bytesReceived += len(data)
        self._input += data
        while len(self._input) >= HEADER_SIZE:
            streamID, length, flag = FIELDS.unpack_from(self._input)
            size = OVERHEAD + (length if flag == DATA else 0)
            if len(self._input) < size:
                break
            whole = bytes(self._input[:size])
            del self._input[:size]
            header, sealed = whole[:HEADER_SIZE], whole[HEADER_SIZE:]
            payload = openSealed(sealed, header, header[-24:], self.key)
            self.frames.append(Frame(flag, streamID, length, payload))
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(reason.value)
        self._look()

    def count(self, flag: int, streamID: int | None = None) -> int:
        """
        Count the received frames with a flag, on one stream or in all.
        """
        return sum(
            f.flag == flag and (streamID is None or f.streamID == streamID)
            for f in self.frames
        )

    def data(self, streamID: int) -> bytes:
        """
        @return: The data received on a stream.
        """
        return b"".join(f.payload for f in self.frames if f[:2] == (DATA, streamID))

    def credit(self, streamID: int) -> int:
        """
        @return: The credit received for a stream, in bytes.
        """
        return sum(f.length for f in self.frames if f[:2] == (UPDATE, streamID))

    def until(self, condition: Callable[[], Any]) -> Deferred[Any]:
        """
        Wait for a condition on the received frames.
        """
        waiting: Deferred[Any] = Deferred()
        self._waiting.append((condition, waiting))
        waiting.addTimeout(WAIT, reactor)
        self._look()
        return waiting

    def untilFrame(self, flag: int, streamID: int | None = None) -> Deferred[Any]:
        """
        Wait until a frame with this flag has arrived, on one stream or on any.
        """
        return self.until(lambda: self.count(flag, streamID))

    def _look(self) -> None:
        for condition, waiting in list(self._waiting):
            result = condition()
            if result:
                self._waiting.remove((condition, waiting))
                if not waiting.called:
                    waiting.callback(result)
