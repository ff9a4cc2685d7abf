"""
The mutation check: take each check and limit out in turn, and see a test fail.

    python .ci/mutation.py              all mutations
    python .ci/mutation.py TEXT ...     those with one of these in their names
    python .ci/mutation.py --list       only tell which there are

There are two kinds.  Those in C{mutations.txt} are written by hand: a text of a
module and what to put in its place.  The others follow from the modules: each
C{raise} in them is replaced by C{pass}, so no check that raises can be added
without a test.

A mutation must make one of the test modules fail that are named for it, each
of which takes about a second.  It is an error if none does, if the text of a
mutation is not to be found (exactly once), and if there is no mutation for one
of the limits.
"""

from __future__ import annotations

import ast
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_name("mutations.txt")

#: How many test runs there are at once.
WORKERS = 2
#: Seconds that a test run may take: a mutation may well make it run for ever.
TIME_LIMIT = 60

#: What all test runs need, and takes longest to import; no reactor, for that is not
#: to be shared, and nothing of the package.
PRELOADED = (
    *("twisted.scripts.trial", "twisted.trial.unittest", "twisted.internet.testing"),
    *("twisted.internet.endpoints", "twisted.internet.tcp", "twisted.protocols.tls"),
    *("cryptography.hazmat.primitives.ciphers.aead", "hypothesis"),
)
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(list(PRELOADED))

#: Where the limits are, as a class of each.
LIMITS = {"gomux/limits.py": "Limits", "gomux/tunnel/_bridge.py": "TunnelLimits"}


@dataclass(frozen=True)
class Mutation:
    """
    One change to one module.

    @ivar path: of the module.
    @ivar name: what is taken out.
    @ivar start: where in the module the change begins, as an index.
    @ivar end: where it ends.
    @ivar text: what is put there.
    @ivar tests: the test modules of which one must fail.
    """

    path: str
    name: str
    start: int
    end: int
    text: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path}: {self.name}"


class Mistake(Exception):
    """
    C{mutations.txt} does not fit the project.
    """


def raises(path: str, source: str, tests: tuple[str, ...]) -> Iterator[Mutation]:
    """
    Make a mutation of each C{raise}.
    """
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))

    def visit(node: ast.AST, scope: str) -> Iterator[Mutation]:
        for child in ast.iter_child_nodes(node):
            inner = scope
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                inner = f"{scope}.{child.name}".lstrip(".")
            if isinstance(child, ast.Raise):
                assert child.end_lineno is not None and child.end_col_offset is not None
                start = starts[child.lineno - 1] + child.col_offset
                end = starts[child.end_lineno - 1] + child.end_col_offset
                text = source.encode()[start:end].decode()
                what = re.sub(r"\s+", " ", text)
                if "NotImplementedError" not in what:
                    name = f"{scope}: {what}"
                    yield Mutation(path, name, start, end, "pass", tests)
            yield from visit(child, inner)

    yield from visit(ast.parse(source), "")


def written(
    path: str, source: str, heading: str, tests: tuple[str, ...], old: str, new: str
) -> Mutation:
    """
    Make a mutation of an entry of C{mutations.txt}.
    """
    count = source.count(old)
    if count != 1:
        raise Mistake(f"{path}: {heading}: its text is there {count} times:\n{old}")
    start = len(source[: source.index(old)].encode())
    return Mutation(path, heading, start, start + len(old.encode()), new, tests)


def readMutations(root: Path) -> list[Mutation]:
    """
    Find all mutations.

    @param root: the checkout.
    @raise Mistake: if C{mutations.txt} is wrong.
    """
    mutations: list[Mutation] = []
    mistakes: list[str] = []
    path, source = "", ""
    tests: tuple[str, ...] = ()
    for block in re.split(r"\n(?:[ \t]*\n)+", LIST.read_text().strip()):
        lines = block.split("\n")
        if lines[0].startswith("#"):
            continue
        if match := re.fullmatch(r"== (\S+): (.+)", lines[0]):
            path = match[1]
            source = (root / path).read_text()
            tests = tuple(match[2].split())
            mutations += raises(path, source, tests)
            continue
        match = re.fullmatch(r"(.+?)(?: \[([\w ]+)\])?", lines[0])
        assert match is not None
        try:
            mutations.append(
                written(
                    path,
                    source,
                    match[1],
                    tuple(match[2].split()) if match[2] else tests,
                    "\n".join(line[1:] for line in lines[1:] if line[0] == "-"),
                    "\n".join(line[1:] for line in lines[1:] if line[0] == "+"),
                )
            )
        except Mistake as mistake:
            mistakes.append(str(mistake))
    mistakes += missing(root, [mutation.name for mutation in mutations])
    if mistakes:
        raise Mistake("\n".join(mistakes))
    return mutations


