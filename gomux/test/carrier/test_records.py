# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._carrier.records}.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from gomux._carrier.records import ANSWERS, MUX_OUTPUT, RECORDS, pace
from gomux.test.support.kernel import Descriptor
from gomux.test.support.slowclock import SlowClock


def record(size: int) -> bytes:
    """
    @return: a record of TLS.
    """
    return b"\x17\x03\x03" + size.to_bytes(2, "big") + bytes(size)


class Turning(SlowClock):
    """
    A reactor whose turns the test makes.
    """

    def addWriter(self, writer: object) -> None:
        pass

    removeWriter = removeReader = addWriter


class Secure:
    """
    Stands for TLS above a socket.

    @ivar answer: what it writes for each call of C{dataReceived}.
    @ivar act: called after that.
    """

    def __init__(self, below: Any) -> None:
        directlyProvides(self, ISSLTransport)
        self._tlsConnection = object()
        self.transport = below
        self.answer = b""
        self.act: Any = lambda: None
        self.received: list[bytes] = []
        self.lost: list[Failure] = []

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)
        self.transport.write(self.answer)
        self.act()

    def connectionLost(self, reason: Failure) -> None:
        self.lost.append(reason)


class PaceTests(SynchronousTestCase):
    """
    L{pace}
    """

    def setUp(self) -> None:
        self.clock = Turning()
        self.below = Descriptor()
        self.patch(self.below, "reactor", self.clock)
        self.reads: list[bool] = []
        for name, isOn in (("pauseProducing", False), ("resumeProducing", True)):
            self.patch(self.below, name, partial(self.reads.append, isOn))
        self.tls: Any = Secure(self.below)
        pace(self.tls)

    def test_large(self) -> None:
        """
        A read with few records is handled at once, and reading goes on.
        """
        data = record(16384) * 4
        self.tls.dataReceived(data)
        self.assertEqual(self.tls.received, [data])
        self.assertEqual(self.reads, [])

    def test_small(self) -> None:
        """
        Many small records are handled in several turns, and meanwhile nothing is read.
        """
        few = record(22) * RECORDS
        self.tls.dataReceived(few * 2 + record(22))
        for turn in (1, 2):
            self.assertEqual(self.tls.received, [few] * turn)
            self.assertNotIn(True, self.reads)
            self.clock.turn()
        self.assertEqual(self.tls.received, [few, few, record(22)])
        self.assertIs(self.reads[-1], True)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pieces(self) -> None:
        """
        Records are counted right if they come in pieces, and if they are empty.
        """
        one = record(3) + record(0)
        data = one * RECORDS + one
        for cut in range(len(data)):
            tls: Any = Secure(self.below)
            pace(tls)
            for piece in filter(None, (data[:cut], data[cut:])):
                tls.dataReceived(piece)
            while self.clock.getDelayedCalls():
                self.clock.turn()
            self.assertEqual(b"".join(tls.received), data)
            pieces = [len(piece) for piece in tls.received]
            self.assertLessEqual(max(pieces), len(one) * RECORDS // 2 + 5)
            self.assertLessEqual(len(pieces), 4)

    def test_moreComes(self) -> None:
        """
        What a transport delivers although it is paused waits its turn.
        """
        few = record(1) * RECORDS
        self.tls.dataReceived(few * 2)
        self.tls.dataReceived(few)
        self.assertEqual(self.tls.received, [few])
        self.clock.turn()
        self.clock.turn()
        self.assertEqual(self.tls.received, [few] * 3)

    def test_paused(self) -> None:
        """
        While the application has paused the connection, it gets nothing of what waits.
        """
        few = record(1) * RECORDS
        self.tls.dataReceived(few * 2)
        self.tls.pauseProducing()
        self.clock.turn()
        self.assertEqual(self.tls.received, [few])
        self.tls.resumeProducing()
        self.tls.resumeProducing()
        self.assertNotIn(True, self.reads)
        self.clock.turn()
        self.assertEqual(self.tls.received, [few] * 2)
        self.assertEqual(self.reads[-1:], [True])
        self.tls.pauseProducing()
        self.assertIs(self.reads[-1], False)

    def test_pausedMeanwhile(self) -> None:
        """
        If the application pauses the connection because of the last records, reading
        does not go on.
        """
        few = record(1) * RECORDS
        self.tls.dataReceived(few * 2)
        self.tls.act = self.tls.pauseProducing
        self.clock.turn()
        self.assertEqual(self.tls.received, [few] * 2)
        self.assertNotIn(True, self.reads)

    def test_answers(self) -> None:
        """
        A connection is dropped if its peer leaves many answers of TLS unread, but not
        while it reads them, and not for what an application has written.
        """
        self.tls.answer = bytes(ANSWERS // 4)
        self.below.write(bytes(9 * ANSWERS))
        for _ in range(4):
            self.tls.dataReceived(record(1))
        self.below.drain(10 * ANSWERS)
        self.tls.dataReceived(record(1))
        self.assertFalse(self.below.disconnecting)
        for _ in range(4):
            self.tls.dataReceived(record(1))
        self.assertFalse(self.below.disconnecting)
        self.tls.dataReceived(record(1))
        self.assertTrue(self.below.disconnecting)

    def test_mux(self) -> None:
        """
        On the carrier of a mux, the answers of the mux do not count as those of TLS.
        The carrier is dropped if more waits than a mux ever writes.
        """
        tls: Any = Secure(self.below)
        pace(tls, hasMux=True)
        self.below.write(bytes(1))
        tls.answer = bytes(MUX_OUTPUT // 4)
        for _ in range(3):
            tls.dataReceived(record(1))
        self.assertFalse(self.below.disconnecting)
        self.below.drain(MUX_OUTPUT // 4)
        tls.dataReceived(record(1))
        self.assertFalse(self.below.disconnecting)
        tls.dataReceived(record(1))
        self.assertTrue(self.below.disconnecting)

    def test_lost(self) -> None:
        """
        When the connection is gone, nothing is left.
        """
        self.tls.dataReceived(record(1) * RECORDS * 2)
        reason = Failure(ConnectionDone())
        self.tls.connectionLost(reason)
        self.assertEqual(self.tls.lost, [reason])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNotIn("dataReceived", vars(self.tls))

    def test_muxLost(self) -> None:
        """
        A mux gets all that was received before it is told that its carrier is gone,
        also if it has paused the carrier.
        """
        tls: Any = Secure(self.below)
        pace(tls, hasMux=True)
        few = record(1) * RECORDS
        tls.dataReceived(few * 3)
        tls.pauseProducing()
        reason = Failure(ConnectionDone())
        tls.connectionLost(reason)
        self.clock.turn()
        tls.pauseProducing()
        self.assertEqual(tls.received, [few] * 2)
        self.assertEqual(tls.lost, [])
        tls.act = tls.resumeProducing
        self.clock.turn()
        self.assertEqual(tls.received, [few] * 3)
        self.assertEqual(tls.lost, [])
        self.clock.turn()
        self.assertEqual(tls.lost, [reason])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_otherTransports(self) -> None:
        """
        Without TLS, or without a socket below it, nothing is changed.
        """
        plain, memory = Descriptor(), Secure(StringTransport())
        for transport in (plain, memory, None):
            pace(transport)
        self.assertNotIn("dataReceived", vars(memory))
