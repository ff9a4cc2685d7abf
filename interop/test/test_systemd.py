"""
C{twistd gomux} under systemd: the unit files in C{contrib/}, as systemd would run them.

No test needs systemd as the first process of the machine.  A test gives the process
what systemd would: the port, the environment, and a socket for notifications.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.wire import Echo

from gomux import Session
from gomux.error import PeerAbortedStream, PeerClosedConnection
from gomux.test.support.ports import freePort
from interop.support.harness import ROOT, TWISTD, environment
from interop.support.notified import Manager
from interop.support.tunnels import PSK, Service, TunnelTestCase, run, until

CONTRIB = ROOT / "contrib"

#: Runs its arguments as systemd runs a command: the variable has the process's own ID.
LAUNCHER = (
    "import os, sys; os.environ['LISTEN_PID'] = os.environ['WATCHDOG_PID'] ="
    " str(os.getpid()); os.execvp(sys.argv[1], sys.argv[1:])"
)


def unit(name: str = "gomux.service") -> str:
    """
    @return: the text of a unit file, with continued lines joined.
    """
    return (CONTRIB / name).read_text().replace("\\\n", " ")


def setting(name: str) -> str:
    """
    @return: the value of a setting of the service.
    """
    found = re.search(rf"^{name}=(.*)$", unit(), re.MULTILINE)
    assert found is not None
    return found[1]


class UnitTests(TunnelTestCase):
    """
    What systemd's own tools say of the unit files
    """

    async def test_verify(self) -> None:
        """
        C{systemd-analyze} finds nothing wrong, and little that the service may do.
        """
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        program = setting("ExecStart").split()[0]
        for name in ("gomux.service", "gomux.socket"):
            text = (CONTRIB / name).read_text().replace(program, sys.executable)
            (directory / name).write_text(text)
        path = str(directory / "gomux.service")
        output, errors, status = await run("systemd-analyze", "verify", path)
        self.assertEqual((output, errors, status), (b"", b"", 0))
        output, errors, status = await run(
            *("systemd-analyze", "security", "--offline=true", "--threshold=20", path)
        )
        self.assertEqual(status, 0, output + errors)

    async def test_activate(self) -> None:
        """
        C{systemd-socket-activate} starts the service with the first connection, which
        is served.
        """
        port = freePort()
        process = Service("systemd-socket-activate")
        command = [
            *("systemd-socket-activate", "-l", f"127.0.0.1:{port}"),
            *("--fdname=gomux", "-E", "PYTHONPATH", "-E", f"GOMUX_PSK={PSK}"),
            *TWISTD,
            *("-n", "--pidfile=", "gomux", "--listen", "systemd:domain=INET:index=0"),
            *("--factory", "interop.test.test_systemd.echo"),
        ]
        self.start(process, command, environment())
        await until(lambda: "Listening on" in process.log, "the tool listens")
        self.assertEqual(await ask(port), b"hello")


def echo() -> Factory:
    """
    @return: a factory for C{--factory}.
    """
    return Factory.forProtocol(Echo)


async def ask(port: int) -> bytes:
    """
    Connect a mux, have five bytes echoed on a stream, and close it.
    """
    carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", port, timeout=60)
    session = await Session.client(reactor, carrier, PSK)
    stream = await session.openStream()
    await stream.write(b"hello")
    answer = b""
    while len(answer) < 5 and (piece := await stream.read(5)):
        answer += piece
    await session.close()
    return answer


class RestartTests(TunnelTestCase):
    """
    The service of the unit file
    """

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp()).resolve()
        self.addCleanup(shutil.rmtree, self.directory)
        # systemd opens the port, and keeps it.
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.addCleanup(self.listener.close)
        self.port = self.listener.getsockname()[1]
        self.echo = reactor.listenTCP(0, echo(), interface="127.0.0.1")
        self.addCleanup(self.echo.stopListening)
        self.asked = self.turnedAway = 0
        self.failures: list[str] = []
        # As systemd 252 makes it if the file system has no access control lists, and
        # with the group's bit that such a list shows.
        self.credential = self.directory / "psk"
        self.credential.write_text(PSK + "\n")
        self.credential.chmod(0o440)

    async def begin(self, *options: str) -> tuple[Service, Manager]:
        """
        Start the command of the unit file, and wait until it is ready.
        """
        manager = Manager(self.directory)
        self.addCleanup(manager.close)
        text = setting("ExecStart").replace(
            "tcp:127.0.0.1:8000", f"tcp:127.0.0.1:{self.echo.getHost().port}"
        )
        variables = {
            **environment(),
            "NOTIFY_SOCKET": str(manager.path),
            "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": "gomux.socket",
            "WATCHDOG_USEC": "1000000",
            "CREDENTIALS_DIRECTORY": str(self.directory),
            "LOGS_DIRECTORY": str(self.directory),
        }
        variables.pop("GOMUX_PSK", None)
        words = [
            re.sub(r"\$\{(\w+)\}", lambda match: variables[match[1]], word)
            for word in shlex.split(text)[1:]
        ]
        service = Service("gomux.service")
        command = [sys.executable, "-c", LAUNCHER, *TWISTD, *words, *options]
        descriptors: Any = {0: "w", 1: "r", 2: "r", 3: self.listener.fileno()}
        reactor.spawnProcess(
            service, command[0], command, env=variables, childFDs=descriptors
        )
        self.addCleanup(self._reap, service)
        await manager.wait("READY=1")
        return service, manager

    async def askOn(self) -> None:
        """
        Ask again and again, each time over a new mux, until C{self.isOver}.
        """
        while not self.isOver:
            try:
                answer = await ask(self.port)
            except (PeerClosedConnection, PeerAbortedStream):
                # The old process had accepted this mux, and then had to stop: it said
                # so, and the peer connects again.
                self.turnedAway += 1
            except Exception as error:
                self.failures.append(repr(error))
            else:
                self.asked += 1
                if answer != b"hello":
                    self.failures.append(f"only {answer!r}")

    def beginAsking(self, count: int) -> None:
        """
        Ask on, some at the same time.
        """
        self.isOver = False
        self.addCleanup(self.finish)
        self.asking = [Deferred.fromCoroutine(self.askOn()) for _ in range(count)]

    async def finish(self) -> None:
        """
        Stop to ask.
        """
        self.isOver = True
        await gatherResults(self.asking)

    async def more(self, count: int = 50) -> None:
        """
        Wait until some more have been served.
        """
        wanted = self.asked + count
        await until(lambda: self.asked >= wanted, "connections are served")

    async def test_notifications(self) -> None:
        """
        The manager is told when the service is ready, alive, reloads and stops.
        """
        service, manager = await self.begin()
        await manager.wait("WATCHDOG=1")
        self.assertEqual(await ask(self.port), b"hello")
        service.signal("HUP")
        await manager.wait("RELOADING=1")
        self.assertRegex("\n".join(manager.lines), r"RELOADING=1\nMONOTONIC_USEC=\d+")
        await until(
            lambda: manager.receive().count("READY=1") == 2,
            "ready again",
        )
        service.signal("TERM")
        await manager.wait("STOPPING=1")
        self.assertEqual(await service.exitCode(), -signal.SIGTERM)
        self.assertIn('"end": "ok"', (self.directory / "access.log").read_text())

    async def test_beside(self) -> None:
        """
        A process that is started beside the old one takes over without a refused
        connection.  A connection of the old process goes on until its end.
        """
        old, _ = await self.begin()
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        session = await Session.client(reactor, carrier, PSK)
        stream = await session.openStream()
        await stream.write(b"before")
        self.assertEqual(await stream.read(6), b"before")
        self.beginAsking(4)
        await self.more()
        new, _ = await self.begin()
        await self.more()
        old.signal("TERM")
        await old.line("waiting up to ")
        await self.more()
        await stream.write(b"after")
        self.assertEqual(await stream.read(5), b"after")
        await session.close()
        self.assertEqual(await old.exitCode(), -signal.SIGTERM)
        await self.more()
        await self.finish()
        self.assertEqual(self.failures, [])
        self.assertLessEqual(self.turnedAway, 4)
        new.signal("TERM")

    async def test_after(self) -> None:
        """
        Connections that come while no process runs wait for the next, as during
        C{systemctl restart}.  None is refused.
        """
        old, _ = await self.begin()
        self.beginAsking(4)
        for _ in range(2):
            await self.more()
            old.signal("TERM")
            self.assertEqual(await old.exitCode(), -signal.SIGTERM)
            old, _ = await self.begin()
        await self.more()
        await self.finish()
        self.assertEqual(self.failures, [])
        self.assertLessEqual(self.turnedAway, 8)
