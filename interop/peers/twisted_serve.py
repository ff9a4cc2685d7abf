"""
The line protocol of the Twisted peer.

Plain protocols serve the commands that benchmarks measure.  Coroutines on a
L{gomux.session.Conn} serve the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from gomux import GomuxError, StreamAddress
from gomux.error import PeerClosedConnection, StreamClosed
from interop.peers.peerlib import DriverFailed, toLine
from interop.peers.twisted_conn import Script
from interop.peers.twisted_streams import PatternWriter, become, ownResidentBytes

if TYPE_CHECKING:
    from interop.peers.twisted_peer import Peer, Session


class Command(Protocol):
    """
    Reads a stream's first line, and hands the stream to the server for that command.
    """

    _line = b""

    def __init__(self, peer: Peer, address: StreamAddress) -> None:
        self._peer = peer
        self._address = address

    def dataReceived(self, data: bytes) -> None:
        line, end, rest = (self._line + data).partition(b"\n")
        if not end:
            self._line = line
            return
        command, _, argument = line.decode().partition(" ")
        try:
            protocol = self._protocol(command, argument)
        except (KeyError, ValueError, DriverFailed) as e:
            print(f"stream end {self._address.streamID}: {e!r}", file=sys.stderr)
            self.transport.loseConnection()
        else:
            become(self.transport, protocol, rest)

    def _protocol(self, command: str, argument: str) -> IProtocol:
        if command in PLAIN:
            return PLAIN[command](argument)
        serve = SCRIPTED[command]
        session = self._peer.sessions[self._address.carrier]
        return _Served(session, lambda stream: serve(session, stream, argument))


class _Served(Script):
    """
    A stream served by a coroutine.  The coroutine either ends with an answer, or
    hands the stream over.
    """

    def __init__(
        self, session: Session, serve: Callable[[Script], Coroutine[Any, Any, None]]
    ) -> None:
        super().__init__(session.clock)
        self._serve = serve

    def connectionMade(self) -> None:
        super().connectionMade()
        Deferred.fromCoroutine(self._serve(self)).addErrback(self._failed)

    def _failed(self, reason: Failure) -> None:
        if reason.check(PeerClosedConnection, StreamClosed) is None:
            print(f"stream end: {reason.value!r}", file=sys.stderr)
        self.close()


async def _answer(stream: Script, line: str) -> None:
    """
    Send one line, and wait until the opener closes the stream.
    """
    await stream.writeLine(line)
    await stream.expectEnd()
    stream.close()


async def _hash(session: Session, stream: Script, argument: str) -> None:
    await stream.writeLine(await stream.digest())
    stream.closeWrite()
    stream.close()


async def _collect(session: Session, stream: Script, argument: str) -> None:
    session.reports.put(await stream.digest())
    stream.close()


async def _report(session: Session, stream: Script, argument: str) -> None:
    await _answer(stream, await session.reports.get())


async def _open(session: Session, stream: Script, argument: str) -> None:
    await _answer(stream, toLine(await session.drivers.run(argument)))


async def _closeMux(session: Session, stream: Script, argument: str) -> None:
    session.mux.close()


async def _steps(session: Session, stream: Script, argument: str) -> None:
    session.subjects.put(stream)  # its control stream closes it


async def _control(session: Session, control: Script, argument: str) -> None:
    subject: Script = await session.subjects.get()
    try:
        while True:
            await control.writeLine(await subject.step(await control.readLine()))
    except (GomuxError, DriverFailed):
        pass  # the control stream ends with the test
    subject.close()
    control.close()


class Sink(Protocol):
    def __init__(self, size: str) -> None:
        self._missing = int(size)

    def connectionMade(self) -> None:
        if not self._missing:
            self.transport.write(b"ok\n")

    def dataReceived(self, data: bytes) -> None:
        self._missing -= len(data)
        if self._missing <= 0:
            self.transport.write(b"ok\n")


class Source(Protocol):
    def __init__(self, size: str) -> None:
        self._size = int(size)

    def connectionMade(self) -> None:
        PatternWriter(self.transport, self._size, self._written).start()

    def _written(self) -> None:
        """
        Do nothing: the opener closes the stream.
        """


class CloseAfter(Source):
    def _written(self) -> None:
        self.transport.loseConnection()


class Echo(Protocol):
    """
    Sends its input back.  It is paused while its output is not accepted.  Like any
    protocol that does not implement half-close, its stream is closed after EOF, once
    all output is sent.
    """

    def connectionMade(self) -> None:
        self.transport.registerProducer(self.transport, True)
        self.dataReceived = self.transport.write


class Answer(Protocol):
    """
    Sends one line, and leaves the stream open.
    """

    def __init__(self, line: str) -> None:
        self._line = line

    def connectionMade(self) -> None:
        self.transport.write(self._line.encode() + b"\n")


class Idle(Protocol):
    def connectionMade(self) -> None:
        self.transport.write(b"ok\n")


PLAIN: dict[str, Callable[[str], IProtocol]] = {
    "sink": Sink,
    "source": Source,
    "close-after": CloseAfter,
    "echo": lambda _: Echo(),
    "idle": lambda _: Idle(),
    "rss": lambda _: Answer(str(ownResidentBytes())),
}
"""The protocol that serves each command, made from its argument."""

SCRIPTED: dict[str, Callable[[Session, Script, str], Coroutine[Any, Any, None]]] = {
    "hash": _hash,
    "collect": _collect,
    "report": _report,
    "open": _open,
    "closemux": _closeMux,
    "steps": _steps,
    "control": _control,
}
"""The coroutine that serves each other command."""
