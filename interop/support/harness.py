"""
Peers as child processes of a trial test.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

#: The top of the checkout.
ROOT = Path(__file__).resolve().parent.parent.parent
GO_PEER = "gomux-go-peer"

TIMEOUT = 60.0
"""Seconds to wait for one line of a peer, or for its end."""

GRACEFUL = "peer closed mux gracefully"
"""The reason that a peer prints for a mux that ended with CloseMux."""

PEERS = {
    "go": [GO_PEER],
    "blocking": [sys.executable, "-m", "interop.peers.blocking_peer"],
    "this": [sys.executable, "-m", "interop.peers.twisted_peer"],
}
"""The command that starts each kind of peer."""

TWISTD = [
    sys.executable,
    "-c",
    "import gomux.test; from twisted.scripts.twistd import run; run()",
]
"""
The command that starts C{twistd}.  C{gomux.test} switches off the fast paths that
C{GOMUX_PLAIN} names.
"""


def whyMissing(*kinds: str) -> str | None:
    """
    Find out whether tests with some kinds of peer can run here.

    @return: The reason why not, for a test's C{skip}, or L{None}.
    """
    if "go" in kinds and shutil.which(GO_PEER) is None:
        return f"{GO_PEER} is not on PATH; interop/README.rst says how to build it"
    return None


def environment() -> dict[str, str]:
    """
    Make the environment of a child process, in which Python can import this checkout.
    """
    path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def closes(kind: str) -> range:
    """
    Tell how often a kind of peer may try to deliver a CloseMux.  The Go reference
    sometimes loses its CloseMux: see README.rst.

    @return: The numbers of the attempts.
    """
    return range(5 if kind == "go" else 1)


class Peer(ProcessProtocol):
    """
    A child process that reports in lines of output.

    @ivar ended: Fires when the process ends, with the exit code, or with minus the
        number of the signal that ended it.
    @ivar _lines: Lines of output that no test has taken.
    @ivar _waiting: For each test that waits, the start of its line and its Deferred.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended: Deferred[int] = Deferred()
        self._partial = b""
        self._seen: list[str] = []
        self._lines: list[str] = []
        self._errors = b""
        self._waiting: list[tuple[str, Deferred[str]]] = []

    def outReceived(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._seen.append(line.decode())
            self._lines.append(line.decode())
        self._match()

    def errReceived(self, data: bytes) -> None:
        self._errors += data

    def processEnded(self, reason: Failure) -> None:
        status = reason.value
        code = status.exitCode if status.signal is None else -status.signal
        self.ended.callback(code)
        for _, waiting in self._waiting:
            waiting.errback(AssertionError(f"it exited with {code}"))
        self._waiting.clear()

    def line(self, start: str) -> Deferred[str]:
        """
        Wait for a line of output.  Each line is taken only once.

        @param start: How the line begins.
        @return: Fires with the rest of the line.
        """
        waiting: Deferred[str] = Deferred()
        self._waiting.append((start, waiting))
        self._match()
        if waiting not in [d for _, d in self._waiting]:
            return waiting
        if self.ended.called:
            self._waiting.remove((start, waiting))
            waiting.errback(AssertionError("it has exited"))
        waiting.addTimeout(TIMEOUT, reactor)
        return waiting.addErrback(self._explain, f"no line {start!r}")

    def _match(self) -> None:
        for start, waiting in list(self._waiting):
            for line in self._lines:
                if line.startswith(start):
                    self._lines.remove(line)
                    self._waiting.remove((start, waiting))
                    waiting.callback(line[len(start) :])
                    break

    def exitCode(self) -> Deferred[int]:
        """
        Wait until the process has ended.
        """
        waiting: Deferred[int] = Deferred()

        def pass_(code: int) -> int:
            if not waiting.called:
                waiting.callback(code)
            return code

        self.ended.addCallback(pass_)
        waiting.addTimeout(TIMEOUT, reactor)
        return waiting.addErrback(self._explain, "no exit")

    def _explain(self, failure: Failure, what: str) -> None:
        raise AssertionError(
            f"{self.name}: {what}: {failure.getErrorMessage()}\n"
            + "\n".join(self._seen[-20:])
            + "\n"
            + self._errors[-4000:].decode(errors="replace")
        )

    def signal(self, name: str) -> None:
        """
        Send the process a signal, if it still runs.
        """
        try:
            self.transport.signalProcess(name)
        except ProcessExitedAlready:
            pass


class PeerTestCase(TestCase):
    """
    A test that runs peers.  Each peer is ended with the test.
    """

    timeout = 180

    def spawn(self, kind: str, *options: str, psk: str = "interop secret") -> Peer:
        """
        Start a peer.
        """
        command = [*PEERS[kind], "--psk", psk, *options]
        peer = Peer(" ".join([kind, *options]))
        program = shutil.which(command[0]) or command[0]
        reactor.spawnProcess(peer, program, command, env=environment())
        peer.transport.closeStdin()
        self.addCleanup(self._reap, peer)
        return peer

    def _reap(self, peer: Peer) -> Deferred[int]:
        peer.signal("KILL")
        return peer.exitCode()

    async def startPair(
        self,
        listener: str,
        connector: str,
        listenerOptions: tuple[str, ...] = (),
        connectorOptions: tuple[str, ...] = (),
    ) -> tuple[Peer, Peer]:
        """
        Start two peers, one of which connects to the other.

        @return: The listening peer and the connecting peer.
        """
        server = self.spawn(listener, "--listen", "127.0.0.1:0", *listenerOptions)
        address = await server.line("listening ")
        client = self.spawn(connector, "--connect", address, *connectorOptions)
        await server.line("mux up")
        await client.line("mux up")
        return server, client

    async def assertDrives(self, peer: Peer, count: int) -> list[dict[str, Any]]:
        """
        Check that all drivers of a peer succeed and that the peer then exits.

        @return: Their results.
        """
        results = [json.loads("{" + await peer.line("{")) for _ in range(count)]
        for result in results:
            self.assertTrue(result["ok"], f"{peer.name}: {result}")
        self.assertEqual(await peer.exitCode(), 0)
        return results


def drive(*drivers: str) -> tuple[str, ...]:
    """
    Make the options that run drivers.
    """
    return tuple(option for driver in drivers for option in ("--drive", driver))
