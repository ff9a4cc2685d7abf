"""
The Wireshark dissector C{contrib/gomux.lua}, run by tshark.
"""

from __future__ import annotations

import json
import random
import shutil
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from gomux import Limits, MuxFactory, MuxProtocol
from gomux._wire.frame import Flag, Frame, FrameParser
from gomux._wire.salts import Salts
from gomux.error import RequestRefused
from gomux.test.support.echo import Echo
from gomux.test.support.middle import cutFrames
from gomux.test.support.recordings import VECTORS, parse, session, sessions
from interop.support.capture import Capture, RecordingProxy, Writes
from interop.support.harness import PeerTestCase, whyMissing
from interop.support.tunnels import PSK, until

#: The seed of the damaged captures, and how many connections they have.
SEED, DAMAGED = 20261127, 400


def vector(name: str) -> Writes:
    """
    @return: the frames of a file of recorded vectors.
    """
    frames = json.loads((VECTORS / f"{name}.json").read_text())["frames"]
    return [(f["from"] == "client", bytes.fromhex(f["frame"])) for f in frames]


def recording(name: str) -> Writes:
    """
    @return: what was written in a recorded session of the Go reference.
    """
    return [(side == "client", data) for side, data in session(name).writes]


def bytesOf(writes: Writes, isClient: bool) -> bytes:
    return b"".join(data for writer, data in writes if writer == isClient)


def kinds(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["gomux.kind"] for frame in frames]


class DissectorTestCase(TestCase):
    """
    A test of the dissector.
    """

    timeout = 60
    skip = None if shutil.which("tshark") else "tshark is not installed"

    def capture(self, *connections: Writes, **options: Any) -> Capture:
        """
        Make a capture of some connections.
        """
        capture = Capture(self.mktemp())
        for writes in connections:
            capture.add(writes, **options)
        return capture


class Sender(Protocol):
    """
    Sends some data, and waits for as much.
    """

    def __init__(self, size: int, isAborted: bool = False) -> None:
        self._size = size
        self._isAborted = isAborted
        self.ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(bytes(self._size))

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self._size -= len(data)
        if not self._size:
            if self._isAborted:
                self.transport.abortConnection()  # type: ignore[attr-defined]
            else:
                self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(None)


class SenderFactory(Factory):
    noisy = False

    def __init__(self, protocol: Sender) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Sender:
        return self._protocol


