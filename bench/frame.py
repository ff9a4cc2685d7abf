"""
Measure the cost of a frame without sockets: two muxes in one process exchange their
output directly.

    python -m bench.frame

This prints microseconds for both sides together.  "Ours" is the time of a 64 KiB frame
minus sealing and opening.  A real carrier adds the time of the kernel and of Twisted.
Frames are handed over one by one, and four at a time, as in a read of a busy carrier.
The last lines have the cost of one frame beside a growing number of open streams.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from twisted.internet.address import UNIXAddress
from twisted.internet.protocol import Factory, Protocol

from gomux import Limits, MuxFactory, MuxProtocol
from gomux._carrier.direct import BULK_READ_SIZE
from gomux._wire.salts import Salts

ROUNDS = 60
#: The memory layout of a process can make a frame up to a third slower, so this many
#: processes are started and the best result counts.
PROCESSES = 8
#: How many frames are handed over in one read.
TOGETHER = (1, 4)
FRAME = bytes(65536)
SMALL = bytes(64)
WRITE = bytes(128)
OPEN_STREAMS = (1, 10, 100, 1000, 10000)


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


class Call:
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
    The connected muxes of a client and a server.

    @ivar joining: the seconds spent on joining several writes into one read.
    """

    def __init__(self, protocol: type[Protocol], strict: bool = False) -> None:
        """
        @param protocol: the protocol of the server's streams.
        @param strict: whether the muxes are in strict mode.
        """
        self.clock: Any = Soon()
        self.joining = 0.0
        self.streams = Factory.forProtocol(Protocol)
        limits = Limits(
            maxStreams=2 * OPEN_STREAMS[-1],
            openBurst=1 << 30,
            resetBurst=1 << 30,
            busyPoll=0,
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
            mux.makeConnection(Handover())  # type: ignore[arg-type]
        self.settle()

    def open(self) -> Any:
        """
        @return: the transport of a new stream.
        """
        opened: list[Any] = []
        self.client.openStream(self.streams).addCallback(opened.append)
        return opened[0].transport

    def take(self, source: MuxProtocol) -> list[bytes]:
        """
        @return: the output of a mux since the last call.
        """
        carrier: Any = source.transport
        written, carrier.written = carrier.written, []
        return written

    def hand(self, source: MuxProtocol, sink: MuxProtocol) -> bool:
        written = self.take(source)
        for data in written:
            sink.dataReceived(data)
        return bool(written)

    def handAtOnce(self, source: MuxProtocol, sink: MuxProtocol) -> None:
        """
        Hand over all output of a mux in one read.
        """
        written = self.take(source)
        started = time.perf_counter()
        read = written[0] if len(written) == 1 else b"".join(written)
        self.joining += time.perf_counter() - started
        sink.dataReceived(read)

    def settle(self) -> None:
        """
        Hand over output until neither mux has any left.
        """
        self.clock.run()
        while self.hand(self.client, self.server) | self.hand(self.server, self.client):
            self.clock.run()


def best(run: Callable[[], object], times: int, joining: Pair | None = None) -> float:
    """
    @param joining: the pair whose L{Pair.joining} is subtracted.
    @return: the least time of a call, in microseconds.
    """
    rounds = []
    for _ in range(ROUNDS):
        if joining is not None:
            joining.joining = 0.0
        started = time.perf_counter()
        for _ in range(times):
            run()
        taken = time.perf_counter() - started
        rounds.append((taken - (joining.joining if joining else 0.0)) / times)
    return min(rounds) * 1e6


def measureFrame(_: int) -> dict[str, float]:
    """
    Measure a 64 KiB frame and its credit, and parts of that work alone.

    @return: the times in microseconds, by name.
    """
    # After one large allocation the C library keeps memory of that size, instead of
    # asking the system for it each time.  The first large read of a carrier has the
    # same effect.
    bytearray(2 * BULK_READ_SIZE)
    aead, nonce, header = ChaCha20Poly1305(bytes(32)), bytes(12), bytes(36)
    sealed = aead.encrypt(nonce, FRAME, header)
    empty = aead.encrypt(nonce, b"", header)
    taken = {
        "sealing": best(lambda: aead.encrypt(nonce, FRAME, header), 200),
        "opening": best(lambda: aead.decrypt(nonce, sealed, header), 200),
        "sealing a credit": best(lambda: aead.encrypt(nonce, b"", header), 1000),
        "opening a credit": best(lambda: aead.decrypt(nonce, empty, header), 1000),
        "a copy": best(lambda: b"".join((header, sealed)), 200),
    }
    for count in TOGETHER:
        pair = Pair(Protocol)
        stream = pair.open()

        def together(
            pair: Pair = pair, stream: Any = stream, count: int = count
        ) -> None:
            for _ in range(count):
                stream.write(FRAME)
            pair.clock.run()
            pair.handAtOnce(pair.client, pair.server)
            pair.settle()

        best(together, 20)  # until its window has grown
        taken[f"{count} a read"] = best(together, 200 // count, pair) / count
    return taken


def frame() -> None:
    """
    Print the cost of a 64 KiB frame and of its parts.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as processes:
        done = processes.map(measureFrame, range(PROCESSES), chunksize=1)
    least = {what: min(one[what] for one in done) for what in done[0]}
    sealing, opening, copy = least["sealing"], least["opening"], least["a copy"]
    print(f"sealing 64 KiB: {sealing:.1f}")
    print(f"opening 64 KiB: {opening:.1f}")
    print(f"a copy of it that sockets do not need: {copy:.1f}")
    for count in TOGETHER:
        # If several frames arrive in one read, credit is given for two frames at once.
        credit = least["sealing a credit"] + least["opening a credit"]
        credit /= min(count, 2)
        whole = least[f"{count} a read"]
        ours = whole - sealing - opening - copy - credit
        print(f"64 KiB frame, {count} a read: {whole:.1f}")
        print(f"  sealing and opening its credit: {credit:.1f}")
        print(f"  ours: {ours:.1f}, a side {ours / 2:.1f}")


def others() -> None:
    """
    Print the cost of small frames and of opening a stream.
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
    Open a number of streams.

    @return: a function that does one echo on one of them.
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
    Do a number of echoes beside a number of open streams.
    """
    echo = amongOthers(streams)
    for _ in range(times):
        echo()


def growth() -> None:
    """
    Print the cost of a frame beside a growing number of open streams.
    """
    for count in OPEN_STREAMS:
        cost = best(amongOthers(count), 1000) / 2
        print(f"frame beside {count} open streams: {cost:.2f}")


if __name__ == "__main__":
    frame()
    others()
    growth()
