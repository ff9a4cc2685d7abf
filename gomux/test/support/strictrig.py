"""
A mux in strict mode with a peer that the test controls.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from gomux import Limits, MuxFactory
from gomux._wire.crypto import deriveKey
from gomux._wire.frame import FrameParser
from gomux._wire.salts import Salts
from gomux._wire.strict import Handshake
from gomux.test.support.helpers import FramePeer, Recorders, Rig
from gomux.testing import PSK
from gomux.testing._pair import connect


class HandshakeOpener:
    """
    Opens the frames of a handshake, and the frames after it.
    """

    def __init__(self, handshake: Handshake) -> None:
        self.handshake = handshake

    def open(self, header: bytes, sealed: bytes | memoryview) -> bytes:
        handshake = self.handshake
        opener = handshake.opener if handshake.passed else handshake
        return opener.open(header, sealed)


class StrictRig(Rig):
    """
    A rig whose mux is in strict mode and whose peer can complete the handshake.
    """

    def __init__(
        self, *, isClient: bool = False, limits: Limits | None = None, up: bool = True
    ) -> None:
        self.clock = Clock()
        self.streams = Recorders()
        self.isClient = isClient
        self.factory = MuxFactory(
            PSK, isClient, self.streams, clock=self.clock, limits=limits, strict=True
        )
        here = IPv4Address("TCP", "192.0.2.1", 49152)
        there = IPv4Address("TCP", "192.0.2.2", 7000)
        self.mux = self.factory.buildProtocol(there)
        self.handshake = Handshake("", deriveKey(PSK), not isClient, salts=Salts())
        self.peer = FramePeer()
        self.peer.parser = FrameParser(HandshakeOpener(self.handshake))
        self.carrier, self.peerCarrier = connect(
            self.clock, (self.mux, self.peer), (here, there), 0.0, None, 65536
        )
        self.run()
        if up:
            self.answer()
            if not isClient:
                self.answer()
            self.peer.take()

    def answer(self) -> None:
        """
        Have the peer send its next part of the handshake.
        """
        self.sendRaw(self.handshake.takeOutput())
        if self.handshake.sealer is not None:
            self.peer.sealer = self.handshake.sealer

    def wait(self, seconds: float) -> None:
        """
        Let some time pass, in small steps.
        """
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)
