# -*- test-case-name: gomux.test.mux.test_buffers -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
How much memory all muxes of a process take together, and which mux has to end when that
is too much.

Each mux has an L{Account}.  What counts is:

  - input that waits because an application has paused its stream, in bytes;
  - output that waits to be sent, in bytes, but for the first
    L{FREE_OUTPUT<gomux._mux.sender.FREE_OUTPUT>} bytes of each stream;
  - memory that a protocol of this package L{keeps<gomux._mux.keeping>};
  - L{STREAM_COST} for each stream, which covers those bytes, and L{MUX_COST} for each
    mux;
  - L{CONTROL_COST} for each control frame that waits when the peer opens a stream.

The muxes whose peers have shown the same key of a keyring are one peer's.

  1. Above three quarters of C{maxBuffered} no receive window grows, and a peer that
     takes more than its share of these three quarters opens no more streams.  All peers
     that have muxes have equal shares.
  2. Above C{maxBuffered}, one mux is ended: of the peer that takes most, the mux that
     takes most.

A peer may have a rule of its own for C{maxBuffered}.  Above three quarters of that its
windows do not grow and it opens no more streams, and above that its largest mux ends.

A mux that has ended counts until its last protocol was told.  If it ended for want of
memory, it does not count any more, and its waiting input is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from gomux._wire.peerrules import NOBODY, PeerUse

#: How much a stream counts for, in bytes.
STREAM_COST = 4096
#: How much a mux counts for, in bytes.
MUX_COST = 32768
#: How much a control frame that waits counts for, in bytes.
CONTROL_COST = 128
#: The part of C{maxBuffered} above which windows do not grow.
TIGHT = 0.75


class _Peer:
    """
    All muxes of a peer.

    @ivar used: how many bytes they take.
    @ivar accounts: their accounts.
    """

    def __init__(self) -> None:
        self.used = 0
        self.accounts: dict[Account, None] = {}

    def reclaim(self, use: PeerUse) -> None:
        """
        End muxes of one keyring's peer until they take no more than they may.  The same
        name may stand in other keyrings, or stand for no name.
        """
        own = [account for account in self.accounts if account.use is use]
        own.sort(key=_used)
        while own and use.buffered > use.maxBuffered:
            own.pop().end()


def _used(user: _Peer | Account) -> int:
    return user.used


class Buffers:
    """
    The memory that all muxes of one reactor take.

    @ivar total: how many bytes they take.
    @ivar peers: the peers by the names of their keys.
    """

    def __init__(self) -> None:
        self.total = 0
        self.peers: dict[str, _Peer] = {}

    def reclaim(self, bound: float) -> None:
        """
        End muxes until no more than C{bound} bytes are taken.
        """
        while self.total > bound:
            peer = max(self.peers.values(), key=_used)
            max(peer.accounts, key=_used).end()


class Account:
    """
    The memory that one mux takes.

    @ivar used: how many bytes it takes.
    @ivar _buffers: the memory that the mux shares with others.
    @ivar _bound: C{maxBuffered} of the mux's factory.
    @ivar _overfull: see L{__init__}.
    @ivar use: what the peer may use, and its name; C{None} before the mux has its
        carrier, and once it takes nothing any more.
    @ivar _peer: the peer of that name.
    @ivar _control: how many control frames are counted.
    @ivar _isOver: whether this mux had to end.
    """

    __slots__ = (
        "used",
        "_buffers",
        "_bound",
        "_overfull",
        "use",
        "_peer",
        "_control",
        "_isOver",
    )

    _peer: _Peer

    def __init__(
        self, buffers: Buffers, bound: float, overfull: Callable[[], None]
    ) -> None:
        """
        @param buffers: the memory that the mux shares with others.
        @param bound: how many bytes all muxes together may take.
        @param overfull: called when this mux has to end.  It must not end the mux at
            once, because an application may be writing.
        """
        self.used = 0
        self._buffers = buffers
        self._bound = bound
        self._overfull = overfull
        self.use: PeerUse | None = None
        self._control = 0
        self._isOver = False

    def begin(self, use: PeerUse = NOBODY) -> None:
        """
        The mux has its carrier, or its peer has shown a key.

        @param use: what the peer of the key may use.
        """
        if self._isOver:
            return
        used = MUX_COST if self.use is None else self.used
        self._leave()
        self.use = use
        self._peer = self._buffers.peers.setdefault(use.name, _Peer())
        self._peer.accounts[self] = None
        self.charge(used)

    def charge(self, size: int) -> None:
        """
        Take memory, or give it back.

        @param size: how many bytes; less than 0 to give them back.
        """
        use = self.use
        if use is None:
            return
        self.used += size
        peer = self._peer
        peer.used += size
        use.buffered += size
        buffers = self._buffers
        buffers.total += size
        if size > 0 and (buffers.total > self._bound or use.buffered > use.maxBuffered):
            peer.reclaim(use)
            buffers.reclaim(self._bound)
        elif not self.used:
            self._leave()

    def opened(self, control: int) -> None:
        """
        Count a new stream.

        @param control: how many control frames wait.
        """
        more = control - self._control
        self._control = control
        self.charge(STREAM_COST + more * CONTROL_COST)

    def closed(self) -> None:
        """
        C{connectionLost} of a stream's protocol was called.
        """
        self.charge(-STREAM_COST)

    def muxEnded(self) -> None:
        """
        The mux has ended.  Its streams may still have input that waits.
        """
        self.charge(-MUX_COST - self._control * CONTROL_COST)
        self._control = 0

    def end(self) -> None:
        """
        End the mux, and stop counting its memory.
        """
        self._isOver = True
        self._leave()
        self._overfull()

    def checkInvariants(self, waiting: int, streams: int, isUp: bool) -> None:
        """
        Check that the memory of the mux is counted.  For tests.

        @param waiting: how many bytes of its input and output are counted.
        @param streams: how many of its protocols are not told yet.
        @param isUp: whether the mux has not ended.
        @raise AssertionError: if the count is wrong.
        """
        taken = waiting + streams * STREAM_COST + self._control * CONTROL_COST
        taken += MUX_COST if isUp else 0
        assert self.used == (0 if self._isOver else taken), (self.used, taken)

    def _leave(self) -> None:
        if self.use is not None:
            self._buffers.total -= self.used
            self._peer.used -= self.used
            self.use.buffered -= self.used
            self.used = 0
            del self._peer.accounts[self]
            if not self._peer.accounts:
                del self._buffers.peers[self.use.name]
            self.use = None

    @property
    def mayGrow(self) -> bool:
        """
        Whether receive windows may grow.
        """
        use = self.use
        isTight = use is not None and use.buffered > use.maxBuffered * TIGHT
        return not isTight and self._buffers.total <= self._bound * TIGHT

    @property
    def mayOpen(self) -> bool:
        """
        Whether the peer may open streams.
        """
        use = self.use
        if self.mayGrow or use is None:
            return True
        if use.buffered > use.maxBuffered * TIGHT:
            return False
        return self._peer.used * len(self._buffers.peers) <= self._bound * TIGHT


_buffers: WeakKeyDictionary[Any, Buffers] = WeakKeyDictionary()


def buffersOf(clock: Any) -> Buffers:
    """
    @param clock: the reactor, or for tests a clock.
    @return: the memory of all its muxes.  A process has one reactor.
    """
    return _buffers.setdefault(clock, Buffers())
