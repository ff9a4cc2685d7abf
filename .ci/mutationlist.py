"""
Reads C{mutations.txt} and finds the places of its mutations in the modules.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from places import Change, Mistake, Module, Name, namesIn, parse

#: The classes of limits, as pairs of a module's path and a name.
LIMITS = (("gomux/limits.py", "Limits"), ("gomux/limits.py", "TunnelLimits"))

#: The syntax of an entry, which C{mutations.txt} explains.
ENTRY = re.compile(
    r"(?P<name>.+?)(?: \[(?P<tests>[\w ]+)\])?"
    r"(?:\nin (?P<function>[\w.]+)(?: #(?P<number>[1-9]))?)?"
    r"(?P<old>(?:\n-.*)+)(?P<new>(?:\n\+.*)*)"
)


@dataclass(frozen=True)
class Entry:
    """
    An entry of C{mutations.txt}.

    @ivar name: what goes wrong with the mutation.
    @ivar tests: the test modules of which one must fail, by their short names.
    @ivar function: the function that the place is in; empty for the module.
    @ivar number: the number of the place among several, or 0.
    @ivar old: the code to replace.
    @ivar new: the replacement.
    """

    name: str
    tests: tuple[str, ...]
    function: str
    number: int
    old: str
    new: str


@dataclass(frozen=True)
class Section:
    """
    The entries for one module.

    @ivar path: the path of the module.
    @ivar tests: the test modules for entries that name none themselves.
    """

    path: str
    tests: tuple[str, ...]
    entries: list[Entry]


@dataclass(frozen=True)
class Mutation:
    """
    One change to one module.

    @ivar path: the path of the module.
    @ivar name: what goes wrong with the mutation.
    @ivar change: the change to the module.
    @ivar tests: the test modules of which one must fail.
    """

    path: str
    name: str
    change: Change
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path}: {self.name}"


def readList(text: str) -> list[Section]:
    """
    @param text: the content of C{mutations.txt}.
    @raise Mistake: if an entry has the wrong syntax.
    """
    sections: list[Section] = []
    for block in re.split(r"\n(?:[ \t]*\n)+", text.strip()):
        if block.startswith("#"):
            continue
        if match := re.fullmatch(r"== (\S+): (.+)", block):
            sections.append(Section(match[1], tuple(match[2].split()), []))
            continue
        match = ENTRY.fullmatch(block)
        if match is None or not sections:
            raise Mistake(f"this is no entry:\n{block}")
        own = tuple((match["tests"] or "").split())
        old, new = (re.sub("(?m)^[-+]", "", match[side][1:]) for side in ("old", "new"))
        try:
            parse(old), parse(new)
        except Mistake as mistake:
            raise Mistake(f"{sections[-1].path}: {match['name']}: {mistake}") from None
        sections[-1].entries.append(
            Entry(
                match["name"],
                own or sections[-1].tests,
                match["function"] or "",
                int(match["number"] or 0),
                old,
                new,
            )
        )
    return sections


def raises(module: Module) -> Iterator[tuple[str, Change]]:
    """
    Find each C{raise}.

    @return: for each, the name of the mutation that takes it out, and the change.
    """
    for block in module.blocks:
        for node in block.nodes:
            start, end = module.span([node])
            text = re.sub(r"\s+", " ", module.source[start:end].decode())
            if isinstance(node, ast.Raise) and "NotImplementedError" not in text:
                yield f"{block.function}: {text}", Change(start, end, "pass")


def written(module: Module, entries: list[Entry]) -> dict[Entry, Change | Mistake]:
    """
    Find the places of the entries for a module.
    """
    known = {
        name
        for entry in entries
        for statement in parse(entry.old)
        for (_, name), _, _ in namesIn(statement)
    }
    for entry in entries:
        known |= {entry.function, *entry.function.split(".")}
    found: dict[Entry, Change | Mistake] = {}
    # The places found in the first pass show new names to the second.
    functions: dict[str, str] = {}
    names: dict[Name, str] = {}
    for again in (False, True):
        for entry in entries:
            if isinstance(found.get(entry), Change):
                continue
            function = entry.function
            if again:
                function = functions.get(function, function)
            try:
                found[entry] = change = module.find(
                    function,
                    entry.old,
                    entry.new,
                    entry.number,
                    frozenset(known),
                    tuple(names.items()) if again else (),
                )
            except Mistake as mistake:
                found[entry] = mistake
            else:
                functions[entry.function] = change.function
                names |= dict(change.renaming)
    return found


def testModules(root: Path, names: Iterable[str]) -> Iterator[str]:
    """
    @param names: short names of test modules.
    @return: their full names.
    """
    for name in names:
        found = list((root / "gomux" / "test").rglob(f"test_{name}.py"))
        if len(found) != 1:
            raise Mistake(f"there are {len(found)} test modules named {name}")
        yield ".".join(found[0].relative_to(root).with_suffix("").parts)


def readMutations(
    root: Path, text: str, limits: Iterable[tuple[str, str]] = LIMITS
) -> list[Mutation]:
    """
    Find all mutations.

    @param root: the checkout.
    @param text: the content of C{mutations.txt}.
    @param limits: the classes of limits, as pairs of a module's path and a name.
    @raise Mistake: if the list does not fit the project; the text names all mistakes.
    """
    mutations: list[Mutation] = []
    mistakes: list[str] = []
    for section in readList(text):
        path = section.path
        if not (root / path).exists():
            mistakes.append(f"{path}: there is no such module")
            continue
        module = Module((root / path).read_text())
        tests = tuple(testModules(root, section.tests))
        for name, change in raises(module):
            mutations.append(Mutation(path, name, change, tests))
        for entry, result in written(module, section.entries).items():
            if isinstance(result, Mistake):
                mistakes.append(f"{path}: {entry.name}: {result}")
            else:
                tests = tuple(testModules(root, entry.tests))
                mutations.append(Mutation(path, entry.name, result, tests))
    names: dict[tuple[str, int, int, str], str] = {}
    for mutation in mutations:
        change = mutation.change
        key = mutation.path, change.start, change.end, change.text
        if names.setdefault(key, mutation.name) != mutation.name:
            mistakes.append(f"{mutation}: it is the same as {names[key]}")
    mistakes += missing(root, limits, [mutation.name for mutation in mutations])
    if mistakes:
        raise Mistake("\n".join(mistakes))
    return mutations


def missing(
    root: Path, limits: Iterable[tuple[str, str]], names: list[str]
) -> Iterator[str]:
    """
    Find the limits that have no mutation.
    """
    for path, name in limits:
        for node in ast.walk(ast.parse((root / path).read_text())):
            if isinstance(node, ast.ClassDef) and node.name == name:
                for field in node.body:
                    if isinstance(field, ast.AnnAssign):
                        limit = f"{name}.{ast.unparse(field.target)}"
                        if not any(limit in mutation for mutation in names):
                            yield f"{path}: there is no mutation for {limit}"
