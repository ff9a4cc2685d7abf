"""
Code that both Python peers of the live tests share: the command line, the output, and
the pattern.  It does not depend on a mux.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

BUFFER_SIZE = 65536

PATTERN_PERIOD = 251
"""The byte at offset C{i} of the pattern is C{i mod PATTERN_PERIOD}."""

_PATTERN = bytes(range(PATTERN_PERIOD)) * (BUFFER_SIZE // PATTERN_PERIOD + 2)

ENDLESS = 1 << 50
"""The size that C{echo-beside} announces for its sinks, and never reaches."""

WARM_UP = 1 << 20
"""How many bytes each sink receives before the echo beside it is measured."""

HALF_CLOSE_SIZE = 70000
"""
How many bytes must pass to show that a direction is open: more than a frame, less than
a window.
"""

HALF_CLOSE_ORDERS = [
    order
    for length in range(1, 5)
    for order in itertools.permutations(("lw", "lr", "rw", "rr"), length)
]
"""
All orders of the four events and of each subset of them.  The events: the local or the
remote side closes its writing or its reading half.
"""


class DriverFailed(Exception):
    """
    A driver saw something wrong.
    """


def parseOptions(arguments: Sequence[str]) -> argparse.Namespace:
    """
    Parse a peer's command line.

    @param arguments: The arguments after the program's name.
    @return: The options: C{psk}, C{listen}, C{connect}, C{forward}, C{target},
        C{readSize} (bytes), C{readDelay} (seconds), C{drive} (a list), C{strict} and
        C{context} (bytes).
        Addresses are C{(host, port)} or L{None}.
    """
    parser = argparse.ArgumentParser(description="A peer of the live tests.")
    parser.add_argument("--psk", required=True)
    role = parser.add_mutually_exclusive_group(required=True)
    role.add_argument("--listen", type=parseAddress)
    role.add_argument("--connect", type=parseAddress)
    parser.add_argument("--forward", type=parseAddress)
    parser.add_argument("--target", type=parseAddress)
    parser.add_argument("--read-size", dest="readSize", type=int, default=BUFFER_SIZE)
    parser.add_argument(
        "--read-delay",
        dest="readDelay",
        type=lambda milliseconds: int(milliseconds) / 1000,
        default=0.0,
    )
    parser.add_argument("--drive", action="append", default=[])
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--context", type=str.encode, default=b"")
    return parser.parse_args(arguments)


def parseAddress(text: str) -> tuple[str, int]:
    """
    Split C{HOST:PORT}.
    """
    host, _, port = text.rpartition(":")
    return host, int(port)


def say(line: str) -> None:
    """
    Print one line for the process that started this peer.
    """
    sys.stdout.write(line + "\n")  # one write: threads share the output
    sys.stdout.flush()


def sayAddress(word: str, address: tuple[Any, ...]) -> None:
    """
    Print an address on which this peer listens.
    """
    say(f"{word} {address[0]}:{address[1]}")


def patternAt(offset: int, size: int) -> bytes:
    """
    Return bytes of the pattern.

    @param size: How many bytes; at most L{BUFFER_SIZE} are returned.
    """
    return _pattern(offset % PATTERN_PERIOD, min(size, BUFFER_SIZE))


@lru_cache(maxsize=16)
def _pattern(start: int, size: int) -> bytes:
    """
    Copy a part of the pattern.  Streams that send the pattern at the same time share
    the copies, so a benchmark does not measure how a test program makes its data.
    """
    return _PATTERN[start : start + size]


def patternChunks(size: int, chunkSize: int = BUFFER_SIZE) -> Iterator[bytes]:
    """
    Generate the first bytes of the pattern in chunks, one for each write.

    @param size: How many bytes in all.
    @param chunkSize: How many in one write, at most L{BUFFER_SIZE}.
    """
    for offset in range(0, size, chunkSize):
        yield patternAt(offset, min(chunkSize, size - offset))


def isPatternAt(offset: int, data: bytes) -> bool:
    """
    Tell whether the pattern has this data at this offset.
    """
    return all(
        data[i : i + BUFFER_SIZE] == patternAt(offset + i, len(data) - i)
        for i in range(0, len(data), BUFFER_SIZE)
    )


def shares(total: int, streams: int) -> list[int]:
    """
    Distribute bytes evenly over streams; the first streams get the remainder.
    """
    share, rest = divmod(total, streams)
    return [share + (i < rest) for i in range(streams)]


def percentile(values: list[float], percent: int) -> float:
    """
    Return the smallest value that C{percent} of the values do not exceed.
    """
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def echoTimes(size: int, times: list[float]) -> dict[str, Any]:
    """
    Make the result of an echo driver.

    @param times: Round trips in seconds; they are reported in microseconds.
    """
    return {
        "size": size,
        "count": len(times),
        "p50": percentile(times, 50) * 1e6,
        "p99": percentile(times, 99) * 1e6,
    }


def driverResult(
    line: str, started: float, fields: dict[str, Any], error: str | None = None
) -> dict[str, Any]:
    """
    Make the result of a driver, as it is printed.

    @param line: The driver with its arguments.
    @param started: When the driver started, by L{time.monotonic}.
    @param fields: The driver's own fields; they have C{seconds} only if the driver
        measured its time itself.
    @param error: Why the driver failed, or L{None}.
    """
    result: dict[str, Any] = {
        "driver": line.partition(" ")[0],
        "ok": error is None,
        "seconds": time.monotonic() - started,
        **fields,
    }
    if error is not None:
        result["error"] = error
    if "bytes" in result:
        result["rate"] = result["bytes"] / result["seconds"]
    return result


def toLine(result: dict[str, Any]) -> str:
    """
    Format a result as a line of JSON.
    """
    return json.dumps(result, sort_keys=True)


def residentBytes() -> int:
    """
    Return the resident memory of this process in bytes.
    """
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
