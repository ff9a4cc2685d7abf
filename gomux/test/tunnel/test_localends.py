"""
Tests for L{gomux.tunnel._localends}
"""

from __future__ import annotations

import errno
import os
import socket
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectionLost,
    ConnectionRefusedError,
    TimeoutError,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from gomux._carrier.clock import SteadyClock
from gomux._carrier.sockets import Sockets
from gomux._fastpaths import useFastPaths
from gomux.test.support import plainpaths
from gomux.test.support.helpers import Recorder
from gomux.test.support.ownreactor import OwnReactor
from gomux.tunnel import _localends
from gomux.tunnel._localends import connector

reactor: Any = _reactor


class Slow(socket.socket):
    """
    A socket whose connection takes some events.

    @cvar delays: how many events.
    @cvar made: the sockets.
    """

    delays = 0
    made: list[Slow] = []

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.made.append(self)
        self.left = self.delays

    def connect_ex(self, address: Any) -> int:
        self.left -= 1
        if self.left >= 0:
            isFirst = self.left == self.delays - 1
            return errno.EINPROGRESS if isFirst else errno.EALREADY
        failed = super().connect_ex(address)
        if self.delays and failed == errno.EINPROGRESS:
            return super().connect_ex(address)
        return failed


class ConnectTests(TestCase):
    """
    Connecting real sockets, with a reactor in memory.
    """

    timeout = 10

    def setUp(self) -> None:
        self.addCleanup(useFastPaths, plainpaths.use(()))
        self.reactor = OwnReactor()
        self.now = 0.0
        self.sockets = Sockets(self.reactor)
        self.sockets.clock = SteadyClock(self.reactor, lambda: self.now)
        self.addCleanup(self.sockets._epoll.close)
        self.patch(_localends, "socketsOf", lambda clock: self.sockets)
        self.patch(Slow, "made", [])
        self.make(Slow)
        self.addCleanup(self.closeAll)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        self.end = Recorder()

    def make(self, kind: Any) -> None:
        """
        Set the function that makes sockets.
        """
        self.patch(
            _localends, "socket", SimpleNamespace(**{**vars(socket), "socket": kind})
        )

    def closeAll(self) -> None:
        for handle in Slow.made:
            handle.close()

    def connect(self, endpoint: Any = None) -> Deferred[Any]:
        if endpoint is None:
            host, port = self.listener.getsockname()
            endpoint = TCP4ClientEndpoint(self.reactor, host, port, timeout=5)

        class Ends(Factory):
            def buildProtocol(ends, addr: Any) -> Any:
                return self.end

        connect = connector(endpoint, self.reactor)
        assert connect is not None
        connecting = maybeDeferred(connect, Ends())
        if not connecting.called:
            # A refusal is reported in the next turn.
            self.reactor.advance(0)
        return connecting

    def wait(self, events: int) -> Deferred[Any]:
        """
        Connect with a socket that takes some events.
        """
        # At once it asks twice.
        self.patch(Slow, "delays", 2 + events)
        connecting = self.connect()
        self.assertNoResult(connecting)
        self.assertEqual((self.end.events, self.reactor.readers), ([], {self.sockets}))
        return connecting

    def assertGone(self) -> None:
        """
        Assert that nothing is left of the attempt to connect.
        """
        self.assertEqual([handle.fileno() for handle in Slow.made], [-1])
        self.assertEqual(self.reactor.readers, set())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.end.events, [])

    def test_atOnce(self) -> None:
        """
        Over loopback, the end is connected when C{connect} returns, without a timeout.
        """
        connecting = self.connect()
        self.assertIs(self.successResultOf(connecting), self.end)
        self.assertEqual(self.end.events, ["made"])
        transport: Any = self.end.transport
        peer = IPv4Address("TCP", *self.listener.getsockname())
        self.assertEqual(transport.getPeer(), peer)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.reactor.readers, set())

    def test_refused(self) -> None:
        """
        A refusal is known without an event.
        """
        host, port = self.listener.getsockname()
        self.listener.close()
        endpoint = TCP4ClientEndpoint(self.reactor, host, port)
        self.failureResultOf(self.connect(endpoint), ConnectionRefusedError)
        self.assertGone()

    def test_later(self) -> None:
        """
        A connection that takes longer is made by the same socket.
        """
        connecting = self.wait(2)
        for _ in range(2):
            self.sockets.doRead()
            self.assertNoResult(connecting)
        self.sockets.doRead()
        self.assertIs(self.successResultOf(connecting), self.end)
        self.assertEqual((self.end.events, len(Slow.made)), (["made"], 1))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.reactor.readers, set())

    def test_refusedLater(self) -> None:
        """
        A refusal may come later.
        """
        connecting = self.wait(1)
        self.sockets.doRead()
        self.listener.close()
        self.sockets.doRead()
        self.failureResultOf(connecting, ConnectionRefusedError)
        self.assertGone()

    def test_timeout(self) -> None:
        """
        The timeout of the endpoint counts.
        """
        connecting = self.wait(9)
        self.now += 4.9
        self.reactor.advance(4.9)
        self.assertNoResult(connecting)
        self.now += 0.1
        self.reactor.advance(0.1)
        self.failureResultOf(connecting, TimeoutError)
        self.assertGone()

    def test_cancelled(self) -> None:
        """
        Connecting can be cancelled.
        """
        connecting = self.wait(9)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.reactor.advance(0)
        self.assertGone()

    def test_reactorStops(self) -> None:
        """
        When the reactor stops, connecting fails.
        """
        connecting = self.wait(9)
        self.sockets.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(connecting, ConnectionLost)
        self.assertGone()

    def test_noDescriptors(self) -> None:
        """
        Without a descriptor the connection fails.
        """

        def fails(*args: int) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        self.make(fails)
        failure = self.failureResultOf(self.connect(), ConnectBindError)
        self.assertIn("Too many open files", failure.getErrorMessage())

    def test_unix(self) -> None:
        """
        Unix sockets are connected at once, and an impossible path fails, or one without
        a listener.
        """
        path = os.path.relpath(self.mktemp())
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            endpoint = UNIXClientEndpoint(self.reactor, path)
            self.failureResultOf(self.connect(endpoint), ConnectionRefusedError)
            listener.listen()
            end = self.successResultOf(self.connect(endpoint))
        self.assertEqual(end.transport.getPeer(), UNIXAddress(path))
        long = UNIXClientEndpoint(self.reactor, "x" * 200)
        self.failureResultOf(self.connect(long), ConnectError)
        missing = UNIXClientEndpoint(self.reactor, f"{path}.not")
        self.failureResultOf(self.connect(missing), ConnectError)
        self.assertEqual([h.fileno() < 0 for h in Slow.made], [True, False, True, True])

    def test_unixFull(self) -> None:
        """
        A Unix socket whose queue is full refuses at once: no event would tell when
        there is room.
        """
        path = os.path.relpath(self.mktemp())
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(0)
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(path)
                connecting = self.connect(UNIXClientEndpoint(self.reactor, path))
        self.failureResultOf(connecting, ConnectError)
        self.assertGone()

    def test_port(self) -> None:
        """
        A port that does not exist fails.
        """
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", 70000)
        self.failureResultOf(self.connect(endpoint), ConnectError)
        self.assertGone()

    def test_six(self) -> None:
        """
        IPv6 addresses are connected at once, by either kind of endpoint; an invalid
        scope fails.
        """
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
            port = listener.getsockname()[1]
            for kind in (TCP4ClientEndpoint, TCP6ClientEndpoint):
                end = self.successResultOf(
                    self.connect(kind(self.reactor, "::1", port))
                )
                peer = IPv6Address("TCP", "::1", port)
                self.assertEqual(end.transport.getPeer(), peer)
        scoped = TCP6ClientEndpoint(self.reactor, "fe80::1%none", 1)
        self.failureResultOf(self.connect(scoped), socket.gaierror)


