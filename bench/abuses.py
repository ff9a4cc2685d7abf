"""
Clients that abuse a server, each in one way, as fast as possible, until they are
stopped.

    python -m bench.abuses NAME HOST:PORT PSK
    python -m bench.abuses strangers HOST:PORT SOURCES

All frames but the first of each connection are sealed once and sent repeatedly, which a
server in compatible mode cannot detect.  So the abuser needs little CPU time.  It also
runs at the lowest priority.
"""

from __future__ import annotations

import os
import random
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gomux import Limits
from gomux._wire.crypto import Sealer, deriveKey
from gomux._wire.frame import Flag

LIMITS = Limits()

#: How many frames are sealed for the block that is sent repeatedly.
FRAMES = 4096
#: How many connections are open at the same time, for abuses that send little on each.
CONNECTIONS = 64
#: From how many addresses strangers connect.
SOURCES = 200
#: How many connections a second strangers make.
STRANGERS = 1000
#: Seconds after which a server that does not read counts as stopped.
PATIENCE = 0.2

UNKNOWN_FLAG = 77

_LINGER = struct.pack("ii", 1, 0)


class Frames:
    """
    Makes frames with random nonces.  The Go reference does so too, and random nonces
    cost the receiver the most.
    """

    def __init__(self, psk: str) -> None:
        self._key = deriveKey(psk)

    def one(
        self, flag: int, streamID: int = 0, payload: bytes = b"", length: int = 0
    ) -> bytes:
        """
        Seal one frame.

        @param length: the length in the header, for frames without a payload.
        """
        sealer = Sealer(self._key)
        size = len(payload) or length
        return b"".join(sealer.seal(streamID, size, flag, payload))

    def open(self, streamID: int, command: str) -> bytes:
        """
        Make the frames that open a stream and send a command on it.
        """
        line = command.encode() + b"\n"
        return self.one(Flag.OPEN_STREAM, streamID) + self.one(
            Flag.DATA, streamID, line
        )

    def many(self, make: Callable[[int], bytes], count: int = FRAMES) -> bytes:
        """
        Make many frames of one kind.

        @param make: makes a frame from its number.
        """
        return b"".join(map(make, range(count)))


class Told:
    """
    Counts connections and bytes, so that a measurement can check that the abuse took
    place.
    """

    connections = 0
    sent = 0


told = Told()


