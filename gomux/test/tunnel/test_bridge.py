"""
Tests for L{gomux.tunnel._bridge}: how a bridge comes to its end when one of its ends
was cut short, reads nothing or says nothing.  And for L{gomux.tunnel._patience}.
"""

from __future__ import annotations

from math import inf
from typing import Any, cast
from unittest.mock import Mock

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides, providedBy

from gomux.test.support.helpers import HalfRecorder, Recorder
from gomux.test.support.tunnelrig import HERE, THERE, Rig
from gomux.testing._pair import connect
from gomux.tunnel._bridge import Bridge, State
from gomux.tunnel._end import Life
from gomux.tunnel._patience import Patience

#: More than the windows and the buffers between the two ends of a tunnel take.
MUCH = 1000000


class EndingTestCase(SynchronousTestCase):
    """
    A connection through a tunnel.
    """

    limits: dict[str, Any] = {}

    def setUp(self) -> None:
        self.rig = Rig(self, **self.limits)
        self.client, self.clientSide = self.rig.open()
        self.server = self.rig.target.made[0]
        self.serverSide = self.rig.target.carriers[0][1]

    def pass_(self, seconds: float, step: float = 0.1) -> None:
        """
        Let some time pass.
        """
        for _ in range(round(seconds / step)):
            self.rig.pair.advance(step)
        self.rig.flush()

    def assertOver(self) -> None:
        """
        Assert that nothing is left, no timer either.
        """
        for tunnel in (self.rig.here, self.rig.there):
            self.assertEqual(tunnel.bridges, set())
            self.assertFalse(any(tunnel._byMux.values()))
        calls = map(str, self.rig.clock.getDelayedCalls())
        self.assertEqual([call for call in calls if "Patience" in call], [])


