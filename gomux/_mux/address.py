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

#: The types of carrier addresses that a stream's address can be an instance of.
KINDS = (IPv4Address, IPv6Address, UNIXAddress, HostnameAddress)


@implementer(IAddress)
class StreamAddress:
    """
    Where a stream is: the carrier's address, with the stream's ID beside it.

    Programs written for TCP check the type of an address and read its attributes.
    So a stream's address is also an instance of the carrier address's type, such as
    L{IPv4Address<twisted.internet.address.IPv4Address>}, and has that address's
    attributes, such as C{host} and C{port}.

    @ivar carrier: the carrier's address at this end, or at the peer's end.
    @ivar streamID: from 0 to 2**32 - 1; even if the client opened the stream.
    @ivar peerName: the name of the key that the peer of the mux has shown; C{""} if the
        key has no name, or before the peer has shown it.
    @ivar service: the name of the service that the stream is for; C{None} for none.
    """

    carrier: IAddress
    streamID: int
    peerName: str
    service: str | None

    def __new__(
        cls,
        carrier: IAddress,
        streamID: int,
        peerName: str = "",
        service: str | None = None,
    ) -> StreamAddress:
        kind = type(carrier)
        self: StreamAddress = object.__new__(_both(kind) if kind in KINDS else cls)
        self.carrier = carrier
        self.streamID = streamID
        self.peerName = peerName
        self.service = service
        return self

    def __init__(
        self,
        carrier: IAddress,
        streamID: int,
        peerName: str = "",
        service: str | None = None,
    ) -> None:
        """
        @param carrier: the carrier's address.
        @param streamID: from 0 to 2**32 - 1.
        @param peerName: the name of the key that the peer has shown.
        @param service: the name of the service; C{None} for none.
        """

    def __getattr__(self, name: str) -> Any:
        """
        @return: the attribute of the carrier's address.
        @raise AttributeError: if the carrier's address does not have it.
        """
        if name == "carrier":  # Not set yet, in a copy that is being made.
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
        return StreamAddress, (
            self.carrier,
            self.streamID,
            self.peerName,
            self.service,
        )


@lru_cache(maxsize=len(KINDS))
def _both(kind: type) -> type:
    """
    @param kind: the type of the carrier's address.
    @return: the type of the addresses of streams over that carrier.
    """
    return type("StreamAddress", (StreamAddress, kind), {})
