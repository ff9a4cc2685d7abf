# -*- test-case-name: gomux.test.endpoints.test_endpoints -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The client's side of a mux that is made when somebody wants a stream, made
again when it is lost and somebody still does, and closed when nobody has
wanted one for a while.
"""

from __future__ import annotations

from random import uniform
from typing import TYPE_CHECKING, Any, TypedDict

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorCore,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure

from gomux._mux.factory import MuxFactory
from gomux._mux.protocol import MuxProtocol
from gomux._mux.streams import stopFactory
from gomux._wire.keyring import Keyring
from gomux.error import OpenStreamError
from gomux.limits import IDLE_TIMEOUT, MAX_RETRY_DELAY

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gomux._wire.strict import Salts
    from gomux.error import GomuxError
    from gomux.limits import Limits


class Settings(TypedDict, total=False):
    """
    What endpoints hand on to L{MuxFactory}.
    """

    limits: Limits | None
    greet: bool
    strict: bool
    context: bytes
    salts: Salts


def retryPolicy(failures: int) -> float:
    """
    How long to wait before the next attempt to connect, as for
    L{ClientService<twisted.application.internet.ClientService>}: exponential,
    and so random that clients which lost their server together do not come
    back together.

    @param failures: how many attempts have failed in a row, from 1.
    @return: seconds.
    """
    return uniform(0.5, 1.0) * min(MAX_RETRY_DELAY, 0.5 * 2.0 ** min(failures, 16))


class Link(MuxFactory):
    """
    One client mux at a time, while it is needed.

    There is no L{ClientService<twisted.application.internet.ClientService>}
    in this: that cannot connect a carrier while the last one is still being
    closed, which here happens to whoever comes just after the idle timeout.

    @ivar carrier: the endpoint that connects the carrier.
    @ivar idleTimeout: how long a mux without streams is kept, in seconds.
    @ivar _failures: how many carriers in a row came to nothing.
    @ivar _attempt: the carrier that is being connected.
    @ivar _retry: the next attempt.
    @ivar _idle: the end of a mux without streams.
    @ivar _trigger: the same when the reactor stops.
    """

    def __init__(
        self,
        reactor: Any,
        carrier: IStreamClientEndpoint,
        psk: bytes | str | Keyring,
        *,
        idleTimeout: float = IDLE_TIMEOUT,
        **settings: Unpack[Settings],
    ) -> None:
        """
        @param reactor: the reactor.
        @param carrier: connects the carrier.
        @param psk: the pre-shared key.
        @param idleTimeout: how long a mux without streams is kept, in seconds.
        @param settings: the other arguments of L{MuxFactory}.
        """
        super().__init__(psk, True, clock=reactor, **settings)
        self.carrier = carrier
        self.idleTimeout = idleTimeout
        self._failures = 0
        self._attempt: Deferred[IProtocol] | None = None
        self._retry: IDelayedCall | None = None
        self._idle: IDelayedCall | None = None
        self._trigger: object = None

    def openStream(
        self, factory: IProtocolFactory, timeout: float
    ) -> Deferred[IProtocol]:
        """
        Open a stream, making the mux first if need be.

        @param factory: makes the stream's protocol.
        @param timeout: how long to wait for the mux, in seconds.
        @return: the protocol, connected.
        """
        # As over TCP a factory is started before there is a connection.
        factory.doStart()
        opened = self.pool.openStream(factory, timeout)
        self._dialIfWanted()
        return opened.addBoth(self._opened, factory)

    def _opened(
        self, result: IProtocol | Failure, factory: IProtocolFactory
    ) -> IProtocol | Failure:
        """
        Somebody waits no more.  If nobody does, connect no more.
        """
        stopFactory(factory)
        if not self.pool.waiting:
            self._stopDialling()
        return result

    def close(self) -> Deferred[None]:
        """
        Close the mux, and let nobody wait for it.  The next L{openStream}
        makes another.

        @return: fires when the mux is gone.
        """
        self.pool.failWaiting(OpenStreamError("the endpoint was closed"))
        self._stopDialling()
        closing = [mux.close() for mux in list(self.muxes)]
        return gatherResults(closing).addCallback(lambda _: None)

    # Connecting

    def _dialIfWanted(self) -> None:
        if self._attempt is None and self._retry is None and self._muxWanted():
            attempt = self._attempt = self.carrier.connect(self)
            attempt.addErrback(self._notDialled, attempt)

    def _muxWanted(self) -> bool:
        """
        @return: whether somebody waits for a mux, and there is none that may yet
            come up.
        """
        return bool(self.pool.waiting) and not any(mux.canOpen for mux in self.muxes)

    def _notDialled(self, failure: Failure, attempt: Deferred[IProtocol]) -> None:
        if self._attempt is attempt:
            self._attempt = None
            self._failed(failure.value)

    def _failed(self, reason: BaseException | None) -> None:
        """
        A carrier came to nothing: try again if somebody still waits.
        """
        self.pool.lastReason = reason
        if self._attempt is None and self._retry is None and self._muxWanted():
            self._failures += 1
            delay = retryPolicy(self._failures)
            self._retry = self.clock.callLater(delay, self._dialAgain)

    def _dialAgain(self) -> None:
        self._retry = None
        self._dialIfWanted()

    def _stopDialling(self) -> None:
        self._failures = 0
        retry, self._retry = self._retry, None
        if retry is not None:
            retry.cancel()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()

    # What the mux tells its factory

    def muxConnected(self, mux: MuxProtocol) -> None:
        """
        Whoever waits gets a stream.
        """
        # What has succeeded must not be cancelled.
        self._attempt = None
        if self._trigger is None and IReactorCore.providedBy(self.clock):
            self._trigger = self.clock.addSystemEventTrigger(
                "before", "shutdown", self._reactorStops
            )
        super().muxConnected(mux)
        self.muxIdle(mux)

    def muxIdle(self, mux: MuxProtocol) -> None:
        """
        A mux has no streams: give it its time.
        """
        if self._idle is None:
            self._idle = self.clock.callLater(self.idleTimeout, self._idleTooLong)
        else:
            self._idle.reset(self.idleTimeout)

    def muxLost(self, mux: MuxProtocol, reason: GomuxError) -> None:
        """
        Make another if somebody waits.
        """
        super().muxLost(mux, reason)
        if not self.muxes:
            self._forgetIdle()
        self._failed(reason)

    # The end of a mux that nobody needs

    def _idleTooLong(self) -> None:
        self._idle = None
        self._closeIdle()

    def _closeIdle(self) -> Deferred[list[GomuxError]]:
        return gatherResults(
            [mux.close() for mux in list(self.muxes) if not mux.streamCount]
        )

    def _reactorStops(self) -> Deferred[list[GomuxError]]:
        self._trigger = None
        return self._closeIdle()

    def _forgetIdle(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.cancel()
        trigger, self._trigger = self._trigger, None
        if trigger is not None and IReactorCore.providedBy(self.clock):
            self.clock.removeSystemEventTrigger(trigger)
