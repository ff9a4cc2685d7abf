# -*- test-case-name: gomux.test.tunnel.test_localports -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
How the peers of a keyring share the local ports of the connections to a target.

The side of a TCP connection that closes first keeps its port for L{TIME_WAIT} seconds.
If a peer opens and closes a thousand streams a second, they use up the ports within
half a minute.  Before that, once half of the ports are used, the system takes tens of
milliseconds to find a free one, and everybody waits.  So the peers share that half.
"""

from __future__ import annotations

import sys
from collections import deque
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from gomux._carrier.transport import addressFrom
from gomux._wire.keyring import Keyring
from gomux._wire.shares import Shares

#: For how long the system keeps a port after this side has closed first, in seconds.
TIME_WAIT = 60.0
#: Linux tells its settings of local ports there.
SETTINGS = Path("/proc/sys/net/ipv4")
#: How many local ports a system has that does not tell: the range of IANA.
PORTS = 16384


def portsOfTarget() -> int:
    """
    @return: how many local ports the connections to one target may use: half of those
        that there are, or any number if the system uses those soon again that it keeps.
    """
    try:
        if (SETTINGS / "tcp_tw_reuse").read_text().strip() == "1":
            return sys.maxsize
        first, last = (SETTINGS / "ip_local_port_range").read_text().split()
        ports = int(last) - int(first) + 1
    except (OSError, ValueError):
        ports = PORTS
    return max(1, ports // 2)


class LocalPorts(Shares):
    """
    Shares the local ports of the connections to a target.

    @ivar _clock: tells the time.
    @ivar _kept: for each port that the system keeps, the time at which it is free
        again, and the name of the peer that has used it.
    """

    def __init__(self, keyring: Keyring, clock: Any) -> None:
        """
        @param keyring: the keyring of the peers.
        @param clock: the reactor.
        """
        super().__init__(portsOfTarget(), keyring)
        self._clock = clock
        self._kept: deque[tuple[float, str | None]] = deque()

    def mayTake(self, peer: str | None) -> bool:
        """
        As in L{Shares}.  A single peer can only be in its own way.
        """
        now = self._clock.seconds()
        while self._kept and self._kept[0][0] <= now:
            self.giveBack(self._kept.popleft()[1])
        return not self._areShared or super().mayTake(peer)

    def closedFirst(self, peer: str | None, connection: Any) -> None:
        """
        This side has closed a connection first.

        @param peer: the name of the peer.
        @param connection: the transport of the connection to the target.
        """
        if self._areShared and isElsewhere(addressFrom(lambda: connection.getPeer())):
            self.take(peer)
            self._kept.append((self._clock.seconds() + TIME_WAIT, peer))

    @property
    def _areShared(self) -> bool:
        names = () if self._peers is None else self._peers.names
        return len(names) > 1 and self.total < sys.maxsize


def isElsewhere(address: object) -> bool:
    """
    @return: whether an address is that of another machine.  Linux soon uses the ports
        of connections within the machine again.
    """
    try:
        return not ip_address(getattr(address, "host", "")).is_loopback
    except ValueError:
        return False
