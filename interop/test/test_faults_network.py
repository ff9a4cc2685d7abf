"""
Faults and abuse: a peer vanishes without FIN or RST.

The subject, C{twistd gomux}, and the peer are processes in two network namespaces.  The
tests cut the link between the namespaces.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from unittest import SkipTest

from twisted.internet import reactor
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.protocol import Factory

from interop.faults.cases import (
    CLIENT,
    GO_CLIENT,
    GO_SERVER,
    FaultTestCase,
    row,
)
from interop.faults.network import HERE, THERE, CannotMakeNetwork, Network
from interop.support.echo import Echoed
from interop.support.harness import PEERS, Peer, whyMissing
from interop.support.tunnels import PSK, Service, TunnelTestCase, sleep

PORT = 7000
MEBIBYTE = 1 << 20

VANISHED = 2.0
"""Seconds of silence after which the subject gives up the peer."""

SLACK = 5.0
"""Seconds that this may be late, because the kernel checks only now and then."""

PATIENT = 6.0
"""The same timeout for tests in which the mux must survive the outage."""

LOSS = 1.0
"""Seconds that such an outage lasts."""

SLOW, SLOW_SIZE, SLOW_TIME = "5mbit", 8 * MEBIBYTE, 60
"""The rate of a slow path, and what goes over it in how many seconds at most."""

SLOW_DEAD, SLOW_PING = "9", "1"
"""A fifth of the usual limits, as the rate is five times that of a slow uplink."""

UPLINK, UPLINK_STREAMS, UPLINK_TIME = "1mbit", 8, 20
"""The rate of a slow uplink, and how many streams send for how many seconds."""

UPLINK_AGE = 15.0
"""How old the newest echoed ping may become there: a third of what ends the mux."""


class Apart(TunnelTestCase, FaultTestCase):
    """
    The subject and the peer in namespaces of their own.  The subject is the server, and
    the peer is this project too.

    @cvar listens: Whether the subject is the server.
    @cvar factory: The peer's factory for streams.
    @ivar subject: The subject's process.
    @ivar peer: The peer's process.
    """

    timeout = 100
    listens = True
    factory = "interop.support.echo.EchoFactory"
    subject: Service
    peer: Peer

    def setUp(self) -> None:
        super().setUp()
        try:
            self.network = Network()
        except CannotMakeNetwork as error:
            raise SkipTest(
                f"network namespaces cannot be made here: {error}; it takes root,"
                " or a kernel that lets users have their own, and iproute2"
            ) from None
        self.addCleanup(self.network.close)
        # The path of a Unix socket has to be short, and trial's temporary paths are
        # long.
        self._directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self._directory)
        self._path = os.path.join(self._directory, "forward")

    async def connect(self, *options: str) -> None:
        """
        Start the subject and the peer.

        @param options: Options of the subject; the peer gets them too if it is this
            project.
        """
        self._options = options
        carrier = f"tcp:{PORT}:interface={HERE}"
        if self.listens:
            await self.startSubject("--listen", carrier, "--silent-grace", "0.1")
            await self.startPeer()
        else:
            await self.startPeer()
            await self.startSubject("--connect", f"tcp:{THERE}:{PORT}:timeout=1")

    async def startSubject(self, *options: str) -> None:
        """
        Start the subject, and wait until it has acted on its first option and listens
        at C{--forward}.

        @param options: The option of the carrier, its value, and further options.
        """
        forward = f"unix:{self._path}"
        self.subject = subject = self.service(
            *(*options, "--forward", forward, *self._options),
            prefix=self.network.at(HERE),
        )
        await subject.line(" ".join(options[:2]))
        await subject.address("forward", forward)

    async def startPeer(self) -> None:
        """
        Start the peer.
        """
        if self.listens:
            carrier = ("--connect", f"tcp:{HERE}:{PORT}:timeout=1")
        else:
            carrier = ("--listen", f"tcp:{PORT}:interface={THERE}")
        self.peer = peer = self.service(
            *(
                *carrier,
                "--factory",
                self.factory,
                *self._options,
            ),
            prefix=self.network.at(THERE),
        )
        await peer.line("--connect" if self.listens else "--listen")

    async def stream(self) -> Echoed:
        """
        Open a stream, and check that the peer echoes its data.
        """
        endpoint = UNIXClientEndpoint(reactor, self._path)
        echoed: Echoed = await endpoint.connect(Factory.forProtocol(Echoed))
        self.addCleanup(echoed.transport.abortConnection)
        echoed.transport.write(b"ping")
        await self.eventually(lambda: echoed.received == b"ping")
        echoed.received.clear()
        return echoed

    async def busyStream(self, data: bytes) -> Echoed:
        """
        Open a stream that still has data in flight in both directions.

        @param data: What the peer is to echo; less than half of it has come back.
        """
        echoed = await self.stream()
        echoed.transport.write(data)
        await self.eventually(lambda: len(echoed.received) > MEBIBYTE)
        self.assertLess(len(echoed.received), len(data) // 2)
        return echoed

    async def assertEnds(self, echoed: Echoed, reason: str) -> None:
        """
        Cut the link, and check that the mux and the stream end.  Then mend the link,
        and check that streams work again.

        @param reason: How the logged reason of the mux begins.
        """
        self.network.cut()
        ended = self.subject.line("the mux ")
        ended.addTimeout(VANISHED + SLACK, reactor)
        self.assertIn(f"ended: {reason}", await ended)
        await echoed.lost
        cut = await self.subject.line(f"--forward unix:{self._path}: ")
        self.assertIn(f"was cut short by the other side: {reason}", cut)
        self.network.mend()
        await self.assertBack()

    async def assertBack(self) -> None:
        """
        Check that a new stream works, over a new mux.
        """
        again = await self.stream()
        self.assertFalse(again.lost.called)

    async def assertGoesOn(self) -> None:
        """
        Cut the link for less than the timeout, and check that no stream ends and no
        data is lost.
        """
        idle = await self.stream()
        data = os.urandom(MEBIBYTE) * 16
        busy = await self.busyStream(data)
        self.network.cut()
        # Data that had arrived before the cut may still pass through a process.
        await sleep(LOSS / 4)
        stuck = len(busy.received)
        await sleep(LOSS)
        self.assertEqual(len(busy.received), stuck)
        self.network.mend()
        await self.eventually(lambda: len(busy.received) >= len(data))
        self.assertTrue(busy.received == data, "what came back differs")
        idle.transport.write(b"still here")
        await self.eventually(lambda: idle.received == b"still here")
        self.assertNotIn("ended", self.subject.log)


class Vanishing(Apart):
    """
    The peer vanishes.  Only the kernel notices that.
    """

    @row(34)
    async def test_idle(self) -> None:
        """
        The kernel gives up the carrier, and the mux ends, even if there is nothing to
        send.
        """
        await self.connect("--carrier-timeout", f"{VANISHED:g}")
        await self.assertEnds(await self.stream(), "The carrier ended without CloseMux")

    @row(34)
    async def test_busy(self) -> None:
        """
        The mux also ends if data is in flight.
        """
        await self.connect("--carrier-timeout", f"{VANISHED:g}")
        echoed = await self.busyStream(bytes(16 * MEBIBYTE))
        await self.assertEnds(echoed, "The carrier ended without CloseMux")

    @row(34)
    async def test_shortLoss(self) -> None:
        """
        An outage shorter than the timeout does not end the mux.
        """
        await self.connect("--carrier-timeout", f"{PATIENT:g}")
        await self.assertGoesOn()


class Strict(Vanishing):
    """
    The tests of L{Vanishing} in strict mode, where the two sides ping each other.

    @cvar mode: The options for the mode.
    """

    mode: tuple[str, ...] = ("--strict",)

    async def startStrict(self, seconds: float) -> None:
        """
        Start the subject and the peer in strict mode.

        @param seconds: The silence after which a peer is given up.
        """
        limits = ("--dead-peer", f"{seconds:g}", "--ping", "0.25")
        await self.connect(*self.mode, *limits)

    @row(34)
    async def test_idle(self) -> None:
        """
        The mux ends, even if there is nothing to send.
        """
        await self.startStrict(VANISHED)
        await self.assertEnds(await self.stream(), "The peer answers no pings")

    @row(34)
    async def test_busy(self) -> None:
        """
        The mux also ends if data is in flight.
        """
        await self.startStrict(VANISHED)
        echoed = await self.busyStream(bytes(16 * MEBIBYTE))
        await self.assertEnds(echoed, "The peer answers no pings")

    @row(34)
    async def test_shortLoss(self) -> None:
        """
        An outage shorter than the timeout does not end the mux.
        """
        await self.startStrict(PATIENT)
        await self.assertGoesOn()

    @row(39)
    async def test_slow(self) -> None:
        """
        Bulk on a slow path, both ways, does not end the mux, though the pings wait
        behind the data in the kernel and in the queues of the path.
        """
        try:
            self.network.slow(SLOW)
        except CannotMakeNetwork as error:
            raise SkipTest(str(error)) from None
        limits = ("--dead-peer", SLOW_DEAD, "--ping", SLOW_PING)
        await self.connect(*self.mode, *limits)
        echoed = await self.stream()
        data = os.urandom(SLOW_SIZE)
        echoed.transport.write(data)
        for _ in range(SLOW_TIME):
            await sleep(1)
            if len(echoed.received) >= len(data):
                break
        self.assertTrue(echoed.received == data, "what came back differs")
        for service in (self.subject, self.peer):
            self.assertNotIn("ended", service.log)


class Uplink(Apart):
    """
    Two peers with the usual limits, over a slow uplink.
    """

    factory = "interop.support.echo.WatchFactory"

    @row(39)
    async def test_bulk(self) -> None:
        """
        While streams send as fast as they can, both ways, pings are echoed long before
        the mux would end.
        """
        try:
            self.network.slow(UPLINK)
        except CannotMakeNetwork as error:
            raise SkipTest(str(error)) from None
        await self.connect("--strict")
        streams = [await self.stream() for _ in range(UPLINK_STREAMS)]
        for echoed in streams:
            echoed.transport.write(bytes(MEBIBYTE))
        await sleep(UPLINK_TIME)
        for echoed in streams:
            self.assertNotEqual(len(echoed.received), 0)
            self.assertLess(len(echoed.received), MEBIBYTE)
        log = self.peer.log
        ages = [float(age) for age in re.findall(r"ping: ([0-9.]+) seconds", log)]
        self.assertGreater(len(ages), UPLINK_TIME)
        self.assertLess(max(ages), UPLINK_AGE)
        for service in (self.subject, self.peer):
            self.assertNotIn("ended", service.log)


class Pinged(Strict):
    """
    The tests of L{Strict} in compatible mode, where the two sides greet and so ping
    each other.
    """

    mode = ()


class PingedAsClient(Pinged):
    """
    The tests of L{Pinged}, with the subject as client.
    """

    pairing = CLIENT
    listens = False


class VanishingAsClient(Vanishing):
    """
    The tests of L{Vanishing}, with the subject as client.
    """

    pairing = CLIENT
    listens = False


class StrictAsClient(Strict):
    """
    The tests of L{Strict}, with the subject as client.
    """

    pairing = CLIENT
    listens = False


class GoVanishes(Vanishing):
    """
    The peer that vanishes is the Go reference, as client.
    """

    pairing = GO_CLIENT
    skip = whyMissing("go")

    async def startPeer(self) -> None:
        """
        Start the peer.
        """
        if self.listens:
            carrier = ("--connect", f"{HERE}:{PORT}")
        else:
            carrier = ("--listen", f"{THERE}:{PORT}")
        command = [*self.network.at(THERE), *PEERS["go"], "--psk", PSK, *carrier]
        self.peer = self.start(Peer("the reference"), command, dict(os.environ))
        await self.peer.line("mux up" if self.listens else "listening ")

    async def assertBack(self) -> None:
        """
        Check that a new stream works.  A reference client is started again first,
        because it does not reconnect by itself.
        """
        if self.listens:
            await self.startPeer()
        await super().assertBack()


class GoServerVanishes(GoVanishes):
    """
    The peer that vanishes is the Go reference, as server.
    """

    pairing = GO_SERVER
    listens = False
