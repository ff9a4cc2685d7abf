"""
Tests for L{gomux.tunnel._notify}.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.keyring import Keyring
from gomux.test.support.logs import Lines
from gomux.test.support.process import ProcessClock
from gomux.testing import PSK
from gomux.tunnel._notify import ServiceManager
from gomux.tunnel._plan import Item, Plan, Refused
from gomux.tunnel._service import TunnelService


class ManagerTestCase(SynchronousTestCase):
    """
    A service manager.
    """

    def setUp(self) -> None:
        self.clock: Clock = ProcessClock()
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.setblocking(False)
        # A relative path, because an absolute one may be too long for a socket.
        self.path = self.mktemp()[-90:].lstrip("/").replace("/", "-")
        self.manager.bind(self.path)
        self.addCleanup(os.unlink, self.path)
        self.environ = {"NOTIFY_SOCKET": self.path}

    def told(self) -> list[str]:
        """
        @return: the lines that have come.
        """
        lines: list[str] = []
        while True:
            try:
                lines += self.manager.recv(4096).decode().split("\n")
            except BlockingIOError:
                return lines


class ServiceManagerTests(ManagerTestCase):
    """
    L{ServiceManager}
    """

    def setUp(self) -> None:
        super().setUp()
        self.listens = True
        self.status = "well"
        self.subject = ServiceManager(
            self.clock, lambda: self.listens, lambda: self.status
        )

    def start(self) -> None:
        self.subject.start(self.environ)
        self.clock.advance(0)

    def test_ready(self) -> None:
        """
        The process is ready in the first turn of the reactor, if every port listens.
        """
        self.subject.start(self.environ)
        self.assertEqual(self.told(), [])
        self.clock.advance(0)
        self.assertEqual(self.told(), ["STATUS=well", "READY=1"])
        self.clock.advance(100)
        self.assertEqual(self.told(), [])

    def test_notReady(self) -> None:
        """
        It is not ready before every port listens.
        """
        self.listens = False
        self.start()
        self.clock.advance(1)
        self.assertEqual(self.told(), ["STATUS=well"])
        self.listens = True
        self.clock.advance(0.1)
        self.assertEqual(self.told(), ["READY=1"])

    def test_abstract(self) -> None:
        """
        The manager's socket may be an abstract one.
        """
        name = f"gomux-test-{os.getpid()}-{id(self)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.bind("\0" + name)
            self.environ["NOTIFY_SOCKET"] = "@" + name
            self.start()
            self.assertIn(b"READY=1", manager.recv(100))

    def test_environment(self) -> None:
        """
        Programs that the process starts do not get the variables.
        """
        self.environ.update(WATCHDOG_USEC="1", WATCHDOG_PID=str(os.getpid()), HOME="/")
        self.start()
        self.assertEqual(self.environ, {"HOME": "/"})

    def test_byHand(self) -> None:
        """
        Without a manager nothing is told, and no timer runs.
        """
        self.subject.start({})
        self.subject.reloading()
        self.subject.stopping(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_status(self) -> None:
        """
        A status that has changed is told within 5 seconds.
        """
        self.start()
        self.told()
        self.status = "better"
        self.clock.advance(5)
        self.assertEqual(self.told(), ["STATUS=better"])
        self.clock.advance(5)
        self.assertEqual(self.told(), [])

    def test_watchdog(self) -> None:
        """
        The watchdog gets a sign of life twice in its time.
        """
        self.environ.update(WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid()))
        self.start()
        self.assertIn("WATCHDOG=1", self.told())
        for _ in range(3):
            self.clock.advance(1.5)
            self.assertEqual(self.told(), ["WATCHDOG=1"])

    def test_otherWatchdog(self) -> None:
        """
        A watchdog of another process gets none, nor does a time that is no number.
        """
        for usec, pid in (("3000000", "1"), ("0", ""), ("x", str(os.getpid()))):
            self.environ.update(WATCHDOG_USEC=usec, NOTIFY_SOCKET=self.path)
            if pid:
                self.environ["WATCHDOG_PID"] = pid
            self.start()
            self.clock.advance(10)
            self.assertNotIn("WATCHDOG=1", self.told())

    def test_reload(self) -> None:
        """
        A reload begins with the time, in microseconds of the monotonic clock, and ends
        with the process ready.
        """
        self.start()
        self.told()
        before = time.monotonic() * 1e6
        self.subject.reloading()
        first, second = self.told()
        self.assertEqual(first, "RELOADING=1")
        self.assertLessEqual(before - 1, int(second.removeprefix("MONOTONIC_USEC=")))
        self.assertGreaterEqual(time.monotonic() * 1e6, int(second.split("=")[1]))
        self.subject.reloaded()
        self.assertEqual(self.told(), ["READY=1"])

    def test_stopping(self) -> None:
        """
        A service that stops asks for the time of its drain, and is not ready again.
        """
        self.listens = False
        self.start()
        self.told()
        self.subject.stopping(40)
        self.assertEqual(self.told(), ["STOPPING=1", "EXTEND_TIMEOUT_USEC=55000000"])
        self.listens = True
        self.clock.advance(10)
        self.assertEqual(self.told(), [])
        self.subject.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_busy(self) -> None:
        """
        A manager that is too busy is not waited for, and gets the lines later.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as flood:
            flood.setblocking(False)
            try:
                while True:
                    flood.sendto(b"X=1", self.path)
            except BlockingIOError:
                pass
        self.start()
        self.assertNotIn("READY=1", self.told())
        self.status = "better"
        self.clock.advance(5)
        self.assertEqual(self.told(), ["STATUS=well", "READY=1", "STATUS=better"])

    def observed(self) -> Lines:
        """
        @return: gets what is logged from now on.
        """
        lines = Lines("gomux.tunnel._notify")
        globalLogPublisher.addObserver(lines)
        self.addCleanup(globalLogPublisher.removeObserver, lines)
        return lines

    def test_gone(self) -> None:
        """
        A manager that cannot be reached is logged once.
        """
        lines = self.observed()
        self.environ["NOTIFY_SOCKET"] = "/nonexistent/notify"
        self.start()
        self.subject.reloading()
        self.assertEqual(len(lines.lines), 1)
        self.assertIn("'/nonexistent/notify'", lines.lines[0])

    def test_noDescriptor(self) -> None:
        """
        If the process has no descriptor left for a moment, the manager is told later.
        The next time that happens it is logged again.
        """
        lines = self.observed()
        self.environ["WATCHDOG_USEC"] = "2000000"
        self.start()
        self.told()
        for logged in (1, 2):
            full = OSError(errno.EMFILE, "Too many open files")
            with patch("socket.socket", side_effect=full):
                self.clock.advance(1)
                self.clock.advance(1)
            self.assertEqual(len(lines.lines), logged)
            self.assertEqual(self.told(), [])
            self.clock.advance(1)
            self.assertEqual(self.told(), ["WATCHDOG=1"] * 3)


