# -*- test-case-name: gomux.test.test_tap -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The options of C{twistd gomux} that are limits: one for each field of the classes of
limits, with the text that documents the field.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Any

from gomux.limits import TEXT_LENGTH, Limits, TunnelLimits, isAllowed, leastOf

#: The classes of limits that have options.
LIMITS = (TunnelLimits, Limits)


def optionName(field: str) -> str:
    """
    @return: the name of a limit's option, such as C{max-streams} for C{maxStreams}.
    """
    return re.sub("[A-Z]", lambda match: "-" + match[0].lower(), field)


def _dashed(match: re.Match[str]) -> str:
    return "--" + optionName(match[0])


def _fieldDocs(limits: type) -> dict[str, str]:
    """
    @return: the C{@ivar} texts of a class's docstring, as plain text, by field.
    """
    names = [field.name for limits in LIMITS for field in fields(limits)]
    docs = {}
    for part in re.split(r"@ivar ", limits.__doc__ or "")[1:]:
        name, text = re.split(r":\s", part.split("\n\n")[0], maxsplit=1)
        text = re.sub(r"[A-Z]\{(?:([^<{}]*)<[^<>{}]*>|([^{}]*))\}", r"\1\2", text)
        text = re.sub(rf"\b({'|'.join(names)})\b", _dashed, text)
        docs[name] = " ".join(text.split())
    return docs


def limitOptions(limits: type) -> list[list[Any]]:
    """
    @return: an option for each field of a class of limits.
    """
    # python -OO removes docstrings.
    docs = _fieldDocs(limits)
    texts = {field.name: docs.get(field.name, "") for field in fields(limits)}
    return [
        [
            optionName(field.name),
            None,
            field.default,
            texts[field.name][:1].upper() + texts[field.name][1:],
            _coerce(field),
        ]
        for field in fields(limits)
    ]


def limitValue(field: Field[Any], given: object, label: str) -> float:
    """
    @param field: the field of a class of limits.
    @param given: its value: a number, or the text of an option.
    @param label: how the error begins.
    @return: the value.
    @raise ValueError: if it is not allowed.
    """
    # With postponed annotations, the type of a field is text.
    kind: type[int] | type[float] = int if field.type == "int" else float
    what = "a whole number" if kind is int else "a number"
    value: float = -1
    if isinstance(given, (str, kind, int)) and not isinstance(given, bool):
        try:
            value = kind(given)
        except (ValueError, OverflowError):
            value = -1
    if not isAllowed(field, value):
        shown = repr(given)[:TEXT_LENGTH]
        raise ValueError(f"{label} needs {what} {leastOf(field)}, not {shown}")
    return value


def _coerce(field: Field[Any]) -> Callable[[str], float]:
    """
    @return: the function that turns the text of an option into its value.
    """
    return lambda text: limitValue(field, text, f"--{optionName(field.name)}")
