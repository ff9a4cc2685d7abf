"""
Faults and abuse: requests, with which streams for a service begin.
"""

from __future__ import annotations

import json
import struct

from gomux import Limits
from interop.faults.attacker import CLOSE, CLOSE_READ, DATA, OPEN
from interop.faults.cases import RowTestCase, inBothRoles, row

#: What is no request, each as the bytes of a JSON object.
MALFORMED = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"{",
    b"\xff\xfe",
    b'{"service": 7}',
    b'{"service": null}',
    b'{"service": ""}',
    b'{"service": "a b"}',
    b'{"service": "x", "connect": "h:1"}',
    b'{"service": "x", "service": "y"}',
    b'{"connect": "h"}',
    b'{"connect": ["h", 1]}',
    b'{"service": "' + b"x" * 65 + b'"}',
    b'{"service": "x"} trailing',
    b"[" * 2000,
)


def message(text: bytes, size: int | None = None) -> bytes:
    """
    @param size: the size to announce, by default the real one.
    """
    return struct.pack("<H", len(text) if size is None else size) + text


@inBothRoles
class Requests(RowTestCase):
    """
    The attacker sends requests.
    """

    def ask(self, *pieces: bytes) -> int:
        """
        Open a stream for a service, and send its data in pieces.

        @return: the ID of the stream.
        """
        streamID = self.attacker.nextID
        self.attacker.nextID += 2
        self.attacker.send(OPEN, streamID, length=1)
        for piece in pieces:
            self.attacker.send(DATA, streamID, piece)
        return streamID

    async def assertOver(self, streamID: int) -> bytes:
        """
        Check that a stream ends and no other does.

        @return: what was sent on it.
        """
        await self.attacker.untilFrame(CLOSE, streamID)
        await self.attacker.sync()
        return b"".join(
            frame.payload
            for frame in self.attacker.frames
            if frame.flag == DATA and frame.streamID == streamID
        )

    @row(80)
    async def test_malformed(self) -> None:
        """
        A request that is malformed, or announces more than a request may have, ends its
        stream without an answer.
        """
        await self.start()
        await self.attacker.sync()
        for text in MALFORMED:
            self.assertEqual(await self.assertOver(self.ask(message(text))), b"", text)
        for size in (4097, 65535):
            over = await self.assertOver(self.ask(message(b"{", size)))
            self.assertEqual(over, b"", size)

    @row(80)
    async def test_cut(self) -> None:
        """
        A request that is cut by EOF ends its stream without an answer.
        """
        await self.start()
        await self.attacker.sync()
        request = message(b'{"service": "x"}')
        for cut in range(len(request)):
            streamID = self.ask(request[:cut] or b"")
            self.attacker.send(CLOSE_READ, streamID)
            self.assertEqual(await self.assertOver(streamID), b"", cut)

    @row(80)
    async def test_slow(self) -> None:
        """
        A request that does not come in time ends its stream, and one that comes byte by
        byte is answered.
        """
        await self.start(limits=Limits(requestTimeout=0.5))
        await self.attacker.sync()
        request = message(b'{"service": "x"}')
        late = self.ask(request[:-1])
        slow = self.ask(*(request[i : i + 1] for i in range(len(request))))
        self.assertIn(b'"unknown"', await self.assertOver(slow))
        self.assertEqual(await self.assertOver(late), b"")

    @row(80)
    async def test_refused(self) -> None:
        """
        The answer to a service that does not exist, and to a destination, has a code
        and tells no more.  A second request on the stream is data of nobody.
        """
        await self.start()
        await self.attacker.sync()
        for request, code in (
            ({"service": "x"}, "unknown"),
            ({"connect": "localhost:22"}, "not-allowed"),
            ({"connect": "[::1]:22", "from": "h:1", "more": [1]}, "not-allowed"),
        ):
            text = message(json.dumps(request).encode())
            answer = await self.assertOver(self.ask(text, text))
            (size,) = struct.unpack_from("<H", answer)
            self.assertEqual(len(answer), 2 + size)
            self.assertEqual(json.loads(answer[2:])["error"], code)
