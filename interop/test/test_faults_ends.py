"""
Faults and abuse: how streams, muxes and carriers end.
"""

from __future__ import annotations

import itertools
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone

from gomux import MuxClientEndpoint
from gomux.error import (
    OpenStreamError,
    PeerClosedConnection,
    PeerClosedStream,
    StreamClosed,
    Truncated,
)
from gomux.testing import FaultProxy
from interop.faults.attacker import (
    CLOSE,
    CLOSE_MUX,
    CLOSE_READ,
    CLOSE_WRITE,
    DATA,
    PSK,
    WINDOW,
)
from interop.faults.cases import (
    CLIENT,
    SERVER,
    Apps,
    FaultTestCase,
    HalfApp,
    Quiet,
    RowTestCase,
    Subject,
    inBothRoles,
    row,
)

EVENTS = ("peer writes", "peer reads", "we write", "we read")


@inBothRoles
class Ends(RowTestCase):
    """
    How streams, muxes and carriers end.
    """

    @row(25)
    async def test_idsRunOut(self) -> None:
        """
        After the last stream ID is used, the mux opens no more streams and uses no ID
        twice.  Open streams go on, and the mux closes when the last of them has ended.
        """
        await self.start()
        self.mux._nextID = last = 2**32 - (2 if self.isClient else 1)
        app: Any = await self.mux.openStream(self.apps)
        self.assertIn(last, self.apps.streams)
        await self.assertFailure(self.mux.openStream(self.apps), OpenStreamError)
        self.attacker.send(DATA, last, b"ECHO")
        await self.attacker.untilFrame(DATA, last)
        self.attacker.send(CLOSE, last)
        self.assertIsInstance(await app.lost, PeerClosedStream)
        await self.attacker.untilFrame(CLOSE_MUX)

    @row(25)
    async def test_lastIDOfThePeer(self) -> None:
        """
        The peer may open a stream with the last ID of its range.
        """
        await self.start()
        self.attacker.nextID = 2**32 - (1 if self.isClient else 2)
        streamID, _ = await self.stream()
        self.attacker.send(DATA, streamID, b"ECHO")
        await self.attacker.untilFrame(DATA, streamID)

    @row(29)
    async def test_crossingCloses(self) -> None:
        """
        A CloseStream that crosses the peer's CloseStream is legal.
        """
        await self.start()
        await self.attacker.sync()
        for _ in range(20):
            streamID, app = await self.stream()
            app.transport.loseConnection()
            self.attacker.send(CLOSE, streamID)
            await self.attacker.untilFrame(CLOSE, streamID)
            self.assertIsInstance(await app.lost, StreamClosed)
        await self.assertLives()
        self.assertEqual(self.mux.streamCount, 1)

    @row(29)
    async def test_everyOrder(self) -> None:
        """
        The two sides can close any of the four halves of a stream, in any order, and
        then close the stream.  Each such stream ends exactly once and is forgotten.
        """
        await self.start(Apps(HalfApp))
        await self.attacker.sync()
        orders = [
            order
            for length in range(5)
            for order in itertools.permutations(EVENTS, length)
        ]
        for order, closer in itertools.product(orders, ("we", "they", "both")):
            streamID, app = await self.stream()
            for event in order:
                if event == "peer writes":
                    self.attacker.send(CLOSE_READ, streamID)
                elif event == "peer reads":
                    self.attacker.send(CLOSE_WRITE, streamID)
                elif event == "we write":
                    app.transport.loseWriteConnection()
                else:
                    app.transport.loseReadConnection()
            if len(order) < 4 and closer != "they":
                app.transport.loseConnection()
            if len(order) < 4 and closer != "we":
                self.attacker.send(CLOSE, streamID)
            self.assertIsInstance(await app.lost, ConnectionDone, (order, closer))
            self.assertEqual(app.losses, 1)
        await self.assertLives()
        self.assertEqual(self.mux.streamCount, 1)
        self.assertEqual(self.mux._streams.peerCount, 1)

    async def twoStreams(self) -> tuple[Any, Any]:
        """
        Open two streams and send data on each.  The reader of the first is paused.

        @return: The applications of the paused stream and of the other.
        """
        await self.start()
        streamID, paused = await self.stream()
        paused.transport.pauseProducing()
        self.attacker.send(DATA, streamID, b"data")
        streamID, reading = await self.stream()
        self.attacker.send(DATA, streamID, b"data")
        return paused, reading

    async def assertBothEnd(
        self, paused: Any, reading: Any, error: type[Exception]
    ) -> None:
        """
        Check that each stream delivers its data once, before its end, and that the
        paused stream delivers neither until it is resumed.
        """
        self.assertIsInstance(await self.mux.whenClosed(), error)
        self.assertIsInstance(await reading.lost, error)
        self.assertEqual(reading.received, b"data")
        self.assertEqual(paused.losses, 0)
        paused.transport.resumeProducing()
        self.assertIsInstance(await paused.lost, error)
        self.assertEqual(paused.received, b"data")
        await self._bystander.sync()
        self.assertEqual(len(self.logged(self.attacker.name, "ended")), 1)

    @row(30)
    async def test_carrierEnds(self) -> None:
        """
        If the carrier ends without CloseMux, the mux and its streams end with
        C{Truncated}.
        """
        streams = await self.twoStreams()
        self.attacker.transport.loseConnection()
        await self.assertBothEnd(*streams, Truncated)

    @row(31)
    async def test_reset(self) -> None:
        """
        If the carrier is reset in the middle of a frame, data that had already arrived
        is still delivered, exactly once.
        """
        streams = await self.twoStreams()
        await self.attacker.sync()
        frame = self.attacker.frame(DATA, 0, bytes(1000))
        self.attacker.transport.write(frame[:500])
        size = self.mux.bytesReceived
        await self.eventually(lambda: self.mux.bytesReceived > size)
        self.attacker.transport.abortConnection()
        await self.assertBothEnd(*streams, Truncated)

    @row(32)
    async def test_closeMux(self) -> None:
        """
        CloseMux ends each stream cleanly, after the data that arrived before it.
        """
        streams = await self.twoStreams()
        self.attacker.send(CLOSE_MUX)
        await self.assertBothEnd(*streams, PeerClosedConnection)
        self.assertIsInstance(await self.attacker.lost, ConnectionDone)

    @row(33)
    async def test_afterCloseMux(self) -> None:
        """
        Frames after CloseMux are ignored.
        """
        streams = await self.twoStreams()
        number = self.attacker.nextID
        self.attacker.transport.write(
            self.attacker.frame(CLOSE_MUX)
            + self.attacker.frame(DATA, number - 2, b"more")
            + self.attacker.frame(DATA, number - 2, bytes(WINDOW // 2)) * 3
            + b"\xff" * 100
        )
        await self.assertBothEnd(*streams, PeerClosedConnection)


class Reconnections(FaultTestCase):
    """
    A client endpoint reconnects to its server.
    """

    async def setUpEndpoint(self) -> MuxClientEndpoint:
        """
        Make a server, and an endpoint that connects to it through a proxy.
        """
        self.apps = Apps()
        self.server = Subject(PSK, False, self.apps)
        self.proxy = FaultProxy(reactor, "127.0.0.1", self.listen(self.server))
        self.proxy.start()
        self.addCleanup(self.proxy.stop)
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.port)
        endpoint = MuxClientEndpoint(reactor, carrier, PSK)
        self.addCleanup(endpoint.close)
        return endpoint

    async def echo(self, endpoint: MuxClientEndpoint) -> tuple[Any, Any]:
        """
        Open a stream and wait until its data is echoed.

        @return: The protocols at the client's and at the server's end.
        """
        near: Any = await endpoint.connect(Apps(Quiet))
        near.transport.write(b"ECHO")
        await self.eventually(lambda: near.received)
        return near, self.apps.streams[near.transport.getPeer().streamID]

    @row(42, pairing=CLIENT)
    async def test_client(self) -> None:
        """
        When a carrier is lost, its streams are lost too.  A new stream uses a new mux,
        and data written to a lost stream does not reappear on it.
        """
        endpoint = await self.setUpEndpoint()
        for count in range(1, 4):
            near, far = await self.echo(endpoint)
            self.assertEqual(len(self.server.made), count)
            self.assertEqual(near.transport.getPeer().streamID, 0)
            self.proxy.reset()
            self.assertIsInstance(await near.lost, Truncated)
            # Data written to the lost stream must not reach the next one.
            near.transport.write(b"stale")
            self.assertEqual(near.received, b"ECHO")

    @row(42, pairing=SERVER)
    async def test_server(self) -> None:
        """
        The server ends the streams of the lost mux, and serves the client's new mux.
        """
        endpoint = await self.setUpEndpoint()
        ends = []
        for _ in range(3):
            near, far = await self.echo(endpoint)
            ends.append(far)
            self.proxy.reset()
            self.assertIsInstance(await far.lost, Truncated)
            far.transport.write(b"stale")
            await near.lost
        self.assertEqual(len(set(ends)), 3)
        for far in ends:
            self.assertEqual((far.received, far.losses), (b"ECHO", 1))

    @row(25, pairing=CLIENT)
    async def test_idsRunOut(self) -> None:
        """
        A client endpoint whose mux has run out of IDs connects a new mux for the next
        stream.  The streams of the first mux go on.
        """
        endpoint = await self.setUpEndpoint()
        server = self.server
        first, _ = await self.echo(endpoint)
        (mux,) = endpoint._mux.pool.muxes
        mux._nextID = 2**32 - 2
        last, _ = await self.echo(endpoint)
        self.assertEqual(last.transport.getPeer().streamID, 2**32 - 2)
        other, _ = await self.echo(endpoint)
        self.assertEqual(other.transport.getPeer().streamID, 0)
        self.assertEqual(len(server.made), 2)
        for app in (first, last):
            app.transport.loseConnection()
        self.assertIsInstance(await server.made[0].whenClosed(), PeerClosedConnection)
        self.assertEqual(other.losses, 0)