class CutTests(EndingTestCase):
    """
    An end is cut short while its output waits for a slow reader at the other end.
    """

    def fill(self, reads: Any, writes: Any) -> int:
        """
        Have one side write, while the other reads nothing.

        @return: how many bytes the tunnel has taken.
        """
        reads.incoming.stall()
        writes.write(bytes(MUCH))
        self.rig.flush()
        taken: int = writes.outgoing.bytesDelivered
        self.assertGreater(taken, 200000)
        return taken

    def test_target(self) -> None:
        """
        What the target sent before it was cut reaches the client, who then sees that
        it was cut.
        """
        taken = self.fill(self.clientSide, self.serverSide)
        self.serverSide.abortConnection()
        self.pass_(3)
        self.assertEqual(self.client.events, ["made"])
        self.clientSide.incoming.unstall()
        self.pass_(2)
        self.assertEqual(len(self.client.received), taken)
        self.assertEqual(self.client.events, ["made", "data", "lost"])
        self.assertIsInstance(self.client.reason, ConnectionLost)
        self.assertOver()

    def test_client(self) -> None:
        """
        What the client sent before it was cut reaches the target, which then sees that
        the client was cut.
        """
        taken = self.fill(self.serverSide, self.clientSide)
        self.clientSide.abortConnection()
        self.pass_(3)
        self.assertEqual(self.server.events, ["made"])
        self.serverSide.incoming.unstall()
        self.pass_(2)
        self.assertEqual(len(self.server.received), taken)
        self.assertEqual(self.server.events, ["made", "data", "lost"])
        self.assertIsInstance(self.server.reason, ConnectionLost)
        self.assertOver()

    def cutLevels(self) -> list[LogLevel]:
        """
        Abort the target's side.

        @return: the levels of the log lines that this causes, at both ends.
        """
        events: list[dict[str, Any]] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.serverSide.abortConnection()
        self.pass_(3)
        self.assertOver()
        cuts = [e for e in events if "was cut short" in e["log_format"]]
        return [e["log_level"] for e in cuts]

    def test_logged(self) -> None:
        """
        A cut is a warning in the logs of both ends.
        """
        self.serverSide.write(b"x")
        self.rig.flush()
        self.assertEqual(self.cutLevels(), [LogLevel.warn] * 2)

    def test_loggedAfterEOF(self) -> None:
        """
        A cut after the EOF of the other side is ordinary: a program that closes its
        socket with unread input resets its connection.  TLS servers do so with the
        client's C{close_notify}.
        """
        self.clientSide.write(b"x")
        self.clientSide.loseWriteConnection()
        self.rig.flush()
        self.assertEqual(self.cutLevels(), [LogLevel.info] * 2)

    def test_revoked(self) -> None:
        """
        Once the peer's key is revoked, the target gets nothing more of what waits for
        it, and sees at once that the connection was cut.
        """
        self.fill(self.serverSide, self.clientSide)
        self.rig.pair.server.revoke()
        self.rig.flush()
        self.serverSide.incoming.unstall()
        self.rig.flush()
        self.assertEqual(self.server.events, ["made", "lost"])
        self.assertIsInstance(self.server.reason, ConnectionLost)

    def test_error(self) -> None:
        """
        An end that reports an error of its own, such as TLS without a C{close_notify},
        counts as cut short.
        """
        taken = self.fill(self.clientSide, self.serverSide)
        self.rig.target.carriers[0][0].fail(ConnectionLost())
        self.clientSide.incoming.unstall()
        self.pass_(2)
        self.assertEqual(len(self.client.received), taken)
        self.assertIsInstance(self.client.reason, ConnectionLost)
        self.assertOver()

    def test_slowReader(self) -> None:
        """
        A reader may take longer than any limit, as long as it reads something.
        """
        self.rig = Rig(self, halfOpenTimeout=1.0)
        self.client, self.clientSide = self.rig.open()
        self.serverSide = self.rig.target.carriers[0][1]
        self.clientSide.pauseProducing()
        self.serverSide.write(bytes(MUCH))
        self.rig.flush()
        self.serverSide.abortConnection()
        self.rig.flush()
        while self.client.reason is None:
            self.clientSide.resumeProducing()
            self.clientSide.incoming._deliver()
            self.clientSide.pauseProducing()
            self.pass_(0.5)
            self.assertLess(self.rig.clock.seconds(), 100)
        self.assertGreater(self.rig.clock.seconds(), 5)
        self.assertEqual(len(self.client.received), MUCH)
        self.assertOver()

    def test_readsNothing(self) -> None:
        """
        A reader that reads nothing for as long as the limit is cut without the rest.
        """
        self.rig = Rig(self, halfOpenTimeout=10.0)
        self.client, self.clientSide = self.rig.open()
        self.serverSide = self.rig.target.carriers[0][1]
        self.fill(self.clientSide, self.serverSide)
        self.serverSide.abortConnection()
        self.pass_(9)
        self.assertEqual(len(self.rig.there.bridges), 1)
        self.pass_(3)
        self.assertEqual(self.rig.there.bridges, set())
        self.assertEqual(len(self.rig.here.bridges), 1)
        self.pass_(12)
        self.clientSide.incoming.unstall()
        self.rig.flush()
        self.assertOver()

    def test_inputMeanwhile(self) -> None:
        """
        What the reader sends meanwhile is dropped.  So no more of it is read than the
        window of a stream and the buffers take.
        """
        self.fill(self.clientSide, self.serverSide)
        self.serverSide.abortConnection()
        self.pass_(1)
        before = self.clientSide.outgoing.bytesDelivered
        self.clientSide.write(bytes(MUCH))
        self.pass_(1)
        self.assertLess(self.clientSide.outgoing.bytesDelivered - before, 300000)
        self.clientSide.incoming.unstall()
        self.pass_(2)
        self.assertOver()

    def test_abortedMeanwhile(self) -> None:
        """
        A tunnel that is aborted meanwhile ends at once.
        """
        self.fill(self.clientSide, self.serverSide)
        self.serverSide.abortConnection()
        self.rig.flush()
        self.rig.here.abort()
        self.rig.there.abort()
        self.clientSide.incoming.unstall()
        self.rig.flush()
        self.assertOver()


