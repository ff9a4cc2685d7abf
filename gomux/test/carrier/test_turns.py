"""
Tests for L{gomux._carrier.turns}, and for the work of a mux that is done in turns.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from gomux import Keyring, Limits, MuxFactory
from gomux._carrier.clock import SteadyClock
from gomux._carrier.turns import DONE, TURN_TIME, PeerTurns, Turns
from gomux._mux import incoming
from gomux._mux.frames import PeerFrames
from gomux._wire.frame import Flag
from gomux._wire.keysearch import KnownKey
from gomux.error import (
    AuthenticationFailed,
    PeerClosedConnection,
    ProtocolViolation,
    Truncated,
)
from gomux.test.support.helpers import Recorder, Recorders, Rig
from gomux.test.support.settablereactor import SettableReactor
from gomux.test.support.slowclock import SlowClock
from gomux.testing import PSK


class ShutdownClock(SlowClock):
    """
    A clock that can be shut down like a reactor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.triggers: list[Callable[[], None]] = []

    def addSystemEventTrigger(
        self, phase: str, event: str, call: Callable[[], None]
    ) -> Callable[[], None]:
        assert (phase, event) == ("after", "shutdown")
        self.triggers.append(call)
        return call

    def removeSystemEventTrigger(self, trigger: Callable[[], None]) -> None:
        self.triggers.remove(trigger)


class TurnsTests(SynchronousTestCase):
    """
    L{Turns}
    """

    def setUp(self) -> None:
        self.clock = ShutdownClock()
        self.turns = Turns(self.clock)
        self.done: list[str] = []

    def work(
        self, name: str, steps: int, rest: float = 0.0
    ) -> Callable[[float], float]:
        """
        @param rest: how many seconds to wait after each turn.
        @return: work of some steps, each of which takes half a turn.
        """
        left = [steps]

        def work(until: float) -> float:
            while left[0]:
                self.done.append(name)
                # Not exactly half: sums of fractions are not exact.
                self.clock.work(TURN_TIME * 0.501)
                left[0] -= 1
                if self.clock.seconds() >= until:
                    break
            return rest if left[0] else DONE

        return work

    def took(self) -> str:
        done, self.done = self.done, []
        return "".join(done)

    def test_short(self) -> None:
        """
        Work that takes no longer than a turn is done at once.
        """
        self.turns.begin(self.work("a", 1))
        self.assertEqual(self.took(), "a")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.clock.triggers, [])

    def test_long(self) -> None:
        """
        Work that takes longer goes on in the next turns until it is done.
        """
        self.turns.begin(self.work("a", 5))
        for done in ("aa", "aa", "a", ""):
            self.assertEqual(self.took(), done)
            self.clock.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.clock.triggers, [])

    def test_leavesCalls(self) -> None:
        """
        The calls that work leaves are made when the work stops, at once
        and in later turns.  That holds for the work of one peer, too.
        """
        reactor = SettableReactor()
        clock = SteadyClock(reactor, lambda: reactor.monotonic)

        def work(until: float) -> float:
            clock.soon(lambda: self.done.append("later"))
            self.done.append("work")
            return DONE

        for turns in (Turns(clock), PeerTurns(clock, Keyring({"": PSK}))):
            self.done.clear()
            turns.begin(work)
            self.assertEqual(self.done, ["work", "later"])
            turns.later(work)
            turns.later(work)
            reactor.pass_(0)
            self.assertEqual(self.done, ["work", "later"] * 3)

    def test_together(self) -> None:
        """
        All work that waits shares the time of one turn, one after another.
        """
        for name in "abc":
            self.turns.later(self.work(name, 3))
        turns = []
        while self.clock.getDelayedCalls():
            self.clock.turn()
            turns.append(self.took())
        self.assertEqual("".join(turns).count("a"), 3)
        self.assertEqual(sorted("".join(turns)), list("aaabbbccc"))
        self.assertTrue(all(len(turn) <= 2 for turn in turns), turns)
        self.assertEqual({turn[0] for turn in turns[:3]}, set("abc"))

    def test_fails(self) -> None:
        """
        Work that fails is dropped, and other work goes on.
        """

        def fail(until: float) -> float:
            raise RuntimeError("a test")

        self.turns.later(fail)
        self.turns.later(self.work("a", 1))
        self.clock.turn()
        self.assertEqual(self.took(), "a")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rests(self) -> None:
        """
        Work that asks for a rest goes on after it, and other work goes on meanwhile.
        """
        self.turns.begin(self.work("a", 5, 3.0))
        self.turns.later(self.work("b", 4))
        for done in ("aa", "bb", "bb", ""):
            self.assertEqual(self.took(), done)
            self.clock.turn()
        for done in ("aa", "a"):
            self.assertEqual(len(self.clock.triggers), 1)
            self.clock.work(2.9)
            self.clock.turn()
            self.assertEqual(self.took(), "")
            self.clock.work(0.2)
            # First the rest ends, then the work has its turn.
            self.clock.turn()
            self.clock.turn()
            self.assertEqual(self.took(), done)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.clock.triggers, [])

    def test_shutdown(self) -> None:
        """
        All work is finished when the reactor shuts down, also work that rests.
        """
        self.turns.begin(self.work("a", 9))
        self.turns.later(self.work("b", 9))
        self.turns.begin(self.work("c", 9, 3.0))
        for trigger in list(self.clock.triggers):
            trigger()
        self.assertEqual(sorted(self.took()), list("a" * 9 + "b" * 9 + "c" * 9))
        self.assertTrue(self.turns.idle)


