"""
The mutation check: take out each check and limit in turn, and require that a test
fails.

    python .ci/mutation.py              all mutations
    python .ci/mutation.py TEXT ...     those whose names contain one of the texts
    python .ci/mutation.py --list       only list them; TEXT may follow
    python .ci/mutation.py --record     also write catchers.txt; TEXT may follow

There are two kinds of mutation.  Those in C{mutations.txt} are written by hand: an
expression or some statements of a function, and their replacement.  L{places} finds
them in the syntax tree, so a line may be reformatted and a name may change.  The others
are derived from the modules that the list names: each C{raise} is replaced by C{pass},
so no check that raises can be added without a test.

Each mutation names some test modules, which take about a second each.  At least one of
them must fail.  It is an error if none fails, if the place of a mutation is not found,
or if a limit has no mutation.

To save time, C{catchers.txt} has for each mutation the test that failed when the file
was written.  That test runs first, and the modules only if it passes.  So the file need
not be up to date.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from mutationlist import Mutation, readMutations
from places import Mistake

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_name("mutations.txt")
CATCHERS = Path(__file__).with_name("catchers.txt")

#: A line of trial's output that names a test that has failed.
FAILED = re.compile(r"^gomux\.test\.\S+\.test_\w+$", re.MULTILINE)

#: How many test runs go on at the same time.
WORKERS = 2
#: Seconds after which a test run is stopped, because a mutation may make it hang.
TIME_LIMIT = 60
#: The same for the test that runs first.
CATCHER_LIMIT = 15
#: The same for the first run, of all tests without any mutation.
FIRST_LIMIT = 300

#: Modules that all test runs need and that take longest to import.  Processes must not
#: share a reactor, and the package is mutated, so neither is among them.
PRELOADED = (
    *("twisted.scripts.trial", "twisted.trial.unittest", "twisted.internet.testing"),
    *("twisted.internet.endpoints", "twisted.internet.tcp", "twisted.protocols.tls"),
    *("cryptography.hazmat.primitives.ciphers.aead", "hypothesis"),
)
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(list(PRELOADED))


def _trial(root: Path, output: Path, tests: tuple[str, ...]) -> None:
    """
    Run some tests of a copy of the package.  This is called in a process of its own.

    @param root: the directory of the copy.
    @param output: the file for the output of the tests.
    """
    with output.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(root)
    sys.path.insert(0, str(root))
    os.environ["PYTHONPATH"] = str(root)
    sys.argv = ["trial", "--exitfirst", "--temp-directory", str(root / "trial"), *tests]
    # Imported here because not all users of this module need it.
    from twisted.scripts.trial import run

    run()


class Scratch:
    """
    A copy of the package, to which one mutation after another is applied.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for part in ("gomux", "twisted"):
            ignore = shutil.ignore_patterns("*.py[co]")
            shutil.copytree(ROOT / part, root / part, ignore=ignore)

    def testsPass(
        self, tests: tuple[str, ...], limit: float = TIME_LIMIT
    ) -> tuple[bool, str]:
        """
        @param limit: seconds after which the run is stopped.
        @return: whether the tests pass, and their output.
        """
        output = self.root / "output"
        trial = _forks.Process(target=_trial, args=(self.root, output, tests))
        trial.start()
        trial.join(limit)
        if trial.exitcode is None:
            trial.kill()
            trial.join()
            return False, f"FAILED (stopped after {limit:.0f} seconds)"
        return trial.exitcode == 0, output.read_text(errors="replace")

    def catch(self, mutation: Mutation, catcher: str | None) -> tuple[bool, str | None]:
        """
        @param catcher: the test to run first.
        @return: whether a test fails with the mutation; and the test to run first the
            next time.
        """
        path = self.root / mutation.path
        original = path.read_bytes()
        mutated = mutation.change.apply(original)
        compile(mutated, mutation.path, "exec")
        try:
            self._write(path, mutated)
            if catcher is not None and not self.testsPass((catcher,), CATCHER_LIMIT)[0]:
                return True, catcher
            passed, output = self.testsPass(mutation.tests)
        finally:
            self._write(path, original)
        if passed:
            return False, None
        # A test that fails alone, also without the mutation, says nothing.
        named = FAILED.findall(output)[-1:]
        return True, named[0] if named and self.testsPass(tuple(named))[0] else None

    def _write(self, path: Path, content: bytes) -> None:
        # Python detects a changed module by its time and size.  A mutation may leave
        # both unchanged, so delete the compiled file.
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()
        path.write_bytes(content)


