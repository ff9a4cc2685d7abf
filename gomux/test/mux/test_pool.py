"""
Tests for L{gomux._mux.pool}, and for when a mux joins a pool.
"""

from __future__ import annotations

from functools import partial
from operator import is_not
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory, MuxProtocol
from gomux._wire.frame import ID_END
from gomux._wire.keyring import Keyring
from gomux.error import NoRequests, OpenStreamError
from gomux.test.support.helpers import Parts, Recorders
from gomux.test.support.poolline import Line
from gomux.testing import PSK, MuxPair


class PoolTests(SynchronousTestCase):
    """
    L{MuxPool}
    """

    def setUp(self) -> None:
        self.line = Line()
        self.pool = self.line.pool

    def open(self) -> list[object]:
        """
        Open a stream.

        @return: a list that gets the protocol or the failure, once there is one.
        """
        results: list[object] = []
        self.pool.openStream(self.line.streams).addBoth(results.append)
        return results

    def test_inTurn(self) -> None:
        """
        New streams go to the connected muxes in turn.
        """
        pairs = [self.line.connect() for _ in range(3)]
        self.line.flush()
        for _ in range(6):
            self.open()
        self.assertEqual([pair.server.streamCount for pair in pairs], [2, 2, 2])

    def openNamed(self, timeout: float | None = None) -> Deferred[Any]:
        """
        Open a stream for a service.
        """
        self.named = Recorders()
        return self.pool.openStream(self.named, timeout, "chat")

    def served(self, pair: MuxPair) -> int:
        """
        @return: how many streams for a service a client has been asked for.
        """
        streams = Parts(pair.client).streams.byID.values()
        return sum(stream.service == "chat" for stream in streams)

    def test_named(self) -> None:
        """
        Streams for a service go to the peers in turn that understand requests, and to
        no other.
        """
        pairs = [self.line.connect(greet) for greet in (True, False, True)]
        self.line.flush()
        pairs[1].client.openStream(self.line.streams)
        for pair in pairs:
            pair.clientFactory.services["chat"] = self.line.streams
        for _ in range(6):
            self.openNamed()
            self.line.flush()
        self.assertEqual([self.served(pair) for pair in pairs], [3, 0, 3])

    def test_namedWait(self) -> None:
        """
        Streams for a service wait for a mux, and go over the first that can take them.
        Streams without a service do not wait for them.
        """
        named = self.openNamed()
        plain = self.open()
        pair = self.line.connect()
        pair.clientFactory.services["chat"] = Recorders()
        self.line.flush()
        self.assertEqual(len(plain), 1)
        self.assertEqual(self.successResultOf(named), self.named.made[0])
        self.assertEqual(self.pool.waiting, 0)

    def test_namedNoPeer(self) -> None:
        """
        Streams for a service fail once the peers of all muxes have announced nothing.
        Streams that come later fail at once.  Streams without a service are not
        affected.
        """
        waiting = self.openNamed()
        pair = self.line.connect(greet=False)
        self.line.flush()
        self.pool.add(pair.server)
        self.assertNoResult(waiting)
        pair.client.openStream(self.line.streams)
        self.line.flush()
        self.failureResultOf(waiting, NoRequests)
        self.failureResultOf(self.openNamed(), NoRequests)
        self.assertEqual(len(self.open()), 1)
        self.assertEqual(self.pool.waiting, 0)

    def test_silentAtStop(self) -> None:
        """
        The mux of a silent peer is aborted when its factory has retired meanwhile.
        """
        silent = self.line.connect(greet=False)
        silent.serverFactory.retired = True
        silent.advance(2)
        self.assertEqual(self.pool.muxes, [])
        self.assertIsNotNone(silent.server.reason)

    def test_namedSilent(self) -> None:
        """
        Streams for a service wait for the greeting of a silent peer, but not for longer
        than C{greetTimeout}, and not if another peer understands requests.
        """
        silent = self.line.connect(greet=False)
        silent.advance(2)
        self.assertEqual(self.pool.muxes, [silent.server])
        waiting = self.openNamed()
        silent.advance(4.9)
        self.assertNoResult(waiting)
        silent.advance(0.2)
        failure = self.failureResultOf(waiting, NoRequests)
        self.assertIn("no greeting came", str(failure.value))
        other = self.line.connect()
        other.clientFactory.services["chat"] = Recorders()
        self.line.flush()
        opening = self.openNamed()
        self.line.flush()
        self.successResultOf(opening)

    def test_namedNextMux(self) -> None:
        """
        A stream whose mux ends before the greeting is not lost: it goes over the next
        mux.  Its time goes on.
        """
        silent = self.line.connect(greet=False)
        silent.advance(2)
        waiting = self.openNamed()
        silent.client.abort()
        silent.flush()
        self.assertNoResult(waiting)
        pair = self.line.connect()
        pair.clientFactory.services["chat"] = Recorders()
        self.line.flush()
        self.successResultOf(waiting)
        for other in (silent, pair):
            other.client.abort()
            other.flush()
        late = self.openNamed(3)
        pair.advance(3.1)
        self.assertIn("no mux was up", str(self.failureResultOf(late).value))

    def counts(self, pairs: list[MuxPair]) -> list[int]:
        """
        @return: how many streams the server's mux of each pair has.
        """
        return [pair.server.streamCount for pair in pairs]

    def test_newestOfPeer(self) -> None:
        """
        Of several muxes of one peer the newest has all new streams.  Peers take turns,
        however many muxes they have.
        """
        pairs = [self.line.connect(name=name) for name in ("alice", "bob", "alice")]
        self.line.flush()
        for _ in range(6):
            self.open()
        self.assertEqual(self.counts(pairs), [0, 3, 3])
        pairs[2].server.drain()
        self.open()
        self.open()
        self.assertEqual(self.counts(pairs), [1, 4, 3])

    def test_newestAgain(self) -> None:
        """
        When the newest mux of a peer has ended, the one before is used.
        """
        pairs = [self.line.connect(name="alice") for _ in range(2)]
        self.line.flush()
        pairs[1].loseCarrier()
        self.line.flush()
        self.open()
        self.assertEqual(pairs[0].server.streamCount, 1)
        pairs[0].loseCarrier()
        self.line.flush()
        self.assertEqual((self.pool.muxes, self.pool._named), ([], {}))

    def test_clientsPeers(self) -> None:
        """
        A client's muxes take turns also if its key has a name, because it has one mux
        to each server.
        """
        key = Keyring({"alice": PSK})
        pairs = [
            MuxPair(
                clientFactory=MuxFactory(
                    key, True, clock=self.line.clock, pool=self.pool
                ),
                serverFactory=MuxFactory(
                    PSK, False, self.line.streams, clock=self.line.clock
                ),
                clock=self.line.clock,
            )
            for _ in range(2)
        ]
        for pair in pairs:
            pair.flush()
        for _ in range(4):
            self.open()
        self.assertEqual([pair.client.streamCount for pair in pairs], [2, 2])

    def test_answers(self) -> None:
        """
        A mux whose peer does not answer is passed over while there is another.
        """
        for name in ("", "alice"):
            self.setUp()
            pairs = [self.line.connect(name=name) for _ in range(2)]
            self.line.flush()
            silent = pairs[1].server
            self.patch(MuxProtocol, "answers", property(partial(is_not, silent)))
            for _ in range(4):
                self.open()
            self.assertEqual(self.counts(pairs), [4, 0], name)
            pairs[0].server.close()
            self.open()
            self.assertEqual(silent.streamCount, 1)

    def test_worn(self) -> None:
        """
        A mux with few IDs left is passed over while there is another.
        """
        pairs = [self.line.connect() for _ in range(2)]
        self.line.flush()
        pairs[0].server._nextID = ID_END - 3
        self.open()
        self.assertTrue(pairs[0].server.isWorn)
        for _ in range(3):
            self.open()
        self.assertEqual(self.counts(pairs), [1, 3])
        pairs[1].server.close()
        self.open()
        self.assertEqual(pairs[0].server.streamCount, 2)
        self.assertEqual(self.open(), [])

    def test_waits(self) -> None:
        """
        While no mux is connected, C{openStream} waits for the first one.
        """
        results = self.open()
        self.assertEqual((results, self.pool.waiting), ([], 1))
        self.line.connect()
        self.line.flush()
        self.assertIsInstance(results[0], Protocol)
        self.assertEqual(self.pool.waiting, 0)

    def test_timeout(self) -> None:
        """
        If no mux connects before the timeout, C{openStream} fails.  The error says how
        long it waited and why the last mux ended.
        """
        self.line.connect()
        self.line.flush()
        self.line.pairs[0].loseCarrier()
        self.line.flush()
        results = self.open()
        self.line.clock.advance(10)
        failure = results[0]
        self.assertIsInstance(failure.value, OpenStreamError)  # type: ignore[attr-defined]
        self.assertIn("10 seconds", str(failure.value))  # type: ignore[attr-defined]
        self.assertIn("CloseMux", str(failure.value))  # type: ignore[attr-defined]

    def test_maxWaiting(self) -> None:
        """
        If C{maxWaiting} streams wait already, C{openStream} fails at once.
        """
        self.line = Line(maxWaiting=3)
        self.pool = self.line.pool
        waiting = [self.open() for _ in range(3)]
        results = self.open()
        self.assertIsInstance(results[0].value, OpenStreamError)  # type: ignore[attr-defined]
        self.assertEqual(waiting, [[], [], []])

    def test_limit(self) -> None:
        """
        C{limit} sets how many streams may wait from then on.
        """
        self.pool.limit(5, 1)
        waiting = self.open()
        self.assertIsInstance(self.open()[0].value, OpenStreamError)  # type: ignore[attr-defined]
        self.assertEqual(waiting, [])
        self.line.clock.advance(5)
        self.assertIsInstance(waiting[0].value, OpenStreamError)  # type: ignore[attr-defined]

    def test_thousandsWait(self) -> None:
        """
        Without C{maxWaiting} thousands of streams can wait, and the first mux to
        connect opens them all.
        """
        waiting = [self.open() for _ in range(5000)]
        self.assertEqual((waiting, self.pool.waiting), ([[]] * 5000, 5000))
        self.line.connect()
        self.line.flush()
        self.assertEqual({type(results[0]) for results in waiting}, {Protocol})

    def test_cancel(self) -> None:
        """
        A waiting C{openStream} can be cancelled.
        """
        waiting = self.pool.openStream(self.line.streams)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.line.clock.getDelayedCalls(), [])

    def test_failWaiting(self) -> None:
        """
        C{failWaiting} fails every C{openStream} that waits.
        """
        waiting = [self.open() for _ in range(3)]
        self.pool.failWaiting(OpenStreamError("closing time"))
        for results in waiting:
            self.assertIn("closing time", str(results[0]))
        self.assertEqual(self.line.clock.getDelayedCalls(), [])

    def test_stranger(self) -> None:
        """
        A peer that has not shown that it holds the key gets no streams while it may
        still do so, nor later while another peer has shown it.
        """
        self.line.connect(greet=False)
        self.line.flush()
        results = self.open()
        self.assertEqual(results, [])
        friend = self.line.connect()
        self.line.flush()
        self.assertEqual(len(results), 1)
        self.line.clock.advance(5)
        for _ in range(4):
            self.open()
        self.assertEqual(friend.server.streamCount, 5)

    def test_silentPeer(self) -> None:
        """
        A peer that sends nothing, as a client of the reference may, gets streams after
        a second if no other peer is connected.
        """
        pair = self.line.connect(greet=False)
        results = self.open()
        self.line.clock.advance(0.9)
        self.assertEqual(results, [])
        self.line.clock.advance(0.1)
        self.assertEqual(len(results), 1)
        self.assertEqual(pair.server.streamCount, 1)

    def test_goneBeforeItSpoke(self) -> None:
        """
        A silent peer that disconnects leaves no mux in the pool and no delayed call.
        """
        pair = self.line.connect(greet=False)
        pair.loseCarrier()
        self.line.flush()
        self.line.clock.advance(5)
        self.assertEqual(self.pool.muxes, [])
        self.assertEqual(self.line.clock.getDelayedCalls(), [])

    def test_notOnceDraining(self) -> None:
        """
        A mux that is draining gets no more streams.
        """
        old = self.line.connect()
        new = self.line.connect()
        self.line.flush()
        self.open()
        self.open()
        old.server.drain()
        for _ in range(3):
            self.open()
        self.assertEqual(
            (old.server.streamCount, new.server.streamCount),
            (1, 4),
        )
