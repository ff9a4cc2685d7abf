"""
Tests for a server that is in strict mode with some of its peers.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory
from gomux._mux.frames import COMPATIBLE, STRICT
from gomux._mux.newcomer import Newcomers
from gomux._wire.crypto import Sealer, deriveKey
from gomux._wire.frame import HELLO_ID, Flag
from gomux._wire.keyring import Keyring
from gomux._wire.salts import Salts, processSalts
from gomux._wire.strict import Handshake
from gomux.error import (
    AuthenticationFailed,
    GomuxError,
    HandshakeFailed,
    NeverAuthenticated,
    Truncated,
)
from gomux.test.support.helpers import Parts, Recorders, Rig
from gomux.test.support.middle import StrangersCarrier
from gomux.testing import MuxPair

ALICE = "the pre-shared key of alice"
BOB = "the pre-shared key of bob"


class StrictPeersTests(SynchronousTestCase):
    """
    A server that is in strict mode with alice, and not with bob.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.streams = Recorders()
        self.server = self.make({"alice": ALICE, "bob": BOB}, False, ("alice",))

    def make(
        self, psks: dict[str, str], isClient: bool, strict: Any, **more: Any
    ) -> MuxFactory:
        return MuxFactory(
            Keyring(psks),
            isClient,
            self.streams,
            clock=self.clock,
            strict=strict,
            salts=Salts(),
            **more,
        )

    def pair(self, psk: str, strict: Any, **more: Any) -> MuxPair:
        """
        Connect a client.
        """
        client = self.make({"me": psk}, True, strict, **more)
        pair = MuxPair(
            clientFactory=client, serverFactory=self.server, clock=self.clock
        )
        pair.flush()
        return pair

    def assertWorks(self, pair: MuxPair, name: str, isStrict: bool) -> None:
        """
        Check that the mux is up, in which mode, and that it carries data both ways.
        """
        self.assertEqual(pair.server.peerName, name)
        for mux in (pair.client, pair.server):
            rules = STRICT if isStrict else COMPATIBLE
            self.assertIs(Parts(mux).frames._rules, rules)
            made = Recorders()
            mux.openStream(made)
            made.made[0].stream.write(b"hello")
            pair.flush()
            self.assertEqual(bytes(self.streams.made[-1].received), b"hello")
        # No timer of the handshake is left.
        pair.advance(60)
        self.assertTrue(pair.client.canOpen and pair.server.canOpen)

    def failed(self, pair: MuxPair) -> tuple[GomuxError | None, GomuxError | None]:
        pair.advance(11)
        return pair.client.reason, pair.server.reason

    def test_strict(self) -> None:
        """
        A peer whose name is given is in strict mode.
        """
        for strict in (True, ("me",), {"me", "other"}, "me"):
            self.assertWorks(self.pair(ALICE, strict), "alice", True)

    def test_compatible(self) -> None:
        """
        Another peer on the same listener is in compatible mode, whether it greets or,
        like the Go package, does not.
        """
        for greet in (True, False):
            pair = self.pair(BOB, "me and others", greet=greet)
            if not greet:
                pair.client.openStream(Recorders())
                pair.flush()
            self.assertWorks(pair, "bob", False)

    def test_notStrict(self) -> None:
        """
        A peer that must be in strict mode is refused if it is not.
        """
        client, server = self.failed(self.pair(ALICE, False))
        self.assertIsInstance(server, HandshakeFailed)
        self.assertIn("has the key, but is not in strict mode", str(server))
        self.assertIsInstance(client, Truncated)

    def test_strictByItself(self) -> None:
        """
        A peer that is in strict mode by itself is told so by its own log.
        """
        client, _ = self.failed(self.pair(BOB, True))
        self.assertIsInstance(client, HandshakeFailed)
        self.assertIn("has the key, but is not in strict mode", str(client))

    def test_wrongKey(self) -> None:
        """
        A stranger learns nothing, and the server's error names the key.
        """
        for strict in (True, False):
            pair = self.pair("a key of nobody here", strict)
            client, server = self.failed(pair)
            self.assertIsInstance(server, AuthenticationFailed)
            self.assertIn("another pre-shared key", str(server))
            self.assertEqual(pair.server.bytesSent, 0)

    def test_clock(self) -> None:
        """
        With C{strictClock} a peer whose clock is wrong is refused.
        """
        for checks, kind in ((False, type(None)), (True, HandshakeFailed)):
            self.server.strictClock = checks
            hello = Handshake(
                "", deriveKey(ALICE), True, salts=Salts(), now=lambda: 0
            ).takeOutput()
            rig = Rig(factory=self.server, clock=self.clock, psk=ALICE)
            rig.sendRaw(hello)
            self.assertIsInstance(rig.mux.reason, kind)
            self.assertEqual(rig.mux.bytesSent, 0 if checks else len(hello))

    def test_closed(self) -> None:
        """
        The salt of a handshake is retired when its mux is up, and when it has failed.
        """
        pair = self.pair(ALICE, True)
        self.assertEqual(self.server.salts.inProgress, 0)
        pair.client.close()
        rig = Rig(factory=self.server, clock=self.clock, psk=ALICE)
        rig.sendRaw(Handshake("", deriveKey(ALICE), True, salts=Salts()).takeOutput())
        self.assertEqual(self.server.salts.inProgress, 1)
        rig.peerCarrier.loseConnection()
        rig.run()
        self.assertEqual(self.server.salts.inProgress, 0)

    def test_silent(self) -> None:
        """
        A silent peer may be a Go client: it has no time limit.  A peer that has said
        hello has one.
        """
        rig = Rig(factory=self.server, clock=self.clock, psk=ALICE)
        self.clock.advance(20)
        self.assertIsNone(rig.mux.reason)
        peer = Handshake("", deriveKey(ALICE), True, salts=Salts())
        rig.sendRaw(peer.takeOutput())
        self.clock.advance(9)
        self.assertIsNone(rig.mux.reason)
        self.assertFalse(rig.mux.authenticated)
        self.clock.advance(1)
        self.assertIsInstance(rig.mux.reason, HandshakeFailed)
        self.assertIn("not confirmed its hello", str(rig.mux.reason))

    def test_left(self) -> None:
        """
        The error of a peer that leaves before its first frame is that of the mode that
        all peers have.
        """
        for strict, kind in ((True, HandshakeFailed), (("alice",), NeverAuthenticated)):
            self.server.strict = strict
            rig = Rig(factory=self.server, clock=self.clock, psk=ALICE)
            rig.sendRaw(b"x")
            rig.peerCarrier.loseConnection()
            self.assertIsInstance(rig.reason(), kind)

    def test_mixedKeys(self) -> None:
        """
        A hello under the key of a peer in compatible mode does not make a strict mux.
        """
        rig = Rig(factory=self.server, clock=self.clock, psk=BOB)
        rig.sendRaw(
            b"".join(Sealer(deriveKey(BOB)).seal(HELLO_ID, 60, Flag.DATA, bytes(60)))
        )
        self.assertEqual(rig.mux.peerName, "bob")
        self.assertIs(Parts(rig.mux).frames._rules, COMPATIBLE)

    def test_defaultSalts(self) -> None:
        """
        Muxes of one process share what recognizes the process's own hellos.
        """
        factory = MuxFactory(ALICE, False, clock=self.clock, strict=True)
        self.assertIs(factory.salts, processSalts)

    def test_revokedMeanwhile(self) -> None:
        """
        A peer whose key is revoked while its hello arrives gets no answer.
        """
        for isRevoked in (False, True):
            hello = Handshake("", deriveKey(ALICE), True, salts=Salts()).takeOutput()
            newcomer = Newcomers(self.server).buildProtocol(None)
            carrier = StrangersCarrier()
            newcomer.makeConnection(carrier)
            newcomer.dataReceived(hello[:50])
            if isRevoked:
                self.server.keyring._keys = Keyring({"bob": BOB, "carol": "c"}).keys
            newcomer.dataReceived(hello[50:])
            self.clock.advance(0)
            self.assertEqual(len(carrier.value()), 0 if isRevoked else len(hello))
            self.assertEqual(carrier.ended, isRevoked)
