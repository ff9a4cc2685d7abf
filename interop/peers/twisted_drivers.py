"""
The drivers of the Twisted peer, which test or measure streams that this peer opens.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Coroutine
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from gomux import GomuxError
from gomux.error import PeerClosedConnection
from interop.peers.peerlib import (
    BUFFER_SIZE,
    ENDLESS,
    HALF_CLOSE_ORDERS,
    HALF_CLOSE_SIZE,
    WARM_UP,
    DriverFailed,
    driverResult,
    echoTimes,
    isPatternAt,
    patternChunks,
    shares,
)
from interop.peers.twisted_conn import Script
from interop.peers.twisted_streams import Ask, Opener, Writer, ownResidentBytes

if TYPE_CHECKING:
    from interop.peers.twisted_peer import Session

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

    @ivar warm: fires when the warm-up bytes have been written.
    @ivar written: how many bytes have been written since then.
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
    Reads the data of a C{source}.
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
    Reads the data of a C{source}, and compares it with the pattern.
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
    Sends a message to an C{echo}, and again each time that the whole message is back.
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
        @param closes: whether to close each stream before the next is opened.
        """
        self._session = session
        self._left = count
        self.closes = closes
        self.result: Deferred[None] = Deferred()

    def start(self) -> Deferred[None]:
        """
        Open the first stream.

        @return: C{result}.
        """
        self.opened()
        return self.result

    def buildProtocol(self, addr: IAddress) -> IProtocol:
        return self._session.paced(_IdleStream(self))

    def opened(self) -> None:
        """
        Open the next stream, or fire C{result} after the last one.
        """
        if self._left:
            self._left -= 1
            self._session.mux.openStream(self).addErrback(self.failed)
        else:
            self.result.callback(None)

    def failed(self, reason: Failure) -> None:
        """
        Fail C{result}: a stream was not answered.
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
        @return: the result to print.
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
        Open a number of streams at the same time, and wait for all of them.

        @param make: makes the protocol of a stream from the stream's share of the
            bytes.
        """
        openers = [make(size) for size in shares(int(total), int(streams))]
        started = time.monotonic()
        await together([Deferred.fromCoroutine(self._run(o)) for o in openers])
        return {
            "bytes": int(total),
            "streams": int(streams),
            "seconds": time.monotonic() - started,
        }

    async def _script(self, command: str) -> Script:
        """
        Open a stream for a coroutine, and send a command on it.
        """
        stream = Script(self._session.clock)
        await self._session.open(stream)
        await stream.writeLine(command)
        return stream

    async def _eachScript(
        self,
        command: str,
        total: str,
        streams: str,
        run: Callable[[Script, int], Coroutine[Any, Any, None]],
    ) -> Result:
        """
        Open a number of streams, and run a coroutine on all of them at the same time.

        @param run: the coroutine function; it takes the stream and the stream's share
            of the bytes.
        """

        async def one(size: int) -> None:
            stream = await self._script(command)
            try:
                await run(stream, size)
            finally:
                stream.close()

        await together(
            [Deferred.fromCoroutine(one(n)) for n in shares(int(total), int(streams))]
        )
        return {"bytes": int(total), "streams": int(streams)}

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

    async def drive_hash(self, total: str, streams: str) -> Result:
        async def run(stream: Script, size: int) -> None:
            await stream.expectLine(await stream.writeRandom(size))
            await stream.expectEnd()

        return await self._eachScript("hash", total, streams, run)

    async def drive_echo_hash(self, total: str, streams: str) -> Result:
        async def run(stream: Script, size: int) -> None:
            sent = Deferred.fromCoroutine(stream.writeRandom(size))
            received = Deferred.fromCoroutine(stream.digest())
            await together([sent, received])
            if await sent != await received:
                raise DriverFailed("what came back differs from what was sent")

        return await self._eachScript("echo", total, streams, run)

    async def drive_close_after(self, size: str, count: str) -> Result:
        for _ in range(int(count)):
            stream = await self._script(f"close-after {size}")
            await stream.readPattern(int(size))
            await stream.expectEnd()
            stream.close()
        return {"bytes": int(size) * int(count), "count": int(count)}

    async def drive_write_close(self, size: str, count: str) -> Result:
        expected = sha256(pattern(int(size))).hexdigest()
        for _ in range(int(count)):
            stream = await self._script("collect")
            await stream.writePattern(int(size))
            stream.close()
            if await self._run(Ask("report")) != expected:
                raise DriverFailed("not all that was sent before the close arrived")
        return {"bytes": int(size) * int(count), "count": int(count)}

    async def drive_open(self, *drive: str) -> Result:
        answer = json.loads(await self._run(Ask(f"open {' '.join(drive)}")))
        if not answer["ok"]:
            raise DriverFailed(f"the peer's driver: {answer['error']}")
        return {"peer": answer}

    async def drive_closemux(self, side: str, count: str) -> Result:
        streams = [await self._script("idle") for _ in range(int(count))]
        for stream in streams:
            await stream.expectLine("ok")
        if side == "local":
            self._session.mux.close()
        else:
            await self._script("closemux")
        for stream in streams:
            try:
                await stream.expectEnd()
            except PeerClosedConnection:
                continue
            except GomuxError:
                if side == "local":
                    continue
                raise
            raise DriverFailed("a stream ended as if nothing had happened")
        return {"streams": int(count)}

    async def drive_halfclose(self, order: str) -> Result:
        orders = HALF_CLOSE_ORDERS if order == "all" else [tuple(order.split(","))]
        for events in orders:
            subject = await self._script("steps")
            await HalfClose(subject, await self._script("control")).run(events)
        return {"count": len(orders)}


