# -*- test-case-name: gomux.test.session.test_session -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The factory of the streams of a session.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IAddress, IProtocol
from zope.interface import implementer

from gomux.error import ServiceBusy
from gomux.interfaces import IStreamFactory
from gomux.session._conn import Conn


@implementer(IStreamFactory)
class ConnFactory:
    """
    The stream factory of a session: makes a L{Conn<gomux.Conn>} for each stream.

    @ivar _build: makes the L{Conn<gomux.Conn>}; returns C{None} if there is no room.
    """

    def __init__(self, build: Callable[[], Conn | None]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress) -> IProtocol:
        """
        @return: the stream's L{Conn<gomux.Conn>}.
        @raise ServiceBusy: if the session has no room for another.
        """
        conn = self._build()
        if conn is None:
            raise ServiceBusy()
        return conn