class LiveTests(DissectorTestCase, PeerTestCase):
    """
    tshark sees the frames that the peers have received.
    """

    def setUp(self) -> None:
        #: The frames that each mux of this process has received.
        self.received: dict[FrameParser, list[Frame]] = {}
        nextFrame = FrameParser.nextFrame

        def logged(parser: FrameParser) -> Frame | None:
            frame = nextFrame(parser)
            if frame is not None:
                self.received.setdefault(parser, []).append(frame)
            return frame

        self.patch(FrameParser, "nextFrame", logged)

    def framesTo(self, mux: MuxProtocol) -> list[Frame]:
        return self.received[mux._incoming.parser]

    async def connect(self, port: int, **settings: Any) -> MuxProtocol:
        """
        Connect a mux of this process through a proxy that records it.
        """
        self.proxy = RecordingProxy(port)
        self.addCleanup(self.proxy.listening.stopListening)
        limits = Limits(ping=0.1)
        factory = MuxFactory(PSK, True, clock=reactor, limits=limits, **settings)  # type: ignore[arg-type]
        endpoint = TCP4ClientEndpoint(
            reactor, "127.0.0.1", self.proxy.listening.getHost().port
        )
        mux: MuxProtocol = await endpoint.connect(factory)
        return mux

    def send(
        self, mux: MuxProtocol, sender: Sender, service: str | None = None
    ) -> Deferred[None]:
        """
        @return: fires when the stream of a L{Sender} has ended.
        """
        mux.openStream(SenderFactory(sender), service)
        return sender.ended

    async def withThis(self, **settings: Any) -> None:
        """
        Exchange frames of every kind with a mux of this process.
        """
        muxes: list[MuxProtocol] = []
        factory = MuxFactory(
            PSK,
            False,
            Factory.forProtocol(Echo),
            services={"echo": Factory.forProtocol(Echo)},
            clock=reactor,  # type: ignore[arg-type]
            limits=Limits(ping=0.1),
            **settings,
        )
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        if settings:
            settings["salts"] = Salts()
        mux = await self.connect(port.getHost().port, **settings)
        await self.send(mux, Sender(1_000_000), "echo")
        await gatherResults([self.send(mux, Sender(100)) for _ in range(20)])
        await self.send(mux, Sender(100, isAborted=True))
        await self.assertFailure(
            mux.openStream(SenderFactory(Sender(1)), "none"), RequestRefused
        )
        await until(lambda: mux.roundTrip is not None, "a ping was echoed")
        muxes += factory.muxes
        # They go on until the muxes have ended, which forget their parsers then.
        received = {True: self.framesTo(muxes[0]), False: self.framesTo(mux)}
        await mux.close()
        await muxes[0].whenClosed()
        await self.assertSeen(received, isStrict=bool(settings))

    async def assertSeen(
        self,
        received: dict[bool, list[Frame]],
        isStrict: bool = False,
        isGreeted: bool = True,
    ) -> None:
        """
        Check that tshark sees the frames that were received.

        @param received: The frames by whether they are from the client.
        """
        [writes] = self.proxy.recorded
        seen = await self.capture(writes).frames()
        for isClient, frames in received.items():
            mine = [f for f in seen if (f["from"] != 7000) == isClient]
            for at, (frame, (streamID, length, flag, payload)) in enumerate(
                zip(mine, frames, strict=True)
            ):
                self.assertEqual(
                    (
                        int(frame["gomux.id"]),
                        int(frame["gomux.length"]),
                        int(frame["gomux.flags"]),
                        len(frame.get("gomux.sealed", "").replace(":", "")) // 2,
                    ),
                    (streamID, length, flag, len(payload)),
                )
                kind = Flag(flag).name.title().replace("_", "")
                if at == 0 and isStrict:
                    kind = "Hello"
                elif at == 1 and isStrict and isClient:
                    kind = "Confirmation"
                elif kind == "Keepalive":
                    if at == 0 and not isStrict:
                        kind = "Greeting"
                    elif isGreeted:
                        kind = "Ping"
                elif kind == "OpenStream" and length:
                    kind = "Request"
                elif kind == "WindowUpdate" and not length:
                    kind = "Abort"
                self.assertEqual(frame["gomux.kind"], kind)
                isStream = kind != "Hello" and flag not in (1, 7)
                self.assertEqual(
                    frame.get("gomux.stream"), str(streamID) if isStream else None
                )
        self.found = set(kinds(seen))

    async def test_compatible(self) -> None:
        """
        Two peers of this software in compatible mode.
        """
        await self.withThis()
        self.assertLessEqual(
            {*("Greeting", "Ping", "Request", "Abort", "OpenStream", "CloseMux")},
            self.found,
        )

    async def test_strict(self) -> None:
        """
        Two peers of this software in strict mode.
        """
        await self.withThis(strict=True, context=b"test")
        self.assertLessEqual(
            {*("Hello", "Confirmation", "Ping", "Request", "Abort", "CloseMux")},
            self.found,
        )

    async def test_go(self) -> None:
        """
        This software as the client of the Go reference.
        """
        server = self.spawn("go", "--listen", "127.0.0.1:0", psk=PSK)
        address = await server.line("listening ")
        mux = await self.connect(int(address.rpartition(":")[2]))
        command = Sender(1_000_000)
        # The line is cut from the data that is echoed.
        command.connectionMade = lambda: command.transport.write(  # type: ignore[method-assign,union-attr]
            b"echo\n" + bytes(1_000_000)
        )
        await self.send(mux, command)
        received = self.framesTo(mux)
        await mux.close()
        [writes] = self.proxy.recorded
        sent = parse(PSK, [bytesOf(writes, True)])
        await self.assertSeen({True: sent, False: received}, isGreeted=False)
        self.assertIn("Greeting", self.found)
        self.assertNotIn("Ping", self.found)

    test_go.skip = DissectorTestCase.skip or whyMissing("go")  # type: ignore[attr-defined]


