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
            if not marker or re.fullmatch(r" extra == .(metrics|tls).", marker):
                name, bound = bare.split(">=")
                expected.add(f"{name}=={bound}".lower())
        pins = versions.floors((versions.ROOT / "pyproject.toml").read_text())
        self.assertEqual({pin.lower() for pin in pins}, expected)
        self.assertGreaterEqual(len(pins), 4)

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
