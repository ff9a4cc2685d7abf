"""
The drivers of the blocking peer, which test or measure streams that this peer opens.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from interop.peers.blocking_input import Input, inThread
from interop.peers.blocking_mux import MuxError, PeerClosedMux
from interop.peers.peerlib import (
    BUFFER_SIZE,
    ENDLESS,
    HALF_CLOSE_ORDERS,
    HALF_CLOSE_SIZE,
    WARM_UP,
    DriverFailed,
    driverResult,
    echoTimes,
    patternChunks,
    residentBytes,
    shares,
)

if TYPE_CHECKING:
    from interop.peers.blocking_peer import Session

Result = dict[str, Any]


def together(runs: list[Callable[[], None]]) -> None:
    """
    Run each function in a thread of its own, wait for all, and raise the first error.
    """
    errors: list[Exception] = []

    def guarded(run: Callable[[], None]) -> None:
        try:
            run()
        except (MuxError, DriverFailed) as e:
            errors.append(e)

    for thread in [inThread(guarded, run) for run in runs]:
        thread.join()
    if errors:
        raise errors[0]


class Drivers:
    """
    All drivers, on one mux. C{drive_x_y} is the driver C{x-y}.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def run(self, line: str) -> Result:
        """
        Run one driver.

        @param line: Its name and arguments.
        @return: The result to print.
        """
        name, *arguments = line.split()
        started = time.monotonic()
        try:
            if name == "open":
                fields = self._driveOpen(line.partition(" ")[2])
            else:
                fields = getattr(self, "drive_" + name.replace("-", "_"))(*arguments)
        except (MuxError, DriverFailed, AttributeError, TypeError, ValueError) as e:
            return driverResult(line, started, {}, f"{type(e).__name__}: {e}")
        return driverResult(line, started, fields)

    def _each(
        self,
        command: str,
        total: str,
        streams: str,
        run: Callable[[Input, int], None],
    ) -> Result:
        """
        Open a number of streams, and run a function on all of them at the same time.

        @param command: The command of the streams; C{{size}} in it stands for the
            stream's share of the bytes.
        @param run: The function; it takes the stream and the stream's share.
        """

        def one(size: int) -> None:
            stream = self._session.open(command.format(size=size))
            try:
                run(stream, size)
            finally:
                stream.stream.close()

        started = time.monotonic()
        together(
            [lambda size=size: one(size) for size in shares(int(total), int(streams))]
        )
        return {
            "bytes": int(total),
            "streams": int(streams),
            "seconds": time.monotonic() - started,
        }

    def _ask(self, command: str) -> str:
        """
        Open a stream, send a command, and read the one line of its answer.
        """
        stream = self._session.open(command)
        try:
            return stream.readLine()
        finally:
            stream.stream.close()

    def _expect(self, stream: Input, expected: str) -> None:
        line = stream.readLine()
        if line != expected:
            raise DriverFailed(f"got {line!r}, not {expected!r}")

    def drive_sink(self, total: str, streams: str, writeSize: str) -> Result:
        def run(stream: Input, size: int) -> None:
            for data in patternChunks(size, int(writeSize)):
                stream.stream.write(data)
            self._expect(stream, "ok")

        return {
            "write_size": int(writeSize),
            **self._each("sink {size}", total, streams, run),
        }

    def drive_source(self, total: str, streams: str) -> Result:
        def run(stream: Input, size: int) -> None:
            for _ in stream.readChunks(size):
                pass

        return self._each("source {size}", total, streams, run)

    def drive_verify_source(self, total: str, streams: str) -> Result:
        return self._each(
            "source {size}", total, streams, lambda s, size: s.readPattern(size)
        )

    def drive_echo(self, size: str, count: str) -> Result:
        message = b"".join(patternChunks(int(size)))
        stream = self._session.open("echo")
        times = []
        try:
            for _ in range(int(count)):
                started = time.monotonic()
                stream.stream.write(message)
                answer = stream.readExactly(len(message))
                times.append(time.monotonic() - started)
                if answer != message:
                    raise DriverFailed("the echo differs")
        finally:
            stream.stream.close()
        return echoTimes(len(message), times)

    def drive_echo_beside(self, size: str, count: str, sinks: str) -> Result:
        stop = threading.Event()
        written = [0] * int(sinks)
        warm = threading.Semaphore(0)

        def sink(index: int) -> None:
            stream = self._session.open(f"sink {ENDLESS}")
            try:
                for data in patternChunks(ENDLESS):
                    if stop.is_set():
                        return
                    stream.stream.write(data)
                    written[index] += len(data)
                    if written[index] == WARM_UP:
                        warm.release()
            except MuxError:
                warm.release()  # the echo reports it
            finally:
                stream.stream.close()

        threads = [inThread(sink, i) for i in range(int(sinks))]
        for _ in threads:
            warm.acquire()
        before, started = sum(written), time.monotonic()
        try:
            result = self.drive_echo(size, count)
        finally:
            seconds = time.monotonic() - started
            moved = sum(written) - before
            stop.set()
            for thread in threads:
                thread.join()
        return {
            **result,
            "sinks": int(sinks),
            "seconds": seconds,
            "sink_rate": moved / seconds,
        }

    def drive_opens(self, count: str) -> Result:
        started = time.monotonic()
        for _ in range(int(count)):
            if self._ask("idle") != "ok":
                raise DriverFailed("not ok")
        seconds = time.monotonic() - started
        return {"count": int(count), "seconds": seconds, "rate": int(count) / seconds}

    def _openIdle(self, count: str) -> list[Input]:
        streams = []
        for _ in range(int(count)):
            streams.append(self._session.open("idle"))
            self._expect(streams[-1], "ok")
        return streams

    def drive_idle(self, count: str) -> Result:
        peerBefore = int(self._ask("rss"))
        before = residentBytes()
        self._openIdle(count)
        return {
            "count": int(count),
            "held": True,
            "rss_before": before,
            "rss_after": residentBytes(),
            "peer_rss_before": peerBefore,
            "peer_rss_after": int(self._ask("rss")),
        }

    def _writeRandom(self, stream: Input, size: int) -> str:
        """
        Write pseudo-random bytes and half-close.

        @return: The SHA-256 digest of the bytes, in hex.
        """
        source, hashed = random.Random(size), sha256()
        for offset in range(0, size, BUFFER_SIZE):
            data = source.randbytes(min(BUFFER_SIZE, size - offset))
            hashed.update(data)
            stream.stream.write(data)
        stream.stream.closeWrite()
        return hashed.hexdigest()

    def drive_hash(self, total: str, streams: str) -> Result:
        def run(stream: Input, size: int) -> None:
            self._expect(stream, self._writeRandom(stream, size))
            stream.expectEnd()

        return self._each("hash", total, streams, run)

    def drive_echo_hash(self, total: str, streams: str) -> Result:
        def run(stream: Input, size: int) -> None:
            digests: list[str] = []
            together(
                [
                    lambda: digests.append(self._writeRandom(stream, size)),
                    lambda: digests.append(stream.digest()),
                ]
            )
            if digests[0] != digests[1]:
                raise DriverFailed("what came back differs from what was sent")

        return self._each("echo", total, streams, run)

    def drive_close_after(self, size: str, count: str) -> Result:
        for _ in range(int(count)):
            stream = self._session.open(f"close-after {size}")
            stream.readPattern(int(size))
            stream.expectEnd()
            stream.stream.close()
        return {"bytes": int(size) * int(count), "count": int(count)}

    def drive_write_close(self, size: str, count: str) -> Result:
        expected = sha256(b"".join(patternChunks(int(size)))).hexdigest()
        for _ in range(int(count)):
            stream = self._session.open("collect")
            stream.writePattern(int(size))
            stream.stream.close()
            if self._ask("report") != expected:
                raise DriverFailed("not all that was sent before the close arrived")
        return {"bytes": int(size) * int(count), "count": int(count)}

    def _driveOpen(self, drive: str) -> Result:
        answer = json.loads(self._ask(f"open {drive}"))
        if not answer["ok"]:
            raise DriverFailed(f"the peer's driver: {answer['error']}")
        return {"peer": answer}

    def drive_closemux(self, side: str, count: str) -> Result:
        streams = self._openIdle(count)
        if side == "local":
            self._session.mux.close()
        else:
            self._session.open("closemux")
        for stream in streams:
            try:
                stream.expectEnd()
            except PeerClosedMux:
                continue
            except MuxError:
                if side == "local":
                    continue
                raise
            raise DriverFailed("a stream ended as if nothing had happened")
        return {"streams": int(count)}

    def drive_halfclose(self, order: str) -> Result:
        orders = HALF_CLOSE_ORDERS if order == "all" else [tuple(order.split(","))]
        for events in orders:
            HalfClose(self._session).run(events)
        return {"count": len(orders)}


