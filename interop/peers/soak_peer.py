"""
The program of the client and of the server in the soak test: see C{soak.py}.

The client keeps a number of streams open.  On each stream it sends a random amount of
known bytes, with pauses.  The server answers each piece with as many other known bytes.
After the last piece it sends the SHA-256 of all its input, and closes the stream.  Both
ends check every byte.

A few streams start TLS after their header, and have a slow reader.  The server ends
some of them without TLS's close_notify.  Such an end is a cut: the client must first
get all bytes, and must then not see a clean end.

Each end prints a line of JSON four times a second.  The client prints one more when the
first correct bytes arrive over a new mux.

All pauses here are by the clock that never goes back, because the soak test sets the
wall clock of both processes.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from enum import IntEnum
from hashlib import sha256
from struct import Struct
from typing import Any

from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import PrivateCertificate, optionsForClientTLS
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.python.log import startLogging
from zope.interface import implementer

import gomux.test  # noqa: F401  (for GOMUX_PLAIN)
from gomux import GomuxError, Limits, MuxFactory, MuxPool
from gomux._carrier.clock import steady
from gomux.error import PeerClosedStream, StreamClosed
from gomux.limits import TunnelLimits
from gomux.test.support.certificates import NAME
from gomux.tunnel._service import Connector, ListeningService, ServiceDialler
from gomux.tunnel._tunnel import Tunnel, target

#: Short timeouts, so that the muxes recover from each fault within seconds.
LIMITS = Limits(writeStall=6.0, handshakeTimeout=4.0, ping=1.0, deadPeer=6.0)

clock: Any = steady(reactor)


class Kind(IntEnum):
    """
    How a stream sends its bytes, and how it ends.
    """

    PLAIN = 0
    #: With TLS, which ends by its close_notify.
    TLS = 1
    #: With TLS that has no close_notify: the server closes only the stream.
    TLS_CUT = 2
    #: Continued by a tunnel to a server of TLS, which closes without a close_notify.
    #: The reader waits until the client has sent everything, so that more waits for it
    #: than the window allows.
    TARGET_CUT = 3


#: The kinds of stream in which the client itself uses TLS.
WITH_TLS = (Kind.TLS, Kind.TLS_CUT)

#: How many in a hundred streams are of each kind.
WEIGHTS = {Kind.PLAIN: 95, Kind.TLS: 1, Kind.TLS_CUT: 2, Kind.TARGET_CUT: 2}

#: The header of a stream: its kind, the offset of its bytes in the block of known
#: bytes, and how many there are.
HEADER = Struct("<BII")
#: What the server of a stream with TLS sends when it expects TLS.
READY = b"!"
BLOCK_SIZE = 1 << 20
log = Logger()
_block = random.Random(1).randbytes(BLOCK_SIZE) * 2

PIECE_SIZE = 8192
#: The most bytes that a stream carries in each direction.
SIZE = 131072
#: The longest pause of the client before a piece, in seconds.
PAUSE = 1.0
#: The time between two lines, in seconds.
OFTEN = 0.25
#: A mux that has ended is known to have ended after this many seconds at most.
SETTLED = 2.0


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
    @ivar wrong: how many streams had a wrong byte, looked complete and were not, looked
        cut short and were not, or were cut short although their mux lives.
    @ivar bytes: how many received bytes were compared and correct.
    @ivar tls: how many of the correct streams had TLS and a close_notify.
    @ivar tlsCut: how many of the correct streams had TLS and no close_notify.
    @ivar targetCut: the same for TLS between the tunnel and its target.
    """

    def __init__(self) -> None:
        self.open = self.done = self.cut = self.wrong = self.bytes = 0
        self.tls = self.tlsCut = self.targetCut = 0

    def ended(self, kind: Kind) -> None:
        """
        Count a stream that was correct to its end.
        """
        self.done += 1
        self.tls += kind is Kind.TLS
        self.tlsCut += kind is Kind.TLS_CUT
        self.targetCut += kind is Kind.TARGET_CUT

    def say(self, **more: object) -> None:
        print(json.dumps({"t": time.monotonic(), **vars(self), **more}), flush=True)


