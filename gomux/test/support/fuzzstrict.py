# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The fuzz target C{strict}: the handshake of strict mode, with an attacker on the path.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from gomux import MuxFactory
from gomux._wire.crypto import Sealer, deriveKey
from gomux._wire.frame import (
    HELLO_ID,
    HELLO_SIZE,
    MAX_LENGTH,
    OVERHEAD,
    Flag,
    FrameParser,
    unpackFields,
)
from gomux._wire.keyring import Keyring
from gomux._wire.replay import FirstFrames
from gomux._wire.salts import Salts, processSalts
from gomux._wire.strict import Handshake
from gomux.error import (
    AuthenticationFailed,
    ConnectionClosed,
    GomuxError,
    NotAuthenticated,
    ProtocolViolation,
)
from gomux.test.support.helpers import Parts, Recorders
from gomux.test.support.logs import Failures
from gomux.test.support.strictrig import HandshakeOpener
from gomux.testing import PSK
from gomux.testing._pair import connect

#: The bytes of a hello.
HELLO = OVERHEAD + HELLO_SIZE
#: The bytes that prove that a server has the key, and that a client has it.
PROOFS = (HELLO, HELLO + OVERHEAD)
#: How a mux may end that is not authenticated.
ENDS = (NotAuthenticated, AuthenticationFailed, ConnectionClosed, ProtocolViolation)

_CONTEXT = b"a context"
_SIZES = (65536, 1, 7, 35, 36, 51, 52, 53)
_WAITS = (0.0, 0.001, 0.1, 1.0, 4.0, 9.5, 10.0, 30.0)


class Path(Protocol):
    """
    The far end of a mux's carrier.

    @ivar received: all bytes that the mux has sent.
    """

    def __init__(self) -> None:
        self.received = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self.received += data


class Attempt:
    """
    One carrier: a mux, and the peer's side of the handshake.

    @ivar path: the far end of the carrier.
    @ivar genuine: the peer's part of the handshake so far.
    @ivar used: how many bytes of C{genuine} an attacker has let through.
    @ivar delivered: all bytes that were sent to the mux.
    @ivar hasKey: whether bytes that somebody with the key has sealed were sent to it.
    @ivar ends: the reason of the mux's end, once it has ended.
    @ivar opened: the results of the calls of C{openStream}.
    """

    def __init__(self, factory: MuxFactory, clock: Clock, peer: Handshake) -> None:
        here = IPv4Address("TCP", "192.0.2.1", 49152)
        there = IPv4Address("TCP", "192.0.2.2", 7000)
        self.clock = clock
        self.started = clock.seconds()
        self.peer = peer
        self.path = Path()
        self.genuine = bytearray()
        self.delivered = bytearray()
        self.used = self._heard = 0
        self.hasKey = False
        self.ends: list[object] = []
        self.opened: list[object] = []
        self.waiting = 0
        self.mux = factory.buildProtocol(there)
        self.mux.whenClosed().addCallback(self.ends.append)
        self._parser = FrameParser(HandshakeOpener(peer))
        _, self.carrier = connect(
            clock, (self.mux, self.path), (here, there), 0.0, None, 65536
        )
        clock.advance(0)

    def answer(self) -> None:
        """
        Let the peer take the mux's part of the handshake, and add its answer to
        C{genuine}.
        """
        end = PROOFS[self.mux.factory.isClient]
        new = bytes(self.path.received[self._heard : end])
        self._heard += len(new)
        self._parser.receive(new)
        try:
            while not self.peer.passed and self._parser.nextFrame() is not None:
                pass
        except GomuxError:
            self._parser.clear()
        self.genuine += self.peer.takeOutput()

    def deliver(self, data: bytes, size: int) -> None:
        """
        Let bytes arrive at the mux in pieces of C{size} bytes.
        """
        self.delivered += data
        for start in range(0, len(data), size):
            self.carrier.write(data[start : start + size])
            self.clock.advance(0)

    def check(self, isGenuine: bool) -> None:
        """
        Check what holds after each step.

        @param isGenuine: whether the peer has the mux's key and context, and the right
            role.
        """
        # The mux tries its keys in several turns of the reactor.
        for _ in range(8):
            self.clock.advance(0)
        mux = self.mux
        mux.checkInvariants()
        isProved = (
            isGenuine
            and len(self.genuine) == PROOFS[not self.mux.factory.isClient]
            and self.delivered.startswith(self.genuine)
        )
        sent = len(self.path.received)
        if mux.authenticated:
            assert isProved, "authenticated without the peer's handshake"
        else:
            assert self.ends or not isProved, "the peer's handshake was not accepted"
            assert sent <= HELLO, "more than the hello was sent"
            if not self.hasKey and not mux.factory.isClient:
                assert not sent, "a stranger got an answer"
            for reason in self.ends:
                assert isinstance(reason, ENDS), reason
        pending = Parts(mux).incoming.parser.pending
        assert pending < OVERHEAD + MAX_LENGTH, "the mux keeps too much"
        if self.clock.seconds() - self.started > mux.factory.limits.handshakeTimeout:
            assert mux.authenticated or self.ends, "the handshake has no end"

    def finish(self) -> None:
        """
        End the carrier, and check that the mux has ended.
        """
        self.carrier.abortConnection()
        self.clock.advance(1)
        [reason] = self.ends
        assert isinstance(reason, GomuxError), reason
        assert len(self.opened) == self.waiting, "openStream has no result"
        self.peer.close()


