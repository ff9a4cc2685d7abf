# -*- test-case-name: gomux.test.tunnel.test_config -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The file of C{--config}: the options of C{twistd gomux}, as TOML.

Its keys are the names of the options, without dashes in front.  An option that may be
repeated is a list, a flag is true or false, and any other is a text.  Limits stand
under C{[limits]}, and what is about one peer under C{[peer.NAME]}.

Each value is given to the options as if it stood on the command line.  So an option
that is added elsewhere is a key here too.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable
from dataclasses import Field, fields
from difflib import get_close_matches
from getopt import GetoptError, getopt
from typing import Any

from twisted.python.reflect import accumulateClassList, prefixedMethodNames
from twisted.python.usage import CompleteFiles, Completions, UsageError

from gomux._wire.peerrules import EVERYBODY, PeerRules
from gomux.limits import MAX_CONFIG
from gomux.tunnel._plan import Refused, withoutSecrets
from gomux.tunnel.options._given import FileOptions, Given, Mistakes
from gomux.tunnel.options._limits import LIMITS, limitValue, optionName

if sys.version_info >= (3, 11):
    from tomllib import loads
else:  # pragma: no cover
    from tomli import loads

#: The keys that are paths, and so relative to the directory of the file.
PATHS = ("psk-file", "access-log")

#: What a peer may have at most: the keys of C{[peer.NAME]} that are whole numbers, with
#: the fields of L{PeerRules}.
SHARES = {optionName(f.name): f.name for f in fields(PeerRules) if f.name != "services"}

#: Options that are not keys, with what to say about them.
_ELSEWHERE = {
    "psk": "a config must not have the key itself; put the key into a file, and give"
    " the path of that as psk-file",
    "allow": "services stand under [peer.NAME], as services = [...]",
    "strict-peer": "this stands under [peer.NAME], as strict = true",
    "config": "a config cannot name another",
    "check": "this is for the command line only",
    "help": "this is for the command line only",
    "version": "this is for the command line only",
}

# Keys that may come with a later version.
_LATER = ("permit", "trust-from", "proxy")

_bare = re.compile(r"[A-Za-z0-9_-]{1,64}")

# What a value has to be, by its type.
_WORDS: dict[type, str] = {
    bool: "true or false",
    str: "a text",
    list: "a list of texts",
    dict: "a table",
}


def pathOf(*keys: str) -> str:
    """
    @return: the path of a key, as TOML writes it.
    """
    return ".".join(key if _bare.fullmatch(key) else _quoted(key) for key in keys)


def _quoted(text: str) -> str:
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return '"{}"'.format(shown.encode("unicode_escape").decode().replace('"', '\\"'))


def readConfig(path: str) -> dict[str, Any]:
    """
    @param path: the path of the file.
    @return: its contents.
    @raise ValueError: if it cannot be read, or is not TOML.  The text has nothing of
        its contents, where a key might be by mistake.
    """
    try:
        # A pipe must not make the reactor wait.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("is not a regular file")
            if status.st_mode & stat.S_IWOTH:
                raise ValueError("every user can change it")
            content = file.read(MAX_CONFIG + 1)
    except PermissionError as error:
        raise ValueError(
            f"{error.strerror}; this process runs as user {os.geteuid()}, who must be"
            " allowed to read it"
        ) from None
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    if len(content) > MAX_CONFIG:
        raise ValueError(f"is larger than {MAX_CONFIG} bytes")
    try:
        return loads(content.decode())
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:
        # The rest of the text may be a part of a line.
        pattern = r"\(at (?:line \d+, column \d+|end of document)\)"
        place = re.search(pattern, str(error))
        why = re.match(r"[A-Za-z ]*", str(error))
        raise ValueError(
            f"is not TOML: {why[0].strip() if why else ''}"
            f"{f' {place[0]}' if place else ''}"
        ) from None


