# -*- test-case-name: gomux.test.testing.test_faultproxy -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
What a L{FaultProxy<gomux.testing.FaultProxy>} does to frames on their way.

An action is any function of a L{Way} and a L{WireFrame}: what it sends is sent
in place of the frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from gomux._wire.crypto import TAG_SIZE
from gomux._wire.frame import HEADER_SIZE, MAX_CREDIT, Flag, unpackFields


class Leg(Protocol):
    """
    What a way needs to know of the two connections that it joins.
    """

    def hold(self) -> None:
        """
        Read nothing until L{release}.
        """

    def release(self) -> None:
        """
        Read again.
        """

    def write(self, data: bytes) -> None:
        """
        Send some bytes.
        """

    def lose(self) -> None:
        """
        End the connection once all is sent.
        """

    def abort(self) -> None:
        """
        Reset the connection.
        """

    def endBoth(self, reset: bool) -> None:
        """
        End both connections once all is sent.
        """

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        """
        Call a function after a while, if the connection is still there.
        """


@dataclass(frozen=True)
class WireFrame:
    """
    One frame on its way.

    @ivar index: how many frames came before it on the same connection, in the
        same direction.
    @ivar streamID: the stream that its header names.
    @ivar length: the length that its header names.
    @ivar flag: its type, see L{Flag<gomux._wire.frame.Flag>}.
    @ivar data: all of it.
    """

    index: int
    streamID: int
    length: int
    flag: int
    data: bytes


#: Does something to a frame.
Action = Callable[["Way", WireFrame], None]


class Direction:
    """
    What is to happen to what goes one way, on all connections.
    """

    def __init__(self) -> None:
        self._rules: list[tuple[Callable[[WireFrame], bool], Action]] = []

    def when(self, which: int | Callable[[WireFrame], bool], action: Action) -> None:
        """
        Have an action done to some frames.  The first rule that fits a frame
        is the only one to be followed.

        @param which: the index of a frame, or a function that tells whether
            a frame is meant.
        @param action: what to do.
        """
        if isinstance(which, int):
            index = which
            self._rules.append((lambda frame: frame.index == index, action))
        else:
            self._rules.append((which, action))

    def clear(self) -> None:
        """
        Forget all rules.
        """
        self._rules.clear()

    def _apply(self, way: Way, frame: WireFrame) -> None:
        for isMeant, action in self._rules:
            if isMeant(frame):
                action(way, frame)
                return
        way.send(frame.data)


