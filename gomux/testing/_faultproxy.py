# -*- test-case-name: gomux.test.testing.test_faultproxy -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
A proxy that injects network faults, for tests over real sockets.

L{FaultProxy} stands between a client's mux and a server's.  It knows where each frame
begins and ends, because headers are sent in the clear.  The test sets rules for each
direction: which frames, and what to do to them.  The proxy forwards a frame once it
has received all of it::

    proxy = FaultProxy(reactor, "127.0.0.1", serverPort)
    proxy.toServer.when(3, drop())
    proxy.toClient.when(lambda frame: frame.flag == Flag.DATA, flip(300))
    proxy.start()
    ...                     # connect the client to proxy.port
    await proxy.stop()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IPullProducer,
    IPushProducer,
)
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from gomux.testing._faults import Direction, Way


class FaultProxy:
    """
    Listens on the loopback interface, and forwards each connection to the server,
    frame by frame.

    @ivar toServer: the rules for frames from the clients.
    @ivar toClient: the rules for frames from the server.
    @ivar port: the port's number, once the proxy is listening.
    @ivar accepted: how many connections the proxy has accepted.
    @ivar _reactor: the reactor.
    @ivar _server: the server's host and port.
    @ivar _legs: the connections that are up, as the keys of a dictionary.
    @ivar _listener: the listening port; C{None} while the proxy does not listen.
    """

    port: int

    def __init__(self, reactor: Any, host: str, port: int) -> None:
        """
        @param reactor: the reactor.
        @param host: the server's host.
        @param port: the server's port.
        """
        self.toServer = Direction()
        self.toClient = Direction()
        self.accepted = 0
        self._reactor = reactor
        self._server = (host, port)
        self._legs: dict[_ProxyLeg, None] = {}
        self._listener: Any = None

    def start(self, port: int = 0) -> None:
        """
        Listen.

        @param port: the port's number, or 0 for any free port.
        """
        factory = Factory.forProtocol(lambda: _ProxyLeg(self))
        factory.noisy = False
        self._listener = self._reactor.listenTCP(port, factory, interface="127.0.0.1")
        self.port = self._listener.getHost().port

    def stop(self) -> Deferred[None]:
        """
        Stop listening, and reset all connections.

        @return: fires once the port and all connections are closed.
        """
        waiting: list[Deferred[Any]] = [leg.gone for leg in self._legs]
        self.reset()
        listener, self._listener = self._listener, None
        if listener is not None:
            waiting.append(maybeDeferred(listener.stopListening))
        return gatherResults(waiting).addCallback(lambda _: None)

    def reset(self) -> None:
        """
        Reset all connections.
        """
        for leg in list(self._legs):
            leg.abort()

    def _accepted(self, near: _ProxyLeg) -> None:
        """
        Connect to the server, and join the new connection with that connection.
        """
        far = _ProxyLeg(self, near)
        near.other = far
        near.way = Way(self.toServer, near, far, self.accepted)
        far.way = Way(self.toClient, far, near, self.accepted)
        self.accepted += 1
        host, port = self._server
        near.connector = self._reactor.connectTCP(host, port, _Once(far))


class _Once(ClientFactory):
    """
    Makes a single leg, to the server.

    @ivar _leg: the leg.
    """

    noisy = False

    def __init__(self, leg: _ProxyLeg) -> None:
        self._leg = leg

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._leg

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self._leg.other.abort()


@implementer(IPushProducer)
class _ProxyLeg(Protocol):
    """
    One of the two connections that make up a proxied connection.  It is also the
    producer of the other leg's transport.

    @ivar other: the other leg.
    @ivar way: carries what this leg receives to the other leg.
    @ivar gone: fires when this connection is lost.
    @ivar connector: connects the other leg.
    @ivar _blocked: whether the other leg's transport has paused this producer.
    @ivar _held: whether L{hold} was called, and L{release} not yet.
    @ivar _proxy: the proxy.
    @ivar _calls: the delayed calls of L{later}.
    """

    transport: Any = None
    connector: Any = None
    other: _ProxyLeg
    way: Way
    _blocked = False
    _held = False

    def __init__(self, proxy: FaultProxy, near: _ProxyLeg | None = None) -> None:
        self._proxy = proxy
        self._calls: set[IDelayedCall] = set()
        self.gone: Deferred[None] = Deferred()
        if near is not None:
            self.other = near

    # IProtocol

    def connectionMade(self) -> None:
        self._proxy._legs[self] = None
        self.transport.setTcpNoDelay(True)
        if not hasattr(self, "other"):
            self.hold()
            self._proxy._accepted(self)
        else:
            self.transport.registerProducer(self.other, True)
            self.other.transport.registerProducer(self, True)
            self.other.release()

    def dataReceived(self, data: bytes) -> None:
        self.way.received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        del self._proxy._legs[self]
        for call in self._calls:
            call.cancel()
        if self.other.transport is not None:
            self.way.ended(reason)
        else:
            self.connector.disconnect()
        self.gone.callback(None)

    # IPushProducer, for the other leg's transport

    def pauseProducing(self) -> None:
        self._blocked = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._blocked = False
        self.release(self._held)

    def stopProducing(self) -> None:
        """
        Do nothing: the other leg's C{connectionLost} follows.
        """

    # For the ways

    def hold(self) -> None:
        """
        Read nothing until L{release}.
        """
        self._held = True
        self.transport.pauseProducing()

    def release(self, held: bool = False) -> None:
        """
        Read again, unless something else still pauses this leg.
        """
        self._held = held
        if not (self._held or self._blocked or self.gone.called):
            self.transport.resumeProducing()

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        def run() -> None:
            self._calls.remove(call)
            function()

        call = self._proxy._reactor.callLater(seconds, run)
        self._calls.add(call)

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def lose(self) -> None:
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def abort(self) -> None:
        self.transport.abortConnection()

    def endBoth(self, reset: bool) -> None:
        """
        End both connections, each once its written bytes are sent.
        """
        for leg in (self, self.other):
            if leg.gone.called:
                pass
            elif reset:
                leg.transport.unregisterProducer()
                leg.transport.registerProducer(_ResetWhenWritten(leg), False)
            else:
                leg.lose()


@implementer(IPullProducer)
class _ResetWhenWritten:
    """
    Resets a connection once all its output is sent.

    @ivar _leg: the connection.
    @ivar _registered: whether the call that follows the registration has come.
    """

    _registered = False

    def __init__(self, leg: _ProxyLeg) -> None:
        self._leg = leg

    def resumeProducing(self) -> None:
        """
        The transport has sent everything.  The first call does not count: it follows
        the registration at once.
        """
        if self._registered:
            self._leg.abort()
        else:
            self._registered = True
            self._leg.transport.startWriting()

    def stopProducing(self) -> None:
        """
        Do nothing: the leg's C{connectionLost} follows.
        """
