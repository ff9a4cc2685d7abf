"""
Faults and abuse: what an operator does to a process, by signals, files and the clock.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.protocols.wire import Echo

from gomux.test.support.ports import freePort
from interop.faults.cases import CLIENT, SERVER, inBothRoles, row
from interop.support.harness import TWISTD, environment
from interop.support.tunnels import (
    ANY,
    PSK,
    Service,
    TunnelTestCase,
    endpoint,
    until,
)

#: Loaded at the start of a process: its wall clock is off by what a file says.
CLOCK = """
import os, time
real = time.time
def shifted():
    with open({path!r}) as file:
        return real() + float(file.read())
time.time = shifted
"""

#: The same bytes, in UTF-8 and in Latin-1, that no key should depend on.
KEYS = ("schl\u00fcssel aus mehr als 16 bytes".encode(), b"cl\xe9 de plus de 16 octets")


def ask(address: str, held: socket.socket | None = None) -> tuple[bool, socket.socket]:
    """
    Say something to an echo server.

    @param held: the connection to use; by default, a new one.
    @return: whether it came back within 5 seconds, and the connection.
    """
    if held is None:
        host, port = address.split(":")
        held = socket.create_connection((host, int(port)))
    held.settimeout(5)
    try:
        held.sendall(b"hello")
        return held.recv(5) == b"hello", held
    except OSError:
        return False, held


class Operated(TunnelTestCase):
    """
    A tunnel to an echo server, one end of which the operator handles.

    @ivar subject: that end.
    @ivar other: the other end.
    """

    pairing = SERVER

    async def tunnel(
        self,
        *options: str,
        flags: Sequence[str] = (),
        psk: str | None = PSK,
        path: Path | None = None,
    ) -> str:
        """
        Start the tunnel.

        @param options: options of the subject.
        @param flags: options of the C{twistd} that runs the subject.
        @param psk: the subject's key in the environment.
        @param path: a directory whose modules the subject finds first.
        @return: the address of the tunnel's entrance.
        """
        target = self.echoServer()
        muxes = f"127.0.0.1:{freePort()}"
        listen = f"tcp:{muxes.split(':')[1]}:interface=127.0.0.1"
        entrance = freePort()
        roles = {
            SERVER: ["--listen", listen, "--target", target],
            CLIENT: [
                *("--connect", endpoint(muxes)),
                *("--forward", f"tcp:{entrance}:interface=127.0.0.1"),
            ],
        }
        role = roles.pop(self.pairing)
        variables = environment()
        variables.pop("GOMUX_PSK", None)
        if psk is not None:
            variables["GOMUX_PSK"] = psk
        if path is not None:
            variables["PYTHONPATH"] = os.pathsep.join(
                [str(path), variables.get("PYTHONPATH", "")]
            )
        command = [*TWISTD, "-n", "--pidfile=", *flags, "gomux", *role, *options]
        self.subject = self.start(Service("subject"), command, variables)
        [rest] = roles.values()
        self.other = self.service(*rest)
        # Before that, a signal ends the process.
        if self.pairing == SERVER:
            await self.subject.address("listen", listen)
        await self.connects(entrance)
        return f"127.0.0.1:{entrance}"

    def echoServer(self) -> str:
        """
        @return: the endpoint string of an echo server.
        """
        port = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return endpoint(f"127.0.0.1:{port.getHost().port}")

    def ask(
        self, address: str, held: socket.socket | None = None
    ) -> Deferred[tuple[bool, socket.socket]]:
        return deferToThread(ask, address, held)

    async def assertGoesOn(self, address: str, held: socket.socket) -> None:
        """
        A connection that is open goes on, and new ones are answered.
        """
        for connection in (held, None, None):
            answered, used = await self.ask(address, connection)
            self.assertTrue(answered)
            if used is not held:
                used.close()

    def keyFile(self, *content: bytes, mode: int = 0o600) -> Path:
        path = Path(self.mktemp()).resolve()
        path.touch(mode)
        path.write_bytes(b"\n".join([*content, b""]))
        path.chmod(mode)
        return path


@inBothRoles
class Clock(Operated):
    """
    The system's clock.
    """

    @row(52)
    async def test_steps(self) -> None:
        """
        While the wall clock is set back and forward, by a second up to a day, open
        connections go on, new ones are answered, and connections that are reset at once
        end no mux.
        """
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        offset = directory / "offset"
        offset.write_text("0")
        (directory / "sitecustomize.py").write_text(CLOCK.format(path=str(offset)))
        address = await self.tunnel(path=directory)
        answered, held = await self.ask(address)
        self.assertTrue(answered)
        for step in (-1, 1, -60, 60, -86400, 86400, 0):
            new = directory / "new"
            new.write_text(str(step))
            new.rename(offset)
            host, port = address.split(":")
            for _ in range(3):
                with socket.create_connection((host, int(port))) as probe:
                    linger = b"\1\0\0\0\0\0\0\0"
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            await self.assertGoesOn(address, held)
        held.close()
        for service in (self.subject, self.other):
            self.assertNotIn("ended", service.log)


@inBothRoles
class Signals(Operated):
    """
    Every signal twice, at any moment.
    """

    @row(70)
    async def test_running(self) -> None:
        """
        SIGHUP ends nothing, with and without a key file, however often it comes.
        """
        for options, psk, says in (
            (("--psk-file", str(self.keyFile(PSK.encode()))), None, "read again"),
            ((), PSK, "nothing to read again"),
        ):
            address = await self.tunnel(*options, psk=psk)
            _, held = await self.ask(address)
            for _ in range(20):
                self.subject.signal("HUP")
            await until(lambda says=says: says in self.subject.log, says)
            await self.assertGoesOn(address, held)
            held.close()
            self.assertNotIn("Traceback", self.subject.log)

    @row(70)
    async def test_draining(self) -> None:
        """
        During the drain SIGHUP is only logged.  A second signal to stop ends the drain
        at once: connections are reset, and the process ends as the first signal says.
        """
        for first, second in (("TERM", "TERM"), ("INT", "TERM"), ("TERM", "INT")):
            address = await self.tunnel()
            _, held = await self.ask(address)
            self.subject.signal(first)
            await self.subject.line("waiting up to 30 seconds for ")
            self.subject.signal("HUP")
            await self.subject.line("SIGHUP: ignored")
            answered, _ = await self.ask(address, held)
            self.assertTrue(answered)
            began = time.monotonic()
            for _ in range(3):
                self.subject.signal(second)
            status = await self.subject.exitCode()
            self.assertLess(time.monotonic() - began, 10)
            self.assertEqual(status, -getattr(signal, f"SIG{first}"))
            self.assertRaises(ConnectionResetError, held.recv, 1)
            held.close()
            self.assertIn(f"SIG{second} again", self.subject.log)
            self.assertNotIn("Traceback", self.subject.log)
            self.other.signal("KILL")


class Starts(Operated):
    """
    Starts that fail, and starts with any key.
    """

    @row(69)
    async def test_cannotListen(self) -> None:
        """
        A start that fails gives its reason in the log and an exit status that is not 0,
        daemonised, in the foreground and under C{twist}; no pid file is left.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            busy = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            for place in (busy, "tcp:0:interface=192.0.2.1"):
                await self.failsToListen(place, [*TWISTD], "daemon")
                await self.failsToListen(place, [*TWISTD, "-n"], "foreground")
                twist = [sys.executable, "-m", "twisted"]
                await self.failsToListen(place, twist, "twist")

    async def failsToListen(self, place: str, command: list[str], name: str) -> None:
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        log, pid = directory / "log", directory / "pid"
        if name != "twist":
            command = [*command, f"--pidfile={pid}"]
        if name == "daemon":
            command = [*command, f"--logfile={log}"]
        variables = {**environment(), "GOMUX_PSK": PSK}
        command = [*command, "gomux", "--listen", place]
        service = self.start(Service(name), command, variables)
        self.assertNotIn(await service.exitCode(), (0, None))

        def text() -> str:
            return log.read_text() if name == "daemon" else service.log

        # The process that daemonises ends before the daemon does.
        await until(lambda: f"--listen {place}: " in text(), name)
        await until(lambda: not pid.exists(), "no pid file")
        self.assertNotIn("Traceback", text())

    @row(68)
    async def test_bytes(self) -> None:
        """
        The same bytes are the same key by file, by environment and by command line, in
        any locale.
        """
        for locale in ("C", "C.UTF-8", "POSIX"):
            for key in KEYS:
                text = os.fsdecode(key)
                for options, psk in (
                    (("--psk-file", str(self.keyFile(key))), None),
                    (("--psk", text), None),
                    ((), text),
                ):
                    await self.letsIn(key, locale, options, psk)

    async def letsIn(
        self, key: bytes, locale: str, options: Sequence[str], psk: str | None
    ) -> None:
        """
        A tunnel whose two ends have one key, each from another place, works.
        """
        variables = environment()
        variables["LC_ALL"] = locale
        variables.pop("GOMUX_PSK", None)
        target = self.echoServer()
        command = [*TWISTD, "-n", "--pidfile=", "gomux"]
        server = self.start(
            Service("server"),
            [*command, "--listen", ANY, "--target", target]
            + ["--psk-file", str(self.keyFile(key))],
            variables,
        )
        muxes = endpoint(await server.address("listen"))
        client = self.start(
            Service("client"),
            [*command, "--connect", muxes, "--forward", ANY, *options],
            variables if psk is None else {**variables, "GOMUX_PSK": psk},
        )
        answered, held = await self.ask(await client.address("forward"))
        held.close()
        self.assertTrue(answered, (locale, options))
        for service in (server, client):
            service.signal("TERM")
            await service.exitCode()
            self.assertNotIn("Traceback", service.log)


