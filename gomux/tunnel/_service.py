# -*- test-case-name: gomux.test.tunnel.test_service -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The service that C{twistd gomux} runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from gomux._carrier.clock import steady
from gomux._carrier.sockets import Sockets, socketsOf
from gomux.error import OpenStreamError
from gomux.tunnel._notify import ServiceManager
from gomux.tunnel._parts import (
    CannotListen,
    Connector,
    ListeningService,
    ServiceDialler,
)
from gomux.tunnel._plan import Plan, Refused, logChanges
from gomux.tunnel._running import Running
from gomux.tunnel._signals import ServiceSignals
from gomux.tunnel.options._check import changedPeers

if TYPE_CHECKING:
    from gomux._mux.factory import MuxFactory
    from gomux._mux.pool import MuxPool
    from gomux._mux.protocol import MuxProtocol
    from gomux._wire.keyring import Keyring
    from gomux.tunnel._tunnel import Tunnel

__all__ = [
    "CannotListen",
    "Connector",
    "ListeningService",
    "Reloaded",
    "ServiceDialler",
    "TunnelService",
]

_log = Logger()


class Reloaded(NamedTuple):
    """
    What came of a reload.

    @ivar at: when it was, in seconds since the epoch.
    @ivar worked: whether what was read holds now.  If not, nothing has changed.
    """

    at: float
    worked: bool


class TunnelService(MultiService):
    """
    All listeners and connectors of one process.  When it is stopped, it gives the open
    streams time to end before it closes the muxes.

    @ivar reloaded: what came of the last reload; C{None} if there was none.
    @ivar parts: the parts of the service.
    @ivar _read: reads the files again.
    @ivar _clock: the reactor, with times that never go back.
    @ivar _sockets: the local sockets of its tunnels; C{None} if they have none, and
        while the service is stopped.
    @ivar _signals: handles the signals of the process.
    @ivar _fitting: whether a reload waits for new ports to listen.
    @ivar _isAsked: whether another reload was asked for meanwhile.
    @ivar _manager: tells the service manager how the process is.
    """

    def __init__(
        self, plan: Plan, clock: IReactorTime, read: Callable[[Plan], Plan]
    ) -> None:
        """
        @param plan: what to run.
        @param clock: the reactor.
        @param read: called on SIGHUP, while the service runs, with the current plan.
            Reads the files again, and returns the next plan, or raises L{Refused}.
        """
        super().__init__()
        self._clock: Any = steady(clock)
        self._sockets: Sockets | None = None
        self._read = read
        self.reloaded: Reloaded | None = None
        self._fitting = self._isAsked = False
        self.parts = Running(self, plan, clock)
        self._signals = ServiceSignals(clock, self.reload)
        self._manager = ServiceManager(clock, self._isReady, self._describe)

    @property
    def plan(self) -> Plan:
        """
        What it runs.
        """
        return self.parts.plan

    @property
    def pool(self) -> MuxPool:
        """
        The muxes that are up.
        """
        return self.parts.pool

    @property
    def keyring(self) -> Keyring:
        """
        The pre-shared keys.
        """
        return self.parts.keyring

    @property
    def factories(self) -> list[MuxFactory]:
        """
        The factories of all muxes, of servers and diallers.
        """
        return [*self.parts.factories, *self.parts.leftFactories]

    @property
    def tunnels(self) -> list[Tunnel]:
        """
        The tunnels of targets and forwards.
        """
        return [*self.parts.tunnels.values(), *self.parts.leftTunnels]

    @property
    def listeners(self) -> list[ListeningService]:
        """
        What listens, or should.
        """
        return list(self.parts.ports.values())

    @property
    def connectors(self) -> list[Connector]:
        """
        What keeps a mux connected.
        """
        return list(self.parts.connectors.values())

    def reload(self) -> None:
        """
        Read files again, and run what they say, or leave everything as it is.  Called
        on SIGHUP, while the service runs.
        """
        self._manager.reloading()
        if not self.plan.files:
            self._manager.reloaded()
            _log.info(
                "SIGHUP: neither --psk-file nor --config was given: there is nothing to"
                " read again"
            )
        elif self._fitting:
            self._isAsked = True
        else:
            try:
                plan = self._read(self.plan)
            except Refused as error:
                self._reloads(error.mistakes, self.plan, self.plan)
            except Exception:
                _log.failure("SIGHUP: the files cannot be read again")
                self._reloads(["an error of this program"], self.plan, self.plan)
            else:
                self._fitting = True
                old = self.plan
                fitted = self.parts.fit(plan)
                fitted.addErrback(self._broken)
                fitted.addCallback(self._reloads, old, plan)

    def _broken(self, failure: Failure) -> list[str]:
        _log.failure("SIGHUP: the service cannot follow its files", failure)
        return ["an error of this program"]

    def _reloads(self, reasons: list[str], old: Plan, new: Plan) -> None:
        """
        A reload is over.

        @param reasons: why it has failed; empty if it has worked.
        """
        self._fitting = False
        self.reloaded = Reloaded(time.time(), not reasons)
        files = " and ".join(old.files)
        if reasons:
            for reason in reasons:
                _log.error(
                    "{files} stay as they are: {reason}", files=files, reason=reason
                )
        else:
            logChanges(old, new)
            for line in changedPeers(old, new):
                _log.info("{line}", line=line)
            _log.info("{files} were read again", files=" and ".join(new.files))
        self._manager.reloaded()
        if self._isAsked:
            self._isAsked = False
            self.reload()

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
        for factory in self.parts.factories:
            factory.retired = False
        self._manager.start()
        self._sockets = socketsOf(self._clock)
        if self._sockets is not None:
            self._sockets.begin()

    def stopService(self) -> Deferred[None]:
        """
        Stop listening and dialling, and open no new streams.  Wait for the open streams
        to end, for at most the drain timeout.  Each mux is closed when it has no
        streams left, also a mux that comes up only now.  Nobody waits for peers that
        have not shown the key.
        """
        stopped: Deferred[None] = super().stopService()
        self.pool.failWaiting(OpenStreamError("the service was told to stop"))
        for factory in self.factories:
            factory.retire(makeMuxes=False)
        timeout = self._clock.callLater(self.plan.limits.drainTimeout, self._close)
        streams = sum(mux.streamCount for mux in self._muxes)
        if streams:
            _log.info(
                "waiting up to {seconds:g} seconds for {streams} streams to end",
                seconds=self.plan.limits.drainTimeout,
                streams=streams,
            )

        def hurry() -> None:
            if timeout.active():
                timeout.reset(0)

        self._signals.drain(hurry)
        self._manager.stopping(self.plan.limits.drainTimeout)

        def finished(result: Any) -> Any:
            if timeout.active():
                timeout.cancel()
            for factory in self.factories:
                factory.dropStrangers()
            self._signals.stop()
            self._manager.stop()
            if self._sockets is not None:
                self._sockets.end()
                self._sockets = None
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
        @return: fires when there is no mux but such as may be strangers'.
        """
        muxes = [m for m in self._muxes if m.authenticated or m.factory.isClient]
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
