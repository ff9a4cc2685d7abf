"""
The mutation check: take each check and limit out in turn, and see a test fail.

    python .ci/mutation.py              all mutations
    python .ci/mutation.py TEXT ...     those with one of these in their names
    python .ci/mutation.py --list       only tell which there are; TEXT may follow

There are two kinds.  Those in C{mutations.txt} are written by hand: an expression
or some statements of a function, and what to put in their place.  L{places} finds
them by what they mean, so that a line may be formatted anew and a name may change.
The others follow from the modules: each C{raise} in them is replaced by C{pass}, so
no check that raises can be added without a test.

A mutation must make one of the test modules fail that are named for it, each
of which takes about a second.  It is an error if none does, if the place of a
mutation is not to be found, and if there is no mutation for one of the limits.
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

#: How many test runs there are at once.
WORKERS = 2
#: Seconds that a test run may take: a mutation may make it hang.
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
    sys.argv = ["trial", "--exitfirst", "--temp-directory", str(root / "trial"), *tests]
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
        mutated = mutation.change.apply(original)
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
