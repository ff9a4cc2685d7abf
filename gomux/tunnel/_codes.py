# -*- test-case-name: gomux.test.tunnel.test_answers -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The codes with which a tunnel tells the peer why a target cannot be connected, and with
which the access log tells how a connection has ended.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import defer
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionRefusedError,
    DNSLookupError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.python.failure import Failure

from gomux.error import (
    ConnectionClosed,
    GomuxError,
    OpenStreamError,
    OutputExceeded,
    PeerAbortedStream,
    PeerClosedConnection,
    RequestRefused,
    ServiceWithdrawn,
)

#: Both ends were closed in an orderly way.
OK = "ok"
#: The mux has ended, or the service was stopped, before the connection had ended.
MUX_LOST = "mux-lost"
#: The peer may not use the service, or not any more.
NOT_ALLOWED = "not-allowed"
#: One side has cut the connection short.
RESET_BY_CLIENT, RESET_BY_TARGET = "reset-by-client", "reset-by-target"


def codeOf(failure: Failure) -> str:
    """
    @param failure: why a target cannot be connected.
    @return: the code of the refusal for the peer.
    """
    error = failure.value
    if isinstance(error, RequestRefused):
        return error.code
    for code, kinds in (
        ("refused", (ConnectionRefusedError,)),
        ("timeout", (TimeoutError, TCPTimedOutError, defer.TimeoutError)),
        ("unreachable", (ConnectError, DNSLookupError)),
    ):
        if isinstance(error, kinds):
            return code
    return "failed"


def codeOfEnd(reason: Failure) -> str:
    """
    @param reason: why a stream that this process serves itself was lost.
    @return: the code for the access log.
    """
    if reason.check(PeerAbortedStream):
        return RESET_BY_CLIENT
    if reason.check(ServiceWithdrawn):
        return NOT_ALLOWED
    if reason.check(ConnectionClosed, PeerClosedConnection):
        return MUX_LOST
    if reason.check(ConnectionDone):
        return OK
    return MUX_LOST if reason.check(GomuxError) else RESET_BY_TARGET


class Ending:
    """
    How a connection has ended, for the access log.  Only the first cause counts.

    @ivar code: C{OK}, C{MUX_LOST}, C{RESET_BY_CLIENT}, C{RESET_BY_TARGET}, or the code
        of a refusal.
    @ivar reason: why; C{None} if there is no more to say.
    """

    __slots__ = ("code", "reason")

    def __init__(self) -> None:
        self.code = OK
        self.reason: str | None = None

    def set(self, code: str, reason: str | None) -> None:
        """
        Something has ended the connection.
        """
        if self.code is OK:
            self.code, self.reason = code, reason

    def cut(self, transport: Any, isClient: bool, reason: Failure) -> None:
        """
        One end was cut short.

        @param transport: the transport of the end.
        @param isClient: whether it is the client's end; else it is the target's.
        @param reason: why the transport was lost.
        """
        code = RESET_BY_CLIENT if isClient else RESET_BY_TARGET
        isStream = hasattr(transport, "mux")
        if isStream and not reason.check(PeerAbortedStream, OutputExceeded):
            code = NOT_ALLOWED if reason.check(ServiceWithdrawn) else MUX_LOST
        self.set(code, reason.getErrorMessage())

    def refused(self, failure: Failure) -> None:
        """
        There is no target: it cannot be connected, or the peer has refused the stream.
        """
        error = failure.value
        if isinstance(error, OpenStreamError) and error.reason is not None:
            # The stream, or every mux, was lost before the peer had answered.
            isAbort = isinstance(error.reason, PeerAbortedStream)
            self.set(
                RESET_BY_TARGET if isAbort else MUX_LOST, failure.getErrorMessage()
            )
        else:
            self.set(codeOf(failure), failure.getErrorMessage())
