"""
A key is removed from the key file of a C{twistd gomux}, or changed there, while its
peer is connected.
"""

from __future__ import annotations

import os

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory

from interop.support.echo import Echoed
from interop.support.tunnels import ANY, Service, TunnelTestCase, endpoint, until

ALICE, BOB = "the pre-shared key of alice", "the pre-shared key of bob"
OTHER = "the next pre-shared key of bob"


class RevokedTests(TunnelTestCase):
    """
    A server with a key for each of two clients reads its changed key file again.
    """

    def write(self, path: str, **keys: str) -> None:
        """
        Write a key file.

        @param keys: The pre-shared key of each name.
        """
        with open(path, "w", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            lines = [f"{name}:{psk}\n" for name, psk in keys.items()]
            file.write("".join(["[keyring]\n", *lines]))

    async def startServer(self, *options: str) -> None:
        """
        Start the server.
        """
        self.path = self.mktemp()
        self.write(self.path, alice=ALICE, bob=BOB)
        self.server = self.service(
            *("--listen", ANY, "--psk-file", self.path),
            *("--factory", "interop.support.echo.EchoFactory", *options),
            psk=None,
        )
        self.muxes = endpoint(await self.server.address("listen"))

    async def client(self, psk: str, *options: str) -> tuple[Service, Echoed]:
        """
        Connect a client, and open a stream through it.
        """
        client = self.service(
            "--connect", self.muxes, "--forward", ANY, *options, psk=psk
        )
        await client.line(f"--connect {self.muxes}: connected")
        return client, await self.stream(await client.address("forward"))

    async def stream(self, address: str) -> Echoed:
        host, port = address.split(":")
        connecting = TCP4ClientEndpoint(reactor, host, int(port))
        echoed: Echoed = await connecting.connect(Factory.forProtocol(Echoed))
        self.addCleanup(echoed.transport.abortConnection)
        await self.assertEchoes(echoed)
        return echoed

    async def assertEchoes(self, echoed: Echoed) -> None:
        echoed.received.clear()
        echoed.transport.write(b"hello")
        await until(lambda: echoed.received == b"hello", "the echo")

    async def readAgain(self, **keys: str) -> None:
        """
        Change the key file, and have the server read it again.
        """
        self.write(self.path, **keys)
        self.server.signal("HUP")
        await self.server.line("the pre-shared keys were read again")

    async def assertEnded(self, name: str, client: Service, echoed: Echoed) -> None:
        """
        Check that only one client's mux was ended, and that the client cannot
        reconnect.
        """
        line = await self.server.line(f"the mux from {name!r} at 127.0.0.1:")
        self.assertIn("ended: The pre-shared key of the peer was revoked", line)
        self.assertEqual(self.server.log.count(f"the mux from {name!r}"), 1)
        self.assertIn("non-clean", str(await echoed.lost))
        await client.line("the mux to ")
        self.assertIn("wrong pre-shared key", await client.line("the mux to "))

    async def revokes(self, *options: str) -> None:
        await self.startServer("--end-revoked", *options)
        alice, hers = await self.client(ALICE, *options)
        bob, his = await self.client(BOB, *options)
        # Have much data in flight when the key is revoked.
        hers.transport.write(bytes(1 << 24))
        await until(lambda: len(hers.received) > 1 << 20, "some of the echo")
        await self.readAgain(bob=BOB)
        await self.assertEnded("alice", alice, hers)
        self.assertLess(len(hers.received), 1 << 24)
        await self.assertEchoes(his)
        await self.readAgain(bob=OTHER)
        await self.assertEnded("bob", bob, his)

    async def test_endRevoked(self) -> None:
        """
        With C{--end-revoked} the mux of a removed or changed key ends at once, and
        other muxes go on.
        """
        await self.revokes()

    async def test_endRevokedStrict(self) -> None:
        """
        C{--end-revoked} also ends muxes in strict mode.
        """
        await self.revokes("--strict")

    async def test_default(self) -> None:
        """
        Without C{--end-revoked} the mux of a removed key goes on, but a new connection
        with that key is refused.
        """
        await self.startServer()
        alice, hers = await self.client(ALICE)
        await self.readAgain(bob=BOB)
        await self.assertEchoes(hers)
        address = alice.log.split(f"--forward {ANY}: listening on ")[1].split()[0]
        await self.stream(address)
        self.assertNotIn("ended", self.server.log)
        again = self.service("--connect", self.muxes, psk=ALICE)
        self.assertIn("wrong pre-shared key", await again.line("the mux to "))

    async def test_client(self) -> None:
        """
        A client whose own key has changed reconnects with the new key.
        """
        await self.startServer("--end-revoked")
        path = self.mktemp()
        self.write(path, me=BOB)
        client = self.service(
            *("--connect", self.muxes, "--forward", ANY, "--psk-file", path),
            "--end-revoked",
            psk=None,
        )
        address = await client.address("forward")
        before = await self.stream(address)
        await self.readAgain(alice=ALICE, bob=BOB, carol=OTHER)
        await self.assertEchoes(before)
        self.write(path, me=OTHER)
        client.signal("HUP")
        await before.lost
        await self.stream(address)
        self.assertEqual(client.log.count("was revoked"), 2)
        await self.server.line("the mux from 'bob' at ")
