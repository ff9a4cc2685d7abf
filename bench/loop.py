"""
A tunnel that is a limit: the frames and the cipher of this project in a bare loop over
an epoll, without windows, limits or transports.  What Python takes for a connection, no
tunnel in Python can take less.  With C{--reactor} the epoll is a reader of Twisted's
reactor, and then no tunnel in Twisted can.

    python -m bench.loop far HOST:PORT [--reactor]     # to the target
    python -m bench.loop near HOST:PORT [--reactor]    # to the far end
"""

from __future__ import annotations

import select
import socket
import sys
from struct import Struct
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

_OPEN, _DATA, _CLOSE_READ, _CLOSE = range(4)
_fields, _counter = Struct("<IIB"), Struct("<Q")
_PREFIX, _HEADER, _TAG = bytes(16), 33, 16


@implementer(IReadDescriptor)
class Loop:
    """
    One end of the tunnel.  It assumes that whatever it writes fits into the buffers of
    the kernel, so it is only good for small messages.
    """

    def __init__(
        self,
        carrier: socket.socket,
        listener: socket.socket | None,
        target: tuple[str, int] | None,
    ) -> None:
        """
        @param listener: accepts the connections, at the near end.
        @param target: where the connections lead, at the far end.
        """
        cipher = ChaCha20Poly1305(bytes(32))
        self._encrypt, self._decrypt = cipher.encrypt, cipher.decrypt
        self._carrier, self._listener, self._target = carrier, listener, target
        self._epoll = select.epoll()
        self.fileno = self._epoll.fileno
        self._epoll.register(carrier, select.EPOLLIN)
        if listener is not None:
            self._epoll.register(listener, select.EPOLLIN)
        #: The sockets by the IDs of their streams, and the other way round.
        self._sockets: dict[int, socket.socket] = {}
        self._streams: dict[int, int] = {}
        #: The streams of which one half is closed.
        self._halfClosed: set[int] = set()
        self._sealed = self._opened = 0
        self._rest = b""
        self._output: list[bytes] = []

    def serve(self, timeout: float) -> None:
        """
        Handle the events that there are.

        @param timeout: how long to wait for one, in seconds; -1 for any time.
        """
        carrier = self._carrier.fileno()
        for descriptor, _ in self._epoll.poll(timeout):
            if descriptor == carrier:
                data = self._carrier.recv(65536)
                if not data:
                    sys.exit()
                self._received(self._rest + data)
            elif descriptor in self._streams:
                self._read(self._streams[descriptor])
            elif self._listener and descriptor == self._listener.fileno():
                handle, _ = self._listener.accept()
                streamID = 2 * self._opened
                self._opened += 1
                self._send(streamID, _OPEN)
                self._add(handle, streamID)
                self._read(streamID)
        if self._output:
            self._carrier.sendall(b"".join(self._output))
            self._output.clear()

    # A reader of Twisted's reactor

    def doRead(self) -> None:
        self.serve(0)

    def logPrefix(self) -> str:
        return "loop"

    def connectionLost(self, reason: object) -> None:
        pass

    def _send(self, streamID: int, flag: int, payload: bytes = b"") -> None:
        counter = _counter.pack(self._sealed)
        self._sealed += 1
        header = _fields.pack(streamID, len(payload), flag) + _PREFIX + counter
        sealed = self._encrypt(b"\0\0\0\0" + counter, payload, header)
        self._output.append(header + sealed)

    def _received(self, data: bytes) -> None:
        at = 0
        while len(data) - at >= _HEADER + _TAG:
            header = data[at : at + _HEADER]
            streamID, size, flag = _fields.unpack_from(header)
            end = at + _HEADER + size + _TAG
            if end > len(data):
                break
            nonce = b"\0\0\0\0" + header[-8:]
            payload = self._decrypt(nonce, data[at + _HEADER : end], header)
            at = end
            if flag == _OPEN and self._target is not None:
                self._add(socket.create_connection(self._target), streamID)
            elif streamID in self._sockets:
                self._handle(streamID, flag, payload)
        self._rest = data[at:]

    def _handle(self, streamID: int, flag: int, payload: bytes) -> None:
        if flag == _DATA:
            self._sockets[streamID].send(payload)
        elif flag == _CLOSE:
            self._end(streamID)
        elif streamID in self._halfClosed:
            self._send(streamID, _CLOSE)
            self._end(streamID)
        else:
            self._halfClosed.add(streamID)
            self._sockets[streamID].shutdown(socket.SHUT_WR)

    def _add(self, handle: socket.socket, streamID: int) -> None:
        handle.setblocking(False)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets[streamID] = handle
        self._streams[handle.fileno()] = streamID
        self._epoll.register(handle, select.EPOLLIN)

    def _read(self, streamID: int) -> None:
        handle = self._sockets[streamID]
        try:
            data = handle.recv(65536)
        except BlockingIOError:
            return
        if data:
            self._send(streamID, _DATA, data)
        elif streamID in self._halfClosed:
            self._send(streamID, _CLOSE)
            self._end(streamID)
        else:
            self._halfClosed.add(streamID)
            self._epoll.unregister(handle)
            self._send(streamID, _CLOSE_READ)

    def _end(self, streamID: int) -> None:
        handle = self._sockets.pop(streamID)
        self._halfClosed.discard(streamID)
        del self._streams[handle.fileno()]
        handle.close()


def main() -> None:
    host, _, port = sys.argv[2].rpartition(":")
    address = host, int(port)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    isNear = sys.argv[1] == "near"
    if isNear:
        carrier = socket.create_connection(address)
    print("listening {}:{}".format(*listener.getsockname()), flush=True)
    if not isNear:
        carrier, _ = listener.accept()
    carrier.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    loop = Loop(carrier, listener if isNear else None, None if isNear else address)
    if "--reactor" in sys.argv:
        reactor: Any = _reactor
        reactor.addReader(loop)
        reactor.run()
    while True:
        loop.serve(-1)


if __name__ == "__main__":
    main()
