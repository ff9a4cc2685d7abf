# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._mux.strangers}, and that a stranger is sent nothing.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import (
    HostnameAddress,
    IPv4Address,
    IPv6Address,
    UNIXAddress,
)
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits, MuxFactory
from gomux._mux.strangers import (
    KNOWN_ADDRESSES,
    PATIENCE,
    Refused,
    Strangers,
    sourceOf,
)
from gomux._wire.frame import Flag
from gomux._wire.keyring import Keyring
from gomux.endpoints._haproxy import ProxiedFactory
from gomux.error import ConnectionClosed, LimitExceeded, OutOfSequence
from gomux.test.support.helpers import FramePeer, Recorders, Rig
from gomux.test.support.strictrig import StrictRig
from gomux.testing import PSK

CLOSE_MUX = (0, Flag.CLOSE_MUX, 0)
UNIX = UNIXAddress(b"/run/client")


def at(host: str) -> IAddress:
    """
    @return: an address of a client.
    """
    kind = IPv6Address if ":" in host else IPv4Address
    return kind("TCP", host, 49152)


class SourceTests(SynchronousTestCase):
    """
    L{sourceOf}
    """

    def test_four(self) -> None:
        """
        Each IPv4 address is a source of its own, also if it is mapped to IPv6.
        """
        self.assertEqual(sourceOf(at("192.0.2.1")), sourceOf(at("::ffff:192.0.2.1")))
        sources = {sourceOf(at(f"192.0.2.{last}")) for last in range(256)}
        self.assertEqual(len(sources), 256)

    def test_six(self) -> None:
        """
        All addresses of an IPv6 network of 64 bits are one source.
        """
        one = sourceOf(at("2001:db8::1"))
        self.assertIsNotNone(one)
        self.assertEqual(one, sourceOf(at("2001:db8::ffff:ffff:ffff:ffff")))
        self.assertNotEqual(one, sourceOf(at("2001:db8:0:1::1")))
        self.assertEqual(sourceOf(at("fe80::1%eth0")), sourceOf(at("fe80::2")))
        # This network has the number that an IPv4 address has.
        self.assertNotEqual(sourceOf(at("0.0.0.1")), sourceOf(at("0:0:0:1::")))

    def test_others(self) -> None:
        """
        A Unix socket has no source, and neither has an address that is not numeric.
        """
        for address in (UNIX, UNIXAddress(None), None, HostnameAddress(b"a", 1)):
            self.assertIsNone(sourceOf(address))
        self.assertIsNone(sourceOf(at("localhost")))


