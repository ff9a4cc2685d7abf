"""
The live tests of a tunnel's ends again, with Twisted's transports in place of the
tunnel's own local sockets.  Other reactors than epoll's, and connections that are not
plain sockets, always have Twisted's.
"""

from __future__ import annotations

import os

from gomux._fastpaths import useFastPaths
from gomux.test.support import plainpaths
from interop.test import test_accesslog_live, test_faults_tunnel, test_tunnel_live


class RawTests(test_tunnel_live.RawTests):
    """
    Endings, limits and descriptors
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(os, "environ", {**os.environ, "GOMUX_PLAIN": "localSockets"})


class AccessLogTests(test_accesslog_live.AccessLogTests):
    """
    The lines of the access log
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(os, "environ", {**os.environ, "GOMUX_PLAIN": "localSockets"})


class TunnelEnds(test_faults_tunnel.TunnelEnds):
    """
    The fault rows of a tunnel's ends, in this process
    """

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(useFastPaths, plainpaths.use(["localSockets"]))
