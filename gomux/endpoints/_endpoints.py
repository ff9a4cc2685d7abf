# -*- test-case-name: gomux.test.endpoints.test_endpoints -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Streams as endpoints: whatever connects or listens through one can do so over a
mux.

L{MuxClientEndpoint} and L{MuxServerEndpoint} go over any other endpoint, their
I{carrier}.  L{StreamClientEndpoint} and L{StreamServerEndpoint} take a mux that
is there already, and let either side of it listen as well as connect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, fail, gatherResults, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from gomux._mux.dialler import Settings
from gomux._mux.factory import MuxFactory
from gomux._mux.protocol import MuxProtocol
from gomux._wire.keyring import Keyring
from gomux.endpoints._clientmux import ClientMux
from gomux.limits import IDLE_TIMEOUT, WAIT_TIMEOUT

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "MuxClientEndpoint",
    "MuxPort",
    "MuxServerEndpoint",
    "StreamClientEndpoint",
    "StreamPort",
    "StreamServerEndpoint",
]


@implementer(IStreamClientEndpoint)
class MuxClientEndpoint:
    """
    Connects by opening streams over a mux of its own.

    The mux is made when the first stream is wanted, and shared by all that
    follow.  If it is lost, its streams are lost with it, and the next one to
    be wanted makes another.  It is closed when it has had no streams for a
    while, when the reactor stops, or with L{close}.

    No stream is opened twice: what was under way on a mux that is lost fails,
    as it would over TCP.
    """

    def __init__(
        self,
        reactor: Any,
        carrier: IStreamClientEndpoint,
        psk: bytes | str | Keyring,
        *,
        timeout: float = WAIT_TIMEOUT,
        idleTimeout: float = IDLE_TIMEOUT,
        **settings: Unpack[Settings],
    ) -> None:
        """
        @param reactor: the reactor.
        @param carrier: connects the mux.
        @param psk: the pre-shared key; text stands for its UTF-8 bytes.
        @param timeout: how long L{connect} waits for a mux, in seconds.  As
            long as somebody waits, connecting the carrier is tried again and
            again.
        @param idleTimeout: how long a mux without streams is kept, in seconds.
        @param settings: C{limits}, C{greet}, C{strict}, C{context} and C{salts},
            as for L{MuxFactory<gomux.MuxFactory>}.
        @raise ValueError: if C{psk} is empty.
        """
        self._mux = ClientMux(
            reactor, carrier, psk, idleTimeout=idleTimeout, **settings
        )
        self._timeout = timeout

    @classmethod
    def sharing(
        cls, mux: ClientMux, timeout: float = WAIT_TIMEOUT
    ) -> MuxClientEndpoint:
        """
        Make an endpoint whose mux others have too.

        @param mux: what they share.
        @param timeout: how long this one's L{connect} waits, in seconds.
        @return: the endpoint.
        """
        self = cls.__new__(cls)
        self._mux = mux
        self._timeout = timeout
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Open a stream.

        @param protocolFactory: makes the stream's protocol.
        @return: the protocol, connected.  It can be cancelled.  Fails with
            L{OpenStreamError<gomux.OpenStreamError>}, a
            L{ConnectError<twisted.internet.error.ConnectError>}, that says why
            when there was no mux in time.
        """
        return self._mux.openStream(protocolFactory, self._timeout)

    def close(self) -> Deferred[None]:
        """
        Close the mux, if there is one: every stream once its output is sent,
        then the rest, bounded by L{gomux.Limits.closeTimeout}.  Whoever waits
        for a stream does not get it.  The next L{connect} makes another mux.

        @return: fires when the mux is gone.
        """
        return self._mux.close()


@implementer(IStreamServerEndpoint)
class MuxServerEndpoint:
    """
    Listens for muxes, and serves the streams that the peers open over them.
    """

    def __init__(
        self,
        reactor: Any,
        carrier: IStreamServerEndpoint,
        psk: bytes | str | Keyring,
        **settings: Unpack[Settings],
    ) -> None:
        """
        @param reactor: the reactor.
        @param carrier: listens for muxes.
        @param psk: the pre-shared key; text stands for its UTF-8 bytes.
        @param settings: C{limits}, C{greet}, C{strict}, C{context} and C{salts},
            as for L{MuxFactory<gomux.MuxFactory>}.
        @raise ValueError: if C{psk} is empty.
        """
        self._carrier = carrier
        self._makeFactory = lambda streamFactory: MuxFactory(
            psk, False, streamFactory, clock=reactor, **settings
        )
        # Complains about the key now, not when it is too late.
        self._makeFactory(None)

    def listen(  # type: ignore[override]
        self, protocolFactory: IProtocolFactory
    ) -> Deferred[MuxPort]:
        """
        Listen on the carrier.

        @param protocolFactory: makes the protocol of each stream.
        @return: a L{MuxPort}, or whatever kept the carrier from listening.
        """
        factory = self._makeFactory(protocolFactory)
        listening: Deferred[IListeningPort] = self._carrier.listen(factory)
        return listening.addCallback(MuxPort, factory)


@implementer(IListeningPort)
class MuxPort:
    """
    Where muxes arrive whose streams are served.

    @ivar factory: makes the muxes; its C{pool} has those that are up.
    """

    def __init__(self, port: IListeningPort, factory: MuxFactory) -> None:
        self._port = port
        self.factory = factory

    def __repr__(self) -> str:
        return f"<MuxPort on {self._port!r}>"

    def getHost(self) -> IAddress:
        """
        @return: where the carrier listens.
        """
        return self._port.getHost()

    def startListening(self) -> None:
        """
        Listen again.
        """
        self._port.startListening()

    def stopListening(self) -> Deferred[None]:
        """
        Accept no more muxes, nor streams on those that are up.

        As TCP's connections, streams that are open stay open.  A mux is closed
        when it has none left.  L{close} ends them all.

        @return: fires when the carrier does not listen any more, and the muxes
            that had no streams are gone.
        """
        stopped: Deferred[Any] = maybeDeferred(self._port.stopListening)
        idle = [mux for mux in self.factory.muxes if not mux.streamCount]
        for mux in list(self.factory.muxes):
            mux.drain()
        return stopped.addCallback(_whenClosed, idle)

    def close(self) -> Deferred[None]:
        """
        Stop listening, and close all muxes: every stream once its output is
        sent, then the rest, bounded by L{gomux.Limits.closeTimeout}.

        @return: fires when all are gone.
        """
        muxes = list(self.factory.muxes)
        for mux in muxes:
            mux.close()
        return self.stopListening().addBoth(_whenClosed, muxes)


def _whenClosed(result: Any, muxes: list[MuxProtocol]) -> Deferred[Any]:
    """
    @return: fires with C{result} once all muxes are gone.
    """
    closed: Deferred[Any] = gatherResults([mux.whenClosed() for mux in muxes])
    return closed.addCallback(lambda _: result)


class StreamOpener(Protocol):
    """
    What opens streams: a L{MuxProtocol<gomux.MuxProtocol>}, or the
    L{pool<gomux.MuxFactory.pool>} of a L{MuxFactory<gomux.MuxFactory>}.
    """

    def openStream(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Open a stream.
        """


