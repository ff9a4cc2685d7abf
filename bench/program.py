"""
A program as a user of this project writes it: it uses the public endpoints, and its
protocols are plain push producers.

    python -m bench.program --psk PSK --listen HOST:PORT
    python -m bench.program --psk PSK --connect HOST:PORT --drive "source SIZE STREAMS"

It takes the options and speaks the line protocol of the peers in C{interop/}.  With
C{--plain} its streams are TCP connections, which shows what Twisted alone takes.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.portforward import ProxyFactory
from zope.interface import implementer

from gomux import MuxFactory
from gomux.test.support.certificates import CERTIFICATE
from interop.peers.peerlib import percentile

reactor: Any = _reactor

CHUNK = bytes(65536)
#: The size of a source that never ends.
ENDLESS = 1 << 50
#: A message of the driver C{tls}: how many writes it is, and how many bytes a write.
WRITES, SIZE = 20, 20


@implementer(IPushProducer)
class Pusher(Protocol):
    """
    Registers itself as a push producer, and writes until its transport pauses it.
    """

    transport: Any
    _left = 0
    _paused = False

    def push(self, size: int, data: bytes = CHUNK) -> None:
        """
        Write some data again and again.

        @param size: how many bytes to write in all.
        """
        self._left, self._data = size, data
        self.transport.registerProducer(self, True)
        if not self._paused:
            self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        write, data, size = self.transport.write, self._data, len(self._data)
        while self._left >= size and not self._paused:
            self._left -= size
            write(data)
        if not self._paused:
            write(data[: self._left])
            self._left = 0
            self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._paused = True


class Messages:
    """
    Counts messages of many small writes over TLS, and answers each with another.
    """

    def __init__(
        self, transport: Any, options: Any, came: Callable[[], object] = lambda: None
    ) -> None:
        self._transport = transport
        self._came = came
        self._rest = 0
        transport.startTLS(options)

    def dataReceived(self, data: bytes) -> None:
        messages, self._rest = divmod(self._rest + len(data), WRITES * SIZE)
        for _ in range(messages):
            self._came()
            self.send()

    def send(self) -> None:
        for _ in range(WRITES):
            self._transport.write(bytes(SIZE))


class Served(Pusher):
    """
    Serves one stream with the command in its first line.
    """

    _line = b""
    _missing = 0

    def dataReceived(self, data: bytes) -> None:
        line, end, rest = (self._line + data).partition(b"\n")
        if not end:
            self._line = line
            return
        command, _, size = line.decode().partition(" ")
        receive: Callable[[bytes], object] = self._drop
        if command == "echo":
            self.transport.registerProducer(self.transport, True)
            receive = self.transport.write
        elif command == "source":
            self.push(int(size or ENDLESS))
        elif command == "sink":
            self._missing = int(size or ENDLESS)
            receive = self._sink
        elif command == "tls":
            self.transport.write(b"ok\n")
            receive = Messages(self.transport, CERTIFICATE.options()).dataReceived
        else:
            self.transport.write(b"ok\n")
        self.dataReceived = receive  # type: ignore[assignment, method-assign]
        if rest:
            receive(rest)

    def _drop(self, data: bytes) -> None:
        """
        Do nothing with input.
        """

    def _sink(self, data: bytes) -> None:
        self._missing -= len(data)
        if self._missing <= 0:
            self.transport.write(b"ok\n")


class ServedFactory(Factory):
    """
    Makes a L{Served} for each stream; for C{twistd gomux --factory} too.
    """

    noisy = False
    protocol = Served


class Opener(Pusher):
    """
    A stream that sends a command.

    @ivar done: fires when the command is done.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        self.done: Deferred[Any] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self._command.encode() + b"\n")

    def dataReceived(self, data: bytes) -> None:
        self.done.callback(data)

    def finish(self, result: Any = None) -> None:
        self.transport.loseConnection()
        self.done.callback(result)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self

    def doStart(self) -> None: ...

    doStop = doStart


class SinkOpener(Opener):
    def __init__(self, size: int, write: int) -> None:
        super().__init__(f"sink {size}")
        self._size, self._write = size, write

    def connectionMade(self) -> None:
        super().connectionMade()
        self.push(self._size, CHUNK[: self._write])

    def dataReceived(self, data: bytes) -> None:
        self.finish()


class SourceOpener(Opener):
    def __init__(self, size: int) -> None:
        super().__init__(f"source {size}")
        self._missing = size

    def dataReceived(self, data: bytes) -> None:
        self._missing -= len(data)
        if not self._missing:
            self.finish()


class EchoOpener(Opener):
    def __init__(self, size: int, count: int) -> None:
        super().__init__("echo")
        self._message, self._count = bytes(size), count
        self._missing = 0
        self._times: list[float] = []

    def connectionMade(self) -> None:
        super().connectionMade()
        self._send()

    def _send(self) -> None:
        self._missing = len(self._message)
        self._started = time.monotonic()
        self.transport.write(self._message)

    def dataReceived(self, data: bytes) -> None:
        self._missing -= len(data)
        if self._missing:
            return
        self._times.append((time.monotonic() - self._started) * 1e6)
        if len(self._times) < self._count:
            self._send()
        else:
            self.finish({f"p{n}": percentile(self._times, n) for n in (50, 99)})


