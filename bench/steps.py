"""
Count the Python interpreter's steps for a frame, by function.  The count depends
neither on the machine nor on its load.

    python -m bench.steps [STREAMS]

This prints the steps of a 64 KiB frame and its credit in both muxes together, while
STREAMS streams (default 1) are saturated.  It also prints the steps of each of the two
frames of a 64-byte echo.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from bench.frame import FRAME, Pair, amongOthers

#: How many rounds are counted, and how many warm-up rounds let the windows grow first.
ROUNDS, WARM_UP = 300, 2000

#: How many functions are listed.
SHOWN = 25


@implementer(IPushProducer)
class Writer:
    """
    Writes frames to a stream until the stream pauses it.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._paused = False
        stream.registerProducer(self, True)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while not self._paused:
            self._stream.write(FRAME)

    def stopProducing(self) -> None:
        pass


class Steps:
    """
    Counts the interpreter's steps.

    @ivar steps: the number of steps, by function.
    @ivar calls: the number of calls, by function.
    """

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def count(self, run: Callable[[], object], times: int) -> None:
        """
        Count the steps of a number of calls.
        """
        sys.settrace(self._trace)
        for _ in range(times):
            run()
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        module = frame.f_globals["__name__"]
        # The stand-ins for the reactor and the connection are not counted.
        if module.startswith("gomux."):
            name = f"{module}.{frame.f_code.co_name}"
            self.calls[name] += event == "call"
            self.steps[name] += event == "opcode"
        return self._trace

    def show(self, what: str, frames: float) -> None:
        """
        Print the steps of one frame, and the functions with the most steps.

        @param what: the title.
        @param frames: how many frames were counted.
        """
        steps, calls = self.steps.total() / frames, self.calls.total() / frames
        print(f"{what}: {steps:.0f} steps in {calls:.1f} calls")
        for name, count in self.steps.most_common(SHOWN):
            print(f"  {count / frames:6.1f} in {self.calls[name] / frames:4.2f} {name}")


def bulk(streams: int) -> None:
    """
    Count the steps of large frames in one direction, and of their credit.
    """
    pair = Pair(Protocol)
    writers = [Writer(pair.open()) for _ in range(streams)]
    pair.settle()
    for writer in writers:
        writer.resumeProducing()

    def one() -> None:
        pair.clock.run()
        pair.hand(pair.client, pair.server)
        pair.hand(pair.server, pair.client)

    for _ in range(WARM_UP // streams + 10):
        one()
    steps = Steps()
    before = pair.server.bytesReceived
    steps.count(one, ROUNDS // streams + 1)
    frames = (pair.server.bytesReceived - before) / len(FRAME)
    steps.show(f"64 KiB and its credit, {streams} streams", frames)


def small() -> None:
    """
    Count the steps of echoes, each of which is two frames.
    """
    echo = amongOthers(1)
    for _ in range(WARM_UP):
        echo()
    steps = Steps()
    steps.count(echo, ROUNDS)
    steps.show("64 bytes", 2 * ROUNDS)


if __name__ == "__main__":
    bulk(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    small()
