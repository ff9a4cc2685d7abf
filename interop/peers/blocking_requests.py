"""
Streams that begin with a request, on top of L{interop.peers.blocking_greeting}.  It
follows C{docs/protocol.rst} alone.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Collection
from typing import Any

from interop.peers.blocking_greeting import GreetingMux
from interop.peers.blocking_mux import HEADER, Flag, MuxError, Stream

REQUEST = 1
MOST = 4096
GREET_TIMEOUT = 5.0
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Refused(MuxError):
    """
    The peer refused a request.

    @ivar code: The code of its answer.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def encode(members: dict[str, object]) -> bytes:
    """
    @return: The message with some members.
    """
    text = json.dumps(members).encode("utf-8")
    return len(text).to_bytes(2, "little") + text


def readMessage(stream: Stream) -> dict[str, Any]:
    """
    Read the message at the start of a direction.

    @raise MuxError: If it is not complete or not valid.
    """
    size = int.from_bytes(readExactly(stream, 2), "little")
    if size > MOST:
        raise MuxError(f"a message has {size} bytes")
    try:
        members = json.loads(readExactly(stream, size).decode("utf-8"))
    except ValueError as e:
        raise MuxError(f"a message is malformed: {e}") from None
    if not isinstance(members, dict):
        raise MuxError("a message is no object")
    return members


def readExactly(stream: Stream, size: int) -> bytes:
    """
    @raise MuxError: If the stream ends before.
    """
    data = b""
    while len(data) < size:
        piece = stream.read(size - len(data))
        if not piece:
            raise MuxError("a message is cut")
        data += piece
    return data


class RequestMux(GreetingMux):
    """
    A mux with services.

    @ivar names: The service of each stream that the peer opened for one, by its ID.
    """

    def __init__(
        self,
        connection: socket.socket,
        psk: str,
        isClient: bool,
        services: Collection[str] = (),
    ) -> None:
        self.names: dict[int, str] = {}
        self._services = services
        self._first = threading.Event()
        super().__init__(connection, psk, isClient)

    def openService(self, name: str) -> Stream:
        """
        Open a stream for a service, and wait for the answer.

        @raise Refused: If the peer refuses it.
        @raise MuxError: If the peer knows no requests, or sends no valid answer.
        """
        stream = self.openRequest()
        stream.write(encode({"service": name}))
        answer = readMessage(stream)
        if answer.get("ok") is not True:
            stream.close()
            raise Refused(str(answer["error"]))
        return stream

    def openRequest(self) -> Stream:
        """
        Open a stream whose first data will be a request.

        @raise MuxError: If the peer knows no requests.
        """
        if not self._first.wait(GREET_TIMEOUT) or self._peersNonce is None:
            raise MuxError("the peer knows no requests")
        with self._lock:
            stream = Stream(self, self._nextNumber)
            self._nextNumber += 2
            self._streams[stream.number] = stream
        self._send(stream.number, Flag.OPEN_STREAM, length=REQUEST)
        return stream

    def _readFrame(self, read: Callable[[int], bytes]) -> None:
        headers: list[bytes] = []

        def note(size: int) -> bytes:
            data = read(size)
            headers.append(data)
            return data

        self._headers = headers
        super()._readFrame(note)
        self._first.set()

    def _opened(self, stream: Stream) -> None:
        if HEADER.unpack(self._headers[0])[1] != REQUEST:
            super()._opened(stream)
            return
        with self._lock:
            self._streams[stream.number] = stream
        threading.Thread(target=self._accept, args=(stream,), daemon=True).start()

    def _accept(self, stream: Stream) -> None:
        """
        Answer the request of a stream, and queue the stream if it is accepted.
        """
        try:
            request = readMessage(stream)
            if ("service" in request) == ("connect" in request):
                raise MuxError("a request is malformed")
            name = request.get("service", "")
            if "service" in request and not NAME.fullmatch(name):
                raise MuxError("a request is malformed")
        except (MuxError, TypeError):
            # Announce an abort.
            self._send(stream.number, Flag.WINDOW_UPDATE)
            stream.close()
            return
        if name not in self._services:
            stream.write(encode({"error": "unknown" if name else "not-allowed"}))
            stream.close()
            return
        self.names[stream.number] = name
        stream.write(encode({"ok": True}))
        with self._lock:
            self._accepted.append(stream)
            self._lock.notify_all()
