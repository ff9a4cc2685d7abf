"""
The limits of this machine: what blocking sockets and C{cryptography} reach alone.
C{python -m bench.sockets} runs the receiving end of L{pipeline}.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from bench import load
from bench.processes import python

FRAME = 65536
_HEADER, _TAG = 36, 16
_KEY, _NONCE, _FIELDS = bytes(32), bytes(12), bytes(_HEADER)


def limits(side: str, scale: float) -> dict[str, float]:
    """
    Measure all limits, in MB/s.
    """
    aead = ChaCha20Poly1305(_KEY)
    sealed = aead.encrypt(_NONCE, load.CHUNK, _FIELDS)
    frames = max(1, int(8192 * scale))
    with python("load") as server:
        move = load.sink(server.line("listening "), frames * FRAME, 1)
    return {
        "seal": _rate(frames, lambda: aead.encrypt(_NONCE, load.CHUNK, _FIELDS)),
        "open": _rate(frames, lambda: aead.decrypt(_NONCE, sealed, _FIELDS)),
        "move": move / 1e6,
        "pipeline": pipeline(frames * FRAME),
    }


def _rate(frames: int, run: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(frames):
        run()
    return frames * FRAME / (time.perf_counter() - started) / 1e6


def pipeline(size: int) -> float:
    """
    Seal frames and send them to a process that opens them.

    @return: the rate, in MB/s.
    """
    aead = ChaCha20Poly1305(_KEY)
    frame = bytearray(_HEADER + FRAME + _TAG)
    sealed = memoryview(frame)[_HEADER:]
    with python("sockets") as receiver:
        host, _, port = receiver.line("listening ").rpartition(":")
        started = time.perf_counter()
        with socket.create_connection((host, int(port))) as connection:
            for _ in range(size // FRAME):
                aead.encrypt_into(_NONCE, load.CHUNK, _FIELDS, sealed)
                connection.sendall(frame)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
        return size / (time.perf_counter() - started) / 1e6


def _receive() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print("listening {}:{}".format(*listener.getsockname()), flush=True)
    connection, _ = listener.accept()
    aead = ChaCha20Poly1305(_KEY)
    frame = bytearray(_HEADER + FRAME + _TAG)
    sealed, payload = memoryview(frame)[_HEADER:], bytearray(FRAME)
    while connection.recv_into(frame, 0, socket.MSG_WAITALL):
        aead.decrypt_into(_NONCE, sealed, _FIELDS, payload)


if __name__ == "__main__":
    _receive()
