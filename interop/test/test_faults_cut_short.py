"""
Faults and abuse: a tunnelled answer is cut short after the client has half-closed.
The client must not take the answer for complete.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from interop.faults.cases import CLIENT, GO_CLIENT, GO_SERVER, SERVER, row
from interop.support.ending import Ending
from interop.support.harness import Peer, whyMissing
from interop.support.tunnels import ANY, PSK, Service, TunnelTestCase, endpoint

REQUEST, HALF = b"request", b"half of the answer" * 1000


class Client(Ending):
    """
    Sends a request, half-closes, and reads the answer.

    @ivar got: fires when half of the answer has arrived.
    @ivar reason: fires with the reason when the connection has ended.
    """

    def __init__(self) -> None:
        self.received = b""
        self.got: Deferred[None] = Deferred()
        self.reason: Deferred[BaseException | None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(REQUEST)
        self.transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self.received == HALF:
            self.got.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason.callback(reason.value)


@implementer(IHalfCloseableProtocol)
class Target(Protocol):
    """
    Reads a request until EOF, and sends half of the answer.
    """

    transport: Any = None

    def readConnectionLost(self) -> None:
        self.transport.write(HALF)

    def writeConnectionLost(self) -> None:
        pass


class CutShortTests(TunnelTestCase):
    """
    The client sees a reset if its answer was cut short, and a clean end if not.
    """

    async def target(self) -> str:
        """
        Start the target.

        @return: its address.
        """
        self.targets: list[Target] = []

        class Targets(Factory):
            noisy = False

            def buildProtocol(factory, addr: object) -> Target:
                self.targets.append(Target())
                return self.targets[-1]

        listening = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await listening.listen(Targets())
        self.addCleanup(self.stop, port)
        return f"127.0.0.1:{port.getHost().port}"

    async def stop(self, port: Any) -> None:
        for target in self.targets:
            target.transport.abortConnection()
        await port.stopListening()

    async def ask(self, address: str) -> Client:
        """
        Connect a client, and wait until it has half of the answer.
        """
        host, port = address.split(":")
        connecting = TCP4ClientEndpoint(reactor, host, int(port))
        client: Client = await connecting.connect(Factory.forProtocol(Client))
        self.addCleanup(client.transport.abortConnection)
        await client.got.addTimeout(30, reactor)
        return client

    async def assertReset(self, client: Client) -> None:
        """
        Check that the client got half of the answer, and then a reset.
        """
        reason = await client.reason.addTimeout(30, reactor)
        self.assertEqual(client.received, HALF)
        self.assertIn("non-clean", str(reason))

    @row(38, pairing=SERVER)
    async def test_targetResets(self) -> None:
        """
        When the target resets its connection, the client's connection is reset.
        """
        for options in ((), ("--strict",)):
            *_, address = await self.forwarding(await self.target(), *options)
            client = await self.ask(address)
            self.targets[0].transport.abortConnection()
            await self.assertReset(client)

    async def test_targetCloses(self) -> None:
        """
        When the target closes its connection cleanly, the client sees a clean end.
        """
        *_, address = await self.forwarding(await self.target())
        client = await self.ask(address)
        self.targets[0].transport.loseConnection()
        reason = await client.reason.addTimeout(30, reactor)
        self.assertIn("cleanly", str(reason))

    async def closesMux(self, kind: str) -> None:
        """
        Have the side with the target close its mux in the middle of the answer, and
        check that the client sees a reset.

        @param kind: The kind of peer on the side with the target.
        """
        target = await self.target()
        options = ("--listen", "127.0.0.1:0", "--target", target)
        server = self.spawn(kind, *options, psk=PSK)
        muxes = endpoint(await server.line("listening "))
        forwarder = self.service("--connect", muxes, "--forward", ANY)
        client = await self.ask(await forwarder.address("forward"))
        server.signal("TERM")
        await self.assertReset(client)
        self.assertEqual(await server.exitCode(), 0)
        await forwarder.line("the mux to ")
        self.assertIn("The peer closed the mux", forwarder.log)

    @row(32, pairing=CLIENT)
    async def test_muxClosed(self) -> None:
        """
        When the peer closes the mux in the middle of an answer, the client's connection
        is reset.
        """
        await self.closesMux("this")


class GoCutShortTests(CutShortTests):
    """
    The tests of L{CutShortTests}, with the Go reference on one side.
    """

    skip = whyMissing("go")

    @row(32, pairing=GO_SERVER)
    async def test_muxClosed(self) -> None:
        """
        When the peer closes the mux in the middle of an answer, the client's connection
        is reset.
        """
        await self.closesMux("go")

    async def goForwards(self, isClient: bool) -> tuple[Service, Peer, str]:
        """
        Start this project as the side with the target, and the reference as the side
        that forwards.

        @param isClient: Whether the reference is the client.
        @return: The service, the reference, and the address that it forwards from.
        """
        target = ("--target", endpoint(await self.target()))
        forward = ("--forward", "127.0.0.1:0")
        if isClient:
            service = self.service("--listen", ANY, *target)
            muxes = await service.address("listen")
            go = self.spawn("go", "--connect", muxes, *forward, psk=PSK)
        else:
            go = self.spawn("go", "--listen", "127.0.0.1:0", *forward, psk=PSK)
            muxes = endpoint(await go.line("listening "))
            service = self.service("--connect", muxes, *target)
        # Until its mux is up the reference closes the connections that it accepts.
        await go.line("mux up")
        return service, go, await go.line("forwarding ")

    async def resets(self, isClient: bool) -> None:
        """
        Check that each stream whose target resets ends with the data before the reset,
        that the service logs it, and that the mux goes on.

        @param isClient: Whether the reference is the client.
        """
        service, go, address = await self.goForwards(isClient)
        for number in range(3):
            client = await self.ask(address)
            self.targets[number].transport.abortConnection()
            await client.reason.addTimeout(30, reactor)
            self.assertEqual(client.received, HALF)
            await service.line("--target tcp:127.0.0.1:")
        self.assertEqual(service.log.count("was cut short"), 3)
        self.assertNotIn("the mux ", service.log)
        self.assertFalse(go.ended.called)

    @row(38, pairing=GO_CLIENT)
    async def test_targetResets(self) -> None:
        """
        After the target resets, a stream of a reference client ends with all data
        before the reset, and the mux goes on.
        """
        await self.resets(True)

    @row(38, pairing=GO_SERVER)
    async def test_targetResetsServer(self) -> None:
        """
        After the target resets, a stream of a reference server ends with all data
        before the reset, and the mux goes on.
        """
        await self.resets(False)

    async def test_targetCloses(self) -> None:
        """
        When the target closes its connection cleanly, the client sees a clean end.
        """
        service, _, address = await self.goForwards(True)
        client = await self.ask(address)
        self.targets[0].transport.loseConnection()
        reason = await client.reason.addTimeout(30, reactor)
        self.assertIn("cleanly", str(reason))
        self.assertNotIn("cut short", service.log)
