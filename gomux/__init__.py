# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
gomux for Twisted: many duplex streams over one encrypted connection.
"""

from gomux._address import StreamAddress
from gomux._limits import Limits
from gomux.endpoints import (
    MuxClientEndpoint,
    MuxServerEndpoint,
    StreamClientEndpoint,
    StreamServerEndpoint,
)
from gomux.error import GomuxError
from gomux.factory import MuxFactory
from gomux.protocol import MuxProtocol

__all__ = [
    "GomuxError",
    "Limits",
    "MuxClientEndpoint",
    "MuxFactory",
    "MuxProtocol",
    "MuxServerEndpoint",
    "StreamAddress",
    "StreamClientEndpoint",
    "StreamServerEndpoint",
]