class ConfigOptions(FileOptions):
    """
    The options for a file that has the others.

    @ivar config: the path of the file; C{None} without one.
    @ivar peerTables: the names of the peers that have tables, with the paths of these.
    @ivar peerShares: the shares of single peers, by the name of the peer and the field
        of L{PeerRules}.
    @ivar arguments: the command line.
    """

    optFlags = [
        [
            "check",
            None,
            "Read everything, say what would run, and exit: with status 0, or with"
            " status 1 if anything is wrong. All mistakes are told.",
        ],
    ]

    compData = Completions(optActions={"config": CompleteFiles()})

    config: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.peerTables: dict[str, str] = {}
        self.peerShares: dict[str, dict[str, int]] = {}
        self.arguments: list[str] = []

    def opt_config(self, path: str) -> None:
        """
        Read options from this file, which is TOML: keys are the names of the options
        here, limits stand under [limits], and what is about one peer under
        [peer.NAME]. On SIGHUP it is read again, and what it has changed is changed,
        while open connections go on. See docs/howto/config.rst.
        """
        if self.config is not None:
            raise UsageError("--config can be given only once")
        self.config = path

    def parseOptions(self, options: list[str] | None = None) -> None:
        """
        Parse the command line, and remember it.
        """
        self.arguments = list(sys.argv[1:] if options is None else options)
        super().parseOptions(self.arguments)

    def takeConfig(self, m: Mistakes) -> None:
        """
        Read the file, and take over its values.

        @param m: gets what is wrong.
        @raise Refused: if the file cannot be read at all.
        """
        if self.config is None:
            return
        self.config = os.path.join(self.directory, self.config)
        try:
            table = readConfig(self.config)
        except ValueError as error:
            raise Refused([f"--config {self.config}: {error}"]) from None
        _Reader(self, table, m).take()

    @property
    def typed(self) -> list[tuple[str, str]]:
        """
        The options on the command line, with their values.
        """
        try:
            pairs, _ = getopt(self.arguments, self.shortOpt, self.longOpt)
        except GetoptError:  # pragma: no cover  (They were parsed before.)
            return []
        return [(name.lstrip("-"), value) for name, value in pairs]


