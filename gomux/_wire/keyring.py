# -*- test-case-name: gomux.test.wire.test_keyring -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Pre-shared keys with names, the files they come from, and which of them a peer has.

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
from collections.abc import Mapping
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

from gomux._wire.crypto import (
    NONCE_SIZE,
    PREFIX_SIZE,
    TAG_SIZE,
    Opener,
    Sealer,
    SequencedOpener,
    deriveKey,
    opens,
)
from gomux._wire.frame import NotYet, isBound
from gomux._wire.replay import FirstFrames
from gomux.error import (
    AuthenticationFailed,
    GomuxError,
    KeyringError,
    NeverAuthenticated,
)
from gomux.limits import MAX_KEY_FILE, MAX_KEYS, SHORT_PSK

#: The first line of a file in which every line has a name, even a single one.
HEADING = b"[keyring]"

#: How many keys are tried in one turn of the reactor.  That takes some 0.13 ms: a
#: stranger's first frame costs all keys, and other connections must not wait for that.
KEYS_A_TURN = 16

_entry = re.compile(rb"([A-Za-z0-9_.-]{1,64}):(.*)", re.DOTALL)
# Others may not read the file.  Only its owner may write to it.
_UNSAFE = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP


class Keyring:
    """
    Pre-shared keys by name.

    @ivar warnings: warnings for the operator, one sentence each.
    @ivar firstFrames: the first frames of the last muxes with these keys.
    @ivar _source: the file that L{reload} reads, if there is one.
    @ivar _keys: the keys of the frames by name.  L{reload} replaces the whole mapping.
    """

    def __init__(
        self, psks: Mapping[str, bytes | str], source: _Source | None = None
    ) -> None:
        """
        @param psks: the pre-shared keys by name.  Text stands for its UTF-8
            bytes.  A key without a name has the name C{""}.
        @param source: the file that the keys are from, for L{reload}.
        @raise KeyringError: if there is no key or too many, if a key is empty, or
            if two are the same.
        """
        self._source = source
        self.firstFrames = FirstFrames()
        self._keys, self.warnings = _derive(psks)

    @classmethod
    def of(cls, psk: bytes | str | Keyring) -> Keyring:
        """
        @return: C{psk} if it is a keyring, else a keyring of that key, without a name.
        @raise KeyringError: if C{psk} is empty.
        """
        return psk if isinstance(psk, cls) else cls({"": psk})  # type: ignore[dict-item]

    def __repr__(self) -> str:
        return f"<Keyring {', '.join(map(repr, self._keys))}>"

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> Mapping[str, bytes]:
        """
        The keys of the frames by name, 32 bytes each.  L{reload} does not change a
        mapping that was returned before.
        """
        return self._keys

    def single(self) -> tuple[str, bytes]:
        """
        @return: the name and the key of the frames, if the keyring has one key.
        @raise KeyringError: if it has several.
        """
        if len(self._keys) != 1:
            raise KeyringError(
                f"one pre-shared key is needed, and there are {len(self._keys)}"
            )
        return next(iter(self._keys.items()))

    def reload(self) -> frozenset[str]:
        """
        Read the file again.  Muxes that are up go on.

        @return: the names that are gone or have another key now.
        @raise KeyringError: if the file cannot be used, or if the keys are not from
            a file.  The keys stay as they were.
        """
        source = self._source
        if source is None:
            raise KeyringError("the pre-shared keys are not from a file")
        old = self._keys
        psks = source.read(again=True)
        if "" in psks and "" not in old:
            raise KeyringError(
                f"{source.path}: has a single line, which would count as a key without"
                f" a name; put a line {HEADING.decode()} before it"
            )
        self._keys, self.warnings = _derive(psks)
        return frozenset(name for name in old if self._keys.get(name) != old[name])


