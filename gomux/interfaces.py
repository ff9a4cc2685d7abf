# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The interfaces that users of gomux implement and call, besides Twisted's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IAddress, IProtocol
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from gomux.error import GomuxError


class IStreamFactory(Interface):
    """
    Makes the protocols of streams.  Every
    L{IProtocolFactory<twisted.internet.interfaces.IProtocolFactory>} can be used.
    """

    def buildProtocol(addr: IAddress) -> IProtocol | None:
        """
        Make the protocol of one stream.

        @param addr: the L{gomux.StreamAddress} of the peer's end.
        @return: the protocol, or C{None} to refuse the stream.
        """


class IMux(Interface):
    """
    One mux: many streams over one carrier.
    """

    bytesReceived: int = Attribute("How many bytes were received from the carrier.")
    bytesSent: int = Attribute("How many bytes were written to the carrier.")
    streamCount: int = Attribute("How many streams are open.")

    def openStream(
        factory: IStreamFactory, service: str | None = None
    ) -> Deferred[IProtocol]:
        """
        Open a stream to the peer.

        Without a service there is no accept message in the protocol: a peer that
        refuses the stream aborts it, and a Go peer closes it.  With a service, the peer
        has to accept the stream first.

        @param factory: makes the stream's protocol, for the L{gomux.StreamAddress} of
            the peer's end.
        @param service: the name of one of the peer's services; C{None} for none.
        @return: fires with the protocol, once it is connected.  Fails with
            L{gomux.OpenStreamError} if no stream can be opened on this mux now, and
            with L{twisted.internet.error.NoProtocol} if the factory makes no protocol.
            While the stream waits for the peer to show its key, or to accept the
            stream, this can be cancelled, and fails if the mux ends.  With a service,
            it fails with a L{gomux.RequestRefused} if the peer refuses the stream, and
            with L{gomux.NoRequests} if the peer knows no services.
        """

    def close() -> Deferred[GomuxError]:
        """
        Send the output of all streams and close them, then close the mux.  After
        L{gomux.Limits.closeTimeout} the carrier is aborted.

        @return: as for L{whenClosed}.
        """

    def abort() -> None:
        """
        Drop the carrier at once.
        """

    def whenClosed() -> Deferred[GomuxError]:
        """
        Wait for the end of the mux.

        @return: fires with the reason once the carrier is gone and every stream has
            ended.  It never fails.
        """
