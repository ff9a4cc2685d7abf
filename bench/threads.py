"""
Measure whether sealing in a thread is faster.  C{cryptography} releases Python's global
lock while it works.

    python -m bench.threads

Frames of 64 KiB are sealed and sent to a process that opens them.  One run does all of
it in one thread.  In the other a second thread seals, a few frames ahead.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from bench import load
from bench.limits import FRAME, pipeline
from bench.processes import python

FRAMES = 8192
ROUNDS = 5
#: How many sealed frames may wait between the two threads.
AHEAD = 8

HEADER = bytes(36)


def threaded(address: str, frames: int) -> float:
    """
    Do the same as L{pipeline}, in two threads.

    @return: the rate, in bytes a second.
    """
    aead = ChaCha20Poly1305(bytes(32))
    host, _, port = address.rpartition(":")
    ahead: deque[Future[bytes]] = deque()
    started = time.perf_counter()
    with (
        ThreadPoolExecutor(1) as pool,
        socket.create_connection((host, int(port))) as connection,
    ):
        for _ in range(frames):
            ahead.append(pool.submit(aead.encrypt, bytes(12), load.CHUNK, HEADER))
            if len(ahead) >= AHEAD:
                connection.sendmsg((HEADER, ahead.popleft().result()))
        while ahead:
            connection.sendmsg((HEADER, ahead.popleft().result()))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
    return frames * FRAME / (time.perf_counter() - started)


def main() -> None:
    rates: dict[str, list[float]] = {"one thread": [], "two threads": []}
    for _ in range(ROUNDS):
        for (name, found), run in zip(rates.items(), (pipeline, threaded), strict=True):
            with python("limits", "receive") as receiver:
                found.append(run(receiver.line("listening "), FRAMES) / 1e6)
            print(f"{name}: {found[-1]:.0f} MB/s", flush=True)
    one, two = map(statistics.median, rates.values())
    print(f"median: {one:.0f} and {two:.0f} MB/s, ratio {two / one:.2f}")


if __name__ == "__main__":
    main()
