"""
Fuzz a target of L{gomux.test.support.fuzztargets}::

    python -m fuzz TARGET --seconds N

TARGET is C{parser}, C{mux}, C{strict}, C{strings}, C{keyfile}, C{config} or
C{requests}, or C{all} for all of them, which share the time.  With atheris, coverage
guides the fuzzing; without atheris, the inputs are random.  The fuzzer starts from two
sources: the corpus,
C{gomux/test/vectors/fuzz-*.txt}, which the package's own tests replay, and
L{fuzz.seeds}.  With C{--keep} it adds interesting inputs to the corpus.

An input that makes a target fail is written to a file in the current directory.
C{python -m fuzz TARGET --replay FILE} runs that input alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from twisted.logger import globalLogBeginner

from fuzz.seeds import SIZE, seeds
from gomux.test.support.fuzztargets import TARGETS, corpus
from gomux.test.support.recordings import VECTORS

#: The most bytes of all inputs in the corpus of a target.
KEPT = 65536
#: Seconds after which an input counts as hanging.
INPUT_TIMEOUT = 20


def guided(target: str, seconds: float, keep: bool) -> str | None:
    """
    Fuzz with atheris.

    @return: figures about the run, or C{None} if an input failed.
    """
    with tempfile.TemporaryDirectory(prefix="gomux-fuzz-") as temporary:
        found, merged = Path(temporary) / "found", Path(temporary) / "merged"
        for directory in (found, merged):
            directory.mkdir()
        for seed in [*corpus(target), *seeds(target)]:
            (found / sha256(seed).hexdigest()).write_bytes(seed)
        options = [f"-max_len={SIZE}", f"-timeout={INPUT_TIMEOUT}", "-rss_limit_mb=0"]
        log = _atheris(
            target,
            [*options, f"-max_total_time={max(1, round(seconds))}"],
            ["-print_final_stats=1", f"-artifact_prefix=fuzz-{target}-", str(found)],
        )
        if log is None:
            return None
        if keep:
            _atheris(target, options, ["-merge=1", str(merged), str(found)])
            inputs = [path.read_bytes() for path in merged.iterdir()]
            assert inputs, "nothing was merged"
            _keep(target, inputs)
        return _figures(log)


def _atheris(target: str, *options: list[str]) -> str | None:
    """
    Run atheris on a target.

    @return: the output of atheris, or C{None} if an input failed.
    """
    command = [sys.executable, "-m", "fuzz.guided", target, *sum(options, [])]
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    log = process.stdout.decode(errors="replace")
    if process.returncode:
        print(log[-8000:])
        return None
    return log


def _figures(log: str) -> str:
    """
    Extract the interesting numbers from the output of libFuzzer.
    """
    status = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)/", log)[-1]
    inputs = re.search(r"number_of_executed_units: (\d+)", log)
    rate = re.search(r"average_exec_per_sec: +(\d+)", log)
    assert inputs is not None and rate is not None
    return (
        f"{inputs[1]} inputs, {rate[1]} a second;"
        f" {status[0]} edges, {status[1]} features, {status[2]} inputs of interest"
    )


def _keep(target: str, inputs: list[bytes]) -> None:
    """
    Write the corpus, the smallest inputs first.
    """
    lines = []
    size = 0
    for one in sorted(inputs, key=lambda one: (len(one), one)):
        size += len(one)
        if size > KEPT:
            break
        lines.append(b64encode(one).decode() + "\n")
    (VECTORS / f"fuzz-{target}.txt").write_text("".join(lines))


def blind(target: str, seconds: float) -> str | None:
    """
    Fuzz with random inputs, without the guidance of coverage.

    @return: figures about the run, or C{None} if an input failed.
    """
    inputs = [*corpus(target), *seeds(target)]
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        one = bytearray(random.choice(inputs))
        for _ in range(random.randrange(1, 6)):
            start = random.randrange(len(one) + 1)
            part = random.randbytes(random.randrange(1, 5))
            if random.random() < 0.3:
                other = random.choice(inputs)
                offset = random.randrange(len(other) + 1)
                part = other[offset : offset + random.randrange(64)]
            cut = random.choice((0, len(part), random.randrange(8)))
            one[start : start + cut] = part
        if not replay(target, bytes(one[:SIZE])):
            return None
        count += 1
    return f"{count} inputs, without atheris"


def replay(target: str, data: bytes) -> bool:
    """
    Run a target with one input.  If it fails, write the input to a file.

    @return: whether the target passed.
    """
    try:
        TARGETS[target](data)
    except Exception:
        path = Path(f"fuzz-{target}-crash-{sha256(data).hexdigest()[:16]}")
        path.write_bytes(data)
        traceback.print_exc()
        print(f"the input is in {path}")
        return False
    return True


def main() -> int:
    """
    @return: the exit status: 0 if no input failed.
    """
    options = argparse.ArgumentParser(prog="python -m fuzz")
    options.add_argument("target", choices=[*TARGETS, "all"])
    options.add_argument("--seconds", type=float, default=30.0)
    options.add_argument("--keep", action="store_true")
    options.add_argument("--replay", type=Path)
    arguments = options.parse_args()
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    if arguments.replay is not None:
        return 0 if replay(arguments.target, arguments.replay.read_bytes()) else 1
    targets = [*TARGETS] if arguments.target == "all" else [arguments.target]
    said = []
    for target in targets:
        share = arguments.seconds / len(targets)
        if importlib.util.find_spec("atheris") is not None:
            figures = guided(target, share, arguments.keep)
        else:
            figures = blind(target, share)
        if figures is None:
            return 1
        said.append(f"{target}: {figures}")
    print("; ".join(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
