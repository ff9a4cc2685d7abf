"""
The targets of the fuzzer in C{fuzz/}.  A target is a function of some bytes that raises
an exception when an invariant does not hold.

L{parser} parses the bytes.  L{mux} reads the bytes as a script of steps that the peer,
the applications, the network and the clock take.  In a script the peer holds the key,
so its frames decrypt: see L{Script}.  The other targets have modules of their own:
L{gomux.test.support.fuzzstrict}, L{gomux.test.support.fuzzstrings},
L{gomux.test.support.fuzzkeyfile}, L{gomux.test.support.fuzzconfig} and
L{gomux.test.support.fuzzrequests}.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from struct import Struct
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from zope.interface import implementer

from gomux import Limits, MuxFactory
from gomux._wire.crypto import TAG_SIZE, Opener, deriveKey
from gomux._wire.frame import (
    HEADER_SIZE,
    MAX_CREDIT,
    MAX_LENGTH,
    OVERHEAD,
    Flag,
    Frame,
    FrameParser,
    unpackFields,
)
from gomux._wire.keyring import Keyring
from gomux._wire.window import INITIAL_WINDOW
from gomux.error import AuthenticationFailed, GomuxError, ProtocolViolation
from gomux.interfaces import IStreamFactory
from gomux.test.support.fuzzconfig import config
from gomux.test.support.fuzzkeyfile import keyfile
from gomux.test.support.fuzzrequests import requests
from gomux.test.support.fuzzstrict import strict
from gomux.test.support.fuzzstrings import strings
from gomux.test.support.helpers import (
    HalfRecorder,
    Parts,
    PullProducer,
    PushProducer,
    Recorder,
    Rig,
)
from gomux.test.support.logs import Failures
from gomux.test.support.recordings import VECTORS
from gomux.test.support.strictrig import StrictRig
from gomux.testing import PSK

#: The pre-shared key of the Go reference's recordings.
RECORDED = "test"

_short = Struct("<H")
_long = Struct("<I")


def corpus(name: str) -> list[bytes]:
    """
    @return: the stored inputs of a target.
    """
    lines = (VECTORS / f"fuzz-{name}.txt").read_text().split()
    return [b64decode(line) for line in lines]


# The parser


class NoCipher:
    """
    Accepts every frame, so that parsing goes on to the next frame.
    """

    def open(self, header: bytes, sealed: bytes | memoryview) -> bytes:
        return bytes(sealed[:-TAG_SIZE])


def parser(data: bytes) -> None:
    """
    Parse some bytes, once as a whole, and once in pieces whose sizes come from the
    first bytes.
    """
    sizes, data = data[:8], data[8:]
    whole, error, size = _parse(FrameParser(NoCipher()), [data])
    assert size == sum(len(frame[3]) + OVERHEAD for frame in whole)
    offset = 0
    for streamID, length, flag, payload in whole:
        assert unpackFields(data, offset) == (streamID, length, flag)
        assert len(payload) == (0 if flag else length)
        assert length <= (MAX_CREDIT if flag == Flag.WINDOW_UPDATE else MAX_LENGTH)
        end = offset + OVERHEAD + len(payload)
        assert payload == data[offset + HEADER_SIZE : end - TAG_SIZE]
        offset = end
    pieces = []
    start = 0
    for step in range(len(data) + 1):
        end = start + 1 + (sizes[step % len(sizes)] if sizes else 0)
        pieces.append(data[start:end])
        start = end
        if start >= len(data):
            break
    cut, cutError, _ = _parse(FrameParser(NoCipher()), pieces)
    assert (cut, cutError) == (whole, error)
    # Frames of the recordings, with which the fuzzer starts, also decrypt.
    _parse(FrameParser(Opener(deriveKey(RECORDED))), pieces)


def _parse(
    parser: FrameParser, pieces: list[bytes]
) -> tuple[list[Frame], type[GomuxError] | None, int]:
    """
    @return: the frames, how parsing ended, and how many bytes were parsed.
    """
    frames: list[Frame] = []
    size = 0
    for piece in pieces:
        parser.receive(piece)
        try:
            while (frame := parser.nextFrame()) is not None:
                frames.append(frame)
                size += len(frame[3]) + OVERHEAD
        except (ProtocolViolation, AuthenticationFailed) as error:
            return frames, type(error), size
        assert parser.pending < OVERHEAD + MAX_LENGTH
    return frames, None, size


# The mux


class ApplicationError(Exception):
    """
    Raised by the applications of a script.
    """


class Unique:
    """
    A source of bytes in which any four successive bytes occur only once, so that a
    piece shows its offset.
    """

    _block = b"".join(map(_long.pack, range(1 << 18)))

    def __init__(self) -> None:
        self._offset = 0

    def take(self, size: int) -> bytes:
        start = self._offset % (len(self._block) - MAX_LENGTH)
        self._offset = start + size + (-size % 4)
        return self._block[start : start + size]


class Application(Recorder):
    """
    The protocol of one stream.

    @ivar number: selects the behaviour of the application.
    @ivar written: the data that the application wrote while the stream accepted output.
    @ivar paused: whether the application has paused the stream.
    """

    number = 0

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.paused = False
        self.failsNext = False
        self.producers: list[PushProducer | PullProducer] = []

    def write(self, data: bytes) -> None:
        before = self.stream.unsent
        self.stream.write(data)
        if self.stream.unsent > before:
            self.written += data

    def pause(self) -> None:
        self.paused = True
        self.stream.pauseProducing()

    def resume(self) -> None:
        self.paused = False
        self.stream.resumeProducing()

    def unregisterProducer(self) -> None:
        self.stream.unregisterProducer()

    def note(self, event: str) -> None:
        super().note(event)
        if self.busy:
            self.events.append("nested!")

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.busy = True
        try:
            self._behave(data)
        finally:
            self.busy = False

    def _behave(self, data: bytes) -> None:
        if self.failsNext:
            self.failsNext = False
            raise ApplicationError()
        if self.number == 1:
            self.write(data)
        elif self.number == 2 and len(self.received) > 10000:
            self.stream.loseConnection()
        elif self.number == 3:
            self.pause()


class HalfApplication(Application, HalfRecorder):
    """
    A half-closeable application.
    """


@implementer(IStreamFactory)
class Applications:
    """
    Makes L{Application}s.

    @ivar made: all applications made so far.
    """

    def __init__(self, kind: type[Application], number: int) -> None:
        self.kind = kind
        self.number = number
        self.made: list[Application] = []

    def buildProtocol(self, addr: IAddress | None) -> Application:
        application = self.kind()
        application.number = self.number
        self.made.append(application)
        return application


#: Limits so low that a script of a few hundred steps can reach them.
SMALL = Limits(
    maxStreams=6,
    maxWindow=200000,
    maxGrowth=150000,
    maxRefusals=8,
    maxControl=40,
    resetRate=1,
    resetBurst=10,
    ignoredRate=1,
    ignoredBurst=20,
    keepalive=50,
    writeStall=40,
)

_WAITS = (0.0, 0.001, 0.1, 1.0, 3.5, 10.0, 30.0, 601.0)


class Script:
    """
    A mux, and a script of steps for it.

    The first byte selects the kind of mux, the second how the applications behave. Each
    step then begins with a byte.  Below 128, the peer sends a frame: see L{sendFrame}.
    From 128 on, the byte selects one of the C{actions}.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0
        self.failures = Failures(ApplicationError)
        self.content = Unique()
        self.sent: dict[int, bytearray] = {}
        self.opens: dict[int, int] = {}
        self.granted: dict[int, int] = {}
        self.received: dict[int, bytearray] = {}
        self.closed: set[int] = set()
        # The stream whose next frame must close it.
        self.aborting: int | None = None
        self.muxClosed = False
        self.corked = b""
        self.last = b""
        self.lastFrame: Frame = (0, 0, Flag.KEEPALIVE, b"")
        self.stalled = False
        kind, behaviour = self.byte(), self.byte()
        self.isClient = bool(kind & 1)
        self.strict = bool(kind & 2)
        self.limits = SMALL if kind & 8 else Limits()
        self.named = bool(kind & 16) and not (self.isClient or self.strict)
        half = HalfApplication if kind & 4 else Application
        self.applications = Applications(half, behaviour & 3)
        self.rig = self._makeRig(greet=bool(kind & 32), chunk=behaviour >> 2 & 1)
        self.ends: list[GomuxError] = []
        self.rig.mux.whenClosed().addCallback(self.ends.append)
        if self.strict and not kind & 64:
            self.answer(0)
            self.answer(0)

    def _makeRig(self, greet: bool, chunk: int) -> Rig:
        rig: Rig
        if self.strict:
            rig = StrictRig(isClient=self.isClient, limits=self.limits, up=False)
            rig.factory.streamFactory = self.applications
        else:
            clock = Clock()
            factory = MuxFactory(
                Keyring({"a": PSK, "b": "b" * 16}) if self.named else PSK,
                self.isClient,
                self.applications,
                clock=clock,
                limits=self.limits,
                greet=greet,
            )
            rig = Rig(
                isClient=self.isClient,
                clock=clock,
                factory=factory,
                bufferSize=1 if chunk else 65536,
            )
        return rig

    # Input

    @property
    def done(self) -> bool:
        return self._offset >= len(self._data)

    def take(self, size: int) -> bytes:
        """
        @return: the next C{size} bytes of the script, with zeros after its end.
        """
        part = self._data[self._offset : self._offset + size]
        self._offset += size
        return part.ljust(size, b"\0")

    def byte(self) -> int:
        return self.take(1)[0]

    # Steps of the peer

    def sendFrame(self, code: int) -> None:
        """
        Have the peer send a frame.

        @param code: bit flags.  The last three bits are the frame's type.  8: a length
            follows.  16: another length of four bytes follows; it is sent in place of
            the payload's length.  32: send the frame together with the next.  64: the
            type has four bytes.
        """
        flag = _long.unpack(self.take(4))[0] if code & 64 else code & 7
        streamID = self.byte()
        if streamID >= 0xF0:
            (streamID,) = _long.unpack(self.take(4))
        size = length = 0
        if code & 24 or flag in (Flag.DATA, Flag.WINDOW_UPDATE):
            size = length = _short.unpack(self.take(2))[0]
            if code & 8:
                size = length = length + 1
        if code & 16:
            (length,) = _long.unpack(self.take(4))
        payload = b"" if flag else self.content.take(size)
        sealer = self.rig.peer.sealer
        self.last = b"".join(sealer.seal(streamID, length, flag, payload))
        self.lastFrame = streamID, length, flag, payload
        self._sendLast()
        if not code & 32:
            self.flush()

    def _sendLast(self) -> None:
        streamID, length, flag, payload = self.lastFrame
        if flag == Flag.DATA:
            self.sent.setdefault(streamID, bytearray()).extend(payload)
        elif flag == Flag.WINDOW_UPDATE:
            self.granted[streamID] = self.granted.get(streamID, 0) + length
        elif flag == Flag.OPEN_STREAM:
            self.opens[streamID] = self.opens.get(streamID, 0) + 1
        self.corked += self.last

    def flush(self) -> None:
        corked, self.corked = self.corked, b""
        if corked:
            self.rig.sendRaw(corked)

    def answer(self, p: int) -> None:
        """
        Have the peer send the next part of a strict handshake.
        """
        if isinstance(self.rig, StrictRig):
            self.rig.answer()

    def replay(self, p: int) -> None:
        """
        Have the peer repeat its last frame.
        """
        self._sendLast()
        self.flush()

    def garbage(self, p: int) -> None:
        """
        Have the peer send bytes of the script as they are.
        """
        self.corked += self.take(p)
        self.flush()

    def flip(self, p: int) -> None:
        """
        Have the peer repeat its last frame, with one bit flipped.
        """
        if self.last:
            changed = bytearray(self.last)
            changed[p % len(changed)] ^= 1 + p % 128
            self.corked += changed
            self.flush()

    def truncate(self, p: int) -> None:
        """
        Have the peer repeat a part of its last frame.
        """
        if self.last:
            self.corked += self.last[: p % len(self.last)]
        self.flush()

    def reset(self, p: int) -> None:
        """
        Have the peer reset the carrier.
        """
        self.rig.peerCarrier.abortConnection()

    def fin(self, p: int) -> None:
        """
        Have the peer end the carrier.
        """
        self.rig.peerCarrier.loseConnection()

    # Steps of time and the network

    def wait(self, p: int) -> None:
        self.rig.clock.advance(_WAITS[p % len(_WAITS)])

    def waitInSteps(self, p: int) -> None:
        for _ in range(20):
            self.rig.clock.advance(_WAITS[p % len(_WAITS)] / 20)

    def stall(self, p: int) -> None:
        self.stalled = True
        self.rig.carrier.outgoing.stall()

    def unstall(self, p: int) -> None:
        self.stalled = False
        self.rig.carrier.outgoing.unstall()

    # Steps of the applications

    def application(self, p: int) -> Application | None:
        made = [one for one in self.applications.made if "lost" not in one.events]
        return made[p % len(made)] if made else None

    def write(self, p: int) -> None:
        size = _short.unpack(self.take(2))[0]
        application = self.application(p)
        if application is not None:
            application.write(self.content.take(size))

    def doToStream(self, p: int) -> None:
        """
        Call one of the methods of a stream.
        """
        application = self.application(p >> 3)
        if application is None:
            return
        stream = application.stream
        methods: tuple[Callable[[], object], ...] = (
            application.pause,
            application.resume,
            stream.loseConnection,
            stream.loseWriteConnection,
            stream.loseReadConnection,
            stream.abortConnection,
            stream.unregisterProducer,
            lambda: setattr(application, "failsNext", True),
        )
        methods[p & 7]()

    def produce(self, p: int) -> None:
        application = self.application(p >> 1)
        if application is None or application.stream.producer is not None:
            return
        producer: PushProducer | PullProducer
        if p & 1:
            producer = PushProducer()
        else:
            producer = PullProducer(application, [self.content.take(30000)] * 3)
        application.producers.append(producer)
        application.stream.registerProducer(producer, bool(p & 1))

    def openStream(self, p: int) -> None:
        opened: Deferred[Any] = self.rig.mux.openStream(self.applications)
        opened.addErrback(lambda failure: failure.trap(GomuxError))

    def endMux(self, p: int) -> None:
        mux = self.rig.mux
        if p % 4 == 0:
            mux.close()
        elif p % 4 == 1:
            mux.drain()
        elif p % 4 == 2:
            mux.drain(5.0)
        else:
            mux.abort()

    actions = (
        write,
        doToStream,
        produce,
        openStream,
        wait,
        waitInSteps,
        stall,
        unstall,
        answer,
        replay,
        garbage,
        flip,
        truncate,
        endMux,
        fin,
        reset,
    )

    # The run

    def run(self) -> None:
        """
        Run all steps of the script, and check the invariants after each.
        """
        globalLogPublisher.addObserver(self.failures)
        try:
            while not self.done:
                code = self.byte()
                if code < 128:
                    self.sendFrame(code)
                else:
                    action = self.actions[code % len(self.actions)]
                    action(self, self.byte())
                if not self.corked:
                    self.rig.run()
                    self.check()
            self.finish()
        finally:
            globalLogPublisher.removeObserver(self.failures)

    def finish(self) -> None:
        """
        End the carrier, if it is still up, and check that every stream has ended and no
        delayed call is left.
        """
        rig = self.rig
        mux = rig.mux
        self.flush()
        self.unstall(0)
        rig.run()
        self.check()
        rig.peerCarrier.abortConnection()
        rig.clock.advance(1)
        while mux.protocolCount:
            made = self.applications.made
            paused = [one for one in made if one.paused and one.stream.connected]
            assert paused, "a protocol that was not paused got no connectionLost"
            for application in paused:
                application.resume()
            rig.run()
        assert not self.failures.events, self.failures.events
        [reason] = self.ends
        assert isinstance(reason, GomuxError), reason
        assert mux.streamCount == 0
        mux.checkInvariants()
        assert not rig.factory.pool.muxes
        assert not rig.clock.getDelayedCalls(), rig.clock.getDelayedCalls()
        for application in self.applications.made:
            self.checkEnd(application)

    def checkEnd(self, application: Application) -> None:
        """
        Check that a stream has ended exactly once.
        """
        events = application.events
        assert events[0] == "made", events
        assert events[-1] == "lost", events
        for event in ("made", "readLost", "writeLost", "lost"):
            assert events.count(event) <= 1, events
        assert "nested!" not in events, events
        assert isinstance(application.reason, Exception)
        for producer in application.producers:
            if isinstance(producer, PushProducer):
                self.checkProducer(producer)

    def checkProducer(self, producer: PushProducer) -> None:
        """
        Check that a producer was paused and resumed in turn, and not called after its
        end.
        """
        calls = producer.calls
        assert calls.count("stop") <= 1, calls
        for before, after in zip(calls, calls[1:], strict=False):
            assert before != after, calls
            assert before != "stop", calls

    def check(self) -> None:
        """
        Check the invariants that hold between two steps.
        """
        assert not self.failures.events, self.failures.events
        mux = self.rig.mux
        mux.checkInvariants()
        made = self.applications.made
        for application in made:
            if "lost" not in application.events:
                self.checkStream(application)
        # Each stream may have three more control frames to send.
        allowed = self.limits.maxControl + 3 * len(made) + 1
        assert Parts(mux).scheduler.controlQueued <= allowed
        self.checkSent()

    def checkStream(self, application: Application) -> None:
        """
        Check a stream whose protocol has not had C{connectionLost}.
        """
        stream = application.stream
        stream.checkInvariants()
        streamID = stream.streamID
        assert application.received in self.sent.get(streamID, b""), "content"
        if self.stalled or self.corked or self.opens.get(streamID, 0) > 1:
            return
        got = self.received.get(streamID, b"")
        assert application.written.startswith(got), "output"
        granted = INITIAL_WINDOW + self.granted.get(streamID, 0)
        assert len(got) <= granted, "beyond the window"

    def checkSent(self) -> None:
        """
        Check that the frames the mux has sent are legal.
        """
        for streamID, flag, length, payload in self.rig.peer.take():
            assert not self.muxClosed, "a frame came after CloseMux"
            if flag != Flag.CLOSE_MUX and self.opens.get(streamID, 0) <= 1:
                assert streamID not in self.closed, "a frame came after CloseStream"
            assert length <= MAX_LENGTH
            if self.aborting is not None:
                assert (streamID, flag) == (self.aborting, Flag.CLOSE_STREAM)
                self.aborting = None
            if flag == Flag.DATA:
                assert payload
                self.received.setdefault(streamID, bytearray()).extend(payload)
            elif flag == Flag.WINDOW_UPDATE:
                self.aborting = None if length else streamID
            else:
                assert flag in tuple(Flag)
                assert not length
            if flag == Flag.CLOSE_STREAM:
                self.closed.add(streamID)
            self.muxClosed = self.muxClosed or flag == Flag.CLOSE_MUX


def mux(data: bytes) -> None:
    """
    Run a L{Script}.
    """
    Script(data).run()


#: The targets, by name.
TARGETS: dict[str, Callable[[bytes], None]] = {
    "parser": parser,
    "mux": mux,
    "strict": strict,
    "strings": strings,
    "keyfile": keyfile,
    "config": config,
    "requests": requests,
}