class Attack:
    """
    A mux in strict mode, and a script of what an attacker on the path does.

    The first byte selects the mux and its peer.  1: the mux is the client.  2: a server
    has many keys.  4, 8, 16: the peer has another key, another context, the wrong role.
    Each step then has two bytes.  The last four bits of the first select one of the
    C{actions}, and the next three in how large pieces its bytes arrive.
    """

    def __init__(self, data: bytes) -> None:
        self._inProgress = processSalts.inProgress
        self._data = data
        self._offset = 0
        kind = self.take(1)[0]
        isClient = bool(kind & 1)
        keys = {str(number): f"{number:016}" for number in range(40)}
        keys["peer"] = PSK
        self.isGenuine = not kind & (4 + 8 + 16)
        self.clock = Clock()
        self.failures = Failures()
        self.factory = MuxFactory(
            Keyring(keys) if kind & 2 and not isClient else PSK,
            isClient,
            Recorders(),
            clock=self.clock,
            strict=True,
            context=_CONTEXT,
        )
        # What an input does must not depend on the inputs before it.
        self.factory.keyring.firstFrames = FirstFrames()
        self._psk = PSK[::-1] if kind & 4 else PSK
        self._context = b"" if kind & 8 else _CONTEXT
        self._peerIsClient = isClient == bool(kind & 16)
        self._held = b""
        self._holds = 0
        self._size = _SIZES[0]
        self._old: list[bytes] = []
        self.attempt = self._connect()

    def _connect(self) -> Attempt:
        key, isClient = deriveKey(self._psk), self._peerIsClient
        peer = Handshake("", key, isClient, self._context, salts=Salts())
        return Attempt(self.factory, self.clock, peer)

    def take(self, size: int) -> bytes:
        """
        @return: the next C{size} bytes of the script, with zeros after its end.
        """
        part = self._data[self._offset : self._offset + size]
        self._offset += size
        return part.ljust(size, b"\0")

    def _send(self, data: bytes) -> None:
        self._held += data
        if self._holds:
            self._holds -= 1
        else:
            data, self._held = self._held, b""
            self.attempt.deliver(data, self._size)

    # Steps

    def genuine(self, p: int) -> None:
        """
        Let the peer's next bytes through; with 0, all of them.
        """
        attempt = self.attempt
        attempt.answer()
        end = attempt.used + p if p else len(attempt.genuine)
        data = bytes(attempt.genuine[attempt.used : end])
        attempt.used += len(data)
        attempt.hasKey = True
        self._send(data)

    def flip(self, p: int) -> None:
        """
        Let the peer's next bytes through, with a bit flipped.
        """
        attempt = self.attempt
        attempt.answer()
        data = attempt.genuine[attempt.used :]
        if data:
            attempt.used += len(data)
            data[p % len(data)] ^= 1 << (p & 7)
            attempt.hasKey |= p % len(data) >= HELLO
            self._send(bytes(data))

    def drop(self, p: int) -> None:
        """
        Drop some of the peer's next bytes.
        """
        self.attempt.answer()
        self.attempt.used = min(self.attempt.used + p, len(self.attempt.genuine))

    def garbage(self, p: int) -> None:
        """
        Send bytes of the script.
        """
        self._send(self.take(p))

    def reflect(self, p: int) -> None:
        """
        Send the mux's own bytes back.
        """
        self._send(bytes(self.attempt.path.received))

    def replay(self, p: int) -> None:
        """
        Send what the peer has said on an earlier carrier.
        """
        if self._old:
            self.attempt.hasKey = True
            self._send(self._old[p % len(self._old)])

    def forge(self, p: int) -> None:
        """
        Send a frame that has the key.  1: a hello.  2: with a wrong counter.  4: with
        the nonce prefix of the peer's hello.  8: with the Noise message of the peer's
        hello.
        """
        streamID, length, flag = unpackFields(self.take(12))
        if p & 1:
            streamID, length, flag = HELLO_ID, HELLO_SIZE, Flag.DATA
        prefix = bytes(self.attempt.genuine[12:28]) if p & 4 else self.take(16)
        sealer = Sealer(deriveKey(PSK), prefix.ljust(16, b"\0"))
        sealer._next = p >> 4 if p & 2 else 0
        payload = b""
        if p & 9 == 9:
            message = self.attempt.peer._startNoise().writeMessage(bytes(12))
            payload = message[: p >> 4 or None]
        elif not flag:
            payload = self.take(HELLO_SIZE if p & 1 else p >> 4)
        if payload:
            length = len(payload)
        self.attempt.hasKey = True
        self._send(b"".join(sealer.seal(streamID, length, flag, payload)))

    def frame(self, p: int) -> None:
        """
        After the handshake, have the peer send a frame.
        """
        self.attempt.answer()
        sealer = self.attempt.peer.sealer
        if sealer is not None:
            self._send(b"".join(sealer.seal(p >> 3, 0, p & 7)))

    def hold(self, p: int) -> None:
        """
        Send the bytes of the next steps together.
        """
        self._holds = p & 3

    def wait(self, p: int) -> None:
        self.clock.advance(_WAITS[p % len(_WAITS)])

    def openStream(self, p: int) -> None:
        attempt = self.attempt
        attempt.waiting += 1
        opened: Any = attempt.mux.openStream(Recorders())
        opened.addBoth(attempt.opened.append)

    def end(self, p: int) -> None:
        attempt = self.attempt
        ends = (
            attempt.mux.close,
            attempt.mux.drain,
            attempt.mux.abort,
            attempt.carrier.loseConnection,
            attempt.carrier.abortConnection,
        )
        ends[p % len(ends)]()

    def reconnect(self, p: int) -> None:
        """
        End the carrier, and make another.
        """
        self._old.append(bytes(self.attempt.genuine))
        self.attempt.finish()
        self._held, self._holds = b"", 0
        self.attempt = self._connect()

    actions = (
        genuine,
        garbage,
        flip,
        drop,
        reflect,
        replay,
        forge,
        frame,
        hold,
        wait,
        openStream,
        end,
        reconnect,
    )

    def run(self) -> None:
        """
        Run all steps, and check what must hold after each.
        """
        globalLogPublisher.addObserver(self.failures)
        try:
            while self._offset < len(self._data):
                code, p = self.take(2)
                self._size = _SIZES[code >> 4 & 7]
                self.actions[(code & 15) % len(self.actions)](self, p)
                self.attempt.check(self.isGenuine)
                assert not self.failures.events, self.failures.events
            self.attempt.finish()
        finally:
            globalLogPublisher.removeObserver(self.failures)
        assert not self.failures.events, self.failures.events
        assert processSalts.inProgress == self._inProgress, "a salt is kept"
        assert not self.clock.getDelayedCalls(), self.clock.getDelayedCalls()


def strict(data: bytes) -> None:
    """
    Run an L{Attack}.
    """
    Attack(data).run()
