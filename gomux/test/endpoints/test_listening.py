"""
Tests for L{gomux.endpoints._listening}: server endpoints from strings.
"""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from threading import Timer
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from gomux.endpoints._listening import (
    BACKLOG,
    forwardingEndpoint,
    removeStale,
    serverEndpoint,
)
from gomux.endpoints._stdio import StandardAddress, StandardServerEndpoint, _Port
from gomux.test.support.helpers import Recorders


class UnixTests(TestCase):
    """
    Unix sockets.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)

    def listen(self, description: str) -> Any:
        """
        Listen until the end of the test.

        @return: the port.
        """
        endpoint = serverEndpoint(reactor, description)
        verifyObject(IStreamServerEndpoint, endpoint)
        port = self.successResultOf(endpoint.listen(Recorders()))
        self.addCleanup(port.stopListening)
        return port

    def mode(self, path: str) -> int:
        return stat.S_IMODE(os.stat(path).st_mode)

    def test_mode(self) -> None:
        """
        Only its owner may use a socket, unless the string says otherwise.
        """
        for number, (text, mode) in enumerate(
            (
                ("", 0o600),
                (":mode=660", 0o660),
                (":660", 0o660),
                (":backlog=5", 0o600),
                (":lockfile=0", 0o600),
                (":mode=666:lockfile=0", 0o666),
            )
        ):
            mask = os.umask(0)
            try:
                self.listen(f"unix:socket{number}{text}")
                self.assertEqual(os.umask(0), 0)
            finally:
                os.umask(mask)
            self.assertEqual(self.mode(f"socket{number}"), mode, text)

    def test_keyword(self) -> None:
        """
        The path may be a keyword, and may have any character.
        """
        self.listen("unix:address=one")
        self.assertEqual(self.mode("one"), 0o600)
        self.listen("unix:a\\:mode\\=777")
        self.assertEqual(self.mode("a:mode=777"), 0o600)

    def test_wrapped(self) -> None:
        """
        A socket has that mode below C{haproxy:} and C{gomux:} too.
        """
        self.listen("haproxy:unix:proxied")
        self.assertEqual(self.mode("proxied"), 0o600)
        Path("psk").write_text("a pre-shared key for this test\n")
        os.chmod("psk", 0o600)
        self.listen("gomux:unix:carrier:pskFile=psk")
        self.assertEqual(self.mode("carrier"), 0o600)
        self.listen("gomux:haproxy:unix:both:mode=660:pskFile=psk")
        self.assertEqual(self.mode("both"), 0o660)

    def stale(self, path: str = "socket") -> None:
        """
        Leave a socket behind that nobody listens on.
        """
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(path)

    def test_stale(self) -> None:
        """
        A socket that nobody listens on is replaced, with or without a lock, also if the
        process number in the lock belongs to another process by now.
        """
        for text in ("", ":lockfile=0"):
            for holder in (None, os.getpid(), os.getppid(), 2**22 + 1):
                path = f"socket{holder}{text[-1:]}"
                self.stale(path)
                if holder is not None:
                    os.symlink(str(holder), f"{path}.lock")
                self.listen(f"unix:{path}{text}")
                self.assertEqual(self.mode(path), 0o600)

    def test_live(self) -> None:
        """
        A socket that a process listens on is not replaced, with or without a lock.
        """
        for text in ("", ":lockfile=0"):
            with socket.socket(socket.AF_UNIX) as live:
                live.bind("live")
                live.listen(1)
                inode = os.stat("live").st_ino
                endpoint = serverEndpoint(reactor, "unix:live" + text)
                for _ in range(3):
                    # The second and third find a full backlog.
                    self.failureResultOf(
                        endpoint.listen(Recorders()), CannotListenError
                    )
                self.assertEqual(os.stat("live").st_ino, inode)
            os.unlink("live")

    def test_own(self) -> None:
        """
        A socket that this process listens on is not replaced either.
        """
        self.listen("unix:socket")
        endpoint = serverEndpoint(reactor, "unix:socket")
        self.failureResultOf(endpoint.listen(Recorders()), CannotListenError)
        self.assertTrue(os.path.exists("socket"))

    def test_noSocket(self) -> None:
        """
        A file, or a directory, that is no socket is never removed.
        """
        Path("file").write_text("precious")
        Path("directory").mkdir()
        for path in ("file", "directory"):
            endpoint = serverEndpoint(reactor, f"unix:{path}")
            self.failureResultOf(endpoint.listen(Recorders()), CannotListenError)
        self.assertEqual(Path("file").read_text(), "precious")

    def test_otherLock(self) -> None:
        """
        A lock that Twisted did not make stays.
        """
        self.stale()
        os.symlink("elsewhere", "socket.lock")
        removeStale("socket")
        self.assertTrue(os.path.islink("socket.lock"))

    def test_invalid(self) -> None:
        """
        A string without a path is refused.
        """
        for text in ("unix:", "unix", "unix:mode=600"):
            self.assertRaises(ValueError, serverEndpoint, reactor, text)


class OtherTests(SynchronousTestCase):
    """
    Other strings are Twisted's.
    """

    def test_tcp(self) -> None:
        """
        Twisted parses other strings.
        """
        endpoint = serverEndpoint(reactor, "tcp:0:interface=127.0.0.1")
        self.assertEqual(type(endpoint).__module__, "twisted.internet.endpoints")
        self.assertRaises(ValueError, serverEndpoint, reactor, "nonsense:")

    def test_port(self) -> None:
        """
        The port of the standard input and output can be stopped.
        """
        factory = Factory()
        factory.noisy = False
        factory.doStart()
        port = _Port(factory)
        verifyObject(IListeningPort, port)
        port.startListening()
        self.assertIsInstance(port.getHost(), StandardAddress)
        port.stopListening()
        self.assertEqual(factory.numPorts, 0)


class ForwardingTests(SynchronousTestCase):
    """
    L{forwardingEndpoint}
    """

    def test_tcp(self) -> None:
        """
        More connections than usual can wait, unless the string has a C{backlog}, with
        or without its name.
        """
        for string, backlog in (
            ("tcp:80", BACKLOG),
            ("haproxy:tcp:80", BACKLOG),
            (r"tcp6:80:interface=\:\:1", BACKLOG),
            ("tcp:80:backlog=5", 5),
            ("tcp:80:127.0.0.1:5", 5),
        ):
            reactor = MemoryReactorClock()
            forwardingEndpoint(reactor, string).listen(Recorders())
            ((_, _, waiting, _),) = reactor.tcpServers
            self.assertEqual(waiting, backlog, string)

    def test_unix(self) -> None:
        """
        More connections can wait at a Unix socket too.
        """
        reactor = MemoryReactorClock()
        forwardingEndpoint(reactor, "unix:nowhere").listen(Recorders())
        self.assertEqual(reactor.unixServers[0][2], BACKLOG)

    def test_others(self) -> None:
        """
        Endpoints of other kinds get no C{backlog}.
        """
        self.assertIsInstance(
            forwardingEndpoint(MemoryReactorClock(), "stdio:"), StandardServerEndpoint
        )


#: A program that serves its standard input and output, and ends only when it is killed.
PROGRAM = """
import sys
from twisted.internet import reactor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer
from gomux.endpoints._listening import serverEndpoint

