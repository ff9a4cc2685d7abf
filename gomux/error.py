# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Every error that gomux raises or ends a connection with.

All are a L{GomuxError}.  An error that ends a stream or a mux is also Twisted's
L{ConnectionDone<twisted.internet.error.ConnectionDone>} if the end was orderly, and
L{ConnectionLost<twisted.internet.error.ConnectionLost>} if it was not.  So a protocol
that knows nothing of gomux can tell the two apart, as it does over TCP.
"""

from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    NoRouteError,
    ServiceNameUnknownError,
)
from twisted.internet.error import TimeoutError as ConnectTimeoutError


class GomuxError(Exception):
    """
    The base class of all errors of gomux.

    @ivar written: if a L{Conn.write<gomux.Conn.write>} failed with this error, how many
        bytes the mux had taken before.
    """

    written: int = 0


class StreamClosed(GomuxError, ConnectionDone):
    """
    The stream was closed on this side.
    """

    MESSAGE = "The stream was closed"


class PeerClosedStream(GomuxError, ConnectionDone):
    """
    The peer closed the stream.
    """

    MESSAGE = "The peer closed the stream"


class PeerAbortedStream(GomuxError, ConnectionLost):
    """
    The peer aborted the stream, so data that was under way may be lost.  Only a peer
    with this software reports an abort.  An abort by the Go package looks like
    L{PeerClosedStream}.
    """

    MESSAGE = "The peer aborted the stream"


class WriteClosed(GomuxError, ConnectionDone):
    """
    One of the two sides has closed the writing half of the stream.
    """

    MESSAGE = "The write end of the stream is closed"


class ConnectionClosed(GomuxError, ConnectionDone):
    """
    The mux was closed on this side, and all of its streams with it.
    """

    MESSAGE = "The mux was closed"


class PeerClosedConnection(GomuxError, ConnectionDone):
    """
    The peer closed the mux in an orderly way, and all of its streams with it.
    """

    MESSAGE = "The peer closed the mux"


class Truncated(GomuxError, ConnectionLost):
    """
    The carrier ended without a CloseMux frame.  Data that was under way may be lost,
    because of a network error or an attacker.
    """

    MESSAGE = "The carrier ended without CloseMux"


class NotAuthenticated(GomuxError, ConnectionLost):
    """
    The carrier ended before the peer had shown that it holds the pre-shared key.  The
    peer has another key, is no gomux peer, or did not let the carrier come up: a TLS
    certificate may be wrong.  Connecting again at once does not help.  So a program
    that connects again by itself should do so with growing pauses.

    @ivar carrierError: the carrier's own error; C{None} if the carrier ended in good
        order.
    """

    MESSAGE = "The peer has not shown that it holds the pre-shared key"
    carrierError: BaseException | None = None


class NeverAuthenticated(NotAuthenticated, Truncated):
    """
    The L{NotAuthenticated} of compatible mode.
    """

    MESSAGE = Truncated.MESSAGE


class AuthenticationFailed(GomuxError, ConnectionLost):
    """
    A frame could not be opened with the pre-shared key.  The peer has another key or
    does not speak gomux, or the bytes were changed on the way.
    """

    MESSAGE = "A frame did not authenticate"


class OutOfSequence(AuthenticationFailed):
    """
    A frame is not the next frame of its sequence.  On the way frames were dropped,
    replayed, swapped, reflected or taken from another mux.  This is noticed in strict
    mode, and with a peer whose greeting has announced that its frames have a sequence.
    """

    MESSAGE = "A frame is not the one that was due"


class KeyRevoked(GomuxError, ConnectionLost):
    """
    This side has ended the mux, because the pre-shared key of the peer is not accepted
    any more.
    """

    MESSAGE = "The pre-shared key of the peer was revoked"


class ServiceWithdrawn(GomuxError, ConnectionLost):
    """
    This side has ended the stream, because the peer may not use its service any more.
    """

    MESSAGE = "The peer may not use the service any more"


class HandshakeFailed(NotAuthenticated):
    """
    In strict mode: the mux did not come up.  The peer is not in strict mode, has
    another version, context or clock or the wrong role, or did not answer in time, or
    an attacker interfered.  The text says which, as far as this side can tell.
    """

    MESSAGE = "The strict mode handshake failed"


class ProtocolViolation(GomuxError, ConnectionLost):
    """
    The peer holds the key but broke the rules of the protocol.
    """

    MESSAGE = "The peer violated the protocol"


class LimitExceeded(ProtocolViolation):
    """
    The peer exceeded one of the L{gomux.Limits}.  It broke no other rule of the
    protocol.
    """

    MESSAGE = "The peer exceeded a limit"


class OutputExceeded(GomuxError, ConnectionLost):
    """
    The application has gone on writing to the stream although more output waited than
    L{gomux.Limits.maxOutput} allows.  The output that waited is lost.
    """

    MESSAGE = "The application writes faster than the peer reads, and does not pause"


class BuffersFull(GomuxError, ConnectionLost):
    """
    This side has ended the mux, because all muxes of the process together took more
    memory than L{gomux.Limits.maxBuffered} allows, and this mux of this peer took most.
    Or the muxes of this peer took more than L{gomux.PeerRules.maxBuffered} allows.
    """

    MESSAGE = "The buffers are full, and this mux took most of the memory"


class WriteStalled(GomuxError, ConnectionLost):
    """
    The peer read nothing from the carrier for L{gomux.Limits.writeStall} seconds while
    there was data to send.
    """

    MESSAGE = "The peer does not read"


class PeerVanished(GomuxError, ConnectionLost):
    """
    The peer has echoed no ping that is younger than L{gomux.Limits.deadPeer} seconds.
    """

    MESSAGE = "The peer answers no pings any more"


class NonceExhausted(GomuxError, ConnectionLost):
    """
    This side has used all of its nonces on this mux.  A nonce is never used twice, so
    the mux ends.
    """

    MESSAGE = "The nonces of this mux are used up"


class OpenStreamError(GomuxError, ConnectError):
    """
    A stream could not be opened.  No mux came up in time, or the mux is closing or
    closed, has no stream IDs left, or has too many frames that wait to be sent.

    @ivar reason: if no mux came up in time, why the last one ended, or why the last
        attempt to connect one failed, such as L{NotAuthenticated}; else C{None}.
    """

    MESSAGE = "The stream could not be opened"
    reason: BaseException | None = None


class NoRequests(OpenStreamError):
    """
    A stream for a service could not be opened, because the peer has not announced in
    time that it understands requests.  It is a peer of the Go package, or one side has
    its greeting turned off.
    """

    MESSAGE = "The peer has not announced that it has services"


class RequestRefused(OpenStreamError):
    """
    The peer has refused to connect a stream to a service.  The subclasses tell why.  A
    factory that serves streams can raise one of them in C{buildProtocol}: then the peer
    gets that answer.

    @ivar code: the peer's answer, as on the wire.
    @ivar service: the name of the service; C{None} if the error is not from a peer.
    """

    MESSAGE = "The peer refused the stream"
    code: str = "failed"
    service: str | None = None


class ServiceUnknown(RequestRefused, ServiceNameUnknownError):
    """
    The peer has no such service.
    """

    MESSAGE = "The peer has no such service"
    code = "unknown"


class ServiceNotAllowed(RequestRefused):
    """
    This side may not use the service, whether the peer has it or not.
    """

    MESSAGE = "The peer does not allow the use of this service"
    code = "not-allowed"


class ServiceRefused(RequestRefused, ConnectionRefusedError):
    """
    The service, or its target, has refused the connection.
    """

    MESSAGE = "The service refused the connection"
    code = "refused"


class ServiceUnreachable(RequestRefused, NoRouteError):
    """
    The peer cannot reach the target of the service.
    """

    MESSAGE = "The peer cannot reach the service"
    code = "unreachable"


class ServiceTimeout(RequestRefused, ConnectTimeoutError):
    """
    The target of the service did not answer the peer in time, or the peer did not
    answer this side in time.
    """

    MESSAGE = "The service did not answer in time"
    code = "timeout"


class ServiceBusy(RequestRefused):
    """
    The service has too many connections.
    """

    MESSAGE = "The service has too many connections"
    code = "busy"


class ServiceFailed(RequestRefused):
    """
    The service failed for another reason: see the peer's log.
    """

    MESSAGE = "The service failed"


class KeyringError(GomuxError, ValueError):
    """
    A file or a set of pre-shared keys cannot be used.
    """


class DeadlineExceeded(GomuxError, TimeoutError):
    """
    A read or write was not done by its deadline, or was begun after it.  The
    stream goes on.
    """

    def __str__(self) -> str:
        return "The deadline has passed"
