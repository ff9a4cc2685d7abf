# -*- test-case-name: gomux.test.tunnel.test_manual -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The manual pages, made from the help of the commands.

C{man/make.py} in the checkout writes them.
"""

from __future__ import annotations

import re

from twisted.python.usage import Options as AnyOptions

from gomux.tunnel.command._options import PROGRAM, Options
from gomux.tunnel.options._guide import GUIDE

#: So wide that each option of the help has a single line.
_WIDE = 100000

_OPTION = re.compile(r"  (?:(-.),|   ) (--[a-z-]+)(=?) *(.*)")

HEADER = """\
.\\" Made by man/make.py from the help; do not edit.
.TH {title} 1 "" "gomux for Twisted" "User Commands"
.SH NAME
{name} \\- {about}
.SH SYNOPSIS
{synopsis}
"""

FOOTER = """\
.SH SEE ALSO
{seeAlso}
.PP
The documentation of gomux for Twisted, whose page on limits explains each limit.
"""


def pages(service: AnyOptions) -> dict[str, str]:
    """
    @param service: the options of C{twistd gomux}.
    @return: the text of each page by the name of its file.
    """
    return {
        "twistd-gomux.1": _servicePage(service.getUsage(_WIDE)),
        "gomux.1": _commandsPage(),
    }


def _servicePage(usage: str) -> str:
    options, _, rest = usage.partition(GUIDE)
    _, _, limits = rest.partition("Limits:\n")
    synopsis = "\\fBtwistd\\fR [\\fItwistd options\\fR] \\fBgomux\\fR [\\fIoptions\\fR]"
    return (
        HEADER.format(
            title="TWISTD-GOMUX",
            name="twistd-gomux",
            about="many services through one encrypted connection",
            synopsis=synopsis,
        )
        + f".SH DESCRIPTION\n{_prose(GUIDE)}"
        + f".SH OPTIONS\n{_options(options)}"
        + ".SH LIMITS\n"
        + _options(limits)
        + FOOTER.format(seeAlso=".BR twistd (1),\n.BR gomux (1)")
    )


def _commandsPage() -> str:
    parts = []
    for _, _, command, about in Options.subCommands:
        options = command()
        parts.append(
            f".SS {_escape(f'{PROGRAM} {options.synopsis}')}\n"
            f"{_escape(about)}\n"
            f"{_prose(options.guide)}"
            f"{_options(options.getUsage(_WIDE).partition(options.guide)[0])}"
        )
    return (
        HEADER.format(
            title="GOMUX",
            name="gomux",
            about="make a key, and try and use peers of gomux",
            synopsis=f"\\fB{_escape(PROGRAM)}\\fR \\fICOMMAND\\fR",
        )
        + ".SH COMMANDS\n"
        + "".join(parts)
        + FOOTER.format(seeAlso=".BR twistd-gomux (1)")
    )


def _escape(text: str) -> str:
    """
    @return: text as roff shows it unchanged.
    """
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def _options(usage: str) -> str:
    """
    @param usage: a part of a help with options.
    @return: the options as tagged paragraphs.
    """
    parts = []
    for short, long, takesValue, text in _OPTION.findall(usage):
        value = "=\\fI...\\fR" if takesValue else ""
        names = f"\\fB{_escape(long)}\\fR{value}"
        if short:
            names = f"\\fB{_escape(short)}\\fR, {names}"
        parts.append(f".TP\n{names}\n{_escape(text.strip())}\n")
    return "".join(parts)


def _prose(text: str) -> str:
    """
    @return: paragraphs, of which those that are indented keep their lines.
    """
    parts = []
    for paragraph in text.strip("\n").split("\n\n"):
        body = _escape(paragraph)
        if paragraph.startswith("  "):
            body = f".nf\n{body}\n.fi"
        parts.append(f".PP\n{body}\n")
    return "".join(parts)
