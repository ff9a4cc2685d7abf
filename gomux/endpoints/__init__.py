# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Streams as endpoints: whatever connects or listens through an endpoint can do so over a
mux.  The C{gomux:} endpoint strings are parsed here too.

This room may import L{gomux._mux} and what lies below it, but not L{gomux.session}.
"""

from gomux._mux.dialler import retryPolicy
from gomux.endpoints._endpoints import (
    MuxClientEndpoint,
    MuxPort,
    MuxServerEndpoint,
    StreamClientEndpoint,
    StreamPort,
    StreamServerEndpoint,
)

__all__ = [
    "MuxClientEndpoint",
    "MuxPort",
    "MuxServerEndpoint",
    "StreamClientEndpoint",
    "StreamPort",
    "StreamServerEndpoint",
    "retryPolicy",
]
