# -*- test-case-name: gomux.test.carrier.test_turns -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Long work, done a little at a time.

A reactor serves one connection after another, so a connection that keeps it busy makes
all others wait.  A peer can do that with legal frames: one read can have thousands of
small ones, and the end of a mux is the end of thousands of streams.  So work that a
peer causes stops after L{TURN_TIME}.  The rest of it is done in later turns of the
reactor.  In each of these turns all work that waits shares L{TURN_TIME}.  Of several
peers of a keyring each has turns of its own, which all its muxes share: L{PeerTurns}.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Protocol, cast

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from gomux._carrier.clock import turnOf

#: How long, in seconds, frames of one peer are handled, or streams ended, before other
#: connections are due their turn.  At least one frame is handled.
TURN_TIME = 0.00015
#: The same for all strangers together.  At least one stranger is refused, or
#: L{KEYS_A_TURN<gomux._wire.keysearch.KEYS_A_TURN>} keys are tried.
STRANGERS_TIME = 0.00005

#: Works until a time, in seconds of the clock.  Returns how many seconds to wait before
#: the rest: mostly 0, which is until other connections have had their turn; L{DONE} if
#: nothing is left.
Work = Callable[[float], float]

DONE = -1.0

_log = Logger()


class Turns:
    """
    Work that waits for later turns of the reactor.

    @ivar turnTime: how long the work that waits may take in one turn, in seconds.
    @ivar _clock: the reactor.
    @ivar _doInTurn: does some work, then makes the calls that the work has left for the
        end of the turn.
    @ivar _waiting: the work that goes on in the next turn.
    @ivar _resting: the work that waits for some time first, with the call that ends
        the wait.
    @ivar _call: the next turn, if there is one.
    @ivar _trigger: does the rest of all work when the reactor stops, while there is
        work.
    """

    turnTime = TURN_TIME

    def __init__(self, clock: Any) -> None:
        """
        @param clock: the reactor, or for tests a
            L{Clock<twisted.internet.task.Clock>}.
        """
        self._clock = clock
        self._doInTurn = turnOf(clock)
        self._waiting: deque[Work] = deque()
        self._resting: dict[Work, IDelayedCall] = {}
        self._call: IDelayedCall | None = None
        self._trigger: object = None

    @property
    def idle(self) -> bool:
        """
        Whether no work is left for later.
        """
        return not (self._waiting or self._resting)

    @property
    def isFree(self) -> bool:
        """
        Whether work may begin in this turn of the reactor.
        """
        return True

    def begin(self, work: Work) -> None:
        """
        Do some work now, and the rest of it later.

        @param work: the work.
        """
        left = self._doInTurn(work, self._clock.seconds() + self.turnTime)
        if left != DONE:
            self.later(work, left)

    def later(self, work: Work, rest: float = 0.0) -> None:
        """
        Do some work from the next turn of the reactor on, and all of it before the
        reactor stops.

        @param work: the work.
        @param rest: how many seconds to wait first.
        """
        if self._trigger is None:
            atShutdown = getattr(self._clock, "addSystemEventTrigger", None)
            if atShutdown is not None:
                self._trigger = atShutdown("after", "shutdown", self._finish)
        if rest:
            self._resting[work] = self._clock.callLater(rest, self._rested, work)
            return
        self._waiting.append(work)
        if self._call is None:
            self._call = self._clock.callLater(0, self._turn)

    def _rested(self, work: Work) -> None:
        del self._resting[work]
        self.later(work)

    def _turn(self) -> None:
        """
        Do a part of all work that waits, one after another, until the turn is over.
        """
        seconds = self._clock.seconds
        until = seconds() + self.turnTime
        waiting = self._waiting
        for _ in range(len(waiting)):
            work = waiting.popleft()
            left = self._do(work, until)
            if left != DONE:
                self.later(work, left)
            if seconds() >= until:
                break
        self._call = None
        if waiting:
            self._call = self._clock.callLater(0, self._turn)
        self._rest()

    def _rest(self) -> None:
        """
        If no work is left, there is nothing to do when the reactor stops.
        """
        if self._trigger is not None and self.idle:
            self._clock.removeSystemEventTrigger(self._trigger)
            self._trigger = None

    def _do(self, work: Work, until: float) -> float:
        try:
            return cast(float, self._doInTurn(work, until))
        except BaseException:
            # Other work must go on.
            _log.failure("work in a later turn of the reactor failed")
            return DONE

    def _finish(self) -> None:
        """
        The reactor stops, so there are no more turns: do all work now.
        """
        self._waiting += self._resting
        self._resting.clear()
        while self._waiting:
            work = self._waiting.popleft()
            while self._do(work, float("inf")) != DONE:
                pass
        self._trigger = None


class Peers(Protocol):
    """
    The part of a keyring that the turns need.
    """

    @property
    def names(self) -> Collection[str]:
        """
        The names of the peers.
        """