class Server(Protocol):
    """
    The server's end of a stream, or of a connection to the target.
    """

    def __init__(self, counts: Counts, tls: Any, tunnel: Tunnel | None) -> None:
        """
        @param tls: the options of TLS.
        @param tunnel: continues streams to the target; C{None} for the target.
        """
        self._counts = counts
        self._tls = tls
        self._tunnel = tunnel
        self._header = b""
        self._got = 0
        self._hash = sha256()
        self._size = -1
        self._start = 0
        self._kind = Kind.PLAIN
        self._ending: Any = None

    def connectionMade(self) -> None:
        self._counts.open += 1

    def dataReceived(self, data: bytes) -> None:
        if self._size < 0:
            self._header += data
            if len(self._header) < HEADER.size:
                return
            kind, self._start, self._size = HEADER.unpack_from(self._header)
            self._kind = Kind(kind)
            data = self._header[HEADER.size :]
            if self._kind is Kind.TARGET_CUT and self._tunnel is not None:
                self._continue(self._tunnel)
                return
            if self._kind in WITH_TLS:
                self.transport.write(READY)
                self.transport.startTLS(self._tls)
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
            if self._kind is Kind.TLS_CUT:
                # This closes the half of the stream, without the end of TLS.
                self.transport.loseWriteConnection()
            elif self._kind is Kind.TARGET_CUT:
                # This closes the half of the TCP connection.  Twisted's TLS sends small
                # writes in the next turn.
                self._ending = clock.callLater(0.1, self._cut)
            else:
                self.transport.loseConnection()

    def _cut(self) -> None:
        self._ending = None
        tls = self.transport
        tls.transport.protocol = Spent(tls)
        tls.loseWriteConnection()

    def _continue(self, tunnel: Tunnel) -> None:
        """
        Leave the stream to a tunnel.
        """
        self._counts.open -= 1
        end = tunnel.buildProtocol(self.transport.getPeer())
        assert end is not None
        self.transport.protocol = end
        end.makeConnection(self.transport)
        end.dataReceived(self._header)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._counts.open -= 1
        if self._ending is not None:
            self._ending.cancel()
        if self._got == self._size:
            self._counts.ended(self._kind)
        else:
            self._counts.cut += 1


class Spent(Protocol):
    """
    The protocol of a TCP connection whose TLS was cut.  It ignores what still comes:
    Twisted's TLS logs a traceback if it has to answer a close_notify over a connection
    whose writing half is closed.
    """

    def __init__(self, tls: Any) -> None:
        """
        @param tls: the TLS that was cut.
        """
        self._tls = tls

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._tls.connectionLost(reason)


