"""
Check that test processes run without the fast paths that C{GOMUX_PLAIN} names.
"""

from __future__ import annotations

import os
import sys

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory

from interop.faults.attacker import (
    DATA,
    FIELDS,
    HEADER_SIZE,
    KEEPALIVE,
    OVERHEAD,
    Attacker,
)
from interop.support.tunnels import ANY, PSK, TunnelTestCase, run


class Tap(Attacker):
    """
    Records the nonces of received frames.
    """

    def __init__(self) -> None:
        super().__init__(True, PSK)
        self._all = b""

    def dataReceived(self, data: bytes) -> None:
        self._all += data
        super().dataReceived(data)

    def prefixes(self) -> list[bytes]:
        """
        @return: the nonce prefix of each received frame.
        """
        found = []
        rest = self._all
        while len(rest) >= HEADER_SIZE:
            _, length, flag = FIELDS.unpack_from(rest)
            found.append(rest[FIELDS.size : FIELDS.size + 16])
            rest = rest[OVERHEAD + (length if flag == DATA else 0) :]
        return found


class PlainTests(TunnelTestCase):
    """
    C{GOMUX_PLAIN} takes effect in all test processes.  The wire shows it: only with the
    fast path do frames share a nonce prefix.
    """

    def choose(self, names: str) -> None:
        self.patch(os, "environ", {**os.environ, "GOMUX_PLAIN": names})

    async def countPrefixes(self, address: str, said: bytes) -> tuple[int, int]:
        """
        Connect to a server, and count the nonce prefixes and the frames that it sends.

        @param said: what to send on a stream, so that the server answers.
        @return: how many different prefixes and how many frames there were.
        """
        host, port = address.split(":")
        tap = Tap()
        endpoint = TCP4ClientEndpoint(reactor, host, int(port))
        await endpoint.connect(Factory.forProtocol(lambda: tap))
        tap.send(KEEPALIVE)
        await tap.untilFrame(KEEPALIVE)
        streamID = tap.open()
        tap.send(DATA, streamID, said)
        await tap.untilFrame(DATA, streamID)
        prefixes = tap.prefixes()
        tap.transport.loseConnection()
        await tap.lost
        return len(set(prefixes)), len(prefixes)

    async def assertObeys(self, address: str, said: bytes, plain: bool) -> None:
        prefixes, frames = await self.countPrefixes(address, said)
        self.assertGreaterEqual(frames, 2)
        self.assertEqual(prefixes, frames if plain else 1)

    async def test_peer(self) -> None:
        """
        The Twisted peer obeys C{GOMUX_PLAIN}.
        """
        for names, plain in (("constantPrefix", True), ("lastSubkey", False)):
            self.choose(names)
            peer = self.spawn("this", "--listen", "127.0.0.1:0", psk=PSK)
            await self.assertObeys(await peer.line("listening "), b"echo\nx", plain)

    async def test_twistd(self) -> None:
        """
        C{twistd gomux}, started by a live test, obeys C{GOMUX_PLAIN}.
        """
        for names, plain in (("constantPrefix", True), ("lastSubkey", False)):
            self.choose(names)
            service = self.service("--listen", ANY, "--factory", "gomux.PageFactory")
            address = await service.address("listen")
            await self.assertObeys(address, b"GET / HTTP/1.0\r\n\r\n", plain)

    async def test_here(self) -> None:
        """
        A process that imports a package of tests obeys C{GOMUX_PLAIN}.
        """
        for module in (
            "interop.support.harness",
            "interop.faults.cases",
            "interop.peers.soak_peer",
        ):
            self.choose("batches")
            program = f"import {module}; from gomux._fastpaths import fastPaths"
            path = os.pathsep.join(filter(None, sys.path))
            command = (sys.executable, "-c", f"{program}; print(fastPaths().batches)")
            printed, errors, _ = await run("env", f"PYTHONPATH={path}", *command)
            self.assertEqual(printed, b"False\n", errors.decode())
