# -*- test-case-name: gomux.test.mux.test_starttls -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
TLS that starts in the middle of a stream, as in SMTP and AMP.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from twisted.internet.interfaces import (
    IOpenSSLContextFactory,
    IProtocolFactory,
    IReactorTime,
    ISSLTransport,
    ITransport,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from gomux._mux.stream import Stream


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
    factory = TLSMemoryBIOFactory(contextFactory, isClient, none, clock)
    tls = TLSMemoryBIOProtocol(factory, stream.protocol, False)
    stream.protocol = tls
    # From now on the application calls TLS, and TLS calls the stream.
    stream.__class__ = TLSStream
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
        if self.connected:
            self._tls.write(data)

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


class _Beneath:
    """
    The transport of TLS: the same stream, without the methods of L{TLSStream}.

    @ivar _own: the stream, with the methods of L{Stream}.
    """

    def __init__(self, stream: TLSStream) -> None:
        self._own = super(TLSStream, stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)
