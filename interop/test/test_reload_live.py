"""
C{twistd gomux} with a config that changes while connections are open.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory

from gomux.test.support.ports import freePort
from interop.support.echo import Echoed
from interop.support.tunnels import (
    MIB,
    Service,
    TunnelTestCase,
    endpoint,
    run,
    until,
)

ALICE, BOB = "the pre-shared key of alice", "the pre-shared key of bob"
ECHO = "interop.support.echo.EchoFactory"
AGAIN = "the config and the pre-shared keys were read again"
STAY = "the config and the pre-shared keys stay as they are: "


def local(port: int) -> str:
    """
    @return: the string of a port of this machine alone.
    """
    return f"tcp:{port}:interface=127.0.0.1"


def listens(port: int) -> bool:
    """
    @return: whether a port accepts connections.
    """
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class ReloadTests(TunnelTestCase):
    """
    A server with a key for each of two peers, which reads its config again on SIGHUP.
    """

    def setUp(self) -> None:
        super().setUp()
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir(parents=True)
        self.config = self.directory / "gomux.toml"
        self.port = freePort()
        self.listen = f"listen = [{local(self.port)!r}]\n"
        self.keys(alice=ALICE, bob=BOB)

    def keys(self, **keys: str) -> None:
        """
        Write the key file.
        """
        path = self.directory / "keys"
        lines = [f"{name}:{psk}\n" for name, psk in keys.items()]
        path.write_text("".join(["[keyring]\n", *lines]))
        path.chmod(0o600)

    def write(self, text: str, name: str = "gomux.toml") -> str:
        """
        Write a config.

        @return: its path.
        """
        path = self.directory / name
        path.write_text(f'psk-file = "keys"\n{text}')
        return str(path)

    async def serve(self, text: str) -> Service:
        """
        Start the server.
        """
        self.write(self.listen + text)
        server = self.service("--config", str(self.config), psk=None)
        await server.address("listen", local(self.port))
        return server

    async def connect(self, psk: str) -> int:
        """
        Connect a client.

        @return: the port at which it forwards to the service C{echo}.
        """
        port = freePort()
        there = endpoint(f"127.0.0.1:{self.port}")
        client = self.service(
            *("--connect", there, "--forward", f"echo={local(port)}"), psk=psk
        )
        await client.line(f"--connect {there}: connected")
        await client.address("forward", f"echo={local(port)}")
        return port

    async def reload(self, service: Service) -> None:
        """
        Have a config read again.
        """
        service.signal("HUP")
        await service.line(AGAIN)

    async def refuses(self, service: Service, says: str) -> None:
        """
        Have a config read again, and check why nothing is changed.
        """
        service.signal("HUP")
        self.assertIn(says, await service.line(STAY))

    async def stream(self, port: int) -> Echoed:
        """
        @return: a connection to C{echo}, through a client.
        """
        connecting = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        echoed: Echoed = await connecting.connect(Factory.forProtocol(Echoed))
        self.addCleanup(echoed.transport.abortConnection)
        await self.echoes(echoed)
        return echoed

    async def echoes(self, echoed: Echoed) -> None:
        """
        Check that a connection is open.
        """
        echoed.received.clear()
        echoed.transport.write(b"hello")
        await until(lambda: echoed.received == b"hello", "the echo")

    async def test_download(self) -> None:
        """
        A slow download goes on while forwards, targets and rules come and go, its own
        forward and target too.  Nothing new gets through these.
        """
        web, path = await self.webServer(8 * MIB)
        target = f"target = ['web=tcp:{web}']\n"
        server = await self.serve(target)
        port, other = freePort(), freePort()

        def write(*ports: int) -> str:
            texts = [f"web@bob={local(number)}" for number in ports]
            connect = f"connect = ['bob=tcp:127.0.0.1:{self.port}']\n"
            return self.write(f"{connect}forward = {texts!r}\n", "client.toml")

        client = self.service("--config", write(port), psk=None)
        await client.line(f"--connect bob=tcp:127.0.0.1:{self.port}: connected")
        await client.address("forward", f"web@bob={local(port)}")
        part = self.directory / "part"
        url = f"http://127.0.0.1:{port}/{os.path.basename(path)}"
        slow = run("curl", "-sSf", "--limit-rate", "2M", "-o", str(part), url)
        await until(lambda: part.exists() and part.stat().st_size, "the download")
        for text in (
            f"{target}forward = ['@bob={local(freePort())}']\n",
            f"{target}[peer.alice]\nservices = []\n",
            f"target = ['web=tcp:{web}', 'ssh=tcp:{web}']\nlimits.max-streams = 2\n",
            "",
        ):
            self.write(self.listen + text)
            await self.reload(server)
        for ports in ((port, other), (other,)):
            write(*ports)
            await self.reload(client)
            self.assertTrue(listens(other))
        self.assertFalse(listens(port))
        self.assertFalse(slow.called)
        self.assertEqual(await slow, (b"", b"", 0))
        self.assertEqual(part.read_bytes(), Path(path).read_bytes())
        _, _, status = await run("curl", "-sS", url.replace(str(port), str(other)))
        self.assertNotEqual(status, 0)
        await server.line("<MuxProtocol")

    async def test_withdrawn(self) -> None:
        """
        A service that rules withdraw from a peer ends that peer's streams of it, and no
        others.
        """
        served = f"factory = ['echo={ECHO}']\n"
        server = await self.serve(served)
        alice, bob = await self.connect(ALICE), await self.connect(BOB)
        hers, his = await self.stream(alice), await self.stream(bob)
        self.write(f"{self.listen}{served}[peer.alice]\nservices = ['other']\n")
        await self.reload(server)
        self.assertIn("non-clean", str(await hers.lost))
        await self.echoes(his)
        self.write(f"{self.listen}{served}[peer.alice]\nservices = ['echo']\n")
        await self.reload(server)
        await self.stream(alice)

    async def test_refused(self) -> None:
        """
        With a broken file, a port that is taken or keys that cannot be read, nothing
        changes, and the log says why.  The next good config works.
        """
        served = f"factory = ['echo={ECHO}']\n"
        server = await self.serve(served)
        alice = await self.connect(ALICE)
        hers = await self.stream(alice)
        fresh = freePort()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            two = f"['@bob={local(fresh)}', {local(taken.getsockname()[1])!r}]"
            self.write(f"{self.listen}forward = {two}\n")
            self.keys(bob=BOB)
            await self.refuses(server, "Couldn't listen on 127.0.0.1:")
            self.assertFalse(listens(fresh))
        self.config.write_text("psk-file = ")
        await self.refuses(server, "is not TOML")
        self.config.unlink()
        await self.refuses(server, "No such file")
        self.write(f"{self.listen}forwards = []\nlimits.ping = 0\n")
        await self.refuses(server, "forwards: unknown key; is forward meant?")
        await server.line(f"{STAY}limits.ping: needs a number greater than 0")
        self.write(f"{self.listen}forward = ['@bob={local(fresh)}']\n{served}")
        (self.directory / "keys").chmod(0o644)
        await self.refuses(server, "others can read or change it")
        (self.directory / "keys").unlink()
        await self.refuses(server, "No such file")
        # Alice still has a key, and still has her service.
        await self.echoes(hers)
        await self.stream(alice)
        self.assertFalse(listens(fresh))
        self.keys(alice=ALICE, bob=BOB)
        await self.reload(server)
        self.assertTrue(listens(fresh))
        await self.echoes(hers)

    async def test_swaps(self) -> None:
        """
        A config is read again that an editor has replaced by renaming, or whose
        symbolic link points to another file.
        """
        served = f"factory = ['echo={ECHO}']\n"
        server = await self.serve(served)
        ports = [freePort() for _ in range(3)]
        for port in ports[:2]:
            text = f"{self.listen}{served}forward = ['@bob={local(port)}']\n"
            os.replace(self.write(text, "next"), self.config)
            await self.reload(server)
            self.assertEqual([listens(p) for p in ports], [p == port for p in ports])
        text = f"{self.listen}{served}forward = ['@bob={local(ports[2])}']\n"
        (self.directory / "v2").mkdir()
        link = self.directory / "link"
        link.symlink_to(self.write(text, "v2/gomux.toml"))
        os.replace(link, self.config)
        await self.reload(server)
        self.assertEqual([listens(port) for port in ports], [False, False, True])

    async def test_keys(self) -> None:
        """
        Keys and config change together: a new peer, its service and its forward.
        """
        served = f"factory = ['echo={ECHO}']\nend-revoked = true\n"
        server = await self.serve(served)
        alice = await self.connect(ALICE)
        hers = await self.stream(alice)
        port = freePort()
        carol = "the pre-shared key of carol"
        self.keys(bob=BOB, carol=carol)
        self.write(
            f"{self.listen}{served}forward = ['@carol={local(port)}']\n"
            "[peer.carol]\nservices = ['echo']\n"
        )
        await self.reload(server)
        self.assertIn("non-clean", str(await hers.lost))
        self.assertTrue(listens(port))
        await self.stream(await self.connect(carol))
