"""
Tests for the way in which mutations find their places and are caught.
"""

from __future__ import annotations

from pathlib import Path

from mutation import Scratch, readCatchers, testsIn
from mutationlist import (
    Entry,
    Mutation,
    raises,
    readList,
    readMutations,
    testModules,
    written,
)
from places import Change, Mistake, Module
from twisted.trial.unittest import SynchronousTestCase

SOURCE = '''\
"""A module."""

LIMIT = 3


class Window:
    """Ümläute, for bytes are not characters."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.held = 0

    def take(self, size: int) -> int:
        due = self.held + size
        if due < 0:  # never
            raise ValueError(f"{due} is less than nothing")
        elif due > self.size and not self.empty():
            self.held = due
            return 0
        else:
            self.held = due
        self.size -= size
        self.held -= size
        return due * (size + LIMIT)

    def empty(self) -> bool:
        return self.size == 0
'''


class FindTests(SynchronousTestCase):
    """
    Tests for L{Module.find}.
    """

    def changed(
        self,
        old: str,
        new: str = "",
        *,
        source: str = SOURCE,
        function: str = "Window.take",
        number: int = 0,
        known: tuple[str, ...] = (),
    ) -> list[str]:
        """
        @return: the lines of the module that the change removes and adds.
        """
        module = Module(source)
        change = module.find(function, old, new, number, frozenset(known))
        after = change.apply(module.source).decode()
        compile(after, "module", "exec")
        removed = [line for line in source.split("\n") if line not in after.split("\n")]
        added = [line for line in after.split("\n") if line not in source.split("\n")]
        return [line.strip() for line in removed + added]

    def mistake(self, old: str, new: str = "", **others: object) -> str:
        """
        @return: the message about a place that is not found.
        """
        error = self.assertRaises(Mistake, self.changed, old, new, **others)
        return str(error)

    def test_expression(self) -> None:
        """
        An expression is replaced by another one in parentheses.
        """
        self.assertEqual(
            self.changed("size + LIMIT", "size or LIMIT"),
            ["return due * (size + LIMIT)", "return due * ((size or LIMIT))"],
        )

    def test_statement(self) -> None:
        """
        Without a replacement a statement is taken out.
        """
        lines = self.changed("self.held -= size")
        self.assertEqual(lines, ["self.held -= size", "pass"])

    def test_statements(self) -> None:
        """
        Consecutive statements are replaced by others, with the same indentation.
        """
        self.assertEqual(
            self.changed(
                "self.size -= size\nself.held -= size",
                "if size:\n    self.size = self.held",
            ),
            [
                *("self.size -= size", "self.held -= size"),
                *("if size:", "self.size = self.held"),
            ],
        )

    def test_elif(self) -> None:
        """
        Statements that replace a whole C{elif} chain become the C{else} block.
        """
        old = SOURCE[SOURCE.index("if due > self.size") : SOURCE.index("self.size -=")]
        lines = self.changed(old.replace("\n        ", "\n").strip(), "return 7")
        self.assertEqual(lines[-1], "return 7")

    def test_formatting(self) -> None:
        """
        A place is found whatever its line breaks, parentheses and comments are.
        """
        new = SOURCE.replace(
            "due > self.size and not self.empty()",
            "(\n    due\n    > (self.size)  # much\n    and not self.empty()\n)",
        )
        for source in (SOURCE, new):
            lines = self.changed(
                "due > self.size and\n    not self.empty()", "False", source=source
            )
            self.assertIn("(False)", lines[-1])

    def test_renamedVariable(self) -> None:
        """
        A place is found after a local variable was renamed.  The replacement gets the
        new name.
        """
        new = SOURCE.replace("due", "owed")
        self.assertEqual(
            self.changed("due > self.size", "due >= self.size", source=new)[-1],
            "elif (owed >= self.size) and not self.empty():",
        )

    def test_renamedAttribute(self) -> None:
        """
        A place is found after an attribute was renamed, even to the name of a variable.
        """
        new = SOURCE.replace("self.held", "self.due")
        lines = self.changed("self.held + size", "self.held", source=new)
        self.assertEqual(lines[-1], "due = (self.due)")

    def test_renamedFunction(self) -> None:
        """
        A place is found after its function or its class was renamed.
        """
        for other in (
            SOURCE.replace("def take", "def debit"),
            SOURCE.replace("Window", "Credit"),
            SOURCE.replace("def take", "def debit").replace("Window", "Credit"),
        ):
            lines = self.changed("due > self.size", "False", source=other)
            self.assertEqual(lines[-1], "elif (False) and not self.empty():")

    def test_movedAndRenamed(self) -> None:
        """
        A place in another function is not accepted if its names differ, if it has no
        names, or if other entries name that function.
        """
        new = SOURCE.replace("take", "debit").replace("held", "kept")
        text = self.mistake("self.held -= size", source=new)
        self.assertIn("0 times", text)
        self.assertIn("it only looks like:\n    line 22, Window.debit", text)
        self.assertIn("0 times", self.mistake("return 0", source=new))
        for known, wrong in (((), False), (("Window.debit",), True)):
            arguments = ("due > self.size", "False")
            if wrong:
                self.mistake(*arguments, source=new, known=known)
            else:
                self.changed(*arguments, source=new, known=known)

    def test_rewordedText(self) -> None:
        """
        A place is found after a prose text in it was reworded.
        """
        new = SOURCE.replace("is less than nothing", "is not enough")
        self.assertEqual(
            self.changed('raise ValueError(f"{due} is less than nothing")', source=new)[
                -1
            ],
            "pass",
        )

    def test_renamedToTheNameOfAnother(self) -> None:
        """
        A place with a different name is not accepted if other entries use that name.
        """
        new = SOURCE.replace("self.held", "self.kept")
        source = new.replace("self.size -= size", "self.best -= size")
        self.mistake("self.held -= size", source=source)
        self.mistake("self.held -= size", source=source, known=("best", "kept"))
        self.assertEqual(
            self.changed("self.held -= size", source=source, known=("best",)),
            ["self.kept -= size", "pass"],
        )

    def test_oldNameStillThere(self) -> None:
        """
        A name that is still in the function does not count as renamed.
        """
        self.assertIn("0 times", self.mistake("self.size += size"))
        new = SOURCE.replace("self.held -= size", "")
        self.assertIn("0 times", self.mistake("self.held -= size", source=new))

    def test_twoNamesNeverBecomeOne(self) -> None:
        """
        The same old name has the same new name in the whole place, and two names do not
        become one.
        """
        new = SOURCE.replace("due * (size + LIMIT)", "x * (x + LIMIT)")
        self.assertIn(
            "0 times",
            self.mistake("due * (most + LIMIT)", source=new.replace("due", "d")),
        )

    def test_builtins(self) -> None:
        """
        The names of built-ins do not count as renamed.
        """
        new = SOURCE.replace("due * (size + LIMIT)", "min(due, size)")
        self.assertIn("0 times", self.mistake("max(due, size)", source=new))

    def test_missing(self) -> None:
        """
        A place that is not there is reported as a mistake.
        """
        text = self.mistake("due // 7", "due")
        self.assertIn("in Window.take this is there 0 times:\ndue // 7", text)

    def test_ambiguous(self) -> None:
        """
        A place that is there several times is reported as a mistake that lists the
        places.
        """
        text = self.mistake("self.held = due")
        self.assertIn("2 times", text)
        self.assertIn("line 18, Window.take: self.held = due", text)
        self.assertIn("line 21, Window.take: self.held = due", text)

    def test_number(self) -> None:
        """
        A number selects one of several places, even after a name was changed.
        """
        for source in (SOURCE, SOURCE.replace("held", "kept")):
            module = Module(source)
            starts = [
                module.find("Window.take", "self.held = due", "", number).start
                for number in (1, 2)
            ]
            lines = [source.encode()[:start].count(b"\n") + 1 for start in starts]
            self.assertEqual(lines, [18, 21])
        self.assertIn("2 times, not 3", self.mistake("self.held = due", number=3))

    def test_unknownName(self) -> None:
        """
        A replacement with a name that the module does not have is a mistake.
        """
        self.assertIn("there is no debt", self.mistake("due > self.size", "debt"))

    def test_notPython(self) -> None:
        """
        Code with a syntax error is a mistake.
        """
        self.assertIn("this is not Python", self.mistake("due >"))

    def test_module(self) -> None:
        """
        Without a function the place is searched in the whole module.
        """
        lines = self.changed("LIMIT = 3", "LIMIT = 4", function="")
        self.assertEqual(lines, ["LIMIT = 3", "LIMIT = 4"])
        self.assertIn("2 times", self.mistake("self.size", "size", function=""))


