# -*- test-case-name: gomux.test.test_tap -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The options of C{twistd gomux} for the pre-shared keys.
"""

from __future__ import annotations

import os
import re

from twisted.logger import Logger
from twisted.python.usage import CompleteFiles, Completions, UsageError

from gomux._wire.keyring import Keyring, readPSKFile
from gomux.error import KeyringError
from gomux.limits import SHORT_PSK
from gomux.tunnel._plan import Refused
from gomux.tunnel.options._given import FileOptions

_log = Logger()

#: The environment variable that may have the pre-shared key.
ENVIRONMENT = "GOMUX_PSK"


class KeyOptions(FileOptions):
    """
    The options for the pre-shared keys.

    @ivar keyring: the pre-shared keys.
    @ivar keysFromFile: whether the keys are from a file that can be read again.
    @ivar before: the options that were read before, if files are read again.
    @ivar _psks: the options that gave a pre-shared key, and their values.
    @ivar _inherited: the keyring of the environment's key, if it has one.
    """

    optFlags = [
        [
            "psk-file-insecure",
            None,
            "Use the --psk-file even if other users can read or change it, or own it.",
        ],
        [
            "allow-short-psk",
            None,
            f"Use pre-shared keys of fewer than {SHORT_PSK} bytes, which are easy to"
            " guess.",
        ],
        [
            "end-revoked",
            None,
            "On SIGHUP, end the muxes of peers whose key was removed from the"
            " --psk-file or changed in it. Without this option they stay up.",
        ],
    ]

    compData = Completions(optActions={"psk-file": CompleteFiles()})

    keyring: Keyring
    keysFromFile = False
    before: KeyOptions | None = None
    _inherited: Keyring | None = None

    def __init__(self) -> None:
        super().__init__()
        self._psks: list[tuple[str, str]] = []

    def opt_psk(self, psk: str) -> None:
        """
        The pre-shared key itself.  Other users can read it in the list of
        processes: --psk-file or the environment variable GOMUX_PSK is safer.
        """
        self._psks.append(("--psk", psk))

    def opt_psk_file(self, path: str) -> None:
        """
        A file with the pre-shared key in a single line, or with several keys in
        lines of the form name:psk.  On SIGHUP it is read again: new muxes use the
        new keys.  See also --end-revoked.
        """
        self._psks.append((getattr(path, "where", "--psk-file"), path))

    def findKeyring(self) -> Keyring:
        """
        @return: the pre-shared keys.
        @raise UsageError: if there are none, or they cannot be used.
        """
        psks, self._psks = self._psks, []
        before = self.before
        # Removed, so that programs that this process starts do not inherit it.
        inherited = os.environ.pop(ENVIRONMENT, None)
        if before is not None:
            self._inherited = before._inherited
        if inherited is not None or self._inherited is not None:
            psks.append((f"the environment's {ENVIRONMENT}", inherited or ""))
        if not psks and {"psk", "psk-file"} & self.labels.keys():
            # What is wrong with these keys of a file was told.
            raise Refused([])
        if not psks:
            raise UsageError(
                "a pre-shared key is needed: give --psk-file, or set"
                f" {ENVIRONMENT} in the environment, or give --psk"
            )
        if len(psks) > 1:
            sources = " and ".join(source for source, _ in psks)
            raise UsageError(f"give the pre-shared key only once, not by {sources}")
        [(source, value)] = psks
        if self._inherited is not None:
            return self._inherited
        self.keysFromFile = source.endswith("psk-file")
        try:
            keyring = self._read(source, value)
        except KeyringError as error:
            hint = ""
            if self.keysFromFile and re.search("others can|its owner", str(error)):
                hint = ", or give --psk-file-insecure"
            elif "is shorter than" in str(error):
                hint = ", or give --allow-short-psk"
            raise UsageError(f"{source}: {error}{hint}") from None
        if source == "--psk" and before is None:
            _log.warn(
                "--psk: other users of this machine can read the pre-shared key in the"
                " list of processes; --psk-file is better"
            )
        for warning in keyring.warnings:
            # Not "warning": the logger expects a Python warning under that name.
            _log.warn("{source}: {text}", source=source, text=warning)
        if inherited is not None:
            self._inherited = keyring
        return keyring

    def _read(self, source: str, value: str) -> Keyring:
        """
        @return: the keyring from a source.
        @raise KeyringError: if it cannot be used.
        """
        allowShort = bool(self["allow-short-psk"])
        if not self.keysFromFile:
            # The bytes as they were given, in any locale.
            return Keyring((("", os.fsencode(value)),), allowShort=allowShort)
        before = self.before
        keyring = readPSKFile(
            os.path.join(self.directory, value),
            bool(self["psk-file-insecure"]),
            allowShort=allowShort,
            user=self.parent.get("uid") if self.parent is not None else None,
            again=before is not None,
        )
        if before is not None:
            before.keyring.checkSuccessor(keyring)
        return keyring

    def checkRevoking(self) -> None:
        """
        @raise UsageError: if C{--end-revoked} is of no use.
        """
        if self["end-revoked"] and not self.keysFromFile:
            label = self.label("end-revoked")
            raise UsageError(
                f"{label} needs a --psk-file: only its keys can be revoked"
            )
