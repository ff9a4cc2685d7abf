"""
Compare small writes over TLS in a stream with the same over TCP.

    python -m bench.starttls

Two processes exchange messages of twenty writes: one at a time, as AMP and foolscap
do, and fifty at a time.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions

from bench.processes import python
from gomux import MuxClientEndpoint, MuxServerEndpoint
from gomux.test.support.certificates import CERTIFICATE

PSK = "a pre-shared key for a benchmark alone"
ROUNDS = 4
#: How many writes a message is, and how many bytes a write.
WRITES, SIZE = 20, 20
#: How many messages are under way, and how many are counted.
DEPTHS = {1: 5000, 50: 50000}
KINDS = ("TCP", "mux")


class Exchange(Protocol):
    """
    One of the two sides: answers each message with another.

    @ivar messages: how many have come.
    """

    transport: Any
    options: Any

    def __init__(self) -> None:
        self.messages = 0
        self._rest = 0

    def connectionMade(self) -> None:
        self.transport.startTLS(self.options)

    def dataReceived(self, data: bytes) -> None:
        messages, self._rest = divmod(self._rest + len(data), WRITES * SIZE)
        for _ in range(messages):
            self.messages += 1
            self.send()

    def send(self) -> None:
        for _ in range(WRITES):
            self.transport.write(bytes(SIZE))


class Server(Exchange):
    """
    The side that answers.
    """

    options = CERTIFICATE.options()


class Client(Exchange):
    """
    The side that begins, and counts.
    """

    # The messages are not secret.
    options = CertificateOptions()

    def __init__(self, depth: int) -> None:
        super().__init__()
        self._depth = depth
        self._warm = DEPTHS[depth] // 10

    def connectionMade(self) -> None:
        super().connectionMade()
        for _ in range(self._depth):
            super().send()

    def send(self) -> None:
        super().send()
        if self.messages == self._warm:
            self._started = time.perf_counter()
        elif self.messages == self._warm + DEPTHS[self._depth]:
            taken = time.perf_counter() - self._started
            print("rate", DEPTHS[self._depth] / taken, flush=True)
            reactor.stop()  # type: ignore[attr-defined]


def serve(kind: str) -> None:
    endpoint: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    if kind == "mux":
        endpoint = MuxServerEndpoint(reactor, endpoint, PSK)
    listening = endpoint.listen(Factory.forProtocol(Server))
    listening.addCallback(lambda port: print("port", port.getHost().port, flush=True))


def connect(kind: str, port: str, depth: str) -> None:
    endpoint: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", int(port))
    if kind == "mux":
        endpoint = MuxClientEndpoint(reactor, endpoint, PSK)
    endpoint.connect(Factory.forProtocol(lambda: Client(int(depth))))


def rate(kind: str, depth: int) -> float:
    """
    @return: how many messages a second go each way.
    """
    with python("starttls", "serve", kind) as server:
        port = server.line("port ")
        with python("starttls", "connect", kind, port, str(depth)) as client:
            return float(client.line("rate "))


def main() -> None:
    for depth in DEPTHS:
        rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(ROUNDS):
            for kind in KINDS:
                rates[kind].append(rate(kind, depth))
        tcp, mux = (statistics.median(rates[kind]) for kind in KINDS)
        print(f"{depth} at a time: {tcp:.0f} messages/s over TCP, {mux:.0f} in a")
        print(f"stream: {mux / tcp:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        {"serve": serve, "connect": connect}[sys.argv[1]](*sys.argv[2:])
        reactor.run()  # type: ignore[attr-defined]
    else:
        main()
