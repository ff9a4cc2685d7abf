"""
The independent peer of the live tests: threads and blocking sockets.

README.rst describes its command line, its output and the line protocol.
L{blocking_mux} has the mux, L{blocking_input} the reads of its applications, and
L{blocking_drivers} the drivers.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable

from interop.peers.blocking_drivers import Drivers
from interop.peers.blocking_input import Input, carry, inThread
from interop.peers.blocking_mux import ClosedHere, Mux, MuxError, PeerClosedMux, Stream
from interop.peers.blocking_strict import StrictMux
from interop.peers.peerlib import (
    DriverFailed,
    parseOptions,
    residentBytes,
    say,
    sayAddress,
    toLine,
)

CLOSE_TIMEOUT = 5.0


class Session:
    """
    One mux, and the state that its streams share.  C{command_x_y} serves the command
    C{x-y} of the line protocol; the stream is closed when it returns.

    @ivar down: Set once the C{mux down} line has been printed.
    @ivar _subjects: Streams with the command C{steps}, until a control stream takes
        them.
    @ivar _reports: Digests of the input of C{collect} streams.
    """

    def __init__(self, mux: Mux, options: Namespace) -> None:
        self.mux = mux
        self.down = threading.Event()
        self._options = options
        self._subjects: queue.SimpleQueue[Input] = queue.SimpleQueue()
        self._reports: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.drivers = Drivers(self)

    def run(self) -> bool:
        """
        Serve the streams that the peer opens until the mux ends.

        @return: Whether it ended gracefully.
        """
        serve = self._serve if self._options.target is None else self._connectTarget
        while True:
            try:
                stream = self.mux.acceptStream()
            except MuxError as e:
                say(f"mux down: {e}")
                self.down.set()
                if isinstance(e, ClosedHere):
                    # Exiting now might lose data in flight.
                    self.mux.linger()
                return isinstance(e, (ClosedHere, PeerClosedMux))
            inThread(serve, stream)

    def open(self, line: str) -> Input:
        """
        Open a stream, and send a command on it.
        """
        opened = self.openRaw()
        opened.writeLine(line)
        return opened

    def openRaw(self) -> Input:
        """
        Open a stream.
        """
        return Input(self.mux.openStream(), self._options)

    def _connectTarget(self, stream: Stream) -> None:
        try:
            connection = socket.create_connection(self._options.target)
        except OSError as e:
            print(f"target: {e}", file=sys.stderr)
            stream.close()
        else:
            carry(Input(stream, self._options), connection)

    def _serve(self, stream: Stream) -> None:
        """
        Serve one stream that the peer opened.
        """
        source = Input(stream, self._options)
        try:
            command, _, argument = source.readLine().partition(" ")
            if command == "steps":
                self._subjects.put(source)  # its control stream closes it
                return
            handler = getattr(self, "command_" + command.replace("-", "_"), None)
            if handler is None:
                raise DriverFailed(f"unknown command {command!r}")
            handler(source, *([argument] if argument else []))
        except (MuxError, DriverFailed) as e:
            if not isinstance(e, (ClosedHere, PeerClosedMux)):
                print(f"stream end {stream.number}: {e}", file=sys.stderr)
        stream.close()

    def _answer(self, source: Input, line: str) -> None:
        """
        Send one line, and wait until the opener closes the stream.
        """
        source.writeLine(line)
        for _ in source.readAll():
            pass

    def command_sink(self, source: Input, size: str) -> None:
        for _ in source.readChunks(int(size)):
            pass
        self._answer(source, "ok")

    def command_source(self, source: Input, size: str) -> None:
        source.writePattern(int(size))
        for _ in source.readAll():
            pass

    def command_close_after(self, source: Input, size: str) -> None:
        source.writePattern(int(size))

    def command_echo(self, source: Input) -> None:
        for data in source.readAll():
            source.stream.write(data)
        source.stream.closeWrite()

    def command_idle(self, source: Input) -> None:
        self._answer(source, "ok")

    def command_hash(self, source: Input) -> None:
        source.writeLine(source.digest())
        source.stream.closeWrite()

    def command_collect(self, source: Input) -> None:
        self._reports.put(source.digest())

    def command_report(self, source: Input) -> None:
        self._answer(source, self._reports.get())

    def command_rss(self, source: Input) -> None:
        self._answer(source, str(residentBytes()))

    def command_closemux(self, source: Input) -> None:
        self.mux.close()

    def command_open(self, source: Input, drive: str) -> None:
        self._answer(source, toLine(self.drivers.run(drive)))

    def command_control(self, control: Input) -> None:
        subject = self._subjects.get()
        try:
            while True:
                control.writeLine(self._step(subject, control.readLine()))
        except (MuxError, DriverFailed):
            subject.stream.close()  # the control stream ends with the test

    def _step(self, subject: Input, line: str) -> str:
        """
        Do one step on the stream of a control stream.

        @return: The answer to the control stream.
        """
        name, _, argument = line.partition(" ")
        steps: dict[str, Callable[[], None]] = {
            "closewrite": subject.stream.closeWrite,
            "closeread": subject.stream.closeRead,
            "close": subject.stream.close,
            "send": lambda: subject.writePattern(int(argument)),
            "read": lambda: subject.readPattern(int(argument)),
            "eof": subject.expectEnd,
            "write-fails": subject.expectWriteFails,
        }
        try:
            steps[name]()
        except (KeyError, MuxError, DriverFailed) as e:
            return f"failed: {e!r}"
        return "ok"


class Peer:
    """
    The program.

    @ivar _exit: A queue for the exit code; the signal handler uses it too.
    @ivar _sessions: The muxes that are up.
    """

    def __init__(self, options: Namespace) -> None:
        self._options = options
        self._exit: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._sessions: list[Session] = []
        self._driving = False

    def run(self) -> int:
        """
        Run until something asks the program to exit.

        @return: The exit code.
        """
        signal.signal(signal.SIGTERM, lambda *_: self._exit.put(0))
        options = self._options
        if options.forward is not None:
            forwarder = self._bind("forwarding", options.forward)
            inThread(self._accept, forwarder, self._forward)
        if options.listen is not None:
            listener = self._bind("listening", options.listen)
            inThread(self._accept, listener, lambda c: self._serve(c, False))
        else:
            try:
                connection = socket.create_connection(options.connect)
            except OSError as e:
                print(f"connect: {e}", file=sys.stderr)
                return 1
            inThread(self._serve, connection, True)
        code = self._exit.get()
        closing = [inThread(session.mux.close) for session in self._up()]
        deadline = time.monotonic() + CLOSE_TIMEOUT
        for thread in closing:
            thread.join(max(0.0, deadline - time.monotonic()))
        return code

    def _bind(self, word: str, address: tuple[str, int]) -> socket.socket:
        listener = socket.create_server(address, backlog=128)
        sayAddress(word, listener.getsockname())
        return listener

    def _accept(
        self, listener: socket.socket, handle: Callable[[socket.socket], object]
    ) -> None:
        while True:
            inThread(handle, listener.accept()[0])

    def _up(self) -> list[Session]:
        with self._lock:
            return list(self._sessions)

    def _serve(self, connection: socket.socket, isClient: bool) -> None:
        """
        Run a mux on a new connection.  The first mux also runs the drivers.
        """
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = Session(self._makeMux(connection, isClient), self._options)
        with self._lock:
            self._sessions.append(session)
            drives = bool(self._options.drive) and not self._driving
            self._driving = self._driving or drives
        say("mux up")
        if drives:
            inThread(self._drive, session)
        graceful = session.run()
        with self._lock:
            self._sessions.remove(session)
        if isClient and not drives:
            self._exit.put(0 if graceful else 1)

    def _makeMux(self, connection: socket.socket, isClient: bool) -> Mux:
        options = self._options
        if options.strict:
            return StrictMux(connection, options.psk, isClient, options.context)
        return Mux(connection, options.psk, isClient)

    def _drive(self, session: Session) -> None:
        code = 0
        for line in self._options.drive:
            result = session.drivers.run(line)
            say(toLine(result))
            if not result["ok"]:
                code = 1
            if result.get("held"):
                sys.stdin.readline()
        session.mux.close()
        session.down.wait(CLOSE_TIMEOUT)
        self._exit.put(code)

    def _forward(self, connection: socket.socket) -> None:
        """
        Carry a connection as a stream; the muxes take turns.
        """
        with self._lock:
            session = self._sessions[0] if self._sessions else None
            self._sessions = self._sessions[1:] + self._sessions[:1]
        try:
            if session is not None:
                carry(session.openRaw(), connection)
        except MuxError as e:
            print(f"forward: {e}", file=sys.stderr)
        connection.close()


if __name__ == "__main__":
    code = Peer(parseOptions(sys.argv[1:])).run()
    sys.stdout.flush()
    os._exit(code)  # do not wait for threads that are still blocked
