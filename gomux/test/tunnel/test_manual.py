"""
Tests for L{gomux.tunnel.command._manual}.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits, tap
from gomux.tunnel.command import _manual
from gomux.tunnel.options._limits import optionName

PAGES = Path(__file__).resolve().parents[3] / "man"


class PageTests(SynchronousTestCase):
    """
    L{_manual.pages}
    """

    def test_service(self) -> None:
        """
        The page of C{twistd gomux} has the guide, then the options, and then the
        limits.
        """
        page = _manual.pages(tap.Options())["twistd-gomux.1"]
        parts = [
            *("\n.SH NAME\n", "\n.SH DESCRIPTION\n", "Port 80 of the machine A"),
            *("\n.SH OPTIONS\n", ".TP\n\\fB\\-\\-psk\\-file\\fR=", "\n.SH LIMITS\n"),
        ]
        positions = [page.index(part) for part in parts]
        self.assertEqual(positions, sorted(positions))
        _, _, limits = page.partition("\n.SH LIMITS\n")
        for field in fields(Limits):
            name = optionName(field.name).replace("-", "\\-")
            self.assertIn(f".TP\n\\fB\\-\\-{name}\\fR=", limits)

    def test_commands(self) -> None:
        """
        The page of C{python -m gomux} has each command with its options.
        """
        page = _manual.pages(tap.Options())["gomux.1"]
        for name in ("genpsk", "ping", "pipe", "completion"):
            self.assertIn(f"\n.SS python \\-m gomux {name}", page)
        self.assertIn(".TP\n\\fB\\-t\\fR, \\fB\\-\\-timeout\\fR=\\fI...\\fR\n", page)

    def test_escape(self) -> None:
        """
        No line of text is taken for a request, and hyphens and backslashes stay.
        """
        self.assertEqual(
            _manual._escape("a-b\\\n.c\n'd\ne.f"), "a\\-b\\e\n\\&.c\n\\&'d\ne.f"
        )

    def test_upToDate(self) -> None:
        """
        The pages in the checkout are those that the help makes now.
        """
        for name, text in _manual.pages(tap.Options()).items():
            self.assertEqual(
                (PAGES / name).read_text(),
                text,
                f"man/{name} is out of date: run python man/make.py",
            )

    if not PAGES.is_dir():
        test_upToDate.skip = "the pages are in the source distribution only"  # type: ignore[attr-defined]
