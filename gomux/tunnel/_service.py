# -*- test-case-name: gomux.test.tunnel.test_service -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The services that C{twistd gomux} is made of.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
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
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from gomux._carrier.clock import steady
from gomux._mux.dialler import Dialler
from gomux._mux.log import describeAddress
from gomux._mux.protocol import MuxProtocol
from gomux.error import OpenStreamError

if TYPE_CHECKING:
    from gomux._mux.pool import MuxPool
    from gomux.limits import TunnelLimits
    from gomux.tunnel._bridge import Tunnel

_log = Logger()

#: How often an attempt to connect that fails as the last one did is logged,
#: in seconds.
REPEAT_LOG = 60.0


class CannotListen(SystemExit, Exception):
    """
    A service cannot listen where it is told to.

    It is a C{SystemExit}, so that the process ends with C{code} as its last words, and
    without a traceback.  It is an C{Exception} too, so that C{twistd} removes its pid
    file, and has a daemon tell the process that started it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.code = f"error: {reason}"


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


class ServiceDialler(Dialler):
    """
    Logs how the attempts to connect go.

    @ivar name: what log lines call it.
    @ivar _lastReason: why the last attempt failed, as logged.
    @ivar _loggedAt: when that was logged.
    """

    name: str
    _lastReason = ""
    _loggedAt = 0.0

    def muxConnected(self, mux: MuxProtocol) -> None:
        """
        An attempt has succeeded.
        """
        _log.info("{name}: connected", name=self.name)
        super().muxConnected(mux)

    def attemptFailed(self, failure: Failure) -> None:
        """
        An attempt has failed: log why, unless that was done not long ago.
        """
        reason = failure.getErrorMessage()
        now = self.clock.seconds()
        if reason != self._lastReason or now - self._loggedAt >= REPEAT_LOG:
            self._lastReason, self._loggedAt = reason, now
            _log.warn(
                "{name}: cannot connect: {reason}; trying again",
                name=self.name,
                reason=reason,
            )
        super().attemptFailed(failure)

    def muxAuthenticated(self, mux: MuxProtocol) -> None:
        """
        The peer is the right one: the next failure is worth a line.
        """
        self._lastReason = ""
        super().muxAuthenticated(mux)


class Connector(Service):
    """
    Keeps one mux connected while it runs.

    @ivar name: what log lines call it.
    """

    def __init__(self, name: str, dialler: ServiceDialler) -> None:
        """
        @param name: what log lines call it.
        @param dialler: connects the mux.
        """
        self.name = dialler.name = name
        self._dialler = dialler

    def startService(self) -> None:
        """
        Connect.
        """
        super().startService()
        self._dialler.start()

    def stopService(self) -> None:
        """
        Connect no more; what is connected is left alone.
        """
        super().stopService()
        self._dialler.stop()


class TunnelService(MultiService):
    """
    All listeners and connectors of one process, which end in good order.

    @ivar pool: has the muxes that are up.
    @ivar tunnels: continue connections.
    """

    _hangup: Any = None
    _stopping = False

    def __init__(
        self,
        pool: MuxPool,
        tunnels: list[Tunnel],
        clock: IReactorTime,
        limits: TunnelLimits,
        reload: Callable[[], None],
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
        self._clock: Any = steady(clock)
        self._limits = limits
        self.reload = reload

    def startService(self) -> None:
        """
        Start all services, and listen to SIGHUP.
        """
        super().startService()
        self._stopping = False
        self._hangup = signal.signal(signal.SIGHUP, self._hungUp)

    def _hungUp(self, number: int, frame: FrameType | None) -> None:
        self._clock.callFromThread(self._reloadUnlessStopping)

    def _reloadUnlessStopping(self) -> None:
        if self._stopping:
            _log.info("SIGHUP: the service is being stopped: nothing is read again")
        else:
            self.reload()

    def stopService(self) -> Deferred[None]:
        """
        Take nothing new, let the streams that are open come to their end, for
        as long as they may, and close the muxes.
        """
        self._stopping = True
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
            # Until here SIGHUP would end the process, and with it what is drained.
            if self._hangup is not None:
                signal.signal(signal.SIGHUP, self._hangup)
                self._hangup = None
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
