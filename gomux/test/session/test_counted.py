# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for the memory that a L{gomux.Conn} keeps.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gomux._fastpaths import FastPaths, useFastPaths
from gomux._mux.buffers import STREAM_COST, Account
from gomux.test.support.sessionpair import SessionPair


class CountedTests(SynchronousTestCase):
    """
    The rest of a frame, of which the application has read a part.
    """

    def setUp(self) -> None:
        # Without this fast path the rest of a frame is copied, and the copy counts.
        self.addCleanup(useFastPaths, useFastPaths(FastPaths()))
        self.both = SessionPair()
        self.both.open()
        self.here, self.there = self.both.here, self.both.there
        self.flush = self.both.pair.flush
        streams: Any = self.there.transport.streams
        self.account: Account = streams.account
        self.before = self.account.used
        self.here.write(b"x" * 1000)
        read = self.there.read(1)
        self.flush()
        self.assertEqual(self.successResultOf(read), b"x")

    def assertCounted(self, size: int) -> None:
        self.assertEqual(self.account.used - self.before, size)
        self.both.pair.server.checkInvariants()

    def test_read(self) -> None:
        """
        The whole frame counts until all of it is read.
        """
        self.assertCounted(1000)
        self.there.read(998)
        self.assertCounted(1000)
        self.there.read(1)
        self.assertCounted(0)

    def test_closeRead(self) -> None:
        """
        It does not count once the reading half is closed.
        """
        self.there.closeRead()
        self.assertCounted(0)

    def test_close(self) -> None:
        """
        It does not count once the stream is closed.
        """
        self.there.close()
        self.assertCounted(0)

    def test_ends(self) -> None:
        """
        It does not count once the stream has ended, and can still be read.
        """
        self.here.close()
        self.flush()
        self.assertCounted(-STREAM_COST)
        self.assertEqual(len(self.successResultOf(self.there.read(2000))), 999)
        self.assertCounted(-STREAM_COST)
