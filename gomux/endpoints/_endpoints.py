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

from collections.abc import Hashable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
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
from gomux._mux.pool import MuxPool
from gomux._mux.protocol import MuxProtocol
from gomux._wire.keyring import Keyring
from gomux._wire.request import checkServiceName
from gomux.endpoints._clientmux import ClientMux
from gomux.endpoints._ports import MuxPort, SharedPort
from gomux.limits import IDLE_TIMEOUT, WAIT_TIMEOUT

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gomux.interfaces import IStreamFactory

__all__ = [
    "MuxClientEndpoint",
    "MuxPort",
    "MuxServerEndpoint",
    "StreamClientEndpoint",
    "StreamPort",
    "StreamServerEndpoint",
]

#: The ports of carriers on which endpoints listen: one per reactor, carrier, key and
#: settings.
_ports: WeakKeyDictionary[Any, dict[Hashable, SharedPort]] = WeakKeyDictionary()


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
    @ivar _service: see L{__init__}.
    """

    def __init__(
        self,
        reactor: Any,
        carrier: IStreamClientEndpoint,
        psk: bytes | str | Keyring,
        *,
        service: str | None = None,
        peer: str | None = None,
        timeout: float = WAIT_TIMEOUT,
        idleTimeout: float = IDLE_TIMEOUT,
        **settings: Unpack[Settings],
    ) -> None:
        """
        @param reactor: the reactor.
        @param carrier: the endpoint that connects the carrier.
        @param psk: the pre-shared key; text stands for its UTF-8 bytes.
        @param service: the name of the peer's service to connect to; C{None} to connect
            to what the peer serves without a name.
        @param peer: the name of the peer, which says whose key to use; C{None} if there
            is a single key.
        @param timeout: how long L{connect} waits for a mux, in seconds.
            Meanwhile a carrier that fails to connect is tried again.  With a service,
            this is also the time for the peer's greeting and its answer.
        @param idleTimeout: how long a mux without streams is kept, in seconds.
        @param settings: C{limits}, C{greet}, C{strict}, C{context} and C{salts},
            as for L{MuxFactory<gomux.MuxFactory>}.
        @raise ValueError: if C{psk} is empty, if no key has the name C{peer} or such a
            name is needed, or if C{service} is not a valid name.
        """
        self._service = None if service is None else checkServiceName(service)
        self._mux = ClientMux(
            reactor, carrier, psk, peer=peer, idleTimeout=idleTimeout, **settings
        )
        self._timeout = timeout

    @classmethod
    def sharing(
        cls, mux: ClientMux, timeout: float = WAIT_TIMEOUT, service: str | None = None
    ) -> MuxClientEndpoint:
        """
        Make an endpoint that shares a mux with other endpoints.

        @param mux: the shared mux.
        @param timeout: how long L{connect} of this endpoint waits, in seconds.
        @param service: the name of the peer's service.
        @return: the endpoint.
        @raise ValueError: if C{service} is not a valid name.
        """
        self = cls.__new__(cls)
        self._service = None if service is None else checkServiceName(service)
        self._mux = mux
        self._timeout = timeout
        return self

    @property
    def mux(self) -> ClientMux:
        """
        The dialler of the mux, with the carrier, the key and the settings.
        """
        return self._mux

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Open a stream.

        @param protocolFactory: makes the stream's protocol.
        @return: the protocol, connected.  The Deferred can be cancelled.  If
            there is no mux in time, it fails with
            L{OpenStreamError<gomux.OpenStreamError>}, a
            L{ConnectError<twisted.internet.error.ConnectError>} that gives the
            reason.  With a service, it fires once the peer has accepted the stream.
            Then it fails with a L{RequestRefused<gomux.RequestRefused>} if the peer
            refuses the stream or does not answer in time, and with
            L{NoRequests<gomux.NoRequests>} if the peer knows no services.
        """
        return self._mux.openStream(protocolFactory, self._timeout, self._service)

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

    Several endpoints with the same carrier, key and settings, each with a service of
    its own, share one port.  At most one of them may have no service.

    @ivar _carrier: listens for the carriers.
    @ivar _service: see L{__init__}.
    @ivar _peer: see L{__init__}.
    @ivar _makeFactory: makes the factory of the muxes.
    @ivar _shared: the ports of the reactor.
    @ivar _key: the key of the endpoint's port among them.
    """

    def __init__(
        self,
        reactor: Any,
        carrier: IStreamServerEndpoint,
        psk: bytes | str | Keyring,
        *,
        service: str | None = None,
        peer: str | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        """
        @param reactor: the reactor.
        @param carrier: the endpoint that listens for carriers.
        @param psk: the pre-shared key; text stands for its UTF-8 bytes.
        @param service: the name of the service; C{None} to serve the streams that peers
            open without a name.
        @param peer: the name of the only peer that may use this service; C{None} if all
            may.
        @param settings: C{limits}, C{greet}, C{strict}, C{context} and C{salts},
            as for L{MuxFactory<gomux.MuxFactory>}.
        @raise ValueError: if C{psk} is empty, if no key has the name C{peer}, or if
            C{service} is not a valid name.
        """
        self._service = None if service is None else checkServiceName(service)
        self._peer = peer
        self._carrier = carrier
        self._makeFactory = lambda: MuxFactory(psk, False, clock=reactor, **settings)
        # Raises for a bad key now, before anything listens.
        keyring = self._makeFactory().keyring
        if peer is not None:
            keyring.single(peer)
        keys = frozenset(keyring.keys)
        self._shared = _ports.setdefault(reactor, {})
        # A port that is shared refers to its carrier, so no other has the same id.
        self._key: tuple[Hashable, ...] = (
            id(carrier),
            keys,
            *sorted(settings.items()),
        )

    @classmethod
    def described(
        cls,
        description: str,
        reactor: Any,
        carrier: IStreamServerEndpoint,
        psk: Keyring,
        service: str | None,
        peer: str | None,
        **settings: Unpack[Settings],
    ) -> MuxServerEndpoint:
        """
        Make an endpoint that shares its port with others whose carriers are described
        by the same string.

        @param description: the string of the carrier.
        @return: the endpoint.
        """
        self = cls(reactor, carrier, psk, service=service, peer=peer, **settings)
        self._key = (description, *self._key[1:])
        return self

    def listen(  # type: ignore[override]
        self, protocolFactory: IProtocolFactory
    ) -> Deferred[MuxPort]:
        """
        Listen on the carrier, unless another endpoint that shares its port does so
        already.

        @param protocolFactory: makes the protocol of each stream.
        @return: a L{MuxPort}.  Fails as the carrier's C{listen} does, and with
            L{CannotListenError<twisted.internet.error.CannotListenError>} if another
            endpoint on this port has the same service.
        """
        shared = self._shared.get(self._key)
        if shared is None or (self._service is None and shared.serves(None)):
            # For the second endpoint without a name, the carrier decides.
            factory = self._makeFactory()
            shared = SharedPort(self._carrier, factory, self._shared, self._key)
        return shared.listen(self._service, protocolFactory, self._peer)


class StreamOpener(Protocol):
    """
    An object that opens streams: a L{MuxProtocol<gomux.MuxProtocol>}, or the
    L{pool<gomux.MuxFactory.pool>} of a L{MuxFactory<gomux.MuxFactory>}.
    """

    def openStream(
        self, factory: IProtocolFactory, *, service: str | None = None
    ) -> Deferred[IProtocol]:
        """
        Open a stream.
        """


@implementer(IStreamClientEndpoint)
class StreamClientEndpoint:
    """
    Connects by opening streams over a mux that already exists.  Both the client
    and the server of the mux may use it.

    @ivar _openStream: opens the streams.
    @ivar _service: see L{__init__}.
    """

    def __init__(
        self, mux: StreamOpener, service: str | None = None, peer: str | None = None
    ) -> None:
        """
        @param mux: the mux or pool that opens the streams.
        @param service: the name of the peer's service to connect to; C{None} for none.
        @param peer: for a pool, the name of the peer to which streams are opened;
            C{None} for each peer in turn.
        @raise ValueError: if C{service} is not a valid name, or if C{peer} is given for
            a mux, whose peer is there already.
        """
        self._openStream = mux.openStream
        if peer is not None:
            if not isinstance(mux, MuxPool):
                raise ValueError("peer is for a pool: a mux has a single peer")
            self._openStream = partial(mux.openStream, peer=peer)
        self._service = None if service is None else checkServiceName(service)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Open a stream.

        @param protocolFactory: makes the stream's protocol.
        @return: the protocol, connected.  With a service, once the peer has accepted
            the stream.
        """
        return self._openStream(protocolFactory, service=self._service)


