"""
Several C{twistd gomux} processes behind HAProxy, with the configuration in C{contrib/}.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.wire import Echo
from twisted.python.failure import Failure

from gomux.test.support.ports import freePort
from interop.support.harness import ROOT, TWISTD, Peer, environment
from interop.support.notified import Manager
from interop.support.tunnels import ANY, PSK, Service, TunnelTestCase, run, until

#: How many muxes there are, and how many processes make them.
MUXES, CLIENTS = 2000, 2
#: How many connections stay open.
HELD = 60


def echo() -> Factory:
    """
    @return: a factory for C{--factory}.
    """
    return Factory.forProtocol(Echo)


class Asker(Protocol):
    """
    Has bytes echoed.
    """

    waiting: Deferred[bytes] | None = None
    lost = False

    def dataReceived(self, data: bytes) -> None:
        self._fire(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        self._fire(b"")

    def _fire(self, data: bytes) -> None:
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.callback(data)

    async def ask(self) -> bool:
        """
        @return: whether the connection is up.
        """
        if self.lost:
            return False
        self.waiting = Deferred()
        self.waiting.addTimeout(30, reactor)
        self.transport.write(b"?")
        return await self.waiting == b"?"


class ScaleTests(TunnelTestCase):
    """
    Muxes over four processes behind HAProxy
    """

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp()).resolve()
        self.addCleanup(shutil.rmtree, self.directory)
        self.isOver = False
        self.asked = self.failed = 0

    def begin(self, *options: str) -> tuple[Service, Manager]:
        """
        Start C{twistd gomux}, which tells its number of muxes at short intervals.
        """
        manager = Manager(self.directory)
        self.addCleanup(manager.close)
        variables = {
            **environment(),
            "GOMUX_PSK": PSK,
            "NOTIFY_SOCKET": str(manager.path),
            "WATCHDOG_USEC": "400000",
        }
        service = Service(options[1])
        command = [*TWISTD, "-n", "--pidfile=", "gomux", *options]
        self.start(service, command, variables)
        return service, manager

    async def balancer(self) -> list[tuple[int, int]]:
        """
        Start HAProxy.

        @return: the ports of each server: for muxes, and for its status.
        """
        self.control = self.directory / "haproxy.sock"
        self.port = freePort()
        text = (ROOT / "contrib" / "haproxy.cfg").read_text()
        text = text.replace("/run/haproxy/gomux.sock", str(self.control))
        text = text.replace("bind :7000", f"bind 127.0.0.1:{self.port}")
        ports = []
        for server in re.findall(r"server g\d .*", text):
            muxes, status = freePort(), freePort()
            ports.append((muxes, status))
            changed = re.sub(r":\d+", f":{muxes}", server)
            changed = re.sub(r"port \d+", f"port {status}", changed)
            text = text.replace(server, changed)
        path = self.directory / "haproxy.cfg"
        path.write_text(text)
        _, errors, status = await run("haproxy", "-c", "-f", str(path))
        self.assertEqual((errors, status), (b"", 0))
        self.start(Peer("haproxy"), ["haproxy", "-f", str(path)], dict(os.environ))
        await self.connects(self.port)
        return ports

    def command(self, text: str) -> str:
        """
        Give HAProxy a command.

        @return: its answer.
        """
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(10)
            control.connect(str(self.control))
            control.sendall(text.encode() + b"\n")
            return control.makefile().read()

    async def connect(self) -> Asker:
        """
        Connect through a tunnel.
        """
        port = self.forwards[self.asked % len(self.forwards)]
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        asker: Asker = await connectProtocol(endpoint, Asker())
        return asker

    async def askOnce(self) -> None:
        self.asked += 1
        asker = await self.connect()
        if not await asker.ask():
            self.failed += 1
        asker.transport.loseConnection()

    async def askOn(self) -> None:
        while not self.isOver:
            await self.askOnce()

    async def finish(self) -> None:
        self.isOver = True
        await gatherResults(self.asking)

    async def spread(self, *managers: Manager) -> list[int]:
        """
        Wait until all muxes are up.

        @return: how many each process has.
        """
        await until(
            lambda: sum(manager.muxes for manager in managers) == MUXES,
            f"{MUXES} muxes over {len(managers)} processes",
            seconds=60,
        )
        return [manager.muxes for manager in managers]

    async def together(self, calls: Any) -> list[Any]:
        return await gatherResults([Deferred.fromCoroutine(call) for call in calls])

    async def test_scale(self) -> None:
        """
        The muxes are spread evenly.  When a process is killed, its peers connect to the
        others.  When one is drained, its connections go on, and few new ones are
        refused.
        """
        ports = await self.balancer()
        started = [
            self.begin(
                *("--listen", f"haproxy:tcp:{muxes}:interface=127.0.0.1"),
                *("--status", f"tcp:{status}:interface=127.0.0.1"),
                *("--factory", "interop.test.test_scale.echo"),
            )
            for muxes, status in ports
        ]
        servers = [service for service, _ in started]
        managers = [manager for _, manager in started]
        for manager in managers:
            await manager.wait("READY=1")
        await until(
            lambda: self.command("show stat").count(",UP,") == 4, "the checks succeed"
        )
        self.forwards: list[int] = []
        times = [time.monotonic()]
        for client in range(1, CLIENTS + 1):
            connects = [
                f"--connect=tcp:127.0.0.1:{self.port}:timeout=30"
                f":bindAddress=127.{client}.{i // 250}.{i % 250 + 1}"
                for i in range(MUXES // CLIENTS)
            ]
            service, _ = self.begin("--forward", ANY, *connects)
            address = await service.address("forward")
            self.forwards.append(int(address.rpartition(":")[2]))
        counts = await self.spread(*managers)
        times.append(time.monotonic())
        self.assertGreater(min(counts), MUXES // 4 - MUXES // 20, counts)
        held = await self.together(self.connect() for _ in range(HELD))
        self.assertTrue(all(await self.together(asker.ask() for asker in held)))

        # One process is killed.
        servers[0].signal("KILL")
        times.append(time.monotonic())
        counts = await self.spread(*managers[1:])
        times.append(time.monotonic())
        self.assertGreater(min(counts), MUXES // 4, counts)
        await self.together(self.askOnce() for _ in range(200))
        self.assertEqual(self.failed, 0)
        answers = await self.together(asker.ask() for asker in held)
        held = [asker for asker, answer in zip(held, answers, strict=True) if answer]
        self.assertGreater(len(held), HELD // 3)

        # One is drained.
        self.asking = [Deferred.fromCoroutine(self.askOn()) for _ in range(4)]
        self.addCleanup(self.finish)
        example = (ROOT / "docs" / "examples" / "scale_drain.sh").read_text()
        self.assertEqual(self.command(example.split('"')[1]), "\n")
        os.kill(servers[1].pid, signal.SIGTERM)
        waiting = await servers[1].line("waiting up to ")
        self.assertTrue(all(await self.together(asker.ask() for asker in held)))
        times.append(time.monotonic())
        for asker in held:
            asker.transport.loseConnection()
        self.assertEqual(await servers[1].exitCode(), -signal.SIGTERM)
        counts = await self.spread(*managers[2:])
        times.append(time.monotonic())
        await self.finish()
        # A stream that is opened on a mux that just closes, or that still drains, is
        # refused: the wire cannot announce a drain.
        during, refused = self.asked - 200, self.failed
        self.assertGreater(during, 50)
        self.assertLess(refused, during / 10)
        await self.together(self.askOnce() for _ in range(200))
        self.assertEqual(self.failed, refused)
        for asker in held:
            asker.transport.abortConnection()
        up, killed, drained = (times[i + 1] - times[i] for i in (0, 2, 4))
        print(
            f"{MUXES} muxes up in {up:.1f} s; after a kill, again in {killed:.1f} s;"
            f" after a drain, in {drained:.1f} s ({waiting}); meanwhile {refused} of"
            f" {during} connections were refused"
        )
