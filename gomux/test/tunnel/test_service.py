"""
Tests for L{gomux.tunnel._service}: what C{twistd gomux} is made of.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError, ConnectionRefusedError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from gomux import MuxFactory, MuxProtocol
from gomux._mux.pool import MuxPool
from gomux.error import OpenStreamError
from gomux.test.support.helpers import Recorders
from gomux.test.support.logs import Lines
from gomux.testing import PSK, MuxPair
from gomux.testing._memory import connect
from gomux.tunnel import Tunnel, TunnelLimits, forward
from gomux.tunnel._service import (
    CannotListen,
    Connector,
    Dialler,
    ListeningService,
    TunnelService,
    retryDelay,
)

HERE = IPv4Address("TCP", "192.0.2.1", 50000)
THERE = IPv4Address("TCP", "192.0.2.2", 7000)


@implementer(IListeningPort)
class Port:
    """
    A port that remembers whether it listens.
    """

    listening = True

    def startListening(self) -> None:
        self.listening = True

    def stopListening(self) -> Deferred[None]:
        self.listening = False
        return succeed(None)

    def getHost(self) -> IAddress:
        return THERE


@implementer(IStreamServerEndpoint)
class ServerEndpoint:
    """
    An endpoint that gives the answer it is told to.
    """

    def __init__(self, answer: Deferred[IListeningPort]) -> None:
        self.answer = answer

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        return self.answer


class ListeningServiceTests(SynchronousTestCase):
    """
    L{ListeningService}
    """

    def setUp(self) -> None:
        self.patch(sys, "excepthook", sys.excepthook)
        self.observer = Lines("gomux.tunnel._service")
        globalLogPublisher.addObserver(self.observer)
        self.addCleanup(globalLogPublisher.removeObserver, self.observer)

    def listener(self, answer: Deferred[IListeningPort]) -> ListeningService:
        return ListeningService("--listen x", ServerEndpoint(answer), Factory())

    def test_interface(self) -> None:
        """
        It is a service.
        """
        verifyObject(IService, self.listener(succeed(Port())))

    def test_listens(self) -> None:
        """
        It listens once, and until it is stopped.
        """
        port = Port()
        listener = self.listener(succeed(port))
        listener.privilegedStartService()
        listener.startService()
        self.assertIs(listener.port, port)
        self.assertEqual(
            self.observer.lines, ["--listen x: listening on 192.0.2.2:7000"]
        )
        self.successResultOf(listener.stopService())
        self.assertFalse(port.listening)

    def test_unprivileged(self) -> None:
        """
        It listens also if nobody gave it the chance to before.
        """
        listener = self.listener(succeed(Port()))
        listener.startService()
        self.assertIsNot(listener.port, None)

    def test_cannotListen(self) -> None:
        """
        If it cannot listen the process does not start, and says why without a
        traceback.
        """
        error = CannotListenError("any", 7000, OSError("in use"))
        listener = self.listener(fail(error))
        raised = self.assertRaises(CannotListen, listener.privilegedStartService)
        self.assertEqual(
            str(raised), "--listen x: Couldn't listen on any:7000: in use."
        )
        said: list[str] = []

        class Errors:
            def write(self, text: str) -> None:
                said.append(text)

        self.patch(sys, "__stderr__", Errors())
        sys.excepthook(CannotListen, raised, None)
        self.assertEqual("".join(said), f"error: {raised}\n")
        self.successResultOf(listener.stopService())

    def test_otherErrors(self) -> None:
        """
        Other uncaught errors are shown as ever.
        """
        shown: list[object] = []
        self.patch(sys, "excepthook", lambda *what: shown.append(what))
        listener = self.listener(fail(ValueError("no")))
        self.assertRaises(CannotListen, listener.startService)
        error = KeyError()
        sys.excepthook(KeyError, error, None)
        self.assertEqual(shown, [(KeyError, error, None)])

    def test_failsLater(self) -> None:
        """
        If it turns out only later that it cannot listen the process ends by a
        signal, which is no success.
        """
        killed: list[tuple[int, int]] = []
        self.patch(os, "kill", lambda *what: killed.append(what))
        answer: Deferred[IListeningPort] = Deferred()
        listener = self.listener(answer)
        listener.startService()
        answer.errback(ValueError("no luck"))
        self.assertEqual(killed, [(os.getpid(), signal.SIGTERM)])
        self.assertEqual(self.observer.lines, ["--listen x: no luck"])

    def test_stoppedFirst(self) -> None:
        """
        If it is stopped before it listens it does not any more.
        """
        listener = self.listener(Deferred())
        listener.startService()
        self.successResultOf(listener.stopService())
        self.assertEqual(self.observer.lines, [])

    def test_stoppedUnstarted(self) -> None:
        """
        It may be stopped without having been started.
        """
        self.successResultOf(self.listener(Deferred()).stopService())


@implementer(IStreamClientEndpoint)
class ClientEndpoint:
    """
    An endpoint in memory, which refuses unless it has a server.

    @ivar attempts: when it was asked to connect.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.server: MuxFactory | None = None
        self.attempts: list[float] = []
        self.hold: Deferred[IProtocol] | None = None

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        self.attempts.append(self.clock.seconds())
        if self.hold is not None:
            return self.hold
        if self.server is None:
            return fail(ConnectionRefusedError())
        mux = factory.buildProtocol(THERE)
        assert mux is not None
        server = self.server.buildProtocol(HERE)
        connect(self.clock, (mux, server), (HERE, THERE), 0.0, None, 65536)
        return succeed(mux)


