"""
Measure what a second process on the same port brings.

    python -m bench.ports

Eight peers of the Go package each forward one download of a large file.  They connect
to one port, behind which is one C{twistd gomux} process, or two.  Two processes have
the port either as one socket that both accept from, as systemd passes it to two
instances, or as a socket each with C{SO_REUSEPORT}.  The file comes from nginx.  Peers,
nginx and curl share the CPUs with the processes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import table
from gomux.test.support.ports import freePort
from interop.support.harness import GO_PEER, TWISTD, environment
from interop.support.notified import Manager
from interop.support.tunnels import NGINX

#: How many peers there are, and how large the file is that each fetches, in MiB.
PEERS, SIZE = 8, 192
PSK = "a pre-shared key of the benchmark"

#: Runs its arguments as systemd runs a command.
LAUNCHER = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] ="
    " str(os.getpid()); os.execvp(sys.argv[2], sys.argv[2:])"
)

HEAD = ["processes", "MiB/s", "of one", "muxes of each, last round"]


def waitFor(port: int) -> None:
    """
    Wait until a port accepts connections.
    """
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def listeners(kind: str) -> list[socket.socket]:
    """
    @return: the socket of each process.
    """
    if kind == "one":
        return [socket.create_server(("127.0.0.1", 0), backlog=512)]
    if kind == "two, one socket":
        shared = socket.create_server(("127.0.0.1", 0), backlog=512)
        return [shared, shared.dup()]
    first = socket.create_server(("127.0.0.1", 0), reuse_port=True)
    return [first, socket.create_server(first.getsockname(), reuse_port=True)]


def measure(kind: str, web: int, directory: Path) -> tuple[float, list[int]]:
    """
    @param web: the port of nginx.
    @return: the rate in MiB/s, and how many muxes each process had.
    """
    with ExitStack() as stack:

        def start(command: Sequence[str], **options: object) -> None:
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
            )
            stack.callback(process.wait)
            stack.callback(process.kill)

        managers = []
        sockets = listeners(kind)
        port = sockets[0].getsockname()[1]
        for held in sockets:
            manager = Manager(directory)
            stack.callback(manager.close)
            stack.callback(os.unlink, manager.path)
            managers.append(manager)
            start(
                [sys.executable, "-c", LAUNCHER, str(held.fileno()), *TWISTD]
                + ["-n", "--pidfile=", "gomux", "--target", f"tcp:127.0.0.1:{web}"]
                + ["--listen", "systemd:domain=INET:index=0"],
                env={
                    **environment(),
                    "GOMUX_PSK": PSK,
                    "NOTIFY_SOCKET": str(manager.path),
                    "LISTEN_FDS": "1",
                    "LISTEN_FDNAMES": "gomux.socket",
                    "WATCHDOG_USEC": "400000",
                },
                pass_fds=[held.fileno()],
            )
            while "READY=1" not in manager.receive():
                time.sleep(0.02)
            held.close()
        forwards = [freePort() for _ in range(PEERS)]
        for forward in forwards:
            start(
                [GO_PEER, "-psk", PSK, "-connect", f"127.0.0.1:{port}"]
                + ["-forward", f"127.0.0.1:{forward}"]
            )
        for forward in forwards:
            waitFor(forward)
        while sum(manager.muxes for manager in managers) < PEERS:
            time.sleep(0.05)
        began = time.monotonic()
        fetches = [
            subprocess.Popen(
                ["curl", "-sSf", "-o", "/dev/null", f"http://127.0.0.1:{forward}/file"]
            )
            for forward in forwards
        ]
        failed = [fetch for fetch in fetches if fetch.wait()]
        if failed:
            raise SystemExit("a download has failed")
        rate = PEERS * SIZE / (time.monotonic() - began)
        return rate, [manager.muxes for manager in managers]


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Measure, and print a table.
    """
    parser = argparse.ArgumentParser(description="See the module's docstring.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args(arguments).rounds
    directory = Path(tempfile.mkdtemp())
    web = freePort()
    (directory / "file").write_bytes(bytes(SIZE << 20))
    directory.chmod(0o755)
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = directory / "nginx.conf"
    configuration.write_text(user + NGINX.format(directory=directory, port=web))
    nginx = subprocess.Popen(["nginx", "-p", str(directory), "-c", str(configuration)])
    try:
        waitFor(web)
        rates: dict[str, list[float]] = {}
        muxes: dict[str, list[int]] = {}
        for _ in range(rounds):
            for kind in ("one", "two, one socket", "two, SO_REUSEPORT"):
                rate, muxes[kind] = measure(kind, web, directory)
                rates.setdefault(kind, []).append(rate)
        medians = {kind: statistics.median(found) for kind, found in rates.items()}
        rows = [
            [
                kind,
                f"{median:.0f}",
                f"{median / medians['one']:.2f}",
                " and ".join(map(str, muxes[kind])),
            ]
            for kind, median in medians.items()
        ]
        print(table.terminal([HEAD, *rows]))
    finally:
        nginx.terminate()
        nginx.wait()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
