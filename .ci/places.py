"""
Finds places in a module by their function and their syntax.

Neither the line number nor the formatting of a place matters.  If no place matches
exactly, names may have changed.  Then a place is accepted that differs only in the
names of variables, attributes, functions and arguments, and in prose texts.  If the
function was renamed as well, no other name may differ, so that a place that only looks
similar is not taken.
"""

from __future__ import annotations

import ast
import builtins
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

#: A name in a module: its kind and its spelling.  A local variable and an attribute
#: with the same spelling are two names.
Name = tuple[str, str]

#: Renamed names, as pairs of the old name and its new spelling.
Renaming = tuple[tuple[Name, str], ...]

#: Places, by the function that they are in and the renaming with which they match.
Found = dict[tuple[str, Renaming], list["Place"]]

#: Names that are never renamed: Python's built-ins.
FIXED = frozenset({*dir(builtins), "self", "cls"})

#: For each type of node, the field that holds a name, and the kind of that name.
_NAMES: dict[type[ast.AST], tuple[str, str]] = {
    ast.Name: ("id", "name"),
    ast.arg: ("arg", "name"),
    ast.ExceptHandler: ("name", "name"),
    ast.FunctionDef: ("name", "name"),
    ast.AsyncFunctionDef: ("name", "name"),
    ast.ClassDef: ("name", "name"),
    ast.Attribute: ("attr", "attribute"),
    ast.keyword: ("arg", "keyword"),
    ast.Constant: ("value", "text"),
}


class Mistake(Exception):
    """
    C{mutations.txt} does not fit the project.
    """


def parse(text: str) -> list[ast.stmt]:
    """
    @param text: statements, or an expression that may span several lines.
    @raise Mistake: if the text is neither.
    """
    text = textwrap.dedent(text)
    try:
        return ast.parse(text).body
    except SyntaxError:
        try:
            return ast.parse(f"({text}\n)").body
        except SyntaxError as error:
            raise Mistake(f"this is not Python ({error.msg}):\n{text}") from None


def namesIn(node: ast.AST) -> Iterator[tuple[Name, ast.AST, str]]:
    """
    @return: all names in a tree, each with the node and the field that hold it.
    """
    for part in ast.walk(node):
        field, kind = _NAMES.get(type(part), ("", ""))
        value = getattr(part, field, None)
        if isinstance(value, str):
            yield (kind, value), part, field


def namesOf(node: ast.AST) -> Iterator[Name]:
    for name, _, _ in namesIn(node):
        yield name


def _mayBecome(name: Name, other: str) -> bool:
    kind, value = name
    if value == other:
        return True
    if kind == "text":
        return " " in value and " " in other
    return value not in FIXED and other not in FIXED


def _agree(old: object, new: object, names: dict[Name, str]) -> bool:
    """
    Compare two parts of syntax trees.

    @param names: for each name of C{old} so far, its spelling in C{new}; more are
        added.
    @return: whether the parts are the same except for names.
    """
    if type(old) is not type(new):
        return False
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(
            _agree(one, other, names) for one, other in zip(old, new, strict=True)
        )
    if not isinstance(old, ast.AST):
        return old == new
    named, kind = _NAMES.get(type(old), ("", ""))
    for field in old._fields:
        one, other = getattr(old, field), getattr(new, field)
        if field == named and isinstance(one, str) and isinstance(other, str):
            name = (kind, one)
            if not _mayBecome(name, other) or names.setdefault(name, other) != other:
                return False
        elif field != "kind" and not _agree(one, other, names):
            return False
    return True


def _expression(statements: list[ast.stmt]) -> ast.expr | None:
    only = statements[0] if len(statements) == 1 else None
    return only.value if isinstance(only, ast.Expr) else None


def _isWithin(function: str, scope: str) -> bool:
    return not scope or f"{function}.".startswith(f"{scope}.")


