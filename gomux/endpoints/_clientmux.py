# -*- test-case-name: gomux.test.endpoints.test_endpoints -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The mux of a client endpoint.  It is dialled while a stream waits for it, and closed
when it has had no streams for a while.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure

from gomux._mux.dialler import Dialler, Settings
from gomux._mux.protocol import MuxProtocol
from gomux._mux.startstop import stopFactory
from gomux._wire.keyring import Keyring
from gomux.error import NoRequests, OpenStreamError, ServiceTimeout
from gomux.limits import IDLE_TIMEOUT, MAX_RETRY_DELAY

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gomux.error import GomuxError


class ClientMux(Dialler):
    """
    Dials a client mux when a stream needs it.  There is at most one mux at a time.

    @ivar idleTimeout: how long a mux without streams is kept, in seconds.
    @ivar _idle: the delayed call that closes a mux without streams.
    """

    def __init__(
        self,
        reactor: Any,
        carrier: IStreamClientEndpoint,
        psk: bytes | str | Keyring,
        *,
        peer: str | None = None,
        idleTimeout: float = IDLE_TIMEOUT,
        **settings: Unpack[Settings],
    ) -> None:
        """
        @param reactor: the reactor.
        @param carrier: the endpoint that connects the carrier.
        @param psk: the pre-shared key.
        @param peer: the name of the key to use; C{None} if there is a single key.
        @param idleTimeout: how long a mux without streams is kept, in seconds.
        @param settings: the other arguments of L{Dialler}.
        """
        super().__init__(
            psk, carrier, MAX_RETRY_DELAY, clock=reactor, peer=peer, **settings
        )
        self.idleTimeout = idleTimeout
        self._idle: IDelayedCall | None = None

    def openStream(
        self, factory: IProtocolFactory, timeout: float, service: str | None = None
    ) -> Deferred[IProtocol]:
        """
        Open a stream.  Dial the mux first if there is none.

        @param factory: makes the stream's protocol.
        @param timeout: how long to wait for the mux, and for the answer of the service,
            in seconds.
        @param service: the name of the peer's service; C{None} for none.
        @return: the protocol, connected.
        """
        if service is not None and not (self.greet or self.strict):
            return fail(NoRequests("greet=False is set on this side"))
        # TCP starts the factory before it connects, so this does too.
        try:
            factory.doStart()
        except BaseException:
            return fail(Failure())
        opened = self.pool.openStream(factory, timeout, service)
        if self.pool.waiting:
            self.start()
        if service is not None:
            # While the stream waits for a mux, the pool's own timeout comes first.
            opened.addTimeout(timeout, self.clock, partial(_noAnswer, service))
        return opened.addBoth(self._opened, factory)

    def _opened(
        self, result: IProtocol | Failure, factory: IProtocolFactory
    ) -> IProtocol | Failure:
        """
        A stream was opened or failed.  Stop dialling if no other stream waits.
        """
        stopFactory(factory)
        if not self.pool.waiting:
            self.stop()
            if self._idle is None and self.muxes:
                # A stream for a service has waited for a greeting.
                self.muxIdle(self.muxes[0])
        return result

    def close(self) -> Deferred[None]:
        """
        Close the mux, and fail the streams that wait for it.  The next
        L{openStream} dials another mux.

        @return: fires when the mux is gone.
        """
        self.pool.failWaiting(OpenStreamError("the endpoint was closed"))
        closing = [mux.close() for mux in list(self.muxes)]
        return gatherResults(closing).addCallback(lambda _: None)

    # Called by the mux

    def muxConnected(self, mux: MuxProtocol) -> None:
        """
        A mux is connected: open the streams that wait, and start the idle timeout.
        """
        super().muxConnected(mux)
        self.muxIdle(mux)

    def muxIdle(self, mux: MuxProtocol) -> None:
        """
        A mux has no streams: close it after C{idleTimeout}.
        """
        if self._idle is None:
            self._idle = self.clock.callLater(self.idleTimeout, self._idleTooLong)
        else:
            self._idle.reset(self.idleTimeout)

    def muxLost(self, mux: MuxProtocol, reason: GomuxError) -> None:
        """
        A mux is gone.  After the last, cancel the idle timeout.
        """
        super().muxLost(mux, reason)
        if not self.muxes:
            self._forgetIdle()

    # Closing a mux that has no streams

    def _idleTooLong(self) -> None:
        self._idle = None
        self._closeIdle()

    def _closeIdle(self) -> Deferred[list[GomuxError]]:
        if self.pool.waiting:
            # Streams for a service wait for the greeting on a mux.
            return gatherResults([])
        return gatherResults(
            [mux.close() for mux in list(self.muxes) if not mux.streamCount]
        )

    def _forgetIdle(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.cancel()


def _noAnswer(service: str, result: object, timeout: float) -> NoReturn:
    """
    A stream for a service was cancelled, because its time is over.
    """
    error = ServiceTimeout(f"{service} (no answer within {timeout:g} seconds)")
    error.service = service
    raise error
