"""
Tests for L{gomux.tunnel._accesslog}.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import stat
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest.mock import patch

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from gomux import error
from gomux._mux.address import StreamAddress
from gomux._wire.keyring import Keyring
from gomux.limits import ACCESS_LOG_RETRY, ACCESS_LOG_WAITING, LINE_EVERY
from gomux.tap import Options, makeService
from gomux.test.support.helpers import HalfRecorder, Recorder, Recorders
from gomux.test.support.logs import Lines
from gomux.test.support.process import ProcessClock
from gomux.test.support.tunnelrig import Rig
from gomux.testing import PSK, MuxPair
from gomux.tunnel import Tunnel
from gomux.tunnel._accesslog import AccessLog, LoggedFactory, addressOf, describe
from gomux.tunnel._codes import codeOfEnd
from gomux.tunnel._parts import AccessLogService
from gomux.tunnel._plan import Item, Plan
from gomux.tunnel._service import CannotListen, TunnelService
from gomux.tunnel._signals import SignalHandler

LINE: dict[str, Any] = {
    "service": None,
    "peer": "alice",
    "client": "192.0.2.3:50000",
    "target": "192.0.2.4:80",
    "received": 5,
    "sent": 7,
    "seconds": 1.5,
    "end": "ok",
    "reason": None,
}


def read(path: str) -> list[dict[str, Any]]:
    """
    @return: the lines of a file.
    """
    with open(path) as file:
        return [json.loads(line) for line in file]


class FileTestCase(SynchronousTestCase):
    """
    An access log in a file.
    """

    def setUp(self) -> None:
        self.clock = ProcessClock()
        self.path = os.path.abspath(self.mktemp())
        lines = Lines("gomux.tunnel._accesslog")
        self.logged = lines.lines
        globalLogPublisher.addObserver(lines)
        self.addCleanup(globalLogPublisher.removeObserver, lines)

    def opened(self, path: str | None = None) -> AccessLog:
        log = AccessLog(path or self.path, self.clock)
        log.open()
        self.addCleanup(log.close)
        return log

    def lines(self) -> list[dict[str, Any]]:
        self.clock.advance(0)
        return read(self.path)


class FileTests(FileTestCase):
    """
    The file
    """

    def test_line(self) -> None:
        """
        A line has all members, and the time in UTC.
        """
        self.opened().add(**LINE)
        [line] = self.lines()
        time = datetime.fromisoformat(line.pop("time").replace("Z", "+00:00"))
        self.assertEqual(line, LINE)
        self.assertLess(abs(datetime.now(timezone.utc) - time), timedelta(minutes=1))

    def test_form(self) -> None:
        """
        Text from outside makes neither a second line nor a control character, and has a
        bound.
        """
        self.opened().add(**{**LINE, "peer": "", "reason": "a\n\x1b[2J{}" + "x" * 5000})
        [line] = self.lines()
        self.assertIsNone(line["peer"])
        self.assertTrue(line["reason"].startswith(r"a\n\x1b[2J{}x"))
        self.assertLess(len(line["reason"]), 600)

    def test_together(self) -> None:
        """
        The lines of a turn of the reactor are written together, in its next turn.
        """
        log = self.opened()
        for _ in range(3):
            log.add(**LINE)
        self.assertEqual(read(self.path), [])
        with patch("os.write", wraps=os.write) as write:
            self.assertEqual(len(self.lines()), 3)
        self.assertEqual(write.call_count, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_mode(self) -> None:
        """
        Only the owner can read a file that the log has made.  A file that is there is
        continued, and keeps its mode.
        """
        self.addCleanup(os.umask, os.umask(0))
        self.opened().close()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        with open(self.path, "w") as file:
            file.write("{}\n")
        os.chmod(self.path, 0o640)
        self.opened().add(**LINE)
        self.assertEqual(len(self.lines()), 2)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)

    def test_moved(self) -> None:
        """
        After the file was moved away, C{reopen} makes a new one.  Lines from before go
        to the old file.
        """
        log = self.opened()
        log.add(**LINE)
        os.rename(self.path, self.path + ".1")
        log.add(**LINE)
        log.reopen()
        log.add(**LINE)
        self.assertEqual(len(self.lines()), 1)
        self.assertEqual(len(read(self.path + ".1")), 2)

    def test_cannotReopen(self) -> None:
        """
        If the file cannot be opened again, the log goes on in the old one.
        """
        log = self.opened()
        os.rename(self.path, self.path + ".1")
        os.mkdir(self.path)
        log.reopen()
        log.add(**LINE)
        self.clock.advance(0)
        self.assertEqual(len(read(self.path + ".1")), 1)
        [line] = self.logged
        self.assertIn("goes on in the old file", line)

    def test_relative(self) -> None:
        """
        The file is found again after the process has changed its directory.
        """
        log = AccessLog("access.log", self.clock)
        self.assertEqual(log.path, os.path.abspath("access.log"))

    def test_move(self) -> None:
        """
        A log can go on in another file.  Lines from before go to the old file.  If the
        other file cannot be opened, the old one stays.
        """
        log = self.opened()
        log.add(**LINE)
        log.move(self.path + ".2")
        log.add(**LINE)
        os.mkdir(self.path + ".3")
        self.assertRaises(OSError, log.move, self.path + ".3")
        self.assertEqual(log.path, self.path + ".2")
        log.reopen()
        log.add(**LINE)
        self.assertEqual(len(self.lines()), 1)
        self.assertEqual(len(read(self.path + ".2")), 2)

    def test_finish(self) -> None:
        """
        Once the service is stopped, lines are written at once: the reactor may have no
        more turns.
        """
        log = self.opened()
        log.add(**LINE)
        log.finish()
        log.add(**LINE)
        self.assertEqual(len(read(self.path)), 2)

    def test_closed(self) -> None:
        """
        A closed log writes what waits, and leaves nothing behind.
        """
        log = self.opened()
        log.add(**LINE)
        log.close()
        self.assertEqual(len(read(self.path)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class FullTests(FileTestCase):
    """
    A file that takes no more, and then does
    """

    def test_full(self) -> None:
        """
        While the disk is full, lines wait, and the log says so once a minute.
        """
        log = self.opened()
        full = OSError(28, "No space left on device")
        with patch("os.write", side_effect=full):
            log.add(**LINE)
            self.clock.advance(0)
            self.assertEqual(len(self.logged), 1)
            self.assertIn("No space left on device", self.logged[0])
            for _ in range(round(LINE_EVERY / ACCESS_LOG_RETRY) - 1):
                log.add(**LINE)
                self.clock.advance(ACCESS_LOG_RETRY)
            self.assertEqual(len(self.logged), 1)
            self.clock.advance(ACCESS_LOG_RETRY)
            self.assertEqual(len(self.logged), 2)
        self.clock.advance(ACCESS_LOG_RETRY)
        self.assertEqual(len(self.lines()), 60)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bound(self) -> None:
        """
        No more than C{ACCESS_LOG_WAITING} bytes wait.  The lines after that are lost,
        and counted.
        """
        log = self.opened()
        with patch("os.write", side_effect=OSError(28, "No space left on device")):
            for _ in range(10000):
                log.add(**LINE)
            self.clock.advance(0)
        self.clock.advance(LINE_EVERY)
        written = os.stat(self.path).st_size
        self.assertLessEqual(written, ACCESS_LOG_WAITING)
        self.assertGreater(written, ACCESS_LOG_WAITING - 400)
        lost = 10000 - len(read(self.path))
        self.assertGreater(lost, 1000)
        self.assertIn(f" {lost} lines were lost", self.logged[0])

    @contextlib.contextmanager
    def torn(self) -> Iterator[AccessLog]:
        """
        Add two lines to a log on a disk that takes 20 bytes, and then no more.
        """
        log = self.opened()
        real = os.write
        takes = iter([20])

        def write(descriptor: int, data: bytes) -> int:
            for size in takes:
                return real(descriptor, data[:size])
            raise OSError(28, "No space left on device")

        with patch("os.write", write):
            log.add(**LINE)
            log.add(**LINE)
            self.clock.advance(0)
            yield log

    def test_torn(self) -> None:
        """
        A line of which the disk has taken only the start is completed later, and not
        begun again.
        """
        with self.torn():
            pass
        self.assertEqual(os.stat(self.path).st_size, 20)
        self.clock.advance(ACCESS_LOG_RETRY)
        self.assertEqual(len(self.lines()), 2)

    def test_tornAndMoved(self) -> None:
        """
        The rest of a line whose start is in the old file does not begin the new file.
        """
        with self.torn() as log:
            os.rename(self.path, self.path + ".1")
            log.reopen()
        self.assertEqual(len(self.lines()), 1)


class PipeTests(FileTestCase):
    """
    A pipe
    """

    def setUp(self) -> None:
        super().setUp()
        os.mkfifo(self.path)

    def reader(self) -> int:
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        return reader

    def test_noReader(self) -> None:
        """
        A pipe that nobody reads is an error, and does not block.
        """
        self.assertRaises(OSError, self.opened)

    def test_slow(self) -> None:
        """
        A reader that reads nothing delays lines, and nothing else.  It gets them all
        later.
        """
        reader = self.reader()
        self.addCleanup(os.close, reader)
        log = self.opened()
        # A blocking write would hang, with this flag or without it.
        assert log._descriptor is not None
        os.set_blocking(log._descriptor, True)
        for _ in range(100):
            log.add(**LINE)
        self.clock.advance(0)
        self.assertIn("nobody reads it", self.logged[0])
        seen = b""
        while self.clock.getDelayedCalls():
            seen += os.read(reader, 65536)
            self.clock.advance(ACCESS_LOG_RETRY)
        seen += os.read(reader, 65536)
        self.assertEqual(len(seen.splitlines()), 100)
        self.assertEqual({json.loads(line)["sent"] for line in seen.splitlines()}, {7})

    def test_broken(self) -> None:
        """
        Without a reader the lines wait for the next.
        """
        reader = self.reader()
        log = self.opened()
        os.close(reader)
        log.add(**LINE)
        self.clock.advance(0)
        self.assertIn("Broken pipe", self.logged[0])
        reader = self.reader()
        self.addCleanup(os.close, reader)
        self.clock.advance(ACCESS_LOG_RETRY)
        self.assertEqual(json.loads(os.read(reader, 65536))["end"], "ok")


class StandardOutputTests(FileTestCase):
    """
    C{-}
    """

    def test_written(self) -> None:
        """
        The lines go to the standard output, whose descriptor stays open.
        """
        with open(self.path, "w+") as file:
            with patch("gomux.tunnel._accesslog._OUTPUT", file.fileno()):
                log = self.opened("-")
                log.reopen()
            log.add(**LINE)
            log.close()
            os.fstat(file.fileno())
        self.assertEqual(len(self.lines()), 1)

    def terminal(self) -> tuple[int, int]:
        """
        @return: the other end of a terminal, and the terminal.
        """
        other, terminal = os.openpty()
        self.addCleanup(os.close, other)
        self.addCleanup(os.close, terminal)
        return other, terminal

    def test_stoppedTerminal(self) -> None:
        """
        A terminal that takes no more, as after Ctrl-S, delays lines, and nothing else.
        The descriptor of the standard output itself goes on to block.
        """
        other, terminal = self.terminal()
        with patch("gomux.tunnel._accesslog._OUTPUT", terminal):
            log = self.opened("-")
        assert log._descriptor is not None
        # Otherwise this test would hang.
        self.assertFalse(os.get_blocking(log._descriptor))
        for _ in range(1000):
            log.add(**LINE)
        self.clock.advance(0)
        self.assertEqual(len(self.logged), 1)
        self.assertTrue(os.get_blocking(terminal))
        seen = b""
        while self.clock.getDelayedCalls():
            seen += os.read(other, 65536)
            self.clock.advance(ACCESS_LOG_RETRY)
        os.set_blocking(other, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                seen += os.read(other, 65536)
        self.assertEqual(len(seen.splitlines()), 1000)

    def test_foreignTerminal(self) -> None:
        """
        A terminal that cannot be opened is written to nevertheless.
        """
        other, terminal = self.terminal()
        with (
            patch("gomux.tunnel._accesslog._OUTPUT", terminal),
            patch("os.ttyname", lambda descriptor: "/nonexistent"),
        ):
            log = self.opened("-")
        log.add(**LINE)
        log.close()
        self.assertEqual(json.loads(os.read(other, 65536))["end"], "ok")


class AddressTests(SynchronousTestCase):
    """
    Addresses as text
    """

    def test_describe(self) -> None:
        """
        Each kind of address has its form; that of a stream is its carrier's.
        """
        address = IPv4Address("TCP", "192.0.2.1", 80)
        for value, text in (
            (address, "192.0.2.1:80"),
            (IPv6Address("TCP", "2001:db8::1", 22), "[2001:db8::1]:22"),
            (UNIXAddress(b"/run/app.sock"), "unix:/run/app.sock"),
            (UNIXAddress(None), "unix:"),
            (StreamAddress(address, 4), "192.0.2.1:80"),
        ):
            self.assertEqual(describe(value), text)

    def test_none(self) -> None:
        """
        A transport that was never connected has no address, nor has a process.
        """

        class Process:
            def getPeer(self) -> None:
                raise NotImplementedError

        self.assertIsNone(addressOf(None))
        self.assertIsNone(addressOf(Process()))


class Kept:
    """
    In place of an access log.
    """

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def add(self, *values: Any) -> None:
        self.lines.append(dict(zip(LINE, values, strict=True)))


class TunnelTestCase(SynchronousTestCase):
    """
    Both sides of a tunnel.
    """

    def setUp(self) -> None:
        self.rig = Rig(self)
        self.here, self.there = Kept(), Kept()
        self.rig.here.accessLog = self.here  # type: ignore[assignment]
        self.rig.there.accessLog = self.there  # type: ignore[assignment]

    def pass_(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.rig.pair.advance(0.1)
        self.rig.flush()

    def ends(self, member: str = "end") -> tuple[Any, Any]:
        """
        @return: a member of the only line of each side.
        """
        [here], [there] = self.here.lines, self.there.lines
        return here[member], there[member]


class BridgeTests(TunnelTestCase):
    """
    The lines of a tunnel without a service
    """

    def begin(self) -> None:
        self.client, self.clientSide = self.rig.open()
        self.server = self.rig.target.made[0]
        self.serverSide = self.rig.target.carriers[0][1]

    def exchange(self) -> None:
        self.begin()
        self.clientSide.write(b"x" * 300000)
        self.serverSide.write(b"yy" * 400000)
        self.pass_(1)

    def test_ok(self) -> None:
        """
        A connection that both sides close is C{ok}.  Both sides count its bytes, more
        than a window of them.
        """
        self.exchange()
        self.assertEqual((self.here.lines, self.there.lines), ([], []))
        self.clientSide.loseConnection()
        self.serverSide.loseConnection()
        self.pass_(1)
        self.assertEqual(self.ends(), ("ok", "ok"))
        self.assertEqual(self.ends("reason"), (None, None))
        self.assertEqual(self.ends("received"), (300000,) * 2)
        self.assertEqual(self.ends("sent"), (800000,) * 2)
        self.assertEqual(self.ends("service"), (None, None))
        for seconds in self.ends("seconds"):
            self.assertAlmostEqual(seconds, 1, delta=0.3)
        self.assertEqual(self.here.lines[0]["client"], "192.0.2.3:50000")
        self.assertEqual(self.there.lines[0]["target"], "192.0.2.4:80")

    def test_halfClosed(self) -> None:
        """
        Both halves may end one after the other.
        """
        self.exchange()
        self.clientSide.loseWriteConnection()
        self.pass_(1)
        self.serverSide.loseWriteConnection()
        self.pass_(1)
        self.assertEqual(self.ends(), ("ok", "ok"))

    def test_client(self) -> None:
        """
        Both sides know that the client has cut the connection.
        """
        self.exchange()
        self.clientSide.abortConnection()
        self.pass_(1)
        self.assertEqual(self.ends(), ("reset-by-client",) * 2)
        self.assertTrue(all(self.ends("reason")))

    def test_target(self) -> None:
        """
        Both sides know that the target has cut the connection.
        """
        self.exchange()
        self.serverSide.abortConnection()
        self.pass_(1)
        self.assertEqual(self.ends(), ("reset-by-target",) * 2)

    def test_targetLate(self) -> None:
        """
        A target that cuts the connection after the client has closed it may have lost
        data.
        """
        self.begin()
        self.serverSide.incoming.stall()
        self.clientSide.write(bytes(100000))
        self.clientSide.loseConnection()
        self.pass_(1)
        self.serverSide.abortConnection()
        self.pass_(1)
        self.assertEqual(self.there.lines[0]["end"], "reset-by-target")

    def test_mux(self) -> None:
        """
        A mux that is lost takes the connection with it.
        """
        self.exchange()
        self.rig.pair.loseCarrier()
        self.pass_(8)
        self.assertEqual(self.ends(), ("mux-lost",) * 2)

    def test_withdrawn(self) -> None:
        """
        A stream whose service the peer may not use any more has a code of its own.
        """
        self.exchange()
        [stream] = self.rig.pair.server.acceptedStreams
        stream.drop(error.ServiceWithdrawn())
        self.pass_(8)
        self.assertEqual(self.ends(), ("reset-by-target", "not-allowed"))

    def test_muxLingering(self) -> None:
        """
        So does one whose last data nobody reads.
        """
        self.begin()
        self.clientSide.incoming.stall()
        self.serverSide.write(bytes(1000000))
        self.pass_(1)
        self.rig.pair.loseCarrier()
        self.pass_(8)
        self.assertEqual(self.ends(), ("mux-lost",) * 2)

    def test_muxClosed(self) -> None:
        """
        So does a mux that one side closes although the connection is open.
        """
        self.exchange()
        self.rig.pair.client.close()
        self.pass_(8)
        # The other side is told that the stream was aborted.
        self.assertEqual(self.ends(), ("mux-lost", "reset-by-client"))

    def test_stopped(self) -> None:
        """
        What is left when the service stops is cut, and the line says why.
        """
        self.exchange()
        self.rig.here.abort()
        self.pass_(1)
        self.assertEqual(self.ends(), ("mux-lost", "reset-by-client"))
        self.assertEqual(self.here.lines[0]["reason"], "the service was stopped")

    def test_silent(self) -> None:
        """
        A connection that ends for want of traffic has a timeout.
        """
        self.begin()
        self.clientSide.loseWriteConnection()
        for _ in range(100):
            self.rig.pair.advance(self.rig.limits.halfOpenTimeout / 50)
        self.assertEqual(self.here.lines[0]["end"], "timeout")

    def test_refused(self) -> None:
        """
        The side of the target has the code of its failure.  The other side learns only
        that the stream was aborted.
        """
        self.rig.target.answer = Refused()
        self.rig.open()
        self.pass_(1)
        self.assertEqual(self.ends(), ("reset-by-target", "refused"))
        self.assertIsNone(self.there.lines[0]["target"])
        self.flushLoggedErrors()

    def test_busy(self) -> None:
        """
        A connection above C{maxConnections} has a line too.
        """
        for _ in range(4):
            self.rig.open()
        self.assertEqual([line["end"] for line in self.here.lines], ["busy"])
        self.assertEqual(self.here.lines[0]["client"], "192.0.2.3:50000")

    def test_noMux(self) -> None:
        """
        A connection for which no mux came has a line, and so has one whose client left
        before.
        """
        self.rig.pair.loseCarrier()
        self.pass_(8)
        self.rig.open()
        _, side = self.rig.open()
        side.abortConnection()
        self.pass_(self.rig.limits.waitTimeout + 1)
        ends = [line["end"] for line in self.here.lines]
        self.assertEqual(ends, ["reset-by-client", "mux-lost"])
        self.assertIsNone(self.here.lines[1]["target"])


class ServiceTests(TunnelTestCase):
    """
    The lines of a tunnel for a service
    """

    service = "any"

    def test_bytes(self) -> None:
        """
        Neither the request nor the answer counts, and both sides have the service.
        """
        _, side = self.rig.open()
        side.write(b"four")
        self.rig.flush()
        self.rig.target.carriers[0][1].write(b"sixsix")
        self.pass_(1)
        side.loseConnection()
        self.rig.target.carriers[0][1].loseConnection()
        self.pass_(1)
        self.assertEqual(self.ends("service"), ("any", "any"))
        self.assertEqual(self.ends("received"), (4, 4))
        self.assertEqual(self.ends("sent"), (6, 6))
        self.assertEqual(self.ends(), ("ok", "ok"))

    def test_nothing(self) -> None:
        """
        A connection without any data has none.
        """
        _, side = self.rig.open()
        side.loseConnection()
        self.rig.target.carriers[0][1].loseConnection()
        self.pass_(1)
        self.assertEqual(self.ends("received"), (0, 0))
        self.assertEqual(self.ends("sent"), (0, 0))

    def test_refused(self) -> None:
        """
        Both sides have the code of a refusal.
        """
        self.rig.target.answer = Refused()
        self.rig.open()
        self.pass_(1)
        self.assertEqual(self.ends(), ("refused", "refused"))

    def test_unknown(self) -> None:
        """
        A service that the peer does not have is C{unknown} where the connection was
        accepted.
        """
        self.rig.pair.serverFactory.services.clear()
        self.rig.open()
        self.pass_(1)
        self.assertEqual([line["end"] for line in self.here.lines], ["unknown"])
        self.assertEqual(self.there.lines, [])

    def test_unanswered(self) -> None:
        """
        An answer that does not come in time is a timeout.
        """
        self.rig.target.hold()
        self.rig.open()
        for _ in range(50):
            self.rig.pair.advance(1)
        self.assertEqual(self.here.lines[0]["end"], "timeout")

    def test_lostUnanswered(self) -> None:
        """
        A mux that is lost before the answer is no refusal.
        """
        self.rig.target.hold()
        self.rig.open()
        self.rig.pair.loseCarrier()
        self.pass_(8)
        self.assertEqual(self.here.lines[0]["end"], "mux-lost")


class FactoryTests(SynchronousTestCase):
    """
    L{LoggedFactory}
    """

    def setUp(self) -> None:
        self.kept = Kept()
        self.served = Recorders(HalfRecorder)
        self.pair = MuxPair(None)
        factory = LoggedFactory(
            self.served,
            "echo",
            self.kept,  # type: ignore[arg-type]
            self.pair.clock,
        )
        self.pair.serverFactory.services["echo"] = factory

    def open(self) -> Recorder:
        opened = Recorders(HalfRecorder)
        opening = self.pair.client.openStream(opened, service="echo")
        self.pair.flush()
        opening.addErrback(lambda failure: None)
        return opened.made[0] if opened.made else Recorder()

    def test_line(self) -> None:
        """
        A stream has a line when its protocol is told of its end.
        """
        client = self.open()
        client.stream.write(b"123")
        self.pair.advance(2)
        self.served.made[0].stream.write(b"45678")
        self.pair.flush()
        client.stream.loseConnection()
        self.pair.flush()
        [line] = self.kept.lines
        client_ = line.pop("client")
        self.assertIn(":", client_)
        self.assertAlmostEqual(line.pop("seconds"), 2, delta=0.5)
        self.assertEqual(
            line,
            {
                "service": "echo",
                "peer": "",
                "target": None,
                "received": 3,
                "sent": 5,
                "end": "ok",
                "reason": None,
            },
        )
        self.assertEqual(self.served.made[0].events[-1], "lost")

    def test_refusals(self) -> None:
        """
        A refusal of the factory has a line with its code.
        """

        def raises(addr: object) -> None:
            raise error.ServiceBusy()

        for build in (lambda addr: None, raises):
            self.served.buildProtocol = build  # type: ignore[assignment]
            self.open()
        self.assertEqual([line["end"] for line in self.kept.lines], ["refused", "busy"])

    def test_ends(self) -> None:
        """
        Each reason has its code.
        """
        for reason, code in (
            (ConnectionDone(), "ok"),
            (error.PeerClosedStream(), "ok"),
            (error.PeerAbortedStream(), "reset-by-client"),
            (error.ServiceWithdrawn(), "not-allowed"),
            (error.ConnectionClosed(), "mux-lost"),
            (error.PeerVanished(), "mux-lost"),
            (ConnectionAborted(), "reset-by-target"),
            (ConnectionLost(), "reset-by-target"),
            (ValueError(), "reset-by-target"),
        ):
            self.assertEqual(codeOfEnd(Failure(reason)), code, reason)

    def test_started(self) -> None:
        """
        The factory is started and stopped, and names itself in the log.
        """
        factory: Any = self.pair.serverFactory.services["echo"]
        self.served.numPorts = 0
        factory.doStart()
        self.assertEqual(self.served.numPorts, 1)
        factory.doStop()
        self.assertEqual(self.served.numPorts, 0)
        self.assertEqual(factory.logPrefix(), "Recorders")


class OptionTests(FileTestCase):
    """
    C{--access-log}
    """

    def parse(self, *arguments: str, **parent: Any) -> Options:
        options = Options()
        options.parent = parent or None  # type: ignore[assignment]
        options.parseOptions(["--psk", "p" * 16, *arguments])
        return options

    def test_service(self) -> None:
        """
        All tunnels and factories of the service get the log.
        """
        options = self.parse(
            *("--access-log", self.path, "--target", "tcp:localhost:1"),
            *("--factory", "web=gomux.PageFactory", "--forward", "tcp:2"),
        )
        service = makeService(options)
        assert isinstance(service, TunnelService)
        [log] = [part.log for part in service if isinstance(part, AccessLogService)]
        self.assertEqual(log.path, self.path)
        self.assertEqual([t.accessLog for t in service.tunnels], [log, log])
        [server] = service.factories
        self.assertIsInstance(server.services["web"], LoggedFactory)
        self.assertIsInstance(server.streamFactory, Tunnel)

    def test_none(self) -> None:
        """
        Without the option there is none.
        """
        service = makeService(self.parse("--factory", "web=gomux.PageFactory"))
        assert isinstance(service, TunnelService)
        self.assertFalse([p for p in service if isinstance(p, AccessLogService)])
        [server] = service.factories
        self.assertNotIsInstance(server.services["web"], LoggedFactory)

    def test_output(self) -> None:
        """
        A daemon has no standard output.
        """
        self.parse("--access-log", "-", nodaemon=1, uid=None)
        error = self.assertRaises(
            UsageError, self.parse, "--access-log", "-", nodaemon=0, uid=None
        )
        self.assertIn("no standard output", str(error))

    def test_badPaths(self) -> None:
        """
        What cannot be a path is an error.
        """
        for path in ("", "a\0b"):
            self.assertRaises(UsageError, self.parse, "--access-log", path)


class ServicePartTests(FileTestCase):
    """
    L{AccessLogService}
    """

    def setUp(self) -> None:
        super().setUp()
        before = signal.getsignal(signal.SIGUSR1)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        self.others: list[int] = []
        signal.signal(signal.SIGUSR1, lambda number, frame: self.others.append(number))
        self.log = AccessLog(self.path, self.clock)
        self.addCleanup(self.log.close)
        self.service = AccessLogService(self.log, self.clock)

    def test_rotated(self) -> None:
        """
        SIGUSR1 opens the file again, and the handler from before is called too.
        """
        self.service.startService()
        self.addCleanup(self.service.stopService)
        os.rename(self.path, self.path + ".1")
        os.kill(os.getpid(), signal.SIGUSR1)
        self.assertTrue(os.path.exists(self.path))
        self.assertEqual(self.others, [signal.SIGUSR1])

    def test_cannotOpen(self) -> None:
        """
        A file that cannot be opened ends the process with an error that names it.
        """
        os.mkdir(self.path)
        error = self.assertRaises(CannotListen, self.service.startService)
        self.assertEqual(error.code, f"error: --access-log {self.path}: Is a directory")

    def test_stopped(self) -> None:
        """
        After the service was stopped, SIGUSR1 does not end the process, and lines are
        written at once.
        """
        self.service.startService()
        self.service.stopService()
        os.rename(self.path, self.path + ".1")
        os.kill(os.getpid(), signal.SIGUSR1)
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(SignalHandler.of(signal.SIGUSR1).calls, {})
        self.log.add(**LINE)
        self.assertEqual(len(read(self.path + ".1")), 1)


class ReloadTests(FileTestCase):
    """
    The access log of a service that reads its files again
    """

    def setUp(self) -> None:
        super().setUp()
        before = signal.getsignal(signal.SIGUSR1)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        self.service = TunnelService(
            self.plan(None), self.clock, lambda plan: self.plan(self.path)
        )
        self.service.privilegedStartService()
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def plan(self, path: str | None) -> Plan:
        target = Item("target", "it", None)
        keyring = Keyring([("", PSK.encode())])
        return Plan(keyring, [target], files=("the config",), accessLog=path)

    def reload(self, path: str | None) -> AccessLog | None:
        """
        @return: the log of the only tunnel.
        """
        self.service._read = lambda plan: self.plan(path)
        self.service.reload()
        [tunnel] = self.service.tunnels
        return tunnel.accessLog

    def test_changes(self) -> None:
        """
        A log may appear, move to another file, and go.
        """
        log = self.reload(self.path)
        assert log is not None
        log.add(**LINE)
        self.assertIs(self.reload(self.path + ".2"), log)
        log.add(**LINE)
        self.assertIsNone(self.reload(None))
        # The protocol of a factory may still have it.
        log.add(**LINE)
        self.clock.advance(0)
        self.assertEqual(len(read(self.path)), 1)
        self.assertEqual(len(read(self.path + ".2")), 1)

    def test_refused(self) -> None:
        """
        A file that cannot be opened fails the reload, and nothing changes.
        """
        os.mkdir(self.path)
        self.assertIsNone(self.reload(self.path))
        assert self.service.reloaded is not None
        self.assertFalse(self.service.reloaded.worked)
        log = self.reload(self.path + ".2")
        assert log is not None
        self.assertIs(self.reload(self.path), log)
        self.assertFalse(self.service.reloaded.worked)
        log.add(**LINE)
        self.clock.advance(0)
        self.assertEqual(len(read(self.path + ".2")), 1)
