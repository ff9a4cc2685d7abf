# -*- test-case-name: gomux.test.tunnel.test_tunnel -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
A limit for the number of log lines that anybody on the network can cause, and the form
of addresses and other text from outside in log lines.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import inf
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, ILoggingContext, IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.context import theContextTracker
from twisted.python.failure import Failure
from twisted.python.log import ILogContext

from gomux._carrier.rate import TokenBucket
from gomux.error import GomuxError, KeyRevoked
from gomux.limits import LINE_EVERY, LINES_BURST, TEXT_LENGTH


class ThrottledLog:
    """
    Logs at most L{LINES_BURST} lines of one kind at once, and after that at most one
    line of that kind in L{LINE_EVERY} seconds.  It leaves out all other lines.  The
    next logged line of the kind tells how many lines were left out.

    Text in the lines may come from outside, so it is made L{printable}.

    @ivar _log: where the lines go.
    @ivar _clock: the reactor.
    @ivar _kinds: for each kind of line, what limits its rate, and how many lines were
        left out since the last logged line.
    """

    def __init__(self, log: Logger, clock: IReactorTime) -> None:
        """
        @param log: where the lines go.
        @param clock: the reactor.
        """
        self._log = log
        self._clock = clock
        self._kinds: dict[object, tuple[TokenBucket, int]] = {}

    def emit(
        self, level: LogLevel, line: str, kind: object = None, **values: object
    ) -> None:
        """
        Log a line, or leave it out and count it.

        @param level: the level of the line.
        @param line: the format of the line.
        @param kind: the kind of the line, together with its format.  There must be few
            kinds, whatever strangers do.
        @param values: the values for the format.
        """
        due = self._due(line, kind, values)
        if due is not None:
            self.always(level, due, **values)

    def _due(self, line: str, kind: object, values: dict[str, object]) -> str | None:
        """
        @param values: gets the number of lines that were left out.
        @return: the format of the line; C{None} if the line is left out.
        """
        key = line, kind
        bucket, leftOut = self._kinds.get(key) or (_newBucket(), 0)
        isLogged = bucket.take(self._clock.seconds())
        self._kinds[key] = bucket, 0 if isLogged else leftOut + 1
        if not isLogged:
            return None
        if leftOut:
            line += " ({leftOut} such lines were left out before this one)"
            values["leftOut"] = leftOut
        return line

    def failure(self, line: str, **values: object) -> None:
        """
        Log the exception that is being handled, with its traceback, or leave it out and
        count it.  The application has raised it, and perhaps a peer makes it do so.

        @param line: the format of the line.
        @param values: the values for the format.
        """
        failure = Failure()
        due = self._due(line, getattr(failure.type, "__name__", None), values)
        if due is not None:
            self._log.failure(due, failure, LogLevel.critical, **values)

    def always(self, level: LogLevel, line: str, **values: object) -> None:
        """
        Log a line in any case.
        """
        for name, value in values.items():
            if isinstance(value, (str, BaseException)):
                values[name] = printable(str(value))
        self._log.emit(level, line, **values)

    def info(self, line: str, **values: object) -> None:
        """
        Log a line about a normal event.
        """
        self.emit(LogLevel.info, line, **values)

    def warn(self, line: str, **values: object) -> None:
        """
        Log a line about a problem.
        """
        self.emit(LogLevel.warn, line, **values)


def logEnd(
    log: ThrottledLog, direction: str, reason: GomuxError, peer: IAddress, name: str
) -> None:
    """
    Log the end of a mux, or of a connection that got none.

    @param log: where the line goes.  It may be left out, but not if the key of the peer
        was revoked: peers cannot cause that.
    @param direction: C{"to"} or C{"from"}.
    @param reason: why it has ended.
    @param peer: the address of its peer.
    @param name: the name of the peer; empty if it has not shown its key.
    """
    line = "the mux {direction} {name}{peer} ended: {reason}"
    values: dict[str, object] = {
        "direction": direction,
        "name": f"{name!r} at " if name else "",
        "peer": describeAddress(peer),
        "reason": reason,
    }
    if isinstance(reason, KeyRevoked) and name:
        log.always(LogLevel.warn, line, **values)
        return
    level = LogLevel.info if isinstance(reason, ConnectionDone) else LogLevel.warn
    log.emit(level, line, kind=(type(reason), name), **values)


