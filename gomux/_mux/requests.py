# -*- test-case-name: gomux.test.mux.test_requests -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Streams that begin with a request: the states of both sides until the answer.

A stream for a service begins with a request, and the peer answers it.  Each is the
first L{message<gomux._wire.request>} of its direction.  No byte of them reaches an
application.  Until the message is there, the stream has a protocol and a receiver of
this module:

  - L{FirstReceiver} keeps what the peer sends until the message is complete.  What it
    keeps counts as input that waits, so it has a bound, and the peer gets no credit for
    it before.  Then the receiver becomes an ordinary L{Receiver}.
  - L{Opening} is the protocol on the side that has opened the stream.  It sends the
    request.  Once the peer has accepted it, C{Opening} makes the application's
    protocol, which takes its place.
  - L{Accepting} is the protocol on the other side.  It gets the request, and has the
    L{Acceptor<gomux._mux.acceptor.Acceptor>} of the mux decide.  It sends the answer,
    and the application's protocol takes its place.

The data behind the message goes to the application's protocol, as if it were the first
data of the stream.

A request that is late, cut, malformed or too large ends its stream with an abort, and
so does such an answer.  There is no limit of time for an answer here: the caller can
cancel the result of C{openStream()}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast
from typing import Protocol as Interface

from twisted.internet.defer import Deferred
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from gomux import error as errors
from gomux._fastpaths import fastPaths
from gomux._mux.acceptor import Acceptor
from gomux._mux.log import logContextOf, printable
from gomux._mux.receiver import PlainReceiver, Receiver, ReceiveState
from gomux._mux.sender import SendState
from gomux._mux.streamlife import LifeState
from gomux._wire.request import (
    CODES,
    MalformedMessage,
    Request,
    decodeAnswer,
    decodeRequest,
    encodeAnswer,
    encodeRequest,
    splitMessage,
)

if TYPE_CHECKING:
    from gomux._mux.stream import Stream
    from gomux.interfaces import IStreamFactory

# The error for each code.
_ERRORS: dict[str, type[errors.RequestRefused]] = {
    kind.code: kind
    for kind in (
        errors.ServiceUnknown,
        errors.ServiceNotAllowed,
        errors.ServiceRefused,
        errors.ServiceUnreachable,
        errors.ServiceTimeout,
        errors.ServiceBusy,
        errors.ServiceFailed,
    )
}


class FirstReceiver(Receiver):
    """
    The receiver of a stream whose first message is not complete.
    """

    __slots__ = ()

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        # Nothing else may deliver what waits.
        self._delivering = True

    def received(self, payload: bytes) -> None:
        """
        Take data from the peer.  If that completes the message, give it to the
        L{FirstProtocol}, and what is left to the protocol that has taken its place.
        """
        if self.state is not ReceiveState.OPEN:
            super().received(payload)
            return
        self.window.received(len(payload))
        stream = cast("Stream", self._stream)
        first = cast(FirstProtocol, stream.protocol)
        kept = self.waiting[0] if self.waiting else b""
        data = kept + payload
        try:
            found = splitMessage(data)
        except MalformedMessage as error:
            first.failed(str(error))
            return
        if found is None:
            self.waiting = [data]
            stream.streams.charge(len(payload))
            return
        message, rest = found
        self.waiting = [rest] if rest else None
        if more := len(rest) - len(kept):
            stream.streams.charge(more)
        stream.streams.consumed(stream, len(data) - len(rest))
        # The receiver of any other stream from here on.
        isFast = fastPaths().sparedContext
        self.__class__ = Receiver if isFast else PlainReceiver  # type: ignore[assignment]
        first.messageReceived(message)
        try:
            self._context = logContextOf(stream.protocol)
        except BaseException:
            stream.applicationFailed()
        self._deliverWaiting()

    def finish(self) -> None:
        """
        The peer sends no more, so the message stays incomplete.
        """
        self._drop()
        super().finish()


@implementer(IHalfCloseableProtocol)
class FirstProtocol(Protocol):
    """
    The protocol of a stream whose first message is not complete.

    @ivar stream: the stream.
    """

    stream: Stream

    def begin(self, stream: Stream) -> None:
        """
        Wait for the message.  This stands for C{makeConnection}, without its cost.

        @param stream: the stream.
        """
        self.stream = stream
        stream.protocol = self
        stream.receiver = FirstReceiver(stream)

    def messageReceived(self, message: bytes) -> None:
        """
        The message is complete.

        @param message: the JSON of the message.
        """
        raise NotImplementedError

    def failed(self, why: str) -> None:
        """
        Abort the stream, because the message is not valid or does not come.

        @param why: what is wrong with the message.
        """
        self.stream.abortConnection()

    def replace(self, protocol: IProtocol) -> None:
        """
        Let the application's protocol take the place of this one.
        """
        stream = self.stream
        if stream.makeConnection(protocol) and stream.life is LifeState.LIVE:
            sender = stream.sender
            if sender is not None and sender.state is SendState.CLOSED:
                # The peer has said so before the application's protocol was there.
                stream.streams.callSoon(stream.writeHalfClosed)

    def readConnectionLost(self) -> None:
        """
        The peer has finished writing.
        """
        self.failed("it was cut short")

    def writeConnectionLost(self) -> None:
        """
        The peer wants no data.  L{replace} tells the application.
        """


