# -*- test-case-name: gomux.test.mux.test_protocol -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The part of the mux factory that its muxes use, and the part of the mux that its streams
use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.interfaces import IAddress, IProtocolFactory, ITCPTransport

    from gomux._carrier.accept import AcceptPace
    from gomux._carrier.busypoll import BusyPoll
    from gomux._carrier.turns import PeersTurns, StrangersTurns, Turns
    from gomux._mux.buffers import Buffers
    from gomux._mux.gate import Gate
    from gomux._mux.log import ThrottledLog
    from gomux._mux.streamlife import StreamLife
    from gomux._mux.tally import Tally
    from gomux._wire.keyring import Keyring
    from gomux.error import GomuxError
    from gomux.interfaces import IStreamFactory
    from gomux.limits import Limits

_Mux = TypeVar("_Mux", contravariant=True)


class MuxOwner(Protocol[_Mux]):
    """
    The part of L{MuxFactory<gomux.MuxFactory>} that its muxes use: the settings, the
    objects that all its muxes share, and the methods that a mux calls at the events of
    its life.  The attributes are documented there.
    """

    clock: Any
    limits: Limits
    streamFactory: IStreamFactory | IProtocolFactory | None
    services: dict[str, IStreamFactory | IProtocolFactory]
    mayUse: Callable[[str, str | None], bool] | None
    isClient: bool
    greet: bool
    buffers: Buffers
    acceptPace: AcceptPace
    notices: ThrottledLog
    busyPoll: BusyPoll
    turns: Turns
    peersTurns: PeersTurns
    strangersTurns: StrangersTurns
    keyring: Keyring
    lingering: dict[StreamLife, Any]
    tally: Tally

    def makeGate(self) -> Gate:
        """
        @return: the gate of a new mux.
        """

    def isRevoked(self, gate: Gate | None) -> bool:
        """
        @return: whether the key that a gate has found was revoked since.
        """

    def checkRoom(self, peer: str) -> None:
        """
        Check that a peer that comes up may have another mux.

        @param peer: the name of its key.
        @raise LimitExceeded: if not.
        """

    def muxConnected(self, mux: _Mux) -> None:
        """
        The mux has its carrier.
        """

    def muxHeard(self, mux: _Mux, name: str) -> None:
        """
        The peer has sent a genuine frame, but has not finished the handshake.

        @param name: the name of its key.
        """

    def muxAuthenticated(self, mux: _Mux) -> None:
        """
        The peer has shown that it holds the key.
        """

    def muxEchoed(self, mux: _Mux) -> None:
        """
        The peer has echoed a ping.
        """

    def muxUngreeted(self, mux: _Mux) -> None:
        """
        Streams for services wait for the peer's greeting, and it did not come in time.
        """

    def muxWorn(self, mux: _Mux) -> None:
        """
        New streams should rather go over another mux: this one has few IDs left for
        them, or takes none any more.
        """

    def muxIdle(self, mux: _Mux) -> None:
        """
        The last stream of the mux has ended.
        """

    def muxLost(self, mux: _Mux, reason: GomuxError) -> None:
        """
        The mux has ended.

        @param reason: why it has ended.
        """


class CarriedMux(Protocol):
    """
    The part of the mux that its
    L{Streams<gomux._mux.streams.Streams>} use.

    @ivar streamFactory: see L{gomux.MuxProtocol}.
    @ivar services: see L{gomux.MuxProtocol}.
    """

    streamFactory: IStreamFactory | IProtocolFactory | None
    services: Mapping[str, IStreamFactory | IProtocolFactory]

    def getCarrier(self) -> ITCPTransport:
        """
        @return: the mux's own transport.
        """

    @property
    def hasCarrier(self) -> bool:
        """
        Whether the carrier is still connected.
        """

    @property
    def peerName(self) -> str:
        """
        The name of the key that the peer has shown.
        """

    def getHost(self) -> IAddress:
        """
        @return: the carrier's address at this end, even once the carrier is gone.
        """

    def getPeer(self) -> IAddress:
        """
        @return: the carrier's address at the other end, even once the carrier is gone.
        """
