# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
gomux for Twisted: many duplex streams over one encrypted connection.
"""

from gomux._address import StreamAddress
from gomux._conn import Conn
from gomux._keyring import Keyring, readPSKFile
from gomux._limits import Limits
from gomux._pool import MuxPool
from gomux._strict import Salts
from gomux.endpoints import (
    MuxClientEndpoint,
    MuxPort,
    MuxServerEndpoint,
    StreamClientEndpoint,
    StreamServerEndpoint,
)
from gomux.error import (
    AuthenticationFailed,
    ConnectionClosed,
    DeadlineExceeded,
    GomuxError,
    HandshakeFailed,
    KeyRevoked,
    KeyringError,
    LimitExceeded,
    NonceExhausted,
    OpenStreamError,
    OutOfSequence,
    PeerAbortedStream,
    PeerClosedConnection,
    PeerClosedStream,
    PeerVanished,
    ProtocolViolation,
    StreamClosed,
    Truncated,
    WriteClosed,
    WriteStalled,
)
from gomux.factory import MuxFactory
from gomux.interfaces import IMux, IStreamFactory
from gomux.protocol import MuxProtocol
from gomux.session import Listener, Session

__all__ = [
    "AuthenticationFailed",
    "Conn",
    "ConnectionClosed",
    "DeadlineExceeded",
    "GomuxError",
    "HandshakeFailed",
    "IMux",
    "IStreamFactory",
    "KeyRevoked",
    "Keyring",
    "KeyringError",
    "LimitExceeded",
    "Limits",
    "Listener",
    "MuxClientEndpoint",
    "MuxFactory",
    "MuxPool",
    "MuxPort",
    "MuxProtocol",
    "MuxServerEndpoint",
    "NonceExhausted",
    "OpenStreamError",
    "OutOfSequence",
    "PeerAbortedStream",
    "PeerClosedConnection",
    "PeerClosedStream",
    "PeerVanished",
    "ProtocolViolation",
    "Salts",
    "Session",
    "StreamAddress",
    "StreamClientEndpoint",
    "StreamClosed",
    "StreamServerEndpoint",
    "Truncated",
    "WriteClosed",
    "WriteStalled",
    "readPSKFile",
]
