# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for the code in the documentation.  All of it is in files in C{docs/examples},
which these tests run.

Only port numbers and host names are replaced: the printed ports may be in use, and the
hosts are this machine.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.task import Clock
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

import gomux.error
from gomux import Limits
from gomux._fastpaths import FastPaths
from gomux._wire.request import CODES
from gomux.test.support.ports import freePort
from gomux.tunnel import TunnelLimits
from gomux.tunnel._accesslog import AccessLog
from gomux.tunnel._codes import MUX_LOST, OK, RESET_BY_CLIENT, RESET_BY_TARGET

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
EXAMPLES = DOCS / "examples"

#: Folders of a checkout that are not part of it, as in C{.gitignore}.
GENERATED = (
    *("_trial_temp*", "*.egg-info", "__pycache__", "build", "dist", "htmlcov"),
    *("fuzz-*-*", "venv"),
)

#: How long anything may take, in seconds.
PATIENCE = 30

#: C{trial}; as C{-m twisted.trial}, an old Twisted needs setuptools.
TRIAL = "from twisted.scripts.trial import run; run()"

_port = re.compile(r"\b(220[12]|2500|2525|514[01]|700[012]|8000|808[01]|9100)\b")


class DocsTestCase(SynchronousTestCase):
    """
    Provides a directory with a pre-shared key, in which examples run.
    """

    if not DOCS.is_dir():
        skip = "the documentation is in the source distribution only"

    def setUp(self) -> None:
        self.ports: dict[str, int] = {}
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir(parents=True)
        self.psk = self.directory / "gomux.psk"
        self.psk.write_text("a pre-shared key for this test\n")
        self.psk.chmod(0o600)

    def port(self, printed: str) -> int:
        """
        @return: the free port that replaces a printed port.
        """
        if printed not in self.ports:
            self.ports[printed] = freePort()
        return self.ports[printed]

    def text(self, name: str) -> str:
        """
        @return: the text of an example, with this machine's ports and names.
        """
        text = (EXAMPLES / name).read_text()
        text = text.replace("a.example", "127.0.0.1").replace("b.example", "127.0.0.1")
        text = text.replace("PYTHONPATH=.", f"PYTHONPATH=.:{DOCS.parent}")
        return _port.sub(lambda match: str(self.port(match[0])), text)

    def start(self, name: str, listensOn: str | None = None) -> subprocess.Popen[str]:
        """
        Start an example in its own directory.

        @param listensOn: the printed port that the example listens on.
        """
        directory = self.directory / name.replace(".", "-")
        directory.mkdir()
        for kind in ("*.psk", "*.keys", "*.toml"):
            for path in self.directory.glob(kind):
                shutil.copy2(path, directory)
        shutil.copy2(EXAMPLES / "service.py", directory)
        (directory / "public").mkdir()
        (directory / "public" / "hello.txt").write_text("hello from a file\n")
        process = self.execute(name, self.text(name), directory)
        if listensOn is not None:
            self.waitFor(self.port(listensOn), process)
        return process

    def execute(self, name: str, text: str, directory: Path) -> subprocess.Popen[str]:
        """
        Start an example.

        @param text: the text of the example.
        @param directory: where to start it.
        """
        (directory / name).write_text(text)
        programs = os.path.dirname(sys.executable)
        process = subprocess.Popen(
            [sys.executable, name] if name.endswith(".py") else ["sh", "-eu", name],
            cwd=directory,
            env={
                **os.environ,
                "PATH": os.pathsep.join([programs, os.environ["PATH"]]),
                "PYTHONPATH": str(DOCS.parent),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.addCleanup(self.stop, process)
        return process

    def stop(self, process: subprocess.Popen[str]) -> None:
        """
        End an example and the processes that it started.
        """
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdout is not None and not process.stdout.closed:
            process.communicate()

    def waitFor(self, port: int, process: subprocess.Popen[str]) -> None:
        """
        Wait until a process listens on a port.
        """
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        self.fail(f"nothing listens on {port}: {output}")

    def waitForLine(self, process: subprocess.Popen[str], text: str) -> None:
        """
        Wait until a line of an example's output contains a text.
        """
        assert process.stdout is not None
        for line in process.stdout:
            if text in line:
                return
        self.fail(f"the output ended without {text}")

    def run_(self, name: str, directory: Path | None = None) -> str:
        """
        Run an example until it ends.

        @param directory: where to run it; by default in its own directory.
        @return: its output.
        """
        if directory is None:
            process = self.start(name)
        else:
            process = self.execute(name, self.text(name), directory)
        output, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 0, output)
        return output

    def printed(self, page: str, before: str) -> str:
        """
        @param before: the text in front of the output.
        @return: the output that a page prints.
        """
        text = (DOCS / "howto" / page).read_text()
        printed = text.partition(f"{before}::\n\n")[2].partition("\n\n")[0]
        return "".join(f"{line.strip()}\n" for line in printed.splitlines())

    def get(self, port: int, path: str = "hello.txt") -> bytes:
        """
        Fetch a file by HTTP, once the tunnel is up.

        @return: the file; nothing if the connection is reset.
        """
        request = f"GET /{path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode()
        answer = b""
        # A reset may come before connecting has succeeded.
        with (
            contextlib.suppress(ConnectionResetError, BrokenPipeError),
            socket.create_connection(("127.0.0.1", port), PATIENCE) as connection,
        ):
            connection.sendall(request)
            while piece := connection.recv(65536):
                answer += piece
        return answer.partition(b"\r\n\r\n")[2]

    def site(self, printed: str = "8000", text: str = "hello from a file") -> None:
        """
        Serve a file on the target's port.

        @param printed: the printed port.
        @param text: the text of the file.
        """
        public = self.directory / f"public-{printed}"
        public.mkdir()
        (public / "hello.txt").write_text(f"{text}\n")
        server = subprocess.Popen(
            [sys.executable, "-m", "http.server", "--bind", "127.0.0.1"]
            + [str(self.port(printed))],
            cwd=public,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.addCleanup(self.stop, server)
        self.waitFor(self.port(printed), server)


class ProgramTests(DocsTestCase):
    """
    The example programs
    """

    def test_genpsk(self) -> None:
        """
        The command makes a new key file that other users cannot read.
        """
        self.psk.write_text("")
        process = self.start("genpsk.sh")
        output, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, output), (0, ""))

    def test_keyFile(self) -> None:
        """
        The key file that the example makes is accepted.
        """
        self.psk.unlink()
        shutil.copy2(EXAMPLES / "genpsk.sh", self.directory)
        subprocess.run(
            ["sh", "-eu", "genpsk.sh"],
            cwd=self.directory,
            check=True,
            env={
                **os.environ,
                "PATH": os.pathsep.join(
                    [os.path.dirname(sys.executable), os.environ["PATH"]]
                ),
                "PYTHONPATH": str(DOCS.parent),
            },
        )
        self.assertEqual(self.psk.stat().st_mode & 0o777, 0o600)
        self.assertGreater(len(self.psk.read_text()), 40)

    def test_echoTCP(self) -> None:
        """
        The first server of the tutorial, over TCP, echoes.
        """
        self.start("echo_tcp.py", "7000")
        with socket.create_connection(("127.0.0.1", self.port("7000"))) as connection:
            connection.settimeout(PATIENCE)
            connection.sendall(b"hello")
            self.assertEqual(connection.recv(100), b"hello")

    def test_echoMux(self) -> None:
        """
        The last server of the tutorial, over a mux, echoes to all of its clients.
        """
        before, after = (
            (EXAMPLES / name).read_text().splitlines()
            for name in ("echo_tcp.py", "echo_mux.py")
        )
        self.assertEqual(sum(map(str.__ne__, before, after)), 1)
        self.start("echo_mux.py", "7000")
        self.assertEqual(self.run_("hello.py"), "b'hello'\n")
        self.assertEqual(self.run_("asyncio_task.py"), "b'hello'\n")
        self.assertEqual(self.run_("deadline.py"), "nothing came\nb'and now?' b''\n")

    def test_config(self) -> None:
        """
        The example of a config is valid, and does what its comments say.
        """
        keys = self.directory / "peers.keys"
        keys.write_text("alice:the key of alice for tests\nbob:the key of bob, also\n")
        keys.chmod(0o600)
        shutil.copy2(EXAMPLES / "gomux.toml", self.directory)
        process = self.start("config_check.sh")
        output, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 0, output)
        for line in (
            "accept muxes at tcp:7000",
            "as streams to alice for the service web",
            "connect the peers' streams for the service mail to tcp:localhost:25",
            "alice: may use mail, page, streams without a service; strict mode; ",
            "where a peer has no rule of its own: may use page; max-muxes 4; ",
            "max-streams 1000",
            "SIGHUP reads the config and the pre-shared keys again.",
        ):
            self.assertIn(line, output)
        (self.directory / "gomux.toml").write_text(self.text("gomux.toml"))
        self.start("config_run.sh", "7000")

    def test_web(self) -> None:
        """
        A site is served over TCP and over a mux.
        """
        self.start("web.py", "8000")
        self.assertEqual(self.get(self.port("8000")), b"hello from a file\n")
        self.assertEqual(self.run_("fetch.py"), "200 18\n")

    def test_endpoints(self) -> None:
        """
        The program that uses both endpoints works.
        """
        self.assertEqual(
            self.run_("endpoints_python.py"), "from 127.0.0.1\nb'hello'\n" * 3
        )

    def test_services(self) -> None:
        """
        Two services of one process are used over one mux, and a third is unknown.
        """
        directory = self.directory / "machine"
        directory.mkdir()
        self.run_("services_setup.sh", directory)
        name = "services_server.py"
        server = self.execute(name, self.text(name), directory)
        self.waitFor(self.port("7000"), server)
        expected = self.printed("services.rst", "the client prints")
        self.assertEqual(self.run_("services_client.py", directory), expected)
        self.assertEqual(expected.count("\n"), 3)

    def test_servicesTwistd(self) -> None:
        """
        The command line serves the service that the rule allows.
        """
        self.start("services_twistd.sh", "7000")
        client = self.text("services_client.py")
        self.assertIn('"echo"', client)
        process = self.start("services_client.py")
        output, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual(output.splitlines()[0], "b'hello'")
        self.assertIn("gomux.error.ServiceNotAllowed", output)

    def test_servicesPython(self) -> None:
        """
        The program in which peers may use different services prints what the page
        says.
        """
        expected = self.printed("services.rst", "It prints")
        self.assertEqual(self.run_("services_python.py"), expected)
        self.assertEqual(expected.count("\n"), 6)

    def test_peersRules(self) -> None:
        """
        The program in which peers have rules prints what the page says.
        """
        expected = self.printed("peers.rst", "It prints")
        self.assertEqual(self.run_("peers_rules.py"), expected)
        self.assertEqual(expected.count("\n"), 3)

    def test_callback(self) -> None:
        """
        The program whose listening side opens the streams works.
        """
        self.assertEqual(self.run_("callback.py"), "b'hello, inside'\n")

    def test_sessionServer(self) -> None:
        """
        The session server, written with coroutines, works.
        """
        server = self.start("session_server.py", "7000")
        self.assertEqual(self.run_("hello.py"), "b'hello'\n")
        assert server.stdout is not None
        self.assertEqual(
            server.stdout.readline(), "127.0.0.1: The peer closed the mux.\n"
        )

    def test_silentClients(self) -> None:
        """
        A server that opens the first stream works with a peer that sends nothing.
        """
        server = self.start("silent_clients.py")
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                peer = socket.create_connection(("127.0.0.1", self.port("7000")))
                break
            except OSError:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)
        with peer:
            peer.settimeout(PATIENCE)
            # OpenStream, and Data of 9 bytes.
            received = b""
            while len(received) < 52 + 52 + 9:
                received += peer.recv(1000)
        output, _ = server.communicate(timeout=PATIENCE)
        self.assertIn("NeverAuthenticated", output)

    def test_testing(self) -> None:
        """
        The example tests, with muxes in memory, pass.
        """
        shutil.copy2(EXAMPLES / "test_counter.py", self.directory)
        done = subprocess.run(
            [sys.executable, "-c", TRIAL, "test_counter"],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(DOCS.parent)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        self.assertIn("PASSED (successes=3)", done.stdout, done.stdout + done.stderr)


class TunnelTests(DocsTestCase):
    """
    The example command lines
    """

    def test_forward(self) -> None:
        """
        A tunnel to a target behind the listening side works.
        """
        self.site()
        self.start("tunnel_a.sh", "7000")
        self.start("tunnel_b.sh", "8080")
        self.assertEqual(self.get(self.port("8080")), b"hello from a file\n")

    def test_debugging(self) -> None:
        """
        A peer can be pinged, and its target reached without a port.
        """
        self.site()
        self.start("tunnel_a.sh", "7000")
        self.assertIn("key: right\n", self.run_("ping.sh"))
        self.assertIn("hello from a file\n", self.run_("pipe.sh"))

    def test_services(self) -> None:
        """
        A tunnel carries a service by its name, beside another one.
        """
        self.site()
        self.start("services_a.sh", "7000")
        self.start("services_b.sh", "8080")
        self.assertEqual(self.get(self.port("8080")), b"hello from a file\n")
        process = self.start("services_client.py")
        output, _ = process.communicate(timeout=PATIENCE)
        self.assertIn("b'hello'", output)

    def test_reverse(self) -> None:
        """
        A tunnel to a target behind the connecting side works.
        """
        self.site()
        # Not C{waitFor}: a probe of the mux's port might be given a stream.
        self.waitForLine(self.start("reverse_b.sh"), "--forward")
        self.start("reverse_a.sh")
        self.assertEqual(self.get(self.port("8080")), b"hello from a file\n")

    def test_status(self) -> None:
        """
        The operator's port is where Prometheus looks for it, and has the metrics that
        the alerts are about.
        """
        self.start("status_server.sh", "9100")
        config = self.text("status_prometheus.yml")
        self.assertIn(f"localhost:{self.port('9100')}", config)
        metrics = self.get(self.port("9100"), "metrics").decode()
        alerts = re.findall(r"gomux_\w+", self.text("status_alerts.yml"))
        self.assertGreater(len(alerts), 5)
        for name in alerts:
            self.assertRegex(metrics, rf"(?m)^{name}[ {{]")

    def test_factory(self) -> None:
        """
        A factory serves the streams of a tunnel.
        """
        self.start("factory.sh", "7000")
        self.assertEqual(self.run_("hello.py"), "b'hello'\n")


class PeersTests(DocsTestCase):
    """
    The examples of several peers
    """

    def peer(self, name: str, ports: str) -> Path:
        """
        Start a peer with its key, on a machine of its own.  So all peers print the same
        ports.

        @param ports: the ports to print instead, for the web site, mail and log.
        @return: its directory.
        """
        directory = self.directory / name
        directory.mkdir()
        shutil.copy2(self.directory / f"{name}.psk", directory)
        text = (EXAMPLES / "peers_alice.sh").read_text().replace("alice", name)
        for printed, own in zip(("8000", "2500", "5141"), ports.split(), strict=True):
            text = text.replace(printed, str(self.port(own)))
        text = text.replace("7000", str(self.port("7000")))
        process = self.execute(
            "peer.sh", text.replace("b.example", "127.0.0.1"), directory
        )
        self.waitFor(self.port(ports.split()[2]), process)
        return directory

    def fetch(self, printed: str) -> str:
        """
        @return: the first word of the file that a port gives; empty if it resets the
            connection.
        """
        return self.get(self.port(printed)).decode().partition(" ")[0].strip()

    def test_life(self) -> None:
        """
        Two peers are told apart, and may use different services.  Then one gets another
        key, and the other loses his, while both are connected.
        """
        for port, text in (("8000", "alices"), ("8001", "bobs"), ("2525", "mail")):
            self.site(port, text)
        self.site("5140", "log")
        self.run_("peers_keys.sh", self.directory)
        process = self.start("peers_gateway.sh", "8081")
        gateway = self.directory / "peers_gateway-sh"
        alice = self.peer("alice", "8000 2500 5141")
        self.peer("bob", "8001 2501 5142")
        self.assertEqual(self.fetch("8080"), "alices")
        self.assertEqual(self.fetch("8081"), "bobs")
        self.assertEqual([self.fetch("2500"), self.fetch("5141")], ["mail", "log"])
        self.assertEqual([self.fetch("2501"), self.fetch("5142")], ["", "log"])
        # The key is exchanged.
        self.run_("peers_newkey.sh", gateway)
        self.waitForLine(process, "were read again")
        shutil.copy2(gateway / "alice.psk", alice)
        os.kill(int((alice / "twistd.pid").read_text()), signal.SIGHUP)
        self.assertEqual([self.fetch("8080"), self.fetch("2500")], ["alices", "mail"])
        before = (gateway / "peers.keys").read_text()
        self.run_("peers_oldkey.sh", gateway)
        self.waitForLine(process, "were read again")
        after = (gateway / "peers.keys").read_text()
        self.assertEqual(before.count("alice:"), 2)
        self.assertEqual(after.count("alice:"), 1)
        self.assertIn(f"alice:{(alice / 'alice.psk').read_text()}", after)
        self.assertEqual(self.fetch("8080"), "alices")
        # The key of the other is revoked.
        self.run_("peers_revoke.sh", gateway)
        self.waitForLine(process, "no key has the name 'bob' now")
        self.assertEqual([self.fetch("8081"), self.fetch("5142")], ["", ""])
        self.assertEqual([self.fetch("8080"), self.fetch("2500")], ["alices", "mail"])

    def test_hub(self) -> None:
        """
        A process that connects to several peers has a key for each.
        """
        self.run_("peers_keys.sh", self.directory)
        for name, listens, site in (("alice", "7001", "8000"), ("bob", "7002", "8001")):
            self.site(site, name)
            self.execute(
                f"{name}.sh",
                f"twistd -n --pidfile= gomux --psk-file {name}.psk"
                f" --listen tcp:{self.port(listens)}"
                f" --target tcp:127.0.0.1:{self.port(site)}",
                self.directory,
            )
        self.start("peers_hub.sh", "2202")
        self.assertEqual([self.fetch("2201"), self.fetch("2202")], ["alice", "bob"])


class OperatorTests(DocsTestCase):
    """
    The example commands for operators
    """

    def test_accessMembers(self) -> None:
        """
        The page about the access log has each member of a line, and each way to end.
        """
        page = (DOCS / "howto" / "accesslog.rst").read_text()
        listed = re.findall(r"^``([\w-]+)``  +\S", page, re.MULTILINE)
        log = AccessLog(str(self.directory / "access.log"), Clock())
        log.open()
        log.add(None, None, None, None, 0, 0, 0.0, "ok", None)
        log.close()
        line = json.loads((self.directory / "access.log").read_text())
        ends = (OK, RESET_BY_CLIENT, RESET_BY_TARGET, MUX_LOST, *CODES)
        self.assertEqual(listed, [*line, *ends])

    def test_systemdRestart(self) -> None:
        """
        The commands start one instance before they stop the other.  What they do to the
        process is tested in C{interop/test/test_systemd.py}.
        """
        (self.directory / "systemctl").write_text('#!/bin/sh\necho "$@"\n')
        (self.directory / "systemctl").chmod(0o755)
        done = subprocess.run(
            ["sh", "-eu", str(EXAMPLES / "systemd_restart.sh")],
            env={"PATH": f"{self.directory}:{os.environ['PATH']}"},
            check=True,
            capture_output=True,
        )
        self.assertEqual(done.stdout, b"start gomux@b.service\nstop gomux@a.service\n")

    def test_scaleDrain(self) -> None:
        """
        The commands tell the balancer first.  What HAProxy does is tested in
        C{interop/test/test_scale.py}.
        """
        for name, text in (("systemctl", 'echo "$@"'), ("socat", "cat")):
            (self.directory / name).write_text(f"#!/bin/sh\n{text}\n")
            (self.directory / name).chmod(0o755)
        done = subprocess.run(
            ["sh", "-eu", str(EXAMPLES / "scale_drain.sh")],
            env={"PATH": f"{self.directory}:{os.environ['PATH']}"},
            check=True,
            capture_output=True,
        )
        self.assertEqual(
            done.stdout, b"set server gomux/g2 state drain\nstop gomux@2.service\n"
        )

    def test_logrotate(self) -> None:
        """
        The configuration for logrotate sends the signal on which the file is opened
        again.
        """
        text = (DOCS.parent / "contrib" / "gomux.logrotate").read_text()
        self.assertRegex(text, r"postrotate\n.*--signal=USR1 gomux.service\n")


class EndpointStringTests(DocsTestCase):
    """
    The example endpoint strings
    """

    def strings(self, name: str) -> list[str]:
        """
        @return: the strings of an example file, with a key file that exists.
        """
        text = (EXAMPLES / name).read_text()
        return text.replace("/etc/gomux.psk", str(self.psk)).split()

    def test_clients(self) -> None:
        """
        Each client string makes a client endpoint.
        """
        for description in self.strings("endpoints_client.txt"):
            self.assertTrue(clientFromString(Clock(), description))

    def test_servers(self) -> None:
        """
        Each server string makes a server endpoint.
        """
        for description in self.strings("endpoints_server.txt"):
            self.assertTrue(serverFromString(Clock(), description))


class PageTests(DocsTestCase):
    """
    The pages of the documentation
    """

    def pages(self) -> dict[str, str]:
        """
        @return: the text of each page, by its name.
        """
        return {
            str(path.relative_to(DOCS)): path.read_text()
            for path in DOCS.rglob("*.rst")
            if "_build" not in path.parts
        }

    def test_onlyExamples(self) -> None:
        """
        All code on a page is in an example file, or in a file in C{contrib}.  Each
        example file is shown on a page and run by a test.
        """
        live = (DOCS.parent / "interop" / "test").glob("test_*.py")
        tests = "".join(path.read_text() for path in (Path(__file__), *live))
        included = set()
        for name, text in self.pages().items():
            self.assertNotRegex(text, r"\.\. (code-block|code|sourcecode)::", name)
            for path in re.findall(r"\.\. literalinclude:: (\S+)", text):
                file = ((DOCS / name).parent / path).resolve()
                self.assertTrue(file.is_file(), f"{name}: {path}")
                if file.parent != EXAMPLES.parent.parent / "contrib":
                    included.add(file)
        self.assertEqual(included, {p for p in EXAMPLES.rglob("*") if p.is_file()})
        for example in included:
            # interop/test/test_guide.py runs the examples of the guide.
            if EXAMPLES / "operator" not in example.parents:
                self.assertIn(f'"{example.name}"', tests)

    def test_limits(self) -> None:
        """
        Each limit is documented.
        """
        self.assertIn(".. limits:: gomux.Limits", self.pages()["limits.rst"])
        for kind in (Limits, TunnelLimits):
            for field in fields(kind):
                self.assertIn(f"@ivar {field.name}: ", kind.__doc__ or "")

    def test_fastPaths(self) -> None:
        """
        The performance page lists each fast path with the text of its docstring.
        """
        text = self.pages()["performance.rst"]
        listed = re.findall(r"^``(\w+)`` +(.*\S)$", text, re.MULTILINE)
        described = re.findall(
            r"@ivar (\w+): (.*)$", FastPaths.__doc__ or "", re.MULTILINE
        )
        self.assertEqual([name for name, _ in described], [*vars(FastPaths())])
        self.assertEqual(listed, described)

    def test_errors(self) -> None:
        """
        Each error is on the page about the Go package or on the page about sessions.
        """
        pages = self.pages()
        text = pages["goapi.rst"] + pages["howto/sessions.rst"]
        for name, thing in vars(gomux.error).items():
            if isinstance(thing, type) and thing.__module__ == "gomux.error":
                self.assertRegex(text, rf"`gomux\.(error\.)?{name}`")


class MapTests(DocsTestCase):
    """
    The tables of traps and of rooms in CONTRIBUTING.rst
    """

    def test_traps(self) -> None:
        """
        Each trap names tests that exist and whose docstrings name the trap.
        """
        rows = re.split(
            r"^   \* - (\d+)$", (DOCS / "design.rst").read_text(), flags=re.M
        )
        traps = dict(zip(map(int, rows[1::2]), rows[2::2], strict=True))
        self.assertEqual(list(traps), list(range(1, 16)))
        for number, text in traps.items():
            names = re.findall(r"``(gomux\.test\.[\w.]+)``", text)
            self.assertTrue(names, f"trap {number} has no test")
            for name in names:
                source = inspect.getsource(namedAny(name))
                self.assertRegex(source, rf"[Tt]rap {number}\b", name)

    def test_rooms(self) -> None:
        """
        CONTRIBUTING.rst has a row for each folder of the checkout and of the package,
        and for each module of the package that is in no folder.
        """
        root = DOCS.parent
        folders = [
            path
            for parent in (root, root / "gomux")
            for path in parent.iterdir()
            if path.is_dir()
            and (path.name == ".ci" or not path.name.startswith("."))
            and not any(fnmatch(path.name, pattern) for pattern in GENERATED)
            and not (path / "pyvenv.cfg").exists()
        ]
        modules = [
            path
            for path in (root / "gomux").glob("*.py")
            if path.name not in ("__init__.py", "_version.py")
        ]
        expected = {f"{path.relative_to(root)}/" for path in folders} - {"gomux/"}
        expected |= {str(path.relative_to(root)) for path in modules}
        text = (root / "CONTRIBUTING.rst").read_text()
        rows = re.findall(r"^``([\w./]+)``  +\S", text, re.MULTILINE)
        self.assertEqual(len(rows), len(set(rows)))
        self.assertEqual(set(rows), expected)
