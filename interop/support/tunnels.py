"""
C{twistd gomux} as a child process of a test, and web servers as targets.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue

from gomux.test.support.ports import freePort
from interop.support.harness import (
    TWISTD,
    Peer,
    PeerTestCase,
    environment,
)

PSK = "a pre-shared key of the live tests"
ANY = "tcp:0:interface=127.0.0.1"

MIB = 1024 * 1024

NGINX = """
daemon off;
pid {directory}/pid;
error_log stderr;
master_process off;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{ listen 127.0.0.1:{port}; root {directory}; }}
}}
"""


class Service(Peer):
    """
    A C{twistd} process.  Its lines are those of its log, without time and origin.
    """

    _rest = b""

    def outReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            super().outReceived(re.sub(rb"^\S+ \[[^]]*\] ", b"", line) + b"\n")

    @property
    def pid(self) -> int:
        return int(self.transport.pid)

    @property
    def log(self) -> str:
        """
        The whole log so far.
        """
        return "\n".join(self._seen) + self._errors.decode()

    def address(self, option: str, endpoint: str = ANY) -> Deferred[str]:
        """
        Wait until the service listens.

        @param option: C{listen} or C{forward}.
        @param endpoint: The value of that option.
        @return: the address that it listens on.
        """
        return self.line(f"--{option} {endpoint}: listening on ")

    def resident(self) -> int:
        """
        @return: its resident bytes.
        """
        with open(f"/proc/{self.pid}/status") as status:
            found = re.search(r"VmRSS:\s+(\d+) kB", status.read())
        assert found is not None
        return int(found[1]) * 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def endpoint(address: str) -> str:
    """
    @return: the client endpoint string for an address.
    """
    return f"tcp:{address}"


def run(*command: str) -> Deferred[tuple[bytes, bytes, int]]:
    """
    @return: what a command printed, its errors, and its exit status.
    """
    path = shutil.which(command[0]) or command[0]
    return getProcessOutputAndValue(path, command[1:], env=os.environ)


async def until(
    condition: Callable[[], object], what: str, seconds: float = 30
) -> None:
    """
    Poll until a condition holds, for changes that no event reports.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} seconds: {what}")
        await sleep(0.02)


def sleep(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds, lambda: None)


class TunnelTestCase(PeerTestCase):
    """
    A test that runs C{twistd gomux}, and web servers as targets.
    """

    timeout = 280

    def service(
        self, *options: str, psk: str | None = PSK, prefix: Any = ()
    ) -> Service:
        """
        Start C{twistd gomux}.
        """
        return self.twistd("gomux", *options, psk=psk, prefix=prefix)

    def twistd(
        self, *options: str, psk: str | None = None, prefix: Any = ()
    ) -> Service:
        """
        Start C{twistd}.
        """
        command = [*prefix, *TWISTD, "-n", "--pidfile=", *options]
        variables = environment()
        variables.pop("GOMUX_PSK", None)
        if psk is not None:
            variables["GOMUX_PSK"] = psk
        return self.start(Service(" ".join(options)), command, variables)

    def start(self, peer: Any, command: list[str], environment: dict[str, str]) -> Any:
        program = shutil.which(command[0]) or command[0]
        reactor.spawnProcess(peer, program, command, env=environment)
        peer.transport.closeStdin()
        self.addCleanup(self._reap, peer)
        return peer

    async def webServer(self, size: int) -> tuple[str, str]:
        """
        Start a web server with one file.

        @param size: The size of the file in bytes.
        @return: The server's address, and the file's path.
        """
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory, 0o755)
        path = os.path.join(directory, "file")
        with open(path, "wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
        if shutil.which("nginx"):
            port = freePort()
            configuration = os.path.join(directory, "nginx.conf")
            with open(configuration, "w") as file:
                user = "user root;" if os.geteuid() == 0 else ""
                file.write(user + NGINX.format(directory=directory, port=port))
            command = ["nginx", "-p", directory, "-c", configuration]
            self.start(Peer("nginx"), command, dict(os.environ))
            await self.connects(port)
        else:
            server = self.twistd("web", "--listen", ANY, "--path", directory)
            port = int(await server.line("Site starting on "))
        return f"127.0.0.1:{port}", path

    async def connects(self, port: int) -> None:
        """
        Wait until a port accepts connections, for a server that logs nothing when it is
        ready.
        """
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            await sleep(0.05)

    async def fetch(self, address: str, path: str) -> None:
        """
        Fetch a file with curl, and check that it is identical to the original.

        @param address: The address to fetch from.
        @param path: The original.
        """
        url = f"http://{address}/{os.path.basename(path)}"
        command = f"curl -sSf {url} | cmp - {path}"
        output, errors, status = await run("sh", "-c", command)
        self.assertEqual((output, errors, status), (b"", b"", 0))

    async def serveFiles(self, size: int) -> str:
        """
        Start a web server with a large file of 256 MiB and a small one.

        @param size: The size of the small file in bytes.
        @return: The server's address.
        """
        web, self.large = await self.webServer(256 * MIB)
        self.small = os.path.join(os.path.dirname(self.large), "small")
        with open(self.small, "wb") as file:
            file.write(os.urandom(size))
        return web

    async def fetchFiles(self, address: str) -> None:
        """
        Fetch the large file, then fifty concurrent copies of the small one.
        """
        await self.fetch(address, self.large)
        await gatherResults(
            [Deferred.fromCoroutine(self.fetch(address, self.small)) for _ in range(50)]
        )

    async def settled(self, *services: Service) -> tuple[int, ...]:
        """
        Wait until the services no longer open or close descriptors.  Fetch something
        through them first: a connected client may not be accepted by the server yet.

        @return: The number of open descriptors of each service.
        """
        seen: list[tuple[int, ...]] = []

        def same() -> bool:
            seen.append(tuple(service.descriptors() for service in services))
            return len(seen) > 25 and len(set(seen[-25:])) == 1

        await until(same, "descriptors come to rest")
        return seen[-1]

    async def forwarding(
        self, target: str, *options: str
    ) -> tuple[Service, Service, str]:
        """
        Start a server with a target, and a client that forwards.

        @param options: Further options of both.
        @return: The server, the client, and the address that the client forwards from.
        """
        server = self.service("--listen", ANY, "--target", endpoint(target), *options)
        muxes = await server.address("listen")
        client = self.service("--connect", endpoint(muxes), "--forward", ANY, *options)
        await client.line(f"--connect {endpoint(muxes)}: connected")
        return server, client, await client.address("forward")
