# -*- test-case-name: gomux.test.mux.test_sender -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The parts of the mux and of the stream that a sender uses, and the part of a sender that
the scheduler uses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class SenderMux(Protocol):
    """
    The part of the mux that a sender uses.

    @ivar makeSender: makes the sender of a stream.
    @ivar maxOutput: see L{gomux.Limits.maxOutput}.
    """

    makeSender: Callable[[SenderStream], Any]
    maxOutput: int

    def callSoon(self, function: Callable[[], None]) -> None:
        """
        Call a function in the next turn of the reactor.
        """

    def activate(self, sender: Any, fresh: bool) -> None:
        """
        Queue the sender in the scheduler, if it can send.

        @param fresh: C{True} if the sender had no output before, C{False} if it had to
            wait for window.
        """

    def charge(self, size: int) -> None:
        """
        Take memory for output that waits, or give it back.

        @param size: how many bytes; less than 0 to give them back.
        """

    def logFailure(self, line: str, **values: object) -> None:
        """
        Log the exception that is being handled, which the application has raised.

        @param line: the format of the line.
        @param values: the values for the format.
        """

    def outputExceeded(self, stream: SenderStream) -> None:
        """
        The application goes on writing although more than C{maxOutput} bytes wait.
        """


class SenderStream(Protocol):
    """
    The part of the stream that its sender uses.

    @ivar streamID: the stream's ID on the wire.
    @ivar sendWindow: how many bytes the peer still lets the stream send.
    @ivar touched: whether output was ever written to the stream.
    @ivar sender: the sender; C{None} when it has nothing to keep.
    """

    streamID: int
    sendWindow: int
    touched: bool
    sender: Any

    @property
    def streams(self) -> SenderMux:
        """
        The mux, as its streams call it.
        """

    def outputFinished(self) -> None:
        """
        All output is sent after a call of L{Sender.finish}.
        """

    def abortWith(self, reason: BaseException) -> None:
        """
        Abort the stream.

        @param reason: the reason for C{connectionLost}.
        """

    def applicationFailed(self) -> None:
        """
        The application has raised an exception.  Called in the C{except} block.
        """


class SendingStream(Protocol):
    """
    The part of a stream's sender that the scheduler uses.

    @ivar streamID: the ID in the stream's frames.
    @ivar queued: whether the stream is in a queue of the scheduler, which sets this.
    """

    streamID: int
    queued: bool

    def sendable(self) -> int:
        """
        @return: how many bytes of output may be sent now: no more than wait, and no
            more than the send window allows.
        """

    def takeOutput(self, size: int) -> bytes | memoryview:
        """
        Remove output from the sender, and its size from the send window.

        @param size: the number of bytes, from 1 to L{sendable}.
        @return: the output.
        """

    def outputTaken(self) -> int:
        """
        The output taken last has been written.  The sender may now ask its producer
        for more.

        @return: how many bytes of output may be sent now.
        """
