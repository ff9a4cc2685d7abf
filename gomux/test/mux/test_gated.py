"""
Tests for L{gomux._mux.gate} in strict mode: a mux before its handshake is done.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gomux import Limits, MuxFactory
from gomux._wire.frame import HELLO_ID, HELLO_SIZE, Flag
from gomux._wire.salts import Salts, processSalts
from gomux.error import (
    ConnectionClosed,
    GomuxError,
    HandshakeFailed,
    LimitExceeded,
    OpenStreamError,
    Truncated,
)
from gomux.test.support.helpers import FramePeer, Recorders
from gomux.test.support.strictrig import StrictRig
from gomux.testing import PSK, MuxPair
from gomux.testing._pair import connect

STRICT = {"strict": True}
COMPATIBLE: dict[str, bool] = {}

#: Settings of a client and a server, and the texts that they log.
LOGGED = [
    (COMPATIBLE, COMPATIBLE, []),
    (STRICT, STRICT, []),
    (STRICT, COMPATIBLE, ["is off here"]),
]


@implementer(ILogObserver)
class Log:
    """
    Keeps the formats of the logged events.
    """

    def __init__(self) -> None:
        self.events: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        self.events.append(str(event["log_format"]))


class GateTests(SynchronousTestCase):
    """
    A mux in strict mode before and after its handshake.
    """

    def test_order(self) -> None:
        """
        Until the peer has shown its key and that it is there now, a mux sends nothing
        but the handshake, opens no stream, and is not in the pool.
        """
        for isClient, hellos in ((True, [(HELLO_ID, HELLO_SIZE)]), (False, [])):
            rig = StrictRig(isClient=isClient, up=False)
            opened = rig.mux.openStream(Recorders())
            closed = rig.mux.whenClosed()
            rig.run()
            self.assertEqual([(f[0], f[2]) for f in rig.peer.frames], hellos)
            self.assertFalse(rig.mux.authenticated)
            self.assertEqual(rig.factory.pool.muxes, [])
            self.assertNoResult(opened)
            rig.answer()
            if not isClient:
                self.assertNoResult(opened)
                rig.answer()
            self.assertTrue(rig.mux.authenticated)
            self.assertEqual(rig.factory.pool.muxes, [rig.mux])
            self.successResultOf(opened)
            self.assertTrue(rig.handshake.passed)
            hello, opening = rig.peer.take()
            self.assertEqual(hello[:2], (HELLO_ID, Flag.DATA))
            self.assertEqual(opening[:3], (1 - isClient, Flag.OPEN_STREAM, 0))
            self.assertNoResult(closed)

    def test_serverWaitsForConfirmation(self) -> None:
        """
        A server does not accept a client on its hello alone, because the hello may be a
        replay.
        """
        rig = StrictRig(up=False)
        opened = rig.mux.openStream(Recorders())
        rig.sendRaw(rig.handshake.takeOutput())
        [(streamID, flag, value)] = [f[:3] for f in rig.peer.frames]
        self.assertEqual((streamID, flag), (HELLO_ID, Flag.DATA))
        rig.wait(5)
        self.assertEqual(len(rig.peer.frames), 1)
        self.assertNoResult(opened)
        self.assertFalse(rig.mux.authenticated)

    def test_silence(self) -> None:
        """
        A silent peer never joins the pool in strict mode.
        """
        rig = StrictRig(up=False)
        rig.wait(5)
        self.assertEqual(rig.factory.pool.muxes, [])

    def test_waitingInOrder(self) -> None:
        """
        Streams that wait for the handshake are opened in order, without the cancelled
        ones.
        """
        rig = StrictRig(isClient=True, up=False)
        factories = [Recorders(), Recorders(), Recorders()]
        opened = [rig.mux.openStream(factory) for factory in factories]
        opened[1].cancel()
        self.failureResultOf(opened[1], CancelledError)
        rig.answer()
        for number, streamID in ((0, 0), (2, 2)):
            self.successResultOf(opened[number])
            [made] = factories[number].made
            self.assertEqual(made.stream.streamID, streamID)
        self.assertEqual(factories[1].made, [])

    def test_tooManyWait(self) -> None:
        """
        If too many streams wait for the handshake, C{openStream} fails.
        """
        rig = StrictRig(isClient=True, up=False, limits=Limits(maxControl=2))
        opened = [rig.mux.openStream(Recorders()) for _ in range(3)]
        self.assertNoResult(opened[1])
        self.failureResultOf(opened[2], OpenStreamError)
        rig.mux.abort()
        rig.run()
        for waiting in opened[:2]:
            self.failureResultOf(waiting, ConnectionClosed)

    def test_close(self) -> None:
        """
        C{close}, C{drain} and C{abort} during the handshake drop the carrier at once.
        """
        for method in ("close", "drain", "abort"):
            rig = StrictRig(isClient=True, up=False)
            opened = rig.mux.openStream(Recorders())
            getattr(rig.mux, method)()
            self.failureResultOf(rig.mux.openStream(Recorders()), OpenStreamError)
            self.assertIsInstance(rig.reason(), ConnectionClosed)
            self.failureResultOf(opened, ConnectionClosed)
            self.assertEqual(len(rig.peer.frames), 1)
            self.assertEqual(rig.clock.getDelayedCalls(), [])

    def test_timeout(self) -> None:
        """
        A handshake that is not done within its time limit fails, however much of it has
        arrived.
        """
        for size in (0, 1, 111, 112):
            rig = StrictRig(up=False)
            opened = rig.mux.openStream(Recorders())
            rig.sendRaw(rig.handshake.takeOutput()[:size])
            rig.wait(9.75)
            self.assertNoResult(opened)
            rig.wait(0.25)
            self.failureResultOf(opened, HandshakeFailed)
            self.assertIn("not done after 10 seconds", str(rig.reason()))
            self.assertEqual(rig.clock.getDelayedCalls(), [])
        rig = StrictRig(up=False, limits=Limits(handshakeTimeout=1.0))
        rig.wait(1)
        self.assertIsInstance(rig.reason(), HandshakeFailed)

    def test_salts(self) -> None:
        """
        A salt counts as in progress only during its handshake, whether the handshake
        succeeds or not.
        """
        salts = processSalts
        before = salts.inProgress
        for up in (True, False):
            rig = StrictRig(isClient=True, up=up)
            self.assertEqual(salts.inProgress - before, 0 if up else 1)
            rig.mux.abort()
            rig.run()
            self.assertEqual(salts.inProgress, before)

    def test_inTime(self) -> None:
        """
        A mux that is up does not fail when the time limit of the handshake is over.
        """
        rig = StrictRig()
        rig.wait(11)
        self.assertIsNone(rig.reason())

    def test_carrierEnds(self) -> None:
        """
        If the carrier ends during the handshake, the error is L{HandshakeFailed} and
        names a wrong key as a possible cause.
        """
        rig = StrictRig(isClient=True, up=False)
        rig.peerCarrier.loseConnection()
        reason = rig.reason()
        self.assertIsInstance(reason, HandshakeFailed)
        self.assertIn("wrong pre-shared key", str(reason))
        self.assertIs(rig.factory.pool.lastReason, reason)

    def test_unauthenticated(self) -> None:
        """
        A peer in the middle of its handshake counts as unauthenticated, and is dropped
        for the next one if there are too many.
        """
        rig = StrictRig(up=False, limits=Limits(maxUnauthenticated=1))
        rig.sendRaw(rig.handshake.takeOutput())
        other = rig.factory.buildProtocol(None)
        peer = FramePeer()
        address = IPv4Address("TCP", "192.0.2.3", 1)
        connect(rig.clock, (other, peer), (address, address), 0.0, None, 65536)
        self.assertIsInstance(rig.reason(), LimitExceeded)


class ModeTests(SynchronousTestCase):
    """
    Two peers with different settings.
    """

    def reasons(
        self, client: Mapping[str, object], server: Mapping[str, object]
    ) -> list[GomuxError | None]:
        """
        @return: the reasons for the ends of the client's and the server's mux.
        """
        clock = Clock()
        self.streams = Recorders()
        factories = [
            MuxFactory(
                PSK,
                isClient,
                self.streams,
                clock=clock,
                **{"salts": Salts(), **settings},  # type: ignore[arg-type]
            )
            for isClient, settings in ((True, client), (False, server))
        ]
        pair = MuxPair(
            clientFactory=factories[0], serverFactory=factories[1], clock=clock
        )
        closed = [pair.client.whenClosed(), pair.server.whenClosed()]
        pair.advance(12)
        self.assertEqual(self.streams.made, [])
        return [getattr(waiting, "result", None) for waiting in closed]

    def test_strictClient(self) -> None:
        """
        A strict client fails against a server in compatible mode: at once if the server
        greets, and otherwise, as against the Go package, at the time limit.
        """
        for greet, message in (
            (True, "the peer has the key, but is not in strict mode"),
            (False, "a peer that is not in strict mode?"),
        ):
            reasons = self.reasons({"strict": True}, {"greet": greet})
            self.assertIsInstance(reasons[0], HandshakeFailed)
            self.assertIn(message, str(reasons[0]))
            self.assertIsInstance(reasons[1], Truncated)

    def test_strictServer(self) -> None:
        """
        A strict server fails against a client in compatible mode: at once if the client
        greets, and otherwise at the time limit.
        """
        for greet, message in (
            (True, "the peer has the key, but is not in strict mode"),
            (False, "a peer that is not in strict mode?"),
        ):
            reasons = self.reasons({"greet": greet}, {"strict": True})
            self.assertIsInstance(reasons[1], HandshakeFailed)
            self.assertIn(message, str(reasons[1]))
            self.assertIsInstance(reasons[0], Truncated)

    def test_context(self) -> None:
        """
        Two peers connect if their contexts are equal, and fail if they differ.
        """
        a, b = ({"strict": True, "context": context} for context in (b"a", b"b"))
        reasons = self.reasons(a, b)
        self.assertIsInstance(reasons[0], HandshakeFailed)
        self.assertIn("context", str(reasons[0]))
        self.assertIsInstance(reasons[1], HandshakeFailed)
        self.assertEqual(self.reasons(b, b), [None, None])

    def test_sameProcess(self) -> None:
        """
        By default a process cannot connect to itself in strict mode.
        """
        salts = MuxFactory(PSK, True, clock=Clock()).salts
        strict = {"strict": True, "salts": salts}
        reasons = self.reasons(strict, strict)
        self.assertIsInstance(reasons[1], HandshakeFailed)
        self.assertIn("connected with itself", str(reasons[1]))
        self.assertIsInstance(reasons[0], HandshakeFailed)

    def test_logged(self) -> None:
        """
        A mux in compatible mode logs its mode, and warns of a strict peer.  A mux in
        strict mode logs nothing about its mode.
        """
        for client, server, messages in LOGGED:
            log = Log()
            globalLogPublisher.addObserver(log)
            self.addCleanup(globalLogPublisher.removeObserver, log)
            self.reasons(client, server)
            globalLogPublisher.removeObserver(log)
            found = [event for event in log.events if "strict mode" in event]
            self.assertEqual(len(found), len(messages), found)
            for event, message in zip(found, messages, strict=True):
                self.assertIn(message, event)
