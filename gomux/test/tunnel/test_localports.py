# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux.tunnel._localports}.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import Mock

from twisted.internet.address import (
    HostnameAddress,
    IPv4Address,
    IPv6Address,
    UNIXAddress,
)
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gomux import Keyring, MuxFactory
from gomux.limits import TunnelLimits
from gomux.test.support.helpers import HalfRecorder, Recorders
from gomux.test.support.tunnelrig import Target
from gomux.testing import MuxPair
from gomux.tunnel import _localports, target
from gomux.tunnel._localports import (
    PORTS,
    TIME_WAIT,
    LocalPorts,
    isElsewhere,
    portsOfTarget,
)

ALICE = "the pre-shared key of alice"
BOB = "the pre-shared key of bob"
ELSEWHERE = IPv4Address("TCP", "192.0.2.4", 80)


class PortsTests(SynchronousTestCase):
    """
    L{portsOfTarget} and L{isElsewhere}.
    """

    def setUp(self) -> None:
        self.settings = Path(self.mktemp())
        self.settings.mkdir()
        self.patch(_localports, "SETTINGS", self.settings)

    def test_range(self) -> None:
        """
        Half of the ports may be used.
        """
        (self.settings / "tcp_tw_reuse").write_text("2\n")
        (self.settings / "ip_local_port_range").write_text("32768\t60999\n")
        self.assertEqual(portsOfTarget(), 14116)

    def test_reused(self) -> None:
        """
        If the system uses ports soon again, any number may be used.
        """
        (self.settings / "tcp_tw_reuse").write_text("1\n")
        (self.settings / "ip_local_port_range").write_text("32768\t60999\n")
        self.assertEqual(portsOfTarget(), sys.maxsize)
        ports = LocalPorts(Keyring({"alice": ALICE, "bob": BOB}), Clock())
        ports.closedFirst("alice", Mock(getPeer=lambda: ELSEWHERE))
        self.assertEqual(ports.used, 0)

    def test_unknown(self) -> None:
        """
        A system that does not tell has the range of IANA.
        """
        self.assertEqual(portsOfTarget(), PORTS // 2)

    def test_elsewhere(self) -> None:
        """
        Only connections to other machines keep their ports for long.
        """
        for address in (ELSEWHERE, IPv6Address("TCP", "2001:db8::1", 80)):
            self.assertTrue(isElsewhere(address), address)
        for here in (
            IPv4Address("TCP", "127.0.0.1", 80),
            IPv6Address("TCP", "::1", 80),
            UNIXAddress("/run/target"),
            HostnameAddress(b"target.example", 80),
            None,
        ):
            self.assertFalse(isElsewhere(here), here)


class LocalPortsTests(SynchronousTestCase):
    """
    How two peers share the local ports of the connections to a target.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.keyring = Keyring({"alice": ALICE, "bob": BOB})
        self.target = Target(self.clock)
        self.tunnel = target(
            *("the target", self.target, self.clock, TunnelLimits(), self.keyring)
        )
        ports = self.tunnel.ports
        assert ports is not None
        ports.resize(16)
        self.ports = ports
        self.server = MuxFactory(self.keyring, False, self.tunnel, clock=self.clock)
        self.alice, self.bob = self.connect(ALICE), self.connect(BOB)

    def connect(self, psk: str) -> MuxPair:
        """
        Connect a client with this key to the server.
        """
        client = MuxFactory(psk, True, clock=self.clock)
        pair = MuxPair(
            clientFactory=client, serverFactory=self.server, clock=self.clock
        )
        pair.flush()
        return pair

    def open(self, pair: MuxPair) -> HalfRecorder:
        """
        Open a stream.
        """
        recorders = Recorders(HalfRecorder)
        pair.client.openStream(recorders)
        pair.flush()
        stream = recorders.made[0]
        assert isinstance(stream, HalfRecorder)
        return stream

    def close(self, pair: MuxPair) -> None:
        """
        Open a stream, and close it before the target does.
        """
        self.open(pair).stream.loseConnection()
        pair.flush()

    def test_shared(self) -> None:
        """
        A peer that opens and closes streams without end is refused when it has used
        nearly all ports.  Another peer is not.
        """
        for _ in range(20):
            self.close(self.alice)
        self.assertTrue(12 < self.ports["alice"] < 16, self.ports["alice"])
        self.assertIsNotNone(self.open(self.alice).reason)
        self.assertIsNone(self.open(self.bob).reason)

    def test_given(self) -> None:
        """
        The system gives a port back after L{TIME_WAIT} seconds.
        """
        for _ in range(20):
            self.close(self.alice)
        self.clock.advance(TIME_WAIT - 1)
        self.assertIsNotNone(self.open(self.alice).reason)
        self.clock.advance(1)
        self.assertIsNone(self.open(self.alice).reason)
        self.assertEqual(self.ports.used, 1)

    def test_halfClosed(self) -> None:
        """
        If the peer closes its half, and then the target closes, this side was first.
        """
        self.open(self.alice).stream.loseWriteConnection()
        self.alice.flush()
        self.target.carriers[0][1].loseConnection()
        self.alice.flush()
        self.assertEqual(self.tunnel.bridges, set())
        self.assertEqual(self.ports["alice"], 1)

    def test_targetFirst(self) -> None:
        """
        If the target closes first, this side keeps no port.
        """
        stream = self.open(self.alice)
        self.target.carriers[0][1].loseConnection()
        self.alice.flush()
        stream.stream.loseConnection()
        self.alice.flush()
        self.assertEqual(self.tunnel.bridges, set())
        self.assertEqual(self.ports.used, 0)

    def test_aborted(self) -> None:
        """
        A connection that is aborted keeps no port.
        """
        self.open(self.alice).stream.abortConnection()
        self.alice.flush()
        self.assertEqual(self.tunnel.bridges, set())
        self.assertEqual(self.ports.used, 0)

    def test_alone(self) -> None:
        """
        The only peer of a keyring is not refused, and nothing is kept for it.
        """
        self.keyring.adopt(Keyring({"alice": ALICE}))
        for _ in range(20):
            self.close(self.alice)
        self.assertEqual(self.ports.used, 0)
        for _ in range(20):
            self.assertIsNone(self.open(self.alice).reason)
