# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
gomux for Twisted: many duplex streams over one encrypted connection.
"""

from gomux._mux.address import StreamAddress
from gomux._mux.factory import MuxFactory
from gomux._mux.pool import MuxPool
from gomux._mux.protocol import MuxProtocol
from gomux._wire.keyring import Keyring, readPSKFile
from gomux._wire.peerrules import PeerRules
from gomux._wire.salts import Salts
from gomux.endpoints import (
    MuxClientEndpoint,
    MuxPort,
    MuxServerEndpoint,
    StreamClientEndpoint,
    StreamServerEndpoint,
)
from gomux.error import (
    AuthenticationFailed,
    BuffersFull,
    ConnectionClosed,
    DeadlineExceeded,
    GomuxError,
    HandshakeFailed,
    KeyRevoked,
    KeyringError,
    LimitExceeded,
    NeverAuthenticated,
    NonceExhausted,
    NoRequests,
    NotAuthenticated,
    OpenStreamError,
    OutOfSequence,
    OutputExceeded,
    PeerAbortedStream,
    PeerClosedConnection,
    PeerClosedStream,
    PeerVanished,
    ProtocolViolation,
    RequestRefused,
    ServiceBusy,
    ServiceFailed,
    ServiceNotAllowed,
    ServiceRefused,
    ServiceTimeout,
    ServiceUnknown,
    ServiceUnreachable,
    ServiceWithdrawn,
    StreamClosed,
    Truncated,
    WriteClosed,
    WriteStalled,
)
from gomux.interfaces import IMux, IStreamFactory
from gomux.limits import Limits
from gomux.session import Listener, Session
from gomux.session._conn import Conn
from gomux.status._page import PageFactory

__all__ = [
    "AuthenticationFailed",
    "BuffersFull",
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
    "NeverAuthenticated",
    "NoRequests",
    "NonceExhausted",
    "NotAuthenticated",
    "OpenStreamError",
    "OutOfSequence",
    "OutputExceeded",
    "PageFactory",
    "PeerAbortedStream",
    "PeerClosedConnection",
    "PeerClosedStream",
    "PeerRules",
    "PeerVanished",
    "ProtocolViolation",
    "RequestRefused",
    "Salts",
    "ServiceBusy",
    "ServiceFailed",
    "ServiceNotAllowed",
    "ServiceRefused",
    "ServiceTimeout",
    "ServiceUnknown",
    "ServiceUnreachable",
    "ServiceWithdrawn",
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
