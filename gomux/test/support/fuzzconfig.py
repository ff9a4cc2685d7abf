# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The fuzz target C{config}: files for C{--config}, and command lines, with arbitrary
content.
"""

from __future__ import annotations

import time
import warnings
from tempfile import NamedTemporaryFile

from twisted.python.usage import UsageError

from gomux.tap import Options

#: The key in the files and command lines.  No other text has it.
KEY = "Zq7Wk9Gt4Nc6Ld2R"
#: How long it may take to read the options, in seconds.
LONGEST = 5.0


def config(data: bytes) -> None:
    """
    Read options.  The first byte selects whether the rest is a file for C{--config}, or
    a command line whose arguments end with zero bytes.  In it the byte 1 stands for
    C{psk=} with a key.
    """
    isLine, content = data[:1] > b"\x7f", data[1:]
    content = content.replace(b"\x01", b"psk=" + KEY.encode())
    with NamedTemporaryFile(prefix="gomux-fuzz-") as file:
        file.write(KEY.encode() + b"\n" if isLine else content)
        file.flush()
        given = ["--allow-short-psk", "--check"]
        if isLine:
            given += ["--psk-file", file.name]
            texts = content.decode(errors="surrogateescape").split("\0")
            # Neither another file nor a module of this machine.
            given += [t for t in texts if not _READS.intersection(t.split("=")[:1])]
        else:
            given += ["--config", file.name]
        before = time.monotonic()
        said = _read(given)
        assert time.monotonic() - before < LONGEST, "it takes too long"
        assert KEY not in said, said


# The options that read a file or call code.
_READS = {
    *("--config", "--psk-file", "--factory", "--access-log", "--version", "--help"),
}


def _read(given: list[str]) -> str:
    """
    @return: the text of the error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            Options().parseOptions(given)
        except UsageError as error:
            return str(error)
        except SystemExit as error:
            return str(error.code)
    return ""
