"""
C{python -m gomux ping} and C{python -m gomux pipe} as processes.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from gomux.test.support.ports import freePort
from interop.support.command import Command
from interop.support.harness import environment, whyMissing
from interop.support.tunnels import ANY, MIB, PSK, TunnelTestCase, until


class CommandTestCase(TunnelTestCase):
    """
    A test that runs C{python -m gomux}.
    """

    timeout = 60

    def setUp(self) -> None:
        self.key = self.secret(PSK)

    def secret(self, psk: str) -> str:
        path = os.path.abspath(self.mktemp())
        with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            file.write(psk)
        return path

    def command(self, *arguments: str, data: bytes | None = b"") -> Command:
        """
        Start a command.
        """
        command = Command(data)
        argv = [sys.executable, "-m", "gomux", *arguments]
        reactor.spawnProcess(command, sys.executable, argv, env=environment())
        self.addCleanup(command.end)
        return command


class PingTests(CommandTestCase):
    """
    C{ping}
    """

    async def ping(
        self, address: str, words: str = "", key: str | None = None
    ) -> tuple[str, str]:
        """
        Ping a peer.

        @return: the output and the errors.  If there are errors, the exit status is 1
            and the output is empty; otherwise the status is 0.
        """
        string = f"gomux:tcp:{address}:pskFile={key or self.key}{words}"
        command = self.command("ping", "--timeout", "3", string)
        status = await command.ended
        output, errors = command.output.decode(), command.errors.decode()
        self.assertEqual(status, int(bool(errors)), errors)
        self.assertNotEqual(bool(output), bool(errors))
        self.assertNotIn("Traceback", errors)
        return output, errors

    async def test_this(self) -> None:
        """
        This software, in both modes.  Nothing of a ping is left on the peer.
        """
        for options, words, mode in (
            ((), "", "compatible"),
            (("--strict", "--context", "x"), ":strict=yes:context=x", "strict"),
        ):
            server = self.service("--listen", ANY, *options)
            address = await server.address("listen")
            await self.ping(address, words)
            await server.line("the mux from ")
            descriptors = server.descriptors()
            output, errors = await self.ping(address, words)
            await server.line("the mux from ")
            self.assertIn(f"key: right\nmode: {mode}\npeer: announces b", output)
            self.assertRegex(output, r"round trip: [\d.]+ ms")
            self.assertEqual(server.descriptors(), descriptors)
            self.assertNotIn("stream", server.log)

    async def test_wrong(self) -> None:
        """
        This software with another key, and in the other mode.
        """
        other = self.secret("a different pre-shared key")
        compatible = await self.service("--listen", ANY).address("listen")
        strict = await self.service("--listen", ANY, "--strict").address("listen")
        for address, words, key, text in (
            (compatible, "", other, "another key"),
            (strict, ":strict=yes", other, "another key"),
            (strict, "", self.key, "add strict=yes"),
            (compatible, ":strict=yes", self.key, "leave out strict=yes"),
        ):
            output, errors = await self.ping(address, words, key)
            self.assertIn(text, errors)

    async def test_go(self) -> None:
        """
        The Go reference with the same key and with another, and in strict mode here.
        """
        server = self.spawn("go", "--listen", "127.0.0.1:0", psk=PSK)
        address = await server.line("listening ")
        output, errors = await self.ping(address)
        self.assertIn("key: not refused\n", output)
        self.assertIn("like a Go peer\n", output)
        output, errors = await self.ping(address, key=self.secret("another psk here"))
        self.assertIn("another key", errors)
        output, errors = await self.ping(address, ":strict=yes")
        self.assertIn("leave out strict=yes", errors)

    test_go.skip = whyMissing("go")  # type: ignore[attr-defined]

    async def test_others(self) -> None:
        """
        A web server, a port that says nothing, and a port on which nothing listens.
        """
        address, _ = await self.webServer(0)
        output, errors = await self.ping(address)
        self.assertTrue("something else" in errors or "answers nothing" in errors)
        listen: Any = reactor
        port = listen.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        output, errors = await self.ping(f"127.0.0.1:{port.getHost().port}")
        self.assertIn("answers nothing", errors)
        output, errors = await self.ping(f"127.0.0.1:{freePort()}")
        self.assertIn("nothing listens there", errors)


@implementer(IHalfCloseableProtocol)
class Served(Protocol):
    """
    Sends all input back, and closes after EOF.

    @ivar last: The last protocol that was made.
    """

    transport: Any = None
    last: Any = None

    def connectionMade(self) -> None:
        Served.last = self
        self.transport.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)

    def readConnectionLost(self) -> None:
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        self.transport.loseConnection()


class PipeTests(CommandTestCase):
    """
    C{pipe}
    """

    async def serve(self) -> str:
        """
        Serve streams with L{Served}.

        @return: the endpoint string of a client.
        """
        Served.last = None
        string = f"gomux:tcp:0:interface=127.0.0.1:pskFile={self.key}"
        endpoint = serverFromString(reactor, string)
        self.port: Any = await endpoint.listen(Factory.forProtocol(Served))
        self.addCleanup(self.port.close)
        number = self.port.getHost().port
        return f"gomux:tcp:127.0.0.1:{number}:pskFile={self.key}:timeout=5"

    async def assertEnds(
        self, command: Command, status: int, output: bytes, errors: str
    ) -> None:
        self.assertEqual(await command.ended, status, command.errors)
        self.assertEqual(bytes(command.output), output)
        text = command.errors.decode()
        self.assertIn(errors, text)
        self.assertEqual(bool(errors), bool(text), text)
        self.assertNotIn("Traceback", text)

    async def test_echo(self) -> None:
        """
        All input goes to the stream, then its EOF, and the output comes back whole.
        """
        data = os.urandom(8 * MIB)
        command = self.command("pipe", await self.serve(), data=data)
        await self.assertEnds(command, 0, data, "")
        self.assertEqual(self.port.factory.muxes, [])

    async def test_file(self) -> None:
        """
        The standard input and output may be files.
        """
        string = await self.serve()
        data = os.urandom(MIB)
        paths = [self.mktemp(), self.mktemp()]
        with open(paths[0], "wb") as file:
            file.write(data)
        with open(paths[0], "rb") as source, open(paths[1], "wb") as sink:
            command = Command(None)
            argv = [sys.executable, "-m", "gomux", "pipe", string]
            reactor.spawnProcess(
                *(command, sys.executable, argv),
                env=environment(),
                childFDs={0: source.fileno(), 1: sink.fileno(), 2: "r"},
            )
        self.addCleanup(command.end)
        await self.assertEnds(command, 0, b"", "")
        with open(paths[1], "rb") as file:
            self.assertEqual(file.read(), data)

    async def test_cut(self) -> None:
        """
        A stream that is aborted is an error, whether the input has ended or not.  What
        was received before is still written.
        """
        string = await self.serve()
        for data in (b"hello", None):
            command = self.command("pipe", string, data=None)
            command.transport.write(b"hello")
            await until(lambda c=command: bytes(c.output) == b"hello", "an echo")
            if data is not None:
                Served.last.readConnectionLost = lambda: None
                command.transport.closeStdin()
            Served.last.transport.unregisterProducer()
            Served.last.transport.abortConnection()
            await self.assertEnds(command, 1, b"hello", "cut short by the other side")

    async def test_service(self) -> None:
        """
        A service that the peer does not have is an error.
        """
        command = self.command("pipe", await self.serve() + ":service=none")
        await self.assertEnds(command, 1, b"", "no such service")

    async def test_wrongKey(self) -> None:
        """
        A peer with another key is an error.
        """
        string = await self.serve()
        other = self.secret("a different pre-shared key")
        string = string.replace(self.key, other).replace("=5", "=1")
        await self.assertEnds(self.command("pipe", string), 1, b"", "pre-shared key")

    async def test_closedOutput(self) -> None:
        """
        If the reader of the output goes, the command ends.
        """
        command = self.command("pipe", await self.serve(), data=None)
        command.transport.write(b"hello")
        await until(lambda: bytes(command.output) == b"hello", "an echo")
        command.transport.closeStdout()
        command.transport.write(bytes(MIB))
        self.assertIsNotNone(await command.ended)
        self.assertNotIn(b"Traceback", command.errors)

    async def test_signal(self) -> None:
        """
        SIGTERM ends the command, and the mux in an orderly way.
        """
        command = self.command("pipe", await self.serve(), data=None)
        command.transport.write(b"hello")
        await until(lambda: bytes(command.output) == b"hello", "an echo")
        [mux] = self.port.factory.muxes
        command.transport.signalProcess("TERM")
        await self.assertEnds(command, 1, b"hello", "stopped by a signal")
        self.assertEqual(type(await mux.whenClosed()).__name__, "PeerClosedConnection")
