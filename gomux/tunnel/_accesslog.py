# -*- test-case-name: gomux.test.tunnel.test_accesslog -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The access log: one JSON line for each connection that has ended.

A connection never waits for its line.  Lines are kept until the next turn of the
reactor, and then written together.  What cannot be written, because the disk is full or
nobody reads the pipe, is kept for another attempt.  If too much is kept, new lines are
lost, and the log says how many.

A write to a regular file is taken not to block.  Anything else, such as a pipe or a
terminal, gets as much as it can take without blocking.
"""

from __future__ import annotations

import json
import os
import select
import stat
from datetime import datetime, timezone
from math import inf
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from gomux._carrier.clock import steady
from gomux._mux.log import describeAddress, logPrefixOf, printable
from gomux._mux.startstop import startFactory, stopFactories
from gomux.error import RequestRefused
from gomux.limits import ACCESS_LOG_RETRY, ACCESS_LOG_WAITING, LINE_EVERY
from gomux.tunnel._codes import OK, codeOfEnd

_log = Logger()

#: The path that stands for the standard output.
STANDARD_OUTPUT = "-"

#: The descriptor of the standard output.
_OUTPUT = 1

# O_NONBLOCK: to open a pipe that nobody reads is an error.
_FLAGS = (
    os.O_WRONLY
    | os.O_APPEND
    | os.O_CREAT
    | os.O_CLOEXEC
    | os.O_NONBLOCK
    | getattr(os, "O_NOCTTY", 0)
)


class AccessLog:
    """
    Writes a line for each connection that has ended.

    @ivar path: the path of the file, or L{STANDARD_OUTPUT}.
    @ivar _clock: the reactor.
    @ivar _descriptor: the open file; C{None} while it is closed.
    @ivar _isFile: whether that is a regular file.
    @ivar _waiting: the lines that are not written yet.
    @ivar _isTorn: whether the first of them is the rest of a line.
    @ivar _writing: the delayed call of the next write; C{None} if none is due.
    @ivar _isAtOnce: whether lines are written at once, because the process may end.
    @ivar _lost: how many lines were lost since that was last logged.
    @ivar _toldAt: when it was last logged that lines cannot be written, in seconds.
    """

    def __init__(self, path: str, clock: Any) -> None:
        """
        @param path: the path of the file, or L{STANDARD_OUTPUT}.
        @param clock: the reactor.
        """
        # The process may change its directory.
        self.path = path if path == STANDARD_OUTPUT else os.path.abspath(path)
        self._clock = clock
        self._descriptor: int | None = None
        self._isFile = False
        self._waiting = bytearray()
        self._isTorn = False
        self._writing: IDelayedCall | None = None
        self._isAtOnce = False
        self._lost = 0
        self._toldAt = -inf

    # The file

    def open(self) -> None:
        """
        Open the file.  If it is open already, write what waits, and open the file that
        has its path now.

        @raise OSError: if it cannot be opened.  What is open stays open.
        """
        if self.path == STANDARD_OUTPUT:
            descriptor = _openOutput()
        else:
            descriptor = os.open(self.path, _FLAGS, 0o600)
        self.close()
        if self._isTorn:
            # The new file does not have the start of this line.
            del self._waiting[: self._waiting.index(b"\n") + 1]
            self._isTorn = False
        self._descriptor = descriptor
        self._isFile = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._isAtOnce = False
        if self._waiting:
            self._writeLater(0)

    def move(self, path: str) -> None:
        """
        Go on in another file.

        @param path: as for L{__init__}.
        @raise OSError: if it cannot be opened.  Then the log goes on in the old file.
        """
        old, self.path = self.path, path
        try:
            self.open()
        except OSError:
            self.path = old
            raise

    def reopen(self) -> None:
        """
        The file may have been moved away: open it again, and log if that fails.
        """
        try:
            self.open()
        except OSError as error:
            _log.error(
                "the access log goes on in the old file: {path}: {error}",
                path=self.path,
                error=error.strerror,
            )

    def finish(self) -> None:
        """
        The process may end soon: write each line at once from now on.
        """
        self._isAtOnce = True
        self._write()

    def close(self) -> None:
        """
        Write what waits, as far as possible, and close the file.
        """
        if self._descriptor is not None:
            self._write()
            os.close(self._descriptor)
            self._descriptor = None
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    # Lines

    def add(
        self,
        service: str | None,
        peer: str | None,
        client: str | None,
        target: str | None,
        received: int,
        sent: int,
        seconds: float,
        end: str,
        reason: str | None,
    ) -> None:
        """
        A connection has ended: write its line.

        @param service: the service; C{None} for none.
        @param peer: the name of the peer; empty or C{None} if it has no name.
        @param client: where the connection came from, as L{addressOf} has it.
        @param target: where it went to.
        @param received: how many bytes came from the client.
        @param sent: how many bytes were sent to the client.
        @param seconds: how long the connection lasted.
        @param end: how it has ended: see L{gomux.tunnel._codes.Ending}.
        @param reason: why; C{None} if there is no more to say.
        """
        now = datetime.now(timezone.utc)
        line = {
            "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "service": service,
            "peer": peer or None,
            "client": client,
            "target": target,
            "received": received,
            "sent": sent,
            "seconds": round(seconds, 3),
            "end": end,
            "reason": None if reason is None else printable(reason),
        }
        data = json.dumps(line).encode() + b"\n"
        if len(self._waiting) + len(data) > ACCESS_LOG_WAITING:
            self._lost += 1
            return
        self._waiting += data
        if self._isAtOnce:
            self._write()
        elif self._writing is None:
            self._writeLater(0)

    def _writeLater(self, seconds: float) -> None:
        self._writing = self._clock.callLater(seconds, self._writeNow)

    def _writeNow(self) -> None:
        self._writing = None
        self._write()
        if self._waiting and self._descriptor is not None:
            self._writeLater(ACCESS_LOG_RETRY)

    def _write(self) -> None:
        """
        Write as much of what waits as is possible now.
        """
        waiting, descriptor = self._waiting, self._descriptor
        if descriptor is None:
            return
        error = "nobody reads it"
        try:
            while waiting and self._mayWrite(descriptor):
                size = len(waiting) if self._isFile else select.PIPE_BUF
                written = os.write(descriptor, bytes(waiting[:size]))
                self._isTorn = waiting[written - 1 : written] != b"\n"
                del waiting[:written]
        except OSError as failed:
            error = failed.strerror or str(failed)
        if waiting or self._lost:
            self._tell(error)

    def _mayWrite(self, descriptor: int) -> bool:
        """
        @return: whether a write of up to C{PIPE_BUF} bytes does not block now.
        """
        if self._isFile:
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(0))

    def _tell(self, error: str) -> None:
        """
        Log that lines cannot be written, at most once in L{LINE_EVERY} seconds.
        """
        now = self._clock.seconds()
        if now - self._toldAt >= LINE_EVERY:
            self._toldAt = now
            _log.warn(
                "the access log {path} cannot be written: {error}; {size} bytes wait,"
                " {lost} lines were lost",
                path=self.path,
                error=error,
                size=len(self._waiting),
                lost=self._lost,
            )
            self._lost = 0


def _openOutput() -> int:
    """
    @return: a descriptor for the standard output.
    """
    if os.isatty(_OUTPUT):
        # A terminal that can take a byte may make a larger write wait.  So it is opened
        # by itself: others may write to the descriptor that this process was given, and
        # do not expect that not to block.
        try:
            return os.open(os.ttyname(_OUTPUT), _FLAGS & ~os.O_CREAT)
        except OSError:
            # It belongs to another user.
            pass
    return os.dup(_OUTPUT)


def describe(address: IAddress | None) -> str:
    """
    @return: an address as text: C{host:port}, or C{unix:PATH}.  That of a stream is its
        carrier's.
    """
    carrier = getattr(address, "carrier", None)
    if carrier is not None:
        return describe(carrier)
    if isinstance(address, UNIXAddress):
        return "unix:" + os.fsdecode(address.name or b"")
    return describeAddress(address)


def addressOf(transport: Any) -> str | None:
    """
    @return: the address of the other end of a transport; C{None} if the transport was
        never connected, or has no address.
    """
    try:
        return describe(transport.getPeer())
    except Exception:
        # Those of processes raise NotImplementedError.
        return None


class LoggedFactory(Factory):
    """
    A factory of streams that writes a line for each.

    @ivar _factory: makes the protocols.
    @ivar _service: the service that the streams are for; C{None} for none.
    @ivar _accessLog: gets the lines.
    @ivar _clock: tells the time.
    """

    noisy = False

    def __init__(
        self, factory: Any, service: str | None, accessLog: AccessLog, clock: Any
    ) -> None:
        """
        @param factory: makes the protocols.
        @param service: the service that the streams are for; C{None} for none.
        @param accessLog: gets the lines.
        @param clock: tells the time.
        """
        self._factory = factory
        self._service = service
        self._accessLog = accessLog
        self._clock = steady(clock)

    def doStart(self) -> None:
        """
        Start the factory.
        """
        startFactory(self._factory)

    def doStop(self) -> None:
        """
        Stop the factory.
        """
        stopFactories([self._factory])

    def logPrefix(self) -> str:
        """
        @return: the factory's log prefix.
        """
        return logPrefixOf(self._factory)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        @return: the protocol of a stream; C{None} to refuse the stream.
        """
        try:
            protocol = self._factory.buildProtocol(addr)
        except RequestRefused as error:
            self._add(addr, None, 0.0, error.code, error.reason)
            raise
        if protocol is None:
            self._add(addr, None, 0.0, "refused", None)
        else:
            self._follow(protocol, addr)
        return protocol

    def _follow(self, protocol: Any, addr: IAddress | None) -> None:
        """
        Write a line once a protocol's C{connectionLost} is called.
        """
        beganAt = self._clock.seconds()
        lost = protocol.connectionLost

        def connectionLost(reason: Failure = connectionDone) -> None:
            seconds = self._clock.seconds() - beganAt
            code = codeOfEnd(reason)
            why = None if code == OK else reason.getErrorMessage()
            transport = getattr(protocol, "transport", None)
            self._add(addr, transport, seconds, code, why)
            lost(reason)

        protocol.connectionLost = connectionLost

    def _add(
        self,
        addr: IAddress | None,
        transport: Any,
        seconds: float,
        code: str,
        reason: object,
    ) -> None:
        self._accessLog.add(
            *(self._service, getattr(addr, "peerName", None), describe(addr), None),
            getattr(transport, "bytesReceived", 0),
            getattr(transport, "bytesSent", 0),
            *(seconds, code, None if reason is None else str(reason)),
        )
