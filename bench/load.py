"""
The programs at the two ends of a tunnel: a TCP server that speaks the line protocol,
which C{python -m bench.load} runs, and its clients.  Both use blocking sockets in
threads, because these add the least overhead.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import cast

from interop.peers.peerlib import percentile

CHUNK = bytes(65536)
#: How many clients there are where there are many at once.
CONNECTIONS = 50


def _connect(address: str, command: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=120)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(command.encode() + b"\n")
    return connection


def _receive(connection: socket.socket, size: int) -> None:
    buffer = bytearray(1 << 18)
    while size:
        got = connection.recv_into(buffer, min(size, len(buffer)))
        if not got:
            raise ConnectionError(f"it ended {size} bytes early")
        size -= got


def _send(connection: socket.socket, size: int) -> None:
    while size:
        piece = CHUNK[:size]
        connection.sendall(piece)
        size -= len(piece)


def _each(connections: int, run: Callable[[], object]) -> float:
    """
    Run a function in a number of threads.

    @return: the time until all have finished, in seconds.
    """
    errors: list[OSError] = []

    def guarded() -> None:
        try:
            run()
        except OSError as e:
            errors.append(e)

    started = time.monotonic()
    threads = [threading.Thread(target=guarded) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return time.monotonic() - started


def sink(address: str, total: int, connections: int) -> float:
    """
    Send data, distributed evenly over some connections.

    @return: the rate, in bytes a second.
    """
    share = total // connections

    def run() -> None:
        with _connect(address, f"sink {share}") as connection:
            _send(connection, share)
            _receive(connection, len(b"ok\n"))

    return share * connections / _each(connections, run)


def source(address: str, total: int, connections: int) -> float:
    """
    Receive data, distributed evenly over some connections.

    @return: the rate, in bytes a second.
    """
    share = total // connections

    def run() -> None:
        with _connect(address, f"source {share}") as connection:
            _receive(connection, share)

    return share * connections / _each(connections, run)


def echo(address: str, size: int, count: int) -> tuple[float, float]:
    """
    Send a message, and again each time that it is back.

    @return: the median and the 99th percentile of the round trips, in
        microseconds.
    """
    message, times = CHUNK[:size], []
    with _connect(address, "echo") as connection:
        for _ in range(count):
            started = time.monotonic()
            connection.sendall(message)
            _receive(connection, size)
            times.append((time.monotonic() - started) * 1e6)
    return percentile(times, 50), percentile(times, 99)


def connects(address: str, count: int) -> float:
    """
    Connect, get an answer and close, a number of times.

    @return: how many connections a second.
    """
    started = time.monotonic()
    for _ in range(count):
        with _connect(address, "idle") as connection:
            _receive(connection, len(b"ok\n"))
    return count / (time.monotonic() - started)


def connectsAtOnce(address: str, count: int) -> float:
    """
    As L{connects}, with C{CONNECTIONS} clients at once.
    """
    share = count // CONNECTIONS
    took = _each(CONNECTIONS, lambda: connects(address, share))
    return share * CONNECTIONS / took


def requests(address: str, count: int) -> float:
    """
    Send a message of 64 bytes on each of C{CONNECTIONS} connections, and again each
    time that it is back.

    @return: how many messages a second came back.
    """
    message = CHUNK[:64]
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        opened = []
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(_connect(address, "echo"))
            selector.register(connection, selectors.EVENT_READ)
            opened.append(connection)
        started = time.monotonic()
        for connection in opened:
            connection.sendall(message)
        left = count
        while left > 0:
            for key, _ in selector.select(60):
                ready = cast(socket.socket, key.fileobj)
                _receive(ready, len(message))
                ready.sendall(message)
                left -= 1
        took = time.monotonic() - started
        for connection in opened:
            _receive(connection, len(message))
    return (count - left) / took


def _serve(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, connection.makefile("rb", buffering=0) as lines:
        command, _, argument = lines.readline().decode().strip().partition(" ")
        try:
            if command == "source":
                _send(connection, int(argument))
            elif command == "echo":
                while data := connection.recv(65536):
                    connection.sendall(data)
            else:
                if command == "sink":
                    _receive(connection, int(argument))
                connection.sendall(b"ok\n")
            connection.recv(1)
        except OSError:
            pass  # the client has all it wanted


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    host, port = listener.getsockname()
    print(f"listening {host}:{port}", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
