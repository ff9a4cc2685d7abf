# -*- test-case-name: gomux.test.tunnel.test_ping -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
C{python -m gomux ping}: whether a peer can be reached, has the key, and is in the same
mode.

A peer of this software answers the first frame if its key and mode are the same.
Otherwise it ends the carrier without an answer, because it may have a stranger before
it.  So L{Pinger} then tries the other mode.

A Go peer answers nothing, but ends the carrier of a peer with another key, and that of
a peer that closes the mux.  So if the carrier stays and ends after CloseMux, the peer
has opened that frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionLost, ConnectionRefusedError

from gomux._mux.factory import MuxFactory
from gomux._mux.protocol import MuxProtocol
from gomux._wire.frame import OVERHEAD
from gomux.endpoints._clientmux import ClientMux
from gomux.error import (
    AuthenticationFailed,
    ConnectionClosed,
    GomuxError,
    HandshakeFailed,
    OutOfSequence,
    ProtocolViolation,
)
from gomux.limits import Limits
from gomux.tunnel.command._run import CommandFailed, gomuxEndpoint

#: The pause between two pings, in seconds.
INTERVAL = 0.2

#: Why a peer that has sent some bytes is no gomux peer.
NO_FRAME = "it sends less than a frame"


async def ping(reactor: Any, endpoint: str, count: int, timeout: float) -> str:
    """
    Connect a mux to a peer, ping the peer and close the mux.

    @param reactor: the reactor.
    @param endpoint: the endpoint string of a client.
    @param count: how many pings to send.
    @param timeout: how long to wait for each answer, in seconds.
    @return: what the peer has shown, in lines.
    @raise CommandFailed: if the peer cannot be reached, or has another key or mode.
    """
    client = gomuxEndpoint(reactor, endpoint).mux
    return await Pinger(reactor, client, timeout).ping(count)


class Refused(CommandFailed):
    """
    The peer has ended the carrier, or has not finished the handshake of strict mode.
    Its cause is the reason of the mux.
    """


class Probe(MuxFactory):
    """
    Makes a single mux.

    @ivar mux: the mux; C{None} before it is connected.
    @ivar echoed: fires when the peer has echoed the next ping.
    """

    mux: MuxProtocol | None = None
    echoed: Deferred[None] | None = None

    def muxConnected(self, mux: MuxProtocol) -> None:
        """
        The carrier is connected.
        """
        self.mux = mux
        super().muxConnected(mux)

    def muxEchoed(self, mux: MuxProtocol) -> None:
        """
        The peer has echoed a ping.
        """
        echoed, self.echoed = self.echoed, None
        if echoed is not None:
            echoed.callback(None)

    def muxLost(self, mux: MuxProtocol, reason: GomuxError) -> None:
        """
        The mux has ended.
        """
        super().muxLost(mux, reason)
        echoed, self.echoed = self.echoed, None
        if echoed is not None and not echoed.called:
            echoed.errback(reason)


