"""
Tests for L{gomux._carrier.sockets}
"""

from __future__ import annotations

import os
import select
import socket
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from gomux._carrier import sockets as _sockets
from gomux._carrier.clock import steady
from gomux._carrier.sockets import IN, OUT, Sockets, socketsOf
from gomux._fastpaths import useFastPaths
from gomux.test.support import plainpaths
from gomux.test.support.ownreactor import OwnReactor

reactor: Any = _reactor


class Readable:
    """
    A member whose socket is always ready.

    @ivar served: the numbers of the members that were served, in order.
    @ivar lost: why the member was lost.
    """

    def __init__(self, sockets: Sockets, number: int, served: list[int]) -> None:
        self.number = number
        self.served = served
        self.sockets = sockets
        self.handle, self.other = socket.socketpair()
        self.other.send(b"x")
        self.lost: list[Failure] = []
        self.does: Any = lambda: None
        self.watched = 0
        self.watch(IN)

    def watch(self, wanted: int) -> None:
        self.sockets.watch(self, self.handle.fileno(), self.watched, wanted)
        self.watched = wanted

    def ready(self, events: int) -> None:
        self.served.append(self.number)
        self.events = events
        self.does()

    def lose(self, reason: Failure) -> None:
        self.lost.append(reason)
        self.watch(0)

    def close(self) -> None:
        self.watch(0)
        self.handle.close()
        self.other.close()


class SocketsTests(SynchronousTestCase):
    """
    Three sockets that are always ready
    """

    def setUp(self) -> None:
        self.reactor = OwnReactor()
        self.sockets = Sockets(self.reactor)
        self.addCleanup(self.sockets._epoll.close)
        self.served: list[int] = []
        self.members = [Readable(self.sockets, n, self.served) for n in range(3)]
        for member in self.members:
            self.addCleanup(member.close)

    def test_reader(self) -> None:
        """
        For the reactor the sockets are one reader, as long as there are any.
        """
        verifyObject(IReadDescriptor, self.sockets)
        self.assertEqual(self.reactor.readers, {self.sockets})
        self.assertTrue(select.select([self.sockets], [], [], 0)[0])
        for member in self.members:
            member.watch(0)
        self.assertEqual(self.reactor.readers, set())
        self.members[0].watch(IN)
        self.assertEqual(self.reactor.readers, {self.sockets})

    def test_users(self) -> None:
        """
        While anybody uses the sockets, they stay in the reactor.
        """
        for member in self.members:
            member.watch(0)
        for _ in range(2):
            self.sockets.begin()
            self.assertEqual(self.reactor.readers, {self.sockets})
        self.sockets.end()
        self.members[0].watch(IN)
        self.members[0].watch(0)
        self.assertEqual(self.reactor.readers, {self.sockets})
        self.members[0].watch(IN)
        self.sockets.end()
        self.assertEqual(self.reactor.readers, {self.sockets})
        self.members[0].watch(0)
        self.assertEqual(self.reactor.readers, set())
        self.sockets.begin()
        self.sockets.end()
        self.assertEqual(self.reactor.readers, set())

    def test_once(self) -> None:
        """
        In a turn of the reactor each socket that is ready is served once, with the
        events that are watched.
        """
        self.members[1].watch(IN | OUT)
        self.sockets.doRead()
        self.assertEqual(sorted(self.served), [0, 1, 2])
        self.assertEqual([m.events for m in self.members], [IN, IN | OUT, IN])

    def test_limit(self) -> None:
        """
        At most C{EVENTS} sockets are served in a turn, and the others come first in the
        next.
        """
        self.patch(_sockets, "EVENTS", 2)
        self.sockets.doRead()
        first = self.served[:]
        self.assertEqual(len(first), 2)
        self.sockets.doRead()
        self.assertEqual(len(self.served), 4)
        self.assertEqual({0, 1, 2} - {*first}, {self.served[2]})

    def test_removed(self) -> None:
        """
        A socket that is removed while another is served is not served any more.
        """

        def does() -> None:
            for member in self.members:
                if member.number not in self.served:
                    member.watch(0)

        for member in self.members:
            member.does = does
        self.sockets.doRead()
        self.assertEqual(len(self.served), 1)

    def test_fails(self) -> None:
        """
        A member that raises an exception is lost, and the others are served.
        """
        self.members[0].does = lambda: 1 // 0
        self.sockets.doRead()
        self.assertEqual(sorted(self.served), [0, 1, 2])
        self.assertIsInstance(self.members[0].lost[0].value, ZeroDivisionError)
        self.assertEqual(self.members[1].lost, [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_soon(self) -> None:
        """
        Calls that a served socket leaves for later are made after all sockets were
        served.  If one fails, the rest is made nevertheless.
        """
        clock = self.sockets.clock

        def does() -> None:
            clock.soon(lambda: self.served.append(9))
            clock.soon(lambda: 1 // 0)

        for member in self.members:
            member.does = does
        self.sockets.doRead()
        self.assertEqual(sorted(self.served[:3]), [0, 1, 2])
        self.assertEqual(self.served[3:], [9, 9, 9])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        clock.soon(lambda: self.served.append(8))
        self.assertEqual(len(self.served), 6)
        self.reactor.advance(0)
        self.assertEqual(self.served[-1], 8)

    def test_reactorStops(self) -> None:
        """
        When the reactor stops, it loses all sockets.
        """
        reason = Failure(ConnectionLost())
        self.sockets.connectionLost(reason)
        self.assertEqual([m.lost for m in self.members], [[reason]] * 3)

    def test_prefix(self) -> None:
        """
        Log lines have a prefix.
        """
        self.assertEqual(self.sockets.logPrefix(), "sockets")


class SocketsOfTests(SynchronousTestCase):
    """
    L{socketsOf}
    """

    def setUp(self) -> None:
        self.addCleanup(useFastPaths, plainpaths.use(()))

    def test_epoll(self) -> None:
        """
        The epoll reactor has its sockets, also by its steady clock.
        """
        found = socketsOf(reactor)
        isEpoll = type(reactor).__name__ == "EPollReactor"
        self.assertEqual(found is not None, isEpoll)
        self.assertIs(socketsOf(reactor), found)
        self.assertIs(socketsOf(steady(reactor)), found)

    def test_others(self) -> None:
        """
        Other reactors have none.
        """
        self.assertIsNone(socketsOf(MemoryReactor()))

    def test_forked(self) -> None:
        """
        The descriptor of the epoll is not inherited by programs that are started.
        """
        sockets = Sockets(OwnReactor())
        self.addCleanup(sockets._epoll.close)
        self.assertFalse(os.get_inheritable(sockets.fileno()))
