"""
Faults and abuse: how much memory a process takes when a peer has many muxes and fills
all of them, and whether the peer with another key notices.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from gomux import MuxFactory
from interop.faults.attacker import WINDOW
from interop.faults.cases import SERVER, row

MUXES = int(os.environ.get("GOMUX_ABUSE_MUXES", "50"))
"""How many muxes the abuser has."""

STREAMS = 16
"""How many streams it opens on each."""

BOUND = 1 << 20
"""C{maxBuffered} for each mux of the abuser: half of what it sends."""

BESIDES = 330 * 1024
"""What else a mux may take: received frames that wait, and the objects of the mux."""

BASE = 16 << 20
"""What the process itself may take, for the allocator's holes, in bytes."""

PROGRAM = """
import sys
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from gomux import Keyring, Limits, MuxFactory

class Served(Protocol):
    def connectionMade(self):
        mux = self.transport.mux
        if mux.peerName == "bad":
            self.transport.pauseProducing()
    def dataReceived(self, data):
        self.transport.write(data)

keys = Keyring((("good", b"the good key of all"), ("bad", b"the bad key of them all")))
limits = Limits(maxBuffered=int(sys.argv[1]))
streams = Factory.forProtocol(Served)
streams.noisy = False
server = MuxFactory(keys, False, streams, clock=reactor, limits=limits)
port = reactor.listenTCP(0, server, backlog=1024, interface="127.0.0.1")
sys.stdout.write(f"{port.getHost().port}\\n")
sys.stdout.flush()
reactor.run()
"""


class Subject(ProcessProtocol):
    """
    The process that is attacked.

    @ivar port: fires with the number of its port.
    @ivar ended: fires when the process has ended.
    """

    transport: Any = None

    def __init__(self) -> None:
        self.port: Deferred[int] = Deferred()
        self.ended: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.port.callback(int(data))

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)

    def memory(self, name: str) -> int:
        """
        @return: its memory in bytes, as in C{/proc/PID/status}.
        """
        with open(f"/proc/{self.transport.pid}/status") as file:
            found = re.search(rf"{name}:\s+(\d+) kB", file.read())
        assert found is not None
        return int(found[1]) * 1024

    async def stop(self) -> None:
        self.transport.signalProcess("KILL")
        await self.ended


class Asker(Protocol):
    """
    A stream of the good peer, whose data the subject echoes.
    """

    answer: Deferred[bytes]

    def ask(self) -> Deferred[bytes]:
        self.answer = Deferred()
        self.transport.write(b"still there?")
        return self.answer

    def dataReceived(self, data: bytes) -> None:
        self.answer.callback(data)


class BuffersTests(TestCase):
    """
    A peer with many muxes whose streams nobody reads.
    """

    pairing = SERVER
    timeout = 170

    async def connect(self, port: int, psk: str) -> Any:
        factory = MuxFactory(psk, True, clock=reactor)
        factory.closesAtShutdown = False
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        mux = await endpoint.connect(factory)
        self.addCleanup(self._end, mux)
        return mux

    async def _end(self, mux: Any) -> None:
        closed = mux.whenClosed()
        mux.abort()
        await closed

    @row(61, 79)
    async def test_manyMuxes(self) -> None:
        """
        The process takes no more memory than the bound allows, however many muxes the
        abuser fills.  Meanwhile the peer with another key is served.
        """
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        bound = MUXES * BOUND
        subject = Subject()
        command = [sys.executable, "-c", PROGRAM, str(bound)]
        pipes: Any = {0: "w", 1: "r", 2: 2}
        reactor.spawnProcess(subject, command[0], command, os.environ, childFDs=pipes)
        self.addCleanup(subject.stop)
        port = await subject.port
        good = await self.connect(port, "the good key of all")
        asker = Asker()
        await good.openStream(Factory.forProtocol(lambda: asker))
        await asker.ask()
        before = subject.memory("VmRSS")
        slowest = 0.0
        muxes = []
        for _ in range(MUXES):
            mux = await self.connect(port, "the bad key of them all")
            streams = [Protocol() for _ in range(STREAMS)]
            for protocol in streams:
                await mux.openStream(Factory.forProtocol(lambda p=protocol: p))
            muxes.append((mux, streams))
        for mux, streams in muxes:
            for protocol in streams:
                protocol.transport.write(bytes(WINDOW))
            while not mux._scheduler.idle and mux.reason is None:
                await deferLater(reactor, 0.001)
            asked = reactor.seconds()
            self.assertEqual(await asker.ask(), b"still there?")
            slowest = max(slowest, reactor.seconds() - asked)
        await asker.ask()
        self.assertIsNone(good.reason)
        ended = sum(mux.reason is not None for mux, _ in muxes)
        cost = subject.memory("VmHWM") - before
        sys.stderr.write(
            f"{MUXES} muxes: {cost >> 20} MiB resident at most, of {bound >> 20} MiB"
            f" and {BESIDES >> 10} KiB a mux; {ended} muxes ended;"
            f" slowest echo {slowest * 1000:.0f} ms\n"
        )
        self.assertLess(cost, bound + MUXES * BESIDES + BASE)
        self.assertGreater(cost, bound // 2)
