"""
What a frame costs this project, without sockets: two muxes in one process that
hand each other what they write.

    python -m bench.frame

Prints microseconds for both sides together.  What is left of a 64 KiB frame
after sealing and opening is ours; in a real carrier the kernel and Twisted come
on top.  The last lines are what one frame costs beside ever more open streams.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from twisted.internet.address import UNIXAddress
from twisted.internet.protocol import Factory, Protocol

from gomux import Limits, MuxFactory, MuxProtocol

ROUNDS = 60
FRAME = bytes(65536)
SMALL = bytes(64)
WRITE = bytes(128)
OPEN_STREAMS = (1, 10, 100, 1000, 10000)


class Handover:
    """
    A carrier whose writes wait to be handed over.
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


class Call:
    """
    A call that nobody waits for.
    """

    def active(self) -> bool:
        return False


class Soon:
    """
    The least that can be a reactor: it calls what is due at once, and nothing that
    is due later.
    """

    seconds = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self._due: list[Callable[[], object]] = []
        self._call = Call()

    def callLater(self, delay: float, call: Callable[..., object], *args: Any) -> Call:
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
    A client's and a server's mux.
    """

    def __init__(self, protocol: type[Protocol]) -> None:
        self.clock: Any = Soon()
        self.streams = Factory.forProtocol(Protocol)
        limits = Limits(
            maxStreams=2 * OPEN_STREAMS[-1],
            openBurst=1 << 30,
            resetBurst=1 << 30,
            busyPoll=0,
        )
        self.client, self.server = muxes = [
            MuxFactory(
                "a pre-shared key", isClient, streams, clock=self.clock, limits=limits
            ).buildProtocol(None)
            for isClient, streams in (
                (True, self.streams),
                (False, Factory.forProtocol(protocol)),
            )
        ]
        for mux in muxes:
            mux.makeConnection(Handover())  # type: ignore[arg-type]
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
        Hand over until there is nothing left.
        """
        self.clock.run()
        while self.hand(self.client, self.server) | self.hand(self.server, self.client):
            self.clock.run()


def best(run: Callable[[], object], times: int) -> float:
    """
    @return: how long a call takes when nothing disturbs it, in microseconds.
    """
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(times):
            run()
        rounds.append((time.perf_counter() - started) / times)
    return min(rounds) * 1e6


def frame() -> None:
    """
    A 64 KiB frame one way, and its credit back.
    """
    pair = Pair(Protocol)
    stream = pair.open()

    def one() -> None:
        stream.write(FRAME)
        pair.settle()

    aead, nonce, header = ChaCha20Poly1305(bytes(32)), bytes(12), bytes(36)
    sealed = aead.encrypt(nonce, FRAME, header)
    seal = best(lambda: aead.encrypt(nonce, FRAME, header), 200)
    unseal = best(lambda: aead.decrypt(nonce, sealed, header), 200)
    empty = aead.encrypt(nonce, b"", header)
    credit = best(lambda: aead.encrypt(nonce, b"", header), 1000)
    credit += best(lambda: aead.decrypt(nonce, empty, header), 1000)
    copy = best(lambda: b"".join((header, sealed)), 200)
    whole = best(one, 200)
    print(f"64 KiB frame: {whole:.1f}")
    print(f"  sealing: {seal:.1f}")
    print(f"  opening: {unseal:.1f}")
    print(f"  sealing and opening its credit: {credit:.1f}")
    print(f"  a copy that sockets do not need: {copy:.1f}")
    print(f"  ours: {whole - seal - unseal - credit - copy:.1f}")


def others() -> None:
    """
    What is all overhead.
    """
    pair = Pair(Echo)
    stream = pair.open()

    def echo() -> None:
        stream.write(SMALL)
        pair.settle()

    print(f"echo of {len(SMALL)} bytes: {best(echo, 1000):.1f}")

    def open_() -> None:
        opened = pair.open()
        opened.write(SMALL)
        pair.settle()
        opened.loseConnection()
        pair.settle()

    print(f"open, echo, close: {best(open_, 300):.1f}")
    pair = Pair(Protocol)
    stream = pair.open()

    def writes() -> None:
        for _ in range(500):
            stream.write(WRITE)
        pair.settle()

    print(f"write of {len(WRITE)} bytes: {best(writes, 10) / 500:.2f}")


def amongOthers(streams: int) -> Callable[[], None]:
    """
    Open so many streams.

    @return: echoes something on one of them.
    """
    pair = Pair(Echo)
    stream = [pair.open() for _ in range(streams)][streams // 2]
    pair.settle()

    def echo() -> None:
        stream.write(SMALL)
        pair.settle()

    return echo


def echoes(streams: int, times: int) -> None:
    """
    Echo something so many times, beside so many open streams.
    """
    echo = amongOthers(streams)
    for _ in range(times):
        echo()


def growth() -> None:
    """
    One active stream among many.
    """
    for count in OPEN_STREAMS:
        cost = best(amongOthers(count), 1000) / 2
        print(f"frame beside {count} open streams: {cost:.2f}")


if __name__ == "__main__":
    frame()
    others()
    growth()
