# -*- test-case-name: gomux.test.mux.test_incoming -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The received bytes of a mux, and when it handles the frames in them.

The mux reads its carrier even while an application is slow or the carrier is blocked.
If two muxes stopped reading while the writes of both are blocked, they would wait for
each other for ever.  A slow application is no problem: its stream gives the peer no
more credit.  Everything else that a peer can make this side keep has a limit in
L{Limits<gomux.Limits>}.

The mux handles frames as soon as they are received.  It leaves the rest for a later
turn of the reactor in four cases:

  - The turn's time is used up, by this mux or by others of the same peer, and other
    connections are due their turn.
  - The peer opens streams faster than its C{openRate}.
  - The gate needs more time for a frame.
  - The peer may be a stranger, and this turn has been used for another stranger.

In these cases the mux pauses reading until it has handled the rest.  That takes a
limited time, whatever the peer does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from gomux._carrier.transport import MuxCarrier
from gomux._carrier.turns import DONE
from gomux._mux.frames import PeerFrames
from gomux._mux.gate import Gate
from gomux._mux.muxlife import MuxLife
from gomux._mux.owner import MuxOwner
from gomux._mux.scheduler import Scheduler
from gomux._wire.frame import MAX_LENGTH, OVERHEAD, Frame, FrameParser, NotYet
from gomux._wire.keysearch import KeySearch
from gomux.error import GomuxError

#: The mux reads the clock once for this many frames.
FRAMES_PER_LOOK = 8
#: The mux also reads the clock after each frame with at least this many bytes of data,
#: because such a frame takes long to handle.
LARGE = 16384


class Early(NamedTuple):
    """
    What a server has received before it made the mux.

    @ivar gate: the gate, if it was needed.
    @ivar parser: has the received bytes for the gate, if there were any.
    @ivar size: how many bytes were received.
    @ivar frame: the first frame, if it was complete; the gate has opened it.
    @ivar since: when the carrier was accepted, in seconds of the clock.
    """

    gate: Gate | None
    parser: FrameParser | None
    size: int
    frame: Frame | None
    since: float


