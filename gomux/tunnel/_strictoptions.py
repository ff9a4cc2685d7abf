# -*- test-case-name: gomux.test.test_tap -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The options of C{twistd gomux} for strict mode.
"""

from __future__ import annotations

import os

from twisted.python.usage import Options, UsageError

from gomux._mux.dialler import Settings
from gomux._wire.keyring import Keyring
from gomux._wire.salts import Salts

#: The options that are of use in strict mode only.
_DETAILS = ("context", "strict-clock", "allow-self")


class StrictOptions(Options):
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

    def checkStrict(self, keyring: Keyring) -> None:
        """
        Check these options together.

        @param keyring: the pre-shared keys.
        @raise UsageError: if the options are not valid.
        """
        if self["strict"] and self._strictPeers:
            raise UsageError("--strict is for all peers: leave out --strict-peer")
        for name in self._strictPeers:
            if not name or name not in keyring.names:
                raise UsageError(f"--strict-peer {name}: no key has this name")
        for name in _DETAILS:
            if self[name] and not (self["strict"] or self._strictPeers):
                raise UsageError(
                    f"--{name} is of use only with --strict or --strict-peer"
                )

    def strictSettings(self) -> Settings:
        """
        @return: the arguments for the muxes of one role.  Muxes of both roles may share
            them only if C{--allow-self} was not given.
        """
        settings: Settings = {
            "strict": bool(self["strict"]) or tuple(self._strictPeers) or False,
            # The bytes as they were given, in any locale.
            "context": os.fsencode(self["context"] or ""),
            "strictClock": bool(self["strict-clock"]),
        }
        if self["allow-self"]:
            settings["salts"] = Salts()
        return settings
