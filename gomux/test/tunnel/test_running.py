"""
Tests for L{gomux.tunnel._running}, which makes a process fit its plan, and for
L{gomux.tunnel._plan}.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import Mock, call

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gomux import Limits, MuxFactory, PeerRules
from gomux._mux import requests
from gomux._wire.keyring import Keyring
from gomux._wire.request import Request, encodeRequest
from gomux._wire.salts import processSalts
from gomux.error import OpenStreamError, ServiceWithdrawn
from gomux.test.support.dialling import THERE, ClientEndpoint, DiallerTestCase
from gomux.test.support.helpers import Recorders
from gomux.test.support.logs import Lines
from gomux.test.support.process import ProcessClock
from gomux.testing import MuxPair
from gomux.tunnel import Tunnel, TunnelLimits, _service
from gomux.tunnel._accesslog import LoggedFactory
from gomux.tunnel._parts import Switch
from gomux.tunnel._plan import Item, Plan, Refused, Strict
from gomux.tunnel._service import TunnelService

ALICE, BOB = "the pre-shared key of alice", "the pre-shared key of bob"


def keyring(*pairs: tuple[str, str]) -> Keyring:
    return Keyring(pairs or (("alice", ALICE), ("bob", BOB)))


@implementer(IStreamServerEndpoint, IListeningPort)
class Port:
    """
    An endpoint, and its only port.

    @ivar isTaken: whether another process listens there.
    @ivar isOpen: whether it listens.
    @ivar answer: what C{listen} returns, if it is not told at once.
    """

    def __init__(self) -> None:
        self.isTaken = self.isOpen = False
        self.answer: Deferred[IListeningPort] | None = None
        self.factory: Any = None

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        if self.isOpen or self.isTaken:
            return fail(CannotListenError("", 1, OSError("in use")))
        if self.answer is not None:
            return self.answer.addCallback(lambda _: self._opened(factory))
        return succeed(self._opened(factory))

    def _opened(self, factory: IProtocolFactory) -> Port:
        self.isOpen = True
        self.factory = factory
        factory.doStart()
        return self

    def startListening(self) -> None:
        self.isOpen = True

    def stopListening(self) -> Deferred[None]:
        assert self.isOpen
        self.isOpen = False
        self.factory.doStop()
        return succeed(None)

    def getHost(self) -> IAddress:
        return THERE


class Counting(Factory):
    """
    A factory that counts its starts and stops.
    """

    noisy = False

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.calls: list[str] = []

    def startFactory(self) -> None:
        self.calls.append("start")

    def stopFactory(self) -> None:
        self.calls.append("stop")


class RunningTestCase(DiallerTestCase):
    """
    Provides a service that follows plans.
    """

    def setUp(self) -> None:
        super().setUp()
        self.clock: Any = ProcessClock()
        self.endpoint = ClientEndpoint(self.clock)
        self.observer = Lines("gomux.tunnel")
        globalLogPublisher.addObserver(self.observer)
        self.addCleanup(globalLogPublisher.removeObserver, self.observer)
        self.ports: dict[str, Port] = {}
        self.next: Plan | Refused | None = None

    def listen(self, option: str, text: str, string: str = "", **more: Any) -> Item:
        """
        @return: an item that listens.
        """
        string = string or text.rpartition("=")[2]
        port = self.ports.setdefault(string, Port())
        return Item(option, text, port, string=string, **more)

    def plan(self, *items: Item, **more: Any) -> Plan:
        return Plan(more.pop("keys", keyring()), list(items), files=("it",), **more)

    def start(self, *items: Item, **more: Any) -> TunnelService:
        service = TunnelService(self.plan(*items, **more), self.clock, self.read)
        service.startService()
        self.addCleanup(self.stop, service)
        self.service = service
        return service

    def stop(self, service: TunnelService) -> None:
        stopped = service.stopService()
        for factory in service.factories:
            for mux in list(factory.muxes):
                mux.abort()
        self.clock.advance(0)
        self.successResultOf(stopped)

    def read(self, plan: Plan) -> Plan:
        if isinstance(self.next, Refused):
            raise self.next
        assert self.next is not None
        return self.next

    def reload(self, *items: Item, **more: Any) -> bool:
        """
        Have the service follow another plan.

        @return: whether it does.
        """
        self.next = self.plan(*items, **more)
        self.service.reload()
        assert self.service.reloaded is not None
        return self.service.reloaded.worked

    def open(self) -> set[str]:
        return {string for string, port in self.ports.items() if port.isOpen}

    def pair(self, factory: MuxFactory, name: str, psk: str) -> tuple[MuxPair, Any]:
        """
        Connect a client to a server of the service.
        """
        client = MuxFactory(psk, True, Recorders(), clock=self.clock)
        pair = MuxPair(clientFactory=client, serverFactory=factory, clock=self.clock)
        pair.flush()
        self.assertEqual(pair.server.peerName, name)
        return pair, pair.client


class FitTests(RunningTestCase):
    """
    What a reload changes
    """

    def test_sockets(self) -> None:
        """
        While the service runs, the local sockets stay in the reactor.
        """
        sockets = Mock()
        self.patch(_service, "socketsOf", lambda clock: sockets)
        service = self.start()
        self.assertEqual(sockets.mock_calls, [call.begin()])
        self.stop(service)
        self.assertEqual(sockets.mock_calls, [call.begin(), call.end()])
        self.stop(service)
        self.assertEqual(sockets.mock_calls, [call.begin(), call.end()])

    def test_ports(self) -> None:
        """
        Ports come and go, and those that stay are not touched.
        """
        one, two, three = (self.listen("listen", text) for text in ("1", "2", "3"))
        service = self.start(one, two)
        kept = service.listeners[1]
        self.assertTrue(self.reload(two, three))
        self.assertEqual(self.open(), {"2", "3"})
        self.assertIs(service.listeners[0], kept)
        self.assertEqual([part.name for part in service], ["--listen 2", "--listen 3"])
        self.assertIs(service.getServiceNamed("--listen 2"), kept)
        lines = self.observer.lines[-4:]
        self.assertEqual(lines[0], "--listen 3: listening on 192.0.2.2:7000")
        self.assertEqual(
            lines[1:],
            [
                "--listen 1: removed; what is open goes on",
                "--listen 3: added",
                "it were read again",
            ],
        )

    def test_rights(self) -> None:
        """
        The log says what peers may use now, if that has changed.
        """
        target = self.listen("listen", "1")
        keys = keyring(("alice", ALICE), ("bob", BOB))
        before = {"alice": PeerRules(("a",)), "bob": PeerRules(("a",))}
        self.start(target, keys=keys, peers=before)
        after = {**before, "alice": PeerRules(("b", "c"), maxMuxes=2)}
        self.assertTrue(self.reload(target, keys=keys, peers=after))
        self.assertEqual(
            self.observer.lines[-2:],
            ["alice: may use b, c; max-muxes 2", "it were read again"],
        )
        logged = len(self.observer.lines)
        self.assertTrue(self.reload(target, keys=keys, peers=after))
        self.assertEqual(self.observer.lines[logged:], ["it were read again"])

    def test_taken(self) -> None:
        """
        If a new port is taken, the others that are new are closed again, nothing else
        has changed, and the log says why.  The next reload can work.
        """
        one, two, three = (self.listen("forward", text) for text in ("1", "2", "3"))
        service = self.start(one, keys=keyring())
        before = service.plan, list(service), service.tunnels, service.keyring.keys
        self.ports["3"].isTaken = True
        new = keyring(("bob", BOB))
        for items in ((two, three), (three, two), (three, one)):
            self.assertFalse(self.reload(*items, keys=new))
            self.assertEqual(self.open(), {"1"})
            after = service.plan, list(service), service.tunnels, service.keyring.keys
            self.assertEqual(after, before)
            self.assertEqual(
                self.observer.lines[-1],
                "it stay as they are: --forward 3: Couldn't listen on any:1: in use.",
            )
        self.ports["3"].isTaken = False
        self.assertTrue(self.reload(two, three, keys=new))
        self.assertEqual(self.open(), {"2", "3"})
        self.assertEqual(service.keyring.names, {"bob"})

    def test_refused(self) -> None:
        """
        If the files are not valid, nothing changes, and the log has each reason.
        """
        service = self.start(self.listen("listen", "1"))
        self.next = Refused(["one", "two"])
        service.reload()
        self.assertEqual(
            self.observer.lines[-2:],
            ["it stay as they are: one", "it stay as they are: two"],
        )
        self.assertEqual(self.open(), {"1"})

    def test_raises(self) -> None:
        """
        An error in reading files is logged, and the next reload can work.
        """
        service = self.start(self.listen("listen", "1"))
        self.service.reload()
        self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1)
        assert service.reloaded is not None
        self.assertFalse(service.reloaded.worked)
        self.assertTrue(self.reload(self.listen("listen", "2")))

    def test_sameString(self) -> None:
        """
        A port whose string stays goes on listening for another service or peer, or
        for muxes.
        """
        one = self.listen("forward", "tcp:1")
        service = self.start(one)
        port = self.ports["tcp:1"]
        [kept] = service.listeners
        [tunnel] = service.tunnels
        self.assertTrue(self.reload(self.listen("forward", "a=tcp:1", service="a")))
        self.assertEqual(service.listeners, [kept])
        self.assertEqual(kept.name, "--forward a=tcp:1")
        self.assertIs(service.getServiceNamed("--forward a=tcp:1"), kept)
        [other] = service.tunnels
        self.assertIsNot(other, tunnel)
        self.assertIs(kept.switch.wrapped, other)
        self.assertEqual((tunnel.numPorts, other.numPorts), (0, 1))
        self.assertTrue(self.reload(self.listen("listen", "tcp:1")))
        self.assertEqual(service.listeners, [kept])
        self.assertEqual(service.tunnels, [])
        self.assertEqual(other.numPorts, 0)
        self.assertEqual(service.factories[0].numPorts, 1)
        self.assertTrue(port.isOpen)

    def test_swapped(self) -> None:
        """
        Two ports can exchange what they are for.
        """

        def items(*names: str) -> list[Item]:
            return [
                self.listen("forward", f"{name}=tcp:{number}", service=name)
                for number, name in enumerate(names)
            ]

        service = self.start(*items("a", "b"))
        parts = service.listeners
        self.assertTrue(self.reload(*items("b", "a")))
        self.assertEqual(service.listeners, parts)
        self.assertEqual(
            [part.name for part in parts], ["--forward b=tcp:0", "--forward a=tcp:1"]
        )

    def test_otherPorts(self) -> None:
        """
        An item of another option is a port with a factory of its own.
        """
        factory, next = Counting(), Counting()
        service = self.start(self.listen("status", "1", factory=factory))
        self.assertEqual(self.open(), {"1"})
        self.assertIs(service.listeners[0].switch.wrapped, factory)
        self.assertTrue(self.reload(self.listen("status", "1", factory=next)))
        self.assertEqual((factory.calls, next.calls), (["start", "stop"], ["start"]))
        self.assertTrue(self.reload())
        self.assertEqual(next.calls, ["start", "stop"])

    def test_later(self) -> None:
        """
        A reload waits until a port listens.  A SIGHUP meanwhile is another reload
        after that.
        """
        service = self.start()
        port = self.listen("listen", "1")
        answer = self.ports["1"].answer = Deferred()
        self.next = self.plan(port)
        service.reload()
        self.assertIs(service.reloaded, None)
        self.next = self.plan(port, self.listen("listen", "2"))
        service.reload()
        self.assertEqual(service.plan.items, [])
        answer.callback(self.ports["1"])
        self.assertEqual(self.open(), {"1", "2"})
        self.assertEqual(len(service.plan.items), 2)

    def test_stoppedMeanwhile(self) -> None:
        """
        If the service is stopped before a new port listens, the port is closed.
        """
        service = self.start()
        port = self.listen("listen", "1")
        answer = self.ports["1"].answer = Deferred()
        self.next = self.plan(port)
        service.reload()
        self.successResultOf(service.stopService())
        answer.callback(self.ports["1"])
        self.assertEqual(self.open(), set())
        assert service.reloaded is not None
        self.assertFalse(service.reloaded.worked)

    def test_settings(self) -> None:
        """
        Limits and the settings of strict mode hold for what is new, on the factories
        that stay.
        """
        items = (
            self.listen("listen", "1"),
            Item("connect", "alice=x", self.endpoint, peer="alice"),
            self.listen("forward", "a=2", service="a"),
        )
        service = self.start(*items)
        server, client = service.factories
        [tunnel] = service.tunnels
        limits = TunnelLimits(
            maxConnections=7,
            answerTimeout=8,
            maxRetryDelay=9,
            maxWaiting=10,
            drainTimeout=0.5,
        )
        self.assertTrue(
            self.reload(
                *items,
                limits=limits,
                muxLimits=Limits(maxStreams=3, busyPoll=0.25),
                strict=Strict(True, b"x", True, True),
            )
        )
        self.assertEqual(service.factories, [server, client])
        for factory in (server, client):
            self.assertEqual(factory.limits.maxStreams, 3)
            self.assertEqual(
                (factory.strict, factory.context, factory.strictClock),
                (True, b"x", True),
            )
            self.assertEqual(factory._strangers.limits.maxStreams, 3)
            self.assertIn(factory.busyPoll.moment, (0.25, 0.0))
        self.assertNotIn(processSalts, (server.salts, client.salts))
        self.assertIsNot(server.salts, client.salts)
        salts = server.salts
        self.assertIs(tunnel.limits, limits)
        connections: Any = tunnel._shares["connections"]
        self.assertEqual(connections.total, 7)
        assert tunnel.awaited is not None
        self.assertEqual(tunnel.awaited.timeout, 8)
        self.assertEqual(service.connectors[0].dialler.maxRetryDelay, 9)
        self.assertEqual(service.pool.maxWaiting, 10)
        self.assertTrue(self.reload(*items, strict=Strict(True, allowSelf=True)))
        self.assertIs(server.salts, salts)
        self.assertTrue(self.reload(*items))
        self.assertIs(server.salts, processSalts)

    def test_connector(self) -> None:
        """
        A connector that is dropped dials no more.  Its mux is drained: the streams that
        are open go on.
        """
        peer = Recorders()
        self.endpoint.server = MuxFactory(ALICE, False, peer, clock=self.clock)
        there = Item("connect", "alice=x", self.endpoint, peer="alice")
        service = self.start(there)
        for _ in range(5):
            self.clock.advance(0.1)
        [mux] = service.pool.muxes
        recorders = Recorders()
        mux.openStream(recorders)
        for _ in range(5):
            self.clock.advance(0.1)
        self.assertTrue(self.reload())
        self.assertEqual(service.connectors, [])
        self.assertEqual(len(service.factories), 1)
        self.clock.advance(10)
        self.assertEqual(recorders.made[0].events, ["made"])
        self.failureResultOf(mux.openStream(Recorders()), OpenStreamError)
        recorders.made[0].stream.loseConnection()
        for _ in range(5):
            self.clock.advance(0.1)
        self.assertEqual(service.factories[0].muxes, [])
        self.assertEqual(len(self.endpoint.attempts), 1)
        self.assertTrue(self.reload())
        self.assertEqual(service.factories, [])

    def test_server(self) -> None:
        """
        When a port for muxes is dropped, its muxes go on, with the services and the
        rules of the current plan, and their factory is forgotten after them.
        """
        service = self.start(self.listen("listen", "1"))
        [factory] = service.factories
        pair, client = self.pair(factory, "alice", ALICE)
        served = Counting("a")
        item = Item("factory", "a=x", served, service="a")
        self.assertTrue(self.reload(item))
        self.assertEqual(service.factories, [factory])
        self.assertEqual(factory.services, {"a": served})
        self.assertTrue(client.canOpen)
        self.assertTrue(self.reload(item))
        self.assertEqual(service.factories, [factory])
        client.close()
        pair.flush()
        self.assertTrue(self.reload(item))
        self.assertEqual(service.factories, [])

    def test_services(self) -> None:
        """
        The factories of services are started and stopped as they come and go.
        """
        one, two, three = (Counting(name) for name in "abc")
        items = [Item("factory", f"{f.name}=x", f, service=f.name) for f in (one, two)]
        last = Item("factory", "x", three)
        port = self.listen("listen", "1")
        service = self.start(port, *items)
        self.assertTrue(self.reload(port, items[0], last))
        [factory] = service.factories
        self.assertEqual(factory.services, {"a": one})
        self.assertIs(factory.streamFactory, three)
        self.assertEqual(one.calls, ["start"])
        self.assertEqual(two.calls, ["start", "stop"])
        self.assertEqual(three.calls, ["start"])

    def test_withdrawn(self) -> None:
        """
        A peer's streams of a service that it may not use any more end, and only those.
        """
        recorders = Recorders()
        items = (
            self.listen("listen", "1"),
            Item("factory", "a=x", recorders, service="a"),
            Item("factory", "b=x", recorders, service="b"),
            Item("factory", "x", recorders),
        )
        service = self.start(*items)
        [factory] = service.factories
        pairs = [
            self.pair(factory, "alice", ALICE)[0],
            self.pair(factory, "bob", BOB)[0],
        ]
        opened = []
        for pair in pairs:
            for name in ("a", "b", None):
                opened.append((pair, name, Recorders()))
                pair.client.openStream(opened[-1][2], name)
        for pair in pairs * 2:
            pair.flush()
        # This stream is the service's own, so no rule is about it.
        own = Recorders()
        pairs[0].server.openStream(own)
        rules = {"alice": PeerRules(("b",))}
        self.assertTrue(self.reload(*items, peers=rules))
        for pair in pairs * 2:
            pair.flush()
        ended = [
            (pairs.index(pair), name)
            for pair, name, made in opened
            if made.made[0].reason is not None
        ]
        self.assertEqual(ended, [(0, "a"), (0, None)])
        reasons = [r.reason for r in recorders.made if r.reason is not None]
        self.assertEqual([type(r) for r in reasons], [ServiceWithdrawn] * 2)
        self.assertTrue(pairs[0].client.canOpen)
        self.assertIs(own.made[0].reason, None)

    def test_withdrawnLater(self) -> None:
        """
        What a stream has that has ended, and whose service was withdrawn, is not
        delivered.
        """
        recorders = Recorders()
        items = self.listen("listen", "1"), Item("factory", "x", recorders)
        service = self.start(*items)
        pair, client = self.pair(service.factories[0], "alice", ALICE)
        mine = Recorders()
        client.openStream(mine)
        pair.flush()
        [theirs] = recorders.made
        theirs.stream.pauseProducing()
        mine.made[0].stream.write(b"hello")
        mine.made[0].stream.loseConnection()
        pair.flush()
        self.assertEqual(theirs.reason, None)
        rules = {"alice": PeerRules(())}
        self.assertTrue(self.reload(*items, peers=rules))
        pair.flush()
        self.assertIsInstance(theirs.reason, ServiceWithdrawn)
        self.assertEqual(theirs.received, b"")

    def test_incomplete(self) -> None:
        """
        A stream whose request is not complete is judged when it is.
        """
        recorders = Recorders()
        items = (
            self.listen("listen", "1"),
            Item("factory", "a=x", recorders, service="a"),
        )
        service = self.start(*items)
        pair, client = self.pair(service.factories[0], "alice", ALICE)
        # Send the request in two pieces.
        whole = encodeRequest(Request("a"))
        self.patch(requests, "encodeRequest", lambda request: whole[:5])
        client.openStream(Recorders(), "a")
        pair.flush()
        [stream] = client._streams.byID.values()
        rules = {"alice": PeerRules(("a",))}
        self.assertTrue(self.reload(*items, peers=rules))
        stream.write(whole[5:])
        pair.flush()
        self.assertEqual(len(recorders.made), 1)
        self.assertIs(recorders.made[0].reason, None)

    def test_keys(self) -> None:
        """
        New keys hold together with all else.  With C{endRevoked}, the muxes of keys
        that are gone end, also those of a port that is gone.
        """
        port = self.listen("listen", "1")
        service = self.start(port)
        [factory] = service.factories
        alice, _ = self.pair(factory, "alice", ALICE)
        bob, _ = self.pair(factory, "bob", BOB)
        held = service.keyring
        self.assertTrue(self.reload(keys=keyring(("bob", BOB)), endRevoked=True))
        for pair in (alice, bob):
            pair.flush()
        self.assertIs(service.keyring, held)
        self.assertIs(service.plan.keyring, held)
        self.assertFalse(alice.client.canOpen)
        self.assertTrue(bob.client.canOpen)

    def test_accessLog(self) -> None:
        """
        An access log is opened before anything changes.  It comes, goes on in another
        file, and goes, also for tunnels that were dropped and still have connections.
        """
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        one, two = str(directory / "one"), str(directory / "two")
        items = (
            self.listen("listen", "1"),
            self.listen("forward", "2"),
            Item("factory", "x", Recorders()),
        )
        service = self.start(*items)
        [tunnel] = service.tunnels
        self.assertTrue(self.reload(*items, accessLog=one))
        assert tunnel.accessLog is not None
        log = tunnel.accessLog
        self.assertIsInstance(service.factories[0].streamFactory, LoggedFactory)
        for path in (str(directory / "no" / "file"), str(directory)):
            self.assertFalse(self.reload(items[0], accessLog=path))
            self.assertIn(f"--access-log {path}: ", self.observer.lines[-1])
            self.assertEqual(self.open(), {"1", "2"})
            self.assertEqual(log.path, one)
        tunnel.bridges.add(None)  # type: ignore[arg-type]
        self.assertTrue(self.reload(items[0], accessLog=two))
        self.assertIs(tunnel.accessLog, log)
        log.add(None, None, None, None, 0, 0, 0.0, "ok", None)
        self.clock.advance(0)
        self.assertEqual(Path(one).read_text(), "")
        self.assertIn('"end": "ok"', Path(two).read_text())
        self.assertEqual(len(list(service)), 2)
        self.assertTrue(self.reload(items[0], items[2]))
        self.assertIs(tunnel.accessLog, None)
        self.assertIsInstance(service.factories[0].streamFactory, Recorders)
        self.assertEqual(len(list(service)), 1)
        tunnel.bridges.clear()

    def test_newPeer(self) -> None:
        """
        A connector for a peer whose key came with the same reload uses that key.
        """
        service = self.start(self.listen("listen", "1"))
        carol = Item("connect", "carol=x", self.endpoint, peer="carol")
        self.assertTrue(self.reload(carol, keys=keyring(("carol", ALICE))))
        self.assertEqual(service.factories[0].makeGate().name, "carol")

    def test_switchLogPrefix(self) -> None:
        """
        A L{Switch} has the log prefix of its factory.
        """
        self.assertEqual(Switch(Counting()).logPrefix(), "Counting")


class SequenceTests(RunningTestCase):
    """
    Random sequences of plans
    """

    def items(self, random: Random) -> list[Item]:
        """
        @return: the items of a random plan.
        """
        found = []
        strings = [f"tcp:{number}" for number in range(6)]
        random.shuffle(strings)
        for string in strings[: random.randrange(7)]:
            option = random.choice(("listen", "forward", "forward", "status"))
            service = random.choice((None, "a", "b")) if option == "forward" else None
            text = string if service is None else f"{service}={string}"
            if option == "status":
                found.append(self.listen(option, text, factory=self.status))
            else:
                found.append(self.listen(option, text, service=service))
        for peer in random.sample(("alice", "bob"), random.randrange(3)):
            found.append(Item("connect", f"{peer}=x", self.endpoint, peer=peer))
        for service in random.sample((None, "a", "b", "c"), random.randrange(5)):
            option = random.choice(("target", "factory"))
            what = self.endpoint if option == "target" else self.factory
            found.append(Item(option, f"{service}=y", what, service=service))
        return found

    def assertFits(self, plan: Plan) -> None:
        """
        Check that what runs is what a plan says.
        """
        service = self.service
        self.assertEqual(self.open(), {item.string for item in plan.ports})
        self.assertEqual(
            sorted(str(part.name) for part in service),
            sorted(item.name for item in (*plan.ports, *plan.of("connect"))),
        )
        self.assertTrue(all(part.running for part in service))
        self.assertEqual(
            {str(part.name) for part in service}, service.namedServices.keys()
        )
        services = {
            item.service: self.factory
            if item.option == "factory"
            else service.parts.tunnels[item.key]
            for item in plan.of("target", "factory")
        }
        streams = services.pop(None, None)
        own = service.parts.factories
        self.assertEqual(len(own), len(plan.of("listen", "connect")))
        for factory in service.factories:
            self.assertIs(factory.streamFactory, streams)
            self.assertEqual(factory.services, services)
            self.assertIs(factory.limits, plan.muxLimits)
        for item, part in zip(plan.ports, service.listeners, strict=True):
            wrapped: Any = part.switch.wrapped
            self.assertEqual(part.name, item.name)
            if item.option == "listen":
                self.assertIn(wrapped.wrappedFactory, own)
            elif item.option == "forward":
                self.assertIsInstance(wrapped, Tunnel)
                self.assertEqual(wrapped.name, item.name)
                self.assertEqual(wrapped.awaited is None, item.service is None)
            else:
                self.assertIs(wrapped, self.status)
            self.assertIs(self.ports[item.string].factory, part.switch)
            self.assertGreater(wrapped.numPorts, 0)
        tunnels = plan.of("target", "forward")
        self.assertEqual({t.name for t in service.tunnels}, {i.name for i in tunnels})

    def test_sequences(self) -> None:
        """
        After each plan, what runs is what it says.  After a plan with a port that is
        taken, what runs is what ran before.
        """
        for seed in range(60):
            random = Random(seed)
            self.ports.clear()
            self.factory, self.status = Counting("f"), Counting("s")
            service = self.start(*self.items(random))
            self.assertFits(service.plan)
            failed = 0
            for _ in range(12):
                before = service.plan
                for port in self.ports.values():
                    port.isTaken = not port.isOpen and random.random() < 0.1
                items = self.items(random)
                taken = {s for s, port in self.ports.items() if port.isTaken}
                isGood = not any(item.string in taken for item in items)
                worked = self.reload(*items, muxLimits=Limits())
                self.assertEqual(worked, isGood)
                assert isinstance(self.next, Plan)
                failed += not worked
                self.assertFits(self.next if worked else before)
            self.stop(service)
            self.assertEqual(self.open(), set())
            self.assertEqual(self.status.numPorts, 0)
            self.assertEqual(self.factory.numPorts, 0)

    def stop(self, service: TunnelService) -> None:
        if service.running:
            super().stop(service)


class PlanTests(SynchronousTestCase):
    """
    L{Plan} and L{Item}
    """

    def test_name(self) -> None:
        """
        The name of an item in log lines has no pre-shared key.
        """
        item = Item("target", "gomux:tcp:h:1:psk=secret", None)
        self.assertEqual(item.name, "--target gomux:tcp:h:1:psk=...")

    def test_known(self) -> None:
        """
        The known peers are those with a key, and those that the options name.
        """
        plan = Plan(
            keyring(),
            [Item("forward", "@two=x", None, peer="two")],
            {"one": PeerRules(("a",)), "three": PeerRules(maxMuxes=1)},
            strict=Strict(("four",)),
        )
        self.assertEqual(plan.known, {"alice", "bob", "one", "two", "three", "four"})
