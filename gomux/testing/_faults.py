# -*- test-case-name: gomux.test.testing.test_faultproxy -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The faults that a L{FaultProxy<gomux.testing.FaultProxy>} applies to frames.

An action is any function of a L{Way} and a L{WireFrame}.  The bytes that it sends on
the way replace the frame.
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
    The part of a connection that a L{Way} uses.
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
        End the connection once all output is sent.
        """

    def abort(self) -> None:
        """
        Reset the connection.
        """

    def endBoth(self, reset: bool) -> None:
        """
        End both connections once all output is sent.
        """

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        """
        Call a function after a delay, if the connection is still open.
        """


@dataclass(frozen=True)
class WireFrame:
    """
    One frame that passes the proxy.

    @ivar index: how many frames came before it on the same connection, in the
        same direction.
    @ivar streamID: the stream ID in its header.
    @ivar length: the length in its header.
    @ivar flag: its type, see L{Flag<gomux._wire.frame.Flag>}.
    @ivar data: the whole frame, header and payload.
    @ivar connection: how many connections the proxy had accepted before this one.
    """

    index: int
    streamID: int
    length: int
    flag: int
    data: bytes
    connection: int


#: What a rule does to a frame.
Action = Callable[["Way", WireFrame], None]


class Direction:
    """
    The rules for frames in one direction, on all connections.

    @ivar _rules: the rules, in the order in which they were added.
    """

    def __init__(self) -> None:
        self._rules: list[tuple[Callable[[WireFrame], bool], Action]] = []

    def when(self, which: int | Callable[[WireFrame], bool], action: Action) -> None:
        """
        Add a rule: apply an action to some frames.  Only the first rule that matches
        a frame applies to it.

        @param which: the index of a frame, or a function that says whether the rule
            matches a frame.
        @param action: what to do to these frames.
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

    @ivar frames: how many frames have been received so far.
    @ivar _direction: the rules.
    @ivar _connection: how many connections the proxy had accepted before this one.
    @ivar _sender: the connection that the frames come from.
    @ivar _receiver: the connection that the frames are forwarded to.
    @ivar _partial: the received bytes of a frame that is not complete yet.
    @ivar _framed: whether the received bytes have been frames so far.
    @ivar _open: whether received frames are still forwarded.
    @ivar _holes: whether nothing is forwarded any more, not even the end.
    @ivar _queue: what waits for the end of a delay: bytes to send, further delays in
        seconds, and functions to call.
    @ivar _waiting: whether a delay is running.
    @ivar _next: the bytes to forward after the next frame.
    """

    def __init__(
        self, direction: Direction, sender: Leg, receiver: Leg, connection: int
    ) -> None:
        self.frames = 0
        self._direction = direction
        self._connection = connection
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
        Forward some bytes, after everything sent before.
        """
        self._put(data)

    def sendAfterNext(self, data: bytes) -> None:
        """
        Forward some bytes right after the next frame.
        """
        self._next += data

    def wait(self, seconds: float) -> None:
        """
        Delay everything that is sent from now on.
        """
        self._put(seconds)

    def end(self, reset: bool = False) -> None:
        """
        End the connection on both sides, once everything sent before has been
        forwarded.

        @param reset: whether each side gets a reset instead of a clean end.
        """
        self._open = False
        self._put(lambda: self._receiver.endBoth(reset))

    def swallow(self) -> None:
        """
        Forward nothing from now on, not even the end of the connection.  The sender's
        bytes are still read.
        """
        self._holes = True
        self._open = False

    def stall(self) -> None:
        """
        Forward nothing from now on, not even the end of the connection, and stop
        reading the sender's bytes.
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
            frame = WireFrame(
                self.frames, streamID, length, flag, whole, self._connection
            )
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
        The sender's connection has ended.
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
        @return: the next frame's size, or C{None} until enough of its header has been
            received.
        """
        if len(self._partial) < HEADER_SIZE:
            return None
        _, length, flag = unpackFields(self._partial)
        if length > MAX_CREDIT:
            # Not a frame: forward it as it is received.
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
                # Stop reading, so that the bytes waiting here stay bounded.
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
    Send the frame, then repeat it C{times} times.
    """
    return lambda way, frame: way.send(frame.data * (1 + times))


def delay(seconds: float) -> Action:
    """
    Delay the frame, and with it everything that follows.
    """

    def action(way: Way, frame: WireFrame) -> None:
        way.wait(seconds)
        way.send(frame.data)

    return action


def slices(size: int, seconds: float = 0.0) -> Action:
    """
    Send the frame in slices.

    @param size: the size of each slice, in bytes.
    @param seconds: the pause after each slice.
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

    @param bit: the bit's index in the whole frame: C{8 * byte + bit}.
    """

    def action(way: Way, frame: WireFrame) -> None:
        changed = bytearray(frame.data)
        changed[bit // 8] ^= 1 << bit % 8
        way.send(bytes(changed))

    return action


def cut(size: int = 0, reset: bool = False) -> Action:
    """
    End the connection in the middle of the frame.

    @param size: how many bytes of the frame are still forwarded.
    @param reset: whether to end it with a reset instead of a clean end.
    """

    def action(way: Way, frame: WireFrame) -> None:
        way.send(frame.data[:size])
        way.end(reset)

    return action


def blackHole() -> Action:
    """
    Read the frame and everything after it, but forward nothing, not even the end of
    the connection.
    """
    return lambda way, frame: way.swallow()


def stall() -> Action:
    """
    As L{blackHole}, but also stop reading: the sender's buffers fill up.
    """
    return lambda way, frame: way.stall()


def insert(data: bytes) -> Action:
    """
    Send some bytes before the frame.
    """
    return lambda way, frame: way.send(data + frame.data)