class RecordingTests(DissectorTestCase):
    """
    tshark with recorded sessions
    """

    async def test_sessions(self) -> None:
        """
        Every recorded session of the Go reference, in packets of any size.
        """
        recorded = [s for s in sessions() if s.name != "wrongpsk"]
        capture = Capture(self.mktemp())
        for at, one in enumerate(recorded):
            writes = recording(one.name)
            isLarge = sum(len(data) for _, data in writes) > 50_000
            capture.add(writes, size=(1, 17, 1448)[at % 3] if not isLarge else 16000)
        seen: dict[tuple[int, bool], list[int]] = {}
        for frame in await capture.frames():
            key = frame["connection"], frame["from"] != 7000
            seen.setdefault(key, []).append(int(frame["gomux.flags"]))
        for at, one in enumerate(recorded):
            for side in ("client", "server"):
                flags = [flag for _, _, flag, _ in one.framesOf(side)]
                self.assertEqual(seen.get((at, side == "client"), []), flags, one.name)

    async def test_vectors(self) -> None:
        """
        The exchanges that docs/protocol.rst shows.
        """
        seen = await self.capture(vector("greeting"), vector("requests")).frames()
        self.assertEqual(
            kinds(seen),
            [
                *("Greeting", "Greeting", "OpenStream", "Data"),
                *("Ping", "Ping", "Ping", "Ping", "CloseMux"),
                *("Greeting", "Greeting", "Request", "Data", "Data", "Data"),
                *("Request", "Data", "Data", "CloseStream", "CloseStream"),
            ],
        )
        self.assertEqual(seen[0]["gomux.announced"], "0x00000001")
        self.assertEqual(
            [f["gomux.acknowledged"] for f in seen if f["gomux.kind"] == "Ping"],
            ["0", "3", "3", "2"],
        )
        self.assertEqual(
            [f["gomux.nonce_tree"]["gomux.nonce.counter"] for f in seen[-9:]],
            ["1", "2", "1", "3", "4", "5", "2", "3", "6"],
        )

    async def test_filter(self) -> None:
        """
        The frames of one stream can be selected, and fields printed.
        """
        output = await self.capture(recording("many")).tshark(
            *("-Y", "gomux.stream == 4", "-T", "fields"),
            *("-e", "gomux.stream", "-e", "gomux.flags", "-e", "gomux.length"),
        )
        lines = output.splitlines()
        self.assertGreater(len(lines), 1)
        for line in lines:
            streams, flags, lengths = (part.split(",") for part in line.split("\t"))
            self.assertIn("4", streams)
            self.assertEqual(len(flags), len(lengths))

    async def test_sealed(self) -> None:
        """
        What is in the payload is not shown.
        """
        output = await self.capture(recording("hello")).tshark("-V")
        self.assertIn("Sealed payload", output)
        self.assertNotIn("world", output)
        self.assertNotIn(b"world".hex(), output)


class PortTests(DissectorTestCase):
    """
    Which connections are taken for muxes
    """

    async def test_otherPort(self) -> None:
        """
        Muxes of this software are found on any port, in both modes.
        """
        strict = json.loads((VECTORS / "strict.json").read_text())[0]
        hellos = [
            (True, bytes.fromhex(strict["clientHello"])),
            (False, bytes.fromhex(strict["serverHello"])),
            (True, bytes.fromhex(strict["clientConfirmation"])),
        ]
        seen = await self.capture(vector("greeting"), hellos, port=12345).frames()
        self.assertEqual(len(seen), 9 + 3)
        self.assertEqual(kinds(seen)[9:], ["Hello", "Hello", "Confirmation"])
        self.assertEqual(seen[9]["gomux.version"], "2")

    async def test_preference(self) -> None:
        """
        Muxes of Go peers are found on the ports of the preference alone.
        """
        for port, options, found in (
            (7000, (), 7),
            (12345, (), 0),
            (12345, ("-o", "gomux.ports:7000,12340-12350"), 7),
            (7000, ("-o", "gomux.ports:12345"), 0),
            (12345, ("-d", "tcp.port==12345,gomux"), 7),
        ):
            seen = await self.capture(recording("hello"), port=port).frames(*options)
            self.assertEqual(len(seen), found, options)

    async def test_otherProtocol(self) -> None:
        """
        Other protocols on other ports are not taken for gomux.
        """
        http: Writes = [(True, b"GET / HTTP/1.0\r\n\r\n"), (False, bytes(2000))]
        self.assertEqual(await self.capture(http, port=12345).frames(), [])


