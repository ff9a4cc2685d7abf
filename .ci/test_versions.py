"""
Tests for L{versions}.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import requires

import versions
from twisted.trial.unittest import SynchronousTestCase


class FloorTests(SynchronousTestCase):
    """
    L{versions.floors}
    """

    def test_allDependencies(self) -> None:
        """
        The leg pins each dependency that the installed package has, with or without
        its extras for users, to the version that pyproject.toml has as its lower bound.
        """
        expected = set()
        for requirement in requires("gomux") or []:
            bare, _, marker = requirement.partition(";")
            users = r" (extra == .(metrics|tls).|python_version < .*)"
            if not marker or re.fullmatch(users, marker):
                name, bound = bare.split(">=")
                expected.add(f"{name}=={bound}".lower())
        pins = versions.floors((versions.ROOT / "pyproject.toml").read_text())
        found = {pin.lower().partition(";")[0] for pin in pins}
        self.assertEqual(found, expected)
        self.assertGreaterEqual(len(pins), 5)

    def test_oldestPython(self) -> None:
        """
        The first Python that is looked for is the oldest one that the package allows.
        """
        text = (versions.ROOT / "pyproject.toml").read_text()
        self.assertIn(f'requires-python = ">=3.{versions.MINORS[0]}"', text)

    def test_pythons(self) -> None:
        """
        The running Python is found always.
        """
        self.patch(sys, "executable", "this")
        self.assertEqual(versions.pythons()[sys.version_info.minor], "this")