class FrameTests(SynchronousTestCase):
    """
    Frames that take long to handle.
    """

    def setUp(self) -> None:
        self.patch(incoming, "FRAMES_PER_LOOK", 1)
        self.clock = SlowClock()
        # How long each piece of data takes.
        self.duration = TURN_TIME
        self.rig = Rig(clock=self.clock, data=lambda _: self.clock.work(self.duration))
        self.recorder = self.rig.opened()

    def sendData(self, count: int, *more: tuple[int, int, int | bytes]) -> None:
        """
        Have frames of one byte each arrive in one read, and take only the first turn.
        """
        frames = [(0, int(Flag.DATA), bytes([i % 256])) for i in range(count)]
        sealed = b"".join(self.rig.peer.seal(*frame) for frame in (*frames, *more))
        self.rig.mux.dataReceived(sealed)

    def isReading(self) -> bool:
        return self.rig.carrier.reading

    def test_turns(self) -> None:
        """
        Slow frames are handled one in each turn, in order, and nothing is read
        meanwhile.
        """
        self.sendData(5)
        for count in range(1, 5):
            self.assertEqual(bytes(self.recorder.received), bytes(range(count)))
            self.assertFalse(self.isReading())
            self.clock.turn()
        self.assertEqual(bytes(self.recorder.received), bytes(range(5)))
        self.assertTrue(self.isReading())
        self.rig.send(0, Flag.DATA, b"more")
        self.assertEqual(bytes(self.recorder.received[5:]), b"more")

    def test_fast(self) -> None:
        """
        Frames that take no time are all handled at once.
        """
        self.duration = 0
        self.sendData(500)
        self.assertEqual(len(self.recorder.received), 500)
        self.assertTrue(self.isReading())

    def test_few(self) -> None:
        """
        The clock is looked at only after several small frames.
        """
        self.patch(incoming, "FRAMES_PER_LOOK", 3)
        self.sendData(7)
        for count in (3, 6, 7):
            self.assertEqual(len(self.recorder.received), count)
            self.clock.turn()

    def test_large(self) -> None:
        """
        The clock is looked at after each large frame.
        """
        self.patch(incoming, "FRAMES_PER_LOOK", 1000)
        large = bytes(incoming.LARGE)
        more = [(0, int(Flag.DATA), data) for data in (large[1:], large, b"x")]
        self.sendData(2, *more)
        self.assertEqual(len(self.recorder.received), 2 + 2 * len(large) - 1)
        self.clock.turn()
        self.assertEqual(len(self.recorder.received), 2 + 2 * len(large))

    def test_moreComes(self) -> None:
        """
        Data that a paused transport still delivers is handled after the waiting frames.
        """
        self.sendData(3)
        self.rig.mux.dataReceived(self.rig.peer.seal(0, Flag.DATA, b"\x03"))
        while not self.isReading():
            self.clock.turn()
        self.assertEqual(bytes(self.recorder.received), bytes(range(4)))

    def test_violation(self) -> None:
        """
        A bad frame ends the mux when its turn comes, not before.  Frames after it are
        not handled.
        """
        self.sendData(3, (0, Flag.OPEN_STREAM, 0), (0, Flag.DATA, b"never"))
        self.assertTrue(self.rig.mux.canOpen)
        self.rig.run()
        for _ in range(5):
            self.clock.turn()
        self.assertIsInstance(self.rig.reason(), ProtocolViolation)
        self.assertEqual(bytes(self.recorder.received), bytes(range(3)))

    def test_carrierLost(self) -> None:
        """
        Frames that arrived before the carrier was lost are handled before its end.
        """
        self.sendData(4)
        self.rig.peerCarrier.abortConnection()
        self.rig.run()
        while len(self.recorder.received) < 4:
            self.assertEqual(self.recorder.events, ["made", "data"])
            self.clock.turn()
        self.assertIsInstance(self.rig.reason(), Truncated)
        self.assertEqual(self.recorder.events, ["made", "data", "lost"])

    def test_closeMux(self) -> None:
        """
        Frames that arrived before CloseMux are handled before it.
        """
        self.sendData(3, (0, Flag.CLOSE_MUX, 0))
        while len(self.recorder.received) < 3:
            self.clock.turn()
        self.rig.peerCarrier.loseConnection()
        for _ in range(5):
            self.clock.turn()
        self.assertIsInstance(self.rig.reason(), PeerClosedConnection)
        self.assertEqual(self.recorder.events, ["made", "data", "lost"])

    def test_bug(self) -> None:
        """
        A bug that raises in a later turn, where no reactor sees it, ends the carrier as
        it would in the first turn.
        """
        self.sendData(3)

        def fail(frame: object) -> None:
            raise RuntimeError("a bug")

        self.patch(PeerFrames, "received", staticmethod(fail))
        for _ in range(5):
            self.clock.turn()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIsInstance(self.rig.reason(), Truncated)
        self.assertEqual(self.recorder.events, ["made", "data", "lost"])

    def test_abort(self) -> None:
        """
        After this side aborted the mux, frames that wait are not handled.
        """
        self.sendData(4)
        self.rig.mux.abort()
        for _ in range(5):
            self.clock.turn()
        self.assertEqual(bytes(self.recorder.received), b"\x00")
        self.assertEqual(self.recorder.events[-1], "lost")


