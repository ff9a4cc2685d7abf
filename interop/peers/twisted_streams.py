"""
Helpers that the Twisted peer's servers and drivers share: bulk writers, protocols
that open a stream for one command, and a slow reader.

Nothing here depends on the mux; all of it would work over TCP.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from interop.peers.peerlib import patternAt, residentBytes


@implementer(IPushProducer)
class Writer:
    """
    Writes the same data again and again, as fast as the transport accepts it.

    @ivar left: how many bytes are left to write.
    """

    def __init__(
        self, transport: Any, data: bytes, size: int, done: Callable[[], None]
    ) -> None:
        """
        @param data: the data of one write.
        @param size: how many bytes to write in all.
        @param done: called when everything is written.
        """
        self._transport = transport
        self._data = data
        self._done = done
        self._paused = False
        self.left = size

    def start(self) -> None:
        """
        Start to write.
        """
        self._transport.registerProducer(self, True)
        if not self._paused:
            self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        write, data, size = self._transport.write, self._data, len(self._data)
        while self.left >= size and not self._paused:
            self.left -= size
            write(data)
        if not self._paused:
            if self.left:
                write(data[: self.left])
                self.left = 0
            self._transport.unregisterProducer()
            self._done()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._paused = True


class PatternWriter(Writer):
    """
    Writes the pattern.
    """

    def __init__(self, transport: Any, size: int, done: Callable[[], None]) -> None:
        super().__init__(transport, b"", size, done)
        self._offset = 0

    def resumeProducing(self) -> None:
        self._paused = False
        write = self._transport.write
        while self.left and not self._paused:
            data = patternAt(self._offset, self.left)
            self._offset += len(data)
            self.left -= len(data)
            write(data)
        if not self._paused:
            self._transport.unregisterProducer()
            self._done()


class Opener(Protocol):
    """
    A stream that is opened for one command.

    @ivar result: fires with the result of the command, and fails if the stream ends
        before.
    """

    def __init__(self, command: str) -> None:
        self._command = command.encode() + b"\n"
        self.result: Deferred[Any] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self._command)

    def finish(self, result: Any) -> None:
        """
        Fire C{result} with the result of the command, and close the stream.
        """
        self.transport.loseConnection()
        self.result.callback(result)

    def fail(self, error: Exception) -> None:
        """
        Fail C{result}, and close the stream.
        """
        self.transport.loseConnection()
        self.result.errback(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.result.called:
            self.result.errback(reason)


class Ask(Opener):
    """
    Gets a one-line answer to its command.
    """

    _line = b""

    def dataReceived(self, data: bytes) -> None:
        self._line += data
        if self._line.endswith(b"\n") and not self.result.called:
            self.finish(self._line[:-1].decode())


class Once:
    """
    A factory that returns one existing protocol.
    """

    def __init__(self, protocol: IProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress) -> IProtocol:
        return self._protocol


def ownResidentBytes() -> int:
    """
    Return the resident memory of this process in bytes, after a garbage collection.
    """
    gc.collect()
    return residentBytes()


def become(transport: Any, protocol: IProtocol, data: bytes) -> None:
    """
    Replace the protocol of a transport.

    @param protocol: the new protocol.
    @param data: input that is already there for it.
    """
    transport.protocol = protocol
    protocol.makeConnection(transport)
    if data:
        protocol.dataReceived(data)


@implementer(IHalfCloseableProtocol, IHalfCloseableDescriptor, IPushProducer)
class Paced(Protocol):
    """
    Sits between a stream and its protocol, and makes the protocol a slow reader.  The
    protocol gets a limited number of bytes at a time, after a delay.

    @ivar protocol: the stream's protocol.
    """

    def __init__(
        self, protocol: IProtocol, clock: IReactorTime, size: int, delay: float
    ) -> None:
        self.protocol = protocol
        self._clock = clock
        self._size = size
        self._delay = delay
        self._due: deque[bytes | Callable[[], None]] = deque()
        self._waiting = False
        self._paused = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def connectionMade(self) -> None:
        self.protocol.makeConnection(self)

    def dataReceived(self, data: bytes) -> None:
        self.transport.pauseProducing()
        for offset in range(0, len(data), self._size):
            self._due.append(data[offset : offset + self._size])
        self._next()

    def readConnectionLost(self) -> None:
        self._due.append(self._endRead)
        self._next()

    def writeConnectionLost(self) -> None:
        half = IHalfCloseableProtocol(self.protocol, None)
        if half is not None:
            half.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._due.append(lambda: self.protocol.connectionLost(reason))
        self._next()

    def _endRead(self) -> None:
        half = IHalfCloseableProtocol(self.protocol, None)
        if half is not None:
            half.readConnectionLost()
        else:
            self.loseConnection()

    def _next(self) -> None:
        """
        Deliver what is due next: data after the delay, and an end at once.  If nothing
        is due, resume the stream.
        """
        if self._waiting or self._paused:
            return
        if not self._due:
            self.transport.resumeProducing()
        elif callable(self._due[0]):
            self._due.popleft()()
        else:
            self._waiting = True
            self._clock.callLater(self._delay, self._read)

    def _read(self) -> None:
        self._waiting = False
        if not self._paused and self._due:
            due = self._due.popleft()
            if callable(due):
                due()
            else:
                self.protocol.dataReceived(due)
        self._next()

    def _drop(self) -> None:
        self._due = deque(due for due in self._due if callable(due))
        self._paused = False

    # The protocol's transport

    def pauseProducing(self) -> None:
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        self._next()

    def stopProducing(self) -> None:
        self.loseConnection()

    def loseConnection(self) -> None:
        self._drop()
        self.transport.loseConnection()

    def abortConnection(self) -> None:
        self._drop()
        self.transport.abortConnection()

    def loseReadConnection(self) -> None:
        self._drop()
        self.transport.loseReadConnection()
