"""
Check that test processes run without the fast paths that C{GOMUX_PLAIN} names.
"""

from __future__ import annotations

import os
import sys

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory

from interop.faults.attacker import DATA, Attacker
from interop.support.tunnels import ANY, PSK, TunnelTestCase, run


class PlainTests(TunnelTestCase):
    """
    C{GOMUX_PLAIN} takes effect in all test processes.  The wire shows it: only without
    the fast path is there credit for a few bytes.
    """

    def choose(self, names: str) -> None:
        self.patch(os, "environ", {**os.environ, "GOMUX_PLAIN": names})

    async def assertObeys(self, address: str, said: bytes, plain: bool) -> None:
        """
        Connect to a server, and look whether it gives credit at once.

        @param said: what to send on a stream, so that the server answers.
        @param plain: whether it should.
        """
        host, port = address.split(":")
        tap = Attacker(True, PSK)
        endpoint = TCP4ClientEndpoint(reactor, host, int(port))
        await endpoint.connect(Factory.forProtocol(lambda: tap))
        streamID = tap.open()
        tap.send(DATA, streamID, said)
        await tap.untilFrame(DATA, streamID)
        credit = tap.credit(streamID)
        tap.transport.loseConnection()
        await tap.lost
        self.assertEqual(credit, len(said) if plain else 0)

    async def test_peer(self) -> None:
        """
        The Twisted peer obeys C{GOMUX_PLAIN}.
        """
        for names, plain in (("batchedCredit", True), ("lastSubkey", False)):
            self.choose(names)
            peer = self.spawn("this", "--listen", "127.0.0.1:0", psk=PSK)
            await self.assertObeys(await peer.line("listening "), b"echo\nx", plain)

    async def test_twistd(self) -> None:
        """
        C{twistd gomux}, started by a live test, obeys C{GOMUX_PLAIN}.
        """
        for names, plain in (("batchedCredit", True), ("lastSubkey", False)):
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
