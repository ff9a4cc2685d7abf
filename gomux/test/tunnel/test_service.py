"""
Tests for L{gomux.tunnel._service}, the services of C{twistd gomux}.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from gomux import MuxFactory, MuxProtocol
from gomux._mux.newcomer import Newcomers
from gomux._mux.pool import MuxPool
from gomux._wire.salts import Salts
from gomux.error import ConnectionClosed, OpenStreamError, PeerClosedConnection
from gomux.test.support.dialling import THERE, DiallerTestCase
from gomux.test.support.helpers import Recorders
from gomux.test.support.logs import Lines
from gomux.test.support.process import ProcessClock
from gomux.testing import PSK, MuxPair
from gomux.tunnel import Tunnel, TunnelLimits, forward
from gomux.tunnel._plan import Plan, Refused
from gomux.tunnel._service import (
    CannotListen,
    Connector,
    ListeningService,
    ServiceDialler,
    TunnelService,
)


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
    An endpoint whose C{listen} returns a given answer.
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
        self.observer = Lines("gomux.tunnel._parts")
        globalLogPublisher.addObserver(self.observer)
        self.addCleanup(globalLogPublisher.removeObserver, self.observer)

    def listener(self, answer: Deferred[IListeningPort]) -> ListeningService:
        return ListeningService("--listen x", ServerEndpoint(answer), Factory())

    def test_interface(self) -> None:
        """
        A L{ListeningService} provides L{IService}.
        """
        verifyObject(IService, self.listener(succeed(Port())))

    def test_listens(self) -> None:
        """
        The service listens once, until it is stopped.
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
        The service listens even if C{privilegedStartService} was not called.
        """
        listener = self.listener(succeed(Port()))
        listener.startService()
        self.assertIsNot(listener.port, None)

    def test_cannotListen(self) -> None:
        """
        If the service cannot listen, the process does not start, and prints the reason
        without a traceback.
        """
        error = CannotListenError("any", 7000, OSError("in use"))
        listener = self.listener(fail(error))
        raised = self.assertRaises(CannotListen, listener.privilegedStartService)
        self.assertEqual(
            str(raised), "--listen x: Couldn't listen on any:7000: in use."
        )
        self.assertEqual(raised.code, f"error: {raised}")
        self.assertIsInstance(raised, SystemExit)
        self.assertIsInstance(raised, Exception)
        self.successResultOf(listener.stopService())

    def test_cannotListenUnprivileged(self) -> None:
        """
        If the service cannot listen, the process does not start, even if
        C{privilegedStartService} was not called.
        """
        listener = self.listener(fail(ValueError("no")))
        self.assertRaises(CannotListen, listener.startService)

    def test_failsLater(self) -> None:
        """
        If listening fails after the start, the process ends by a signal, which is not
        success.
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
        If the service is stopped before it listens, it gives the attempt up.
        """
        listener = self.listener(Deferred())
        listener.startService()
        self.successResultOf(listener.stopService())
        self.assertEqual(self.observer.lines, [])

    def test_stoppedUnstarted(self) -> None:
        """
        The service can be stopped without having been started.
        """
        self.successResultOf(self.listener(Deferred()).stopService())


class ConnectorTests(DiallerTestCase):
    """
    L{Connector} and L{ServiceDialler}
    """

    def setUp(self) -> None:
        super().setUp()
        self.dialler = ServiceDialler(PSK, self.endpoint, 4.0, clock=self.clock)
        self.connector = Connector("--connect x", self.dialler)
        self.observer = Lines("gomux.tunnel._parts")
        globalLogPublisher.addObserver(self.observer)
        self.addCleanup(globalLogPublisher.removeObserver, self.observer)

    def test_interface(self) -> None:
        """
        A L{Connector} provides L{IService}.
        """
        verifyObject(IService, self.connector)

    def test_connects(self) -> None:
        """
        The service keeps a mux connected until it is stopped.  Then it leaves the mux
        up and dials no other.
        """
        self.endpoint.server = self.server
        self.connector.startService()
        self.advance(10)
        self.assertEqual(self.endpoint.attempts, [0.0])
        self.assertEqual(self.observer.lines, ["--connect x: connected"])
        self.server.pool.muxes[0].abort()
        self.advance(0.5)
        self.assertEqual(self.observer.lines, ["--connect x: connected"] * 2)
        self.connector.stopService()
        self.assertEqual(len(self.dialler.pool.muxes), 1)
        self.server.pool.muxes[0].close()
        self.advance(10)
        self.assertEqual(self.dialler.pool.muxes, [])
        self.assertEqual(len(self.endpoint.attempts), 2)

    def test_unreachable(self) -> None:
        """
        The log says in plain words why a peer cannot be reached, but does not repeat
        the line for each attempt.
        """
        refused = (
            "--connect x: cannot connect: Connection was refused by other side.;"
            " trying again"
        )
        self.connector.startService()
        self.advance(50)
        self.assertGreater(len(self.endpoint.attempts), 10)
        self.assertEqual(self.observer.lines, [refused])
        self.advance(20)
        self.assertEqual(self.observer.lines, [refused] * 2)
        self.endpoint.server = self.server
        self.advance(5)
        self.endpoint.server = None
        self.server.pool.muxes[0].abort()
        self.advance(1)
        self.assertEqual(self.observer.lines[2:], ["--connect x: connected", refused])

    def test_stoppedMeanwhile(self) -> None:
        """
        If the service is stopped during an attempt, it gives the attempt up and logs
        nothing.
        """
        cancelled: list[object] = []
        self.endpoint.hold = Deferred(cancelled.append)
        self.connector.startService()
        self.connector.stopService()
        self.advance(10)
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.observer.lines, [])


class TunnelServiceTests(SynchronousTestCase):
    """
    L{TunnelService}
    """

    def setUp(self) -> None:
        self.clock = ProcessClock()
        self.pool = MuxPool(self.clock)
        self.limits = TunnelLimits(drainTimeout=20)
        self.pair = MuxPair(
            clientFactory=MuxFactory(PSK, True, clock=self.clock, pool=self.pool),
            serverFactory=MuxFactory(PSK, False, Recorders(), clock=self.clock),
            clock=self.clock,
        )
        self.pair.flush()
        self.server = MuxFactory(PSK, False, clock=self.clock, pool=self.pool)
        self.aborted: list[str] = []
        self.tunnel = forward("", self.pool, self.clock, self.limits)
        self.service = self.make()

    def make(self, reload: Callable[[], bool | None] = lambda: None) -> TunnelService:
        clock: Any = self.clock

        def read(plan: Plan) -> Plan:
            if reload():
                return plan
            raise Refused(["no"])

        plan = Plan(self.server.keyring, limits=self.limits, files=("the file",))
        service = TunnelService(plan, clock, read)
        parts = service.parts
        parts.pool = self.pool
        parts.tunnels["forward", ""] = self.tunnel
        for name, factory in (("a", self.pair.clientFactory), ("b", self.server)):
            parts.servers["listen", name] = Newcomers(factory)
        return service

    def openStream(self) -> Any:
        recorders = Recorders()
        self.pair.client.openStream(recorders)
        self.pair.flush()
        return recorders.made[0]

    def test_stop(self) -> None:
        """
        C{stopService} stops the child services at once, and closes muxes that have no
        streams.
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
        After C{stopService}, open streams may end by themselves, and no new streams are
        opened.
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
        After the drain timeout, carried connections are aborted, so that they do not
        look complete.
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

    def comeUp(self, isServer: bool, **settings: Any) -> MuxPair:
        """
        Connect a mux, as the service's server or as its client, whose frames have not
        arrived yet.
        """
        other = MuxFactory(PSK, isServer, Recorders(), clock=self.clock, **settings)
        own = self.server if isServer else self.pair.clientFactory
        client, server = (other, own) if isServer else (own, other)
        return MuxPair(clientFactory=client, serverFactory=server, clock=self.clock)

    def test_comesUp(self) -> None:
        """
        A mux that comes up during the stop, accepted or connected before it or after,
        is closed in good order.  The stop waits for it.
        """
        for isServer in (True, False):
            for isLate in (True, False):
                self.setUp()
                self.service.startService()
                if isLate:
                    held = self.openStream()
                    stopped = self.service.stopService()
                    pair = self.comeUp(isServer)
                else:
                    pair = self.comeUp(isServer)
                    stopped = self.service.stopService()
                self.assertNoResult(stopped)
                if isLate:
                    held.stream.loseConnection()
                self.pair.flush()
                pair.flush()
                self.clock.advance(0)
                other = pair.client if isServer else pair.server
                self.assertIsInstance(other.reason, PeerClosedConnection)
                self.successResultOf(stopped)
                self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_strictComesUp(self) -> None:
        """
        The same in the middle of a strict mode handshake.
        """
        self.pair.clientFactory.retire()
        self.pair.flush()
        for isClient in (True, False):
            own, other = (
                MuxFactory(PSK, role, clock=self.clock, strict=True, salts=Salts())
                for role in (isClient, not isClient)
            )
            client, server = (own, other) if isClient else (other, own)
            pair = MuxPair(clientFactory=client, serverFactory=server, clock=self.clock)
            own.retire()
            pair.flush()
            peer = pair.server if isClient else pair.client
            self.assertIsInstance(peer.reason, PeerClosedConnection)

    def test_strangerComesUp(self) -> None:
        """
        A stranger who is connected when the service stops is sent nothing, and does not
        hold up the stop.
        """
        self.service.startService()
        pair = self.comeUp(True, greet=False)
        newcomer = Newcomers(pair.serverFactory).buildProtocol(None)
        transport = StringTransport()
        newcomer.makeConnection(transport)
        stopped = self.service.stopService()
        self.pair.flush()
        self.successResultOf(stopped)
        self.assertTrue(transport.disconnecting or transport.disconnected)
        pair.flush()
        self.assertEqual(pair.server.bytesSent, 0)
        self.assertIsInstance(pair.server.reason, ConnectionClosed)

    def test_startsAgain(self) -> None:
        """
        Muxes stay up when the service is started again.
        """
        self.service.startService()
        self.service.stopService()
        self.pair.flush()
        self.service.startService()
        pair = self.comeUp(True)
        pair.flush()
        self.assertTrue(pair.client.canOpen)
        self.service.stopService()
        pair.flush()

    def test_waiting(self) -> None:
        """
        Streams that wait for a mux fail when the service stops.
        """
        self.pool.remove(self.pair.client, OpenStreamError())
        waiting = self.pool.openStream(Recorders())
        self.service.startService()
        self.service.stopService()
        self.failureResultOf(waiting, OpenStreamError)

    def test_signals(self) -> None:
        """
        Once the service has started, SIGHUP calls the reload function.  A stopped
        service has put the old handler back.
        """
        before = signal.getsignal(signal.SIGHUP)
        calls: list[int] = []

        def reload() -> bool:
            calls.append(1)
            return len(calls) > 1

        self.service = self.make(reload)
        self.service.privilegedStartService()
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(calls, [1])
        assert self.service.reloaded is not None
        self.assertFalse(self.service.reloaded.worked)
        self.service.startService()
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(calls, [1, 1])
        self.assertTrue(self.service.reloaded.worked)
        self.service.stopService()
        self.pair.flush()
        self.assertIs(signal.getsignal(signal.SIGHUP), before)

    def test_terminateTwice(self) -> None:
        """
        A SIGTERM during the drain ends it at once, as the drain timeout does.
        """
        before = signal.getsignal(signal.SIGTERM)
        self.openStream()
        self.patch(Tunnel, "abort", lambda tunnel: self.aborted.append(tunnel.name))
        self.service.startService()
        stopped = self.service.stopService()
        os.kill(os.getpid(), signal.SIGTERM)
        self.assertEqual(self.aborted, [])
        self.pair.advance(0)
        self.assertEqual(self.aborted, [""])
        self.successResultOf(stopped)
        self.assertIs(signal.getsignal(signal.SIGTERM), before)

    def test_terminateAfterTimeout(self) -> None:
        """
        A SIGTERM after the drain timeout changes nothing: the muxes close already.
        """
        self.openStream()
        self.patch(Tunnel, "abort", lambda tunnel: self.aborted.append(tunnel.name))
        self.patch(MuxProtocol, "close", lambda mux: None)
        self.service.startService()
        stopped = self.service.stopService()
        self.clock.advance(20.1)
        os.kill(os.getpid(), signal.SIGTERM)
        self.clock.advance(0)
        self.assertEqual(self.aborted, [""])
        self.assertNoResult(stopped)
        self.pair.client.abort()
        self.pair.flush()
        self.successResultOf(stopped)


class LossTests(SynchronousTestCase):
    """
    The log lines of a mux that ends.
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
        Each side logs a wrong key in one line, with the peer and the reason and without
        any key.
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
        A stranger that connects again and again does not fill the log.
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
        An orderly end of a mux logs no warning.
        """
        pair = self.pair(PSK)
        pair.client.close()
        pair.flush()
        self.assertIn(
            "the mux from 192.0.2.1:49152 ended: The peer closed the mux.",
            self.observer.lines,
        )
        self.assertIsInstance(pair.client, MuxProtocol)
