"""
Tests for L{gomux._mux.gate} in strict mode: a mux before the handshake is done.
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
from gomux._wire.frame import HELLO_ID, Flag
from gomux._wire.strict import Salts, processSalts
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

#: Settings of a client and a server, and what they say about it.
LOGGED = [
    (COMPATIBLE, COMPATIBLE, ["not in strict mode"] * 2),
    (STRICT, STRICT, []),
    (STRICT, COMPATIBLE, ["is off here", "not in strict mode"]),
]


@implementer(ILogObserver)
class Log:
    """
    Keeps what is logged.
    """

    def __init__(self) -> None:
        self.events: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        self.events.append(str(event["log_format"]))


class GateTests(SynchronousTestCase):
    """
    Before the mux is up.
    """

    def test_order(self) -> None:
        """
        Nothing is said but the handshake, and nothing is opened, before the
        peer's confirmation has come.
        """
        for isClient, hellos in ((True, [(HELLO_ID, 1)]), (False, [])):
            rig = StrictRig(isClient=isClient, up=False)
            opened = rig.mux.openStream(Recorders())
            closed = rig.mux.whenClosed()
            rig.run()
            self.assertEqual([(f[0], f[2]) for f in rig.peer.frames], hellos)
            self.assertFalse(rig.mux.authenticated)
            self.assertEqual(rig.factory.pool.muxes, [])
            self.assertNoResult(opened)
            rig.answer()
            rig.answer()
            self.assertTrue(rig.mux.authenticated)
            self.assertEqual(rig.factory.pool.muxes, [rig.mux])
            self.successResultOf(opened)
            self.assertEqual(rig.sent(), [(1 - isClient, Flag.OPEN_STREAM, 0)])
            self.assertNoResult(closed)

    def test_serverWaitsForConfirmation(self) -> None:
        """
        A hello is not enough for a server: it may be an old one.
        """
        rig = StrictRig(up=False)
        opened = rig.mux.openStream(Recorders())
        rig.sendRaw(rig.handshake.takeOutput())
        self.assertEqual([f[:3] for f in rig.peer.frames][0], (HELLO_ID, 1, 2))
        self.assertEqual([f[:3] for f in rig.peer.frames][1], (0, Flag.KEEPALIVE, 0))
        self.assertEqual(len(rig.peer.frames), 2)
        self.assertNoResult(opened)
        self.assertFalse(rig.mux.authenticated)

    def test_silence(self) -> None:
        """
        A peer that stays silent never gets what is meant for others, unlike
        one in compatible mode.
        """
        rig = StrictRig(up=False)
        rig.wait(5)
        self.assertEqual(rig.factory.pool.muxes, [])

    def test_waitingInOrder(self) -> None:
        """
        Streams that wait are opened in order, but for those that are cancelled.
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
        To close or drain a mux that is not up yet drops its carrier.
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
        A handshake that takes longer than its time has failed, whatever part
        of it has come.
        """
        for size in (0, 1, 51, 52):
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
        A salt is no longer one in progress when the mux is up, nor when it
        never came up.
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
        A mux that is up does not fail when that time is over.
        """
        rig = StrictRig()
        rig.wait(11)
        self.assertIsNone(rig.reason())

    def test_carrierEnds(self) -> None:
        """
        A carrier that ends before that says so, and why that may be.
        """
        rig = StrictRig(isClient=True, up=False)
        rig.peerCarrier.loseConnection()
        reason = rig.reason()
        self.assertIsInstance(reason, HandshakeFailed)
        self.assertIn("wrong pre-shared key", str(reason))
        self.assertIs(rig.factory.pool.lastReason, reason)

    def test_unauthenticated(self) -> None:
        """
        Whoever has not come to the end of the handshake counts as a stranger,
        and gives way to the next one.
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
    Two peers that are not configured in the same way.
    """

    def reasons(
        self, client: Mapping[str, object], server: Mapping[str, object]
    ) -> list[GomuxError | None]:
        """
        @return: why the client's mux and the server's came to their ends.
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
        A client fails against a server in compatible mode, at once where that
        greets, and else, as with the Go package, when the time is up.
        """
        for greet, message in (
            (True, "the peer is not in strict mode"),
            (False, "a peer that is not in strict mode?"),
        ):
            reasons = self.reasons({"strict": True}, {"greet": greet})
            self.assertIsInstance(reasons[0], HandshakeFailed)
            self.assertIn(message, str(reasons[0]))
            self.assertIsInstance(reasons[1], Truncated)

    def test_strictServer(self) -> None:
        """
        So does a server against such a client.
        """
        for greet, message in (
            (True, "the peer is not in strict mode"),
            (False, "a peer that is not in strict mode?"),
        ):
            reasons = self.reasons({"greet": greet}, {"strict": True})
            self.assertIsInstance(reasons[1], HandshakeFailed)
            self.assertIn(message, str(reasons[1]))
            self.assertIsInstance(reasons[0], Truncated)

    def test_context(self) -> None:
        """
        Different contexts do not go together, the same ones do.
        """
        a, b = ({"strict": True, "context": context} for context in (b"a", b"b"))
        reasons = self.reasons(a, b)
        self.assertIsInstance(reasons[0], HandshakeFailed)
        self.assertIn("context", str(reasons[0]))
        self.assertIsInstance(reasons[1], HandshakeFailed)
        self.assertEqual(self.reasons(b, b), [None, None])

    def test_sameProcess(self) -> None:
        """
        By default a process does not talk to itself.
        """
        salts = MuxFactory(PSK, True, clock=Clock()).salts
        strict = {"strict": True, "salts": salts}
        reasons = self.reasons(strict, strict)
        self.assertIsInstance(reasons[1], HandshakeFailed)
        self.assertIn("connected with itself", str(reasons[1]))
        self.assertIsInstance(reasons[0], HandshakeFailed)

    def test_logged(self) -> None:
        """
        A mux in compatible mode says once that it is, and warns of a peer that
        is not; one in strict mode has nothing to say.
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
