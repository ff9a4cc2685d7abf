# -*- test-case-name: gomux.test.mux.test_requests -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Streams that begin with a request: the states of both sides until the answer.

A stream for a service begins with a request, and the peer answers it.  Each is the
first L{message<gomux._wire.request>} of its direction.  No byte of them reaches an
application.  Until the message is there, the stream has a protocol of this module and a
receiver of its own:

  - C{FirstReceiver}, in L{gomux._mux.firstmessage}, keeps what the peer sends until the
    message is complete.  What it keeps counts as input that waits, so it has a bound,
    and the peer gets no credit for it before.  Then an ordinary C{Receiver} takes its
    place.
  - L{Opening} is the protocol on the side that has opened the stream.  It sends the
    request.  Once the peer has accepted it, C{Opening} makes the application's
    protocol, which takes its place.
  - L{Accepting} is the protocol on the other side.  It gets the request, and has the
    L{Acceptor<gomux._mux.acceptor.Acceptor>} of the mux decide.  It sends the answer,
    and the application's protocol takes its place.

The data behind the message goes to the application's protocol, as if it were the first
data of the stream.

A factory can write to its stream at once, behind the request: see L{WritingAtOnce}.
Then C{Opening} stays the stream's protocol until the peer has answered, and tells the
application's protocol what it has to know.

A request that is late, cut, malformed or too large ends its stream with an abort, and
so does such an answer.  There is no limit of time for an answer here: the caller can
cancel the result of C{openStream()}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast
from typing import Protocol as Interface

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, NoProtocol
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from gomux import error as errors
from gomux._mux.acceptor import Acceptor
from gomux._mux.firstmessage import FirstProtocol
from gomux._mux.log import callInContext, printable
from gomux._wire.request import (
    CODES,
    MalformedMessage,
    Request,
    decodeAnswer,
    decodeRequest,
    encodeAnswer,
    encodeRequest,
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


class WritingAtOnce(Interface):
    """
    A factory whose protocols write to a stream before the peer has accepted it.  What
    they have written to a stream that the peer refuses is lost.  Then, or if no answer
    comes, their C{connectionLost} gets the error that C{openStream()} would fail with.

    @ivar writesAtOnce: C{True}.
    """

    writesAtOnce: bool


class AtOnce(Interface):
    """
    A protocol of such a factory.
    """

    def answered(self) -> None:
        """
        The peer has accepted the stream.
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
    @ivar _atOnce: the application's protocol, if it writes before the peer has
        answered; else C{None}.
    """

    _atOnce: IProtocol | None = None

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
        stream.granted -= len(self._request)
        stream.write(self._request)
        if getattr(self._factory, "writesAtOnce", False):
            protocol = self._build()
            if protocol is not None:
                self._atOnce = protocol
                self._tell(protocol.makeConnection, stream)
                self.result.callback(protocol)

    def _build(self) -> IProtocol | None:
        """
        @return: the application's protocol; C{None} if there is none, and the stream
            was aborted.
        """
        try:
            protocol = self._factory.buildProtocol(self.stream.getPeer())
        except BaseException:
            failure = Failure()
            self.stream.abortConnection()
            self._fail(failure)
            return None
        if protocol is None:
            self.stream.abortConnection()
            self._fail(NoProtocol())
        return protocol

    def _tell(self, method: Callable[..., object], *arguments: object) -> None:
        """
        Call a method of the application's protocol before the peer has answered.
        """
        try:
            callInContext(self._atOnce, method, *arguments)
        except BaseException:
            self.stream.applicationFailed()

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
        shown = printable(reason)
        # A reason that says no more than the error does is left out.
        more = "" if reason in ("", CODES[code]) else f" ({shown})"
        refused = self._error(_ERRORS[code], more)
        if self._atOnce is None:
            self.stream.loseConnection()
        else:
            self.stream.abortWith(refused)
        self._fail(refused)

    def _accepted(self) -> None:
        if self._atOnce is not None:
            self.stream.protocol = self._atOnce
            self._tell(cast(AtOnce, self._atOnce).answered)
            return
        protocol = self._build()
        if protocol is not None:
            self.replace(protocol)
            if not self.result.called:
                self.result.callback(protocol)

    def failed(self, why: str) -> None:
        """
        Abort the stream, because the peer's answer is not valid or does not come.
        """
        self._acceptor.logBroken("the peer's answer", self.stream, why)
        error = self._error(errors.ServiceFailed, f" (its answer is not valid: {why})")
        self.stream.abortWith(error)

    def writeConnectionLost(self) -> None:
        """
        The writing half is closed.  C{replace} tells a protocol that is not there yet.
        """
        half = IHalfCloseableProtocol(self._atOnce, None)
        if half is not None:
            self._tell(half.writeConnectionLost)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The stream has ended without an answer, or because of a refusal.
        """
        isOwn = self._atOnce is not None and reason.check(
            errors.StreamClosed, ConnectionAborted
        )
        if not (isOwn or reason.check(errors.RequestRefused)):
            error = errors.OpenStreamError(
                f"it ended before the peer had answered: {reason.getErrorMessage()}"
            )
            error.reason = error.__cause__ = reason.value
            reason = Failure(error)
        if self._atOnce is None:
            self._fail(reason)
        else:
            self._tell(self._atOnce.connectionLost, reason)

    def _error(
        self, kind: type[errors.RequestRefused], more: str
    ) -> errors.RequestRefused:
        error = kind(f"{self._service}{more}")
        error.service = self._service
        return error

    def _fail(self, error: BaseException | Failure) -> None:
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
        self._acceptor.waiting.begin(self)

    def messageReceived(self, message: bytes) -> None:
        """
        The request is complete: answer it.
        """
        acceptor, stream = self._acceptor, self.stream
        acceptor.waiting.end(self)
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
        message = encodeAnswer(code)
        stream.granted -= len(message)
        stream.write(message)
        if code is not None:
            if stream.connected and stream.protocol is not self:
                self._acceptor.failed(stream.service, code)
            name = stream.service or "connect"
            self._acceptor.logRefusal("refused a stream of the peer", name, code)
            stream.loseConnection()

    def failed(self, why: str) -> None:
        """
        Abort the stream, because the request is not valid or does not come.
        """
        self._acceptor.waiting.end(self)
        self._acceptor.logBroken("the peer's request", self.stream, why)
        super().failed(why)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The stream has ended.
        """
        self._acceptor.waiting.end(self)
