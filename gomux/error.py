# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Every error that gomux raises or ends a connection with.

All are L{GomuxError}.  Those that end a stream or a mux are also Twisted's
L{ConnectionDone<twisted.internet.error.ConnectionDone>} where the end was an
orderly one and L{ConnectionLost<twisted.internet.error.ConnectionLost>} where
it was not, so that protocols which know nothing of gomux can tell the two
apart as they do over TCP.
"""

from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost


class GomuxError(Exception):
    """
    Something about a mux or one of its streams went wrong, or came to an end.

    @ivar written: how many bytes had been taken of what a
        L{Conn.write<gomux.Conn.write>} that fails with this was to
        write.
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
    The peer aborted the stream: what it was sending, or reading, was cut
    short.  Only this software says so; an abort of the Go package's looks like
    L{PeerClosedStream}.
    """

    MESSAGE = "The peer aborted the stream"


class WriteClosed(GomuxError, ConnectionDone):
    """
    The writing half of the stream is closed, by either side.
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
    The carrier ended without a CloseMux frame: what was under way may have
    been cut short, by a network error or by an attacker.
    """

    MESSAGE = "The carrier ended without CloseMux"


class AuthenticationFailed(GomuxError, ConnectionLost):
    """
    A frame did not open under the pre-shared key: the peer has another key,
    does not speak gomux, or the bytes were changed on the way.
    """

    MESSAGE = "A frame did not authenticate"


class OutOfSequence(AuthenticationFailed):
    """
    In strict mode: a frame is not the one that was due.  Frames were dropped,
    replayed, swapped, reflected or taken from another mux on the way.
    """

    MESSAGE = "A frame is not the one that was due"


class KeyRevoked(GomuxError, ConnectionLost):
    """
    This side has ended the mux, because the pre-shared key of the peer is no
    longer one of those that are let in.
    """

    MESSAGE = "The pre-shared key of the peer was revoked"


class HandshakeFailed(GomuxError, ConnectionLost):
    """
    In strict mode: the mux did not come up, because the peer is not in strict
    mode, has the wrong role or context, or did not answer in time, or because
    somebody between the two interfered.
    """

    MESSAGE = "The strict mode handshake failed"


class ProtocolViolation(GomuxError, ConnectionLost):
    """
    The peer holds the key but broke the rules of the protocol.
    """

    MESSAGE = "The peer violated the protocol"


class LimitExceeded(ProtocolViolation):
    """
    The peer broke no rule of the wire but went past one of the limits in
    L{gomux.Limits}.
    """

    MESSAGE = "The peer went past a limit"


class WriteStalled(GomuxError, ConnectionLost):
    """
    The peer took nothing off the carrier for L{gomux.Limits.writeStall}
    seconds while there was something to send.
    """

    MESSAGE = "The peer does not read"


class PeerVanished(GomuxError, ConnectionLost):
    """
    In strict mode: nothing came from the peer for L{gomux.Limits.deadPeer}
    seconds, not even Keepalives.
    """

    MESSAGE = "Nothing comes from the peer any more"


class NonceExhausted(GomuxError, ConnectionLost):
    """
    The nonce counter of this direction came to its end.  Nonces are never
    reused, so the mux ends instead.
    """

    MESSAGE = "The nonces of this mux are used up"


class OpenStreamError(GomuxError, ConnectError):
    """
    A stream could not be opened: no mux came up in time, or the mux is closing
    or closed, has no stream IDs left, or has as many frames queued as it is
    allowed to.
    """

    MESSAGE = "No stream could be opened"


class KeyringError(GomuxError, ValueError):
    """
    A file of pre-shared keys, or a set of them, cannot be used.
    """


class DeadlineExceeded(GomuxError, TimeoutError):
    """
    A read or write was not done by its deadline, or was begun after it.  The
    stream itself goes on.
    """

    def __str__(self) -> str:
        return "The deadline has passed"