def _derive(
    psks: Mapping[str, bytes | str],
) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
    """
    @return: keys by name, and warnings.
    @raise KeyringError: if the pre-shared keys cannot be used.
    """
    if not psks:
        raise KeyringError("there is no pre-shared key")
    if len(psks) > MAX_KEYS:
        raise KeyringError(f"there are more than {MAX_KEYS} pre-shared keys")
    keys: dict[str, bytes] = {}
    owners: dict[bytes, str] = {}
    warnings = []
    for name, psk in psks.items():
        whose = f"the pre-shared key of {name!r}" if name else "the pre-shared key"
        raw = _bytesOf(psk, whose)
        if not raw:
            raise KeyringError(f"{whose} is empty")
        if len(raw) < SHORT_PSK:
            warnings.append(f"{whose} is shorter than {SHORT_PSK} bytes")
        if not name and _entry.fullmatch(raw):
            warnings.append(
                f"{whose} looks like name:psk, and is used as it is; if it begins with"
                f" a name, give it in a file, after a line {HEADING.decode()}"
            )
        key = keys[name] = deriveKey(raw)
        other = owners.setdefault(key, name)
        if other != name:
            raise KeyringError(f"{other!r} and {name!r} have the same pre-shared key")
    return MappingProxyType(keys), tuple(warnings)


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
    """

    path: str
    insecure: bool

    def read(self, again: bool = False) -> dict[str, bytes]:
        """
        @param again: whether the file was read before, so that it must not block: the
            reactor waits.
        @return: the pre-shared keys by name.  They make a valid keyring.
        @raise KeyringError: if the file or a key in it cannot be used.
        """
        try:
            psks = _parse(self._content(again))
            _derive(psks)
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
            status = os.fstat(file.fileno()).st_mode
            if again and not stat.S_ISREG(status):
                raise KeyringError("is not a regular file: it cannot be read again")
            mode = stat.S_IMODE(status)
            if mode & _UNSAFE and not self.insecure:
                raise KeyringError(
                    f"others can read or change it (its mode is {mode:04o});"
                    " it should have mode 0600"
                )
            content = file.read(MAX_KEY_FILE + 1)
        if len(content) > MAX_KEY_FILE:
            raise KeyringError(f"is larger than {MAX_KEY_FILE} bytes")
        return content


def readPSKFile(path: str, insecure: bool = False) -> Keyring:
    """
    Read a file of pre-shared keys.

    @param path: the path of the file.
    @param insecure: whether to accept a file that others can read, or that
        not only its owner can write to.
    @return: the keys in the file.
    @raise KeyringError: if the file cannot be used.  The message names the file
        and the line, and has nothing of the line's content.
    """
    source = _Source(os.path.abspath(path), insecure)
    return Keyring(source.read(), source)


def _parse(content: bytes) -> dict[str, bytes]:
    """
    @return: pre-shared keys by name.
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
        return {"": lines[0][1]}
    if not lines:
        raise KeyringError("has no pre-shared key")
    if not content.endswith(b"\n"):
        raise KeyringError(
            "ends in the middle of a line, without a newline; is it being written?"
        )
    psks: dict[str, bytes] = {}
    for number, line in lines:
        match = _entry.fullmatch(line)
        if match is None:
            raise KeyringError(f"line {number} is not of the form name:psk")
        name = match[1].decode("ascii")
        if name in psks:
            raise KeyringError(f"line {number} has the name {name!r} again")
        psks[name] = match[2]
    return psks


