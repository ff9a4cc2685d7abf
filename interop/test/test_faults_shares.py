"""
Faults and abuse: one holder of a key takes all that the peers of a keyring share.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.protocols.wire import Echo

from interop.faults.attacker import CLOSE, DATA, KEEPALIVE, PSK, Attacker
from interop.faults.cases import CLIENT, SERVER, FaultTestCase, row
from interop.support.tunnels import ANY, Service, TunnelTestCase, endpoint

ALICE = "the pre-shared key of alice"
#: How many descriptors the server may have.
DESCRIPTORS = 200
PREFIX = ("sh", "-c", f'ulimit -n {DESCRIPTORS} && exec "$@"', "sh")


class Shares(FaultTestCase, TunnelTestCase):
    """
    Two peers have keys of a server with a target.  One of them takes what it can get,
    and then the other is still served, on the mux that it has and on a new one.
    """

    pairing = SERVER
    timeout = 280

    async def server(self, *options: str, serves: bool = True) -> tuple[Service, int]:
        """
        Start a server.

        @return: it, and its port.
        """
        keys = Path(self.mktemp()).resolve()
        keys.touch(0o600)
        keys.write_text(f"alice:{ALICE}\nbob:{PSK}\n")
        target = endpoint(f"127.0.0.1:{self.listen(Factory.forProtocol(Echo))}")
        streams = ("--target", target) if serves else ("--factory", "gomux.PageFactory")
        service = self.service(
            *("--listen", ANY, "--psk-file", str(keys), *streams, *options),
            psk=None,
            prefix=PREFIX,
        )
        address = await service.address("listen")
        return service, int(address.rpartition(":")[2])

    async def attack(self, port: int, psk: str) -> Any:
        """
        Connect to the server with this key.
        """
        attacker = Attacker(True, psk)
        await self.connectTo(port, Factory.forProtocol(lambda: attacker))
        self.addCleanup(self.end, attacker)
        attacker.send(KEEPALIVE)
        return attacker

    async def end(self, attacker: Any) -> None:
        """
        Drop a connection.
        """
        attacker.transport.abortConnection()
        if not attacker.lost.called:
            await attacker.lost

    async def openAll(self, attacker: Any, count: int) -> int:
        """
        Open streams, and have something echoed on each.

        @return: how many are served.
        """
        streams = [attacker.open() for _ in range(count)]
        for stream in streams:
            attacker.send(DATA, stream, b"x")

        def served() -> list[bool]:
            told = {
                f.streamID: f.flag for f in attacker.frames if f.streamID in streams
            }
            return [flag == DATA for flag in told.values() if flag in (DATA, CLOSE)]

        return sum(await attacker.until(lambda: len(served()) == count and served()))

    @row(61)
    async def test_connections(self) -> None:
        """
        One peer opens more streams than there may be connections, or descriptors.  It
        gets nearly all of them, and again when its mux has ended abruptly.
        """
        for options, least in ((("--max-connections", "40"), 36), ((), 95)):
            service, port = await self.server(*options)
            bob = await self.attack(port, PSK)
            await bob.sync()
            before = service.descriptors()
            for _ in range(2):
                alice = await self.attack(port, ALICE)
                got = await self.openAll(alice, 150)
                self.assertGreaterEqual(got, least)
                self.assertLess(service.descriptors(), DESCRIPTORS - 40)
                self.assertIn(f"{got + (not options)} of them by 'alice'", service.log)
                await bob.sync()
                self.assertEqual(await self.openAll(bob, 1), 1)
                bob.send(CLOSE, bob.nextID - 2)
                new = await self.attack(port, PSK)
                await new.sync()
                await self.end(new)
                await self.end(alice)
                await self.eventually(lambda: service.descriptors() <= before)  # noqa: B023

    @row(61)
    async def test_muxes(self) -> None:
        """
        One peer connects more muxes than the process may have descriptors.
        """
        service, port = await self.server()
        bob = await self.attack(port, PSK)
        await bob.sync()
        alices = []
        for _ in range(DESCRIPTORS):
            try:
                alices.append(await self.attack(port, ALICE))
            except ConnectError:
                pass  # reset before this process saw that it was connected
        gone = DESCRIPTORS - len(alices)
        await self.eventually(lambda: gone + sum(a.lost.called for a in alices) > 80)
        self.assertGreater(service.descriptors(), 100)
        await bob.sync()
        await (await self.attack(port, PSK)).sync()
        self.assertIn("of them by 'alice'", service.log)

    @row(61)
    async def test_page(self) -> None:
        """
        One peer opens more streams to the status page than there may be.
        """
        _, port = await self.server(serves=False)
        alice, bob = await self.attack(port, ALICE), await self.attack(port, PSK)
        for _ in range(100):
            alice.open()
        await alice.until(lambda: alice.count(CLOSE) == 41)
        bob.send(DATA, bob.open(), b"GET / HTTP/1.0\r\n\r\n")
        await bob.untilFrame(CLOSE, 0)
        self.assertIn(b"200 OK", bob.data(0))


class Descriptors(TunnelTestCase):
    """
    The descriptors of a process with one peer.
    """

    pairing = CLIENT

    @row(36)
    async def test_forward(self) -> None:
        """
        More clients connect to a forwarding port than there are descriptors.  Those
        that are too many are reset.  The log says so in a few lines, and the process
        keeps descriptors for the rest of its work.  When the others have gone, a new
        client is served.
        """
        port = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        target = endpoint(f"127.0.0.1:{port.getHost().port}")
        server = self.service("--listen", ANY, "--target", target)
        there = endpoint(await server.address("listen"))
        client = self.service("--connect", there, "--forward", ANY, prefix=PREFIX)
        host, _, number = (await client.address("forward")).partition(":")
        where = host, int(number)

        def flood() -> tuple[int, int]:
            with ExitStack() as held:
                served = 0
                for _ in range(2 * DESCRIPTORS):
                    served += answers(held.enter_context(socket.socket()), where)
                return served, client.descriptors()

        served, descriptors = await deferToThread(flood)
        self.assertGreater(served, DESCRIPTORS // 2)
        self.assertLess(served, DESCRIPTORS)
        self.assertLess(descriptors, DESCRIPTORS - 16)
        self.assertNotIn("EMFILE", client.log)
        self.assertIn("descriptors are used already", client.log)
        self.assertLess(client.log.count("\n"), 40)

        def again() -> bool:
            with socket.socket() as one:
                return answers(one, where)

        while not await deferToThread(again):
            pass


def answers(connection: socket.socket, where: tuple[str, int]) -> bool:
    """
    Connect, and send a byte.

    @return: whether an echo comes back.
    """
    connection.settimeout(10)
    try:
        connection.connect(where)
        connection.sendall(b"x")
        return connection.recv(1) == b"x"
    except ConnectionError:
        return False
