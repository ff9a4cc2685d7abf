# -*- test-case-name: gomux.test.wire.test_keyring -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Pre-shared keys with names, and the files they come from.

A file has one pre-shared key a line, as C{name:psk}.  Lines that are blank or begin
with C{#} are skipped.  A file with a single line may also be just a pre-shared key,
without a name.  C{docs/keyring.rst} has the details.

Only the keys that are derived from pre-shared keys are kept.  No error or warning has
any part of a pre-shared key.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from gomux._wire.crypto import deriveKey
from gomux._wire.peerrules import PeerRules, PeerUses
from gomux._wire.replay import processFirstFrames
from gomux._wire.shares import shareDescriptors
from gomux.error import KeyringError
from gomux.limits import MAX_KEY_FILE, MAX_KEYS, SHORT_PSK

#: Keys of the frames, 32 bytes each, with the names of the peers that have them.
Keys: TypeAlias = tuple[tuple[str, bytes], ...]

#: The first line of a file in which every line has a name, even a single one.
HEADING = b"[keyring]"

_entry = re.compile(rb"([A-Za-z0-9_.-]{1,64}):(.*)", re.DOTALL)
# Others may not read the file.  Only its owner may write to it.
_UNSAFE = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP


class Keyring:
    """
    Pre-shared keys by name.

    @ivar warnings: warnings for the operator, one sentence each.
    @ivar replaced: the names that have lost a key at the last L{reload}, and have
        another.
    @cvar firstFrames: the first frames of the last muxes, with these and other keys.
    @ivar names: the names of the peers.
    @ivar descriptors: how the peers share the descriptors of the process.
    @ivar uses: what each peer may use, and what it uses.
    @ivar _source: the file that L{reload} reads, if there is one.
    @ivar _keys: the keys of the frames.  L{reload} replaces the whole tuple.
    """

    firstFrames = processFirstFrames
    replaced: frozenset[str] = frozenset()

    def __init__(
        self,
        psks: Mapping[str, bytes | str] | Iterable[tuple[str, bytes | str]],
        source: _Source | None = None,
        allowShort: bool = True,
    ) -> None:
        """
        @param psks: the pre-shared keys by name, or pairs of a name and a key.  Text
            stands for its UTF-8 bytes.  A key without a name has the name C{""}.  Keys
            with the same name are keys of the same peer.
        @param source: the file that the keys are from, for L{reload}.
        @param allowShort: whether keys may be so short that they are easy to guess.
        @raise KeyringError: if there is no key or too many, if a key is empty or too
            short, or if two are the same.
        """
        self._source = source
        pairs = psks.items() if isinstance(psks, Mapping) else psks
        self._keys, self.warnings = _derive(tuple(pairs), allowShort)
        self.names = frozenset(name for name, _ in self._keys)
        self.descriptors = shareDescriptors(self)
        self.uses = PeerUses()

    @classmethod
    def of(cls, psk: bytes | str | Keyring) -> Keyring:
        """
        @return: C{psk} if it is a keyring, else a keyring of that key, without a name.
        @raise KeyringError: if C{psk} is empty.
        """
        return psk if isinstance(psk, Keyring) else cls((("", psk),))

    def __repr__(self) -> str:
        return f"<Keyring {', '.join(repr(name) for name, _ in self._keys)}>"

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> Keys:
        """
        The keys of the frames with their names.
        """
        return self._keys

    @property
    def rules(self) -> Mapping[str, PeerRules]:
        """
        The L{PeerRules<gomux.PeerRules>} by the name of the peer; by C{"*"} those for
        all peers.  Where a peer's own rules set nothing, those for all peers hold.  New
        rules hold at once for what the peers take from then on.  Assign all of them
        together.
        """
        return self.uses.rules

    @rules.setter
    def rules(self, rules: Mapping[str, PeerRules]) -> None:
        self.uses.rules = rules

    def single(self, name: str | None = None) -> tuple[str, bytes]:
        """
        @param name: the name of a peer; C{None} if the keyring has one key.
        @return: the name and the key of the frames.  If the peer has several keys,
            while one is exchanged for another, the last of them.
        @raise KeyringError: if the peer has no key, or without a name if the keyring
            has several keys.
        """
        if name is not None:
            found = [pair for pair in self._keys if pair[0] == name]
            if not found:
                raise KeyringError(f"no key has the name {name!r}")
            return found[-1]
        if len(self._keys) != 1:
            names = {name for name, _ in self._keys}
            whose = (
                f" of {names.pop()!r}; keep the one to use" if len(names) == 1 else ""
            )
            raise KeyringError(
                f"one pre-shared key is needed, and there are {len(self._keys)}{whose}"
            )
        return self._keys[0]

    def reload(self) -> frozenset[str]:
        """
        Read the file again.  Muxes that are up go on.

        @return: the names of which a key is gone.
        @raise KeyringError: if the file cannot be used, or if the keys are not from
            a file.  The keys stay as they were.
        """
        if self._source is None:
            raise KeyringError("the pre-shared keys are not from a file")
        new = Keyring(self._source.read(again=True), self._source)
        self.checkSuccessor(new)
        return self.adopt(new)

    def checkSuccessor(self, new: Keyring) -> None:
        """
        @param new: the keyring that is to be adopted.
        @raise KeyringError: if its only key has no name, and the keys of this keyring
            have.
        """
        if self is not new and self._keys[0][0] and not new.keys[0][0]:
            source = new._source
            raise KeyringError(
                f"{'' if source is None else f'{source.path}: '}"
                "has a single line, which would count as a key without"
                f" a name; put a line {HEADING.decode()} before it"
            )

    def adopt(self, new: Keyring) -> frozenset[str]:
        """
        Take the keys of another keyring, and the file that they are from.  Muxes that
        are up go on.

        @param new: the other keyring.
        @return: the names of which a key is gone.
        """
        old = self._keys
        self._keys, self.warnings, self._source = new.keys, new.warnings, new._source
        self.names = new.names
        gone = frozenset(name for name, _ in set(old) - set(self._keys))
        self.replaced = gone & self.names
        return gone


def _derive(
    psks: Sequence[tuple[str, bytes | str]], allowShort: bool = True
) -> tuple[Keys, tuple[str, ...]]:
    """
    @return: the keys of the frames, and warnings.
    @raise KeyringError: if the pre-shared keys cannot be used.
    """
    if not psks:
        raise KeyringError("there is no pre-shared key")
    if len(psks) > MAX_KEYS:
        raise KeyringError(f"there are more than {MAX_KEYS} pre-shared keys")
    owners: dict[bytes, str] = {}
    warnings = []
    for name, psk in psks:
        whose = f"the pre-shared key of {name!r}" if name else "the pre-shared key"
        raw = _bytesOf(psk, whose)
        if not raw:
            raise KeyringError(f"{whose} is empty")
        if len(raw) < SHORT_PSK:
            short = f"{whose} is shorter than {SHORT_PSK} bytes"
            if not allowShort:
                raise KeyringError(f"{short}; make one with python -m gomux genpsk")
            warnings.append(short)
        if not name and _entry.fullmatch(raw):
            warnings.append(
                f"{whose} looks like name:psk, and is used as it is; if it begins with"
                f" a name, give it in a file, after a line {HEADING.decode()}"
            )
        key = deriveKey(raw)
        if key in owners:
            raise KeyringError(
                f"{owners[key]!r} and {name!r} have the same pre-shared key"
                if owners[key] != name
                else f"{name!r} has the same pre-shared key twice"
            )
        owners[key] = name
    return tuple((name, key) for key, name in owners.items()), tuple(warnings)


def _bytesOf(psk: bytes | str, whose: str) -> bytes:
    """
    @param psk: a pre-shared key.  Text may have surrogates in place of bytes that are
        not UTF-8, as text from the system has.
    @param whose: which key it is, for the error.
    @return: its bytes.
    @raise KeyringError: if it is text that stands for no bytes.
    """
    if isinstance(psk, bytes):
        return psk
    try:
        return psk.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # Not Python's own error, which shows a part of the key.
        raise KeyringError(f"{whose} is not text that stands for bytes") from None


class _Source(NamedTuple):
    """
    A file of pre-shared keys.

    @ivar path: the absolute path of the file, so that it is the same file after the
        process has changed its directory.
    @ivar insecure: see L{readPSKFile}.
    @ivar allowShort: see L{readPSKFile}.
    @ivar user: see L{readPSKFile}.
    """

    path: str
    insecure: bool
    allowShort: bool
    user: int | None

    def read(self, again: bool = False) -> list[tuple[str, bytes]]:
        """
        @param again: whether the file was read before, so that it must not block: the
            reactor waits.
        @return: the pre-shared keys with their names.  They make a valid keyring.
        @raise KeyringError: if the file or a key in it cannot be used.
        """
        try:
            psks = _parse(self._content(again))
            _derive(psks, self.allowShort)
        except PermissionError as error:
            raise KeyringError(
                f"{self.path}: {error.strerror}; this process runs as user"
                f" {os.geteuid()}, who must be allowed to read it"
            ) from None
        except OSError as error:
            raise KeyringError(f"{self.path}: {error.strerror or error}") from None
        except KeyringError as error:
            raise KeyringError(f"{self.path}: {error}") from None
        return psks

    def _content(self, again: bool) -> bytes:
        # A pipe, as a shell makes for <(command), can be read once.  Without O_NONBLOCK
        # a second open would wait for somebody to write to it.
        flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_NONBLOCK if again else 0)
        with open(os.open(self.path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if again and not stat.S_ISREG(status.st_mode):
                raise KeyringError("is not a regular file: it cannot be read again")
            user = os.geteuid() if self.user is None else self.user
            if status.st_uid not in (0, os.geteuid(), user) and not self.insecure:
                raise KeyringError(
                    f"its owner is user {status.st_uid}, who can read and change it;"
                    f" change the owner to root or to user {user}"
                )
            mode = stat.S_IMODE(status.st_mode)
            if mode & _UNSAFE and not self.insecure:
                raise KeyringError(
                    f"others can read or change it (its mode is {mode:04o});"
                    " it should have mode 0600"
                )
            content = file.read(MAX_KEY_FILE + 1)
        if len(content) > MAX_KEY_FILE:
            raise KeyringError(f"is larger than {MAX_KEY_FILE} bytes")
        return content


def readPSKFile(
    path: str,
    insecure: bool = False,
    *,
    allowShort: bool = True,
    user: int | None = None,
    again: bool = False,
) -> Keyring:
    """
    Read a file of pre-shared keys.

    @param path: the path of the file.
    @param insecure: whether to accept a file that others can read, that not only its
        owner can write to, or that has another owner than root, the user of this
        process, and C{user}.
    @param allowShort: whether keys may be so short that they are easy to guess.
    @param user: the user that this process will have, if it is not the current one.
    @param again: whether the reactor waits, so that reading must not block: then only
        a regular file can be read.
    @return: the keys in the file.
    @raise KeyringError: if the file cannot be used.  The message names the file
        and the line, and has nothing of the line's content.
    """
    source = _Source(os.path.abspath(path), insecure, allowShort, user)
    return Keyring(source.read(again), source, allowShort)


def _parse(content: bytes) -> list[tuple[str, bytes]]:
    """
    @return: pre-shared keys with their names.
    @raise KeyringError: if C{content} has the wrong form.
    """
    lines = [
        (number, line.removesuffix(b"\r"))
        for number, line in enumerate(content.split(b"\n"), 1)
        if line.strip() and not line.startswith(b"#")
    ]
    if lines and lines[0][1].rstrip() == HEADING:
        del lines[0]
    elif len(lines) == 1:
        return [("", lines[0][1])]
    if not lines:
        raise KeyringError("has no pre-shared key")
    if not content.endswith(b"\n"):
        raise KeyringError(
            "ends in the middle of a line, without a newline; is it being written?"
        )
    psks = []
    for number, line in lines:
        match = _entry.fullmatch(line)
        if match is None:
            raise KeyringError(f"line {number} is not of the form name:psk")
        psks.append((match[1].decode("ascii"), match[2]))
    return psks
