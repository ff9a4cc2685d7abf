"""
Measure handshakes: strict mode, beside TLS 1.3 with a pre-shared key and SSH.

    python -m bench.handshakes [--tls PYTHON]

This prints the CPU time of both sides together, and after how many round trips the
client may send data, without that of TCP.  TLS is OpenSSL's, used by the module ssl of
a Python from 3.13 on.  SSH is asyncssh's, with Ed25519 keys on both sides, because SSH
has no pre-shared keys.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncssh
from twisted.internet.task import Clock

from gomux import MuxFactory, Salts
from gomux.testing import PSK, MuxPair

ROUNDS = 200
#: The delay of the path on which SSH's round trips are counted, in one direction, in
#: seconds.
DELAY = 0.05
KEY_FILE = Path(__file__).with_name("tls_handshake.py")


def muxes(strict: bool) -> tuple[float, float]:
    """
    @return: the CPU time of two muxes, in seconds, and the round trips.
    """

    def factory(isClient: bool) -> MuxFactory:
        return MuxFactory(PSK, isClient, clock=clock, strict=strict, salts=Salts())

    clock = Clock()
    pair = MuxPair(
        clientFactory=factory(True),
        serverFactory=factory(False),
        clock=clock,
        latency=DELAY,
    )
    while pair.client.gated:
        pair.advance(DELAY)
    trips = clock.seconds() / (2 * DELAY)
    clock = Clock()
    client, server = factory(True), factory(False)
    began = time.process_time()
    for _ in range(ROUNDS):
        pair = MuxPair(clientFactory=client, serverFactory=server, clock=clock)
        pair.flush()
        assert pair.client.authenticated and pair.server.authenticated
        pair.client.abort()
        pair.flush()
    return (time.process_time() - began) / ROUNDS, trips


async def ssh() -> tuple[float, float]:
    """
    @return: as L{muxes}.
    """
    host = asyncssh.generate_private_key("ssh-ed25519")
    user = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[host],
        authorized_client_keys=asyncssh.import_authorized_keys(
            user.export_public_key().decode()
        ),
    )

    async def connect(port: int) -> None:
        known = asyncssh.import_known_hosts(
            f"[127.0.0.1]:{port} {host.export_public_key().decode()}"
        )
        async with asyncssh.connect(
            "127.0.0.1", port, username="me", client_keys=[user], known_hosts=known
        ):
            pass

    port = server.get_port()
    await connect(port)
    began = time.process_time()
    for _ in range(ROUNDS // 10):
        await connect(port)
    cpu = (time.process_time() - began) / (ROUNDS // 10)
    finished = asyncio.Event()
    far = await asyncio.start_server(
        lambda r, w: relay(r, w, port, finished), "127.0.0.1", 0
    )
    start = time.monotonic()
    await connect(far.sockets[0].getsockname()[1])
    trips = (time.monotonic() - start) / (2 * DELAY)
    await finished.wait()
    server.close()
    far.close()
    return cpu, trips


async def relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    port: int,
    finished: asyncio.Event,
) -> None:
    """
    Carry a connection over a path with a delay.
    """
    other, back = await asyncio.open_connection("127.0.0.1", port)

    async def carry(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            asyncio.get_running_loop().call_later(DELAY, to.write, data)
        asyncio.get_running_loop().call_later(DELAY, to.close)

    await asyncio.gather(carry(reader, back), carry(other, writer))
    finished.set()


def tls(python: str) -> tuple[float, float]:
    """
    @return: as L{muxes}.
    """
    found = subprocess.check_output([python, str(KEY_FILE), str(ROUNDS)], text=True)
    cpu, trips = map(float, found.split())
    return cpu, trips


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m bench.handshakes")
    options.add_argument("--tls", metavar="PYTHON", default=sys.executable)
    python = options.parse_args().tls
    kinds: dict[str, Callable[[], tuple[float, float]]] = {
        "compatible": lambda: muxes(False),
        "strict": lambda: muxes(True),
        "TLS 1.3 PSK": lambda: tls(python),
        "SSH": lambda: asyncio.run(ssh()),
    }
    print("handshake     CPU, ms   round trips")
    for name, measure in kinds.items():
        cpu, trips = measure()
        print(f"{name:12} {cpu * 1e3:8.2f} {trips:13.1f}")


if __name__ == "__main__":
    main()
