"""
The program of the client and of the server in the soak test: see C{soak.py}.

The client keeps a number of streams open.  On each stream it sends a random amount of
known bytes, with pauses.  The server answers each piece with as many other known bytes.
After the last piece it sends the SHA-256 of all its input, and closes the stream.  Both
ends check every byte.

Each end prints a line of JSON a second.  The client prints one more when the first
correct bytes arrive over a new mux.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from hashlib import sha256
from struct import Struct
from typing import Any

from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure
from twisted.python.log import startLogging

import gomux.test  # noqa: F401  (for GOMUX_PLAIN)
from gomux import GomuxError, Limits, MuxFactory, MuxPool
from gomux.error import PeerClosedStream
from gomux.tunnel._service import Connector, ListeningService, ServiceDialler

#: Short timeouts, so that the muxes recover from each fault within seconds.
LIMITS = Limits(writeStall=6.0, handshakeTimeout=4.0, ping=1.0, deadPeer=6.0)

#: The header of a stream: the offset of its bytes in the block of known bytes, and how
#: many there are.
HEADER = Struct("<II")
BLOCK_SIZE = 1 << 20
_block = random.Random(1).randbytes(BLOCK_SIZE) * 2

PIECE_SIZE = 8192
#: The most bytes that a stream carries in each direction.
SIZE = 131072
#: The longest pause of the client before a piece, in seconds.
PAUSE = 1.0


def known(start: int, offset: int, size: int) -> bytes:
    """
    @param start: the stream's offset in the block.
    @param offset: the offset in the stream.
    @return: known bytes of a stream.
    """
    begin = (start + offset) % BLOCK_SIZE
    return _block[begin : begin + size]


class Counts:
    """
    The counts that an end prints.

    @ivar open: how many streams are open.
    @ivar done: how many streams were correct up to the hash.
    @ivar cut: how many streams a fault has cut short, after correct bytes only.
    @ivar wrong: how many streams had a wrong byte, or looked complete and were not.
    @ivar bytes: how many received bytes were compared and correct.
    """

    def __init__(self) -> None:
        self.open = self.done = self.cut = self.wrong = self.bytes = 0

    def say(self, **more: object) -> None:
        print(json.dumps({"t": time.monotonic(), **vars(self), **more}), flush=True)


class Server(Protocol):
    """
    The server's end of a stream.
    """

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._header = b""
        self._got = 0
        self._hash = sha256()
        self._size = -1
        self._start = 0

    def connectionMade(self) -> None:
        self._counts.open += 1

    def dataReceived(self, data: bytes) -> None:
        if self._size < 0:
            self._header += data
            if len(self._header) < HEADER.size:
                return
            self._start, self._size = HEADER.unpack_from(self._header)
            data = self._header[HEADER.size :]
        if data != known(self._start, self._got, len(data)):
            self._counts.wrong += 1
            self.transport.abortConnection()
            return
        self._counts.bytes += len(data)
        self._hash.update(data)
        self.transport.write(known(self._start + 7, self._got, len(data)))
        self._got += len(data)
        if self._got == self._size:
            self.transport.write(self._hash.digest())
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._counts.open -= 1
        if self._got == self._size:
            self._counts.done += 1
        else:
            self._counts.cut += 1


class Client(Protocol):
    """
    The client's end of a stream.

    @ivar over: fires when the stream has ended.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._counts = load.counts
        self._start = random.randrange(BLOCK_SIZE)
        self._size = random.randrange(1, SIZE)
        self._sent = 0
        self._got = 0
        self._hash = sha256()
        self._digest = b""
        self._wrong = False
        self._call: Any = None
        self.over: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self._counts.open += 1
        self.transport.write(HEADER.pack(self._start, self._size))
        self._send()

    def _send(self) -> None:
        self._call = None
        size = min(PIECE_SIZE, self._size - self._sent)
        piece = known(self._start, self._sent, size)
        self._hash.update(piece)
        self.transport.write(piece)
        self._sent += size
        if self._sent < self._size:
            self._call = reactor.callLater(random.uniform(0, PAUSE), self._send)

    def dataReceived(self, data: bytes) -> None:
        rest = self._size - self._got
        part, digest = data[:rest], data[rest:]
        if part != known(self._start + 7, self._got, len(part)):
            self._fail()
            return
        if not self._got:
            self._load.alive(self.transport)
        self._got += len(part)
        self._counts.bytes += len(part)
        self._digest += digest
        if len(self._digest) > 32:
            self._fail()

    def _fail(self) -> None:
        self._wrong = True
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._counts.open -= 1
        if self._call is not None:
            self._call.cancel()
        if self._digest == self._hash.digest() and self._sent == self._size:
            self._counts.done += 1
        elif self._wrong or self._digest[32:] or reason.check(PeerClosedStream):
            # The stream ended as if the server had closed it, but the data is
            # incomplete.
            self._counts.wrong += 1
        else:
            self._counts.cut += 1
        self.over.callback(None)


class _Once(Factory):
    """
    A factory that returns one existing protocol.
    """

    noisy = False

    def __init__(self, client: Client) -> None:
        self._client = client

    def buildProtocol(self, addr: object) -> Client:
        return self._client


class Load:
    """
    Keeps a number of streams open on the muxes of a pool.
    """

    def __init__(self, pool: MuxPool, counts: Counts) -> None:
        self.pool = pool
        self.counts = counts
        self._stopping = False
        self._last: object = None

    def start(self, streams: int) -> None:
        for _ in range(streams):
            Deferred.fromCoroutine(self._keepGoing())

    def stop(self) -> Deferred[Any]:
        """
        Close the muxes, and open no more streams.
        """
        self._stopping = True
        return gatherResults([mux.close() for mux in self.pool.muxes])

    async def _keepGoing(self) -> None:
        while not self._stopping:
            client = Client(self)
            try:
                await self.pool.openStream(_Once(client))
            except GomuxError:
                await deferLater(reactor, 0.2)
                continue
            await client.over

    def alive(self, transport: Any) -> None:
        """
        Report the first correct bytes over a mux.
        """
        mux = transport.getHost().carrier
        if mux != self._last:
            self._last = mux
            self.counts.say(up=True)


def main(role: str, port: int, streams: int, strict: bool) -> None:
    """
    Run one of the ends until SIGTERM.
    """
    service = MultiService()
    counts = Counts()
    settings: dict[str, Any] = {"clock": reactor, "limits": LIMITS, "strict": strict}
    psk = os.environ["GOMUX_PSK"]
    if role == "server":
        factory = Factory.forProtocol(lambda: Server(counts))
        factory.noisy = False
        server = MuxFactory(psk, False, factory, **settings)
        endpoint = TCP4ServerEndpoint(reactor, port, interface="127.0.0.1")
        service.addService(ListeningService("soak", endpoint, server))
    else:
        pool = MuxPool(reactor, 3600.0, streams + 1)
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        client = ServiceDialler(psk, carrier, 2.0, pool=pool, **settings)
        service.addService(Connector("soak", client))
        load = Load(pool, counts)
        reactor.callWhenRunning(load.start, streams)
        reactor.addSystemEventTrigger("before", "shutdown", load.stop)
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    LoopingCall(counts.say).start(1.0)
    reactor.run()


if __name__ == "__main__":
    startLogging(sys.stderr, setStdout=False)
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "strict")
