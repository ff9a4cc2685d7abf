"""
The plain way beside each fast path of the package, for tests.

A fast path is what is done in some way for speed alone: without it the bytes may be
cut, timed or numbered in another way, and mean the same.  What a limit or a row of
C{docs/faults.rst} demands is none, even where it is good for speed too.

What L{use} is told holds for whatever is made after that.  C{GOMUX_PLAIN} in the
environment has the names of the fast paths that a process begins without, with commas
between them, or C{all}.  The tests and the programs in C{interop/} obey it, as do the
processes that those start; the package itself does not know of it::

    GOMUX_PLAIN=all trial gomux.test.mux.test_model interop.test.test_matrix
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from twisted.python.monkey import MonkeyPatcher

from gomux._carrier import direct as _direct
from gomux._carrier import transport as _carrier
from gomux._carrier.busypoll import BusyPoll
from gomux._carrier.direct import DirectTransport
from gomux._carrier.turns import DONE
from gomux._mux import scheduler as _scheduler
from gomux._mux import streamlife as _life
from gomux._mux.incoming import Incoming
from gomux._mux.receiver import PrefixedReceiver
from gomux._mux.scheduler import Scheduler, SendingStream
from gomux._mux.sender import Sender, SendState
from gomux._mux.stream import Stream
from gomux._wire import crypto as _crypto
from gomux._wire.crypto import NONCE_SIZE, Opener, Sealer, SequencedOpener
from gomux._wire.frame import (
    HEADER_SIZE,
    Frame,
    FrameParser,
    NotYet,
    _sealedSize,
    unpackFields,
)
from gomux._wire.growth import GrowingWindow, GrowthPolicy
from gomux._wire.window import ReceiveWindow
from gomux.error import GomuxError, NonceExhausted
from gomux.session._conn import Conn

VARIABLE = "GOMUX_PLAIN"

# The package's own, for what is not replaced.
_activate = Scheduler.activate
_credit = Scheduler.credit
_makeSequencedOpener = SequencedOpener.__init__
_open = Opener.open
_outputTaken = Sender.outputTaken
_seal = Sealer.seal
_sealLast = Sealer.sealLast


# Sockets


def registerPush(self: DirectTransport, producer: Any) -> None:
    self._producer = producer
    self.transport.registerProducer(self, True)


def writeLater(self: DirectTransport, data: bytes) -> None:
    self.transport.write(data)


def writeTogether(self: DirectTransport, parts: list[bytes]) -> None:
    self.write(b"".join(parts))


def writeAsEver(self: Stream, data: bytes) -> None:
    self.write(data)


def readAsBefore(self: DirectTransport, size: int) -> None:
    pass


def limitNothing(handle: object) -> None:
    pass


# Frames


def receiveIntoOne(self: FrameParser, piece: bytes) -> None:
    self._start += piece


def nextFrameOfOne(self: FrameParser) -> Frame | None:
    start = self._start
    if len(start) < HEADER_SIZE:
        return None
    header = bytes(start[:HEADER_SIZE])
    streamID, length, flag = unpackFields(header)
    end = HEADER_SIZE + _sealedSize(length, flag)
    if len(start) < end:
        return None
    payload = self._open(header, bytes(start[HEADER_SIZE:end]))
    del start[:end]
    return streamID, length, flag, payload


# Cryptography


def openForgetfully(self: Opener, header: bytes, sealed: bytes | memoryview) -> bytes:
    self._useSubkeyOf(header[-24:-8])
    return _open(self, header, sealed)


def makeForgetfulOpener(
    self: SequencedOpener, key: bytes, prefix: bytes, counter: int = 0
) -> None:
    _makeSequencedOpener(self, key, prefix, counter)

    def decrypt(nonce: bytes, sealed: Any, header: bytes) -> bytes:
        subkey = _crypto.Subkeys(key).derive(prefix)
        return ChaCha20Poly1305(subkey).decrypt(nonce, sealed, header)

    self._decrypt = decrypt  # type: ignore[assignment]


def makeForgetfulSealer(
    self: Sealer, key: bytes, prefix: bytes | None = None, counter: int = 0
) -> None:
    def encrypt(nonce: bytes, payload: Any, header: bytes) -> bytes:
        subkey = _crypto.Subkeys(key).derive(header[-24:-8])
        return ChaCha20Poly1305(subkey).encrypt(nonce, payload, header)

    # Without one, each nonce is random; strict mode does not leave it to us.
    self.prefix = prefix or b""
    self._next = counter
    self._encrypt = encrypt  # type: ignore[assignment]


def sealRandomly(self: Sealer, fields: bytes, payload: Any) -> tuple[bytes, bytes]:
    if self.prefix:
        return _seal(self, fields, payload)
    if self._next >= _crypto._LAST_COUNTER:
        raise NonceExhausted()
    self._next += 1
    header = fields + os.urandom(NONCE_SIZE)
    return header, self._encrypt(bytes(4) + header[-8:], payload, header)


def sealLastRandomly(self: Sealer, fields: bytes) -> tuple[bytes, bytes]:
    if self.prefix:
        return _sealLast(self, fields)
    if self._next > _crypto._LAST_COUNTER:
        raise NonceExhausted()
    self._next = _crypto._COUNTER_END
    header = fields + os.urandom(NONCE_SIZE)
    return header, self._encrypt(bytes(4) + header[-8:], b"", header)


# Output


def takeCopy(self: Sender, size: int) -> bytes:
    waiting = b"".join(self._pieces or ())
    self._pieces = deque([waiting[size:]])
    self.unsent -= size
    self._stream.sendWindow -= size
    return bytes(bytearray(waiting[:size]))


def keepSender(self: Sender) -> None:
    stream = self._stream
    _outputTaken(self)
    if stream.sender is None and self.state is SendState.OPEN:
        stream.sender = self
        self._pieces = None


# Input


def takeRest(self: Conn, size: int) -> bytes:
    taken, self._rest = self._rest[:size], self._rest[size:]
    return taken


# Credit


def creditAsAny(
    self: Scheduler, streamID: int, size: int, urgent: bool = False
) -> None:
    _credit(self, streamID, size)


def creditAll(self: ReceiveWindow, size: int) -> int:
    due = self.held + size - self.kept
    if due <= 0:
        self.held += size
        return 0
    self.held = self.kept
    self.available += due
    return due


def growNever(
    self: GrowthPolicy, window: GrowingWindow, size: int, now: float, changes: int
) -> int:
    return 0


# Whose turn it is


def activateAsBulk(self: Scheduler, stream: SendingStream, fresh: bool = True) -> None:
    _activate(self, stream, False)


def takeSilently(self: Incoming, until: float) -> float:
    # As the mux's own, but whoever has something to say is not told to wait for
    # the end, and so nothing is sent there; and no frames are left for later.
    try:
        frame = self.parser.nextFrame() if self.gate is None else passGate(self)
        while frame is not None:
            self._frames.received(frame)
            if self._scheduler.urgent:
                self._scheduler.pump()
            frame = self.parser.nextFrame()
    except GomuxError as error:
        self._failed(error)
    return DONE


def passGate(self: Incoming) -> Frame | None:
    while self.gate is not None:
        try:
            return self._passGate(self.gate)
        except NotYet:
            pass
    return None


def sleepAlways(self: BusyPoll) -> None:
    pass


#: By name, what each fast path is, and what takes the place of what without it.
PATHS: dict[str, tuple[str, tuple[tuple[object, str, object], ...]]] = {
    "directWrites": (
        "writing to the socket at once",
        (
            (DirectTransport, "registerProducer", registerPush),
            (DirectTransport, "write", writeLater),
            (DirectTransport, "writeSequence", writeTogether),
        ),
    ),
    "gatheredWrites": (
        "having the kernel gather the parts of a frame",
        ((_direct, "GATHERED", 0),),
    ),
    "changingReads": (
        "reading more at once while more comes",
        ((DirectTransport, "received", readAsBefore),),
    ),
    "unsentLimit": (
        "having the kernel keep little that it cannot send yet",
        ((_carrier, "limitUnsent", limitNothing),),
    ),
    "framesInPlace": (
        "opening a frame where it was received",
        (
            (FrameParser, "receive", receiveIntoOne),
            (FrameParser, "nextFrame", nextFrameOfOne),
        ),
    ),
    "lastSubkey": (
        "remembering the subkey of the last frame that was opened",
        (
            (Opener, "open", openForgetfully),
            (SequencedOpener, "__init__", makeForgetfulOpener),
        ),
    ),
    "constantPrefix": (
        "sealing with the same prefix, and so with the same subkey",
        (
            (Sealer, "__init__", makeForgetfulSealer),
            (Sealer, "seal", sealRandomly),
            (Sealer, "sealLast", sealLastRandomly),
        ),
    ),
    "outputInPlace": (
        "sealing output where the application left it",
        ((Sender, "takeOutput", takeCopy),),
    ),
    "shortSenders": (
        "keeping a sender only while it has something to keep",
        ((Sender, "outputTaken", keepSender),),
    ),
    "sparedContext": (
        "no log context for protocols that have no prefix of their own",
        ((_life, "receiverFor", PrefixedReceiver),),
    ),
    "restsInPlace": (
        "reading from the rest of a frame where it is",
        ((Conn, "_take", takeRest),),
    ),
    "urgentCredit": (
        "sending credit in the midst of what was received",
        ((Scheduler, "credit", creditAsAny),),
    ),
    "batchedCredit": (
        "holding credit back until it is worth a frame",
        ((ReceiveWindow, "consumed", creditAll),),
    ),
    "changingWindows": (
        "windows that grow, shrink and are halved",
        ((GrowthPolicy, "credited", growNever),),
    ),
    "freshFirst": (
        "streams that had nothing to send going before the others",
        ((Scheduler, "activate", activateAsBulk),),
    ),
    "batches": (
        "writing several frames at once",
        ((_scheduler, "BATCH_SIZE", 1),),
    ),
    "longTurns": (
        "writing several times before others in the reactor get their turn",
        ((_scheduler, "TURN_TIME", 0.0),),
    ),
    "busyPoll": (
        "staying awake while an answer is due",
        ((BusyPoll, "moved", sleepAlways),),
    ),
    "tunnelsAtOnce": (
        "sending what a tunnel reads at once, not a turn of the reactor later",
        ((Stream, "writeAtOnce", writeAsEver),),
    ),
    "repliesAtOnce": (
        "sending at the end of what was received, not a turn of the reactor later",
        ((Incoming, "take", takeSilently),),
    ),
}

_patcher = MonkeyPatcher()
_off: frozenset[str] = frozenset()


def use(off: Iterable[str]) -> frozenset[str]:
    """
    Do without some fast paths, and with all others.

    @param off: the names of those.
    @return: which ones were off before.
    """
    global _patcher, _off
    before, _off = _off, frozenset(off)
    _patcher.restore()
    _patcher = MonkeyPatcher(*(patch for name in _off for patch in PATHS[name][1]))
    _patcher.patch()
    return before


def chosen(text: str) -> frozenset[str]:
    """
    @param text: the value of C{GOMUX_PLAIN}.
    @return: the names of the fast paths that it has.
    @raise ValueError: if there is one that is none.
    """
    if text == "all":
        return frozenset(PATHS)
    names = frozenset(filter(None, text.split(",")))
    if unknown := names - set(PATHS):
        raise ValueError(
            f"{VARIABLE} has {', '.join(sorted(unknown))};"
            f" there are all, {', '.join(PATHS)}"
        )
    return names