class StrangersTests(SynchronousTestCase):
    """
    L{Strangers}
    """

    def strangers(self, random: float = 1.0, **limits: int) -> Strangers:
        """
        @param random: what takes the place of all random numbers.
        """
        self.clock = Clock()
        made = Strangers(Limits(**limits), Keyring.of(PSK), self.clock.seconds)
        made._random = lambda: random
        return made

    def add(self, strangers: Strangers, *hosts: str | None) -> list[object]:
        """
        Add a mux for each address; C{None} stands for a Unix socket.
        """
        added: list[object] = []
        for host in hosts:
            mux: object = object()
            address = UNIX if host is None else at(host)
            strangers.add(mux, address)  # type: ignore[arg-type]
            added.append(mux)
        return added

    def test_quota(self) -> None:
        """
        An address has a quota, also while strict mode's handshake is not done.
        """
        strangers = self.strangers(addressQuota=3)
        muxes = self.add(strangers, "192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2")
        strangers.heard(muxes[0], "")  # type: ignore[arg-type]
        self.assertIn("this address", strangers.refusal(at("192.0.2.1")) or "")
        self.assertIsNone(strangers.refusal(at("192.0.2.2")))
        strangers.remove(muxes[0])  # type: ignore[arg-type]
        self.assertIsNone(strangers.refusal(at("192.0.2.1")))

    def test_silentForLong(self) -> None:
        """
        A connection over the quota takes the place of the oldest connection of its
        address that has been silent for long, if there is one.
        """
        strangers = self.strangers(addressQuota=3)
        muxes = self.add(strangers, "192.0.2.2", *["192.0.2.1"] * 3)
        self.clock.advance(PATIENCE)
        self.assertIsNotNone(strangers.refusal(at("192.0.2.1")))
        self.clock.advance(1)
        self.assertIsNone(strangers.refusal(at("192.0.2.1")))
        self.assertIs(self.surplus(strangers, "192.0.2.1"), muxes[1])
        for mux in muxes[1:]:
            strangers.remove(mux)  # type: ignore[arg-type]
        silent, *heard = self.add(strangers, *["192.0.2.1"] * 2)
        for mux in heard:
            strangers.heard(mux, "")  # type: ignore[arg-type]
        self.assertIsNotNone(strangers.refusal(at("192.0.2.1")))

    def test_unix(self) -> None:
        """
        Unix sockets have no quota, and none of their connections is refused at random.
        """
        strangers = self.strangers(random=0.0, addressQuota=3, maxUnauthenticated=20)
        self.add(strangers, *[None] * 20)
        self.assertIsNone(strangers.refusal(UNIX))

    def test_early(self) -> None:
        """
        Above half of C{maxUnauthenticated} connections are refused at random, the more
        likely the more there are, and surely once it is reached.  An address without
        other connections is not affected.
        """
        for count, random, isRefused in (
            (50, 0.0, False),
            (51, 0.0, True),
            (75, 0.49, True),
            (75, 0.51, False),
            (100, 0.99, True),
        ):
            strangers = self.strangers(random, addressQuota=99, maxUnauthenticated=100)
            hosts = [f"192.0.2.{number}" for number in range(count)]
            self.add(strangers, *hosts)
            self.assertEqual(bool(strangers.refusal(at(hosts[0]))), isRefused)
            self.assertIsNone(strangers.refusal(at("192.0.2.200")))

    def surplus(self, strangers: Strangers, host: str) -> object:
        """
        Add one more mux than may wait.

        @return: which is dropped.
        """
        return strangers.add(object(), at(host))  # type: ignore[arg-type]

    def test_oldest(self) -> None:
        """
        The oldest mux of the address that has most muxes is dropped.
        """
        strangers = self.strangers(maxUnauthenticated=5)
        one, two = "192.0.2.1", "192.0.2.2"
        muxes = self.add(strangers, one, two, one, two, two)
        self.assertIs(self.surplus(strangers, "192.0.2.3"), muxes[1])

    def test_silentFirst(self) -> None:
        """
        A connection whose peer has sent a genuine frame is dropped only if there are no
        others.
        """
        strangers = self.strangers(maxUnauthenticated=3)
        muxes = self.add(strangers, "192.0.2.1", "192.0.2.1", "192.0.2.2")
        strangers.heard(muxes[0], "")  # type: ignore[arg-type]
        strangers.heard(muxes[1], "")  # type: ignore[arg-type]
        self.assertIs(self.surplus(strangers, "192.0.2.3"), muxes[2])
        strangers.remove(muxes[2])  # type: ignore[arg-type]
        for number, mux in enumerate(list(strangers._sources)):
            strangers.heard(mux, str(number))
        self.assertIs(self.surplus(strangers, "192.0.2.4"), muxes[0])

    def test_bounded(self) -> None:
        """
        Nothing is kept of a connection that is gone.
        """
        strangers = self.strangers()
        for number in range(100):
            (mux,) = self.add(strangers, f"192.0.2.{number}")
            if number % 2:
                strangers.heard(mux, "")  # type: ignore[arg-type]
            strangers.remove(mux)  # type: ignore[arg-type]
            strangers.remove(mux)  # type: ignore[arg-type]
        kept = (strangers._sources, strangers._silent, strangers._counts)
        self.assertEqual(kept, ({}, {}, {}))


