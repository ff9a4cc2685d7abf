# -*- test-case-name: gomux.test.mux.test_pool -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The pool: the muxes that are up, and the streams that wait for a mux.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from math import inf
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)

from gomux._carrier.clock import steady
from gomux._carrier.turns import DONE
from gomux._mux.tally import Tally
from gomux.error import NoRequests, OpenStreamError
from gomux.limits import WAIT_TIMEOUT

if TYPE_CHECKING:
    from gomux._mux.protocol import MuxProtocol
    from gomux.error import GomuxError
    from gomux.interfaces import IStreamFactory

#: For how long streams wait for a peer that has shown the key to come back, in seconds,
#: while there are muxes whose peers may be strangers.
COME_BACK = 10.0


class MuxPool:
    """
    Opens streams on the muxes that are up.  While no mux is up, streams wait.

    The pool prefers some muxes to others.  The first of these rules that tells two
    muxes apart decides:

     1. Prefer a mux whose peer has shown that it holds the key: a stranger who merely
        connects must not get streams that are meant for a peer.
     2. Prefer a mux whose peer answers pings.
     3. Prefer a mux that has many stream IDs left.

    Streams for a service go over muxes only whose peers have announced that they
    understand requests.  While there is no such mux, but a peer may still announce
    that, they wait.

    A server's mux whose peer has not shown the key may be a stranger's.  For
    L{COME_BACK} seconds after the pool has lost a mux whose peer has shown the key, no
    stream goes over such a mux, because that peer is probably about to come back: the
    streams wait.

    Peers whose muxes are equal by these rules take turns.  Of several such muxes of one
    peer the pool uses the newest: the peer may have come back by another path before
    this side notices the end of the old mux.

    On a server all muxes with the same named key belong to one peer.  Several peers may
    share a key that has no name, so each mux with such a key counts as a peer of its
    own.  On a client every mux does.

    A stream for a peer by name goes over a mux with a key of that name, and never over
    another: over the newest of those that are equal by these rules.  While there is no
    such mux it waits.  A server's mux counts once the peer has shown that it holds the
    key, and no mux counts whose key is not in the keyring any more.

    @ivar lastReason: why the last mux was lost, or why the last attempt to connect one
        failed; C{None} before that.
    @ivar maxWaiting: how many streams may wait; C{None} if any number may.
    @ivar tally: what has happened on the muxes of the pool.
    @ivar _clock: the reactor.
    @ivar _timeout: how long a stream waits for a mux, in seconds.
    @ivar _muxes: the muxes that are up, in the order of their turns.
    @ivar _named: the muxes with named keys, by the name of the key, the oldest mux
        first.
    @ivar _waiting: the streams that wait, in order, as the keys of a dictionary.
    @ivar _proving: the results of L{whenProven} that have not fired.
    @ivar _trustFrom: from when on muxes get streams that may be a stranger's.
    @ivar _trust: the call that gives them the streams that wait, at that time.
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float = WAIT_TIMEOUT,
        maxWaiting: int | None = None,
    ) -> None:
        """
        @param clock: the reactor.
        @param timeout: how long a stream waits for a mux, in seconds.
        @param maxWaiting: how many streams may wait; C{None} for no limit.  Set it if
            strangers cause the streams, as the clients of a tunnel do.
        """
        self._clock = steady(clock)
        self._timeout = timeout
        self.maxWaiting = maxWaiting
        self.tally = Tally()
        self._muxes: deque[MuxProtocol] = deque()
        self._named: dict[str, list[MuxProtocol]] = {}
        self._waiting: dict[_Waiting, None] = {}
        self._proving: list[Deferred[MuxProtocol]] = []
        self._trustFrom = -inf
        self._trust: IDelayedCall | None = None
        self.lastReason: BaseException | None = None

    def limit(self, timeout: float, maxWaiting: int | None) -> None:
        """
        Set the limits for streams that wait from now on.

        @param timeout: how long a stream waits for a mux, in seconds.
        @param maxWaiting: how many streams may wait; C{None} for no limit.
        """
        self._timeout = timeout
        self.maxWaiting = maxWaiting

    @property
    def muxes(self) -> list[MuxProtocol]:
        """
        The muxes that are up.
        """
        return list(self._muxes)

    @property
    def waiting(self) -> int:
        """
        How many streams wait for a mux.
        """
        return len(self._waiting)

    def add(self, mux: MuxProtocol) -> None:
        """
        A mux is up: open the waiting streams on it.
        """
        if mux not in self._muxes:
            self._muxes.append(mux)
        name = mux.expectedName
        if name:
            named = self._named.setdefault(name, [])
            if mux not in named:
                named.append(mux)
        self._openWaiting(mux)
        self.giveUpNamed()
        if mux.authenticated:
            proving, self._proving = self._proving, []
            for proved in proving:
                proved.callback(mux)

    def whenProven(self) -> Deferred[MuxProtocol]:
        """
        @return: fires with the next mux that comes up and whose peer has shown that it
            holds the key.
        """
        proved: Deferred[MuxProtocol] = Deferred(self._proving.remove)
        self._proving.append(proved)
        return proved

    def _openWaiting(self, mux: MuxProtocol) -> None:
        """
        Open the waiting streams on a mux.  There may be thousands, so some of them may
        have to wait for later turns of the reactor.
        """
        left = deque(self._waiting if self._trusts(mux) else ())
        seconds = self._clock.seconds

        def work(until: float) -> float:
            while left and mux.canOpen:
                waiting = left.popleft()
                if waiting in self._waiting and _takes(
                    mux, waiting.service, waiting.peer
                ):
                    self._forget(waiting)
                    waiting.result.callback(mux)
                if left and seconds() >= until:
                    return 0.0
            return DONE

        if left:
            mux.factory.turns.begin(work)

    def _trusts(self, mux: MuxProtocol) -> bool:
        """
        @return: whether a mux may get streams now, although its peer may be a stranger.
        """
        if mux.authenticated or mux.factory.isClient:
            return True
        return self._clock.seconds() >= self._trustFrom

    def _trustLater(self) -> None:
        """
        While streams wait, see to it that they do not wait for a peer that does not
        come back.
        """
        left = self._trustFrom - self._clock.seconds()
        if self._waiting and self._trust is None and left > 0.0:
            self._trust = self._clock.callLater(left, self._trustNow)

    def _trustNow(self) -> None:
        self._trust = None
        self._trustLater()
        if self._trust is None:
            for mux in self.muxes:
                self._openWaiting(mux)

    def remove(self, mux: MuxProtocol, reason: GomuxError) -> None:
        """
        A mux is lost.

        @param reason: why it has ended.
        """
        if mux in self._muxes:
            self._muxes.remove(mux)
            self.lastReason = reason
            if mux.authenticated:
                self._trustFrom = self._clock.seconds() + COME_BACK
                self._trustLater()
        for name, named in list(self._named.items()):
            if mux in named:
                named.remove(mux)
                if not named:
                    del self._named[name]

    def closeNamed(self, names: Collection[str]) -> None:
        """
        Close the muxes of some peers in good order: their output is sent first.
        L{MuxFactory.endRevoked<gomux.MuxFactory.endRevoked>} does not wait for output.

        @param names: the names of the keys of these peers, for example as returned by
            L{Keyring.reload<gomux._wire.keyring.Keyring.reload>}.
        """
        for mux in self.muxes:
            if mux.peerName in names:
                mux.close()

    def openStream(
        self,
        factory: IStreamFactory | IProtocolFactory,
        timeout: float | None = None,
        service: str | None = None,
        peer: str | None = None,
    ) -> Deferred[IProtocol]:
        """
        Open a stream on the next mux.  If no mux is up, wait for one.

        @param factory: makes the stream's protocol.
        @param timeout: how long to wait for a mux, in seconds; by default the timeout
            of the pool.
        @param service: the name of the peer's service; C{None} for none.
        @param peer: the name of the peer's key; C{None} for any peer.
        @return: fires with the protocol once it is connected.  May be cancelled.  Fails
            with L{OpenStreamError} if no mux is up in time, or if too many streams wait
            already.  With a service, fails as L{gomux.interfaces.IMux.openStream} too.
        """
        mux = self._next(service) if peer is None else self._ofPeer(service, peer)
        if mux is not None:
            return mux.openStream(factory, service)
        if self.maxWaiting is not None and len(self._waiting) >= self.maxWaiting:
            what = _whose("no mux", peer)
            return fail(OpenStreamError(f"{what} is up, and too many streams wait"))
        if timeout is None:
            timeout = self._timeout
        waiting = _Waiting(service, peer)
        waiting.result = Deferred(lambda _: self._forget(waiting))
        # When that waits for another Deferred, it can still be cancelled.
        waiting.result.addCallback(lambda mux: mux.openStream(factory, service))
        waiting.timeout = self._clock.callLater(timeout, self._expire, waiting, timeout)
        self._waiting[waiting] = None
        self._trustLater()
        if service is not None:
            self._giveUp(peer)
        return cast("Deferred[IProtocol]", waiting.result)

    def giveUpNamed(self) -> None:
        """
        If streams for services wait, have the peers' greetings waited for, or fail the
        streams if there are muxes and none of their peers understands requests.
        """
        for peer in {w.peer for w in self._waiting if w.service is not None}:
            self._giveUp(peer)

    def _giveUp(self, peer: str | None) -> None:
        """
        As L{giveUpNamed}, for the streams for one peer, or for those for any.  Anybody
        can cause such streams, so this looks at no other peer's muxes.
        """
        own = self._muxes if peer is None else self._named.get(peer, ())
        muxes = [mux for mux in own if _takes(mux, None, peer)]
        for mux in muxes:
            if mux.takesRequests is None:
                mux.greetingWait.begin()
        if muxes and all(mux.takesRequests is False for mux in muxes):
            for waiting in list(self._waiting):
                isNamed = waiting.service is not None and waiting.peer == peer
                if isNamed and waiting in self._waiting:
                    self._forget(waiting)
                    waiting.result.errback(muxes[-1].noRequests())

    def failPeers(self, names: Collection[str], error: Exception) -> None:
        """
        Fail the opening of the streams that wait for a mux of some peers.

        @param names: the names of the keys of these peers.
        @param error: why it fails.
        """
        for waiting in list(self._waiting):
            if waiting.peer in names and waiting in self._waiting:
                self._forget(waiting)
                waiting.result.errback(error)

    def failWaiting(self, error: Exception) -> None:
        """
        Fail the opening of all waiting streams.

        @param error: why it fails.
        """
        for waiting in list(self._waiting):
            if waiting in self._waiting:
                self._forget(waiting)
                waiting.result.errback(error)

    def _next(self, service: str | None) -> MuxProtocol | None:
        """
        @param service: the name of the peer's service; C{None} for none.
        @return: the mux for the next stream; C{None} if no mux can open such streams.
        """
        if len(self._muxes) == 1:
            (mux,) = self._muxes
            return mux if _takes(mux, service, None) and self._trusts(mux) else None
        best = None
        rank = (-1, False, False)
        for mux in self._muxes:
            if not _takes(mux, service, None) or (own := _rank(mux)) <= rank:
                continue
            if self._trusts(mux):
                best, rank = mux, own
                if rank == _FIRST:
                    break
        if best is None:
            return None
        ofPeer = [best]
        if not best.factory.isClient:
            muxes = self._named.get(best.peerName, ofPeer)
            ofPeer = [mux for mux in muxes if not mux.factory.isClient]
        for mux in ofPeer:
            self._muxes.remove(mux)
            self._muxes.append(mux)
        alike = [m for m in ofPeer if _takes(m, service, None) and _rank(m) == rank]
        return alike[-1]

    def _ofPeer(self, service: str | None, peer: str) -> MuxProtocol | None:
        """
        @param service: the name of the peer's service; C{None} for none.
        @param peer: the name of the peer's key.
        @return: the newest of the peer's best muxes; C{None} if none can open such
            streams.
        """
        muxes = self._named.get(peer, ())
        able = [mux for mux in muxes if _takes(mux, service, peer)]
        return max(reversed(able), key=_rank, default=None)

    def _forget(self, waiting: _Waiting) -> None:
        del self._waiting[waiting]
        if waiting.timeout.active():
            waiting.timeout.cancel()
        if self._trust is not None and not self._waiting:
            self._trust.cancel()
            self._trust = None

    def _expire(self, waiting: _Waiting, timeout: float) -> None:
        self._forget(waiting)
        peer = waiting.peer
        isUp = any(_takes(mux, None, peer) for mux in self._muxes)
        if waiting.service is not None and isUp:
            why = f"no greeting came in {timeout:g} seconds"
            waiting.result.errback(NoRequests(why))
            return
        reason = (
            "" if self.lastReason is None else f"; the last reason: {self.lastReason}"
        )
        what = _whose("no mux", peer)
        error = OpenStreamError(f"{what} was up within {timeout:g} seconds{reason}")
        error.reason = error.__cause__ = self.lastReason
        waiting.result.errback(error)


# The best rank.
_FIRST = (True, True, True)


def _takes(mux: MuxProtocol, service: str | None, peer: str | None) -> bool:
    """
    @return: whether this side can open a stream for a service, or one without, and for
        a peer, or for any.
    """
    if not (mux.canOpen and (service is None or mux.takesRequests)):
        return False
    return peer is None or mux.isWith(peer)


def _whose(what: str, peer: str | None) -> str:
    return what if peer is None else f"{what} of {peer!r}"


def _rank(mux: MuxProtocol) -> tuple[bool, bool, bool]:
    """
    @return: a value that is greater for a mux that the pool prefers.
    """
    return mux.authenticated, mux.answers, not mux.isWorn


class _Waiting:
    """
    A stream that waits for a mux.

    @ivar service: the name of the peer's service; C{None} for none.
    @ivar peer: the name of the peer's key; C{None} for any peer.
    @ivar timeout: the delayed call that ends the wait.
    @ivar result: the result of L{MuxPool.openStream}.  It gets the mux that the stream
        goes over, and then opens the stream.
    """

    timeout: IDelayedCall
    result: Deferred[Any]

    def __init__(self, service: str | None, peer: str | None) -> None:
        self.service = service
        self.peer = peer
