"""
Streams for drivers and servers that are written as coroutines.

L{Script} is a L{Conn<gomux.session.Conn>} with the reads of the line protocol.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

from twisted.internet.interfaces import IReactorTime

from gomux import Conn, GomuxError
from interop.peers.peerlib import BUFFER_SIZE, DriverFailed, isPatternAt, patternChunks


class Script(Conn):
    """
    A stream whose reads can be awaited.
    """

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__(clock, _nothing, _nothing)
        self._ahead = b""

    async def next(self, limit: int = BUFFER_SIZE) -> bytes:
        """
        Read once.

        @return: At most C{limit} bytes; none at EOF.
        """
        if self._ahead:
            data, self._ahead = self._ahead[:limit], self._ahead[limit:]
            return data
        return await self.read(limit)

    async def chunks(self, size: int) -> AsyncIterator[bytes]:
        """
        Read exactly this many bytes, and generate the data of each read.
        """
        while size:
            data = await self.next(min(size, BUFFER_SIZE))
            if not data:
                raise DriverFailed(f"the stream ended {size} bytes early")
            size -= len(data)
            yield data

    async def readPattern(self, size: int) -> None:
        """
        Read bytes and compare them with the pattern.
        """
        offset = 0
        async for data in self.chunks(size):
            if not isPatternAt(offset, data):
                raise DriverFailed(f"not the pattern near offset {offset}")
            offset += len(data)

    async def readLine(self) -> str:
        """
        Read one line.

        @return: The line without its newline.
        """
        line = b""
        while b"\n" not in line:
            data = await self.next()
            if not data:
                raise DriverFailed("the stream ended in a line")
            line += data
        line, _, rest = line.partition(b"\n")
        self._ahead = rest + self._ahead
        return line.decode()

    async def expectLine(self, expected: str) -> None:
        """
        Check that the next line is as expected.
        """
        line = await self.readLine()
        if line != expected:
            raise DriverFailed(f"got {line!r}, not {expected!r}")

    async def digest(self) -> str:
        """
        Read until EOF.

        @return: The SHA-256 digest of the data, in hex.
        """
        hashed = sha256()
        while data := await self.next():
            hashed.update(data)
        return hashed.hexdigest()

    async def expectEnd(self) -> None:
        """
        Check that no data arrives before EOF.
        """
        rest = 0
        while data := await self.next():
            rest += len(data)
        if rest:
            raise DriverFailed(f"{rest} bytes where the end was expected")

    async def expectWriteFails(self) -> None:
        """
        Check that the stream can no longer be written to.
        """
        try:
            await self.write(b"\0")
        except GomuxError:
            return
        raise DriverFailed("a write to a closed direction succeeded")

    async def writePattern(self, size: int) -> None:
        """
        Write the first bytes of the pattern.
        """
        for data in patternChunks(size):
            await self.write(data)

    async def writeLine(self, line: str) -> None:
        """
        Write one line.
        """
        await self.write(line.encode() + b"\n")

    async def writeRandom(self, size: int) -> str:
        """
        Write pseudo-random bytes and half-close.

        @return: The SHA-256 digest of the bytes, in hex.
        """
        source, hashed = random.Random(size), sha256()
        for offset in range(0, size, BUFFER_SIZE):
            data = source.randbytes(min(BUFFER_SIZE, size - offset))
            hashed.update(data)
            await self.write(data)
        self.closeWrite()
        return hashed.hexdigest()

    async def step(self, line: str) -> str:
        """
        Do one step of the line protocol on this stream.

        @return: The answer to the control stream.
        """
        name, _, argument = line.partition(" ")
        try:
            if name == "closewrite":
                self.closeWrite()
            elif name == "closeread":
                self.closeRead()
            elif name == "close":
                self.close()
            elif name == "send":
                await self.writePattern(int(argument))
            elif name == "read":
                await self.readPattern(int(argument))
            elif name == "eof":
                await self.expectEnd()
            elif name == "write-fails":
                await self.expectWriteFails()
            else:
                return f"failed: unknown step {name!r}"
        except (GomuxError, DriverFailed) as e:
            return f"failed: {e!r}"
        return "ok"


def _nothing(ignored: Any) -> None:
    """
    Do nothing when a stream ends, because these streams are not counted.
    """
