"""
Tests for L{gomux.tunnel.command._pipe}.  C{interop/test/test_commands.py} runs it as a
process.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.trial.unittest import TestCase

from gomux.error import ServiceUnknown
from gomux.test.support.echo import Asking, Echo
from gomux.test.support.ports import freePort
from gomux.tunnel.command import _pipe
from gomux.tunnel.command._pipe import PipeTunnel
from gomux.tunnel.command._run import CommandFailed


class Refusing:
    """
    An endpoint that cannot connect.
    """

    def connect(self, factory: object) -> Deferred[IProtocol]:
        return fail(ServiceUnknown("\x1b[2J"))


class Near:
    """
    Stands for the standard input and output, in memory.
    """

    def __init__(self, reactor: object) -> None:
        pass

    def listen(self, tunnel: PipeTunnel) -> Deferred[None]:
        near = tunnel.buildProtocol(None)
        assert near is not None
        transport = StringTransportWithDisconnection()
        transport.protocol = near
        near.makeConnection(transport)
        return succeed(None)


class PipeTests(TestCase):
    """
    L{pipe}
    """

    timeout = 30

    async def test_trouble(self) -> None:
        """
        If no mux comes up in time, the error says so.
        """
        self.patch(_pipe, "StandardServerEndpoint", Near)
        path = self.mktemp()
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write("0123456789abcdef")
        string = f"gomux:tcp:127.0.0.1:{freePort()}:pskFile={path}:timeout=0"
        with self.assertRaises(CommandFailed) as caught:
            await _pipe.pipe(reactor, string)
        self.assertIn("the other side cannot be connected", str(caught.exception))


class PipeTunnelTests(TestCase):
    """
    L{PipeTunnel}, with TCP instead of the standard input and output
    """

    timeout = 30

    async def connect(self, tunnel: PipeTunnel) -> Any:
        """
        Connect the near end of the bridge.
        """
        near: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await near.listen(tunnel)
        self.addCleanup(port.stopListening)
        number = port.getHost().port
        endpoint: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", number)
        return await endpoint.connect(Factory.forProtocol(Asking))

    async def test_orderly(self) -> None:
        """
        If both ends close in an orderly way, the pipe ends without trouble.
        """
        far: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await far.listen(Factory.forProtocol(Echo))
        self.addCleanup(port.stopListening)
        number = port.getHost().port
        tunnel = PipeTunnel(TCP4ClientEndpoint(reactor, "127.0.0.1", number), reactor)
        asking = await self.connect(tunnel)
        self.assertEqual(await asking.answer, b"hello")
        asking.transport.loseConnection()
        await tunnel.ended
        self.assertEqual(tunnel.trouble.seen, [])

    async def test_refused(self) -> None:
        """
        If the stream cannot be opened, the trouble says why, without any characters
        that control the terminal.
        """
        tunnel = PipeTunnel(Refusing(), reactor)
        await self.connect(tunnel)
        await tunnel.ended
        [line] = tunnel.trouble.seen
        self.assertIn("no such service", line)
        self.assertTrue(line.isprintable())
