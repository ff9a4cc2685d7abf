"""
An attacker on the path between a client and a server in strict mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import unpack_from

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.wire import Echo
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory, MuxProtocol
from gomux._wire.replay import FirstFrames
from gomux._wire.salts import Salts
from gomux.error import (
    AuthenticationFailed,
    GomuxError,
    HandshakeFailed,
    OutOfSequence,
    PeerClosedConnection,
)
from gomux.testing import PSK

CLIENT, SERVER = 0, 1

#: A frame that the attacker delivers: the receiver, the bytes, and whether this frame
#: must end the receiver's mux.
Delivery = tuple[int, bytes, bool]


def cutFrames(data: bytes) -> list[bytes]:
    """
    @return: the whole frames that C{data} consists of.
    """
    frames = []
    while data:
        length, flags = unpack_from("<II", data, 4)
        size = 52 + (length if flags == 0 else 0)
        frames.append(data[:size])
        data = data[size:]
    return frames


class Caller(Protocol):
    """
    Sends a message several times, waits for the echo of each, and then closes the
    stream.
    """

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.received = b""

    def connectionMade(self) -> None:
        self.call()

    def call(self) -> None:
        self.missing = 10 * self.rounds
        self.write(b"x" * self.missing)

    def write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.missing -= len(data)
        if not self.missing:
            self.rounds -= 1
            if self.rounds:
                self.call()
            else:
                assert self.transport is not None
                self.transport.loseConnection()


class CountingEcho(Echo):
    """
    Sends received data back, and counts the bytes that all instances receive.
    """

    count = 0

    def dataReceived(self, data: bytes) -> None:
        CountingEcho.count += len(data)
        super().dataReceived(data)


class StrangersCarrier(StringTransport):
    """
    A carrier that keeps what the mux writes for the attacker.

    @ivar ended: whether the mux has closed or aborted the carrier.
    """

    ended = False

    def abortConnection(self) -> None:
        self.ended = True

    def loseConnection(self) -> None:
        self.ended = True


class Attack:
    """
    Base of the attacks on one frame.  By itself it delivers every frame unchanged.

    @ivar side: the side that sends the attacked frame.
    @ivar number: the number of the attacked frame among the frames of that side.
    """

    def __init__(self, side: int, number: int) -> None:
        self.side = side
        self.number = number

    def __call__(self, side: int, number: int, frame: bytes) -> Iterable[Delivery]:
        if side == self.side and number >= self.number:
            return self.act(number - self.number, frame)
        return [(1 - side, frame, False)]

    def act(self, since: int, frame: bytes) -> Iterable[Delivery]:
        """
        Deliver the attacked frame, or a later frame of the same side.

        @param since: how many frames after the attacked frame this frame was sent.
        """
        return [(1 - self.side, frame, False)]


class Replay(Attack):
    """
    Delivers the attacked frame twice.
    """

    def act(self, since: int, frame: bytes) -> Iterable[Delivery]:
        yield 1 - self.side, frame, False
        yield 1 - self.side, frame, since == 0


class Drop(Attack):
    """
    Drops the attacked frame.
    """

    def act(self, since: int, frame: bytes) -> Iterable[Delivery]:
        if since:
            yield 1 - self.side, frame, since == 1


class Swap(Attack):
    """
    Delivers the attacked frame only after the next frame.
    """

    held = b""

    def act(self, since: int, frame: bytes) -> Iterable[Delivery]:
        if since == 0:
            self.held = frame
        else:
            yield 1 - self.side, frame, since == 1
            yield 1 - self.side, self.held, False


class Reflect(Attack):
    """
    Sends the attacked frame and all later frames back to their sender.
    """

    def act(self, since: int, frame: bytes) -> Iterable[Delivery]:
        yield self.side, frame, since == 0


class Change(Attack):
    """
    Flips a bit in the tag of the attacked frame and of all later frames.
    """

    def act(self, since: int, frame: bytes) -> Iterable[Delivery]:
        yield 1 - self.side, frame[:-1] + bytes([frame[-1] ^ 1]), since == 0


class Splice(Attack):
    """
    Replaces the attacked frame by the same frame of another session.

    @ivar other: the other session.
    """

    other: Middle

    def act(self, since: int, frame: bytes) -> Iterable[Delivery]:
        # A receiver cannot tell that a hello is from another session.
        spliced = self.other.sent[self.side][self.number]
        yield 1 - self.side, frame if since else spliced, since == 0 < self.number


class Cut(Attack):
    """
    Ends the carrier at the attacked frame; L{Middle} then delivers nothing more.
    """

    cut = False

    def __call__(self, side: int, number: int, frame: bytes) -> Iterable[Delivery]:
        self.cut = self.cut or (side == self.side and number == self.number)
        return [] if self.cut else [(1 - side, frame, False)]


class Middle:
    """
    A client and a server in strict mode, and an attacker between them.

    @ivar sent: for each side, the frames that it has sent.
    @ivar stopped: whether the frame that must end a mux has been delivered.
    @ivar hopeless: whether the attack may also end a mux for another legitimate reason.
    """

    hopeless = False

    def __init__(
        self, case: SynchronousTestCase, attack: Callable[..., Iterable[Delivery]]
    ) -> None:
        self.case = case
        self.attack = attack
        self.clock = Clock()
        self.callers: list[Caller] = []
        CountingEcho.count = 0
        self.muxes: list[MuxProtocol] = []
        self.carriers: list[StrangersCarrier] = []
        self.lost = [False, False]
        self.buffers = [b"", b""]
        self.sent: list[list[bytes]] = [[], []]
        self.stopped = False
        for isClient in (True, False):
            factory = MuxFactory(
                PSK,
                isClient,
                Factory.forProtocol(CountingEcho),
                clock=self.clock,
                strict=True,
                salts=Salts(),
            )
            # A process that has just started remembers nothing.
            factory.keyring.firstFrames = FirstFrames()
            mux = factory.buildProtocol(None)
            carrier = StrangersCarrier()
            mux.makeConnection(carrier)
            self.muxes.append(mux)
            self.carriers.append(carrier)

    def session(self) -> None:
        """
        Open three streams from each side, and close the mux from the client once all
        echoes have arrived.
        """
        for mux in self.muxes:
            for rounds in (3, 1, 2):
                caller = Caller(rounds)
                self.callers.append(caller)
                factory = Factory.forProtocol(lambda caller=caller: caller)  # type: ignore[misc]
                mux.openStream(factory).addErrback(lambda _: None)
        self.run()
        if not any(caller.rounds for caller in self.callers):
            self.muxes[CLIENT].close()
            self.run()

    def run(self) -> None:
        """
        Deliver frames until neither side sends more.
        """
        moving = True
        while moving:
            self.clock.advance(0)
            frames = [self.newFrames(side) for side in (CLIENT, SERVER)]
            for side in (CLIENT, SERVER):
                for frame in frames[side]:
                    number = len(self.sent[side])
                    self.sent[side].append(frame)
                    for delivery in self.attack(side, number, frame):
                        self.deliver(*delivery)
            moving = any(frames)
            if getattr(self.attack, "cut", False):
                self.end()
            for side in (CLIENT, SERVER):
                if self.carriers[side].ended:
                    self.end()

    def newFrames(self, side: int) -> list[bytes]:
        """
        @return: the frames that one side has sent since the last call.
        """
        data = self.buffers[side] + self.carriers[side].value()
        self.carriers[side].clear()
        return cutFrames(data)

    def delivered(self) -> tuple[int, int]:
        """
        @return: how many bytes the applications have received.
        """
        return sum(len(c.received) for c in self.callers), CountingEcho.count

    def deliver(self, to: int, frame: bytes, mustStop: bool) -> None:
        """
        Deliver a frame, and check that it ends the mux if it must, and only then.
        """
        mux = self.muxes[to]
        if self.lost[to] or mux.reason is not None:
            return
        before = self.delivered()
        mux.dataReceived(frame)
        if mustStop:
            self.stopped = True
            self.case.assertIsInstance(
                mux.reason, (OutOfSequence, AuthenticationFailed, HandshakeFailed)
            )
            self.case.assertEqual(self.delivered(), before)
            self.case.assertTrue(self.carriers[to].ended)
        elif not self.stopped and not self.hopeless:
            self.case.assertIn(type(mux.reason), (type(None), PeerClosedConnection))

    def end(self) -> None:
        """
        End the carrier on both sides.
        """
        for side in (CLIENT, SERVER):
            if not self.lost[side]:
                self.lost[side] = True
                self.muxes[side].connectionLost(Failure(ConnectionDone()))

    def wait(self) -> None:
        """
        Let a minute pass.
        """
        for _ in range(60):
            self.clock.advance(1)
            self.run()

    def reason(self, side: int) -> GomuxError | None:
        return self.muxes[side].reason
