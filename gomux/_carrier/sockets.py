# -*- test-case-name: gomux.test.carrier.test_sockets -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Sockets that are served without Twisted's transports.

For a small message or a short connection, the reactor and its transports take longer
than the rest of a tunnel.  So L{Sockets} is an epoll with many sockets, and only one
reader for the reactor.  When the reactor calls it, it serves at most L{EVENTS} sockets,
each of them once; the kernel reports the others first the next time.  After that the
muxes send the data that was read from the sockets, each mux once.
"""

from __future__ import annotations

import select
from functools import cache
from typing import Any, Protocol

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gomux._carrier.clock import steady
from gomux._fastpaths import fastPaths

#: How many sockets are served before other connections are due their turn.
EVENTS = 64

#: The events.  Only Linux has epoll, but all systems have these names, and they are the
#: same numbers.
IN, OUT = select.POLLIN, select.POLLOUT

_log = Logger()


class Member(Protocol):
    """
    Serves one socket.
    """

    def ready(self, events: int) -> None:
        """
        The kernel reports these events.
        """

    def lose(self, reason: Failure) -> None:
        """
        Close the socket at the end of the turn.
        """


@implementer(IReadDescriptor)
class Sockets:
    """
    The sockets of a reactor that are served without Twisted's transports.

    @ivar clock: the reactor, with times that never go back.
    @ivar fileno: returns the descriptor of the epoll.
    @ivar _reactor: the reactor.
    @ivar _epoll: the epoll.
    @ivar _members: what serves the sockets in the epoll, by descriptor.
    @ivar _users: how often L{begin} was called, and L{end} was not.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.clock: Any = steady(reactor)
        self._epoll = select.epoll()
        self.fileno = self._epoll.fileno
        self._members: dict[int, Member] = {}
        self._users = 0

    def watch(self, member: Member, descriptor: int, before: int, wanted: int) -> None:
        """
        Change the events that the kernel reports for a socket.

        @param before: the events so far; 0 if the socket is not in the epoll.
        @param wanted: the events from now on; 0 to remove the socket.
        """
        if not wanted:
            if self._members.pop(descriptor, None) is not None:
                self._epoll.unregister(descriptor)
            if not (self._members or self._users):
                self._reactor.removeReader(self)
        elif before:
            self._epoll.modify(descriptor, wanted)
        else:
            self._epoll.register(descriptor, wanted)
            if not (self._members or self._users):
                self._reactor.addReader(self)
            self._members[descriptor] = member

    def begin(self) -> None:
        """
        From now on stay in the reactor, even while there are no sockets: to leave and
        to come back would take two calls of the kernel for each connection.
        """
        self._users += 1
        self._reactor.addReader(self)

    def end(self) -> None:
        """
        Undo L{begin}.
        """
        self._users -= 1
        if not (self._members or self._users):
            self._reactor.removeReader(self)

    # IReadDescriptor

    def doRead(self) -> None:
        """
        Serve the sockets that are ready.
        """
        self.clock.turn(self._serve)

    def _serve(self) -> None:
        for descriptor, events in self._epoll.poll(0, EVENTS):
            member = self._members.get(descriptor)
            # Serving another socket may have removed this one.
            if member is not None:
                try:
                    member.ready(events)
                except BaseException:
                    _log.failure("{member} failed", member=member)
                    member.lose(Failure())

    def logPrefix(self) -> str:
        """
        @return: the prefix of log lines.
        """
        return "sockets"

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor has stopped, so nothing waits for another turn.
        """
        self.clock.turn(self._loseAll, reason)

    def _loseAll(self, reason: Failure) -> None:
        for member in list(self._members.values()):
            member.lose(reason)


_socketsOf = cache(Sockets)


def socketsOf(clock: Any) -> Sockets | None:
    """
    @param clock: a reactor, or its L{SteadyClock<gomux._carrier.clock.SteadyClock>}.
    @return: its sockets, the same object each time; C{None} if it is not the epoll
        reactor.
    """
    reactor = getattr(clock, "reactor", clock)
    isEpoll = type(reactor).__module__ == "twisted.internet.epollreactor"
    return _socketsOf(reactor) if isEpoll and fastPaths().localSockets else None