@implementer(IStreamServerEndpoint)
class StreamServerEndpoint:
    """
    Serves the streams that the peer opens over a mux that already exists, or
    that all peers open over the muxes of a factory.

    @ivar _mux: the mux or the factory.
    @ivar _service: see L{__init__}.
    """

    def __init__(
        self, mux: MuxProtocol | MuxFactory, service: str | None = None
    ) -> None:
        """
        @param mux: the mux, or the factory of the muxes.
        @param service: the name of the service; C{None} to serve the streams that peers
            open without a name.
        @raise ValueError: if C{service} is not a valid name.
        """
        self._mux = mux
        self._service = None if service is None else checkServiceName(service)

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
        port = StreamPort(self._mux, protocolFactory, self._service)
        if port.served is not None:
            return fail(
                CannotListenError("gomux", self._mux, "its streams are served already")
            )
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
    @ivar _service: the name of the service; C{None} for streams without one.
    """

    def __init__(
        self,
        mux: MuxProtocol | MuxFactory,
        factory: IProtocolFactory,
        service: str | None = None,
    ) -> None:
        self._mux = mux
        self._factory = factory
        self._service = service

    def __repr__(self) -> str:
        return f"<StreamPort of {self._mux!r}>"

    @property
    def served(self) -> IStreamFactory | IProtocolFactory | None:
        """
        The factory that serves the streams now, if there is one.
        """
        if self._service is None:
            return self._mux.streamFactory
        return self._mux.services.get(self._service)

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
        if self._service is None:
            self._mux.streamFactory = self._factory
        else:
            self._mux.services = {**self._mux.services, self._service: self._factory}

    def stopListening(self) -> Deferred[None]:
        """
        Refuse new streams.  Open streams stay open.

        @return: a Deferred that has fired.
        """
        if self.served is not self._factory:
            return succeed(None)
        if self._service is None:
            self._mux.streamFactory = None
        else:
            services = dict(self._mux.services)
            del services[self._service]
            self._mux.services = services
        return maybeDeferred(self._factory.doStop)