class Way:
    """
    One direction of one connection.

    @ivar frames: how many frames have come so far.
    """

    def __init__(self, direction: Direction, sender: Leg, receiver: Leg) -> None:
        self.frames = 0
        self._direction = direction
        self._sender = sender
        self._receiver = receiver
        self._partial = bytearray()
        self._framed = True
        self._open = True
        self._holes = False
        self._queue: deque[bytes | float | Callable[[], None]] = deque()
        self._waiting = False
        self._next = b""

    # For actions

    def send(self, data: bytes) -> None:
        """
        Send some bytes on, after all that was sent before.
        """
        self._put(data)

    def sendAfterNext(self, data: bytes) -> None:
        """
        Send some bytes on right after the next frame.
        """
        self._next += data

    def wait(self, seconds: float) -> None:
        """
        Let some time pass before anything that is sent from now on goes on.
        """
        self._put(seconds)

    def end(self, reset: bool = False) -> None:
        """
        End the connection, on both sides, once all that was sent has gone on.

        @param reset: whether each side gets a reset instead of a clean end.
        """
        self._open = False
        self._put(lambda: self._receiver.endBoth(reset))

    def swallow(self) -> None:
        """
        Let nothing through any more, not even an end; the sender's bytes are
        taken all the same.
        """
        self._holes = True
        self._open = False

    def stall(self) -> None:
        """
        Let nothing through any more, not even an end, and take no more of the
        sender's bytes.
        """
        self.swallow()
        self._sender.hold()

    # For the legs

    def received(self, data: bytes) -> None:
        """
        The sender sent some bytes.
        """
        if not self._framed:
            self.send(data)
            return
        self._partial += data
        while self._open and self._framed:
            size = self._nextSize()
            if not self._framed:
                break
            if size is None or len(self._partial) < size:
                return
            whole = bytes(self._partial[:size])
            del self._partial[:size]
            streamID, length, flag = unpackFields(whole)
            frame = WireFrame(self.frames, streamID, length, flag, whole)
            self.frames += 1
            next_, self._next = self._next, b""
            self._direction._apply(self, frame)
            if next_:
                self.send(next_)
        rest = bytes(self._partial)
        self._partial.clear()
        if self._open:
            self.send(rest)

    def ended(self, reason: Failure) -> None:
        """
        The sender is gone.
        """
        if self._holes:
            return
        if not reason.check(ConnectionDone):
            self._receiver.abort()
        elif self._open:
            self._open = False
            self._put(bytes(self._partial) + self._next)
            self._put(self._receiver.lose)

    def _nextSize(self) -> int | None:
        """
        @return: the next frame's size, if enough of it is there to tell.
        """
        if len(self._partial) < HEADER_SIZE:
            return None
        _, length, flag = unpackFields(self._partial)
        if length > MAX_CREDIT:
            # No frame: let it through as it comes.
            self._framed = False
            return None
        return HEADER_SIZE + TAG_SIZE + (length if flag == Flag.DATA else 0)

    def _put(self, item: bytes | float | Callable[[], None]) -> None:
        self._queue.append(item)
        if not self._waiting:
            self._run()

    def _run(self) -> None:
        if self._waiting:
            self._waiting = False
            if not self._holes:
                self._sender.release()
        while self._queue:
            item = self._queue.popleft()
            if isinstance(item, bytes):
                self._receiver.write(item)
            elif callable(item):
                item()
            else:
                self._waiting = True
                # What waits here would have no bounds.
                self._sender.hold()
                self._receiver.later(item, self._run)
                return


def drop() -> Action:
    """
    Lose the frame.
    """
    return lambda way, frame: None


def duplicate(times: int = 1) -> Action:
    """
    Send the frame, and then again so many times.
    """
    return lambda way, frame: way.send(frame.data * (1 + times))


def delay(seconds: float) -> Action:
    """
    Hold the frame back for a while, and with it what comes after it.
    """

    def action(way: Way, frame: WireFrame) -> None:
        way.wait(seconds)
        way.send(frame.data)

    return action


def slices(size: int, seconds: float = 0.0) -> Action:
    """
    Send the frame in slices.

    @param size: how many bytes each has.
    @param seconds: the time after each.
    """

    def action(way: Way, frame: WireFrame) -> None:
        for start in range(0, len(frame.data), size):
            way.send(frame.data[start : start + size])
            way.wait(seconds)

    return action


def swap() -> Action:
    """
    Send the frame after the next one.
    """
    return lambda way, frame: way.sendAfterNext(frame.data)


def flip(bit: int) -> Action:
    """
    Invert one bit.

    @param bit: which of the whole frame's bits: C{8 * byte + bit}.
    """

    def action(way: Way, frame: WireFrame) -> None:
        changed = bytearray(frame.data)
        changed[bit // 8] ^= 1 << bit % 8
        way.send(bytes(changed))

    return action


def cut(size: int = 0, reset: bool = False) -> Action:
    """
    End the connection in the middle of the frame.

    @param size: how many bytes of the frame still get through.
    @param reset: whether there is a reset instead of a clean end.
    """

    def action(way: Way, frame: WireFrame) -> None:
        way.send(frame.data[:size])
        way.end(reset)

    return action


def blackHole() -> Action:
    """
    Take the frame and all that follows, and let nothing through, not even the
    end of the connection.
    """
    return lambda way, frame: way.swallow()


def stall() -> Action:
    """
    As L{blackHole}, but take nothing either after what has come already: the
    sender's buffers fill up.
    """
    return lambda way, frame: way.stall()


def insert(data: bytes) -> Action:
    """
    Send some bytes before the frame.
    """
    return lambda way, frame: way.send(data + frame.data)
