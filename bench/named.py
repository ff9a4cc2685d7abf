"""
Compare connections that a tunnel carries for a named service with those that it carries
without a name.

    python -m bench.named

One pair of processes carries both, in turn.  This prints the CPU instructions of a
connection outside the kernel, if there is valgrind, and the connections a second and
the CPU time of a connection, both processes together.  The instructions do not depend
on the other load of the machine.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint

from bench import load
from bench.processes import Process, python
from gomux import Limits, MuxFactory
from gomux._mux.dialler import Dialler
from gomux._mux.newcomer import Newcomers
from gomux.tunnel import TunnelLimits, forward, target

PSK = "a secret between benchmarks only"
SERVICE = "web"
#: The connections of a round, and of a round under valgrind; how many rounds; and how
#: many connections are there at a time.
COUNT, COUNTED, ROUNDS, TOGETHER = 500, 200, 7, 50
#: Polling would be counted too.
LIMITS = Limits(busyPoll=0)


def server(listener: str) -> None:
    """
    Run the side that connects to the target.
    """
    host, port = listener.split(":")
    endpoint = TCP4ClientEndpoint(reactor, host, int(port))
    to = target("to", endpoint, reactor, TunnelLimits())
    factory = MuxFactory(
        PSK, False, to, clock=reactor, services={SERVICE: to}, limits=LIMITS
    )
    listen("listening", Newcomers(factory))
    reactor.run()


def client(address: str) -> None:
    """
    Run the side that accepts the connections.
    """
    host, port = address.split(":")
    dialler = Dialler(
        PSK,
        TCP4ClientEndpoint(reactor, host, int(port)),
        1.0,
        clock=reactor,
        limits=LIMITS,
    )
    limits = TunnelLimits()
    listen("forwarding", forward("plain", dialler.pool, reactor, limits))
    named = forward("named", dialler.pool, reactor, limits, service=SERVICE)
    listen("forwarding", named)
    dialler.start()
    reactor.run()


def listen(word: str, factory: object) -> None:
    """
    Listen, and print the address.
    """
    endpoint = TCP4ServerEndpoint(reactor, 0, 1024, "127.0.0.1")
    listening = endpoint.listen(factory)
    listening.addCallback(
        lambda port: print(f"{word} 127.0.0.1:{port.getHost().port}", flush=True)
    )


def together(address: str, count: int) -> float:
    """
    Make connections, several at a time.

    @return: how many connections a second.
    """
    rates: list[float] = []
    threads = [
        Thread(target=lambda: rates.append(load.connects(address, count // TOGETHER)))
        for _ in range(TOGETHER)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


class Tunnel:
    """
    Two processes with a tunnel.

    @ivar processes: the processes.
    @ivar addresses: where they accept connections, without a name and with one.
    """

    def __init__(self, stack: ExitStack, *wrapper: str) -> None:
        listener = stack.enter_context(python("load")).line("listening ")
        self.processes: list[Process] = []
        far = self._start(stack, *wrapper, "server", listener)
        near = self._start(stack, *wrapper, "client", far.line("listening "))
        self.addresses = [near.line("forwarding ") for _ in range(2)]
        for address in self.addresses:
            load.connects(address, 20)

    def _start(self, stack: ExitStack, *command: str) -> Process:
        *wrapper, role, address = command
        command = (*wrapper, sys.executable, "-m", "bench.named", role, address)
        process = stack.enter_context(Process(command))
        self.processes.append(process)
        return process

    @property
    def cpu(self) -> float:
        """
        The CPU time of both processes, in seconds.
        """
        return sum(process.cpu() for process in self.processes)


def show(what: str, plain: float, named: float, ratio: float) -> None:
    print(f"{what}: {plain:.0f} and {named:.0f}, ratio {ratio:.2f}", flush=True)


def times(tunnel: Tunnel) -> None:
    """
    Print rates and CPU times.
    """
    for what, run in (
        ("one after another", load.connects),
        (f"{TOGETHER} at a time", together),
    ):
        rates: list[list[float]] = [[], []]
        costs: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for i, address in enumerate(tunnel.addresses):
                before = tunnel.cpu
                rates[i].append(run(address, COUNT))
                costs[i].append((tunnel.cpu - before) / COUNT * 1e6)
        rate, cost = (list(map(statistics.median, each)) for each in (rates, costs))
        show(f"{what}, a second", rate[0], rate[1], rate[1] / rate[0])
        show(f"{what}, us of CPU", cost[0], cost[1], cost[0] / cost[1])


def control(option: str, process: Process) -> None:
    subprocess.run(
        ["callgrind_control", option, str(process.pid)], check=True, capture_output=True
    )


def instructions(directory: Path) -> None:
    """
    Print instructions.
    """
    costs = []
    with ExitStack() as stack:
        tunnel = Tunnel(
            stack,
            *("valgrind", "--tool=callgrind"),
            f"--callgrind-out-file={directory}/%p",
        )
        for address in tunnel.addresses:
            for process in tunnel.processes:
                control("--zero", process)
            load.connects(address, COUNTED)
            total = 0
            for process in tunnel.processes:
                control("--dump", process)
                newest = max(
                    directory.glob(f"{process.pid}.*"),
                    key=lambda path: path.stat().st_mtime_ns,
                )
                found = re.search(
                    r"^(?:totals|summary): (\d+)", newest.read_text(), re.M
                )
                assert found is not None
                total += int(found[1])
            costs.append(total / COUNTED)
    show("instructions", costs[0], costs[1], costs[0] / costs[1])


def main() -> None:
    if shutil.which("valgrind") is not None:
        with tempfile.TemporaryDirectory() as directory:
            instructions(Path(directory))
    with ExitStack() as stack:
        times(Tunnel(stack))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        {"server": server, "client": client}[sys.argv[1]](sys.argv[2])
    else:
        main()
