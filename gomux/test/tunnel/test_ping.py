"""
Tests for L{gomux.tunnel.command._ping}.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from gomux import MuxFactory
from gomux._wire.salts import Salts
from gomux.test.support.certificates import CERTIFICATE
from gomux.test.support.ports import freePort
from gomux.testing import FaultProxy, cut, drop
from gomux.tunnel.command import _ping
from gomux.tunnel.command._ping import Pinger, ping
from gomux.tunnel.command._run import CommandFailed, gomuxEndpoint

PSK = "a pre-shared key of these tests"


class Answering(Protocol):
    """
    Sends something as soon as it is connected.
    """

    greeting = b"SSH-2.0-x\r\n"

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.greeting)


class Talkative(Answering):
    """
    Sends more than a frame without a payload has.
    """

    greeting = b"HTTP/1.1 400 Bad Request\r\n" + b"A: b\r\n" * 20


class Alerting(Answering):
    """
    Sends an alert as TLS does, and ends the connection.
    """

    greeting = bytes.fromhex("15030100020246")

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class Late(Protocol):
    """
    Answers only the second frame of a peer, with as many zeros as a frame has bytes.
    """

    received = 0

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.received += len(data)
        if self.received > 52:
            self.transport.write(bytes(52))


class Unconnected:
    """
    An endpoint with a given result.
    """

    def __init__(self, result: Deferred[Any]) -> None:
        self._result = result

    def connect(self, factory: object) -> Deferred[Any]:
        return self._result


class PingTests(TestCase):
    """
    L{ping}, with a peer in this process
    """

    timeout = 30

    def setUp(self) -> None:
        self.patch(_ping, "INTERVAL", 0.05)
        self.file = self.mktemp()
        with open(os.open(self.file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(PSK)

    def server(self, psk: str = PSK, **settings: Any) -> MuxFactory:
        """
        @return: the factory of a server's muxes.
        """
        # Without salts of its own, it would recognize the client as itself.
        settings["salts"] = Salts()
        return MuxFactory(psk, False, clock=reactor, **settings)

    def listen(self, factory: IProtocolFactory) -> int:
        loop: Any = reactor
        port = loop.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    async def ping(
        self, port: int, words: str = "", count: int = 2, timeout: float = 1.0
    ) -> str:
        string = f"gomux:tcp:127.0.0.1:{port}:pskFile={self.file}{words}"
        return await ping(reactor, string, count, timeout)

    async def assertRight(self, mode: str, words: str = "", **settings: Any) -> None:
        """
        Check that a ping finds nothing wrong, and leaves nothing behind.
        """
        factory = self.server(**settings)
        result = await self.ping(self.listen(factory), words)
        self.assertRegex(
            result,
            rf"\Akey: right\nmode: {mode}\n"
            r"peer: announces bound nonces, pings and requests\n"
            r"round trip: [\d.]+ ms \(median of 2; [\d.]+ to [\d.]+\)\n\Z",
        )
        self.assertEqual(factory.muxes, [])

    async def assertWrong(
        self,
        factory: IProtocolFactory | int,
        *texts: str,
        words: str = "",
        timeout: float = 0.5,
    ) -> None:
        """
        Check that a ping says what is wrong.

        @param factory: the factory of the peer, or the port.
        @param texts: what the error says.
        @param timeout: how long the ping waits for what does not come.
        """
        port = factory if isinstance(factory, int) else self.listen(factory)
        with self.assertRaises(CommandFailed) as caught:
            await self.ping(port, words, timeout=timeout)
        for text in texts:
            self.assertIn(text, str(caught.exception))
        if isinstance(factory, MuxFactory):
            self.assertEqual(factory.muxes, [])

    async def test_compatible(self) -> None:
        """
        A peer in compatible mode.
        """
        await self.assertRight("compatible")

    async def test_strict(self) -> None:
        """
        A peer in strict mode, with a context.
        """
        words = ":strict=yes:context=test"
        await self.assertRight("strict", words, strict=True, context=b"test")

    async def test_noPings(self) -> None:
        """
        Without pings the key is checked nevertheless.
        """
        port = self.listen(self.server())
        self.assertIn("round trip: not known\n", await self.ping(port, count=0))

    async def test_noGreeting(self) -> None:
        """
        A peer that answers nothing, but understands CloseMux, has not refused the key.
        """
        factory = self.server(greet=False)
        self.assertEqual(
            await self.ping(self.listen(factory), timeout=0.3),
            "key: not refused\n"
            "mode: compatible\n"
            "peer: announces nothing, like a Go peer\n"
            "round trip: not known\n",
        )
        self.assertEqual(factory.muxes, [])

    async def test_wrongKey(self) -> None:
        """
        A peer with another key.
        """
        for words, strict in (("", False), (":strict=yes", True)):
            factory = self.server("a different pre-shared key", strict=strict)
            await self.assertWrong(factory, "another key", words=words)

    async def test_strictThere(self) -> None:
        """
        A peer that is in strict mode, when this side is not.
        """
        factory = self.server(strict=True)
        await self.assertWrong(factory, "the key is right", "add strict=yes")

    async def test_strictHere(self) -> None:
        """
        A peer that is not in strict mode, when this side is.
        """
        for greet in (True, False):
            factory = self.server(greet=greet)
            await self.assertWrong(factory, "leave out strict=yes", words=":strict=yes")

    async def test_context(self) -> None:
        """
        A peer with another context.
        """
        factory = self.server(strict=True, context=b"other")
        await self.assertWrong(
            factory, "another key or context", words=":strict=yes:context=test"
        )

    async def test_silent(self) -> None:
        """
        A port that accepts connections and says nothing.
        """
        silent = Factory.forProtocol(Protocol)
        for words in ("", ":strict=yes"):
            text = "does not answer" if words else "answers nothing"
            await self.assertWrong(silent, text, words=words, timeout=0.3)

    async def test_other(self) -> None:
        """
        A port with another protocol.
        """
        for protocol in (Answering, Talkative, Alerting):
            for words in ("", ":strict=yes"):
                await self.assertWrong(
                    Factory.forProtocol(protocol),
                    "something else than gomux",
                    words=words,
                )

    async def test_certificate(self) -> None:
        """
        A peer with TLS, and with a certificate that this side does not trust.
        """
        loop: Any = reactor
        options = CERTIFICATE.options()
        port = loop.listenSSL(0, self.server(), options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        string = f"gomux:tls:127.0.0.1:{port.getHost().port}:pskFile={self.file}"
        with self.assertRaises(CommandFailed) as caught:
            await ping(reactor, string, 1, 1.0)
        self.assertIn("the carrier does not come up: ", str(caught.exception))

    async def test_nobody(self) -> None:
        """
        A port on which nothing listens.
        """
        await self.assertWrong(freePort(), "nothing listens there")

    async def test_noConnection(self) -> None:
        """
        A carrier that does not come up, or cannot.
        """
        for result, text in (
            (Deferred(), "no connection came up in 0.1 seconds"),
            (fail(DNSLookupError("no such host")), "cannot connect: DNS lookup"),
        ):
            string = f"gomux:tcp:127.0.0.1:1:pskFile={self.file}"
            client = gomuxEndpoint(reactor, string).mux
            client.carrier = Unconnected(result)  # type: ignore[assignment]
            with self.assertRaises(CommandFailed) as caught:
                await Pinger(reactor, client, 0.1).ping(1)
            self.assertIn(text, str(caught.exception))

    async def test_garbage(self) -> None:
        """
        A peer that answers nothing but CloseMux, and that with something else.
        """
        late = Factory.forProtocol(Late)
        await self.assertWrong(late, "the mux has ended")

    async def test_noEchoes(self) -> None:
        """
        A peer that does not echo pings.
        """
        factory = self.server()
        proxy = FaultProxy(reactor, "127.0.0.1", self.listen(factory))
        proxy.toClient.when(lambda frame: frame.index > 0, drop())
        proxy.start()
        self.addCleanup(proxy.stop)
        texts = "the key is right", "has not echoed"
        await self.assertWrong(proxy.port, *texts, timeout=0.3)

    async def test_cut(self) -> None:
        """
        A mux that ends before the pings are echoed.
        """
        factory = self.server()
        proxy = FaultProxy(reactor, "127.0.0.1", self.listen(factory))
        proxy.toClient.when(1, cut(reset=True))
        proxy.start()
        self.addCleanup(proxy.stop)
        texts = "the key is right", "the mux has ended"
        await self.assertWrong(proxy.port, *texts, timeout=10)

    async def test_strings(self) -> None:
        """
        Strings that cannot be used.
        """
        for string, text in (
            ("tcp:127.0.0.1:1", "must begin with gomux:"),
            ("gomux:tcp:127.0.0.1:1", "needs either pskFile= or psk="),
            ("gomux:tcp:127.0.0.1:1:pskFile=/nowhere", "/nowhere"),
            (f"gomux:no:pskFile={self.file}", "not a usable endpoint"),
        ):
            with self.assertRaises(CommandFailed) as caught:
                await ping(reactor, string, 1, 1.0)
            self.assertIn(text, str(caught.exception))
