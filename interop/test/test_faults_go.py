"""
Faults and abuse: this project with the Go reference.
"""

from __future__ import annotations

import random

from gomux import Limits
from gomux.error import (
    HandshakeFailed,
    LimitExceeded,
)
from interop.faults import rows
from interop.faults.cases import (
    GO_CLIENT,
    GO_SERVER,
    row,
)
from interop.support.harness import drive, whyMissing


class GoClient(rows.LiveRows):
    """
    The subject is the server, and the reference the client.
    """

    pairing = GO_CLIENT
    kind = "go"
    skip = whyMissing("go")

    @row(46)
    async def test_strict(self) -> None:
        """
        In strict mode no mux comes up with the reference.  The error names strict mode,
        and the subject does not fall back to the reference's mode.
        """
        limits = Limits(handshakeTimeout=1.0)
        mux = await self.connect(*drive("opens 1"), strict=True, limits=limits)
        reason = await self.assertEnds(mux, HandshakeFailed)
        self.assertIn("strict mode", str(reason))
        self.assertFalse(mux.authenticated)
        self.assertEqual(mux.streamCount, 0)

    @row(35)
    async def test_silentClients(self) -> None:
        """
        A client of the reference sends nothing until it opens a stream.  When more such
        clients connect than C{maxUnauthenticated} allows, the oldest is dropped.
        """
        # No connection is refused instead.
        self.patch(random, "random", lambda: 1.0)
        mux = await self.connect(limits=Limits(maxUnauthenticated=1))
        connected = self.subject.next()
        self.spawn(self.kind, "--connect", f"127.0.0.1:{self.proxy.port}")
        second = await connected
        await self.assertEnds(mux, LimitExceeded)
        await self.peer.line("mux down")
        await self.assertAnswers(second)
        await self._abort(second)


class GoServer(rows.LiveRows):
    """
    The subject is the client, and the reference the server.
    """

    pairing = GO_SERVER
    kind = "go"
    listens = False
    skip = whyMissing("go")

    @row(46)
    async def test_strict(self) -> None:
        """
        In strict mode no mux comes up with the reference.  The error names strict mode,
        and the subject does not fall back to the reference's mode.
        """
        limits = Limits(handshakeTimeout=1.0)
        mux = await self.connect(*drive("opens 1"), strict=True, limits=limits)
        reason = await self.assertEnds(mux, HandshakeFailed)
        self.assertIn("strict mode", str(reason))
        self.assertFalse(mux.authenticated)
        self.assertEqual(mux.streamCount, 0)
