# -*- test-case-name: gomux.test.tunnel.test_service -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The services that C{twistd gomux} runs.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

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
from gomux._mux.log import ThrottledLog, describeAddress, printable
from gomux._mux.protocol import MuxProtocol
from gomux.error import OpenStreamError
from gomux.tunnel._notify import ServiceManager
from gomux.tunnel._signals import ServiceSignals

if TYPE_CHECKING:
    from gomux._mux.factory import MuxFactory
    from gomux._mux.pool import MuxPool
    from gomux._wire.keyring import Keyring
    from gomux.limits import TunnelLimits
    from gomux.tunnel._tunnel import Tunnel

_log = Logger()

#: While attempts to connect fail for the same reason, the reason is logged at most once
#: in this time, in seconds.
REPEAT_LOG = 60.0


class CannotListen(SystemExit, Exception):
    """
    A service cannot listen on its endpoint.

    It is a C{SystemExit}, so that the process prints C{code} and ends without a
    traceback.  It is an C{Exception} too, so that C{twistd} removes its pid file, and
    a daemon reports the error to the process that started it.

    @ivar code: the text that the process prints.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.code = f"error: {reason}"


class Reloaded(NamedTuple):
    """
    What came of a reload.

    @ivar at: when it was, in seconds since the epoch.
    @ivar worked: whether what was read holds now.  If not, nothing has changed.
    """

    at: float
    worked: bool


class ListeningService(Service):
    """
    Listens on an endpoint.  If that fails, the process ends with an error.

    @ivar name: its name in log lines.
    @ivar port: the listening port, while it listens.
    @ivar _endpoint: the endpoint.
    @ivar _factory: the factory for accepted connections.
    @ivar _listening: fires once the endpoint listens.
    """

    port: IListeningPort | None = None
    _listening: Deferred[None] | None = None

    def __init__(
        self, name: str, endpoint: IStreamServerEndpoint, factory: IProtocolFactory
    ) -> None:
        self.name = name
        self._endpoint = endpoint
        self._factory = factory

    @property
    def isListening(self) -> bool:
        """
        Whether it listens.
        """
        return self.port is not None

    def privilegedStartService(self) -> None:
        """
        Listen now, because the process may give up its privileges after this.

        @raise CannotListen: if listening fails at once.
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
        Listening failed after the process had started, too late to raise an error.
        End the process by a signal, so that its exit status is not 0.
        """
        _log.critical(
            "{name}: {reason}", name=self.name, reason=failure.getErrorMessage()
        )
        os.kill(os.getpid(), signal.SIGTERM)

    def startService(self) -> None:
        """
        Listen, unless L{privilegedStartService} has done so.
        """
        super().startService()
        if self._listening is None:
            self.privilegedStartService()

    def stopService(self) -> Deferred[None]:
        """
        Stop listening.
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
    Dials, and logs the result of each attempt.

    @ivar name: its name in log lines.
    @ivar connects: logs successes, with a limit on the number of lines, because a
        server may drop each mux at once.
    @ivar _lastReason: the reason that was logged last; empty after a success.
    @ivar _loggedAt: when it was logged.
    """

    name: str
    connects: ThrottledLog
    # The service closes the muxes, once their streams have had time to end.
    closesAtShutdown = False
    _lastReason = ""
    _loggedAt = 0.0

    def muxConnected(self, mux: MuxProtocol) -> None:
        """
        An attempt has succeeded: log it.
        """
        self.connects.info("{name}: connected", name=self.name)
        super().muxConnected(mux)

    def attemptFailed(self, failure: Failure) -> None:
        """
        An attempt has failed.  Log the reason, unless the same was logged less than
        C{REPEAT_LOG} seconds ago.
        """
        reason = failure.getErrorMessage()
        now = self.clock.seconds()
        if reason != self._lastReason or now - self._loggedAt >= REPEAT_LOG:
            self._lastReason, self._loggedAt = reason, now
            _log.warn(
                "{name}: cannot connect: {reason}; trying again",
                name=self.name,
                reason=printable(reason),
            )
        super().attemptFailed(failure)

    def muxAuthenticated(self, mux: MuxProtocol) -> None:
        """
        The peer has shown that it holds the key, so the next failure is news: log it.
        """
        self._lastReason = ""
        super().muxAuthenticated(mux)


class Connector(Service):
    """
    Keeps one mux connected while it runs.

    @ivar name: its name in log lines.
    @ivar dialler: connects the mux.
    """

    def __init__(self, name: str, dialler: ServiceDialler) -> None:
        """
        @param name: its name in log lines.
        @param dialler: connects the mux.
        """
        self.name = dialler.name = name
        dialler.connects = ThrottledLog(_log, dialler.clock)
        self.dialler = dialler

    @property
    def mux(self) -> MuxProtocol | None:
        """
        The newest of its muxes, which may not be up yet; C{None} if there is none.
        """
        muxes = self.dialler.muxes
        return muxes[-1] if muxes else None

    def startService(self) -> None:
        """
        Connect.
        """
        super().startService()
        self.dialler.start()

    def stopService(self) -> None:
        """
        Stop dialling.  A mux that is connected stays connected.
        """
        super().stopService()
        self.dialler.stop()


class TunnelService(MultiService):
    """
    All listeners and connectors of one process.  When it is stopped, it gives the open
    streams time to end before it closes the muxes.

    @ivar pool: the muxes that are up.
    @ivar tunnels: the tunnels, whose connections it aborts after the drain timeout.
    @ivar factories: the factories of all muxes, of servers and diallers.
    @ivar keyring: the pre-shared keys.
    @ivar reloaded: what came of the last reload; C{None} if there was none.
    @ivar _reload: reads the files again, and returns whether that worked; C{None} if
        there was nothing to read.
    @ivar _clock: the reactor, with times that never go back.
    @ivar _limits: has the drain timeout.
    @ivar _signals: handles the signals of the process.
    @ivar _manager: tells the service manager how the process is.
    """

    def __init__(
        self,
        pool: MuxPool,
        tunnels: list[Tunnel],
        clock: IReactorTime,
        limits: TunnelLimits,
        reload: Callable[[], bool | None],
        factories: list[MuxFactory],
        keyring: Keyring,
    ) -> None:
        """
        @param pool: the muxes that are up.
        @param tunnels: the tunnels of the process.
        @param clock: the reactor.
        @param limits: has the drain timeout.
        @param reload: called on SIGHUP, while the service runs.  Returns whether it
            worked; C{None} if there was nothing to read.
        @param factories: the factories of all muxes.
        @param keyring: the pre-shared keys.
        """
        super().__init__()
        self.pool = pool
        self.tunnels = tunnels
        self._clock: Any = steady(clock)
        self._limits = limits
        self.factories = factories
        self.keyring = keyring
        self.reloaded: Reloaded | None = None
        self._reload = reload
        self._signals = ServiceSignals(clock, self.reload)
        self._manager = ServiceManager(clock, self._isReady, self._describe)

    @property
    def listeners(self) -> list[ListeningService]:
        """
        What listens, or should.
        """
        return [part for part in self if isinstance(part, ListeningService)]

    @property
    def connectors(self) -> list[Connector]:
        """
        What keeps a mux connected.
        """
        return [part for part in self if isinstance(part, Connector)]

    def reload(self) -> None:
        """
        Read files again.  Called on SIGHUP, while the service runs.
        """
        self._manager.reloading()
        worked = self._reload()
        self._manager.reloaded()
        if worked is not None:
            self.reloaded = Reloaded(time.time(), worked)

    def privilegedStartService(self) -> None:
        """
        Start listening.  A SIGHUP that comes this early must not end the process.
        """
        self._signals.start()
        super().privilegedStartService()

    def startService(self) -> None:
        """
        Start all services, and handle SIGHUP.
        """
        self._signals.start()
        super().startService()
        for factory in self.factories:
            factory.retired = False
        self._manager.start()

    def stopService(self) -> Deferred[None]:
        """
        Stop listening and dialling, and open no new streams.  Wait for the open streams
        to end, for at most the drain timeout.  Each mux is closed when it has no
        streams left, also a mux that comes up only now.
        """
        stopped: Deferred[None] = super().stopService()
        self.pool.failWaiting(OpenStreamError("the service was told to stop"))
        for factory in self.factories:
            factory.retire()
        timeout = self._clock.callLater(self._limits.drainTimeout, self._close)
        streams = sum(mux.streamCount for mux in self._muxes)
        if streams:
            _log.info(
                "waiting up to {seconds:g} seconds for {streams} streams to end",
                seconds=self._limits.drainTimeout,
                streams=streams,
            )

        def hurry() -> None:
            if timeout.active():
                timeout.reset(0)

        self._signals.drain(hurry)
        self._manager.stopping(self._limits.drainTimeout)

        def finished(result: Any) -> Any:
            if timeout.active():
                timeout.cancel()
            self._signals.stop()
            self._manager.stop()
            return result

        gone = self._whenGone().addCallback(lambda _: stopped)
        # A port may have accepted a connection before it stopped.
        return gone.addCallback(lambda _: self._whenGone()).addBoth(finished)

    def _isReady(self) -> bool:
        return all(listener.isListening for listener in self.listeners)

    def _describe(self) -> str:
        """
        @return: the status for the service manager.
        """
        muxes = self._muxes
        streams = sum(mux.streamCount for mux in muxes)
        failed = self.reloaded is not None and not self.reloaded.worked
        return (
            f"{len(muxes)} muxes, {streams} streams"
            + ("" if self.running else ", stopping")
            + (", the last reload has failed" if failed else "")
        )

    @property
    def _muxes(self) -> list[MuxProtocol]:
        return [mux for factory in self.factories for mux in factory.muxes]

    def _whenGone(self) -> Deferred[None]:
        """
        @return: fires when there is no mux.
        """
        muxes = self._muxes
        if not muxes:
            return succeed(None)
        gone = gatherResults([mux.whenClosed() for mux in muxes])
        return gone.addCallback(lambda _: self._whenGone())

    def _close(self) -> None:
        """
        The drain timeout is over: abort the connections and close the muxes.
        """
        _log.warn("closing the streams that have not ended")
        for tunnel in self.tunnels:
            tunnel.abort()
        for mux in self._muxes:
            mux.close()