class MuxEndTests(EndingTestCase):
    """
    A mux that ends while an end of a bridge reads nothing.
    """

    def stuck(self, reads: Any, writes: Any) -> None:
        reads.incoming.stall()
        writes.write(bytes(MUCH))
        self.rig.flush()

    def assertEnds(self, reads: Any) -> None:
        """
        Assert that the bridges end in a few seconds, but not at once.
        """
        self.assertEqual(len(self.rig.here.bridges | self.rig.there.bridges), 1)
        self.pass_(self.rig.limits.lingerTimeout - 0.5)
        self.assertEqual(len(self.rig.here.bridges | self.rig.there.bridges), 1)
        self.pass_(1.5)
        reads.incoming.unstall()
        self.rig.flush()
        self.assertOver()

    def test_targetReadsNothing(self) -> None:
        """
        A target that reads nothing loses its connection seconds after the mux is cut.
        """
        self.stuck(self.serverSide, self.clientSide)
        self.rig.pair.loseCarrier()
        self.rig.flush()
        self.assertEqual(self.server.reason, None)
        self.assertEnds(self.serverSide)
        self.assertIsInstance(self.server.reason, ConnectionLost)

    def test_clientReadsNothing(self) -> None:
        """
        A client that reads nothing loses its connection seconds after the mux is cut.
        """
        self.stuck(self.clientSide, self.serverSide)
        self.rig.pair.loseCarrier()
        self.rig.flush()
        self.assertEnds(self.clientSide)
        self.assertIsInstance(self.client.reason, ConnectionLost)

    def test_closed(self) -> None:
        """
        A mux that is closed in good order leaves nothing behind either.
        """
        self.stuck(self.serverSide, self.clientSide)
        self.rig.pair.client.close()
        self.pass_(30)
        self.serverSide.incoming.unstall()
        self.rig.flush()
        self.assertOver()

    def test_afterEOF(self) -> None:
        """
        An end that reads nothing also loses its connection if EOF follows the waiting
        data.
        """
        self.serverSide.incoming.stall()
        self.clientSide.write(bytes(200000))
        self.clientSide.loseConnection()
        self.rig.flush()
        self.rig.pair.loseCarrier()
        self.rig.flush()
        self.assertEnds(self.serverSide)

    def test_silentBefore(self) -> None:
        """
        The seconds count from the end of the mux, also if nothing had moved for longer
        before that.
        """
        self.serverSide.loseWriteConnection()
        self.stuck(self.serverSide, self.clientSide)
        self.pass_(60, 1)
        self.rig.pair.loseCarrier()
        self.rig.flush()
        self.assertEnds(self.serverSide)

    def test_readsLater(self) -> None:
        """
        An end that reads again in time gets all that had come over the mux.
        """
        self.stuck(self.serverSide, self.clientSide)
        self.rig.pair.loseCarrier()
        self.pass_(self.rig.limits.lingerTimeout - 1)
        self.serverSide.incoming.unstall()
        self.pass_(1)
        self.assertGreaterEqual(len(self.server.received), 131072)
        self.assertIsInstance(self.server.reason, ConnectionLost)
        self.assertOver()

    def test_share(self) -> None:
        """
        Connections that have ended in this way make room for others.
        """
        for _ in range(2):
            self.rig.open()
        for pair in self.rig.target.carriers:
            pair[1].incoming.stall()
        for end in list(self.rig.here.bridges):
            end.near.dataReceived(bytes(MUCH))
        self.rig.flush()
        self.rig.pair.loseCarrier()
        self.pass_(self.rig.limits.lingerTimeout + 1)
        self.assertEqual(self.rig.there.bridges, set())


class HalfOpenTests(EndingTestCase):
    """
    A connection of which one half is closed, while nothing comes on the other.
    """

    limits = {"halfOpenTimeout": 100.0}

    def test_serverCloses(self) -> None:
        """
        A client that keeps its half open after the server has closed is cut after the
        limit; the log says why.
        """
        self.serverSide.write(b"bye")
        self.serverSide.loseWriteConnection()
        self.rig.flush()
        self.pass_(95, 1)
        self.assertEqual(self.client.events, ["made", "data", "readLost"])
        self.pass_(30, 1)
        self.assertIsInstance(self.client.reason, ConnectionLost)
        self.assertIsInstance(self.server.reason, ConnectionLost)
        self.assertOver()
        self.assertIn("nothing was sent or read for 100 seconds", self.rig.logged[0])

    def test_clientCloses(self) -> None:
        """
        A server that does not answer a client that has closed its half is cut after the
        limit too.
        """
        self.clientSide.loseWriteConnection()
        self.pass_(130, 1)
        self.assertIsInstance(self.client.reason, ConnectionLost)
        self.assertOver()

    def test_data(self) -> None:
        """
        Data on the other half lets the connection go on.
        """
        self.clientSide.loseWriteConnection()
        for _ in range(5):
            self.pass_(90, 1)
            self.serverSide.write(b"still here")
        self.rig.flush()
        self.assertEqual(len(self.client.received), 50)
        self.assertEqual(self.client.reason, None)

    def test_slowReader(self) -> None:
        """
        A reader that takes what was sent before the end, however slowly, keeps its
        connection.
        """
        self.clientSide.pauseProducing()
        self.serverSide.write(bytes(MUCH))
        self.serverSide.loseWriteConnection()
        self.rig.flush()
        while self.client.events[-1] != "readLost":
            self.clientSide.resumeProducing()
            self.clientSide.incoming._deliver()
            self.clientSide.pauseProducing()
            self.pass_(60, 1)
            self.assertLess(self.rig.clock.seconds(), 10000)
        self.assertGreater(self.rig.clock.seconds(), 500)
        self.assertEqual(len(self.client.received), MUCH)

    def test_open(self) -> None:
        """
        A connection whose halves are open may be silent.
        """
        self.pass_(500, 10)
        self.assertEqual(self.client.events, ["made"])
        self.assertEqual(len(self.rig.here.bridges), 1)

    def test_off(self) -> None:
        """
        The limit can be turned off.
        """
        self.rig = Rig(self, halfOpenTimeout=0)
        client, clientSide = self.rig.open()
        clientSide.loseWriteConnection()
        self.pass_(100000, 1000)
        self.assertEqual(client.events, ["made", "writeLost"])

    def test_bothClosed(self) -> None:
        """
        A connection that both sides have closed is gone at once.
        """
        self.clientSide.loseWriteConnection()
        self.serverSide.loseWriteConnection()
        self.rig.flush()
        self.assertOver()

    def test_closedUnread(self) -> None:
        """
        An end that was closed in good order, and that never reads its last data, is cut
        after the limit too.
        """
        self.clientSide.incoming.stall()
        self.serverSide.write(bytes(100000))
        self.serverSide.loseConnection()
        self.clientSide.loseWriteConnection()
        self.pass_(150, 1)
        self.clientSide.incoming.unstall()
        self.rig.flush()
        self.assertOver()


