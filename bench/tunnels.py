"""
TCP tunnels of the peers, and of other software.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path

from bench import load, peers
from bench.processes import CPUS, Process, python

#: Ciphers of OpenSSH, one of which is the fastest; which one depends on the CPU.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
)

#: The cipher of gomux.
SAME_CIPHER = "chacha20-poly1305@openssh.com"

#: How often each cipher is tried, and with how many bytes.
CIPHER_ROUNDS, CIPHER_SIZE = 5, 64 << 20


@contextmanager
def between(name: str, target: str, pins: bool = False) -> Iterator[str]:
    """
    Set up a tunnel.

    @param name: C{Go}, C{this}, C{OpenSSH}, C{asyncssh} or C{Twisted}.
    @param target: the address that the tunnel leads to.
    @param pins: whether to pin the end that accepts connections to the first CPU and
        the other end to the second, and to use C{SAME_CIPHER} with OpenSSH.
    @return: the address where the tunnel accepts connections.
    """

    def pin(process: Process, cpu: int) -> None:
        if pins:
            os.sched_setaffinity(process.pid, {cpu % CPUS})

    with ExitStack() as stack:
        if name == "OpenSSH":
            cipher = SAME_CIPHER if pins else _fastestCipher()
            yield _openSSH(stack, target, cipher, pin)
        elif name == "Twisted":
            for cpu in (1, 0):
                forwarder = stack.enter_context(python("twisted_forward", target))
                pin(forwarder, cpu)
                target = forwarder.line("forwarding ")
            yield target
        elif name == "asyncssh":
            server = stack.enter_context(python("asyncssh_tunnel", "listen"))
            address = server.line("listening ")
            client = stack.enter_context(
                python("asyncssh_tunnel", "forward", address, target)
            )
            yield client.line("forwarding ")
        else:
            side = {"Go": peers.GO, "this": peers.THIS}[name]
            server = stack.enter_context(peers.listen(side, "--target", target))
            pin(server, 1)
            address = server.line("listening ")
            client = stack.enter_context(
                peers.connect(side, address, "--forward", peers.ANY)
            )
            pin(client, 0)
            forwarding = client.line("forwarding ")
            client.line("mux up")
            yield forwarding


def isThere(name: str) -> bool:
    """
    Tell whether this machine has the software for a tunnel.
    """
    if name == "OpenSSH":
        return None not in (_sshd(), shutil.which("ssh"), shutil.which("ssh-keygen"))
    if name == "asyncssh":
        return importlib.util.find_spec("asyncssh") is not None
    return name in ("this", "Twisted") or peers.GO.isThere


def _sshd() -> str | None:
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    return shutil.which("sshd", path=path)


def _freePort() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@cache
def _fastestCipher() -> str:
    """
    Find the fastest cipher on this machine.  The ciphers take turns several times,
    because the other load of the machine changes.
    """
    rates: dict[str, list[float]] = {cipher: [] for cipher in CIPHERS}
    with ExitStack() as stack:
        server = stack.enter_context(python("load"))
        target = server.line("listening ")
        starts = {cipher: _openSSH(stack, target, cipher) for cipher in CIPHERS}
        for _ in range(CIPHER_ROUNDS):
            for cipher, start in starts.items():
                rates[cipher].append(load.sink(start, CIPHER_SIZE, 1))
    return max(CIPHERS, key=lambda cipher: statistics.median(rates[cipher]))


def _openSSH(
    stack: ExitStack,
    target: str,
    cipher: str,
    pin: Callable[[Process, int], None] = lambda process, cpu: None,
) -> str:
    """
    Start an sshd and an ssh.  They do not read the system's configuration, and write
    only to a temporary directory.

    @param pin: pins a process, with its later children, to a CPU.
    """
    directory = Path(
        stack.enter_context(tempfile.TemporaryDirectory(prefix="gomux-bench-"))
    )
    # Only as root sshd needs a directory of the system.
    user = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    uid = user.pw_uid if os.getuid() == 0 else None
    if uid is not None:
        os.chown(directory, uid, -1)
    key = directory / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key],
        check=True,
        user=uid,
    )
    port, forwarding = _freePort(), _freePort()
    hosts = directory / "hosts"
    hosts.write_text(f"[127.0.0.1]:{port} {Path(f'{key}.pub').read_text()}")
    (directory / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\n"
        f"HostKey {key}\n"
        f"AuthorizedKeysFile {key}.pub\n"
        "PidFile none\n"
        "StrictModes no\n"
        # PAM admits an account without a password, such as C{nobody}.
        "UsePAM yes\n"
        "AllowTcpForwarding yes\n"
    )
    server = stack.enter_context(
        Process([_sshd() or "", "-D", "-e", "-f", f"{directory}/sshd_config"], uid)
    )
    server.line("Server listening on", anywhere=True)
    pin(server, 1)
    client = stack.enter_context(
        Process(
            ["ssh", "-v", "-N", "-F", "none", "-i", str(key), "-p", str(port)]
            + ["-L", f"127.0.0.1:{forwarding}:{target}", "-c", cipher]
            + ["-o", f"UserKnownHostsFile={hosts}", "-o", "GlobalKnownHostsFile=none"]
            + ["-o", "IdentitiesOnly=yes", "-o", "ExitOnForwardFailure=yes"]
            + [f"{user.pw_name}@127.0.0.1"],
            uid,
        )
    )
    client.line("Entering interactive session", anywhere=True)
    pin(client, 0)
    return f"127.0.0.1:{forwarding}"


def describe(name: str) -> str:
    """
    Describe the version and settings of other software.

    @param name: C{OpenSSH}, C{asyncssh} or C{Twisted}.
    """
    if name != "OpenSSH":
        return f"version {version(name)}"
    said = subprocess.run(
        ["ssh", "-V"], capture_output=True, text=True, check=False
    ).stderr
    return f"{said.split(',')[0].strip()}, {_fastestCipher()}"


if __name__ == "__main__":
    print(describe(sys.argv[1]))
