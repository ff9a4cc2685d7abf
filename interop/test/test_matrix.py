"""
This project with each of the other implementations, in both roles.

Each of L{CASES} is run for each of L{PAIRS}.  The first peer of the pair, the subject,
is once the server of the mux and once the client.  Either side drives, so that both
client and server open streams.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from interop.peers.peerlib import ENDLESS
from interop.support.harness import (
    GRACEFUL,
    Peer,
    PeerTestCase,
    closes,
    drive,
    whyMissing,
)

MEBIBYTE = 1 << 20

#: How many bytes a bulk transfer moves; GOMUX_BULK_MEBIBYTES sets it.
BULK = MEBIBYTE * int(os.environ.get("GOMUX_BULK_MEBIBYTES", "64"))

#: The number of streams of a bulk transfer on many streams.  It is so small that each
#: stream carries more than its first window.
MANY = 200 * BULK // (64 * MEBIBYTE)

PAIRS = (
    ("this", "go"),
    ("this", "blocking"),
    # This pair is without this project, and checks the cases themselves.
    ("blocking", "go"),
)


@dataclass(frozen=True)
class Case:
    """
    A case: the drivers to run.

    @ivar drivers: The drivers, which must all succeed.
    @ivar subjectOptions: Further options of the subject.
    @ivar legOptions: Further options of the other side.
    @ivar subjects: The subjects for which the case is run.
    """

    drivers: tuple[str, ...]
    subjectOptions: tuple[str, ...] = ()
    legOptions: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ("this", "blocking")


SLOW = ("--read-size", "16384", "--read-delay", "2")
SLOW_DRIVERS = (
    f"sink {2 * MEBIBYTE} 4 65536",
    f"verify-source {2 * MEBIBYTE} 4",
    f"echo-hash {2 * MEBIBYTE} 4",
)

CASES = {
    "echo": Case(("echo 1 100", "echo 64 1000", "echo 70000 100")),
    "bulk": Case(
        (
            f"hash {BULK} 1",
            f"verify-source {BULK} 1",
            f"echo-hash {BULK} 1",
        )
    ),
    "smallWrites": Case((f"sink {MEBIBYTE} 10 128", f"sink {MEBIBYTE} 10 1000")),
    "manyStreams": Case((f"hash {BULK} {MANY}", f"echo-hash {BULK} {MANY}")),
    "bothSidesOpen": Case(("open echo-hash 1000001 10", "echo-hash 1000001 10")),
    "echoBesideSinks": Case(("echo-beside 64 200 4",)),
    "churn": Case(("opens 1000",)),
    "halfClose": Case(("halfclose all", "open halfclose all")),
    "dataBeforeClose": Case(
        ("close-after 1 50", "close-after 300000 50", "write-close 300000 50")
    ),
    "slowLeg": Case(SLOW_DRIVERS, legOptions=SLOW),
    "slowSubject": Case(SLOW_DRIVERS, subjectOptions=SLOW),
    # The subject gives credit of up to 131072 in one frame, which the reference
    # refuses.
    "longReads": Case(
        (
            f"sink {16 * MEBIBYTE} 1 65536",
            f"verify-source {16 * MEBIBYTE} 1",
            f"echo-hash {16 * MEBIBYTE} 4",
        ),
        legOptions=("--read-size", str(MEBIBYTE), "--read-delay", "1"),
        subjects=("this",),
    ),
}


class Matrix(PeerTestCase):
    """
    The tests of one pair.  Its methods C{_x} become the tests C{test_x}.
    """

    async def startRoles(
        self,
        subject: str,
        leg: str,
        subjectListens: bool,
        subjectOptions: tuple[str, ...] = (),
        legOptions: tuple[str, ...] = (),
    ) -> tuple[Peer, Peer]:
        """
        Start both peers, the subject in the role that is asked for.

        @return: The subject and the other peer.
        """
        if subjectListens:
            return await self.startPair(subject, leg, subjectOptions, legOptions)
        other, one = await self.startPair(leg, subject, legOptions, subjectOptions)
        return one, other

    async def assertCase(
        self,
        case: Case,
        subject: str,
        leg: str,
        subjectListens: bool,
        subjectDrives: bool,
    ) -> None:
        """
        Run one case, and check that all its drivers succeed.
        """
        drives = drive(*case.drivers)
        peers = await self.startRoles(
            subject,
            leg,
            subjectListens,
            case.subjectOptions + (drives if subjectDrives else ()),
            case.legOptions + (() if subjectDrives else drives),
        )
        await self.assertDrives(peers[not subjectDrives], len(case.drivers))

    async def _closeMux(
        self, subject: str, leg: str, subjectListens: bool, side: str
    ) -> None:
        """
        Check that all open streams end when one side closes the mux.
        """
        closer = subject if side == "local" else leg
        for _ in closes(closer):
            one, other = await self.startRoles(
                subject, leg, subjectListens, drive(f"closemux {side} 20")
            )
            closed = other if side == "local" else one
            reason = await closed.line("mux down: ")
            if reason == GRACEFUL:
                break
        self.assertEqual(reason, GRACEFUL)
        await self.assertDrives(one, 1)

    async def _closeMuxLocal(self, subject: str, leg: str, listens: bool) -> None:
        await self._closeMux(subject, leg, listens, "local")

    async def _closeMuxRemote(self, subject: str, leg: str, listens: bool) -> None:
        await self._closeMux(subject, leg, listens, "remote")

    async def _terminated(self, subject: str, leg: str, listens: bool) -> None:
        """
        After SIGTERM the subject closes the mux gracefully.  This software drops a
        client that has sent nothing, because it may be a stranger.
        """
        one, other = await self.startRoles(subject, leg, listens)
        one.signal("TERM")
        reason = await other.line("mux down: ")
        if subject != "this" or leg == "this" or not listens:
            self.assertEqual(reason, GRACEFUL)
        else:
            self.assertIn("reset", reason)
        self.assertEqual(await one.exitCode(), 0)

    async def _killed(self, subject: str, leg: str, listens: bool) -> None:
        """
        When the other side is killed in the middle of a transfer, the subject's mux
        ends and its driver fails.
        """
        one, other = await self.startRoles(
            subject, leg, listens, drive("echo 64 1", f"sink {ENDLESS} 4 65536")
        )
        await one.line("{")
        other.signal("KILL")
        self.assertNotEqual(await one.line("mux down: "), GRACEFUL)
        self.assertFalse(json.loads("{" + await one.line("{"))["ok"])
        self.assertEqual(await one.exitCode(), 1)

    async def _wrongPSK(self, subject: str, leg: str, listens: bool) -> None:
        """
        A client with a wrong key cannot use a mux.  The server then still serves a
        client with the right key.
        """
        kinds = (subject, leg) if listens else (leg, subject)
        server = self.spawn(kinds[0], "--listen", "127.0.0.1:0")
        address = await server.line("listening ")
        options = ("--connect", address, *drive("echo 16 1"))
        stranger = self.spawn(kinds[1], *options, psk="not the interop secret")
        self.assertFalse(json.loads("{" + await stranger.line("{"))["ok"])
        self.assertEqual(await stranger.exitCode(), 1)
        self.assertNotEqual(await server.line("mux down: "), GRACEFUL)
        await self.assertDrives(self.spawn(kinds[1], *options), 1)


Test = Callable[[Matrix], Coroutine[Any, Any, None]]


def _cell(case: Case, subject: str, leg: str, listens: bool, drives: bool) -> Test:
    async def test(self: Matrix) -> None:
        await self.assertCase(case, subject, leg, listens, drives)

    return test


def _other(name: str, subject: str, leg: str, listens: bool) -> Test:
    async def test(self: Matrix) -> None:
        await getattr(self, f"_{name}")(subject, leg, listens)

    return test


def _tests(subject: str, leg: str) -> Iterator[tuple[str, Test]]:
    """
    Generate the tests of one pair, with their names.
    """
    roles = (("Server", True), ("Client", False))
    sides = (("Subject", True), ("Leg", False))
    for role, listens in roles:
        for name, case in CASES.items():
            if subject in case.subjects:
                for side, drives in sides:
                    cell = _cell(case, subject, leg, listens, drives)
                    yield f"test_{name}_as{role}_by{side}", cell
        for name in (
            "closeMuxLocal",
            "closeMuxRemote",
            "terminated",
            "killed",
            "wrongPSK",
        ):
            yield f"test_{name}_as{role}", _other(name, subject, leg, listens)


def _pairs() -> Iterator[type[Matrix]]:
    """
    Generate a test case for each pair.
    """
    for subject, leg in PAIRS:
        name = f"{subject.title()}With{leg.title()}Tests"
        body = {
            "__doc__": f"The matrix, {subject} with {leg}.",
            "__module__": __name__,
            "skip": whyMissing(subject, leg),
            **dict(_tests(subject, leg)),
        }
        yield type(name, (Matrix,), body)


globals().update({case.__name__: case for case in _pairs()})