class TroubleTests(DissectorTestCase):
    """
    Captures of muxes that break rules, and captures that are not complete
    """

    async def test_sequence(self) -> None:
        """
        A frame that is replayed in a bound direction is marked, and so is a frame after
        one that is missing.
        """
        writes = vector("greeting")
        again = next(at for at in range(2, 8) if writes[at][0])
        later = next(at for at in range(again + 1, 8) if writes[at][0])
        for changed in (
            [*writes[: again + 1], writes[again]],
            writes[:again] + writes[again + 1 : later + 1],
        ):
            seen = await self.capture(changed).frames()
            marked = ["gomux.expert.sequence" in json.dumps(f) for f in seen]
            self.assertEqual(marked, [False] * (len(seen) - 1) + [True])

    async def test_impossible(self) -> None:
        """
        A length that no frame may have is marked, and nothing waits for its bytes.
        """
        cases = (
            (65536, 7, True),
            (65537, 0, False),
            (65537, 1, False),
            (131072, 6, True),
            (131073, 6, False),
            (0xFFFFFFFF, 0, False),
            (0, 8, False),
        )
        connections: list[Writes] = []
        for length, flags, _ in cases:
            fields = (value.to_bytes(4, "little") for value in (2, length, flags))
            connections.append([(True, b"".join(fields) + b"\x99" * 40)])
        seen = await self.capture(*connections).frames()
        for frame, (length, flags, isPossible) in zip(seen, cases, strict=True):
            text = json.dumps(frame)
            self.assertEqual("gomux.kind" in frame, isPossible, text)
            self.assertEqual("gomux.expert.unknown" in text, not isPossible)
            isMuch = (length, flags) == (131072, 6)
            self.assertEqual("gomux.expert.credit" in text, isMuch)

    async def test_middle(self) -> None:
        """
        In a capture that begins in the middle, or lacks packets, the frames are found
        again.
        """
        writes = recording("bulk")
        whole = cutFrames(bytesOf(writes, True))
        client: Writes = [(True, bytesOf(writes, True))]
        for options in (
            {"lost": {0, 1, 2}, "synchronized": False},
            {"lost": {100, 101, 200}},
        ):
            seen = await self.capture(client, **options).frames("-2")
            nonces = {frame[12:36].hex(":") for frame in whole}
            found = {f["gomux.nonce"] for f in seen if "gomux.nonce" in f}
            self.assertLessEqual(found, nonces)
            self.assertGreater(len(found), len(nonces) - 10)

    async def test_short(self) -> None:
        """
        If only the first bytes of packets are captured, the frames that begin there are
        shown.
        """
        seen = await self.capture(recording("hello"), snap=40 + 40).frames()
        self.assertEqual(len(seen), 5)
        self.assertEqual(kinds(seen)[0], "OpenStream")
        self.assertIn("gomux.expert.cut", json.dumps(seen[0]))

    async def test_damaged(self) -> None:
        """
        Cut, changed and random input is no error of the dissector.
        """
        chance = random.Random(SEED)
        sources = [recording(s.name)[:40] for s in sessions()]
        sources += [vector("greeting"), vector("requests")]
        capture = Capture(self.mktemp())
        for _ in range(DAMAGED):
            writes = [
                (side, self.damaged(chance, data[:5000]))
                for side, data in chance.choice(sources)
            ]
            capture.add(
                writes,
                size=chance.choice((7, 60, 1448, 20000)),
                snap=chance.choice((65535, 65535, chance.randrange(40, 200))),
                synchronized=chance.random() < 0.5,
                lost={at for at in range(50) if chance.random() < 0.05},
            )
        for options in (("-V",), ("-2", "-V")):
            output = await capture.tshark(*options)
            self.assertNotIn("Lua Error", output)
            self.assertNotIn("Dissector bug", output)
            self.assertGreater(output.count("gomux, "), 10 * DAMAGED)

    def damaged(self, chance: random.Random, data: bytes) -> bytes:
        """
        @return: some bytes, which may be changed.
        """
        changed = bytearray(data)
        what = chance.randrange(12)
        at = chance.randrange(len(data))
        if what == 0:
            del changed[at:]
        elif what == 1:
            del changed[:at]
        elif what == 2:
            changed[at] = chance.randrange(256)
        elif what == 3:
            changed[at:at] = chance.randbytes(chance.randrange(100))
        elif what == 4:
            changed[4:12] = chance.choice((bytes(8), b"\xff" * 8, chance.randbytes(8)))
        return bytes(changed)
