"""
Tests for L{gomux.tunnel.command._completion}.  C{interop/test/test_completion.py} runs
the scripts in shells.
"""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from gomux import tap
from gomux.tunnel.command._completion import script
from gomux.tunnel.command._options import Options
from gomux.tunnel.options._guide import repeatable

COMMANDS = {name: command for name, _, command, _ in Options.subCommands}


class ScriptTests(SynchronousTestCase):
    """
    L{script}
    """

    def test_bash(self) -> None:
        """
        The script for bash has all options and commands.
        """
        text = script("bash", tap.Options(), COMMANDS)
        self.assertEqual(re.findall("@[A-Z_]+@", text), [])
        [service] = re.findall(r'_gomux_complete "(.* --listen .*)" "(.*)"', text)
        shown = re.findall(r"(?m)^  (?:-.,|   ) (--[a-z-]+)", tap.Options().getUsage())
        self.assertEqual(service[0].split(), sorted(shown))
        self.assertIn("--psk-file", service[1].split())
        self.assertIn('"genpsk ping pipe completion --help --version"', text)
        self.assertIn('ping) _gomux_complete "--count --help --timeout', text)

    def test_zsh(self) -> None:
        """
        The script for zsh asks this software.
        """
        self.assertIn(
            "--_shell-completion zsh:$CURRENT", script("zsh", tap.Options(), COMMANDS)
        )

    def test_repeatable(self) -> None:
        """
        Options that can be given several times are completed several times.
        """
        names = repeatable(tap.Options)
        self.assertIn("listen", names)
        self.assertIn("strict-peer", names)
        self.assertNotIn("psk-file", names)
        self.assertEqual(tap.Options.compData.multiUse, names)
