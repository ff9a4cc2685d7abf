"""
A service of C{twistd gomux} in memory, with an operator's port.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from gomux import MuxFactory
from gomux._wire.keyring import Keyring
from gomux._wire.salts import Salts
from gomux.limits import TunnelLimits
from gomux.status._facts import Facts
from gomux.status._site import StatusFactory, StatusSite
from gomux.test.support.dialling import ClientEndpoint
from gomux.test.support.helpers import Recorders
from gomux.test.support.tunnelrig import Target
from gomux.testing import MuxPair
from gomux.tunnel._parts import Connector, ServiceDialler
from gomux.tunnel._plan import Item, Plan
from gomux.tunnel._service import TunnelService

KEYS = {"alice": "the pre-shared key of alice", "bob": "the pre-shared key of bob"}

BROWSER = IPv4Address("TCP", "127.0.0.1", 50000)
PORT = IPv4Address("TCP", "127.0.0.1", 9100)


class StatusRig:
    """
    A service that does not run, with a port, a target for the service C{web}, a
    forwarding endpoint for the service C{files} of the peers, and an operator's port.

    @ivar clock: its clock.
    @ivar service: the service.
    @ivar server: the factory of its port.
    @ivar listener: its port.
    @ivar target: the target.
    @ivar here: the tunnel of the forwarding endpoint.
    @ivar site: answers on the operator's port.
    @ivar port: the factory of that.
    @ivar facts: reads the facts.
    """

    def __init__(self, case: SynchronousTestCase, hosts: tuple[str, ...] = ()) -> None:
        self.clock = clock = Clock()
        self.target = Target(clock)
        plan = Plan(
            Keyring(KEYS),
            [
                Item("listen", "x", None),
                Item("target", "web=x", self.target, "web"),
                Item("forward", "files=x", None, "files"),
            ],
            limits=TunnelLimits(maxWaiting=10),
        )
        self.service = TunnelService(plan, clock, lambda plan: plan)
        [self.server] = self.service.factories
        _, self.here = self.service.tunnels
        for listener in self.service.listeners:
            listener.port = cast(IListeningPort, object())
        self.listener = self.service.listeners[0]
        self.site = StatusSite(clock)
        self.site.show(self.service)
        self.port = StatusFactory(self.site, hosts)
        self.port.doStart()
        case.addCleanup(self.port.doStop)
        self.facts = Facts(self.service, clock)

    def connect(self, name: str = "alice", strict: bool = False) -> MuxPair:
        """
        Connect the mux of a peer.
        """
        settings: dict[str, Any] = {
            "clock": self.clock,
            "strict": strict,
            "salts": Salts(),
        }
        client = MuxFactory(KEYS[name], True, Recorders(), **settings)
        pair = MuxPair(
            clientFactory=client, serverFactory=self.server, clock=self.clock
        )
        pair.flush()
        return pair

    def connector(self) -> tuple[Connector, ClientEndpoint]:
        """
        Add a connect with bob's key.
        """
        endpoint = ClientEndpoint(self.clock)
        keyring, pool = self.service.keyring, self.service.pool
        dialler = ServiceDialler(
            *(keyring, endpoint, 2.0), clock=self.clock, pool=pool, peer="bob"
        )
        connector = Connector("--connect bob=x", dialler)
        self.service.parts.connectors["connect", "bob=x"] = connector
        return connector, endpoint

    def send(self, request: bytes, host: Any = PORT) -> StringTransport:
        """
        Send a request to the operator's port.

        @param host: the address of the port.
        @return: the transport, with the answer.
        """
        protocol: Any = self.port.buildProtocol(BROWSER)
        transport: Any = StringTransport(hostAddress=host, peerAddress=BROWSER)
        transport.abortConnection = transport.loseConnection
        protocol.makeConnection(transport)
        transport.protocol = protocol
        if request:
            protocol.dataReceived(request)
        return cast(StringTransport, transport)

    def get(self, path: str, host: str = "localhost:9100") -> tuple[str, bytes]:
        """
        @return: the head and the body of an answer.
        """
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"
        transport: Any = self.send(request.encode())
        transport.protocol.connectionLost()
        head, _, body = transport.value().partition(b"\r\n\r\n")
        return head.decode(), body