def missing(root: Path, names: list[str]) -> Iterator[str]:
    """
    Tell which limits there is no mutation for.
    """
    for path, name in LIMITS.items():
        for node in ast.walk(ast.parse((root / path).read_text())):
            if isinstance(node, ast.ClassDef) and node.name == name:
                for field in node.body:
                    if isinstance(field, ast.AnnAssign):
                        limit = f"{name}.{ast.unparse(field.target)}"
                        if not any(limit in mutation for mutation in names):
                            yield f"{path}: there is no mutation for {limit}"


def _trial(root: Path, output: Path, tests: tuple[str, ...]) -> None:
    """
    In a process of its own, run some tests of a copy of the package.

    @param output: the file for what they print.
    """
    with output.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(root)
    sys.path.insert(0, str(root))
    os.environ["PYTHONPATH"] = str(root)
    names = [f"gomux.test.test_{test}" for test in tests]
    sys.argv = ["trial", "--exitfirst", "--temp-directory", str(root / "trial"), *names]
    # Here, for not all that use this module need it.
    from twisted.scripts.trial import run

    run()


class Scratch:
    """
    A copy of the package, in which one mutation after another is made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for part in ("gomux", "twisted"):
            ignore = shutil.ignore_patterns("*.py[co]")
            shutil.copytree(ROOT / part, root / part, ignore=ignore)

    def testsPass(self, tests: tuple[str, ...]) -> tuple[bool, str]:
        """
        @return: whether the tests pass, and what they printed.
        """
        output = self.root / "output"
        trial = _forks.Process(target=_trial, args=(self.root, output, tests))
        trial.start()
        trial.join(TIME_LIMIT)
        if trial.exitcode is None:
            trial.kill()
            trial.join()
            return False, f"FAILED (stopped after {TIME_LIMIT} seconds)"
        return trial.exitcode == 0, output.read_text(errors="replace")

    def survives(self, mutation: Mutation) -> bool:
        """
        @return: whether all tests pass although there is the mutation.
        """
        path = self.root / mutation.path
        original = path.read_bytes()
        mutated = (
            original[: mutation.start]
            + mutation.text.encode()
            + original[mutation.end :]
        )
        compile(mutated, mutation.path, "exec")
        try:
            self._write(path, mutated)
            passed, _ = self.testsPass(mutation.tests)
        finally:
            self._write(path, original)
        return passed

    def _write(self, path: Path, content: bytes) -> None:
        # What is compiled goes by time and size, which may both stay the same.
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()
        path.write_bytes(content)


def run(mutations: list[Mutation]) -> list[Mutation]:
    """
    Try some mutations.

    @return: those that survive.
    """
    with tempfile.TemporaryDirectory(prefix="gomux-mutation-") as temporary:
        copies: SimpleQueue[Scratch] = SimpleQueue()
        for number in range(WORKERS):
            copies.put(Scratch(Path(temporary) / str(number)))

        def survives(mutation: Mutation) -> bool:
            scratch = copies.get()
            try:
                return scratch.survives(mutation)
            finally:
                copies.put(scratch)

        every = tuple(sorted({test for m in mutations for test in m.tests}))
        scratch = copies.get()
        passed, output = scratch.testsPass(every)
        copies.put(scratch)
        if not passed:
            raise Mistake(f"the tests fail without any mutation:\n{output[-4000:]}")
        with ThreadPoolExecutor(WORKERS) as pool:
            results = list(pool.map(survives, mutations))
    return [m for m, survived in zip(mutations, results, strict=True) if survived]


def main(arguments: list[str]) -> int:
    """
    @return: the exit status: 0 if no mutation survives.
    """
    started = time.monotonic()
    try:
        mutations = readMutations(ROOT)
        if arguments == ["--list"]:
            print(*mutations, sep="\n")
            return 0
        if arguments:
            mutations = [
                mutation
                for mutation in mutations
                if any(argument in str(mutation) for argument in arguments)
            ]
        survivors = run(mutations)
    except Mistake as mistake:
        print(mistake)
        return 1
    for mutation in survivors:
        print(f"survives: {mutation}\n    tests: {' '.join(mutation.tests)}")
    caught = len(mutations) - len(survivors)
    seconds = time.monotonic() - started
    print(f"{caught} of {len(mutations)} mutations are caught, in {seconds:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
