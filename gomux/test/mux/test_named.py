"""
Tests for L{gomux._mux.factory}: servers with several keys, in compatible and in strict
mode.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory
from gomux._wire.frame import Flag
from gomux._wire.keyring import Keyring, readPSKFile
from gomux._wire.salts import Salts
from gomux.error import (
    AuthenticationFailed,
    GomuxError,
    KeyRevoked,
    PeerClosedConnection,
    Truncated,
)
from gomux.limits import LINES_BURST
from gomux.test.support.helpers import Recorder, Recorders, Rig
from gomux.test.support.logs import Lines
from gomux.testing import PSK, MuxPair

ALICE = "the pre-shared key of alice"
BOB = "the pre-shared key of bob"
EVE = "a pre-shared key of nobody here"


class ServerTests(SynchronousTestCase):
    """
    A server with several keys, in compatible mode.
    """

    strict = False

    def pair(self, psk: str | Keyring, keyring: Keyring | None = None) -> MuxPair:
        """
        Connect a client with this key to the server.
        """
        clock = Clock()
        self.keyring = keyring or Keyring({"alice": ALICE, "bob": BOB})
        self.streams = Recorders()
        client, server = (
            MuxFactory(
                key,
                isClient,
                self.streams,
                clock=clock,
                strict=self.strict,
                salts=Salts(),
            )
            for key, isClient in ((psk, True), (self.keyring, False))
        )
        self.pool = server.pool
        return MuxPair(clientFactory=client, serverFactory=server, clock=clock)

    def test_names(self) -> None:
        """
        The server knows the name of each peer, and shows it in its logs.
        """
        for psk, name in ((ALICE, "alice"), (BOB, "bob")):
            pair = self.pair(psk)
            self.assertEqual(pair.server.peerName, "")
            self.assertNotIn(name, repr(pair.server))
            pair.flush()
            self.assertEqual(pair.server.peerName, name)
            self.assertIn(f"from {name!r} at ", repr(pair.server))
            self.assertEqual(pair.client.peerName, "")

    def test_oneName(self) -> None:
        """
        A server with a single named key knows the name of its peer too.
        """
        pair = self.pair(ALICE, Keyring({"alice": ALICE}))
        self.assertEqual(pair.server.peerName, "")
        pair.flush()
        self.assertEqual(pair.server.peerName, "alice")

    def test_streams(self) -> None:
        """
        Both sides can open streams.  The server's streams wait until the peer's key is
        known.
        """
        pair = self.pair(BOB)
        made = Recorders(made=lambda recorder: recorder.stream.write(b"hello"))
        opened = pair.server.openStream(made)
        self.assertNoResult(opened)
        pair.flush()
        self.assertIs(self.successResultOf(opened), made.made[0])
        self.successResultOf(pair.client.openStream(made))
        pair.flush()
        self.assertEqual(
            [bytes(stream.received) for stream in self.streams.made], [b"hello"] * 2
        )

    def test_stranger(self) -> None:
        """
        A peer that has none of the keys gets no answer, and the streams that wait for
        it fail.
        """
        pair = self.pair(EVE)
        opened = pair.server.openStream(Recorders())
        closed = pair.server.whenClosed()
        pair.flush()
        reason = self.successResultOf(closed)
        self.assertIsInstance(reason, AuthenticationFailed)
        self.assertIs(self.failureResultOf(opened, GomuxError).value, reason)
        self.assertEqual(pair.serverToClient.bytesDelivered, 0)
        self.assertEqual(pair.server.bytesSent, 0)

    def test_reload(self) -> None:
        """
        A mux that is up keeps its key when the keyring is reloaded, and new muxes use
        the new keys.  C{closeNamed} closes the muxes whose names are gone.
        """
        path = Path(self.mktemp())
        path.touch(0o600)
        path.write_text(f"alice:{ALICE}\nbob:{BOB}\n", "utf-8")
        pair = self.pair(BOB, readPSKFile(str(path)))
        pair.flush()
        path.write_text(f"alice:{ALICE}\neve:{EVE}\n", "utf-8")
        gone = self.keyring.reload()
        opened = pair.client.openStream(Recorders())
        pair.flush()
        self.successResultOf(opened)
        self.assertEqual(len(self.streams.made), 1)
        closed = pair.client.whenClosed()
        self.pool.closeNamed(["alice"])
        pair.flush()
        self.assertNoResult(closed)
        self.pool.closeNamed(gone)
        pair.flush()
        self.assertIsInstance(self.successResultOf(closed), PeerClosedConnection)

        pair = self.pair(EVE, self.keyring)
        pair.flush()
        self.assertEqual(pair.server.peerName, "eve")

    def second(self, pair: MuxPair, psk: str) -> MuxPair:
        """
        Connect another client to the server.
        """
        clock, server = pair.clock, pair.serverFactory
        client = MuxFactory(psk, True, clock=clock, strict=self.strict, salts=Salts())
        return MuxPair(clientFactory=client, serverFactory=server, clock=clock)

    def test_endRevoked(self) -> None:
        """
        C{endRevoked} ends the muxes of revoked names at once and logs each of them.
        Their streams end with L{KeyRevoked}, and other muxes go on.
        """
        observer = Lines("gomux._mux.factory")
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        pair = self.pair(BOB)
        pair.flush()
        alice = self.second(pair, ALICE)
        closed = [both.client.whenClosed() for both in (pair, alice)]
        for both in (pair, alice):
            both.client.openStream(Recorders())
            both.flush()
        self.streams.made[0].stream.write(bytes(200000))
        pair.serverFactory.keyring = Keyring({"alice": ALICE})
        pair.serverFactory.endRevoked(["bob", "eve"])
        pair.flush()
        self.assertIsInstance(self.streams.made[0].reason, KeyRevoked)
        self.assertIsNone(self.streams.made[1].reason)
        self.assertIsInstance(self.successResultOf(closed[0]), Truncated)
        self.assertNoResult(closed[1])
        lines = [line for line in observer.lines if "revoked" in line]
        self.assertEqual(len(lines), 1)
        self.assertIn("the mux from 'bob' at 192.0.2.1:49152 ended: ", lines[0])

    def test_everyEndIsLogged(self) -> None:
        """
        C{endRevoked} logs every mux that it ends, however many there are.
        """
        observer = Lines("gomux._mux.factory")
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        pair = self.pair(BOB)
        pairs = [self.second(pair, BOB) for _ in range(2 * LINES_BURST)]
        pair.flush()
        pair.serverFactory.keyring = Keyring({"alice": ALICE})
        pair.serverFactory.endRevoked(["bob"])
        pair.flush()
        self.assertEqual(pair.serverFactory.muxes, [])
        lines = [line for line in observer.lines if "'bob'" in line]
        self.assertEqual(len(lines), 1 + len(pairs))

    def test_silentEnd(self) -> None:
        """
        A server logs no line about a connection that ended without a byte, as those
        of health checks do.  One byte is enough for a line.
        """
        observer = Lines("gomux._mux.factory")
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for reset in (False, True):
            pair = self.pair(BOB)
            pair.clientToServer.stall()
            pair.server.connectionLost(
                Failure(ConnectionLost() if reset else ConnectionDone())
            )
            pair.clock.advance(0)
            self.assertEqual(pair.serverFactory.muxes, [])
            self.assertEqual(observer.lines, [])
        pair = self.pair(BOB)
        pair.clientToServer.stall()
        pair.server.dataReceived(b"x")
        pair.server.connectionLost(Failure(ConnectionDone()))
        pair.clock.advance(0)
        self.assertEqual(len(observer.lines), 1)

    def test_silentEndOfClose(self) -> None:
        """
        A server logs the end of a mux that it had closed, although nothing came from
        the peer.
        """
        observer = Lines("gomux._mux.factory")
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        pair = self.pair(BOB)
        pair.clientToServer.stall()
        pair.server.close()
        pair.server.connectionLost(Failure(ConnectionDone()))
        pair.clock.advance(0)
        lines = [line for line in observer.lines if "the mux from" in line]
        self.assertEqual(len(lines), 1)

    def test_silentServer(self) -> None:
        """
        A client logs that its server has ended the connection without a byte.
        """
        observer = Lines("gomux._mux.factory")
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        pair = self.pair(BOB)
        pair.serverToClient.stall()
        pair.client.connectionLost(Failure(ConnectionDone()))
        pair.clock.advance(0)
        self.assertEqual(len(observer.lines), 1)

    def test_twoKeysOfOneName(self) -> None:
        """
        Both keys of a name let the peer in under that name.  If one of them is removed,
        C{endRevoked} ends only the muxes that have it.
        """
        path = Path(self.mktemp())
        path.touch(0o600)
        path.write_text(f"[keyring]\nbob:{BOB}\nbob:{EVE}\n", "utf-8")
        old = self.pair(BOB, readPSKFile(str(path)))
        new = self.second(old, EVE)
        closed = [pair.server.whenClosed() for pair in (old, new)]
        for pair in (old, new):
            pair.flush()
            self.assertEqual(pair.server.peerName, "bob")
        path.write_text(f"[keyring]\nbob:{EVE}\n", "utf-8")
        old.serverFactory.endRevoked(self.keyring.reload())
        old.flush()
        new.flush()
        self.assertIsInstance(self.successResultOf(closed[0]), KeyRevoked)
        self.assertNoResult(closed[1])

    def test_revokedBeforeFirstFrame(self) -> None:
        """
        A peer that connected before its key was revoked, and sends its first frame
        afterwards, is turned away.
        """
        pair = self.pair(BOB)
        closed = pair.server.whenClosed()
        pair.serverFactory.endRevoked(["bob"])
        pair.flush()
        self.assertIsInstance(self.successResultOf(closed), KeyRevoked)

    def test_nothingRevoked(self) -> None:
        """
        C{endRevoked} without names ends no mux.
        """
        pair = self.pair(BOB)
        pair.serverFactory.endRevoked([])
        pair.flush()
        self.assertEqual(pair.server.peerName, "bob")

    def test_revokedWhileClosing(self) -> None:
        """
        C{endRevoked} also ends a mux that is still closing.
        """
        pair = self.pair(BOB)
        pair.flush()
        pair.client.openStream(Recorders())
        pair.flush()
        pair.clientToServer.stall()
        self.streams.made[0].stream.write(bytes(1000000))
        pair.server.close()
        pair.flush()
        closed = pair.server.whenClosed()
        self.assertNoResult(closed)
        pair.serverFactory.keyring = Keyring({"alice": ALICE})
        pair.serverFactory.endRevoked(["bob"])
        pair.flush()
        self.assertIsInstance(self.successResultOf(closed), KeyRevoked)

    def paused(self) -> tuple[MuxPair, Recorder]:
        """
        Have bob open a stream and send data, which the paused stream keeps.

        @return: the mux, and the protocol of the stream at the server.
        """
        pair = self.pair(BOB)
        self.streams.hooks["made"] = lambda recorder: recorder.stream.pauseProducing()
        self.made = Recorders()
        pair.client.openStream(self.made)
        pair.flush()
        self.made.made[0].stream.write(bytes(100000))
        pair.flush()
        [recorder] = self.streams.made
        self.assertEqual(recorder.stream.unread, 100000)
        return pair, recorder

    def assertDropped(self, pair: MuxPair, recorder: Recorder) -> None:
        """
        Revoke bob's key.  Assert that the input is dropped, although the application
        resumes the stream in the same turn, and that the protocol is told.
        """
        pair.serverFactory.endRevoked(["alice"])
        self.assertEqual(recorder.stream.unread, 100000)
        pair.serverFactory.keyring = Keyring({"alice": ALICE})
        pair.serverFactory.endRevoked(["bob"])
        recorder.stream.resumeProducing()
        pair.clock.advance(0)
        self.assertEqual(recorder.received, b"")
        self.assertEqual(recorder.events, ["made", "lost"])
        self.assertIsInstance(recorder.reason, KeyRevoked)
        pair.flush()
        self.assertEqual(recorder.events, ["made", "lost"])
        self.assertEqual(pair.serverFactory.muxes, [])
        self.assertEqual(pair.serverFactory.lingering, {})

    def test_unreadOfRevoked(self) -> None:
        """
        C{endRevoked} drops the input that a paused stream keeps.
        """
        self.assertDropped(*self.paused())

    def test_unreadOfRevokedResumed(self) -> None:
        """
        C{endRevoked} drops input that was due in the next turn.
        """
        pair, recorder = self.paused()
        recorder.stream.resumeProducing()
        self.assertDropped(pair, recorder)

    def test_unreadOfClosedStream(self) -> None:
        """
        C{endRevoked} also drops the input of a stream that the peer has closed.
        """
        pair, recorder = self.paused()
        self.made.made[0].stream.loseConnection()
        pair.flush()
        self.assertDropped(pair, recorder)

    def test_unreadOfEndedMux(self) -> None:
        """
        C{endRevoked} also drops the input that a mux has left, whose peer is gone.
        """
        pair, recorder = self.paused()
        pair.loseCarrier()
        pair.flush()
        self.assertEqual(pair.serverFactory.muxes, [])
        self.assertDropped(pair, recorder)

    def test_readOfEndedMux(self) -> None:
        """
        The factory forgets a stream that has ended, once its input is read.
        """
        pair, recorder = self.paused()
        pair.loseCarrier()
        pair.flush()
        self.assertEqual(len(pair.serverFactory.lingering), 1)
        recorder.stream.resumeProducing()
        pair.flush()
        self.assertEqual(len(recorder.received), 100000)
        self.assertEqual(pair.serverFactory.lingering, {})

    def reloadable(self, content: str) -> Path:
        """
        Make a key file, and its keyring.
        """
        path = Path(self.mktemp())
        path.touch(0o600)
        path.write_text(content, "utf-8")
        self.keyring = readPSKFile(str(path))
        return path

    def test_comesUpAfterReload(self) -> None:
        """
        A peer that connected before its key was revoked or changed, and shows it
        afterwards, does not come up, also without C{endRevoked}.  It is sent nothing.
        A peer whose key is as before comes up.
        """
        for now, isWelcome in (
            (f"[keyring]\nalice:{ALICE}\n", False),
            (f"alice:{ALICE}\nbob:{EVE}\n", False),
            (f"carol:{EVE}\nbob:{BOB}\n", True),
        ):
            path = self.reloadable(f"alice:{ALICE}\nbob:{BOB}\n")
            pair = self.pair(BOB, self.keyring)
            closed = pair.server.whenClosed()
            path.write_text(now, "utf-8")
            self.keyring.reload()
            pair.flush()
            if isWelcome:
                self.assertEqual(pair.server.peerName, "bob")
            else:
                self.assertIsInstance(self.successResultOf(closed), KeyRevoked)
                self.assertEqual(pair.server.bytesSent, 0)

    def test_oneKeyChanged(self) -> None:
        """
        With a single key, no stream is opened to a silent peer after that key has
        changed.
        """
        path = self.reloadable(f"{BOB}\n")
        pair = self.pair(BOB, self.keyring)
        pair.clientToServer.stall()
        pair.advance(5)
        path.write_text(f"{EVE}\n", "utf-8")
        self.keyring.reload()
        opened = pair.server.openStream(Recorders())
        if self.strict:
            pair.clientToServer.unstall()
        pair.flush()
        self.failureResultOf(opened)
        self.assertIsInstance(pair.server.reason, KeyRevoked)
        self.assertEqual(pair.server.bytesSent, 0)


class StrictServerTests(ServerTests):
    """
    A server with several keys, in strict mode.
    """

    strict = True

    def test_reloadWithinHandshake(self) -> None:
        """
        A peer whose key is revoked between its hello and its confirmation does not
        come up.
        """
        path = self.reloadable(f"alice:{ALICE}\nbob:{BOB}\n")
        pair = self.pair(BOB, self.keyring)
        pair.serverToClient.stall()
        pair.flush()
        self.assertGreater(pair.server.bytesSent, 0)
        path.write_text(f"[keyring]\nalice:{ALICE}\n", "utf-8")
        self.keyring.reload()
        pair.serverToClient.unstall()
        pair.flush()
        self.assertIsInstance(pair.server.reason, KeyRevoked)
        self.assertEqual(len(pair.serverFactory.salts._current), 0)


class RoleTests(SynchronousTestCase):
    """
    Keys of clients and servers
    """

    def test_client(self) -> None:
        """
        A client factory accepts only one key.
        """
        keyring = Keyring({"alice": ALICE, "bob": BOB})
        self.assertRaises(ValueError, MuxFactory, keyring, True, clock=Clock())

    def test_reloadedClient(self) -> None:
        """
        A client factory makes no mux if its keyring has several keys after a reload.
        """
        path = Path(self.mktemp())
        path.touch(0o600)
        path.write_text(ALICE, "utf-8")
        keyring = readPSKFile(str(path))
        factory = MuxFactory(keyring, True, clock=Clock())
        factory.buildProtocol(None)
        path.write_text(f"alice:{ALICE}\nbob:{BOB}\n", "utf-8")
        keyring.reload()
        self.assertRaises(ValueError, factory.buildProtocol, None)

    def test_clientThatIsUp(self) -> None:
        """
        A client's mux is up before its server has shown the key, and goes on if that
        key is changed.
        """
        path = Path(self.mktemp())
        path.touch(0o600)
        path.write_text(f"{BOB}\n", "utf-8")
        keyring, clock = readPSKFile(str(path)), Clock()
        client, server = (
            MuxFactory(keyring, True, clock=clock),
            MuxFactory(BOB, False, Recorders(), clock=clock),
        )
        pair = MuxPair(clientFactory=client, serverFactory=server, clock=clock)
        opened = pair.client.openStream(Recorders())
        path.write_text(f"{EVE}\n", "utf-8")
        keyring.reload()
        pair.flush()
        self.successResultOf(opened)
        self.assertTrue(pair.client.authenticated)

    def test_firstFrame(self) -> None:
        """
        The first frame, which finds the key, also has its usual effect.
        """
        clock = Clock()
        streams = Recorders()
        keyring = Keyring({"alice": ALICE, "bob": BOB})
        factory = MuxFactory(keyring, False, streams, clock=clock)
        rig = Rig(factory=factory, clock=clock, psk=BOB)
        rig.send(0, Flag.OPEN_STREAM)
        self.assertEqual(len(streams.made), 1)
        streams.made[0].stream.write(b"hello")
        self.assertEqual(rig.sentData(), b"hello")


class SilentPeerTests(SynchronousTestCase):
    """
    A server with a single key, and a peer that sends nothing.
    """

    def test_silentEndWithStreams(self) -> None:
        """
        A server logs the end of a connection on which it had opened a stream, although
        the peer has sent nothing: the stream is lost.
        """
        observer = Lines("gomux._mux.factory")
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        clock = Clock()
        mux = MuxFactory(PSK, False, clock=clock).buildProtocol(None)
        mux.makeConnection(StringTransport())
        mux.openStream(Recorders())
        clock.advance(0)
        mux.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(observer.lines), 1)
