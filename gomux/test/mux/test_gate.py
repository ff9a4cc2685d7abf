"""
Tests for L{gomux._mux.gate}: gates that need several turns of the reactor.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory
from gomux._mux.gate import Gate, KeyFinder, WaitingStreams, explainLoss
from gomux._wire.crypto import Opener, Sealer, deriveKey
from gomux._wire.frame import Flag, NotYet
from gomux._wire.keyring import Keyring
from gomux._wire.keysearch import KEYS_A_TURN, FirstFrame, KnownKey
from gomux.error import (
    AuthenticationFailed,
    ConnectionClosed,
    HandshakeFailed,
    OpenStreamError,
    Truncated,
)
from gomux.test.support.helpers import Parts, Recorders, Rig
from gomux.test.support.slowclock import SlowClock
from gomux.testing import PSK

ALICE = "the pre-shared key of alice"
BOB = "the pre-shared key of bob"
EVE = "a pre-shared key that nobody has"


class SlowGate(FirstFrame):
    """
    A gate that needs several turns of the reactor to check the first frame.

    @ivar turns: how many turns are left.
    @ivar offered: how often the mux has offered the frame.
    @ivar closed: how often the gate was closed.
    @ivar answer: the bytes that the gate has the mux send once it is passed.
    """

    sealer: Sealer | None = None
    answer = b""

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.offered = 0
        self.closed = 0
        self.opener = Opener(deriveKey(PSK))

    def open(self, header: bytes, sealed: bytes | memoryview) -> bytes:
        self.offered += 1
        if self.turns:
            self.turns -= 1
            raise NotYet()
        payload = self.opener.open(header, sealed)
        self.passed = True
        self.sealer = Sealer(deriveKey(PSK))
        return payload

    def close(self) -> None:
        self.closed += 1


class OwningGate(SlowGate):
    """
    A gate that keeps the first frame from the mux, and answers it.
    """

    ownsFrames = True

    def takeOutput(self) -> bytes:
        if not self.passed:
            return b""
        sealer = Sealer(deriveKey(PSK))
        return b"".join(sealer.seal(9, 0, Flag.CLOSE_STREAM))


class GateFactory(MuxFactory):
    """
    Makes muxes with the gate that the test sets.
    """

    gate: Gate

    def makeGate(self, address: IAddress | None = None) -> Gate:
        return self.gate


def gatedRig(gate: Gate) -> Rig:
    """
    @return: a rig whose mux has this gate.
    """
    clock = SlowClock()
    factory = GateFactory(PSK, False, Recorders(), clock=clock)
    factory.gate = gate
    rig = Rig(factory=factory, clock=clock)
    assert isinstance(factory.streamFactory, Recorders)
    rig.streams = factory.streamFactory
    return rig


class NotYetTests(SynchronousTestCase):
    """
    A gate that needs several turns of the reactor to check a frame.
    """

    def setUp(self) -> None:
        self.start(SlowGate(3))

    def start(self, gate: SlowGate) -> None:
        self.gate = gate
        self.rig = gatedRig(gate)

    def deliver(self, *frames: tuple[int, int, int | bytes]) -> None:
        """
        Have frames arrive in one read, and run only the turn in which they arrive.
        """
        sealed = b"".join(self.rig.peer.seal(*frame) for frame in frames)
        self.rig.mux.dataReceived(sealed)

    def turn(self) -> None:
        clock = self.rig.clock
        assert isinstance(clock, SlowClock)
        clock.turn()

    def test_turns(self) -> None:
        """
        The frame is offered to the gate once in each turn.  Until the gate is passed,
        later frames wait, nothing is read and nothing is sent.
        """
        opened = self.rig.mux.openStream(Recorders())
        self.deliver((0, Flag.OPEN_STREAM, 0), (0, Flag.DATA, b"hello"))
        for offered in (1, 2, 3):
            self.assertEqual(self.gate.offered, offered)
            self.assertFalse(self.rig.carrier.reading)
            self.assertFalse(self.rig.mux.authenticated)
            self.assertTrue(self.rig.mux.gated)
            self.assertNoResult(opened)
            self.assertEqual(self.rig.streams.made, [])
            self.assertEqual(self.rig.mux.bytesSent, 0)
            self.rig.mux.checkInvariants()
            self.turn()
        self.assertEqual(self.gate.offered, 4)
        self.assertTrue(self.rig.carrier.reading)
        self.assertTrue(self.rig.mux.authenticated)
        self.successResultOf(opened)
        [recorder] = self.rig.streams.made
        self.assertEqual(bytes(recorder.received), b"hello")
        self.assertEqual(self.gate.closed, 1)
        self.assertEqual(self.rig.sent(), [(1, Flag.OPEN_STREAM, 0)])
        self.rig.send(0, Flag.DATA, b" more")
        self.assertEqual(bytes(recorder.received), b"hello more")

    def test_cut(self) -> None:
        """
        A frame that arrives in parts is offered once it is complete.  Bytes that arrive
        while it waits are handled after it.
        """
        data = self.rig.peer.seal(0, Flag.OPEN_STREAM)
        for part in (data[:7], data[7:-1]):
            self.rig.mux.dataReceived(part)
            self.assertEqual(self.gate.offered, 0)
            self.assertTrue(self.rig.carrier.reading)
        self.rig.mux.dataReceived(data[-1:])
        self.deliver((0, Flag.DATA, b"hello"))
        self.assertEqual(self.gate.offered, 1)
        for _ in range(3):
            self.assertFalse(self.rig.mux.authenticated)
            self.turn()
        self.assertEqual(bytes(self.rig.streams.made[0].received), b"hello")

    def test_others(self) -> None:
        """
        Between two offers of the frame, other calls of the reactor get their turn.
        """
        offered: list[int] = []

        def note() -> None:
            offered.append(self.gate.offered)
            self.rig.clock.callLater(0, note)

        self.rig.clock.callLater(0, note)
        self.deliver((0, Flag.KEEPALIVE, 0))
        while not self.rig.mux.authenticated:
            self.turn()
        self.assertEqual(offered, [1, 2, 3])

    def test_owned(self) -> None:
        """
        A frame that the gate keeps has no effect on the mux.  The gate's answer is sent
        ahead of all other frames.
        """
        self.start(OwningGate(1))
        self.rig.mux.openStream(Recorders())
        self.deliver((0, Flag.OPEN_STREAM, 0), (2, Flag.OPEN_STREAM, 0))
        self.turn()
        [recorder] = self.rig.streams.made
        self.assertEqual(recorder.stream.streamID, 2)
        sent = self.rig.sent()
        self.assertEqual(sent, [(9, Flag.CLOSE_STREAM, 0), (1, Flag.OPEN_STREAM, 0)])

    def test_carrierLost(self) -> None:
        """
        If the carrier is lost while the gate is busy, the frames received before are
        handled before the streams learn of the loss.
        """
        closed = self.rig.mux.whenClosed()
        self.deliver((0, Flag.OPEN_STREAM, 0), (0, Flag.DATA, b"hello"))
        self.rig.peerCarrier.abortConnection()
        self.turn()
        self.assertNoResult(closed)
        self.rig.run()
        [recorder] = self.rig.streams.made
        self.assertEqual(recorder.events, ["made", "data", "lost"])
        self.assertIsInstance(self.successResultOf(closed), Truncated)
        self.assertEqual(self.gate.closed, 1)
        self.assertEqual(self.rig.clock.getDelayedCalls(), [])

    def test_ends(self) -> None:
        """
        A mux that ends while the gate is busy does not offer the frame again.
        """
        for end in ("abort", "close", "drain", "evict", "revoke"):
            self.start(SlowGate(3))
            opened = self.rig.mux.openStream(Recorders())
            self.deliver((0, Flag.OPEN_STREAM, 0))
            getattr(self.rig.mux, end)()
            self.assertIsNotNone(self.rig.reason())
            self.failureResultOf(opened)
            self.assertEqual((self.gate.offered, self.gate.closed), (1, 1))
            self.assertEqual(self.rig.streams.made, [])
            self.assertEqual(self.rig.clock.getDelayedCalls(), [])

    def test_abortedByOwner(self) -> None:
        """
        If the mux is aborted as soon as its gate is passed, the frame that passed the
        gate is not handled.
        """
        for flag in (Flag.OPEN_STREAM, Flag.CLOSE_MUX):
            self.start(SlowGate(3))
            factory = self.rig.mux.factory
            self.patch(factory, "muxAuthenticated", lambda mux: mux.abort())
            self.deliver((0, flag, 0), (2, Flag.OPEN_STREAM, 0))
            self.rig.run()
            self.assertEqual(self.rig.streams.made, [])
            self.assertIsInstance(self.rig.reason(), ConnectionClosed)

    def test_unpausable(self) -> None:
        """
        Frames wait for the gate even if the carrier cannot be paused.
        """
        self.patch(type(Parts(self.rig.mux).carrier), "canWait", False)
        self.deliver((0, Flag.OPEN_STREAM, 0))
        for _ in range(3):
            self.assertTrue(self.rig.carrier.reading)
            self.deliver((0, Flag.DATA, b"x"))
            self.assertEqual(self.rig.streams.made, [])
            self.turn()
        self.assertEqual(bytes(self.rig.streams.made[0].received), b"xxx")

    def test_stranger(self) -> None:
        """
        A forged frame ends the mux even if the gate detects the forgery several turns
        later.
        """
        data = bytearray(self.rig.peer.seal(0, Flag.OPEN_STREAM))
        data[-1] ^= 1
        self.rig.mux.dataReceived(bytes(data))
        self.turn()
        self.assertIsNone(self.rig.mux.reason)
        self.rig.run()
        self.assertIsInstance(self.rig.reason(), AuthenticationFailed)


class KeyringTests(SynchronousTestCase):
    """
    Gates of servers with many keys, in compatible and in strict mode.
    """

    def test_turns(self) -> None:
        """
        The first frame of a stranger is tried with only some of the keys in each turn,
        so that it does not block the reactor.
        """
        keyring = Keyring({str(number): f"key {number}" for number in range(256)})
        for strict in (False, True):
            clock = SlowClock()
            factory = MuxFactory(keyring, False, clock=clock, strict=strict)
            rig = Rig(factory=factory, clock=clock, psk="another key")
            rig.mux.dataReceived(rig.peer.seal(0, Flag.KEEPALIVE))
            for _ in range(256 // KEYS_A_TURN - 1):
                self.assertIsNone(rig.mux.reason)
                clock.turn()
            self.assertIsInstance(rig.mux.reason, AuthenticationFailed)

    def test_found(self) -> None:
        """
        A peer with the last key of a long keyring is accepted, and the frames that it
        sent behind its first frame are handled.
        """
        psks = {str(number): f"key {number}" for number in range(2 * KEYS_A_TURN)}
        clock, streams = SlowClock(), Recorders()
        factory = MuxFactory(Keyring({**psks, "bob": PSK}), False, streams, clock=clock)
        rig = Rig(factory=factory, clock=clock)
        rig.mux.dataReceived(
            rig.peer.seal(0, Flag.OPEN_STREAM) + rig.peer.seal(0, Flag.DATA, b"hello")
        )
        for _ in range(2):
            self.assertEqual(rig.mux.peerName, "")
            clock.turn()
        self.assertEqual(rig.mux.peerName, "bob")
        self.assertEqual(bytes(streams.made[0].received), b"hello")


class WaitingStreamsTests(SynchronousTestCase):
    """
    L{WaitingStreams}
    """

    def setUp(self) -> None:
        self.waiting = WaitingStreams(2)
        self.opened: list[object] = []

    def openStream(self, factory: object, service: object) -> Deferred[object]:
        self.opened.append((factory, service))
        return Deferred()

    def add(self, service: str | None = None) -> tuple[Recorders, Deferred[object]]:
        factory = Recorders()
        return factory, self.waiting.add(factory, service)  # type: ignore[return-value]

    def test_order(self) -> None:
        """
        Waiting streams are opened in order.  A cancelled stream is not opened, and
        leaves room for another.
        """
        first, _ = self.add()
        _, cancelled = self.add()
        cancelled.addErrback(lambda _: None)
        cancelled.cancel()
        third, _ = self.add("chat")
        opener: Callable[..., Deferred[object]] = self.openStream
        self.waiting.open(opener)  # type: ignore[arg-type]
        self.assertEqual(self.opened, [(first, None), (third, "chat")])
        self.waiting.open(opener)  # type: ignore[arg-type]
        self.assertEqual(len(self.opened), 2)

    def test_limit(self) -> None:
        """
        A stream beyond the limit fails at once.
        """
        results = [self.add()[1] for _ in range(3)]
        self.failureResultOf(results[2], OpenStreamError)
        self.waiting.fail(ConnectionClosed())
        for result in results[:2]:
            self.failureResultOf(result, ConnectionClosed)


class LossTests(SynchronousTestCase):
    """
    L{explainLoss}
    """

    def test_explained(self) -> None:
        """
        Before the gate is passed, the gate chooses the error for the end of the
        carrier.  The error includes the carrier's own error, if there is one.
        """
        gates = SlowGate(0), None
        strict = MuxFactory(PSK, True, clock=SlowClock(), strict=True).makeGate()
        self.addCleanup(strict.close)
        for gate, kind in ((gates[0], Truncated), (strict, HandshakeFailed)):
            done = explainLoss(gate, Failure(ConnectionDone()))
            self.assertIsInstance(done, kind)
            self.assertIn("wrong pre-shared key", str(done))
            self.assertNotIn("own error", str(done))
            lost = explainLoss(gate, Failure(ConnectionLost("no such host")))
            self.assertIn("The carrier's own error: ", str(lost))
            self.assertIn("no such host", str(lost))
        later = explainLoss(None, Failure(ConnectionDone()))
        self.assertIsInstance(later, Truncated)
        self.assertNotIn("pre-shared key", str(later))


def finderOf(*keys: tuple[str, bytes]) -> KeyFinder:
    """
    @return: the gate of a server in compatible mode with these keys.
    """
    return KeyFinder(keys, KnownKey, False)


class KeyFinderTests(SynchronousTestCase):
    """
    L{KeyFinder}
    """

    def test_found(self) -> None:
        """
        The first frame shows the peer's key and passes the gate.
        """
        keys = Keyring({"alice": ALICE, "bob": BOB}).keys
        for psk, name in ((ALICE, "alice"), (BOB, "bob")):
            finder = finderOf(*keys)
            header, body = Sealer(deriveKey(psk)).seal(0, 0, Flag.OPEN_STREAM)
            self.assertFalse(finder.passed)
            self.assertEqual(finder.open(header, body), b"")
            self.assertTrue(finder.passed)
            self.assertEqual((finder.name, finder.takeOutput()), (name, b""))

    def test_notFound(self) -> None:
        """
        A first frame under none of the keys does not pass the gate.
        """
        finder = finderOf(*Keyring({"alice": ALICE, "bob": BOB}).keys)
        header, body = Sealer(deriveKey(EVE)).seal(0, 0, Flag.OPEN_STREAM)
        self.assertRaises(AuthenticationFailed, finder.open, header, body)
        self.assertFalse(finder.passed)

    def test_data(self) -> None:
        """
        A first frame with a payload is refused before any key is tried.
        """
        finder = finderOf(("alice", deriveKey(ALICE)))
        header, body = Sealer(deriveKey(ALICE)).seal(0, 1, Flag.DATA, b"x")
        error = self.assertRaises(AuthenticationFailed, finder.open, header, body)
        self.assertIn("carries data", str(error))

    def test_manyKeys(self) -> None:
        """
        If there are more keys than are tried in one turn, the frame has to be offered
        again.
        """
        names = [str(number) for number in range(2 * KEYS_A_TURN)]
        finder = finderOf(*((name, deriveKey(name)) for name in names))
        last = names[-1]
        frame = Sealer(deriveKey(last)).seal(0, 0, Flag.KEEPALIVE)
        self.assertRaises(NotYet, finder.open, *frame)
        self.assertFalse(finder.passed)
        self.assertIsNone(finder.sealer)
        self.assertEqual(finder.open(*frame), b"")
        self.assertEqual(finder.name, last)
