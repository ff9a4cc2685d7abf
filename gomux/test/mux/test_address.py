"""
Tests for L{gomux._mux.address}.
"""

from __future__ import annotations

import pickle
from copy import copy
from typing import Any

from twisted.internet.address import (
    HostnameAddress,
    IPv4Address,
    IPv6Address,
    UNIXAddress,
    _ProcessAddress,
)
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from gomux import StreamAddress

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
        address = StreamAddress(IPV4, 3)
        for other in (copy(address), pickle.loads(pickle.dumps(address))):
            self.assertEqual(other, address)
            self.assertIsInstance(other, IPv4Address)
