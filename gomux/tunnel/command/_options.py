# -*- test-case-name: gomux.test.tunnel.test_commandline -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The command line of C{python -m gomux}.
"""

from __future__ import annotations

import math
import secrets
import sys
from typing import Any

from twisted.python import usage

from gomux._version import __version__

#: How the program is started.
PROGRAM = "python -m gomux"

#: The shells whose completion is supported.
SHELLS = ("bash", "zsh")


class Command(usage.Options):
    """
    A command, or all of them.

    @ivar guide: what its help says after the options.
    """

    guide = ""
    synopsis: str
    # If this were not set, --help would show the docstring of the running program.
    longdesc = ""

    def getUsage(self, width: int | None = None) -> str:
        """
        @return: the text of C{--help}.
        """
        text: str = super().getUsage(width)
        return text.rstrip("\n") + "\n" + self.guide

    def getSynopsis(self) -> str:
        """
        @return: the first line of the help.
        """
        return f"Usage: {PROGRAM} {self.synopsis}"

    def opt_version(self) -> None:
        """
        Print the version of gomux and exit.
        """
        print(f"gomux {__version__}")
        sys.exit(0)

    def run(self) -> int:
        """
        Run the command.

        @return: the exit status.
        """
        raise NotImplementedError


class GenPSK(Command):
    """
    C{genpsk} prints a fresh pre-shared key.
    """

    synopsis = "genpsk"
    guide = """
Prints a fresh pre-shared key: 256 random bits as text. To keep it in a file that only
you can read:

  (umask 077; python -m gomux genpsk > gomux.psk)
"""

    def parseArgs(self) -> None:
        """
        There are no arguments.
        """

    def run(self) -> int:
        print(secrets.token_urlsafe(32))
        return 0


class EndpointCommand(Command):
    """
    A command with an endpoint string.

    @ivar endpoint: the string.
    """

    endpoint: str

    def parseArgs(self, *arguments: str) -> None:
        """
        Take the endpoint string.
        """
        if len(arguments) != 1:
            raise usage.UsageError("exactly one ENDPOINT is needed")
        [self.endpoint] = arguments


def _count(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else -1
    if value < 0:
        raise ValueError(f"--count needs a whole number, not {text!r}")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise ValueError(f"--timeout needs a number of seconds, not {text!r}")
    return value


class Ping(EndpointCommand):
    """
    C{ping} tells whether a peer can be reached, and has the key.
    """

    synopsis = "ping [options] ENDPOINT"
    guide = """
Connects a mux, tells whether the pre-shared key and the mode are right, what the peer
announces and how long a round trip takes, and closes the mux. No stream is opened.
ENDPOINT is the endpoint string of a client:

  python -m gomux ping gomux:tcp:example.org:7000:pskFile=psk

The exit status is 0 if all is right, else 1. A Go peer does not answer, so all that
shows is that it has not refused the key.
"""
    optParameters = [
        ["count", "c", 3, "How many pings to send.", _count],
        [
            *("timeout", "t", 5.0),
            "How many seconds to wait for each answer of the peer.",
            _seconds,
        ],
    ]

    def run(self) -> int:
        from gomux.tunnel.command._ping import ping
        from gomux.tunnel.command._run import runWithReactor

        return runWithReactor(
            "ping", ping, self.endpoint, self["count"], self["timeout"]
        )


class Pipe(EndpointCommand):
    """
    C{pipe} joins the standard input and output with one stream.
    """

    synopsis = "pipe ENDPOINT"
    guide = """
Opens a stream, sends the standard input to it, and writes what comes from it to the
standard output. ENDPOINT is the endpoint string of a client:

  ssh -o ProxyCommand='python -m gomux pipe
    gomux:tcp:example.org:7000:pskFile=psk:service=ssh' host

The exit status is 0 if the stream has ended in an orderly way, else 1.
"""

    def run(self) -> int:
        from gomux.tunnel.command._pipe import pipe
        from gomux.tunnel.command._run import runWithReactor

        return runWithReactor("pipe", pipe, self.endpoint)


class Completion(Command):
    """
    C{completion} prints a script for a shell.
    """

    synopsis = "completion bash|zsh"
    guide = """
Prints a script with which a shell completes the options of twistd gomux and of python
-m gomux. In ~/.bashrc or ~/.zshrc, there after compinit:

  source <(python -m gomux completion bash)
"""
    shell: str

    def parseArgs(self, *arguments: str) -> None:
        """
        Take the name of the shell.
        """
        if len(arguments) != 1 or arguments[0] not in SHELLS:
            raise usage.UsageError(f"the shell is needed: {' or '.join(SHELLS)}")
        [self.shell] = arguments

    def run(self) -> int:
        from gomux.tunnel.command._completion import script

        commands = {name: command for name, _, command, _ in Options.subCommands}
        whole: Any = self.parent
        print(script(self.shell, whole.service, commands), end="")
        return 0


class Options(Command):
    """
    The whole command line.

    @ivar service: the options of C{twistd gomux}.
    """

    synopsis = "COMMAND"
    subCommand: str | None = None
    service: usage.Options

    guide = """
The service itself is run by twistd: see twistd gomux --help.
"""

    subCommands: list[tuple[str, None, type[Command], str]] = [
        ("genpsk", None, GenPSK, "Print a fresh pre-shared key."),
        ("ping", None, Ping, "Tell whether a peer can be reached, and has the key."),
        ("pipe", None, Pipe, "Join the standard input and output with one stream."),
        ("completion", None, Completion, "Print a script for a shell's completion."),
    ]


def main(arguments: list[str], service: usage.Options) -> int:
    """
    Run the command line.

    @param arguments: the arguments after the program's name.
    @param service: the options of C{twistd gomux}.
    @return: the exit status: 2 if the arguments are wrong.
    """
    options = Options()
    options.service = service
    try:
        options.parseOptions(arguments)
    except usage.UsageError as error:
        print(f"{error}\n", file=sys.stderr)
    except SystemExit as exit:
        # --help and --version end so.
        return int(exit.code or 0)
    else:
        if options.subCommand is not None:
            status: int = options.subOptions.run()
            return status
    print(getattr(options, "subOptions", options), end="", file=sys.stderr)
    return 2
