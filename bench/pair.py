"""
Two muxes in one process that exchange their output directly, without sockets.

L{bench.frames} runs this file under valgrind.  It makes the calls that its standard
input asks for.  It imports nothing of this package, so that it runs with any C{gomux}.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from twisted.internet.address import UNIXAddress
from twisted.internet.protocol import Factory, Protocol

import gomux.test  # noqa: F401  (for GOMUX_PLAIN)
from gomux import Limits, MuxFactory, MuxProtocol
from gomux._wire.salts import Salts

FRAME = bytes(65536)
SMALL = bytes(64)
WRITE, WRITES = bytes(128), 500

#: How often each call is made before it is counted.
WARM_UP = 100

Call = Callable[[], object]


class Handover:
    """
    A carrier that collects the writes of a mux until they are handed over.
    """

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writeSequence(self, data: list[bytes]) -> None:
        self.written.append(b"".join(data))

    def registerProducer(self, producer: object, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def getPeer(self) -> UNIXAddress:
        return UNIXAddress(b"")

    getHost = getPeer


class Never:
    """
    A delayed call that is never active.
    """

    def active(self) -> bool:
        return False


class Soon:
    """
    A minimal reactor.  It makes calls without a delay, and ignores all others.
    """

    seconds = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self._due: list[Call] = []
        self._call = Never()

    def callLater(self, delay: float, call: Callable[..., object], *args: Any) -> Never:
        if not delay:
            self._due.append(call)
        return self._call

    def run(self) -> None:
        due, self._due = self._due, []
        for call in due:
            call()


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class Pair:
    """
    The connected muxes of a client and a server.
    """

    def __init__(self, protocol: type[Protocol], strict: bool) -> None:
        """
        @param protocol: the protocol of the server's streams.
        @param strict: whether the muxes are in strict mode.
        """
        self.clock: Any = Soon()
        self.streams = Factory.forProtocol(Protocol)
        limits = Limits(
            maxStreams=20000, openBurst=1 << 30, resetBurst=1 << 30, busyPoll=0
        )
        self.client, self.server = muxes = [
            MuxFactory(
                *("a pre-shared key", isClient, streams),
                clock=self.clock,
                limits=limits,
                strict=strict,
                salts=Salts(),
            ).buildProtocol(None)
            for isClient, streams in (
                (True, self.streams),
                (False, Factory.forProtocol(protocol)),
            )
        ]
        for mux in muxes:
            mux.makeConnection(Handover())
        self.settle()

    def open(self) -> Any:
        """
        @return: the transport of a new stream.
        """
        opened: list[Any] = []
        self.client.openStream(self.streams).addCallback(opened.append)
        return opened[0].transport

    def hand(self, source: MuxProtocol, sink: MuxProtocol) -> bool:
        carrier: Any = source.transport
        written, carrier.written = carrier.written, []
        for data in written:
            sink.dataReceived(data)
        return bool(written)

    def settle(self) -> None:
        """
        Hand over output until neither mux has any left.
        """
        self.clock.run()
        while self.hand(self.client, self.server) | self.hand(self.server, self.client):
            self.clock.run()


def _echo(strict: bool, streams: int = 1) -> Call:
    pair = Pair(Echo, strict)
    stream = [pair.open() for _ in range(streams)][streams // 2]
    pair.settle()

    def call() -> None:
        stream.write(SMALL)
        pair.settle()

    return call


def _writes(strict: bool, data: bytes, count: int) -> Call:
    pair = Pair(Protocol, strict)
    stream = pair.open()

    def call() -> None:
        for _ in range(count):
            stream.write(data)
        pair.settle()

    return call


def _open(strict: bool) -> Call:
    pair = Pair(Echo, strict)

    def call() -> None:
        stream = pair.open()
        stream.write(SMALL)
        pair.settle()
        stream.loseConnection()
        pair.settle()

    return call


def _bare(*payloads: bytes) -> Call:
    """
    @return: a function that seals and opens frames, and does nothing else.
    """
    cipher, nonce, header = ChaCha20Poly1305(bytes(32)), bytes(12), struct.Struct("<3I")
    rest = bytes(24)

    def call() -> None:
        for number, payload in enumerate(payloads):
            fields = header.pack(number, len(payload), 1) + rest
            frame = fields + cipher.encrypt(nonce, payload, fields)
            header.unpack_from(frame)
            cipher.decrypt(nonce, frame[36:], frame[:36])

    return call


#: What is done, by figure: how to make the call, the frames that it needs at least, how
#: many times it is counted, and how many figures are in one call.
WORK: dict[str, tuple[Callable[[bool], Call], tuple[bytes, ...], int, int]] = {
    "echo of 64 bytes": (_echo, (SMALL, SMALL), 500, 1),
    "64 KiB and its credit": (
        partial(_writes, data=FRAME, count=1),
        (FRAME, b""),
        200,
        1,
    ),
    "write of 128 bytes": (
        partial(_writes, data=WRITE, count=WRITES),
        (WRITE * WRITES, b""),
        10,
        WRITES,
    ),
    "open, echo, close": (_open, (b"", SMALL, SMALL, b"", b""), 200, 1),
}


def _answer() -> None:
    """
    Make the calls that the standard input asks for.
    """
    for line in sys.stdin:
        what, side, number, times = line.split(";")
        make, least, _, _ = WORK[what]
        if side == "bare":
            call = _bare(*least)
        elif int(number) > 1:
            call = _echo(False, int(number))
        else:
            call = make(side == "strict")
        for _ in range(WARM_UP):
            call()
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(int(times)):
            call()
        print("done", flush=True)


if __name__ == "__main__":
    _answer()
