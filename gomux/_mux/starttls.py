# -*- test-case-name: gomux.test.mux.test_starttls -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
TLS over a stream from some point on, as SMTP, AMP and others start it.
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
    Put TLS between a stream and its protocol.  Whatever has the stream, as the
    protocol does, goes on using the same object.

    @param stream: the stream.
    @param contextFactory: as for the C{startTLS} of
        L{ITLSTransport<twisted.internet.interfaces.ITLSTransport>}.
    @param isClient: whether this side is TLS's client.
    @param clock: calls later.
    """
    producer = stream.producer
    if producer is not None:
        stream.unregisterProducer()
    # This factory makes no protocols: the stream has one.
    none = cast(IProtocolFactory, None)
    factory = TLSMemoryBIOFactory(contextFactory, isClient, none, clock)
    tls = TLSMemoryBIOProtocol(factory, stream.protocol, False)
    stream.protocol = tls
    # From here on the application's calls go to TLS, and those of TLS to the stream.
    stream.__class__ = TLSStream
    tls.makeConnection(cast(ITransport, _Beneath(cast(TLSStream, stream))))
    if producer is not None:
        stream.registerProducer(*producer)


@implementer(ISSLTransport)
class TLSStream(Stream):  # type: ignore[override]
    """
    A stream whose application goes through TLS.
    """

    __slots__ = ()

    @property
    def _tls(self) -> Any:
        return self.protocol

    def startTLS(
        self, contextFactory: IOpenSSLContextFactory, normal: bool = True
    ) -> None:
        """
        Fail: there is TLS already.

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
        Finish TLS, then close the stream.
        """
        if self.connected and not self.disconnecting:
            self._tls.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Have a producer paused and resumed as output goes.
        """
        self._tls.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """
        Forget the producer.
        """
        self._tls.unregisterProducer()

    def getPeerCertificate(self) -> Any:
        """
        @return: the certificate of the peer, if it has shown one.
        """
        return self._tls.getPeerCertificate()

    def getHandle(self) -> Any:
        """
        @return: the connection of OpenSSL.
        """
        return self._tls.getHandle()


class _Beneath:
    """
    The same stream without TLS: the transport of TLS itself.

    @ivar _own: has the methods of L{Stream}, not those that L{TLSStream} has instead.
    """

    def __init__(self, stream: TLSStream) -> None:
        self._own = super(TLSStream, stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)