class EarlyEndTests(SynchronousTestCase):
    """
    A near end that is gone before the far end is connected.
    """

    def setUp(self) -> None:
        self.rig = Rig(self)
        self.cancelled: list[object] = []
        self.waiting: Deferred[Any] = Deferred(self.cancelled.append)
        self.rig.target.answer = self.waiting
        near = self.rig.there.buildProtocol(HERE)
        assert near is not None
        recorder = Recorder()
        self.side, _ = connect(
            self.rig.clock, (recorder, near), (HERE, THERE), 0.0, None, 65536
        )
        self.near = near

    def connectFar(self) -> HalfRecorder:
        factory = self.rig.target.factory
        assert factory is not None
        self.waiting.callback(self.rig.target.connected(factory))
        self.rig.flush()
        return self.rig.target.made[0]

    def test_orderly(self) -> None:
        """
        What an orderly near end had delivered reaches the far end, followed by an
        orderly end.
        """
        self.near.dataReceived(b"early")
        self.near.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.rig.there.bridges), 1)
        far = self.connectFar()
        self.assertEqual(far.received, b"early")
        self.assertEqual(far.events, ["made", "data", "readLost"])

    def test_cut(self) -> None:
        """
        If the near end was cut, the attempt to connect the far end is given up.
        """
        self.near.dataReceived(b"early")
        self.near.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(len(self.cancelled), 1)
        self.assertEqual(self.rig.there.bridges, set())

    def test_fails(self) -> None:
        """
        If the far end cannot be connected, nothing is left.
        """
        self.near.dataReceived(b"early")
        self.near.connectionLost(Failure(ConnectionDone()))
        self.waiting.errback(ValueError("no target"))
        self.assertEqual(self.rig.there.bridges, set())
        self.assertIn("no target", self.rig.logged[0])

    def test_noReason(self) -> None:
        """
        A near end whose transport gives no reason has ended in good order.
        """
        self.near.dataReceived(b"early")
        self.near.connectionLost(None)  # type: ignore[arg-type]
        self.assertEqual(self.connectFar().received, b"early")