class TLSOpener(Opener):
    def __init__(self, depth: int, count: int) -> None:
        super().__init__("tls")
        self._depth, self._count = depth, count
        self._came = 0

    def dataReceived(self, data: bytes) -> None:
        # The server is ready.  The messages are not secret.
        messages = Messages(self.transport, CertificateOptions(), self._message)
        self.dataReceived = messages.dataReceived  # type: ignore[method-assign]
        for _ in range(self._depth):
            messages.send()

    def _message(self) -> None:
        self._came += 1
        if self._came == self._count // 10:
            self._started = time.monotonic()
        elif self._came == self._count + self._count // 10:
            self.finish({"rate": self._count / (time.monotonic() - self._started)})


async def drive(endpoint: Any, line: str) -> dict[str, Any]:
    """
    Run a driver.

    @return: its result.
    """
    name, *numbers = line.split()
    first, second, *more = (*map(int, numbers), 0)
    started = time.monotonic()
    openers: list[Opener]
    if name == "sink":
        openers = [SinkOpener(first // second, *more[:1]) for _ in range(second)]
    elif name == "source":
        openers = [SourceOpener(first // second) for _ in range(second)]
    else:
        openers = [{"echo": EchoOpener, "tls": TLSOpener}[name](first, second)]
    for opener in openers:
        endpoint.connect(opener)
    results = await gatherResults([opener.done for opener in openers])
    seconds = time.monotonic() - started
    rate = first / seconds
    result = {"bytes": first, "seconds": seconds, "rate": rate, **(results[0] or {})}
    return {"driver": line, "ok": True, **result}


async def driveAll(endpoint: Any, drivers: list[str]) -> None:
    idle = Opener("idle")
    await endpoint.connect(idle)
    await idle.done
    print("mux up", flush=True)
    for line in drivers:
        print(json.dumps(await drive(endpoint, line)), flush=True)


async def openMuxes(address: str, psk: str, muxes: str, streams: str) -> None:
    """
    Connect many muxes to a server and open streams on each.  Print how many streams a
    second were opened, and the bytes of the server's memory for each mux.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    host, _, port = address.rpartition(":")
    endpoint = TCP4ClientEndpoint(reactor, host, int(port))
    factory = MuxFactory(psk, True, clock=reactor)

    async def ask(mux: Any, command: str) -> Any:
        opener = Opener(command)
        await mux.openStream(opener)
        return await opener.done

    one = await endpoint.connect(factory)
    before = int(await ask(one, "rss"))
    started = time.monotonic()
    for _ in range(int(muxes)):
        mux = await endpoint.connect(factory)
        for _ in range(int(streams)):
            await ask(mux, "idle")
    rate = int(muxes) * int(streams) / (time.monotonic() - started)
    after = int(await ask(one, "rss"))
    print(f"opened {rate} {(after - before) / int(muxes)}", flush=True)


async def shakeHands(address: str, psk: str, mode: str, count: str) -> None:
    """
    Connect muxes one after another, and abort each once the peer has shown the key.
    """
    host, _, port = address.rpartition(":")
    endpoint: Any = TCP4ClientEndpoint(reactor, host, int(port))
    factory = MuxFactory(psk, True, clock=reactor, strict=mode == "strict")
    for _ in range(int(count)):
        mux = await endpoint.connect(factory)
        await mux.whenAuthenticated()
        closed = mux.whenClosed()
        mux.abort()
        await closed
    print("done", flush=True)


def forward(target: str) -> None:
    """
    Run Twisted's own port forwarder.  It has neither a mux nor cryptography, so no
    tunnel that uses Twisted's transports can cost less.
    """
    host, _, port = target.rpartition(":")
    factory = ProxyFactory(host, int(port))
    factory.noisy = False
    listener = reactor.listenTCP(0, factory, backlog=1024, interface="127.0.0.1")
    print(f"forwarding 127.0.0.1:{listener.getHost().port}", flush=True)


def runUntilDone(running: Coroutine[Deferred[Any], Any, None]) -> None:
    """
    Stop the reactor after a coroutine.
    """
    done = Deferred.fromCoroutine(running)
    done.addErrback(lambda reason: reason.printTraceback(sys.stdout))
    done.addBoth(lambda _: reactor.callWhenRunning(reactor.stop))


CHILDREN: dict[str, Callable[..., Coroutine[Deferred[Any], Any, None]]] = {
    "muxes": openMuxes,
    "handshakes": shakeHands,
}


def main(arguments: list[str]) -> None:
    if arguments[0] == "forward":
        forward(arguments[1])
    elif arguments[0] in CHILDREN:
        runUntilDone(CHILDREN[arguments[0]](*arguments[1:]))
    else:
        parser = argparse.ArgumentParser(prog="python -m bench.program")
        parser.add_argument("--psk")
        parser.add_argument("--listen")
        parser.add_argument("--connect")
        parser.add_argument("--drive", action="append", default=[])
        parser.add_argument("--plain", action="store_true")
        options = parser.parse_args(arguments)
        host, _, port = (options.listen or options.connect).rpartition(":")
        before, after = ("", "") if options.plain else ("gomux:", f":psk={options.psk}")
        if options.listen:
            text = f"{before}tcp:{port}:interface={host}:backlog=1024{after}"
            listening = serverFromString(reactor, text).listen(ServedFactory())
            listening.addCallback(
                lambda it: print(f"listening {host}:{it.getHost().port}", flush=True)
            )
        else:
            endpoint = clientFromString(reactor, f"{before}tcp:{host}:{port}{after}")
            runUntilDone(driveAll(endpoint, options.drive))
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
