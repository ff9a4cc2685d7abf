# -*- test-case-name: gomux.test.tunnel.test_config -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The values of options, from the command line and from a file, and the mistakes in them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from twisted.python.usage import Options, UsageError

from gomux.tunnel._plan import Refused, withoutSecrets


class Given(str):
    """
    The value of an option from a file.

    @ivar where: the path of its key in the file, such as C{forward[2]}.
    """

    where: str

    @classmethod
    def at(cls, where: str, text: str) -> Given:
        """
        @return: a value with the path of its key.
        """
        given = cls(text)
        given.where = where
        return given


class FileOptions(Options):
    """
    Options that may also be in a file.

    @ivar labels: for options that are from a file, the paths of their keys.
    @ivar directory: the directory in which the process was started.  Relative paths on
        the command line stay relative to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.labels: dict[str, str] = {}
        try:
            self.directory = os.getcwd()
        except OSError:
            self.directory = os.curdir

    def label(self, option: str) -> str:
        """
        @return: how an error names an option.
        """
        return self.labels.get(option, f"--{option}")


def labelOf(option: str, text: str) -> str:
    """
    @return: how an error begins that is about a value of an option.
    """
    where = getattr(text, "where", None)
    shown = withoutSecrets(text)
    return f"--{option} {shown}" if where is None else f"{where}: {shown}"


class Mistakes:
    """
    Collects mistakes in the options, so that all of them are told at once.

    @ivar texts: the mistakes.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        """
        Add a mistake.
        """
        if text not in self.texts:
            self.texts.append(text)

    @contextmanager
    def of(self, label: str = "") -> Iterator[None]:
        """
        Add the mistake that is raised in the context, if there is one.

        @param label: what it is about.
        """
        try:
            yield
        except Refused as error:
            for text in error.mistakes:
                self.add(text)
        except (UsageError, ValueError) as error:
            self.add(f"{label}: {error}" if label else str(error))

    def check(self) -> None:
        """
        @raise Refused: if there are any mistakes.
        """
        if self.texts:
            raise Refused(self.texts)


# Shorter parts of a key may be shown, because they may be words of the error.
_SHOWN = 5


def hideSecrets(text: str, given: Iterable[str] = ()) -> str:
    """
    @param text: an error, which may show a part of an option's value.
    @param given: the values of options.
    @return: the error without the pre-shared keys in them.
    """
    for value in given:
        found = re.search(r"psk\\*=(.+)", value, re.DOTALL | re.IGNORECASE)
        if found is not None:
            # The error may show it whole, or split where the option splits its value.
            parts = [p for p in re.split("[,:=@]", found[1]) if len(p) >= _SHOWN]
            for part in (found[1], *parts):
                for secret in (part, repr(part)[1:-1]):
                    text = text.replace(secret, "...")
    shown = r"(psk\\*=)(?!\.\.\.)[^\s'\",]*[^\s'\",:]"
    return re.sub(shown, r"\1...", text, flags=re.IGNORECASE)
