# -*- test-case-name: gomux.test.endpoints.test_endpoints -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Twisted endpoints whose connections are the streams of a mux.

L{MuxClientEndpoint} and L{MuxServerEndpoint} make muxes over any other endpoint,
their I{carrier}.  L{StreamClientEndpoint} and L{StreamServerEndpoint} use a mux that
already exists.  Either side of that mux can both listen and connect.
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
from twisted.python.failure import Failure
from zope.interface import implementer

from gomux._mux.dialler import Settings
from gomux._mux.factory import MuxFactory
from gomux._mux.newcomer import Newcomers
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

    The first L{connect} dials the mux, and later calls share it.  If the mux is
    lost, its streams are lost with it, and the next L{connect} dials another.  The
    mux is closed when it has had no streams for a while, when the reactor stops,
    or with L{close}.

    A lost stream is not opened again: its protocol loses its connection, as it
    would over TCP.

    @ivar _mux: dials the mux, and opens the streams.
    @ivar _timeout: see L{__init__}.
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
        @param carrier: the endpoint that connects the carrier.
        @param psk: the pre-shared key; text stands for its UTF-8 bytes.
        @param timeout: how long L{connect} waits for a mux, in seconds.
            Meanwhile a carrier that fails to connect is tried again.
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
        Make an endpoint that shares a mux with other endpoints.

        @param mux: the shared mux.
        @param timeout: how long L{connect} of this endpoint waits, in seconds.
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
        @return: the protocol, connected.  The Deferred can be cancelled.  If
            there is no mux in time, it fails with
            L{OpenStreamError<gomux.OpenStreamError>}, a
            L{ConnectError<twisted.internet.error.ConnectError>} that gives the
            reason.
        """
        return self._mux.openStream(protocolFactory, self._timeout)

    def close(self) -> Deferred[None]:
        """
        Close the mux, if there is one.  Each stream first sends its output, for
        at most L{gomux.Limits.closeTimeout} seconds.  Calls of L{connect} that
        wait for a mux fail.  The next L{connect} dials another mux.

        @return: fires when the mux is gone.
        """
        return self._mux.close()


@implementer(IStreamServerEndpoint)
class MuxServerEndpoint:
    """
    Listens for muxes, and serves the streams that peers open over them.

    @ivar _carrier: listens for the carriers.
    @ivar _makeFactory: makes the factory of the muxes from a stream factory.
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
        @param carrier: the endpoint that listens for carriers.
        @param psk: the pre-shared key; text stands for its UTF-8 bytes.
        @param settings: C{limits}, C{greet}, C{strict}, C{context} and C{salts},
            as for L{MuxFactory<gomux.MuxFactory>}.
        @raise ValueError: if C{psk} is empty.
        """
        self._carrier = carrier
        self._makeFactory = lambda streamFactory: MuxFactory(
            psk, False, streamFactory, clock=reactor, **settings
        )
        # Raises for a bad key now, before anything listens.
        self._makeFactory(None)

    def listen(  # type: ignore[override]
        self, protocolFactory: IProtocolFactory
    ) -> Deferred[MuxPort]:
        """
        Listen on the carrier.

        @param protocolFactory: makes the protocol of each stream.
        @return: a L{MuxPort}.  Fails as the carrier's C{listen} does.
        """
        factory = self._makeFactory(protocolFactory)
        listening: Deferred[IListeningPort] = self._carrier.listen(Newcomers(factory))
        return listening.addCallback(MuxPort, factory)


@implementer(IListeningPort)
class MuxPort:
    """
    The listening port of a L{MuxServerEndpoint}.

    @ivar factory: makes the muxes.  Its C{pool} has the muxes that are up.
    @ivar _port: the listening port of the carrier.
    """

    def __init__(self, port: IListeningPort, factory: MuxFactory) -> None:
        self._port = port
        self.factory = factory

    def __repr__(self) -> str:
        return f"<MuxPort on {self._port!r}>"

    def getHost(self) -> IAddress:
        """
        @return: the address that the carrier listens on.
        """
        return self._port.getHost()

    def startListening(self) -> None:
        """
        Listen again.
        """
        self.factory.retired = False
        self._port.startListening()

    def stopListening(self) -> Deferred[None]:
        """
        Accept no more muxes, and no more streams on the muxes that are up.  A mux that
        was accepted before but comes up later is closed as soon as it is up.

        Open streams stay open, as TCP connections do.  A mux is closed when its
        last stream ends.  L{close} ends all streams and muxes.

        @return: fires when the carrier has stopped listening and the muxes
            that had no streams are gone.
        """
        # stdio: has no port, only the carrier itself.
        stop = getattr(self._port, "stopListening", lambda: None)
        stopped: Deferred[Any] = maybeDeferred(stop)
        self.factory.retire()
        idle = [mux for mux in self.factory.muxes if not mux.streamCount]
        return stopped.addCallback(_whenClosed, idle)

    def close(self) -> Deferred[None]:
        """
        Stop listening, and close all muxes.  Each stream first sends its output,
        for at most L{gomux.Limits.closeTimeout} seconds.

        @return: fires when all muxes are gone.
        """
        stopped = self.stopListening()
        muxes = list(self.factory.muxes)
        for mux in muxes:
            if mux.streamCount:
                mux.close()
        return stopped.addBoth(_whenClosed, muxes)


def _whenClosed(result: Any, muxes: list[MuxProtocol]) -> Deferred[Any]:
    """
    @return: fires with C{result} once all muxes are gone.
    """
    closed: Deferred[Any] = gatherResults([mux.whenClosed() for mux in muxes])
    return closed.addCallback(lambda _: result)


class StreamOpener(Protocol):
    """
    An object that opens streams: a L{MuxProtocol<gomux.MuxProtocol>}, or the
    L{pool<gomux.MuxFactory.pool>} of a L{MuxFactory<gomux.MuxFactory>}.
    """

    def openStream(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Open a stream.
        """


