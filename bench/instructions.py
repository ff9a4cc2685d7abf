"""
Count the CPU instructions of a frame beside a growing number of open streams.  The
count does not depend on the machine's other load.

    python -m bench.instructions

This needs valgrind.  It prints the instructions of one frame, in both muxes together.
Two runs differ only in their number of echoes of 64 bytes, each of which is two frames.
The figure is the difference in instructions divided by the difference in frames.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile

from bench.frame import OPEN_STREAMS, echoes

#: How many echoes the shorter run has, and how many more the longer one.
FEW, MORE = 200, 1000


def instructions(*command: str) -> int:
    """
    @param command: a module and its arguments.
    @return: the instructions of a process that runs it.
    """
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not on the PATH")
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/out"]
            + [sys.executable, "-m", *command],
            # Use the same order of sets and dictionaries in each run.
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def count(streams: int, times: int) -> int:
    """
    @return: the instructions of a process that does this many echoes beside this many
        open streams.
    """
    return instructions("bench.instructions", str(streams), str(times))


def main() -> None:
    costs = []
    for streams in OPEN_STREAMS:
        more = count(streams, FEW + MORE) - count(streams, FEW)
        costs.append(more / MORE / 2)
        print(f"beside {streams} open streams: {costs[-1]:.0f}", flush=True)
    print(f"most / least: {max(costs) / min(costs):.3f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        echoes(*map(int, sys.argv[1:]))
    else:
        main()
