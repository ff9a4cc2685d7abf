"""
Tests for L{gomux._mux.muxlife}: the states of a mux.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits
from gomux._mux.muxlife import (
    CLOSING,
    DRAINING,
    ENDED,
    ENDING,
    GATED,
    OPEN,
    MuxLife,
    MuxState,
)
from gomux._wire.frame import Flag
from gomux.error import (
    ConnectionClosed,
    GomuxError,
    LimitExceeded,
    PeerClosedConnection,
    Truncated,
)
from gomux.test.support.helpers import Parts, Rig
from gomux.test.support.strictrig import StrictRig

CLOSE_MUX = (0, Flag.CLOSE_MUX, 0)


class StateTests(SynchronousTestCase):
    """
    The events that move a mux from one state to another.
    """

    def setUp(self) -> None:
        self.start(Rig(limits=Limits(closeTimeout=5.0)))

    def start(self, rig: Rig) -> None:
        """
        Use a rig, and record the states of its mux.
        """
        self.rig = rig
        self.life = Parts(rig.mux).life
        self.states: list[MuxState] = [self.life.state]
        states = self.states

        class Noting(MuxLife):
            __slots__ = ()

            def __setattr__(self, name: str, value: object) -> None:
                if name == "state":
                    assert isinstance(value, MuxState)
                    states.append(value)
                super().__setattr__(name, value)

        self.life.__class__ = Noting

    def check(self, *states: MuxState, reason: type[GomuxError] | None = None) -> None:
        """
        Check which states the mux has had, and its reason.
        """
        self.rig.run()
        self.assertEqual(self.states, list(states))
        self.rig.mux.checkInvariants()
        if reason is None:
            self.assertIsNone(self.rig.mux.reason)
        else:
            self.assertIsInstance(self.rig.mux.reason, reason)

    def test_order(self) -> None:
        """
        The states are ordered as the life of a mux passes through them.
        """
        self.assertEqual(sorted(MuxState), list(MuxState))
        self.assertEqual(
            list(MuxState), [GATED, OPEN, DRAINING, CLOSING, ENDING, ENDED]
        )

    def test_open(self) -> None:
        """
        In compatible mode with one key a mux is open once it has its carrier.  In
        strict mode it is open after the handshake.
        """
        self.check(OPEN)
        self.start(StrictRig(up=False))
        self.check(GATED)
        assert isinstance(self.rig, StrictRig)
        self.rig.answer()
        self.check(GATED)
        self.rig.answer()
        self.check(GATED, OPEN)

    def test_gated(self) -> None:
        """
        C{close}, C{drain} and C{abort} end a mux at once if it is not open yet.
        """
        for name in ("close", "drain", "abort"):
            self.start(StrictRig(up=False))
            getattr(self.rig.mux, name)()
            self.check(GATED, ENDING, ENDED, reason=ConnectionClosed)

    def test_drain(self) -> None:
        """
        A draining mux is closing after its last stream, and ends when the peer ends the
        carrier.
        """
        recorder = self.rig.opened()
        self.rig.mux.drain()
        self.check(OPEN, DRAINING)
        self.rig.mux.drain()
        recorder.stream.abortConnection()
        self.check(OPEN, DRAINING, DRAINING, CLOSING)
        self.assertEqual(self.rig.sent()[-1], CLOSE_MUX)
        self.rig.peerCarrier.loseConnection()
        self.check(
            *(OPEN, DRAINING, DRAINING, CLOSING, ENDING, ENDED),
            reason=ConnectionClosed,
        )

    def test_close(self) -> None:
        """
        A closing mux waits for the output of its streams, and later calls of C{close}
        and C{drain} change nothing.
        """
        recorder = self.rig.opened()
        recorder.stream.write(bytes(200000))
        self.rig.mux.close()
        self.rig.mux.close()
        self.rig.mux.drain(1.0)
        self.check(OPEN, CLOSING)
        self.assertNotIn(CLOSE_MUX, self.rig.sent())
        self.rig.send(0, Flag.WINDOW_UPDATE, 131072)
        self.assertEqual(self.rig.sent()[-1], CLOSE_MUX)
        self.check(OPEN, CLOSING)
        self.rig.send(*CLOSE_MUX)
        self.check(OPEN, CLOSING, ENDING, ENDED, reason=ConnectionClosed)

    def test_timeout(self) -> None:
        """
        If the peer does not end the carrier in time, the mux drops it and ends.
        """
        self.rig.meet()
        self.rig.mux.close()
        self.rig.clock.advance(4.9)
        self.check(OPEN, CLOSING)
        self.rig.clock.advance(0.2)
        self.check(OPEN, CLOSING, ENDING, ENDED, reason=ConnectionClosed)

    def test_peerCloses(self) -> None:
        """
        CloseMux from the peer starts the end of a mux.  The mux has ended once the
        carrier is gone.
        """
        self.rig.carrier.outgoing.stall()
        self.rig.opened().stream.write(bytes(200000))
        self.rig.run()
        self.rig.send(*CLOSE_MUX)
        self.check(OPEN, ENDING, reason=PeerClosedConnection)
        self.assertTrue(self.rig.mux.hasCarrier)
        self.rig.mux.close()
        self.rig.mux.drain()
        self.check(OPEN, ENDING, reason=PeerClosedConnection)
        self.rig.carrier.outgoing.unstall()
        self.check(OPEN, ENDING, ENDED, reason=PeerClosedConnection)

    def test_abort(self) -> None:
        """
        C{abort} ends a draining or a closing mux, and later ends change nothing.
        """
        for name, before in (("drain", DRAINING), ("close", CLOSING)):
            self.start(Rig())
            self.rig.opened().stream.write(bytes(200000))
            getattr(self.rig.mux, name)()
            self.rig.mux.abort()
            self.rig.mux.evict()
            self.rig.mux.abort()
            self.check(OPEN, before, ENDING, ENDED, reason=ConnectionClosed)

    def test_error(self) -> None:
        """
        The first of several errors is the reason of a mux.
        """
        self.rig.mux.evict()
        self.rig.mux.revoke()
        self.check(OPEN, ENDING, ENDED, reason=LimitExceeded)

    def test_loss(self) -> None:
        """
        If the carrier is lost while the mux is open, the reason is L{Truncated}.
        """
        self.rig.peerCarrier.abortConnection()
        self.check(OPEN, ENDING, ENDED, reason=Truncated)
