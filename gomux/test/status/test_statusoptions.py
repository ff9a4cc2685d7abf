"""
Tests for L{gomux.status._options}.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from twisted.logger import capturedLogs, formatEvent
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from gomux.status._site import StatusFactory
from gomux.tap import Options, makeService
from gomux.tunnel._service import TunnelService


class OptionsTests(SynchronousTestCase):
    """
    C{--status} and C{--status-host}
    """

    def service(self, *options: str) -> TunnelService:
        parsed = Options()
        parsed.parseOptions(["--psk", "0123456789abcdef", *options])
        return cast(TunnelService, makeService(parsed))

    def names(self, service: TunnelService) -> list[str]:
        return [str(listener.name) for listener in service.listeners]

    def test_none(self) -> None:
        """
        Without the option there is no such port.
        """
        self.assertEqual(self.names(self.service()), ["--listen tcp:7000"])

    def test_ports(self) -> None:
        """
        There may be several ports, which share one site.
        """
        service = self.service(
            *("--status", "tcp:0:interface=127.0.0.1", "--status", "unix:status.sock"),
            *("--status-host", "Gomux.example", "--status-host", "other"),
        )
        self.assertEqual(
            self.names(service)[1:],
            ["--status tcp:0:interface=127.0.0.1", "--status unix:status.sock"],
        )
        first, second = (port.switch.wrapped for port in service.listeners[1:])
        assert isinstance(first, StatusFactory)
        assert isinstance(second, StatusFactory)
        self.assertIs(first.site, second.site)
        self.assertEqual(first.hosts, {"gomux.example", "other"})

    def test_reload(self) -> None:
        """
        A file may have the options too.  When it is read again, ports are added and
        removed, and the names of those that stay change.  The site stays, so that its
        rates do.
        """
        path = Path(self.mktemp())
        path.write_text('status = ["tcp:1", "tcp:2"]\nstatus-host = ["One"]\n')
        service = self.service("--config", str(path))
        first, second = (port.switch.wrapped for port in service.listeners[1:])
        path.write_text('status = ["tcp:2", "unix:s"]\nstatus-host = ["two"]\n')
        service.reload()
        self.assertEqual(self.names(service)[1:], ["--status tcp:2", "--status unix:s"])
        for port in service.listeners[1:]:
            found = port.switch.wrapped
            assert isinstance(found, StatusFactory)
            assert isinstance(first, StatusFactory)
            self.assertEqual(found.hosts, {"two"})
            self.assertIs(found.site, first.site)
        self.assertEqual(service.reloaded and service.reloaded.worked, True)

    def test_reloadFails(self) -> None:
        """
        If a value cannot be used, nothing changes.
        """
        path = Path(self.mktemp())
        path.write_text('status = ["tcp:1"]\n')
        service = self.service("--config", str(path))
        path.write_text('status = ["tcp:2", "tcp:x"]\nstatus-host = ["x:y"]\n')
        with capturedLogs() as events:
            service.reload()
        texts = " ".join(str(formatEvent(event)) for event in events)
        self.assertIn("status[1]: tcp:x: not a usable endpoint", texts)
        self.assertIn("status-host[0]: x:y: a name such as", texts)
        self.assertEqual(self.names(service)[1:], ["--status tcp:1"])

    def test_twice(self) -> None:
        """
        A port can be given only once.
        """
        options = ("--status", "tcp:1", "--status", "tcp:1")
        error = self.assertRaises(UsageError, self.service, *options)
        self.assertEqual(str(error), "--status tcp:1: can be given only once")

    def test_mistakes(self) -> None:
        """
        A value that cannot be used is a usage error that names the option.
        """
        for option, value in (
            ("--status", "nonsense:"),
            ("--status", "tcp:x"),
            ("--status-host", ""),
            ("--status-host", "example.org:80"),
            ("--status-host", "http://example.org"),
            ("--status-host", "*"),
            ("--status-host", "[::1]"),
            ("--status-host", "x" * 254),
            ("--status-host", "example.org\n"),
        ):
            error = self.assertRaises(UsageError, self.service, option, value)
            self.assertTrue(str(error).startswith(f"{option} {value}:"), error)
