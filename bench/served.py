"""
The server of C{python -m bench.bystander}: a part of the line protocol, for
C{twistd gomux --factory bench.served.Served}.
"""

from __future__ import annotations

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol

from bench.load import CHUNK


class Command(Protocol):
    """
    Serves one stream with the command in its first line.
    """

    _line: bytes | None = b""

    def dataReceived(self, data: bytes) -> None:
        line, end, rest = ((self._line or b"") + data).partition(b"\n")
        if not end:
            self._line = line
            return
        self._line = None
        if line == b"echo":
            self.transport.registerProducer(self.transport, True)
            self.dataReceived = self.transport.write  # type: ignore[method-assign]
        elif line == b"source":
            self.dataReceived = self._ignore  # type: ignore[method-assign]
            self.transport.registerProducer(self, False)
        else:
            self.dataReceived = self._ignore  # type: ignore[method-assign]
        if rest:
            self.dataReceived(rest)

    def _ignore(self, data: bytes) -> None:
        """
        Drop input, for a sink.
        """

    # The producer of a source

    def resumeProducing(self) -> None:
        """
        Write more data; a source never ends.
        """
        self.transport.write(CHUNK)

    def stopProducing(self) -> None:
        """
        Do nothing: the stream has ended.
        """


class Served(Factory):
    """
    Makes a L{Command} for each stream.
    """

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return Command()
