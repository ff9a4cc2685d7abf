"""
Tests for L{gomux._mux.frames} and L{gomux._mux.liveness}: a mux in strict mode after
the handshake.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits, MuxFactory
from gomux._wire.frame import Flag
from gomux._wire.salts import Salts
from gomux.error import (
    AuthenticationFailed,
    ConnectionClosed,
    LimitExceeded,
    NonceExhausted,
    PeerClosedConnection,
    PeerVanished,
    ProtocolViolation,
)
from gomux.test.support.helpers import (
    ABORTS,
    CLOSE_STREAM,
    FramePeer,
    Recorders,
    Rig,
    assertLasts,
    useUpNonces,
)
from gomux.test.support.strictrig import StrictRig
from gomux.testing import PSK, MuxPair


class RuleTests(SynchronousTestCase):
    """
    Frames that are not allowed in strict mode, although the peer holds the key.
    """

    def violated(self, *frame: int, message: str) -> None:
        """
        Check that a frame is a violation in strict mode, and not in compatible mode.
        """
        for isClient in (True, False):
            rig = StrictRig(isClient=isClient)
            rig.send(*frame)
            reason = rig.reason()
            self.assertIsInstance(reason, ProtocolViolation)
            self.assertIn(message, str(reason))
            compatible = Rig(isClient=isClient)
            compatible.send(*frame)
            self.assertNotIsInstance(compatible.reason(), ProtocolViolation)

    def test_length(self) -> None:
        """
        In strict mode a length in a frame that should have none is a violation.
        """
        for flag in (Flag.KEEPALIVE, Flag.CLOSE_MUX):
            self.violated(0, flag, 1, message="announces a length of 1")
        for flag in (Flag.CLOSE_READ, Flag.CLOSE_WRITE, Flag.CLOSE_STREAM):
            rig = StrictRig()
            rig.opened()
            rig.send(0, flag, 65536)
            self.assertIn("announces a length of 65536", str(rig.reason()))
        for length in (2, 65536):
            rig = StrictRig()
            rig.send(0, Flag.OPEN_STREAM, length)
            self.assertEqual(rig.sent(), [ABORTS, CLOSE_STREAM])
            self.assertIsNone(rig.reason())
            self.assertEqual(rig.streams.made, [])

    def test_flags(self) -> None:
        """
        In strict mode a frame with an unknown flag is a violation.
        """
        for flag in (8, 2**32 - 1):
            self.violated(0, flag, message=f"unknown flags {flag}")

    def test_neverOpened(self) -> None:
        """
        In strict mode a frame for a stream that was never opened is a violation.
        """
        for flag in (
            Flag.DATA,
            Flag.CLOSE_READ,
            Flag.CLOSE_WRITE,
            Flag.CLOSE_STREAM,
            Flag.WINDOW_UPDATE,
        ):
            for streamID in (6, 7):
                self.violated(streamID, flag, message=f"stream {streamID}, which was")

    def test_late(self) -> None:
        """
        In strict mode too, late frames for a stream that has ended are no violation,
        whichever side opened the stream.
        """
        rig = StrictRig()
        rig.opened().stream.abortConnection()
        rig.open().stream.abortConnection()
        for streamID in (0, 1):
            rig.sendMany(
                (streamID, Flag.DATA, b"late"),
                (streamID, Flag.WINDOW_UPDATE, 4),
                (streamID, Flag.CLOSE_READ, 0),
                (streamID, Flag.CLOSE_WRITE, 0),
                (streamID, Flag.CLOSE_STREAM, 0),
            )
        self.assertIsNone(rig.reason())

    def test_keepaliveFlood(self) -> None:
        """
        Keepalives are allowed up to a limit, and too many end the mux.
        """
        limits = Limits(ignoredRate=1.0, ignoredBurst=20)
        rig = StrictRig(limits=limits)
        for _ in range(17):
            rig.send(0, Flag.KEEPALIVE)
        self.assertIsNone(rig.reason())
        for _ in range(4):
            rig.send(0, Flag.KEEPALIVE)
        self.assertIsInstance(rig.reason(), LimitExceeded)

    def test_sequence(self) -> None:
        """
        After the handshake, a frame under the right key is not accepted if its nonce is
        not the next in sequence.
        """
        rig = StrictRig()
        rig.sendRaw(FramePeer().seal(0, Flag.KEEPALIVE))
        self.assertIsInstance(rig.reason(), AuthenticationFailed)

    def test_closeMux(self) -> None:
        """
        CloseMux ends a mux in strict mode in good order.
        """
        rig = StrictRig()
        rig.send(0, Flag.CLOSE_MUX)
        self.assertIsInstance(rig.reason(), PeerClosedConnection)


class SilenceTests(SynchronousTestCase):
    """
    A peer that vanishes without closing the mux.
    """

    def test_vanished(self) -> None:
        """
        The mux of a peer that echoes nothing ends after 45 seconds, whatever else comes
        from the peer.
        """
        for isClient in (True, False):
            for talks in (True, False):
                rig = StrictRig(isClient=isClient)
                rig.opened()
                for _ in range(179):
                    rig.wait(0.25)
                    if talks:
                        rig.send(int(isClient), Flag.DATA, b"x")
                self.assertIsNone(rig.reason())
                rig.wait(0.25)
                self.assertIsInstance(rig.reason(), PeerVanished)
                self.assertEqual(rig.clock.getDelayedCalls(), [])

    def test_strangersBytes(self) -> None:
        """
        Bytes that an attacker drips do not keep the mux up, neither parts of a frame
        that never ends, nor those of a genuine frame.
        """
        for isClient in (True, False):
            for isGenuine in (True, False):
                rig = StrictRig(isClient=isClient)
                frame = rig.peer.seal(0, Flag.KEEPALIVE)
                for number in range(4):
                    byte = frame[number : number + 1] if isGenuine else b"\0"
                    rig.sendRaw(byte)
                    rig.wait(11)
                self.assertIsNone(rig.reason())
                rig.wait(1)
                self.assertIsInstance(rig.reason(), PeerVanished)

    def test_fortySeconds(self) -> None:
        """
        One byte every 40 seconds, which kept a dead mux up in an earlier version, does
        not.
        """
        rig = StrictRig()
        rig.wait(40)
        rig.sendRaw(b"\0")
        self.assertIsNone(rig.reason())
        rig.wait(5)
        self.assertIsInstance(rig.reason(), PeerVanished)

    def test_oldEchoes(self) -> None:
        """
        Genuine frames that were held back and come one by one do not keep the mux up
        beyond the age of the echo in them.
        """
        rig = StrictRig(isClient=True)
        held = [rig.peer.seal(0xFFFFFFFF, Flag.KEEPALIVE) for _ in range(9)]
        for frame in held:
            self.assertIsNone(rig.reason())
            rig.sendRaw(frame)
            rig.wait(5)
        self.assertIsInstance(rig.reason(), PeerVanished)

    def test_noneReceived(self) -> None:
        """
        The first pings of a client that has had no frame after the server's hello
        acknowledge none.
        """
        rig = StrictRig(isClient=True)
        rig.wait(5)
        pings = [f[0] for f in rig.peer.frames if f[1] == Flag.KEEPALIVE]
        self.assertEqual(pings, [0xFFFFFFFF])

    def test_stalledPath(self) -> None:
        """
        A path that stalls for less than the limit ends nothing, in either direction,
        and also if both processes go on sending.
        """
        clock = Clock()
        client, server = (
            MuxFactory(
                PSK, isClient, Recorders(), clock=clock, strict=True, salts=Salts()
            )
            for isClient in (True, False)
        )
        pair = MuxPair(clientFactory=client, serverFactory=server, clock=clock)
        pair.flush()
        made = Recorders()
        for mux in (pair.client, pair.server):
            mux.openStream(made)
        for pipes in (
            [pair.clientToServer],
            [pair.serverToClient],
            [pair.clientToServer, pair.serverToClient],
        ):
            for _ in range(3):
                for pipe in pipes:
                    pipe.stall()
                for _ in range(35):
                    for stream in made.made:
                        stream.stream.write(b"x" * 1000)
                    pair.advance(1)
                for pipe in pipes:
                    pipe.unstall()
                pair.advance(10)
        self.assertTrue(pair.client.answers and pair.server.answers)

    def test_pair(self) -> None:
        """
        Two idle muxes keep each other up, even if one process or both are blocked for
        30 seconds.  Once nothing arrives any more, both end.
        """
        clock = Clock()
        client, server = (
            MuxFactory(PSK, isClient, clock=clock, strict=True, salts=Salts())
            for isClient in (True, False)
        )
        pair = MuxPair(clientFactory=client, serverFactory=server, clock=clock)
        assertLasts(self, pair, clock)


class NonceTests(SynchronousTestCase):
    """
    A mux that runs out of nonces.
    """

    def pair(self, strict: bool, left: int) -> MuxPair:
        """
        @param left: how many frames the client can still send.
        """
        clock = Clock()
        self.streams = Recorders()
        client, server = (
            MuxFactory(
                PSK, isClient, self.streams, clock=clock, strict=strict, salts=Salts()
            )
            for isClient in (True, False)
        )
        pair = MuxPair(clientFactory=client, serverFactory=server, clock=clock)
        pair.flush()
        self.sealer = useUpNonces(pair.client, left, pair.server)
        return pair

    def test_exhausted(self) -> None:
        """
        The last nonce is kept for CloseMux.  The peer gets all data that was sent
        before, and sees an orderly end.
        """
        for strict in (True, False):
            for left in range(1, 8):
                pair = self.pair(strict, left)
                made = Recorders()
                for mux in (pair.client, pair.server):
                    mux.openStream(made)
                mine = made.made[0].stream
                closed = [pair.client.whenClosed(), pair.server.whenClosed()]
                for _ in range(10):
                    mine.write(b"x")
                    pair.flush()
                reasons = [self.successResultOf(d) for d in closed]
                self.assertIsInstance(reasons[0], NonceExhausted)
                self.assertIsInstance(reasons[1], PeerClosedConnection)
                self.assertIs(made.made[0].reason, reasons[0])
                # One frame opens the stream, and one is the CloseMux.
                received = b"".join(bytes(s.received) for s in self.streams.made)
                self.assertEqual(received, b"x" * max(0, left - 2))
                self.assertEqual(pair.clock.getDelayedCalls(), [])
                self.assertRaises(NonceExhausted, self.sealer.seal, 0, 0, 0)
                self.assertRaises(NonceExhausted, self.sealer.sealLast, 0)

    def test_closing(self) -> None:
        """
        C{close} needs only one nonce: it ends the mux in good order even with the last.
        """
        for strict in (True, False):
            for left in (1, 2, 3):
                pair = self.pair(strict, left)
                closed = pair.server.whenClosed()
                own = pair.client.close()
                pair.flush()
                reason = self.successResultOf(closed)
                self.assertIsInstance(reason, PeerClosedConnection)
                self.assertIsInstance(self.successResultOf(own), ConnectionClosed)

    def test_peerStays(self) -> None:
        """
        If the nonces have run out and the peer does not end the carrier, this side
        drops it after the close timeout.
        """
        pair = self.pair(True, 1)
        pair.clientToServer.stall()
        closed = pair.client.whenClosed()
        self.successResultOf(pair.client.openStream(Recorders()))
        pair.advance(9)
        self.assertNoResult(closed)
        pair.advance(1.5)
        self.assertIsInstance(self.successResultOf(closed), NonceExhausted)
