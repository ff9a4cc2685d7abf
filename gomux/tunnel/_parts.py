# -*- test-case-name: gomux.test.tunnel.test_service -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The parts of the service that C{twistd gomux} runs: ports, and what keeps a mux
connected.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from gomux._mux.dialler import Dialler
from gomux._mux.log import ThrottledLog, describeAddress, logPrefixOf, printable
from gomux._mux.protocol import MuxProtocol
from gomux.tunnel._accesslog import AccessLog
from gomux.tunnel._localends import acceptLocally
from gomux.tunnel._plan import withoutSecrets
from gomux.tunnel._signals import SignalHandler

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


class Switch(Factory):
    """
    The factory of a port.  It can be exchanged for another while the port listens.

    @ivar wrapped: makes the protocols.
    """

    noisy = False

    def __init__(self, wrapped: IProtocolFactory) -> None:
        self.wrapped = wrapped

    def change(self, wrapped: IProtocolFactory) -> None:
        """
        Have another factory make the protocols from now on.
        """
        old, self.wrapped = self.wrapped, wrapped
        if self.numPorts and old is not wrapped:
            wrapped.doStart()
            old.doStop()

    def startFactory(self) -> None:
        """
        Start the factory.
        """
        self.wrapped.doStart()

    def stopFactory(self) -> None:
        """
        Stop the factory.
        """
        self.wrapped.doStop()

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:  # type: ignore[override]
        """
        @return: the protocol of a new connection.
        """
        return self.wrapped.buildProtocol(addr)  # type: ignore[arg-type]

    def logPrefix(self) -> str:
        """
        @return: the log prefix of the factory.
        """
        return logPrefixOf(self.wrapped)


class ListeningService(Service):
    """
    Listens on an endpoint.  If that fails at the start, the process ends with an error.

    @ivar name: its name in log lines.
    @ivar port: the listening port, while it listens.
    @ivar switch: has the factory for accepted connections.
    @ivar _endpoint: the endpoint.
    @ivar _listening: fires once the endpoint listens, or fails to; C{None} before it
        begins to listen, and after it was told to stop.
    """

    port: IListeningPort | None = None
    _listening: Deferred[None] | None = None

    def __init__(
        self, name: str, endpoint: IStreamServerEndpoint, factory: IProtocolFactory
    ) -> None:
        self.name = name
        self._endpoint = endpoint
        self.switch = Switch(factory)

    @property
    def isListening(self) -> bool:
        """
        Whether it listens.
        """
        return self.port is not None

    def listen(self) -> Deferred[None]:
        """
        Listen, before this is a part of a service that runs.

        @return: fires when it listens, or fails.
        """
        told: Deferred[None] = Deferred()

        def listens(port: IListeningPort) -> None:
            self._listens(port)
            told.callback(None)

        listening = maybeDeferred(self._endpoint.listen, self.switch)
        self._listening = listening.addCallbacks(listens, told.errback)
        return told

    def privilegedStartService(self) -> None:
        """
        Listen now, because the process may give up its privileges after this.

        @raise CannotListen: if listening fails at once.
        """
        super().privilegedStartService()
        if self._listening is not None:
            return
        starting = True
        failures: list[Failure] = []

        def failed(failure: Failure) -> None:
            if starting:
                failures.append(failure)
            elif not failure.check(CancelledError):
                self._failedLater(failure)

        self.listen().addErrback(failed)
        starting = False
        if failures:
            reason = failures[0].getErrorMessage()
            raise CannotListen(f"{self.name}: {reason}") from None

    def _listens(self, port: IListeningPort) -> None:
        self.port = port
        acceptLocally(port)
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


class AccessLogService(Service):
    """
    Opens the access log once the process has given up its privileges, and again on
    SIGUSR1, with which C{twistd} moves its own log away.

    @ivar log: the access log.
    @ivar _reactor: the reactor.
    """

    def __init__(self, log: AccessLog, reactor: Any) -> None:
        self.log = log
        self._reactor = reactor

    def startService(self) -> None:
        """
        Open the access log.

        @raise CannotListen: if it cannot be opened.
        """
        super().startService()
        try:
            self.log.open()
        except OSError as error:
            raise CannotListen(
                f"--access-log {withoutSecrets(self.log.path)}: {error.strerror}"
            ) from None
        SignalHandler.of(signal.SIGUSR1).calls[self] = self._rotated

    def _rotated(self) -> None:
        self._reactor.callFromThread(self.log.reopen)

    def stopService(self) -> None:
        """
        Write lines at once from now on: the last connections end during the drain.
        """
        super().stopService()
        # The handler stays: without it a later SIGUSR1 would kill the process.
        SignalHandler.of(signal.SIGUSR1).calls.pop(self, None)
        self.log.finish()