class ListTests(SynchronousTestCase):
    """
    Tests for reading C{mutations.txt} and for finding its entries.
    """

    def test_entries(self) -> None:
        """
        An entry is parsed into its name, tests, function, number and code.
        """
        text = (
            "# words\n\n== a.py: x y\n\nfirst [z]\nin A.b #2\n- c(\n-     d)\n+ e\n\n"
            "second\n- f()\n"
        )
        (section,) = readList(text)
        self.assertEqual((section.path, section.tests), ("a.py", ("x", "y")))
        self.assertEqual(
            section.entries,
            [
                Entry("first", ("z",), "A.b", 2, " c(\n     d)", " e"),
                Entry("second", ("x", "y"), "", 0, " f()", ""),
            ],
        )

    def test_noEntry(self) -> None:
        """
        An entry with the wrong syntax is a mistake.
        """
        for text in (
            *("first\n- a", "== a.py: x\n\nfirst", "== a.py: x\n\nb\nc\n- d"),
            *("== a.py: x\n\nb\n- c d", "== a.py: x\n\nb\n- c\n+ d e"),
        ):
            self.assertRaises(Mistake, readList, text)

    def test_placesTellOfEachOther(self) -> None:
        """
        If an entry fits several functions, the one is chosen in which other entries of
        its old function were found.  These also tell new names for its replacement.
        """
        module = Module(SOURCE.replace("take", "debit").replace("LIMIT", "MOST"))
        entries = [
            Entry("a", (), "Window.take", 0, "due * (size + LIMIT)", "due"),
            Entry("b", (), "Window.take", 0, "self.size", "LIMIT"),
            Entry("c", (), "Window.take", 0, "self.held + size", "size"),
        ]
        self.assertRaises(Mistake, module.find, "Window.take", "self.size", "1")
        change = written(module, entries)[entries[1]]
        assert isinstance(change, Change)
        self.assertEqual((change.text, change.function), ("(MOST)", "Window.debit"))

    def test_raises(self) -> None:
        """
        Each C{raise} is a mutation, which is named after its function.
        """
        ((name, change),) = raises(Module(SOURCE))
        self.assertEqual(
            name, 'Window.take: raise ValueError(f"{due} is less than nothing")'
        )
        self.assertEqual(change.text, "pass")