@implementer(IStreamClientEndpoint)
class StreamClientEndpoint:
    """
    Connects by opening streams over a mux that already exists.  Both the client
    and the server of the mux may use it.

    @ivar _mux: the mux.
    """

    def __init__(self, mux: StreamOpener) -> None:
        """
        @param mux: the mux or pool that opens the streams.
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
    Serves the streams that the peer opens over a mux that already exists, or
    that all peers open over the muxes of a factory.

    @ivar _mux: the mux or the factory.
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

        @param protocolFactory: makes the protocol of each stream.
        @return: a L{StreamPort}.  Fails with L{CannotListenError
            <twisted.internet.error.CannotListenError>} if another factory
            already serves these streams.
        """
        if self._mux.streamFactory is not None:
            return fail(
                CannotListenError("gomux", self._mux, "its streams are served already")
            )
        port = StreamPort(self._mux, protocolFactory)
        try:
            port.startListening()
        except BaseException:
            return fail(Failure())
        return succeed(port)


@implementer(IListeningPort)
class StreamPort:
    """
    The listening port of a L{StreamServerEndpoint}.

    @ivar _mux: the mux, or the factory of muxes, whose streams are served.
    @ivar _factory: makes the protocol of each stream.
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
        @return: the local address of the mux's carrier.  For a factory, that of
            its first mux that is up.
        @raise ValueError: if no mux of the factory is up.
        """
        if isinstance(self._mux, MuxProtocol):
            mux = self._mux
        elif not self._mux.pool.muxes:
            raise ValueError("no mux is up")
        else:
            mux = self._mux.pool.muxes[0]
        return mux.getHost()

    def startListening(self) -> None:
        """
        Serve streams, or serve them again after L{stopListening}.
        """
        self._factory.doStart()
        self._mux.streamFactory = self._factory

    def stopListening(self) -> Deferred[None]:
        """
        Refuse new streams.  Open streams stay open.

        @return: a Deferred that has fired.
        """
        if self._mux.streamFactory is not self._factory:
            return succeed(None)
        self._mux.streamFactory = None
        return maybeDeferred(self._factory.doStop)
