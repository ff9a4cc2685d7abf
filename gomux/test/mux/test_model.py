"""
Two muxes, checked against a model of what they should do.

Hypothesis chooses what the applications and the network do: open streams on both sides,
for a service or not, write, pause, close one half or the whole stream, abort; stall,
and cut the data into pieces.  Whatever it chooses, bytes must arrive unchanged and in
order, no credit may be lost or invented, all data must arrive once nothing is paused or
stalled, and in the end no stream may be left on either side.

C{GOMUX_MODEL_STEPS=100000} in the environment runs that many steps, and chooses new
ones each time.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gomux import Limits, MuxProtocol
from gomux._mux.stream import Stream
from gomux._wire.window import ReceiveWindow
from gomux.error import ConnectionClosed, OpenStreamError, PeerClosedConnection
from gomux.test.support.helpers import Parts, PushProducer
from gomux.testing import MuxPair

STEPS = int(os.environ.get("GOMUX_MODEL_STEPS", "0"))
EXAMPLE_STEPS = 50

#: The data written on each stream, repeated without end.  It is so irregular that
#: a long piece shows its offset.
PATTERN = bytes(i * i // 7 % 256 for i in range(65521))
SIZES = st.one_of(
    st.integers(1, 300), st.sampled_from([16383, 16384, 65536, 70000, 150000])
)
SERVICE = "model"
CHUNKS = st.sampled_from([None, 37, 100, 1448, 5000, 40000])


def pattern(start: int, size: int) -> bytes:
    """
    @return: some bytes of the endless pattern.
    """
    start %= len(PATTERN)
    return (PATTERN * (2 + size // len(PATTERN)))[start : start + size]


class Checked(PushProducer):
    """
    A producer that fails if it is paused while it is paused, resumed while it runs, or
    stopped twice.
    """

    def pauseProducing(self) -> None:
        assert self.calls[-1:] in ([], ["resume"]), self.calls
        super().pauseProducing()

    def resumeProducing(self) -> None:
        assert self.calls[-1:] == ["pause"], self.calls
        super().resumeProducing()

    def stopProducing(self) -> None:
        assert "stop" not in self.calls
        super().stopProducing()


class End(Protocol):
    """
    One end of a stream, which knows the data that it must receive.

    @ivar other: the other end, once it exists.
    @ivar written: how many bytes of the pattern this end has written.
    @ivar received: how many bytes of the pattern this end has received.
    @ivar exact: whether all data written here must arrive.
    @ivar lost: how often C{connectionLost} was called.
    """

    transport: Stream

    def __init__(self) -> None:
        self.other: End | None = None
        self.written = 0
        self.received = 0
        self.exact = True
        self.writable = True
        self.reading = True
        self.lost = 0
        self.halves: list[str] = []
        self.producer = Checked()

    def dataReceived(self, data: bytes) -> None:
        assert not self.lost and self.reading
        assert "read" not in self.halves
        assert self.other is not None
        assert data == pattern(self.received, len(data)), "the bytes differ"
        self.received += len(data)
        assert self.received <= self.other.written

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost += 1
        assert self.lost == 1

    # What the application does.

    def write(self, size: int) -> None:
        if self.writable and not self.transport.disconnecting and not self.lost:
            data = pattern(self.written, size)
            self.written += size
            self.transport.write(data)

    def dropInput(self) -> None:
        self.reading = False
        if self.other is not None:
            self.other.exact = False

    def loseWrite(self) -> None:
        self.writable = False
        self.transport.loseWriteConnection()

    def loseRead(self) -> None:
        if not self.transport.disconnecting and not self.lost:
            self.dropInput()
            self.transport.loseReadConnection()

    def lose(self) -> None:
        self.writable = False
        self.dropInput()
        self.transport.loseConnection()

    def abort(self) -> None:
        self.writable = self.exact = False
        self.dropInput()
        self.transport.abortConnection()


@implementer(IHalfCloseableProtocol)
class HalfEnd(End):
    """
    An end that is half-closeable.
    """

    def readConnectionLost(self) -> None:
        assert "read" not in self.halves
        self.halves.append("read")

    def writeConnectionLost(self) -> None:
        assert "write" not in self.halves
        self.halves.append("write")
        self.writable = False


class Ends(Factory):
    """
    Makes the ends of the streams of one mux, and connects each to its other end.
    """

    noisy = False

    def __init__(self, made: dict[int, End]) -> None:
        self.made = made
        self.peers: dict[int, End] = {}
        self.halfCloseable = True

    def buildProtocol(self, addr: Any) -> End:
        end = HalfEnd() if self.halfCloseable else End()
        self.made[addr.streamID] = end
        other = self.peers.get(addr.streamID)
        if other is not None:
            end.other, other.other = other, end
            # The other end may have stopped reading before this end was made.
            end.exact = other.reading
        return end


class Peers(RuleBasedStateMachine):
    """
    The state machine: two muxes, and the steps that may be taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self.near: dict[int, End] = {}
        self.far: dict[int, End] = {}
        near, far = Ends(self.near), Ends(self.far)
        near.peers, far.peers = self.far, self.near
        self.factories = {True: near, False: far}
        self.pair = MuxPair(
            far,
            near,
            serverServices={SERVICE: far},
            clientServices={SERVICE: near},
            limits=Limits(maxGrowth=200000),
        )
        self.opening = 0
        self.muxes: dict[bool, MuxProtocol] = {
            True: self.pair.client,
            False: self.pair.server,
        }

    @property
    def pipes(self) -> list[Any]:
        return [self.pair.clientToServer, self.pair.serverToClient]

    def end(self, number: int) -> End:
        ends = [*self.near.values(), *self.far.values()]
        return ends[number % len(ends)]

    @rule(fromClient=st.booleans(), half=st.booleans(), size=SIZES)
    def open(self, fromClient: bool, half: bool, size: int) -> None:
        factory = self.factories[fromClient]
        factory.halfCloseable = half
        self.muxes[fromClient].openStream(factory)
        list(factory.made.values())[-1].write(size)

    @rule(fromClient=st.booleans(), size=SIZES)
    def openNamed(self, fromClient: bool, size: int) -> None:
        factory = self.factories[fromClient]
        opened = self.muxes[fromClient].openStream(factory, SERVICE)
        self.opening += 1
        opened.addCallbacks(lambda end: end.write(size), self.notOpened)
        opened.addCallback(lambda _: self.opened())

    def opened(self) -> None:
        self.opening -= 1

    def notOpened(self, failure: Failure) -> None:
        # The other end has aborted it, or the network was stalled for too long.
        failure.trap(OpenStreamError)

    @rule(side=st.booleans(), half=st.booleans())
    def serve(self, side: bool, half: bool) -> None:
        self.factories[side].halfCloseable = half

    @precondition(lambda self: self.near)
    @rule(number=st.integers(0, 30), size=SIZES)
    def write(self, number: int, size: int) -> None:
        self.end(number).write(size)

    @precondition(lambda self: self.near)
    @rule(number=st.integers(0, 30))
    def produce(self, number: int) -> None:
        end = self.end(number)
        if not end.producer.calls and end.transport.producer is None:
            end.transport.registerProducer(end.producer, True)

    @precondition(lambda self: self.near)
    @rule(number=st.integers(0, 30))
    def pause(self, number: int) -> None:
        self.end(number).transport.pauseProducing()

    @precondition(lambda self: self.near)
    @rule(number=st.integers(0, 30))
    def resume(self, number: int) -> None:
        self.end(number).transport.resumeProducing()

    @precondition(lambda self: self.near)
    @rule(number=st.integers(0, 30))
    def loseWrite(self, number: int) -> None:
        self.end(number).loseWrite()

    @precondition(lambda self: self.near)
    @rule(number=st.integers(0, 30))
    def loseRead(self, number: int) -> None:
        self.end(number).loseRead()

    @precondition(lambda self: self.near)
    @rule(number=st.integers(0, 30))
    def lose(self, number: int) -> None:
        self.end(number).lose()

    @precondition(lambda self: self.near)
    @rule(number=st.integers(0, 30))
    def abort(self, number: int) -> None:
        self.end(number).abort()

    @rule(direction=st.integers(0, 1))
    def stall(self, direction: int) -> None:
        self.pipes[direction].stall()

    @rule(direction=st.integers(0, 1), size=CHUNKS)
    def unstall(self, direction: int, size: int | None) -> None:
        self.pipes[direction].chunkSize = size
        self.pipes[direction].unstall()

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.001, 0.1, 1.0]))
    def advance(self, seconds: float) -> None:
        self.pair.advance(seconds)

    @rule()
    def settle(self) -> None:
        """
        Resume everything, and check that all data that must arrive has arrived.
        """
        for pipe in self.pipes:
            pipe.unstall()
        for end in (*self.near.values(), *self.far.values()):
            if not end.lost:
                end.transport.resumeProducing()
        self.pair.flush()
        assert not self.opening
        for mux in self.muxes.values():
            assert Parts(mux).scheduler.idle
        self.check_delivered(self.near, self.far)
        self.check_delivered(self.far, self.near)
        self.check_windows()

    def check_delivered(self, ends: dict[int, End], others: dict[int, End]) -> None:
        for streamID, end in ends.items():
            other = others.get(streamID)
            if other is None:
                # The end that accepted the stream has aborted it before its answer.
                assert end.transport.service == SERVICE and end.lost and not end.exact
                continue
            if end.exact:
                assert other.received == end.written, (streamID, other, end)
            if other.lost or end.lost:
                assert other.lost == end.lost == 1, (streamID, other, end)

    def check_windows(self) -> None:
        """
        Check that each send window equals the receive window of the other end.
        """
        client, server = (
            {i: end.transport for i, end in ends.items() if not end.lost}
            for ends in (self.near, self.far)
        )
        assert client.keys() == server.keys()
        assert len(client) == self.pair.client.streamCount
        assert len(server) == self.pair.server.streamCount
        for streamID, here in client.items():
            there = server[streamID]
            for sender, receiver in ((here, there), (there, here)):
                expected = receiver.receiveWindow or ReceiveWindow()
                assert sender.sendWindow == expected.available

    @invariant()
    def conserved(self) -> None:
        """
        The bookkeeping of both muxes is consistent, and no byte of a window is lost.
        """
        for mux in self.muxes.values():
            mux.checkInvariants()
        for end in (*self.near.values(), *self.far.values()):
            end.transport.checkInvariants()

    def teardown(self) -> None:
        self.settle()
        for end in (*self.near.values(), *self.far.values()):
            if not end.lost:
                end.lose()
        self.pair.flush()
        for mux in self.muxes.values():
            assert mux.streamCount == mux.protocolCount == 0
            mux.checkInvariants()
        for end in (*self.near.values(), *self.far.values()):
            assert end.lost == 1
        reasons: list[Any] = []
        self.pair.client.close().addCallback(reasons.append)
        self.pair.server.whenClosed().addCallback(reasons.append)
        self.pair.flush()
        assert {type(reason) for reason in reasons} == {
            ConnectionClosed,
            PeerClosedConnection,
        }
        assert not self.pair.clock.getDelayedCalls()


class ModelTests(SynchronousTestCase):
    """
    Runs of the state machine.
    """

    def test_model(self) -> None:
        """
        Two muxes behave as the model says.
        """
        chosen = settings(
            derandomize=not STEPS,
            database=None,
            deadline=None,
            max_examples=max(150, STEPS // EXAMPLE_STEPS),
            stateful_step_count=EXAMPLE_STEPS,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        run_state_machine_as_test(Peers, settings=chosen)

    def test_pattern(self) -> None:
        """
        A piece of the pattern continues the piece before it.
        """
        self.assertEqual(pattern(0, 200000), pattern(0, 70000) + pattern(70000, 130000))
