"""
Start the peers of C{interop/} and L{bench.program}, and run their drivers.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from bench.processes import BenchError, Process, python
from gomux.test.support.plainpaths import VARIABLE
from interop.support.harness import PEERS

PSK = "a secret between benchmarks only"
ANY = "127.0.0.1:0"

PROGRAM = [sys.executable, "-m", "bench.program"]

#: Installs a reactor and runs a module: the arguments are their names.
_REACTOR = (
    "import asyncio, runpy, sys; from twisted.internet import asyncioreactor;"
    " name = sys.argv.pop(1); loops = __import__(name);"
    " asyncioreactor.install(loops.new_event_loop());"
    " runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)

#: The command that starts each kind of program.
COMMANDS = {
    **PEERS,
    "program": PROGRAM,
    "TCP": [*PROGRAM, "--plain"],
    **{
        name: [sys.executable, "-c", _REACTOR, name, PEERS["this"][-1]]
        for name in ("asyncio", "uvloop")
    },
}


@dataclass(frozen=True)
class Side:
    """
    A pair of server and client, which is compared with other pairs.

    @ivar server: the kind of the program that listens.
    @ivar client: the kind of the program that connects and drives.
    @ivar checkout: the checkout that it is run from, by default this one.
    @ivar off: the fast paths that are switched off, joined by commas.
    """

    server: str
    client: str
    checkout: str | None = None
    off: str = ""

    @property
    def isThere(self) -> bool:
        """
        Tell whether both programs can be started here.
        """
        if "uvloop" in (self.server, self.client):
            return importlib.util.find_spec("uvloop") is not None
        kinds = (self.server, self.client)
        return all(shutil.which(COMMANDS[kind][0]) for kind in kinds)

    def process(
        self,
        *command: str,
        interactive: bool = False,
        environment: dict[str, str] | None = None,
    ) -> Process:
        """
        Start a program for this side.

        @param interactive: whether the program has a standard input.
        @param environment: what to change in the environment.
        """
        changed = {**(environment or {}), **({VARIABLE: self.off} if self.off else {})}
        return Process(
            command,
            interactive=interactive,
            checkout=self.checkout,
            environment=changed,
        )


#: All sides that consist of peers, by name.
SIDES = {
    "Go": Side("go", "go"),
    "this": Side("this", "this"),
    "this to Go": Side("go", "this"),
    "Go to this": Side("this", "go"),
    "program": Side("program", "program"),
    "Twisted": Side("TCP", "TCP"),
    "epoll": Side("this", "this"),
    "asyncio": Side("asyncio", "asyncio"),
    "uvloop": Side("uvloop", "uvloop"),
}


def variant(name: str, checkout: str | None = None, off: str = "") -> str:
    """
    Add a side that is this project from another checkout, or without some fast paths.

    @return: its name.
    """
    SIDES[name] = replace(SIDES["this"], checkout=checkout, off=off)
    return name


def listen(side: Side, *options: str) -> Process:
    """
    Start a side's server.
    """
    command = [*COMMANDS[side.server], "--psk", PSK, "--listen", ANY]
    return side.process(*command, *options)


def connect(side: Side, address: str, *options: str) -> Process:
    """
    Start a side's client.
    """
    command = [*COMMANDS[side.client], "--psk", PSK, "--connect", address]
    return side.process(*command, *options)


@dataclass
class Driven:
    """
    The results of some drivers.

    @ivar results: the result that each driver printed.
    @ivar cpu: the CPU time of server and client together, in seconds.
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    cpu: float = 0.0

    @property
    def last(self) -> dict[str, Any]:
        """
        The result of the last driver.
        """
        return self.results[-1]


def drive(name: str, *drivers: str, delay: float = 0.0) -> Driven:
    """
    Have a side's client run drivers.

    @param delay: the one-way delay of the path between the two, in seconds.
    """
    side, driven = SIDES[name], Driven()
    with listen(side) as server, proxied(server.line("listening "), delay) as address:
        options = [option for driver in drivers for option in ("--drive", driver)]
        with connect(side, address, *options) as client:
            client.line("mux up")
            driven.cpu -= server.cpu() + client.cpu()
            for driver in drivers:
                result = json.loads("{" + client.line("{"))
                if not result["ok"]:
                    raise BenchError(f"{name}: {driver}: {result}")
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
