"""
In place of a service manager: the notifications of C{twistd gomux}.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from interop.support.tunnels import until


class Manager:
    """
    Gets the notifications of one process.

    @ivar path: the socket's path, for C{NOTIFY_SOCKET}.
    @ivar lines: the lines that have come.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / f"notify{len(os.listdir(directory))}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.setblocking(False)
        self.lines: list[str] = []

    def receive(self) -> list[str]:
        """
        @return: the lines that have come so far.
        """
        try:
            while True:
                self.lines += self.socket.recv(4096).decode().split("\n")
        except BlockingIOError:
            return self.lines

    async def wait(self, line: str) -> None:
        """
        Wait until a line has come.
        """
        await until(lambda: line in self.receive(), line)

    @property
    def muxes(self) -> int:
        """
        How many muxes the process has, by its last status.
        """
        found = re.findall(r"STATUS=(\d+) muxes", "\n".join(self.receive()))
        return int(found[-1]) if found else 0

    def close(self) -> None:
        self.socket.close()