class KnownTests(SynchronousTestCase):
    """
    The addresses of peers that have shown their keys.
    """

    def setUp(self) -> None:
        keyring = Keyring.of(PSK)
        self.strangers = Strangers(Limits(), keyring, Clock().seconds)

    def test_met(self) -> None:
        """
        The last name at an address is known.  A Unix socket has no address.
        """
        strangers = self.strangers
        self.assertIsNone(strangers.nameAt(at("192.0.2.1")))
        for name in ("alice", "bob"):
            strangers.met(at("192.0.2.1"), name)
            self.assertEqual(strangers.nameAt(at("192.0.2.1")), name)
        strangers.met(UNIXAddress("/tmp/x"), "alice")
        self.assertIsNone(strangers.nameAt(UNIXAddress("/tmp/x")))
        self.assertIsNone(strangers.nameAt(None))

    def test_bounded(self) -> None:
        """
        The addresses that have not been used for longest are forgotten.
        """
        hosts = [f"10.0.{n // 250}.{n % 250}" for n in range(KNOWN_ADDRESSES + 1)]
        for host in (*hosts[:-1], hosts[0], hosts[-1]):
            self.strangers.met(at(host), "alice")
        known = [self.strangers.nameAt(at(host)) for host in hosts]
        self.assertEqual(known, ["alice", None] + ["alice"] * (KNOWN_ADDRESSES - 1))


class HandshakeShareTests(SynchronousTestCase):
    """
    Peers that have sent a hello and do not finish the handshake.
    """

    def test_share(self) -> None:
        """
        A peer protects no more than half of the connections from being dropped, also
        if it is the only peer: its hellos may be recorded ones.
        """
        for names in (("alice", "bob"), ("alice",)):
            keyring = Keyring({name: f"{name}{PSK}" for name in names})
            limits = Limits(maxUnauthenticated=4)
            strangers = Strangers(limits, keyring, Clock().seconds)
            muxes: list[Any] = [object() for _ in range(5)]
            for mux in muxes[:4]:
                strangers.add(mux, None)
                strangers.heard(mux, "alice")
                strangers.heard(mux, "alice")
            victim = strangers.add(muxes[4], None)
            self.assertIs(victim, muxes[2])
            for mux in muxes:
                strangers.remove(mux)
            self.assertEqual((strangers._heard, strangers._heardOf), ({}, {}))


class RefusedTests(SynchronousTestCase):
    """
    L{Refused}, and the factory that makes it.
    """

    def test_dropped(self) -> None:
        """
        A connection that is refused is aborted, or closed if it cannot be aborted.
        """
        aborted = StringTransport()
        Refused().makeConnection(aborted)
        self.assertTrue(aborted.disconnected)

        class Meagre:
            lost = False

            def loseConnection(self) -> None:
                self.lost = True

        meagre = Meagre()
        Refused().makeConnection(meagre)
        self.assertTrue(meagre.lost)

    def test_factory(self) -> None:
        """
        A server makes no mux for a connection beyond the quota, also behind a wrapper
        that needs a protocol.  A client has no quota.
        """
        limits = Limits(addressQuota=1)
        server = MuxFactory(PSK, False, clock=Clock(), limits=limits)
        wrapper = WrappingFactory(server)
        here = at("192.0.2.1")
        for expected in (1, 1):
            protocol = wrapper.buildProtocol(here)
            assert protocol is not None
            transport = StringTransport(peerAddress=here)
            protocol.makeConnection(transport)
            self.assertEqual(len(server.muxes), expected)
        self.assertTrue(transport.disconnected)
        client = MuxFactory(PSK, True, clock=Clock(), limits=limits)
        for _ in range(3):
            made: Protocol = client.buildProtocol(here)
            made.makeConnection(StringTransport(peerAddress=here))
        self.assertEqual(len(client.muxes), 3)

    def test_proxied(self) -> None:
        """
        Behind C{haproxy:} each client has a quota, not the load balancer.
        """
        limits = Limits(addressQuota=1)
        server = MuxFactory(PSK, False, clock=Clock(), limits=limits)
        proxied = ProxiedFactory(server, Clock())
        ends = []
        for host in ("198.51.100.7", "198.51.100.8", "198.51.100.7"):
            protocol = proxied.buildProtocol(at("192.0.2.1"))
            transport = StringTransport(peerAddress=at("192.0.2.1"))
            protocol.makeConnection(transport)
            header = f"PROXY TCP4 {host} 192.0.2.9 1111 2222\r\n"
            protocol.dataReceived(header.encode())
            ends.append(transport.disconnected)
        self.assertEqual(ends, [False, False, True])
        self.assertEqual(len(server.muxes), 2)


