# -*- test-case-name: gomux.test.test_main -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
C{python -m gomux genpsk} prints a fresh pre-shared key.
"""

from __future__ import annotations

import secrets
import sys

USAGE = """\
usage: python -m gomux genpsk

Prints a fresh pre-shared key: 256 random bits as text.  To keep it in a file
that only you can read:

    (umask 077; python -m gomux genpsk > gomux.psk)

The service itself is run by twistd: see twistd gomux --help.
"""


def main(arguments: list[str]) -> int:
    """
    Run the command line.

    @param arguments: the arguments after the program's name.
    @return: the exit status.
    """
    if arguments == ["genpsk"]:
        print(secrets.token_urlsafe(32))
        return 0
    if arguments in (["--help"], ["-h"]):
        print(USAGE, end="")
        return 0
    print(USAGE, end="", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
