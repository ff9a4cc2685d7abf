"""
The mutation check: take out each check and limit in turn, and require that a test
fails.

    python .ci/mutation.py              all mutations
    python .ci/mutation.py TEXT ...     those whose names contain one of the texts
    python .ci/mutation.py --list       only list them; TEXT may follow

There are two kinds of mutation.  Those in C{mutations.txt} are written by hand: an
expression or some statements of a function, and their replacement.  L{places} finds
them in the syntax tree, so a line may be reformatted and a name may change.  The others
are derived from the modules that the list names: each C{raise} is replaced by C{pass},
so no check that raises can be added without a test.

Each mutation names some test modules, which take about a second each.  At least one of
them must fail.  It is an error if none fails, if the place of a mutation is not found,
or if a limit has no mutation.
"""

from __future__ import annotations

import multiprocessing
import os
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

#: How many test runs go on at the same time.
WORKERS = 2
#: Seconds after which a test run is stopped, because a mutation may make it hang.
TIME_LIMIT = 60
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

    def survives(self, mutation: Mutation) -> bool:
        """
        @return: whether all tests pass in spite of the mutation.
        """
        path = self.root / mutation.path
        original = path.read_bytes()
        mutated = mutation.change.apply(original)
        compile(mutated, mutation.path, "exec")
        try:
            self._write(path, mutated)
            passed, _ = self.testsPass(mutation.tests)
        finally:
            self._write(path, original)
        return passed

    def _write(self, path: Path, content: bytes) -> None:
        # Python detects a changed module by its time and size.  A mutation may leave
        # both unchanged, so delete the compiled file.
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()
        path.write_bytes(content)


def run(mutations: list[Mutation]) -> list[Mutation]:
    """
    Test some mutations.

    @return: the mutations that no test notices.
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
        passed, output = scratch.testsPass(every, FIRST_LIMIT)
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
        mutations = readMutations(ROOT, LIST.read_text())
        if texts := [text for text in arguments if text != "--list"]:
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
