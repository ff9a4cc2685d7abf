"""
Tests for L{gomux._mux.tally}, and for what the muxes count in it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits, MuxFactory
from gomux._mux.newcomer import Newcomers
from gomux._mux.tally import ServiceCounts
from gomux._wire.keyring import Keyring
from gomux.error import ServiceBusy
from gomux.test.support.helpers import Recorders
from gomux.test.support.tunnelrig import HERE, Rig
from gomux.testing import PSK, MuxPair

ALICE = "the pre-shared key of alice"
EVE = "a pre-shared key of nobody here"


def failed(counts: ServiceCounts) -> dict[str, int]:
    """
    @return: the failures that there were, by code.
    """
    return {code: number for code, number in counts.failures.items() if number}


class Busy(Recorders):
    """
    A service that has too many connections.
    """

    def buildProtocol(self, addr: Any) -> Any:
        raise ServiceBusy()


class Refusing(Recorders):
    """
    A factory that makes no protocol.
    """

    def buildProtocol(self, addr: Any) -> Any:
        return None


class StreamTests(SynchronousTestCase):
    """
    The peer's streams
    """

    def setUp(self) -> None:
        self.plain, self.chat = Recorders(), Recorders()
        services = {"chat": self.chat, "busy": Busy()}
        self.pair = MuxPair(self.plain, serverServices=services)
        self.pair.flush()
        self.tally = self.pair.serverFactory.tally

    def open(self, service: str | None = None) -> Any:
        streams = Recorders()
        self.pair.client.openStream(streams, service).addErrback(lambda _: None)
        self.pair.flush()
        return streams.made[0].stream if streams.made else None

    def counts(self, service: str | None) -> tuple[int, int, dict[str, int]]:
        counts = self.tally.served[service]
        return counts.open, counts.total, failed(counts)

    def test_open(self) -> None:
        """
        The streams of each service are counted from their beginning until their
        protocols have had C{connectionLost}.
        """
        for service in (None, "chat"):
            first, _ = self.open(service), self.open(service)
            self.assertEqual(self.counts(service), (2, 2, {}))
            first.loseConnection()
            self.pair.flush()
            self.assertEqual(self.counts(service), (1, 2, {}))
        self.pair.loseCarrier()
        self.pair.flush()
        for service in (None, "chat"):
            self.assertEqual(self.counts(service), (0, 2, {}))

    def test_refused(self) -> None:
        """
        A stream that the factory refuses counts as one that has failed, by code.
        """
        self.open("busy")
        self.assertEqual(self.counts("busy"), (0, 1, {"busy": 1}))
        self.pair.serverFactory.streamFactory = Refusing()
        self.open()
        self.assertEqual(self.counts(None), (0, 1, {"refused": 1}))

    def test_unknown(self) -> None:
        """
        A service that this side does not have is not counted by its name, which the
        peer chooses.
        """
        for number in range(5):
            self.open(f"any{number}")
        self.assertEqual(self.tally.refused["unknown"], 5)
        self.assertEqual(set(self.tally.served), set())

    def test_notAllowed(self) -> None:
        """
        Streams that the peer may not open are counted by the service if there is one.
        """
        self.pair.serverFactory.mayUse = lambda peer, service: False
        self.open("chat")
        self.open("any")
        self.assertEqual(self.counts("chat"), (0, 1, {"not-allowed": 1}))
        self.assertEqual(self.tally.refused["not-allowed"], 1)

    def test_noRoom(self) -> None:
        """
        Streams that no limit allows, or that come while the mux drains, are counted by
        the code that a request would get.
        """
        pair = MuxPair(self.plain, limits=Limits(maxStreams=1))
        self.pair, self.tally = pair, pair.serverFactory.tally
        self.open()
        self.open()
        self.assertEqual(self.tally.refused["busy"], 1)
        pair = MuxPair(self.plain)
        self.pair, self.tally = pair, pair.serverFactory.tally
        self.open()
        self.pair.server.drain()
        self.open()
        self.assertEqual(self.tally.refused["failed"], 1)


class TunnelTests(SynchronousTestCase):
    """
    The connections of tunnels, and the streams that continue to targets
    """

    service: str | None = None

    def test_forwarded(self) -> None:
        """
        A forwarding endpoint counts the connections that it has accepted.
        """
        rig = Rig(self)
        rig.flush()
        counts = rig.pool.tally.forwarded[None]
        first, carrier = rig.open()
        rig.open()
        self.assertEqual((counts.open, counts.total, failed(counts)), (2, 2, {}))
        carrier.abortConnection()
        rig.flush()
        self.assertEqual((counts.open, counts.total, failed(counts)), (1, 2, {}))

    def test_tooMany(self) -> None:
        """
        A connection over C{maxConnections} counts as one that has failed.
        """
        rig = Rig(self, maxConnections=1)
        rig.flush()
        counts = rig.pool.tally.forwarded[None]
        rig.open()
        rig.open()
        self.assertEqual((counts.open, counts.total), (1, 2))
        self.assertEqual(failed(counts), {"busy": 1})

    def test_noPeer(self) -> None:
        """
        A connection that finds no peer in time counts as one that has failed.
        """
        rig = Rig(self)
        rig.flush()
        rig.pair.client.close()
        rig.flush()
        rig.open()
        rig.clock.advance(rig.limits.waitTimeout)
        counts = rig.pool.tally.forwarded[None]
        self.assertEqual((counts.open, counts.total), (0, 1))
        self.assertEqual(failed(counts), {"unreachable": 1})

    def refuse(self) -> tuple[ServiceCounts, ServiceCounts]:
        """
        Connect, with a target that refuses connections.

        @return: the counts of the forwarding side and of the target.
        """
        rig = Rig(self)
        rig.there.plain = rig.pair.serverFactory.tally.serving(None)
        rig.flush()
        rig.target.answer = ConnectionRefusedError()
        rig.open()
        served = rig.pair.serverFactory.tally.served
        service = None if self.service is None else "any"
        return rig.pool.tally.forwarded[self.service], served[service]

    def test_targetFails(self) -> None:
        """
        A stream without a service whose target refuses the connection is counted where
        the target is; the other side cannot know.
        """
        here, there = self.refuse()
        self.assertEqual((here.total, failed(here)), (1, {}))
        self.assertEqual((there.total, failed(there)), (1, {"refused": 1}))

    def test_serviceFails(self) -> None:
        """
        A stream for a service whose target refuses the connection is counted on both
        sides, and once on each.
        """
        self.service = "any"
        for counts in self.refuse():
            self.assertEqual((counts.open, counts.total), (0, 1))
            self.assertEqual(failed(counts), {"refused": 1})


class MuxTests(SynchronousTestCase):
    """
    The ends of muxes
    """

    def setUp(self) -> None:
        self.clock = Clock()
        keyring = Keyring({"alice": ALICE, "bob": PSK})
        self.server = MuxFactory(keyring, False, Recorders(), clock=self.clock)
        self.tally = self.server.tally

    def pair(self, psk: str) -> MuxPair:
        client = MuxFactory(psk, True, clock=self.clock)
        pair = MuxPair(
            clientFactory=client, serverFactory=self.server, clock=self.clock
        )
        pair.flush()
        return pair

    def test_ended(self) -> None:
        """
        The bytes of a mux that ends are kept, by peer, on both sides.
        """
        received = sent = 0
        for _ in range(2):
            pair = self.pair(ALICE)
            pair.client.openStream(Recorders())
            pair.flush()
            self.assertEqual(self.tally.ended.keys() - {"alice"}, set())
            pair.client.close()
            pair.flush()
            received += pair.server.bytesReceived
            sent += pair.server.bytesSent
            sums = pair.clientFactory.tally.ended[""]
            self.assertEqual(sums.received, pair.client.bytesReceived)
        sums = self.tally.ended["alice"]
        self.assertEqual((sums.muxes, sums.received, sums.sent), (2, received, sent))
        self.assertGreater(received, sent)
        self.assertEqual(self.tally.strangers, 0)

    def test_strangers(self) -> None:
        """
        A mux whose peer has another key counts as a stranger's, and so does a
        connection that never gets a mux.  One that leaves without a word does not.
        """
        self.pair(EVE)
        self.assertEqual((self.tally.strangers, self.tally.ended), (1, {}))
        newcomers = Newcomers(self.server)
        for count, data in ((2, bytes(100)), (2, b"")):
            protocol = newcomers.buildProtocol(HERE)
            transport: Any = StringTransport(peerAddress=HERE)
            transport.abortConnection = transport.loseConnection
            protocol.makeConnection(transport)
            if data:
                protocol.dataReceived(data)
            protocol.connectionLost()
            self.clock.advance(0)
            self.assertEqual(self.tally.strangers, count)
        self.assertEqual(self.tally.ended, {})

    def test_healthCheck(self) -> None:
        """
        Nor does a mux that its peer leaves without a word.
        """
        mux = self.server.buildProtocol(HERE)
        mux.makeConnection(StringTransport(peerAddress=HERE))
        mux.connectionLost()
        self.clock.advance(1)
        self.assertEqual((self.server.muxes, self.tally.strangers), ([], 0))

    def test_refused(self) -> None:
        """
        A connection over the quota of its address counts as a stranger's.
        """
        limits = Limits(addressQuota=1)
        server = MuxFactory(PSK, False, clock=self.clock, limits=limits)
        newcomers = Newcomers(server)
        for count in (0, 1):
            protocol = newcomers.buildProtocol(HERE)
            transport = StringTransport(peerAddress=HERE)
            protocol.makeConnection(transport)
            self.assertEqual(server.tally.strangers, count)
