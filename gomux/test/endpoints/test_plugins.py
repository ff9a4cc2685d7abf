"""
Tests for L{twisted.plugins.gomux_plugins}.
"""

import subprocess
import sys

from twisted.application.service import IServiceMaker
from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin, getPlugins
from twisted.plugins import gomux_plugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

LOADED = """
import sys
import twisted.plugins.gomux_plugins
print(*(name for name in sys.modules if name.split(".")[0] == "gomux"))
"""


class PluginTests(SynchronousTestCase):
    """
    L{twisted.plugins.gomux_plugins}
    """

    def test_interfaces(self) -> None:
        """
        The plugins provide the interfaces that Twisted looks for.
        """
        endpoints = gomux_plugins.gomuxEndpoints
        verifyObject(IPlugin, endpoints)
        verifyObject(IStreamServerEndpointStringParser, endpoints)
        verifyObject(IStreamClientEndpointStringParserWithReactor, endpoints)
        verifyObject(IPlugin, gomux_plugins.gomuxService)
        verifyObject(IServiceMaker, gomux_plugins.gomuxService)

    def test_foundService(self) -> None:
        """
        C{twistd} finds exactly one service named gomux.
        """
        found = [p for p in getPlugins(IServiceMaker) if p.tapname == "gomux"]
        self.assertEqual(found, [gomux_plugins.gomuxService])

    def test_foundParsers(self) -> None:
        """
        Twisted finds exactly one server parser and one client parser for the prefix.
        """
        servers = getPlugins(IStreamServerEndpointStringParser)
        self.assertEqual(
            [p for p in servers if p.prefix == "gomux"],
            [gomux_plugins.gomuxEndpoints],
        )
        clients = getPlugins(IStreamClientEndpointStringParserWithReactor)
        self.assertEqual(
            [p for p in clients if p.prefix == "gomux"],
            [gomux_plugins.gomuxEndpoints],
        )

    def test_light(self) -> None:
        """
        Loading the plugins, which every C{twistd} does, imports no module of gomux.
        """
        loaded = subprocess.run(
            [sys.executable, "-c", LOADED],
            env={"PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual(loaded.stdout.strip(), "")
