"""
Strict mode, with an independent implementation that was written from
C{docs/strict.rst} and C{docs/protocol.rst} alone.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_encrypt as sealMessage,
)
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

import gomux.test
from gomux import Limits
from gomux._wire import noise, ratchet
from gomux._wire.keyring import Keyring
from gomux.error import (
    AuthenticationFailed,
    GomuxError,
    HandshakeFailed,
    OutOfSequence,
    PeerClosedConnection,
    PeerVanished,
    ProtocolViolation,
)
from gomux.test.support.echo import Asking, Echo
from gomux.test.support.helpers import Parts
from interop.peers import blocking_strict
from interop.peers.blocking_greeting import GreetingMux
from interop.peers.blocking_mux import HEADER, Flag, Mux, MuxError
from interop.peers.blocking_strict import REKEY, Hellos, Noise, StrictMux
from interop.support.harness import PeerTestCase, drive
from interop.support.independent import IndependentTestCase, Watched
from interop.test.test_peers import DRIVERS

PSK = "a pre-shared key of the live tests"
VECTORS = Path(gomux.test.__file__).with_name("vectors")

#: Whether this project is the client.
ROLES = (False, True)

#: How many streams send at the same time, so that this project sends small frames.
MANY = 200


def read(name: str) -> Any:
    """
    @return: the contents of a file of recorded vectors.
    """
    return json.loads((VECTORS / name).read_text())


class VectorTests(SynchronousTestCase):
    """
    The independent implementation sends the recorded frames of one side when the frames
    of the other side come in.
    """

    def start(self, vector: dict[str, Any], side: str) -> None:
        """
        Make a mux with the recorded secrets of a side.
        """
        self.wire, there = socket.socketpair()
        self.addCleanup(self.wire.close)
        self.wire.settimeout(10)
        self.peer: Any = StrictMux(
            there,
            bytes.fromhex(vector["psk"]).decode(),
            side == "client",
            bytes.fromhex(vector["context"]),
            hellos=Hellos(),
            random=lambda size: bytes.fromhex(
                vector[side + {16: "Prefix", 32: "Private"}[size]]
            ),
            clock=lambda: vector[f"{side}Time"],
        )

    def assertSends(self, *frames: str) -> None:
        for frame in frames:
            size = len(frame) // 2
            self.assertEqual(self.wire.recv(size, socket.MSG_WAITALL).hex(), frame)

    def feed(self, *frames: str) -> None:
        self.wire.sendall(bytes.fromhex("".join(frames)))

    def assertRekeys(self, frames: dict[str, str]) -> None:
        """
        Check the frames on both sides of each change of the key.
        """
        for counter, frame in frames.items():
            self.peer._counter = int(counter)
            self.peer._sealed(0, Flag.KEEPALIVE, b"", 0)
            self.assertSends(frame)

    def assertOpens(self, frames: dict[str, str]) -> None:
        """
        Check that these frames are opened.  They are pings, so each is answered.
        """
        for counter, frame in frames.items():
            self.peer._peersNonce = (self.peer._peersNonce[0], int(counter) - 1)
            self.feed(frame)
            answer = self.wire.recv(52, socket.MSG_WAITALL)
            self.assertEqual(answer[:4], int(counter).to_bytes(4, "little"))

    def test_client(self) -> None:
        """
        As client.
        """
        for vector in read("strict.json"):
            self.start(vector, "client")
            self.assertSends(vector["clientHello"])
            self.feed(vector["serverHello"])
            self.assertSends(vector["clientConfirmation"])
            stream = self.peer.openStream()
            stream.write(b"hello")
            self.peer.ping()
            self.assertSends(*vector["clientFrames"])
            self.assertRekeys(vector["clientRekey"])
            self.feed(*vector["serverFrames"])
            self.assertEqual(stream.read(5), b"world")
            self.assertEqual(stream.read(5), b"")

    def test_server(self) -> None:
        """
        As server.
        """
        for vector in read("strict.json"):
            self.start(vector, "server")
            self.feed(vector["clientHello"])
            self.assertSends(vector["serverHello"])
            self.feed(vector["clientConfirmation"], *vector["clientFrames"][:2])
            stream = self.peer.acceptStream()
            with stream._condition:
                stream._condition.wait_for(lambda s=stream: s._buffer, 10)
            self.assertEqual(stream._buffer, b"hello")
            stream.write(b"world")
            stream.close()
            self.assertSends(*vector["serverFrames"])
            self.assertOpens(vector["clientRekey"])

    def test_noise(self) -> None:
        """
        The handshake is that of Noise, on both sides.
        """
        (vector,) = read("noise.json")["vectors"]
        client, server = (
            Noise(
                bytes.fromhex(vector[f"{side}_psks"][0]),
                bytes.fromhex(vector[f"{side}_prologue"]),
                bytes.fromhex(vector[f"{side}_ephemeral"]),
            )
            for side in ("init", "resp")
        )
        messages = [
            (bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"]))
            for message in vector["messages"]
        ]
        self.assertEqual(client.write(1, messages[0][0]), messages[0][1])
        self.assertEqual(server.read(1, messages[0][1]), messages[0][0])
        self.assertEqual(server.write(2, messages[1][0]), messages[1][1])
        self.assertEqual(client.read(2, messages[1][1]), messages[1][0])
        self.assertEqual(client.split(), server.split())
        for number, (payload, sealed) in enumerate(messages[2:]):
            nonce = bytes(4) + (number // 2).to_bytes(8, "little")
            key = client.split()[number % 2]
            self.assertEqual(sealMessage(payload, None, nonce, key), sealed)


class PairTests(SynchronousTestCase):
    """
    Two muxes of the independent implementation.
    """

    def start(self, **settings: Any) -> None:
        """
        @param settings: Further arguments for the client.
        """
        server, client = socket.socketpair()
        self.server: Any = StrictMux(server, PSK, False, hellos=Hellos())
        self.client = StrictMux(client, PSK, True, hellos=Hellos(), **settings)
        self.addCleanup(self.client.close)

    def test_rekeyed(self) -> None:
        """
        Data arrives while the keys change.
        """
        self.patch(blocking_strict, "REKEY", 7)
        self.start()
        here = self.client.openStream()
        there = self.server.acceptStream()
        for _ in range(20):
            here.write(b"hello")
            self.assertEqual(there.read(5), b"hello")
            there.write(b"world")
            self.assertEqual(here.read(5), b"world")

    def test_request(self) -> None:
        """
        A stream that begins with a request is refused, and the mux stays up.
        """
        self.start()
        refused = self.client.openStream(1)
        self.assertEqual(refused.read(5), b"")
        self.client.openStream()
        self.assertEqual(self.server.acceptStream().number, 2)

    def test_silent(self) -> None:
        """
        A side whose pings are not echoed ends the mux.
        """
        self.start(interval=0.05, deadPeer=0.2)
        self.server._pinged = lambda number: None
        with self.assertRaisesRegex(MuxError, "does not answer pings"):
            self.client.acceptStream()

    def test_sameProcess(self) -> None:
        """
        Two muxes of a process refuse each other.
        """
        server, client = socket.socketpair()
        mux = StrictMux(server, PSK, False)
        StrictMux(client, PSK, True)
        with self.assertRaisesRegex(MuxError, "connected with itself"):
            mux.acceptStream()

    def test_replayed(self) -> None:
        """
        A client's hello that came before gets no answer.
        """
        remembers = Hellos()
        for error in ("the connection ended without CloseMux", "handshake: .* before"):
            server, client = socket.socketpair()
            mux = StrictMux(server, PSK, False, hellos=remembers)
            settings: Any = {"hellos": Hellos(), "random": bytes}
            peer = StrictMux(client, PSK, True, **settings)
            mux._up.wait()
            peer._shutdown(socket.SHUT_WR)  # a refused client may have closed already
            with self.assertRaisesRegex(MuxError, error):
                mux.acceptStream()


class FirstHeader(StrictMux):
    """
    Sends nothing but the header of a WindowUpdate with a length that is too large.
    """

    def _shakeHands(self) -> None:
        header = HEADER.pack(0, 131073, Flag.WINDOW_UPDATE, bytes(24))
        self._deadline = time.monotonic() + 10
        self._socket.sendall(header)
        while True:
            self._receive(1)


class StrictTests(IndependentTestCase):
    """
    This project in each role.
    """

    def setUp(self) -> None:
        self.keyring = Keyring.of(PSK)

    async def start(
        self,
        isClient: bool,
        peer: Callable[..., Mux] = StrictMux,
        peerIsClient: bool | None = None,
        psk: str = PSK,
        protocol: type[Protocol] = Echo,
        limits: Limits | None = None,
        strict: bool | Collection[str] = True,
        context: bytes = b"",
        peersContext: bytes = b"",
        strictClock: bool = False,
        **settings: Any,
    ) -> None:
        """
        Connect a mux of this project with one of the other implementation.

        @param isClient: Whether this project is the client.
        @param peerIsClient: Whether the other side is the client; by default it has
            the other role.
        @param psk: The pre-shared key of the other side.
        @param protocol: Serves the streams that the other side opens.
        @param settings: Further arguments for the other side.
        """
        role = not isClient if peerIsClient is None else peerIsClient
        if peersContext:
            settings["context"] = peersContext
        factory = Watched(
            self.keyring,
            isClient,
            Factory.forProtocol(protocol),
            clock=reactor,
            limits=Limits() if limits is None else limits,
            strict=strict,
            context=context,
            strictClock=strictClock,
        )
        await self.join(lambda there: peer(there, psk, role, **settings), factory)

    async def assertRefuses(self, error: type[GomuxError], text: str) -> None:
        """
        Check that this project ends the mux with an error.
        """
        reason = await self.mux.whenClosed()
        self.assertIsInstance(reason, error)
        self.assertIn(text, str(reason))

    async def assertRefused(self, text: str) -> None:
        """
        Check that the other side ends the mux in the handshake.
        """
        await self.mux.whenClosed()
        await deferToThread(self.peer.linger)
        self.assertEqual(str(self.peer._error), f"handshake: {text}")

    async def assertEchoes(self) -> None:
        """
        Check that streams of both sides work.
        """
        asking: Any = await self.mux.openStream(Factory.forProtocol(Asking))
        accepted = await deferToThread(self.peer.acceptStream)
        self.assertEqual(await deferToThread(accepted.read, 10), b"hello")
        await deferToThread(accepted.write, b"world")
        self.assertEqual(await asking.answer, b"world")
        stream = await deferToThread(self.peer.openStream)
        await deferToThread(stream.write, b"hello")
        self.assertEqual(await deferToThread(stream.read, 10), b"hello")

    async def test_streams(self) -> None:
        """
        Streams of both sides work.  The two sides have the same context, and check each
        other's clock.
        """
        for isClient in ROLES:
            await self.start(
                isClient,
                context=b"\0\xff",
                peersContext=b"\0\xff",
                strictClock=True,
                checksClock=True,
            )
            await self.assertEchoes()

    async def test_pings(self) -> None:
        """
        Each side echoes the other's pings.
        """
        for isClient in ROLES:
            await self.start(isClient, limits=Limits(ping=0.1), interval=0.1)
            await self.eventually(lambda: self.mux.roundTrip is not None)
            await self.eventually(lambda: self.peer.roundTrip is not None)

    async def test_onlyEchoes(self) -> None:
        """
        A side that only echoes pings stays connected, and does so from the client's
        first ping on, which may acknowledge nothing.
        """
        for isClient in ROLES:
            await self.start(isClient, limits=Limits(ping=0.05, deadPeer=1.5))
            await self.eventually(lambda: self.peer.echoes > 40)
            self.assertIsNone(self.mux.reason)

    async def test_silent(self) -> None:
        """
        A peer that does not echo is given up, whatever else it sends.
        """
        for isClient in ROLES:
            await self.start(isClient, limits=Limits(ping=0.1, deadPeer=0.5))
            self.peer._pinged = lambda number: None
            stream = await deferToThread(self.peer.openStream)
            while self.mux.reason is None:
                self.peer._sealed(stream.number, Flag.WINDOW_UPDATE, b"", 1)
                await deferLater(reactor, 0.05)
            self.assertIsInstance(self.mux.reason, PeerVanished)

    async def test_rekeyed(self) -> None:
        """
        Both sides change their keys after 65536 frames.
        """
        for isClient in ROLES:
            await self.start(isClient, protocol=Protocol)
            senders: list[Any] = [
                await self.mux.openStream(Factory.forProtocol(Protocol))
                for _ in range(MANY)
            ]
            sealer = Parts(self.mux).scheduler._sealer
            stream = await deferToThread(self.peer.openStream)
            sending = deferToThread(
                lambda s: [s.write(b"x") for _ in range(REKEY)], stream
            )
            while self.peer._peersNonce[1] <= REKEY:
                self.assertEqual((self.mux.reason, self.peer._error), (None, None))
                for sender in senders:
                    sender.transport.write(b"x")
                # A peer that is far behind would not answer pings in time.
                while sealer.last - self.peer._peersNonce[1] > 10 * MANY:
                    self.assertIsNone(self.mux.reason)
                    await deferLater(reactor, 0.001)
                await deferLater(reactor, 0)
            await sending
            self.assertEqual(self.peer._receiveKeys._index, 1)
            self.assertEqual(self.peer._sendKeys._index, 1)
            self.peer.roundTrip = None
            self.peer.ping()
            await self.eventually(lambda: self.peer.roundTrip is not None)

    # 131072 frames each way take 15 seconds on an idle machine.
    test_rekeyed.timeout = 280  # type: ignore[attr-defined]

    async def test_oftenRekeyed(self) -> None:
        """
        Both sides change their keys again and again.
        """
        self.patch(ratchet, "REKEY_FRAMES", 7)
        self.patch(blocking_strict, "REKEY", 7)
        for isClient in ROLES:
            await self.start(isClient)
            for _ in range(20):
                await self.assertEchoes()
            self.assertGreater(self.peer._receiveKeys._index, 5)

    async def test_bound(self) -> None:
        """
        A counter that is left out ends the mux.
        """
        for isClient in ROLES:
            await self.start(isClient)
            await self.assertEchoes()
            self.peer._counter += 1
            self.peer._sealed(0, Flag.KEEPALIVE, b"", 0)
            await self.assertRefuses(OutOfSequence, "")

    async def test_otherKey(self) -> None:
        """
        A frame under another key than the direction's ends the mux.
        """
        for isClient in ROLES:
            await self.start(isClient)
            await self.assertEchoes()
            self.peer._sendKeys = self.peer._receiveKeys
            self.peer._sealed(0, Flag.KEEPALIVE, b"", 0)
            await self.assertRefuses(AuthenticationFailed, "")
            self.assertNotIsInstance(self.mux.reason, OutOfSequence)

    async def test_rules(self) -> None:
        """
        Frames that may not be sent in strict mode end the mux.
        """
        for number, flag, length in (
            (0, 8, 0),
            (0, Flag.KEEPALIVE, 1),
            (0, Flag.CLOSE_STREAM, 1),
            (0, Flag.CLOSE_MUX, 1),
            (1000, Flag.WINDOW_UPDATE, 1),
            (1001, Flag.WINDOW_UPDATE, 1),
            (1000, Flag.CLOSE_STREAM, 0),
            (1001, Flag.DATA, 0),
            (0, Flag.OPEN_STREAM, 0),
            (1, Flag.OPEN_STREAM, 0),
            (0, Flag.WINDOW_UPDATE, 131073),
            (0, Flag.KEEPALIVE, 65537),
        ):
            for isClient in ROLES:
                await self.start(isClient)
                await self.assertEchoes()
                self.peer._sealed(number, flag, b"", length)
                await self.assertRefuses(ProtocolViolation, "")

    async def test_allowed(self) -> None:
        """
        Frames for streams that have ended or were skipped have no effect, a window
        update may be large, and the ID of CloseMux does not matter.
        """
        for isClient in ROLES:
            await self.start(isClient)
            peersOwn = int(isClient)
            await self.assertEchoes()
            self.peer._sealed(peersOwn, Flag.WINDOW_UPDATE, b"", 131072)
            self.peer._nextNumber = 1000 + peersOwn
            await self.assertEchoes()
            for number in (900 + peersOwn, 1 - peersOwn):
                for flag in (Flag.DATA, Flag.CLOSE_STREAM, Flag.CLOSE_STREAM):
                    self.peer._sealed(number, flag, b"", 0)
                self.peer._sealed(number, Flag.WINDOW_UPDATE, b"", 1)
            await self.assertEchoes()
            self.peer._sealed(77, Flag.CLOSE_MUX, b"", 0)
            await self.assertRefuses(PeerClosedConnection, "")

    async def test_largeLength(self) -> None:
        """
        A first frame with a length that no frame may have is refused by its header.
        """
        for isClient in ROLES:
            await self.start(isClient, peer=FirstHeader)
            await self.assertRefuses(ProtocolViolation, "length of 131073")

    async def test_request(self) -> None:
        """
        A stream that begins with a request, or with something newer, is refused.  The
        mux stays up.
        """
        for isClient in ROLES:
            await self.start(isClient)
            for length in (1, 2, 65536):
                refused = await deferToThread(self.peer.openStream, length)
                self.assertEqual(await deferToThread(refused.read, 1), b"")
            await self.assertEchoes()

    async def test_wrongKey(self) -> None:
        """
        The server refuses a client with another pre-shared key, without an answer.
        """
        await self.start(False, psk="another pre-shared key")
        await self.assertRefuses(AuthenticationFailed, "")
        await self.assertRefused("the connection ended")
        await self.start(True, psk="another pre-shared key")
        await self.assertRefused("message authentication failed")

    async def test_otherContext(self) -> None:
        """
        The server refuses a client with another context.
        """
        await self.start(False, context=b"a")
        await self.assertRefuses(HandshakeFailed, "context")
        await self.assertRefused("the connection ended")
        await self.start(True, context=b"a")
        await self.assertRefused("the peer has another context, or the same role")

    async def test_sameRole(self) -> None:
        """
        Two clients refuse each other.
        """
        await self.start(True, peerIsClient=True)
        await self.assertRefuses(HandshakeFailed, "client")
        await self.assertRefused("the peer has another context, or the same role")

    async def test_zeroSecret(self) -> None:
        """
        An ephemeral key that makes the shared secret zero ends the mux with an error
        that says so.
        """
        self.patch(blocking_strict, "crypto_scalarmult_base", lambda key: bytes(32))
        self.patch(blocking_strict, "crypto_scalarmult", lambda *keys: bytes(32))
        for isClient in ROLES:
            await self.start(isClient)
            await self.assertRefuses(HandshakeFailed, "shared secret zero")

    async def test_peerSeesZeroSecret(self) -> None:
        """
        The other implementation refuses such a key as well.
        """

        class ZeroKey:
            def public_key(self) -> ZeroKey:
                return self

            def public_bytes_raw(self) -> bytes:
                return bytes(32)

            def exchange(self, public: object) -> bytes:
                return bytes(32)

            generate = classmethod(lambda cls: cls())

        self.patch(noise, "X25519PrivateKey", ZeroKey)
        for isClient in ROLES:
            await self.start(isClient)
            await self.assertRefused("the shared secret is zero")

    async def test_otherVersion(self) -> None:
        """
        A hello of another version is refused, with both versions in the error.
        """
        self.patch(blocking_strict, "HELLO_ID", blocking_strict.HELLO_ID + (1 << 24))
        for isClient in ROLES:
            await self.start(isClient)
            await self.assertRefuses(HandshakeFailed, "version 3")

    async def test_notStrict(self) -> None:
        """
        A peer that greets has the key, but is not in strict mode.
        """
        await self.start(False, peer=GreetingMux)
        await self.assertRefuses(HandshakeFailed, "strict")
        await self.start(True, peer=GreetingMux)
        await self.assertRefuses(HandshakeFailed, "strict")
        await self.start(True, strict=False)
        await self.assertRefused("the peer has the key, but is not in strict mode")

    async def test_replayed(self) -> None:
        """
        A client's hello that came before is refused.
        """
        prefix = iter((bytes(range(32)), bytes(range(16))) * 2)
        again: dict[str, Any] = {
            "random": lambda size: next(prefix),
            "clock": lambda: 1e9,
        }
        await self.start(False, hellos=Hellos(), **again)
        await self.assertEchoes()
        await self.start(False, hellos=Hellos(), **again)
        await self.assertRefuses(OutOfSequence, "")
        await self.assertRefused("the connection ended")

    async def test_clock(self) -> None:
        """
        A clock that differs by more than 300 seconds is refused only by a side that
        checks it.
        """
        for isClient in ROLES:
            for clock, strictClock, isRefused in (
                (lambda: 0.0, False, False),
                (lambda: (1 << 64) - 1, False, False),
                (lambda: time.time() + 302, True, True),
                (lambda: time.time() + 298, True, False),
                (lambda: time.time() - 298, True, False),
                (lambda: time.time() - 302, True, True),
            ):
                await self.start(isClient, strictClock=strictClock, clock=clock)
                if isRefused:
                    await self.assertRefuses(HandshakeFailed, "clock")
                else:
                    await self.assertEchoes()

    async def test_bits(self) -> None:
        """
        The bits in a hello do not matter, neither the known one nor others.
        """
        self.patch(blocking_strict, "BOUND", 0xFFFFFFFE)
        for isClient in ROLES:
            await self.start(isClient)
            await self.assertEchoes()

    async def test_keyring(self) -> None:
        """
        A server finds the key of the peer's hello among several.
        """
        self.keyring = Keyring({"a": "one", "b": PSK, "c": "another"})
        await self.start(False, strict={"b"})
        await self.assertEchoes()
        await self.start(False, psk="another", strict={"b"})
        await self.assertRefused("the peer has the key, but is not in strict mode")

    async def test_unconfirmed(self) -> None:
        """
        The server drops a client whose first frame is no confirmation, or that sends
        none in time.
        """

        class Other(StrictMux):
            def _sealed(self, *arguments: Any, **settings: Any) -> None:
                super()._sealed(0, Flag.OPEN_STREAM, b"", 0)

        class Silent(StrictMux):
            def _sealed(self, *arguments: Any, **settings: Any) -> None:
                pass

        await self.start(False, peer=Other)
        await self.assertRefuses(HandshakeFailed, "confirm")
        await self.start(False, peer=Silent, limits=Limits(handshakeTimeout=0.2))
        await self.assertRefuses(HandshakeFailed, "confirm")


class ProgramTests(PeerTestCase):
    """
    The programs of this project and of the independent implementation, with all
    drivers.
    """

    async def drives(self, server: str, client: str, serverDrives: bool) -> None:
        strict = ("--strict", "--context", "äöü")
        drives = drive(*DRIVERS)
        peers = await self.startPair(
            server,
            client,
            (*strict, *(drives if serverDrives else ())),
            (*strict, *(() if serverDrives else drives)),
        )
        await self.assertDrives(peers[not serverDrives], len(DRIVERS))

    async def test_serverDrives(self) -> None:
        """
        This project is the server, and opens the streams.
        """
        await self.drives("this", "blocking", True)

    async def test_serverServes(self) -> None:
        """
        This project is the server, and serves the streams.
        """
        await self.drives("this", "blocking", False)

    async def test_clientDrives(self) -> None:
        """
        This project is the client, and opens the streams.
        """
        await self.drives("blocking", "this", False)

    async def test_clientServes(self) -> None:
        """
        This project is the client, and serves the streams.
        """
        await self.drives("blocking", "this", True)