class PeerTurns(Turns):
    """
    Work that all muxes of one peer cause.  In a turn of the reactor the peer gets
    L{TURN_TIME} for what is read, and as much for what waits.  Otherwise a peer with
    hundreds of muxes could make all others wait by a small frame on each.  While there
    is no other peer, its muxes share nothing.

    @ivar isFree: whether the peer has time left.
    @ivar _peers: the keyring.
    @ivar _spent: how long the peer's work has taken since the last turn in which that
        was reset, in seconds.
    """

    # Not a property, because it is asked for each read.
    isFree = True
    _spent = 0.0

    def __init__(self, clock: Any, peers: Peers) -> None:
        """
        @param clock: as for L{Turns}.
        @param peers: the keyring.  Its names may change.
        """
        super().__init__(clock)
        self._peers = peers

    def begin(self, work: Work) -> None:
        """
        Do some work now, and the rest of it later.
        """
        since = self._clock.seconds()
        left = self._doInTurn(work, since + self.turnTime)
        if left != DONE:
            self.later(work, left)
        if len(self._peers.names) > 1:
            self._spent += self._clock.seconds() - since
            self.isFree = self._spent < self.turnTime
            if not self.isFree and self._call is None:
                self._call = self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
        self._spent = 0.0
        self.isFree = True
        super()._turn()


class PeersTurns:
    """
    The L{Turns} of the peers of a keyring.

    @ivar _clock: see L{Turns.__init__}.
    @ivar _peers: the keyring.
    @ivar _byName: the turns of the peers, by the names of their keys.
    """

    def __init__(self, clock: Any, peers: Peers) -> None:
        """
        @param clock: as for L{Turns}.
        @param peers: the keyring.  Its names may change.
        """
        self._clock = clock
        self._peers = peers
        self._byName: dict[str, Turns] = {}

    def of(self, name: str) -> Turns:
        """
        @param name: the name of the key of a peer.
        @return: the turns of the muxes of the peer.
        """
        turns = self._byName
        if name not in turns:
            for gone in turns.keys() - self._peers.names:
                del turns[gone]
            turns[name] = PeerTurns(self._clock, self._peers)
        return turns[name]


class StrangersTurns(Turns):
    """
    Work that strangers cause.  In a turn of the reactor either one stranger is refused
    at once, or the strangers that wait share L{STRANGERS_TIME}.

    The frames of a peer that holds the key are handled when they are read, because
    there are few such peers.  But in one turn of the reactor the frames of a hundred
    strangers may be read, and to find that one of them has no key and to drop it takes
    about L{STRANGERS_TIME}.

    First comes the work of peers that are probably no strangers: one turn each, in
    order.  If that is not enough, they are strangers like all others.  Then the work
    that has begun is finished, and then the newest of the rest is next.  If more
    strangers come than there is time for, the oldest are dropped while they wait.  So
    a client that holds a key is either served soon or dropped.  If the oldest were
    next, all would wait until they are dropped.  The work of those that are dropped
    must be L{hurried<hurry>}: while newer strangers come, it would never be next, and
    would keep what they have sent.

    @ivar _begun: the work that has begun and is not finished.
    @ivar _preferred: the work that is done before all other.
    """

    turnTime = STRANGERS_TIME
    _begun: Work | None = None

    def __init__(self, clock: Any) -> None:
        """
        @param clock: as for L{Turns}.
        """
        super().__init__(clock)
        self._preferred: deque[Work] = deque()

    @property
    def isFree(self) -> bool:
        """
        Whether no stranger has had this turn of the reactor, and none waits.
        """
        return self._call is None

    @property
    def idle(self) -> bool:
        """
        Whether no work is left for later.
        """
        return not (self._begun or self._preferred) and super().idle

    def prefer(self, work: Work) -> None:
        """
        As L{later}, but one turn before the work of strangers.
        """
        self.later(work)
        self._preferred.append(self._waiting.pop())

    def hurry(self, work: Work) -> None:
        """
        Some work waits, and there is hardly anything left to do, because its stranger
        was dropped: do it in the next turn.
        """
        if work in self._waiting:
            self._waiting.remove(work)
            self._preferred.append(work)

    def begin(self, work: Work) -> None:
        """
        Do some work now, and the rest of it before that of others.
        """
        super().begin(work)
        if self._begun is None and self._waiting and self._waiting[-1] == work:
            self._begun = self._waiting.pop()

    def useUp(self) -> None:
        """
        A stranger was refused: let the next one wait for the next turn of the reactor.
        """
        if self._call is None:
            self._call = self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
        seconds = self._clock.seconds
        until = seconds() + self.turnTime
        hasWork = not self.idle
        while self._begun or self._preferred or self._waiting:
            isPreferred = bool(self._preferred)
            if isPreferred:
                work = self._preferred.popleft()
            else:
                work = self._begun or self._waiting.pop()
                self._begun = None
            isLeft = self._do(work, until) != DONE
            if isLeft and isPreferred:
                self._waiting.append(work)
            elif isLeft:
                self._begun = work
            if isLeft or seconds() >= until:
                break
        self._call = None
        if hasWork:
            self.useUp()
        self._rest()

    def _finish(self) -> None:
        if self._begun:
            self._waiting.append(self._begun)
            self._begun = None
        self._waiting += self._preferred
        self._preferred.clear()
        super()._finish()
