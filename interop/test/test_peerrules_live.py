# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
C{twistd gomux} holds each peer to the rules in its config, and to new rules after
SIGHUP.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.wire import Echo

from gomux import MuxFactory, MuxProtocol
from gomux.error import RequestRefused
from gomux.test.support.helpers import Recorder, Recorders
from interop.support.tunnels import ANY, TunnelTestCase, endpoint, until

KEYS = {"alice": "the pre-shared key of alice", "bob": "the pre-shared key of bob"}


class PeerRulesTests(TunnelTestCase):
    """
    The table C{[peer]} of a config
    """

    timeout = 60

    def rules(self, *lines: str) -> None:
        """
        Write the config.
        """
        name = f"127.0.0.1:{self.echo.getHost().port}"
        self.config.write_text(
            f'psk-file = "peers.keys"\nlisten = ["{ANY}"]\n'
            f'target = ["echo={endpoint(name)}", "{endpoint(name)}"]\n'
            + "\n".join(lines)
        )

    async def connect(self, name: str) -> MuxProtocol:
        """
        Connect a mux.
        """
        factory = MuxFactory(KEYS[name], True, clock=reactor)
        host, _, port = self.address.rpartition(":")
        carrier: Any = TCP4ClientEndpoint(reactor, host, int(port))
        mux: MuxProtocol = await carrier.connect(factory)
        self.addCleanup(self.close, mux)
        return mux

    async def close(self, mux: MuxProtocol) -> None:
        mux.abort()
        await mux.whenClosed()

    async def serves(self, mux: MuxProtocol, count: int) -> int:
        """
        Open streams for the service, all at once.

        @return: how many are served.  They stay open.
        """
        opened = [mux.openStream(Recorders(), "echo") for _ in range(count)]
        codes: list[str] = []

        def refused(failure: Any) -> None:
            failure.trap(RequestRefused)
            codes.append(failure.value.code)

        for each in opened:
            each.addErrback(refused)
        made = [each for each in await gatherResults(opened) if each is not None]
        self.assertEqual(set(codes) - {"busy"}, set())
        self.held += made
        for recorder in made:
            recorder.stream.write(b"x")
        await until(lambda: all(each.received for each in made), "the echoes")
        return len(made)

    async def test_rules(self) -> None:
        """
        Each peer has as many muxes, streams and connections as its rules say, and as
        many as the new rules say once the config was read again.
        """
        self.held: list[Recorder] = []
        listen: Any = reactor
        factory = Factory.forProtocol(Echo)
        self.echo = listen.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(self.echo.stopListening)
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        keys = directory / "peers.keys"
        keys.touch(0o600)
        keys.write_text("".join(f"{name}:{key}\n" for name, key in KEYS.items()))
        self.config = directory / "gomux.toml"
        self.rules(
            *("[peer.alice]", "max-streams = 10"),
            *('[peer."*"]', "max-connections = 5", "max-muxes = 2"),
        )
        service = self.service("--config", str(self.config), psk=None)
        self.address = await service.address("listen")
        first, second = [await self.connect("alice") for _ in range(2)]
        self.assertEqual(await self.serves(first, 4), 4)
        self.assertEqual(await self.serves(second, 20), 1)
        bob = await self.connect("bob")
        self.assertEqual(await self.serves(bob, 20), 5)
        third = await self.connect("alice")
        await third.whenClosed()
        says = "the peer has 2 muxes already"
        await until(lambda: says in service.log, says)

        self.rules("[peer.alice]", "max-streams = 8")
        os.kill(service.pid, signal.SIGHUP)
        await until(lambda: "read again" in service.log, "the new rules")
        self.assertEqual(await self.serves(first, 20), 3)
        self.assertEqual(await self.serves(bob, 20), 20)
        self.assertEqual(await self.serves(await self.connect("bob"), 20), 20)
        for recorder in self.held[:5]:
            recorder.stream.loseConnection()
        await until(lambda: all(each.reason for each in self.held[:5]), "the ends")
        self.assertEqual(await self.serves(second, 20), 5)
        self.assertNotIn("Traceback", service.log)
        self.assertIsNone(first.reason)
