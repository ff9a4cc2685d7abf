"""
Tests for L{gomux.__main__}: C{python -m gomux}.
"""

from __future__ import annotations

import base64
import io
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from gomux.__main__ import USAGE, main


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
            self.assertEqual(main(["genpsk"]), 0)
            line = self.output.getvalue()
            self.assertRegex(line, r"\A[A-Za-z0-9_-]+\n\Z")
            self.assertEqual(len(base64.urlsafe_b64decode(line[:-1] + "=")), 32)
            keys.add(line)
        self.assertEqual(len(keys), 10)
        self.assertEqual(self.errors.getvalue(), "")

    def test_help(self) -> None:
        """
        C{--help} prints the usage.
        """
        for option in ("--help", "-h"):
            self.assertEqual(main([option]), 0)
        self.assertEqual(self.output.getvalue(), USAGE * 2)

    def test_usage(self) -> None:
        """
        Other arguments are an error, and print the usage.
        """
        for arguments in ([], ["genkey"], ["genpsk", "more"]):
            self.assertEqual(main(arguments), 2)
        self.assertEqual(self.errors.getvalue(), USAGE * 3)
        self.assertEqual(self.output.getvalue(), "")


class ProcessTests(SynchronousTestCase):
    """
    C{python -m gomux} as a process.
    """

    def test_exitStatus(self) -> None:
        """
        The exit status is what L{main} returns.
        """
        for arguments, status in ((["genpsk"], 0), ([], 2)):
            done = subprocess.run(
                [sys.executable, "-m", "gomux", *arguments],
                env={"PYTHONPATH": ":".join(sys.path)},
                capture_output=True,
                check=False,
            )
            self.assertEqual(done.returncode, status, done.stderr)
