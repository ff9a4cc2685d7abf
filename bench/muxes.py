"""
Open many muxes from one process::

    python -m bench.muxes HOST:PORT PSK MUXES STREAMS

It connects MUXES muxes to a server of the line protocol, and opens STREAMS streams on
each.  It prints how many streams a second it opened, and how many bytes of the server's
memory each mux takes.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Coroutine
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol

from gomux import MuxFactory, MuxProtocol


class Line(Protocol):
    """
    A stream that sends a command and stays open.

    @ivar answer: fires with the first line of the answer.
    """

    def __init__(self, command: bytes) -> None:
        self._command = command
        self.answer: Deferred[str] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self._command + b"\n")

    def dataReceived(self, data: bytes) -> None:
        self.answer.callback(data.decode())

    def buildProtocol(self, addr: IAddress) -> Protocol:
        return self


async def ask(mux: MuxProtocol, command: bytes) -> str:
    """
    Open a stream for a command, and wait for the answer.
    """
    line = Line(command)
    await mux.openStream(line)
    return await line.answer


async def run(address: str, psk: str, muxes: int, streams: int) -> None:
    host, _, port = address.rpartition(":")
    endpoint = TCP4ClientEndpoint(reactor, host, int(port))
    factory = MuxFactory(psk, True, clock=reactor)
    first = await endpoint.connect(factory)
    before = int(await ask(first, b"rss"))
    started = time.monotonic()
    for _ in range(muxes):
        mux = await endpoint.connect(factory)
        for _ in range(streams):
            await ask(mux, b"idle")
    rate = muxes * streams / (time.monotonic() - started)
    after = int(await ask(first, b"rss"))
    print(f"opened {rate} {(after - before) / muxes}", flush=True)


def main(address: str, psk: str, muxes: str, streams: str) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    running: Coroutine[Deferred[Any], Any, None]
    running = run(address, psk, int(muxes), int(streams))
    done = Deferred.fromCoroutine(running)
    done.addErrback(lambda reason: reason.printTraceback(sys.stdout))
    done.addBoth(lambda _: reactor.stop())
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
