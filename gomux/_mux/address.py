# -*- test-case-name: gomux.test.mux.test_address -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The address of a stream.
"""

from __future__ import annotations

from twisted.internet.interfaces import IAddress
from zope.interface import implementer


@implementer(IAddress)
class StreamAddress:
    """
    Where a stream is: the carrier's address, and the stream's ID.

    C{type}, C{host} and C{port} are those of the carrier where it has them, for
    protocols that expect them of any address.

    @ivar carrier: the address of this end of the carrier or of the other.
    @ivar streamID: from 0 to 2**32 - 1; even if the client opened the stream.
    """

    __slots__ = ("carrier", "streamID")

    def __init__(self, carrier: IAddress, streamID: int) -> None:
        self.carrier = carrier
        self.streamID = streamID

    @property
    def host(self) -> str:
        """
        The carrier's host.

        @raise AttributeError: if the carrier is of a kind that has none.
        """
        return self.carrier.host  # type: ignore[attr-defined, no-any-return]

    @property
    def type(self) -> str:
        """
        The carrier's type, such as C{"TCP"}.

        @raise AttributeError: if the carrier is of a kind that has none.
        """
        return self.carrier.type  # type: ignore[attr-defined, no-any-return]

    @property
    def port(self) -> int:
        """
        The carrier's port.

        @raise AttributeError: if the carrier is of a kind that has none.
        """
        return self.carrier.port  # type: ignore[attr-defined, no-any-return]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StreamAddress):
            return NotImplemented
        return self.streamID == other.streamID and bool(self.carrier == other.carrier)

    def __hash__(self) -> int:
        return hash((self.carrier, self.streamID))

    def __repr__(self) -> str:
        return f"StreamAddress({self.carrier!r}, {self.streamID})"
