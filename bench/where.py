"""
Measure where the time of a 64 KiB frame goes, at both ends of a sink over loopback TCP.

    python -m bench.where [STREAMS]

This needs py-spy, which samples the stacks of both processes some hundred times a
second.  It prints microseconds a frame.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.peers import THIS, connect, listen
from bench.processes import Process

#: How many bytes are moved, and for how many seconds stacks are sampled.
SIZE, SECONDS = 8 << 30, 5
FRAME = 65536

#: The kinds of work.  The first pattern that is found in a stack decides.  A stack is
#: the functions, the outermost first, with a semicolon before each.
KINDS = {
    "asleep": r";epoll_wait ",
    "kernel, send": r";send(msg)? ",
    "kernel, receive": r";recv ",
    "sealing": r";Sealer\.seal .*_rust",
    "opening": r";Opener\.open .*_rust",
    # The innermost function of Python decides, whatever C code it calls.
    "Twisted": r";[^;]*twisted/[\w/]+\.py:\d+\)(;((?!\.py:)[^;])*)*$",
}


def kindOf(stack: str) -> str:
    """
    Tell which kind of work a stack belongs to.
    """
    for kind, pattern in KINDS.items():
        if re.search(pattern, ";" + stack):
            return kind
    return "ours"


def look(process: Process, output: Path) -> subprocess.Popen[bytes]:
    """
    Start to sample the stacks of a process.
    """
    return subprocess.Popen(
        ["py-spy", "record", "--native", "--format", "raw", "--rate", "500"]
        + ["--duration", str(SECONDS), "--output", output, "--pid", str(process.pid)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def main(streams: int) -> None:
    with tempfile.TemporaryDirectory() as directory, listen(THIS) as server:
        address = server.line("listening ")
        with connect(
            THIS, address, "--drive", f"sink {SIZE} {streams} {FRAME}"
        ) as client:
            client.line("mux up")
            sides = {"sends": client, "receives": server}
            outputs = {side: Path(directory, side) for side in sides}
            for looking in [look(sides[side], outputs[side]) for side in sides]:
                if looking.wait():
                    raise SystemExit("py-spy failed; may it look at other processes?")
            result = json.loads("{" + client.line("{"))
        frame = result["seconds"] / (SIZE / FRAME) * 1e6
        print(f"a frame: {frame:.1f}")
        for side, output in outputs.items():
            seen: Counter[str] = Counter()
            for line in output.read_text().splitlines():
                stack, _, times = line.rpartition(" ")
                seen[kindOf(stack)] += int(times)
            print(f"who {side}:")
            for kind, times in seen.most_common():
                print(f"  {kind}: {times / seen.total() * frame:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