class Opening(FirstProtocol):
    """
    The protocol of a stream that this side has opened, until the peer answers the
    request.

    @ivar result: fires with the application's protocol, or the error.  Can be
        cancelled.
    @ivar _factory: makes the application's protocol.
    @ivar _service: the name of the service.
    @ivar _request: the message of the request.
    @ivar _acceptor: logs refusals.
    """

    def __init__(
        self,
        factory: IStreamFactory | IProtocolFactory,
        service: str,
        acceptor: Acceptor,
    ) -> None:
        """
        @param factory: makes the application's protocol.
        @param service: the name of the service.
        @param acceptor: logs refusals.
        @raise ValueError: if the name is not valid.
        """
        self._request = encodeRequest(Request(service))
        self._factory = factory
        self._service = service
        self._acceptor = acceptor
        self.result: Deferred[IProtocol] = Deferred(
            lambda _: self.stream.abortConnection()
        )

    def begin(self, stream: Stream) -> None:
        """
        Send the request.
        """
        super().begin(stream)
        stream.write(self._request)

    def messageReceived(self, message: bytes) -> None:
        """
        The peer has answered: make the application's protocol, or fail.
        """
        try:
            refusal = decodeAnswer(message)
        except MalformedMessage as error:
            self.failed(str(error))
            return
        if refusal is None:
            self._accepted()
            return
        code, reason = refusal
        self._acceptor.logRefusal("the peer refused a stream", self._service, code)
        self.stream.loseConnection()
        shown = printable(reason)
        # A reason that says no more than the error does is left out.
        more = "" if reason in ("", CODES[code]) else f" ({shown})"
        self._failWith(_ERRORS[code], more)

    def _accepted(self) -> None:
        stream = self.stream
        try:
            protocol = self._factory.buildProtocol(stream.getPeer())
        except BaseException:
            failure = Failure()
            stream.abortConnection()
            self._fail(failure)
            return
        if protocol is None:
            stream.abortConnection()
            self._fail(NoProtocol())
            return
        self.replace(protocol)
        if not self.result.called:
            self.result.callback(protocol)

    def failed(self, why: str) -> None:
        """
        Abort the stream, because the peer's answer is not valid or does not come.
        """
        self._acceptor.logBroken("the peer's answer", self.stream, why)
        super().failed(why)
        self._failWith(errors.ServiceFailed, f" (its answer is not valid: {why})")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The stream has ended without an answer.
        """
        error = errors.OpenStreamError(
            f"it ended before the peer had answered: {reason.getErrorMessage()}"
        )
        error.reason = error.__cause__ = reason.value
        self._fail(error)

    def _failWith(self, kind: type[errors.RequestRefused], more: str) -> None:
        error = kind(f"{self._service}{more}")
        error.service = self._service
        self._fail(error)

    def _fail(self, error: Exception | Failure) -> None:
        if not self.result.called:
            self.result.errback(error)


class Answering(Interface):
    """
    A protocol that is not ready when it is made, such as one that has to connect to
    somewhere else.

    @ivar answersRequests: C{True}: the protocol answers the request itself.
    @ivar answer: called by the protocol, before it writes anything, with C{None} to
        accept the request, or with the code of a refusal, which also closes the stream.
        Set before the protocol is connected.
    """

    answersRequests: bool
    answer: Callable[[str | None], None] | None


class Accepting(FirstProtocol):
    """
    The protocol of a stream that the peer has opened, until its request is complete.

    @ivar _acceptor: decides about the request.
    """

    def __init__(self, acceptor: Acceptor) -> None:
        self._acceptor = acceptor

    def begin(self, stream: Stream) -> None:
        """
        Wait for the request, but not for ever.
        """
        super().begin(stream)
        self._acceptor.begin(self)

    def messageReceived(self, message: bytes) -> None:
        """
        The request is complete: answer it.
        """
        acceptor, stream = self._acceptor, self.stream
        acceptor.end(self)
        try:
            request = decodeRequest(message)
        except MalformedMessage as error:
            self.failed(str(error))
            return
        stream.service = request.service
        made = acceptor.make(request, stream.getPeer())
        if isinstance(made, str):
            self.answer(made)
        elif getattr(made, "answersRequests", False):
            cast(Answering, made).answer = self.answer
            self.replace(made)
        else:
            self.answer(None)
            self.replace(made)

    def answer(self, code: str | None) -> None:
        """
        Send the answer.

        @param code: the code of a refusal; C{None} to accept.
        """
        stream = self.stream
        stream.write(encodeAnswer(code))
        if code is not None:
            name = stream.service or "connect"
            self._acceptor.logRefusal("refused a stream of the peer", name, code)
            stream.loseConnection()

    def failed(self, why: str) -> None:
        """
        Abort the stream, because the request is not valid or does not come.
        """
        self._acceptor.end(self)
        self._acceptor.logBroken("the peer's request", self.stream, why)
        super().failed(why)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The stream has ended.
        """
        self._acceptor.end(self)
