# -*- test-case-name: gomux.test.tunnel.test_commandline -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Runs a command in the reactor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

from gomux.endpoints import MuxClientEndpoint


class CommandFailed(Exception):
    """
    A command has failed.  Its text says why, and what can be done.
    """


def gomuxEndpoint(reactor: Any, description: str) -> MuxClientEndpoint:
    """
    @param reactor: the reactor.
    @param description: an endpoint string.
    @return: its endpoint.
    @raise CommandFailed: if it is not valid, or does not begin with C{gomux:}.
    """
    if not description.startswith("gomux:"):
        raise CommandFailed(
            "the endpoint string must begin with gomux:, as in"
            " gomux:tcp:example.org:7000:pskFile=psk"
        )
    try:
        endpoint = clientFromString(reactor, description)
    except Exception as error:
        raise CommandFailed(f"not a usable endpoint: {error}") from error
    assert isinstance(endpoint, MuxClientEndpoint)
    return endpoint


def runWithReactor(
    name: str, command: Callable[..., Coroutine[Any, Any, str]], *arguments: Any
) -> int:
    """
    Run the reactor until a command is done, or a signal stops it.

    @param name: the name of the command, for errors.
    @param command: called with the reactor and the arguments.  Its result is printed.
    @param arguments: the arguments.
    @return: the exit status: 0 if the command has succeeded, else 1.
    """
    from twisted.internet import reactor

    loop: Any = reactor
    outcomes: list[str | Failure] = []

    def finish(outcome: str | Failure) -> None:
        try:
            loop.stop()
        except ReactorNotRunning:
            # A signal has stopped it, and that has ended the command.
            return
        outcomes.append(outcome)

    def start() -> None:
        running = Deferred.fromCoroutine(command(reactor, *arguments))
        running.addBoth(finish)

    loop.callWhenRunning(start)
    loop.run()
    if not outcomes:
        print(f"gomux {name}: stopped by a signal", file=sys.stderr)
        return 1
    [outcome] = outcomes
    if isinstance(outcome, Failure):
        if outcome.check(CommandFailed) is None:
            outcome.printTraceback(sys.stderr)
        else:
            print(f"gomux {name}: {outcome.getErrorMessage()}", file=sys.stderr)
        return 1
    print(outcome, end="")
    return 0