class EndTests(SynchronousTestCase):
    """
    Ends of muxes with many streams.
    """

    def setUp(self) -> None:
        self.clock = SlowClock()
        self.rig = Rig(
            clock=self.clock,
            limits=Limits(closeTimeout=1e9),
            lost=lambda _: self.clock.work(TURN_TIME),
        )
        self.made = [self.rig.opened() for _ in range(6)]

    def lost(self) -> list[Recorder]:
        return [recorder for recorder in self.made if recorder.reason is not None]

    def test_turns(self) -> None:
        """
        If each end of a stream takes long, the streams of a mux end one in each turn,
        and the mux has ended after the last one.  Meanwhile no stream can be opened.
        """
        closed = self.rig.mux.whenClosed()
        self.rig.carrier.abortConnection()
        while not self.lost():
            self.clock.turn()
        turns = []
        while len(self.lost()) < len(self.made):
            self.assertNoResult(closed)
            self.assertFalse(self.rig.mux.canOpen)
            self.assertEqual(self.rig.factory.muxes, [self.rig.mux])
            before = len(self.lost())
            self.clock.turn()
            turns.append(len(self.lost()) - before)
        self.assertLessEqual(max(turns), 1)
        self.clock.turn()
        self.assertIsInstance(self.successResultOf(closed), Truncated)
        self.assertEqual(self.rig.factory.muxes, [])
        for recorder in self.made:
            self.assertEqual(recorder.events, ["made", "lost"])

    def test_meanwhile(self) -> None:
        """
        If a stream ends in another way while it waits for its turn to end, it ends
        once, with that reason.
        """
        self.rig.carrier.abortConnection()
        while not self.lost():
            self.clock.turn()
        last = self.made[-1]
        last.stream.abortConnection()
        last.stream.write(b"nowhere")
        for _ in range(2 * len(self.made)):
            self.clock.turn()
        self.assertEqual(self.lost(), self.made)
        self.assertEqual(last.events, ["made", "lost"])


