"""
Faults and abuse: how much memory, and how many file descriptors, attacks cost the
attacked process.
"""

from __future__ import annotations

import os
import re
from typing import Any

from twisted.internet.protocol import Factory

from interop.faults.attacker import CLOSE, DATA, KEEPALIVE, OPEN, UPDATE, Attacker
from interop.faults.cases import CLIENT, SERVER, FaultTestCase, row
from interop.support.harness import Peer, PeerTestCase

PSK = "interop secret"
WINDOW = 131072
ALLOWED = 2 * 1024 * 1024
"""The memory that a mux may use besides its streams' windows, in bytes."""


STRANGER = 32 * 1024
"""The memory that an unauthenticated connection may use, in bytes."""


class Memory:
    """
    Attack a subject that runs in a process of its own, and check its memory.

    @cvar listens: Whether the subject is the server.
    @ivar peer: The subject's process.
    """

    pairing = SERVER
    listens = True
    peer: Peer

    async def attack(self, *options: str) -> Attacker:
        """
        Start the subject, connect an attacker to it, and note the subject's memory.

        @param options: Further command line options of the subject.
        """
        attacker = Attacker(self.listens, PSK)
        factory = Factory.forProtocol(lambda: attacker)
        if self.listens:
            self.peer = self.spawn("this", "--listen", "127.0.0.1:0", *options)
            address = await self.peer.line("listening ")
            self.port = int(address.rpartition(":")[2])
            await self.connectTo(self.port, factory)
        else:
            address = f"127.0.0.1:{self.listen(factory)}"
            self.peer = self.spawn("this", "--connect", address, *options)
            await attacker.up
        self.addCleanup(self._end, attacker)
        await self.peer.line("mux up")
        for _ in range(50):
            self.answered(attacker)
        await self.alive(attacker)
        self._pid = self.peer.transport.pid
        with open(f"/proc/{self._pid}/clear_refs", "w") as file:
            file.write("5")
        self._before = self.memory("VmRSS")
        return attacker

    async def _end(self, attacker: Attacker) -> None:
        attacker.transport.abortConnection()
        if not attacker.lost.called:
            await attacker.lost

    def memory(self, name: str) -> int:
        """
        Read how much memory the subject uses.

        @param name: The name of the line in C{/proc/PID/status}.
        @return: The memory in bytes.
        """
        with open(f"/proc/{self._pid}/status") as file:
            found = re.search(rf"{name}:\s+(\d+) kB", file.read())
        assert found is not None
        return int(found[1]) * 1024

    def descriptors(self) -> int:
        """
        Count the open file descriptors of the subject.
        """
        return len(os.listdir(f"/proc/{self._pid}/fd"))

    def answered(self, attacker: Attacker) -> int:
        """
        Open a stream that the subject answers and keeps open.

        @return: Its ID.
        """
        streamID = attacker.open()
        attacker.send(DATA, streamID, b"idle\n")
        return streamID

    async def alive(self, attacker: Attacker) -> None:
        """
        Wait until the subject has processed all that was sent.
        """
        await attacker.untilFrame(DATA, self.answered(attacker))

    def assertCost(self, streams: int, strangers: int = 0) -> None:
        """
        Check that the subject's peak memory has not grown by more than is allowed.

        @param streams: How many streams may each have a full window.
        @param strangers: How many unauthenticated connections there were.
        """
        cost = self.memory("VmHWM") - self._before
        allowed = streams * WINDOW + strangers * STRANGER + ALLOWED
        self.assertLessEqual(cost, allowed)

    @row(10)
    async def test_oneByteFrames(self) -> None:
        """
        Receive windows full of one-byte frames cost no more memory than the window size
        and a constant.
        """
        attacker = await self.attack()
        streams = [attacker.open() for _ in range(2)]
        for streamID in streams:
            attacker.send(DATA, streamID, b"steps\n")
            await self.alive(attacker)
            frame = attacker.frame(DATA, streamID, b"x")
            for _ in range(32):
                attacker.transport.write(frame * 4000)
                await self.alive(attacker)
        self.assertCost(len(streams))

    def drained(self, attacker: Attacker) -> bool:
        """
        @return: Whether the kernel has taken all that was sent.
        """
        transport = attacker.transport
        return not transport.dataBuffer and not transport._tempDataLen

    @row(9, 11)
    async def test_noEffect(self) -> None:
        """
        Frames without effect, within their budget, cost no memory per frame.
        """
        attacker = await self.attack()
        attacker.transport.write(attacker.frame(KEEPALIVE) * 4000)
        attacker.transport.write(attacker.frame(99) * 4000)
        await self.alive(attacker)
        self.assertCost(0)

    @row(7)
    async def test_rapidReset(self) -> None:
        """
        Streams that are opened and closed again, within the budget, cost no memory per
        stream.
        """
        attacker = await self.attack()
        first = attacker.nextID
        for number in range(first, first + 2 * 7000, 2):
            attacker.transport.write(
                attacker.frame(OPEN, number) + attacker.frame(CLOSE, number)
            )
        attacker.nextID = first + 2 * 7000
        await self.alive(attacker)
        self.assertCost(0)

    @row(13)
    async def test_neverReads(self) -> None:
        """
        Output that the peer has granted credit for, but does not read, costs no more
        memory than a window for each stream.
        """
        attacker = await self.attack()
        streams = [attacker.open() for _ in range(16)]
        for streamID in streams:
            credit = attacker.frame(UPDATE, streamID, length=65536)
            attacker.transport.write(credit * 1000)
            attacker.send(DATA, streamID, b"source 1000000000\n")
        await self.alive(attacker)
        attacker.transport.pauseProducing()
        for _ in range(20):
            attacker.send(KEEPALIVE)
            await self.eventually(lambda: self.drained(attacker))
        self.assertCost(len(streams))

    @row(6)
    async def test_refusals(self) -> None:
        """
        Five rounds of 1000 streams, which the subject closes because of an unknown
        command, cost less memory than 50 receive windows.
        """
        attacker = await self.attack()
        # The cost of the open streams themselves is not measured here.
        count = 1000
        for _ in range(5):
            numbers = [attacker.open() for _ in range(count)]
            await self.alive(attacker)
            for number in numbers:
                attacker.send(DATA, number, b"nonsense\n")
            await attacker.untilFrame(CLOSE, numbers[-1])
        self.assertCost(count // 20)


class MemoryAsServer(Memory, FaultTestCase, PeerTestCase):
    """
    The subject is the server.
    """

    @row(14, 16, 35)
    async def test_strangers(self) -> None:
        """
        Hundreds of connections that never authenticate leave no descriptor open and
        almost no memory in use.
        """
        attacker = await self.attack()
        files = self.descriptors()
        for what in (b"\xff" * 64, Attacker(True, "another").frame(KEEPALIVE), b""):
            strangers = []
            for _ in range(150):
                stranger: Any = Attacker(True, PSK)
                factory = Factory.forProtocol(lambda s=stranger: s)
                await self.connectTo(self.port, factory)
                stranger.transport.write(what)
                if not what:
                    stranger.transport.loseConnection()
                strangers.append(stranger)
            for stranger in strangers:
                await stranger.lost
                self.assertEqual(stranger.bytesReceived, 0)
        await self.alive(attacker)
        await self.eventually(lambda: self.descriptors() == files)
        self.assertCost(0, len(strangers))


class MemoryAsClient(Memory, FaultTestCase, PeerTestCase):
    """
    The subject is the client.
    """

    pairing = CLIENT
    listens = False
