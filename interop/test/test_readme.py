"""
The commands of README.rst, run as they are written there.

Each command sets up its own environment from a copy of the checkout.  It needs only
Python and the package index.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from gomux.test.support.ports import freePort

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.rst").read_text()

#: Seconds to set up an environment and install into it.
TIMEOUT = 240

UNWANTED = shutil.ignore_patterns(
    ".git", "venv", "_trial_temp*", "__pycache__", "log", "*.egg-info", "build"
)


def blocks(start: str) -> list[str]:
    """
    @return: the literal blocks of the README that begin with this text.
    """
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", README, re.MULTILINE)
    texts = [re.sub("^    ", "", block, flags=re.MULTILINE).strip() for block in found]
    return [text for text in texts if text.startswith(start)]


def isFree(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class CommandTests(SynchronousTestCase):
    """
    Run the two commands for a machine on which nothing of gomux is installed.
    """

    timeout = TIMEOUT + 60

    def setUp(self) -> None:
        self.commands = blocks("python3 -m venv")
        self.directory = tempfile.mkdtemp(prefix="gomux-readme-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.checkout = os.path.join(self.directory, "checkout")
        shutil.copytree(ROOT, self.checkout, ignore=UNWANTED)
        # python3 is the Python that runs these tests; other programs are found as
        # usual.
        binaries = os.path.join(self.directory, "bin")
        os.mkdir(binaries)
        os.symlink(sys.executable, os.path.join(binaries, "python3"))
        unwanted = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "GOMUX_PSK")
        self.environment = {k: v for k, v in os.environ.items() if k not in unwanted}
        self.environment["PATH"] = f"{binaries}:{self.environment['PATH']}"

    def start(self, command: str) -> subprocess.Popen[str]:
        log = open(os.path.join(self.directory, "output"), "w+")
        self.addCleanup(log.close)
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=self.checkout,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()

    def output(self) -> str:
        return Path(self.directory, "output").read_text()[-4000:]

    def test_two(self) -> None:
        """
        The README has two such commands, and each is one line.
        """
        self.assertEqual([command.count("\n") for command in self.commands], [0, 0])

    def test_demonstration(self) -> None:
        """
        The first command installs gomux and runs both ends of a mux.  While it runs,
        the page can be fetched through the mux.
        """
        command = self.commands[0]
        ports = [int(port) for port in re.findall(r"tcp:(\d+):interface", command)]
        if not all(map(isFree, ports)):
            raise SkipTest(f"something else listens on one of the ports {ports}")
        [url] = blocks("curl")
        process = self.start(command)
        deadline = time.monotonic() + TIMEOUT
        page = b""
        while not page:
            self.assertIs(process.poll(), None, self.output())
            self.assertLess(time.monotonic(), deadline, self.output())
            try:
                page = urllib.request.urlopen(url.split()[1], timeout=10).read()
            except OSError:
                # Whether the demonstration is up shows only when a connection succeeds.
                time.sleep(0.2)
        self.assertIn(b"came to you through a <em>mux</em>", page)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        self.assertNotIn("Traceback", self.output())

    def test_tests(self) -> None:
        """
        The second command installs gomux and runs its tests.  All pass, and none is
        skipped.
        """
        process = self.start(self.commands[1])
        status = process.wait(TIMEOUT)
        self.assertEqual(status, 0, self.output())
        self.assertIn("\nPASSED (successes=", self.output())


class ExampleTests(SynchronousTestCase):
    """
    Check the other examples of the README in the environment of these tests.
    """

    timeout = 60

    def test_options(self) -> None:
        """
        C{twistd gomux} accepts the options of each example, and Twisted parses each
        endpoint string in them.
        """
        from gomux.tap import Options

        examples = re.findall(r"\$ +twistd gomux (.*)", README)
        self.assertEqual(len(examples), 5)
        directory = self.mktemp()
        os.mkdir(directory)
        psk = os.path.join(directory, "gomux.psk")
        with open(
            psk, "w", opener=lambda path, flags: os.open(path, flags, 0o600)
        ) as f:
            f.write("a pre-shared key of the tests")
        for example in examples:
            example = example.replace("gomux.psk", psk)
            example = example.replace("mymodule.MyF", "twisted.internet.protocol.F")
            Options().parseOptions(example.split())

    def test_python(self) -> None:
        """
        The example program serves its greeting, and has at most ten lines.
        """
        program = blocks("from os import")[0]
        self.assertLessEqual(len([line for line in program.splitlines() if line]), 10)
        port = freePort()
        self.assertIn("tcp:7000:", program)
        environment = {**os.environ, "GOMUX_PSK": "0123456789abcdef"}
        environment["PYTHONPATH"] = ":".join([str(ROOT), *sys.path])
        server = subprocess.Popen(
            [sys.executable, "-c", program.replace("tcp:7000:", f"tcp:{port}:")],
            env=environment,
        )
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        client = subprocess.run(
            [sys.executable, "-c", CLIENT.replace("PORT", str(port))],
            env=environment,
            capture_output=True,
            timeout=40,
            check=False,
        )
        self.assertEqual(client.stdout, b"hello\n", client.stderr)


CLIENT = """
from os import environ
from twisted.internet import defer, endpoints, protocol, task

async def main(reactor):
    text = "gomux:tcp:127.0.0.1:PORT:psk=" + environ["GOMUX_PSK"]
    endpoint = endpoints.clientFromString(reactor, text)
    got = defer.Deferred()

    class Client(protocol.Protocol):
        def connectionMade(self):
            self.transport.write(b"hello")

        def dataReceived(self, data):
            got.callback(data)

    await endpoint.connect(protocol.Factory.forProtocol(Client))
    print((await got).decode())

task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
"""