def _newBucket() -> TokenBucket:
    return TokenBucket(1 / LINE_EVERY, LINES_BURST)


def printable(text: str) -> str:
    """
    Make text from outside safe for a log line: it cannot forge another line, and cannot
    control a terminal.

    @return: the text, cut to L{TEXT_LENGTH} characters, with backslash escapes for
        characters that are not printable.
    """
    if len(text) > TEXT_LENGTH:
        text = text[:TEXT_LENGTH] + "..."
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class CountedLog:
    """
    Logs lines that a peer can cause, each kind of line at most once in L{LINE_EVERY}
    seconds.  The C{count} in a line is the number of events since the line before it,
    including the event that it is logged for.

    @ivar _log: where the lines go.
    @ivar _clock: the reactor.
    @ivar _kinds: for each kind of line, when it was logged last, and how many events
        there have been since then.
    """

    def __init__(self, log: Logger | ThrottledLog, clock: IReactorTime) -> None:
        """
        @param log: where the lines go.
        @param clock: tells the time.
        """
        self._log = log
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}

    def warn(self, line: str, **values: object) -> None:
        """
        Log a line, or count it.

        @param line: a format for C{values} and C{count}, one of a few constants.
        """
        now = self._clock.seconds()
        loggedAt, count = self._kinds.get(line, (-inf, 0))
        count += 1
        if now - loggedAt >= LINE_EVERY:
            loggedAt = now
            self._log.warn(line, count=count, **values)
            count = 0
        self._kinds[line] = loggedAt, count


#: Returns the context of this thread.  Its C{callWithContext} makes fewer calls than
#: L{twisted.python.context.call}.
currentContext = theContextTracker.currentContext


def logPrefixOf(application: object) -> str:
    """
    @param application: a protocol or a factory.
    @return: its name in the log.
    """
    if ILoggingContext.providedBy(application):
        return application.logPrefix()
    return type(application).__name__


def logContextOf(protocol: object) -> dict[object, object] | None:
    """
    @param protocol: the protocol of a stream.
    @return: the context for calls into it: its log lines have its own prefix, not that
        of the carrier.  C{None} if its C{needsLogContext} is C{False}.
    """
    if not getattr(protocol, "needsLogContext", True):
        return None
    return _contextWith(logPrefixOf(protocol))


@lru_cache(maxsize=64)
def _contextWith(prefix: str) -> dict[object, object]:
    return {ILogContext: {"isError": 0, "system": prefix}}


def callInContext(
    protocol: object, function: Callable[..., object], *args: Any
) -> None:
    """
    Call a method of the protocol of a stream in the protocol's log context.
    """
    try:
        context = logContextOf(protocol)
    except BaseException:
        # The same error aborts the stream when its first input comes.
        context = None
    if context is None:
        function(*args)
    else:
        currentContext().callWithContext(context, function, *args)


def describeAddress(address: IAddress | None) -> str:
    """
    @return: an address as text for people, such as C{127.0.0.1:80}.
    """
    carrier = getattr(address, "carrier", None)
    if carrier is not None:
        streamID = getattr(address, "streamID", "?")
        return f"stream {streamID} of {describeAddress(carrier)}"
    host = getattr(address, "host", None)
    if host is not None:
        host = f"[{host}]" if ":" in host else host
        return printable(f"{host}:{getattr(address, 'port', '?')}")
    name = getattr(address, "name", address)
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    try:
        return printable(str(name)) if name else "a local peer"
    except Exception:
        # The text of an address from another package may fail.
        return "an unknown peer"