class HalfClose:
    """
    A stream under test, and the control stream that tells the peer which steps to do on
    its end of the stream.

    @ivar _closed: The events that have happened.
    """

    def __init__(self, subject: Script, control: Script) -> None:
        self._subject = subject
        self._control = control
        self._closed: set[str] = set()

    async def run(self, events: tuple[str, ...]) -> None:
        """
        Close halves of the stream in this order, and check both directions before the
        first event and after each.
        """
        try:
            await self._check()
            for event in events:
                await self._close(event)
                await self._check()
            self._subject.close()
            await self._remote("close")
        except (GomuxError, DriverFailed) as e:
            done = ",".join(sorted(self._closed))
            raise DriverFailed(f"{events}, with {done} done: {e!r}") from e
        finally:
            self._subject.close()
            self._control.close()

    async def _close(self, event: str) -> None:
        self._closed.add(event)
        if event == "lw":
            self._subject.closeWrite()
        elif event == "lr":
            self._subject.closeRead()
        else:
            await self._remote({"rw": "closewrite", "rr": "closeread"}[event])

    async def _remote(self, step: str) -> None:
        await self._control.writeLine(step)
        answer = await self._control.readLine()
        if answer != "ok":
            raise DriverFailed(f"{step}: {answer}")

    async def _check(self) -> None:
        """
        Check that each direction carries data if both its ends are open, and fails as
        it should if one is closed.
        """
        if {"lw", "rr"} <= self._closed:
            pass
        elif "lw" in self._closed:
            await self._remote("eof")
        elif "rr" in self._closed:
            await self._subject.expectWriteFails()
        else:
            await self._subject.writePattern(HALF_CLOSE_SIZE)
            await self._remote(f"read {HALF_CLOSE_SIZE}")
        if {"rw", "lr"} <= self._closed:
            pass
        elif "rw" in self._closed:
            await self._subject.expectEnd()
        elif "lr" in self._closed:
            await self._remote("write-fails")
        else:
            await self._remote(f"send {HALF_CLOSE_SIZE}")
            await self._subject.readPattern(HALF_CLOSE_SIZE)
