# -*- test-case-name: gomux.test.mux.test_starttls -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
TLS that starts in the middle of a stream, as in SMTP and AMP.

Twisted's TLS puts small writes together: it encrypts and sends them in the next turn of
the reactor.  Here it does so in the mux's own next turn (L{_NextTurnClock}), at the end
of which the mux sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

from twisted.internet.interfaces import (
    IOpenSSLContextFactory,
    IProtocolFactory,
    IReactorTime,
    ISSLTransport,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from gomux._mux.keeping import Keeping
from gomux._mux.stream import Stream
from gomux._mux.streamlife import LifeState
from gomux.error import StreamClosed

# Looking a member up in its Enum takes longer than the rest of a call.
_LIVE, _LOST = LifeState.LIVE, LifeState.LOST

#: How many bytes TLS in a stream counts for.  OpenSSL takes a little more.
TLS_COST = 49152


def startTLS(
    stream: Stream,
    contextFactory: IOpenSSLContextFactory,
    isClient: bool,
    clock: IReactorTime,
) -> None:
    """
    Put TLS between a stream and its protocol.  The stream stays the same object, so the
    protocol and all others that refer to it then use TLS.

    @param stream: the stream.
    @param contextFactory: as for the C{startTLS} of
        L{ITLSTransport<twisted.internet.interfaces.ITLSTransport>}.
    @param isClient: whether this side is TLS's client.
    @param clock: the reactor.
    """
    producer = stream.producer
    if producer is not None:
        stream.unregisterProducer()
    # TLS needs no factory of protocols, because the stream's protocol exists already.
    none = cast(IProtocolFactory, None)
    nextTurn = cast(IReactorTime, _NextTurnClock(clock, stream.streams.callSoon))
    factory = TLSMemoryBIOFactory(contextFactory, isClient, none, nextTurn)
    tls = _TLS(factory, stream.protocol, False)
    tls.stream = stream
    stream.protocol = tls
    # From now on the application calls TLS, and TLS calls the stream.
    stream.__class__ = TLSStream
    tls.keep(stream, TLS_COST)
    tls.makeConnection(cast(ITransport, _Beneath(cast(TLSStream, stream))))
    if producer is not None:
        stream.registerProducer(*producer)


@implementer(ISSLTransport)
class TLSStream(Stream):  # type: ignore[override]
    """
    A stream that encrypts the application's data with TLS.
    """

    __slots__ = ()

    @property
    def _tls(self) -> Any:
        return self.protocol

    def startTLS(
        self, contextFactory: IOpenSSLContextFactory, normal: bool = True
    ) -> None:
        """
        Fail, because TLS was started already.

        @raise RuntimeError: always.
        """
        raise RuntimeError("TLS was started already")

    def write(self, data: bytes) -> None:
        """
        Send some data, encrypted.
        """
        if self.life is not _LOST:
            self.protocol.write(data)  # type: ignore[attr-defined]

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """
        Send several pieces of data, encrypted.
        """
        if self.connected:
            self._tls.writeSequence(data)

    def loseConnection(self) -> None:
        """
        End TLS, then close the stream.
        """
        if self.connected and not self.disconnecting:
            self._tls.loseConnection()

    def loseWriteConnection(self) -> None:
        """
        Close the writing half, once TLS has sent its output in the next turn.
        """
        self.streams.callSoon(super().loseWriteConnection)

    def closeWith(self, reason: BaseException) -> None:
        """
        End TLS, unless it has ended already, and close the stream without waiting for
        the peer's TLS.
        """
        if self.life is _LIVE:
            self._tls.loseConnection()
        super().closeWith(reason)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Register a producer, to be paused and resumed as output is sent.
        """
        self._tls.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """
        Forget the producer.
        """
        self._tls.unregisterProducer()

    def getPeerCertificate(self) -> Any:
        """
        @return: the peer's certificate; C{None} if the peer has shown none.
        """
        return self._tls.getPeerCertificate()

    def getHandle(self) -> Any:
        """
        @return: OpenSSL's connection object.
        """
        return self._tls.getHandle()


class _TLS(Keeping, BufferingTLSTransport):
    """
    Twisted's TLS, which puts small writes together, with a bound for the output that
    waits for the handshake.

    @ivar stream: the stream.
    @ivar _held: how many bytes of output wait for the handshake.
    """

    stream: Stream
    _held = 0

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.keep(self.stream, 0)
        super().connectionLost(reason)

    def _bufferedWrite(self, octets: bytes) -> None:
        if self._held > self.stream.streams.maxOutput:
            self.stream.streams.outputExceeded(self.stream)
            return
        self._held += len(octets)
        super()._bufferedWrite(octets)

    def _unbufferPendingWrites(self) -> None:
        self._held = 0
        super()._unbufferPendingWrites()


class _Beneath:
    """
    The transport of TLS: the same stream, without the methods of L{TLSStream}.

    @ivar _own: the stream, with the methods of L{Stream}.
    """

    def __init__(self, stream: TLSStream) -> None:
        self._own = super(TLSStream, stream)

    def loseConnection(self) -> None:
        """
        TLS is finished: close the stream.
        """
        self._own.closeWith(StreamClosed())  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


class _NextTurnClock:
    """
    The reactor, except that calls without a delay are made in the mux's next turn.

    @ivar _clock: the reactor.
    @ivar _callSoon: calls a function in the mux's next turn.
    """

    def __init__(
        self, clock: IReactorTime, callSoon: Callable[[Callable[[], None]], None]
    ) -> None:
        self._clock = clock
        self._callSoon = callSoon

    def seconds(self) -> float:
        """
        @return: the time.
        """
        return self._clock.seconds()

    def callLater(self, delay: float, function: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Call a function later.
        """
        call = partial(function, *args, **kwargs)
        if delay:
            return self._clock.callLater(delay, call)
        soon = _Call(call)
        self._callSoon(soon.make)
        return soon


class _Call:
    """
    A call in the mux's next turn.

    @ivar _function: the function to call; C{None} once the call is cancelled.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._function: Callable[[], object] | None = function

    def make(self) -> None:
        """
        Make the call, unless it is cancelled.
        """
        if self._function is not None:
            self._function()

    def cancel(self) -> None:
        """
        Do not make the call.
        """
        self._function = None
