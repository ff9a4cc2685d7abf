"""
This project with each of the other implementations, in both roles.

One table: L{CASES} are run for each of L{PAIRS}, with the pair's first peer (the
subject) as server and as client of the mux, and with either side driving, so
that streams are opened by client and by server.
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

#: How much is moved in bulk, in bytes; the environment may make it less.
BULK = MEBIBYTE * int(os.environ.get("GOMUX_BULK_MEBIBYTES", "64"))

#: On how many streams, so that each needs more than its first window.
MANY = 200 * BULK // (64 * MEBIBYTE)

PAIRS = (
    ("this", "go"),
    ("this", "blocking"),
    # Without this project: this pair checks the cases themselves.
    ("blocking", "go"),
)


@dataclass(frozen=True)
class Case:
    """
    What is driven.

    @ivar drivers: The drivers, which must all succeed.
    @ivar subjectOptions: Further options of the subject.
    @ivar legOptions: Further options of the other side.
    @ivar subjects: Which subjects this is asked of.
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
    # Its credit comes in frames of up to 131072, which the reference refuses.
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
    The cases that are no rows of the table. C{_x} is made into tests C{test_x}.
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
        Start both, the subject in one role or the other.

        @return: The subject and the other.
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
        Run one cell of the table.
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
        The subject closes the mux with streams open, or sees it closed.
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
        The subject closes the mux gracefully when it is told to exit.
        """
        one, other = await self.startRoles(subject, leg, listens)
        one.signal("TERM")
        self.assertEqual(await other.line("mux down: "), GRACEFUL)
        self.assertEqual(await one.exitCode(), 0)

    async def _killed(self, subject: str, leg: str, listens: bool) -> None:
        """
        The subject notices that the other side is gone in mid-transfer.
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
        Nothing works with the wrong key, and a listener goes on with the right one.
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
    Make the tests of one pair, with their names.
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
    Make a test case for each pair.
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
