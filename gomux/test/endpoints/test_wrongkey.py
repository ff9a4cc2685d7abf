# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for programs whose key is wrong, and that connect again by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.internet import ClientService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.python.failure import Failure

from gomux import MuxClientEndpoint, MuxFactory
from gomux.error import (
    HandshakeFailed,
    NeverAuthenticated,
    NotAuthenticated,
    OpenStreamError,
    Truncated,
)
from gomux.test.support.dialling import DiallerTestCase
from gomux.test.support.helpers import Recorders
from gomux.testing import PSK

#: How long the programs run, in seconds.
LONG = 300.0
#: How often they may connect in that time.  Pauses grow to a mean of 18 seconds.
MOST = 40


class WrongKeyTests(DiallerTestCase):
    """
    A server that has another key, and drops each connection.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = MuxFactory("another key", False, clock=self.clock)
        self.endpoint.server = self.server

    def muxes(self, timeout: float = 30.0) -> MuxClientEndpoint:
        return MuxClientEndpoint(self.clock, self.endpoint, PSK, timeout=timeout)

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)

    def assertCalm(self) -> None:
        """
        Check that the server was not asked often, and still is.
        """
        attempts = self.endpoint.attempts
        self.assertLess(len(attempts), MOST)
        self.assertGreater(attempts[-1], LONG - 61)

    def test_service(self) -> None:
        """
        A C{ClientService} that never backs off does not make the endpoint connect
        often.  Its protocols are told why they lose their connection.
        """
        streams = Recorders()
        service = ClientService(self.muxes(), streams, lambda _: 0.5, clock=self.clock)
        service.startService()
        self.advance(LONG)
        service.stopService()
        self.assertCalm()
        reasons = {type(recorder.reason) for recorder in streams.made}
        self.assertEqual(reasons, {NeverAuthenticated})

    def test_ownRetry(self) -> None:
        """
        A program that gives up each C{connect} after a short time and tries again at
        once does not make the endpoint connect often, and can tell why.
        """
        for timeout in (0.5, 5.0):
            self.setUp()
            endpoint = self.muxes(timeout)
            failures: list[Failure] = []

            def again(
                result: object = None,
                endpoint: MuxClientEndpoint = endpoint,
                failures: list[Failure] = failures,
            ) -> None:
                if isinstance(result, Failure):
                    failures.append(result)
                self.clock.callLater(
                    0.1, lambda: endpoint.connect(Recorders()).addBoth(again)
                )

            again()
            self.advance(LONG)
            self.assertCalm()
            for failure in failures:
                failure.trap(OpenStreamError)
                reason = getattr(failure.value, "reason")  # noqa: B009
                self.assertIsInstance(reason, NotAuthenticated)
            self.assertTrue(failures)

    def test_cancelled(self) -> None:
        """
        A program that cancels each C{connect} does not make the endpoint connect often
        either.
        """
        endpoint = self.muxes()
        waiting: list[Deferred[Any]] = []
        for _ in range(round(LONG)):
            connecting = endpoint.connect(Recorders())
            connecting.addErrback(lambda _: None)
            waiting.append(connecting)
            self.advance(1)
            connecting.cancel()
        self.assertCalm()

    def test_unreachable(self) -> None:
        """
        A server that cannot be reached is tried at each C{connect} at once, as over
        TCP, and the program can tell the reason.
        """
        self.endpoint.server = None
        endpoint = self.muxes(timeout=5.0)
        for _ in range(3):
            made = len(self.endpoint.attempts)
            connecting = endpoint.connect(Recorders())
            self.assertEqual(len(self.endpoint.attempts), made + 1)
            self.advance(5.1)
            error = self.failureResultOf(connecting, OpenStreamError).value
            self.assertIsInstance(error.reason, ConnectionRefusedError)

    def test_rightAtLast(self) -> None:
        """
        Once the server has the right key, a program is served within the longest pause.
        """
        endpoint = self.muxes()
        for _ in range(100):
            endpoint.connect(Recorders()).addErrback(lambda _: None)
            self.advance(1)
        self.endpoint.server = MuxFactory(PSK, False, Recorders(), clock=self.clock)
        connecting = endpoint.connect(Recorders())
        self.advance(30)
        self.successResultOf(connecting)


class ReasonTests(DiallerTestCase):
    """
    The errors, and L{MuxProtocol.whenAuthenticated<gomux.MuxProtocol>}.
    """

    def connect(self, make: Callable[[bool], MuxFactory]) -> Any:
        """
        @return: the client's mux.
        """
        self.endpoint.server = make(False)
        return self.successResultOf(self.endpoint.connect(make(True)))

    def test_right(self) -> None:
        """
        C{whenAuthenticated} fires when the peer has shown the key, also if that was
        before the call.
        """
        mux = self.connect(lambda role: MuxFactory(PSK, role, clock=self.clock))
        first = mux.whenAuthenticated()
        self.assertNoResult(first)
        self.advance(0.1)
        self.assertIs(self.successResultOf(first), mux)
        second = mux.whenAuthenticated()
        cancelled = mux.whenAuthenticated()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.advance(0.1)
        self.assertIs(self.successResultOf(second), mux)

    def test_wrong(self) -> None:
        """
        C{whenAuthenticated} fails with the reason of the end, also if the end was
        before the call.
        """
        for strict, kind in ((False, NeverAuthenticated), (True, HandshakeFailed)):
            mux = self.connect(
                lambda role, strict=strict: MuxFactory(  # type: ignore[misc]
                    f"key {role}", role, clock=self.clock, strict=strict
                )
            )
            first = mux.whenAuthenticated()
            self.advance(0.1)
            failure = self.failureResultOf(first, kind)
            self.assertIsInstance(failure.value, NotAuthenticated)
            self.assertIsInstance(failure.value.carrierError, ConnectionLost)
            second = mux.whenAuthenticated()
            self.advance(0.1)
            self.failureResultOf(second, kind)
        self.assertTrue(issubclass(NeverAuthenticated, Truncated))
