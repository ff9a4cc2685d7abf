# -*- test-case-name: gomux.test.testing.test_testing -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Two protocols, and two muxes, connected in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.task import Clock

from gomux._mux.factory import MuxFactory
from gomux._mux.protocol import MuxProtocol
from gomux.testing._memory import Carrier
from gomux.testing._pipe import Pipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gomux.interfaces import IStreamFactory
    from gomux.limits import Limits

    Services = Mapping[str, IStreamFactory | IProtocolFactory]

#: The pre-shared key of a L{MuxPair} that makes its own factories.
PSK: Final = "a pre-shared key for tests alone"


def connect(
    clock: Clock,
    protocols: tuple[IProtocol, IProtocol],
    addresses: tuple[IPv4Address, IPv4Address],
    latency: float,
    chunkSize: int | None,
    bufferSize: int,
) -> tuple[Carrier, Carrier]:
    """
    Connect two protocols.  The second protocol gets C{makeConnection} first.

    @return: their carriers.  The C{outgoing} pipe of each carrier is the C{incoming}
        pipe of the other carrier.
    """
    near, far = (Pipe(clock, latency, chunkSize) for _ in protocols)
    here = Carrier(clock, protocols[0], addresses, (near, far), bufferSize)
    there = Carrier(clock, protocols[1], addresses[::-1], (far, near), bufferSize)
    protocols[1].makeConnection(there)
    protocols[0].makeConnection(here)
    return here, there


class MuxPair:
    """
    The muxes of a client and a server, connected in memory.

    @ivar clock: the clock that both muxes run on.
    @ivar client: the client's L{MuxProtocol}.
    @ivar server: the server's L{MuxProtocol}.
    @ivar clientFactory: the L{MuxFactory} that made the client's mux.
    @ivar serverFactory: the L{MuxFactory} that made the server's mux.
    @ivar clientCarrier: the client's L{Carrier}.
    @ivar serverCarrier: the server's L{Carrier}.
    @ivar clientToServer: the L{Pipe} that the server reads from.
    @ivar serverToClient: the L{Pipe} that the client reads from.
    """

    def __init__(
        self,
        serverStreams: IStreamFactory | IProtocolFactory | None = None,
        clientStreams: IStreamFactory | IProtocolFactory | None = None,
        *,
        serverServices: Services | None = None,
        clientServices: Services | None = None,
        clientFactory: MuxFactory | None = None,
        serverFactory: MuxFactory | None = None,
        clock: Clock | None = None,
        limits: Limits | None = None,
        greet: bool = True,
        latency: float = 0.0,
        chunkSize: int | None = None,
        bufferSize: int = 65536,
    ) -> None:
        """
        @param serverStreams: makes the server's protocols for streams that the client
            opens; with C{None} those streams are refused.
        @param clientStreams: makes the client's protocols for streams that the server
            opens; with C{None} those streams are refused.
        @param serverServices: the same for streams that the client opens for a service,
            by the name of the service.
        @param clientServices: the same for streams that the server opens for a service.
        @param clientFactory: makes the client's mux, instead of a factory built from
            C{clientStreams}, C{clientServices}, C{limits} and C{greet}.
        @param serverFactory: the same for the server's mux.
        @param clock: the clock that both muxes run on.  Required if a factory is
            given, which must use the same clock.
        @param limits: the limits of both muxes.
        @param greet: whether the muxes greet each other.
        @param latency: the one-way delay between the muxes, in seconds.
        @param chunkSize: the most bytes that either mux gets at once, or C{None} for
            as many as a socket would give it.
        @param bufferSize: how many bytes may wait in either carrier before it
            pauses its producer.
        """
        self.clock = clock = clock if clock is not None else Clock()
        if clientFactory is None:
            clientFactory = MuxFactory(
                PSK,
                True,
                clientStreams,
                clock=clock,
                services=clientServices,
                limits=limits,
                greet=greet,
            )
        if serverFactory is None:
            serverFactory = MuxFactory(
                PSK,
                False,
                serverStreams,
                clock=clock,
                services=serverServices,
                limits=limits,
                greet=greet,
            )
        self.clientFactory = clientFactory
        self.serverFactory = serverFactory
        here = IPv4Address("TCP", "192.0.2.1", 49152)
        there = IPv4Address("TCP", "192.0.2.2", 7000)
        self.client: MuxProtocol = clientFactory.buildProtocol(there)
        self.server: MuxProtocol = serverFactory.buildProtocol(here)
        self.clientCarrier, self.serverCarrier = connect(
            clock,
            (self.client, self.server),
            (here, there),
            latency,
            chunkSize,
            bufferSize,
        )
        self.clientToServer = self.clientCarrier.outgoing
        self.serverToClient = self.serverCarrier.outgoing

    def advance(self, seconds: float) -> None:
        """
        Let some time pass, and make every call at the time it is due.

        For a jump, as after the reactor was blocked, use C{clock.advance}.
        """
        self._runUntil(self.clock.seconds() + seconds)

    def flush(self) -> None:
        """
        Let time pass until everything in flight, and everything sent in answer, has
        arrived.  What is in a stalled pipe stays there.
        """
        while True:
            self._runUntil(self.clock.seconds())
            pipes = (self.clientToServer, self.serverToClient)
            due = [pipe.due for pipe in pipes if pipe.due is not None]
            if not due:
                return
            self._runUntil(min(due))

    def loseCarrier(self, reset: bool = False) -> None:
        """
        Have the network end the connection, as seen from both ends.

        @param reset: C{False} for a clean end, which arrives after the bytes in
            flight; C{True} for a reset, which discards them.
        """
        for pipe in (self.clientToServer, self.serverToClient):
            pipe.end(reset)

    def _runUntil(self, end: float) -> None:
        clock = self.clock
        while True:
            due = min(
                (call.getTime() for call in clock.getDelayedCalls()), default=None
            )
            if due is None or due > end:
                break
            clock.advance(max(0.0, due - clock.seconds()))
        clock.advance(max(0.0, end - clock.seconds()))
