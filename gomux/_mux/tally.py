# -*- test-case-name: gomux.test.mux.test_tally -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
What has happened on the muxes of a pool: sums that outlive muxes, streams, tunnels and
factories, so that they never go back.

Nothing is counted for a frame.  A mux counts its bytes itself, and they are added here
when it ends.  A stream is counted when it begins and when it ends.
"""

from __future__ import annotations

from typing import Protocol

from gomux._wire.request import CODES


class CountedMux(Protocol):
    """
    The part of a mux that is counted.  See L{MuxFacts<gomux._mux.muxfacts.MuxFacts>}.
    """

    bytesReceived: int

    @property
    def bytesSent(self) -> int:
        """
        How many bytes were written to the carrier.
        """

    @property
    def hasPeer(self) -> bool:
        """
        Whether the mux belongs to a peer, and not to a stranger.
        """

    @property
    def expectedName(self) -> str:
        """
        The name of the peer.
        """

    @property
    def leftSilently(self) -> bool:
        """
        Whether neither side had sent a byte when the peer ended the carrier.
        """


class ServiceCounts:
    """
    The streams of one service in one direction.

    @ivar open: how many are open.
    @ivar total: how many there have been, with those that failed.
    @ivar failures: how many failed, by the code of the refusal.
    """

    __slots__ = ("open", "total", "failures")

    def __init__(self) -> None:
        self.open = 0
        self.total = 0
        self.failures = dict.fromkeys(CODES, 0)

    def began(self) -> None:
        """
        A stream begins.
        """
        self.open += 1
        self.total += 1

    def refused(self, code: str) -> None:
        """
        A stream is refused before it begins.
        """
        self.total += 1
        self.failures[code] += 1


class PeerSums:
    """
    The muxes of one peer that have ended.

    @ivar muxes: how many have ended.
    @ivar received: how many bytes were received on them.
    @ivar sent: how many bytes were sent on them.
    """

    __slots__ = ("muxes", "received", "sent")

    def __init__(self) -> None:
        self.muxes = 0
        self.received = 0
        self.sent = 0


class Tally:
    """
    The sums of a pool's muxes, since the pool was made.

    @ivar served: the streams that peers open, by service; C{None} for no service.
    @ivar forwarded: the connections that this side accepts for peers, by service.
    @ivar refused: how many streams of peers were refused for none of these services, by
        the code of the refusal.
    @ivar ended: the muxes that have ended, by the name of the peer.
    @ivar strangers: how many connections to this side ended because their peers had
        shown no key, or were refused because there were too many such connections.
    """

    def __init__(self) -> None:
        self.served: dict[str | None, ServiceCounts] = {}
        self.forwarded: dict[str | None, ServiceCounts] = {}
        self.refused = dict.fromkeys(CODES, 0)
        self.ended: dict[str, PeerSums] = {}
        self.strangers = 0

    def serving(self, service: str | None) -> ServiceCounts:
        """
        @return: the counts of a service that this side has; C{None} for no service.
        """
        counts = self.served.get(service)
        return counts or self.served.setdefault(service, ServiceCounts())

    def forwarding(self, service: str | None) -> ServiceCounts:
        """
        @return: the counts of the connections for a service of the peers; C{None} for
            no service.
        """
        counts = self.forwarded.get(service)
        return counts or self.forwarded.setdefault(service, ServiceCounts())

    def muxEnded(self, mux: CountedMux) -> None:
        """
        Keep the sums of a mux that has ended.
        """
        if mux.hasPeer:
            sums = self.ended.setdefault(mux.expectedName, PeerSums())
            sums.muxes += 1
            sums.received += mux.bytesReceived
            sums.sent += mux.bytesSent
        elif not mux.leftSilently:
            self.strangers += 1