class KeySearch:
    """
    Finds the key that a peer has by its first frame, L{KEYS_A_TURN} keys at a time.

    @ivar _untried: the keys that are not tried yet, with their names.
    @ivar _left: how many keys are not tried yet.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """
        @param keys: the keys that the peer may have, by name, 32 bytes each.
        """
        self._untried = iter(keys.items())
        self._left = len(keys)

    def open(self, header: bytes, sealed: bytes | memoryview) -> tuple[str, bytes]:
        """
        Try the next keys.

        Strangers can make this side do that.  So a frame with a payload, which no
        peer sends first, is not tried.

        @param header: the whole header of the first frame.
        @param sealed: its ciphertext with its tag.
        @return: the key's name, and the key.
        @raise NotYet: if there are more keys to try.
        @raise AuthenticationFailed: if the peer has none of the keys.
        """
        if len(sealed) != TAG_SIZE:
            raise AuthenticationFailed("the first frame carries data")
        for name, key in islice(self._untried, KEYS_A_TURN):
            self._left -= 1
            if opens(key, header, sealed):
                return name, key
        if self._left:
            raise NotYet()
        raise AuthenticationFailed(
            "the peer has another pre-shared key, or does not speak gomux"
        )


class FirstFrame:
    """
    The gate of a mux in compatible mode, passed with the first genuine frame.  That
    frame is for the mux: it has its usual effect.

    See L{gomux._mux.gate.Gate}.

    @ivar passed: whether a genuine frame has come.
    @ivar name: the name of the peer's key, once C{passed}.
    @ivar opener: opens all further frames, once C{passed}.
    @ivar _seen: the first frames that must not come again; C{None} for no check.
    """

    ownsFrames = False
    passed = False
    name = ""
    _seen: FirstFrames | None = None
    opener: Opener | SequencedOpener

    def takeOutput(self) -> bytes:
        """
        @return: C{b""}, because this gate has no frames of its own.
        """
        return b""

    def _pass(self, key: bytes, header: bytes) -> None:
        """
        The first frame has been opened.

        @param key: the key that opened it.
        @param header: its header.
        @raise OutOfSequence: if it was the first frame of an earlier mux.
        """
        if self._seen is not None:
            self._seen.add(header)
        if isBound(header):
            nonce = header[-NONCE_SIZE:]
            counter = int.from_bytes(nonce[PREFIX_SIZE:], "little")
            self.opener = SequencedOpener(key, nonce[:PREFIX_SIZE], counter + 1)
        self.passed = True

    def close(self) -> None:
        """
        The gate is not needed any more.
        """

    def interrupted(self, detail: str) -> GomuxError:
        """
        @return: the error if the carrier ends before a genuine frame has come.
        """
        return NeverAuthenticated(
            "before any authenticated frame came;"
            f" wrong pre-shared key, or no gomux peer?{detail}"
        )


class KnownKey(FirstFrame):
    """
    The gate for a single key, with which this side may send at once.

    @ivar sealer: seals the mux's frames.
    @ivar _key: the key.
    """

    def __init__(self, name: str, key: bytes, seen: FirstFrames | None = None) -> None:
        """
        @param name: the name of the key.
        @param key: the key, 32 bytes.
        @param seen: the first frames that must not come again.
        """
        self._seen = seen
        self.name = name
        self._key = key
        self.sealer = Sealer(key)
        self.opener = Opener(key, self.sealer.prefix)

    def open(self, header: bytes, sealed: bytes | memoryview) -> bytes:
        """
        Take the peer's first frame.

        @return: its payload.
        @raise AuthenticationFailed: if the frame is not genuine, or was sent before.
        """
        payload = self.opener.open(header, sealed)
        self._pass(self._key, header)
        return payload


class KeyFinder(FirstFrame):
    """
    The gate of a server with several keys: it finds the peer's key by the first frame.

    @ivar sealer: seals the mux's frames; C{None} before the first frame.
    @ivar _search: finds the peer's key.
    """

    sealer: Sealer | None = None

    def __init__(
        self, keys: Mapping[str, bytes], seen: FirstFrames | None = None
    ) -> None:
        """
        @param keys: the keys that the peer may have, by name, 32 bytes each.
        @param seen: the first frames that must not come again.
        """
        self._seen = seen
        self._search = KeySearch(keys)

    def open(self, header: bytes, sealed: bytes | memoryview) -> bytes:
        """
        Take the peer's first frame.

        @param header: the whole header.
        @param sealed: the ciphertext with its tag.
        @return: its payload, C{b""}.
        @raise NotYet: if there are more keys to try.
        @raise AuthenticationFailed: if no key opens the frame, or it was sent before.
        """
        self.name, key = self._search.open(header, sealed)
        self.sealer = Sealer(key)
        self.opener = Opener(key, self.sealer.prefix)
        self._pass(key, header)
        return b""