class StrictTests(SynchronousTestCase):
    """
    The handshake of strict mode on a server beside strangers.
    """

    def test_slowClient(self) -> None:
        """
        A client whose hello has come is not dropped in favour of silent connections,
        however many they are, and however long the client is silent after its hello.
        """
        rig = StrictRig(up=False, limits=Limits(maxUnauthenticated=3))
        rig.sendRaw(rig.handshake.takeOutput())
        for number in range(20):
            here = at(f"192.0.2.{number}")
            mux = rig.factory.buildProtocol(here)
            mux.makeConnection(StringTransport(peerAddress=here))
        self.assertIsNone(rig.mux.reason)
        left = [mux for mux in rig.factory.muxes if mux.reason is None]
        self.assertEqual(len(left), 3)


class SilenceTests(SynchronousTestCase):
    """
    A server sends nothing to a stranger.
    """

    def assertSilent(self, rig: Rig) -> None:
        """
        Check that the peer was sent nothing.
        """
        rig.run()
        self.assertEqual(rig.mux.bytesSent, 0)
        self.assertEqual(rig.peer.frames, [])

    def test_hours(self) -> None:
        """
        A stranger that stays silent gets no Keepalives.
        """
        rig = Rig()
        for _ in range(100):
            rig.clock.advance(600)
        self.assertSilent(rig)

    def test_end(self) -> None:
        """
        C{close}, C{drain} and C{abort} drop the carrier of a stranger.
        """
        for method in ("close", "drain", "abort"):
            rig = Rig()
            rig.clock.advance(5)
            closing = rig.mux.whenClosed()
            getattr(rig.mux, method)()
            self.assertSilent(rig)
            self.assertFalse(rig.peerCarrier.connected)
            self.assertIsInstance(self.successResultOf(closing), ConnectionClosed)

    def test_garbage(self) -> None:
        """
        A frame that does not open is not answered.
        """
        rig = Rig()
        rig.sendRaw(FramePeer("another").seal(0, Flag.KEEPALIVE))
        self.assertSilent(rig)

    def test_replay(self) -> None:
        """
        A recorded greeting is not answered, and its mux gets no streams.
        """
        rig = Rig()
        greeting = rig.peer.seal(0, Flag.KEEPALIVE)
        rig.sendRaw(greeting)
        self.assertTrue(rig.mux.authenticated)
        for _ in range(9):
            replay = Rig(clock=rig.clock, factory=rig.factory)
            replay.sendRaw(greeting)
            self.assertSilent(replay)
            self.assertIsInstance(replay.reason(), OutOfSequence)
        self.assertEqual(rig.factory.pool.muxes, [rig.mux])

    def test_stream(self) -> None:
        """
        A server with one key may open a stream to a silent client, because a client of
        the Go package is silent too.  Then it sends Keepalives and CloseMux as well.
        """
        rig = Rig()
        rig.mux.openStream(Recorders())
        self.assertEqual([frame[1] for frame in rig.sent()], [Flag.OPEN_STREAM])
        rig.clock.advance(600)
        rig.run()
        self.assertEqual([frame[1] for frame in rig.peer.frames], [Flag.KEEPALIVE])
        rig.send(1, Flag.CLOSE_STREAM)
        rig.mux.close()
        self.assertEqual(rig.sent()[-1], CLOSE_MUX)

    def test_client(self) -> None:
        """
        A client sends Keepalives and CloseMux to a server that has shown nothing.
        """
        rig = Rig(isClient=True)
        rig.peer.frames = []
        rig.clock.advance(600)
        rig.run()
        self.assertEqual([frame[1] for frame in rig.peer.frames], [Flag.KEEPALIVE])
        rig.mux.close()
        self.assertEqual(rig.sent()[-1], CLOSE_MUX)

    def test_evicted(self) -> None:
        """
        A stranger that is dropped for another is sent nothing.
        """
        rig = Rig()
        rig.mux.evict()
        self.assertSilent(rig)
        self.assertIsInstance(rig.reason(), LimitExceeded)
