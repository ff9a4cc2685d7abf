"""
Tests for where the files of the package are and what they import.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import twisted
from twisted.plugins import gomux_plugins
from twisted.trial.unittest import SynchronousTestCase

import gomux

PACKAGE = Path(gomux.__file__).resolve().parent

#: No module is longer, tests aside, so that a reader can keep it in mind.
MOST_LINES = 450
#: No class but the facade of a stream, which is a transport, has more public methods.
MOST_METHODS = 30

#: Trial reads these attributes of test modules, classes and methods.
TRIAL_NAMES = {"skip", "suppress", "timeout", "todo"}

NAMED = re.compile(r"^# -\*- test-case-name: (.*) -\*-$", re.MULTILINE)


def pathOf(module: str) -> Path:
    """
    @return: the path that a module of the package would have.
    """
    return PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")


def imported(text: str) -> Iterator[str]:
    """
    @return: the names that a module imports from.  Some may not be modules: in
        C{from a import b}, C{b} can be any object.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and not node.level, "a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def testModules(text: str) -> list[str]:
    """
    @return: the test modules of this package that a module imports.
    """
    return [name for name in imported(text) if re.match(r"gomux\..*\.test_\w+$", name)]


def instructions(text: str) -> Iterator[str]:
    """
    @return: the names that a module imports or defines and that trial reads from each
        test module and class.
    """
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = [node.name]
        yield from TRIAL_NAMES.intersection(names)


class PluginTests(SynchronousTestCase):
    """
    The directory of the plugin
    """

    def test_noPackage(self) -> None:
        """
        The plugin's directory is no package, because a package there would hide Twisted
        itself.  (Trap 14 in docs/design.rst.)
        """
        plugins = Path(gomux_plugins.__file__).resolve().parent
        self.assertEqual(plugins.parts[-2:], ("twisted", "plugins"))
        if plugins.parent != Path(twisted.__file__).resolve().parent:
            for directory in (plugins, plugins.parent):
                self.assertFalse((directory / "__init__.py").exists())


class SizeTests(SynchronousTestCase):
    """
    The sizes of modules and classes
    """

    def modules(self) -> Iterator[tuple[Path, str]]:
        for path in PACKAGE.rglob("*.py"):
            if PACKAGE / "test" not in path.parents:
                yield path, path.read_text()

    def test_modules(self) -> None:
        """
        No module has more than L{MOST_LINES} lines.
        """
        long = {str(p): text.count("\n") for p, text in self.modules()}
        self.assertGreater(len(long), 60)
        self.assertEqual({p: n for p, n in long.items() if n > MOST_LINES}, {})

    def test_classes(self) -> None:
        """
        No class but L{gomux.Stream} has more than L{MOST_METHODS} public methods.
        """
        large = {
            node.name
            for _, text in self.modules()
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ClassDef)
            if MOST_METHODS
            < sum(
                isinstance(part, ast.FunctionDef) and not part.name.startswith("_")
                for part in node.body
            )
        }
        self.assertEqual(large, {"Stream"})


class TestModuleTests(SynchronousTestCase):
    """
    The test modules, and how other modules refer to them
    """

    def test_noImports(self) -> None:
        """
        No module imports a test module.  Tests share code in L{gomux.test.support}.
        """
        for path in PACKAGE.rglob("*.py"):
            self.assertEqual(testModules(path.read_text()), [], str(path))

    def test_everyImport(self) -> None:
        """
        The check for imports of test modules sees every form of import.
        """
        for text in (
            "import gomux.test.test_docs",
            "import gomux.test.test_docs as docs",
            "from gomux.test import test_docs",
            "from gomux.test.test_docs import pages",
            "def late():\n    from gomux.test.test_docs import pages",
        ):
            self.assertIn("gomux.test.test_docs", testModules(text), text)

    def test_trialNames(self) -> None:
        """
        No test module imports or defines a name that trial reads as an instruction.
        With C{from contextlib import suppress}, for instance, no test of a module runs.
        """
        # The live tests are only in the source distribution.
        live = PACKAGE.parent / "interop"
        for path in (*PACKAGE.rglob("test_*.py"), *live.rglob("test_*.py")):
            self.assertEqual(list(instructions(path.read_text())), [], str(path))
        for text in (
            "from contextlib import suppress",
            "import skip",
            "from os import path as timeout",
            "class Case:\n    async def todo(self):\n        pass",
        ):
            self.assertEqual(len(list(instructions(text))), 1, text)

    def test_testCaseNames(self) -> None:
        """
        Each C{test-case-name} line names a test module that exists.
        """
        named = 0
        for path in PACKAGE.rglob("*.py"):
            for name in NAMED.findall(path.read_text()):
                self.assertRegex(name, r"^gomux\.test\.(\w+\.)?test_\w+$", str(path))
                self.assertTrue(pathOf(name).exists(), f"{path}: {name}")
                named += 1
        self.assertGreater(named, 30)