class TunnelServiceTests(ManagerTestCase):
    """
    What the service tells
    """

    def test_life(self) -> None:
        """
        The service is ready when its port listens, tells when it reads files, and when
        it stops.
        """
        variables = patch.dict(os.environ, self.environ)
        variables.start()
        self.addCleanup(variables.stop)
        keyring = Keyring([("", PSK.encode())])
        answer: Deferred[object] = Deferred()

        class Endpoint:
            def listen(self, factory: object) -> Deferred[object]:
                return answer

        class Port:
            def getHost(self) -> None:
                pass

            def stopListening(self) -> None:
                pass

        def read(plan: Plan) -> Plan:
            raise Refused(["no"])

        item = Item("status", "it", Endpoint(), factory=Factory())
        service = TunnelService(Plan(keyring, [item], files=("it",)), self.clock, read)
        service.privilegedStartService()
        service.startService()
        self.clock.advance(0)
        self.assertEqual(self.told(), ["STATUS=0 muxes, 0 streams"])
        answer.callback(Port())
        self.clock.advance(1)
        self.assertEqual(self.told(), ["READY=1"])
        service.reload()
        lines = self.told()
        self.assertEqual((lines[0], lines[-1]), ("RELOADING=1", "READY=1"))
        self.clock.advance(5)
        [line] = self.told()
        self.assertEqual(line, "STATUS=0 muxes, 0 streams, the last reload has failed")
        self.successResultOf(service.stopService())
        self.assertEqual(self.told()[0], "STOPPING=1")
        self.assertEqual(self.clock.getDelayedCalls(), [])