class Pinger:
    """
    Finds out what is at the other end of a carrier.

    @ivar _reactor: the reactor.
    @ivar _client: the carrier, the key and the settings.
    @ivar _timeout: how long to wait for each answer, in seconds.
    """

    def __init__(self, reactor: Any, client: ClientMux, timeout: float) -> None:
        self._reactor = reactor
        self._client = client
        self._timeout = timeout

    async def ping(self, count: int) -> str:
        """
        See L{ping}.
        """
        isStrict = bool(self._client.strict)
        try:
            return await self._attempt(isStrict, count)
        except Refused as error:
            refused = error
        try:
            await self._attempt(not isStrict, 0)
        except CommandFailed:
            raise CommandFailed(
                f"{refused}, {_hint(isStrict)} Its log may say more."
                f" ({refused.__cause__})"
            ) from None
        if isStrict:
            raise CommandFailed(
                "the peer has not refused the key, but is not in strict mode: leave"
                " out strict=yes here, or give --strict there; a Go peer has no strict"
                " mode"
            )
        raise CommandFailed(
            "the key is right, but the peer is in strict mode: add strict=yes to the"
            " endpoint string here"
        )

    async def _attempt(self, isStrict: bool, count: int) -> str:
        """
        Connect a mux in one of the modes.

        @return: as for L{ping}.
        """
        probe = self._probe(isStrict)
        mux = await self._connect(probe)
        try:
            return await self._converse(probe, mux, count)
        finally:
            mux.abort()
            await mux.whenClosed()

    def _probe(self, isStrict: bool) -> Probe:
        client, timeout = self._client, self._timeout
        return Probe(
            *(client.keyring, True),
            clock=self._reactor,
            limits=Limits(
                ping=INTERVAL,
                handshakeTimeout=timeout,
                # The time for the end of the mux is limited here.
                closeTimeout=2 * timeout,
            ),
            strict=isStrict,
            context=client.context,
            salts=client.salts,
            strictClock=client.strictClock,
            peer=client.peer,
        )

    async def _connect(self, probe: Probe) -> MuxProtocol:
        connecting = self._client.carrier.connect(probe)
        try:
            await connecting.addTimeout(self._timeout, self._reactor)
        except TimeoutError:
            raise CommandFailed(
                f"no connection came up in {self._timeout:g} seconds: are the host and"
                " the port right, and does a firewall drop packets?"
            ) from None
        except ConnectionRefusedError as error:
            raise CommandFailed(
                f"nothing listens there: is the peer running? ({error})"
            ) from error
        except Exception as error:
            raise CommandFailed(f"cannot connect: {error}") from error
        assert probe.mux is not None
        return probe.mux

    async def _converse(self, probe: Probe, mux: MuxProtocol, count: int) -> str:
        isStrict = bool(probe.strict)
        proving = mux.whenAuthenticated()
        if not isStrict:
            proving.addTimeout(self._timeout, self._reactor)
        try:
            await proving
        except TimeoutError:
            if mux.bytesReceived:
                raise _isOther(NO_FRAME) from None
            await self._closeSilent(mux)
            return _result("not refused", isStrict, False)
        except GomuxError as error:
            raise self._explain(mux, error) from error
        announces = bool(mux.takesRequests)
        times = [await self._echo(probe, mux) for _ in range(count if announces else 0)]
        await self._close(mux)
        return _result("right", isStrict, announces, times)

    def _explain(self, mux: MuxProtocol, error: GomuxError) -> CommandFailed:
        """
        @return: why the peer has not shown that it has the key.
        """
        if isinstance(error, (ProtocolViolation, AuthenticationFailed)):
            if not isinstance(error, OutOfSequence):
                return _isOther(str(error))
        elif 0 < mux.bytesReceived < OVERHEAD:
            return _isOther(NO_FRAME)
        loss = getattr(error, "carrierError", None)
        if loss is not None and not isinstance(loss, ConnectionLost):
            # TLS has failed.
            return CommandFailed(
                f"the carrier does not come up: {loss}; is the peer's certificate valid"
                " for this name, and does the peer use TLS?"
            )
        isSilent = isinstance(error, HandshakeFailed) and "not done" in str(error)
        what = "does not answer" if isSilent else "has ended the connection"
        return Refused(f"the peer {what}")

    async def _echo(self, probe: Probe, mux: MuxProtocol) -> float:
        """
        Wait until the peer has echoed a ping.

        @return: the round trip in seconds.
        """
        echoed = probe.echoed = Deferred()
        try:
            await echoed.addTimeout(INTERVAL + self._timeout, self._reactor)
        except TimeoutError:
            raise CommandFailed(
                "the key is right, but the peer has not echoed a ping in"
                f" {self._timeout:g} seconds"
            ) from None
        except GomuxError as error:
            raise CommandFailed(
                f"the key is right, but the mux has ended: {error}"
            ) from error
        assert mux.roundTrip is not None
        return mux.roundTrip

    async def _close(self, mux: MuxProtocol) -> None:
        """
        Close a mux.

        @raise TimeoutError: if the peer does not end the carrier.
        @raise CommandFailed: if it ended otherwise.
        """
        reason = await mux.close().addTimeout(self._timeout, self._reactor)
        if not isinstance(reason, ConnectionClosed):
            raise CommandFailed(f"the mux has ended: {reason}")

    async def _closeSilent(self, mux: MuxProtocol) -> None:
        """
        Close a mux whose peer has sent nothing, and check that the peer understands.
        """
        try:
            await self._close(mux)
        except TimeoutError:
            raise CommandFailed(
                "the peer has accepted the connection, but answers nothing: is this the"
                " port of a gomux peer, and does it run?"
            ) from None


def _isOther(why: str) -> CommandFailed:
    return CommandFailed(
        "the peer sends something else than gomux: is this the port of its --listen?"
        f" ({why})"
    )


def _result(
    key: str, isStrict: bool, announces: bool, times: Sequence[float] = ()
) -> str:
    """
    @param key: what the peer has shown about the key.
    @param isStrict: whether the mux was in strict mode.
    @param announces: whether the peer has announced what peers of this software do.
    @param times: the round trips in seconds.
    @return: the lines to print.
    """
    peer = "announces nothing, like a Go peer"
    trips = "not known"
    if announces:
        peer = "announces bound nonces, pings and requests"
    if times:
        least, middle, most = (
            f"{1000 * seconds:.3f}"
            for seconds in (min(times), median(times), max(times))
        )
        trips = f"{middle} ms (median of {len(times)}; {least} to {most})"
    return (
        f"key: {key}\n"
        f"mode: {'strict' if isStrict else 'compatible'}\n"
        f"peer: {peer}\n"
        f"round trip: {trips}\n"
    )


def _hint(isStrict: bool) -> str:
    """
    @return: what may be wrong if a peer has refused both modes.
    """
    if isStrict:
        return "also without strict mode: does it have another key or context?"
    return (
        "also in strict mode: does it have another key, or strict mode and a context?"
    )
