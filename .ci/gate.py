"""
The gate: run every check of the project in a fresh environment, and count the results.

    .ci/run             all steps; a change must pass them
    .ci/run lint types  only the steps with these names

The output of all steps goes to .ci/log/gate.log, and that of failed steps also to the
standard output.  The last line is the sum.  Each test counts as one, and so does each
step that does not run tests.  Only tests that need the Go peer may be skipped, and only
if C{gomux-go-peer} is not on the PATH.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / ".ci" / "log" / "gate.log"

#: Seconds after which the whole gate is stopped; a step may take the time that is left.
#: The gate takes some 20 minutes on two idle CPUs, and may take twice as long on busy
#: ones.
TIME_LIMIT = 45 * 60

#: The coverage, in percent of the package without its tests, that C{trial gomux} must
#: reach.
LINE_COVERAGE, BRANCH_COVERAGE = 95.0, 90.0

#: The programs that the interop tests run, and the Debian package of each.
PROGRAMS = {
    "nginx": "nginx-light",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "ip": "iproute2",
    "unshare": "util-linux",
    "curl": "curl",
    "jq": "jq",
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "chromium": "chromium",
    "tshark": "tshark",
    "zsh": "zsh",
    "man": "man-db",
    "haproxy": "haproxy",
    "callgrind_control": "valgrind",
    "systemd-analyze": "systemd",
    "systemd-socket-activate": "systemd",
}

GO_PEER = "gomux-go-peer"

#: Modules of interop/test/ that must be there, the slowest first.  All other
#: C{test_*.py} run too.
EXPECTED = [
    *("test_matrix", "test_readme", "test_tunnel_live", "test_faults_network"),
    "test_peers",
]

#: How many jobs of a step run at the same time.
LANES = 2

#: The tests that run again without any fast path, the slowest first.  They check what
#: data arrives and how streams end.  Tests of exact frames depend on the fast paths.
PLAIN = [
    ["interop.test.test_matrix.ThisWithBlockingTests"],
    ["interop.test.test_matrix.ThisWithGoTests"],
    ["gomux.test.mux.test_model"],
    ["gomux.test.mux.test_conformance"],
    [
        "gomux.test.session",
        "gomux.test.test_fuzz",
        "gomux.test.test_fastpaths",
        "gomux.test.tunnel.test_tunnel",
        "gomux.test.wire.test_strict",
        *(
            f"gomux.test.mux.test_{name}"
            for name in (
                *("attacks", "gated", "half_close", "producers", "recordings"),
                *("starttls", "strict_rules", "tcp", "violations"),
            )
        ),
    ],
]


@dataclass
class Counts:
    """
    How many tests and steps passed, failed and were skipped.

    @ivar skips: For each reason, the tests that were skipped for it.
    """

    passed: int = 0
    failed: int = 0
    skips: dict[str, list[str]] = field(default_factory=dict)

    @property
    def skipped(self) -> int:
        return sum(map(len, self.skips.values()))

    def add(self, other: Counts) -> None:
        self.passed += other.passed
        self.failed += other.failed
        for reason, tests in other.skips.items():
            self.skips.setdefault(reason, []).extend(tests)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def trialCounts(output: str) -> Counts:
    """
    Read the counts from the output of trial.

    @return: The counts; one failure if trial printed no summary, or ran no test.
    """
    summaries = re.findall(r"^(?:PASSED|FAILED) \((.*)\)$", output, re.MULTILINE)
    if not summaries:
        return Counts(failed=1)
    parts = (part.split("=") for part in summaries[-1].split(", "))
    number = {name: int(value) for name, value in parts}
    skips: dict[str, list[str]] = {}
    for reason, tests in re.findall(
        r"^={20,}\n\[SKIPPED\]\n(.*?)\n\n((?:[\w.]+\n)+)", output, re.M | re.S
    ):
        skips[reason] = tests.split()
    counts = Counts(
        passed=number.get("successes", 0) + number.get("expectedFailures", 0),
        failed=number.get("failures", 0)
        + number.get("errors", 0)
        + number.get("unexpectedSuccesses", 0),
        skips=skips,
    )
    unexplained = number.get("skips", 0) - counts.skipped
    if unexplained > 0:
        skips["(no reason found)"] = ["?"] * unexplained
    return counts


def kill(process: subprocess.Popen[bytes]) -> None:
    """
    Kill the remaining processes of a step.
    """
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Gate:
    """
    Runs commands in the fresh environment, logs their output and counts their results.

    @ivar temporary: A directory for temporary files.
    @ivar total: The sum over all steps so far.
    """

    def __init__(self, temporary: Path) -> None:
        self.temporary = temporary
        self.total = Counts()
        # Held by a thread while it prints output and adds counts.
        self.lock = threading.RLock()
        self.deadline = time.monotonic() + TIME_LIMIT
        self.venv = temporary / "venv"
        LOG.parent.mkdir(exist_ok=True)
        self.log = LOG.open("w")
        dropped = (
            *("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"),
            *("GOMUX_PSK", "GOMUX_PLAIN", "GOMUX_BULK_MEBIBYTES"),
        )
        self.environment = {k: v for k, v in os.environ.items() if k not in dropped}
        self.environment["PATH"] = f"{self.venv / 'bin'}:{os.environ['PATH']}"
        self.environment["COVERAGE_FILE"] = str(temporary / "coverage")

    def execute(self, heading: str, *argv: str, limit: float) -> tuple[bool, str]:
        """
        Run one command.

        @param limit: Seconds after which the command is killed.
        @return: Whether the command succeeded, and its output.
        """
        limit = max(1.0, min(limit, self.deadline - time.monotonic()))
        started = time.monotonic()
        with tempfile.TemporaryFile() as captured:
            process = subprocess.Popen(
                argv,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=captured,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                ok, ending = process.wait(limit) == 0, ""
            except subprocess.TimeoutExpired:
                ok, ending = False, f"\nstopped after {limit:.0f} seconds\n"
            finally:
                kill(process)
                process.wait()
            captured.seek(0)
            output = captured.read().decode(errors="replace") + ending
        seconds = time.monotonic() - started
        title = f"\n===== {heading} ({seconds:.1f} s)\n$ {' '.join(argv)}"
        with self.lock:
            print(f"{title}\n{output}", file=self.log, flush=True)
        return ok, output

    def report(self, heading: str, counts: Counts, output: str = "") -> None:
        """
        Add a step's counts to the sum, and show its output if it failed.
        """
        with self.lock:
            self.total.add(counts)
            if counts.failed and output:
                print(f"\n===== {heading}: the end of its output")
                print("\n".join(output.splitlines()[-150:]))
            print(f"{'FAILED' if counts.failed else 'ok':7}{heading}: {counts}")

    def single(self, heading: str, *argv: str, limit: float = 120) -> bool:
        """
        Run a command that counts as one.
        """
        ok, output = self.execute(heading, *argv, limit=limit)
        self.report(heading, Counts(passed=int(ok), failed=int(not ok)), output)
        return ok

    def measured(self, heading: str, *argv: str, limit: float) -> None:
        """
        Run a command that counts as one, and show the last line of its output.
        """
        ok, output = self.execute(heading, *argv, limit=limit)
        with self.lock:
            self.report(heading, Counts(passed=int(ok), failed=int(not ok)), output)
            print("      ", (output.splitlines() or [""])[-1])

    def count(self, heading: str, ok: bool, output: str) -> None:
        """
        Count the tests of a step that ran trial.

        @param ok: whether trial succeeded.
        @param output: the output of trial.
        """
        counts = trialCounts(output)
        if not ok and not counts.failed:
            counts.failed = 1
        self.report(heading, counts, output)


def setUp(gate: Gate) -> bool:
    """
    Make the environment, with the dependencies that the project's own files declare.
    """
    installed = gate.single(
        "fresh environment", sys.executable, "-m", "venv", str(gate.venv)
    ) and gate.single(
        "install",
        str(gate.venv / "bin" / "pip"),
        *("install", "--quiet", "--editable", ".[dev]"),
        limit=300,
    )
    absent = [PROGRAMS[name] for name in PROGRAMS if not shutil.which(name)]
    installable = os.environ.get("CI") and os.geteuid() == 0 and shutil.which("apt-get")
    if absent and installable:
        # RUNLEVEL keeps the Debian packages from starting their services.
        script = "apt-get update -qq && apt-get install -qqy --no-install-recommends "
        ok, _ = gate.execute(
            "programs",
            *("env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"),
            *("sh", "-c", script + " ".join(absent)),
            limit=400,
        )
        print(f"{'ok' if ok else 'note':7}programs: {' '.join(absent)}")
    return installed


def format(gate: Gate) -> None:
    gate.single("format", "ruff", "format", "--check", ".")


def lint(gate: Gate) -> None:
    gate.single("lint", "ruff", "check", ".")


def imports(gate: Gate) -> None:
    """
    Check that the rooms of the package only import downwards; see pyproject.toml.
    """
    gate.single("imports", "lint-imports", "--no-cache")


def types(gate: Gate) -> None:
    cache = str(gate.temporary / "mypy")
    gate.single("types", "mypy", "--cache-dir", cache, limit=300)


def tests(gate: Gate) -> None:
    """
    Run C{trial gomux}, as the README does, and measure its coverage.
    """
    heading = "trial gomux"
    ok, output = gate.execute(
        heading,
        *("coverage", "run", "-m", "twisted.trial"),
        *("--temp-directory", str(gate.temporary / "trial"), "gomux"),
        limit=400,
    )
    gate.count(heading, ok, output)
    gate.execute("coverage", "coverage", "combine", "--quiet", limit=60)
    _, table = gate.execute("coverage", "coverage", "report", limit=60)
    report = gate.temporary / "coverage.json"
    ok, _ = gate.execute("coverage", "coverage", "json", "-o", str(report), limit=60)
    if ok:
        sums = json.loads(report.read_text())["totals"]
        lines = 100 * sums["covered_lines"] / max(1, sums["num_statements"])
        branches = 100 * sums["covered_branches"] / max(1, sums["num_branches"])
        ok = lines >= LINE_COVERAGE and branches >= BRANCH_COVERAGE
        table += f"\nlines {lines:.1f} %, branches {branches:.1f} %"
    gate.report("coverage", Counts(passed=int(ok), failed=int(not ok)), table)
    print("      ", table.splitlines()[-1])


def legs(output: str) -> dict[str, dict[str, int]]:
    """
    Count the outcomes in trial's listing, such as OK, SKIPPED and FAIL, by test class.
    """
    found: dict[str, dict[str, int]] = {}
    leg: dict[str, int] = {}
    for line in output.splitlines():
        if heading := re.fullmatch(r"  (\w+)", line):
            leg = found.setdefault(heading[1], {})
        elif outcome := re.fullmatch(r"    \S.*\[(\w+)\]", line):
            leg[outcome[1]] = leg.get(outcome[1], 0) + 1
    return found


def inLanes(jobs: Iterable[Callable[[], None]]) -> None:
    """
    Run some jobs, L{LANES} at the same time.
    """
    with ThreadPoolExecutor(LANES) as lanes:
        for done in [lanes.submit(job) for job in jobs]:
            done.result()


def interop(gate: Gate) -> None:
    """
    Run each module of interop/test/; one of them runs the README's commands.  Each test
    class is a leg, for instance this project with the Go reference.
    """
    found = {path.stem for path in (ROOT / "interop" / "test").glob("test_*.py")}

    def run(module: str) -> None:
        heading = f"interop {module}"
        ok, output = gate.execute(
            heading,
            *("trial", "--temp-directory", str(gate.temporary / module)),
            f"interop.test.{module}",
            limit=400,
        )
        with gate.lock:
            gate.count(heading, ok, output)
            for leg, outcomes in legs(output).items():
                verb = "ran" if set(outcomes) - {"SKIPPED"} else "did not run"
                numbers = ", ".join(f"{n} {what}" for what, n in outcomes.items())
                print(f"         leg {leg} {verb}: {numbers}")

    modules = [*EXPECTED, *sorted(found - set(EXPECTED))]
    inLanes(partial(run, module) for module in modules)
    print(f"       Go peer: {shutil.which(GO_PEER) or 'not on the PATH'}")


def plain(gate: Gate) -> None:
    """
    Run the property tests and the interop matrix with all fast paths switched off.
    """

    def run(names: list[str]) -> None:
        heading = f"plain {names[0]}" + (" and others" if names[1:] else "")
        ok, output = gate.execute(
            heading,
            *("env", "GOMUX_PLAIN=all", "GOMUX_BULK_MEBIBYTES=8", "trial"),
            *("--temp-directory", str(gate.temporary / heading), *names),
            limit=200,
        )
        gate.count(heading, ok, output)

    inLanes(partial(run, names) for names in PLAIN)


def mutation(gate: Gate) -> None:
    """
    Take out each check and limit in turn, and require that a test fails.  First run the
    tests of the mutation check itself.
    """
    heading = "test_mutation"
    ok, output = gate.execute(
        heading,
        *("env", f"PYTHONPATH={ROOT / '.ci'}", "trial"),
        *("--temp-directory", str(gate.temporary / heading), heading),
        limit=60,
    )
    gate.count(heading, ok, output)
    gate.measured("mutation", "python", ".ci/mutation.py", limit=900)


def fuzz(gate: Gate) -> None:
    command = ("python", "-m", "fuzz", "all", "--seconds", "20")
    gate.measured("fuzz", *command, limit=150)


def soak(gate: Gate) -> None:
    """
    Run a short soak test; docs/soak.rst has the results of the long ones.
    """
    options = ("--seconds", "120", "--streams", "500", "--interval", "5")
    gate.measured("soak", *("python", "-m", "interop.soak"), *options, limit=300)


def bench(gate: Gate) -> None:
    """
    Count the instructions of frames, and run a few small benchmarks.  It fails if a
    frame takes far more instructions than on record; times decide nothing.
    """
    gate.measured("bench", *("python", "-m", "bench", "--check"), limit=300)


def docs(gate: Gate) -> None:
    """
    Build the documentation, with the API reference.
    """
    gate.single(
        "docs",
        *("sphinx-build", "--fail-on-warning", "--keep-going", "--quiet"),
        *("docs", str(gate.temporary / "docs")),
    )


def news(gate: Gate) -> None:
    gate.single("release notes", "towncrier", "build", "--draft")


def packages(gate: Gate) -> None:
    python = str(gate.venv / "bin" / "python")
    gate.single("packages", python, ".ci/check_packages.py", limit=500)


def versions(gate: Gate, leg: str) -> None:
    """
    C{trial gomux} with other versions of the dependencies.
    """
    python = str(gate.venv / "bin" / "python")
    ok, output = gate.execute(leg, python, ".ci/versions.py", leg, limit=400)
    with gate.lock:
        gate.count(leg, ok, output)
        print("      ", (output.splitlines() or [""])[-1])


def floors(gate: Gate) -> None:
    """
    All lower bounds of pyproject.toml at once, on the oldest Python that is there.
    First the tests of how they are found.
    """
    heading = "test_versions"
    ok, output = gate.execute(
        heading,
        *("env", f"PYTHONPATH={ROOT / '.ci'}", "trial"),
        *("--temp-directory", str(gate.temporary / heading), heading),
        limit=60,
    )
    gate.count(heading, ok, output)
    versions(gate, "floors")


def newest(gate: Gate) -> None:
    """
    The newest releases, on the newest Python that is there.
    """
    versions(gate, "newest")


def programs(gate: Gate) -> None:
    """
    Programs from the package index over gomux, in an environment of their own.
    """
    heading, venv = "programs", gate.temporary / "programs"
    if gate.single(
        "programs' environment", sys.executable, "-m", "venv", str(venv)
    ) and gate.single(
        "install programs",
        *(str(venv / "bin" / "pip"), "install", "--quiet", "--editable", ".[tls]"),
        *("--requirement", "interop/programs/requirements.txt"),
        limit=300,
    ):
        ok, output = gate.execute(
            heading,
            str(venv / "bin" / "trial"),
            *("--temp-directory", str(gate.temporary / "programs-trial")),
            "interop.programs",
            limit=300,
        )
        gate.count(heading, ok, output)


Step = Callable[[Gate], None]

#: All steps, in order: rounds of lanes of steps.  The lanes of a round run at the same
#: time, L{LANES} of them.
ROUNDS: list[list[list[Step]]] = [
    [[bench], [format, lint, imports, types, docs, news]],
    [[tests], [floors], [newest], [packages, programs, fuzz]],
    [[interop]],
    [[soak, plain], [mutation]],
]

STEPS: Mapping[str, Step] = {
    step.__name__: step for lanes in ROUNDS for lane in lanes for step in lane
}


def runLane(gate: Gate, lane: list[Step]) -> None:
    for step in lane:
        step(gate)


def verdict(gate: Gate) -> int:
    """
    Print the sum.

    @return: The exit status: zero if nothing failed or was wrongly skipped.
    """
    wrong = {
        reason: skipped
        for reason, skipped in gate.total.skips.items()
        if GO_PEER not in reason or shutil.which(GO_PEER)
    }
    print()
    for reason, skipped in wrong.items():
        print(f"must not be skipped ({reason}): {', '.join(skipped)}")
    print(f"all output: {LOG.relative_to(ROOT)}")
    print(gate.total)
    return 1 if gate.total.failed or wrong else 0


def main(names: list[str]) -> int:
    unknown = set(names) - set(STEPS)
    if unknown:
        sys.exit(f"no such step: {', '.join(unknown)}; there are {', '.join(STEPS)}")
    with tempfile.TemporaryDirectory(prefix="gomux-gate-") as temporary:
        gate = Gate(Path(temporary))
        if setUp(gate):
            rounds = [[[STEPS[name]]] for name in names] or ROUNDS
            for lanes in rounds:
                inLanes(partial(runLane, gate, lane) for lane in lanes)
        return verdict(gate)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
