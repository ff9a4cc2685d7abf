"""
Compare the handshake of strict mode with those of TLS 1.3 and SSH.

    python -m bench.handshakes

The servers are C{twistd gomux} in compatible and in strict mode, C{openssl s_server}
with a pre-shared key and C{sshd}.  Clients connect to each in turn, one after another,
and leave after the handshake.  Two things are measured:

  - the CPU time that the server uses for a connection, with everything that belongs to
    it: accepting it, its process or its mux, and its end.
  - the round trips until the client may send.  A relay counts how often the client
    sends something after an answer of the server.  TCP itself needs one more.

SSH has no pre-shared keys: the client shows none, and leaves when the server refuses
it.  C{sshd} starts a process for each connection.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from twisted.internet import reactor, task
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint

from bench import table
from bench.processes import BenchError, Process
from bench.table import number
from gomux import MuxFactory

#: How many rounds, and connections to each server in a round.
ROUNDS, CONNECTIONS = 5, 40
PSK = "a pre-shared key for a benchmark alone"
TLS_PSK = "00112233445566778899aabbccddeeff" * 2
TLS_CIPHER = "TLS_CHACHA20_POLY1305_SHA256"

_TICK = os.sysconf("SC_CLK_TCK")


def freePort() -> int:
    """
    @return: a port that nobody listens on.
    """
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def awaitPort(port: int) -> None:
    """
    Wait until something listens on a port.
    """
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            threading.Event().wait(0.05)
        else:
            return
    raise BenchError(f"nothing listens on port {port}")


class Relay:
    """
    Passes on one connection, and counts its round trips.

    @ivar port: where it listens.
    @ivar trips: how often the client has sent something after an answer.
    """

    def __init__(self, port: int) -> None:
        self.trips = 0
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._last: socket.socket | None = None
        self._answered = False
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._server))
        threading.Thread(target=self._pass, args=(client, server), daemon=True).start()
        self._pass(server, client, True)

    def _pass(
        self, source: socket.socket, to: socket.socket, isAnswer: bool = False
    ) -> None:
        try:
            while data := source.recv(65536):
                if self._last is not source:
                    self._last = source
                    self.trips += self._answered and not isAnswer
                    self._answered |= isAnswer
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other thread sees it too

    def close(self) -> None:
        self._listener.close()


class Server:
    """
    One of the servers.

    @ivar title: its name in the table.
    @ivar port: where it listens.
    @ivar _process: the process.
    @ivar _connect: makes the handshake with what listens on a port.
    """

    def __init__(
        self,
        title: str,
        port: int,
        process: Process,
        connect: Callable[[int], Deferred[None]],
    ) -> None:
        self.title = title
        self.port = port
        self.connect = connect
        self._process = process

    def cpu(self) -> float:
        """
        @return: the CPU time of the process and of its children that have ended.
        """
        process = Path(f"/proc/{self._process.pid}")
        own, _, _ = process.joinpath("schedstat").read_text().split()
        fields = process.joinpath("stat").read_text().rpartition(")")[2].split()
        return int(own) / 1e9 + sum(map(int, fields[13:15])) / _TICK

    async def roundTrips(self) -> int:
        """
        @return: how often the client sends something after an answer.
        """
        relay = Relay(self.port)
        await self.connect(relay.port)
        relay.close()
        return relay.trips

    async def measure(self) -> float:
        """
        @return: the server's CPU time for a connection, in seconds.
        """
        before = self.cpu()
        for _ in range(CONNECTIONS):
            await self.connect(self.port)
        return (self.cpu() - before) / CONNECTIONS


def program(*command: str) -> Callable[[int], Deferred[None]]:
    """
    @param command: a client that makes a handshake and ends.
    @return: a function that runs it, with a port in place of C{PORT}.
    """

    async def connect(port: int) -> None:
        words = [word.replace("PORT", str(port)) for word in command]
        subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)

    return lambda port: ensureDeferred(connect(port))


def mux(strict: bool) -> Callable[[int], Deferred[None]]:
    """
    @return: a function that connects a mux, and aborts it once the peer has shown the
        key.
    """
    factory = MuxFactory(PSK, True, clock=reactor, strict=strict)

    async def connect(port: int) -> None:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        mux = await endpoint.connect(factory)
        await mux.whenAuthenticated()
        closed = mux.whenClosed()
        mux.abort()
        await closed

    return lambda port: ensureDeferred(connect(port))


@contextmanager
def servers(directory: Path) -> Iterator[Sequence[Server]]:
    """
    Start the servers.
    """
    key = directory / "host"
    run = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(run, check=True)
    twistd = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile="]
    gomux = [*twistd, "gomux", "--psk", PSK, "--factory", "gomux.PageFactory"]
    psk = ["-psk", TLS_PSK, "-tls1_3", "-ciphersuites", TLS_CIPHER]
    with ExitStack() as stack:

        def start(
            title: str, connect: Callable[[int], Deferred[None]], *command: str
        ) -> Server:
            port = freePort()
            words = [word.replace("PORT", str(port)) for word in command]
            # OpenSSL's server ends its connections at the end of its standard input.
            server = Process(words, stdin=subprocess.PIPE)
            process = stack.enter_context(server)
            awaitPort(port)
            return Server(title, port, process, connect)

        listen = ("--listen", "tcp:PORT:interface=127.0.0.1")
        ssh = (
            "-oBatchMode=yes -oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null"
        )
        yield (
            start("compatible mode", mux(False), *gomux, *listen),
            start("strict mode", mux(True), *gomux, "--strict", *listen),
            start(
                "TLS 1.3 PSK, OpenSSL",
                program("openssl", "s_client", "-connect", "127.0.0.1:PORT", *psk),
                *("openssl", "s_server", "-accept", "127.0.0.1:PORT", "-nocert"),
                *("-num_tickets", "0", "-quiet", *psk),
            ),
            start(
                "SSH, OpenSSH",
                program(
                    *("ssh", *ssh.split(), "-oPreferredAuthentications=none"),
                    *("-F", "/dev/null", "-p", "PORT", "nobody@127.0.0.1", "true"),
                ),
                *(shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-f", "/dev/null"),
                *("-p", "PORT", "-o", "ListenAddress=127.0.0.1", "-h", str(key)),
                *("-o", "MaxStartups=1000"),
            ),
        )


async def measure() -> None:
    """
    Measure, and print the table.
    """
    with tempfile.TemporaryDirectory() as directory, servers(Path(directory)) as all_:
        trips = [await server.roundTrips() for server in all_]
        cpu: dict[str, list[float]] = {server.title: [] for server in all_}
        for _ in range(ROUNDS):
            for server in all_:
                cpu[server.title].append(await server.measure())
    rows = [["handshake", "round trips", "server's CPU, us", "least", "most"]]
    for server, count in zip(all_, trips, strict=True):
        values = [value * 1e6 for value in cpu[server.title]]
        middle = statistics.median(values)
        figures = (middle, min(values), max(values))
        rows.append([server.title, str(count), *map(number, figures)])
    print(table.terminal(rows))


def main() -> None:
    task.react(lambda _: ensureDeferred(measure()))


if __name__ == "__main__":
    main()
