# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Muxes in memory, for testing applications that run over gomux.

L{MuxPair} is a client's mux and a server's mux, connected by a pair of L{Carrier}s.
Everything runs on a L{Clock<twisted.internet.task.Clock>}: nothing happens until the
test advances it, and the order is always the same::

    pair = MuxPair(serverStreams=Factory.forProtocol(Echo), latency=0.05)
    opened = pair.client.openStream(Factory.forProtocol(MyProtocol))
    pair.flush()

The carriers behave as Twisted's TCP transports do.

L{FaultProxy} is for tests over real sockets.  It is a proxy that drops, delays,
changes or cuts the frames that the test chooses.

This room may import every other room except C{tap}.
"""

from gomux.testing._faultproxy import FaultProxy
from gomux.testing._faults import (
    Action,
    Direction,
    Way,
    WireFrame,
    blackHole,
    cut,
    delay,
    drop,
    duplicate,
    flip,
    insert,
    slices,
    stall,
    swap,
)
from gomux.testing._memory import Carrier
from gomux.testing._pair import PSK, MuxPair
from gomux.testing._pipe import Pipe

__all__ = [
    "PSK",
    "Action",
    "Carrier",
    "Direction",
    "FaultProxy",
    "MuxPair",
    "Pipe",
    "Way",
    "WireFrame",
    "blackHole",
    "cut",
    "delay",
    "drop",
    "duplicate",
    "flip",
    "insert",
    "slices",
    "stall",
    "swap",
]
