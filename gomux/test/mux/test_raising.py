"""
Tests for applications that raise, in every call that a mux makes into them.

Twisted's reactors catch whatever the protocol of a TCP connection raises, also what is
no C{Exception}, and end that connection.  Here the stream ends, and the mux goes on.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHandshakeListener, ILoggingContext
from twisted.internet.protocol import Factory
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gomux.endpoints import MuxClientEndpoint, StreamServerEndpoint
from gomux.error import ConnectionClosed, LimitExceeded
from gomux.test.support.certificates import CERTIFICATE, NAME
from gomux.test.support.helpers import (
    HalfRecorder,
    Parts,
    PushProducer,
    Recorder,
    Recorders,
)
from gomux.testing import PSK, MuxPair


class Unspeakable(Exception):
    """
    An error that cannot be formatted.
    """

    def __repr__(self) -> str:
        raise ZeroDivisionError

    __str__ = __repr__


KINDS = (
    ZeroDivisionError,
    LimitExceeded,
    Unspeakable,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    CancelledError,
)


class Raising:
    """
    Raises, once it is told to.
    """

    kind: type[BaseException] | None = None

    def raiseIt(self, *arguments: object) -> None:
        if self.kind is not None:
            raise self.kind


@implementer(ILoggingContext)
class Prefixed(Recorder):
    """
    A protocol whose C{logPrefix} raises.
    """

    failing: Raising

    def logPrefix(self) -> str:
        self.failing.raiseIt()
        return "prefix"


class Adapted(Recorder):
    """
    A protocol that raises when it is asked whether it is half-closeable.
    """

    failing: Raising

    def __conform__(self, interface: object) -> object:
        self.failing.raiseIt()
        return None


@implementer(IHandshakeListener)
class Listener(Recorder):
    """
    A protocol that is told when TLS is up.
    """

    failing: Raising

    def handshakeCompleted(self) -> None:
        self.failing.raiseIt()


class RaisingProducer(PushProducer):
    """
    A producer that raises in one of its methods.
    """

    def __init__(self, method: str, failing: Raising) -> None:
        super().__init__()
        setattr(self, method, failing.raiseIt)


class RaisingFactory(Recorders):
    """
    A factory that raises in one of its methods.
    """

    def __init__(self, method: str, failing: Raising) -> None:
        super().__init__()
        setattr(self, method, failing.raiseIt)


class RaisingTests(SynchronousTestCase):
    """
    One table of the calls, each with all kinds of errors.
    """

    def start(self, kind: type[Recorder], error: type[BaseException]) -> None:
        """
        Connect two muxes, with a bystander's stream and another.
        """
        self.failing = Raising()
        self.error = error
        self.served, self.opened = Recorders(kind), Recorders(kind)
        self.pair = MuxPair(self.served)
        for _ in range(2):
            self.pair.client.openStream(self.opened)
        self.settle()
        self.bystander, self.there = self.served.made
        self.here = self.opened.made[1]
        for recorder in (*self.served.made, *self.opened.made):
            recorder.failing = self.failing  # type: ignore[attr-defined]
        self.failing.kind = error

    def settle(self) -> None:
        for _ in range(10):
            self.pair.flush()

    def fails(self, *events: str) -> None:
        for event in events:
            self.there.hooks = {**self.there.hooks, event: self.failing.raiseIt}

    def check(self) -> None:
        """
        Check that the error was logged, that only the stream that raised has ended, and
        that new streams can be opened.
        """
        self.settle()
        self.failing.kind = None
        self.assertGreaterEqual(len(self.flushLoggedErrors(self.error)), 1)
        for recorder in (self.here, self.there):
            self.assertEqual(recorder.events.count("lost"), 1)
        self.goesOn()

    def goesOn(self) -> None:
        self.assertIsNone(self.pair.client.reason)
        self.assertIsNone(self.pair.server.reason)
        self.assertNotIn("lost", self.bystander.events)
        self.opened.made[0].stream.write(b"still here")
        self.pair.client.openStream(self.opened)
        self.settle()
        self.assertTrue(self.bystander.received.endswith(b"still here"))
        self.assertEqual(self.served.made[-1].events, ["made"])
        self.pair.client.checkInvariants()
        self.pair.server.checkInvariants()

    def tryAll(
        self, provoke: Callable[[], object], kind: type[Recorder] = Recorder
    ) -> None:
        for error in KINDS:
            self.start(kind, error)
            provoke()
            self.check()

    # The protocol

    def test_connectionMade(self) -> None:
        """
        In C{connectionMade}, of the peer's streams and of this side's.
        """
        for error in KINDS:
            for isServer in (False, True):
                self.start(Recorder, error)
                self.served.hooks["made"] = self.failing.raiseIt
                mux = self.pair.client
                if isServer:
                    self.opened.hooks["made"] = self.failing.raiseIt
                    mux = self.pair.server
                    self.pair.client.streamFactory = self.served
                    factory = Recorders(made=self.failing.raiseIt)
                else:
                    factory = Recorders()
                mux.openStream(factory)
                self.settle()
                self.served.hooks.clear()
                self.opened.hooks.clear()
                self.here, self.there = factory.made[0], self.served.made[-1]
                self.check()

    def test_dataReceived(self) -> None:
        """
        In C{dataReceived}, also of data that waited.
        """

        def waited() -> None:
            self.fails("data")
            self.there.stream.pauseProducing()
            self.here.stream.write(b"hello")
            self.settle()
            self.there.stream.resumeProducing()

        def atOnce() -> None:
            self.fails("data")
            self.here.stream.write(b"hello")

        self.tryAll(waited)
        self.tryAll(atOnce)

    def test_connectionLost(self) -> None:
        """
        In C{connectionLost}.
        """

        def lose() -> None:
            self.fails("lost")
            self.here.stream.loseConnection()

        self.tryAll(lose)

    def test_halves(self) -> None:
        """
        In the methods of C{IHalfCloseableProtocol}, and in the adaptation to that
        interface.
        """

        def readLost() -> None:
            self.fails("readLost")
            self.here.stream.loseWriteConnection()

        def writeLost() -> None:
            self.fails("writeLost")
            self.here.stream.loseReadConnection()

        def ownWriteLost() -> None:
            self.fails("writeLost")
            self.there.stream.loseWriteConnection()

        for provoke in (readLost, writeLost, ownWriteLost):
            self.tryAll(provoke, HalfRecorder)
        self.tryAll(lambda: self.here.stream.loseWriteConnection(), Adapted)

    def test_logPrefix(self) -> None:
        """
        In C{logPrefix}.
        """
        self.tryAll(lambda: self.here.stream.write(b"hello"), Prefixed)

    def test_TLS(self) -> None:
        """
        In the calls that TLS makes: C{handshakeCompleted}, C{dataReceived} and
        C{connectionLost}.
        """

        def startTLS() -> None:
            there: Any = CERTIFICATE.options()
            here: Any = optionsForClientTLS(NAME, CERTIFICATE)
            self.there.stream.startTLS(there)
            self.here.stream.startTLS(here)
            self.settle()

        def data() -> None:
            startTLS()
            self.fails("data")
            self.here.stream.write(b"hello")

        def lost() -> None:
            startTLS()
            self.fails("lost")
            self.here.stream.loseConnection()

        self.tryAll(startTLS, Listener)
        self.tryAll(data)
        self.tryAll(lost)

    # Producers

    def test_producers(self) -> None:
        """
        In the methods of producers, of both kinds.
        """

        def pause() -> None:
            producer = RaisingProducer("pauseProducing", self.failing)
            self.there.stream.registerProducer(producer, True)
            self.there.stream.write(bytes(200000))

        def pauseLater() -> None:
            self.there.stream.write(bytes(200000))
            producer = RaisingProducer("pauseProducing", self.failing)
            self.there.stream.registerProducer(producer, True)

        def resume() -> None:
            producer = RaisingProducer("resumeProducing", self.failing)
            self.there.stream.registerProducer(producer, True)
            self.there.stream.write(bytes(200000))

        def pull() -> None:
            self.there.stream.write(b"first")
            producer = RaisingProducer("resumeProducing", self.failing)
            self.there.stream.registerProducer(producer, False)

        def stop() -> None:
            producer = RaisingProducer("stopProducing", self.failing)
            self.there.stream.registerProducer(producer, True)
            self.here.stream.abortConnection()

        for provoke in (pause, pauseLater, resume, pull, stop):
            self.tryAll(provoke)

    # Factories

    def test_peersFactory(self) -> None:
        """
        In C{buildProtocol} of the factory for the peer's streams: the stream is
        refused.
        """
        for error in KINDS:
            self.start(Recorder, error)
            self.pair.server.streamFactory = RaisingFactory(
                "buildProtocol", self.failing
            )
            factory = Recorders()
            self.pair.client.openStream(factory)
            self.settle()
            self.assertEqual(factory.made[0].events, ["made", "lost"])
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)
            self.pair.server.streamFactory = None
            self.goesOn()

    def test_ownFactory(self) -> None:
        """
        In C{doStart} and C{buildProtocol} of the factory that C{openStream} gets: the
        stream is not opened, and the caller learns why.
        """
        for error in KINDS:
            for method in ("doStart", "buildProtocol"):
                self.start(Recorder, error)
                factory = RaisingFactory(method, self.failing)
                opened = self.pair.client.openStream(factory)
                self.failureResultOf(opened, error)
                self.goesOn()

    def test_doStop(self) -> None:
        """
        In C{doStop} of the factory that C{openStream} got.
        """
        for error in KINDS:
            self.start(Recorder, error)
            self.pair.client.openStream(RaisingFactory("doStop", self.failing))
            self.settle()
            self.served.made[-1].stream.loseConnection()
            self.settle()
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)
            self.goesOn()

    # Later calls

    def test_callSoon(self) -> None:
        """
        In a call that waits for the next turn: the other calls are made.
        """
        for error in KINDS:
            self.start(Recorder, error)
            called: list[int] = []
            callSoon = Parts(self.pair.server).nextTurn.callSoon
            callSoon(self.failing.raiseIt)
            callSoon(lambda: called.append(1))  # noqa: B023
            self.settle()
            self.assertEqual(called, [1])
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)
            self.goesOn()

    def test_whenClosed(self) -> None:
        """
        In callbacks of C{whenClosed()}, and by an application that fires the returned
        Deferred itself: all other callers learn of the end.
        """
        for error in KINDS:
            self.start(Recorder, error)
            mux = self.pair.client
            mux.whenClosed().callback(ConnectionClosed())
            raising: Any = mux.whenClosed().addCallback(self.failing.raiseIt)
            last = mux.whenClosed()
            mux.close()
            self.settle()
            self.failureResultOf(raising, error)
            self.assertIsInstance(self.successResultOf(last), ConnectionClosed)


class EndpointTests(SynchronousTestCase):
    """
    Factories that raise, given to endpoints: C{connect} and C{listen} fail, as those of
    TCP do.
    """

    def test_connect(self) -> None:
        """
        In C{doStart} for a client.
        """
        for error in KINDS:
            failing = Raising()
            failing.kind = error
            endpoint = MuxClientEndpoint(Clock(), None, PSK)  # type: ignore[arg-type]
            connecting = endpoint.connect(RaisingFactory("doStart", failing))
            self.failureResultOf(connecting, error)

    def test_listen(self) -> None:
        """
        In C{doStart} and C{doStop} for a server: nothing is served after that.
        """
        for error in KINDS:
            failing = Raising()
            failing.kind = error
            pair = MuxPair()
            endpoint = StreamServerEndpoint(pair.server)
            listening = endpoint.listen(RaisingFactory("doStart", failing))
            self.failureResultOf(listening, error)
            self.assertIsNone(pair.server.streamFactory)
            port = self.successResultOf(
                endpoint.listen(RaisingFactory("doStop", failing))
            )
            self.failureResultOf(port.stopListening(), error)
            self.successResultOf(endpoint.listen(Factory()))
