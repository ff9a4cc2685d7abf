# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Muxes in memory, for the tests of whatever runs over gomux.

L{MuxPair} is a client's mux and a server's, connected by a L{Carrier} each.
All of it runs on a L{Clock<twisted.internet.task.Clock>}: nothing happens
until the test says so, and then always in the same order::

    pair = MuxPair(serverStreams=Factory.forProtocol(Echo), latency=0.05)
    opened = pair.client.openStream(Factory.forProtocol(MyProtocol))
    pair.flush()

The carriers behave as Twisted's TCP transports do.

L{FaultProxy} is for tests over real sockets: a network that drops, delays,
changes and cuts what it is told to.

This room may import every other one but C{tap}.
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
from gomux.testing._memory import Carrier, Pipe
from gomux.testing._pair import PSK, MuxPair

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
