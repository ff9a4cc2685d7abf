"""
Tests for L{gomux.tunnel} with services: what the peer learns of a target.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectBindError,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TCPTimedOutError,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gomux import error
from gomux._wire.keyring import Keyring
from gomux._wire.window import INITIAL_WINDOW
from gomux.test.support.helpers import HalfRecorder, Parts, Recorder, Recorders
from gomux.test.support.tunnelrig import Rig
from gomux.testing import MuxPair
from gomux.tunnel import forward
from gomux.tunnel._codes import codeOf


class CodeTests(SynchronousTestCase):
    """
    L{codeOf}
    """

    def test_codes(self) -> None:
        """
        Each failure to connect has its code.
        """
        for problem, code in (
            (ConnectionRefusedError(), "refused"),
            (TCPTimedOutError(), "timeout"),
            (NoRouteError(), "unreachable"),
            (DNSLookupError(), "unreachable"),
            (ConnectBindError(), "unreachable"),
            (error.ServiceBusy(), "busy"),
            (error.ServiceNotAllowed(), "not-allowed"),
            (error.OpenStreamError(), "unreachable"),
            (ValueError(), "failed"),
        ):
            self.assertEqual(codeOf(Failure(problem)), code)


class TargetTests(SynchronousTestCase):
    """
    A target of streams for a service, whose peer is no tunnel
    """

    service = "any"

    def setUp(self) -> None:
        self.rig = Rig(self)
        self.rig.flush()
        self.target = self.rig.target

    def open(self, data: bytes = b"") -> Deferred[Any]:
        self.opened = Recorders(HalfRecorder)
        opening = self.rig.pair.client.openStream(self.opened, "any")
        self.rig.flush()
        return opening

    def test_answer(self) -> None:
        """
        The stream is accepted once the target is connected, and not before.
        """
        waiting = self.target.hold()
        opening = self.open()
        self.assertNoResult(opening)
        assert self.target.factory is not None
        waiting.callback(self.target.connected(self.target.factory))
        self.rig.flush()
        stream = self.successResultOf(opening).stream
        self.target.carriers[0][1].write(b"from the target")
        stream.write(b"to the target")
        self.rig.flush()
        self.assertEqual(self.opened.made[0].received, b"from the target")
        self.assertEqual(self.target.made[0].received, b"to the target")

    def refused(self, opening: Deferred[Any], kind: type[Exception]) -> None:
        """
        Check that the stream is refused, and nothing of it is left.
        """
        self.rig.flush()
        self.failureResultOf(opening, kind)
        self.assertEqual(self.rig.there.bridges, set())
        self.assertEqual(self.rig.pair.server.protocolCount, 0)
        self.assertEqual(self.opened.made, [])

    def test_refused(self) -> None:
        """
        The peer learns why the target cannot be connected, in no more than a code.
        """
        for problem, kind in (
            (ConnectionRefusedError(), error.ServiceRefused),
            (NoRouteError(), error.ServiceUnreachable),
            (ValueError("a secret"), error.ServiceFailed),
        ):
            waiting = self.target.hold()
            opening = self.open()
            waiting.errback(problem)
            self.refused(opening, kind)
        self.target.answer = ValueError("a secret")
        opening = self.open()
        self.rig.flush()
        failure = self.failureResultOf(opening, error.ServiceFailed)
        self.assertNotIn("secret", str(failure.value))

    def test_timeout(self) -> None:
        """
        A target that does not answer in time is told as such.
        """
        self.target.answer = Deferred()
        opening = self.open()
        self.rig.pair.advance(self.rig.limits.targetTimeout + 0.5)
        self.refused(opening, error.ServiceTimeout)

    def test_busy(self) -> None:
        """
        A stream over the limit of connections is told that there are too many.
        """
        for _ in range(3):
            self.successResultOf(self.open())
        opening = self.open()
        self.rig.flush()
        self.failureResultOf(opening, error.ServiceBusy)
        self.assertEqual(len(self.rig.there.bridges), 3)

    def test_openerLeaves(self) -> None:
        """
        If the peer aborts the stream while the target is connected, the attempt is
        cancelled.
        """
        cancelled: list[Any] = []
        self.target.answer = Deferred(cancelled.append)
        opening = self.open()
        opening.addErrback(lambda failure: None)
        opening.cancel()
        self.rig.flush()
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.rig.there.bridges, set())
        self.assertEqual(self.rig.pair.server.protocolCount, 0)

    def test_muxLost(self) -> None:
        """
        The loss of the mux while the target is connected leaves nothing behind.
        """
        self.target.answer = Deferred()
        opening = self.open()
        self.rig.pair.loseCarrier()
        self.rig.flush()
        self.failureResultOf(opening, error.OpenStreamError)
        self.assertEqual(self.rig.there.bridges, set())


class ForwardTests(SynchronousTestCase):
    """
    A forwarding listener whose streams are for a service
    """

    def rig(self, service: str, **limits: Any) -> Rig:
        self.service = service
        rig = Rig(self, **limits)
        rig.flush()
        return rig

    def test_unknown(self) -> None:
        """
        A connection whose service the peer does not have is reset, and the log says
        so.  Other connections do not notice.
        """
        rig = self.rig("none")
        client, _ = rig.open()
        self.assertIsInstance(client.reason, ConnectionLost)
        self.assertIn("The peer has no such service: none", rig.logged[0])
        self.assertEqual(rig.here.bridges, set())
        self.assertIsNone(rig.pair.client.reason)

    def test_refused(self) -> None:
        """
        A connection whose target refuses is reset, and both sides log it.
        """
        rig = self.rig("any")
        waiting = rig.target.hold()
        client, _ = rig.open()
        waiting.errback(ConnectionRefusedError())
        rig.flush()
        self.assertIsInstance(client.reason, ConnectionLost)
        self.assertIn("the target: closed", rig.logged[0])
        self.assertIn("the forward: closed", rig.logged[1])
        self.assertIn("The service refused the connection", rig.logged[1])

    def test_atOnce(self) -> None:
        """
        What the client sends is sent behind the request, before the target is
        connected, but no more than a window.
        """
        rig = self.rig("any")
        waiting = rig.target.hold()
        client, side = rig.open()
        side.write(b"to the target")
        rig.flush()
        self.assertEqual(self.unread(rig), len("to the target"))
        assert rig.target.factory is not None
        waiting.callback(rig.target.connected(rig.target.factory))
        rig.flush()
        self.assertEqual(rig.target.made[0].received, b"to the target")
        rig.target.carriers[0][1].write(b"from the target")
        rig.flush()
        self.assertEqual(client.received, b"from the target")
        rig.target.hold()
        _, side = rig.open()
        side.write(bytes(10 * INITIAL_WINDOW))
        rig.flush()
        self.assertLess(self.unread(rig), INITIAL_WINDOW)
        self.assertGreaterEqual(self.unread(rig), INITIAL_WINDOW // 2)

    def unread(self, rig: Rig) -> int:
        """
        @return: how much input waits on the side of the target.
        """
        streams = Parts(rig.pair.server).streams.byID.values()
        return sum(stream.unread for stream in streams)

    def test_refusedData(self) -> None:
        """
        What the client has sent to a stream that is refused is lost, also its EOF, and
        the client sees a reset.
        """
        for closes in (False, True):
            rig = self.rig("any")
            waiting = rig.target.hold()
            client, side = rig.open()
            side.write(b"all" if closes else bytes(2 * INITIAL_WINDOW))
            if closes:
                side.loseWriteConnection()
            rig.flush()
            self.assertIsNone(client.reason)
            waiting.errback(ConnectionRefusedError())
            rig.flush()
            self.assertIsInstance(client.reason, ConnectionLost)
            self.assertEqual((rig.here.bridges, rig.there.bridges), (set(), set()))
            self.assertEqual(rig.pair.client.protocolCount, 0)
            self.assertEqual(rig.pair.server.protocolCount, 0)
            self.assertIn("The service refused the connection", rig.logged[1])
            self.assertEqual(len(rig.logged), 2)

    def test_muxLost(self) -> None:
        """
        If the mux is lost before the stream is accepted, the client sees a reset.
        """
        rig = self.rig("any")
        rig.target.hold()
        client, _ = rig.open()
        rig.pair.loseCarrier()
        rig.flush()
        self.assertIsInstance(client.reason, ConnectionLost)
        self.assertEqual(rig.here.bridges, set())

    def test_answerTimeout(self) -> None:
        """
        A connection whose stream is not accepted in time is reset.  The time begins
        with the request.
        """
        rig = self.rig("any", answerTimeout=7, waitTimeout=3, targetTimeout=100)
        rig.target.answer = Deferred()
        client, _ = rig.open()
        rig.pair.advance(2)
        late, _ = rig.open()
        rig.pair.advance(4.9)
        self.assertIsNone(client.reason)
        rig.pair.advance(0.2)
        self.assertIsInstance(client.reason, ConnectionLost)
        self.assertIn("did not answer", rig.logged[0])
        self.assertIsNone(late.reason)
        rig.pair.advance(2)
        self.assertIsInstance(late.reason, ConnectionLost)
        rig.flush()
        self.assertEqual(rig.here.bridges, set())
        self.assertEqual(rig.there.bridges, set())

    def test_answeredInTime(self) -> None:
        """
        A stream that was accepted is not reset later.
        """
        rig = self.rig("any", answerTimeout=7)
        client, _ = rig.open()
        rig.pair.advance(8)
        self.assertIsNone(client.reason)
        self.assertEqual(rig.logged, [])

    def test_hint(self) -> None:
        """
        If the peer of several whose turn it is does not have the service, the log says
        how to name one.  If one is named, it does not.
        """
        keys = Keyring({"alice": "the key of alice", "bob": "the key of bob"})
        rig = self.rig("any")
        for peer, keyring, isHinted in (
            (None, keys, True),
            ("alice", keys, False),
            (None, Keyring({"alice": "the key of alice"}), False),
        ):
            tunnel = forward(
                *("x", rig.pool, rig.clock, rig.limits, keyring, "any", peer)
            )
            unknown = tunnel.explain(Failure(error.ServiceUnknown("any")))
            self.assertEqual("@PEER" in unknown, isHinted)
            busy = tunnel.explain(Failure(error.ServiceBusy("any")))
            self.assertEqual(busy, str(error.ServiceBusy("any")))

    def test_relay(self) -> None:
        """
        A peer whose stream continues as another peer's stream learns the code with
        which that peer refuses it, and is accepted once that peer has.
        """
        for isRefused in (True, False):
            rig = self.rig("any")
            waiting = rig.target.hold()
            relayed = MuxPair(clock=rig.clock, serverServices={"any": rig.here})
            relayed.flush()
            opening = relayed.client.openStream(Recorders(), "any")
            relayed.flush()
            rig.flush()
            self.assertNoResult(opening)
            if isRefused:
                waiting.errback(error.ServiceUnknown())
            else:
                assert rig.target.factory is not None
                waiting.callback(rig.target.connected(rig.target.factory))
            rig.flush()
            relayed.flush()
            if isRefused:
                self.failureResultOf(opening, error.ServiceUnknown)
            else:
                self.successResultOf(opening)

    def test_relayTimeout(self) -> None:
        """
        If the next peer does not accept a relayed stream in time, the first learns
        that, and the next peer's stream is aborted.
        """
        rig = self.rig("any", answerTimeout=7)
        rig.target.hold()
        relayed = MuxPair(clock=rig.clock, serverServices={"any": rig.here})
        relayed.flush()
        opening = relayed.client.openStream(Recorders(), "any")
        relayed.flush()
        rig.flush()
        self.assertEqual(len(rig.there.bridges), 1)
        rig.pair.advance(7.1)
        relayed.flush()
        self.failureResultOf(opening, error.ServiceTimeout)
        self.assertEqual((rig.here.bridges, rig.there.bridges), (set(), set()))

    def test_clientLeaves(self) -> None:
        """
        If the client resets its connection before the stream is accepted, the stream
        is aborted.
        """
        rig = self.rig("any")
        rig.target.answer = Deferred()
        client, side = rig.open(Recorder)
        side.abortConnection()
        rig.flush()
        self.assertEqual(rig.here.bridges, set())
        self.assertEqual(rig.there.bridges, set())
        self.assertEqual(rig.pair.client.protocolCount, 0)
