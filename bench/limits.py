"""
Measure this machine's own limits, as a comparison for the figures.

C{python -m bench.limits echo} runs an echo server in Twisted without a mux, and
C{python -m bench.limits receive} the receiving end of L{pipeline}.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from bench import load
from bench.processes import python

FRAME = 65536
_HEADER, _TAG = 36, 16
_KEY, _NONCE, _FIELDS = bytes(32), bytes(12), bytes(_HEADER)

#: The limits that are measured, each with its title and unit.
TITLES = {
    "seal": ("sealing 64 KiB (cryptography)", "MB/s"),
    "open": ("opening 64 KiB (cryptography)", "MB/s"),
    "move": ("moving 64 KiB over loopback TCP (blocking sockets)", "MB/s"),
    "pipeline": ("seal, send - receive, open (blocking sockets)", "MB/s"),
    "echo p50": ("echo of 64 bytes, Twisted without a mux, p50", "us"),
    "echo p99": ("echo of 64 bytes, Twisted without a mux, p99", "us"),
}


def measure(scale: float) -> dict[str, float]:
    """
    Measure all limits.

    @param scale: the fraction of the usual work to do.
    """
    aead = ChaCha20Poly1305(_KEY)
    sealed = aead.encrypt(_NONCE, bytes(FRAME), _FIELDS)
    frames = int(8192 * scale)
    total = frames * FRAME
    result = {
        "seal": _rate(frames, lambda: aead.encrypt(_NONCE, load.CHUNK, _FIELDS)),
        "open": _rate(frames, lambda: aead.decrypt(_NONCE, sealed, _FIELDS)),
    }
    with python("load") as server:
        result["move"] = load.sink(server.line("listening "), total, 1) / 1e6
    with python("limits", "receive") as receiver:
        result["pipeline"] = pipeline(receiver.line("listening "), frames) / 1e6
    with (
        python("limits", "echo") as server,
        python(
            "limits", "ping", server.line("listening "), str(int(20000 * scale))
        ) as client,
    ):
        p50, _, p99 = client.line("round trips ").partition(" ")
        result["echo p50"], result["echo p99"] = float(p50), float(p99)
    return result


def _rate(frames: int, run: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(frames):
        run()
    return frames * FRAME / (time.perf_counter() - started) / 1e6


def pipeline(address: str, frames: int) -> float:
    """
    Seal frames and send them to a process that opens them.

    @return: the rate, in bytes a second.
    """
    aead = ChaCha20Poly1305(_KEY)
    frame = bytearray(_HEADER + FRAME + _TAG)
    sealed = memoryview(frame)[_HEADER:]
    host, _, port = address.rpartition(":")
    started = time.perf_counter()
    with socket.create_connection((host, int(port))) as connection:
        for _ in range(frames):
            aead.encrypt_into(_NONCE, load.CHUNK, _FIELDS, sealed)
            connection.sendall(frame)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
    return frames * FRAME / (time.perf_counter() - started)


def _receive() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print("listening {}:{}".format(*listener.getsockname()), flush=True)
    connection, _ = listener.accept()
    aead = ChaCha20Poly1305(_KEY)
    frame = bytearray(_HEADER + FRAME + _TAG)
    sealed, payload = memoryview(frame)[_HEADER:], bytearray(FRAME)
    while connection.recv_into(frame, 0, socket.MSG_WAITALL):
        aead.decrypt_into(_NONCE, sealed, _FIELDS, payload)


def _echo() -> None:
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory
    from twisted.protocols.wire import Echo

    port = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
    print(f"listening 127.0.0.1:{port.getHost().port}", flush=True)
    reactor.run()


def _ping(address: str, count: int) -> None:
    from twisted.internet import reactor
    from twisted.internet.endpoints import HostnameEndpoint
    from twisted.internet.protocol import Factory, Protocol

    from interop.peers.peerlib import percentile

    times: list[float] = []

    class Ping(Protocol):
        def connectionMade(self) -> None:
            self.transport.setTcpNoDelay(True)
            self._send()

        def _send(self) -> None:
            self._started = time.monotonic()
            self.transport.write(bytes(64))

        def dataReceived(self, data: bytes) -> None:
            times.append((time.monotonic() - self._started) * 1e6)
            if len(times) < count:
                self._send()
            else:
                reactor.stop()

    host, _, port = address.rpartition(":")
    HostnameEndpoint(reactor, host, int(port)).connect(Factory.forProtocol(Ping))
    reactor.run()
    print(f"round trips {percentile(times, 50)} {percentile(times, 99)}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "ping":
        _ping(sys.argv[2], int(sys.argv[3]))
    else:
        {"receive": _receive, "echo": _echo}[sys.argv[1]]()
