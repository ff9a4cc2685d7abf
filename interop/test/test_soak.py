"""
Tests for how the soak test judges a run: see C{interop/soak.py}.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.utils import getProcessOutput
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from gomux.error import PeerAbortedStream, PeerClosedStream
from interop.peers.soak_peer import SETTLED, Client, Counts, Kind, clock
from interop.soak import STEPS, Soak, WallClock, parse


class FakeLoad:
    """
    What a client uses of its load.
    """

    def __init__(self) -> None:
        self.counts = Counts()
        self.muxLives = True

    def lives(self, mux: object) -> bool:
        return self.muxLives


class SoakTests(TestCase):
    """
    The soak test notices what must make it fail.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()

    async def test_wallClock(self) -> None:
        """
        The wall clock of a process is off by what was set; its monotonic clock is not.
        """
        wall = WallClock(self.directory)
        program = "import time; print(time.time(), time.monotonic())"
        environment = {**os.environ, "PYTHONPATH": str(wall.path)}
        for offset in (0, -86400, 60):
            wall.set(offset)
            output = await getProcessOutput(
                sys.executable, ("-c", program), environment, errortoo=True
            )
            shown, monotonic = map(float, output.split())
            self.assertApproximates(shown - time.time(), offset, 20)
            self.assertApproximates(monotonic, time.monotonic(), 20)

    def test_step(self) -> None:
        """
        A step of the clock is over once every stream has got bytes since.  A mux that
        ends by it is a problem.
        """
        soak = Soak(parse([]), self.directory)
        soak._await(STEPS[0])
        now = time.monotonic()
        soak.goesOn(now, now - 10)
        self.assertEqual(soak.times(STEPS[0]), [])
        soak.goesOn(now, now)
        self.assertEqual(len(soak.times(STEPS[0])), 1)
        self.assertEqual(soak.verdict.problems, [])
        soak.isUp(now)
        self.assertEqual(soak.verdict.problems, ["clock back: a mux has ended"])

    def ends(self, kind: Kind, isComplete: bool, reason: Exception) -> dict[str, int]:
        """
        End a stream.

        @return: the counts that are not 0.
        """
        load: Any = FakeLoad()
        load.counts.open = 1
        load.muxLives = self.muxLives
        client = Client(load)
        client._kind, client._mux = kind, None
        if isComplete:
            client._digest, client._sent = client._hash.digest(), client._size
        client.connectionLost(Failure(reason))
        for call in clock.getDelayedCalls():
            self.assertApproximates(call.getTime() - clock.seconds(), SETTLED, 1)
            call.func(*call.args, **call.kw)
            call.cancel()
        return {name: count for name, count in vars(load.counts).items() if count}

    muxLives = True

    def test_ends(self) -> None:
        """
        A stream with TLS is correct if it is complete and its end is the one that the
        server made.
        """
        closed, lost = PeerClosedStream(), ConnectionLost()
        aborted = PeerAbortedStream()
        self.assertEqual(self.ends(Kind.TLS, True, closed), {"done": 1, "tls": 1})
        self.assertEqual(self.ends(Kind.TLS_CUT, True, lost), {"done": 1, "tlsCut": 1})
        self.assertEqual(
            self.ends(Kind.TARGET_CUT, True, aborted), {"done": 1, "targetCut": 1}
        )
        for kind in Kind:
            self.assertEqual(self.ends(kind, False, closed), {"wrong": 1})
            self.assertEqual(self.ends(kind, False, lost), {"wrong": 1})
        for kind in (Kind.TLS_CUT, Kind.TARGET_CUT):
            self.assertEqual(self.ends(kind, True, closed), {"wrong": 1})
        self.assertEqual(self.ends(Kind.TLS, True, lost), {"wrong": 1})

    def test_muxEnds(self) -> None:
        """
        The end of the mux may cut any stream short, but not make it look complete.
        """
        self.muxLives = False
        for kind in Kind:
            self.assertEqual(self.ends(kind, False, ConnectionLost()), {"cut": 1})
            self.assertEqual(self.ends(kind, False, PeerClosedStream()), {"wrong": 1})