class Client(Protocol):
    """
    The client's end of a stream.

    @ivar over: fires when the stream has ended.
    @ivar progress: when the last bytes arrived; at first, when this was made.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._counts = load.counts
        [self._kind] = random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        self._started = self._kind not in WITH_TLS
        self._start = random.randrange(BLOCK_SIZE)
        self._size = random.randrange(1, SIZE)
        self._pause = PAUSE
        if self._kind is Kind.TARGET_CUT:
            self._size += SIZE
            self._pause /= 10
        self._sent = 0
        self._got = 0
        self._hash = sha256()
        self._digest = b""
        self._wrong = False
        self.progress = time.monotonic()
        self._call: Any = None
        self._reading: Any = None
        self.over: Deferred[None] = Deferred()

    def describe(self) -> str:
        """
        @return: what the stream has done so far, for a report.
        """
        if self.transport is None:
            return f"{self._kind.name}, not open"
        return (
            f"{self._kind.name} on {self.transport.getHost()}: {self._sent} of"
            f" {self._size} bytes sent, {self._got} received,"
            f" {len(self._digest)} of the hash"
        )

    def connectionMade(self) -> None:
        self._counts.open += 1
        self._mux = self.transport.getHost().carrier
        self.transport.write(HEADER.pack(self._kind, self._start, self._size))
        if self._started:
            self._send()

    def _send(self) -> None:
        self._call = None
        size = min(PIECE_SIZE, self._size - self._sent)
        piece = known(self._start, self._sent, size)
        self._hash.update(piece)
        self.transport.write(piece)
        self._sent += size
        if self._sent < self._size:
            self._call = clock.callLater(random.uniform(0, self._pause), self._send)

    def dataReceived(self, data: bytes) -> None:
        self.progress = time.monotonic()
        if not self._started:
            self._startTLS(data)
            return
        if self._kind is not Kind.PLAIN and self._reading is None:
            self.transport.pauseProducing()
            self._readLater()
        rest = self._size - self._got
        part, digest = data[:rest], data[rest:]
        if part != known(self._start + 7, self._got, len(part)):
            self._fail()
            return
        if not self._got and self._kind is Kind.PLAIN:
            self._load.alive(self._mux)
        self._got += len(part)
        self._counts.bytes += len(part)
        self._digest += digest
        if len(self._digest) > 32:
            self._fail()

    def _startTLS(self, data: bytes) -> None:
        self._started = True
        if data != READY:
            self._fail()
            return
        self.transport.startTLS(self._load.tls)
        self._send()

    def _readLater(self) -> None:
        self._reading = clock.callLater(random.uniform(0, PAUSE), self._read)

    def _read(self) -> None:
        if self._kind is Kind.TARGET_CUT and self._sent < self._size:
            self._readLater()
            return
        self._reading = None
        self.transport.resumeProducing()

    def _fail(self) -> None:
        self._wrong = True
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._counts.open -= 1
        for call in (self._call, self._reading):
            if call is not None:
                call.cancel()
        isComplete = self._digest == self._hash.digest() and self._sent == self._size
        looksComplete = bool(reason.check(PeerClosedStream, StreamClosed))
        isCut = self._kind in (Kind.TLS_CUT, Kind.TARGET_CUT)
        if self._wrong or self._digest[32:]:
            self._isWrong("had a wrong byte", reason)
        elif isComplete and isCut is not looksComplete:
            self._counts.ended(self._kind)
        elif looksComplete:
            self._isWrong("looked complete", reason)
        else:
            self._counts.cut += 1
            clock.callLater(SETTLED, self._mayBeCut, isComplete, reason)
        self.over.callback(None)

    def _mayBeCut(self, isComplete: bool, reason: Failure) -> None:
        """
        A stream may be cut short only if its mux has ended.
        """
        if self._load.lives(self._mux):
            self._counts.cut -= 1
            what = "looked cut short" if isComplete else "was cut short by no fault"
            self._isWrong(what, reason)

    def _isWrong(self, what: str, reason: Failure) -> None:
        self._counts.wrong += 1
        log.error(
            "a stream {what}: {kind}, {got} of {size} bytes and {digest} of the hash:"
            " {reason}",
            what=what,
            kind=self._kind.name,
            got=self._got,
            size=self._size,
            digest=len(self._digest),
            reason=reason,
        )


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

    def __init__(self, pool: MuxPool, counts: Counts, tls: Any) -> None:
        """
        @param tls: the options of TLS.
        """
        self.pool = pool
        self.tls = tls
        self.counts = counts
        self._stopping = False
        self._last: object = None
        self._clients: set[Client] = set()

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
            self._clients.add(client)
            try:
                await self.pool.openStream(_Once(client))
            except GomuxError:
                await deferLater(clock, 0.2)
            else:
                await client.over
            self._clients.remove(client)

    def alive(self, mux: object) -> None:
        """
        Report the first correct bytes over a mux.
        """
        if mux != self._last:
            self._last = mux
            self.counts.say(up=True)

    def say(self) -> None:
        """
        Print the counts, since when each stream has got bytes or was opened, and which
        stream waits longest.
        """
        oldest = min(self._clients, key=lambda client: client.progress, default=None)
        if oldest is None:
            self.counts.say(oldest=0.0)
        else:
            self.counts.say(oldest=oldest.progress, stream=oldest.describe())

    def lives(self, mux: object) -> bool:
        """
        @param mux: the mux's address at this end.
        @return: whether the mux is still up.
        """
        return not self._stopping and mux in [m.getHost() for m in self.pool.muxes]


@implementer(IStreamClientEndpoint)
class SteadyTLS:
    """
    TLS to the target.  C{wrapClientTLS} would send small writes late when the wall
    clock is set back, because it uses the reactor's clock.
    """

    def __init__(self, tls: Any, endpoint: TCP4ClientEndpoint) -> None:
        self._tls = tls
        self._endpoint = endpoint

    def connect(self, factory: Any) -> Deferred[Any]:
        return self._endpoint.connect(
            TLSMemoryBIOFactory(self._tls, True, factory, clock)
        )


def main(role: str, port: int, streams: int, strict: bool) -> None:
    """
    Run one of the ends until SIGTERM.
    """
    service = MultiService()
    counts = Counts()
    say: Callable[[], None] = counts.say
    settings: dict[str, Any] = {"clock": reactor, "limits": LIMITS, "strict": strict}
    psk = os.environ["GOMUX_PSK"]
    certificate = PrivateCertificate.loadPEM(os.environ["SOAK_PEM"])
    if role == "server":
        tls = certificate.options()
        end = Factory.forProtocol(lambda: Server(counts, tls, None))
        end.noisy = False
        wrapped = TLSMemoryBIOFactory(tls, False, end, clock)
        here = reactor.listenTCP(0, wrapped, interface="127.0.0.1").getHost()
        place = SteadyTLS(
            optionsForClientTLS(NAME, certificate),
            TCP4ClientEndpoint(reactor, "127.0.0.1", here.port),
        )
        tunnel = target("target", place, reactor, TunnelLimits())
        factory = Factory.forProtocol(lambda: Server(counts, tls, tunnel))
        factory.noisy = False
        server = MuxFactory(psk, False, factory, **settings)
        endpoint = TCP4ServerEndpoint(reactor, port, interface="127.0.0.1")
        service.addService(ListeningService("soak", endpoint, server))
    else:
        pool = MuxPool(reactor, 3600.0, streams + 1)
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        client = ServiceDialler(psk, carrier, 2.0, pool=pool, **settings)
        service.addService(Connector("soak", client))
        load = Load(pool, counts, optionsForClientTLS(NAME, certificate))
        say = load.say
        reactor.callWhenRunning(load.start, streams)
        reactor.addSystemEventTrigger("before", "shutdown", load.stop)
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    saying = LoopingCall(say)
    saying.clock = clock
    saying.start(OFTEN)
    reactor.run()


if __name__ == "__main__":
    startLogging(sys.stderr, setStdout=False)
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "strict")
