# -*- test-case-name: gomux.test.test_tap -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The options of C{twistd gomux} for strict mode.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from gomux.tunnel._plan import Strict
from gomux.tunnel.options._given import FileOptions, Mistakes

#: The options that are of use in strict mode only.
_DETAILS = ("context", "strict-clock", "allow-self")


class StrictOptions(FileOptions):
    """
    The options for strict mode.

    @ivar _strictPeers: the values of C{--strict-peer}.
    """

    optFlags = [
        [
            "strict",
            None,
            "Protect all muxes with fresh keys, so that nobody who learns the"
            " pre-shared key later can read a recording, and end a mux at any frame"
            " that was replayed, dropped or reordered on the way. Both sides must use"
            " this option and this software.",
        ],
        [
            "strict-clock",
            None,
            "In strict mode, refuse peers whose clock differs from this machine's by"
            " more than 5 minutes, so that an old hello cannot be sent again even"
            " after a restart.",
        ],
        [
            "allow-self",
            None,
            "In strict mode, let this process connect to itself, as for a"
            " demonstration.",
        ],
    ]

    optParameters = [
        [
            "context",
            None,
            None,
            "In strict mode, a text that both sides must have. Give different texts to"
            " services that share a pre-shared key, so that nobody can redirect a"
            " client of one to another.",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self._strictPeers: list[str] = []

    def opt_strict_peer(self, name: str) -> None:
        """
        Use strict mode with the peer that has this NAME in the --psk-file, and with
        no other that is not named so too. Can be given several times.
        """
        self._strictPeers.append(name)

    def checkStrict(self, peers: Collection[str], mistakes: Mistakes) -> None:
        """
        Check these options together.

        @param peers: the names of the peers.
        @param mistakes: gets what is wrong.
        """
        for name in self._strictPeers:
            label = getattr(name, "where", f"--strict-peer {name}")
            if self["strict"]:
                every = self.label("strict")
                mistakes.add(f"{label}: {every} is for all peers: leave this out")
            # The name of a table in a file was checked before.
            if not hasattr(name, "where") and (not name or name not in peers):
                mistakes.add(f"{label}: no key has this name")
        for option in _DETAILS:
            if self[option] and not (self["strict"] or self._strictPeers):
                label = self.label(option)
                mistakes.add(f"{label} is of use only with --strict or --strict-peer")

    @property
    def strictSettings(self) -> Strict:
        """
        The settings of strict mode.
        """
        return Strict(
            bool(self["strict"]) or tuple(map(str, self._strictPeers)) or False,
            # The bytes as they were given, in any locale.
            os.fsencode(self["context"] or ""),
            bool(self["strict-clock"]),
            bool(self["allow-self"]),
        )
