"""
Twisted's own tests of transports, run over gomux endpoints.

The same assertions that Twisted makes about TCP run here about streams, also about
streams for a service, with every reactor of this platform.  L{NOT_APPLICABLE} lists the
exceptions.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from itertools import count
from typing import Any, cast

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import ClientFactory
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.test import connectionmixins, test_tcp
from twisted.internet.test.connectionmixins import EndpointCreator, findFreePort
from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.python.failure import Failure
from twisted.test import test_tcp as old_tcp
from twisted.trial.unittest import SynchronousTestCase, TestCase

from gomux import MuxClientEndpoint, MuxServerEndpoint
from gomux._mux import sender as _sender
from gomux.test.support.certificates import CERTIFICATE, NAME
from gomux.test.support.servertls import wrapServerTLS

PSK = b"a key for the conformance tests"

#: The service of the tests of streams for a service.
SERVICE = "conformance"

#: How long one test may take, in seconds.
TIMEOUT = 30

#: Twisted's tests that do not apply to streams, and why.  Every other test of the
#: classes that this module names is run.
NOT_APPLICABLE = {
    "StreamClientTestsMixin.test_interface": (
        "is about what reactor.connectTCP returns; an endpoint returns a Deferred"
    ),
    "TCPConnectionTestsBuilder.test_resumeProducing": (
        "asks the reactor whether it reads from the transport; a stream is no"
        " descriptor, and its carrier is always read"
    ),
    "TCPConnectionTestsBuilder.test_resumeProducingWhileDisconnecting": (
        "as test_resumeProducing"
    ),
    "TCPConnectionTestsBuilder.test_resumeProducingWhileDisconnected": (
        "as test_resumeProducing"
    ),
    "TCPConnectionTestsBuilder.test_connectionLostAfterPausedTransport": (
        "expects a paused transport not to report the peer's end; a stream's end waits"
        " for unread input, but not for a pause alone, so that a tunnel can give up a"
        " target that it has not reached yet"
    ),
    "WriteDataTests.test_writeAfterShutdownWithoutReading": (
        "as test_connectionLostAfterPausedTransport; the end is not a ConnectionLost,"
        " because it is seen before the write fails"
    ),
    "HalfCloseTests.testCloseWriteCloser": (
        "waits for _tempDataBuffer and _writeDisconnected, attributes of sockets"
    ),
    "PauseProducingTests.test_pauseProducingInConnectionMade": (
        "as test_resumeProducing"
    ),
    "StreamTransportTestsMixin.test_closePeerOnEMFILE": (
        "expects the client to connect first: a stream whose carrier is closed in the"
        " same turn fails to connect; interop has a test without free descriptors"
    ),
    "ListeningTests.test_serverRepr": "expects the text of a TCP transport's repr",
    "ListeningTests.test_directConnectionLostCall": (
        "calls a port's connectionLost, which only the reactor should call"
    ),
    "ListeningTests.test_exceptInConnectionLostCall": (
        "as test_directConnectionLostCall"
    ),
    "LoopbackTests.test_closePortInProtocolFactory": (
        "reads port.disconnected, an attribute of sockets"
    ),
    "LoopbackTests.test_tcpNoDelay": (
        "expects the default of a socket; a stream never delays"
    ),
    "LoopbackTests.test_tcpKeepAlive": (
        "turns keepalive off again; other streams share the carrier and may need it"
    ),
    "LoopbackTests.testFailing": (
        "expects ConnectionRefusedError; a mux endpoint tries again until its timeout,"
        " and then fails with an OpenStreamError that includes the reason"
    ),
    "LoopbackTests.test_connectionRefusedErrorNumber": "as testFailing",
    "LoopbackTests.test_connectByServiceFail": "is about names of TCP ports",
    "LoopbackTests.test_connectByService": "is about names of TCP ports",
}


def applicable(tests: type) -> type:
    """
    @return: a class like C{tests} without the tests in L{NOT_APPLICABLE}.
    """
    left = {
        name: value
        for name, value in vars(tests).items()
        if f"{tests.__name__}.{name}" not in NOT_APPLICABLE
        and name not in ("__dict__", "__weakref__")
    }
    return type(tests.__name__, tests.__bases__, left)


# The endpoints


class TCPCarrier(EndpointCreator):
    """
    Streams over TCP.

    @ivar service: the service that the streams are for.
    """

    service: str | None = None

    def server(self, reactor: Any) -> IStreamServerEndpoint:
        carrier = self.listener(reactor)
        return MuxServerEndpoint(reactor, carrier, PSK, service=self.service)

    def client(self, reactor: Any, serverAddress: Any) -> IStreamClientEndpoint:
        carrier = self.dialler(reactor, serverAddress)
        return MuxClientEndpoint(reactor, carrier, PSK, service=self.service)

    def listener(self, reactor: Any) -> IStreamServerEndpoint:
        return TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")

    def dialler(self, reactor: Any, address: Any) -> IStreamClientEndpoint:
        return TCP4ClientEndpoint(reactor, "127.0.0.1", address.port)


class NamedStreams(TCPCarrier):
    """
    Streams for a service, over TCP.
    """

    service = SERVICE


class UNIXCarrier(TCPCarrier):
    """
    Streams over a UNIX socket.
    """

    number = count()

    def listener(self, reactor: Any) -> IStreamServerEndpoint:
        # Relative to trial's directory: absolute ones are too long for a socket.
        return UNIXServerEndpoint(reactor, f"conformance{next(self.number)}")

    def dialler(self, reactor: Any, address: Any) -> IStreamClientEndpoint:
        return UNIXClientEndpoint(reactor, address.name)


class TLSCarrier(TCPCarrier):
    """
    Streams over TLS.
    """

    def listener(self, reactor: Any) -> IStreamServerEndpoint:
        return wrapServerTLS(CERTIFICATE.options(), super().listener(reactor))

    def dialler(self, reactor: Any, address: Any) -> IStreamClientEndpoint:
        options = optionsForClientTLS(NAME, CERTIFICATE)
        return wrapClientTLS(options, super().dialler(reactor, address))


class TLSInside(TCPCarrier):
    """
    TLS over streams.
    """

    def server(self, reactor: Any) -> IStreamServerEndpoint:
        return wrapServerTLS(CERTIFICATE.options(), super().server(reactor))

    def client(self, reactor: Any, serverAddress: Any) -> IStreamClientEndpoint:
        options = optionsForClientTLS(NAME, CERTIFICATE)
        return wrapClientTLS(options, super().client(reactor, serverAddress))


# Reactors that connect and listen with streams


class Connector:
    """
    The result of L{StreamReactor.connectTCP}: it calls the client factory as a TCP
    connector does.
    """

    protocol: Any = None

    def __init__(self, factory: ClientFactory) -> None:
        self.factory = factory

    def doStart(self) -> None:
        self.factory.doStart()

    def doStop(self) -> None:
        self.factory.doStop()

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        self.protocol = protocol = cast(Any, self.factory.buildProtocol(addr))
        connectionLost = protocol.connectionLost

        def lost(reason: Failure) -> None:
            connectionLost(reason)
            self.factory.clientConnectionLost(self, reason)  # type: ignore[arg-type]

        protocol.connectionLost = lost
        return cast(IProtocol, protocol)

    def failed(self, failure: Failure) -> None:
        self.factory.clientConnectionFailed(self, failure)  # type: ignore[arg-type]

    def disconnect(self) -> None:
        if self.protocol is not None:
            self.protocol.transport.loseConnection()


class StreamReactor:
    """
    A reactor whose TCP connections are streams.
    """

    def __init__(self, reactor: Any, service: str | None = None) -> None:
        self.reactor = reactor
        self.service = service
        self.closers: list[Callable[[], Deferred[None]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reactor, name)

    def listenTCP(
        self,
        port: int,
        factory: IProtocolFactory,
        backlog: int = 50,
        interface: str = "",
    ) -> IListeningPort:
        carrier = TCP4ServerEndpoint(self.reactor, port, backlog, interface)
        endpoint = MuxServerEndpoint(self.reactor, carrier, PSK, service=self.service)
        listening = endpoint.listen(factory)
        ports: list[Any] = []
        listening.addCallback(ports.append)
        self.closers.append(ports[0].close)
        # Some of the tests wait for this attribute.
        ports[0].connected = True
        return ports[0]  # type: ignore[no-any-return]

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float = 30,
        bindAddress: None = None,
    ) -> Connector:
        carrier = TCP4ClientEndpoint(self.reactor, host, port)
        endpoint = MuxClientEndpoint(
            self.reactor,
            carrier,
            PSK,
            service=self.service,
            timeout=min(timeout, 0.5),
            idleTimeout=0,
        )
        connector = Connector(factory)
        endpoint.connect(connector).addErrback(connector.failed)  # type: ignore[arg-type]
        self.closers.append(endpoint.close)
        return connector

    def close(self) -> Deferred[Any]:
        return gatherResults([close() for close in self.closers])


class WithBuiltReactor(ReactorBuilder):
    """
    Connects and listens for those of Twisted's tests that build a reactor of their own.
    """

    timeout = TIMEOUT
    service: str | None = None
    _port: Any = None

    def listen(self, reactor: Any, factory: Any) -> Any:
        adapted = StreamReactor(reactor, self.service)
        self._port = adapted.listenTCP(0, factory, interface="127.0.0.1")
        return self._port

    def connect(self, reactor: Any, factory: Any) -> Any:
        if self._port is not None:
            port = self._port.getHost().port
        else:
            port = findFreePort("127.0.0.1", socket.AF_INET)[1]
        adapted = StreamReactor(reactor, self.service)
        return adapted.connectTCP("127.0.0.1", port, factory)

    def getListeningPort(self, reactor: Any, factory: Any) -> Any:
        return self.listen(reactor, factory)

    def connectToListener(self, reactor: Any, address: Any, factory: Any) -> Any:
        return self.connect(reactor, factory)

    def getExpectedStartListeningLogMessage(self, port: Any, factory: str) -> str:
        return f"{factory} (gomux) starting on {port.getHost().port}"

    def getExpectedConnectionLostLogMsg(self, port: Any) -> str:
        return f"(TCP Port {port.getHost().port} Closed)"


# Tests that run with every reactor


class Abort(WithBuiltReactor):
    """
    Twisted's tests of C{abortConnection}.  They expect that the peer of an aborted
    connection sees L{ConnectionLost}; here its end may also be a L{ConnectionDone}.
    """

    def setUp(self) -> None:
        super().setUp()
        withoutGoodbye(self)
        doAbort = test_tcp.StreamingProducerClient.doAbort

        def abortConnected(client: Any) -> None:
            # Wait for the server's end, which the client may have overtaken.
            if client.otherProtocol.transport is None:
                client.reactor.callLater(0.01, client.doAbort)
            else:
                doAbort(client)

        case: Any = self
        case.patch(test_tcp.StreamingProducerClient, "doAbort", abortConnected)

    def runAbortTest(
        self, client: Any, server: Any, clientConnectionLostReason: Any = None
    ) -> None:
        if clientConnectionLostReason is ConnectionLost:
            clientConnectionLostReason = ConnectionDone
        parent: Any = super()
        parent.runAbortTest(client, server, clientConnectionLostReason)


def withoutGoodbye(case: Any) -> None:
    """
    Skip a write that Twisted needs on macOS only.  It uses the server's transport,
    which may not be connected yet when the client has lost its connection.
    """
    # An old Twisted's tests have no such write.
    if hasattr(connectionmixins.ConnectableProtocol, "writeToDetectPeerDisconnection"):
        case.patch(
            connectionmixins.ConnectableProtocol,
            "writeToDetectPeerDisconnection",
            lambda protocol: None,
        )


class WriteSequence(WithBuiltReactor):
    def setWriteBufferSize(self: Any, transport: Any, value: int) -> None:
        self.patch(_sender, "HIGH_WATER", value)
        transport.sender._mark = value

    def getConnectedClientAndServer(
        self: Any, reactor: Any, interface: str, addressFamily: int
    ) -> Any:
        return test_tcp.TCPTransportTestsBuilder.getConnectedClientAndServer(
            self, StreamReactor(reactor, self.service), interface, addressFamily
        )


class OwnConnections(ReactorBuilder):
    """
    For tests that connect and listen by themselves.
    """

    timeout = TIMEOUT

    def setUp(self) -> None:
        super().setUp()
        case: Any = self
        case.patch(test_tcp, "TCPCreator", WrappedCarrier)
        case.patch(test_tcp, "TCP4ClientEndpoint", wrappedClient)
        withoutGoodbye(case)

    service: str | None = None

    def buildReactor(self) -> Any:
        WrappedCarrier.service = self.service
        return StreamReactor(super().buildReactor(), self.service)


class WrappedCarrier(TCPCarrier):
    """
    Streams over TCP, for a L{StreamReactor}.
    """

    def server(self, reactor: Any) -> IStreamServerEndpoint:
        return super().server(reactor.reactor)

    def client(self, reactor: Any, serverAddress: Any) -> IStreamClientEndpoint:
        return super().client(reactor.reactor, serverAddress)


def wrappedClient(reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
    carrier = TCP4ClientEndpoint(reactor.reactor, host, port)
    return MuxClientEndpoint(reactor.reactor, carrier, PSK, service=reactor.service)


def named(base: type) -> type:
    """
    @return: a class like C{base} whose streams are for a service.
    """
    return type(f"Named{base.__name__}", (base,), {"service": SERVICE})


def withEveryReactor(
    name: str, base: type, tests: type, endpoints: EndpointCreator | None = None
) -> None:
    """
    Add a group of tests to this module, once for each reactor.
    """
    body: dict[str, object] = {"__module__": __name__}
    if endpoints is not None:
        body["endpoints"] = endpoints
    builder: Any = type(name, (base, applicable(tests)), body)
    for caseName, case in builder.makeTestCaseClasses().items():
        # Do not list a reactor as skipped if its library, such as GObject, is missing.
        if not hasattr(case, "skip"):
            globals()[caseName] = case


for _name, _endpoints in (
    ("OverTCP", TCPCarrier()),
    ("OverUNIX", UNIXCarrier()),
    ("OverTLS", TLSCarrier()),
    ("OfTLSInside", TLSInside()),
    ("OfService", NamedStreams()),
):
    withEveryReactor(
        f"Connection{_name}",
        WithBuiltReactor,
        connectionmixins.ConnectionTestsMixin,
        _endpoints,
    )
    withEveryReactor(f"Abort{_name}", Abort, test_tcp.AbortConnectionMixin, _endpoints)

for _name, _base, _mixin in (
    ("Client", WithBuiltReactor, connectionmixins.StreamClientTestsMixin),
    ("Port", WithBuiltReactor, test_tcp.StreamTransportTestsMixin),
    ("WriteSequence", WriteSequence, test_tcp.WriteSequenceTestsMixin),
    ("Connection", OwnConnections, test_tcp.TCPConnectionTestsBuilder),
):
    withEveryReactor(_name, _base, _mixin)
    withEveryReactor(f"{_name}OfService", named(_base), _mixin)


# Tests that run with the installed reactor


class WithGlobalReactor(TestCase):
    """
    Twisted's older tests, which use the global reactor.
    """

    timeout = TIMEOUT
    service: str | None = None

    def setUp(self) -> Any:
        self.adapted = StreamReactor(globalReactor, self.service)
        self.patch(old_tcp, "reactor", self.adapted)
        return super().setUp()

    def tearDown(self) -> Any:
        # Not a cleanup, because cleanups run before the parent's tearDown.
        torn = maybeDeferred(super().tearDown)
        return torn.addCallback(lambda _: self.adapted.close())


for _tests in (
    old_tcp.CallBackOrderTests,
    old_tcp.FactoryTests,
    old_tcp.HalfCloseBuggyApplicationTests,
    old_tcp.HalfCloseNoNotificationAndShutdownExceptionTests,
    old_tcp.HalfCloseTests,
    old_tcp.LargeBufferTests,
    old_tcp.ListeningTests,
    old_tcp.LoopbackTests,
    old_tcp.WriteDataTests,
):
    for _name, _service in (
        (_tests.__name__, None),
        (f"Named{_tests.__name__}", SERVICE),
    ):
        globals()[_name] = type(
            _name,
            (WithGlobalReactor, applicable(_tests)),
            {"__module__": __name__, "service": _service},
        )
del _tests


class NotApplicableTests(SynchronousTestCase):
    """
    L{NOT_APPLICABLE}
    """

    def test_exist(self) -> None:
        """
        Each test listed in L{NOT_APPLICABLE} exists in Twisted.
        """
        modules = (connectionmixins, test_tcp, old_tcp)
        for name in NOT_APPLICABLE:
            case, method = name.split(".")
            [found] = {getattr(m, case) for m in modules if hasattr(m, case)}
            self.assertTrue(hasattr(found, method), name)
