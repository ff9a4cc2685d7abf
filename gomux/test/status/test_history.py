"""
Tests for L{gomux.status._history}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gomux.status import _history
from gomux.status._facts import PeerFacts
from gomux.status._history import INTERVAL, SAMPLES, History


class HistoryTests(SynchronousTestCase):
    """
    L{History}
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.peers = {name: PeerFacts(name) for name in ("alice", "bob")}
        self.history = History(self.peers.values, self.clock)
        self.history.start()

    def move(self, received: int, sent: int, name: str = "alice") -> None:
        """
        Let a peer move some bytes until the next sample.
        """
        self.peers[name].received += received
        self.peers[name].sent += sent
        self.clock.advance(INTERVAL)

    def last(self, count: int) -> list[tuple[int, int]]:
        return list(self.history.rates["alice"])[-count:]

    def test_rates(self) -> None:
        """
        Each sample is the mean rate since the sample before, in each direction.
        """
        self.move(5000, 50)
        self.move(0, 0)
        self.move(10, 50000)
        self.assertEqual(self.last(4), [(0, 0), (1000, 10), (0, 0), (2, 10000)])
        self.assertEqual(len(self.history.rates["alice"]), SAMPLES)

    def test_bounded(self) -> None:
        """
        The samples of five minutes are kept, and none of a peer that was idle for so
        long.
        """
        self.assertEqual(INTERVAL * SAMPLES, 300)
        self.move(5000, 0)
        for _ in range(SAMPLES - 1):
            self.move(0, 0)
        self.assertEqual(self.history.rates["alice"][0], (1000, 0))
        self.assertEqual(len(self.history.rates["alice"]), SAMPLES)
        self.assertNotIn("bob", self.history.rates)
        self.move(0, 0)
        self.assertEqual(self.history.rates, {})

    def test_peers(self) -> None:
        """
        Only so many peers have samples, those that came first.
        """
        self.patch(_history, "PEERS", 1)
        self.move(5, 0)
        self.move(5, 0, "bob")
        self.assertEqual(set(self.history.rates), {"alice"})

    def test_newPeer(self) -> None:
        """
        All bytes of a peer that was not there at the last sample are new.
        """
        self.peers["carol"] = PeerFacts("carol")
        self.move(500, 0, "carol")
        self.assertEqual(self.history.rates["carol"][-1], (100, 0))

    def test_late(self) -> None:
        """
        A sample that is late, because the reactor was busy, is no peak.
        """
        self.peers["alice"].received += 5000
        self.clock.advance(5 * INTERVAL)
        self.assertEqual(self.last(1), [(200, 0)])

    def test_stop(self) -> None:
        """
        After a stop no samples are taken.  A start begins anew.
        """
        self.move(5000, 0)
        self.history.stop()
        self.history.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.peers["alice"].received += 5000
        self.history.start()
        self.assertEqual(self.history.rates, {})
        self.move(0, 0)
        self.assertEqual(self.history.rates, {})
