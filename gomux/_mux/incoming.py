# -*- test-case-name: gomux.test.mux.test_incoming -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
When the frames that have come are handled.

The carrier is always read.  Backpressure is the windows' business: a stream that its
application does not read gives no credit, and everything else that a peer can make
this side keep has a limit in L{Limits<gomux.Limits>}.  If two peers stopped reading
while their writes are blocked they would wait for each other for ever.

Frames are handled as soon as they come.  There are three exceptions, in which the rest
waits for a later turn of the reactor:

  - Handling them has taken a turn's time: other connections are due their turn.
  - The peer opens streams faster than it may.
  - The gate needs more time for a frame.

The carrier is left unread meanwhile.  That waits for no peer, so it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gomux._carrier.transport import MuxCarrier
from gomux._carrier.turns import DONE
from gomux._mux.frames import PeerFrames
from gomux._mux.gate import Gate
from gomux._mux.owner import MuxOwner
from gomux._mux.scheduler import Scheduler
from gomux._wire.frame import MAX_LENGTH, OVERHEAD, Frame, FrameParser, NotYet
from gomux.error import GomuxError

#: How many frames are handled before the clock is looked at.
FRAMES_PER_LOOK = 8
#: A frame with at least this many bytes of data takes long enough to look at the clock
#: after it.
LARGE = 16384


class Incoming:
    """
    The bytes that have come from the peer, and when their frames are handled.

    @ivar gate: opens the first frames; C{None} once it is passed.
    @ivar isBehind: whether frames that have come wait for a later turn of the reactor.
    @ivar parser: has the bytes that have come.
    @ivar _frames: handles the frames.
    @ivar _gateOpened: see L{__init__}.
    @ivar _failed: see L{__init__}.
    @ivar _caughtUp: see L{__init__}.
    """

    def __init__(
        self,
        owner: MuxOwner[Any],
        gate: Gate,
        frames: PeerFrames,
        scheduler: Scheduler,
        carrier: MuxCarrier,
        *,
        gateOpened: Callable[[Frame], Frame | None],
        failed: Callable[[GomuxError], None],
        caughtUp: Callable[[bool], None],
    ) -> None:
        """
        @param owner: the mux's factory.
        @param gate: opens the first frames.
        @param frames: handles the frames.
        @param scheduler: sends what they make this side send.
        @param carrier: where they come from.
        @param gateOpened: called with each frame that the gate has opened.  Returns
            the frame if it is to be handled as well.
        @param failed: called with an error that ends the mux.
        @param caughtUp: called when no frames wait for a later turn any more; with
            C{False} if that is because handling them has failed in a way that is a bug.
        """
        self.gate: Gate | None = gate
        self.isBehind = False
        self.parser = FrameParser(gate)
        self._frames = frames
        self._scheduler = scheduler
        self._carrier = carrier
        self._turns = owner.turns
        self._busyPoll = owner.busyPoll
        self._seconds = owner.clock.seconds
        self._gateOpened = gateOpened
        self._failed = failed
        self._caughtUp = caughtUp

    def receive(self, data: bytes) -> None:
        """
        Take bytes off the carrier.
        """
        self.parser.receive(data)
        if not self.isBehind:
            self._turns.begin(self.take)

    def take(self, until: float) -> float:
        """
        Handle the frames that have come.

        @param until: when to leave the others for a later turn of the reactor.
        @return: how long to leave them, or that there are none left.
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
            self._failed(error)
        except Exception:
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
        Give the gate the frames that have come, until it is passed.

        @return: the first frame that is not the gate's alone, if it has come.
        @raise NotYet: if the gate needs another turn of the reactor.
        """
        while (frame := self.parser.nextFrame()) is not None:
            rest = self._gateOpened(frame)
            if gate.passed:
                self.gate = None
                return rest or self.parser.nextFrame()
        return None

    def clear(self) -> None:
        """
        Forget what has come: the mux has ended.
        """
        self.parser.clear()

    def checkInvariants(self) -> None:
        """
        See whether all frames that have come are handled, or will be.  For tests.

        @raise AssertionError: if they are not.
        """
        isPart = self.parser.pending < OVERHEAD + MAX_LENGTH
        assert isPart or self.isBehind, "a whole frame waits"

    def _canWait(self) -> bool:
        """
        @return: whether there are frames that can be left for a later turn.
        """
        return self.parser.pending > 0 and self._carrier.canWait

    def _fallBehind(self, isBehind: bool) -> None:
        """
        Read nothing while frames that have come wait for their turn.
        """
        self.isBehind = isBehind
        if not isBehind:
            self._caughtUp(True)
        elif self._carrier.canWait:
            self._carrier.pauseReading()

    def _gaveUp(self) -> None:
        """
        There is a bug.  The reactor ends the carrier for an error of C{dataReceived},
        but knows nothing of one in a later turn.
        """
        if self.isBehind:
            self.isBehind = False
            self.parser.clear()
            self._caughtUp(False)