class ProjectTests(SynchronousTestCase):
    """
    Tests for the mistakes that are found in a whole project.
    """

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        (self.root / "gomux" / "test" / "wire").mkdir(parents=True)
        (self.root / "gomux" / "test" / "wire" / "test_window.py").touch()
        (self.root / "gomux" / "window.py").write_text(SOURCE)

    def test_shortNames(self) -> None:
        """
        A test module is found in any directory by its short name, which must be unique.
        """
        names = list(testModules(self.root, ["window"]))
        self.assertEqual(names, ["gomux.test.wire.test_window"])
        self.assertRaises(Mistake, list, testModules(self.root, ["other"]))
        (self.root / "gomux" / "test" / "test_window.py").touch()
        self.assertRaises(Mistake, list, testModules(self.root, ["window"]))

    def test_allMistakesAtOnce(self) -> None:
        """
        All mistakes are reported together: a missing module, an entry whose place is
        not found, an entry that equals another, and a limit without a mutation.
        """
        entry = "\nin Window.take\n- self.size -= size\n\n"
        text = f"== gomux/window.py: window\n\nb{entry}c{entry}d\n- nothing()\n"
        text += "\n== gomux/gone.py: window\n"
        (self.root / "gomux" / "limits.py").write_text("class Limits:\n    most: int\n")
        limits = (("gomux/limits.py", "Limits"),)
        with self.assertRaises(Mistake) as raised:
            readMutations(self.root, text, limits)
        message = str(raised.exception)
        self.assertIn("gomux/window.py: d: in the module this is there 0", message)
        self.assertIn("gomux/window.py: c: it is the same as b", message)
        self.assertIn("there is no mutation for Limits.most", message)
        self.assertIn("gomux/gone.py: there is no such module", message)


