# -*- test-case-name: gomux.test.session.test_conn -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The reads and writes of a L{gomux.session._conn.Conn} that wait.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

#: The most that L{Conn.read<gomux.Conn.read>} returns by default, in bytes.
READ_SIZE = 65536
#: The most that is written to the transport in one call, in bytes.
WRITE_SIZE = 65536


class PendingRead:
    """
    A call of L{Conn.read<gomux.Conn.read>} that waits.

    @ivar size: the most that it reads, in bytes.
    @ivar result: the Deferred that it returned.
    """

    __slots__ = ("size", "result")

    def __init__(self, size: int, result: Deferred[bytes]) -> None:
        self.size = size
        self.result = result


class PendingWrite:
    """
    A call of L{Conn.write<gomux.Conn.write>} that waits.

    @ivar data: all of the data.
    @ivar written: how many bytes of it were given to the transport.
    @ivar result: the Deferred that the call returned.
    """

    __slots__ = ("data", "written", "result")

    def __init__(self, data: bytes, result: Deferred[int]) -> None:
        self.data = data
        self.written = 0
        self.result = result