def testsIn(output: str) -> set[str]:
    """
    @return: the full names of the tests that trial lists in its output.
    """
    found, module, case = set(), "", ""
    for line in output.splitlines():
        if re.fullmatch(r"gomux\.test\.[\w.]+", line):
            module = line
        elif match := re.fullmatch(r"  (\w+)", line):
            case = match[1]
        elif match := re.match(r"    (test_\w+) \.\.\.", line):
            found.add(f"{module}.{case}.{match[1]}")
    return found


def readCatchers(text: str) -> dict[str, str]:
    """
    @param text: the content of C{catchers.txt}: a mutation and a test in each line.
    @return: the test for each mutation.
    """
    return dict(line.rsplit(": ", 1) for line in text.splitlines())


def run(
    mutations: list[Mutation], catchers: dict[str, str]
) -> dict[Mutation, tuple[bool, str | None]]:
    """
    Test some mutations.

    @param catchers: the test to run first for each mutation.
    @return: for each mutation, whether a test has failed, and which.
    """
    with tempfile.TemporaryDirectory(prefix="gomux-mutation-") as temporary:
        scratches = [Scratch(Path(temporary) / str(n)) for n in range(WORKERS)]
        copies: SimpleQueue[Scratch] = SimpleQueue()
        for scratch in scratches:
            copies.put(scratch)

        def catch(mutation: Mutation) -> tuple[bool, str | None]:
            scratch = copies.get()
            try:
                return scratch.catch(mutation, catchers.get(str(mutation)))
            finally:
                copies.put(scratch)

        every = sorted({test for m in mutations for test in m.tests})
        with ThreadPoolExecutor(WORKERS) as pool:
            first = pool.map(
                lambda n: scratches[n].testsPass(
                    tuple(every[n::WORKERS]) or tuple(every), FIRST_LIMIT
                ),
                range(WORKERS),
            )
            tests = set()
            for passed, output in first:
                if not passed:
                    raise Mistake(
                        f"the tests fail without any mutation:\n{output[-4000:]}"
                    )
                tests |= testsIn(output)
            # A test that is not there any more would seem to fail.
            catchers = {m: test for m, test in catchers.items() if test in tests}
            return dict(zip(mutations, pool.map(catch, mutations), strict=True))


def main(arguments: list[str]) -> int:
    """
    @return: the exit status: 0 if no mutation survives.
    """
    started = time.monotonic()
    try:
        mutations = readMutations(ROOT, LIST.read_text())
        if texts := [text for text in arguments if not text.startswith("--")]:
            mutations = [
                mutation
                for mutation in mutations
                if any(text in str(mutation) for text in texts)
            ]
        for mutation in mutations:
            for (_, name), now in mutation.change.renaming:
                print(f"renamed: {mutation}: {name} is now {now}")
        if "--list" in arguments:
            print(*mutations, sep="\n")
            return 0
        catchers = readCatchers(CATCHERS.read_text())
        results = run(mutations, catchers)
        if "--record" in arguments:
            catchers |= {str(m): test for m, (_, test) in results.items() if test}
            known = {str(m) for m in readMutations(ROOT, LIST.read_text())}
            lines = (f"{m}: {catchers[m]}\n" for m in sorted(known & catchers.keys()))
            CATCHERS.write_text("".join(lines))
    except Mistake as mistake:
        print(mistake)
        return 1
    survivors = [mutation for mutation, (caught, _) in results.items() if not caught]
    for mutation in survivors:
        print(f"survives: {mutation}\n    tests: {' '.join(mutation.tests)}")
    caught = len(mutations) - len(survivors)
    seconds = time.monotonic() - started
    print(f"{caught} of {len(mutations)} mutations are caught, in {seconds:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