class Incoming:
    """
    Keeps the bytes that the peer has sent, and has their frames handled.

    @ivar gate: opens the first frames; C{None} once it is passed.
    @ivar isBehind: whether received frames wait for a later turn of the reactor.
    @ivar parser: keeps the received bytes and cuts them into frames.
    @ivar turns: calls L{take} again in later turns of the reactor.  The mux sets it
        when the peer has shown the key.
    @ivar _opened: a first frame that the gate has opened and nobody has handled.
    @ivar _frames: handles the frames.
    @ivar _scheduler: sends the frames of this side.
    @ivar _carrier: the carrier, for pausing its reading.
    @ivar _strangersTurns: does the same as C{turns} while the peer has not shown the
        key.
    @ivar _busyPoll: keeps the reactor awake while an answer is due.
    @ivar _seconds: returns the time, in seconds.
    @ivar _life: the mux's state.
    @ivar _gateOpened: see L{__init__}.
    @ivar _caughtUp: see L{__init__}.
    """

    __slots__ = (
        *("gate", "isBehind", "parser", "turns", "_opened", "_frames", "_scheduler"),
        *("_carrier", "_strangersTurns", "_busyPoll", "_seconds", "_life"),
        *("_gateOpened", "_caughtUp"),
    )

    def __init__(
        self,
        owner: MuxOwner[Any],
        gate: Gate,
        frames: PeerFrames,
        scheduler: Scheduler,
        carrier: MuxCarrier,
        life: MuxLife,
        *,
        gateOpened: Callable[[Frame], Frame | None],
        caughtUp: Callable[[bool], None],
        parser: FrameParser | None = None,
    ) -> None:
        """
        @param owner: the mux's factory.
        @param gate: opens the first frames.
        @param frames: handles the frames.
        @param scheduler: sends the frames of this side; held while frames are handled,
            so that all answers are sent together.
        @param carrier: the carrier that the frames are read from.
        @param life: the mux's state, which an error ends.
        @param gateOpened: called with each frame that the gate has opened.  Returns
            the frame if the mux must handle it as well, otherwise C{None}.
        @param caughtUp: called when no frames wait for a later turn any more; with
            C{False} if a bug made their handling fail, otherwise with C{True}.
        @param parser: the parser, if bytes have been received before.
        """
        self.gate: Gate | None = gate
        self.isBehind = False
        self.parser = FrameParser(gate) if parser is None else parser
        self._opened: Frame | None = None
        self._frames = frames
        self._scheduler = scheduler
        self._carrier = carrier
        self.turns = owner.turns
        self._strangersTurns = owner.strangersTurns
        self._busyPoll = owner.busyPoll
        self._seconds = owner.clock.seconds
        self._gateOpened = gateOpened
        self._life = life
        self._caughtUp = caughtUp

    def begin(self, frame: Frame) -> None:
        """
        Handle a first frame that the gate has opened before, and what follows.
        """
        self._opened = frame
        self._strangersTurns.begin(self._takeFirst)

    def receive(self, data: bytes) -> None:
        """
        Take bytes that were read from the carrier.
        """
        self.parser.receive(data)
        if self.isBehind:
            return
        if self.gate is None:
            turns, take = self.turns, self.take
        else:
            turns, take = self._strangersTurns, self._takeFirst
        if turns.isFree:
            turns.begin(take)
        else:
            turns.later(take)
            self._fallBehind(True)

    def _takeFirst(self, until: float) -> float:
        """
        As L{take}, until the gate is passed.  After that the mux has its turns with the
        other muxes whose peers hold the key.
        """
        left = self.take(until)
        if left == DONE or self.gate is not None:
            return left
        self.turns.later(self.take, left)
        return DONE

    def take(self, until: float) -> float:
        """
        Handle received frames.

        @param until: the time after which to leave the rest for a later turn of the
            reactor.
        @return: how many seconds the rest has to wait at least, or L{DONE} if no whole
            frame is left.
        """
        scheduler, frames = self._scheduler, self._frames
        nextFrame, received = self.parser.nextFrame, frames.received
        handled = 0
        left = DONE
        frames.rest = 0.0
        scheduler.hold()
        try:
            frame = nextFrame() if self.gate is None else self._passGate(self.gate)
            while frame is not None:
                received(frame)
                handled += 1
                if (
                    frames.rest
                    or (
                        (handled % FRAMES_PER_LOOK == 0 or len(frame[3]) >= LARGE)
                        and self._seconds() >= until
                    )
                ) and self._canWait():
                    left = frames.rest
                    break
                frame = nextFrame()
        except NotYet:
            left = 0.0
        except GomuxError as error:
            self._life.fail(error)
            if self.gate is not None:
                self._strangersTurns.useUp()
        except BaseException:
            self._gaveUp()
            raise
        finally:
            scheduler.release()
        self._busyPoll.moved()
        if (left == DONE) is self.isBehind:
            self._fallBehind(left != DONE)
        return left

    def _passGate(self, gate: Gate) -> Frame | None:
        """
        Give received frames to the gate until it is passed.

        @return: the first frame that the mux must handle; C{None} if it is not received
            yet.
        @raise NotYet: if the gate needs another turn of the reactor.
        """
        frame, self._opened = self._opened or self.parser.nextFrame(), None
        while frame is not None:
            rest = self._gateOpened(frame)
            if gate.passed:
                self.gate = None
                return rest or self.parser.nextFrame()
            frame = self.parser.nextFrame()
        return None

    def clear(self) -> None:
        """
        Drop the received bytes, because the mux has ended.
        """
        self.parser.clear()
        self._strangersTurns.hurry(self._takeFirst)

    def forgetKeys(self) -> None:
        """
        The mux has ended.  The application may keep its streams for long.
        """
        nothing: Any = KeySearch(())
        self.parser = FrameParser(nothing)

    def checkInvariants(self) -> None:
        """
        Check that every received frame is handled or waits for a later turn.  For
        tests.

        @raise AssertionError: if a frame is forgotten.
        """
        isPart = self.parser.pending < OVERHEAD + MAX_LENGTH
        assert isPart or self.isBehind, "a whole frame waits"

    def _canWait(self) -> bool:
        """
        @return: whether there are bytes left, and reading can be paused meanwhile.
        """
        return self.parser.pending > 0 and self._carrier.canWait

    def _fallBehind(self, isBehind: bool) -> None:
        """
        Pause reading when received frames start to wait for a later turn, and report
        when no frames wait any more.
        """
        self.isBehind = isBehind
        if not isBehind:
            self._caughtUp(True)
        elif self._carrier.canWait:
            self._carrier.pauseReading()

    def _gaveUp(self) -> None:
        """
        Give up after an exception that is a bug.  The reactor drops a carrier whose
        C{dataReceived} raises, but it does not see an exception in a later turn.
        """
        if self.isBehind:
            self.isBehind = False
            self.parser.clear()
            self._caughtUp(False)
