"""
Tests for L{gomux._mux.address}.
"""

from __future__ import annotations

import pickle
from copy import copy, deepcopy
from io import BytesIO
from typing import Any

from twisted.internet.address import (
    HostnameAddress,
    IPv4Address,
    IPv6Address,
    UNIXAddress,
    _ProcessAddress,
)
from twisted.internet.interfaces import IAddress
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface.verify import verifyObject

from gomux import MuxFactory, StreamAddress
from gomux.test.support.certificates import CERTIFICATE, NAME
from gomux.test.support.helpers import Recorders
from gomux.testing import PSK
from gomux.testing._pair import connect

IPV4FAR = IPv4Address("TCP", "192.0.2.2", 7000)
IPV6FAR = IPv6Address("TCP", "2001:db8::2", 7000)
UNIXFAR = UNIXAddress(b"/run/far")
IPV4 = IPv4Address("TCP", "192.0.2.1", 7000)
IPV6 = IPv6Address("TCP", "2001:db8::1", 7000, 5, "eth0")
UNIX = UNIXAddress(b"/run/mux")
NAMED = HostnameAddress(b"example.com", 7000)
PROCESS = _ProcessAddress()


class StreamAddressTests(SynchronousTestCase):
    """
    L{StreamAddress}
    """

    def test_interface(self) -> None:
        """
        A stream's address provides C{IAddress}, whatever the type of the carrier's
        address.
        """
        for carrier in (IPV4, IPV6, UNIX, NAMED, PROCESS):
            self.assertTrue(verifyObject(IAddress, StreamAddress(carrier, 0)))

    def test_type(self) -> None:
        """
        A stream's address is also an instance of the type of the carrier's address, and
        of no other address type.
        """
        for carrier in (IPV4, IPV6, UNIX, NAMED):
            address: Any = StreamAddress(carrier, 3)
            self.assertIsInstance(address, StreamAddress)
            for other in (IPV4, IPV6, UNIX, NAMED):
                same = type(other) is type(carrier)
                self.assertEqual(isinstance(address, type(other)), same)
            self.assertIs(type(StreamAddress(carrier, 5)), type(address))
        self.assertIs(type(StreamAddress(PROCESS, 3)), StreamAddress)

    def test_attributes(self) -> None:
        """
        A stream's address has the attributes of the carrier's address besides its own.
        """
        for carrier, names in (
            (IPV4, ("type", "host", "port")),
            (IPV6, ("type", "host", "port", "flowInfo", "scopeID")),
            (UNIX, ("name",)),
            (NAMED, ("hostname", "port")),
        ):
            address = StreamAddress(carrier, 3)
            for name in names:
                self.assertEqual(getattr(address, name), getattr(carrier, name))
            self.assertIs(address.carrier, carrier)
            self.assertEqual(address.streamID, 3)
        self.assertRaises(AttributeError, getattr, StreamAddress(UNIX, 3), "host")

    def test_equal(self) -> None:
        """
        A stream's address equals another address of the same stream, but never the
        address of a carrier.
        """
        for carrier in (IPV4, IPV6, UNIX, NAMED):
            address = StreamAddress(carrier, 3)
            same = StreamAddress(copy(carrier), 3)
            self.assertEqual(address, same)
            self.assertEqual(hash(address), hash(same))
            self.assertNotEqual(address, StreamAddress(carrier, 5))
            self.assertFalse(address == carrier)
            self.assertFalse(carrier == address)
        self.assertNotEqual(StreamAddress(IPV4, 3), StreamAddress(IPV6, 3))

    def test_repr(self) -> None:
        """
        The C{repr} of a stream's address has the carrier's address and the stream ID.
        """
        for carrier in (IPV4, UNIX, PROCESS):
            text = f"StreamAddress({carrier!r}, 3)"
            self.assertEqual(repr(StreamAddress(carrier, 3)), text)

    def test_copies(self) -> None:
        """
        A stream's address can be copied and pickled.
        """
        for carrier in (IPV4, IPV6, UNIX, NAMED, PROCESS):
            address = StreamAddress(carrier, 3)
            for copied in (copy, deepcopy, lambda a: pickle.loads(pickle.dumps(a))):
                other = copied(address)
                self.assertEqual(other.streamID, 3)
                self.assertIs(type(other), type(address))
                if carrier is not PROCESS:  # Two of these are never equal.
                    self.assertEqual(other, address)


class UseTests(SynchronousTestCase):
    """
    What programs that were written for TCP ask of the transport of a stream.
    """

    def connect(self, near: Any, far: Any, served: Any) -> None:
        """
        Connect two muxes, with addresses of any kind, and open a stream.
        """
        clock = Clock()
        self.opened = Recorders()
        here = MuxFactory(PSK, True, clock=clock).buildProtocol(far)
        there = MuxFactory(PSK, False, served, clock=clock).buildProtocol(near)
        connect(clock, (here, there), (near, far), 0.0, None, 65536)
        here.openStream(self.opened)
        self.run_ = lambda: clock.pump([0.0] * 10)
        self.run_()

    def test_bothSides(self) -> None:
        """
        Each side sees the addresses of its own carrier, with TLS in the stream too.
        """
        for near, far in ((IPV4, IPV4FAR), (IPV6, IPV6FAR), (UNIX, UNIXFAR)):
            served = Recorders()
            self.connect(near, far, served)
            options: Any = CERTIFICATE.options()
            clientOptions: Any = optionsForClientTLS(NAME, CERTIFICATE)
            for hasTLS in (False, True):
                if hasTLS:
                    served.made[0].stream.startTLS(options)
                    self.opened.made[0].stream.startTLS(clientOptions)
                    self.run_()
                for recorder, own, other in (
                    (self.opened.made[0], near, far),
                    (served.made[0], far, near),
                ):
                    stream = recorder.stream
                    for address, carrier in (
                        (stream.getHost(), own),
                        (stream.getPeer(), other),
                    ):
                        self.assertIsInstance(address, type(carrier))
                        self.assertEqual(address, StreamAddress(carrier, 0))

    def test_web(self) -> None:
        """
        A web site knows its clients, in requests and in its access log.
        """
        for near, far, expected in (
            (IPV4, IPV4FAR, "192.0.2.1"),
            (IPV6, IPV6FAR, "2001:db8::1"),
            (UNIX, UNIXFAR, "-"),
        ):
            found: list[Any] = []

            class Page(Resource):
                isLeaf = True

                def render_GET(self, request: Any) -> bytes:
                    found.append(request.getClientIP())  # noqa: B023
                    found.append(request.getClientAddress())  # noqa: B023
                    found.append(request.getHost())  # noqa: B023
                    return b"hello"

            site = Site(Page(), reactor=Clock())
            self.connect(near, far, site)
            site.logFile = log = BytesIO()
            request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            self.opened.made[0].stream.write(request)
            self.run_()
            client, address, host = found
            self.assertEqual(client or "-", expected)
            self.assertEqual(address, StreamAddress(near, 0))
            self.assertEqual(host, StreamAddress(far, 0))
            self.assertIn(b"hello", self.opened.made[0].received)
            line = log.getvalue().decode()
            self.assertTrue(line.startswith(f'"{expected}" - - '), line)
