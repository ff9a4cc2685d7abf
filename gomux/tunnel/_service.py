# -*- test-case-name: gomux.test.tunnel.test_service -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The services that C{twistd gomux} is made of.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from random import uniform
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    gatherResults,
    maybeDeferred,
    succeed,
)
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from gomux._mux.factory import MuxFactory
from gomux._mux.log import describeAddress
from gomux._mux.protocol import MuxProtocol
from gomux.error import GomuxError, OpenStreamError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from gomux._mux.pool import MuxPool
    from gomux.limits import TunnelLimits
    from gomux.tunnel._bridge import Tunnel

_log = Logger()

#: About how long the first attempt to reconnect waits, in seconds.
FIRST_RETRY = 0.25
#: How often an attempt to connect that fails as the last one did is logged,
#: in seconds.
REPEAT_LOG = 60.0


class CannotListen(Exception):
    """
    A service cannot listen where it is told to.
    """


class ListeningService(Service):
    """
    Listens on an endpoint, or else keeps the process from starting.

    @ivar name: what log lines call it.
    @ivar port: what listens, once it does.
    """

    port: IListeningPort | None = None
    _listening: Deferred[None] | None = None

    def __init__(
        self, name: str, endpoint: IStreamServerEndpoint, factory: IProtocolFactory
    ) -> None:
        self.name = name
        self._endpoint = endpoint
        self._factory = factory

    def privilegedStartService(self) -> None:
        """
        Listen, while there may still be the right to.

        @raise CannotListen: if that fails at once.
        """
        super().privilegedStartService()
        starting = True
        failures: list[Failure] = []

        def failed(failure: Failure) -> None:
            if starting:
                failures.append(failure)
            elif not failure.check(CancelledError):
                self._failedLater(failure)

        listening = maybeDeferred(self._endpoint.listen, self._factory)
        self._listening = listening.addCallbacks(self._listens, failed)
        starting = False
        if failures:
            reason = failures[0].getErrorMessage()
            _withoutTraceback(CannotListen)
            raise CannotListen(f"{self.name}: {reason}") from None

    def _listens(self, port: IListeningPort) -> None:
        self.port = port
        _log.info(
            "{name}: listening on {address}",
            name=self.name,
            address=describeAddress(port.getHost()),
        )

    def _failedLater(self, failure: Failure) -> None:
        """
        Too late to tell who started the process by raising something.  Its
        exit status must not be 0 all the same.
        """
        _log.critical(
            "{name}: {reason}", name=self.name, reason=failure.getErrorMessage()
        )
        os.kill(os.getpid(), signal.SIGTERM)

    def startService(self) -> None:
        """
        Listen, unless that was done already.
        """
        super().startService()
        if self._listening is None:
            self.privilegedStartService()

    def stopService(self) -> Deferred[None]:
        """
        Listen no more.
        """
        super().stopService()
        listening, self._listening = self._listening, None
        if listening is None:
            return succeed(None)
        listening.cancel()
        return listening.addCallback(self._stopListening)

    def _stopListening(self, ignored: None) -> Deferred[None]:
        port, self.port = self.port, None
        if port is None:
            return succeed(None)
        return port.stopListening() or succeed(None)


def _withoutTraceback(kind: type[Exception]) -> None:
    """
    Have the interpreter say only the message if it ends by such an exception.
    """
    previous = sys.excepthook

    def hook(
        raised: type[BaseException],
        value: BaseException,
        traceback: TracebackType | None,
    ) -> None:
        if issubclass(raised, kind):
            print(f"error: {value}", file=sys.__stderr__)
        else:
            previous(raised, value, traceback)

    sys.excepthook = hook


class Dialler(MuxFactory):
    """
    Makes a client's muxes, for a L{Connector}, which it tells about them.
    """

    connector: Connector

    def muxAuthenticated(self, mux: MuxProtocol) -> None:
        super().muxAuthenticated(mux)
        self.connector.muxAuthenticated()

    def muxLost(self, mux: MuxProtocol, reason: GomuxError) -> None:
        super().muxLost(mux, reason)
        self.connector.muxLost()


