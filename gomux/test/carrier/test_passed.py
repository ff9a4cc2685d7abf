# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._carrier.passed}.
"""

from __future__ import annotations

import array
import os
import socket
from typing import Any

from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
)
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.unix import Client
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory
from gomux._mux.newcomer import Newcomers
from gomux._mux.strangers import Refused
from gomux.endpoints._haproxy import ProxiedFactory
from gomux.limits import TunnelLimits
from gomux.test.support.helpers import Recorders
from gomux.testing import PSK
from gomux.tunnel._end import End
from gomux.tunnel._tunnel import Tunnel, _Refusal


class PassedTests(SynchronousTestCase):
    """
    Every protocol that can have a connection of a Unix socket.
    """

    def protocols(self) -> list[Any]:
        clock: Any = Clock()
        server = MuxFactory(PSK, False, clock=clock)
        client = MuxFactory(PSK, True, clock=clock)
        connect: Any = None
        tunnel = Tunnel("", connect, clock, TunnelLimits(), {})
        return [
            Newcomers(server).buildProtocol(None),
            client.buildProtocol(None),
            Refused(),
            tunnel.buildProtocol(None),
            _Refusal(),
            ProxiedFactory(Recorders(), clock).buildProtocol(None),
        ]

    def pass_(self, protocol: Protocol) -> None:
        """
        Have a transport receive a descriptor for a protocol.
        """
        here, there = socket.socketpair()
        self.addCleanup(there.close)
        self.addCleanup(here.close)
        kept, passed = os.pipe()
        os.set_blocking(kept, False)
        self.addCleanup(os.close, kept)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [passed]))]
        there.sendmsg([b"x"], ancillary)
        os.close(passed)
        transport: Any = object.__new__(Client)
        transport.__dict__.update(
            socket=here, protocol=protocol, reactor=MemoryReactorClock()
        )
        transport.__dict__.update(_dataReceived=lambda data: None)
        transport.__dict__.update(getHost=str, getPeer=str)
        transport.doRead()
        # The passed end was the last one.
        self.assertEqual(os.read(kept, 1), b"")

    def test_closed(self) -> None:
        """
        A descriptor is closed, and nothing is logged.
        """
        events: list[Any] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for protocol in self.protocols():
            self.pass_(protocol)
            self.assertEqual(events, [], type(protocol))

    def test_farEnd(self) -> None:
        """
        The far end of a bridge takes no descriptors: Twisted's client endpoints pass on
        one of the optional interfaces of a protocol, and it must hear of half-closes.
        """
        self.assertFalse(IFileDescriptorReceiver.implementedBy(End))
        self.assertTrue(IHalfCloseableProtocol.implementedBy(End))
