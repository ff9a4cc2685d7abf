# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux._mux.newcomer}.
"""

from __future__ import annotations

import gc
import os
import weakref
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

from gomux import Keyring, Limits, MuxFactory, MuxProtocol, MuxServerEndpoint, Session
from gomux._carrier import restraint
from gomux._carrier.turns import TURN_TIME, StrangersTurns
from gomux._mux.newcomer import SILENT, Newcomer, Newcomers
from gomux._wire.frame import Flag
from gomux._wire.keyring import readPSKFile
from gomux._wire.keysearch import KEYS_A_TURN, KnownKey
from gomux._wire.salts import Salts
from gomux.error import AuthenticationFailed
from gomux.test.support.helpers import FramePeer, Recorders
from gomux.test.support.kernel import Descriptor
from gomux.test.support.logs import Lines
from gomux.test.support.slowclock import SlowClock
from gomux.testing import PSK
from gomux.testing._memory import Carrier
from gomux.testing._pair import connect

HERE = IPv4Address("TCP", "192.0.2.2", 7000)


def peerAt(number: int) -> IPv4Address:
    """
    @return: the address of a peer.
    """
    return IPv4Address("TCP", f"192.0.2.{10 + number}", 49152)


def isUp(carrier: Carrier) -> bool:
    """
    @return: whether the server has not dropped a connection.
    """
    return carrier.connected and not carrier._aborting


class NewcomerTestCase(SynchronousTestCase):
    """
    A server, and peers whose frames the test chooses.
    """

    def setUp(self) -> None:
        self.lines = Lines("gomux._mux.factory")
        globalLogPublisher.addObserver(self.lines)
        self.addCleanup(globalLogPublisher.removeObserver, self.lines)
        self.start()

    def start(self, psk: Any = PSK, **settings: Any) -> None:
        self.clock = SlowClock()
        self.streams = Recorders()
        self.factory = MuxFactory(
            psk, False, self.streams, clock=self.clock, greet=False, **settings
        )
        self.newcomers = Newcomers(self.factory)
        self.count = 0

    def meet(self, psk: str = PSK) -> tuple[FramePeer, Carrier]:
        """
        Have a peer connect.

        @return: the peer, and the server's end of the connection.
        """
        self.count += 1
        protocol = self.newcomers.buildProtocol(peerAt(self.count))
        peer = FramePeer(psk)
        ends = (HERE, peerAt(self.count))
        transport, _ = connect(self.clock, (protocol, peer), ends, 0.0, None, 65536)
        self.clock.advance(0)
        return peer, transport

    def deliver(self, transport: Carrier, data: bytes) -> None:
        """
        Have bytes arrive, and take only the turn of the reactor in which they do.
        """
        transport.protocol.dataReceived(data)

    def mux(self) -> MuxProtocol:
        """
        @return: the only mux.
        """
        [mux] = self.factory.muxes
        return mux


class FirstFrameTests(NewcomerTestCase):
    """
    Peers that hold the key.
    """

    def test_noMux(self) -> None:
        """
        Before the first frame there is no mux.
        """
        peer, transport = self.meet()
        self.deliver(transport, peer.seal(0, Flag.OPEN_STREAM)[:-1])
        self.assertEqual(self.factory.muxes, [])
        self.assertEqual(peer.bytesReceived, 0)

    def test_forgetsGate(self) -> None:
        """
        Once there is a mux, the connection does not keep the gate, which has the keys.
        """
        peer, transport = self.meet()
        newcomer: Any = transport.protocol
        frame = peer.seal(0, Flag.OPEN_STREAM)
        self.deliver(transport, frame[:-1])
        self.assertIsNotNone(newcomer._gate)
        self.deliver(transport, frame[-1:])
        self.mux()
        self.assertEqual((newcomer._gate, newcomer._parser), (None, None))

    def test_mux(self) -> None:
        """
        The first frame and all bytes after it reach the mux, however they are cut.
        """
        frames = ((0, Flag.OPEN_STREAM, 0), (0, Flag.DATA, b"hello"))
        for size in (1, 7, 51, 52, 53, 1000):
            self.start()
            peer, transport = self.meet()
            sealed = b"".join(peer.seal(*frame) for frame in frames)
            for start in range(0, len(sealed), size):
                self.deliver(transport, sealed[start : start + size])
            mux = self.mux()
            self.assertTrue(mux.authenticated)
            self.assertEqual(mux.bytesReceived, len(sealed))
            self.assertEqual(bytes(self.streams.made[0].received), b"hello")
            self.assertEqual(self.factory.pool.muxes, [mux])
            self.streams.made[0].stream.write(b"answer")
            self.clock.advance(0)
            self.assertIn((0, Flag.DATA, 6, b"answer"), peer.take())
            self.assertEqual(len(self.factory._strangers), 0)
            self.assertEqual(self.factory._newcomers, set())
            mux.checkInvariants()

    def test_restrained(self) -> None:
        """
        What TLS does for a connection by itself is bounded until the peer has shown a
        key.
        """
        below = Descriptor()
        self.patch(restraint, "_socketBelow", lambda transport: below)
        peer, transport = self.meet()
        self.assertEqual(below.bufferSize, restraint.STRANGERS_READ)
        self.assertIsNotNone(below.producer)
        self.clock.advance(SILENT)
        self.assertEqual(len(self.factory.muxes), 1)
        self.assertEqual(below.bufferSize, restraint.STRANGERS_READ)
        self.assertIsNone(below.producer)
        self.deliver(transport, peer.seal(0, Flag.KEEPALIVE))
        self.assertEqual(below.bufferSize, Descriptor.bufferSize)

    def test_lost(self) -> None:
        """
        The mux learns that the connection is lost.
        """
        peer, transport = self.meet()
        self.deliver(transport, peer.seal(0, Flag.OPEN_STREAM))
        assert peer.transport is not None
        peer.transport.loseConnection()
        self.clock.advance(0)
        self.assertEqual(self.factory.muxes, [])
        self.assertEqual(self.streams.made[0].events, ["made", "lost"])

    def test_strict(self) -> None:
        """
        In strict mode the mux gets the hello, and the gate that has opened it.
        """
        server = MuxFactory(PSK, False, self.streams, clock=self.clock, strict=True)
        client = MuxFactory(
            PSK, True, clock=self.clock, strict=True, salts=type(server.salts)()
        )
        ends = (Newcomers(server).buildProtocol(peerAt(0)), client.buildProtocol(HERE))
        connect(self.clock, ends, (HERE, peerAt(0)), 0.0, None, 65536)
        self.assertEqual(server.muxes, [])
        for _ in range(5):
            self.clock.advance(0)
        [mux] = server.muxes
        self.assertTrue(mux.authenticated)

    def test_bug(self) -> None:
        """
        If the mux cannot be made, the connection is dropped.
        """

        def fail(mux: MuxProtocol) -> None:
            raise RuntimeError("a bug")

        self.patch(self.factory, "muxConnected", fail)
        peer, transport = self.meet()
        with self.assertRaises(RuntimeError):
            self.deliver(transport, peer.seal(0, Flag.KEEPALIVE))
        self.assertFalse(isUp(transport))


class SilentTests(NewcomerTestCase):
    """
    Peers that send nothing.
    """

    def test_grace(self) -> None:
        """
        After C{silentGrace} seconds a silent peer has a mux, and streams may be opened
        to it.
        """
        self.start(limits=Limits(silentGrace=5))
        self.meet()
        self.clock.advance(4.9)
        self.assertEqual(self.factory.muxes, [])
        self.clock.advance(0.1)
        mux = self.mux()
        self.clock.advance(0)
        self.assertEqual(self.factory.pool.muxes, [mux])
        self.assertEqual(len(self.factory._strangers), 1)

    def test_oneATurn(self) -> None:
        """
        Of several peers that become silent at the same time, one gets its mux in a
        turn.
        """
        for _ in range(3):
            self.meet()
        make = self.factory.makeMux

        def slow(*args: Any) -> MuxProtocol:
            self.clock.work(TURN_TIME)
            return make(*args)

        self.patch(self.factory, "makeMux", slow)
        self.clock.rightNow += SILENT
        for count in (0, 1, 2, 3):
            self.clock.turn()
            self.assertEqual(len(self.factory.muxes), count)

    def test_noGrace(self) -> None:
        """
        If C{silentGrace} is off, the peer has a mux after C{SILENT} seconds, but no
        streams are opened to it.
        """
        self.start(limits=Limits(silentGrace=0))
        self.meet()
        self.clock.advance(SILENT)
        self.mux()
        self.clock.advance(60)
        self.assertEqual(self.factory.pool.muxes, [])

    def test_later(self) -> None:
        """
        What a peer sends before and after that time reaches its mux.
        """
        peer, transport = self.meet()
        first = peer.seal(0, Flag.OPEN_STREAM)
        self.deliver(transport, first[:20])
        self.clock.advance(1)
        self.assertFalse(self.mux().authenticated)
        self.deliver(transport, first[20:])
        self.assertTrue(self.mux().authenticated)
        self.assertEqual(len(self.streams.made), 1)

    def test_left(self) -> None:
        """
        A peer that leaves without a word is not logged.
        """
        peer, _ = self.meet()
        assert peer.transport is not None
        peer.transport.loseConnection()
        self.clock.advance(0)
        self.assertEqual(self.lines.lines, [])
        self.assertEqual(len(self.factory._strangers), 0)
        self.clock.advance(10)
        self.assertEqual(self.factory.muxes, [])

    def test_leftEarly(self) -> None:
        """
        A peer that leaves within its first frame is logged, and so is the carrier's own
        error.
        """
        peer, transport = self.meet()
        self.deliver(transport, peer.seal(0, Flag.KEEPALIVE)[:-1])
        assert peer.transport is not None
        peer.transport.loseConnection()
        self.clock.advance(0)
        [line] = self.lines.lines
        self.assertIn("192.0.2.11:49152", line)
        self.assertIn("before any authenticated frame came", line)
        _, transport = self.meet()
        transport.protocol.connectionLost(Failure(ValueError("no certificate")))
        self.assertIn("no certificate", self.lines.lines[-1])

    def test_retire(self) -> None:
        """
        When the server stops, silent peers are dropped after C{silentGrace}, and a peer
        that sends its first frame before is told that the mux ends.
        """
        _, silent = self.meet()
        peer, transport = self.meet()
        self.factory.retire()
        self.assertEqual(len(self.factory.muxes), 2)
        self.deliver(transport, peer.seal(0, Flag.KEEPALIVE))
        self.clock.advance(0)
        self.assertEqual([frame[1] for frame in peer.take()], [Flag.CLOSE_MUX])
        self.clock.advance(0.9)
        self.assertTrue(isUp(silent))
        self.clock.advance(0.1)
        self.assertFalse(isUp(silent))

    def test_retireWithoutMuxes(self) -> None:
        """
        The same without a mux for each of them at once.  Of several that are silent,
        one is dropped in a turn of the reactor.
        """
        silent = [self.meet()[1] for _ in range(3)]
        peer, transport = self.meet()
        self.factory.retire(makeMuxes=False)
        self.assertEqual(self.factory.muxes, [])
        self.deliver(transport, peer.seal(0, Flag.KEEPALIVE))
        self.clock.advance(0)
        self.assertEqual([frame[1] for frame in peer.take()], [Flag.CLOSE_MUX])
        work = StrangersTurns.turnTime
        drop = Newcomer.drop

        def slow(newcomer: Newcomer) -> None:
            drop(newcomer)
            self.clock.work(work)

        self.patch(Newcomer, "drop", slow)
        self.clock.work(1)
        left = []
        for _ in range(8):
            left.append(len(self.factory._newcomers))
            self.clock.turn()
        self.assertEqual(sorted(set(left)), [0, 1, 2, 3])
        self.assertFalse(any(map(isUp, silent)))
        self.assertTrue(self.mux().authenticated)

    def test_age(self) -> None:
        """
        The mux of a silent peer is as old as its connection: it is dropped before
        younger ones, and in strict mode the time for the handshake is not longer.
        """
        limits = Limits(maxUnauthenticated=2, handshakeTimeout=5)
        self.start(limits=limits, strict=True)
        _, old = self.meet()
        self.clock.advance(0.5)
        _, young = self.meet()
        self.clock.advance(0.5)
        self.mux()
        self.meet()
        self.assertEqual([isUp(old), isUp(young)], [False, True])
        self.start(limits=limits, strict=True)
        _, transport = self.meet()
        self.clock.advance(4.9)
        self.assertTrue(isUp(transport))
        self.clock.advance(0.1)
        self.assertFalse(isUp(transport))

    def test_shortHandshake(self) -> None:
        """
        If C{handshakeTimeout} is shorter than C{silentGrace}, it holds all the same.
        """
        limits = Limits(silentGrace=7, handshakeTimeout=2)
        self.start(limits=limits, strict=True)
        _, transport = self.meet()
        self.clock.advance(2)
        self.clock.advance(0)
        self.assertFalse(isUp(transport))


class StrangerTests(NewcomerTestCase):
    """
    Peers that do not hold the key.
    """

    def test_wrongKey(self) -> None:
        """
        A stranger is refused without a mux, gets no answer, and the log says why.
        """
        for data in (
            FramePeer("another").seal(0, Flag.KEEPALIVE),
            b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n" * 3,
        ):
            peer, transport = self.meet()
            self.deliver(transport, data)
            self.clock.advance(0)
            self.assertFalse(isUp(transport))
            self.assertEqual(peer.bytesReceived, 0)
            self.assertIn("the mux from 192.0.2.", self.lines.lines[-1])
            transport.protocol.dataReceived(data)
        self.assertEqual(self.factory.muxes, [])
        self.assertEqual(len(self.lines.lines), 2)
        self.assertEqual(len(self.factory._strangers), 0)

    def test_replay(self) -> None:
        """
        A first frame that comes again is refused without a mux.
        """
        peer, transport = self.meet()
        first = peer.seal(0, Flag.KEEPALIVE)
        self.deliver(transport, first)
        _, again = self.meet()
        self.deliver(again, first)
        self.mux()
        self.assertFalse(isUp(again))
        self.assertIn("came again", self.lines.lines[-1])

    def test_garbage(self) -> None:
        """
        A stranger leaves nothing to the garbage collector.
        """
        self.start(limits=Limits(addressQuota=1))
        frame = FramePeer("another").seal(0, Flag.KEEPALIVE)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for data in (b"", b"x", frame):
            newcomer = self.newcomers.buildProtocol(peerAt(0))
            assert isinstance(newcomer, Newcomer)
            transport = StringTransport(peerAddress=peerAt(0))
            newcomer.makeConnection(transport)
            if data:
                newcomer.dataReceived(data)
            newcomer.connectionLost(Failure(ConnectionAborted()))
            self.lines.lines.clear()
            gone = weakref.ref(newcomer)
            del newcomer, transport
            self.clock.advance(0)
            self.assertIsNone(gone(), data)

    def test_evicted(self) -> None:
        """
        If too many connections wait for their first frame, the oldest is dropped.
        """
        self.start(limits=Limits(maxUnauthenticated=2))
        transports = [self.meet()[1] for _ in range(3)]
        self.assertEqual([isUp(one) for one in transports], [False, True, True])
        self.assertIn("too many connections", self.lines.lines[-1])

    def test_quota(self) -> None:
        """
        Connections beyond the quota of their address are refused.
        """
        self.start(limits=Limits(addressQuota=1))
        ends = []
        for _ in range(2):
            protocol = self.newcomers.buildProtocol(peerAt(0))
            ends.append(StringTransport(peerAddress=peerAt(0)))
            protocol.makeConnection(ends[-1])
        self.assertEqual([end.disconnected for end in ends], [False, True])


class RevokedTests(NewcomerTestCase):
    """
    Peers whose key is revoked before they have a mux.
    """

    def setUp(self) -> None:
        super().setUp()
        self.path = FilePath(self.mktemp())
        self.write("alice", "bob")
        self.keyring = readPSKFile(self.path.path)

    def write(self, *names: str) -> None:
        """
        Write the key file.
        """
        lines = [f"{name}:{name} has this long key" for name in names]
        self.path.setContent("\n".join(["[keyring]", *lines, ""]).encode())
        self.path.chmod(0o600)

    def begin(self, strict: bool) -> tuple[FramePeer, Carrier, bytes]:
        """
        Have a part of alice's first frame arrive.

        @return: alice, the connection, and the rest of the frame.
        """
        self.start(self.keyring, strict=strict)
        peer, transport = self.meet("alice has this long key")
        frame = peer.seal(0, Flag.KEEPALIVE)
        if strict:
            key = "alice has this long key"
            client = MuxFactory(key, True, clock=self.clock, strict=True, salts=Salts())
            frame = client.makeGate().takeOutput()
        self.deliver(transport, frame[:20])
        return peer, transport, frame[20:]

    def test_reloaded(self) -> None:
        """
        Nobody gets in by a key that was revoked, also if a part of the first frame came
        before, and is sent nothing that is sealed with it.
        """
        for strict in (False, True):
            self.write("alice", "bob")
            self.keyring.reload()
            peer, transport, rest = self.begin(strict)
            self.write("bob")
            self.keyring.reload()
            made: list[object] = []
            self.patch(self.factory, "makeMux", made.append)
            self.deliver(transport, rest)
            self.clock.advance(0)
            self.assertFalse(isUp(transport))
            self.assertEqual(peer.bytesReceived, 0)
            self.assertIn("revoked", self.lines.lines[-1])
            self.assertEqual(made, [])

    def test_byName(self) -> None:
        """
        C{endRevoked} ends the mux of a name that the application gives, although its
        key is in the keyring.  Only if a reload has taken another key of that name away
        does the mux go on.
        """
        lines = "[keyring]\nalice:alice has this long key\n"
        for more, ended in (("", True), ("alice:and had this one too\n", False)):
            self.path.setContent(
                (lines + more + "bob:bob has this long key\n").encode()
            )
            self.path.chmod(0o600)
            self.keyring.reload()
            self.start(self.keyring)
            peer, transport = self.meet("alice has this long key")
            self.deliver(transport, peer.seal(0, Flag.KEEPALIVE))
            mux = self.mux()
            self.write("alice", "bob")
            self.keyring.reload()
            self.factory.endRevoked(["alice"])
            self.assertEqual(mux.reason is not None, ended)

    def test_endRevoked(self) -> None:
        """
        C{endRevoked} drops all connections whose peers have not shown a key, and the
        log has few lines about that.
        """
        _, transport, _ = self.begin(False)
        silent = [self.meet()[1] for _ in range(30)]
        self.factory.endRevoked(["alice"])
        self.assertFalse(any(isUp(one) for one in [transport, *silent]))
        self.assertLess(len(self.lines.lines), 15)
        self.assertEqual(len(self.factory._strangers), 0)


class TurnTests(NewcomerTestCase):
    """
    Newcomers take turns.
    """

    def test_oneATurn(self) -> None:
        """
        Of strangers whose frames come in one turn of the reactor, the first is refused
        at once.  The others wait, and are not read meanwhile.  The newest is next,
        because the oldest are the first to be dropped.
        """

        def slow(gate: KnownKey, header: bytes, sealed: bytes) -> bytes:
            self.clock.work(TURN_TIME)
            raise AuthenticationFailed("a stranger")

        self.patch(KnownKey, "open", slow)
        transports = [self.meet()[1] for _ in range(4)]
        for transport in transports:
            self.deliver(transport, bytes(52))
        for over in ({0}, {0, 3}, {0, 3, 2}, {0, 1, 2, 3}):
            alive = [isUp(transport) for transport in transports]
            self.assertEqual(alive, [number not in over for number in range(4)])
            self.assertFalse(any(one.reading for one in transports))
            self.clock.turn()

    def test_wait(self) -> None:
        """
        A peer with the key waits for its turn among strangers, and then is read again.
        """
        _, stranger = self.meet()
        peer, transport = self.meet()
        self.deliver(stranger, bytes(52))
        self.deliver(transport, peer.seal(0, Flag.OPEN_STREAM))
        self.assertFalse(transport.reading)
        self.deliver(transport, peer.seal(0, Flag.DATA, b"more"))
        self.assertEqual(self.factory.muxes, [])
        self.clock.turn()
        self.assertTrue(transport.reading)
        self.assertEqual(bytes(self.streams.made[0].received), b"more")

    def test_dueWhileWaiting(self) -> None:
        """
        If the time for silence ends while received bytes wait for their turn, the mux
        is made after the turn.
        """
        _, stranger = self.meet()
        _, transport = self.meet()
        self.deliver(stranger, bytes(52))
        self.deliver(transport, b"x")
        self.factory.retire()
        self.assertEqual(self.factory.muxes, [])
        self.clock.turn()
        self.assertFalse(self.mux().authenticated)

    def test_droppedWhileWaiting(self) -> None:
        """
        Nothing is kept of strangers that are dropped while they wait, although newer
        ones wait too.
        """
        self.start(Keyring({f"peer {n}": os.urandom(16) for n in range(20)}))
        transports = [self.meet()[1] for _ in range(5)]
        for transport in transports:
            self.deliver(transport, bytes(52))
        dropped = []
        for transport in transports[1:3]:
            newcomer: Any = transport.protocol
            newcomer.evict()
            dropped.append(weakref.ref(newcomer))
        del transports[1:3], transport, newcomer
        for _ in range(3):
            self.clock.turn()
        gc.collect()
        self.assertEqual([one() for one in dropped], [None, None])
        self.assertEqual([isUp(one) for one in transports], [False, True, True])

    def test_unpausable(self) -> None:
        """
        The first frame is not delayed if reading cannot be paused.
        """

        class Unpausable:
            def __init__(self) -> None:
                self.lost = False

            def loseConnection(self) -> None:
                self.lost = True

        _, stranger = self.meet()
        self.deliver(stranger, bytes(52))
        newcomer: Any = self.newcomers.buildProtocol(peerAt(0))
        transport = Unpausable()
        newcomer.makeConnection(transport)
        newcomer.dataReceived(bytes(52))
        self.assertTrue(transport.lost)

    def test_manyKeys(self) -> None:
        """
        Many keys are tried in several turns, and nothing is read meanwhile.  The right
        one may be the last.
        """
        turns = 3
        names = [f"peer {number}" for number in range(turns * KEYS_A_TURN)]
        keys: dict[str, bytes | str] = {name: os.urandom(16) for name in names}
        keys["me"] = PSK
        self.start(Keyring(keys))
        peer, transport = self.meet()
        self.deliver(transport, peer.seal(0, Flag.KEEPALIVE))
        for _ in range(turns):
            self.assertEqual(self.factory.muxes, [])
            self.assertFalse(transport.reading)
            self.clock.turn()
        self.assertEqual(self.mux().peerName, "me")
        self.assertTrue(transport.reading)

    def lose(self, data: bytes, peer: FramePeer, transport: Carrier) -> None:
        """
        Have bytes and the end of a connection come, while a stranger has its turn.
        """
        _, stranger = self.meet()
        self.deliver(stranger, bytes(52))
        self.deliver(transport, data)
        transport.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.streams.made, [])
        self.clock.turn()

    def test_lostWhileWaiting(self) -> None:
        """
        What a peer has sent before its end is handled, although the end comes first.
        TLS can report the end of a connection that is paused.
        """
        peer, transport = self.meet()
        frames = peer.seal(0, Flag.OPEN_STREAM) + peer.seal(0, Flag.DATA, b"hello")
        self.lose(frames, peer, transport)
        [recorder] = self.streams.made
        self.assertEqual(bytes(recorder.received), b"hello")
        for _ in range(3):
            self.clock.turn()
        self.assertEqual(recorder.events[-1], "lost")
        self.assertEqual(self.factory.muxes, [])
        self.assertEqual(len(self.factory._strangers), 0)

    def test_lostStranger(self) -> None:
        """
        A stranger, or a peer with a part of its frame, that is gone when its turn comes
        gets no mux.
        """
        peer, transport = self.meet()
        self.lose(peer.seal(0, Flag.KEEPALIVE)[:-1], peer, transport)
        self.assertIn("before any authenticated frame came", self.lines.lines[-1])
        peer, transport = self.meet()
        self.lose(bytes(52), peer, transport)
        self.assertEqual(self.factory.muxes, [])
        self.assertEqual(len(self.factory._strangers), 0)

    def test_manyHonest(self) -> None:
        """
        In a turn of the reactor only one mux is made.
        """
        peers = [self.meet() for _ in range(3)]
        for peer, transport in peers:
            self.deliver(transport, peer.seal(0, Flag.KEEPALIVE))
        self.assertEqual(len(self.factory.muxes), 1)
        factory, made = self.factory, []
        make = factory.makeMux

        def slow(*args: Any) -> MuxProtocol:
            self.clock.work(TURN_TIME)
            made.append(args)
            return make(*args)

        self.patch(factory, "makeMux", slow)
        self.clock.turn()
        self.assertEqual(len(made), 1)
        self.clock.turn()
        self.assertEqual(len(factory.muxes), 3)

    def test_known(self) -> None:
        """
        Where a peer has shown its key before, it is before strangers, and that key is
        tried first.
        """
        names = [f"peer {number}" for number in range(3 * KEYS_A_TURN)]
        keys: dict[str, bytes | str] = {name: os.urandom(16) for name in names}
        self.start(Keyring({**keys, "me": PSK}))
        peer, transport = self.meet()
        self.deliver(transport, peer.seal(0, Flag.KEEPALIVE))
        for _ in range(4):
            self.clock.turn()
        self.mux().abort()
        self.clock.advance(0)
        _, begun = self.meet()
        self.count = 0
        peer, transport = self.meet()
        self.count = 10
        _, later = self.meet()
        self.deliver(begun, bytes(52))
        self.deliver(transport, peer.seal(0, Flag.KEEPALIVE))
        self.deliver(later, bytes(52))
        for _ in range(3):
            self.clock.turn()
        self.assertEqual(self.mux().peerName, "me")

    def test_knownStrangers(self) -> None:
        """
        At an address where a peer has shown a key, one turn comes before other work: a
        stranger may have such an address too, and then waits as all others.
        """
        names = [f"peer {number}" for number in range(3 * KEYS_A_TURN)]
        keys: dict[str, bytes | str] = {name: os.urandom(16) for name in names}
        self.start(Keyring({**keys, "me": PSK}))
        self.patch(self.factory._strangers, "nameAt", lambda address: "me")
        strangers = [self.meet()[1] for _ in range(3)]
        peer, transport = self.meet()
        for stranger in strangers:
            self.deliver(stranger, bytes(52))
        self.deliver(transport, peer.seal(0, Flag.KEEPALIVE))
        for _ in range(3):
            self.assertEqual(self.factory.muxes, [])
            self.clock.turn()
        self.assertEqual(self.mux().peerName, "me")
        self.assertTrue(all(isUp(stranger) for stranger in strangers))
        for _ in range(9):
            self.clock.turn()
        self.assertFalse(any(isUp(stranger) for stranger in strangers))


class ListeningTests(SynchronousTestCase):
    """
    What ports get.
    """

    def test_ports(self) -> None:
        """
        All servers give their ports L{Newcomers}.  Only a server of sessions with
        silent peers does not, because its sessions begin with the connection.
        """
        clock = SlowClock()
        given: list[Any] = []

        class Endpoint:
            def listen(self, factory: Any) -> Any:
                given.append(factory)
                return Deferred()

        carrier: Any = Endpoint()
        MuxServerEndpoint(clock, carrier, PSK).listen(Recorders())
        Session.server(clock, carrier, PSK)
        Session.server(clock, carrier, PSK, silentPeers=True)
        kinds = [isinstance(factory, Newcomers) for factory in given]
        self.assertEqual(kinds, [True, True, False])

    def test_logPrefix(self) -> None:
        """
        The log has the name of the streams' factory.
        """
        factory = MuxFactory(PSK, False, Recorders(), clock=SlowClock())
        newcomers = Newcomers(factory)
        self.assertEqual(newcomers.logPrefix(), "Recorders (gomux)")
        newcomer: Any = newcomers.buildProtocol(None)
        self.assertEqual(newcomer.logPrefix(), "Recorders (gomux)")
