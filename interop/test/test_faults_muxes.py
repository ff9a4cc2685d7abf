"""
Faults and abuse: which mux a new stream goes over, and when there is none.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint

from gomux import MuxClientEndpoint
from interop.faults.attacker import PSK
from interop.faults.cases import CLIENT, Apps, FaultTestCase, Quiet, Subject, row

#: How many streams are asked for before there is a mux.
MANY = 5000


class NoMuxYet(FaultTestCase):
    """
    A client endpoint whose mux is not up yet.
    """

    @row(83, pairing=CLIENT)
    async def test_thousands(self) -> None:
        """
        Thousands of calls of C{connect} before the mux is up all succeed, and each
        stream works.
        """
        apps = Apps()
        carrier = TCP4ClientEndpoint(
            reactor, "127.0.0.1", self.listen(Subject(PSK, False, apps))
        )
        endpoint = MuxClientEndpoint(reactor, carrier, PSK)
        self.addCleanup(endpoint.close)
        near: list[Any] = await gatherResults(
            [endpoint.connect(Apps(Quiet)) for _ in range(MANY)]
        )
        for app in near:
            app.transport.write(b"ECHO")
        await self.eventually(lambda: all(app.received for app in near))
        self.assertEqual({bytes(app.received) for app in near}, {b"ECHO"})
        self.assertEqual(len(apps.streams), MANY)
