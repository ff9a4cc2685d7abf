"""
The operator's guide, docs/howto/operator.rst: all of its commands, in the order and in
the form in which the page prints them.

The environment is made by the page's own command, from a copy of the checkout.  All
other commands run in namespaces of their own, so the printed ports are free, and no
process outlives the test.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from interop.test.test_readme import ROOT, UNWANTED
from interop.test.test_status_live import BROWSER

PAGE = (ROOT / "docs" / "howto" / "operator.rst").read_text()
EXAMPLES = ROOT / "docs" / "examples" / "operator"

#: Seconds that a command may take, and that something it causes may take.
PATIENCE = 30

#: Seconds for the installation.
INSTALLATION = 150

NAMESPACES = ("--user", "--net", "--pid", "--mount")

#: What differs from one run to the next: times, ports, numbers of bytes.
VARIES = re.compile(r"\d+(?:[-:.]\d+)*")


def shown() -> dict[str, list[str]]:
    """
    @return: for each command file, in the order of the page, the lines that the page
        shows as its output.
    """
    first, *parts = PAGE.split(".. literalinclude:: ../examples/operator/")
    found = {}
    for part in parts:
        name = part.split()[0]
        block = re.search(r"::\n\n((?:    .*\n)+)", part)
        found[name] = [] if block is None else block[1].splitlines()
    return found


def general(line: str) -> str:
    return VARIES.sub("0", line.strip())


class GuideTests(SynchronousTestCase):
    """
    The guide

    @ivar steps: the command files that the page has, and that have not run yet.
    @ivar processes: the processes that were started.
    @ivar outputs: for each command file that has run, the file of its output.
    """

    timeout = 180

    def setUp(self) -> None:
        # The path of a socket must be short.
        self.directory = Path(tempfile.mkdtemp(prefix="gomux-guide-"))
        self.addCleanup(shutil.rmtree, self.directory)
        shutil.copytree(ROOT, self.directory / "gomux", ignore=UNWANTED)
        self.guide = self.directory / "guide"
        self.guide.mkdir()
        (self.directory / "bin").mkdir()
        (self.directory / "bin" / "python3").symlink_to(sys.executable)
        unwanted = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "GOMUX_PSK")
        self.environment = {k: v for k, v in os.environ.items() if k not in unwanted}
        self.path(self.directory / "bin")
        self.shown = shown()
        self.steps = [name for name in self.shown if name.endswith(".sh")]
        self.outputs: dict[str, Path] = {}
        self.inside: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def path(self, directory: Path) -> None:
        self.environment["PATH"] = f"{directory}:{self.environment['PATH']}"

    def isolate(self) -> None:
        """
        Run all further commands in namespaces of their own.
        """
        holder = subprocess.Popen(
            ["unshare", "--map-root-user", *NAMESPACES, "--mount-proc", "--kill-child"]
            + ["--fork", "sh", "-c", "ip link set lo up && echo up && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(self.endAll, holder)
        assert holder.stdout is not None
        self.assertEqual(holder.stdout.readline(), b"up\n")
        children = f"/proc/{holder.pid}/task/{holder.pid}/children"
        child = Path(children).read_text().strip()
        self.inside = ["nsenter", "--preserve-credentials", *NAMESPACES, "-t", child]

    def endAll(self, holder: subprocess.Popen[bytes]) -> None:
        """
        End all processes in the namespaces.

        @param holder: the process that keeps them; the kernel ends the others with it.
        """
        holder.kill()
        holder.communicate()
        for process in self.processes:
            process.wait(PATIENCE)

    def start(self, name: str, command: str) -> subprocess.Popen[bytes]:
        """
        Start a command in the directory of the guide.

        @param name: the name of the file for its output.
        """
        output = self.outputs[name] = self.directory / f"{name}.output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*self.inside, "bash", "-c", f"cd {self.guide}\n{command}"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=self.guide,
            )
        self.processes.append(process)
        return process

    def output(self, name: str) -> str:
        return self.outputs[name].read_text()

    def shell(self, command: str, status: int = 0, name: str = "other") -> str:
        """
        @return: what a command printed.
        """
        process = self.start(name, command)
        patience = PATIENCE if self.inside else INSTALLATION
        self.assertEqual(process.wait(patience), status, self.explain(name))
        return self.output(name)

    def explain(self, name: str) -> str:
        logs = (f"{side}/twistd.log" for side in ("office", "laptop"))
        parts = [f"{name}:", self.output(name)]
        parts += [p.read_text() for log in logs if (p := self.guide / log).exists()]
        return "\n".join(parts)[-6000:]

    def command(self, name: str) -> str:
        return f"set -e\n. ../gomux/docs/examples/operator/{name}"

    def step(self, name: str, status: int = 0) -> str:
        """
        Run the next command of the page, and check that it prints what the page shows.

        @return: what it printed.
        """
        self.take(name)
        text = self.shell(self.command(name), status, name)
        self.assertEqual(self.missing(name), [], self.explain(name))
        return text

    def take(self, name: str) -> None:
        self.assertEqual(self.steps.pop(0), name)

    def missing(self, name: str) -> list[str]:
        """
        @return: the lines that the page shows, and with which no line begins or ends
            that the last run has printed.
        """
        printed = [general(line) for line in self.output(name).splitlines()]
        return [
            line
            for line in self.shown[name]
            if not any(
                found.startswith(general(line)) or found.endswith(general(line))
                for found in printed
            )
        ]

    def look(self, name: str, status: int = 0) -> str:
        """
        Run the next command of the page until it prints what the page shows.
        """
        self.take(name)
        self.assertNotEqual(self.shown[name], [])

        def isThere() -> bool:
            process = self.start(name, self.command(name))
            return process.wait(PATIENCE) == status and not self.missing(name)

        self.eventually(isThere, name)
        return self.output(name)

    def eventually(self, condition: Callable[[], bool], name: str) -> None:
        """
        Wait until another process has done something.

        @param name: the command whose output explains a failure.
        """
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline, self.explain(name))
            time.sleep(0.05)

    def serve(self, name: str, ready: str) -> None:
        """
        Start the next command of the page, which keeps its terminal.

        @param ready: what can be fetched when it is up.
        """
        self.take(name)
        process = self.start(name, self.command(name))

        def isUp() -> bool:
            self.assertIs(process.poll(), None, self.explain(name))
            return self.start("other", f"curl -sf {ready}").wait(PATIENCE) == 0

        self.eventually(isUp, name)
        self.assertEqual(self.missing(name), [], self.explain(name))

    def test_guide(self) -> None:
        """
        Each command of the page does what the page says.
        """
        self.install()
        self.isolate()
        self.firstLook()
        self.rights()
        self.keys()
        self.prometheus()
        self.end()
        self.assertEqual(self.steps, [])
        files = {path.name for path in EXAMPLES.glob("*.sh")}
        self.assertEqual(files, {n for n in self.shown if n.endswith(".sh")})

    def install(self) -> None:
        self.take("packages.sh")

        programs = (ROOT / ".ci" / "gate.py").read_text()
        packages = (EXAMPLES / "packages.sh").read_text().split()[3:]
        for package in packages:
            if package != "python3-venv":
                self.assertIn(f': "{package}",', programs)
        self.step("install.sh")
        # As the page's command has done it in its shell.
        self.path(self.guide / "venv" / "bin")

    def firstLook(self) -> None:
        self.step("keys.sh")
        for name in ("office/peers.keys", "laptop/gomux.psk", "bob.psk"):
            self.assertEqual((self.guide / name).stat().st_mode & 0o777, 0o600)
        self.step("check.sh")
        self.serve("site.sh", "http://127.0.0.1:8000/")
        self.step("start.sh")
        self.step("look.sh")
        self.step("status.sh")
        with tempfile.TemporaryDirectory(dir=self.directory) as profile:
            page = self.shell(
                " ".join((*BROWSER, f"--user-data-dir={profile} --dump-dom"))
                + " http://127.0.0.1:7100/ 2>&1"
            )
        self.assertIn(">alice<", page)
        self.look("access.sh")
        self.step("ping.sh")

    def rights(self) -> None:
        self.look("forbidden.sh")
        self.step("give.sh")
        self.look("give_log.sh")
        self.assertEqual(self.shell("curl -s http://127.0.0.1:8081/healthz"), "ok\n")
        self.look("services.sh")
        self.assertNotIn("curl: (", self.output("give.sh"))
        self.step("take.sh")
        self.eventually(lambda: "curl: (" in self.output("give.sh"), "take.sh")
        self.look("taken.sh")
        self.step("restore.sh")

    def keys(self) -> None:
        self.eventually(lambda: self.read("office") == 3, "restore.sh")
        self.step("newkey.sh")
        self.eventually(lambda: self.read("laptop") == 1, "newkey.sh")
        self.step("oldkey.sh")
        self.look("oldkey_log.sh")
        page = self.shell("curl -sS http://127.0.0.1:8080/")
        self.assertEqual(page, "Hello from the office.\n")
        self.step("revoke.sh")
        self.look("revoked.sh", 1)

    def read(self, side: str) -> int:
        """
        @return: how often a side has read its files again.
        """
        log = self.guide / side / "twistd.log"
        return log.read_text().count("were read again")

    def prometheus(self) -> None:
        self.serve("prometheus.sh", "http://127.0.0.1:9095/-/ready")
        self.look("query.sh")
        self.look("alerts.sh")
        dashboard = json.loads((ROOT / "contrib" / "grafana.json").read_text())
        values = (("$__rate_interval", "1m"), ("$instance", ".*"))
        found = {}
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                query = target["expr"]
                for variable, value in values:
                    query = query.replace(variable, value)
                query = urllib.parse.urlencode({"query": query})
                url = "http://127.0.0.1:9095/api/v1/query"
                answer = json.loads(self.shell(f"curl -s {url} -d '{query}'"))
                self.assertEqual(answer["status"], "success")
                found[panel["title"]] = len(answer["data"]["result"])
        for title in ("Healthy", "Peers connected", "Muxes of each peer", "Limits"):
            self.assertGreater(found[title], 0, found)

    def end(self) -> None:
        log = self.guide / "laptop" / "twistd.log"
        url = "http://127.0.0.1:8080/big.img"
        self.shell(f"curl -sS --limit-rate 10M -o /dev/null {url} &", name="download")
        self.eventually(
            lambda: '["web",1]' in self.shell(self.command("services.sh")), "other"
        )
        self.step("stop_laptop.sh")
        self.eventually(lambda: "waiting up to 30 sec" in log.read_text(), "other")
        self.shell(self.command("stop_laptop.sh"))
        self.look("stop_log.sh")
        self.eventually(lambda: "curl: (" in self.output("download"), "download")
        away = '["GomuxPeerAway","pending"]'
        self.eventually(lambda: away in self.shell(self.command("alerts.sh")), "other")
        self.step("stop_office.sh")
        pid = self.guide / "office" / "twistd.pid"
        self.eventually(lambda: not pid.exists(), "stop_office.sh")
        for side in ("office", "laptop"):
            text = (self.guide / side / "twistd.log").read_text()
            self.assertNotIn("Traceback", text)
            self.assertIn("Server Shut Down.", text)
