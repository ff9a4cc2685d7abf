"""
A base class for tests with the subject in this process, the peer in another process,
and a proxy between them that injects faults.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet import reactor

from gomux import GomuxError, Limits, MuxProtocol
from gomux.testing import FaultProxy
from interop.faults.cases import (
    App,
    Apps,
    FaultTestCase,
    Subject,
)
from interop.support.harness import PeerTestCase

PSK = "interop secret"
MEBIBYTE = 1 << 20


class Line(App):
    """
    A stream that sends a command of the line protocol, or serves the peer's C{idle}.
    """

    def __init__(self, line: str = "") -> None:
        super().__init__()
        self.line = line
        self.size = 0

    def connectionMade(self) -> None:
        if self.line:
            self.transport.write(self.line.encode() + b"\n")

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        if data == b"idle\n":
            self.transport.write(b"ok\n")
        elif self.size < MEBIBYTE:
            self.received += data


class Raising(Line):
    """
    A L{Line} that raises in C{dataReceived}.
    """

    def dataReceived(self, data: bytes) -> None:
        raise ZeroDivisionError("dataReceived")


class LiveTestCase(FaultTestCase, PeerTestCase):
    """
    The subject runs in this process, the peer in another process.

    @cvar kind: The kind of peer.
    @cvar listens: Whether the subject listens.
    """

    timeout = 100
    kind = "this"
    listens = True

    async def connect(
        self,
        *options: str,
        limits: Limits | None = None,
        psk: str = PSK,
        **settings: Any,
    ) -> MuxProtocol:
        """
        Start the peer, and connect it and the subject through the proxy.

        @param options: Further command line options of the peer.
        @param psk: The peer's key.
        @return: The subject's mux.
        """
        self.apps = Apps(Line)
        self.subject = Subject(
            PSK, not self.listens, self.apps, limits=limits, **settings
        )
        connected = self.subject.next()
        if self.listens:
            self.proxy = FaultProxy(reactor, "127.0.0.1", self.listen(self.subject))
            self.startProxy()
            address = f"127.0.0.1:{self.proxy.port}"
            self.peer = self.spawn(self.kind, "--connect", address, *options, psk=psk)
        else:
            self.peer = self.spawn(
                self.kind, "--listen", "127.0.0.1:0", *options, psk=psk
            )
            host, _, port = (await self.peer.line("listening ")).partition(":")
            self.proxy = FaultProxy(reactor, host, int(port))
            self.startProxy()
            await self.connectTo(self.proxy.port, self.subject)
        mux = await connected
        self.addCleanup(self._abort, mux)
        await self.peer.line("mux up")
        return mux

    def startProxy(self) -> None:
        """
        Start the proxy, which runs until the end of the test.
        """
        self.proxy.start()
        self.addCleanup(self.proxy.stop)
        directions = (self.proxy.toServer, self.proxy.toClient)
        self.toPeer, self.toSubject = directions[:: -1 if self.listens else 1]

    async def _abort(self, mux: MuxProtocol) -> None:
        mux.abort()
        await mux.whenClosed()

    def resumePeer(self) -> None:
        """
        Continue a stopped peer.
        """
        os.kill(self.peer.transport.pid, signal.SIGCONT)

    async def ask(self, mux: MuxProtocol, line: str, kind: type = Line) -> Any:
        """
        Open a stream, and send a command on it.
        """
        return await mux.openStream(Apps(lambda: kind(line)))

    async def assertAnswers(self, mux: MuxProtocol) -> None:
        """
        Check that the peer still answers on a new stream.
        """
        app = await self.ask(mux, "idle")
        await self.eventually(lambda: app.received == b"ok\n")
        app.transport.loseConnection()
        await app.lost

    async def assertEnds(self, mux: MuxProtocol, error: Any) -> GomuxError:
        """
        Check that the mux ends with this error, and that its end is logged once.
        """
        reason = await mux.whenClosed().addTimeout(30, reactor)
        self.assertIsInstance(reason, error)
        self.assertEqual(len(self.logged("ended", str(reason))), 1)
        return reason