class Plain(Protocol):
    def dataReceived(self, data):
        print("a log line", flush=True)
        self.transport.write(data.upper() * size)
        getattr(self.transport, end)()
    def connectionLost(self, reason):
        sys.stderr.write("lost\\n")

@implementer(IHalfCloseableProtocol)
class Half(Plain):
    def readConnectionLost(self):
        self.transport.loseConnection()
    def writeConnectionLost(self):
        pass

size, end, kind = int(sys.argv[1]), sys.argv[2], globals()[sys.argv[3]]
serverEndpoint(reactor, "stdio:").listen(Factory.forProtocol(kind))
reactor.run()
"""


class StandardTests(SynchronousTestCase):
    """
    The standard input and output.
    """

    def run_(self, *arguments: str) -> tuple[bytes, subprocess.Popen[bytes]]:
        """
        @return: the output of the program up to its end, and the program.
        """
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for stream in (program.stdin, program.stdout, program.stderr):
            assert stream is not None
            self.addCleanup(stream.close)
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)
        # No test waits longer.
        timer = Timer(20, program.kill)
        timer.start()
        self.addCleanup(timer.cancel)
        assert program.stdin is not None and program.stdout is not None
        program.stdin.write(b"ping")
        program.stdin.flush()
        return program.stdout.read(), program

    def line(self, program: subprocess.Popen[bytes]) -> bytes:
        assert program.stderr is not None
        line = program.stderr.readline()
        while line == b"a log line\n":
            line = program.stderr.readline()
        return line

    def test_closed(self) -> None:
        """
        The reader comes to the end of the output when the connection is closed,
        although the process goes on, and no log line is among the output.
        """
        for kind in ("Plain", "Half"):
            output, program = self.run_("100000", "loseConnection", kind)
            self.assertEqual(output, b"PING" * 100000)
            self.assertEqual(self.line(program), b"lost\n")
            self.assertIs(program.poll(), None)

    def test_halfClosed(self) -> None:
        """
        The reader also comes to the end of the output when the writing half is closed.
        The connection ends at the end of its input.
        """
        output, program = self.run_("1", "loseWriteConnection", "Half")
        self.assertEqual(output, b"PING")
        assert program.stdin is not None
        program.stdin.close()
        self.assertEqual(self.line(program), b"lost\n")
