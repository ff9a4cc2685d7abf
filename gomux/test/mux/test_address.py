"""
Tests for L{gomux._mux.address}.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from gomux import StreamAddress


class AddressTests(SynchronousTestCase):
    """
    L{StreamAddress}
    """

    here = IPv4Address("TCP", "192.0.2.1", 7000)

    def test_interface(self) -> None:
        """
        It is an address.
        """
        verifyObject(IAddress, StreamAddress(self.here, 0))

    def test_carrier(self) -> None:
        """
        It shows the carrier's host and port.
        """
        address = StreamAddress(self.here, 3)
        self.assertEqual(
            (address.carrier, address.host, address.port, address.streamID),
            (self.here, "192.0.2.1", 7000, 3),
        )

    def test_noHost(self) -> None:
        """
        Over a carrier without host or port it has none either.
        """
        address = StreamAddress(UNIXAddress(b"/run/mux"), 3)
        self.assertFalse(hasattr(address, "host"))
        self.assertFalse(hasattr(address, "port"))

    def test_equality(self) -> None:
        """
        Two are the same if carrier and stream are.
        """
        address = StreamAddress(self.here, 3)
        same = StreamAddress(IPv4Address("TCP", "192.0.2.1", 7000), 3)
        self.assertEqual(address, same)
        self.assertEqual(hash(address), hash(same))
        self.assertNotEqual(address, StreamAddress(self.here, 5))
        self.assertNotEqual(
            address, StreamAddress(IPv4Address("TCP", "192.0.2.1", 7001), 3)
        )
        self.assertNotEqual(address, self.here)

    def test_repr(self) -> None:
        """
        Its repr names the carrier and the stream.
        """
        text = repr(StreamAddress(self.here, 3))
        self.assertIn("7000", text)
        self.assertIn("3)", text)
