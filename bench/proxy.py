"""
A path with latency: C{python -m bench.proxy HOST:PORT SECONDS} listens, and forwards
bytes to that address and back with that one-way delay.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque

#: The most bytes in flight; beyond this the proxy stops reading.
CAPACITY = 256 << 20


class End(asyncio.BufferedProtocol):
    """
    One of the two connections of a path.

    @ivar other: the other connection, once it is made.
    """

    transport: asyncio.Transport
    other: End

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._buffer = bytearray(1 << 20)
        self._due: deque[tuple[float, bytes]] = deque()
        self._underWay = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        self._put(bytes(memoryview(self._buffer)[:size]))
        self._underWay += size
        if self._underWay >= CAPACITY:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._put(b"")
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._put(b"")

    def _put(self, data: bytes) -> None:
        """
        Queue bytes to be delivered after the delay; empty bytes mean EOF.
        """
        self._due.append((self._loop.time() + self._delay, data))
        if self._timer is None:
            self._timer = self._loop.call_at(self._due[0][0], self._arrive)

    def _arrive(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._due and self._due[0][0] <= now + 0.0005:
            data = self._due.popleft()[1]
            if data:
                self.other.transport.write(data)
            elif not self.other.transport.is_closing():
                self.other.transport.write_eof()
            if self._underWay >= CAPACITY > self._underWay - len(data):
                self.transport.resume_reading()
            self._underWay -= len(data)
        if self._due:
            self._timer = self._loop.call_at(self._due[0][0], self._arrive)


class Near(End):
    """
    The connection that was accepted.
    """

    def __init__(self, delay: float, target: tuple[str, int]) -> None:
        super().__init__(delay)
        self._target = target

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        far = End(self._delay)
        far.other = self
        self.other = far
        await self._loop.create_connection(lambda: far, *self._target)
        self.transport.resume_reading()


async def main(address: str, delay: float) -> None:
    host, _, port = address.rpartition(":")
    target = host, int(port)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Near(delay, target), "127.0.0.1", 0)
    print("listening {}:{}".format(*server.sockets[0].getsockname()), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
