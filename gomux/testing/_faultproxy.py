# -*- test-case-name: gomux.test.testing.test_faultproxy -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
A network that does what it is told, for tests over real sockets.

L{FaultProxy} stands between a client's mux and a server's and knows where each
frame begins and ends, for headers are sent in the clear.  What is to happen to
which frame is said per direction.  A frame goes on when all of it has come::

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
    Listens on the loopback interface, and passes each connection on to another
    port, frame by frame.

    @ivar toServer: what is to happen to what clients send.
    @ivar toClient: what is to happen to what the server sends.
    @ivar port: the number of the port, once it is listening.
    @ivar accepted: how many connections have come.
    """

    port: int

    def __init__(self, reactor: Any, host: str, port: int) -> None:
        """
        @param reactor: the reactor.
        @param host: where the server is.
        @param port: where the server is.
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

        @param port: the number of the port, or 0 for any that is free.
        """
        factory = Factory.forProtocol(lambda: _ProxyLeg(self))
        factory.noisy = False
        self._listener = self._reactor.listenTCP(port, factory, interface="127.0.0.1")
        self.port = self._listener.getHost().port

    def stop(self) -> Deferred[None]:
        """
        Listen no more, and reset all connections.

        @return: fires when all of that is done.
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
        Join a new connection with one to the server.
        """
        self.accepted += 1
        far = _ProxyLeg(self, near)
        near.other = far
        near.way = Way(self.toServer, near, far)
        far.way = Way(self.toClient, far, near)
        host, port = self._server
        near.connector = self._reactor.connectTCP(host, port, _Once(far))


class _Once(ClientFactory):
    """
    Makes one leg.
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
    One of the two connections that a proxied one consists of, and the producer
    of the other.

    @ivar other: the other one.
    @ivar way: what is received here goes there.
    @ivar gone: fires when this connection is gone.
    @ivar connector: makes the other one.
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

    # IPushProducer, for the other one's transport

    def pauseProducing(self) -> None:
        self._blocked = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._blocked = False
        self.release(self._held)

    def stopProducing(self) -> None:
        """
        Wait for what follows.
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
        Read again, unless there is another reason not to.
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
        End this connection and the other, once what was written is sent.
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
    Resets a connection when all is written.
    """

    _registered = False

    def __init__(self, leg: _ProxyLeg) -> None:
        self._leg = leg

    def resumeProducing(self) -> None:
        """
        All is written, but for the first call, which comes in any case.
        """
        if self._registered:
            self._leg.abort()
        else:
            self._registered = True
            self._leg.transport.startWriting()

    def stopProducing(self) -> None:
        """
        Wait for what follows.
        """
