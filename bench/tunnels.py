"""
Tunnels of this project, of the reference, of OpenSSH and of Twisted, and handshakes.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import load, peers
from bench.figures import Figure, Goal, Measured, Workload
from bench.peers import PSK, SIDES
from bench.processes import Process, pinned, python
from gomux.test.support.ports import freePort
from interop.support.harness import TWISTD

MIB = 1 << 20

#: The sides that are OpenSSH, with their cipher.  The first has the cipher of gomux.
CIPHERS = {
    "OpenSSH": "chacha20-poly1305@openssh.com",
    "OpenSSH AES": "aes128-gcm@openssh.com",
}

LISTEN = ("--listen", "tcp:0:interface=127.0.0.1")
TLS_PSK = "00112233445566778899aabbccddeeff" * 2


@dataclass
class Tunnel:
    """
    A tunnel.

    @ivar address: where it accepts connections.
    @ivar ends: the two processes: first the end that accepts connections.
    """

    address: str
    ends: tuple[Process, Process]

    def cpu(self) -> float:
        """
        @return: the CPU time of both ends, in seconds.
        """
        return sum(end.cpu() for end in self.ends)


@contextmanager
def between(name: str, target: str, pins: bool = False) -> Iterator[Tunnel]:
    """
    Set up a tunnel.

    @param name: the side.
    @param target: the address that the tunnel leads to.
    @param pins: whether to pin the end that accepts connections to the first CPU and
        the other end to the second.
    """
    with ExitStack() as stack:

        def start(process: Process, cpu: int) -> Process:
            stack.enter_context(process)
            if pins:
                process.pin(cpu)
            return process

        if name in CIPHERS:
            ssh = OpenSSH(stack)
            far = start(ssh.server(), 1)
            far.line("Server listening on", anywhere=True)
            port = freePort()
            forwarding = ("-L", f"127.0.0.1:{port}:{target}", "-c", CIPHERS[name])
            near = start(ssh.client("-v", "-N", *forwarding), 0)
            near.line("Entering interactive session", anywhere=True)
            yield Tunnel(f"127.0.0.1:{port}", (near, far))
        elif name == "Twisted":
            far = start(python("program", "forward", target), 1)
            near = start(python("program", "forward", far.line("forwarding ")), 0)
            yield Tunnel(near.line("forwarding "), (near, far))
        elif name in ("loop", "loop in Twisted"):
            how = ("--reactor",) if name != "loop" else ()
            far = start(python("loop", "far", target, *how), 1)
            near = start(python("loop", "near", far.line("listening "), *how), 0)
            yield Tunnel(near.line("listening "), (near, far))
        elif name == "Go":
            side = SIDES[name]
            far = start(peers.listen(side, "--target", target), 1)
            address = far.line("listening ")
            near = start(peers.connect(side, address, "--forward", peers.ANY), 0)
            entry = near.line("forwarding ")
            near.line("mux up")
            yield Tunnel(entry, (near, far))
        else:
            service = "web=" if name == "service" else ""
            to = ("--target", f"{service}tcp:{target}")
            far = start(gomux(name, *LISTEN, *to), 1)
            address = far.line(": listening on ", anywhere=True)
            entries = ("--forward", f"{service}{LISTEN[1]}:backlog=1024")
            near = start(gomux(name, "--connect", f"tcp:{address}", *entries), 0)
            entry = near.line(": listening on ", anywhere=True)
            near.line(": connected", anywhere=True)
            yield Tunnel(entry, (near, far))


def gomux(name: str, *options: str) -> Process:
    """
    Start C{twistd gomux}.

    @param name: the side.
    """
    return SIDES.get(name, SIDES["this"]).process(
        *(*TWISTD, "-n", "--pidfile=", "gomux", *options),
        environment={"GOMUX_PSK": PSK},
    )


def isThere(name: str) -> bool:
    """
    Tell whether this machine has the software for a side.
    """
    if name.startswith("OpenSSH"):
        return None not in (_sshd(), shutil.which("ssh"), shutil.which("ssh-keygen"))
    return name != "OpenSSL" or shutil.which("openssl") is not None


def _sshd() -> str | None:
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    return shutil.which("sshd", path=path)


def describe(name: str) -> str:
    """
    @param name: C{OpenSSH} or C{OpenSSH AES}.
    @return: its version and cipher.
    """
    done = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False)
    return f"{done.stderr.split(',')[0].strip()}, {CIPHERS[name]}"


class OpenSSH:
    """
    The settings of an sshd and an ssh.  They do not read the system's configuration,
    and write only to a temporary directory.

    @ivar port: where the server listens.
    """

    def __init__(self, stack: ExitStack) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="gomux-bench-")
        self._directory = Path(stack.enter_context(temporary))
        # Only as root sshd needs a directory of the system.
        isRoot = os.getuid() == 0
        user = pwd.getpwnam("nobody") if isRoot else pwd.getpwuid(os.getuid())
        self._user = user.pw_name
        self._uid = user.pw_uid if isRoot else None
        if self._uid is not None:
            os.chown(self._directory, self._uid, -1)
        key = self._directory / "key"
        generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(generate, check=True, user=self._uid)
        self.port = freePort()
        public = Path(f"{key}.pub").read_text()
        (self._directory / "hosts").write_text(f"[127.0.0.1]:{self.port} {public}")
        (self._directory / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\n"
            f"HostKey {key}\n"
            f"AuthorizedKeysFile {key}.pub\n"
            "PidFile none\n"
            "StrictModes no\n"
            "MaxStartups 1000\n"
            # PAM admits an account without a password, such as C{nobody}.
            "UsePAM yes\n"
            "AllowTcpForwarding yes\n"
        )

    def server(self) -> Process:
        """
        Start the server.
        """
        command = [_sshd() or "", "-D", "-e", "-f", f"{self._directory}/sshd_config"]
        return Process(command, user=self._uid)

    def command(self, *options: str) -> list[str]:
        """
        @return: the command of a client.
        """
        hosts = f"UserKnownHostsFile={self._directory}/hosts"
        return [
            *("ssh", "-F", "none", "-i", f"{self._directory}/key"),
            *("-p", str(self.port), "-o", hosts, "-o", "GlobalKnownHostsFile=none"),
            *("-o", "IdentitiesOnly=yes", "-o", "ExitOnForwardFailure=yes", *options),
            f"{self._user}@127.0.0.1",
        ]

    def client(self, *options: str) -> Process:
        """
        Start a client.
        """
        return Process(self.command(*options), user=self._uid)


def bulk(name: str, scale: float) -> Measured:
    size = int(256 * MIB * scale)
    with (
        python("load") as server,
        between(name, server.line("listening ")) as tunnel,
    ):
        load.connects(tunnel.address, 10)
        return {
            f"{way.__name__} {count}": way(tunnel.address, size, count) / 1e6
            for way in (load.sink, load.source)
            for count in (1, 10)
        }


def small(name: str, scale: float) -> Measured:
    """
    Measure small requests and new connections.  Each end shares a CPU with the program
    that it exchanges data with, because the speed depends on which process runs where.
    """
    measured: Measured = {}
    with (
        pinned(0),
        python("load") as server,
        between(name, server.line("listening "), pins=True) as tunnel,
    ):
        server.pin(1)

        def rate(what: str, run: Callable[[str, int], float], count: int) -> None:
            before = tunnel.cpu()
            measured[what] = run(tunnel.address, count)
            measured[f"{what}, CPU"] = (tunnel.cpu() - before) / count * 1e6

        load.connects(tunnel.address, 50)
        rate("requests", load.requests, max(50, int(50000 * scale)))
        rate("connections", load.connects, int(1000 * scale))
        rate("connections, 50", load.connectsAtOnce, max(50, int(2000 * scale)))
        echoes = load.echo(tunnel.address, 64, int(5000 * scale))
        measured["echo p50"], measured["echo p99"] = echoes
    return measured


@contextmanager
def _openSSL() -> Iterator[tuple[Process, list[str]]]:
    """
    Start a server of OpenSSL.

    @return: the server, and the command of a client.
    """
    port = freePort()
    suite = ("-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256")
    psk = ("-psk", TLS_PSK, *suite)
    serve = ("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-nocert")
    # The server ends its connections at the end of its standard input.
    with Process([*serve, "-num_tickets", "0", *psk], interactive=True) as server:
        server.line("ACCEPT")
        yield server, ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *psk]


def handshake(name: str, scale: float) -> Measured:
    """
    Measure the CPU time of a server for a connection that ends after the handshake,
    with everything that belongs to it: accepting it, its process or its mux, its end.

    SSH has no pre-shared keys: the client shows none, and leaves when the server
    refuses it.  C{sshd} starts a process for each connection.
    """
    count = max(1, int(100 * scale))
    with ExitStack() as stack:
        command: list[str]
        if name in ("this", "strict"):
            strict = ("--strict",) if name == "strict" else ()
            page = ("--factory", "gomux.PageFactory")
            server = stack.enter_context(gomux(name, *LISTEN, *page, *strict))
            address = server.line(": listening on ", anywhere=True)
            command = ["handshakes", address, PSK, name, str(count)]
        elif name == "OpenSSL":
            server, command = stack.enter_context(_openSSL())
        else:
            ssh = OpenSSH(stack)
            server = stack.enter_context(ssh.server())
            server.line("Server listening on", anywhere=True)
            command = ssh.command("-oPreferredAuthentications=none", "-oBatchMode=yes")
        before = server.cpu()
        if name in ("this", "strict"):
            with python("program", *command) as client:
                client.line("done")
        else:
            for _ in range(count):
                subprocess.run(
                    command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20
                )
        return {"CPU": (server.cpu() - before) / count * 1e6}


def _bulkFigure(name: str, goal: float) -> Figure:
    return Figure(name, "MB/s", (Goal(goal), Goal(1.0, over="OpenSSH")))


def _rateFigures(name: str) -> tuple[Figure, Figure]:
    return (
        Figure(
            name,
            "/s",
            (
                Goal(1.2),
                Goal(0.6, over="OpenSSH"),
                Goal(0.9, over="this", side="service"),
            ),
        ),
        Figure(f"{name}, CPU", "us", more=False),
    )


ALL = (
    Workload(
        "tunnel",
        "Tunnels",
        "256 MiB, 1 and 10 connections",
        (
            _bulkFigure("sink 1", 1.5),
            _bulkFigure("sink 10", 1.2),
            _bulkFigure("source 1", 1.5),
            _bulkFigure("source 10", 1.2),
        ),
        ("Go", "this", *CIPHERS),
        bulk,
    ),
    Workload(
        "tunnel-small",
        "Tunnels",
        "64-byte requests on 50 connections; connections, one at a time and 50; ends"
        " on a CPU each",
        (
            *_rateFigures("requests"),
            *_rateFigures("connections"),
            *_rateFigures("connections, 50"),
            Figure("echo p50", "us", (Goal(1.0),), more=False),
            Figure("echo p99", "us", (Goal(1.0),), more=False),
        ),
        ("Go", "this", "service", "OpenSSH", "Twisted", "loop in Twisted", "loop"),
        small,
    ),
    Workload(
        "handshake",
        "Handshakes",
        "connect and leave: the server's CPU time",
        (Figure("CPU", "us", more=False),),
        ("this", "strict", "OpenSSL", "OpenSSH"),
        handshake,
        rounds=5,
    ),
)
