"""
Tests for L{gomux._mux.requests} and L{gomux._mux.acceptor}: streams for a service.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import error as twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import NoProtocol
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits, MuxFactory, error
from gomux._mux.stream import Stream
from gomux._wire.frame import BOUND, REQUEST, Flag
from gomux._wire.replay import FirstFrames
from gomux._wire.request import CODES, encodeAnswer
from gomux._wire.salts import Salts
from gomux._wire.window import INITIAL_WINDOW
from gomux.limits import LINES_BURST, MAX_REQUEST
from gomux.test.support.helpers import (
    ABORTS,
    CLOSE_READ,
    CLOSE_STREAM,
    CLOSE_WRITE,
    HalfRecorder,
    Parts,
    Recorder,
    Recorders,
    Rig,
    note,
)
from gomux.test.support.logs import Lines
from gomux.test.support.requestvectors import MALFORMED, NO_ANSWERS, message
from gomux.test.support.strictrig import StrictRig
from gomux.testing import PSK, MuxPair

VECTORS = Path(__file__).parent.parent / "vectors" / "requests.json"
CHAT = message('{"service":"chat"}')
OK = message('{"ok":true}')

ERRORS: dict[str, tuple[type[error.RequestRefused], type[Exception]]] = {
    "unknown": (error.ServiceUnknown, twisted.ServiceNameUnknownError),
    "not-allowed": (error.ServiceNotAllowed, twisted.ConnectError),
    "refused": (error.ServiceRefused, twisted.ConnectionRefusedError),
    "unreachable": (error.ServiceUnreachable, twisted.NoRouteError),
    "timeout": (error.ServiceTimeout, twisted.TimeoutError),
    "busy": (error.ServiceBusy, twisted.ConnectError),
    "failed": (error.ServiceFailed, twisted.ConnectError),
}


class Raising(Recorders):
    """
    Fails to make protocols.
    """

    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.error = error

    def buildProtocol(self, addr: Any) -> Any:
        if self.error is not None:
            raise self.error
        return None


class PairTests(SynchronousTestCase):
    """
    Streams for services between two muxes
    """

    def pair(self, *, services: Any = None, strict: bool = False, **pair: Any) -> None:
        """
        Connect two muxes.  Both sides serve the same services.
        """
        clock = Clock()
        self.chat = Recorders()
        self.plain = Recorders()
        self.factories = [
            MuxFactory(
                PSK,
                isClient,
                self.plain,
                clock=clock,
                services={"chat": self.chat} if services is None else services,
                strict=strict,
                salts=Salts(),
            )
            for isClient in (True, False)
        ]
        self.muxes = MuxPair(
            clientFactory=self.factories[0],
            serverFactory=self.factories[1],
            clock=clock,
            **pair,
        )

    def open(
        self, service: str = "chat", factory: Any = None, fromServer: bool = False
    ) -> Deferred[Any]:
        mux = self.muxes.server if fromServer else self.muxes.client
        self.opened = Recorders() if factory is None else factory
        return mux.openStream(self.opened, service)

    def check(self) -> None:
        for mux in (self.muxes.client, self.muxes.server):
            mux.checkInvariants()

    def test_exchange(self) -> None:
        """
        In both modes, roles and any pieces, a stream for a service carries data in both
        directions, and its applications see nothing of the request and the answer.
        """
        for strict in (False, True):
            for fromServer in (False, True):
                for size in (None, 1, 37):
                    self.pair(strict=strict, chunkSize=size)
                    self.muxes.flush()
                    opening = self.open(fromServer=fromServer)
                    self.assertEqual(self.opened.made, [])
                    self.muxes.flush()
                    near = self.successResultOf(opening)
                    [far] = self.chat.made
                    self.assertEqual(self.opened.made, [near])
                    near.stream.write(b"ping")
                    far.stream.write(b"pong")
                    self.muxes.flush()
                    self.assertEqual((near.received, far.received), (b"pong", b"ping"))
                    self.check()
                    near.stream.loseConnection()
                    self.muxes.flush()
                    for recorder in (near, far):
                        self.assertEqual(recorder.events, ["made", "data", "lost"])
                    self.assertEqual(self.muxes.client.protocolCount, 0)
                    self.assertEqual(self.muxes.server.protocolCount, 0)
                    self.check()

    def test_dataBehind(self) -> None:
        """
        Data that each side sends at once arrives behind the request and the answer.
        """
        self.pair(services={"chat": Recorders(made=lambda r: r.stream.write(b"hi"))})
        opening = self.open(factory=Recorders(made=lambda r: r.stream.write(b"you")))
        self.muxes.flush()
        [far] = self.factories[1].services["chat"].made  # type: ignore[union-attr]
        near = self.successResultOf(opening)
        self.assertEqual((near.received, far.received), (b"hi", b"you"))

    def test_names(self) -> None:
        """
        Both ends of a stream know the service, in the address for C{buildProtocol} too.
        """
        seen = []

        class Seen(Recorders):
            def buildProtocol(self, addr: Any) -> Recorder:
                seen.append(addr.service)
                return super().buildProtocol(addr)

        self.pair(services={"a": Seen(), "b.2": Seen()})
        for service in ("a", "b.2"):
            opening = self.open(service, Seen())
            self.muxes.flush()
            near = self.successResultOf(opening).stream
            [far] = self.factories[1].services[service].made  # type: ignore[union-attr]
            for stream in (near, far.stream):
                self.assertEqual(stream.service, service)
                self.assertEqual(stream.getPeer().service, service)
                self.assertEqual(stream.getHost().service, service)
            near.loseConnection()
            self.muxes.flush()
            self.assertEqual(near.getPeer().service, service)
        self.assertEqual(seen, ["a", "a", "b.2", "b.2"])
        self.muxes.client.openStream(self.opened)
        self.assertIsNone(self.opened.made[-1].stream.getPeer().service)

    def test_manyAtOnce(self) -> None:
        """
        Streams for several services and streams without one are kept apart.
        """
        services = {name: Recorders() for name in ("a", "b", "c")}
        self.pair(services=services)
        opened: list[Any] = []
        for number in range(30):
            name = [None, "a", "b", "c"][number % 4]

            def tell(recorder: Recorder, name: str | None = name) -> None:
                recorder.stream.write(str(name).encode())

            telling = Recorders(made=tell)
            self.muxes.client.openStream(telling, name).addCallback(opened.append)
        self.muxes.flush()
        self.assertEqual(len(opened), 30)
        for name, factory in (*services.items(), ("None", self.plain)):
            self.assertGreater(len(factory.made), 6)
            for recorder in factory.made:
                self.assertEqual(recorder.received, name.encode())

    def test_ofMux(self) -> None:
        """
        A mux has the services of its factory, and may have more of its own, which go
        before those.
        """
        self.pair(services={"chat": Recorders(), "both": Recorders()})
        own = {"mine": Recorders(), "both": Recorders()}
        self.muxes.server.services = own
        for service in ("chat", "mine", "both"):
            opening = self.open(service)
            self.muxes.flush()
            self.successResultOf(opening)
        self.assertEqual([len(f.made) for f in own.values()], [1, 1])
        counts = [len(f.made) for f in self.factories[1].services.values()]  # type: ignore[union-attr]
        self.assertEqual(counts, [1, 0])

    def refused(self, opening: Deferred[Any], code: str) -> None:
        """
        Check that a stream is refused with a code, and nothing of it is left.
        """
        self.muxes.flush()
        failure = self.failureResultOf(opening)
        kind, fitting = ERRORS[code]
        self.assertIs(failure.type, kind)
        self.assertTrue(issubclass(kind, fitting))
        self.assertEqual(failure.value.code, code)
        self.assertEqual(self.opened.made, [])
        self.assertEqual(self.muxes.client.protocolCount, 0)
        self.assertEqual(self.muxes.server.protocolCount, 0)
        self.check()

    def test_unknown(self) -> None:
        """
        A service that the peer does not have is unknown.
        """
        self.pair()
        opening = self.open("none")
        self.muxes.flush()
        self.assertIn("no such service: none", str(self.failureResultOf(opening).value))
        opening = self.open("none")
        self.refused(opening, "unknown")

    def test_factoryRefuses(self) -> None:
        """
        A factory that makes no protocol refuses the stream.  One that raises an error
        for a refusal chooses the answer.  For any other exception, the service has
        failed.
        """
        for problem, code in (
            (None, "refused"),
            (ZeroDivisionError(), "failed"),
            *((kind(), code) for code, (kind, _) in ERRORS.items()),
        ):
            self.pair(services={"chat": Raising(problem)})
            self.refused(self.open(), code)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_rights(self) -> None:
        """
        A peer that may not use a service does not learn whether it exists.  The factory
        is asked for each stream.
        """
        self.pair()
        asked = []
        allowed: list[str | None] = ["chat"]

        def mayUse(peer: str, service: str | None) -> bool:
            asked.append((peer, service))
            return service in allowed

        self.factories[1].mayUse = mayUse
        opening = self.open()
        self.muxes.flush()
        self.successResultOf(opening).stream.loseConnection()
        allowed.clear()
        for service in ("chat", "none"):
            self.refused(self.open(service), "not-allowed")
        self.assertEqual(asked, [("", "chat"), ("", "chat"), ("", "none")])
        self.assertEqual(len(self.chat.made), 1)

    def test_rightsPlain(self) -> None:
        """
        The factory is asked for streams without a service too.
        """
        self.pair()
        self.factories[1].mayUse = lambda peer, service: service is not None
        opened = Recorders()
        self.muxes.client.openStream(opened)
        self.muxes.flush()
        self.assertEqual(self.plain.made, [])
        self.assertIsInstance(opened.made[0].reason, error.PeerAbortedStream)

    def test_rightsRaise(self) -> None:
        """
        If the check of the rights fails, the stream is refused.
        """
        self.pair()
        self.factories[1].mayUse = lambda peer, service: bool(1 / 0)
        self.refused(self.open(), "failed")
        opened = Recorders()
        self.muxes.client.openStream(opened)
        self.muxes.flush()
        self.assertIsInstance(opened.made[0].reason, error.PeerAbortedStream)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_openerFails(self) -> None:
        """
        If the factory of the side that opens makes no protocol, or fails, the stream is
        aborted.
        """
        for problem, kind in ((None, NoProtocol), (ZeroDivisionError(), None)):
            self.pair()
            opening = self.open(factory=Raising(problem))
            self.muxes.flush()
            self.failureResultOf(opening, kind or ZeroDivisionError)
            self.muxes.flush()
            self.assertIsInstance(self.chat.made[0].reason, error.PeerAbortedStream)
            self.assertEqual(self.muxes.client.protocolCount, 0)

    def test_badName(self) -> None:
        """
        A name that is not valid fails at once, and nothing is sent.
        """
        self.pair()
        self.muxes.flush()
        before = self.muxes.client.bytesSent
        for name in ("", "a b", "unnamed", 65 * "x"):
            self.failureResultOf(self.open(name), ValueError)
        self.muxes.flush()
        self.assertEqual(self.muxes.client.bytesSent, before)
        self.assertRaises(
            ValueError,
            MuxFactory,
            PSK,
            True,
            clock=Clock(),
            services={"a b": Recorders()},
        )

    def test_startStop(self) -> None:
        """
        The factory of a stream is started before and stopped after it, also when the
        stream is refused.
        """
        self.pair()
        self.muxes.flush()
        for service in ("chat", "none"):
            opening = self.open(service)
            self.assertEqual(self.opened.numPorts, 1)
            self.muxes.flush()
            opening.addCallbacks(
                lambda r: r.stream.loseConnection(), lambda failure: None
            )
            self.muxes.flush()
            self.assertEqual(self.opened.numPorts, 0)

    def test_startStopServices(self) -> None:
        """
        The factories of services are started and stopped with the mux factory.
        """
        self.pair()
        self.factories[1].doStart()
        self.assertEqual(self.chat.numPorts, 1)
        self.factories[1].doStop()
        self.assertEqual(self.chat.numPorts, 0)

    def test_stopFails(self) -> None:
        """
        If several factories fail to stop, the first error is raised, and the others are
        logged.
        """
        services = {name: Recorders() for name in ("a", "b", "c")}
        self.pair(services=services)
        factory = self.factories[1]
        factory.doStart()
        for name, problem in (("a", KeyError()), ("b", ZeroDivisionError())):

            def fail(problem: Exception = problem) -> None:
                raise problem

            services[name].doStop = fail  # type: ignore[method-assign]
        self.assertRaises(KeyError, factory.doStop)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(services["c"].numPorts, 0)

    def test_cancel(self) -> None:
        """
        A stream that waits for the answer can be cancelled.  Then it is aborted.
        """
        self.pair(latency=1)
        self.muxes.advance(2)
        opening = self.open()
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.muxes.flush()
        self.assertEqual(self.opened.made, [])
        self.assertEqual(self.muxes.client.protocolCount, 0)
        self.assertEqual(self.muxes.server.protocolCount, 0)

    def test_cancelAfterWait(self) -> None:
        """
        A stream that has waited for the greeting, or in the pool, can be cancelled
        while it waits for the answer.
        """
        for fromPool in (True, False):
            self.pair(latency=1)
            opened = Recorders()
            opener: Any = self.factories[0].pool if fromPool else self.muxes.client
            opening = opener.openStream(opened, service="chat")
            self.muxes.advance(2.5)
            self.assertEqual(self.muxes.client.streamCount, 1)
            opening.cancel()
            self.failureResultOf(opening, CancelledError)
            self.muxes.flush()
            self.assertEqual(opened.made, [])
            self.assertEqual(self.muxes.client.protocolCount, 0)
            self.assertEqual(self.muxes.server.protocolCount, 0)

    def test_muxLost(self) -> None:
        """
        A stream whose mux is lost before the answer fails with the reason.
        """
        self.pair(latency=1)
        self.muxes.advance(2)
        opening = self.open()
        self.muxes.loseCarrier()
        self.muxes.flush()
        failure = self.failureResultOf(opening, error.OpenStreamError)
        self.assertIsInstance(failure.value.reason, error.Truncated)
        self.assertIn("before the peer had answered", str(failure.value))

    def test_greetingLost(self) -> None:
        """
        A stream whose mux is lost before the greeting fails.
        """
        self.pair(latency=1)
        opening = self.open()
        self.muxes.loseCarrier()
        self.muxes.flush()
        self.failureResultOf(opening, error.Truncated)
        self.assertFalse(self.muxes.clock.getDelayedCalls())

    def test_pauses(self) -> None:
        """
        A protocol that pauses when it is connected gets no data before it resumes, also
        the data that came right behind the message.
        """
        self.pair()
        pausing = Recorders(made=lambda r: r.stream.pauseProducing())
        self.factories[1].services["chat"] = pausing
        self.factories[0].streamFactory = None
        self.open(factory=Recorders(made=lambda r: r.stream.write(b"x" * 1000)))
        self.muxes.flush()
        [far] = pausing.made
        self.assertEqual(far.received, b"")
        self.assertEqual(far.stream.unread, 1000)
        self.check()
        far.stream.resumeProducing()
        self.muxes.flush()
        self.assertEqual(len(far.received), 1000)
        self.check()

    def test_ends(self) -> None:
        """
        The application may close, half-close or abort the stream when it is connected.
        """
        for end in ("loseConnection", "loseWriteConnection", "abortConnection"):
            for isOpener in (True, False):

                def act(recorder: Recorder, end: str = end) -> None:
                    recorder.stream.write(b"bye")
                    getattr(recorder.stream, end)()

                acting = Recorders(HalfRecorder, made=act)
                plain = Recorders(HalfRecorder)
                self.pair(services={"chat": plain if isOpener else acting})
                opening = self.open(factory=acting if isOpener else plain)
                opening.addErrback(lambda failure: None)
                self.muxes.flush()
                for recorder in plain.made:
                    isCut = end == "abortConnection"
                    self.assertEqual(recorder.received, b"" if isCut else b"bye")
                    last = "readLost" if end == "loseWriteConnection" else "lost"
                    self.assertEqual(recorder.events[-1], last)
                self.check()
                self.assertEqual(self.muxes.client.reason, None)

    def test_startTLS(self) -> None:
        """
        A protocol may start TLS when it is connected.
        """
        from twisted.internet.ssl import optionsForClientTLS

        from gomux.test.support.certificates import CERTIFICATE, NAME

        options: Any = CERTIFICATE.options()
        client: Any = optionsForClientTLS(NAME, CERTIFICATE)
        far = Recorders(made=lambda r: r.stream.startTLS(options))
        self.pair(services={"chat": far})
        near = Recorders(made=lambda r: r.stream.startTLS(client))
        opening = self.open(factory=near)
        self.muxes.flush()
        self.successResultOf(opening)
        near.made[0].stream.write(b"secret")
        self.muxes.flush()
        self.assertEqual(far.made[0].received, b"secret")

    def test_withoutGreeting(self) -> None:
        """
        C{greet=False} on either side makes a stream for a service fail, on this side
        at once.
        """
        for isOff in (True, False):
            clock = Clock()
            client = MuxFactory(PSK, True, clock=clock, greet=not isOff)
            server = MuxFactory(PSK, False, clock=clock, greet=isOff)
            self.muxes = MuxPair(
                clientFactory=client, serverFactory=server, clock=clock
            )
            opening = self.open()
            if isOff:
                self.failureResultOf(opening, error.NoRequests)
                continue
            self.muxes.advance(4.9)
            self.assertNoResult(opening)
            self.muxes.advance(0.2)
            self.failureResultOf(opening, error.NoRequests)
            # Not another five seconds.
            self.failureResultOf(self.open(), error.NoRequests)

    def test_logged(self) -> None:
        """
        Both sides log a refusal, with the peer, the service and the code, but only some
        of many.
        """
        self.pair()
        observer = Lines("gomux")
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for _ in range(50):
            self.open("none").addErrback(lambda failure: None)
            self.muxes.flush()
        for mux, what in (
            (self.muxes.client, "the peer refused a stream"),
            (self.muxes.server, "refused a stream of the peer"),
        ):
            line = f"{mux}: {what} for none: unknown"
            self.assertEqual(observer.lines.count(line), LINES_BURST)
        self.assertEqual(len(observer.lines), 2 * LINES_BURST)


class RawTests(SynchronousTestCase):
    """
    A mux whose peer sends single frames
    """

    def rig(self, isClient: bool = False, **limits: Any) -> Rig:
        """
        @return: a rig whose peer has greeted, with an open stream beside the others.
        """
        clock, self.streams = Clock(), Recorders()
        self.chat = Recorders(HalfRecorder)
        factory = MuxFactory(
            PSK,
            isClient,
            self.streams,
            clock=clock,
            services={"chat": self.chat},
            limits=Limits(**limits),
        )
        rig = Rig(isClient=isClient, factory=factory, clock=clock)
        rig.streams = self.streams
        rig.send(0, Flag.KEEPALIVE, BOUND)
        self.beside = rig.opened(b"beside")
        self.peers = 2 + isClient
        rig.peer.frames = []
        return rig

    def open(self, rig: Rig, *pieces: bytes) -> None:
        """
        Have the peer open the stream C{self.peers} with a request.
        """
        rig.send(self.peers, Flag.OPEN_STREAM, REQUEST)
        for piece in pieces:
            rig.send(self.peers, Flag.DATA, piece)

    def checkBeside(self, rig: Rig) -> None:
        """
        Check that the mux and its other stream have not noticed.
        """
        self.assertIsNone(rig.reason())
        rig.mux.checkInvariants()
        rig.send(int(rig.isClient), Flag.DATA, b"still")
        self.assertTrue(self.beside.received.endswith(b"still"))
        self.beside.stream.write(b"here")
        rig.run()
        frames = [frame for frame in rig.peer.take() if frame[0] == int(rig.isClient)]
        self.assertIn(b"here", [frame[3] for frame in frames])

    def aborted(self, rig: Rig) -> None:
        """
        Check that the stream of the peer was aborted, without an answer.
        """
        frames = [frame for frame in rig.sent() if frame[0] == self.peers]
        expected = [ABORTS, CLOSE_STREAM]
        self.assertEqual([frame[1:] for frame in frames], [f[1:] for f in expected])
        self.assertEqual(self.chat.made, [])
        self.assertEqual(rig.mux.streamCount, 1)
        self.checkBeside(rig)

    def test_cutEverywhere(self) -> None:
        """
        A request may come in two pieces, cut anywhere, with data behind it, and ends
        the stream if its end comes before it is complete.
        """
        for isClient in (True, False):
            for cut in range(len(CHAT)):
                rig = self.rig(isClient)
                self.open(rig, CHAT[:cut] or CHAT[:1])
                self.assertEqual(self.chat.made, [])
                rest = CHAT[max(cut, 1) :] + b"data"
                rig.send(self.peers, Flag.DATA, rest)
                self.assertEqual(self.chat.made[0].received, b"data")
                self.assertEqual(rig.sentData(), OK)
                self.checkBeside(rig)
                rig = self.rig(isClient)
                self.open(rig, *([CHAT[:cut]] if cut else []))
                rig.send(self.peers, Flag.CLOSE_READ)
                self.aborted(rig)

    def test_closed(self) -> None:
        """
        A stream that the peer closes or aborts before its request is complete is gone.
        """
        for isAbort in (True, False):
            for cut in (0, 1, len(CHAT) - 1):
                rig = self.rig()
                self.open(rig, *([CHAT[:cut]] if cut else []))
                if isAbort:
                    rig.send(self.peers, Flag.WINDOW_UPDATE)
                rig.send(self.peers, Flag.CLOSE_STREAM)
                self.assertEqual(rig.sent(), [])
                self.assertEqual(self.chat.made, [])
                self.assertEqual((rig.mux.streamCount, rig.mux.protocolCount), (1, 1))
                self.checkBeside(rig)

    def test_bytewise(self) -> None:
        """
        A request may come in single bytes, in frames of their own.
        """
        rig = self.rig()
        self.open(rig, *(bytes([byte]) for byte in CHAT + b"data"))
        self.assertEqual(self.chat.made[0].received, b"data")
        self.checkBeside(rig)

    def test_malformed(self) -> None:
        """
        A malformed request ends its stream with an abort, and no other stream notices.
        """
        for isClient in (True, False):
            for text in MALFORMED:
                rig = self.rig(isClient)
                self.open(rig, message(text))
                self.aborted(rig)
        for data in (b"\2\0\xff\xff", b"\x08\0\x00\x00\x00\x00\x00\x00\x00\x00"):
            rig = self.rig()
            self.open(rig, data)
            self.aborted(rig)

    def test_tooLarge(self) -> None:
        """
        A request of 4096 bytes is accepted.  A larger one ends its stream as soon as
        its size is known.
        """
        rig = self.rig()
        padding = "x" * (MAX_REQUEST - len('{"service":"chat","x":""}'))
        self.open(rig, message(f'{{"service":"chat","x":"{padding}"}}'))
        self.assertEqual(len(self.chat.made), 1)
        for size in (MAX_REQUEST + 1, 65535):
            rig = self.rig()
            self.open(rig, size.to_bytes(2, "little"))
            self.aborted(rig)

    def test_slow(self) -> None:
        """
        A request that is not complete in C{requestTimeout} seconds after its OpenStream
        ends its stream with an abort.  The time of each stream counts by itself.
        """
        rig = self.rig(requestTimeout=10)
        self.open(rig, CHAT[:5])
        rig.clock.advance(6)
        later = self.peers + 2
        rig.send(later, Flag.OPEN_STREAM, REQUEST)
        rig.send(self.peers, Flag.DATA, CHAT[5:7])
        rig.clock.advance(3.9)
        self.assertEqual(rig.mux.streamCount, 3)
        rig.clock.advance(0.2)
        self.assertEqual(rig.mux.streamCount, 2)
        rig.send(later, Flag.DATA, CHAT)
        self.assertEqual(len(self.chat.made), 1)
        self.chat.made.clear()
        rig.clock.advance(20)
        frames = [frame[1] for frame in rig.sent() if frame[0] == self.peers]
        self.assertEqual(frames, [Flag.WINDOW_UPDATE, Flag.CLOSE_STREAM])
        self.assertEqual(rig.mux.streamCount, 2)
        self.checkBeside(rig)

    def test_slowMany(self) -> None:
        """
        Streams that are never asked for take their place among the peer's streams, and
        are given back.
        """
        rig = self.rig(requestTimeout=10, maxStreams=100)
        for number in range(200):
            rig.send(self.peers + 2 * number, Flag.OPEN_STREAM, REQUEST)
        self.assertEqual(rig.mux.streamCount, 100)
        rig.clock.advance(10.1)
        self.assertEqual((rig.mux.streamCount, rig.mux.protocolCount), (1, 1))
        self.checkBeside(rig)

    def test_slowInTurn(self) -> None:
        """
        Streams that come one after the other are aborted one after the other.  A stream
        that has ended before is not aborted, so no line in the log says so.
        """
        rig = self.rig(requestTimeout=10)
        observer = Lines("gomux")
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for number in range(4):
            rig.send(self.peers + 2 * number, Flag.OPEN_STREAM, REQUEST)
            rig.clock.advance(1)
        rig.send(self.peers + 4, Flag.CLOSE_STREAM)
        counts = []
        for _ in range(5):
            rig.clock.advance(2)
            counts.append(rig.mux.streamCount)
        self.assertEqual(counts, [4, 4, 3, 2, 1])
        self.assertEqual(len(observer.lines), 3)
        self.assertIn("was not complete within 10 seconds", observer.lines[0])
        self.checkBeside(rig)

    def test_memory(self) -> None:
        """
        What is there of requests counts as input that waits, and the peer gets no
        credit for it.
        """
        rig = self.rig()
        before = Parts(rig.mux).streams.account.used
        huge = MAX_REQUEST.to_bytes(2, "little") + b"x" * (MAX_REQUEST - 1)
        self.open(rig, huge)
        rig.mux.checkInvariants()
        account = Parts(rig.mux).streams.account
        self.assertGreaterEqual(account.used - before, len(huge))
        stream = Parts(rig.mux).streams.byID[self.peers]
        assert stream.receiveWindow is not None
        self.assertEqual(stream.receiveWindow.available, INITIAL_WINDOW - len(huge))
        self.assertEqual(rig.sent(), [])

    def test_window(self) -> None:
        """
        A request counts against the window: data beyond it ends the mux.
        """
        rig = self.rig()
        self.chat.hooks["made"] = lambda r: r.stream.pauseProducing()
        self.open(rig, CHAT + bytes(1000))
        stream = self.chat.made[0].stream
        assert stream.receiveWindow is not None
        unread = stream.receiveWindow.available
        self.assertEqual(unread, INITIAL_WINDOW - len(CHAT) - 1000)
        rig.mux.checkInvariants()
        rig.send(self.peers, Flag.DATA, bytes(65536))
        rig.send(self.peers, Flag.DATA, bytes(unread - 65536))
        self.assertIsNone(rig.reason())
        rig.send(self.peers, Flag.DATA, b"x")
        self.assertIsInstance(rig.reason(), error.ProtocolViolation)

    def test_twice(self) -> None:
        """
        What follows the request is data, also if it is another request.
        """
        rig = self.rig()
        self.open(rig, CHAT + CHAT, CHAT)
        self.assertEqual(len(self.chat.made), 1)
        self.assertEqual(self.chat.made[0].received, CHAT + CHAT)
        self.assertEqual(rig.sentData(), OK)
        self.checkBeside(rig)

    def test_connect(self) -> None:
        """
        A request to connect is not allowed, whatever it asks for.
        """
        for where in ("localhost:22", "[::1]:22", "192.0.2.1:65535"):
            rig = self.rig()
            self.open(rig, message(f'{{"connect":"{where}"}}') + b"data")
            self.assertEqual(rig.sentData(), encodeAnswer("not-allowed"))
            self.assertEqual(rig.mux.streamCount, 1)
            self.checkBeside(rig)

    def test_refusal(self) -> None:
        """
        A refusal is the answer, then CloseStream, without an abort.  It says no more
        than its code, and the data behind the request is dropped.
        """
        rig = self.rig()
        self.open(rig, message('{"service":"none"}') + b"data")
        frames = [frame for frame in rig.peer.take() if frame[0] == self.peers]
        answer = encodeAnswer("unknown")
        expected = [(Flag.DATA, answer), (Flag.CLOSE_STREAM, b"")]
        self.assertEqual([(f[1], f[3]) for f in frames], expected)
        self.assertIn(CODES["unknown"].encode(), answer)
        rig.send(self.peers, Flag.DATA, b"late")
        self.checkBeside(rig)

    def test_wantsNoAnswer(self) -> None:
        """
        A peer that wants no data has its request served.  The protocol is told that the
        writing half is closed.
        """
        rig = self.rig()
        self.open(rig)
        rig.send(self.peers, Flag.CLOSE_WRITE)
        rig.send(self.peers, Flag.DATA, CHAT + b"data")
        rig.run()
        self.assertEqual(self.chat.made[0].events, ["made", "data", "writeLost"])
        self.assertEqual(rig.sentData(), b"")
        rig.send(self.peers, Flag.CLOSE_READ)
        self.assertEqual(self.chat.made[0].events[-2:], ["readLost", "lost"])
        self.checkBeside(rig)

    def test_full(self) -> None:
        """
        A stream that has no place is refused with an abort.
        """
        rig = self.rig(maxStreams=1)
        self.open(rig, CHAT)
        self.aborted(rig)

    def assertServes(self, rig: Rig) -> None:
        """
        Check that a mux serves a request of its peer.
        """
        chat = Recorders()
        rig.factory.services["chat"] = chat
        rig.send(0, Flag.OPEN_STREAM, REQUEST)
        rig.send(0, Flag.DATA, CHAT)
        self.assertEqual(len(chat.made), 1)
        self.assertEqual(rig.sentData(), OK)

    def test_unbound(self) -> None:
        """
        A request needs no greeting of the peer.
        """
        self.assertServes(Rig())

    def test_strict(self) -> None:
        """
        In strict mode a request of a peer is served.
        """
        self.assertServes(StrictRig())

    def test_muxEnds(self) -> None:
        """
        A mux that ends with requests that are not complete leaves nothing behind.
        """
        for size in (0, 5):
            rig = self.rig()
            self.open(rig, *([CHAT[:size]] if size else []))
            rig.mux.abort()
            rig.run()
            self.assertEqual(rig.mux.protocolCount, 0)
            rig.mux.checkInvariants()
            self.assertFalse(rig.clock.getDelayedCalls())

    def test_drains(self) -> None:
        """
        A mux that drains refuses streams with a request too, and closes once the
        requests that it has accepted are through.
        """
        rig = self.rig()
        self.open(rig)
        rig.mux.drain()
        self.beside.stream.loseConnection()
        rig.send(self.peers, Flag.DATA, CHAT)
        self.assertEqual(len(self.chat.made), 1)
        rig.send(self.peers + 2, Flag.OPEN_STREAM, REQUEST)
        self.assertEqual(rig.mux.streamCount, 1)
        self.chat.made[0].stream.loseConnection()
        self.assertEqual(rig.sent()[-1][1], Flag.CLOSE_MUX)

    # This side opens

    def opening(self, rig: Rig, **hooks: Any) -> Deferred[Any]:
        """
        Have the mux open a stream for the service C{chat}.
        """
        self.made = Recorders(HalfRecorder, **hooks)
        opening = rig.mux.openStream(self.made, "chat")
        self.assertNoResult(opening)
        self.own = 0 if rig.isClient else 1
        return opening

    def test_opens(self) -> None:
        """
        The mux sends OpenStream with a length of 1, then the request, and takes the
        answer however it is cut.
        """
        answer = OK + b"data"
        for isClient in (True, False):
            for cut in range(1, len(answer)):
                rig = self.rig(isClient)
                opening = self.opening(rig)
                rig.run()
                self.assertEqual(
                    rig.peer.take(),
                    [
                        (self.own, Flag.OPEN_STREAM, REQUEST, b""),
                        (self.own, Flag.DATA, len(CHAT), CHAT),
                    ],
                )
                rig.send(self.own, Flag.DATA, answer[:cut])
                rig.send(self.own, Flag.DATA, answer[cut:])
                self.assertEqual(self.successResultOf(opening).received, b"data")
                self.checkBeside(rig)

    def test_codes(self) -> None:
        """
        Each code of a refusal has an error of its own, which is also Twisted's fitting
        error.  A code that this version does not know is a failure.
        """
        for code, (kind, fitting) in ERRORS.items():
            rig = self.rig(True)
            opening = self.opening(rig)
            rig.send(self.own, Flag.DATA, encodeAnswer(code))
            rig.send(self.own, Flag.CLOSE_STREAM)
            failure = self.failureResultOf(opening, kind)
            self.assertIsInstance(failure.value, fitting)
            self.assertIsInstance(failure.value, error.OpenStreamError)
            self.assertEqual(failure.value.code, code)
            self.assertEqual(failure.value.service, "chat")
            self.assertNotIn(CODES[code], str(failure.value))
            self.assertEqual(self.made.made, [])
            self.checkBeside(rig)
        rig = self.rig(True)
        opening = self.opening(rig)
        rig.send(self.own, Flag.DATA, message('{"error":"of a later version"}'))
        self.failureResultOf(opening, error.ServiceFailed)

    def test_reason(self) -> None:
        """
        The text of an error has the peer's reason, which can neither forge a line of
        the log nor be long.
        """
        rig = self.rig(True)
        opening = self.opening(rig)
        reason = json.dumps("no\n" + 3000 * "x" + "\ud800")
        rig.send(self.own, Flag.DATA, message(f'{{"error":"busy","reason":{reason}}}'))
        text = str(self.failureResultOf(opening, error.ServiceBusy).value)
        self.assertIn("chat (no\\nxxx", text)
        self.assertLess(len(text), 700)

    def test_badAnswers(self) -> None:
        """
        An answer that is malformed, too large or cut aborts the stream, and the opening
        fails.
        """
        datas = [message(text) for text in NO_ANSWERS]
        for data in (*datas, b"\xff\xff", OK[:-1], b""):
            rig = self.rig(True)
            opening = self.opening(rig)
            rig.sent()
            if data:
                rig.send(self.own, Flag.DATA, data)
            if data in (OK[:-1], b""):
                self.assertNoResult(opening)
                rig.send(self.own, Flag.CLOSE_READ)
            failure = self.failureResultOf(opening, error.ServiceFailed)
            self.assertIn("answer is not valid", str(failure.value))
            frames = [frame for frame in rig.sent() if frame[0] == self.own]
            self.assertEqual(frames, [ABORTS, CLOSE_STREAM])
            self.assertEqual(self.made.made, [])
            self.checkBeside(rig)

    def test_noAnswer(self) -> None:
        """
        If the peer closes or aborts the stream instead of answering, the opening fails
        with the reason.
        """
        for isAbort, kind in (
            (True, error.PeerAbortedStream),
            (False, error.PeerClosedStream),
        ):
            for data in (b"", OK[:-1]):
                rig = self.rig(True)
                opening = self.opening(rig)
                if data:
                    rig.send(self.own, Flag.DATA, data)
                if isAbort:
                    rig.send(self.own, Flag.WINDOW_UPDATE)
                rig.send(self.own, Flag.CLOSE_STREAM)
                failure = self.failureResultOf(opening, error.OpenStreamError)
                self.assertIsInstance(failure.value.reason, kind)
                self.assertEqual(self.made.made, [])
                self.checkBeside(rig)

    def test_answerBehindCloseWrite(self) -> None:
        """
        CloseWrite may overtake the answer.  The protocol is told of it.
        """
        rig = self.rig(True)
        opening = self.opening(rig)
        rig.send(*CLOSE_WRITE)
        rig.send(self.own, Flag.DATA, OK)
        rig.run()
        recorder = self.successResultOf(opening)
        self.assertEqual(recorder.events, ["made", "writeLost"])
        rig.send(*CLOSE_READ)
        self.assertEqual(recorder.events[-2:], ["readLost", "lost"])

    def test_cancelled(self) -> None:
        """
        The answer to a cancelled request is ignored.
        """
        rig = self.rig(True)
        opening = self.opening(rig)
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        rig.send(self.own, Flag.DATA, OK + b"data")
        self.assertEqual(self.made.made, [])
        self.checkBeside(rig)

    def test_abortedAtOnce(self) -> None:
        """
        A stream whose application loses it in the callback of the opening gets no data
        afterwards.
        """
        rig = self.rig(True)
        opening = self.opening(rig)
        opening.addCallback(lambda recorder: recorder.stream.abortConnection())
        rig.send(self.own, Flag.DATA, OK + b"data")
        self.assertEqual(self.made.made[0].events, ["made", "lost"])
        self.checkBeside(rig)


class GreetingTests(SynchronousTestCase):
    """
    The wait for the peer's greeting
    """

    def rig(self, isClient: bool = True, **settings: Any) -> Rig:
        clock = Clock()
        factory = MuxFactory(PSK, isClient, Recorders(), clock=clock, **settings)
        return Rig(isClient=isClient, factory=factory, clock=clock)

    def open(self, rig: Rig) -> Deferred[Any]:
        return rig.mux.openStream(Recorders(), "chat")

    def requests(self, rig: Rig) -> int:
        """
        @return: how many streams with a request the mux has opened.
        """
        return rig.sent().count((rig.mux._nextID - 2, Flag.OPEN_STREAM, REQUEST))

    def test_waits(self) -> None:
        """
        Nothing of a request is sent before the greeting.  A cancelled stream is not
        sent then.
        """
        for isClient in (True, False):
            rig = self.rig(isClient)
            cancelled, opening = self.open(rig), self.open(rig)
            cancelled.cancel()
            self.failureResultOf(cancelled, CancelledError)
            self.assertIsNone(rig.mux.takesRequests)
            self.assertEqual(rig.sent(), [])
            rig.send(0, Flag.KEEPALIVE, BOUND)
            self.assertTrue(rig.mux.takesRequests)
            self.assertEqual(self.requests(rig), 1)
            self.assertEqual(rig.mux.streamCount, 1)
            self.assertNoResult(opening)
            rig.mux.abort()
            rig.run()
            self.failureResultOf(opening, error.OpenStreamError)
            self.assertFalse(rig.clock.getDelayedCalls())

    def test_otherFirst(self) -> None:
        """
        If the peer's first frame is no greeting, the streams that wait fail at once,
        and so do later streams.
        """
        for first in (
            (0, Flag.KEEPALIVE, 0),
            (0, Flag.KEEPALIVE, 2),
            (1, Flag.OPEN_STREAM, 0),
        ):
            rig = self.rig()
            waiting = self.open(rig)
            rig.send(*first)
            for opening in (waiting, self.open(rig)):
                failure = self.failureResultOf(opening, error.NoRequests)
                self.assertIn("is it a Go peer?", str(failure.value))
            self.assertIs(rig.mux.takesRequests, False)
            self.assertNotIn(Flag.OPEN_STREAM, [frame[1] for frame in rig.sent()])
            self.assertIsNone(rig.reason())

    def test_never(self) -> None:
        """
        If no greeting comes in C{greetTimeout} seconds, the streams that wait fail,
        and later streams fail at once.  Streams without a service are not affected.
        """
        rig = self.rig(limits=Limits(greetTimeout=3))
        rig.clock.advance(100)
        waiting = self.open(rig)
        rig.clock.advance(2.9)
        self.assertNoResult(waiting)
        second = self.open(rig)
        rig.clock.advance(0.2)
        for opening in (waiting, second, self.open(rig)):
            failure = self.failureResultOf(opening, error.NoRequests)
            self.assertIn("no greeting came in 3 seconds", str(failure.value))
        self.assertEqual(rig.sent(), [])
        self.successResultOf(rig.mux.openStream(Recorders()))
        self.assertEqual(rig.sent(), [(0, Flag.OPEN_STREAM, 0)])

    def test_late(self) -> None:
        """
        After a greeting that comes too late, streams for services can be opened.
        """
        rig = self.rig(limits=Limits(greetTimeout=3))
        self.open(rig).addErrback(lambda failure: None)
        rig.clock.advance(4)
        rig.send(0, Flag.KEEPALIVE, BOUND)
        self.assertNoResult(self.open(rig))
        self.assertEqual(self.requests(rig), 1)

    def test_off(self) -> None:
        """
        With C{greet=False} streams for services fail at once, also if the peer greets.
        """
        rig = self.rig(greet=False)
        for _ in range(2):
            failure = self.failureResultOf(self.open(rig), error.NoRequests)
            self.assertIn("greet=False", str(failure.value))
            rig.send(0, Flag.KEEPALIVE, BOUND)

    def test_strict(self) -> None:
        """
        In strict mode nothing of a request is sent before the handshake is complete.
        """
        for isClient in (True, False):
            rig = StrictRig(isClient=isClient, up=False)
            opening = self.open(rig)
            self.assertEqual(rig.mux.streamCount, 0)
            while rig.mux.gated:
                rig.answer()
            self.assertNoResult(opening)
            self.assertEqual(self.requests(rig), 1)

    def test_limit(self) -> None:
        """
        As many streams may wait for the greeting as for the gate.
        """
        rig = self.rig(limits=Limits(maxControl=3))
        waiting = [self.open(rig) for _ in range(3)]
        self.failureResultOf(self.open(rig), error.OpenStreamError)
        rig.mux.abort()
        rig.run()
        for opening in waiting:
            self.failureResultOf(opening, error.ConnectionClosed)


class VectorTests(SynchronousTestCase):
    """
    The frames of C{vectors/requests.json}
    """

    def test_frames(self) -> None:
        """
        A mux in either role that gets the frames of the other side sends those of its
        own.
        """
        vectors = json.loads(VECTORS.read_text())
        for side, isClient in (("client", True), ("server", False)):
            own = [e["frame"] for e in vectors["frames"] if e["from"] == side]
            # A client has sent its greeting before the peer looks.
            self.assertEqual(self.played(vectors, side, isClient), own[isClient:])

    def played(self, vectors: Any, side: str, isClient: bool) -> list[str]:
        """
        @return: the frames that a mux sends.
        """
        prefix = bytes.fromhex(vectors[f"{side}Prefix"])
        self.patch(os, "urandom", lambda size: prefix)
        clock, opened = Clock(), Recorders()
        psk = bytes.fromhex(vectors["psk"]).decode()
        services = {"chat": Recorders()}
        factory = MuxFactory(psk, isClient, clock=clock, services=services)
        # The recorded frames may come once in each test.
        factory.keyring.firstFrames = FirstFrames()
        rig = Rig(isClient=isClient, factory=factory, clock=clock, psk=psk)
        sent = note(rig)
        results: list[Any] = []
        for entry in vectors["frames"]:
            about = entry["about"]
            if entry["from"] != side:
                rig.sendRaw(bytes.fromhex(entry["frame"]))
            elif about.startswith("OpenStream"):
                name = "chat" if about.startswith("OpenStream 0") else "none"
                rig.mux.openStream(opened, name).addBoth(results.append)
            elif about == "5 bytes of data":
                opened.made[0].stream.write(b"hello")
            rig.run()
        if isClient:
            self.assertEqual(results[0], opened.made[0])
            self.assertIs(results[1].type, error.ServiceUnknown)
        else:
            self.assertEqual(services["chat"].made[0].received, b"hello")
        return [frame.hex() for frame in sent]


class ApplicationTests(SynchronousTestCase):
    """
    Applications that fail
    """

    def fail(self, *ignored: Any) -> Any:
        raise ZeroDivisionError

    def run_(self, make: Callable[[], Any]) -> tuple[Failure | Any, MuxPair, Any]:
        served = Recorders()
        served.buildProtocol = lambda addr: make()  # type: ignore[method-assign]
        pair = MuxPair(serverServices={"chat": served})
        results: list[Any] = []
        pair.client.openStream(Recorders(), "chat").addBoth(results.append)
        pair.flush()
        self.assertIsNone(pair.client.reason)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        pair.server.checkInvariants()
        return results[0], pair, served

    def test_connectionMade(self) -> None:
        """
        A protocol whose C{connectionMade} fails has its stream aborted.
        """
        result, pair, _ = self.run_(lambda: Recorder({"made": self.fail}))
        self.assertEqual(pair.server.protocolCount, 0)
        self.assertEqual(pair.client.protocolCount, 0)

    def test_logPrefix(self) -> None:
        """
        A protocol whose C{logPrefix} fails has its stream aborted.
        """
        from twisted.internet.interfaces import ILoggingContext
        from zope.interface import directlyProvides

        def make() -> Recorder:
            recorder = Recorder()
            recorder.logPrefix = self.fail  # type: ignore[method-assign]
            directlyProvides(recorder, ILoggingContext)
            return recorder

        result, pair, _ = self.run_(make)
        self.assertEqual(pair.server.protocolCount, 0)

    def test_later(self) -> None:
        """
        A protocol that fails with its first data has its stream aborted.
        """
        served = Recorders(data=self.fail)
        pair = MuxPair(serverServices={"chat": served})
        opened = Recorders(made=lambda r: r.stream.write(b"x"))
        pair.client.openStream(opened, "chat")
        pair.flush()
        self.assertIsInstance(opened.made[0].reason, error.PeerAbortedStream)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        stream: Stream = served.made[0].stream
        self.assertTrue(stream.disconnected)
