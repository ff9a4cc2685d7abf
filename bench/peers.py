"""
Start the peers of C{interop/} and run their drivers.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.processes import BenchError, Process, python
from interop.support.harness import PEERS

PSK = "a secret between benchmarks only"
ANY = "127.0.0.1:0"

Result = dict[str, Any]


def command(kind: str) -> list[str]:
    """
    Make the command that starts a peer.

    @param kind: C{go}, C{this}, or C{this/REACTOR}.
    """
    kind, _, reactor = kind.partition("/")
    program = PEERS[kind]
    if not reactor:
        return program
    return [sys.executable, "-m", "bench.reactor", reactor, *program[2:]]


def isThere(kind: str) -> bool:
    """
    Tell whether a kind of peer can be started here.
    """
    if shutil.which(command(kind)[0]) is None:
        return False
    if kind.endswith("/uvloop"):
        try:
            import uvloop  # noqa: F401
        except ImportError:
            return False
    return True


@dataclass(frozen=True)
class Side:
    """
    A pair of server and client, which is compared with other pairs.

    @ivar name: its name in tables.
    @ivar server: the kind of the peer that listens.
    @ivar client: the kind of the peer that connects and drives.
    @ivar options: further options of both peers.
    """

    name: str
    server: str
    client: str
    options: tuple[str, ...] = ()

    @property
    def isThere(self) -> bool:
        """
        Tell whether both peers can be started here.
        """
        return isThere(self.server) and isThere(self.client)


GO = Side("Go", "go", "go")
THIS = Side("this", "this", "this")
THIS_TO_GO = Side("this to Go", "go", "this")
GO_TO_THIS = Side("Go to this", "this", "go")
REACTORS = tuple(
    Side(name, f"this/{name}", f"this/{name}")
    for name in ("epoll", "asyncio", "uvloop")
)


def listen(side: Side, *options: str) -> Process:
    """
    Start a side's server.
    """
    return Process(
        [*command(side.server), "--psk", PSK, "--listen", ANY, *side.options, *options]
    )


def connect(side: Side, address: str, *options: str) -> Process:
    """
    Start a side's client.
    """
    return Process(
        [
            *(*command(side.client), "--psk", PSK, "--connect", address),
            *(*side.options, *options),
        ]
    )


@dataclass
class Driven:
    """
    The results of some drivers.

    @ivar results: the result that each driver printed.
    @ivar cpu: the CPU time of server and client together, in seconds.
    """

    results: list[Result] = field(default_factory=list)
    cpu: float = 0.0

    @property
    def last(self) -> Result:
        """
        The result of the last driver.
        """
        return self.results[-1]

    @property
    def perGiB(self) -> float:
        """
        The CPU time in seconds for each GiB that the last driver moved.
        """
        moved: int = self.last["bytes"]
        return self.cpu / moved * (1 << 30)


def drive(side: Side, *drivers: str, delay: float = 0.0) -> Driven:
    """
    Have a side's client run drivers.

    @param delay: the one-way delay of the path between the two, in seconds.
    """
    driven = Driven()
    with listen(side) as server, proxied(server.line("listening "), delay) as address:
        options = [option for driver in drivers for option in ("--drive", driver)]
        with connect(side, address, *options) as client:
            client.line("mux up")
            driven.cpu -= server.cpu() + client.cpu()
            for driver in drivers:
                result = json.loads("{" + client.line("{"))
                if not result["ok"]:
                    raise BenchError(f"{side.name}: {driver}: {result}")
                driven.results.append(result)
            driven.cpu += server.cpu()
            driven.cpu += client.finish()
    return driven


@contextmanager
def proxied(address: str, delay: float) -> Iterator[str]:
    """
    Start a proxy that delays the traffic to and from an address.

    @return: the address of the proxy.
    """
    if not delay:
        yield address
        return
    with python("proxy", address, str(delay)) as proxy:
        yield proxy.line("listening ")