class _Reader:
    """
    Gives the values of a file to the options.

    @ivar _options: the options.
    @ivar _table: the contents of the file.
    @ivar _m: gets what is wrong.
    @ivar _typed: the options on the command line, with their values.
    @ivar _kinds: for each key what takes its value.
    @ivar _limits: the fields of the limits, by the names of their keys.
    """

    def __init__(
        self, options: ConfigOptions, table: dict[str, Any], m: Mistakes
    ) -> None:
        self._options: Any = options
        self._table = table
        self._m = m
        self._typed = options.typed
        self._limits: dict[str, Field[Any]] = {
            optionName(f.name): f for kind in LIMITS for f in fields(kind)
        }
        self._kinds = self._findKinds()

    def _findKinds(self) -> dict[str, Callable[[str, Any], None]]:
        flags: list[Any] = []
        accumulateClassList(type(self._options), "optFlags", flags)
        parameters: list[Any] = []
        accumulateClassList(type(self._options), "optParameters", parameters)
        kinds: dict[str, Callable[[str, Any], None]] = {}
        kinds.update((name, self._takeFlag) for name, *_ in flags)
        kinds.update(
            (name, self._takePath if name in PATHS else self._takeText)
            for name, *_ in parameters
        )
        for name in prefixedMethodNames(type(self._options), "opt_"):
            key = name.replace("_", "-")
            kinds[key] = self._takePath if key in PATHS else self._takeList
        for name in (*_ELSEWHERE, *self._limits):
            kinds.pop(name, None)
        return kinds

    def take(self) -> None:
        """
        Take all values.
        """
        typed = {name for name, _ in self._typed}
        for key, value in self._table.items():
            path = pathOf(key)
            if key in ("limits", "peer"):
                if self._is(dict, path, value):
                    take = self._takeLimit if key == "limits" else self._takePeer
                    for name, part in value.items():
                        take(name, part)
                continue
            self._options.labels[key] = path
            if key not in self._kinds:
                self._unknown(path, key, [*self._kinds, "limits", "peer"])
            elif key in typed:
                self._m.add(f"{path}: the command line has --{key} too")
            else:
                with self._m.of(path):
                    self._kinds[key](key, value)

    def _is(self, kind: type, path: str, value: object) -> bool:
        """
        @return: whether a value has a type.  If not, that is a mistake.
        """
        isRight = type(value) is kind
        if not isRight:
            self._m.add(f"{path}: needs {_WORDS[kind]}, not {_kindOf(value)}")
        elif kind is str and "\0" in str(value):
            self._m.add(f"{path}: has a NUL character")
            isRight = False
        return isRight

    def _unknown(self, path: str, key: str, known: list[str]) -> None:
        """
        A key is not known: say so, and which one may be meant.
        """
        why = ""
        if key in _LATER:
            why = "; this version has no such option"
        elif "." not in path and key in _ELSEWHERE:
            why = f": {_ELSEWHERE[key]}"
        elif "." not in path and key in self._limits:
            why = "; limits stand under [limits]"
        elif close := get_close_matches(key, known, 1):
            why = f"; is {close[0]} meant?"
        self._m.add(f"{path}: unknown key{why}")

    # The kinds of keys

    def _takeFlag(self, key: str, value: object) -> None:
        if self._is(bool, pathOf(key), value):
            self._options[key] = int(bool(value))

    def _takeText(self, key: str, value: object) -> None:
        if self._is(str, pathOf(key), value):
            self._options[key] = value

    def _takePath(self, key: str, value: Any) -> None:
        if self._is(str, pathOf(key), value):
            if value != "-":
                value = os.path.join(os.path.dirname(self._options.config), value)
            if key in self._options:
                self._options[key] = value
            else:
                self._handle(key, Given.at(pathOf(key), value))

    def _takeList(self, key: str, value: Any) -> None:
        for text in self._texts(pathOf(key), value):
            if text != withoutSecrets(text):
                self._m.add(
                    f"{text.where}: a config must not have the key itself; give the"
                    " path of its file as pskFile="
                )
            else:
                with self._m.of(text.where):
                    self._handle(key, text)

    def _handle(self, key: str, value: Given) -> None:
        getattr(self._options, f"opt_{key.replace('-', '_')}")(value)

    def _texts(self, path: str, value: Any) -> list[Given]:
        """
        @return: the texts of a list, with their paths.
        """
        if not self._is(list, path, value):
            return []
        return [
            Given.at(f"{path}[{i}]", text)
            for i, text in enumerate(value)
            if self._is(str, f"{path}[{i}]", text)
        ]

    def _takeLimit(self, key: str, value: object) -> None:
        path = pathOf("limits", key)
        field = self._limits.get(key)
        if field is None:
            self._unknown(path, key, [*self._limits])
        elif key in (name for name, _ in self._typed):
            self._m.add(f"{path}: the command line has --{key} too")
        else:
            with self._m.of():
                if isinstance(value, str):
                    raise ValueError(f"{path}: needs a number, not a text")
                self._options[key] = limitValue(field, value, f"{path}:")

    def _takePeer(self, peer: str, table: Any) -> None:
        path = pathOf("peer", peer)
        options = self._options
        if not self._is(dict, path, table):
            return
        options.peerTables[peer] = path
        for key, value in table.items():
            inside = pathOf("peer", peer, key)
            if key == "services":
                allowed = [v for name, v in self._typed if name == "allow"]
                if any(text.partition("=")[0] == peer for text in allowed):
                    self._m.add(f"{inside}: the command line has --allow {peer} too")
                else:
                    options.peerServices[peer] = self._texts(inside, value)
            elif key == "strict":
                self._takeStrict(peer, inside, value)
            elif key in SHARES:
                if type(value) is not int or not 0 < value < 1 << 63:
                    self._m.add(f"{inside}: needs a whole number greater than 0")
                else:
                    options.peerShares.setdefault(peer, {})[SHARES[key]] = value
            else:
                self._unknown(inside, key, ["services", "strict", *SHARES])

    def _takeStrict(self, peer: str, path: str, value: object) -> None:
        if not self._is(bool, path, value):
            return
        if ("strict-peer", peer) in self._typed:
            self._m.add(f"{path}: the command line has --strict-peer {peer} too")
        elif peer == EVERYBODY:
            self._m.add(f"{path}: for all peers, strict stands outside of [peer]")
        elif value:
            self._options._strictPeers.append(Given.at(path, peer))


def _kindOf(value: object) -> str:
    """
    @return: what kind of value a value of TOML is, in words.
    """
    kind = _WORDS.get(type(value), "")
    if isinstance(value, list):
        return "a list"
    return kind or ("a number" if isinstance(value, (int, float)) else "a date or time")
