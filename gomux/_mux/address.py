# -*- test-case-name: gomux.test.mux.test_address -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The address of a stream.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from twisted.internet.address import (
    HostnameAddress,
    IPv4Address,
    IPv6Address,
    UNIXAddress,
)
from twisted.internet.interfaces import IAddress
from zope.interface import implementer

#: The types of carrier addresses that programs ask an address for.
KINDS = (IPv4Address, IPv6Address, UNIXAddress, HostnameAddress)


@implementer(IAddress)
class StreamAddress:
    """
    Where a stream is: the carrier's address, with the stream's ID beside it.

    Programs that know TCP ask an address for its type and its attributes.  So a
    stream's address is an instance of the carrier's type too, such as
    L{IPv4Address<twisted.internet.address.IPv4Address>}, and has its attributes, such
    as C{host} and C{port}.

    @ivar carrier: the address of this end of the carrier or of the other.
    @ivar streamID: from 0 to 2**32 - 1; even if the client opened the stream.
    """

    carrier: IAddress
    streamID: int

    def __new__(cls, carrier: IAddress, streamID: int) -> StreamAddress:
        kind = type(carrier)
        self: StreamAddress = object.__new__(_both(kind) if kind in KINDS else cls)
        self.carrier = carrier
        self.streamID = streamID
        return self

    def __init__(self, carrier: IAddress, streamID: int) -> None:
        """
        @param carrier: the carrier's address.
        @param streamID: from 0 to 2**32 - 1.
        """

    def __getattr__(self, name: str) -> Any:
        """
        @return: what the carrier's address has by that name.
        @raise AttributeError: if it has nothing.
        """
        if name == "carrier":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self.carrier, name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StreamAddress):
            return False
        return self.streamID == other.streamID and bool(self.carrier == other.carrier)

    def __hash__(self) -> int:
        return hash((self.carrier, self.streamID))

    def __repr__(self) -> str:
        return f"StreamAddress({self.carrier!r}, {self.streamID})"

    def __reduce__(self) -> tuple[Any, ...]:
        return StreamAddress, (self.carrier, self.streamID)


@lru_cache(maxsize=len(KINDS))
def _both(kind: type) -> type:
    """
    Make the type of the addresses of streams over carriers of some kind.
    """
    return type("StreamAddress", (StreamAddress, kind), {})
