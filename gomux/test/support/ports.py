"""
Port numbers for programs that a test starts.
"""

from __future__ import annotations

import random
import socket


def freePort() -> int:
    """
    @return: a free port of 127.0.0.1.  It is none of those that the kernel gives to
        clients: one of them could take it before the program that is started.
    """
    while True:
        port = random.randrange(10000, 32768)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