class Address:
    """
    The server to abuse.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.where = (host, int(port))

    def connect(self) -> socket.socket:
        """
        Connect.  The socket resets its connection when it is closed, so that no port
        stays in TIME_WAIT.
        """
        connection = socket.create_connection(self.where)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        told.connections += 1
        return connection


def _discard(connection: socket.socket) -> None:
    buffer = bytearray(1 << 20)
    try:
        while connection.recv_into(buffer):
            pass
    except OSError:
        pass  # the sender sees the same error


def flood(frames: Frames, first: bytes, again: bytes) -> Callable[[Address], None]:
    """
    Make an abuse that reads all answers, and reconnects when the server drops it.

    @param frames: seals the first frame of each connection, which must be new.
    @param first: the data to send first on each connection.
    @param again: the data to send after that, again and again.
    """

    def run(address: Address) -> None:
        while True:
            with address.connect() as connection:
                reader = threading.Thread(target=_discard, args=(connection,))
                reader.start()
                try:
                    connection.sendall(frames.one(Flag.KEEPALIVE) + first)
                    told.sent += len(first)
                    while again:
                        connection.sendall(again)
                        told.sent += len(again)
                except OSError:
                    pass
                reader.join()

    return run


def unread(frames: Frames, data: bytes) -> Callable[[Address], None]:
    """
    Make an abuse that sends data once on each connection and reads nothing.  The first
    frame of each connection is new.  It
    reconnects after C{PATIENCE} seconds, or earlier if the server drops it or stops
    reading.
    """

    def run(address: Address) -> None:
        while True:
            with address.connect() as connection:
                connection.settimeout(PATIENCE)
                try:
                    connection.sendall(frames.one(Flag.KEEPALIVE) + data)
                    told.sent += len(data)
                    time.sleep(PATIENCE)
                except OSError:
                    pass

    return run


def source(number: int, sources: int) -> tuple[str, int]:
    """
    @param number: the number of a connection.
    @param sources: from how many addresses of this machine to connect, in turn.
    @return: the address to bind the connection's socket to.
    """
    return f"127.0.1.{1 + number % sources}", 0


def connections(
    messages: Iterable[bytes], count: int = CONNECTIONS, sources: int = 1
) -> Callable[[Address], None]:
    """
    Make an abuse that keeps a number of connections open.  It sends some bytes once on
    each, and replaces a connection when the server closes it.

    @param sources: from how many addresses of this machine to connect, in turn.
    """
    said = list(messages)

    def run(address: Address) -> None:
        selector = selectors.DefaultSelector()

        def connect() -> None:
            connection = socket.socket()
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
            if sources > 1:
                connection.bind(source(told.connections, sources))
            connection.connect_ex(address.where)
            told.connections += 1
            selector.register(connection, selectors.EVENT_WRITE)

        def close(connection: socket.socket) -> None:
            selector.unregister(connection)
            connection.close()
            connect()

        for _ in range(count):
            connect()
        while True:
            for key, events in selector.select():
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                try:
                    if events & selectors.EVENT_WRITE:
                        told.sent += connection.send(random.choice(said))
                        selector.modify(connection, selectors.EVENT_READ)
                    elif not connection.recv(65536):
                        close(connection)
                except OSError:
                    close(connection)

    return run


Make = Callable[[Frames], Callable[[Address], None]]


@dataclass(frozen=True)
class Abuse:
    """
    One way to abuse a server.

    @ivar name: its name on the command line.
    @ivar rows: the rows of the fault table that it belongs to.
    @ivar title: its title in tables.
    @ivar make: makes the function that abuses a server.
    @ivar keys: how many keys the server has.
    """

    name: str
    rows: str
    title: str
    make: Make
    keys: int = 1


def _unread(frames: Frames) -> Callable[[Address], None]:
    chunk = bytes(65536)
    parts = [
        frames.open(streamID, "echo") + frames.one(Flag.DATA, streamID, chunk)
        for streamID in range(0, 64, 2)
    ]
    return unread(frames, b"".join(parts))


def _opens(count: int, start: int = 0) -> Callable[[Frames], bytes]:
    def make(frames: Frames) -> bytes:
        return frames.many(lambda i: frames.one(Flag.OPEN_STREAM, start + 2 * i), count)

    return make


def _openStreams(frames: Frames) -> Callable[[Address], None]:
    past = 2 * LIMITS.maxStreams
    return flood(
        frames, _opens(LIMITS.maxStreams)(frames), _opens(FRAMES, past)(frames)
    )


def _openAndGo(frames: Frames) -> Callable[[Address], None]:
    # An OpenStream with an ID of the server's own parity ends the mux.
    return flood(
        frames, _opens(LIMITS.maxStreams)(frames) + frames.one(Flag.OPEN_STREAM, 1), b""
    )


def _reset(frames: Frames) -> Callable[[Address], None]:
    return flood(
        frames,
        b"",
        frames.many(
            lambda i: (
                frames.one(Flag.OPEN_STREAM, 2 * i)
                + frames.one(Flag.CLOSE_STREAM, 2 * i)
            )
        ),
    )


def _churn(frames: Frames) -> Callable[[Address], None]:
    return flood(
        frames,
        b"",
        frames.many(
            lambda i: (
                frames.open(2 * i, "echo")
                + frames.one(Flag.DATA, 2 * i, b"x")
                + frames.one(Flag.CLOSE_STREAM, 2 * i)
            )
        ),
    )


def _repeated(
    flag: int, command: str = "", payload: bytes = b"", length: int = 0
) -> Make:
    """
    Make a flood of one frame, on a stream with a command if one is given.
    """

    def make(frames: Frames) -> Callable[[Address], None]:
        return flood(
            frames,
            frames.open(0, command) if command else b"",
            frames.many(lambda _: frames.one(flag, 0, payload, length)),
        )

    return make


def _late(frames: Frames) -> Callable[[Address], None]:
    return flood(
        frames,
        frames.open(0, "echo") + frames.one(Flag.CLOSE_STREAM, 0),
        frames.many(lambda _: frames.one(Flag.DATA, 0, b"x")),
    )


def _bulk(frames: Frames) -> Callable[[Address], None]:
    chunk = bytes(65536)
    return flood(
        frames,
        frames.open(0, "sink"),
        frames.many(lambda _: frames.one(Flag.DATA, 0, chunk), 16),
    )


def _sources(frames: Frames) -> Callable[[Address], None]:
    # Each stream gets 64 KiB of credit whenever the streams have sent 64 KiB on
    # average.
    count, credit = 16, 65536
    numbers = range(0, 2 * count, 2)

    def run(address: Address) -> None:
        first = b"".join(frames.open(n, "source") for n in numbers)
        more = b"".join(
            frames.one(Flag.WINDOW_UPDATE, n, length=credit) for n in numbers
        )
        buffer = bytearray(1 << 20)
        while True:
            with address.connect() as connection:
                got = 0
                try:
                    connection.sendall(frames.one(Flag.KEEPALIVE) + first)
                    while size := connection.recv_into(buffer):
                        got += size
                        while got >= count * credit:
                            got -= count * credit
                            connection.sendall(more)
                            told.sent += len(more)
                except OSError:
                    pass

    return run


def _wrongKey(frames: Frames) -> Callable[[Address], None]:
    return connections([Frames("another secret").one(Flag.KEEPALIVE)])


def _garbage(frames: Frames) -> Callable[[Address], None]:
    hello = bytes.fromhex("16030100c8010000c40303") + os.urandom(194)
    http = b"GET / HTTP/1.1\r\nHost: example.org\r\nUser-Agent: abuser/1.0\r\n\r\n"
    return connections([os.urandom(4096), http, hello])


def _manyAddresses(frames: Frames) -> Callable[[Address], None]:
    return connections([b"\0"], LIMITS.maxUnauthenticated + CONNECTIONS, SOURCES)


def _manyKeys(frames: Frames) -> Callable[[Address], None]:
    header = struct.pack("<III", 0, 0, Flag.OPEN_STREAM)
    return connections([header + os.urandom(40)], sources=SOURCES)


def _replayed(frames: Frames) -> Callable[[Address], None]:
    return connections([frames.one(Flag.KEEPALIVE)], sources=SOURCES)


def _hugeLength(frames: Frames) -> Callable[[Address], None]:
    header = struct.pack("<III", 0, 0xFFFFFFFF, Flag.DATA) + os.urandom(24)
    return connections([header])


def _silent(frames: Frames) -> Callable[[Address], None]:
    return connections([b"\0"], LIMITS.maxUnauthenticated + CONNECTIONS)


ALL = (
    Abuse("unread", "1, 2, 13", "sends, and never reads", _unread),
    Abuse("opens", "6", "OpenStream", _openStreams),
    Abuse("open-and-go", "6, 23", "all streams opened, then an error", _openAndGo),
    Abuse("resets", "7", "streams opened and closed", _reset),
    Abuse("churn", "7", "streams opened, used and closed", _churn),
    Abuse("empty", "9", "empty Data", _repeated(Flag.DATA, "sink")),
    Abuse("bytes", "10", "1-byte Data", _repeated(Flag.DATA, "sink", b"x")),
    Abuse("keepalives", "11", "Keepalive", _repeated(Flag.KEEPALIVE)),
    Abuse("unknown", "11, 21", "unknown flags", _repeated(UNKNOWN_FLAG)),
    Abuse(
        "credit",
        "12",
        "1-byte WindowUpdate while we send",
        _repeated(Flag.WINDOW_UPDATE, "source", length=1),
    ),
    Abuse("wrong-key", "14", "wrong key", _wrongKey),
    Abuse("garbage", "16", "garbage, HTTP, TLS", _garbage),
    Abuse("huge", "19", "huge length", _hugeLength),
    Abuse("late", "26", "Data after CloseStream", _late),
    Abuse("silent", "35", "silent connections", _silent),
    Abuse("addresses", "62", "connections from 200 addresses", _manyAddresses),
    Abuse("keys", "63", "garbage for 256 keys", _manyKeys, 256),
    Abuse("replay", "75", "a recorded first frame", _replayed),
    Abuse("sink", "", "bulk to the server", _bulk),
    Abuse("sources", "", "bulk from the server, 16 streams", _sources),
)


def strangers(address: str, sources: str) -> None:
    """
    Connect C{STRANGERS} times a second, and say nothing.

    @param sources: from how many addresses of this machine to connect, in turn.
    """
    where = Address(address).where
    waiting: deque[socket.socket] = deque()
    made = 0
    print("ready", flush=True)
    started = time.monotonic()
    while True:
        while made < (time.monotonic() - started) * STRANGERS:
            stranger = socket.socket()
            stranger.setblocking(False)
            stranger.bind(source(made, int(sources)))
            stranger.connect_ex(where)
            waiting.append(stranger)
            made += 1
        while len(waiting) > SOURCES:
            waiting.popleft().close()
        # A pause between bursts, so that the strangers take little CPU time.
        time.sleep(0.002)


def _end(number: int, frame: object) -> None:
    print(f"did {told.connections} {told.sent}", flush=True)
    os._exit(0)


def main(name: str, address: str, psk: str) -> None:
    (abuse,) = (abuse for abuse in ALL if abuse.name == name)
    run = abuse.make(Frames(psk))
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    signal.signal(signal.SIGTERM, _end)
    print("ready", flush=True)
    run(Address(address))


if __name__ == "__main__":
    if sys.argv[1] == "strangers":
        strangers(*sys.argv[2:])
    main(*sys.argv[1:])
