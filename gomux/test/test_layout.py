"""
Tests for where the files of this package are.
"""

from pathlib import Path

import twisted
from twisted.plugins import gomux_plugins
from twisted.trial.unittest import SynchronousTestCase


class LayoutTests(SynchronousTestCase):
    """
    The plugin.
    """

    def test_noPackage(self) -> None:
        """
        Trap 14: where the plugin is in a directory of its own, that is no
        package, for it would hide Twisted itself.
        """
        plugins = Path(gomux_plugins.__file__).resolve().parent
        self.assertEqual(plugins.parts[-2:], ("twisted", "plugins"))
        if plugins.parent != Path(twisted.__file__).resolve().parent:
            for directory in (plugins, plugins.parent):
                self.assertFalse((directory / "__init__.py").exists())