@dataclass(frozen=True)
class Place:
    """
    An expression, or consecutive statements.

    @ivar function: the function or class that it is in, such as C{Sealer.seal};
        empty at the level of the module.
    """

    function: str
    nodes: Sequence[ast.expr | ast.stmt]


@dataclass(frozen=True)
class Change:
    """
    A change to a module.

    @ivar start: the offset of the replaced code, in bytes.
    @ivar end: the offset of its end.
    @ivar text: the replacement.
    @ivar function: the function that it is in.
    @ivar renaming: the names that differ from those of the entry.
    """

    start: int
    end: int
    text: str
    function: str = ""
    renaming: Renaming = ()

    def apply(self, source: bytes) -> bytes:
        """
        @return: the source of the module with the change.
        """
        return source[: self.start] + self.text.encode() + source[self.end :]


class Module:
    """
    A module in which places can be found.

    @ivar source: the text of the module.
    @ivar blocks: all blocks of statements in the module.
    """

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self._starts = [0]
        for line in self.source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self.blocks: list[Place] = []
        self._expressions: list[Place] = []
        # The names in each function, including those in its nested functions.
        self._names: dict[str, set[Name]] = {}
        self._visit(ast.parse(source), "")

    def _visit(self, node: ast.AST, function: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            function = f"{function}.{node.name}".lstrip(".")
            self._names.setdefault(function, set()).update(namesOf(node))
        elif isinstance(node, ast.Module):
            self._names[function] = set(namesOf(node))
        if isinstance(node, ast.expr):
            self._expressions.append(Place(function, [node]))
        # Before Python 3.12 the expressions in an f-string have no position.
        if isinstance(node, ast.JoinedStr):
            return
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and block:
                self.blocks.append(Place(function, block))
        for child in ast.iter_child_nodes(node):
            self._visit(child, function)

    def find(
        self,
        function: str,
        old: str,
        new: str = "",
        number: int = 0,
        known: frozenset[str] = frozenset(),
        elsewhere: Renaming = (),
    ) -> Change:
        """
        Find a place, and make the change to it.

        @param function: the function that the place is in; empty for anywhere in the
            module.
        @param old: the code to replace.
        @param new: the replacement; empty to take C{old} out.
        @param number: the number of the place among several, from 1; 0 if there must be
            only one.
        @param known: names that other entries use.  None of them can be a new name.
        @param elsewhere: names that are known from other places to have changed.
        @raise Mistake: if there is no such place, or several.
        """
        pattern, replacement = parse(old), parse(new or "pass")
        one, other = _expression(pattern), _expression(replacement)
        if one is not None and other is not None:
            found, near = self._alike(function, [one], self._expressions, known)
        else:
            runs = self._runs(len(pattern))
            found, near = self._alike(function, pattern, runs, known)
        places = [place for places in found.values() for place in places]
        enough = len(places) >= number if number else len(places) == 1
        if len(found) != 1 or not enough:
            where = f"in {function}" if function else "in the module"
            times = f"{len(places)} times" + (f", not {number}" if number else "")
            lines = [f"{where} this is there {times}:\n{old}"]
            lines += map(self._describe, places)
            if near and not places:
                lines += ["it only looks like:", *map(self._describe, near[:5])]
            raise Mistake("\n    ".join(lines))
        ((scope, renaming),) = found
        for statement in replacement:
            for name, node, field in namesIn(statement):
                now = self._nameNow(name, dict(renaming), dict(elsewhere))
                setattr(node, field, now)
        nodes = places[max(0, number - 1)].nodes
        if one is not None and other is not None:
            text = f"({ast.unparse(other)})"
        else:
            text = self._indented(nodes[0], replacement)
        if scope != function:
            renaming = ((("function", function), scope),)
        return Change(*self.span(nodes), text, scope, renaming)

    def _nameNow(
        self, name: Name, here: dict[Name, str], elsewhere: dict[Name, str]
    ) -> str:
        """
        @param name: a name in a replacement.
        @param here: the renamed names of its place.
        @param elsewhere: the renamed names of other places.
        @return: the current spelling of the name.
        @raise Mistake: if the module does not have the name.  The tests would then fail
            with a C{NameError} and prove nothing.
        """
        kind, value = name
        if name in here or value in FIXED or name in self._names[""]:
            return here.get(name, value)
        if name not in elsewhere and kind in ("name", "attribute"):
            raise Mistake(f"there is no {value} in the module")
        return elsewhere.get(name, value)

    def _runs(self, size: int) -> Iterator[Place]:
        """
        @return: every run of C{size} consecutive statements.
        """
        for block in self.blocks:
            for first in range(len(block.nodes) - size + 1):
                yield Place(block.function, block.nodes[first : first + size])

    def _alike(
        self,
        function: str,
        pattern: Sequence[ast.AST],
        places: Iterable[Place],
        known: frozenset[str],
    ) -> tuple[Found, list[Place]]:
        """
        @return: the places that match the pattern with the fewest renamed names; and
            places that look similar but are not accepted.
        """
        found: Found = {}
        near: list[Place] = []
        fewest = 0
        scopes = self._scopes(function)
        for place in places:
            names: dict[Name, str] = {}
            within = [scope for scope in scopes if _isWithin(place.function, scope)]
            scope = within[0] if within else place.function
            if (scopes and not within) or not _agree(pattern, place.nodes, names):
                continue
            renaming = [pair for pair in names.items() if pair[0][1] != pair[1]]
            if scope == function:
                # Two names must not become one, a renamed name must no longer be in the
                # function, and its new name must not be one that other entries use.
                now = {(kind, other) for (kind, _), other in names.items()}
                isThis = len(now) == len(names)
                isThis &= self._names[scope].isdisjoint(name for name, _ in renaming)
                isThis &= known.isdisjoint(other for _, other in renaming)
            else:
                # In another function at least one name must identify the place.
                isThis = any(name not in FIXED for _, name in names)
                isThis &= not renaming and scope not in known
            if not isThis:
                near.append(place)
                continue
            if not found or len(renaming) < fewest:
                found, fewest = {}, len(renaming)
            if len(renaming) == fewest:
                found.setdefault((scope, tuple(sorted(renaming))), []).append(place)
        return found, near

    def _scopes(self, function: str) -> list[str]:
        """
        @return: the function itself; if it is not there, functions of the same name
            elsewhere; or nothing if it was renamed.
        """
        if function in self._names:
            return [function]
        name = function.rpartition(".")[2]
        return [scope for scope in self._names if scope.rpartition(".")[2] == name]

    def span(self, nodes: Sequence[ast.expr | ast.stmt]) -> tuple[int, int]:
        """
        @return: the offsets of the start and the end of some nodes, in bytes.
        """
        first, last = nodes[0], nodes[-1]
        line = min(
            node.lineno for node in (first, *getattr(first, "decorator_list", ()))
        )
        assert last.end_lineno is not None and last.end_col_offset is not None
        return (
            self._starts[line - 1] + first.col_offset,
            self._starts[last.end_lineno - 1] + last.end_col_offset,
        )

    def _indented(self, first: ast.expr | ast.stmt, new: list[ast.stmt]) -> str:
        """
        @param first: the first of the statements to replace.
        @param new: the statements that replace them.
        @return: the text of the new statements, indented to fit.
        """
        lines = "\n".join(map(ast.unparse, new)).split("\n")
        if self.source.startswith(b"elif", self.span([first])[0]):
            lines = ["else:", *(f"    {line}" for line in lines)]
        return ("\n" + " " * first.col_offset).join(lines)

    def _describe(self, place: Place) -> str:
        start, end = self.span(place.nodes)
        text = self.source[start:end].decode().split("\n")[0]
        return f"line {place.nodes[0].lineno}, {place.function or 'the module'}: {text}"
