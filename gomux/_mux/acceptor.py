# -*- test-case-name: gomux.test.mux.test_requests -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The making of the protocols of the streams that the peer opens, with a request or
without one, and the time that a request may take.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.logger import Logger

from gomux._mux.deadlines import Deadlines
from gomux._mux.log import CountedLog
from gomux._wire.peerrules import NOBODY
from gomux._wire.request import Request
from gomux.error import RequestRefused

if TYPE_CHECKING:
    from gomux._mux.address import StreamAddress
    from gomux._mux.owner import CarriedMux, MuxOwner
    from gomux.interfaces import IStreamFactory

_log = Logger()

# Why a stream without a request is refused, by the code that a request would get.
_PLAIN = {
    "unknown": "nothing serves the peer's streams",
    "not-allowed": "the peer may not use streams without a service",
    "busy": "the peer has as many streams as its rule for maxStreams allows",
    "refused": "the factory made no protocol",
}


class WaitingStream(Protocol):
    """
    The protocol of a stream whose request is not complete.
    """

    def failed(self, why: str) -> None:
        """
        Abort the stream.

        @param why: what is wrong with the request.
        """


class Acceptor:
    """
    Makes the protocols of the streams that the peer opens, and says why it makes none.

    @ivar use: what the peer may use, and what it uses.
    @ivar _mux: the mux.
    @ivar _owner: the mux's factory.
    """

    def __init__(self, mux: CarriedMux, owner: MuxOwner[Any]) -> None:
        """
        @param mux: the mux.
        @param owner: the mux's factory.
        """
        self.use = NOBODY
        self._mux = mux
        self._owner = owner

    @cached_property
    def waiting(self) -> Deadlines[WaitingStream]:
        """
        The streams whose request is not complete.
        """
        owner = self._owner
        seconds = owner.limits.requestTimeout
        return Deadlines(owner.clock, seconds, self._tooLate, owner.turns)

    @cached_property
    def _refusals(self) -> CountedLog:
        """
        Logs why streams without a request are refused.
        """
        return CountedLog(self._owner.notices, self._owner.clock)

    # Streams without a request

    def makePlain(self, address: StreamAddress) -> IProtocol | None:
        """
        @param address: the peer's end of a stream without a request.
        @return: the stream's protocol; C{None} to refuse the stream.
        """
        made = self.make(None, address)
        if not isinstance(made, str):
            return made
        if made != "failed":
            self._logRefused(_PLAIN.get(made, f"the factory answers: {made}"))
        return None

    def refuse(self, why: str, code: str) -> None:
        """
        Count and log that a stream is refused, whatever it asks for.

        @param code: the code that a request would get.
        """
        self._owner.tally.refused[code] += 1
        self._logRefused(why)

    def _logRefused(self, why: str) -> None:
        """
        Log that a stream without a request is refused.
        """
        self._refusals.warn(
            f"{{mux}} refused {{count}} of the peer's streams: {why}", mux=self._mux
        )

    # All streams

    def make(self, request: Request | None, address: StreamAddress) -> IProtocol | str:
        """
        Make the protocol of a stream that the peer opens, and count the stream.

        @param request: the stream's request; C{None} for a stream without one.
        @param address: the peer's end of the stream.
        @return: the protocol, or the code of a refusal.  With a protocol, the stream
            counts as the peer's until C{connectionLost} was called.
        """
        service = None if request is None else request.service
        isService = request is None or service is not None
        # This side connects to nothing.
        made = self._make(service, address) if isService else "not-allowed"
        tally = self._owner.tally
        if not isinstance(made, str):
            tally.serving(service).began()
        elif isService and self._factoryOf(service) is not None:
            tally.serving(service).refused(made)
        else:
            # Not counted by the name: the peer can choose any.
            tally.refused[made] += 1
        return made

    def failed(self, service: str | None, code: str) -> None:
        """
        Count a stream that is refused after its protocol was made.
        """
        self._owner.tally.serving(service).failures[code] += 1

    def lost(self, service: str | None) -> None:
        """
        C{connectionLost} of the protocol that L{make} has made was called.
        """
        self.use.streams -= 1
        self._owner.tally.serving(service).open -= 1

    def _make(self, service: str | None, address: IAddress) -> IProtocol | str:
        owner, use = self._owner, self.use
        if not use.mayUse(service):
            return "not-allowed"
        try:
            if owner.mayUse is not None and not owner.mayUse(
                self._mux.peerName, service
            ):
                return "not-allowed"
            if use.isFull:
                return "busy"
            factory = self._factoryOf(service)
            if factory is None:
                return "unknown"
            protocol = factory.buildProtocol(address)
        except RequestRefused as error:
            return error.code
        except BaseException:
            owner.notices.failure(
                "{mux} refused stream {id} of the peer: buildProtocol failed",
                id=getattr(address, "streamID", None),
                mux=self._mux,
            )
            return "failed"
        if protocol is None:
            return "refused"
        use.streams += 1
        return protocol

    def _factoryOf(
        self, service: str | None
    ) -> IStreamFactory | IProtocolFactory | None:
        """
        @return: the factory of a service, of the mux or of all muxes of its factory.
        """
        mux, owner = self._mux, self._owner
        if service is None:
            own = mux.streamFactory
            return owner.streamFactory if own is None else own
        own = mux.services.get(service)
        return owner.services.get(service) if own is None else own

    # Streams whose request is not complete

    def _tooLate(self, accepting: WaitingStream) -> None:
        """
        Abort a stream that has waited for too long.
        """
        seconds = self.waiting.timeout
        accepting.failed(f"it was not complete within {seconds:g} seconds")

    # The log

    def logRefusal(self, what: str, service: str, code: str) -> None:
        """
        Log that a request was refused.

        @param what: by whom, as the start of a sentence about the mux.
        """
        self._owner.notices.warn(
            f"{{mux}}: {what} for {{service}}: {{code}}",
            kind=code,
            mux=self._mux,
            service=service,
            code=code,
        )

    def logBroken(self, what: str, stream: object, why: str) -> None:
        """
        Log that a stream is aborted because of a message.

        @param what: the message.
        """
        self._owner.notices.warn(
            f"aborted {{stream}} because of {what}: {{why}}", stream=stream, why=why
        )
