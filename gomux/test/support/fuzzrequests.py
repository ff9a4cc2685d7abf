"""
The fuzz target C{requests}: the requests of a peer, and its answers.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from gomux import MuxFactory
from gomux._wire.frame import BOUND, REQUEST, Flag
from gomux.error import OpenStreamError
from gomux.limits import MAX_REQUEST
from gomux.test.support.helpers import HalfRecorder, Parts, Recorders, Rig
from gomux.test.support.logs import Failures
from gomux.testing import PSK

#: What the peer does after it has sent its data.
ENDS: list[tuple[int, ...]] = [
    (),
    (Flag.CLOSE_READ,),
    (Flag.CLOSE_STREAM,),
    (Flag.WINDOW_UPDATE, Flag.CLOSE_STREAM),
    (Flag.CLOSE_WRITE,),
    (Flag.CLOSE_WRITE, Flag.CLOSE_READ),
]
#: The size of the field with the size of a message, in bytes.
FIELD = 2


def requests(data: bytes) -> None:
    """
    Have the peer send a message at the start of a stream.  See L{Exchange}.
    """
    Exchange(data).run()


class Exchange:
    """
    A mux with a stream whose first message comes from the fuzzer.

    The bits of the first byte: 1, the mux is a client; 2, the mux opens the stream, so
    the message is an answer; 4, the message gets the right size in front; 8, the
    application pauses; 16, the first end of L{ENDS} comes ahead of the data.  The
    second byte selects one of L{ENDS}, the third the size of the frames.  The rest is
    the peer's data.
    """

    def __init__(self, data: bytes) -> None:
        kind, end, size = data[:3].ljust(3, b"\0")
        self.data = data[3:]
        if kind & 4 and len(self.data) <= MAX_REQUEST:
            self.data = len(self.data).to_bytes(FIELD, "little") + self.data + b"data"
        self.isAnswer = bool(kind & 2)
        self.pauses = bool(kind & 8)
        self.end = ENDS[end % len(ENDS)]
        self.endsFirst = bool(kind & 16)
        self.size = size or max(1, len(self.data))
        isClient = bool(kind & 1)
        clock, beside = Clock(), Recorders()
        self.made = Recorders(HalfRecorder, made=self.connected)
        factory = MuxFactory(
            PSK, isClient, beside, clock=clock, services={"chat": self.made}
        )
        self.rig = Rig(isClient=isClient, factory=factory, clock=clock)
        self.rig.streams = beside
        self.rig.send(0, Flag.KEEPALIVE, BOUND)
        self.beside = self.rig.opened(b"x")
        self.streamID = int(not isClient) if self.isAnswer else 2 + isClient
        self.results: list[Any] = []

    def connected(self, recorder: Any) -> None:
        if self.pauses:
            recorder.stream.pauseProducing()

    def message(self) -> bytes | None:
        """
        @return: the JSON of the message; C{None} if it is not complete or too large.
        """
        size = int.from_bytes(self.data[:FIELD], "little")
        whole = self.data[FIELD : FIELD + size]
        isWhole = len(self.data) >= FIELD and len(whole) == size <= MAX_REQUEST
        return whole if isWhole else None

    def run(self) -> None:
        failures = Failures()
        globalLogPublisher.addObserver(failures)
        try:
            self._run()
        finally:
            globalLogPublisher.removeObserver(failures)
        assert not failures.events, failures.events

    def _run(self) -> None:
        rig = self.rig
        if self.isAnswer:
            rig.mux.openStream(self.made, "chat").addBoth(self.results.append)
        else:
            rig.send(self.streamID, Flag.OPEN_STREAM, REQUEST)
        rig.sentData()
        if self.endsFirst and self.end[:1] == (Flag.CLOSE_WRITE,):
            self.send(Flag.CLOSE_WRITE)
            self.end = self.end[1:]
        for start in range(0, len(self.data), self.size):
            self.send(Flag.DATA, self.data[start : start + self.size])
            rig.mux.checkInvariants()
        self.check()
        for flag in self.end:
            self.send(flag)
        # No request may take longer, and nothing else takes as long.
        rig.clock.advance(rig.factory.limits.requestTimeout)
        self.finish()

    def send(self, flag: int, payload: bytes | int = 0) -> None:
        """
        Have the peer send a frame on the stream.
        """
        self.rig.send(self.streamID, flag, payload)

    def check(self) -> None:
        """
        Check what the data has led to.
        """
        message = self.message()
        value = self.valueOf(message)
        made = self.made.made
        assert len(made) <= 1
        if made:
            assert self.isGood(value), value
            assert message is not None
            data = self.data[FIELD + len(message) :]
            assert bytes(made[0].received) == (b"" if self.pauses else data)
            made[0].stream.resumeProducing()
            self.rig.run()
            assert bytes(made[0].received) == data
        good = {"ok": True} if self.isAnswer else {"service": "chat"}
        text = json.dumps(good, separators=(",", ":")).encode()
        # Without spaces between its parts, for there are two ways to write some values.
        isGood = value == good and b"".join((message or b"").split()) == text
        assert made or not isGood, "a valid message is not accepted"

    def isGood(self, value: Any) -> bool:
        """
        @return: whether a message may make the application's protocol.
        """
        if self.isAnswer:
            return value["ok"] is True and "error" not in value
        return value["service"] == "chat" and "connect" not in value

    def valueOf(self, message: bytes | None) -> Any:
        """
        @return: the value that a message encodes; C{None} if it is not valid JSON.
        """
        try:
            return None if message is None else json.loads(message.decode("utf-8"))
        except (ValueError, RecursionError):
            return None

    def finish(self) -> None:
        """
        Check that nothing is left but a stream with its protocol, or an opening whose
        answer is not complete, and that the other stream does not notice.
        """
        rig = self.rig
        rig.mux.checkInvariants()
        assert rig.mux.reason is None, rig.mux.reason
        open_ = Parts(rig.mux).streams.byID.get(self.streamID)
        if open_ is not None and not self.made.made:
            assert self.isAnswer and not self.results
            assert self.message() is None and not self.end[1:]
        if self.isAnswer and open_ is None and not self.made.made:
            [failure] = self.results
            failure.trap(OpenStreamError)
        rig.send(int(rig.isClient), Flag.DATA, b"y")
        assert bytes(self.beside.received) == b"xy"
        rig.mux.abort()
        rig.run()
        assert len(self.results) == self.isAnswer
        assert rig.mux.protocolCount == 0
        assert not rig.clock.getDelayedCalls()