class RaisingTests(EndingTestCase):
    """
    A transport that raises harms its own bridge only.
    """

    def raises(self, *arguments: object) -> None:
        raise ZeroDivisionError

    def test_abort(self) -> None:
        """
        A transport that cannot be aborted does not keep other bridges from being
        aborted.
        """
        other, _ = self.rig.open()
        for bridge in self.rig.here.bridges:
            transport: Any = bridge.near.transport
            if bridge.near.transport.protocol is bridge.near:
                transport.abortConnection = self.raises
                break
        self.rig.here.abort()
        self.rig.flush()
        self.assertEqual(self.rig.here.bridges, set())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_write(self) -> None:
        """
        A write that raises ends both ends of its bridge, and no other.
        """
        other, otherSide = self.rig.open()
        tunnelSide: Any = self.rig.target.carriers[0][0]
        for bridge in self.rig.there.bridges:
            if bridge._far.transport is tunnelSide:
                near: Any = bridge.near
                near.dataReceived = self.raises
        self.clientSide.write(b"x")
        self.pass_(1)
        self.assertIsInstance(self.client.reason, ConnectionLost)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
        otherSide.write(b"ping")
        self.rig.flush()
        self.assertEqual(self.rig.target.made[1].received, b"ping")

    def test_connect(self) -> None:
        """
        C{connect} of the far end's endpoint may raise: the near end is aborted.
        """
        self.rig.target.connect = self.raises  # type: ignore[assignment]
        client, _ = self.rig.open()
        self.assertIsInstance(client.reason, ConnectionLost)
        self.assertEqual(len(self.rig.here.bridges), 1)

    def test_state(self) -> None:
        """
        A bridge that is over stays so.
        """
        bridge = Bridge(self.rig.here, None)
        bridge.state = State.OVER
        bridge.abort()
        bridge.muxEnded()
        self.assertIs(bridge.state, State.OVER)


class TLSFinishTests(SynchronousTestCase):
    """
    An end over TLS.
    """

    def test_cutWhileFinishing(self) -> None:
        """
        An end that is being closed, and reads nothing, is cut after the limit too.
        """
        rig = Rig(self, halfOpenTimeout=10.0)
        waiting: Deferred[Any] = rig.target.hold()
        _, clientSide = rig.open()
        assert rig.target.factory is not None
        end = rig.target.connected(rig.target.factory)
        tunnelSide = rig.target.carriers[0][0]
        directlyProvides(tunnelSide, providedBy(tunnelSide), ISSLTransport)
        waiting.callback(end)
        rig.target.carriers[0][1].incoming.stall()
        clientSide.write(bytes(100000))
        clientSide.loseWriteConnection()
        rig.flush()
        for _ in range(150):
            rig.pair.advance(0.1)
        self.assertEqual(rig.there.bridges, set())


class PatienceTests(SynchronousTestCase):
    """
    L{Patience}
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.near: Any = Mock(moved=0, waiting=0, life=Life.LIVE)
        self.far: Any = Mock(moved=0, waiting=0, life=Life.LIVE)
        self.told: list[float] = []
        self.patience = Patience(
            self.near,
            self.far,
            self.clock,
            lambda: self.told.append(self.clock.seconds()),
        )

    def pass_(self, seconds: int) -> None:
        self.clock.pump([1] * seconds)

    def test_tooLong(self) -> None:
        """
        It tells if nothing has moved since the first check, once.
        """
        self.patience.limit(80)
        self.pass_(200)
        self.assertEqual(self.told, [90])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_moves(self) -> None:
        """
        Anything that moves, or waits no more, starts the time again.
        """
        self.patience.limit(80)
        for end, name in (
            (self.near, "moved"),
            (self.far, "moved"),
            (self.near, "waiting"),
            (self.far, "waiting"),
        ):
            self.pass_(80)
            setattr(end, name, 1)
        self.pass_(80)
        self.assertEqual(self.told, [])
        self.pass_(20)
        self.assertEqual(len(self.told), 1)

    def test_shorter(self) -> None:
        """
        Of two timeouts the shorter one counts.
        """
        self.patience.limit(800)
        self.patience.limit(80)
        self.patience.limit(800)
        self.pass_(90)
        self.assertEqual(self.told, [90])

    def test_never(self) -> None:
        """
        An infinite timeout needs no checks.
        """
        self.patience.limit(inf)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cut(self) -> None:
        """
        While an end is cut it is asked often, also without a timeout, whether it has
        sent its last output.
        """
        self.far.life = Life.CUT
        self.patience.limit(inf)
        self.clock.pump([0.01] * 100)
        self.assertGreater(self.far.abortIfSent.call_count, 4)
        self.assertEqual(self.told, [])

    def test_over(self) -> None:
        """
        A bridge that is over is not checked any more, also if it ends in a check.
        """
        self.patience.limit(80)
        self.patience.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.patience.limit(8)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.setUp()
        self.near.abortIfSent.side_effect = self.patience.stop
        self.patience.limit(80)
        self.pass_(20)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_limitInCheck(self) -> None:
        """
        A timeout that is set in a check leaves one call for the next check.
        """
        self.near.abortIfSent.side_effect = lambda: self.patience.limit(40)
        self.patience.limit(80)
        self.pass_(10)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