class StrangersTests(SynchronousTestCase):
    """
    The first frames of many peers, some of them strangers.
    """

    def setUp(self) -> None:
        self.clock = SlowClock()
        self.streams = Recorders()
        self.factory = MuxFactory(PSK, False, self.streams, clock=self.clock)

    def rig(self, psk: str = "another secret") -> Rig:
        return Rig(factory=self.factory, clock=self.clock, psk=psk)

    def greet(self, rig: Rig) -> None:
        """
        Have the peer's first frame arrive, and take only the turn in which it arrives.
        """
        rig.mux.dataReceived(rig.peer.seal(0, Flag.KEEPALIVE))

    def ended(self, rigs: list[Rig]) -> list[bool]:
        return [rig.mux.reason is not None for rig in rigs]

    def test_oneATurn(self) -> None:
        """
        Of strangers whose frames come in one turn of the reactor, the first is refused
        at once.  The others wait, their carriers are not read meanwhile, and each is
        refused in a turn of its own if it takes all the time of that turn, the newest
        first.
        """

        def slow(gate: KnownKey, header: bytes, sealed: bytes) -> bytes:
            self.clock.work(TURN_TIME)
            raise AuthenticationFailed("a stranger")

        self.patch(KnownKey, "open", slow)
        rigs = [self.rig() for _ in range(4)]
        for rig in rigs:
            self.greet(rig)
        for over in ({0}, {0, 3}, {0, 3, 2}):
            ended = [number in over for number in range(4)]
            self.assertEqual(self.ended(rigs), ended)
            self.assertFalse(
                any(rig.carrier.reading for rig in rigs if rig.mux.reason is None)
            )
            self.clock.turn()
        self.assertEqual(self.ended(rigs), [True] * 4)

    def test_begun(self) -> None:
        """
        The search for the key of a peer is finished before the next one begins.
        """
        self.factory.keyring = Keyring({f"peer {n}": os.urandom(16) for n in range(20)})
        rigs = [self.rig() for _ in range(3)]
        for rig in rigs:
            self.greet(rig)
        for over in ({0}, {0, 2}, {0, 2, 1}):
            for _ in range(2):
                self.assertNotEqual(self.ended(rigs).count(True), len(over))
                self.clock.turn()
            self.assertEqual(self.ended(rigs), [n in over for n in range(3)])

    def test_dropped(self) -> None:
        """
        A mux that is dropped while it waits is gone in the next turn, although newer
        ones wait.
        """
        self.factory.keyring = Keyring({f"peer {n}": os.urandom(16) for n in range(20)})
        rigs = [self.rig() for _ in range(4)]
        for rig in rigs:
            self.greet(rig)
        rigs[1].mux.evict()
        for _ in range(3):
            self.clock.turn()
        self.assertEqual(self.ended(rigs), [True, True, False, False])
        self.assertNotIn(rigs[1].mux, self.factory.muxes)

    def test_shutdown(self) -> None:
        """
        Searches that have begun or wait are finished when the reactor stops.
        """
        clock = self.clock = ShutdownClock()
        self.factory = MuxFactory(
            Keyring({f"peer {n}": os.urandom(16) for n in range(20)}),
            False,
            clock=clock,
            limits=Limits(silentGrace=0),
        )
        self.factory.closesAtShutdown = False
        rigs = [self.rig() for _ in range(2)]
        for rig in rigs:
            self.greet(rig)
        done: list[float] = []

        def work(until: float) -> float:
            done.append(until)
            return DONE

        self.factory.strangersTurns.prefer(work)
        [trigger] = clock.triggers
        trigger()
        self.assertEqual(self.ended(rigs), [True, True])
        self.assertEqual(len(done), 1)
        clock.turn()
        self.assertTrue(self.factory.strangersTurns.idle)

    def test_afterWaiting(self) -> None:
        """
        A stranger whose frame comes in a turn in which one that waited was refused
        waits for the next turn.
        """
        rigs = [self.rig() for _ in range(3)]
        self.greet(rigs[0])
        self.greet(rigs[1])
        self.clock.turn()
        self.greet(rigs[2])
        self.assertEqual(self.ended(rigs), [True, True, False])
        self.clock.turn()
        self.assertEqual(self.ended(rigs), [True] * 3)

    def test_alone(self) -> None:
        """
        Strangers that come one after another need not wait.
        """
        for _ in range(3):
            rig = self.rig()
            self.greet(rig)
            self.assertEqual(self.ended([rig]), [True])
            self.clock.turn()

    def test_honest(self) -> None:
        """
        Peers with the key make nobody wait, and a peer that has shown the key does not
        wait for strangers.
        """
        rigs = [self.rig(PSK) for _ in range(3)]
        for rig in rigs:
            self.greet(rig)
        self.assertTrue(all(rig.mux.authenticated for rig in rigs))
        strangers = [self.rig() for _ in range(2)]
        for stranger in strangers:
            self.greet(stranger)
        rigs[0].mux.dataReceived(rigs[0].peer.seal(0, Flag.OPEN_STREAM))
        self.assertEqual(len(self.streams.made), 1)
        self.assertEqual(self.ended(strangers), [True, False])

    def test_newcomer(self) -> None:
        """
        A new peer with the key waits for a turn among the strangers.  The rest of what
        it has sent waits with the frames of those who hold the key.
        """
        self.patch(incoming, "FRAMES_PER_LOOK", 1)
        streams = Recorders(data=lambda _: self.clock.work(TURN_TIME))
        self.factory.streamFactory = streams
        stranger, another, newcomer = self.rig(), self.rig(), self.rig(PSK)
        self.greet(stranger)
        seal = newcomer.peer.seal
        frames = [seal(0, Flag.OPEN_STREAM), *[seal(0, Flag.DATA, b"x")] * 3]
        newcomer.mux.dataReceived(b"".join(frames))
        self.assertFalse(newcomer.mux.authenticated)
        self.clock.turn()
        self.assertTrue(newcomer.mux.authenticated)
        self.clock.turn()
        self.greet(another)
        self.assertEqual(self.ended([another]), [True])
        self.assertEqual(bytes(streams.made[0].received), b"xx")
        self.clock.turn()
        self.assertEqual(bytes(streams.made[0].received), b"xxx")

    def test_gone(self) -> None:
        """
        The frame of a peer that has left is handled in its turn, and the mux ends.
        """
        rigs = [self.rig(), self.rig()]
        for rig in rigs:
            self.greet(rig)
        rigs[1].peerCarrier.abortConnection()
        self.clock.turn()
        self.clock.turn()
        self.assertEqual(self.factory.muxes, [])
