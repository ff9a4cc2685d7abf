"""
Base classes for the tests of faults and abuse.  They run the subject in either role
over a real socket, and check after each test that nothing is left behind.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from gomux import GomuxError, Limits, MuxFactory, MuxProtocol
from interop.faults.attacker import PSK, WAIT, Attacker

SERVER, CLIENT = "as server", "as client"
GO_CLIENT, GO_SERVER = "Go client", "Go server"
PAIRINGS = (SERVER, CLIENT, GO_CLIENT, GO_SERVER)

_Function = TypeVar("_Function", bound=Callable[..., Any])


def row(*numbers: int, pairing: str | None = None) -> Callable[[_Function], _Function]:
    """
    Declare which rows of the fault table a test covers.

    @param numbers: The numbers of the rows.
    @param pairing: The column of the matrix, if it differs from that of the test's
        class.
    """

    def mark(function: _Function) -> _Function:
        function.faultRows = numbers  # type: ignore[attr-defined]
        function.faultPairing = pairing  # type: ignore[attr-defined]
        return function

    return mark


def inBothRoles(cases: type[RowTestCase]) -> type[RowTestCase]:
    """
    Make two test classes from one: in the first the subject is the server, in the
    second the client.

    @return: The first class; the second is added to the same module.
    """
    name = f"{cases.__name__}AsClient"
    attributes = {"pairing": CLIENT, "__module__": cases.__module__}
    asClient = type(name, (cases,), {**attributes, "__doc__": cases.__doc__})
    setattr(sys.modules[cases.__module__], name, asClient)
    return cases


class App(Protocol):
    """
    The application on one of the subject's streams.

    @ivar received: The data received.
    @ivar reason: Why the stream ended.
    @ivar lost: Fires with the reason.
    """

    transport: Any = None
    reason: BaseException | None = None
    losses = 0

    def __init__(self) -> None:
        self.received = bytearray()
        self.lost: Deferred[BaseException | None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if data == b"ECHO":
            self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.losses += 1
        self.reason = reason.value
        self.lost.callback(reason.value)


class Quiet(App):
    """
    An application that only records its input.
    """

    def dataReceived(self, data: bytes) -> None:
        self.received += data


@implementer(IHalfCloseableProtocol)
class HalfApp(App):
    """
    An application that is half-closeable: it goes on after EOF.
    """

    readEnded = False
    writeEnded = False

    def readConnectionLost(self) -> None:
        self.readEnded = True

    def writeConnectionLost(self) -> None:
        self.writeEnded = True


class Apps(Factory):
    """
    Makes the protocols of streams.

    @ivar streams: The protocols, by stream ID.
    """

    noisy = False

    def __init__(self, make: Callable[[], Protocol] = App) -> None:
        self.streams: dict[int, Any] = {}
        self._make = make

    def buildProtocol(self, addr: Any) -> Protocol:
        made = self._make()
        self.streams[addr.streamID] = made
        return made


class Subject(MuxFactory):
    """
    The factory of the subject's muxes.

    @ivar made: All muxes made so far.
    """

    noisy = False

    def __init__(self, psk: str, isClient: bool, apps: Any, **settings: Any) -> None:
        super().__init__(psk, isClient, apps, clock=reactor, **settings)
        self.made: list[MuxProtocol] = []
        self._waiting: list[Deferred[MuxProtocol]] = []

    def muxConnected(self, mux: MuxProtocol) -> None:
        super().muxConnected(mux)
        self.made.append(mux)
        if self._waiting:
            self._waiting.pop(0).callback(mux)

    def next(self) -> Deferred[MuxProtocol]:
        """
        Wait for the next mux.
        """
        waiting: Deferred[MuxProtocol] = Deferred()
        self._waiting.append(waiting)
        return waiting.addTimeout(WAIT, reactor)


def openFiles() -> list[str]:
    """
    List the open files and sockets of this process.  Pipes are left out, because the
    reactor opens and closes some itself.
    """
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            pass  # the descriptor that listed the directory
    return sorted(name for name in found if not name.startswith("pipe:"))


class FaultTestCase(TestCase):
    """
    A test that fails if it leaves an unhandled error or an open file.

    @cvar pairing: The matrix column that the tests belong to.
    @ivar events: The log events of the test.
    """

    timeout = 120
    pairing = SERVER

    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self._files = openFiles()
        # Cleanups run last to first.
        self.addCleanup(self._assertClean)

    async def _assertClean(self) -> None:
        globalLogPublisher.removeObserver(self.events.append)
        gc.collect()
        for _ in range(200):
            left = [name for name in openFiles() if name not in self._files]
            if not left:
                return
            await deferLater(reactor, 0.02)
        self.fail(f"files stay open: {left}")

    def logged(self, *words: str) -> list[str]:
        """
        Find the log lines with all of these words.
        """
        lines = [formatEvent(event) for event in self.events]
        return [line for line in lines if all(word in line for word in words)]

    def loggedHere(self) -> list[str]:
        """
        @return: The project's log lines above the debug level.
        """
        return [
            formatEvent(event)
            for event in self.events
            if event["log_namespace"].startswith("gomux")
            and event["log_level"] > LogLevel.debug
        ]

    def listen(self, factory: Factory) -> int:
        """
        Listen until the end of the test.

        @return: The port's number.
        """
        factory.noisy = False
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return port.getHost().port

    def connectTo(self, port: int, factory: Factory) -> Deferred[Any]:
        """
        Connect to a port of this machine.
        """
        return TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)

    def eventually(self, condition: Callable[[], Any]) -> Deferred[Any]:
        """
        Poll until a condition holds, for changes that no event reports.
        """

        async def look() -> Any:
            for _ in range(int(WAIT * 100)):
                result = condition()
                if result:
                    return result
                await deferLater(reactor, 0.01)
            raise AssertionError("the condition did not come true")

        return Deferred.fromCoroutine(look())


class RowTestCase(FaultTestCase):
    """
    A test in which an attacker is connected to the subject, in one role.

    @ivar subject: The factory of the subject's muxes.
    @ivar apps: The factory of the applications on the subject's streams.
    @ivar mux: The subject's mux with the attacker.
    @ivar attacker: The attacker at the other end of that mux.
    """

    subject: Subject
    mux: MuxProtocol
    attacker: Attacker

    @property
    def isClient(self) -> bool:
        """
        Whether the subject is the client.
        """
        return self.pairing == CLIENT

    def makeSubject(
        self, apps: Any = None, limits: Limits | None = None, **settings: Any
    ) -> None:
        """
        Make the subject's factory.
        """
        self.apps = Apps() if apps is None else apps
        self.subject = Subject(PSK, self.isClient, self.apps, limits=limits, **settings)
        self.addCleanup(self._closeAll)

    async def _closeAll(self) -> None:
        for mux in self.subject.made:
            mux.abort()
            await mux.whenClosed()

    async def pair(self, psk: str = PSK) -> tuple[MuxProtocol, Attacker]:
        """
        Connect the subject to another attacker.

        @return: The subject's mux, and the attacker.
        """
        attacker = Attacker(not self.isClient, psk)
        factory = Factory.forProtocol(lambda: attacker)
        factory.noisy = False
        connected = self.subject.next()
        if self.isClient:
            await self.connectTo(self.listen(factory), self.subject)
        else:
            await self.connectTo(self.listen(self.subject), factory)
        mux = await connected
        await attacker.up
        self.addCleanup(self._end, attacker)
        return mux, attacker

    async def _end(self, attacker: Attacker) -> None:
        attacker.transport.abortConnection()
        if not attacker.lost.called:
            await attacker.lost

    async def start(
        self,
        apps: Any = None,
        limits: Limits | None = None,
        psk: str = PSK,
        **settings: Any,
    ) -> Attacker:
        """
        Connect the subject to an attacker.  Also connect it to a bystander, whose mux
        must not be affected.

        @param psk: The attacker's key.
        """
        self.makeSubject(apps, limits, **settings)
        self._other, self._bystander = await self.pair()
        self.mux, self.attacker = await self.pair(psk)
        return self.attacker

    async def stream(self, attacker: Attacker | None = None) -> tuple[int, Any]:
        """
        Have the attacker open a stream.

        @return: The stream's ID, and the subject's protocol on it.
        """
        attacker = self.attacker if attacker is None else attacker
        streamID = attacker.open()
        await self.eventually(lambda: streamID in self.apps.streams)
        return streamID, self.apps.streams[streamID]

    # Assertions

    async def assertLives(self) -> None:
        """
        Check that the mux has not ended.
        """
        await self.attacker.sync()
        self.assertIsNone(self.mux.reason)

    async def assertMuxEnds(
        self, error: type[GomuxError], words: str = "", isOneOfMany: bool = False
    ) -> None:
        """
        Check that the mux is aborted with one log line, that it has no stream left, and
        that the bystander's mux is unaffected.

        @param words: What the mux's reason says.
        @param isOneOfMany: Whether the log line may be missing, because the test causes
            more of them than the log's rate limit lets through.
        """
        closed = self.mux.whenClosed()
        closed.addTimeout(WAIT, reactor)
        reason = await closed
        self.assertIsInstance(reason, error)
        self.assertIn(words, str(reason))
        lost = self.attacker.lost
        lost.addTimeout(WAIT, reactor)
        self.assertIsInstance(await lost, ConnectionLost, "the carrier is not aborted")
        lines = self.logged(self.attacker.name, str(reason))
        self.assertTrue(len(lines) == 1 or not lines and isOneOfMany, lines)
        self.assertFalse(self.mux._streams)
        await self._bystander.sync()
        self.assertIsNone(self._other.reason)

    async def assertStreamEnds(self, app: Any, streamID: int) -> BaseException | None:
        """
        Check that a stream ends once, with CloseStream, and that the mux goes on.

        @return: The reason that the application got.
        """
        await self.attacker.untilFrame(5, streamID)
        await self.eventually(lambda: app.losses)
        self.assertEqual(app.losses, 1)
        await self.assertLives()
        return app.reason