@inBothRoles
class Keys(Operated):
    """
    Key files and the bytes of keys.
    """

    def changeKeys(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        self.subject.signal("HUP")

    @row(67)
    async def test_unusable(self) -> None:
        """
        After a reload of a file that is cut short, empty, gone, a directory, a pipe or
        readable by others, the keys are as before and the log says why.
        """
        path = self.keyFile(PSK.encode())
        address = await self.tunnel("--psk-file", str(path), psk=None)
        _, held = await self.ask(address)

        def truncate() -> None:
            path.write_bytes(b"[keyring]\na:" + PSK.encode()[:9])

        for spoil, says in (
            (truncate, "ends in the middle of a line"),
            (lambda: path.write_bytes(b""), "has no pre-shared key"),
            (lambda: path.chmod(0o644), "others can read"),
            (path.unlink, "No such file"),
            (path.mkdir, "Is a directory"),
            (lambda: (path.rmdir(), os.mkfifo(path, 0o600)), "not a regular file"),
        ):
            spoil()
            self.subject.signal("HUP")
            await until(lambda says=says: says in self.subject.log, says)
        await self.assertGoesOn(address, held)
        held.close()
        self.assertNotIn("Traceback", self.subject.log)
        self.assertNotIn(PSK[:9], self.subject.log)

    @row(67)
    async def test_moved(self) -> None:
        """
        A relative path is relative to the directory of the start, also with
        C{--rundir}.  A file that is swapped by a symbolic link or a rename is read
        again, also under C{--uid} if the new user's group may read it.
        """
        directory = Path(tempfile.mkdtemp()).resolve()
        self.addCleanup(shutil.rmtree, directory)
        directory.chmod(0o711)
        run = directory / "run"
        run.mkdir()
        flags = [f"--rundir={run}"]
        path, link = directory / "key", directory / "link"
        user = pwd.getpwnam("nobody")
        isRoot = os.geteuid() == 0
        if isRoot:
            flags.append(f"--uid={user.pw_uid}")

        def write(path: Path) -> Path:
            path.write_bytes(PSK.encode() + b"\n")
            path.chmod(0o640)
            if isRoot:
                os.chown(path, 0, user.pw_gid)
            return path

        def rename() -> None:
            write(directory / "new").rename(path)

        def swap() -> None:
            other = directory / "other"
            other.symlink_to(write(directory / "elsewhere"))
            other.rename(link)

        link.symlink_to(write(path).name)
        await self.tunnel(*("--psk-file", os.path.relpath(link)), flags=flags, psk=None)
        for count, change in enumerate((rename, swap), 1):
            change()
            self.subject.signal("HUP")
            await until(
                lambda count=count: self.subject.log.count("read again") == count,
                "the keys are read again",
            )
        self.assertNotIn("stay as they are", self.subject.log)