@implementer(IStreamClientEndpoint)
class StreamClientEndpoint:
    """
    Connects by opening streams over a mux that is there already, whichever
    side it was that connected its carrier.
    """

    def __init__(self, mux: StreamOpener) -> None:
        """
        @param mux: opens the streams.
        """
        self._mux = mux

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Open a stream.

        @param protocolFactory: makes the stream's protocol.
        @return: the protocol, connected.
        """
        return self._mux.openStream(protocolFactory)


@implementer(IStreamServerEndpoint)
class StreamServerEndpoint:
    """
    Serves the streams that the peer opens over a mux that is there already, or
    that all peers open over the muxes of a factory.
    """

    def __init__(self, mux: MuxProtocol | MuxFactory) -> None:
        """
        @param mux: the mux, or the factory of the muxes.
        """
        self._mux = mux

    def listen(  # type: ignore[override]
        self, protocolFactory: IProtocolFactory
    ) -> Deferred[StreamPort]:
        """
        Serve the streams that are opened from now on.

        @param protocolFactory: makes the protocol of each.
        @return: a L{StreamPort}.  Fails with L{CannotListenError
            <twisted.internet.error.CannotListenError>} if there is
            a factory for these streams already.
        """
        if self._mux.streamFactory is not None:
            return fail(
                CannotListenError("gomux", self._mux, "its streams are served already")
            )
        port = StreamPort(self._mux, protocolFactory)
        port.startListening()
        return succeed(port)


@implementer(IListeningPort)
class StreamPort:
    """
    Where streams arrive.
    """

    def __init__(
        self, mux: MuxProtocol | MuxFactory, factory: IProtocolFactory
    ) -> None:
        self._mux = mux
        self._factory = factory

    def __repr__(self) -> str:
        return f"<StreamPort of {self._mux!r}>"

    def getHost(self) -> IAddress:
        """
        @return: this end of the mux's carrier, or of the first one's that is
            up.
        @raise ValueError: if the factory has no mux that is up.
        """
        if isinstance(self._mux, MuxProtocol):
            mux = self._mux
        elif not self._mux.pool.muxes:
            raise ValueError("no mux is up")
        else:
            mux = self._mux.pool.muxes[0]
        return mux.getCarrier().getHost()

    def startListening(self) -> None:
        """
        Serve streams, also after L{stopListening}.
        """
        self._factory.doStart()
        self._mux.streamFactory = self._factory

    def stopListening(self) -> Deferred[None]:
        """
        Refuse streams from now on; those that are open stay open.

        @return: has fired.
        """
        if self._mux.streamFactory is self._factory:
            self._mux.streamFactory = None
            self._factory.doStop()
        return succeed(None)
