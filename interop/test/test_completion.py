"""
What an operator sees in a terminal: the completion of bash and zsh, and the manual
pages.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from gomux import tap
from gomux.tunnel.command._completion import script
from gomux.tunnel.command._options import Options
from interop.support.harness import ROOT, environment

#: How long a shell may take to answer, in seconds.
PATIENCE = 30

BASH = ["bash", "--noprofile", "--norc", "-i"]
ZSH = ["zsh", "-f", "-i"]
COMPINIT = "autoload -Uz compinit; compinit -u -D"
COMMANDS = {name: command for name, _, command, _ in Options.subCommands}
READY = "the shell is ready"


class Terminal:
    """
    A shell in a terminal of its own.
    """

    def __init__(self, command: list[str], directory: str) -> None:
        self.seen = ""
        child, self._fd = pty.fork()
        if child == 0:
            os.chdir(directory)
            # twistd and python of the environment in which the tests run.
            path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
            variables = {**environment(), "PATH": path, "TERM": "dumb", "PS1": "$ "}
            os.execvpe(command[0], command, variables)
        self._child = child
        # So wide that no line is broken.
        size = struct.pack("HHHH", 50, 500, 0, 0)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, size)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait(self, text: str) -> None:
        """
        Read until the shell has written some text.
        """
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._fd], [], [], left)[0]:
                raise AssertionError(f"no {text!r} in {self.seen!r}")
            self.seen += os.read(self._fd, 65536).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def close(self) -> None:
        os.close(self._fd)
        os.kill(self._child, 9)
        os.waitpid(self._child, 0)


class CompletionTests(SynchronousTestCase):
    """
    Completion with the tabulator
    """

    def start(self, command: list[str], *lines: str) -> Terminal:
        """
        Start a shell, and let it source the script.
        """
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(parents=True)
        (directory / "script").write_text(script(command[0], tap.Options(), COMMANDS))
        (directory / "keys-of-peers").write_text("")
        terminal = Terminal(command, str(directory))
        self.addCleanup(terminal.close)
        for line in (*lines, "source ./script"):
            terminal.type(f"{line}\n")
        # Quoted, so that the echo of the line differs from its output.
        terminal.type(READY.replace("shell", 'sh""ell').join(("echo ", "\n")))
        terminal.wait(READY)
        return terminal

    def assertCompletes(self, terminal: Terminal, *cases: tuple[str, str]) -> None:
        """
        Check what the shell adds to some text when the tabulator is pressed.
        """
        for text, more in cases:
            terminal.type(f"{text}\t")
            terminal.wait(text)
            terminal.wait(more)
            # Delete the line.
            terminal.type("\x15")

    def test_bash(self) -> None:
        """
        bash completes options, commands and files.
        """
        terminal = self.start(BASH)
        self.assertCompletes(
            terminal,
            ("twistd gom", "ux"),
            ("twistd -n gomux --lis", "ten"),
            ("twistd gomux --psk-file ke", "ys-of-peers"),
            ("twistd gomux --psk-file=ke", "ys-of-peers"),
            ("python -m gomux gen", "psk"),
            ("python3 -m gomux ping --ti", "meout"),
            ("python keys", "-of-peers"),
        )
        terminal.type("twistd gomux --li\t\t")
        terminal.wait("--linger-timeout")
        terminal.wait("--listen")

    def test_zsh(self) -> None:
        """
        zsh completes options, commands and files, and shows what they are for.
        """
        terminal = self.start(ZSH, COMPINIT)
        self.assertCompletes(
            terminal,
            ("twistd gomux --lis", "ten"),
            ("twistd gomux --listen tcp:1 --lis", "ten"),
            ("twistd gomux --psk-file=ke", "ys-of-peers"),
            ("python -m gomux gen", "psk"),
            ("python3 -m gomux ping --ti", "meout"),
        )
        terminal.type("twistd gomux --li\t")
        terminal.wait("--listen")
        terminal.wait("Accept muxes at this ENDPOINT")


class ManualTests(SynchronousTestCase):
    """
    The manual pages
    """

    def test_warnings(self) -> None:
        """
        C{man} shows them without warnings.
        """
        assert shutil.which("man") is not None, "man is needed"
        for page in sorted((ROOT / "man").glob("*.1")):
            done = subprocess.run(
                ["man", "--warnings", "-E", "UTF-8", "-l", page],
                env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80"},
                capture_output=True,
                check=True,
            )
            self.assertEqual(done.stderr, b"")
            text = done.stdout.decode()
            self.assertIn("NAME", text)
            self.assertIn("--help", text)