OUTPUT = """\
gomux.test.wire.test_frame
  LayoutTests
    test_flags ...                                                         [OK]
gomux.test.wire.test_crypto
  SealerTests
    test_sizes ...                                                       [FAIL]

===============================================================================
[FAIL]
Traceback (most recent call last):

gomux.test.wire.test_crypto.SealerTests.test_sizes
-------------------------------------------------------------------------------
"""

FLAGS = "gomux.test.wire.test_frame.LayoutTests.test_flags"
SIZES = "gomux.test.wire.test_crypto.SealerTests.test_sizes"


class Rehearsed(Scratch):
    """
    A copy of a module in which some tests fail after the mutation.

    @ivar fail: the names of these tests and modules.
    @ivar ran: what was run.
    """

    def __init__(self, root: Path, fail: set[str]) -> None:
        self.root = root
        self.fail = fail
        self.ran: list[tuple[str, ...]] = []

    def testsPass(self, tests: tuple[str, ...], limit: float = 0) -> tuple[bool, str]:
        self.ran.append(tests)
        isMutated = (self.root / "module.py").read_text() != SOURCE
        return not (isMutated and self.fail.intersection(tests)), OUTPUT


class CatchTests(SynchronousTestCase):
    """
    Tests for how mutations are caught.
    """

    def catch(
        self, fail: set[str], catcher: str | None
    ) -> tuple[tuple[bool, str | None], list[tuple[str, ...]]]:
        """
        @return: what L{Scratch.catch} returns, and which tests it has run.
        """
        root = Path(self.mktemp())
        root.mkdir()
        path = root / "module.py"
        path.write_text(SOURCE)
        change = Change(SOURCE.index("LIMIT"), SOURCE.index(" = 3"), "LIMITS")
        scratch = Rehearsed(root, fail)
        result = scratch.catch(Mutation("module.py", "", change, ("tests",)), catcher)
        self.assertEqual(path.read_text(), SOURCE)
        return result, scratch.ran

    def test_catcher(self) -> None:
        """
        If the test that runs first fails, no other runs.
        """
        self.assertEqual(self.catch({FLAGS}, FLAGS), ((True, FLAGS), [(FLAGS,)]))

    def test_otherTest(self) -> None:
        """
        If the test that runs first passes, all tests run.  One that fails is the first
        the next time, if it passes without the mutation.
        """
        result = (True, SIZES), [(FLAGS,), ("tests",), (SIZES,)]
        self.assertEqual(self.catch({"tests"}, FLAGS), result)

    def test_survives(self) -> None:
        """
        If all tests pass, the mutation is not caught.
        """
        self.assertEqual(self.catch(set(), None), ((False, None), [("tests",)]))

    def test_names(self) -> None:
        """
        The names of tests are read from trial's output and from the list.
        """
        self.assertEqual(testsIn(OUTPUT), {FLAGS, SIZES})
        self.assertEqual(readCatchers(f"a.py: b: {FLAGS}\n"), {"a.py: b": FLAGS})
