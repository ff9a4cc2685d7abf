"""
Captures of TCP connections in the pcap format, made without any privileges, and what
tshark sees in them.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Collection
from itertools import count
from typing import Any

from twisted.internet import reactor
from twisted.protocols.portforward import (
    ProxyClient,
    ProxyClientFactory,
    ProxyFactory,
    ProxyServer,
)

from interop.support.harness import ROOT
from interop.support.tunnels import run

DISSECTOR = os.path.join(ROOT, "contrib", "gomux.lua")

#: What a side has written, in the order of writing: whether it is the client, and the
#: bytes.
Writes = list[tuple[bool, bytes]]

_RAW_IP = 101
_HOSTS = (bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
_SYN, _ACK, _PUSH = 2, 16, 8


class Capture:
    """
    A file with the packets of connections.

    @ivar path: The path of the file.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._file = open(path, "wb")
        self._file.write(
            struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, _RAW_IP)
        )
        self._ports = 40000
        self._packets = 0

    def add(
        self,
        writes: Writes,
        port: int = 7000,
        size: int = 1448,
        snap: int = 65535,
        synchronized: bool = True,
        lost: Collection[int] = (),
    ) -> None:
        """
        Add a connection.

        @param port: The port of the server.
        @param size: The most bytes of data in a packet.
        @param snap: The most bytes of a packet that are captured.
        @param synchronized: Whether the capture has the packets with SYN.
        @param lost: The numbers of the packets with data that are not captured.
        """
        self._ports += 1
        next_ = {True: 1, False: 1}

        def packet(isClient: bool, flags: int, data: bytes = b"") -> None:
            ports = (self._ports, port) if isClient else (port, self._ports)
            host, peer = _HOSTS if isClient else reversed(_HOSTS)
            sequence = next_[isClient] - bool(flags & _SYN)
            acknowledged = next_[not isClient] if flags & _ACK else 0
            header = struct.pack(
                ">BBHHHBBH4s4sHHIIBBHHH",
                *(0x45, 0, 40 + len(data), 0, 0, 64, 6, 0, host, peer),
                *(*ports, sequence, acknowledged, 0x50, flags, 65535, 0, 0),
            )
            next_[isClient] += len(data)
            if next(numbers) not in lost:
                self._write((header + data)[:snap], len(header) + len(data))

        numbers = count(-3)  # not the packets without data
        if synchronized:
            packet(True, _SYN)
            packet(False, _SYN | _ACK)
            packet(True, _ACK)
        numbers = count()
        for isClient, data in writes:
            for at in range(0, len(data), size):
                packet(isClient, _PUSH | _ACK, data[at : at + size])

    def _write(self, packet: bytes, size: int) -> None:
        self._packets += 1
        time = divmod(self._packets, 1000)
        self._file.write(struct.pack("<IIII", *time, len(packet), size) + packet)

    async def tshark(self, *options: str) -> str:
        """
        @return: The output of tshark with the dissector.
        """
        self._file.close()
        command = ("tshark", "-X", f"lua_script:{DISSECTOR}", "-r", self.path)
        output, errors, status = await run(*command, *options)
        # As root, tshark says that this is dangerous.
        lines = [line for line in errors.splitlines() if b"root" not in line]
        assert (lines, status) == ([], 0), errors.decode()
        return output.decode()

    async def frames(self, *options: str) -> list[dict[str, Any]]:
        """
        @return: The frames of gomux in the order of the packets, as tshark shows them.
            C{from} is the port of the sender, and C{connection} the number of the
            connection.
        """
        output = await self.tshark(
            *("-T", "json", "--no-duplicate-keys", "-J", "gomux tcp", *options)
        )
        found = []
        for packet in json.loads(output):
            layers = packet["_source"]["layers"]
            tcp = layers["tcp"]
            frames = layers.get("gomux", [])
            for frame in frames if isinstance(frames, list) else [frames]:
                frame["from"] = int(tcp["tcp.srcport"])
                frame["connection"] = int(tcp["tcp.stream"])
                found.append(frame)
        return found


class RecordingProxy(ProxyFactory):
    """
    Passes connections on to a server of this machine, and records them.

    @ivar recorded: What was written on each connection.
    """

    noisy = False

    def __init__(self, port: int) -> None:
        """
        @param port: The port of the server.
        """
        super().__init__("127.0.0.1", port)
        self.recorded: list[Writes] = []
        self.listening = reactor.listenTCP(0, self, interface="127.0.0.1")

    def buildProtocol(self, addr: object) -> _Near:
        writes: Writes = []
        self.recorded.append(writes)
        near = _Near(writes)
        near.factory = self
        return near


class _Far(ProxyClient):
    def dataReceived(self, data: bytes) -> None:
        self.peer.writes.append((False, data))
        super().dataReceived(data)


class _FarFactory(ProxyClientFactory):
    noisy = False
    protocol = _Far


class _Near(ProxyServer):
    clientProtocolFactory = _FarFactory

    def __init__(self, writes: Writes) -> None:
        self.writes = writes

    def dataReceived(self, data: bytes) -> None:
        self.writes.append((True, data))
        super().dataReceived(data)
