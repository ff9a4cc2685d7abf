"""
The drivers of the Twisted peer: what it does on streams that it opens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from peerlib import (
    BUFFER_SIZE,
    ENDLESS,
    WARM_UP,
    DriverFailed,
    driverResult,
    echoTimes,
    isPatternAt,
    patternChunks,
    shares,
)
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted_streams import Ask, Opener, Writer, ownResidentBytes

if TYPE_CHECKING:
    from twisted_peer import Session

Result = dict[str, Any]


def pattern(size: int) -> bytes:
    """
    Return the first bytes of the pattern.
    """
    return b"".join(patternChunks(size))


async def together(waiting: list[Deferred[Any]]) -> None:
    """
    Wait for all, and raise the first error of any.
    """
    try:
        await gatherResults(waiting, consumeErrors=True)
    except FirstError as e:
        e.subFailure.raiseException()


class SinkDriver(Opener):
    """
    Writes to a C{sink} and waits for its C{ok}.
    """

    def __init__(self, size: int, data: bytes) -> None:
        super().__init__(f"sink {size}")
        self._size = size
        self._data = data

    def connectionMade(self) -> None:
        super().connectionMade()
        Writer(self.transport, self._data, self._size, lambda: None).start()

    def dataReceived(self, data: bytes) -> None:
        if data == b"ok\n":
            self.finish(None)
        else:
            self.fail(DriverFailed(f"got {data!r}"))


class EndlessSink(Opener):
    """
    Writes to a C{sink} until it is stopped.

    @ivar warm: fires when it is well under way.
    @ivar written: how many bytes it has written since.
    """

    def __init__(self) -> None:
        super().__init__(f"sink {ENDLESS}")
        self.warm: Deferred[None] = Deferred()
        self._data = pattern(BUFFER_SIZE)

    def connectionMade(self) -> None:
        super().connectionMade()
        self._writer = Writer(self.transport, self._data, ENDLESS - WARM_UP, self.stop)
        Writer(self.transport, self._data, WARM_UP, self._goOn).start()

    def _goOn(self) -> None:
        self._writer.start()
        self.warm.callback(None)

    @property
    def written(self) -> int:
        return ENDLESS - WARM_UP - self._writer.left

    def stop(self) -> None:
        """
        Close the stream.
        """
        self._writer.pauseProducing()
        self.transport.unregisterProducer()
        self.transport.loseConnection()


class SourceDriver(Opener):
    """
    Reads what a C{source} sends.
    """

    def __init__(self, size: int) -> None:
        super().__init__(f"source {size}")
        self._missing = size

    def dataReceived(self, data: bytes) -> None:
        self._missing -= len(data)
        if self._missing == 0:
            self.finish(None)


class VerifyDriver(Opener):
    """
    Reads what a C{source} sends, and compares it with the pattern.
    """

    def __init__(self, size: int) -> None:
        super().__init__(f"source {size}")
        self._size = size
        self._offset = 0

    def dataReceived(self, data: bytes) -> None:
        if not isPatternAt(self._offset, data):
            self.fail(DriverFailed(f"not the pattern near offset {self._offset}"))
            return
        self._offset += len(data)
        if self._offset == self._size:
            self.finish(None)


class EchoDriver(Opener):
    """
    Sends a message to an C{echo} again each time that it is back.
    """

    def __init__(self, size: int, count: int) -> None:
        super().__init__("echo")
        self._message = pattern(size)
        self._count = count
        self._got = b""
        self._times: list[float] = []

    def connectionMade(self) -> None:
        super().connectionMade()
        self._started = time.monotonic()
        self.transport.write(self._message)

    def dataReceived(self, data: bytes) -> None:
        if self._got:
            data = self._got + data
        if data != self._message:
            if self._message.startswith(data):
                self._got = data
            else:
                self.fail(DriverFailed("the echo differs"))
            return
        self._got = b""
        times = self._times
        times.append(time.monotonic() - self._started)
        if len(times) == self._count:
            self.finish(echoTimes(len(self._message), times))
        else:
            self._started = time.monotonic()
            self.transport.write(self._message)


class IdleStreams:
    """
    Opens C{idle} streams one after another.

    @ivar result: fires when the last one has been answered.
    """

    def __init__(self, session: Session, count: int, closes: bool) -> None:
        """
        @param closes: whether to close each before the next.
        """
        self._session = session
        self._left = count
        self.closes = closes
        self.result: Deferred[None] = Deferred()

    def start(self) -> Deferred[None]:
        """
        Begin.

        @return: C{result}.
        """
        self.opened()
        return self.result

    def buildProtocol(self, addr: IAddress) -> IProtocol:
        return self._session.paced(_IdleStream(self))

    def opened(self) -> None:
        """
        Open the next one.
        """
        if self._left:
            self._left -= 1
            self._session.mux.openStream(self).addErrback(self.failed)
        else:
            self.result.callback(None)

    def failed(self, reason: Failure) -> None:
        """
        One was not answered.
        """
        if not self.result.called:
            self.result.errback(reason)


class _IdleStream(Protocol):
    _answered = False

    def __init__(self, streams: IdleStreams) -> None:
        self._streams = streams

    def connectionMade(self) -> None:
        self.transport.write(b"idle\n")

    def dataReceived(self, data: bytes) -> None:
        if data != b"ok\n":
            raise DriverFailed(f"got {data!r}")
        self._answered = True
        if self._streams.closes:
            self.transport.loseConnection()
        self._streams.opened()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._answered:
            self._streams.failed(reason)


class Drivers:
    """
    All drivers, on one mux.  C{drive_x_y} is the driver C{x-y}.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def run(self, line: str) -> Result:
        """
        Run one driver.

        @param line: its name and arguments.
        @return: what is to be printed.
        """
        name, *arguments = line.split()
        started = time.monotonic()
        try:
            drive: Callable[..., Coroutine[Deferred[Any], Any, Result]]
            drive = getattr(self, "drive_" + name.replace("-", "_"))
            fields = await drive(*arguments)
        except Exception as e:
            return driverResult(line, started, {}, f"{type(e).__name__}: {e}")
        return driverResult(line, started, fields)

    async def _run(self, opener: Opener) -> Any:
        """
        Open a stream.

        @return: the opener's result.
        """
        await self._session.open(opener)
        return await opener.result

    async def _each(
        self, total: str, streams: str, make: Callable[[int], Opener]
    ) -> Result:
        """
        Open a number of streams at once and wait for them all.

        @param make: takes a stream's share of the bytes.
        """
        openers = [make(size) for size in shares(int(total), int(streams))]
        started = time.monotonic()
        await together([Deferred.fromCoroutine(self._run(o)) for o in openers])
        return {
            "bytes": int(total),
            "streams": int(streams),
            "seconds": time.monotonic() - started,
        }

    async def drive_sink(self, total: str, streams: str, writeSize: str) -> Result:
        data = pattern(int(writeSize))
        result = await self._each(total, streams, lambda size: SinkDriver(size, data))
        return {"write_size": int(writeSize), **result}

    async def drive_source(self, total: str, streams: str) -> Result:
        return await self._each(total, streams, SourceDriver)

    async def drive_verify_source(self, total: str, streams: str) -> Result:
        return await self._each(total, streams, VerifyDriver)

    async def drive_echo(self, size: str, count: str) -> Result:
        return await self._run(EchoDriver(int(size), int(count)))

    async def drive_echo_beside(self, size: str, count: str, sinks: str) -> Result:
        openers = [EndlessSink() for _ in range(int(sinks))]
        for opener in openers:
            await self._session.open(opener)
        await together([opener.warm for opener in openers])
        before, started = sum(o.written for o in openers), time.monotonic()
        result = await self.drive_echo(size, count)
        seconds = time.monotonic() - started
        moved = sum(o.written for o in openers) - before
        for opener in openers:
            opener.result.addErrback(lambda _: None)
            opener.stop()
        return {
            **result,
            "sinks": int(sinks),
            "seconds": seconds,
            "sink_rate": moved / seconds,
        }

    async def drive_opens(self, count: str) -> Result:
        started = time.monotonic()
        await IdleStreams(self._session, int(count), closes=True).start()
        seconds = time.monotonic() - started
        return {"count": int(count), "seconds": seconds, "rate": int(count) / seconds}

    async def drive_idle(self, count: str) -> Result:
        peerBefore = int(await self._run(Ask("rss")))
        before = ownResidentBytes()
        await IdleStreams(self._session, int(count), closes=False).start()
        return {
            "count": int(count),
            "held": True,
            "rss_before": before,
            "rss_after": ownResidentBytes(),
            "peer_rss_before": peerBefore,
            "peer_rss_after": int(await self._run(Ask("rss"))),
        }
