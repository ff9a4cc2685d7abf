"""
A tunnel that is a limit: the frames and the cipher of this project in a bare loop over
an epoll, without windows, limits or a reactor.  What Python takes for a connection, no
tunnel in Python can take less.

    python -m bench.loop far HOST:PORT     # to the target
    python -m bench.loop near HOST:PORT    # to the far end
"""

from __future__ import annotations

import select
import socket
import sys
from struct import Struct

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

_OPEN, _DATA, _CLOSE_READ, _CLOSE = range(4)
_fields, _counter = Struct("<IIB"), Struct("<Q")
_PREFIX, _HEADER, _TAG = bytes(16), 33, 16


class Loop:
    """
    One end of the tunnel.  It assumes that whatever it writes fits into the buffers of
    the kernel, so it is only good for small messages.
    """

    def __init__(self, carrier: socket.socket) -> None:
        cipher = ChaCha20Poly1305(bytes(32))
        self._encrypt, self._decrypt = cipher.encrypt, cipher.decrypt
        self._carrier = carrier
        self._epoll = select.epoll()
        self._epoll.register(carrier, select.EPOLLIN)
        #: The sockets by the IDs of their streams, and the other way round.
        self._sockets: dict[int, socket.socket] = {}
        self._streams: dict[int, int] = {}
        #: The streams of which one half is closed.
        self._halfClosed: set[int] = set()
        self._sealed = self._opened = 0
        self._rest = b""
        self._output: list[bytes] = []

    def run(
        self, listener: socket.socket | None, target: tuple[str, int] | None
    ) -> None:
        """
        Serve until the carrier is gone.

        @param listener: accepts the connections.
        @param target: where the connections lead.
        """
        carrier, port = self._carrier.fileno(), -1
        if listener is not None:
            port = listener.fileno()
            self._epoll.register(port, select.EPOLLIN)
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == carrier:
                    data = self._carrier.recv(65536)
                    if not data:
                        return
                    self._received(self._rest + data, target)
                elif descriptor == port and listener is not None:
                    handle, _ = listener.accept()
                    streamID = 2 * self._opened
                    self._opened += 1
                    self._send(streamID, _OPEN)
                    self._add(handle, streamID)
                    self._read(streamID)
                elif descriptor in self._streams:
                    self._read(self._streams[descriptor])
            if self._output:
                self._carrier.sendall(b"".join(self._output))
                self._output.clear()

    def _send(self, streamID: int, flag: int, payload: bytes = b"") -> None:
        counter = _counter.pack(self._sealed)
        self._sealed += 1
        header = _fields.pack(streamID, len(payload), flag) + _PREFIX + counter
        sealed = self._encrypt(b"\0\0\0\0" + counter, payload, header)
        self._output.append(header + sealed)

    def _received(self, data: bytes, target: tuple[str, int] | None) -> None:
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
            if flag == _OPEN and target is not None:
                self._add(socket.create_connection(target), streamID)
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
    if isNear:
        Loop(carrier).run(listener, None)
    else:
        Loop(carrier).run(None, address)


if __name__ == "__main__":
    main()
