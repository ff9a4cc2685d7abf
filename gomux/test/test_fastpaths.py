"""
Tests for L{gomux._fastpaths}: switching a fast path off has an effect that can be
observed, and the result is still right.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.interfaces import ISystemHandle, ITCPTransport
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.tcp import Port, Server
from twisted.internet.testing import StringTransport
from twisted.python.context import get as getContext
from twisted.python.log import ILogContext
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

import gomux
from gomux import Limits
from gomux._carrier.direct import BULK_READ_SIZE, READ_SIZE
from gomux._carrier.transport import MuxCarrier
from gomux._fastpaths import FastPaths, fastPaths, useFastPaths
from gomux._mux import scheduler as _scheduler
from gomux._wire import crypto as _crypto
from gomux._wire.crypto import Opener, Sealer, SequencedOpener
from gomux._wire.frame import Flag, FrameParser, sealFrame
from gomux._wire.growth import GrowingWindow
from gomux._wire.window import INITIAL_WINDOW
from gomux.error import AuthenticationFailed, NonceExhausted, OutOfSequence
from gomux.session._conn import Conn
from gomux.test.support import plainpaths
from gomux.test.support.helpers import Parts, PushProducer, Rig
from gomux.test.support.kernel import Descriptor, Kernel
from gomux.tunnel._localends import acceptLocally

KEY = bytes(range(32))
PREFIX = b"sixteen bytes..."
FIELDS = bytes(12)
FRAME = 65536


class PlainTestCase(SynchronousTestCase):
    """
    Sets the fast paths in place of those that the environment chooses.
    """

    def use(self, *off: str) -> None:
        self.addCleanup(useFastPaths, plainpaths.use(off))

    def differ(self, name: str, look: Callable[[], Any]) -> tuple[Any, Any]:
        """
        @return: the observations with all fast paths, and without this one.
        """
        self.use()
        fast = look()
        self.use(name)
        return fast, look()

    def countSubkeys(self, look: Callable[[], object]) -> int:
        """
        @return: how many subkeys were derived during a call.
        """
        calls: list[bytes] = []
        original = _crypto.Subkeys.derive

        def derive(subkeys: _crypto.Subkeys, nonce: bytes) -> bytes:
            calls.append(nonce)
            return original(subkeys, nonce)

        patch = self.patch(_crypto.Subkeys, "derive", derive)
        look()
        patch.restore()
        return len(calls)


class PathTests(PlainTestCase):
    """
    One test for each of the L{FastPaths}.
    """

    def test_directWrites(self) -> None:
        """
        Without C{directWrites}, only the reactor writes to a socket, and the socket
        pauses as Twisted's does.
        """

        def look() -> tuple[bytes, bytes, bool]:
            descriptor = Descriptor()
            descriptor.room = 100
            carrier = MuxCarrier(descriptor)  # type: ignore[arg-type]
            carrier.registerProducer(PushProducer())
            carrier.write(b"hello")
            early = descriptor.sent
            descriptor.doWrite()
            return early, descriptor.sent, descriptor.streamingProducer

        self.assertEqual(
            self.differ("directWrites", look),
            ((b"hello", b"hello", False), (b"", b"hello", True)),
        )

    def test_gatheredWrites(self) -> None:
        """
        Without C{gatheredWrites}, the parts of a frame are joined before they are
        written.
        """

        def look() -> int:
            kernel = Kernel()
            kernel.room = 100
            MuxCarrier(kernel.connection()).writeSequence([b"a", b"b"])
            self.assertEqual(kernel.sent, b"ab")
            return len(kernel.taken)

        self.assertEqual(self.differ("gatheredWrites", look), (1, 0))

    def test_changingReads(self) -> None:
        """
        Without C{changingReads}, the size of reads stays Twisted's.
        """

        def look() -> int:
            descriptor = Descriptor()
            MuxCarrier(descriptor).received(READ_SIZE)  # type: ignore[arg-type]
            return descriptor.bufferSize

        self.assertEqual(
            self.differ("changingReads", look),
            (BULK_READ_SIZE, Descriptor.bufferSize),
        )

    def test_unsentLimit(self) -> None:
        """
        Without C{unsentLimit}, the limit for unsent data in the kernel is not set.
        """

        class Socket(socket.socket):
            def setsockopt(self, *option: Any) -> None:
                asked.append(option)

        class Transport(StringTransport):
            def getHandle(self) -> socket.socket:
                return handle

            def setTcpNoDelay(self, enabled: bool) -> None:
                pass

        directlyProvides(transport := Transport(), ITCPTransport, ISystemHandle)

        def look() -> int:
            asked.clear()
            MuxCarrier(transport)  # type: ignore[arg-type]
            return len(asked)

        asked: list[Any] = []
        with Socket() as handle:
            known = int(hasattr(socket, "TCP_NOTSENT_LOWAT"))
            self.assertEqual(self.differ("unsentLimit", look), (known, 0))

    def test_framesInPlace(self) -> None:
        """
        Without C{framesInPlace}, a frame that arrived whole is copied before it is
        opened.
        """
        sealer = Sealer(KEY)
        whole = b"".join(
            part
            for data in (b"some", b"more")
            for part in sealFrame(sealer, 0, 4, Flag.DATA, data)
        )

        class Watched(Opener):
            def open(self, header: bytes, sealed: bytes | memoryview) -> bytes:
                found.append(getattr(sealed, "obj", None) is whole)
                return super().open(header, sealed)

        def look() -> list[bool]:
            found.clear()
            parser = FrameParser(Watched(KEY))
            parser.receive(whole)
            frames = [parser.nextFrame() for _ in range(3)]
            self.assertEqual([frame and frame[3] for frame in frames], expected)
            self.assertEqual(parser.pending, 0)
            return found[:]

        found: list[bool] = []
        expected = [b"some", b"more", None]
        self.assertEqual(
            self.differ("framesInPlace", look), ([True, True], [False, False])
        )

    def test_lastSubkey(self) -> None:
        """
        Without C{lastSubkey}, the subkey is derived anew for each frame.
        """
        sealer = Sealer(KEY, PREFIX)
        frames = [sealer.seal(FIELDS, b"data") for _ in range(5)]

        def look() -> int:
            opener = Opener(KEY)
            return self.countSubkeys(lambda: [opener.open(*frame) for frame in frames])

        self.assertEqual(self.differ("lastSubkey", look), (1, 5))

    def test_outputInPlace(self) -> None:
        """
        Without C{outputInPlace}, output is copied when it is taken, even if all of it
        is sent.
        """
        data = bytes(range(100))

        def look() -> tuple[bool, bool]:
            whole, cut = Rig().opened().stream, Rig().opened().stream
            for stream in (whole, cut):
                stream.write(data)
            assert whole.sender is not None and cut.sender is not None
            part = cut.sender.takeOutput(10)
            self.assertEqual(bytes(part), data[:10])
            self.assertEqual(bytes(cut.sender.takeOutput(90)), data[10:])
            same = whole.sender.takeOutput(100) is data
            return same, getattr(part, "obj", None) is data

        self.assertEqual(
            self.differ("outputInPlace", look), ((True, True), (False, False))
        )

    def test_shortSenders(self) -> None:
        """
        Without C{shortSenders}, a stream keeps its sender after its first write.
        """

        def look() -> list[bool]:
            rig = Rig()
            stream = rig.opened().stream
            has = [stream.sender is not None]
            for _ in range(2):
                stream.write(b"data")
                rig.run()
                has.append(stream.sender is not None)
            self.assertEqual(len(rig.sent()), 2)
            return has

        self.assertEqual(
            self.differ("shortSenders", look),
            ([False, False, False], [False, True, True]),
        )

    def test_sparedContext(self) -> None:
        """
        Without C{sparedContext}, each piece of data has a log context of its own.
        """

        def look() -> bool:
            contexts: list[Any] = []
            rig = Rig(data=lambda _: contexts.append(getContext(ILogContext)))
            rig.opened(b"data")
            rig.send(0, Flag.DATA, b"more")
            return contexts[0] is contexts[1]

        self.assertEqual(self.differ("sparedContext", look), (True, False))

    def test_restsInPlace(self) -> None:
        """
        Without C{restsInPlace}, the unread rest of a frame is cut at each read.
        """

        def look() -> tuple[bytes, bytes, bytes]:
            conn = Conn(Clock(), lambda conn: None, lambda conn: None)
            conn._rest = b"a frame"
            taken = self.successResultOf(conn.read(2))
            rest = conn._rest
            return taken, rest, self.successResultOf(conn.read(100))

        self.assertEqual(
            self.differ("restsInPlace", look),
            ((b"a ", b"a frame", b"frame"), (b"a ", b"frame", b"frame")),
        )

    def test_batchedCredit(self) -> None:
        """
        Without C{batchedCredit}, credit is sent for each byte that is consumed.
        """

        def look() -> list[tuple[int, int, int]]:
            rig = Rig()
            rig.opened(b"some data.")
            return rig.sent()

        self.assertEqual(
            self.differ("batchedCredit", look), ([], [(0, Flag.WINDOW_UPDATE, 10)])
        )

    def test_changingWindows(self) -> None:
        """
        Without C{changingWindows}, windows keep their size, however fast a stream is.
        """

        def look() -> tuple[int, int]:
            rig = Rig(limits=Limits(maxWindow=1 << 20, maxGrowth=1 << 30))
            window, policy = GrowingWindow(), Parts(rig.mux).streams.growth
            now = 0.0
            for step in range(8):
                policy.credited(window, window.size, now, 1)
                now += window.size / (1e5 * 2**step)
            return window.size, policy.maxGrowth - policy.budget

        grown = (1 << 20) - INITIAL_WINDOW
        self.assertEqual(
            self.differ("changingWindows", look),
            ((1 << 20, grown), (INITIAL_WINDOW, 0)),
        )

    def test_freshFirst(self) -> None:
        """
        Without C{freshFirst}, a stream with little to send waits for the streams that
        were served before.
        """

        def look() -> list[int]:
            turn = self.patch(_scheduler, "TURN_TIME", 0.0)
            rig = Rig(bufferSize=1 << 20)
            turn.restore()
            bulk, fresh = rig.opened().stream, rig.opened().stream
            rig.sent()
            rig.send(0, Flag.WINDOW_UPDATE, FRAME)
            bulk.write(bytes(3 * FRAME))
            Parts(rig.mux).scheduler.pump()
            Parts(rig.mux).scheduler.pump()
            fresh.write(b"data")
            return [streamID for streamID, _, _ in rig.sent()]

        self.assertEqual(self.differ("freshFirst", look), ([0, 0, 2, 0], [0, 0, 0, 2]))

    def test_batches(self) -> None:
        """
        Without C{batches}, each frame with data is written by itself.
        """
        self.assertEqual(self.differ("batches", self.countBatches(10)), (1, 4))

    def countBatches(self, size: int) -> Callable[[], int]:
        """
        @return: a function that has four streams send data in one turn, checks that all
            of it arrives, and returns the number of writes.
        """

        def look() -> int:
            rig = Rig(bufferSize=1 << 20)
            recorders = [rig.opened() for _ in range(4)]
            rig.sent()
            for recorder in recorders:
                recorder.stream.write(bytes(size))
            batches: list[list[bytes]] = []
            scheduler = Parts(rig.mux).scheduler
            write = scheduler._write

            def note(parts: list[bytes]) -> None:
                batches.append(parts)
                write(parts)

            self.patch(scheduler, "_write", note)
            scheduler.pump()
            count = len(batches)
            self.assertEqual(len(rig.sentData()), 4 * size)
            return count

        return look

    def test_longTurns(self) -> None:
        """
        Without C{longTurns}, the reactor's other events get their turn after one write.
        """
        self.assertEqual(self.differ("longTurns", self.countBatches(FRAME)), (4, 1))

    def test_busyPoll(self) -> None:
        """
        Without C{busyPoll}, the reactor always sleeps between messages.
        """

        def look() -> int:
            rig = Rig(limits=Limits(busyPoll=1.0))
            for _ in range(3):
                rig.clock.advance(0.5)
                rig.send(0, Flag.KEEPALIVE)
            now = rig.clock.seconds()
            return sum(c.getTime() < now + 0.1 for c in rig.clock.getDelayedCalls())

        self.assertEqual(self.differ("busyPoll", look), (1, 0))

    def test_repliesAtOnce(self) -> None:
        """
        Without C{repliesAtOnce}, output written during input waits for the next reactor
        turn.
        """

        def look() -> tuple[int, bytes]:
            rig = Rig(data=lambda recorder: recorder.stream.write(b"pong"))
            rig.opened()
            rig.sent()
            before = rig.mux.bytesSent
            rig.mux.dataReceived(rig.peer.seal(0, Flag.DATA, b"ping"))
            return rig.mux.bytesSent - before, rig.sentData()

        self.assertEqual(
            self.differ("repliesAtOnce", look), ((56, b"pong"), (0, b"pong"))
        )

    def test_localSockets(self) -> None:
        """
        Without C{localSockets}, a port makes Twisted's transports.
        """

        def look() -> bool:
            port = Port(0, Factory(), reactor=reactor)
            with socket.socket() as port.socket:
                acceptLocally(port)
            return port.transport is Server

        isEpoll = type(reactor).__name__ == "EPollReactor"
        self.assertEqual(self.differ("localSockets", look), (not isEpoll, True))

    def test_each(self) -> None:
        """
        Each fast path has a test.
        """
        for name in plainpaths.NAMES:
            self.assertTrue(hasattr(self, f"test_{name}"), name)


class PlainSealerTests(PlainTestCase):
    """
    Sealing without its fast paths
    """

    def setUp(self) -> None:
        self.use("lastSubkey")

    def test_sequence(self) -> None:
        """
        With a given prefix, as in strict mode, the plain sealer uses the same nonces,
        and the opener checks them as strictly.
        """
        sealer, opener = Sealer(KEY, PREFIX, 7), SequencedOpener(KEY, PREFIX, 7)
        for count in (7, 8, 9):
            header, sealed = sealer.seal(FIELDS, b"data")
            self.assertEqual(header[12:], PREFIX + bytes([count, *bytes(7)]))
            self.assertEqual(opener.open(header, sealed), b"data")
        self.assertRaises(OutOfSequence, opener.open, header, sealed)
        header, sealed = sealer.sealLast(FIELDS)
        self.assertEqual(header[12:], PREFIX + b"\xff" * 8)

    def test_exhausted(self) -> None:
        """
        The plain sealer counts frames too, and leaves one nonce for the end of the mux.
        """
        sealer, opener = Sealer(KEY, counter=2**64 - 2), Opener(KEY)
        self.assertEqual(opener.open(*sealer.seal(FIELDS, b"data")), b"data")
        self.assertRaises(NonceExhausted, sealer.seal, FIELDS, b"")
        self.assertEqual(opener.open(*sealer.sealLast(FIELDS)), b"")
        self.assertRaises(NonceExhausted, sealer.sealLast, FIELDS)

    def test_changed(self) -> None:
        """
        A changed frame does not open.
        """
        header, sealed = Sealer(KEY).seal(FIELDS, b"data")
        changed = bytes([sealed[0] ^ 1]) + sealed[1:]
        self.assertRaises(AuthenticationFailed, Opener(KEY).open, header, changed)


class SwitchTests(PlainTestCase):
    """
    L{useFastPaths}, and the environment variable C{GOMUX_PLAIN}
    """

    def test_use(self) -> None:
        """
        The named fast paths are off and all others on, until the next call.
        """
        self.use()
        self.assertEqual(fastPaths(), FastPaths())
        for name in plainpaths.NAMES:
            plainpaths.use({name})
            off = [other for other, on in asdict(fastPaths()).items() if not on]
            self.assertEqual(off, [name])
        before = plainpaths.use(plainpaths.NAMES)
        self.assertFalse(any(asdict(fastPaths()).values()))
        useFastPaths(before)
        self.assertIs(fastPaths(), before)

    def test_whenMade(self) -> None:
        """
        A switch applies to objects that are made after it was set.
        """
        self.use()
        rig = Rig(data=lambda recorder: recorder.stream.write(b"pong"))
        rig.opened()
        rig.sent()
        self.use("repliesAtOnce")
        before = rig.mux.bytesSent
        rig.mux.dataReceived(rig.peer.seal(0, Flag.DATA, b"ping"))
        self.assertEqual(rig.mux.bytesSent - before, 56)

    def test_chosen(self) -> None:
        """
        C{GOMUX_PLAIN} holds C{all} or names of fast paths, and an unknown name is an
        error.
        """
        self.assertEqual(plainpaths.chosen("all"), set(plainpaths.NAMES))
        self.assertEqual(
            plainpaths.chosen("batches,lastSubkey"), {"batches", "lastSubkey"}
        )
        error = self.assertRaises(ValueError, plainpaths.chosen, "batches,nonsense")
        self.assertIn("GOMUX_PLAIN has nonsense", str(error))
        self.assertIn("lastSubkey", str(error))

    def test_process(self) -> None:
        """
        A process that imports the tests uses the fast paths that the environment
        chooses.  A process that does not import them, such as a user's, ignores the
        environment.
        """
        look = "from gomux._fastpaths import fastPaths as f; print(f().batches)"
        for value, program, expected in (
            ("batches", f"import gomux.test; {look}", b"False\n"),
            ("lastSubkey", f"import gomux.test; {look}", b"True\n"),
            ("", f"import gomux.test; {look}", b"True\n"),
            ("batches", look, b"True\n"),
        ):
            path = os.pathsep.join(filter(None, sys.path))
            printed = subprocess.run(
                [sys.executable, "-c", program],
                env={**os.environ, "PYTHONPATH": path, "GOMUX_PLAIN": value},
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
            self.assertEqual(printed, expected, (value, program))

    def test_unknown(self) -> None:
        """
        No module of the package mentions the environment's switches.
        """
        package = Path(gomux.__file__).parent
        files = [f for f in package.rglob("*.py") if package / "test" not in f.parents]
        self.assertGreater(len(files), 20)
        for file in files:
            text = file.read_text()
            for word in (plainpaths.VARIABLE, "plainpaths"):
                self.assertNotIn(word, text, file.name)
