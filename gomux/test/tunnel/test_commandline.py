"""
Tests for L{gomux.tunnel.command._options}: the command line of C{python -m gomux}.
"""

from __future__ import annotations

import base64
import io
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from gomux import tap
from gomux._version import __version__
from gomux.tunnel.command import _run
from gomux.tunnel.command._options import Ping, main


def runMain(arguments: list[str]) -> int:
    return main(arguments, tap.Options())


class MainTests(SynchronousTestCase):
    """
    L{main}
    """

    def setUp(self) -> None:
        self.output = io.StringIO()
        self.errors = io.StringIO()
        self.patch(sys, "stdout", self.output)
        self.patch(sys, "stderr", self.errors)

    def test_genpsk(self) -> None:
        """
        C{genpsk} prints 256 bits as text, different bits each time.
        """
        keys = set()
        for _ in range(10):
            self.output.truncate(0)
            self.output.seek(0)
            self.assertEqual(runMain(["genpsk"]), 0)
            line = self.output.getvalue()
            self.assertRegex(line, r"\A[A-Za-z0-9_-]+\n\Z")
            self.assertEqual(len(base64.urlsafe_b64decode(line[:-1] + "=")), 32)
            keys.add(line)
        self.assertEqual(len(keys), 10)
        self.assertEqual(self.errors.getvalue(), "")

    def test_completion(self) -> None:
        """
        C{completion} prints a script.
        """
        self.assertEqual(runMain(["completion", "bash"]), 0)
        self.assertIn("complete -o default -F _gomux_twistd", self.output.getvalue())

    def test_help(self) -> None:
        """
        C{--help} prints the usage, and names the commands.  That of a command prints
        the usage of the command, with its guide as it was written.
        """
        self.assertEqual(runMain(["--help"]), 0)
        text = self.output.getvalue()
        self.assertTrue(text.startswith("Usage: python -m gomux COMMAND\n"))
        for command in ("genpsk", "ping", "pipe", "completion"):
            self.assertRegex(text, rf"(?m)^    {command} ")
            self.assertEqual(runMain([command, "--help"]), 0)
            self.assertIn(f"Usage: python -m gomux {command}", self.output.getvalue())
        self.assertEqual(self.output.getvalue().count(Ping.guide), 1)
        self.assertEqual(self.errors.getvalue(), "")

    def test_version(self) -> None:
        """
        C{--version} prints the version of gomux.
        """
        self.assertEqual(runMain(["--version"]), 0)
        self.assertEqual(runMain(["ping", "--version"]), 0)
        self.assertEqual(self.output.getvalue(), f"gomux {__version__}\n" * 2)

    def test_usage(self) -> None:
        """
        Other arguments are an error, which prints what is wrong and the usage.
        """
        for arguments, error in (
            ([], ""),
            (["genkey"], "Unknown command"),
            (["genpsk", "more"], "Wrong number of arguments"),
            (["ping"], "exactly one ENDPOINT"),
            (["ping", "gomux:a", "b"], "exactly one ENDPOINT"),
            (["ping", "--count=-1", "gomux:a"], "--count needs a whole number"),
            (["ping", "--count=x", "gomux:a"], "--count needs a whole number"),
            (["ping", "--timeout=0", "gomux:a"], "--timeout needs a number"),
            (["ping", "--timeout=inf", "gomux:a"], "--timeout needs a number"),
            (["ping", "--timeout=x", "gomux:a"], "--timeout needs a number"),
            (["pipe"], "exactly one ENDPOINT"),
            (["completion"], "bash or zsh"),
            (["completion", "fish"], "bash or zsh"),
        ):
            self.errors.truncate(0)
            self.assertEqual(runMain(arguments), 2)
            self.assertIn(error, self.errors.getvalue())
            self.assertIn("Usage: python -m gomux", self.errors.getvalue())
        self.assertEqual(self.output.getvalue(), "")

    def test_commands(self) -> None:
        """
        C{ping} and C{pipe} run with the endpoint and their options.
        """
        calls: list[tuple[object, ...]] = []

        def run(name: str, command: object, *arguments: object) -> int:
            calls.append((name, *arguments))
            return 7

        self.patch(_run, "runWithReactor", run)
        self.assertEqual(runMain(["ping", "gomux:a"]), 7)
        self.assertEqual(runMain(["ping", "-c", "9", "--timeout", "2.5", "gomux:b"]), 7)
        self.assertEqual(runMain(["pipe", "gomux:c"]), 7)
        self.assertEqual(
            calls,
            [
                ("ping", "gomux:a", 3, 5.0),
                ("ping", "gomux:b", 9, 2.5),
                ("pipe", "gomux:c"),
            ],
        )


class ProcessTests(SynchronousTestCase):
    """
    C{python -m gomux} as a process
    """

    def test_exitStatus(self) -> None:
        """
        The exit status is what L{main} returns.  The output of a command that fails is
        empty.
        """
        for arguments, status in (
            (["genpsk"], 0),
            ([], 2),
            (["ping", "tcp:localhost:1"], 1),
            (["pipe", "gomux:tcp:localhost:1:pskFile=/nowhere"], 1),
        ):
            done = subprocess.run(
                [sys.executable, "-m", "gomux", *arguments],
                env={"PYTHONPATH": ":".join(sys.path)},
                capture_output=True,
                check=False,
            )
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertEqual(done.stdout == b"", status > 0)
            self.assertNotIn(b"Traceback", done.stderr)