class ConnectorTests(TestCase):
    """
    Endpoints that connect by themselves
    """

    def setUp(self) -> None:
        self.addCleanup(useFastPaths, plainpaths.use(()))

    def test_others(self) -> None:
        """
        Names have to be looked up, and a local address or a lock is for Twisted.
        """

        class Other(TCP4ClientEndpoint):
            pass

        for endpoint in (
            HostnameEndpoint(reactor, "localhost", 80),
            TCP4ClientEndpoint(reactor, "localhost", 80),
            TCP4ClientEndpoint(reactor, "127.0.0.1", 80, bindAddress=("127.0.0.2", 0)),
            UNIXClientEndpoint(reactor, "/path", checkPID=True),
            Other(reactor, "127.0.0.1", 80),
        ):
            self.assertIsNone(connector(endpoint, reactor))

    def test_reactors(self) -> None:
        """
        Other reactors connect by themselves.
        """
        endpoint = TCP4ClientEndpoint(MemoryReactor(), "127.0.0.1", 80)
        self.assertIsNone(connector(endpoint, Clock()))

    def test_off(self) -> None:
        """
        Without the fast path, all endpoints connect by themselves.
        """
        plainpaths.use(("localSockets",))
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", 80)
        self.assertIsNone(connector(endpoint, reactor))