class Connector(Service):
    """
    Keeps one mux connected.

    L{ClientService<twisted.application.internet.ClientService>} does this for
    connections that are worth something as soon as they are there, and that
    may be cut when the service stops.  A mux has to end its streams first, and
    a peer that accepts connections only to drop them, because it has another
    key, must not be asked again and again without a pause.

    @ivar name: what log lines call it.
    """

    _attempt: Deferred[IProtocol] | None = None
    _retry: IDelayedCall | None = None
    _failures = 0
    _lastReason = ""
    _loggedAt = 0.0

    def __init__(
        self,
        name: str,
        endpoint: IStreamClientEndpoint,
        dialler: Dialler,
        clock: IReactorTime,
        maxRetryDelay: float,
    ) -> None:
        """
        @param name: what log lines call it.
        @param endpoint: connects the carrier.
        @param dialler: makes the mux.
        @param clock: the reactor.
        @param maxRetryDelay: see
            L{TunnelLimits.maxRetryDelay<gomux.limits.TunnelLimits.maxRetryDelay>}.
        """
        self.name = name
        self._endpoint = endpoint
        self._dialler = dialler
        self._clock = clock
        self._maxRetryDelay = maxRetryDelay
        dialler.connector = self

    def startService(self) -> None:
        """
        Connect.
        """
        super().startService()
        self._dial()

    def stopService(self) -> None:
        """
        Connect no more; what is connected is left alone.
        """
        super().stopService()
        retry, self._retry = self._retry, None
        if retry is not None:
            retry.cancel()
        if self._attempt is not None:
            self._attempt.cancel()

    def _dial(self) -> None:
        self._retry = None
        self._attempt = maybeDeferred(self._endpoint.connect, self._dialler)
        self._attempt.addCallbacks(self._connected, self._failed)

    def _connected(self, mux: IProtocol) -> None:
        self._attempt = None
        _log.info("{name}: connected", name=self.name)

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        if not self.running:
            return
        reason = failure.getErrorMessage()
        now = self._clock.seconds()
        if reason != self._lastReason or now - self._loggedAt >= REPEAT_LOG:
            self._lastReason, self._loggedAt = reason, now
            _log.warn(
                "{name}: cannot connect: {reason}; trying again",
                name=self.name,
                reason=reason,
            )
        self._dialler.pool.lastReason = failure.value
        self._dialLater()

    def _dialLater(self) -> None:
        if self._attempt is not None or self._retry is not None:
            return
        delay = retryDelay(self._failures, self._maxRetryDelay)
        self._failures += 1
        self._retry = self._clock.callLater(delay, self._dial)

    def muxAuthenticated(self) -> None:
        """
        The peer is the right one.
        """
        self._failures = 0
        self._lastReason = ""

    def muxLost(self) -> None:
        """
        The mux is gone: make another.
        """
        if self.running:
            self._dialLater()


def retryDelay(failures: int, maximum: float) -> float:
    """
    How long to wait before the next attempt to connect: exponential, and so
    random that clients which lost their server together do not come back
    together.

    @param failures: how many attempts in a row came to nothing.
    @param maximum: the most to wait, in seconds.
    @return: seconds.
    """
    return uniform(0.2, 1.0) * min(maximum, FIRST_RETRY * 2.0 ** min(failures, 16))


class TunnelService(MultiService):
    """
    All listeners and connectors of one process, which end in good order.

    @ivar pool: has the muxes that are up.
    @ivar tunnels: continue connections.
    """

    _hangup: Any = None

    def __init__(
        self,
        pool: MuxPool,
        tunnels: list[Tunnel],
        clock: IReactorTime,
        limits: TunnelLimits,
        reload: Callable[[], None] | None = None,
    ) -> None:
        """
        @param pool: has the muxes that are up.
        @param tunnels: continue connections.
        @param clock: the reactor.
        @param limits: how long the end may take.
        @param reload: what to do on SIGHUP.
        """
        super().__init__()
        self.pool = pool
        self.tunnels = tunnels
        self._clock: Any = clock
        self._limits = limits
        self._reload = reload

    def startService(self) -> None:
        """
        Start all services, and listen to SIGHUP.
        """
        super().startService()
        if self._reload is not None:
            self._hangup = signal.signal(signal.SIGHUP, self._hungUp)

    def _hungUp(self, number: int, frame: FrameType | None) -> None:
        self._clock.callFromThread(self._reload)

    def stopService(self) -> Deferred[None]:
        """
        Take nothing new, let the streams that are open come to their end, for
        as long as they may, and close the muxes.
        """
        if self._hangup is not None:
            signal.signal(signal.SIGHUP, self._hangup)
            self._hangup = None
        stopped: Deferred[None] = super().stopService()
        self.pool.failWaiting(OpenStreamError("the service was told to stop"))
        muxes = self.pool.muxes
        closing = gatherResults([mux.drain() for mux in muxes])
        timeout = self._clock.callLater(self._limits.drainTimeout, self._close, muxes)
        streams = sum(mux.streamCount for mux in muxes)
        if streams:
            _log.info(
                "waiting up to {seconds:g} seconds for {streams} streams to end",
                seconds=self._limits.drainTimeout,
                streams=streams,
            )

        def closed(ignored: object) -> Deferred[None]:
            if timeout.active():
                timeout.cancel()
            return stopped

        return closing.addCallback(closed)

    def _close(self, muxes: list[MuxProtocol]) -> None:
        """
        The streams have had their time.
        """
        _log.warn("closing the streams that have not ended")
        for tunnel in self.tunnels:
            tunnel.abort()
        for mux in muxes:
            mux.close()