class HalfClose:
    """
    A stream under test, and the control stream that tells the peer which steps to do on
    its end of the stream.

    @ivar _closed: The events that have happened.
    """

    def __init__(self, session: Session) -> None:
        self._subject = session.open("steps")
        self._control = session.open("control")
        self._closed: set[str] = set()

    def run(self, events: tuple[str, ...]) -> None:
        """
        Close halves of the stream in this order, and check both directions before the
        first event and after each.
        """
        try:
            self._check()
            for event in events:
                self._close(event)
                self._check()
            self._subject.stream.close()
            self._remote("close")
        except (MuxError, DriverFailed) as e:
            done = ",".join(sorted(self._closed))
            raise DriverFailed(f"{events}, with {done} done: {e!r}") from e
        finally:
            self._subject.stream.close()
            self._control.stream.close()

    def _close(self, event: str) -> None:
        self._closed.add(event)
        if event == "lw":
            self._subject.stream.closeWrite()
        elif event == "lr":
            self._subject.stream.closeRead()
        else:
            self._remote({"rw": "closewrite", "rr": "closeread"}[event])

    def _remote(self, step: str) -> None:
        self._control.writeLine(step)
        answer = self._control.readLine()
        if answer != "ok":
            raise DriverFailed(f"{step}: {answer}")

    def _check(self) -> None:
        """
        Check that each direction carries data if both its ends are open, and fails as
        it should if one is closed.
        """
        if {"lw", "rr"} <= self._closed:
            pass
        elif "lw" in self._closed:
            self._remote("eof")
        elif "rr" in self._closed:
            self._subject.expectWriteFails()
        else:
            self._subject.writePattern(HALF_CLOSE_SIZE)
            self._remote(f"read {HALF_CLOSE_SIZE}")
        if {"rw", "lr"} <= self._closed:
            pass
        elif "rw" in self._closed:
            self._subject.expectEnd()
        elif "lr" in self._closed:
            self._remote("write-fails")
        else:
            self._remote(f"send {HALF_CLOSE_SIZE}")
            self._subject.readPattern(HALF_CLOSE_SIZE)