class ConnectorTests(SynchronousTestCase):
    """
    L{Connector} and L{Dialler}
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = ClientEndpoint(self.clock)
        self.dialler = Dialler(PSK, True, clock=self.clock)
        self.connector = Connector(
            "--connect x", self.endpoint, self.dialler, self.clock, 4.0
        )
        self.server = MuxFactory(PSK, False, Recorders(), clock=self.clock)
        self.observer = Lines("gomux.tunnel._service")
        globalLogPublisher.addObserver(self.observer)
        self.addCleanup(globalLogPublisher.removeObserver, self.observer)

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds * 100)):
            self.clock.advance(0.01)

    def test_connects(self) -> None:
        """
        It connects when it is started, once.
        """
        self.endpoint.server = self.server
        self.connector.startService()
        self.advance(10)
        self.assertEqual(self.endpoint.attempts, [0.0])
        self.assertEqual(len(self.dialler.pool.muxes), 1)
        self.assertEqual(self.observer.lines, ["--connect x: connected"])

    def test_reconnects(self) -> None:
        """
        A mux that is lost is soon replaced.
        """
        self.endpoint.server = self.server
        self.connector.startService()
        self.advance(1)
        self.server.pool.muxes[0].abort()
        self.advance(0.5)
        self.assertEqual(len(self.dialler.pool.muxes), 1)
        self.assertEqual(len(self.endpoint.attempts), 2)

    def test_unreachable(self) -> None:
        """
        It goes on trying to reach a peer, never less often than it should; the
        log says so in plain words, but not each time.
        """
        self.connector.startService()
        self.advance(50)
        attempts = self.endpoint.attempts
        gaps = [b - a for a, b in zip(attempts, attempts[1:], strict=False)]
        self.assertLess(gaps[0], 0.3)
        self.assertLess(max(gaps), 4.1)
        self.assertGreater(sum(gaps[-5:]), 5.0)
        self.assertEqual(
            self.observer.lines,
            [
                "--connect x: cannot connect: Connection was refused by other side.;"
                " trying again"
            ],
        )
        self.advance(20)
        self.assertEqual(len(self.observer.lines), 2)
        self.assertIsInstance(self.dialler.pool.lastReason, ConnectionRefusedError)

    def test_wrongKey(self) -> None:
        """
        A peer that accepts connections and drops them, for its key is another,
        is not asked more often than one that refuses them.
        """
        self.endpoint.server = MuxFactory("another key", False, clock=self.clock)
        self.connector.startService()
        self.advance(60)
        self.assertLess(len(self.endpoint.attempts), 40)
        self.assertIn("wrong pre-shared key", str(self.dialler.pool.lastReason))

    def test_startsOver(self) -> None:
        """
        Once a peer has been the right one the next attempt is quick again.
        """
        self.connector.startService()
        self.advance(30)
        self.endpoint.server = self.server
        self.advance(5)
        self.server.pool.muxes[0].abort()
        self.advance(0.5)
        self.assertEqual(len(self.dialler.pool.muxes), 1)

    def test_stopped(self) -> None:
        """
        Stopped, it leaves the mux alone, and makes no other.
        """
        self.endpoint.server = self.server
        self.connector.startService()
        self.advance(1)
        self.connector.stopService()
        self.assertEqual(len(self.dialler.pool.muxes), 1)
        self.server.pool.muxes[0].close()
        self.advance(10)
        self.assertEqual(self.dialler.pool.muxes, [])
        self.assertEqual(len(self.endpoint.attempts), 1)

    def test_stoppedBetween(self) -> None:
        """
        Stopped between two attempts, it makes no other.
        """
        self.connector.startService()
        self.connector.stopService()
        self.advance(10)
        self.assertEqual(len(self.endpoint.attempts), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stoppedMeanwhile(self) -> None:
        """
        Stopped during an attempt, it gives that up.
        """
        cancelled: list[object] = []
        self.endpoint.hold = Deferred(cancelled.append)
        self.connector.startService()
        self.connector.stopService()
        self.advance(10)
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(len(self.endpoint.attempts), 1)
        self.assertEqual(self.observer.lines, [])

    def test_spread(self) -> None:
        """
        A thousand clients that lost their server together come back spread
        out: in no tenth of a second do more than a tenth of them.
        """
        for failures in range(4, 10):
            times = sorted(retryDelay(failures, 4.0) for _ in range(1000))
            self.assertGreater(times[-1] - times[0], 2.5)
            most = max(
                sum(start <= time < start + 0.1 for time in times) for start in times
            )
            self.assertLess(most, 100)


class TunnelServiceTests(SynchronousTestCase):
    """
    L{TunnelService}
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.pool = MuxPool(self.clock)
        self.limits = TunnelLimits(drainTimeout=20)
        self.pair = MuxPair(
            clientFactory=MuxFactory(PSK, True, clock=self.clock, pool=self.pool),
            serverFactory=MuxFactory(PSK, False, Recorders(), clock=self.clock),
            clock=self.clock,
        )
        self.pair.flush()
        self.aborted: list[str] = []
        self.tunnel = forward("", self.pool, self.clock, self.limits)
        self.service = self.make()

    def make(self, reload: Callable[[], None] | None = None) -> TunnelService:
        clock: Any = self.clock
        return TunnelService(self.pool, [self.tunnel], clock, self.limits, reload)

    def openStream(self) -> Any:
        recorders = Recorders()
        self.pair.client.openStream(recorders)
        self.pair.flush()
        return recorders.made[0]

    def test_stop(self) -> None:
        """
        It stops its services at once and closes muxes that have no streams.
        """
        child = Service()
        child.setServiceParent(self.service)
        self.service.startService()
        stopped = self.service.stopService()
        self.assertFalse(child.running)
        self.pair.flush()
        self.successResultOf(stopped)
        self.assertEqual(self.pool.muxes, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_drains(self) -> None:
        """
        Streams that are open may come to their end; there are no new ones.
        """
        stream = self.openStream()
        self.service.startService()
        stopped = self.service.stopService()
        self.pair.advance(10)
        self.assertNoResult(stopped)
        self.failureResultOf(self.pair.client.openStream(Recorders()), OpenStreamError)
        stream.stream.loseConnection()
        self.pair.flush()
        self.successResultOf(stopped)

    def test_drainTimeout(self) -> None:
        """
        But not for ever: then connections that are carried are aborted, not
        closed as if they were complete.
        """
        self.openStream()
        self.patch(Tunnel, "abort", lambda tunnel: self.aborted.append(tunnel.name))
        self.service.startService()
        stopped = self.service.stopService()
        self.pair.advance(19.9)
        self.assertEqual(self.aborted, [])
        self.assertNoResult(stopped)
        self.pair.advance(0.2)
        self.assertEqual(self.aborted, [""])
        self.successResultOf(stopped)

    def test_waiting(self) -> None:
        """
        Nobody waits for a mux any more.
        """
        self.pool.remove(self.pair.client, OpenStreamError())
        waiting = self.pool.openStream(Recorders())
        self.service.startService()
        self.service.stopService()
        self.failureResultOf(waiting, OpenStreamError)

    def test_hangup(self) -> None:
        """
        On SIGHUP it reads again what it is told to; once stopped it leaves the
        signal to others again.
        """
        before = signal.getsignal(signal.SIGHUP)
        calls: list[object] = []
        self.clock.callFromThread = calls.append  # type: ignore[attr-defined]
        service = self.make(lambda: None)
        service.startService()
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(len(calls), 1)
        service.stopService()
        self.assertIs(signal.getsignal(signal.SIGHUP), before)

    def test_noHangup(self) -> None:
        """
        With nothing to read again SIGHUP is not its business.
        """
        before = signal.getsignal(signal.SIGHUP)
        self.service.startService()
        self.assertIs(signal.getsignal(signal.SIGHUP), before)


class LossTests(SynchronousTestCase):
    """
    What is logged when a mux ends.
    """

    def setUp(self) -> None:
        self.observer = Lines("gomux._mux.factory")
        globalLogPublisher.addObserver(self.observer)
        self.addCleanup(globalLogPublisher.removeObserver, self.observer)

    def pair(self, psk: str) -> MuxPair:
        self.clock = Clock()
        pair = MuxPair(
            clientFactory=MuxFactory(psk, True, clock=self.clock),
            serverFactory=MuxFactory(PSK, False, clock=self.clock),
            clock=self.clock,
        )
        pair.flush()
        return pair

    def test_wrongKey(self) -> None:
        """
        A wrong key is logged in one line by each side, with the peer and the
        reason, and without any key.
        """
        self.pair("another pre-shared key")
        lines = [line for line in self.observer.lines if "ended" in line]
        self.assertEqual(len(lines), 2)
        self.assertIn("the mux from 192.0.2.1:49152 ended: A frame did not", lines[0])
        self.assertIn("the mux to 192.0.2.2:7000 ended: ", lines[1])
        self.assertIn("wrong pre-shared key", lines[1])
        for secret in (PSK, "another pre-shared key"):
            self.assertNotIn(secret, "".join(self.observer.lines))

    def test_rate(self) -> None:
        """
        A stranger who tries again and again does not fill the log.
        """
        clock = Clock()
        server = MuxFactory(PSK, False, clock=clock)
        for _ in range(500):
            pair = MuxPair(
                clientFactory=MuxFactory("another key", True, clock=clock),
                serverFactory=server,
                clock=clock,
            )
            pair.flush()
        lines = [line for line in self.observer.lines if "the mux from" in line]
        self.assertLess(len(lines), 30)

    def test_orderly(self) -> None:
        """
        A mux that is closed in good order is no reason to worry.
        """
        pair = self.pair(PSK)
        pair.client.close()
        pair.flush()
        self.assertIn(
            "the mux from 192.0.2.1:49152 ended: The peer closed the mux.",
            self.observer.lines,
        )
        self.assertIsInstance(pair.client, MuxProtocol)
