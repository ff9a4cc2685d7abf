"""
What is searched: the setups of parties, and deliberate weakenings of the protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from interop.strictmodel.roles import Party, Rules
from interop.strictmodel.search import Result, Search, Setup

#: Each weakening's name, the property that it breaks (C{""} if none), and its rules.
WEAKENINGS = {
    "no-context": ("agreement", Rules(context=False)),
    "no-transcript": ("agreement", Rules(transcript=False)),
    "replayed-hello": ("injectivity", Rules(freshServer=False, seen=False)),
    "own-hello": ("own process", Rules(ownHello=False)),
    "bits-outside": ("features", Rules(bitsInside=False)),
    "any-counter": ("freshness", Rules(counter="any")),
    "growing-counter": ("freshness", Rules(counter="growing")),
    "reflection": ("freshness", Rules(twoKeys=False, prefix=False)),
    "bare-close": ("truncation", Rules(ends=("a CloseMux without a seal",))),
    "carrier-end": ("truncation", Rules(ends=("the end of the carrier",))),
    "early-server": ("confirmation", Rules(serverWaits=False)),
    "open-hellos": ("secrecy", Rules(psk=False, outerSeal=False)),
    "no-dh": ("forward secrecy", Rules(dh=False)),
    "static-clients": ("forward secrecy", Rules(freshClient=False)),
    "static-servers": ("forward secrecy", Rules(freshServer=False)),
    "kept-ephemerals": ("forward secrecy", Rules(forgotten=False)),
    "psk-frames": ("forward secrecy", Rules(sessionKeys=False)),
    "no-rekey": ("rekeying", Rules(rekey=False)),
    "old-keys": ("rekeying", Rules(oldKeysGone=False)),
    "one-key": ("rekeying", Rules(twoKeys=False)),
    "no-psk": ("", Rules(psk=False)),
    "no-roles": ("", Rules(roles=False)),
    "no-seal": ("", Rules(outerSeal=False)),
    "no-replay-memory": ("", Rules(seen=False)),
    "no-prefix": ("", Rules(prefix=False)),
}


def setups(sessions: int, frames: int) -> Iterator[Setup]:
    """
    @param sessions: how many sessions each role has.
    @param frames: how many frames a side sends before its CloseMux.
    """
    for title, clients, servers, contexts, bits in (
        ("two services, each with its context", "AA", "BB", "xy", "differ"),
        ("two processes, each client and server", "AB", "AB", "xx", "differ"),
        ("one service, and hellos alike", "AA", "BB", "xx", "same"),
    ):
        roles = (("client", clients), ("server", servers))
        parties = tuple(
            Party(
                *(f"{role} {n + 1}", role == "client"),
                *(processes[n % 2], contexts[n % 2]),
                bits if bits == "same" else f"of {role} {n + 1}",
            )
            for role, processes in roles
            for n in range(sessions)
        )
        yield Setup(f"{title}, {sessions} sessions a role", parties, frames)


def search(
    rules: Rules, only: str, sessions: int, frames: int
) -> Iterator[tuple[Setup, Result]]:
    """
    Search each setup, until a property is broken.  Without a weakening, also search one
    more session a role, with one frame a side.

    @param only: see L{Search.run}.
    """
    more = [*setups(sessions + 1, 1)][2:] if rules == Rules() else []
    for setup in chain(setups(sessions, frames), more):
        result = Search(rules, setup).run(only)
        yield setup, result
        if result.broken:
            return
